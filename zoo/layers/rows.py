"""The rows that architecture tables are made of.

A row is a frozen dataclass with `build(channels, ctx) -> (layer, channels_out)`. The layers of some
need nothing but the row: these are their own layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from .. import ops
from ..context import ACTIVATIONS, NO_DRAWS, Context
from ..errors import ZooError
from .modules import (
    BatchNorm,
    Concat,
    Conv2d,
    ConvNormAct,
    Gate,
    Kernel,
    Layer,
    LinearAct,
    Pool,
    Stack,
    Table,
    max_pool_of_zeros,
    pair,
)


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
    """Fully connected layer: `[N, C] -> [N, features]`."""

    features: int
    act: str | None = "relu"
    bias: bool = True

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        linear = nnx.Linear(
            channels,
            self.features,
            use_bias=self.bias,
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
