"""ResNet for CIFAR (He et al., 2015, section 4.2), https://arxiv.org/abs/1512.03385."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ..context import Context
from ..layers import Conv, Layer, Network, Table
from ..registry import Variant
from .resnet import HEAD, Block, stage

PAPER = "https://arxiv.org/abs/1512.03385"


@dataclass(frozen=True)
class ZeroPadded:
    """Option A: every second pixel, and zeros for the channels there are not; no parameters.

    The paper does not say where the zeros go: half of them on each side, as published weights need.
    """

    features: int
    stride: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return self, self.features

    def __call__(self, x: jax.Array) -> jax.Array:
        missing = self.features - x.shape[-1]
        sides = (missing // 2, missing - missing // 2)
        return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), sides))


def section_4_2(n: int) -> Table:
    """The table of section 4.2, a network of 6n + 2 layers."""
    unit = partial(Block, shortcut=ZeroPadded)
    # fmt: off
    return dict(
        stem=Conv(3, 16),                                # 32x32
        stage1=stage(unit, 16, n),
        stage2=stage(unit, 32, n, stride=2),             # 16x16
        stage3=stage(unit, 64, n, stride=2),             # 8x8
    )
    # fmt: on


def resnet_cifar(ctx: Context, layers: int) -> Network:
    return Network(section_4_2(n=(layers - 2) // 6), HEAD, ctx, min_size=4)


VARIANTS = [
    Variant(f"resnet{layers}_cifar", partial(resnet_cifar, layers=layers), PAPER, input_size=32)
    for layers in (20, 32, 44, 56, 110)
]
