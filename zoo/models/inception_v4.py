"""Inception v4 (Szegedy et al., 2016), https://arxiv.org/abs/1602.07261, figures 3 to 9.

Where 1x7 and 7x1 (1x3 and 3x1) follow each other, their order is that of the published weights.
"""

from dataclasses import replace

from ..context import TORCH, Context
from ..layers import (
    Conv,
    Dropout,
    GlobalAvgPool,
    MaxPool,
    Network,
    Row,
    Sequence,
    Table,
    branches,
)
from ..variant import Paper, Variant
from .inception_v3 import AUX, pool_conv, reduction_a, split

PAPER = Paper(
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "Szegedy, Ioffe, Vanhoucke, Alemi",
    2016,
    "https://arxiv.org/abs/1602.07261",
    new="A deeper and more uniform Inception (v4), and Inception modules as the branches of "
    "residual blocks (Inception-ResNet), which train faster; residuals are scaled down to "
    "keep training stable.",
)

# Figure 3: its three joins. Layers that shrink the image are unpadded ("V").
STEM_3A = branches(
    pool=dict(pool=MaxPool(3, 2, padding="valid")),
    conv3x3=dict(conv=Conv(3, 96, stride=2, padding="valid")),
)
STEM_4A = branches(
    conv3x3=dict(reduce=Conv(1, 64), conv=Conv(3, 96, padding="valid")),
    conv7x7=dict(
        reduce=Conv(1, 64),
        conv1=Conv((1, 7), 64),
        conv2=Conv((7, 1), 64),
        conv3=Conv(3, 96, padding="valid"),
    ),
)
STEM_5A = branches(
    conv3x3=dict(conv=Conv(3, 192, stride=2, padding="valid")),
    pool=dict(pool=MaxPool(3, 2, padding="valid")),
)


def inception_a(conv1: int, reduce: int, conv3: int, pool: int) -> Row:
    """Figure 4, 35x35."""
    return branches(
        conv1x1=dict(conv=Conv(1, conv1)),
        conv3x3=dict(reduce=Conv(1, reduce), conv=Conv(3, conv3)),
        double3x3=dict(reduce=Conv(1, reduce), conv1=Conv(3, conv3), conv2=Conv(3, conv3)),
        pool=pool_conv(pool),
    )


def inception_b(conv1: int, reduce: int, inner: int, conv7: int, pool: int) -> Row:
    """Figure 5, 17x17."""
    return branches(
        conv1x1=dict(conv=Conv(1, conv1)),
        conv7x7=dict(reduce=Conv(1, reduce), conv1=Conv((1, 7), inner), conv2=Conv((7, 1), conv7)),
        double7x7=dict(
            reduce=Conv(1, reduce),
            conv1=Conv((7, 1), reduce),
            conv2=Conv((1, 7), inner),
            conv3=Conv((7, 1), inner),
            conv4=Conv((1, 7), conv7),
        ),
        pool=pool_conv(pool),
    )


def inception_c(each: int, reduce: int, inner1: int, inner2: int) -> Row:
    """Figure 6, 8x8."""
    return branches(
        conv1x1=dict(conv=Conv(1, each)),
        conv3x3=dict(reduce=Conv(1, reduce), split=split(each)),
        double3x3=dict(
            reduce=Conv(1, reduce),
            conv1=Conv((3, 1), inner1),
            conv2=Conv((1, 3), inner2),
            split=split(each),
        ),
        pool=pool_conv(each),
    )


def reduction_b(conv3: int, reduce: int, conv7: int) -> Row:
    """Figure 8, 17x17 to 8x8."""
    return branches(
        conv3x3=dict(reduce=Conv(1, conv3), conv=Conv(3, conv3, stride=2, padding="valid")),
        conv7x7=dict(
            reduce=Conv(1, reduce),
            conv1=Conv((1, 7), reduce),
            conv2=Conv((7, 1), conv7),
            conv3=Conv(3, conv7, stride=2, padding="valid"),
        ),
        pool=dict(pool=MaxPool(3, 2, padding="valid")),
    )


def repeat(times: int, row: Row) -> Row:
    """The same row `times` times, one after the other."""
    return Sequence({f"block{i}": row for i in range(times)})


# fmt: off
FIGURE_9: Table = dict(
    conv1a=Conv(3, 32, stride=2, padding="valid"),       # 149x149
    conv2a=Conv(3, 32, padding="valid"),                 # 147x147
    conv2b=Conv(3, 64),
    mixed3a=STEM_3A,                                     # 73x73x160
    mixed4a=STEM_4A,                                     # 71x71x192
    mixed5a=STEM_5A,                                     # 35x35x384
    #                                  1x1 3x3r  3x3 pool
    inception_a=repeat(4, inception_a(  96,  64,  96,  96)),
    #                         k    l    m    n                (table 1)
    reduction_a=reduction_a(192, 224, 256, 384),         # 17x17x1024
    #                                  1x1 7x7r mid  7x7 pool
    inception_b=repeat(7, inception_b( 384, 192, 224, 256, 128)),
    #                       3x3 7x7r  7x7
    reduction_b=reduction_b(192, 256, 320),              # 8x8x1536
    #                                 each 3x3r  3x1  1x3
    inception_c=repeat(3, inception_c( 256, 384, 448, 512)),
)
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.2))


def inception_v4(ctx: Context) -> Network:
    """Inception v4, with slim's auxiliary classifier."""
    return Network(FIGURE_9, HEAD, ctx, min_size=75, aux=dict(inception_b=AUX))  # aux: slim's


VARIANTS = [
    Variant(
        "inception_v4",
        inception_v4,
        PAPER,
        input_size=299,
        numerics=replace(TORCH, bn_epsilon=1e-3, avg_pool_counts_padding=False),
    ),
]
