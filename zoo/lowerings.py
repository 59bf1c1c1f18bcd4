"""How the operations of `zoo.ops` are lowered: as XLA does it, and as it is fastest on CPU or GPU.

Shapes and paddings are those of `zoo.ops`.
"""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
NO_PADS: Pads = ((0, 0), (0, 0))

MAX_ROWS = 256  # on CPU: with more rows than this, the gradient of a product is left to Eigen
MIN_CHANNELS = 16  # on CPU, groups with fewer channels are joined into one convolution


# --- XLA's own -----------------------------------------------------------------------------------


def xla_conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads, groups: int
) -> jax.Array:
    """XLA's own convolution, with the arguments of `ops.conv2d`."""
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


xla_max_pool = partial(_reduce_window, -jnp.inf, lax.max)
xla_sum_pool = partial(_reduce_window, 0.0, lax.add)


# --- convolutions on CPU -------------------------------------------------------------------------


def taps(
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
def ungrouped(x: jax.Array, kernel: jax.Array, stride: Pair, pads: Pads) -> jax.Array:
    """A convolution in one group, whose gradients do not compute x again."""
    return xla_conv(x, kernel, stride=stride, pads=pads, groups=1)


@ungrouped.defjvp
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
    dy = ungrouped(dx, kernel, stride, pads) + ungrouped(x, dkernel, stride, pads)
    return ungrouped(x, kernel, stride, pads), dy


def pointwise(x: jax.Array, kernel: jax.Array, *, stride: Pair) -> jax.Array:
    """A 1x1 convolution, as a matrix product."""
    # not x[:, ::2]: that is a gather where the batch is symbolic, in exported programs
    if stride != (1, 1):
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, *stride, 1))
    # 2-D, because XLA transposes for the gradient otherwise
    n, height, width, channels = x.shape
    y = matmul(x.reshape(n * height * width, channels), kernel[0, 0])
    return y.reshape(n, height, width, kernel.shape[-1])


@jax.custom_jvp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x` [N, C] times `kernel` [C, F], with gradients in the fastest form."""
    return x @ kernel


@matmul.defjvp
def _matmul_jvp(
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
    return matmul(x, kernel), dy + x @ dkernel


@partial(jax.jit, static_argnames=("stride", "pads", "groups"), inline=True)  # traced once a shape
def grouped(x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads, groups: int) -> jax.Array:
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
    convolve = partial(xla_conv, stride=stride, pads=pads, groups=1)
    pairs = zip(jnp.split(x, blocks, -1), jnp.split(kernel, blocks, -1), strict=True)
    return jnp.concatenate([convolve(a, k) for a, k in pairs], -1)


@partial(jax.jit, static_argnames=("stride", "pads"), inline=True)
def padded_depthwise(x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads) -> jax.Array:
    """Pad first, so that the gradients reuse the padded input instead of padding it again.

    It computes in float32 at least, which is faster than bfloat16 on CPU, element by element.
    """
    padded = jnp.pad(wide(x), ((0, 0), *pads, (0, 0)))
    return _depthwise(padded, wide(kernel), stride).astype(x.dtype)


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
    slices = taps(x, (height, width), stride, NO_PADS)
    weights = kernel.reshape(-1, channels)
    total: jax.Array = reduce(jnp.add, [tap * w for tap, w in zip(slices, weights, strict=True)])
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


def wide(x: jax.Array) -> jax.Array:
    """In float32 at least: XLA computes in bfloat16 on CPU at a fraction of that speed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


# --- convolutions on GPU -------------------------------------------------------------------------


def blocked(x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads) -> jax.Array:
    """A strided convolution as one of stride 1 over blocks of `stride` pixels ("space to depth").

    The kernel is padded with zeros to whole blocks: 7x7 over 3 channels with stride 2 becomes 4x4
    over 12.
    """
    *size, channels, features = kernel.shape
    whole = [-(-k // s) * s for k, s in zip(size, stride, strict=True)]
    margins = [(0, 0, 0)]
    for length, (low, high), k, kept, s in zip(
        x.shape[1:3], pads, size, whole, stride, strict=True
    ):
        needed = (low + length + high - k) // s * s + kept
        margins.append((low, needed - low - length, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), (*margins, (0, 0, 0)))
    kernel = jnp.pad(kernel, [(0, b - k) for b, k in zip(whole, size, strict=True)] + [(0, 0)] * 2)

    n, (rows, columns) = x.shape[0], (x.shape[axis] // stride[axis - 1] for axis in (1, 2))
    x = x.reshape(n, rows, stride[0], columns, stride[1], channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, -1)
    high, wide = (k // s for k, s in zip(whole, stride, strict=True))
    kernel = kernel.reshape(high, stride[0], wide, stride[1], channels, features)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(high, wide, -1, features)
    return xla_conv(x, kernel, stride=(1, 1), pads=NO_PADS, groups=1)


def whole_depthwise(x: jax.Array, kernel: jax.Array, *, stride: Pair, pads: Pads) -> jax.Array:
    """A depthwise convolution as sums of shifted products, in float32 at least."""
    return _whole_depthwise(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, stride)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _whole_depthwise(x: jax.Array, kernel: jax.Array, stride: Pair) -> jax.Array:
    return _shifted_sum(wide(x), wide(kernel), stride).astype(x.dtype)


@_whole_depthwise.defjvp
def _whole_depthwise_jvp(
    stride: Pair, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """As on CPU, except that the gradient of the kernel sums over the whole batch at once."""
    (x, kernel), (dx, dkernel) = primals, tangents

    def gradient(g: jax.Array) -> jax.Array:
        return _shifted_sum_dx(wide(g), wide(kernel), x.shape, stride).astype(x.dtype)

    @partial(jax.checkpoint, prevent_cse=False)  # keeps x, not a slice for every tap
    def along(x: jax.Array, dkernel: jax.Array) -> jax.Array:
        return _whole_depthwise(x, dkernel, stride)

    y = _whole_depthwise(x, kernel, stride)
    (dy,) = jax.linear_transpose(gradient, y)(dx)
    return y, dy + along(x, dkernel)


# --- pools on CPU --------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def sum_pool(x: jax.Array, window: Pair, stride: Pair, pads: Pads) -> jax.Array:
    """Sum over windows of `x` [N, H, W, C], as a sum of slices."""
    return reduce(jnp.add, taps(x, window, stride, pads))


@sum_pool.defjvp
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
    y = sum_pool(x, window, stride, pads)
    crop = [(0, 0, 0)]
    for axis in (1, 2):
        low = pads[axis - 1][0] - window[axis - 1] + 1
        length = (y.shape[axis] - 1) * stride[axis - 1] + 1
        crop.append((low, length - total.shape[axis] - low, 0))
    total = lax.pad(total, zero, (*crop, (0, 0, 0)))
    return y, lax.slice(total, (0, 0, 0, 0), total.shape, (1, *stride, 1))


def max_pool(x: jax.Array, window: Pair, stride: Pair, pads: Pads) -> jax.Array:
    """Maximum over windows of `x` [N, H, W, C], as one of slices."""
    largest: jax.Array = reduce(jnp.maximum, map(wide, taps(x, window, stride, pads, -jnp.inf)))
    return largest.astype(x.dtype)


def mean_hw(x: jax.Array) -> jax.Array:
    """Mean over height and width in one reduction: [N, H, W, C] -> [N, C]."""
    return x.mean((1, 2))


def sliced_mean(x: jax.Array) -> jax.Array:
    """The same as sums of slices."""
    for axis in (2, 1):
        length = x.shape[axis]
        x = reduce(jnp.add, [lax.index_in_dim(x, i, axis, False) for i in range(length)]) / length
    return x
