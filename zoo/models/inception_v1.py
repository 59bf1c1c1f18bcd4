"""Inception v1, "GoogLeNet" (Szegedy et al., 2014), https://arxiv.org/abs/1409.4842.

`inception_v1` is its batch-norm form, which torchvision and slim publish; `inception_v1_lrn` is
the paper's, with local response normalisation and biases, whose weights BVLC publishes for Caffe.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax

from ..context import TORCH, Context
from ..layers import (
    LRN,
    AvgPool,
    Branches,
    Conv,
    Dense,
    Dropout,
    FlattenAt,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Row,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "Going Deeper with Convolutions",
    "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich",
    2014,
    "https://arxiv.org/abs/1409.4842",
    new="Convolutions of 1x1, 3x3 and 5x5 and a pool side by side, the larger ones behind 1x1 "
    "convolutions that reduce the channels; global average pooling in place of wide fully "
    "connected layers; auxiliary classifiers.",
)


@dataclass(frozen=True)
class Mixed:
    """Figure 2b: the columns of table 1."""

    conv1: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pool: int
    k5: int = 5
    norm: bool = True

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        conv = partial(Conv, norm=self.norm)
        branches: dict[str, Table] = dict(
            conv1x1=dict(conv=conv(1, self.conv1)),
            conv3x3=dict(reduce=conv(1, self.reduce3), conv=conv(3, self.conv3)),
            conv5x5=dict(reduce=conv(1, self.reduce5), conv=conv(self.k5, self.conv5)),
            pool=dict(pool=MaxPool(3, 1), proj=conv(1, self.pool)),
        )
        return Branches(branches).build(channels, ctx)


@dataclass(frozen=True)
class AvgPoolTo:
    """Mean over cells, `[N, H, W, C] -> [N, size, size, C]`, as torch's AdaptiveAvgPool2d."""

    size: int

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        return FlattenAt(self.size)(x).reshape(x.shape[0], self.size, self.size, -1)


# Caffe's pools, which torchvision kept; slim's SAME is the same where lengths are even, as at 224.
HALVE = MaxPool(3, 2, padding="ceil")

bare = partial(Conv, norm=False)


def table_1(stem: Table, mixed: Callable[..., Mixed], pool4: Row) -> Table:
    """Table 1 of the paper, with a choice of stem, module and last pool."""
    # fmt: off
    return dict(
        **stem,
        #              1x1  3x3r 3x3  5x5r 5x5 pool
        mixed3a=mixed( 64,  96, 128,  16,  32,  32),     # 28x28x256
        mixed3b=mixed(128, 128, 192,  32,  96,  64),     # 28x28x480
        pool3=HALVE,                                     # 14x14
        mixed4a=mixed(192,  96, 208,  16,  48,  64),     # 14x14x512
        mixed4b=mixed(160, 112, 224,  24,  64,  64),     # 14x14x512
        mixed4c=mixed(128, 128, 256,  24,  64,  64),     # 14x14x512
        mixed4d=mixed(112, 144, 288,  32,  64,  64),     # 14x14x528
        mixed4e=mixed(256, 160, 320,  32, 128, 128),     # 14x14x832
        pool4=pool4,                                     # 7x7
        mixed5a=mixed(256, 160, 320,  32, 128, 128),     # 7x7x832
        mixed5b=mixed(384, 192, 384,  48, 128, 128),     # 7x7x1024
    )
    # fmt: on


# fmt: off
BN_STEM: Table = dict(
    conv1=Conv(7, 64, stride=2), pool1=HALVE,                            # 56x56x64
    conv2=Conv(1, 64), conv3=Conv(3, 192), pool2=HALVE,                  # 28x28x192
)
LRN_STEM: Table = dict(
    conv1=bare(7, 64, stride=2), pool1=HALVE, norm1=LRN(),               # 56x56x64
    conv2=bare(1, 64), conv3=bare(3, 192), norm2=LRN(), pool2=HALVE,     # 28x28x192
)
# fmt: on

# The published weights, torchvision's and slim's alike, have 3x3 in place of 5x5
# (pytorch/vision#906) and a 2x2 pool before mixed5a, and drop 20 % where the paper drops 40 %.
BN_TABLE = table_1(BN_STEM, partial(Mixed, k5=3), pool4=MaxPool(2, 2, padding="ceil"))
BN_HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.2))

LRN_TABLE = table_1(LRN_STEM, partial(Mixed, norm=False), pool4=HALVE)
LRN_HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.4))


def auxiliary(pool: Row, conv: Row) -> dict[str, Table]:
    """Section 5: the classifiers on 4a and 4d."""
    head = dict(pool=pool, conv=conv, flatten=FlattenAt(4), fc=Dense(1024), drop=Dropout(0.7))
    return dict(mixed4a=head, mixed4d=head)


# torchvision averages to 4x4 whatever the input; the paper's 5x5/3 makes 4x4 of 14x14.
BN_AUX = auxiliary(AvgPoolTo(4), Conv(1, 128))
LRN_AUX = auxiliary(AvgPool(5, 3, padding="ceil"), bare(1, 128))


def inception_v1(ctx: Context, body: Table, head: Table, aux: dict[str, Table]) -> Network:
    """Inception v1 (GoogLeNet) from its parts."""
    return Network(body, head, ctx, min_size=15, aux=aux)


VARIANTS = [
    Variant(
        "inception_v1",
        partial(inception_v1, body=BN_TABLE, head=BN_HEAD, aux=BN_AUX),
        PAPER,
        aliases=("googlenet",),
        numerics=replace(TORCH, bn_epsilon=1e-3),
    ),
    Variant(
        "inception_v1_lrn",
        partial(inception_v1, body=LRN_TABLE, head=LRN_HEAD, aux=LRN_AUX),
        PAPER,
        aliases=("bvlc_googlenet",),
    ),
]
