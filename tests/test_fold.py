"""Folded networks: the same logits without batch norm, and what may be done with them."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from training.state import flat
from zoo import ops, registry
from zoo.context import TF, Numerics
from zoo.layers import Conv, ConvNormAct, GlobalAvgPool, Separable
from zoo.models.resnet_v2 import PreAct
from zoo.pretrained.convert import expected
from zoo.runtime import backend, calling, constants

HEAD = dict(pool=GlobalAvgPool())
PLAIN = dict(stem=Conv(3, 8, stride=2), sep=Separable(12), grouped=Conv(3, 8, groups=4))
FAMILIES = {variant.family: name for name, variant in reversed(registry.variants().items())}


def trained(model: zoo.Network) -> zoo.Network:
    """With norms that do something: fresh ones divide by 1 and add 0."""
    random = np.random.default_rng(0)
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, nnx.BatchNorm):
            for leaf in filter(None, (layer.mean, layer.bias)):
                leaf[...] = random.normal(0, 0.3, leaf.shape).astype(np.float32)
            for leaf in filter(None, (layer.var, layer.scale)):
                leaf[...] = random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    return model


def calibrated(model: zoo.Network, size: int) -> zoo.Network:
    """With the statistics of a batch: others let activations grow, and rounding errors with them.

    EfficientNet v2's logits move by 20 % then if the input does by 3e-7.
    """
    images = np.random.default_rng(2).standard_normal((8, size, size, 3), np.float32)
    model.set_attributes(nnx.BatchNorm, use_running_average=False, momentum=0.0)
    model(images)
    model.set_attributes(nnx.BatchNorm, use_running_average=True)
    return model


def norms(model: zoo.Network) -> list[str]:
    """Where batch norms are."""
    found = nnx.iter_modules(model)
    return [".".join(map(str, path)) for path, m in found if isinstance(m, nnx.BatchNorm)]


def error(model: zoo.Network, other: zoo.Network, size: int = 16, *, brighter: float = 1) -> float:
    """The largest difference of logits, relative to the largest logit."""
    images = np.random.default_rng(1).standard_normal((2, size, size, 3), np.float32)
    want, got = np.asarray(model(images)), np.asarray(other(images * np.float32(brighter)))
    return float(np.abs(got - want).max() / np.abs(want).max())


def rounding(model: zoo.Network, size: int) -> float:
    """What an input that is off by a few roundings does to the logits."""
    return error(model, model, size, brighter=1 + 3e-7)


@pytest.mark.parametrize("numerics", [zoo.TORCH, TF, Numerics(bn_scale=False, conv_bias=True)])
def test_logits_stay(network, numerics):
    model = trained(network(PLAIN, HEAD, numerics=numerics))
    if numerics.conv_bias:
        model.body.stem.conv.bias[...] = np.ones(8, np.float32)
    before = flat(nnx.state(model))
    folded = zoo.fold(model)
    assert norms(model)
    assert not norms(folded)
    assert error(model, folded) < 1e-5
    for path, leaf in flat(nnx.state(model)).items():
        np.testing.assert_array_equal(leaf, before[path], err_msg=path)  # it is as it was


def test_published_weights_fold_as_they_load(shared):
    file = shared("data/weights/mobilenet_2_5_224_tf_no_top.h5")
    model = zoo.load("mobilenet_v1_025", file=file, num_classes=0)
    folded = zoo.load("mobilenet_v1_025", file=file, num_classes=0, fold=True)
    assert not norms(folded)
    assert error(model, folded, 64) < 1e-5


def test_half_precision_folds_before_it_rounds(network):
    switches = dict(dtype="bfloat16", param_dtype="bfloat16")
    model = trained(network(PLAIN, HEAD, **switches))
    folded = zoo.fold(model)
    assert {str(leaf.dtype) for leaf in flat(nnx.state(folded, nnx.Param)).values()} == {"bfloat16"}
    assert error(model, folded) < 0.03


def test_norms_before_their_convolution_stay_and_cannot_be_saved(network, tmp_path):
    model = trained(network(dict(stem=Conv(3, 8), preact=PreAct(), conv=Conv(3, 8)), HEAD))
    folded = zoo.fold(model)
    assert norms(folded) == ["body.preact.norm"]
    assert error(model, folded) < 1e-5
    assert error(model, zoo.fold(folded)) < 1e-5
    with pytest.raises(zoo.ZooError, match=r"partly folded .*, expected the one before fold"):
        zoo.save(folded, tmp_path / "x.safetensors")


def test_a_saved_network_loads_folded_and_a_folded_one_saves(tmp_path):
    file = tmp_path / "model.safetensors"
    model = trained(zoo.create("mobilenet_v1_025", num_classes=4))
    zoo.save(model, file)
    folded = zoo.load(str(file), fold=True)
    assert not norms(folded)
    assert zoo.count(folded).macs == zoo.count(model).macs
    assert zoo.count(folded).batch_stats == 0
    zoo.save(folded, file)
    again, want = flat(nnx.state(zoo.load(str(file)))), flat(nnx.state(folded, nnx.Param))
    for path, leaf in want.items():
        np.testing.assert_array_equal(again[path], leaf, err_msg=path)


def test_nothing_to_fold_is_a_copy():
    model = zoo.create("squeezenet1_0", num_classes=3)
    folded = zoo.fold(model)
    assert folded is not model
    assert folded.spec == model.spec


def test_auxiliary_classifiers_go():
    folded = zoo.fold(zoo.create("inception_v3", num_classes=3, aux=True))
    assert not folded.aux_after
    assert expected(folded) == expected(registry.abstract(folded.spec))  # without them


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES.values())
def test_every_family(name):
    size = registry.find(name).input_size // 2
    model = trained(zoo.create(name, num_classes=10))
    if norms(model):
        model = calibrated(model, size)
    folded = zoo.fold(model)
    # before their convolution; NASNet's, behind two that stand side by side
    may_stay = re.compile(r".*(preact|postact)\b.*|.*\.p\.norm")
    assert not [path for path in norms(folded) if not may_stay.fullmatch(path)]
    assert not any(m.norm for _, m in nnx.iter_modules(folded) if isinstance(m, ConvNormAct))
    # random weights can move a logit by 3e-5 for 3e-7 of the input: no arithmetic does better
    assert error(model, folded, size) < max(1e-5, 3 * rounding(model, size))
    if not norms(folded):
        assert expected(folded) == expected(registry.abstract(folded.spec))
    jax.clear_caches()


@pytest.fixture
def constant(network, monkeypatch) -> zoo.Network:
    """A folded network whose weights a call compiles in, as where oneDNN computes."""
    monkeypatch.setattr(calling, "_fastest", lambda _dtype: ("onednn", "cpu"))
    return zoo.fold(trained(network(PLAIN, HEAD, num_classes=3)))


def compiled_in(model: zoo.Network) -> int:
    """How many programs of a network have its weights in them."""
    (compiled,) = calling._last[model].values()
    return len(compiled.constants._programs) if compiled.constants else 0


def test_weights_compiled_in_compute_the_same(constant):
    other = nnx.clone(constant)
    other.constant = False
    assert error(other, constant) < 1e-6
    assert compiled_in(constant) == 1
    assert not compiled_in(other)
    constant(np.zeros((3, 24, 24, 3), np.float32))  # another shape
    assert compiled_in(constant) == 2
    constant(jax.numpy.zeros((3, 24, 24, 3)))
    constant(jax.numpy.ones((3, 24, 24, 3)))
    assert compiled_in(constant) == 3  # arrays of JAX lie on a device


def test_weights_that_change_are_arguments(constant):
    images = np.ones((2, 16, 16, 3), np.float32)
    before = np.asarray(constant(images))
    constant.classifier.linear.bias[...] = constant.classifier.linear.bias[...] + 1
    np.testing.assert_allclose(constant(images), before + 1, rtol=1e-5)
    assert not compiled_in(constant)
    constant.classifier.linear.bias[...] = constant.classifier.linear.bias[...] - 1
    np.testing.assert_allclose(constant(images), before, rtol=1e-5)


def test_gradients_pass_weights_that_are_compiled_in(constant):
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    constant(images)
    slope = jax.grad(lambda x: constant(x).sum())(images)
    assert np.abs(slope).max() > 0
    assert compiled_in(constant) == 1


def test_a_call_within_a_transformation_of_something_else(constant):
    images = np.ones((2, 16, 16, 3), np.float32)
    slope = jax.grad(lambda scale: (constant(images) * scale).sum())(1.0)
    np.testing.assert_allclose(slope, constant(images).sum(), rtol=1e-5)
    assert compiled_in(constant) == 1


def test_only_so_many_copies_of_weights_are_compiled_in(constant, monkeypatch):
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(constant)))
    monkeypatch.setattr(constants, "MOST", 2 * size)
    for side in 16, 24, 32, 24:
        constant(np.ones((2, side, side, 3), np.float32))
    assert compiled_in(constant) == 2


def test_weights_compiled_in_heed_the_settings_of_jax(constant):
    images = np.ones((2, 16, 16, 3), np.float32)
    with jax.disable_jit():
        constant(images)
    assert not compiled_in(constant)
    constant(images)
    with jax.default_matmul_precision("highest"):
        constant(images)
    assert compiled_in(constant) == 2


@pytest.mark.parametrize(
    ("network", "activation", "activated", "added"),
    [
        ("resnet18", "RELU", 17, 8),
        ("mobilenet_v2_035", "RELU6", 35, 10),  # the half of them depthwise
    ],
)
def test_onednn_has_activations_and_shortcuts_in_its_convolutions(
    network, activation, activated, added
):
    if not backend.onednn() or not backend.multiplies_bfloat16():
        pytest.skip("oneDNN in bfloat16: jax 0.11 or later, a processor that multiplies it")
    model = zoo.fold(zoo.create(network, dtype="bfloat16", num_classes=10))
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, 128, 128, 3), np.float32)

    def logits(state, images):
        with ops.platform_only("constant"):
            return nnx.merge(graphdef, state).logits(images)

    jitted = backend.jit(logits, library="onednn", inference=True)
    text = jitted.lower(state, images).compile().as_text()
    assert " convolution(" not in text  # none that oneDNN did not get
    calls = [line for line in text.splitlines() if '"__onednn$convolution"' in line]
    assert sum(f'"{activation}"' in call for call in calls) == activated
    assert sum("_ADD" in call for call in calls) == added


def test_a_call_hands_all_convolutions_to_onednn(monkeypatch):
    if not backend.onednn() or not backend.multiplies_bfloat16():
        pytest.skip("oneDNN in bfloat16: jax 0.11 or later, a processor that multiplies it")
    monkeypatch.setattr(backend, "caches_programs", lambda: False)
    model = zoo.fold(zoo.create("mobilenet_v1_025", dtype="bfloat16", num_classes=10))
    model(np.ones((1, 64, 64, 3), np.float32))
    (program,) = calling._last[model].values()
    (compiled,) = program.constants._programs.values()
    assert compiled.as_text().count('"__onednn$convolution"') == 27  # depthwise and 1x1 ones too


GONE = """
import gc, re
from pathlib import Path
import numpy as np
import zoo
from zoo.runtime import backend, calling

for _ in range(6):
    model = zoo.fold(zoo.create("mobilenet_v1_025", num_classes=50_000))  # 52 MB
    model(np.ones((1, 32, 32, 3), np.float32)).block_until_ready()
    (program,) = calling._last[model].values()
    assert program.constants
    del model, program
    gc.collect()
    backend.trim()
    print(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_networks_that_are_gone_leave_no_copies_of_their_weights():
    if not backend.onednn() or not backend.keep_memory():
        pytest.skip("weights are compiled in where oneDNN computes, and the heap trimmed by glibc")
    uncached = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    command = [sys.executable, "-c", GONE]
    ran = subprocess.run(command, env=uncached, capture_output=True, text=True, check=True)
    first, *others = map(int, ran.stdout.split())
    assert max(others) - first < 26_000, ran.stdout  # kB
