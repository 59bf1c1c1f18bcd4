"""EfficientNet-Lite (2020): EfficientNet for devices that compute in 8-bit integers.

https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: no squeeze-excite,
ReLU6 for SiLU, and a stem and a last convolution that do not widen.
"""

import math
from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import Conv, Dropout, GlobalAvgPool, Network, Row, Table
from ..variant import Paper, Variant
from .efficientnet import Scale
from .mobilenet_v2 import Bottleneck, InvertedResidual, divisible

PAPER = Paper(
    "Higher accuracy on vision models with EfficientNet-Lite",
    "Liu",
    2020,
    "https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html",
    new="EfficientNet without what phones and 8-bit integers make slow or inexact: no "
    "squeeze-excite, ReLU6 in place of SiLU, a stem and a last convolution of one width.",
)


@dataclass(frozen=True)
class MBConv(Bottleneck):
    """MobileNet v2's block with kernel `k`."""

    k: int

    def block(self, channels: int, stride: int) -> Row:
        """One inverted residual block of the stage."""
        return InvertedResidual(self.t * channels, self.c, stride, self.k)


# fmt: off
# Sizes are timm's, at which its weights are measured; the authors' lite3 has 280, lite4 300.
SCALES = dict(
    #           width depth size dropout
    lite0=Scale( 1.0,  1.0, 224, 0.2),
    lite1=Scale( 1.0,  1.1, 240, 0.2),
    lite2=Scale( 1.1,  1.2, 260, 0.3),
    lite3=Scale( 1.2,  1.4, 300, 0.3),
    lite4=Scale( 1.4,  1.8, 380, 0.3),
)
# fmt: on


def table_1(width: float, depth: float) -> Table:
    """Table 1 of the EfficientNet paper (arXiv:1905.11946), scaled but for its ends."""

    def c(channels: int) -> int:
        return divisible(channels * width)

    def n(layers: int) -> int:
        return math.ceil(layers * depth)

    # fmt: off
    return dict(
        stage1=Conv(3, 32, stride=2, act="relu6"),       # 112x112
        #             t     c     n   s  k
        stage2=MBConv(1, c( 16),  1,  1, 3),
        stage3=MBConv(6, c( 24), n(2), 2, 3),            # 56x56
        stage4=MBConv(6, c( 40), n(2), 2, 5),            # 28x28
        stage5=MBConv(6, c( 80), n(3), 2, 3),            # 14x14
        stage6=MBConv(6, c(112), n(3), 1, 5),
        stage7=MBConv(6, c(192), n(4), 2, 5),            # 7x7
        stage8=MBConv(6, c(320),  1,  1, 3),
        stage9=Conv(1, 1280, act="relu6"),
    )
    # fmt: on


def efficientnet_lite(ctx: Context, scale: Scale) -> Network:
    """EfficientNet-Lite at one of the scales above."""
    head: Table = dict(pool=GlobalAvgPool(), drop=Dropout(scale.dropout))
    return Network(table_1(scale.width, scale.depth), head, ctx, min_size=32)


VARIANTS = [
    Variant(f"efficientnet_{name}", partial(efficientnet_lite, scale=scale), PAPER, scale.size)
    for name, scale in SCALES.items()
]
