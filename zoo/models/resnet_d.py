"""ResNet-D (He et al., 2018, "Bag of Tricks"), https://arxiv.org/abs/1812.01187, section 4.

Figure 2: tweak B is `resnet.py`'s stride in the 3x3, tweak C a stem of three 3x3 convolutions,
tweak D a shortcut that averages pixels instead of skipping three in four. ResNet-C has C alone, and
ResNet-D all. Two more kinds are of the libraries: ResNet-T (timm) is D with a stem that grows
evenly, ResNet-S (GluonCV) is C with a stem of twice the width.
"""

from functools import partial

from ..layers import AvgPool, Conv, Row, Sequence
from ..variant import Paper, Variant
from .resnet import Block, Bottleneck, Unit, projection, resnet

PAPER = Paper(
    "Bag of Tricks for Image Classification with Convolutional Neural Networks",
    "He, Zhang, Zhang, Zhang, Xie, Li",
    2018,
    "https://arxiv.org/abs/1812.01187",
    new="Tricks of training, and of ResNet: the stride out of the first 1x1 convolution (B), a "
    "stem of three 3x3 for the 7x7 (C), and shortcuts that average before their 1x1 instead "
    "of skipping pixels (D).",
)


def deep(c1: int, c2: int, c3: int) -> Row:
    """Figure 2b: three 3x3 convolutions of so many channels in place of one 7x7."""
    return Sequence(dict(conv1=Conv(3, c1, stride=2), conv2=Conv(3, c2), conv3=Conv(3, c3)))


STEM, TIERED, WIDE = deep(32, 32, 64), deep(24, 32, 64), deep(64, 64, 128)


def averaged(features: int, stride: int) -> Row:
    """Figure 2c; at an odd size the last window averages what there is, as in timm."""
    conv = projection(features, stride=1)
    return conv if stride == 1 else Sequence(dict(pool=AvgPool(2, 2, padding="ceil"), conv=conv))


BLOCK, BOTTLENECK = (partial(unit, shortcut=averaged) for unit in (Block, Bottleneck))

# fmt: off
SETTINGS: dict[str, tuple[int, Unit, Row, int]] = dict(
    #            layers unit       stem    input
    resnet18d=  ( 18, BLOCK,      STEM,   224),
    resnet34d=  ( 34, BLOCK,      STEM,   224),
    resnet26d=  ( 26, BOTTLENECK, STEM,   224),
    resnet50d=  ( 50, BOTTLENECK, STEM,   224),
    resnet101d= (101, BOTTLENECK, STEM,   256),
    resnet152d= (152, BOTTLENECK, STEM,   256),
    resnet200d= (200, BOTTLENECK, STEM,   256),
    resnet10t=  ( 10, BLOCK,      TIERED, 176),
    resnet14t=  ( 14, BOTTLENECK, TIERED, 176),
    resnet26t=  ( 26, BOTTLENECK, TIERED, 256),
    resnet50t=  ( 50, BOTTLENECK, TIERED, 224),
    resnet50c=  ( 50, Bottleneck, STEM,   224),
    resnet101c= (101, Bottleneck, STEM,   224),
    resnet152c= (152, Bottleneck, STEM,   224),
    resnet50s=  ( 50, Bottleneck, WIDE,   224),
    resnet101s= (101, Bottleneck, WIDE,   224),
    resnet152s= (152, Bottleneck, WIDE,   224),
)
# fmt: on

VARIANTS = [
    Variant(
        name, partial(resnet, unit=unit, layers=layers, stem=stem), PAPER, input_size=input_size
    )
    for name, (layers, unit, stem, input_size) in SETTINGS.items()
]
