"""Small networks for the experiments, each of the rows of the network that it stands for."""

from zoo.context import Context
from zoo.layers import (
    Conv,
    Dense,
    Dropout,
    FlattenAt,
    GlobalAvgPool,
    MaxPool,
    Network,
    Table,
)
from zoo.models import alexnet, inception_v3
from zoo.models.inception_v3 import figure_5, figure_6
from zoo.variant import Variant

# fmt: off
# AlexNet for pictures of 32x32: the same kinds of layers, and as large a share of its parameters
# (93 %) fully connected. With batch norm, which `norm="none"` takes away again.
SMALL_ALEXNET: Table = dict(
    conv1=Conv(3, 16), pool1=MaxPool(2, 2),              # 16x16
    conv2=Conv(3, 32), pool2=MaxPool(2, 2),              # 8x8
    conv3=Conv(3, 64),
    conv4=Conv(3, 64), pool4=MaxPool(2, 2),              # 4x4
)
SMALL_ALEXNET_HEAD: Table = dict(
    flatten=FlattenAt(4),
    fc6=Dense(512), drop6=Dropout(0.5),
    fc7=Dense(512), drop7=Dropout(0.5),
)

# Inception v3's modules, narrow, on two sizes of feature map.
SMALL_INCEPTION: Table = dict(
    stem=Conv(3, 32), pool1=MaxPool(2, 2),               # 16x16
    mixed1=figure_5(16, 12, 16, 16, 24, 8),
    mixed2=figure_5(16, 12, 16, 16, 24, 8), pool2=MaxPool(2, 2),   # 8x8
    mixed3=figure_6(24, 24),
    mixed4=figure_6(24, 24),
)
# fmt: on


def small_alexnet(ctx: Context) -> Network:
    """A small AlexNet."""
    return Network(SMALL_ALEXNET, SMALL_ALEXNET_HEAD, ctx, min_size=8)


def small_inception(ctx: Context) -> Network:
    """A small Inception v3."""
    return Network(SMALL_INCEPTION, dict(avgpool=GlobalAvgPool()), ctx, min_size=8)


ALEXNET = Variant(
    "small_alexnet", small_alexnet, alexnet.PAPER_2012, input_size=32, family="tricks"
)
INCEPTION = Variant(
    "small_inception", small_inception, inception_v3.PAPER, input_size=32, family="tricks"
)
