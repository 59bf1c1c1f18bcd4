"""AlexNet (Krizhevsky et al., 2012), and its successors on one GPU (Krizhevsky, 2014).

https://papers.nips.cc/paper_files/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html
https://arxiv.org/abs/1404.5997
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ..context import Context
from ..layers import LRN, Conv, Dense, Dropout, FlattenAt, Layer, MaxPool, Network, Sequence, Table
from ..variant import Paper, Variant

PAPER_2012 = Paper(
    "ImageNet Classification with Deep Convolutional Neural Networks",
    "Krizhevsky, Sutskever, Hinton",
    2012,
    "https://papers.nips.cc/paper_files/paper/2012/"
    "hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html",
    new="Won ILSVRC 2012 by far: five convolutions and three fully connected layers with ReLU, "
    "dropout and local response normalisation, on two GPUs, so that three of the convolutions "
    "see half of the channels.",
)
PAPER_2014 = Paper(
    "One weird trick for parallelizing convolutional neural networks",
    "Krizhevsky",
    2014,
    "https://arxiv.org/abs/1404.5997",
    new="Over many GPUs the convolutions share out the images, the fully connected layers "
    "their weights. Its network is AlexNet in one tower, without groups.",
)


@dataclass(frozen=True)
class Pad:
    """`pixels` zeros on every side of an image."""

    pixels: int

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        side = (self.pixels, self.pixels)
        return jnp.pad(x, ((0, 0), side, side, (0, 0)))


conv = partial(Conv, norm=False)
pool = partial(MaxPool, 3, 2, padding="valid")  # overlapping: section 3.4
norm = partial(LRN, 5, alpha=5 * 1e-4, beta=0.75, k=2)  # section 3.3: alpha not divided by n = 5

# fmt: off
# Section 3.5 and figure 2. Two GPUs had half the kernels each and met in conv3 alone, so all later
# ones have two groups. The images are 227x227: the paper says 224, which gives no 55x55.
# Caffe's bvlc_alexnet is this network but for its norm, LRN(5): k = 1 and alpha = 1e-4 / 5.
FIGURE_2: Table = dict(
    conv1=conv(11, 96, stride=4, padding="valid"), norm1=norm(),   # 55x55
    pool1=pool(),                                                  # 27x27
    conv2=conv(5, 256, groups=2), norm2=norm(),
    pool2=pool(),                                                  # 13x13
    conv3=conv(3, 384),
    conv4=conv(3, 384, groups=2),
    conv5=conv(3, 256, groups=2),
    pool5=pool(),                                                  # 6x6
)

# The 2014 network on one GPU, without norm, as torchvision has it.
ONE_TOWER: Table = dict(
    conv1=Sequence(dict(
        pad=Pad(2),                                                # 228x228
        conv=conv(11, 64, stride=4, padding="valid"),              # 55x55
    )),
    pool1=pool(),                                                  # 27x27
    conv2=conv(5, 192),
    pool2=pool(),                                                  # 13x13
    conv3=conv(3, 384),
    conv4=conv(3, 256),
    conv5=conv(3, 256),
    pool5=pool(),                                                  # 6x6
)

# slim's alexnet_v2: no padding before conv1, and a wider conv4.
SLIM: Table = dict(
    conv1=conv(11, 64, stride=4, padding="valid"),                 # 54x54
    pool1=pool(),                                                  # 26x26
    conv2=conv(5, 192),
    pool2=pool(),                                                  # 12x12
    conv3=conv(3, 384),
    conv4=conv(3, 384),
    conv5=conv(3, 256),
    pool5=pool(),                                                  # 5x5
)
# fmt: on


def fully_connected(size: int) -> Table:
    """Section 4.2: dropout after fc6 and fc7."""
    return dict(
        flatten=FlattenAt(size),
        fc6=Dense(4096),
        drop6=Dropout(0.5),
        fc7=Dense(4096),
        drop7=Dropout(0.5),
    )


# torchvision has the dropout before fc6 and fc7 instead.
DROPOUT_FIRST: Table = dict(
    flatten=FlattenAt(6),
    drop6=Dropout(0.5),
    fc6=Dense(4096),
    drop7=Dropout(0.5),
    fc7=Dense(4096),
)


def alexnet(ctx: Context, body: Table, head: Table, min_size: int) -> Network:
    """AlexNet with one of the tables above."""
    return Network(body, head, ctx, min_size=min_size)


# fmt: off
VARIANTS = [
    Variant("alexnet", partial(alexnet, body=ONE_TOWER, head=DROPOUT_FIRST, min_size=63),
            PAPER_2014),
    Variant("alexnet_2012", partial(alexnet, body=FIGURE_2, head=fully_connected(6), min_size=67),
            PAPER_2012, input_size=227),
    Variant("alexnet_v2", partial(alexnet, body=SLIM, head=fully_connected(5), min_size=67),
            PAPER_2014),
]
# fmt: on
