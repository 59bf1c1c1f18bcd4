"""EfficientNet (Tan and Le, 2019), https://arxiv.org/abs/1905.11946.

Stochastic depth (section 5.2) is off unless asked for: the paper's is `drop_path=0.2`.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from ..context import TORCH, Context
from ..layers import Conv, Dropout, GlobalAvgPool, Network, Row, SqueezeExcite, Table
from ..variant import Paper, Variant
from .mobilenet_v2 import Bottleneck, InvertedResidual, divisible

PAPER = Paper(
    "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    "Tan, Le",
    2019,
    "https://arxiv.org/abs/1905.11946",
    new="One coefficient scales depth, width and input size together, at fixed ratios, from a "
    "base network (B0) that an architecture search found.",
)


@dataclass(frozen=True)
class MBConv(Bottleneck):
    """MobileNet v2's block with kernel `k`, SiLU, and a squeeze to a quarter of its input."""

    k: int

    def block(self, channels: int, stride: int) -> Row:
        """One inverted residual block of the stage."""
        squeeze = SqueezeExcite(max(1, channels // 4), act="silu")
        return InvertedResidual(
            self.t * channels, self.c, stride, self.k, act="silu", squeeze=squeeze
        )


class Scale(NamedTuple):
    """Compound scaling (section 3.3) as rounded by the authors' code."""

    width: float
    depth: float
    size: int  # of the input
    dropout: float


# fmt: off
SCALES = dict(
    #        width depth size dropout
    b0=Scale( 1.0,  1.0, 224, 0.2),
    b1=Scale( 1.0,  1.1, 240, 0.2),
    b2=Scale( 1.1,  1.2, 260, 0.3),
    b3=Scale( 1.2,  1.4, 300, 0.3),
    b4=Scale( 1.4,  1.8, 380, 0.4),
    b5=Scale( 1.6,  2.2, 456, 0.4),
    b6=Scale( 1.8,  2.6, 528, 0.5),
    b7=Scale( 2.0,  3.1, 600, 0.5),
)
# fmt: on


def table_1(width: float, depth: float) -> Table:
    """Table 1, B0, scaled."""

    def c(channels: int) -> int:
        return divisible(channels * width)

    def n(layers: int) -> int:
        return math.ceil(layers * depth)

    # fmt: off
    return dict(
        stage1=Conv(3, c(32), stride=2, act="silu"),     # 112x112
        #             t       c     n   s  k
        stage2=MBConv(1, c( 16), n(1), 1, 3),
        stage3=MBConv(6, c( 24), n(2), 2, 3),            # 56x56
        stage4=MBConv(6, c( 40), n(2), 2, 5),            # 28x28
        stage5=MBConv(6, c( 80), n(3), 2, 3),            # 14x14
        stage6=MBConv(6, c(112), n(3), 1, 5),
        stage7=MBConv(6, c(192), n(4), 2, 5),            # 7x7
        stage8=MBConv(6, c(320), n(1), 1, 3),
        stage9=Conv(1, c(1280), act="silu"),
    )
    # fmt: on


def efficientnet(ctx: Context, scale: Scale) -> Network:
    """EfficientNet at one of the scales above."""
    head: Table = dict(pool=GlobalAvgPool(), drop=Dropout(scale.dropout))
    return Network(table_1(scale.width, scale.depth), head, ctx, min_size=32)


# torchvision's constants: its b5 to b7 are TensorFlow's weights, the others its own.
_NUMERICS = dict.fromkeys(("b5", "b6", "b7"), replace(TORCH, bn_epsilon=1e-3, bn_momentum=0.99))
VARIANTS = [
    Variant(
        f"efficientnet_{name}",
        partial(efficientnet, scale=scale),
        PAPER,
        input_size=scale.size,
        numerics=_NUMERICS.get(name, TORCH),
    )
    for name, scale in SCALES.items()
]
