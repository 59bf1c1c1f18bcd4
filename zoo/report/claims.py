"""The arithmetic of the article that this project grew from, checked on the networks themselves."""

import math
from dataclasses import dataclass
from functools import cache

from flax import nnx
from flax.traverse_util import flatten_dict

from ..context import Context, Spec
from ..layers import Conv, Row, Separable, Stack
from .count import Count, count

ARTICLE = "深度学习技巧1 (deep learning tricks, part 1)"


@dataclass(frozen=True)
class Claim:
    """One statement: the article's figure beside ours."""

    says: str
    article: str
    ours: float
    formula: str  # with our numbers in it


def claims() -> list[Claim]:
    """Every claim, computed now from the networks' own parameters."""
    alexnet, v1 = counted("alexnet_2012"), counted("inception_v1_lrn")
    return [
        ratio(
            "AlexNet has 12 times the parameters of Inception v1",
            "12, with 5 million for v1",
            alexnet.params,
            v1.params,
            "all parameters",
        ),
        ratio(
            "... and of Inception v1 without its classifier, nearer to 5 million",
            "12, with 5 million for v1",
            alexnet.params,
            v1.params - v1.head,
            "all parameters; v1 without its head",
        ),
        ratio(
            "two 3x3 convolutions for one 5x5",
            "18/25 = 0.72",
            kernels(a=Conv(3, C), b=Conv(3, C)),
            kernels(a=Conv(5, C)),
            f"kernels, {C} channels",
        ),
        ratio(
            "1x7 and 7x1 for one 7x7",
            "2/7 = 0.286",
            kernels(a=Conv((1, 7), C), b=Conv((7, 1), C)),
            kernels(a=Conv(7, C)),
            f"kernels, {C} channels",
        ),
        ratio(
            "a depthwise 3x3 and a 1x1 for a full 3x3",
            "near 1/9 = 0.111",
            kernels(a=Separable(C)),
            kernels(a=Conv(3, C)),
            f"kernels, {C} channels: 1/9 + 1/{C}",
        ),
        share("alexnet_2012"),
        share("vgg16"),
        ratio(
            "global average pooling before a classifier",
            "saves most of it",
            v1.head,
            7 * 7 * 1024 * 1000 + 1000,
            "inception_v1's classifier, over one on all of its 7 x 7 x 1024",
        ),
    ]


C = 512  # channels in and out, where the claim holds for any number of them


@cache
def counted(name: str) -> Count:
    """`count` of a network, computed once."""
    return count(name)


def kernels(**table: Row) -> int:
    """Parameters of the convolutions of a table from `C` channels, batch norm left out."""

    def build() -> Stack:
        return Stack(C, table, Context(Spec("kernels"), nnx.Rngs(dropout=0)))

    stack = nnx.eval_shape(build)
    leaves = flatten_dict(nnx.to_pure_dict(nnx.state(stack)))
    return sum(math.prod(leaf.shape) for path, leaf in leaves.items() if path[-1] == "kernel")


def ratio(says: str, article: str, a: int, b: int, of: str) -> Claim:
    """A claim about `a` relative to `b`."""
    return Claim(says, article, a / b, f"{a:,} / {b:,} ({of})")


def share(name: str) -> Claim:
    """The claim that most parameters of a network are in its fully connected layers."""
    c = counted(name)
    return Claim(
        f"most of {name} is fully connected",
        "about 0.9",
        c.head / c.params,
        f"{c.head:,} / {c.params:,} (parameters after the last feature map)",
    )
