"""Convolution and pooling: every lowering against `lax` or plain NumPy, derivatives too."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from zoo import ops
from zoo.context import PADDINGS


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


# --- depthwise convolution, lowered in our own way -----------------------------------------------

small = st.integers(0, 2)
pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def depthwise_cases(draw):
    """(batch, size, channels, kernel, stride, pads); the padding may be wider than the kernel."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = tuple(k + draw(st.integers(0, 4)) for k in kernel)
    pads = draw(st.tuples(st.tuples(small, small), st.tuples(small, small)))
    return draw(st.integers(1, 2)), size, draw(st.integers(2, 5)), kernel, draw(pair), pads


def value_and_derivatives(convolve, x, kernel, g, v):
    """The output, its gradients along `g`, and the gradients of those along `v`."""

    def gradients(x, kernel, g):
        return jax.vjp(convolve, x, kernel)[1](g)

    return (
        convolve(x, kernel),
        gradients(x, kernel, g),
        jax.vjp(gradients, x, kernel, g)[1](v),
    )


@settings(deadline=None, max_examples=25, derandomize=True)
@given(depthwise_cases())
def test_depthwise_and_its_derivatives(case):
    n, size, channels, kernel_size, stride, pads = case
    x, kernel = normal(0, n, *size, channels), normal(1, *kernel_size, 1, channels)
    v = normal(2, *x.shape), normal(3, *kernel.shape)

    def ours(x, kernel):
        return ops.conv2d(x, kernel, stride=stride, pads=pads, groups=channels)

    def theirs(x, kernel):
        return reference_conv(x, kernel, stride, pads, channels)

    g = normal(4, *jax.eval_shape(theirs, x, kernel).shape)
    run = jax.jit(value_and_derivatives, static_argnums=0)
    got, want = run(ours, x, kernel, g, v), run(theirs, x, kernel, g, v)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), got, want)

    half = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert ours(*half).dtype == jnp.bfloat16
    exact = theirs(*(a.astype(jnp.float32) for a in half))
    assert_close(ours(*half), exact, 0.03)


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
