"""Convolution, pooling and batch norm, each in the form that is fastest on its platform.

Images are `[N, H, W, C]`, kernels `[kh, kw, C_in / groups, C_out]`, paddings explicit:
`((top, bottom), (left, right))`. Every path gives the same numbers to float32 rounding, and so do
its derivatives of any order, forward and reverse.

GPU and TPU get XLA's own operations. On CPU those are many times slower than necessary for
depthwise, grouped and 1x1 convolutions and for pools and their gradients, so that they are written
differently there: `benchmarks/RESULTS.md` has figures.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial, reduce
from itertools import product
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
T = TypeVar("T")
Activation = Callable[[jax.Array], jax.Array]
NO_PADS: Pads = ((0, 0), (0, 0))

MAX_TAPS = 49  # the largest window that is unrolled on CPU: 7x7
MAX_ROWS = 256  # on CPU: with more rows than this, the gradient of a product is left to Eigen
FAR = 10  # standard deviations: a mean farther from 0 costs the variance more than two digits
MIN_CHANNELS = 16  # on CPU, groups with fewer channels are joined into one convolution

_only = ContextVar("only", default="")


@contextmanager
def only(which: str) -> Iterator[None]:
    """Trace the "cpu" or the "default" variants on any platform, to compare the two."""
    token = _only.set(which)
    try:
        yield
    finally:
        _only.reset(token)


def native_only() -> AbstractContextManager[None]:
    """Trace XLA's own operations alone, as on GPU and TPU: for programs that are counted."""
    return only("default")


def platform_only(platform: str) -> AbstractContextManager[None]:
    """Trace the variants for `platform` alone, in a third of the time, unless within `only`."""
    return only(_only.get() or ("cpu" if platform == "cpu" else "default"))


def by_platform(*operands: jax.Array, cpu: Callable[..., T], default: Callable[..., T]) -> T:
    """`lax.platform_dependent`, which traces both functions and compiles one; see `only`."""
    if which := _only.get():
        return {"cpu": cpu, "default": default}[which](*operands)
    return cast(T, lax.platform_dependent(*operands, cpu=cpu, default=default))


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    groups: int = 1,
) -> jax.Array:
    """2-D convolution of `x` [N, H, W, C] with `kernel` [kh, kw, C / groups, F] -> [N, H', W', F].

    On CPU a 1x1 convolution becomes a matrix product, a depthwise one (as many groups as channels
    in and out) a sum of shifted products, and any other grouped one several dense convolutions,
    each for a few of the groups.
    """
    native = partial(_xla_conv, stride=stride, pads=pads, groups=groups)
    size, channels, features = kernel.shape[:2], x.shape[-1], kernel.shape[-1]
    if groups == 1 and (size != (1, 1) or pads != NO_PADS):
        cpu = partial(_ungrouped, stride=stride, pads=pads)
        return by_platform(x, kernel, cpu=cpu, default=native)
    if groups == 1:
        cpu = partial(_pointwise, stride=stride)
    elif groups == channels == features and math.prod(size) <= MAX_TAPS:
        cpu = partial(_padded_depthwise, stride=stride, pads=pads)
    else:
        cpu = partial(_grouped, stride=stride, pads=pads, groups=groups)
    return by_platform(x, kernel, cpu=cpu, default=native)


def dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, **settings: Any) -> jax.Array:
    """`lax.dot_general` as `nnx.Linear` calls it: `x` [..., C] with `kernel` [C, F] -> [..., F].

    Its gradients are as quick on CPU as those of a 1x1 convolution.
    """

    def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.dot_general(x, kernel, dimensions, **settings)

    if x.ndim != 2:
        return native(x, kernel)
    return by_platform(x, kernel, cpu=_product, default=native)


def max_pool(x: jax.Array, window: Pair, *, stride: Pair, pads: Pads = NO_PADS) -> jax.Array:
    """Maximum over windows of `x` [N, H, W, C]; padding never wins (it counts as -inf).

    The gradient goes to the first maximum of each window.
    """
    if math.prod(window) > MAX_TAPS:
        return _xla_max_pool(x, window, stride, pads)
    return _max_pool(x, window, stride, pads)


def avg_pool(
    x: jax.Array, window: Pair, *, stride: Pair, pads: Pads = NO_PADS, count_padding: bool = False
) -> jax.Array:
    """Mean over windows of `x` [N, H, W, C]; padded zeros enter the mean if `count_padding`."""
    native = partial(_xla_sum_pool, window=window, stride=stride, pads=pads)
    if math.prod(window) > MAX_TAPS:
        total = native(x)
    else:
        cpu = partial(_sum_pool, window=window, stride=stride, pads=pads)
        total = by_platform(x, cpu=cpu, default=native)
    if count_padding or pads == NO_PADS:
        return total / math.prod(window)
    return total / native(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


avg_pool_counting_padding = partial(avg_pool, count_padding=True)


@jax.custom_jvp
def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width: `x` [N, H, W, C] -> [N, C].

    On CPU small maps are summed slice by slice. XLA would give a single reduction to the YNN
    library, together with the convolutions before it, which would take five times as long.
    """
    if max(x.shape[1:3]) > MAX_TAPS:
        return _mean_hw(x)
    return by_platform(x, cpu=_sliced_mean, default=_mean_hw)


@global_avg_pool.defjvp
def _global_avg_pool_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    return global_avg_pool(*primals), _mean_hw(*tangents)


def batch_norm(
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array,
    act: Activation,
    *,
    epsilon: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise `x` [N, H, W, C] by its own statistics, then scale, shift and activate.

    It keeps only x and the statistics for the backward pass. On CPU that takes half the time of
    automatic differentiation.

    Args:
      x: of any floating dtype.
      scale: [C], float32; None means 1.
      bias: [C], float32.
      act: an elementwise, hashable function.
      epsilon: added to the variance.
      axis_name: the mapped axis over which the statistics are taken too; None: per device.

    Returns:
      (y, mean, var): y like x, and the mean and the (biased) variance of the batch, [C] float32,
      without gradients.
    """
    y, mean, var = _batch_norm(
        x, jnp.ones_like(bias) if scale is None else scale, bias, act, epsilon, axis_name
    )
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


# --- XLA's own -----------------------------------------------------------------------------------


def _xla_conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads, groups: int
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _reduce_window(
    start: float,
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    window: Pair,
    stride: Pair,
    pads: Pads,
) -> jax.Array:
    # `start` must be a Python scalar: jax recognises the differentiable max and sum by its value.
    y: jax.Array = lax.reduce_window(
        x, start, combine, (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    )
    return y


_xla_max_pool = partial(_reduce_window, -jnp.inf, lax.max)
_xla_sum_pool = partial(_reduce_window, 0.0, lax.add)


# --- convolutions on CPU -------------------------------------------------------------------------


def _taps(
    x: jax.Array, window: Pair, stride: Pair, pads: Pads, fill: float = 0.0
) -> Iterator[jax.Array]:
    """For each position in a window, row by row: the slice of x that all windows have there."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    n, height, width, channels = x.shape
    rows, columns = (
        (length - k) // s for length, k, s in zip((height, width), window, stride, strict=True)
    )
    for i, j in product(*map(range, window)):
        stop = (n, i + rows * stride[0] + 1, j + columns * stride[1] + 1, channels)
        yield lax.slice(x, (0, i, j, 0), stop, (1, *stride, 1))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _ungrouped(x: jax.Array, kernel: jax.Array, stride: Pair, pads: Pads) -> jax.Array:
    return _xla_conv(x, kernel, stride=stride, pads=pads, groups=1)


@_ungrouped.defjvp
def _ungrouped_jvp(
    stride: Pair, pads: Pads, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """Keep XLA from computing x a second time for the gradient of the kernel.

    XLA transposes x there, and would fuse the operation that computes x into that, which takes
    three times as long in transposed order. It does not duplicate an operation that reads two
    large arrays, so the `where` makes x one.
    """
    (x, kernel), (dx, dkernel) = primals, tangents
    x = jnp.where(x == x, x, jnp.nan)
    dy = _ungrouped(dx, kernel, stride, pads) + _ungrouped(x, dkernel, stride, pads)
    return _ungrouped(x, kernel, stride, pads), dy


def _pointwise(x: jax.Array, kernel: jax.Array, *, stride: Pair) -> jax.Array:
    # not x[:, ::2]: that is a gather where the batch is symbolic, in exported programs
    if stride != (1, 1):
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, *stride, 1))
    # 2-D, because XLA transposes for the gradient otherwise
    n, height, width, channels = x.shape
    y = _product(x.reshape(n * height * width, channels), kernel[0, 0])
    return y.reshape(n, height, width, kernel.shape[-1])


@jax.custom_jvp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x` [N, C] times `kernel` [C, F], with gradients in the fastest form."""
    return x @ kernel


@_product.defjvp
def _product_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """Written so that the transposes of the two terms, the gradients, are fast."""
    (x, kernel), (dx, dkernel) = primals, tangents
    (rows, channels), features = x.shape, kernel.shape[-1]
    if 1 < rows <= MAX_ROWS and x.dtype == jnp.float32:
        # XLA gives sums of products to YNN. For VGG's first dense layer and 4 rows it is 36 times
        # as fast as Eigen, which packs the transposed kernel.
        dy = (dx[:, :, None] * kernel).sum(1)
    else:
        dy = dx @ kernel
    if rows > channels > features:
        dkernel = lax.optimization_barrier(dkernel.T).T  # g^T x, not x^T g: up to 2.5 times as fast
    return _product(x, kernel), dy + x @ dkernel


def _grouped(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads, groups: int
) -> jax.Array:
    """Dense convolutions of `MIN_CHANNELS` or more channels: a few groups share a kernel.

    The kernel of neighbouring groups is block diagonal.
    """
    *size, depth, features = kernel.shape
    joined = next(
        m
        for m in range(1, groups + 1)
        if groups % m == 0 and (m * depth >= MIN_CHANNELS or m == groups)
    )
    blocks = groups // joined
    kernel = kernel.reshape(*size, 1, depth, blocks, joined, -1)
    diagonal = jnp.eye(joined, dtype=kernel.dtype)[:, None, None, :, None]
    kernel = (kernel * diagonal).reshape(*size, joined * depth, features)
    convolve = partial(_xla_conv, stride=stride, pads=pads, groups=1)
    pairs = zip(jnp.split(x, blocks, -1), jnp.split(kernel, blocks, -1), strict=True)
    return jnp.concatenate([convolve(a, k) for a, k in pairs], -1)


def _padded_depthwise(x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads) -> jax.Array:
    """Pad first, so that the gradients reuse the padded input instead of padding it again."""
    return _depthwise(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, stride)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    return _shifted_sum(x, kernel, stride)


@_depthwise.defjvp
def _depthwise_jvp(
    stride: Pair, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """Written so that the transposes of the two terms, the gradients, are fast."""
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _depthwise(x, kernel, stride)
    spread = partial(_shifted_sum_dx, kernel=kernel, shape=x.shape, stride=stride)
    (dy,) = jax.linear_transpose(spread, y)(dx)

    @jax.checkpoint  # keeps the picture, not a slice for every tap
    def one(picture: jax.Array, dkernel: jax.Array) -> jax.Array:
        return _shifted_sum(picture[None], dkernel, stride)[0]

    # picture by picture: for the gradient of the kernel one stays in the cache
    return y, dy + lax.map(lambda picture: one(picture, dkernel), x)


def _shifted_sum(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    height, width, _, channels = kernel.shape
    taps = _taps(x, (height, width), stride, NO_PADS)
    weights = kernel.reshape(-1, channels)
    total: jax.Array = reduce(jnp.add, [tap * w for tap, w in zip(taps, weights, strict=True)])
    return total


def _shifted_sum_dx(
    g: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: Pair
) -> jax.Array:
    """The gradient of `_shifted_sum` for x: the same sum over g, dilated, with a flipped kernel."""
    padding = [(0, 0, 0)]
    for axis in (0, 1):
        spread = (g.shape[axis + 1] - 1) * stride[axis] + 1
        padding.append((kernel.shape[axis] - 1, shape[axis + 1] - spread, stride[axis] - 1))
    g = lax.pad(g, jnp.zeros((), g.dtype), (*padding, (0, 0, 0)))
    return _shifted_sum(g, kernel[::-1, ::-1], (1, 1))


# --- pools on CPU --------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _sum_pool(x: jax.Array, window: Pair, stride: Pair, pads: Pads) -> jax.Array:
    return reduce(jnp.add, _taps(x, window, stride, pads))


@_sum_pool.defjvp
def _sum_pool_jvp(
    window: Pair,
    stride: Pair,
    pads: Pads,
    primals: tuple[jax.Array, ...],
    tangents: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array]:
    """The tangent, written so that its transpose pads once and not for every tap."""
    (x,), (dx,) = primals, tangents
    zero = jnp.zeros((), dx.dtype)
    rows, columns = ([(k - 1 - i, i, 0) for i in range(k)] for k in window)
    moved = [lax.pad(dx, zero, ((0, 0, 0), i, j, (0, 0, 0))) for i, j in product(rows, columns)]
    total = reduce(jnp.add, moved)  # over every window that touches the picture
    y = _sum_pool(x, window, stride, pads)
    crop = [(0, 0, 0)]
    for axis in (1, 2):
        low = pads[axis - 1][0] - window[axis - 1] + 1
        length = (y.shape[axis] - 1) * stride[axis - 1] + 1
        crop.append((low, length - total.shape[axis] - low, 0))
    total = lax.pad(total, zero, (*crop, (0, 0, 0)))
    return y, lax.slice(total, (0, 0, 0, 0), total.shape, (1, *stride, 1))


def _mean_hw(x: jax.Array) -> jax.Array:
    return x.mean((1, 2))


def _sliced_mean(x: jax.Array) -> jax.Array:
    for axis in (2, 1):
        length = x.shape[axis]
        x = reduce(jnp.add, [lax.index_in_dim(x, i, axis, False) for i in range(length)]) / length
    return x


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: Pair, stride: Pair, pads: Pads) -> jax.Array:
    return by_platform(
        x,
        cpu=lambda x: reduce(jnp.maximum, _taps(x, window, stride, pads, -jnp.inf)),
        default=lambda x: _xla_max_pool(x, window, stride, pads),
    )


@_max_pool.defjvp
def _max_pool_jvp(
    window: Pair,
    stride: Pair,
    pads: Pads,
    primals: tuple[jax.Array, ...],
    tangents: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array]:
    def at_first_maximum(x: jax.Array, dx: jax.Array) -> jax.Array:
        first, *others = _taps(x, window, stride, pads, -jnp.inf)
        largest, place = first, jnp.zeros(first.shape, jnp.int8)
        for i, tap in enumerate(others, 1):
            place = jnp.where(tap > largest, jnp.int8(i), place)
            largest = jnp.maximum(largest, tap)
        place = lax.optimization_barrier(place)  # once, not again for every tap
        taps = enumerate(_taps(dx, window, stride, pads))
        total = reduce(jnp.add, [jnp.where(place == i, tap, 0) for i, tap in taps])
        dy: jax.Array = lax.optimization_barrier(total)  # what the gradient sums up, likewise
        return dy

    def native(x: jax.Array, dx: jax.Array) -> jax.Array:
        dy: jax.Array
        _, dy = jax.jvp(lambda x: _xla_max_pool(x, window, stride, pads), (x,), (dx,))
        return dy

    tangent = partial(by_platform, cpu=at_first_maximum, default=native)
    # keeps x for the backward pass, not a mask for every tap
    dy = jax.checkpoint(tangent, prevent_cse=False)(*primals, *tangents)
    return _max_pool(*primals, window, stride, pads), dy


# --- batch norm ----------------------------------------------------------------------------------

Moved = tuple[jax.Array, jax.Array, jax.Array]  # (y, mean, var), or their tangents


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    act: Activation,
    epsilon: float,
    axis_name: str | None,
) -> Moved:
    mean, var = _moments(x, axis_name)
    factor = lax.rsqrt(var + epsilon) * scale
    y = act((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)
    return y, mean, var


@_batch_norm.defjvp
def _batch_norm_jvp(
    act: Activation,
    epsilon: float,
    axis_name: str | None,
    primals: tuple[jax.Array, ...],
    tangents: tuple[jax.Array, ...],
) -> tuple[Moved, Moved]:
    x, scale, bias = primals
    mean, var = _moments(x, axis_name)
    inverse = lax.rsqrt(var + epsilon)
    y = act((x.astype(jnp.float32) - mean) * (inverse * scale) + bias).astype(x.dtype)

    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(
        x: jax.Array,
        scale: jax.Array,
        bias: jax.Array,
        mean: jax.Array,
        inverse: jax.Array,
        dx: jax.Array,
        dscale: jax.Array,
        dbias: jax.Array,
    ) -> jax.Array:
        # The gradient is the transpose of this, and runs through it from the end to the beginning.
        dtype, x = x.dtype, x.astype(jnp.float32)
        again = _written_out(x)[0] - mean
        dx = dx.astype(jnp.float32) * (inverse * scale)
        dscale = dscale - _mean(dx * again, axis_name) * inverse
        dbias = dbias - _mean(dx, axis_name)
        dscale, dbias = _written_out(dscale, dbias)
        # In terms of x, not of x - mean: the sums in the gradient then read x itself, and no other
        # array is written for them.
        dy = dx + x * (inverse * dscale) + (dbias - mean * inverse * dscale)
        (dy,) = _written_out(dy)
        _, dy = jax.jvp(act, ((x - mean) * (inverse * scale) + bias,), (dy,))
        return cast(jax.Array, dy).astype(dtype)

    dy = tangent(x, scale, bias, mean, inverse, *tangents)
    return (y, mean, var), (dy, jnp.zeros_like(mean), jnp.zeros_like(var))


def _moments(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance by E[x^2] - E[x]^2, after x is shifted to near its mean.

    Without the shift, a mean that is large beside the deviation would cost the variance digits. On
    CPU the subtraction keeps YNN from computing the sums, so there it is only done when needed.
    """
    x = x.astype(jnp.float32)

    def from_first(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = x[0, 0, 0]  # any value of the channel will do
        return _moments_from(
            first if axis_name is None else lax.pmean(first, axis_name), x, axis_name
        )

    def from_zero(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, var = _moments_from(0, x, axis_name)
        far = (mean * mean > FAR * FAR * var).any()
        moments: tuple[jax.Array, jax.Array] = lax.cond(
            far, lambda: _moments_from(mean, x, axis_name), lambda: (mean, var)
        )
        return moments

    return by_platform(x, cpu=from_zero, default=from_first)


def _moments_from(
    shift: jax.Array | int, x: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    x = x - shift
    mean = _mean(x, axis_name)
    return shift + mean, jnp.maximum(_mean(x * x, axis_name) - mean * mean, 0)


def _written_out(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """On CPU, write these arrays to memory before anything is computed from them.

    On other platforms batch norm is bound by memory traffic: computing g twice from bfloat16 is
    cheaper than to write it once and read it twice in float32.
    """
    return by_platform(*arrays, cpu=lambda *a: lax.optimization_barrier(a), default=lambda *a: a)


def _mean(x: jax.Array, axis_name: str | None) -> jax.Array:
    mean = x.mean((0, 1, 2))
    return mean if axis_name is None else lax.pmean(mean, axis_name)
