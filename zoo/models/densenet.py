"""DenseNet (Huang et al., 2016), https://arxiv.org/abs/1608.06993: bottlenecked and compressed.

The "BC" of section 3. On ImageNet the paper has no dropout.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ..context import Context
from ..layers import (
    AvgPool,
    Conv,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Row,
    Sequence,
    Stack,
    Table,
)
from ..variant import Paper, Variant
from .resnet_v2 import PreAct

PAPER = Paper(
    "Densely Connected Convolutional Networks",
    "Huang, Liu, van der Maaten, Weinberger",
    2016,
    "https://arxiv.org/abs/1608.06993",
    new="Within a block every layer reads the feature maps of all the layers before it, "
    "concatenated, so that each needs to add only a few channels (the growth rate).",
)


# A convolution alone: the layers that read its output normalise it, in a `PreAct`.
bare = partial(Conv, norm=False, act=None, bias=False)


class Grown(Stack):
    """The layer that `Growth` builds: its input and `table(x)`, joined along the channels."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate((x, super().__call__(x)), -1)


@dataclass(frozen=True)
class Growth:
    """BN-ReLU-1x1-BN-ReLU-3x3, which adds `k` channels (section 3, "Bottleneck layers")."""

    k: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: Table = dict(
            preact=PreAct(),
            conv1=Conv(1, 4 * self.k),  # with the second BN-ReLU
            conv2=bare(3, self.k),
        )
        return Grown(channels, table, ctx), channels + self.k


@dataclass(frozen=True)
class Transition:
    """BN-ReLU-1x1-pool, which halves the channels: theta is 0.5 (section 3, "Compression")."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table: Table = dict(
            preact=PreAct(),  # the paper names BN alone; all published weights have the ReLU
            conv=bare(1, channels // 2),
            pool=AvgPool(2, 2, padding="valid"),
        )
        return Sequence(table).build(channels, ctx)


def block(layers: int, k: int) -> Row:
    """A dense block: every layer sees the outputs of all those before it."""
    return Sequence({f"layer{i}": Growth(k) for i in range(layers)})


# fmt: off
# Table 1 by the number of layers: those of the four dense blocks, and the growth rate k.
BLOCKS = {
    121: ((6, 12, 24, 16), 32),
    161: ((6, 12, 36, 24), 48),  # the paper's first versions and its code have this one
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
}


def table_1(layers: tuple[int, int, int, int], k: int) -> Table:
    """Table 1. Keras pads its stem as the others do."""
    return dict(
        stem=Conv(7, 2 * k, stride=2, padding="symmetric"),                  # 112x112
        pool=MaxPool(3, 2, padding="symmetric"),                             # 56x56
        dense1=block(layers[0], k), transition1=Transition(),                # 28x28
        dense2=block(layers[1], k), transition2=Transition(),                # 14x14
        dense3=block(layers[2], k), transition3=Transition(),                # 7x7
        dense4=block(layers[3], k), postact=PreAct(),
    )
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool())


def densenet(ctx: Context, layers: int) -> Network:
    """The DenseNet with that number of layers in its name."""
    return Network(table_1(*BLOCKS[layers]), HEAD, ctx, min_size=29)


VARIANTS = [
    Variant(f"densenet{layers}", partial(densenet, layers=layers), PAPER) for layers in BLOCKS
]
