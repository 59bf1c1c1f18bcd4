"""EfficientNet v2 (Tan and Le, 2021), https://arxiv.org/abs/2104.00298.

Stochastic depth (section 5.1) is off unless asked for: the paper's is `drop_path=0.2`.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

from ..context import TORCH, Context
from ..layers import Conv, Dropout, GlobalAvgPool, Layer, Network, Row, Table
from ..variant import Paper, Variant
from .efficientnet import MBConv
from .mobilenet_v2 import Bottleneck, shortcut

PAPER = Paper(
    "EfficientNetV2: Smaller Models and Faster Training",
    "Tan, Le",
    2021,
    "https://arxiv.org/abs/2104.00298",
    new="Searched for speed of training too: in early stages one full 3x3 convolution replaces "
    "the 1x1 and the depthwise one (Fused-MBConv). Images and regularisation grow together "
    "during training.",
)


@dataclass(frozen=True)
class FusedBlock:
    """Expansion and depthwise convolution in one full convolution (figure 2)."""

    expanded: int
    features: int
    stride: int
    kernel: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: dict[str, Row] = dict(
            expand=Conv(self.kernel, self.expanded, self.stride, act="silu"),
            project=Conv(1, self.features, act=None),
        )
        if self.expanded == channels:  # no expansion, so no projection
            table = dict(conv=Conv(self.kernel, self.features, self.stride, act="silu"))
        return shortcut(channels, table, ctx, stride=self.stride)


@dataclass(frozen=True)
class Fused(Bottleneck):
    """A line of Fused-MBConv."""

    k: int

    def block(self, channels: int, stride: int) -> Row:
        return FusedBlock(self.t * channels, self.c, stride, self.k)


# fmt: off
TABLE_4: Table = dict(                                   # S
    stage0=Conv(3, 24, stride=2, act="silu"),            # 1/2 of the input's side
    #             t    c   n  s  k
    stage1=Fused( 1,  24,  2, 1, 3),
    stage2=Fused( 4,  48,  4, 2, 3),                     # 1/4
    stage3=Fused( 4,  64,  4, 2, 3),                     # 1/8
    stage4=MBConv(4, 128,  6, 2, 3),                     # 1/16
    stage5=MBConv(6, 160,  9, 1, 3),
    stage6=MBConv(6, 256, 15, 2, 3),                     # 1/32
    stage7=Conv(1, 1280, act="silu"),
)

# The paper only says that the others are scaled up; their tables are those of the authors' code,
# https://github.com/google/automl/tree/master/efficientnetv2.
M: Table = dict(
    stage0=Conv(3, 24, stride=2, act="silu"),
    #             t    c   n  s  k
    stage1=Fused( 1,  24,  3, 1, 3),
    stage2=Fused( 4,  48,  5, 2, 3),
    stage3=Fused( 4,  80,  5, 2, 3),
    stage4=MBConv(4, 160,  7, 2, 3),
    stage5=MBConv(6, 176, 14, 1, 3),
    stage6=MBConv(6, 304, 18, 2, 3),
    stage7=MBConv(6, 512,  5, 1, 3),
    stage8=Conv(1, 1280, act="silu"),
)
L: Table = dict(
    stage0=Conv(3, 32, stride=2, act="silu"),
    #             t    c   n  s  k
    stage1=Fused( 1,  32,  4, 1, 3),
    stage2=Fused( 4,  64,  7, 2, 3),
    stage3=Fused( 4,  96,  7, 2, 3),
    stage4=MBConv(4, 192, 10, 2, 3),
    stage5=MBConv(6, 224, 19, 1, 3),
    stage6=MBConv(6, 384, 25, 2, 3),
    stage7=MBConv(6, 640,  7, 1, 3),
    stage8=Conv(1, 1280, act="silu"),
)
# fmt: on


def base(width: float, depth: float) -> Table:
    """B0 to B3, which the authors' code scales like those of the first EfficientNet."""

    def c(channels: int) -> int:
        return int(channels * width + 4) // 8 * 8  # the nearest multiple, even if much smaller

    def n(layers: int) -> int:
        return math.ceil(layers * depth)

    # fmt: off
    return dict(
        stage0=Conv(3, c(32), stride=2, act="silu"),
        #             t       c     n  s  k
        stage1=Fused( 1, c( 16), n(1), 1, 3),
        stage2=Fused( 4, c( 32), n(2), 2, 3),
        stage3=Fused( 4, c( 48), n(2), 2, 3),
        stage4=MBConv(4, c( 96), n(3), 2, 3),
        stage5=MBConv(6, c(112), n(5), 1, 3),
        stage6=MBConv(6, c(192), n(8), 2, 3),
        stage7=Conv(1, c(1280), act="silu"),
    )
    # fmt: on


def efficientnet_v2(ctx: Context, table: Table, dropout: float) -> Network:
    """EfficientNet v2 with one of the tables above."""
    return Network(table, dict(pool=GlobalAvgPool(), drop=Dropout(dropout)), ctx, min_size=32)


def _variant(name: str, table: Table, size: int, dropout: float) -> Variant:
    build = partial(efficientnet_v2, table=table, dropout=dropout)
    return Variant(
        f"efficientnet_v2_{name}", build, PAPER, size, numerics=replace(TORCH, bn_epsilon=1e-3)
    )


# fmt: off
VARIANTS = [
    #         name table           size dropout
    _variant("s",  TABLE_4,        384, 0.2),
    _variant("m",  M,              480, 0.3),
    _variant("l",  L,              480, 0.4),
    _variant("b0", base(1.0, 1.0), 224, 0.2),
    _variant("b1", base(1.0, 1.1), 240, 0.2),
    _variant("b2", base(1.1, 1.2), 260, 0.3),
    _variant("b3", base(1.2, 1.4), 300, 0.3),
]
# fmt: on
