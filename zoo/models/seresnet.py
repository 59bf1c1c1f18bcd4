"""SE-ResNet, SE-ResNeXt and SENet-154 (Hu et al., 2017), https://arxiv.org/abs/1709.01507.

Channels are weighted by a gate. The ResNet is `resnet.py`'s, with the stride in the 3x3 as in
timm's weights; the paper's have it in the first 1x1, and pool differently after the stem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import Conv, Dropout, Network, Row, SqueezeExcite, Table
from ..variant import Paper, Variant
from .resnet import HEAD, STEM, Block, Bottleneck, Unit, projection, resnet, table_1
from .resnet_d import STEM as DEEP
from .resnet_d import TIERED, WIDE, averaged
from .resnext import Aggregated

PAPER = Paper(
    "Squeeze-and-Excitation Networks",
    "Hu, Shen, Albanie, Sun, Wu",
    2017,
    "https://arxiv.org/abs/1709.01507",
    new="Squeeze-excite: a block's channels are weighted by a gate, two small fully connected "
    "layers on their averages over the image. A tenth more parameters in ResNet-50, hardly "
    "more computation.",
)


def squeeze(channels: int) -> Row:
    """Figure 3, with r = 16 (section 3.2) but never fewer than 8 channels, as in timm."""
    return SqueezeExcite(max(channels // 16, 8))


@dataclass(frozen=True)
class SEBlock(Block):
    """ResNet's basic block with squeeze-excite at the end of its branch."""

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return {**super().branch(), "se": squeeze(self.width)}


@dataclass(frozen=True)
class SEBottleneck(Bottleneck):
    """ResNet's bottleneck with squeeze-excite at the end of its branch."""

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return {**super().branch(), "se": squeeze(self.width * self.expansion)}


@dataclass(frozen=True)
class SEAggregated(Aggregated):
    """ResNeXt's bottleneck with squeeze-excite at the end of its branch."""

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return {**super().branch(), "se": squeeze(self.width * self.expansion)}


@dataclass(frozen=True)
class SENetUnit(SEAggregated):
    """SENet-154's (appendix): the first 1x1 is half as wide as the 3x3."""

    def branch(self) -> Table:
        """The layers beside the shortcut."""
        return {**super().branch(), "conv1": Conv(1, self.inner // 2)}


def projection_3x3(features: int, stride: int) -> Row:
    """SENet-154's shortcut (appendix): a 3x3 convolution where it has a stride."""
    return Conv(1 if stride == 1 else 3, features, stride, act=None)


def senet154(ctx: Context) -> Network:
    """A ResNeXt-152 64x4d with the stem of ResNet-S, other shortcuts and dropout (appendix)."""
    unit = partial(SENetUnit, groups=64, d=4, shortcut=projection_3x3)
    head: Table = {**HEAD, "drop": Dropout(0.2)}
    return Network(table_1(unit, 152, WIDE), head, ctx, min_size=32)


def aggregated(groups: int, d: int, shortcut: Callable[[int, int], Row] = projection) -> Unit:
    """SE-ResNeXt's unit of `groups` times `d` channels at width 64."""
    return partial(SEAggregated, groups=groups, d=d, shortcut=shortcut)


# fmt: off
SETTINGS: dict[str, tuple[int, Unit, Row]] = dict(
    #                     layers unit                                    stem
    seresnet18=          ( 18, SEBlock,                                  STEM),
    seresnet34=          ( 34, SEBlock,                                  STEM),
    seresnet50=          ( 50, SEBottleneck,                             STEM),
    seresnet101=         (101, SEBottleneck,                             STEM),
    seresnet152=         (152, SEBottleneck,                             STEM),
    seresnext50_32x4d=   ( 50, aggregated(32, 4),                        STEM),
    seresnext101_32x4d=  (101, aggregated(32, 4),                        STEM),
    seresnext101_32x8d=  (101, aggregated(32, 8),                        STEM),
    seresnext101_64x4d=  (101, aggregated(64, 4),                        STEM),
    # with the stem and the shortcuts of `resnet_d.py`
    seresnext26d_32x4d=  ( 26, aggregated(32, 4, shortcut=averaged),     DEEP),
    seresnext101d_32x8d= (101, aggregated(32, 8, shortcut=averaged),     DEEP),
    seresnext26t_32x4d=  ( 26, aggregated(32, 4, shortcut=averaged),     TIERED),
)
# fmt: on

VARIANTS = [
    *(
        Variant(name, partial(resnet, unit=unit, layers=layers, stem=stem), PAPER)
        for name, (layers, unit, stem) in SETTINGS.items()
    ),
    Variant("senet154", senet154, PAPER),
]
