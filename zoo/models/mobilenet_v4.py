"""MobileNet v4 (Qin et al., 2024), https://arxiv.org/abs/2404.10518: the convolutional ones.

The tables are those of appendix D, as timm has them, whose weights are the published ones.
"""

from dataclasses import dataclass
from functools import partial

import jax

from .. import ops
from ..context import Context
from ..layers import Conv, FlattenAt, Layer, Network, Row, Sequence, Table
from ..variant import Paper, Variant
from .mobilenet_v2 import shortcut

PAPER = Paper(
    "MobileNetV4 -- Universal Models for the Mobile Ecosystem",
    "Qin, Leichner, Delakis, Fornoni, Luo, Yang, Wang, Banbury, Ye, Akin, Aggarwal, Zhu, Moro, "
    "Howard",
    2024,
    "https://arxiv.org/abs/2404.10518",
    new="The universal inverted bottleneck: depthwise convolutions before and after the expansion, "
    "each of which the architecture search may leave out, so that one block is MobileNet v2's, "
    "ConvNeXt's, a feed-forward layer, or something new.",
)


@dataclass(frozen=True)
class UIB:
    """Figure 4: a line of the tables. `k1` and `k2` are depthwise kernels, 0 where none is."""

    k1: int
    k2: int
    expanded: int
    features: int
    stride: int = 1

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: dict[str, Row] = {}
        if self.k1:  # linear; it has the stride where nothing follows the expansion
            stride = 1 if self.k2 else self.stride
            table["dw1"] = Conv(self.k1, channels, stride, groups=channels, act=None)
        table["expand"] = Conv(1, self.expanded)
        if self.k2:
            table["dw2"] = Conv(self.k2, self.expanded, self.stride, groups=self.expanded)
        table["project"] = Conv(1, self.features, act=None)
        return shortcut(channels, table, ctx, stride=self.stride)


@dataclass(frozen=True)
class FusedIB:
    """A full 3x3 convolution that expands and strides, and a projection."""

    expanded: int
    features: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = dict(fused=Conv(3, self.expanded, 2), linear=Conv(1, self.features, act=None))
        return shortcut(channels, table, ctx, stride=2)


@dataclass(frozen=True)
class AvgMap:
    """The mean over height and width as a map of one pixel: `[N, H, W, C] -> [N, 1, 1, C]`."""

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.global_avg_pool(x)[:, None, None, :]


def stage(*blocks: Row) -> Row:
    """Blocks one after the other."""
    return Sequence({f"block{i}": block for i, block in enumerate(blocks)})


# fmt: off
CONV_S: Table = dict(
    stem=Conv(3, 32, stride=2),                                              # 112x112
    stage1=stage(Conv(3, 32, stride=2), Conv(1, 32)),                        # 56x56
    stage2=stage(Conv(3, 96, stride=2), Conv(1, 64)),                        # 28x28
    #                k1 k2  exp  out  s
    stage3=stage(UIB(5, 5, 192,  96, 2),                                     # 14x14
                 *[UIB(0, 3, 192,  96)] * 4,
                 UIB(3, 0, 384,  96)),
    stage4=stage(UIB(3, 3, 576, 128, 2),                                     # 7x7
                 UIB(5, 5, 512, 128),
                 UIB(0, 5, 512, 128),
                 UIB(0, 5, 384, 128),
                 *[UIB(0, 3, 512, 128)] * 2),
    last=Conv(1, 960),
)
CONV_M: Table = dict(
    stem=Conv(3, 32, stride=2),
    stage1=stage(FusedIB(128, 48)),
    #                k1 k2  exp  out  s
    stage2=stage(UIB(3, 5, 192,  80, 2),
                 UIB(3, 3, 160,  80)),
    stage3=stage(UIB(3, 5, 480, 160, 2),
                 *[UIB(3, 3, 640, 160)] * 2,
                 UIB(3, 5, 640, 160),
                 UIB(3, 3, 640, 160),
                 UIB(3, 0, 640, 160),
                 UIB(0, 0, 320, 160),
                 UIB(3, 0, 640, 160)),
    stage4=stage(UIB(5, 5, 960, 256, 2),
                 UIB(5, 5, 1024, 256),
                 *[UIB(3, 5, 1024, 256)] * 2,
                 UIB(0, 0, 1024, 256),
                 UIB(3, 0, 1024, 256),
                 UIB(3, 5, 512, 256),
                 UIB(5, 5, 1024, 256),
                 *[UIB(0, 0, 1024, 256)] * 2,
                 UIB(5, 0, 512, 256)),
    last=Conv(1, 960),
)
CONV_L: Table = dict(
    stem=Conv(3, 24, stride=2),
    stage1=stage(FusedIB(96, 48)),
    #                k1 k2  exp  out  s
    stage2=stage(UIB(3, 5, 192,  96, 2),
                 UIB(3, 3, 384,  96)),
    stage3=stage(UIB(3, 5, 384, 192, 2),
                 *[UIB(3, 3, 768, 192)] * 3,
                 UIB(3, 5, 768, 192),
                 *[UIB(5, 3, 768, 192)] * 5,
                 UIB(3, 0, 768, 192)),
    stage4=stage(UIB(5, 5, 768, 512, 2),
                 *[UIB(5, 5, 2048, 512)] * 3,
                 UIB(5, 0, 2048, 512),
                 UIB(5, 3, 2048, 512),
                 *[UIB(5, 0, 2048, 512)] * 2,
                 UIB(5, 3, 2048, 512),
                 UIB(5, 5, 2048, 512),
                 *[UIB(5, 0, 2048, 512)] * 3),
    last=Conv(1, 960),
)
# fmt: on

# The last 1x1 convolution sees the mean, as in MobileNet v3, but has a norm.
HEAD: Table = dict(pool=AvgMap(), conv=Conv(1, 1280), flatten=FlattenAt(1))


def mobilenet_v4(ctx: Context, body: Table) -> Network:
    """MobileNet v4 of that table."""
    return Network(body, HEAD, ctx, min_size=32)


VARIANTS = [
    Variant(
        f"mobilenetv4_conv_{size}",
        partial(mobilenet_v4, body=body),
        PAPER,
        input_size=pixels,
        aliases=(f"mobilenet_v4_conv_{size}",),
    )
    for size, body, pixels in (
        ("small", CONV_S, 224),
        ("medium", CONV_M, 256),
        ("large", CONV_L, 384),
    )
]
