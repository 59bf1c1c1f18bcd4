"""RegNetX and RegNetY (Radosavovic et al., 2020), https://arxiv.org/abs/2003.13678.

A ResNet without bottleneck whose stages' widths lie on a quantised line (section 4); the tables
hold what comes of it. RegNetY is RegNetX with squeeze-excite (section 5).
"""

from collections.abc import Callable
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
class XBlock:
    """Figure 4: 1x1, 3x3 in groups of `group` channels, 1x1; bottleneck ratio 1."""

    width: int
    group: int
    stride: int = 1

    def branch(self, _channels: int) -> dict[str, Row]:
        """The layers beside the shortcut, for an input of so many channels."""
        groups = self.width // min(self.group, self.width)
        return dict(
            conv1=Conv(1, self.width),
            conv2=Conv(3, self.width, self.stride, groups=groups),
            conv3=Conv(1, self.width, act=None),
        )

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        same = self.stride == 1 and channels == self.width
        shortcut = None if same else Conv(1, self.width, self.stride, act=None)
        table = self.branch(channels)
        return Residual(channels, table, ctx, shortcut=shortcut, act="relu"), self.width


@dataclass(frozen=True)
class YBlock(XBlock):
    """The same with squeeze-excite behind the 3x3."""

    def branch(self, channels: int) -> dict[str, Row]:
        """The layers beside the shortcut, for an input of so many channels."""
        rows = super().branch(channels)
        end = rows.pop("conv3")
        # a quarter of the block's input channels, not of those it gates
        return rows | dict(squeeze=SqueezeExcite(round(channels / 4)), conv3=end)


Block = Callable[[int, int, int], Row]  # of (width, group, stride)


def stage(block: Block, width: int, depth: int, group: int) -> Row:
    """A stage of `depth` blocks, the first of which has the stride."""
    first, rest = block(width, group, 2), block(width, group, 1)
    return Sequence({f"block{i}": rest if i else first for i in range(depth)})


# fmt: off
# The paper's top models. Three have torchvision's widths, which it derives from the published line
# in its own way; those of the paper's authors are the rows that end in _pycls, their code.
TOP_X = dict(
    #                     depths d_i      widths w_i               g
    regnet_x_200mf=      ((1, 1,  4,  7), ( 24,  56, 152,  368),   8),
    regnet_x_400mf=      ((1, 2,  7, 12), ( 32,  64, 160,  400),  16),
    regnet_x_400mf_pycls=((1, 2,  7, 12), ( 32,  64, 160,  384),  16),
    regnet_x_600mf=      ((1, 3,  5,  7), ( 48,  96, 240,  528),  24),
    regnet_x_800mf=      ((1, 3,  7,  5), ( 64, 128, 288,  672),  16),
    regnet_x_1_6gf=      ((2, 4, 10,  2), ( 72, 168, 408,  912),  24),
    regnet_x_3_2gf=      ((2, 6, 15,  2), ( 96, 192, 432, 1008),  48),
    regnet_x_4gf=        ((2, 5, 14,  2), ( 80, 240, 560, 1360),  40),
    regnet_x_6_4gf=      ((2, 4, 10,  1), (168, 392, 784, 1624),  56),
    regnet_x_8gf=        ((2, 5, 15,  1), ( 80, 240, 720, 1920), 120),
    regnet_x_12gf=       ((2, 5, 11,  1), (224, 448, 896, 2240), 112),
    regnet_x_16gf=       ((2, 6, 13,  1), (256, 512, 896, 2048), 128),
    regnet_x_32gf=       ((2, 7, 13,  1), (336, 672, 1344, 2520), 168),
)
TOP_Y = dict(
    #                     depths d_i      widths w_i               g
    regnet_y_200mf=      ((1, 1,  4, 7), ( 24,  56,  152,  368),   8),
    regnet_y_400mf=      ((1, 3,  6, 6), ( 48, 104,  208,  440),   8),
    regnet_y_600mf=      ((1, 3,  7, 4), ( 48, 112,  256,  608),  16),
    regnet_y_800mf=      ((1, 3,  8, 2), ( 64, 144,  320,  784),  16),
    regnet_y_800mf_pycls=((1, 3,  8, 2), ( 64, 128,  320,  768),  16),
    regnet_y_1_6gf=      ((2, 6, 17, 2), ( 48, 120,  336,  888),  24),
    regnet_y_3_2gf=      ((2, 5, 13, 1), ( 72, 216,  576, 1512),  24),
    regnet_y_4gf=        ((2, 6, 12, 2), (128, 192,  512, 1088),  64),
    regnet_y_6_4gf=      ((2, 7, 14, 2), (144, 288,  576, 1296),  72),
    regnet_y_8gf=        ((2, 4, 10, 1), (224, 448,  896, 2016),  56),
    regnet_y_8gf_pycls=  ((2, 4, 10, 1), (168, 448,  896, 2016),  56),
    regnet_y_12gf=       ((2, 5, 11, 1), (224, 448,  896, 2240), 112),
    regnet_y_16gf=       ((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
    regnet_y_32gf=       ((2, 5, 12, 1), (232, 696, 1392, 3712), 232),
)
# Larger than the paper's: of SEER (arXiv:2202.08360) and SWAG (arXiv:2201.08371).
LARGER_Y = dict(
    regnet_y_64gf=       ((2, 5, 12, 1), (328, 984, 1968, 4920), 328),
    regnet_y_128gf=      ((2, 7, 17, 1), (528, 1056, 2904, 7392), 264),
    regnet_y_256gf=      ((2, 7, 17, 1), (746, 1492, 4103, 10444), 373),
)
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool())


def regnet(
    ctx: Context,
    block: Block,
    depths: tuple[int, int, int, int],
    widths: tuple[int, int, int, int],
    group: int,
) -> Network:
    """RegNet with four stages of these depths and widths, its 3x3 in groups of `group` channels."""
    stages = {
        f"stage{i}": stage(block, width, depth, group)
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True), 1)
    }
    return Network(dict(stem=Conv(3, 32, stride=2), **stages), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant(
        name,
        partial(regnet, block=block, depths=depths, widths=widths, group=group),
        PAPER,
        input_size=pixels,
    )
    for block, models, pixels in (
        (YBlock, TOP_Y, 224),
        (YBlock, LARGER_Y, 384),
        (XBlock, TOP_X, 224),
    )
    for name, (depths, widths, group) in models.items()
]
