"""ResNeXt (Xie et al., 2016), https://arxiv.org/abs/1611.05431: ResNet with grouped 3x3."""

from dataclasses import dataclass
from functools import partial

from ..layers import Conv, Table
from ..variant import Paper, Variant
from .resnet import Bottleneck, resnet

PAPER = Paper(
    "Aggregated Residual Transformations for Deep Neural Networks",
    "Xie, Girshick, Dollár, Tu, He",
    2016,
    "https://arxiv.org/abs/1611.05431",
    new="Bottlenecks with a grouped 3x3 convolution: a sum of many equal, thin paths. More of "
    "them (the cardinality) gains more than depth or width at the same cost.",
)


@dataclass(frozen=True)
class Aggregated(Bottleneck):
    """Figure 3c: the bottleneck's 3x3 in C `groups` of d channels, d doubled stage by stage.

    The stride stands in the 3x3 (section 4).
    """

    groups: int = 32  # the paper's C, the cardinality
    d: int = 4  # channels of a group at width 64, in the first stage

    @property
    def inner(self) -> int:
        """Channels of the 3x3."""
        return self.groups * self.d * self.width // 64

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return dict(
            conv1=Conv(1, self.inner),
            conv2=Conv(3, self.inner, self.stride, groups=self.groups),
            conv3=Conv(1, self.width * self.expansion, act=None),
        )


# fmt: off
#                     layers  C  d
SETTINGS = dict(
    resnext50_32x4d=  ( 50,  32, 4),
    resnext101_32x4d= (101,  32, 4),
    resnext101_32x8d= (101,  32, 8),
    resnext101_64x4d= (101,  64, 4),
)
# fmt: on

VARIANTS = [
    Variant(
        name, partial(resnet, unit=partial(Aggregated, groups=groups, d=d), layers=layers), PAPER
    )
    for name, (layers, groups, d) in SETTINGS.items()
]
