"""MnasNet (Tan et al., 2018), https://arxiv.org/abs/1807.11626: B1, and A1 with squeeze-excite."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..context import TORCH, Context
from ..layers import Conv, Dropout, GlobalAvgPool, Network, Row, SqueezeExcite, Table
from ..variant import Paper, Variant
from .mobilenet_v2 import Bottleneck, InvertedResidual, divisible

PAPER = Paper(
    "MnasNet: Platform-Aware Neural Architecture Search for Mobile",
    "Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le",
    2018,
    "https://arxiv.org/abs/1807.11626",
    new="Architecture search rewarded for speed measured on a phone, in a space where each "
    "stage chooses its own kernel, expansion, depth and squeeze-excite.",
)


@dataclass(frozen=True)
class MBConv(Bottleneck):
    """MobileNet v2's block with kernel `k` and ReLU; `SepConv` is the one with t = 1.

    `se` squeezes to a quarter of the block's input channels.
    """

    k: int
    se: bool

    def block(self, channels: int, stride: int) -> Row:
        squeeze = SqueezeExcite(max(1, channels // 4)) if self.se else None
        return InvertedResidual(
            self.t * channels, self.c, stride, self.k, act="relu", squeeze=squeeze
        )


# The last convolution keeps its 1280 channels at every width.
# fmt: off
def a1(c: Callable[[int], int]) -> Table:
    """Figure 7; `c` scales its numbers of channels."""
    return dict(
        stem=Conv(3, c(32), stride=2),                   # 112x112
        #             t       c  n  s  k  SE
        stage1=MBConv(1, c( 16), 1, 1, 3, False),
        stage2=MBConv(6, c( 24), 2, 2, 3, False),        # 56x56
        stage3=MBConv(3, c( 40), 3, 2, 5, True),         # 28x28
        stage4=MBConv(6, c( 80), 4, 2, 3, False),        # 14x14
        stage5=MBConv(6, c(112), 2, 1, 3, True),
        stage6=MBConv(6, c(160), 3, 2, 5, True),         # 7x7
        stage7=MBConv(6, c(320), 1, 1, 3, False),
        last=Conv(1, 1280),
    )


def b1(c: Callable[[int], int]) -> Table:
    """What the search finds without squeeze-excite, as the authors' code has it."""
    return dict(
        stem=Conv(3, c(32), stride=2),                   # 112x112
        #             t       c  n  s  k  SE
        stage1=MBConv(1, c( 16), 1, 1, 3, False),
        stage2=MBConv(3, c( 24), 3, 2, 3, False),        # 56x56
        stage3=MBConv(3, c( 40), 3, 2, 5, False),        # 28x28
        stage4=MBConv(6, c( 80), 3, 2, 5, False),        # 14x14
        stage5=MBConv(6, c( 96), 2, 1, 3, False),
        stage6=MBConv(6, c(192), 4, 2, 5, False),        # 7x7
        stage7=MBConv(6, c(320), 1, 1, 3, False),
        last=Conv(1, 1280),
    )
# fmt: on


def mnasnet(ctx: Context, table: Callable[[Callable[[int], int]], Table], width: float) -> Network:
    """MnasNet by the table `a1` or `b1`, with `width` times the channels."""
    # The paper names no dropout; torchvision and timm have this one.
    head: Table = dict(pool=GlobalAvgPool(), drop=Dropout(0.2))
    return Network(table(lambda channels: divisible(channels * width)), head, ctx, min_size=32)


A1, B1 = partial(mnasnet, table=a1), partial(mnasnet, table=b1)

# torchvision's momentum, for B1; A1, timm's alone, has PyTorch's.
_variant = partial(Variant, paper=PAPER, numerics=replace(TORCH, bn_momentum=0.9997))
VARIANTS = [
    _variant("mnasnet_140", partial(B1, width=1.4)),
    _variant("mnasnet_130", partial(B1, width=1.3)),
    _variant("mnasnet_100", partial(B1, width=1.0), aliases=("mnasnet",)),
    _variant("mnasnet_075", partial(B1, width=0.75)),
    _variant("mnasnet_050", partial(B1, width=0.5)),
    Variant("semnasnet_140", partial(A1, width=1.4), PAPER),
    Variant("semnasnet_100", partial(A1, width=1.0), PAPER, aliases=("semnasnet",)),
    Variant("semnasnet_075", partial(A1, width=0.75), PAPER),
    Variant("semnasnet_050", partial(A1, width=0.5), PAPER),
]
