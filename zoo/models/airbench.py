"""airbench94, the network of a CIFAR-10 speed record (Jordan, 2024), https://arxiv.org/abs/2404.00498.

Its first convolution is meant to whiten patches of the pictures and to stay so: see the settings
`stem_init` and `freeze` of training, and the recipe `airbench94_cifar10`.
"""

from dataclasses import replace

from ..context import TORCH, Context
from ..layers import Conv, Dense, FlattenAt, MaxPool, Network, Row, Sequence, Table
from ..variant import Paper, Variant
from .inception_resnet_v2 import Scale
from .resnet_v2 import PreAct

PAPER = Paper(
    "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
    "Jordan",
    2024,
    "https://arxiv.org/abs/2404.00498",
    new="Seven convolutions that learn CIFAR-10 in ten passes: the first layer whitens patches of "
    "2x2 pixels and is not trained, each picture is mirrored in every other pass, and the first "
    "filters of every convolution start as copies of its input.",
)
# Running statistics that forget within a few steps suit a run of some hundred. No scales.
NUMERICS = replace(TORCH, bn_scale=False, bn_momentum=0.6, bn_epsilon=1e-12)


def block(width: int) -> Row:
    """Two 3x3 convolutions, the first one pooled before its batch norm."""
    return Sequence(
        dict(
            conv1=Conv(3, width, norm=False, act=None, bias=False),
            pool=MaxPool(2, 2),
            norm1=PreAct("gelu"),
            conv2=Conv(3, width, act="gelu"),
        )
    )


# fmt: off
BODY: Table = dict(
    stem=Conv(2, 24, norm=False, act="gelu"),            # 31x31x24: 12 directions, both signs
    stage1=block(64),                                    # 15x15x64
    stage2=block(256),                                   # 7x7x256
    stage3=block(256),                                   # 3x3x256
    pool=MaxPool(3, 3, padding="valid"),                 # 1x1x256
)
HEAD: Table = dict(flatten=FlattenAt(1), scale=Scale(1 / 9))
# fmt: on


def airbench94(ctx: Context) -> Network:
    """The network of airbench94, of 1.97 million parameters; its classifier has no biases."""
    net = Network(BODY, HEAD, ctx, min_size=25)
    if ctx.spec.num_classes:
        net.classifier = Dense(ctx.spec.num_classes, act=None, bias=False).build(256, ctx)[0]
    return net


VARIANTS = [
    Variant("airbench94_cifar", airbench94, PAPER, input_size=32, numerics=NUMERICS),
]
