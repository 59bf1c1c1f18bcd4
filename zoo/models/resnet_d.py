"""ResNet-D (He et al., 2018, "Bag of Tricks"), https://arxiv.org/abs/1812.01187, section 4.

Figure 2: tweak B is `resnet.py`'s stride in the 3x3, tweak C a stem of three 3x3 convolutions,
tweak D a shortcut that averages pixels instead of skipping three in four.
"""

from functools import partial

from ..layers import AvgPool, Conv, Row, Sequence
from ..variant import Paper, Variant
from .resnet import Block, Bottleneck, projection, resnet

PAPER = Paper(
    "Bag of Tricks for Image Classification with Convolutional Neural Networks",
    "He, Zhang, Zhang, Zhang, Xie, Li",
    2018,
    "https://arxiv.org/abs/1812.01187",
    new="Tricks of training, and of ResNet: the stride out of the first 1x1 convolution (B), a "
    "stem of three 3x3 for the 7x7 (C), and shortcuts that average before their 1x1 instead "
    "of skipping pixels (D).",
)

STEM = Sequence(
    dict(conv1=Conv(3, 32, stride=2), conv2=Conv(3, 32), conv3=Conv(3, 64)),  # figure 2b
)


def averaged(features: int, stride: int) -> Row:
    """Figure 2c; at an odd size the last window averages what there is, as in timm."""
    conv = projection(features, stride=1)
    return conv if stride == 1 else Sequence(dict(pool=AvgPool(2, 2, padding="ceil"), conv=conv))


resnet_d = partial(resnet, stem=STEM)
BLOCK, BOTTLENECK = (partial(unit, shortcut=averaged) for unit in (Block, Bottleneck))

VARIANTS = [
    Variant("resnet18d", partial(resnet_d, unit=BLOCK, layers=18), PAPER),
    Variant("resnet34d", partial(resnet_d, unit=BLOCK, layers=34), PAPER),
    Variant("resnet50d", partial(resnet_d, unit=BOTTLENECK, layers=50), PAPER),
    Variant("resnet101d", partial(resnet_d, unit=BOTTLENECK, layers=101), PAPER, input_size=256),
    Variant("resnet152d", partial(resnet_d, unit=BOTTLENECK, layers=152), PAPER, input_size=256),
]
