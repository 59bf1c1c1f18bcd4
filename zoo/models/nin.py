"""Network in Network (Lin et al., 2013), https://arxiv.org/abs/1312.4400.

The paper prints no sizes: these are the models that its authors published for Caffe
(https://gist.github.com/mavenlin/d802a5849de39225bcc6, nin_imagenet, and
https://gist.github.com/mavenlin/e56253735ef32c3c296d, nin_cifar10).
"""

from dataclasses import dataclass, replace
from functools import partial

import jax

from .. import ops
from ..context import TORCH, Context
from ..layers import (
    AvgPool,
    Conv,
    Dropout,
    GlobalAvgPool,
    Layer,
    LinearAct,
    MaxPool,
    Network,
    Sequence,
    Table,
)
from ..variant import Paper, Variant

PAPER = Paper(
    "Network In Network",
    "Lin, Chen, Yan",
    2013,
    "https://arxiv.org/abs/1312.4400",
    new="1x1 convolutions after each larger one make a small perceptron that slides over the "
    "image, and global average pooling of one map for each class replaces the fully connected "
    "layers.",
)


@dataclass(frozen=True)
class Mlpconv:
    """Section 3.1: a convolution and a small perceptron on each of its pixels (cccp, 1x1)."""

    kernel: int
    widths: tuple[int, ...]  # of the convolution, then of each layer of the perceptron
    stride: int = 1
    padding: str | None = None

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        first, *rest = self.widths
        conv = Conv(self.kernel, first, self.stride, norm=False, padding=self.padding)
        cccp = {f"cccp{i}": Conv(1, width, norm=False) for i, width in enumerate(rest, 1)}
        return Sequence({"conv": conv, **cccp}).build(channels, ctx)


class PixelClassifier(LinearAct):
    """Section 3.2: a 1x1 convolution gives each class a map, whose mean is the logit.

    Between the two stands the ReLU of every convolution, so the mean cannot be taken first.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.global_avg_pool(super().__call__(x))


def network(body: Table, head: Table, ctx: Context, *, min_size: int) -> Network:
    """A network with a `PixelClassifier`; without classes it gives the means of the head's maps."""
    pool = {} if ctx.spec.num_classes else dict(pool=GlobalAvgPool())
    net = Network(body, {**head, **pool}, ctx, min_size=min_size)
    if isinstance(net.classifier, LinearAct):
        net.classifier = PixelClassifier(net.classifier.linear, ctx.act("relu"))
    return net


max_pool, avg_pool = (partial(pool, 3, 2, padding="ceil") for pool in (MaxPool, AvgPool))

# The head is the last mlpconv layer, and the classifier the end of its perceptron.
# fmt: off
IMAGENET: Table = dict(
    mlpconv1=Mlpconv(11, (96, 96, 96), stride=4, padding="valid"),   # 54x54
    pool1=max_pool(),                                                # 27x27
    mlpconv2=Mlpconv(5, (256, 256, 256)),
    pool2=max_pool(),                                                # 13x13
    mlpconv3=Mlpconv(3, (384, 384, 384)),
    pool3=max_pool(),                                                # 6x6
)
IMAGENET_HEAD: Table = dict(drop=Dropout(0.5), mlpconv4=Mlpconv(3, (1024, 1024)))

CIFAR: Table = dict(
    mlpconv1=Mlpconv(5, (192, 160, 96)),                             # 32x32
    pool1=max_pool(),                                                # 16x16
    drop1=Dropout(0.5),
    mlpconv2=Mlpconv(5, (192, 192, 192)),
    pool2=avg_pool(),                                                # 8x8
)
CIFAR_HEAD: Table = dict(drop2=Dropout(0.5), mlpconv3=Mlpconv(3, (192, 192)))
# fmt: on

# An average at the border is that of the pixels there, in Caffe as in torch.
NUMERICS = replace(TORCH, avg_pool_counts_padding=False)


def nin_imagenet(ctx: Context) -> Network:
    """Network in Network for ImageNet."""
    return network(IMAGENET, IMAGENET_HEAD, ctx, min_size=39)


def nin_cifar(ctx: Context) -> Network:
    """Network in Network for CIFAR-10: with `num_classes=10`, for its default is 1000 too."""
    return network(CIFAR, CIFAR_HEAD, ctx, min_size=4)


VARIANTS = [
    Variant("nin_imagenet", nin_imagenet, PAPER, aliases=("nin",), numerics=NUMERICS),
    Variant("nin_cifar", nin_cifar, PAPER, input_size=32, numerics=NUMERICS),
]
