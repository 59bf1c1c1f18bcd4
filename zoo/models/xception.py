"""Xception (Chollet, 2016), https://arxiv.org/abs/1610.02357, figure 5."""

from dataclasses import dataclass

from ..context import Context
from ..layers import (
    Conv,
    Dropout,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Residual,
    Sequence,
    Stack,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "Xception: Deep Learning with Depthwise Separable Convolutions",
    "Chollet",
    2016,
    "https://arxiv.org/abs/1610.02357",
    new="Inception taken to its limit: depthwise separable convolutions throughout, with residual "
    "connections around them, so that space and channels are dealt with apart; as many "
    "parameters as Inception v3.",
)


@dataclass(frozen=True)
class ReLU:
    """ReLU, or the activation chosen for the whole network, as a row of its own."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return ctx.act("relu"), channels


@dataclass(frozen=True)
class SeparableConv:
    """Depthwise, no activation (section 4.7), then 1x1 with batch norm: figure 5."""

    features: int
    act: str | None = None
    kernel: int = 3
    stride: int = 1

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        filters = Conv(
            self.kernel, channels, self.stride, groups=channels, norm=False, act=None, bias=False
        )
        table: Table = dict(depthwise=filters, pointwise=Conv(1, self.features, act=self.act))
        return Stack(channels, table, ctx), self.features


@dataclass(frozen=True)
class Down:
    """A block of the entry or exit flow: two convolutions and a max pool that halves the image."""

    inner: int
    features: int
    relu: bool = True  # before the first convolution

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: Table = dict(
            **(dict(relu1=ReLU()) if self.relu else {}),
            conv1=SeparableConv(self.inner),
            relu2=ReLU(),
            conv2=SeparableConv(self.features),
            pool=MaxPool(3, 2),
        )
        shortcut = Conv(1, self.features, stride=2, act=None)
        return Residual(channels, table, ctx, shortcut=shortcut, act=None), self.features


@dataclass(frozen=True)
class Middle:
    """A block of the middle flow: three convolutions that keep the shape."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: Table = dict(
            relu1=ReLU(),
            conv1=SeparableConv(channels),
            relu2=ReLU(),
            conv2=SeparableConv(channels),
            relu3=ReLU(),
            conv3=SeparableConv(channels),
        )
        return Residual(channels, table, ctx, shortcut=None, act=None), channels


# fmt: off
FIGURE_5: Table = dict(
    conv1=Conv(3, 32, stride=2, padding="valid"),        # 149x149, entry flow
    conv2=Conv(3, 64, padding="valid"),                  # 147x147
    entry1=Down(128, 128, relu=False),                   # 74x74
    entry2=Down(256, 256),                               # 37x37
    entry3=Down(728, 728),                               # 19x19
    middle=Sequence({f"block{i}": Middle() for i in range(8)}),
    exit=Down(728, 1024),                                # 10x10
    conv3=SeparableConv(1536, act="relu"),
    conv4=SeparableConv(2048, act="relu"),
)
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.5))  # section 4.3


def xception(ctx: Context) -> Network:
    """Xception, by the paper's figure 5."""
    return Network(FIGURE_5, HEAD, ctx, min_size=7)


VARIANTS = [
    Variant("xception", xception, PAPER, input_size=299, aliases=("legacy_xception",)),
]
