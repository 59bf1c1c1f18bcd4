"""MobileNet v1 (Howard et al., 2017), https://arxiv.org/abs/1704.04861."""

from functools import partial

from ..context import Context
from ..layers import Conv, Dropout, GlobalAvgPool, Network, Separable, Table
from ..variant import Paper, Variant

PAPER = Paper(
    "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
    "Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam",
    2017,
    "https://arxiv.org/abs/1704.04861",
    new="Depthwise separable convolutions throughout: a 3x3 on each channel, then a 1x1 across "
    "them, for 8 to 9 times less computation. Multipliers of width and input size trade "
    "accuracy for cost.",
)


def table_1(width: float) -> Table:
    """Table 1, every layer narrowed by the width multiplier of section 3.3."""

    def c(channels: int) -> int:
        return int(channels * width)

    # fmt: off
    return dict(
        stem=Conv(3, c(32), stride=2, act="relu6"),      # 112x112
        sep1=Separable(c(64)),
        sep2=Separable(c(128), stride=2),                # 56x56
        sep3=Separable(c(128)),
        sep4=Separable(c(256), stride=2),                # 28x28
        sep5=Separable(c(256)),
        sep6=Separable(c(512), stride=2),                # 14x14
        sep7=Separable(c(512)),
        sep8=Separable(c(512)),
        sep9=Separable(c(512)),
        sep10=Separable(c(512)),
        sep11=Separable(c(512)),
        sep12=Separable(c(1024), stride=2),              # 7x7
        sep13=Separable(c(1024)),                        # the paper prints s2 here: a typo
    )
    # fmt: on


# The paper names no dropout; slim and Keras drop one value in a thousand.
HEAD: Table = dict(pool=GlobalAvgPool(), drop=Dropout(0.001))


def mobilenet_v1(ctx: Context, width: float) -> Network:
    """MobileNet v1 with `width` times the channels of the paper's table 1."""
    return Network(table_1(width), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant("mobilenet_v1_125", partial(mobilenet_v1, width=1.25), PAPER),
    Variant("mobilenet_v1_100", partial(mobilenet_v1, width=1.0), PAPER, aliases=("mobilenet_v1",)),
    Variant("mobilenet_v1_075", partial(mobilenet_v1, width=0.75), PAPER),
    Variant("mobilenet_v1_050", partial(mobilenet_v1, width=0.5), PAPER),
    Variant("mobilenet_v1_025", partial(mobilenet_v1, width=0.25), PAPER),
]
