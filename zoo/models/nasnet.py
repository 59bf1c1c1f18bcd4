"""NASNet-A (Zoph et al., 2017), https://arxiv.org/abs/1707.07012, and PNASNet-5 after it.

The cells are figure 4 there and figure 1 of Liu et al., 2017, https://arxiv.org/abs/1712.00559; how
they are stacked is figure 2 there and here what slim's networks, whose weights are the published
ones, do.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from ..context import TF, Context
from ..layers import (
    AvgPool,
    Conv,
    Dropout,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Pool,
    Row,
    Sequence,
    Stack,
    Table,
    batch_norm,
    branches,
    observed,
    scope,
)
from ..variant import Paper, Variant
from .inception_v3 import AUX as INCEPTION_AUX
from .xception import ReLU, SeparableConv

PAPER = Paper(
    "Learning Transferable Architectures for Scalable Image Recognition",
    "Zoph, Vasudevan, Shlens, Le",
    2017,
    "https://arxiv.org/abs/1707.07012",
    new="Two cells, one that keeps the image's size and one that halves it, found by a search on "
    "CIFAR-10 and stacked to any depth and width for ImageNet; cells see the outputs of the two "
    "before them.",
)
PROGRESSIVE = Paper(
    "Progressive Neural Architecture Search",
    "Liu, Zoph, Neumann, Shlens, Hua, Li, Fei-Fei, Yuille, Huang, Murphy",
    2017,
    "https://arxiv.org/abs/1712.00559",
    new="Cells are searched from simple to complex, led by a predictor of their accuracy, which "
    "takes a fifth of the models that NASNet's search trained; one cell serves both purposes.",
)

# --- the operations of a cell: (channels wanted, stride) -> row -----------------------------------

Operation = Callable[[int, int], Row]


@dataclass(frozen=True)
class Projected:
    """A pool, and a 1x1 convolution where the channels are not those wanted."""

    pool: Row
    features: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = dict(pool=self.pool)
        if channels != self.features:
            table["conv"] = Conv(1, self.features, act=None)
        return Stack(channels, table, ctx), self.features


@dataclass(frozen=True)
class Same:
    """The state itself."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return ctx.act(None), channels


@dataclass(frozen=True)
class MeanOfImage:
    """Mean over 3x3 pixels, of which those beyond the edge do not count: all sources do so."""

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return Pool(ops.avg_pool, 3, 1, "same"), channels


def conv(features: int, stride: int = 1) -> Row:
    """ReLU, 1x1 convolution, norm: convolutions are pre-activated throughout."""
    return Sequence(dict(relu=ReLU(), conv=Conv(1, features, stride, act=None)))


def separable(features: int, stride: int, *, kernel: int) -> Row:
    """ReLU, separable convolution and norm, twice (section 3); the stride is the first one's."""
    return Sequence(
        dict(
            relu1=ReLU(),
            conv1=SeparableConv(features, kernel=kernel, stride=stride),
            relu2=ReLU(),
            conv2=SeparableConv(features, kernel=kernel),
        )
    )


def average(_features: int, stride: int) -> Row:
    """3x3 average pooling."""
    return AvgPool(3, stride) if stride > 1 else MeanOfImage()


def maximum(features: int, stride: int) -> Row:
    """3x3 max pooling."""
    return Projected(MaxPool(3, stride), features)


def identity(features: int, stride: int) -> Row:
    """The state itself, or what makes it as small as the others."""
    return conv(features, stride) if stride > 1 else Same()


SEP3, SEP5, SEP7 = (partial(separable, kernel=kernel) for kernel in (3, 5, 7))
AVG, MAX, ID = average, maximum, identity

# --- the cells ------------------------------------------------------------------------------------

Sum = tuple[str, Operation, str, Operation]


@dataclass(frozen=True)
class Design:
    """Five sums of two operations each, and the states whose concatenation is the output.

    States are "h" (the output of the cell before, after a 1x1 convolution), "p" (that of the one
    before it, likewise), and the sums "0" to "4".
    """

    sums: tuple[Sum, ...]
    outputs: tuple[str, ...]


# fmt: off
NORMAL = Design(                                         # figure 4, left
    sums=(("h", SEP5, "p", SEP3),
          ("p", SEP5, "p", SEP3),
          ("h", AVG,  "p", ID),
          ("p", AVG,  "p", AVG),
          ("h", SEP3, "h", ID)),
    outputs=("p", "0", "1", "2", "3", "4"),
)
REDUCTION = Design(                                      # figure 4, right
    sums=(("h", SEP5, "p", SEP7),
          ("h", MAX,  "p", SEP7),
          ("h", AVG,  "p", SEP5),
          ("1", ID,   "0", AVG),
          ("0", SEP3, "h", MAX)),
    outputs=("1", "2", "3", "4"),
)
PNAS = Design(                                           # PNASNet-5: figure 1 of its paper
    sums=(("p", SEP5, "p", MAX),
          ("h", SEP7, "h", MAX),
          ("h", SEP5, "h", SEP3),
          ("2", SEP3, "h", MAX),
          ("p", SEP3, "h", ID)),
    outputs=("0", "1", "2", "3", "4"),
)
# fmt: on


class Cell(nnx.Module):
    """A cell: images of the cell before, `[N, H, W, C]`, and of the one before it -> images.

    Where `sees` is empty, there is no cell before the one before.
    """

    def __init__(self, channels: int, cell: "CellAt", ctx: Context):
        design, features = cell.design, cell.features
        self.sees, self.outputs = cell.sees, design.outputs
        self.h = conv(features).build(channels, ctx)[0]
        self.p = None if cell.before is None else cell.before.build(cell.channels, ctx)[0]
        self.sums = tuple((left, right) for left, _, right, _ in design.sums)
        widths = dict(h=features, p=channels if cell.before is None else features)
        for i, (left, op, right, other) in enumerate(design.sums):
            for side, state, operation in (("left", left, op), ("right", right, other)):
                stride = cell.stride if state in widths else 1  # sums have their size already
                row = operation(features, stride)
                layer, _ = row.build(widths.get(state, features), ctx)
                setattr(self, f"{side}{i}", layer)

    def __call__(self, x: jax.Array, before: jax.Array | None = None) -> jax.Array:
        states = dict(h=self._run("h", x), p=x if self.p is None else self._run("p", before))
        for i, (left, right) in enumerate(self.sums):
            sides = self._run(f"left{i}", states[left]), self._run(f"right{i}", states[right])
            states[str(i)] = sides[0] + sides[1]
        return jnp.concatenate([states[name] for name in self.outputs], -1)

    def _run(self, name: str, x: jax.Array | None) -> jax.Array:
        with scope(name):
            return observed(getattr(self, name)(x))


@dataclass(frozen=True)
class Every2nd:
    """Every second pixel of every second row, `first` (0 or 1) the first; zeros beyond the edge."""

    first: int

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        sides = (0, self.first)
        return jnp.pad(x, ((0, 0), sides, sides, (0, 0)))[:, self.first :: 2, self.first :: 2]


@dataclass(frozen=True)
class Norm:
    """Batch norm alone."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return (batch_norm(channels, ctx) if ctx.has_norm else ctx.act(None)), channels


def halved(features: int) -> Row:
    """The two paths by which a larger image gets the size and the channels of a smaller one."""

    def path(first: int, features: int) -> Table:
        conv = Conv(1, features, norm=False, act=None, bias=False)
        return dict(pixels=Every2nd(first), conv=conv)

    half = features // 2
    paths = branches(path1=path(0, half), path2=path(1, features - half))
    return Sequence(dict(relu=ReLU(), paths=paths, norm=Norm()))


@dataclass(frozen=True)
class CellAt:
    """A cell in its place: what it sees besides the row before it, and what that goes through."""

    design: Design
    features: int  # of each state
    stride: int
    sees: tuple[str, ...] = ()
    channels: int = 0  # of what it sees
    before: Row | None = None

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return Cell(channels, self, ctx), self.features * len(self.design.outputs)


# --- the networks ---------------------------------------------------------------------------------

Plan = Iterable[tuple[str, Design, int, int]]  # name, cell, channels of its states, stride


def nasnet_a(repeats: int, features: int) -> Plan:
    """Figure 2: normal cells in threes of `repeats`, reductions between them and before."""
    yield "stem1", REDUCTION, features // 4, 2
    yield "stem2", REDUCTION, features // 2, 2
    for stage in range(3):
        width = features * 2**stage
        if stage:
            yield f"reduction{stage}", REDUCTION, width, 2
        for i in range(repeats):
            yield f"normal{stage + 1}_{i + 1}", NORMAL, width, 1


def pnasnet_5(repeats: int, features: int) -> Plan:
    """One cell throughout: the first of a stage has the stride."""
    yield "stem1", PNAS, features // 4, 2
    yield "stem2", PNAS, features // 2, 2
    for stage in range(3):
        for i in range(repeats):
            yield f"cell{stage + 1}_{i + 1}", PNAS, features * 2**stage, 1 if i or not stage else 2


def stacked(plan: Plan, stem: int, *, skips: bool) -> Table:
    """The table of a network: a stem of `stem` channels, cells, and a ReLU.

    Args:
      plan: the cells.
      stem: channels of the first convolution.
      skips: the cell after a reduction cell does not see that one's input, but what was before.
    """
    table: dict[str, Row] = dict(stem=Conv(3, stem, stride=2, padding="valid", act=None))
    made = [("stem", stem, 0)]  # name, channels, how often the image was halved
    for name, design, features, stride in plan:
        cell = CellAt(design, features, stride)
        _, _, halvings = made[-1]
        if len(made) > 1:
            after = skips and made[-1][0].startswith("reduction")
            row, channels, larger = made[-3 if after else -2]
            before = halved(features) if larger < halvings else conv(features)
            cell = CellAt(design, features, stride, (row,), channels, before)
        table[name] = cell
        made.append((name, features * len(design.outputs), halvings + stride - 1))
    return {**table, "relu": ReLU()}


HEAD: Table = dict(avgpool=GlobalAvgPool(), drop=Dropout(0.5))  # slim's; timm and Keras drop none


def nasnet(ctx: Context, plan: Plan, stem: int, *, skips: bool = False, side: int) -> Network:
    """NASNet-A or PNASNet-5, with slim's auxiliary classifier where two thirds are behind.

    `side` is that of the map that its convolution covers. At 331 pixels slim's pool leaves out the
    last row and column of 21x21 and "ceil" does not, so that four places are averaged here.
    """
    body = stacked(plan, stem, skips=skips)
    *_, last = (name for name in body if "2_" in name)
    aux = dict(relu=ReLU(), **INCEPTION_AUX) | dict(conv=Conv(side, 768, padding="ceil"))
    return Network(body, HEAD, ctx, min_size=32, aux={last: aux})


MOBILE = partial(nasnet, stem=32, side=4)
LARGE = partial(nasnet, stem=96, side=6)


def variant(
    name: str, network: Callable[..., Network], plan: Plan, paper: Paper, size: int, *aliases: str
) -> Variant:
    """A network of these cells."""
    return Variant(name, partial(network, plan=tuple(plan)), paper, size, aliases, numerics=TF)


# fmt: off
VARIANTS = [
    variant("nasnet_mobile",   MOBILE, nasnet_a(4, 44),   PAPER, 224),
    variant("nasnet_large",    partial(LARGE, skips=True),
                                       nasnet_a(6, 168),  PAPER, 331, "nasnetalarge"),
    variant("pnasnet5_mobile", MOBILE, pnasnet_5(3, 54),  PROGRESSIVE, 224),
    variant("pnasnet5_large",  LARGE,  pnasnet_5(4, 216), PROGRESSIVE, 331, "pnasnet5large"),
]
# fmt: on
