"""Wide ResNet (Zagoruyko and Komodakis, 2016), https://arxiv.org/abs/1605.07146, on ImageNet.

`_2` is table 8's "WRN-50-2-bottleneck": the inner convolutions are twice as wide, the units'
outputs are not. The stride stands in the 3x3, as torchvision's and timm's weights need it.
"""

from functools import partial

from ..variant import Paper, Variant
from .resnet import resnet
from .resnext import Aggregated

PAPER = Paper(
    "Wide Residual Networks",
    "Zagoruyko, Komodakis",
    2016,
    "https://arxiv.org/abs/1605.07146",
    new="Width in place of depth: residual networks of few, wide layers are as accurate as "
    "those of a thousand thin ones and train several times faster.",
)

wide = partial(Aggregated, groups=1, d=2 * 64)  # one group: a bottleneck of another inner width

VARIANTS = [
    Variant("wide_resnet50_2", partial(resnet, unit=wide, layers=50), PAPER),
    Variant("wide_resnet101_2", partial(resnet, unit=wide, layers=101), PAPER),
]
