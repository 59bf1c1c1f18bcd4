"""Inception v3 (Szegedy et al., 2015), https://arxiv.org/abs/1512.00567.

This is the network of all published weights, which is not quite the paper's: the second branch of
figure 5 keeps its 5x5 convolution, and the stem is not that of table 1 (`STEM`). Stages bear the
names of the authors' code, as the paper gives them none.
"""

from dataclasses import replace

from ..context import TORCH, Context
from ..layers import AvgPool, Conv, Dropout, GlobalAvgPool, MaxPool, Network, Row, Table, branches
from ..variant import Paper, Variant

PAPER = Paper(
    "Rethinking the Inception Architecture for Computer Vision",
    "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
    2015,
    "https://arxiv.org/abs/1512.00567",
    new="Factorised convolutions: two 3x3 for a 5x5, 1x7 and 7x1 for a 7x7; a strided convolution "
    "beside a pool where the image shrinks; label smoothing; batch norm in the auxiliary "
    "classifier.",
)


def pool_conv(features: int) -> Table:
    """The branch that pools."""
    return dict(pool=AvgPool(3, 1), conv=Conv(1, features))


def split(features: int) -> Row:
    """The two ends of a branch in figure 7: 1x3 and 3x1 side by side."""
    return branches(
        conv1x3=dict(conv=Conv((1, 3), features)),
        conv3x1=dict(conv=Conv((3, 1), features)),
    )


def figure_5(conv1: int, reduce5: int, conv5: int, reduce3: int, conv3: int, pool: int) -> Row:
    """35x35: the last branch of convolutions has two 3x3 in place of a 5x5."""
    return branches(
        conv1x1=dict(conv=Conv(1, conv1)),
        conv5x5=dict(reduce=Conv(1, reduce5), conv=Conv(5, conv5)),  # figure 5: two 3x3
        double3x3=dict(reduce=Conv(1, reduce3), conv1=Conv(3, conv3), conv2=Conv(3, conv3)),
        pool=pool_conv(pool),
    )


def figure_6(reduce: int, features: int) -> Row:
    """17x17: 7x7 convolutions factorised into 1x7 and 7x1."""
    return branches(
        conv1x1=dict(conv=Conv(1, features)),
        conv7x7=dict(
            reduce=Conv(1, reduce), conv1=Conv((1, 7), reduce), conv2=Conv((7, 1), features)
        ),
        double7x7=dict(
            reduce=Conv(1, reduce),
            conv1=Conv((7, 1), reduce),
            conv2=Conv((1, 7), reduce),
            conv3=Conv((7, 1), reduce),
            conv4=Conv((1, 7), features),
        ),
        pool=pool_conv(features),
    )


def figure_7(conv1: int, conv3: int, reduce: int, pool: int) -> Row:
    """8x8: filter banks made wider, not deeper."""
    return branches(
        conv1x1=dict(conv=Conv(1, conv1)),
        conv3x3=dict(reduce=Conv(1, conv3), split=split(conv3)),
        double3x3=dict(reduce=Conv(1, reduce), conv=Conv(3, conv3), split=split(conv3)),
        pool=pool_conv(pool),
    )


def reduction_a(k: int, l: int, m: int, n: int) -> Row:  # noqa: E741
    """35x35 to 17x17 (figure 10); the letters are those of Inception v4's table 1."""
    return branches(
        conv3x3=dict(conv=Conv(3, n, stride=2, padding="valid")),
        double3x3=dict(
            reduce=Conv(1, k), conv1=Conv(3, l), conv2=Conv(3, m, stride=2, padding="valid")
        ),
        pool=dict(pool=MaxPool(3, 2, padding="valid")),
    )


def reduction_b(conv7: int, conv3: int) -> Row:
    """17x17 to 8x8."""
    return branches(
        conv3x3=dict(reduce=Conv(1, conv7), conv=Conv(3, conv3, stride=2, padding="valid")),
        conv7x7=dict(
            reduce=Conv(1, conv7),
            conv1=Conv((1, 7), conv7),
            conv2=Conv((7, 1), conv7),
            conv3=Conv(3, conv7, stride=2, padding="valid"),
        ),
        pool=dict(pool=MaxPool(3, 2, padding="valid")),
    )


# fmt: off
# Table 1 has 3x3 convolutions to 80, 192 (stride 2) and 288 channels after the first pool.
STEM: Table = dict(
    conv1a=Conv(3, 32, stride=2, padding="valid"),       # 149x149
    conv2a=Conv(3, 32, padding="valid"),                 # 147x147
    conv2b=Conv(3, 64),
    pool3a=MaxPool(3, 2, padding="valid"),               # 73x73
    conv3b=Conv(1, 80),
    conv4a=Conv(3, 192, padding="valid"),                # 71x71
    pool5a=MaxPool(3, 2, padding="valid"),               # 35x35
)

TABLE_1: Table = dict(
    **STEM,
    #                1x1 5x5r  5x5 3x3r  3x3 pool
    mixed5b=figure_5( 64,  48,  64,  64,  96,  32),      # 35x35x256
    mixed5c=figure_5( 64,  48,  64,  64,  96,  64),      # 35x35x288
    mixed5d=figure_5( 64,  48,  64,  64,  96,  64),
    #                     k    l    m    n
    mixed6a=reduction_a( 64,  96,  96, 384),             # 17x17x768
    #               7x7r each
    mixed6b=figure_6(128, 192),
    mixed6c=figure_6(160, 192),
    mixed6d=figure_6(160, 192),
    mixed6e=figure_6(192, 192),
    #                   7x7  3x3
    mixed7a=reduction_b(192, 320),                       # 8x8x1280
    #                1x1  3x3 3x3r pool
    mixed7b=figure_7(320, 384, 448, 192),                # 8x8x2048
    mixed7c=figure_7(320, 384, 448, 192),
)

# Figure 8. The peers' pool and 5x5 convolution, without padding, turn 17x17 into 5x5 and 1x1. So
# does "ceil", which also leaves at least a pixel of a smaller image.
AUX: Table = dict(
    pool=AvgPool(5, 3, padding="ceil"),                  # 5x5x768
    reduce=Conv(1, 128),                                 # 5x5x128
    conv=Conv(5, 768, padding="ceil"),                   # 1x1x768
    flatten=GlobalAvgPool(),
)
# fmt: on

# The paper names no dropout; torchvision drops 0.5, slim 0.2.
HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.5))


def inception_v3(ctx: Context) -> Network:
    """Inception v3, with its auxiliary classifier."""
    return Network(TABLE_1, HEAD, ctx, min_size=75, aux=dict(mixed6e=AUX))


VARIANTS = [
    Variant(
        "inception_v3",
        inception_v3,
        PAPER,
        input_size=299,
        numerics=replace(TORCH, bn_epsilon=1e-3),
    ),
]
