"""The rows that architecture tables are made of, and the layers that they build.

A row is a frozen dataclass with `build(channels, ctx) -> (layer, channels_out)`. A layer maps
images `[N, H, W, C]` to images. Layers come in inference mode; `training` sets the mode.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from . import calling, ops
from .context import ACTIVATIONS, NO_DRAWS, PADDINGS, Context, Spec
from .errors import ZooError
from .preprocess import IMAGENET

Layer = Callable[[jax.Array], jax.Array]
Observer = Callable[[str, jax.Array], None]
Kernel = int | tuple[int, int]  # a square, or (height, width)


class Row(Protocol):
    """A row of a table, usually a frozen dataclass, that builds its layer."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        """The layer for inputs of `channels` channels, and the number of channels it returns."""
        ...


Table = Mapping[str, Row]


def pair(k: Kernel) -> tuple[int, int]:
    """(height, width) of a kernel given as either an int or a pair."""
    return (k, k) if isinstance(k, int) else k


def pads_for(rule: str, x: jax.Array, kernel: tuple[int, int], stride: int) -> ops.Pads:
    """The padding that a rule of `PADDINGS` gives images `x` [N, H, W, C]."""
    height, width = x.shape[1:3]
    pad = PADDINGS[rule]
    return pad(height, kernel[0], stride), pad(width, kernel[1], stride)


# --- who looks on while a network runs ------------------------------------------------------------

_PATH: ContextVar[tuple[str, ...]] = ContextVar("path", default=())
_OBSERVER: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name what is computed inside, in profiles (`jax.named_scope`) and for an observer."""
    token = _PATH.set((*_PATH.get(), *name.split("/")))
    try:
        with jax.named_scope(name):
            yield
    finally:
        _PATH.reset(token)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Call `observer(path, y)` for the output `y` of every row of the networks that run inside.

    The path is that of the row's parameters: "body.stage1.block0.conv1". Rows come in the order in
    which they are computed, those within a row before it. Under a transformation `y` is a tracer.
    """
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)


def observed(y: jax.Array) -> jax.Array:
    """`y`, shown to the observer, if there is one."""
    if (observer := _OBSERVER.get()) is not None:
        observer(".".join(_PATH.get()), y)
    return y


# --- layers with parameters ----------------------------------------------------------------------


class Conv2d(nnx.Module):
    """A convolution: `kernel` [kh, kw, C / groups, F] and, if asked for, `bias` [F]."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, int],
        ctx: Context,
        *,
        stride: int,
        groups: int,
        padding: str,
        bias: bool,
    ):
        shape = (*kernel, channels // groups, features)
        self.kernel = nnx.Param(jnp.zeros(shape, ctx.param_dtype))  # zoo/init.py has the values
        self.bias = nnx.Param(jnp.zeros(features, ctx.param_dtype)) if bias else None
        self.size, self.stride, self.groups = kernel, stride, groups
        self.padding, self.dtype = padding, ctx.dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        y = ops.conv2d(
            x.astype(self.dtype),
            kernel,
            stride=pair(self.stride),
            pads=pads_for(self.padding, x, self.size, self.stride),
            groups=self.groups,
        )
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class ConvNormAct(nnx.Module):
    """A convolution, then its normaliser and its activation, each where there is one."""

    def __init__(self, conv: Conv2d, norm: "BatchNorm | None", act: Layer):
        self.conv, self.norm, self.act = conv, norm, act

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        return self.act(x) if self.norm is None else activated(self.norm, x, self.act)


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation over N, H and W (arXiv:1502.03167, algorithm 1).

    The arithmetic is always float32; the result has the dtype of `x` [N, H, W, C].

    Raises (on call, in training mode):
      ZooError: there is one value for each channel, which would always be normalised to 0.
    """

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.use_running_average:
            return cast(jax.Array, super().__call__(x)).astype(x.dtype)
        return self._by_batch(x, ACTIVATIONS["identity"])

    def _by_batch(self, x: jax.Array, act: Layer) -> jax.Array:
        """`act` of `x` normalised by its own statistics; updates the running ones.

        Norm and activation are one function with a custom gradient, `ops.batch_norm`.
        """
        devices = 1 if self.axis_name is None else lax.axis_size(self.axis_name)
        if math.prod(x.shape[:-1]) * devices < 2:
            raise ZooError(
                f"batch norm in training mode: got {list(x.shape)}, which is one value a channel "
                "or none, expected more pictures or larger ones"
            )
        assert self.bias is not None
        scale = None if self.scale is None else self.scale[...]
        y, mean, var = ops.batch_norm(
            x, scale, self.bias[...], act, epsilon=self.epsilon, axis_name=self.axis_name
        )
        for running, batch in ((self.mean, mean), (self.var, var)):
            # not running[...] = ..., which looks up the sharding of a traced value: that is slow
            running.set_value(self.momentum * running[...] + (1 - self.momentum) * batch)
        return y


def activated(norm: Layer, x: jax.Array, act: Layer) -> jax.Array:
    """`act(norm(x))`, as one function for a batch norm in training mode."""
    if isinstance(norm, BatchNorm) and not norm.use_running_average:
        # private: `nnx.tabulate` compiles public methods, which an activation cannot be given to
        return norm._by_batch(x, act)  # noqa: SLF001
    return act(norm(x))


class LinearAct(nnx.Module):
    """A fully connected layer and its activation: `[N, C] -> [N, F]`."""

    def __init__(self, linear: nnx.Linear, act: Layer):
        self.linear, self.act = linear, act

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act(self.linear(x))


T = TypeVar("T")
Walk = TypeVar("Walk", bound=Callable[..., Iterator[Any]])


def walk(method: Walk) -> Walk:
    """Hide a generator method from `nnx.tabulate`, which compiles all public methods."""
    return cast(Walk, _Walk(method))


class _Walk:
    def __init__(self, method: Callable[..., Any]):
        self.method = method

    def __get__(self, of: Any, kind: type) -> Any:
        return self if of is None else MethodType(self.method, of)


class Stack(nnx.Module):
    """The rows of a table, built and applied in table order."""

    def __init__(self, channels: int, table: Table, ctx: Context):
        table = ctx.rewrite(channels, table)
        self.order = tuple(table)  # the table owns the order: NNX sorts attributes
        widths = [channels]
        for name, row in table.items():
            layer, width = row.build(widths[-1], ctx)
            setattr(self, name, layer)
            widths.append(width)
        self.widths = tuple(widths[1:])  # channels after each row
        self.channels = widths[-1]

    @walk
    def layers(self) -> Iterator[tuple[str, Any]]:
        """Each row's name and layer, in order."""
        return ((name, getattr(self, name)) for name in self.order)

    @walk
    def steps(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """Each row's name and its output, one after the other."""
        for name, layer in self.layers():
            with scope(name):
                x = observed(layer(x))
            yield name, x

    def __call__(self, x: jax.Array) -> jax.Array:
        return last(self.steps(x))


def last(steps: Iterator[tuple[str, jax.Array]]) -> jax.Array:
    """The final activation of a walk through a stack."""
    *_, (_, x) = steps
    return x


class Skippable(Stack):
    """A table whose output is added to a shortcut, so that training may skip it.

    See `stochastic_depth`. Without residual connections (`Spec.without`) it has no shortcut.
    """

    def __init__(self, channels: int, table: Table, ctx: Context):
        super().__init__(channels, table, ctx)
        self.plain = not ctx.has_shortcuts
        self.drop: nnx.Dropout | None = nnx.data(None)

    def dropped(self, y: jax.Array) -> jax.Array:
        """The table's output, zero for the pictures that skip it."""
        return y if self.drop is None else self.drop(y)


class Residual(Skippable):
    """`act(table(x) + shortcut(x))`: the branch is the table, the shortcut its input or a row."""

    def __init__(
        self, channels: int, table: Table, ctx: Context, *, shortcut: Row | None, act: str | None
    ):
        super().__init__(channels, table, ctx)
        row = None if self.plain else shortcut
        self.shortcut = None if row is None else row.build(channels, ctx)[0]
        self.act = ctx.act(act)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.dropped(super().__call__(x))
        if self.plain:
            return self.act(y)
        if self.shortcut is not None:
            with scope("shortcut"):
                x = observed(self.shortcut(x))
        return self.act(y + x)


class Gate(Stack):
    """`x * gate(table(mean of x over height and width))`."""

    def __init__(self, channels: int, table: Table, ctx: Context, gate: Layer):
        super().__init__(channels, table, ctx)
        self.gate = gate  # not a switch of the context: it has to stay between 0 and 1

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gate(super().__call__(x.mean((1, 2), keepdims=True)))


class Concat(nnx.Module):
    """Tables applied side by side to the same input, their outputs joined along the channels."""

    def __init__(self, channels: int, branches: Mapping[str, Table], ctx: Context):
        self.order = tuple(branches)
        self.channels = 0
        for name, table in branches.items():
            stack = Stack(channels, table, ctx)
            setattr(self, name, stack)
            self.channels += stack.channels

    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = []
        for name in self.order:
            with scope(name):
                outputs.append(getattr(self, name)(x))
        return jnp.concatenate(outputs, -1)


# --- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """Convolution -> batch norm -> activation. Without a normaliser it has a bias instead."""

    kernel: Kernel
    features: int
    stride: int = 1
    groups: int = 1
    norm: bool = True
    act: str | None = "relu"
    bias: bool | None = None  # None: where no normaliser follows, or the source has one anyway
    padding: str | None = None  # None: as the source of the weights pads

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        if channels % self.groups:
            raise ZooError(
                f"{ctx.spec.name}: got {channels} channels for a convolution in {self.groups} "
                "groups, expected a multiple of them"
            )
        depthwise = self.groups == channels > 1
        source = ctx.numerics.depthwise_padding if depthwise else ctx.numerics.padding
        norm = self.norm and ctx.has_norm
        conv = Conv2d(
            channels,
            self.features,
            pair(self.kernel),
            ctx,
            stride=self.stride,
            groups=self.groups,
            padding=self.padding or source,
            bias=(not norm or ctx.numerics.conv_bias) if self.bias is None else self.bias,
        )
        return ConvNormAct(
            conv, batch_norm(self.features, ctx) if norm else None, ctx.act(self.act)
        ), self.features


def batch_norm(features: int, ctx: Context) -> BatchNorm:
    """A batch norm with the momentum and the epsilon of the source of the weights."""
    return BatchNorm(
        features,
        use_running_average=True,
        momentum=ctx.numerics.bn_momentum,
        epsilon=ctx.numerics.bn_epsilon,
        use_scale=ctx.numerics.bn_scale,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        rngs=NO_DRAWS,
    )


@dataclass(frozen=True)
class Separable:
    """Depthwise 3x3 convolution, then 1x1 (MobileNet, arXiv:1704.04861, figure 3)."""

    features: int
    stride: int = 1
    act: str = "relu6"

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = dict(
            depthwise=Conv(3, channels, self.stride, groups=channels, act=self.act),
            pointwise=Conv(1, self.features, act=self.act),
        )
        return Stack(channels, table, ctx), self.features


@dataclass(frozen=True)
class SqueezeExcite:
    """Each channel times a gate that sees the mean of all channels (SENet, arXiv:1709.01507)."""

    reduced: int  # channels between the two fully connected layers, which are 1x1 convolutions
    act: str = "relu"
    gate: str = "sigmoid"

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = dict(
            reduce=Conv(1, self.reduced, norm=False, act=self.act),
            expand=Conv(1, channels, norm=False, act=None),
        )
        return Gate(channels, table, ctx, ACTIVATIONS[self.gate]), channels


@dataclass(frozen=True)
class Sequence:
    """Rows under names of their own: one stage of a network."""

    table: Table

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        stack = Stack(channels, self.table, ctx)
        return stack, stack.channels


@dataclass(frozen=True)
class Branches:
    """Tables applied side by side, their outputs joined along the channels (Inception)."""

    branches: Mapping[str, Table]

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        concat = Concat(channels, self.branches, ctx)
        return concat, concat.channels


def branches(**tables: Table) -> Branches:
    """`Branches` by keyword."""
    return Branches(tables)


@dataclass(frozen=True)
class Dense:
    """Fully connected layer with bias: `[N, C] -> [N, features]`."""

    features: int
    act: str | None = "relu"

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        linear = nnx.Linear(
            channels,
            self.features,
            kernel_init=nnx.initializers.zeros,
            dtype=ctx.dtype,
            param_dtype=ctx.param_dtype,
            dot_general=ops.dot_general,
            rngs=NO_DRAWS,
        )
        return LinearAct(linear, ctx.act(self.act)), self.features


@dataclass(frozen=True)
class Dropout:
    """Dropout at the paper's rate, unless `Spec.dropout` says otherwise."""

    rate: float

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return nnx.Dropout(ctx.dropout(self.rate), deterministic=True, rngs=ctx.rngs), channels


@dataclass(frozen=True)
class MaxPool:
    """Maximum over windows of `kernel` x `kernel` pixels."""

    kernel: int
    stride: int
    padding: str | None = None  # None: as the source of the weights pads

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        padding = self.padding or ctx.numerics.padding
        pool = max_pool_of_zeros if ctx.numerics.max_pool_pads_zeros else ops.max_pool
        return Pool(pool, self.kernel, self.stride, padding), channels


def max_pool_of_zeros(
    x: jax.Array, window: tuple[int, int], *, stride: tuple[int, int], pads: ops.Pads
) -> jax.Array:
    """Maximum over windows of `x` [N, H, W, C], padded with zeros that may win."""
    return ops.max_pool(jnp.pad(x, ((0, 0), *pads, (0, 0))), window, stride=stride)


@dataclass(frozen=True)
class AvgPool:
    """Mean over windows of `kernel` x `kernel` pixels."""

    kernel: int
    stride: int
    padding: str | None = None

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        padding = self.padding or ctx.numerics.padding
        # no source counts the padding that ceil mode adds
        counting = ctx.numerics.avg_pool_counts_padding and padding != "ceil"
        pool = ops.avg_pool_counting_padding if counting else ops.avg_pool
        return Pool(pool, self.kernel, self.stride, padding), channels


@dataclass(frozen=True)
class Pool:
    """The layer that `MaxPool` and `AvgPool` build."""

    pool: Callable[..., jax.Array]
    kernel: int
    stride: int
    padding: str

    def __call__(self, x: jax.Array) -> jax.Array:
        window = pair(self.kernel)
        pads = pads_for(self.padding, x, window, self.stride)
        return self.pool(x, window, stride=pair(self.stride), pads=pads)


@dataclass(frozen=True)
class LRN:
    """Local response normalisation: x / (k + alpha / size * sum of x^2 over `size` channels)^beta.

    AlexNet, section 3.3. There alpha is not divided by `size`; in Caffe it is, as here.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        side = self.size // 2
        squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (side, self.size - 1 - side)))
        channels = x.shape[-1]  # slices of lax, because indexing gathers if the batch is symbolic
        shifted = (lax.slice_in_dim(squares, i, i + channels, axis=-1) for i in range(self.size))
        total = sum(shifted)
        return x / (self.k + self.alpha / self.size * total) ** self.beta


@dataclass(frozen=True)
class GlobalAvgPool:
    """Mean over height and width: `[N, H, W, C] -> [N, C]` (Network in Network, section 3.2)."""

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, channels

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.global_avg_pool(x)


@dataclass(frozen=True)
class FlattenAt:
    """`[N, H, W, C] -> [N, size * size * C]`; any other H or W is averaged to `size` cells first.

    Cell i of n averages rows floor(i H / n) to ceil((i + 1) H / n), as torch's AdaptiveAvgPool2d,
    so that fully connected layers accept any input size.
    """

    size: int

    def build(self, channels: int, _ctx: Context) -> tuple[Layer, int]:
        return self, self.size**2 * channels

    def __call__(self, x: jax.Array) -> jax.Array:
        for axis in (1, 2):
            if x.shape[axis] != self.size:
                cells = jnp.asarray(self._cells(x.shape[axis]), x.dtype)
                x = jnp.moveaxis(jnp.tensordot(x, cells, (axis, 0)), -1, axis)
        return x.reshape(x.shape[0], -1)

    def _cells(self, length: int) -> np.ndarray:
        """Averaging matrix [length, size]."""
        rows, cell = np.arange(length)[:, None], np.arange(self.size)
        inside = (rows >= cell * length // self.size) & (
            rows < -(-(cell + 1) * length // self.size)
        )
        cells: np.ndarray = inside / inside.sum(0)
        return cells


# --- the whole network ---------------------------------------------------------------------------


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
      body, head: the tables.
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
        self.spec: Spec = ctx.spec
        self.min_size = min_size
        self.preprocess = IMAGENET  # what its weights expect
        self.classes = ()
        self.notes: tuple[str, ...] = ()  # what `zoo.load` assumed, stripped or left out

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
        for part in ("body", "head"):
            for name, layer in getattr(self, part).layers():
                recompute = self.spec.remat and isinstance(layer, nnx.Module)
                recompute &= _OBSERVER.get() is None
                with self._stage(f"{part}/{name}"):
                    x = observed(nnx.remat(_call)(layer, x) if recompute else layer(x))
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


def features(model: Network, x: jax.Array) -> OrderedDict[str, jax.Array]:
    """Every stage's activation by name, in order, for preprocessed images `x` [N, H, W, C].

    The order is kept inside transformations too.

    >>> feats = zoo.features(zoo.create("resnet18"), x)      # doctest: +SKIP
    >>> feats["stage4"].shape                                # doctest: +SKIP
    (1, 7, 7, 512)
    """
    return _run(model, x, _features)


def model_stages(model: Network) -> tuple[str, ...]:
    """The names of a network's stages, in order."""
    return model.stages


def _call(layer: Layer, x: jax.Array) -> jax.Array:
    return layer(x)


def _features(model: Network, x: jax.Array) -> OrderedDict[str, jax.Array]:
    return OrderedDict(model.steps(x))  # jax sorts the keys of a dict


def _run(model: Network, x: jax.Array, method: Callable[[Network, jax.Array], T]) -> T:
    model.check_input(x)
    return cast(T, calling.call(method, model, x))
