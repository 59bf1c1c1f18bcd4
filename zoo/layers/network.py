"""A whole network: the body, the head and the classifier, and calling it."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx

from ..context import Context, Spec
from ..errors import ZooError
from ..origin import Origin
from ..preprocess import IMAGENET
from ..runtime import calling
from ..settings import shown
from .modules import Layer, Skippable, Stack, Table, last, walk
from .observing import is_observed, observed, scope
from .rows import Dense, Dropout

T = TypeVar("T")


def classifier(channels: int, ctx: Context) -> Layer:
    """The last fully connected layer: logits of `Spec.num_classes` classes."""
    return Dense(ctx.spec.num_classes, act=None).build(channels, ctx)[0]


class Auxiliary(nnx.Module):
    """An auxiliary classifier: it adds a gradient in the middle of the body in training."""

    def __init__(self, channels: int, table: Table, ctx: Context):
        self.head = Stack(channels, table, ctx)
        self.classifier = classifier(self.head.channels, ctx)

    def __call__(self, x: jax.Array) -> jax.Array:
        with scope("head"):
            x = self.head(x)
        with scope("classifier"):
            return self.classifier(x)


class Output(NamedTuple):
    """What a network with auxiliary classifiers returns in training mode."""

    logits: jax.Array
    aux: dict[str, jax.Array]  # by name, in order


class Network(nnx.Module):
    """A body (rows on images), a head (rows down to one vector an image) and a classifier.

    Calling it maps preprocessed images `[N, H, W, in_chans]`, float, to logits `[N, num_classes]`,
    float32, with both numbers from the `Spec`, or to the head's features with `num_classes=0`. A
    network built with auxiliary classifiers (`Spec.aux`) returns an `Output` in training mode.
    Outside of a transformation the call is compiled, once for each input shape.

    Args:
      body, head: the tables. A layer whose `sees` names earlier rows gets their outputs, too.
      min_size: the smallest height and width that leave the body a pixel.
      aux: the tables of auxiliary classifiers, by the row of the body that they follow.

    Raises (on call):
      ZooError: images of another rank, number of channels or dtype, or smaller than `min_size`; in
        training mode, a batch norm that sees one value for each channel.
    """

    def __init__(
        self,
        body: Table,
        head: Table,
        ctx: Context,
        *,
        min_size: int,
        aux: Mapping[str, Table] | None = None,
    ):
        classes = ctx.spec.num_classes
        self.body = Stack(ctx.spec.in_chans, body, ctx)
        own = "dropout" in ctx.used or any(isinstance(row, Dropout) for row in head.values())
        if ctx.spec.dropout and not own:
            head = {**head, "drop": Dropout(0)}  # where timm has it
        self.head = Stack(self.body.channels, head, ctx)
        self.classifier = classifier(self.head.channels, ctx) if classes else None
        self.aux_after = tuple(aux or ()) if ctx.spec.aux and classes else ()
        for row, width in zip(self.body.order, self.body.widths, strict=True):
            if aux and row in self.aux_after:
                setattr(self, f"aux_{row}", Auxiliary(width, aux[row], ctx))
        self.deterministic = True  # inference mode, as nnx names it
        self.constant = False  # whether calls may compile its weights in
        self.spec: Spec = ctx.spec
        self.min_size = min_size
        self.preprocess = IMAGENET  # what its weights expect
        self.classes = ()
        self.notes: tuple[str, ...] = ()  # what `zoo.load` assumed, stripped or left out
        self.origin: Origin | None = None  # the published weights that its own come from

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order; () if they are not known."""
        return self._classes

    @classes.setter
    def classes(self, names: Iterable[str]) -> None:
        self._classes = tuple(names)  # a list would keep calls from being compiled

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, in order."""
        classifier = ("classifier",) if self.classifier is not None else ()
        return (*self.body.order, *self.head.order, *classifier)

    if TYPE_CHECKING:  # Flax has no annotations for these two

        def train(self, **attributes: Any) -> None:
            """Dropout is on, and batch norm uses the statistics of the batch, until `eval()`."""

        def eval(self, **attributes: Any) -> None:
            """Dropout is off, and batch norm uses its running statistics, until `train()`."""

    @walk
    def steps(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Each stage's name and its activation, in order; the last one is the output."""
        made: dict[str, jax.Array] = {}
        for part in ("body", "head"):
            for name, layer in getattr(self, part).layers():
                recompute = self.spec.remat and isinstance(layer, nnx.Module) and not is_observed()
                seen = [made[row] for row in getattr(layer, "sees", ())]
                with self._stage(f"{part}/{name}"):
                    y = nnx.remat(_call)(layer, x, *seen) if recompute else layer(x, *seen)
                    made[name] = x = observed(y)
                yield name, x
        if self.classifier is not None:
            with self._stage("classifier"):
                x = observed(self.classifier(x))
            yield "classifier", x

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Name a stage, as `scope` does, and in errors."""
        with scope(name):
            try:
                yield
            except ZooError as error:
                raise ZooError(f"{self.spec.name}, {name}: {error}") from error

    def logits(self, x: jax.Array) -> jax.Array:
        """The logits alone, in any mode. For use inside a transformation."""
        return last(self.steps(x)).astype(jnp.float32)

    def forward(self, x: jax.Array) -> "jax.Array | Output":
        """The result of a call, uncompiled. For use inside a transformation."""
        aux = OrderedDict[str, jax.Array]()  # jax sorts the keys of a dict
        for name, x in self.steps(x):  # noqa: B020
            if name in self.aux_after and not self.deterministic:
                with self._stage(f"aux_{name}"):
                    aux[name] = getattr(self, f"aux_{name}")(x).astype(jnp.float32)
        logits = x.astype(jnp.float32)
        return Output(logits, aux) if aux else logits

    def __call__(self, x: jax.Array) -> "jax.Array | Output":
        return _run(self, x, Network.forward)

    def check_input(self, x: Any) -> None:
        """Raise a `ZooError` that says what is wrong with `x`, if it cannot be an input."""
        channels, side = self.spec.in_chans, self.min_size
        want = f"expected preprocessed float images [N, H, W, {channels}], H and W >= {side}"
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ZooError(f"{self.spec.name}: got {type(x).__name__}, {want}")
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        if len(x.shape) != 4 or x.shape[-1] != channels or not floats:
            raise ZooError(f"{self.spec.name}: got {x.dtype} {list(x.shape)}, {want}")
        if min(x.shape[1:3]) < self.min_size:
            raise ZooError(f"{self.spec.name}: got images of {x.shape[1]}x{x.shape[2]}, {want}")


def stochastic_depth(model: Network, ctx: Context) -> None:
    """Make training skip residual blocks at random, for each picture (arXiv:1603.09382).

    The probability rises linearly from the first block to `Spec.drop_path` at the last (section 3).

    Raises:
      ZooError: the network has no residual blocks.
    """
    blocks = list(_residual_blocks(model.body))
    if not blocks:
        raise ZooError(f"drop_path: {ctx.spec.name} has no residual blocks to skip")
    for place, block in enumerate(blocks, 1):
        rate = ctx.spec.drop_path * place / len(blocks)
        block.drop = nnx.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=True, rngs=ctx.rngs)


def _residual_blocks(stack: Stack) -> Iterator[Any]:
    for _, layer in stack.layers():
        if isinstance(layer, Skippable):
            yield layer
        elif isinstance(layer, Stack):
            yield from _residual_blocks(layer)


def expect_network(function: str, model: object) -> None:
    """Refuse what is no network, for a public function.

    Raises:
      ZooError: it is something else.
    """
    if not isinstance(model, Network):
        raise ZooError(
            f"{function}: got {shown(model)}, expected a network, of zoo.load or zoo.create"
        )


def features(model: Network, x: jax.Array) -> OrderedDict[str, jax.Array]:
    """Every stage's activation by name, in order, for preprocessed images `x` [N, H, W, C].

    The order is kept inside transformations too.

    >>> feats = zoo.features(zoo.create("resnet18"), x)      # doctest: +SKIP
    >>> feats["stage4"].shape                                # doctest: +SKIP
    (1, 7, 7, 512)
    """
    expect_network("features", model)
    return _run(model, x, _features)


def model_stages(model: Network) -> tuple[str, ...]:
    """The names of a network's stages, in order."""
    return model.stages


def _call(layer: Layer, *inputs: jax.Array) -> jax.Array:
    return layer(*inputs)


def _features(model: Network, x: jax.Array) -> OrderedDict[str, jax.Array]:
    return OrderedDict(model.steps(x))  # jax sorts the keys of a dict


def _run(model: Network, x: jax.Array, method: Callable[[Network, jax.Array], T]) -> T:
    model.check_input(x)
    return cast(T, calling.call(method, model, x))
