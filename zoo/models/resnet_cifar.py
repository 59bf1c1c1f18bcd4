"""ResNet for CIFAR (He et al., 2015, section 4.2), https://arxiv.org/abs/1512.03385."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..context import KERAS, Context
from ..layers import Conv, Layer, Network, Row, Table
from ..variant import Paper, Variant
from .resnet import HEAD, PAPER, Block, Plain, Unit, stage

MLPERF_TINY = Paper(
    "MLPerf Tiny Benchmark",
    "Banbury, Reddi, Torelli and others",
    2021,
    "https://arxiv.org/abs/2106.07597",
    new="A benchmark of inference on microcontrollers: accuracy, latency and energy in four "
    "tasks. Its image classifier is a ResNet for CIFAR of three blocks.",
)


@dataclass(frozen=True)
class ZeroPadded:
    """Option A, without parameters: every second pixel, and zeros for the missing channels.

    The paper does not say where the zeros go; published weights need half of them on each side.
    """

    features: int
    stride: int

    def build(self, _channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, self.features

    def __call__(self, x: jax.Array) -> jax.Array:
        missing = self.features - x.shape[-1]
        sides = (missing // 2, missing - missing // 2)
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, self.stride, self.stride, 1))
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), sides))


def bare_projection(features: int, stride: int) -> Row:
    """Option B without its norm, as MLPerf Tiny has it."""
    return Conv(1, features, stride, norm=False, act=None)


def section_4_2(n: int, unit: Unit) -> Table:
    """The table of section 4.2, a network of 6n + 2 layers."""
    # fmt: off
    return dict(
        stem=Conv(3, 16),                                # 32x32
        stage1=stage(unit, 16, n),
        stage2=stage(unit, 32, n, stride=2),             # 16x16
        stage3=stage(unit, 64, n, stride=2),             # 8x8
    )
    # fmt: on


OPTION_A = partial(Block, shortcut=ZeroPadded)


def resnet_cifar(ctx: Context, layers: int, unit: Unit = OPTION_A) -> Network:
    """The ResNet for CIFAR-10 with that number of layers, 6n + 2."""
    return Network(section_4_2((layers - 2) // 6, unit), HEAD, ctx, min_size=4)


VARIANTS = [
    *(
        Variant(f"resnet{layers}_cifar", partial(resnet_cifar, layers=layers), PAPER, input_size=32)
        for layers in (20, 32, 44, 56, 110)
    ),
    Variant("plain20_cifar", partial(resnet_cifar, layers=20, unit=Plain), PAPER, input_size=32),
    # The image classifier of the MLPerf Tiny benchmark (Banbury et al., 2021)
    Variant(
        "resnet8_mlperf",
        partial(resnet_cifar, layers=8, unit=partial(Block, shortcut=bare_projection)),
        MLPERF_TINY,
        input_size=32,
        numerics=replace(KERAS, conv_bias=True),
    ),
]
