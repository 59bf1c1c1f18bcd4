"""SE-ResNet (Hu et al., 2017), https://arxiv.org/abs/1709.01507: channels weighted by a gate.

The ResNet is `resnet.py`'s, with the stride in the 3x3 as in timm's weights; the paper's have it in
the first 1x1, and pool differently after the stem.
"""

from dataclasses import dataclass
from functools import partial

from ..layers import Row, SqueezeExcite, Table
from ..variant import Paper, Variant
from .resnet import Block, Bottleneck, resnet

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


VARIANTS = [
    Variant("seresnet18", partial(resnet, unit=SEBlock, layers=18), PAPER),
    Variant("seresnet34", partial(resnet, unit=SEBlock, layers=34), PAPER),
    Variant("seresnet50", partial(resnet, unit=SEBottleneck, layers=50), PAPER),
    Variant("seresnet101", partial(resnet, unit=SEBottleneck, layers=101), PAPER),
    Variant("seresnet152", partial(resnet, unit=SEBottleneck, layers=152), PAPER),
]
