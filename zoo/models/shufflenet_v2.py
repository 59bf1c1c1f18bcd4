"""ShuffleNet v2 (Ma et al., 2018), https://arxiv.org/abs/1807.11164."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ..context import Context
from ..layers import (
    Branches,
    Conv,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Row,
    Sequence,
    Stack,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
    "Ma, Zhang, Zheng, Sun",
    2018,
    "https://arxiv.org/abs/1807.11164",
    new="Designed by measured speed, not by multiplications: equal widths in and out, no grouped "
    "1x1 convolutions. Half of the channels pass a unit untouched, and a shuffle mixes the "
    "halves.",
)


@dataclass(frozen=True)
class Shuffle:
    """Interleave the two halves of the channels, so that the next unit splits them differently."""

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        *image, channels = x.shape
        return x.reshape(*image, 2, channels // 2).swapaxes(-1, -2).reshape(x.shape)


class Half(Stack):
    """The first half of the channels unchanged, then `table` of the second."""

    def __call__(self, x: jax.Array) -> jax.Array:
        kept, changed = jnp.split(x, 2, -1)
        return jnp.concatenate((kept, super().__call__(changed)), -1)


def branch(features: int, stride: int) -> Table:
    """The right-hand branch of figures 3c and 3d."""
    return dict(
        conv1=Conv(1, features),
        depthwise=Conv(3, features, stride, groups=features, act=None),
        conv2=Conv(1, features),
    )


@dataclass(frozen=True)
class Split:
    """The branch of figure 3c, on the right half of the channels."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return Half(channels // 2, branch(channels // 2, stride=1), ctx), channels


@dataclass(frozen=True)
class Down:
    """The branches of figure 3d: both read all channels and halve the image."""

    features: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        half = self.features // 2
        left: Table = dict(
            depthwise=Conv(3, channels, 2, groups=channels, act=None), conv=Conv(1, half)
        )
        return Branches(dict(left=left, right=branch(half, stride=2))).build(channels, ctx)


def unit(row: Row) -> Row:
    """The branches side by side, then a channel shuffle."""
    return Sequence(dict(branches=row, shuffle=Shuffle()))


def stage(features: int, repeat: int) -> Row:
    """The two lines of a stage: one unit of stride 2, then `repeat` of stride 1."""
    rest = {f"block{i}": unit(Split()) for i in range(1, 1 + repeat)}
    return Sequence(dict(block0=unit(Down(features)), **rest))


# fmt: off
# The output channels of table 5, column by column.
#         stage2  3    4  conv5
WIDTHS = dict(
    x0_5=(  48,  96, 192, 1024),
    x1_0=( 116, 232, 464, 1024),
    x1_5=( 176, 352, 704, 1024),
    x2_0=( 244, 488, 976, 2048),
)


def table_5(stage2: int, stage3: int, stage4: int, conv5: int) -> Table:
    """The paper's table 5, by the channels of its stages and of conv5."""
    return dict(
        conv1=Conv(3, 24, stride=2),                     # 112x112
        pool=MaxPool(3, 2),                              # 56x56
        stage2=stage(stage2, repeat=3),                  # 28x28
        stage3=stage(stage3, repeat=7),                  # 14x14
        stage4=stage(stage4, repeat=3),                  # 7x7
        conv5=Conv(1, conv5),
    )
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool())


def shufflenet_v2(ctx: Context, width: str) -> Network:
    """ShuffleNet v2 of a width in the paper's table 5."""
    return Network(table_5(*WIDTHS[width]), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant(f"shufflenet_v2_{width}", partial(shufflenet_v2, width=width), PAPER)
    for width in WIDTHS
]
