"""Inception v2, "BN-Inception" (Ioffe and Szegedy, 2015), https://arxiv.org/abs/1502.03167.

As in slim, the only source of weights, whose names are shifted by one letter: Mixed_3b is mixed3a,
Mixed_4a is mixed3c, Mixed_5a is mixed4e.
"""

from dataclasses import dataclass, replace

from ..context import TF, Context
from ..layers import (
    AvgPool,
    Branches,
    Conv,
    Dropout,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Row,
    Sequence,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    "Ioffe, Szegedy",
    2015,
    "https://arxiv.org/abs/1502.03167",
    new="Batch norm: every channel is normalised over the batch before its nonlinearity, which "
    "allows higher learning rates and less dropout. The network is Inception v1 with two 3x3 "
    "convolutions for each 5x5.",
)
SLIM = replace(TF, bn_scale=False)  # the scale before a ReLU and a convolution changes nothing


class Stem:
    """Appendix: the first convolution is separable. Slim's has a bias and no BN."""

    multiplier = 8  # outputs of the depthwise part, a channel

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        depthwise = Conv(7, channels * self.multiplier, stride=2, groups=channels,
                         norm=False, act=None, bias=False)  # fmt: skip
        table = dict(depthwise=depthwise, pointwise=Conv(1, 64, norm=False))
        return Sequence(table).build(channels, ctx)


@dataclass(frozen=True)
class Mixed:
    """A row of figure 5: Inception with two 3x3 in place of 5x5. Without a 1x1 the stride is 2."""

    conv1: int
    reduce3: int
    conv3: int
    reduce33: int  # "double 3x3"
    conv33: int
    pool: Row
    proj: int  # 0: the pool's output passes through

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        stride = 1 if self.conv1 else 2
        branches: dict[str, Table] = dict(
            conv1x1=dict(conv=Conv(1, self.conv1)),
            conv3x3=dict(reduce=Conv(1, self.reduce3), conv=Conv(3, self.conv3, stride)),
            double3x3=dict(
                reduce=Conv(1, self.reduce33),
                conv1=Conv(3, self.conv33),
                conv2=Conv(3, self.conv33, stride),
            ),
            pool=dict(pool=self.pool, proj=Conv(1, self.proj)),
        )
        if stride == 2:
            del branches["conv1x1"]
            branches["pool"] = dict(pool=self.pool)
        return Branches(branches).build(channels, ctx)


avg, peak, halve = AvgPool(3, 1), MaxPool(3, 1), MaxPool(3, 2)

# fmt: off
FIGURE_5: Table = dict(
    conv1=Stem(), pool1=halve,                                          # 56x56x64
    conv2=Conv(1, 64), conv3=Conv(3, 192), pool2=halve,               # 28x28x192
    #             1x1 3x3r  3x3 d3x3r d3x3 pool  proj
    mixed3a=Mixed( 64,  64,  64,  64,  96, avg,   32),                # 28x28x256
    mixed3b=Mixed( 64,  64,  96,  64,  96, avg,   64),                # 28x28x320
    mixed3c=Mixed(  0, 128, 160,  64,  96, halve,  0),                # 14x14x576
    mixed4a=Mixed(224,  64,  96,  96, 128, avg,  128),                # 14x14x576
    mixed4b=Mixed(192,  96, 128,  96, 128, avg,  128),                # 14x14x576
    mixed4c=Mixed(160, 128, 160, 128, 160, avg,   96),                # 14x14x576; the paper prints
    mixed4d=Mixed( 96, 128, 192, 160, 192, avg,   96),                # 128 twice: not 576 in all
    mixed4e=Mixed(  0, 128, 192, 192, 256, halve,  0),                # 7x7x1024
    mixed5a=Mixed(352, 192, 320, 160, 224, avg,  128),                # 7x7x1024
    mixed5b=Mixed(352, 192, 320, 192, 224, peak, 128),                # 7x7x1024
)
# fmt: on

# Slim's dropout. Section 4.2.1 removes it.
HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.2))


def inception_v2(ctx: Context) -> Network:
    """Inception with batch norm, by the figure above."""
    return Network(FIGURE_5, HEAD, ctx, min_size=32)


VARIANTS = [
    Variant("inception_v2", inception_v2, PAPER, aliases=("bn_inception",), numerics=SLIM),
]
