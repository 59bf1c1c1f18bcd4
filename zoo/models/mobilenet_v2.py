"""MobileNet v2 (Sandler et al., 2018), https://arxiv.org/abs/1801.04381."""

from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import (
    Conv,
    Dropout,
    GlobalAvgPool,
    Layer,
    Network,
    Residual,
    Row,
    Sequence,
    Stack,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    "Sandler, Howard, Zhu, Zhmoginov, Chen",
    2018,
    "https://arxiv.org/abs/1801.04381",
    new="Inverted residuals: shortcuts join thin layers, and between them a block expands to many "
    "channels for a depthwise convolution. Nothing follows the projection back, where a ReLU "
    "would lose information.",
)


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple of `by`, unless that takes away more than a tenth: then the next one.

    The paper does not round; its code and all later networks do.
    """
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest if nearest >= 0.9 * channels else nearest + by


def shortcut(channels: int, table: Table, ctx: Context, *, stride: int) -> tuple[Layer, int]:
    """The rows of `table`, plus their input where they keep its shape; no activation follows."""
    stack = Stack(channels, table, ctx)
    if stride == 1 and channels == stack.channels:
        stack = Residual(channels, table, ctx, shortcut=None, act=None)
    return stack, stack.channels


@dataclass(frozen=True)
class InvertedResidual:
    """1x1 expansion, depthwise convolution, linear 1x1 projection (table 1 and figure 4d)."""

    expanded: int  # channels inside; if the input has as many, there is no expansion
    features: int
    stride: int = 1
    kernel: int = 3
    act: str = "relu6"
    squeeze: Row | None = None  # between depthwise and projection, in later networks

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: dict[str, Row] = {}
        if self.expanded != channels:
            table["expand"] = Conv(1, self.expanded, act=self.act)
        table["depthwise"] = Conv(
            self.kernel, self.expanded, self.stride, groups=self.expanded, act=self.act
        )
        if self.squeeze is not None:
            table["squeeze"] = self.squeeze
        table["project"] = Conv(1, self.features, act=None)
        return shortcut(channels, table, ctx, stride=self.stride)


@dataclass(frozen=True)
class Bottleneck:
    """A line of table 2: `n` blocks of `c` channels, the first of stride `s`, expanding `t` times.

    Families with other blocks in such lines override `block`.
    """

    t: int
    c: int
    n: int
    s: int

    def block(self, channels: int, stride: int) -> Row:
        """One inverted residual block of the stage."""
        return InvertedResidual(self.t * channels, self.c, stride)

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        first, rest = self.block(channels, self.s), self.block(self.c, 1)
        return Sequence({f"block{i}": rest if i else first for i in range(self.n)}).build(
            channels, ctx
        )


def table_2(width: float) -> Table:
    """Table 2, every line narrowed or widened by the width multiplier of section 4."""

    def c(channels: int) -> int:
        return divisible(channels * width)

    # fmt: off
    return dict(
        stem=Conv(3, c(32), stride=2, act="relu6"),      # 112x112
        #                 t       c  n  s
        stage1=Bottleneck(1, c( 16), 1, 1),
        stage2=Bottleneck(6, c( 24), 2, 2),              # 56x56
        stage3=Bottleneck(6, c( 32), 3, 2),              # 28x28
        stage4=Bottleneck(6, c( 64), 4, 2),              # 14x14
        stage5=Bottleneck(6, c( 96), 3, 1),
        stage6=Bottleneck(6, c(160), 3, 2),              # 7x7
        stage7=Bottleneck(6, c(320), 1, 1),
        last=Conv(1, max(1280, c(1280)), act="relu6"),   # never narrowed: section 4
    )
    # fmt: on


# The paper names no dropout; slim, torchvision and timm have this one.
HEAD: Table = dict(pool=GlobalAvgPool(), drop=Dropout(0.2))


def mobilenet_v2(ctx: Context, width: float) -> Network:
    """MobileNet v2 with `width` times the channels of the paper's table 2."""
    return Network(table_2(width), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant("mobilenet_v2_140", partial(mobilenet_v2, width=1.4), PAPER),
    Variant("mobilenet_v2_130", partial(mobilenet_v2, width=1.3), PAPER),
    Variant("mobilenet_v2_100", partial(mobilenet_v2, width=1.0), PAPER, aliases=("mobilenet_v2",)),
    Variant("mobilenet_v2_075", partial(mobilenet_v2, width=0.75), PAPER),
    Variant("mobilenet_v2_050", partial(mobilenet_v2, width=0.5), PAPER),
    Variant("mobilenet_v2_035", partial(mobilenet_v2, width=0.35), PAPER),
]
