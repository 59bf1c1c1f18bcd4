"""ResNet (He et al., 2015), https://arxiv.org/abs/1512.03385, on ImageNet.

`resnet50` and deeper are "v1.5": the stride stands in the 3x3 convolution, not in the first 1x1 as
in the paper. torchvision's and timm's weights need that (https://ngc.nvidia.com/catalog/resources,
"ResNet v1.5", describes it; it gains about 0.5 % top-1). `resnet50_v1` is as in the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import Conv, GlobalAvgPool, Layer, MaxPool, Network, Residual, Row, Sequence, Table
from ..variant import Paper, Variant

PAPER = Paper(
    "Deep Residual Learning for Image Recognition",
    "He, Zhang, Ren, Sun",
    2015,
    "https://arxiv.org/abs/1512.03385",
    new="Blocks learn a residual that is added to their input, so that networks of 100 and more "
    "layers train; batch norm everywhere, one fully connected layer after global average "
    "pooling.",
)


def projection(features: int, stride: int) -> Row:
    """Option B: a 1x1 convolution."""
    return Conv(1, features, stride, act=None)


@dataclass(frozen=True)
class Block:
    """A residual unit: `branch`, and a shortcut of its own where the shape changes."""

    width: int
    stride: int = 1
    shortcut: Callable[[int, int], Row] = projection  # of (features, stride)
    expansion = 1

    def branch(self) -> Table:
        """Figure 5, left."""
        return dict(
            conv1=Conv(3, self.width, self.stride),
            conv2=Conv(3, self.width, act=None),
        )

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        out = self.width * self.expansion
        same = self.stride == 1 and channels == out
        shortcut = None if same else self.shortcut(out, self.stride)
        return Residual(channels, self.branch(), ctx, shortcut=shortcut, act="relu"), out


@dataclass(frozen=True)
class Bottleneck(Block):
    """Figure 5, right."""

    expansion = 4

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return dict(
            conv1=Conv(1, self.width),
            conv2=Conv(3, self.width, self.stride),
            conv3=Conv(1, self.width * self.expansion, act=None),
        )


@dataclass(frozen=True)
class BottleneckV1(Bottleneck):
    """The same with the paper's stride, in the first 1x1 (section 3.4, "Residual Network")."""

    def branch(self) -> Table:
        return {
            **super().branch(),
            "conv1": Conv(1, self.width, self.stride),
            "conv2": Conv(3, self.width),
        }


@dataclass(frozen=True)
class Plain(Block):
    """The unit of the plain networks of section 3.3: no shortcut."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = dict(conv1=Conv(3, self.width, self.stride), conv2=Conv(3, self.width))
        return Sequence(table).build(channels, ctx)


Unit = Callable[[int, int], Row]  # of (width, stride): `Block`, or a partial of it


def stage(unit: Unit, width: int, depth: int, stride: int = 1) -> Row:
    """`depth` units, the first of which has the stride."""
    first, rest = unit(width, stride), unit(width, 1)
    return Sequence({f"block{i}": rest if i else first for i in range(depth)})


# fmt: off
# Table 1 by its number of layers: the units of conv2_x to conv5_x. 200 is of arXiv:1603.05027;
# timm's 10, 14 and 26 are as shallow as their units allow, and half of 50.
DEPTHS = {
    10:  (1, 1,  1, 1),
    14:  (1, 1,  1, 1),
    18:  (2, 2,  2, 2),
    26:  (2, 2,  2, 2),
    34:  (3, 4,  6, 3),
    50:  (3, 4,  6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
STEM = Conv(7, 64, stride=2)


def table_1(unit: Unit, layers: int, stem: Row = STEM) -> Table:
    """Table 1; stage1 to stage4 are its conv2_x to conv5_x."""
    depths = DEPTHS[layers]
    return dict(
        stem=stem,                                       # 112x112
        pool=MaxPool(3, 2),                              # 56x56
        stage1=stage(unit, 64, depths[0]),
        stage2=stage(unit, 128, depths[1], stride=2),    # 28x28
        stage3=stage(unit, 256, depths[2], stride=2),    # 14x14
        stage4=stage(unit, 512, depths[3], stride=2),    # 7x7
    )
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool())


def resnet(ctx: Context, unit: Unit, layers: int, stem: Row = STEM) -> Network:
    """ResNet with that number of layers, built of that kind of unit."""
    return Network(table_1(unit, layers, stem), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant("resnet18", partial(resnet, unit=Block, layers=18), PAPER),
    Variant("resnet34", partial(resnet, unit=Block, layers=34), PAPER),
    Variant("resnet26", partial(resnet, unit=Bottleneck, layers=26), PAPER),
    Variant("resnet50", partial(resnet, unit=Bottleneck, layers=50), PAPER),
    Variant("resnet101", partial(resnet, unit=Bottleneck, layers=101), PAPER),
    Variant("resnet152", partial(resnet, unit=Bottleneck, layers=152), PAPER),
    Variant("resnet200", partial(resnet, unit=Bottleneck, layers=200), PAPER),
    Variant("resnet50_v1", partial(resnet, unit=BottleneckV1, layers=50), PAPER),
    Variant("resnet101_v1", partial(resnet, unit=BottleneckV1, layers=101), PAPER),
    Variant("resnet152_v1", partial(resnet, unit=BottleneckV1, layers=152), PAPER),
    Variant("plain18", partial(resnet, unit=Plain, layers=18), PAPER),
    Variant("plain34", partial(resnet, unit=Plain, layers=34), PAPER),
]
