"""The layers that the rows of a table build. A layer maps images `[N, H, W, C]` to images.

Layers come in inference mode; `training` sets the mode.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from .. import ops
from ..context import ACTIVATIONS, PADDINGS, Context
from ..errors import ZooError
from .observing import observed, scope

Layer = Callable[..., jax.Array]  # of an image; see `Network` for layers of several
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


# --- layers of one operation --------------------------------------------------------------------


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


@dataclass(frozen=True)
class Pool:
    """Windows of `kernel` x `kernel` pixels: what `MaxPool` and `AvgPool` build."""

    pool: Callable[..., jax.Array]
    kernel: int
    stride: int
    padding: str

    def __call__(self, x: jax.Array) -> jax.Array:
        window = pair(self.kernel)
        pads = pads_for(self.padding, x, window, self.stride)
        return self.pool(x, window, stride=pair(self.stride), pads=pads)


def max_pool_of_zeros(
    x: jax.Array, window: tuple[int, int], *, stride: tuple[int, int], pads: ops.Pads
) -> jax.Array:
    """Maximum over windows of `x` [N, H, W, C], padded with zeros that may win."""
    return ops.max_pool(jnp.pad(x, ((0, 0), *pads, (0, 0))), window, stride=stride)


# --- layers that hold tables --------------------------------------------------------------------

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
