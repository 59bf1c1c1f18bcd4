"""Convolution and pooling primitives: the one room that knows how a platform likes them lowered.

Images are `[N, H, W, C]`, kernels `[kh, kw, C_in / groups, C_out]`, paddings explicit:
`((top, bottom), (left, right))`. Every path gives the same numbers to float32 rounding.
"""

from functools import partial, reduce
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
NO_PADS: Pads = ((0, 0), (0, 0))


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    groups: int = 1,
) -> jax.Array:
    """2-D convolution of `x` [N, H, W, C] with `kernel` [kh, kw, C / groups, F] -> [N, H', W', F].

    A depthwise convolution (as many groups as channels in and out) is lowered on CPU to a sum of
    shifted multiply-adds, 4 to 40 times faster there than XLA's own; see `benchmarks/depthwise.py`.
    """
    if groups == x.shape[-1] == kernel.shape[-1] and groups > 1:
        return _depthwise(x, kernel, stride, pads)
    return _xla_conv(x, kernel, stride, pads, groups)


def max_pool(x: jax.Array, window: Pair, *, stride: Pair, pads: Pads = NO_PADS) -> jax.Array:
    """Maximum over windows of `x` [N, H, W, C]; padding never wins (it counts as -inf)."""
    return _reduce_window(x, -jnp.inf, lax.max, window, stride, pads)


def avg_pool(
    x: jax.Array, window: Pair, *, stride: Pair, pads: Pads = NO_PADS, count_padding: bool = False
) -> jax.Array:
    """Mean over windows of `x` [N, H, W, C]; padded zeros enter the mean if `count_padding`."""
    total = _reduce_window(x, 0.0, lax.add, window, stride, pads)
    if count_padding or pads == NO_PADS:
        return total / (window[0] * window[1])
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / _reduce_window(ones, 0.0, lax.add, window, stride, pads)


avg_pool_counting_padding = partial(avg_pool, count_padding=True)


def _reduce_window(x, start, combine, window, stride, pads):
    # `start` must be a Python scalar: jax recognises the differentiable max and sum by its value.
    return lax.reduce_window(
        x, start, combine, (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    )


def _xla_conv(x, kernel, stride, pads, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# --- depthwise convolution -----------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, pads):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted_sum(x, kernel, stride, pads),
        default=lambda x, kernel: _xla_conv(x, kernel, stride, pads, x.shape[-1]),
    )


def _depthwise_fwd(x, kernel, stride, pads):
    return _depthwise(x, kernel, stride, pads), (x, kernel)


def _depthwise_bwd(stride, pads, residuals, g):
    def native(x, kernel, g):
        _, transpose = jax.vjp(lambda x, k: _xla_conv(x, k, stride, pads, x.shape[-1]), x, kernel)
        return transpose(g)

    def shifted(x, kernel, g):
        transpose = jax.linear_transpose(lambda x: _shifted_sum(x, kernel, stride, pads), x)
        return *transpose(g), _shifted_dkernel(x, kernel, g, stride, pads)

    return lax.platform_dependent(*residuals, g, cpu=shifted, default=native)


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def _taps(x, size, stride, pads):
    """((i, j), window) for each kernel position: the strided slice of x that it multiplies."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    n, height, width, channels = x.shape
    out = [
        (length - k) // s + 1 for length, k, s in zip((height, width), size, stride, strict=True)
    ]
    for i, j in product(*map(range, size)):
        last = (i + (out[0] - 1) * stride[0] + 1, j + (out[1] - 1) * stride[1] + 1)
        yield (
            (i, j),
            lax.slice(x, (0, i, j, 0), (n, *last, channels), (1, *stride, 1)),
        )


def _shifted_sum(x, kernel, stride, pads):
    taps = _taps(x, kernel.shape[:2], stride, pads)
    return reduce(jnp.add, [window * kernel[i, j, 0] for (i, j), window in taps])


def _shifted_dkernel(x, kernel, g, stride, pads):
    """The kernel gradient: each tap times the cotangent, summed over N, H, W.

    The sum is a product with a row of ones behind a barrier: XLA's own reduction is slow on CPU.
    """
    channels = x.shape[-1]
    ones = jnp.ones((1, g.size // channels), g.dtype)
    rows = [
        ones @ lax.optimization_barrier((window * g).reshape(-1, channels))
        for _, window in _taps(x, kernel.shape[:2], stride, pads)
    ]
    return jnp.stack(rows).reshape(kernel.shape)
