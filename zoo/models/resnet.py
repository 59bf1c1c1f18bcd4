"""ResNet (He et al., 2015), https://arxiv.org/abs/1512.03385.

The bottleneck is "v1.5": its stride stands in the 3x3 convolution, not in the first 1x1 as in the
paper. torchvision's and timm's weights need that (https://ngc.nvidia.com/catalog/resources,
"ResNet v1.5", describes it; it gains about 0.5 % top-1).
"""

from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import Conv, GlobalAvgPool, Layer, MaxPool, Network, Residual, Row, Sequence, Table
from ..registry import Variant

PAPER = "https://arxiv.org/abs/1512.03385"


@dataclass(frozen=True)
class Block:
    """A residual unit: `branch`, and a 1x1 shortcut where the shape changes (option B)."""

    width: int
    stride: int = 1
    expansion = 1

    def branch(self) -> Table:
        """Figure 5, left."""
        return dict(
            conv1=Conv(3, self.width, self.stride),
            conv2=Conv(3, self.width, act=None),
        )

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        out = self.width * self.expansion
        shortcut = None
        if self.stride != 1 or channels != out:
            shortcut = Conv(1, out, self.stride, act=None)
        return Residual(channels, self.branch(), ctx, shortcut=shortcut, act="relu"), out


@dataclass(frozen=True)
class Bottleneck(Block):
    """Figure 5, right."""

    expansion = 4

    def branch(self) -> Table:
        return dict(
            conv1=Conv(1, self.width),
            conv2=Conv(3, self.width, self.stride),
            conv3=Conv(1, self.width * self.expansion, act=None),
        )


def stage(block: type[Block], width: int, depth: int, stride: int = 1) -> Row:
    first, rest = block(width, stride), block(width)
    return Sequence({f"block{i}": rest if i else first for i in range(depth)})


def table_1(block: type[Block], depths: tuple[int, int, int, int]) -> Table:
    """Table 1; stage1 to stage4 are its conv2_x to conv5_x."""
    # fmt: off
    return dict(
        stem=Conv(7, 64, stride=2),                      # 112x112
        pool=MaxPool(3, 2),                              # 56x56
        stage1=stage(block, 64, depths[0]),
        stage2=stage(block, 128, depths[1], stride=2),   # 28x28
        stage3=stage(block, 256, depths[2], stride=2),   # 14x14
        stage4=stage(block, 512, depths[3], stride=2),   # 7x7
    )
    # fmt: on


def resnet(ctx: Context, block: type[Block], depths: tuple[int, int, int, int]) -> Network:
    return Network(table_1(block, depths), dict(avgpool=GlobalAvgPool()), ctx, min_size=32)


VARIANTS = [
    Variant("resnet18", partial(resnet, block=Block, depths=(2, 2, 2, 2)), PAPER),
    Variant("resnet34", partial(resnet, block=Block, depths=(3, 4, 6, 3)), PAPER),
    Variant("resnet50", partial(resnet, block=Bottleneck, depths=(3, 4, 6, 3)), PAPER),
    Variant("resnet101", partial(resnet, block=Bottleneck, depths=(3, 4, 23, 3)), PAPER),
    Variant("resnet152", partial(resnet, block=Bottleneck, depths=(3, 8, 36, 3)), PAPER),
]
