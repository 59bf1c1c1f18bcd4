"""VGG (Simonyan and Zisserman, 2014), https://arxiv.org/abs/1409.1556."""

from functools import partial

from ..context import Context
from ..layers import (
    Conv,
    Dense,
    Dropout,
    FlattenAt,
    GlobalAvgPool,
    MaxPool,
    Network,
    Row,
    Sequence,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    "Simonyan, Zisserman",
    2014,
    "https://arxiv.org/abs/1409.1556",
    new="3x3 convolutions throughout, up to 19 layers with weights: two in a row see what a 5x5 "
    "sees and three what a 7x7 sees, with fewer weights and more nonlinearities.",
)

# Table 1: the number of 3x3 convolutions before each max pool, at 64 to 512 channels.
# fmt: off
WIDTHS =        (64, 128, 256, 512, 512)
DEPTHS = dict(
    vgg11=      ( 1,   1,   2,   2,   2),                # column A
    vgg13=      ( 2,   2,   2,   2,   2),                # column B
    vgg16=      ( 2,   2,   3,   3,   3),                # column D
    vgg19=      ( 2,   2,   4,   4,   4),                # column E
)
# fmt: on


def stage(width: int, depth: int, norm: bool) -> Row:
    """`depth` 3x3 convolutions of `width` channels, then a 2x2 max pool."""
    # torchvision's VGG keeps the biases beside batch norm
    convs = {f"conv{i}": Conv(3, width, norm=norm, bias=True) for i in range(1, depth + 1)}
    return Sequence({**convs, "pool": MaxPool(2, 2)})


def table_1(depths: tuple[int, ...], norm: bool) -> Table:
    """The paper's table 1, by the number of convolutions in each of the five stages."""
    rows = zip(WIDTHS, depths, strict=True)
    return {f"stage{i}": stage(width, depth, norm) for i, (width, depth) in enumerate(rows, 1)}


HEAD: Table = dict(
    flatten=FlattenAt(7),
    fc1=Dense(4096),
    drop1=Dropout(0.5),
    fc2=Dense(4096),
    drop2=Dropout(0.5),
)


# For pictures of 32x32: column B to its fourth stage at half the width, a mean, one classifier.
CIFAR_WIDTHS = (32, 64, 128, 256)
CIFAR: Table = {f"stage{i}": stage(width, 2, True) for i, width in enumerate(CIFAR_WIDTHS, 1)}
CIFAR_HEAD: Table = dict(avgpool=GlobalAvgPool())


def vgg9_cifar(ctx: Context) -> Network:
    """A small VGG for CIFAR, of eight convolutions and a classifier."""
    return Network(CIFAR, CIFAR_HEAD, ctx, min_size=16)


def vgg(ctx: Context, depths: tuple[int, ...], norm: bool) -> Network:
    """VGG with these numbers of convolutions in its five stages."""
    return Network(table_1(depths, norm), HEAD, ctx, min_size=32)


VARIANTS = [
    Variant(name + suffix, partial(vgg, depths=depths, norm=norm), PAPER)
    for name, depths in DEPTHS.items()
    for suffix, norm in (("", False), ("_bn", True))
] + [Variant("vgg9_bn_cifar", vgg9_cifar, PAPER, input_size=32)]
