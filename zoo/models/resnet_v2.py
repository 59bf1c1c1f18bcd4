"""ResNet v2 (He et al., 2016, "Identity Mappings"), https://arxiv.org/abs/1603.05027.

Norm and activation come before each convolution, and nothing after the sum. As in slim's and
Keras' weights, a stage's stride stands in its last unit (the paper's: in its first), and the
convolutions that no norm follows have biases.
"""

from dataclasses import dataclass
from functools import partial

import jax
from flax import nnx

from ..context import Context
from ..layers import (
    Conv,
    Layer,
    MaxPool,
    Network,
    Row,
    Sequence,
    Skippable,
    Table,
    activated,
    batch_norm,
    last,
    observed,
    scope,
)
from ..variant import Paper, Variant
from .resnet import DEPTHS, HEAD

PAPER = Paper(
    "Identity Mappings in Deep Residual Networks",
    "He, Zhang, Ren, Sun",
    2016,
    "https://arxiv.org/abs/1603.05027",
    new="Batch norm and ReLU before each convolution and nothing after the sum: shortcuts are "
    "the identity from end to end, and networks of 1000 layers train.",
)


class NormAct(nnx.Module):
    """Batch norm and activation ahead of a convolution: the paper's pre-activation."""

    def __init__(self, channels: int, ctx: Context, act: str):
        self.norm = batch_norm(channels, ctx) if ctx.has_norm else None
        self.act = ctx.act(act)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act(x) if self.norm is None else activated(self.norm, x, self.act)


@dataclass(frozen=True)
class PreAct:
    """Batch norm -> activation, the paper's ReLU."""

    act: str = "relu"

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return NormAct(channels, ctx, self.act), channels


class PreActResidual(Skippable):
    """`table(x) + x`; a projection reads the output of the table's first row in place of x.

    The appendix has one activation serve both paths in the network's first unit; the published
    weights need that in every unit with a projection.
    """

    def __init__(
        self, channels: int, table: Table, ctx: Context, *, projection: Row | None, skip: Row | None
    ):
        super().__init__(channels, table, ctx)
        if self.plain:
            projection = skip = None
        self.projection = None if projection is None else projection.build(channels, ctx)[0]
        self.skip = None if skip is None else skip.build(channels, ctx)[0]

    def __call__(self, x: jax.Array) -> jax.Array:
        steps = self.steps(x)
        _, active = next(steps)
        y = self.dropped(last(steps))
        if self.plain:
            return y
        if self.projection is not None:
            with scope("projection"):
                return y + observed(self.projection(active))
        return y + (x if self.skip is None else self.skip(x))


@dataclass(frozen=True)
class Unit:
    """Figure 4e, as a bottleneck."""

    width: int
    stride: int = 1

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        out = 4 * self.width
        table: Table = dict(
            preact=PreAct(),
            conv1=Conv(1, self.width),
            conv2=Conv(3, self.width, self.stride, padding="symmetric"),  # slim's and Keras' too
            conv3=Conv(1, out, norm=False, act=None),
        )
        projection = skip = None
        if channels != out:
            projection = Conv(1, out, self.stride, norm=False, act=None)
        elif self.stride != 1:
            skip = MaxPool(1, self.stride)  # every second pixel
        return PreActResidual(channels, table, ctx, projection=projection, skip=skip), out


def stage(width: int, depth: int, stride: int = 1) -> Row:
    """`depth` units, the last of which has the stride."""
    rest, end = Unit(width), Unit(width, stride)
    return Sequence({f"block{i}": rest if i < depth - 1 else end for i in range(depth)})


# fmt: off
def table_1(depths: tuple[int, int, int, int]) -> Table:
    """Table 1 of the ResNet paper (arXiv:1512.03385), the stages named as in `resnet.py`."""
    return dict(
        stem=Conv(7, 64, stride=2, norm=False, act=None, padding="symmetric"),    # 112x112
        pool=MaxPool(3, 2),       # 56x56; Keras pads zeros here, not -inf, and no ReLU came before
        stage1=stage(64, depths[0], stride=2),                                    # 28x28
        stage2=stage(128, depths[1], stride=2),                                   # 14x14
        stage3=stage(256, depths[2], stride=2),                                   # 7x7
        stage4=stage(512, depths[3]),
        postact=PreAct(),
    )
# fmt: on


def resnet_v2(ctx: Context, layers: int) -> Network:
    """ResNet v2 with that number of layers."""
    return Network(table_1(DEPTHS[layers]), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant(f"resnet{layers}_v2", partial(resnet_v2, layers=layers), PAPER)
    for layers in (50, 101, 152)
]
