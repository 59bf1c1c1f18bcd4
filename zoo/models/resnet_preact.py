"""ResNet v2 as in timm, its `resnetv2_*`: https://arxiv.org/abs/1603.05027 with present habits.

Norm and activation come before each convolution, and nothing after the sum. Unlike `resnet_v2.py`,
whose weights are slim's and Keras', a stage's stride stands in its first unit, as in the paper, and
there in the 3x3; no convolution has a bias; and some have the stems and shortcuts of `resnet_d.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import AvgPool, Conv, Layer, MaxPool, Network, Row, Sequence, Table
from ..variant import Variant
from .resnet import DEPTHS, HEAD, stage
from .resnet import Unit as Units
from .resnet_v2 import PAPER, PreAct, PreActResidual

bare = partial(Conv, norm=False, act=None, bias=False)  # the next unit's norm follows


def projection(features: int, stride: int) -> Row:
    """A 1x1 convolution of the activation that the branch reads too."""
    return bare(1, features, stride)


def averaged(features: int, stride: int) -> Row:
    """`resnet_d.averaged` without a norm."""
    conv = projection(features, 1)
    return conv if stride == 1 else Sequence(dict(pool=AvgPool(2, 2, padding="ceil"), conv=conv))


@dataclass(frozen=True)
class Unit:
    """Figure 4e, as the basic block of ResNet-18 and 34."""

    width: int
    stride: int = 1
    shortcut: Callable[[int, int], Row] = projection  # of (features, stride)
    expansion = 1

    def branch(self) -> Table:
        """The layers beside the shortcut; each convolution's norm is the next one's."""
        return dict(conv1=Conv(3, self.width, self.stride), conv2=bare(3, self.width))

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        out = self.width * self.expansion
        same = self.stride == 1 and channels == out
        shortcut = None if same else self.shortcut(out, self.stride)
        table = {"preact": PreAct(), **self.branch()}
        return PreActResidual(channels, table, ctx, projection=shortcut, skip=None), out


@dataclass(frozen=True)
class Bottleneck(Unit):
    """The same as a bottleneck."""

    expansion = 4

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return dict(
            conv1=Conv(1, self.width),
            conv2=Conv(3, self.width, self.stride),
            conv3=bare(1, self.width * self.expansion),
        )


def deep(c1: int, c2: int, c3: int) -> Row:
    """`resnet_d.deep` without a norm at its end."""
    return Sequence(dict(conv1=Conv(3, c1, stride=2), conv2=Conv(3, c2), conv3=bare(3, c3)))


def body(unit: Units, depths: tuple[int, int, int, int], stem: Row) -> Table:
    """Table 1 of the ResNet paper (arXiv:1512.03385), the stages named as in `resnet.py`."""
    return dict(
        stem=stem,  # 112x112
        pool=MaxPool(3, 2),  # 56x56
        stage1=stage(unit, 64, depths[0]),
        stage2=stage(unit, 128, depths[1], stride=2),  # 28x28
        stage3=stage(unit, 256, depths[2], stride=2),  # 14x14
        stage4=stage(unit, 512, depths[3], stride=2),  # 7x7
        postact=PreAct(),
    )


def resnetv2(ctx: Context, unit: Units, layers: int, stem: Row) -> Network:
    """Pre-activation ResNet with that number of layers, built of that kind of unit."""
    return Network(body(unit, DEPTHS[layers], stem), HEAD, ctx, min_size=32)


STEM, DEEP, TIERED = bare(7, 64, 2), deep(32, 32, 64), deep(24, 32, 64)
UNIT_D, BOTTLENECK_D = (partial(unit, shortcut=averaged) for unit in (Unit, Bottleneck))

# fmt: off
SETTINGS: dict[str, tuple[int, Units, Row]] = dict(
    #              layers unit          stem
    resnetv2_18=   ( 18, Unit,         STEM),
    resnetv2_34=   ( 34, Unit,         STEM),
    resnetv2_50=   ( 50, Bottleneck,   STEM),
    resnetv2_101=  (101, Bottleneck,   STEM),
    resnetv2_152=  (152, Bottleneck,   STEM),
    resnetv2_18d=  ( 18, UNIT_D,       DEEP),
    resnetv2_34d=  ( 34, UNIT_D,       DEEP),
    resnetv2_50d=  ( 50, BOTTLENECK_D, DEEP),
    resnetv2_101d= (101, BOTTLENECK_D, DEEP),
    resnetv2_152d= (152, BOTTLENECK_D, DEEP),
    resnetv2_50t=  ( 50, BOTTLENECK_D, TIERED),
)
# fmt: on

VARIANTS = [
    Variant(name, partial(resnetv2, unit=unit, layers=layers, stem=stem), PAPER)
    for name, (layers, unit, stem) in SETTINGS.items()
]
