"""RegNetY (Radosavovic et al., 2020), https://arxiv.org/abs/2003.13678.

A ResNet without bottleneck whose stages' widths lie on a quantised line (section 4); the tables
hold what comes of it. RegNetY is RegNetX with squeeze-excite (section 5).
"""

from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import (
    Conv,
    GlobalAvgPool,
    Layer,
    Network,
    Residual,
    Row,
    Sequence,
    SqueezeExcite,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "Designing Network Design Spaces",
    "Radosavovic, Kosaraju, Girshick, He, Dollár",
    2020,
    "https://arxiv.org/abs/2003.13678",
    new="A space of networks, not one network, made simpler step by step: the widths of blocks "
    "follow a quantised line, so that a few numbers give a network (RegNetX). RegNetY adds "
    "squeeze-excite.",
)


@dataclass(frozen=True)
class Block:
    """Figure 4: 1x1, 3x3 in groups of `group` channels, 1x1; bottleneck ratio 1."""

    width: int
    group: int
    stride: int = 1

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: Table = dict(
            conv1=Conv(1, self.width),
            conv2=Conv(3, self.width, self.stride, groups=self.width // self.group),
            # a quarter of the block's input channels, not of those it gates
            squeeze=SqueezeExcite(channels // 4),
            conv3=Conv(1, self.width, act=None),
        )
        same = self.stride == 1 and channels == self.width
        shortcut = None if same else Conv(1, self.width, self.stride, act=None)
        return Residual(channels, table, ctx, shortcut=shortcut, act="relu"), self.width


def stage(width: int, depth: int, group: int) -> Row:
    """A stage of `depth` blocks, the first of which has the stride."""
    first, rest = Block(width, group, stride=2), Block(width, group)
    return Sequence({f"block{i}": rest if i else first for i in range(depth)})


# fmt: off
# The paper's top RegNetY models. Two have torchvision's widths, which it derives from the published
# line in its own way: those of the paper's authors differ (timm's regnety_008, regnety_080).
TOP_MODELS = dict(
    #               depths d_i     widths w_i                g
    regnet_y_200mf=((1, 1,  4, 7), ( 24,  56,  152,  368),   8),
    regnet_y_400mf=((1, 3,  6, 6), ( 48, 104,  208,  440),   8),
    regnet_y_600mf=((1, 3,  7, 4), ( 48, 112,  256,  608),  16),
    regnet_y_800mf=((1, 3,  8, 2), ( 64, 144,  320,  784),  16),  # authors': 128, 768
    regnet_y_1_6gf=((2, 6, 17, 2), ( 48, 120,  336,  888),  24),
    regnet_y_3_2gf=((2, 5, 13, 1), ( 72, 216,  576, 1512),  24),
    regnet_y_4gf=(  (2, 6, 12, 2), (128, 192,  512, 1088),  64),
    regnet_y_6_4gf=((2, 7, 14, 2), (144, 288,  576, 1296),  72),
    regnet_y_8gf=(  (2, 4, 10, 1), (224, 448,  896, 2016),  56),  # authors': 168
    regnet_y_12gf=( (2, 5, 11, 1), (224, 448,  896, 2240), 112),
    regnet_y_16gf=( (2, 4, 11, 1), (224, 448, 1232, 3024), 112),
    regnet_y_32gf=( (2, 5, 12, 1), (232, 696, 1392, 3712), 232),
)
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool())


def regnet(
    ctx: Context, depths: tuple[int, int, int, int], widths: tuple[int, int, int, int], group: int
) -> Network:
    """RegNet with four stages of these depths and widths, its 3x3 in groups of `group` channels."""
    stages = {
        f"stage{i}": stage(width, depth, group)
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True), 1)
    }
    return Network(dict(stem=Conv(3, 32, stride=2), **stages), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant(name, partial(regnet, depths=depths, widths=widths, group=group), PAPER)
    for name, (depths, widths, group) in TOP_MODELS.items()
]
