"""A small Inception for CIFAR-10 (Zhang et al., 2016), https://arxiv.org/abs/1611.03530."""

from dataclasses import dataclass, replace

from ..context import TF, Context
from ..layers import Conv, GlobalAvgPool, Layer, MaxPool, Network, Table, branches
from ..variant import Paper, Variant

PAPER = Paper(
    "Understanding Deep Learning Requires Rethinking Generalization",
    "Zhang, Bengio, Hardt, Recht, Vinyals",
    2016,
    "https://arxiv.org/abs/1611.03530",
    new="Networks that generalise well also fit random labels: it is not their size that keeps "
    "them from it. One of those networks is an Inception for CIFAR-10, of two branches a module.",
)
NUMERICS = replace(TF, bn_scale=False)  # with a scale, its parameters would be 1,712 too many


@dataclass(frozen=True)
class Module:
    """Appendix A: 1x1 beside 3x3 convolutions."""

    conv1: int
    conv3: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        conv1, conv3 = Conv(1, self.conv1), Conv(3, self.conv3)
        return branches(conv1x1=dict(conv=conv1), conv3x3=dict(conv=conv3)).build(channels, ctx)


@dataclass(frozen=True)
class Downsample:
    """Appendix A: a 3x3 convolution beside a max pool, both of stride 2."""

    conv3: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        conv, pool = Conv(3, self.conv3, stride=2), MaxPool(3, 2)
        return branches(conv3x3=dict(conv=conv), pool=dict(pool=pool)).build(channels, ctx)


# fmt: off
FIGURE_3: Table = dict(
    conv=Conv(3, 96),                                    # 28x28x96
    #             1x1  3x3
    module1a=Module( 32,  32),
    module1b=Module( 32,  48), down1=Downsample(80),     # 14x14x160
    module2a=Module(112,  48),
    module2b=Module( 96,  64),
    module2c=Module( 80,  80),
    module2d=Module( 48,  96), down2=Downsample(96),     # 7x7x240
    module3a=Module(176, 160),
    module3b=Module(176, 160),                           # 7x7x336
)
# fmt: on


def inception_cifar(ctx: Context) -> Network:
    """The small Inception of figure 3, with batch norm."""
    return Network(FIGURE_3, dict(avgpool=GlobalAvgPool()), ctx, min_size=4)


VARIANTS = [
    Variant("inception_cifar", inception_cifar, PAPER, input_size=28, numerics=NUMERICS),
]
