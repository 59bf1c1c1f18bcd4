"""What XLA and malloc are told on CPU, and that users have the last word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import backend


def test_the_users_own_flag_wins(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert backend.compiler_options()
    monkeypatch.setenv("XLA_FLAGS", f"--{backend.YNN}=LIBRARY_FUSION_TYPE_DOT")
    assert backend.compiler_options() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("ZOO_KEEP_MEMORY", "0"), ("MALLOC_TRIM_THRESHOLD_", "1"), ("GLIBC_TUNABLES", "x=1")],
)
def test_the_users_own_memory_setting_wins(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not backend.keep_memory.__wrapped__()


def test_a_network_can_be_called_under_a_jit(network):
    from zoo.layers import Conv, GlobalAvgPool

    model = network(dict(stem=Conv(3, 4)), dict(pool=GlobalAvgPool()), num_classes=3)
    x = jnp.ones((1, 8, 8, 3))
    want = model(x)
    # the images may be an argument or, as everything else here, a constant of the program
    for got in (jax.jit(lambda x: model(x))(x), jax.jit(lambda: model(x))()):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not backend.under_jit()
