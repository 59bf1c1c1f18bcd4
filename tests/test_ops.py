"""Convolution and pooling: every lowering against `lax` or plain NumPy, derivatives too."""

import contextlib
import math
import re
from collections import Counter
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from zoo import ops
from zoo.context import ACTIVATIONS, PADDINGS, Context, Spec
from zoo.layers import Conv, GlobalAvgPool, MaxPool, Network, Separable
from zoo.models.resnet import Block
from zoo.registry import abstract


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def reference_conv(x, kernel, stride, pads, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def assert_close(got, want, relative: float) -> None:
    """Equal to a share of the largest value: sums of cancelling terms have no better scale."""
    got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= relative * np.abs(want).max()


# --- convolutions lowered in our own way ---------------------------------------------------------

small = st.integers(0, 2)
pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def window_cases(draw, largest=4):
    """(batch, size, window, stride, pads); the padding may be wider than the window."""
    window = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    size = tuple(k + draw(st.integers(0, 4)) for k in window)
    pads = draw(st.tuples(st.tuples(small, small), st.tuples(small, small)))
    return draw(st.integers(1, 2)), size, window, draw(pair), pads


KINDS = ("depthwise", "grouped", "joined", "1x1", "dense")


@st.composite
def conv_cases(draw, kind):
    """(x, kernel, stride, pads, groups) of this kind."""
    n, size, window, stride, pads = draw(window_cases())
    depth, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    groups = 1
    if kind == "depthwise":
        depth, width, groups = 1, 1, draw(st.integers(2, 5))
    elif kind == "grouped":
        groups = draw(st.integers(2, 3))
    elif kind == "joined":
        groups = 20  # some groups are joined, not all
    elif kind == "1x1":
        window, pads = (1, 1), ops.NO_PADS
    x, kernel = normal(0, n, *size, groups * depth), normal(1, *window, depth, groups * width)
    return x, kernel, stride, pads, groups


def value_and_derivatives(f, inputs, g, v):
    """The output, its derivative along `v`, its gradients along `g`, and theirs along `v`."""

    def gradients(inputs, g):
        return jax.vjp(f, *inputs)[1](g)

    y, along = jax.jvp(f, inputs, v)
    return y, along, gradients(inputs, g), jax.vjp(gradients, inputs, g)[1](v)


def assert_same_derivatives(ours, theirs, *inputs, relative=1e-5):
    """Equal outputs, first derivatives in both modes and second ones, along random directions."""
    g = normal(4, *jax.eval_shape(theirs, *inputs).shape)
    v = tuple(normal(5 + i, *array.shape) for i, array in enumerate(inputs))

    @jax.jit  # one program for all: its compilation is what takes the time
    def both(inputs, g, v):
        return [value_and_derivatives(f, inputs, g, v) for f in (ours, theirs)]

    got, want = both(inputs, g, v)
    jax.tree.map(lambda a, b: assert_close(a, b, relative), got, want)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=3, derandomize=True)
@given(data=st.data())
def test_conv2d_and_its_derivatives(kind, data):
    check_conv2d(*data.draw(conv_cases(kind)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data())
def test_conv2d_and_its_derivatives_in_many_cases(kind, data):
    check_conv2d(*data.draw(conv_cases(kind)))


@pytest.mark.parametrize(
    ("sides", "kernel", "stride", "pads", "groups"),
    [
        pytest.param((9, 10), (7, 7, 3, 5), (2, 2), ((3, 3), (3, 3)), 1, id="resnet-stem"),
        pytest.param((8, 8), (3, 3, 3, 4), (2, 2), ((0, 1), (0, 1)), 1, id="same-stem"),
        pytest.param((17, 16), (11, 11, 3, 4), (4, 4), ((2, 2), (2, 2)), 1, id="alexnet-stem"),
        pytest.param((9, 9), (3, 3, 2, 3), (2, 3), ((1, 1), (0, 2)), 1, id="two-strides"),
        pytest.param((5, 5), (2, 2, 1, 2), (3, 3), ops.NO_PADS, 1, id="stride-beyond-kernel"),
        pytest.param((5, 4), (1, 1, 4, 6), (2, 1), ops.NO_PADS, 1, id="pointwise"),
        pytest.param((8, 7), (5, 5, 1, 3), (1, 1), ((2, 2), (2, 2)), 3, id="depthwise"),
        pytest.param((8, 7), (3, 3, 1, 3), (2, 1), ((0, 1), (1, 0)), 3, id="strided-depthwise"),
    ],
)
@pytest.mark.parametrize("variant", ["gpu", "onednn", "constant"])
def test_conv2d_in_other_variants(variant, sides, kernel, stride, pads, groups):
    x, kernel = normal(0, 2, *sides, kernel[2] * groups), normal(1, *kernel)
    check_conv2d(x, kernel, stride, pads, groups, variant)


def check_conv2d(x, kernel, stride, pads, groups, variant="cpu"):

    def ours(x, kernel):
        with ops.only(variant):
            return ops.conv2d(x, kernel, stride=stride, pads=pads, groups=groups)

    def theirs(x, kernel):
        return reference_conv(x, kernel, stride, pads, groups)

    assert_same_derivatives(ours, theirs, x, kernel)

    half = np.asarray(x, jnp.bfloat16), np.asarray(kernel, jnp.bfloat16)
    rounded = (a.astype(np.float32) for a in half)
    got, exact = jax.jit(lambda half, rounded: (ours(*half), theirs(*rounded)))(half, (*rounded,))
    assert got.dtype == jnp.bfloat16
    assert_close(got, exact, 0.03)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(window_cases(largest=3))
def test_pools_and_their_derivatives(case):
    n, size, window, stride, pads = case
    pads = tuple(tuple(min(p, k - 1) for p in side) for side, k in zip(pads, window, strict=True))
    x = normal(0, n, *size, 2)
    dimensions = (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))

    def reference(start, combine):
        return lambda x: lax.reduce_window(x, start, combine, *dimensions)

    def ours(x):
        return ops.max_pool(x, window, stride=stride, pads=pads)

    theirs = reference(-jnp.inf, lax.max)
    assert_same_derivatives(ours, theirs, x)
    ties = jnp.round(x)  # the first maximum takes the gradient
    g = normal(2, *jax.eval_shape(ours, x).shape)
    pull = jax.jit(lambda x, g: [jax.vjp(f, x)[1](g)[0] for f in (ours, theirs)])
    assert_close(*pull(ties, g), 1e-5)

    def mean(x):
        return ops.avg_pool(x, window, stride=stride, pads=pads, count_padding=True)

    def their_mean(x):
        return reference(0.0, lax.add)(x) / (window[0] * window[1])

    assert_same_derivatives(mean, their_mean, x)


# --- every kind of convolution, against the definition -------------------------------------------


def naive_conv(x, kernel, stride, pads, groups):
    """y[n, i, j, f] = sum over the window and the group's channels of x * kernel."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    kh, kw, depth, features = kernel.shape
    height, width = ((x.shape[i + 1] - kernel.shape[i]) // stride[i] + 1 for i in (0, 1))
    y = np.zeros((len(x), height, width, features))
    for i, j, f in product(range(height), range(width), range(features)):
        first = f // (features // groups) * depth
        top, left = i * stride[0], j * stride[1]
        window = x[:, top : top + kh, left : left + kw, first : first + depth]
        y[:, i, j, f] = (window * np.asarray(kernel[..., f])).sum((1, 2, 3))
    return y


@pytest.mark.parametrize(
    ("channels", "features", "groups"),
    [
        pytest.param(3, 4, 1, id="dense"),
        pytest.param(4, 6, 2, id="grouped"),
        pytest.param(4, 4, 4, id="depthwise"),
        pytest.param(4, 8, 4, id="depthwise-multiplier-2"),
        pytest.param(1, 1, 1, id="one-channel"),
    ],
)
@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [((3, 3), (1, 1), ((1, 1), (1, 1))), ((1, 1), (2, 2), ops.NO_PADS),
     ((3, 2), (2, 1), ((0, 1), (2, 0)))],
)  # fmt: skip
def test_conv2d_is_its_definition(channels, features, groups, kernel, stride, pads):
    x, k = normal(0, 2, 6, 7, channels), normal(1, *kernel, channels // groups, features)
    got = ops.conv2d(x, k, stride=stride, pads=pads, groups=groups)
    assert_close(got, naive_conv(x, k, stride, pads, groups), 1e-5)


# --- pooling -------------------------------------------------------------------------------------

POOLS = [
    ((2, 2), (2, 2), ops.NO_PADS),
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), ((0, 1), (0, 1))),
    ((3, 2), (1, 3), ((2, 0), (0, 1))),
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
]


def naive_pool(x, window, stride, pads, fill, reduce):
    x = np.pad(np.asarray(x), ((0, 0), *pads, (0, 0)), constant_values=fill)
    height, width = ((x.shape[i + 1] - window[i]) // stride[i] + 1 for i in (0, 1))
    rows = [[x[:, i * stride[0] :, j * stride[1] :][:, : window[0], : window[1]]
             for j in range(width)] for i in range(height)]  # fmt: skip
    return np.stack([np.stack([reduce(w, axis=(1, 2)) for w in row], 1) for row in rows], 1)


@pytest.mark.parametrize(("window", "stride", "pads"), POOLS)
def test_max_pool(window, stride, pads):
    x = normal(0, 2, 7, 6, 3) - 5  # all negative: a padded zero would win
    want = naive_pool(x, window, stride, pads, -np.inf, np.max)
    got = ops.max_pool(x, window, stride=stride, pads=pads)
    np.testing.assert_array_equal(got, want)
    half = x.astype(jnp.bfloat16)
    assert ops.max_pool(half, window, stride=stride, pads=pads).dtype == jnp.bfloat16

    # The gradient goes to each window's maximum, whole.
    g = normal(1, *want.shape)
    (dx,) = jax.vjp(lambda x: ops.max_pool(x, window, stride=stride, pads=pads), x)[1](g)
    want = np.zeros(x.shape, np.float32)
    for n, i, j, c in np.ndindex(*got.shape):
        hit = np.argwhere(np.asarray(x[n, :, :, c]) == got[n, i, j, c])[0]
        want[n, *hit, c] += g[n, i, j, c]
    np.testing.assert_allclose(dx, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize(("window", "stride", "pads"), POOLS)
def test_avg_pool(window, stride, pads, count_padding):
    x = normal(0, 2, 7, 6, 3)
    fill, mean = (0, np.mean) if count_padding else (np.nan, np.nanmean)
    got = ops.avg_pool(x, window, stride=stride, pads=pads, count_padding=count_padding)
    want = naive_pool(x, window, stride, pads, fill, mean)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize(("window", "stride", "pads"), POOLS)
def test_avg_pool_derivatives(window, stride, pads, count_padding):
    def theirs(x):
        def summed(x):
            return lax.reduce_window(
                x, 0.0, lax.add, (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
            )

        return summed(x) / (math.prod(window) if count_padding else summed(jnp.ones_like(x)))

    ours = partial(
        ops.avg_pool, window=window, stride=stride, pads=pads, count_padding=count_padding
    )
    assert_same_derivatives(ours, theirs, normal(0, 2, 7, 6, 3), relative=1e-5)


# --- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "channels", "features"), [(1, 5, 7), (4, 5, 7), (300, 5, 7), (300, 7, 5), (2, 7, 5)]
)
def test_product_and_its_derivatives(rows, channels, features):
    def ours(x, kernel):
        return ops.dot_general(x, kernel, (((1,), (0,)), ((), ())))

    inputs = normal(0, rows, channels), normal(1, channels, features)
    assert_same_derivatives(ours, jnp.matmul, *inputs, relative=1e-5)
    half = [x.astype(jnp.bfloat16) for x in inputs]
    assert_close(jax.grad(lambda x: ours(x, half[1]).sum())(half[0]),
                 jax.grad(lambda x: (x @ half[1]).sum())(half[0]), 1e-2)  # fmt: skip


# --- batch norm ----------------------------------------------------------------------------------


def plain_batch_norm(x, scale, bias, act):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return act((x - mean) / jnp.sqrt(var + 1e-3) * scale + bias), mean, var


@pytest.mark.parametrize("act", [ACTIVATIONS["relu6"], ACTIVATIONS["silu"]], ids=["relu6", "silu"])
def test_batch_norm_and_its_derivatives(act):
    x = normal(0, 3, 4, 5, 6) * 2 + 7  # a mean far from 0
    scale, bias = normal(1, 6), normal(2, 6)

    def ours(x, scale, bias):
        return ops.batch_norm(x, scale, bias, act, epsilon=1e-3)[0]

    def theirs(x, scale, bias):
        return plain_batch_norm(x, scale, bias, act)[0]

    assert_same_derivatives(ours, theirs, x, scale, bias, relative=1e-4)
    got = ops.batch_norm(x, scale, bias, act, epsilon=1e-3)
    for a, b in zip(got, plain_batch_norm(x, scale, bias, act), strict=True):
        assert_close(a, b, 1e-5)
    half = ops.batch_norm(x.astype(jnp.bfloat16), scale, bias, act, epsilon=1e-3)
    assert [a.dtype for a in half] == [jnp.bfloat16, jnp.float32, jnp.float32]
    assert_close(half[0], got[0], 0.03)


def batch_norm_in_double(x, scale, bias, g):
    """(y, mean, var, dx, dscale, dbias) by the formulas, activation the identity, in float64."""
    x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    inverse = 1 / np.sqrt(var + 1e-5)
    normalised = (x - mean) * inverse
    dbias, dscale = g.sum((0, 1, 2)), (g * normalised).sum((0, 1, 2))
    count = x.size / x.shape[-1]
    dx = inverse * scale * (g - dbias / count - normalised * dscale / count)
    return normalised * scale + bias, mean, var, dx, dscale, dbias


@pytest.mark.parametrize("platform", ["cpu", "others", "replicas"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm_of_a_mean_far_from_zero(platform, dtype):
    """From the first step: there is no running mean to count from."""
    rng = np.random.default_rng(0)
    scale, bias = (jnp.asarray(rng.uniform(0.5, 1.5, 4), jnp.float32) for _ in range(2))
    axis = "replicas" if platform == "replicas" else None

    def values(x, g):
        def f(x, scale, bias):
            identity = ACTIVATIONS["identity"]
            return ops.batch_norm(x, scale, bias, identity, epsilon=1e-5, axis_name=axis)

        (y, mean, var), vjp = jax.vjp(f, x, scale, bias)
        return y, mean, var, *vjp((g, jnp.zeros_like(mean), jnp.zeros_like(var)))

    run = jax.jit(jax.vmap(values, axis_name=axis) if axis else values)
    with ops.native_only() if platform == "others" else contextlib.nullcontext():
        for ratio in (0, 30, 100, 1000):
            signs = np.array([1, -1, 1, 0])  # the last channel stays where it is
            noise = rng.standard_normal((4, 9, 9, 4)) * (1 if dtype == jnp.float32 else 1 + ratio)
            x = jnp.asarray(noise + ratio * signs, dtype)  # bfloat16 would not hold the deviations
            g = jnp.asarray(rng.standard_normal(x.shape), dtype)
            want = batch_norm_in_double(x, scale, bias, g)
            if axis:
                halves = run(*(a.reshape(2, 2, *a.shape[1:]) for a in (x, g)))
                y, mean, var, dx, dscale, dbias = halves
                got = (y.reshape(x.shape), mean[0], var[0], dx.reshape(x.shape),
                       dscale.sum(0), dbias.sum(0))  # fmt: skip
            else:
                got = run(x, g)
            rounding = 3e-6 * (1 + ratio) if dtype == jnp.float32 else 0.02
            for i, (a, b) in enumerate(zip(got, want, strict=True)):
                exact = i in (1, 2)  # mean and variance
                assert_close(a, b, 3e-6 if exact else rounding)


def test_batch_norm_forwards():
    """Forward mode, and both orders of two modes."""
    x, scale, bias = normal(0, 3, 4, 4, 2) + 5, normal(1, 2), normal(2, 2)
    moved = normal(3, 3, 4, 4, 2), normal(4, 2), normal(5, 2)
    act = ACTIVATIONS["silu"]

    def ours(*args):
        return (ops.batch_norm(*args, act, epsilon=1e-3)[0] ** 2).sum()

    def theirs(*args):
        return (plain_batch_norm(*args, act)[0] ** 2).sum()

    inputs = x, scale, bias

    @partial(jax.jit, static_argnums=0)
    def derivatives(f):
        along = jax.jvp(f, inputs, moved)[1]
        over = jax.jvp(jax.grad(f, (0, 1, 2)), inputs, moved)[1]
        under = jax.grad(lambda *args: jax.jvp(f, args, moved)[1], (0, 1, 2))(*inputs)
        return along, over, under

    got, want = derivatives(ours), derivatives(theirs)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-3), got, want)


def test_batch_norm_across_replicas_is_that_of_the_whole_batch():
    x, scale, bias = normal(0, 4, 3, 3, 2) + 1, normal(1, 2), normal(2, 2)
    g = normal(3, *x.shape)

    def gradients(x, g, axis_name):
        def f(*args):
            return ops.batch_norm(*args, ACTIVATIONS["relu"], epsilon=1e-3, axis_name=axis_name)[0]

        y, vjp = jax.vjp(f, x, scale, bias)
        return y, vjp(g)

    whole, (dx, dscale, dbias) = gradients(x, g, None)
    split = jax.vmap(partial(gradients, axis_name="replicas"), axis_name="replicas")
    y, (dx2, dscale2, dbias2) = split(x.reshape(2, 2, 3, 3, 2), g.reshape(2, 2, 3, 3, 2))
    assert_close(y.reshape(x.shape), whole, 1e-5)
    assert_close(dx2.reshape(x.shape), dx, 1e-5)
    assert_close(dscale2.sum(0), dscale, 1e-5)  # a replica has its own pictures' share
    assert_close(dbias2.sum(0), dbias, 1e-5)


# --- padding rules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "pads"),
    [
        # worked by hand: out = ceil(length / stride), total = (out - 1) * stride + kernel - length
        (8, 2, 1, (0, 1)),
        (7, 2, 1, (0, 1)),
        (8, 2, 2, (0, 0)),
        (7, 2, 2, (0, 1)),
        (8, 3, 1, (1, 1)),
        (7, 3, 1, (1, 1)),
        (224, 3, 2, (0, 1)),
        (299, 3, 2, (1, 1)),
        (8, 5, 1, (2, 2)),
        (8, 5, 2, (1, 2)),
        (7, 5, 2, (2, 2)),
        (8, 7, 1, (3, 3)),
        (224, 7, 2, (2, 3)),
        (225, 7, 2, (3, 3)),
        (8, 1, 2, (0, 0)),  # never negative, though the last pixel goes unread
    ],
)
def test_same_padding_is_tensorflows(length, kernel, stride, pads):
    assert PADDINGS["same"](length, kernel, stride) == pads
    assert lax.padtype_to_pads((length,), (kernel,), (stride,), "SAME") == [pads]


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [(2, 2, (0, 0)), (3, 1, (1, 1)), (3, 2, (0, 1)), (5, 2, (1, 2)), (7, 2, (2, 3))],
)
def test_same_even_is_that_of_an_even_length_at_any(kernel, stride, pads):
    for length in (7, 8, 224, 299):
        assert PADDINGS["same_even"](length, kernel, stride) == pads


@pytest.mark.parametrize(
    ("kernel", "pad"), [(1, 0), (2, 0), (3, 1), (5, 2), (7, 3)]
)  # torchvision: MaxPool2d(2, 2), Conv2d(3, padding=1), (5, padding=2), (7, padding=3)
def test_symmetric_padding_is_pytorchs(kernel, pad):
    for length, stride in product((7, 8), (1, 2)):
        assert PADDINGS["symmetric"](length, kernel, stride) == (pad, pad)


def test_valid_is_no_padding():
    assert PADDINGS["valid"](8, 3, 2) == (0, 0)


@pytest.mark.parametrize("sides", [(1, 1), (7, 5), (60, 2)])
def test_global_average_pool(sides):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *sides, 3)), jnp.float32)

    def ours(x):
        return (ops.global_avg_pool(x) ** 3).sum()

    def plain(x):
        return (x.mean((1, 2)) ** 3).sum()

    np.testing.assert_allclose(jax.jit(ours)(x), plain(x), rtol=1e-5, atol=1e-6)
    for derivative in (jax.grad, lambda f: jax.grad(lambda x: (jax.grad(f)(x) ** 2).sum())):
        np.testing.assert_allclose(derivative(ours)(x), derivative(plain)(x), rtol=1e-4, atol=1e-6)


# --- what a GPU gets -----------------------------------------------------------------------------


def one_of_each(spec: Spec) -> Network:
    """Every kind of convolution, a max pool and a global average; seven convolutions."""
    body = dict(
        stem=Conv(3, 8, stride=2),
        pool=MaxPool(3, 2, padding="symmetric"),
        residual=Block(8),
        grouped=Conv(3, 8, groups=2),
        separable=Separable(16),
        last=Conv(1, 24),
    )
    head = dict(pool=GlobalAvgPool())
    return nnx.eval_shape(
        lambda: Network(body, head, Context(spec, nnx.Rngs(dropout=0)), min_size=8)
    )


@pytest.mark.parametrize(
    ("name", "convolutions", "pools"),
    [
        pytest.param("resnet50", 53, 1, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2_100", 52, 0, marks=pytest.mark.slow),
        ("one of each", 7, 1),
    ],
)
def test_a_tpu_gets_xlas_own_operations_alone(name, convolutions, pools):
    settings = dict(dtype="bfloat16", dropout=0.0)
    if name == "one of each":
        model = one_of_each(Spec("resnet18", 10, **settings))
    else:
        model = abstract(Spec(name, **settings))
    model.train()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def gradients(params, rest, x):
        return jax.grad(lambda params: nnx.merge(graphdef, params, rest).logits(x).sum())(params)

    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    traced = jax.jit(gradients).trace(nnx.to_pure_dict(params), nnx.to_pure_dict(rest), x)
    program = traced.lower(lowering_platforms=("tpu",)).as_text()
    counts = Counter(re.findall(r"stablehlo\.(\w+)", program))
    # each with its two gradients, but for that of the image
    assert counts["convolution"] == 3 * convolutions - 1
    assert counts["dot_general"] == 3 - 1  # of the classifier, whose output nobody reads
    assert counts["select_and_scatter"] == pools
    assert (
        counts["slice"] == convolutions
    )  # of batch norms: the variance is taken from first values
    assert not counts["pad"] + counts["optimization_barrier"]
    assert not counts["while"] + counts["concatenate"]
    assert "tensor<i8>" not in program  # places of maxima


# --- activations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("which", ops.ONEDNN)
def test_activations_are_the_same_everywhere(which, name, dtype):
    act = ACTIVATIONS[name]
    x = jnp.asarray([np.nan, np.inf, *np.asarray(normal(0, 1000)) * 4], dtype)
    with ops.only(which):
        got = act(x)
    assert got.dtype == dtype
    want = act(x.astype(jnp.float32)).astype(dtype)  # rounded once
    assert jnp.array_equal(got, want, equal_nan=True)
    assert_close(act(x)[2:], want[2:], 1e-6 if dtype == "float32" else 0.01)
