"""Convolution, pooling and batch norm, each in the form that is fastest on its platform.

Images are `[N, H, W, C]`, kernels `[kh, kw, C_in / groups, C_out]`, paddings explicit:
`((top, bottom), (left, right))`. Every path gives the same numbers to float32 rounding, and so do
its derivatives of any order, forward and reverse.

TPU gets XLA's own operations. On CPU those are many times slower than necessary for depthwise,
grouped and 1x1 convolutions and for pools and their gradients, so there they are written
differently; on GPU, depthwise convolutions and strided ones of an image are. `benchmarks/README.md`
has measurements.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial, reduce, wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import lax

from . import lowerings
from .lowerings import NO_PADS as NO_PADS
from .lowerings import Pads as Pads
from .lowerings import Pair

T = TypeVar("T")
Activation = Callable[[jax.Array], jax.Array]

MAX_TAPS = 49  # the largest window that is unrolled: 7x7
IMAGE_CHANNELS = 4  # the most that an image has; cuDNN pads so few channels to 8
FAR = 10  # standard deviations: a mean farther from 0 costs the variance more than two digits

ONEDNN = ("onednn", "constant")  # for inference on a CPU where `backend.onednn()`

_only = ContextVar("only", default="")


@contextmanager
def only(which: str) -> Iterator[None]:
    """Trace the "cpu", "onednn", "constant", "gpu" or "default" variants on any platform."""
    token = _only.set(which)
    try:
        yield
    finally:
        _only.reset(token)


def native_only() -> AbstractContextManager[None]:
    """Trace only XLA's own operations, as on TPU: for programs whose costs are counted."""
    return only("default")


def platform_only(platform: str) -> AbstractContextManager[None]:
    """Trace only the variants for a platform, or one of `ONEDNN`; `only` takes precedence.

    That takes a third of the time.
    """
    ours = platform in ("cpu", "gpu", *ONEDNN)
    return only(_only.get() or (platform if ours else "default"))


def by_platform(
    *operands: jax.Array,
    cpu: Callable[..., T],
    default: Callable[..., T],
    gpu: Callable[..., T] | None = None,
    onednn: Callable[..., T] | None = None,
    constant: Callable[..., T] | None = None,
) -> T:
    """`lax.platform_dependent`, which traces all functions and compiles one; see `only`.

    `onednn` is for inference on a CPU where `backend.onednn()`, and `constant` for that with the
    weights in the program. Neither is ever chosen by platform.
    """
    if which := _only.get():
        onednn = onednn or cpu
        variants = {"cpu": cpu, "onednn": onednn, "constant": constant or onednn}
        return {**variants, "gpu": gpu or default, "default": default}[which](*operands)
    more = {"cuda": gpu, "rocm": gpu} if gpu else {}
    return cast(T, lax.platform_dependent(*operands, cpu=cpu, **more, default=default))


def activation(act: Activation) -> Activation:
    """An elementwise function, computed in float32 at least where oneDNN computes convolutions.

    Only then does XLA let a convolution apply ReLU, ReLU6, SiLU, GELU, the sigmoid or tanh: it
    leaves out the conversions from bfloat16 and back. The others round once and not at every step.
    """

    @wraps(act)
    def activate(x: jax.Array) -> jax.Array:
        if _only.get() not in ONEDNN:
            return act(x)
        return act(lowerings.wide(x)).astype(x.dtype)

    return activate


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
    each for a few of the groups; oneDNN is faster at both kinds as they are, and in bfloat16 at 1x1
    convolutions whose weights are in the program. On GPU a depthwise convolution is a sum of
    shifted products too, and a strided one of an image runs over blocks of its pixels.
    """
    native = partial(lowerings.xla_conv, stride=stride, pads=pads, groups=groups)
    size, channels, features = kernel.shape[:2], x.shape[-1], kernel.shape[-1]
    gpu = constant = None
    if groups == 1 and (size != (1, 1) or pads != NO_PADS):
        cpu = partial(lowerings.ungrouped, stride=stride, pads=pads)
        if channels <= IMAGE_CHANNELS and stride != (1, 1):
            gpu = partial(lowerings.blocked, stride=stride, pads=pads)
    elif groups == 1:
        cpu = partial(lowerings.pointwise, stride=stride)
        constant = native if x.dtype == jnp.bfloat16 else None
    elif groups == channels == features and math.prod(size) <= MAX_TAPS:
        cpu = partial(lowerings.padded_depthwise, stride=stride, pads=pads)
        gpu = partial(lowerings.whole_depthwise, stride=stride, pads=pads)
    else:
        cpu = partial(lowerings.grouped, stride=stride, pads=pads, groups=groups)
    onednn = native if groups > 1 else None
    return by_platform(
        x, kernel, cpu=cpu, gpu=gpu, onednn=onednn, constant=constant, default=native
    )


def dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, **settings: Any) -> jax.Array:
    """`lax.dot_general` as `nnx.Linear` calls it: `x` [..., C] with `kernel` [C, F] -> [..., F].

    Its gradients are as quick on CPU as those of a 1x1 convolution.
    """

    def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.dot_general(x, kernel, dimensions, **settings)

    if x.ndim != 2:
        return native(x, kernel)
    return by_platform(x, kernel, cpu=lowerings.matmul, default=native)


def max_pool(x: jax.Array, window: Pair, *, stride: Pair, pads: Pads = NO_PADS) -> jax.Array:
    """Maximum over windows of `x` [N, H, W, C]; padding never wins (it counts as -inf).

    The gradient goes to the first maximum of each window.
    """
    if math.prod(window) > MAX_TAPS:
        return lowerings.xla_max_pool(x, window, stride, pads)
    return _max_pool(x, window, stride, pads)


def avg_pool(
    x: jax.Array, window: Pair, *, stride: Pair, pads: Pads = NO_PADS, count_padding: bool = False
) -> jax.Array:
    """Mean over windows of `x` [N, H, W, C]; padded zeros enter the mean if `count_padding`."""
    native = partial(lowerings.xla_sum_pool, window=window, stride=stride, pads=pads)
    if math.prod(window) > MAX_TAPS:
        total = native(x)
    else:
        cpu = partial(lowerings.sum_pool, window=window, stride=stride, pads=pads)
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
        return lowerings.mean_hw(x)
    return by_platform(x, cpu=lowerings.sliced_mean, default=lowerings.mean_hw)


@global_avg_pool.defjvp
def _global_avg_pool_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    return global_avg_pool(*primals), lowerings.mean_hw(*tangents)


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
    scale = jnp.ones_like(bias) if scale is None else scale
    y, mean, var = _traced_once(x, scale, bias, act, epsilon, axis_name, _only.get())
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: Pair, stride: Pair, pads: Pads) -> jax.Array:
    return by_platform(
        x,
        cpu=lambda x: lowerings.max_pool(x, window, stride, pads),
        default=lambda x: lowerings.xla_max_pool(x, window, stride, pads),
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
        first, *others = map(lowerings.wide, lowerings.taps(x, window, stride, pads, -jnp.inf))
        largest, place = first, jnp.zeros(first.shape, jnp.int8)
        for i, tap in enumerate(others, 1):
            place = jnp.where(tap > largest, jnp.int8(i), place)
            largest = jnp.maximum(largest, tap)
        place = lax.optimization_barrier(place)  # once, not again for every tap
        taps = enumerate(lowerings.taps(dx, window, stride, pads))
        total = reduce(jnp.add, [jnp.where(place == i, tap, 0) for i, tap in taps])
        dy: jax.Array = lax.optimization_barrier(total)  # what the gradient sums up, likewise
        return dy

    def native(x: jax.Array, dx: jax.Array) -> jax.Array:
        dy: jax.Array
        _, dy = jax.jvp(lambda x: lowerings.xla_max_pool(x, window, stride, pads), (x,), (dx,))
        return dy

    tangent = partial(by_platform, cpu=at_first_maximum, default=native)
    # keeps x for the backward pass, not a mask for every tap
    dy = jax.checkpoint(tangent, prevent_cse=False)(*primals, *tangents)
    return _max_pool(*primals, window, stride, pads), dy


# --- batch norm ----------------------------------------------------------------------------------

Moved = tuple[jax.Array, jax.Array, jax.Array]  # (y, mean, var), or their tangents


@partial(jax.jit, static_argnums=(3, 4, 5, 6), inline=True)
def _traced_once(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    act: Activation,
    epsilon: float,
    axis_name: str | None,
    _which: str,
) -> Moved:
    """`_batch_norm`, traced and differentiated once for all layers of one shape.

    That is half of the time that tracing a deep network takes. `_which` is what `only` says: JAX
    looks traces up by the arguments.
    """
    return _batch_norm(x, scale, bias, act, epsilon, axis_name)


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
        # The gradient is the transpose of this function, which runs it from the end to the start.
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

    On other platforms batch norm is bound by memory traffic: computing an array twice from bfloat16
    is cheaper than writing it once and reading it twice in float32.
    """
    return by_platform(*arrays, cpu=lambda *a: lax.optimization_barrier(a), default=lambda *a: a)


def _mean(x: jax.Array, axis_name: str | None) -> jax.Array:
    mean = x.mean((0, 1, 2))
    return mean if axis_name is None else lax.pmean(mean, axis_name)
