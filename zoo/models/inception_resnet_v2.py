"""Inception-ResNet v2 (Szegedy et al., 2016), https://arxiv.org/abs/1602.07261.

This is the network of all published weights. It differs from figures 3 and 15 to 19: its stem is
Inception v3's, and an Inception module follows it; there are 10, 20 and 10 residual blocks (not
5, 10 and 5), on 320, 1088 and 2080 channels (not 384, 1154 and 2048); a 1x1 convolution ends it.
"""

from dataclasses import dataclass, replace

import jax

from ..context import TORCH, Context
from ..layers import (
    Conv,
    Dropout,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Residual,
    Row,
    Sequence,
    Table,
    branches,
)
from ..variant import Variant
from .inception_v3 import AUX, STEM, figure_5, reduction_a
from .inception_v4 import PAPER


@dataclass(frozen=True)
class Scale:
    """`factor * x`: in figure 20, section 3.3, it tames a residual before it is added."""

    factor: float

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.factor * x


@dataclass(frozen=True)
class Block:
    """`act(x + scale * conv1x1(branches(x)))`: the 1x1 has a bias and no batch norm."""

    branches: Row
    scale: float
    act: str | None = "relu"

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = dict(
            branches=self.branches,
            conv=Conv(1, channels, norm=False, act=None),
            scale=Scale(self.scale),
        )
        return Residual(channels, table, ctx, shortcut=None, act=self.act), channels


def branches_a(conv1: int, inner: int, conv3: int) -> Row:
    """Figure 16, 35x35."""
    return branches(
        conv1x1=dict(conv=Conv(1, conv1)),
        conv3x3=dict(reduce=Conv(1, conv1), conv=Conv(3, conv1)),
        double3x3=dict(reduce=Conv(1, conv1), conv1=Conv(3, inner), conv2=Conv(3, conv3)),
    )


def branches_bc(k: int, conv1: int, reduce: int, inner: int, last: int) -> Row:
    """Figures 17 and 19: a k x k convolution factorised, 7x7 at 17x17 and 3x3 at 8x8."""
    return branches(
        conv1x1=dict(conv=Conv(1, conv1)),
        factorised=dict(
            reduce=Conv(1, reduce), conv1=Conv((1, k), inner), conv2=Conv((k, 1), last)
        ),
    )


def reduction_b(reduce: int, conv1: int, conv2: int, conv3: int) -> Row:
    """Figure 18, 17x17 to 8x8."""
    return branches(
        first3x3=dict(reduce=Conv(1, reduce), conv=Conv(3, conv1, stride=2, padding="valid")),
        second3x3=dict(reduce=Conv(1, reduce), conv=Conv(3, conv2, stride=2, padding="valid")),
        double3x3=dict(
            reduce=Conv(1, reduce),
            conv1=Conv(3, conv2),
            conv2=Conv(3, conv3, stride=2, padding="valid"),
        ),
        pool=dict(pool=MaxPool(3, 2, padding="valid")),
    )


def blocks(*rows: Row) -> Row:
    """The rows one after the other, as block0, block1, ..."""
    return Sequence({f"block{i}": row for i, row in enumerate(rows)})


# fmt: off
#                             1x1  mid  3x3
RESNET_A = Block(branches_a(   32,  48,  64), scale=0.17)
#                            k  1x1 kxkr  mid  kxk
RESNET_B = Block(branches_bc(7, 192, 128, 160, 192), scale=0.10)
RESNET_C = Block(branches_bc(3, 192, 192, 224, 256), scale=0.20)

FIGURE_15: Table = dict(
    **STEM,                                              # 35x35x192
    #                 1x1 5x5r  5x5 3x3r  3x3 pool
    mixed5b=figure_5(  96,  48,  64,  64,  96,  64),     # 35x35x320
    resnet_a=blocks(*[RESNET_A] * 10),
    #                         k    l    m    n
    reduction_a=reduction_a(256, 256, 384, 384),         # 17x17x1088
    resnet_b=blocks(*[RESNET_B] * 20),
    #                         r   1st  2nd  3rd
    reduction_b=reduction_b(256, 384, 288, 320),         # 8x8x2080
    # in the weights the last residual is not scaled, and no ReLU follows
    resnet_c=blocks(*[RESNET_C] * 9, replace(RESNET_C, scale=1.0, act=None)),
    conv7b=Conv(1, 1536),
)
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.2))


def inception_resnet_v2(ctx: Context) -> Network:
    """Inception-ResNet v2, with slim's auxiliary classifier."""
    return Network(FIGURE_15, HEAD, ctx, min_size=75, aux=dict(resnet_b=AUX))  # aux: slim's


VARIANTS = [
    Variant(
        "inception_resnet_v2",
        inception_resnet_v2,
        PAPER,
        input_size=299,
        numerics=replace(TORCH, bn_epsilon=1e-3, avg_pool_counts_padding=False),
    ),
]
