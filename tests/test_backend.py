"""What XLA and malloc are told on CPU, and that users have the last word."""

import platform
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.runtime import backend, calling
from zoo.wrapped import wrapped


def test_the_users_own_flag_wins(monkeypatch):
    jax.devices()  # they start with the flags of conftest, whichever test comes first
    monkeypatch.setenv("XLA_FLAGS", "")
    assert backend.compiler_options()
    monkeypatch.setenv("XLA_FLAGS", f"--{backend.YNN}=LIBRARY_FUSION_TYPE_DOT")
    assert backend.compiler_options() is None


def test_onednn_is_asked_for_only_where_xla_has_it(monkeypatch):
    with_it = backend.compiler_options(library="onednn")
    assert (backend.ONEDNN in with_it) == backend.onednn()
    if platform.machine() == "x86_64":
        assert backend.onednn() == (jax.__version_info__ >= (0, 11))
    monkeypatch.setattr(backend, "ONEDNN", "xla_cpu_no_such_option")
    assert not backend.onednn.__wrapped__()
    monkeypatch.undo()
    for own in (f"{backend.YNN}=LIBRARY_FUSION_TYPE_DOT", f"{backend.DISABLED}=dce"):
        monkeypatch.setenv("XLA_FLAGS", f"--{own}")
        assert not backend.onednn.__wrapped__()


@pytest.mark.parametrize(
    ("flags", "dtype", "inference", "training"),
    [
        ({"avx2"}, "float32", "onednn", "eigen"),
        ({"avx2"}, "bfloat16", "eigen", "eigen"),  # oneDNN would end the process
        ({"avx512f", "avx512_bf16"}, "bfloat16", "onednn", "onednn"),
        ({"avx512f", "amx_bf16"}, "bfloat16", "onednn", "onednn"),
    ],
)
def test_bfloat16_goes_to_onednn_where_the_processor_multiplies_it(
    monkeypatch, flags, dtype, inference, training
):
    monkeypatch.setattr(backend, "onednn", lambda: True)
    monkeypatch.setattr(backend, "processor_flags", lambda: flags)
    monkeypatch.setattr(backend, "multiplies_bfloat16", backend.multiplies_bfloat16.__wrapped__)
    assert backend.fastest(dtype, inference=True)[0] == inference
    assert backend.fastest(dtype, inference=False)[0] == training


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, "bfloat16"])
def test_what_a_model_computes_in_is_seen_in_any_of_its_layers(dtype, monkeypatch):
    class Small(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.linear = nnx.Linear(4, 5, dtype=dtype, rngs=rngs)
            self.means = np.zeros(3)  # nothing that could be compared with another call

        def __call__(self, x):
            return self.linear(self.conv(x).mean((1, 2)))

    name = jnp.dtype(dtype).name
    assert calling.computes_in(Small()) == name
    assert wrapped(Small(), 8).spec.dtype == name
    own = zoo.create("mobilenet_v1_025", num_classes=5, dtype=name)
    assert calling.computes_in(own) == name
    asked = []
    fastest = backend.fastest
    monkeypatch.setattr(backend, "caches_programs", lambda: False)
    monkeypatch.setattr(backend, "fastest", lambda d, **how: asked.append(d) or fastest(d, **how))
    calling.compiled.cache_clear()
    own(jnp.zeros((1, 32, 32, 3)))
    assert asked == [name]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_call_gives_what_a_program_of_the_users_own_does(dtype, monkeypatch):
    """The first goes to oneDNN where there is one and no cache; the second never does."""
    monkeypatch.setattr(backend, "caches_programs", lambda: False)
    calling.compiled.cache_clear()
    model = zoo.create("mobilenet_v1_025", num_classes=5, dtype=dtype)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    called, own = model(x), nnx.jit(lambda model, x: model(x))(model, x)
    bound = 1e-5 if dtype == "float32" else 0.05
    assert jnp.abs(called - own).max() <= bound * jnp.abs(own).max()


@pytest.mark.parametrize(
    ("name", "value"),
    [("ZOO_KEEP_MEMORY", "0"), ("MALLOC_TRIM_THRESHOLD_", "1"), ("GLIBC_TUNABLES", "x=1")],
)
def test_the_users_own_memory_setting_wins(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not backend.keep_memory.__wrapped__()
    assert not backend.share_heap.__wrapped__()


def test_a_process_that_trains_keeps_its_heaps(monkeypatch):
    monkeypatch.setattr(backend, "_training", False)
    monkeypatch.setattr(backend, "_tell_malloc", lambda what, value: True)
    assert backend.share_heap.__wrapped__()
    backend.expect_training()
    assert not backend.share_heap.__wrapped__()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"XLA_FLAGS": ""}, [False]),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, []),  # they wait for each other
        ({"XLA_FLAGS": "", "JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"}, []),
    ],
)
def test_a_single_cpu_device_trains_in_the_calling_thread(monkeypatch, environment, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backend, "_training", False)
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    backend.expect_training()
    assert list(updates.values()) == told
    updates.clear()
    monkeypatch.setattr(type(jax.config), "jax_num_cpu_devices", 4)
    backend.expect_training()
    assert not updates
    assert updates.keys() <= {"jax_cpu_enable_async_dispatch"}


def test_what_a_long_compilation_leaves_behind_is_given_back(monkeypatch):
    trims = []
    monkeypatch.setattr(backend, "trim", lambda: trims.append(1))
    backend._after_compiling(backend.COMPILED, 0.1)
    backend._after_compiling("/jax/core/compile/jaxpr_trace_duration", 5.0)
    assert not trims
    backend._after_compiling(backend.COMPILED, 5.0)
    assert len(trims) == 1


def test_jax_tells_of_each_compilation():
    heard = []
    listener = lambda event, seconds, **_: heard.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x * 1.5 - 2.25)(jnp.ones(7)).block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert backend.COMPILED in heard


def test_a_network_can_be_called_under_a_jit(network):
    from zoo.layers import Conv, GlobalAvgPool

    model = network(dict(stem=Conv(3, 4)), dict(pool=GlobalAvgPool()), num_classes=3)
    x = jnp.ones((1, 8, 8, 3))
    want = model(x)
    # the images may be an argument or, as everything else here, a constant of the program
    for got in (jax.jit(lambda x: model(x))(x), jax.jit(lambda: model(x))()):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not backend.under_jit()


@pytest.fixture
def tiny(network):
    from zoo.layers import Conv, Dropout, GlobalAvgPool

    head = dict(pool=GlobalAvgPool(), drop=Dropout(0.5))
    return network(dict(stem=Conv(3, 4, act="relu6")), head, num_classes=3)


X = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def test_a_call_sees_what_was_changed_since_the_last(tiny):
    """A value, a module, a setting: each decides the answer, and the call was given none."""
    tiny.classifier.linear.kernel[...] = jnp.arange(12.0).reshape(4, 3)
    answers = [tiny(X)]
    tiny.classifier.linear.bias[...] += 1.0
    answers.append(tiny(X))
    tiny.body.stem.act = jax.nn.tanh
    answers.append(tiny(X))
    tiny.body.stem.norm.mean[...] += 1.0
    answers.append(tiny(X))
    tiny.body.stem.norm = None
    answers.append(tiny(X))
    del tiny.body.stem.conv.kernel  # and in again, at another place among the attributes
    tiny.body.stem.conv.kernel = nnx.Param(jnp.ones((3, 3, 3, 4)))
    answers.append(tiny(X))
    np.testing.assert_allclose(tiny(X), tiny.forward(X), rtol=1e-5, atol=1e-6)
    for before, after in pairwise(answers):
        assert not np.allclose(before, after)


def test_a_call_writes_back_what_it_changed_and_returns_no_weights(tiny):
    tiny(X)
    *_, last = calling._last[tiny].values()
    values = [variable.get_raw_value() for variable in calling.inspect(tiny).variables]
    assert last.program(values, X)[1] == {}
    tiny.train()
    before = np.asarray(tiny.body.stem.norm.mean)
    assert not np.array_equal(tiny(X), tiny(X))  # the stream of dropout moves on
    assert not np.array_equal(before, tiny.body.stem.norm.mean)
    tiny.eval()
    np.testing.assert_array_equal(tiny(X), tiny(X))
