"""Keras Applications: all names, numbers of any session, and Keras' own logits."""

import functools
import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import registry
from zoo.context import TORCH, Spec
from zoo.init import materialize
from zoo.layers import GlobalAvgPool, MaxPool
from zoo.preprocess import KERAS_TF, KERAS_TORCH
from zoo.pretrained import convert
from zoo.pretrained.layouts import KERAS_APPLICATIONS as KERAS
from zoo.pretrained.readers import files

Arrays = dict[str, np.ndarray]
NASNET = Path(__file__).parent / "golden/keras_nasnet.json.gz"

# fmt: off
OURS = dict(
    VGG16="vgg16", VGG19="vgg19",
    ResNet50="resnet50_v1", ResNet101="resnet101_v1", ResNet152="resnet152_v1",
    ResNet50V2="resnet50_v2", ResNet101V2="resnet101_v2", ResNet152V2="resnet152_v2",
    DenseNet121="densenet121", DenseNet169="densenet169", DenseNet201="densenet201",
    InceptionV3="inception_v3", InceptionResNetV2="inception_resnet_v2", Xception="xception",
    NASNetMobile="nasnet_mobile", NASNetLarge="nasnet_large",
    MobileNet="mobilenet_v1_100", MobileNetV2="mobilenet_v2_100",
    MobileNetV3Small="mobilenet_v3_small_100", MobileNetV3Large="mobilenet_v3_large_100",
    **{f"EfficientNetB{i}": f"efficientnet_b{i}" for i in range(8)},
    **{f"EfficientNetV2{i}": f"efficientnet_v2_{i.lower()}"
       for i in ("B0", "B1", "B2", "B3", "S", "M", "L")},
    **{f"ConvNeXt{i}": f"convnext_{i.lower()}" for i in ("Tiny", "Small", "Base")},
)
ONE_A_FAMILY = {
    "VGG16", "ResNet50", "ResNet50V2", "DenseNet121", "InceptionV3", "InceptionResNetV2",
    "Xception", "NASNetMobile", "MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0",
    "EfficientNetV2B0", "ConvNeXtTiny",
}
# fmt: on


def some(names, few: set[str]) -> list:
    return [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in names]


@functools.cache
def empty(name: str, **switches) -> zoo.Network:
    return registry.abstract(
        Spec(name, numerics=KERAS.numerics_for(registry.find(name)), **switches)
    )


def listed(*paths: Path) -> dict[str, list]:
    """Keras model -> its layers with the names and shapes of their variables."""
    models = {}
    for path in paths:
        with gzip.open(path) as file:
            models |= json.load(file)
    return models


@pytest.fixture(scope="module")
def published(shared):
    """Keras model -> arrays by the names of its published file, a byte each."""
    # NASNet's are those that Keras 3.15 gives its own
    models = listed(shared("reference/state_names/keras2_h5.json.gz"), NASNET)

    def arrays(name: str) -> Arrays:
        return {
            tensor.removesuffix(":0"): np.broadcast_to(np.int8(0), shape)
            for _, tensors in models[name]
            for tensor, shape in tensors
        }

    return arrays


def theirs(model: zoo.Network, seed: int = 0) -> Arrays:
    """A file's arrays, random, by the names that the layout has for them."""
    random = np.random.default_rng(seed)
    rules = KERAS.rules_for(model)
    return {
        KERAS.source_name(path, rules): KERAS.restore(
            path, random.standard_normal(shape, np.float32), model
        )
        for path, shape in convert.expected(model).items()
    }


def same(got: Arrays, want: Arrays) -> bool:
    return got.keys() == want.keys() and all(np.array_equal(got[k], x) for k, x in want.items())


# --- names ---------------------------------------------------------------------------------------


def test_every_model_of_the_reference_is_here(shared):
    assert set(listed(shared("reference/state_names/keras2_h5.json.gz"), NASNET)) == set(OURS)


@pytest.mark.parametrize("name", some(OURS, ONE_A_FAMILY))
def test_names_cover_the_published_file(published, name):
    arrays = published(name)
    model = empty(OURS[name])
    filled = convert.convert(model, arrays, KERAS, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)
    preprocessing = sum(tensor.startswith("normalization/") for tensor in arrays)
    assert len(filled) == len(arrays) - preprocessing
    assert convert.classes_in(model, arrays, KERAS) == 1000

    # and back: what is restored has the shapes of the file
    rules = KERAS.rules_for(model)
    back = {KERAS.source_name(p, rules): KERAS.restore(p, x, model) for p, x in filled.items()}
    renamed = KERAS.rename(model, arrays)
    assert {n: x.shape for n, x in back.items()} == {n: x.shape for n, x in renamed.items()}


@pytest.mark.parametrize("name", ["xception", "mobilenet_v1_025", "mobilenet_v3_small_100"])
def test_restoring_is_the_inverse(name):
    model = empty(name)
    arrays = theirs(model)
    filled = convert.convert(model, arrays, KERAS, new_head=False)
    rules = KERAS.rules_for(model)
    back = {KERAS.source_name(p, rules): KERAS.restore(p, x, model) for p, x in filled.items()}
    assert same(back, arrays)


def later_session(arrays: Arrays) -> Arrays:
    """What Keras calls the layers that it numbers, once others have been there before."""

    def later(match: re.Match) -> str:
        return f"{match[1]}_{int(match[2] or 0) + 94}/"

    pattern = r"^(conv2d|batch_normalization)(?:_(\d+))?/"
    return {re.sub(pattern, later, name): x for name, x in arrays.items()}


def keras_1(arrays: Arrays) -> Arrays:
    """The layers of Keras 1, which counted from 1, in another order."""

    def old(match: re.Match) -> str:
        kind = "convolution2d" if match[1] == "conv2d" else "batchnormalization"
        return f"{kind}_{int(match[2] or 0) + 1}/"

    pattern = r"^(conv2d|batch_normalization)(?:_(\d+))?/"
    return {re.sub(pattern, old, name): x for name, x in reversed(arrays.items())}


@pytest.mark.parametrize("change", [later_session, keras_1])
@pytest.mark.parametrize("name", ["inception_v3", "xception"])
def test_numbers_of_layers_count_from_anywhere(name, change):
    model = empty(name)
    arrays = theirs(model)
    changed = change(arrays)
    assert changed.keys() != arrays.keys()
    want = convert.convert(model, arrays, KERAS, new_head=False)
    assert same(convert.convert(model, changed, KERAS, new_head=False), want)


def test_a_number_too_few_is_a_mismatch():
    model = empty("xception")
    arrays = theirs(model)
    del arrays["conv2d_1/kernel"]
    with pytest.raises(zoo.ZooError, match=r"missing     conv2d_3/kernel"):
        convert.convert(model, arrays, KERAS, new_head=False)


# https://github.com/keras-team/keras-applications: files are older than today's names.
# fmt: off
OLD_NAMES = [
    ("mobilenet_v2_035", "mobl0_conv_0_depthwise/depthwise_kernel",
     "expanded_conv_depthwise/depthwise_kernel"),
    ("mobilenet_v2_035", "bn0_conv_0_bn_project/gamma", "expanded_conv_project_BN/gamma"),
    ("mobilenet_v2_035", "mobl12_conv_12_expand/kernel", "block_12_expand/kernel"),
    ("mobilenet_v2_035", "bn3_conv_3_bn_expand/beta", "block_3_expand_BN/beta"),
    ("mobilenet_v2_035", "block_3_depthwise/kernel", "block_3_depthwise/depthwise_kernel"),
    ("mobilenet_v2_035", "Conv_1_bn/beta", "Conv_1_bn/beta"),
    ("mobilenet_v2_035", "Logits/kernel", "predictions/kernel"),
    ("mobilenet_v3_small_100", "Conv/BatchNorm/gamma", "conv_bn/gamma"),
    ("mobilenet_v3_small_100", "expanded_conv_3/squeeze_excite/Conv_1/bias",
     "expanded_conv_3_squeeze_excite_conv_1/bias"),
    ("mobilenet_v3_small_100", "expanded_conv_1_expand/kernel", "expanded_conv_1_expand/kernel"),
    ("mobilenet_v3_small_100", "Logits/bias", "logits/bias"),
    ("mobilenet_v1_025", "conv_dw_2/kernel", "conv_dw_2/depthwise_kernel"),
    ("densenet121", "conv1/bn/moving_mean", "conv1_bn/moving_mean"),
    ("convnext_tiny", "convnext_tiny_stem/convnext_tiny_stem_conv/bias",
     "convnext_tiny_stem_conv/bias"),
    ("convnext_tiny", "convnext_tiny_stem/gamma", "convnext_tiny_stem_layernorm/gamma"),
    ("convnext_tiny", "convnext_tiny_downsampling_block_2/kernel",
     "convnext_tiny_downsampling_conv_2/kernel"),
    ("convnext_tiny", "convnext_tiny_stage_0_block_1_layer_scale/variable_3",
     "convnext_tiny_stage_0_block_1_layer_scale/gamma"),
    ("convnext_tiny", "convnext_tiny_stage_0_block_1_depthwise_conv/kernel",
     "convnext_tiny_stage_0_block_1_depthwise_conv/kernel"),
    ("convnext_tiny", "layer_normalization_7/beta", "convnext_tiny_head_layernorm/beta"),
]
# fmt: on


@pytest.mark.parametrize(("model", "old", "new"), OLD_NAMES)
def test_names_of_any_age(model, old, new):
    abstract = empty(model)
    assert list(KERAS.rename(abstract, {old: np.zeros(1)})) == [new]
    rules = KERAS.rules_for(abstract)
    assert new in {KERAS.source_name(path, rules) for path in convert.expected(abstract)}


def test_two_tensors_of_one_name_are_not_one():
    model = empty("mobilenet_v2_035")
    arrays = theirs(model) | {"Logits/bias": np.zeros(1000, np.float32)}
    with pytest.raises(zoo.ZooError, match="unexpected  Logits/bias"):
        convert.convert(model, arrays, KERAS, new_head=False)


@pytest.mark.parametrize("name", ["resnet50", "resnet18", "vgg16_bn", "inception_v4"])
def test_networks_that_keras_has_not(name):
    """Its ResNet-50 is not ours of that name, whose strides stand elsewhere: `resnet50_v1` is."""
    message = f"layout 'keras' has no names for {name}: it knows .*resnet50_v1"
    with pytest.raises(zoo.ZooError, match=message):
        KERAS.rules_for(registry.abstract(Spec(name)))


# --- preprocessing and numerics ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("vgg16", (255 - 103.939, 128 - 116.779, 0 - 123.68)),  # B, G, R
        ("resnet50_v1", (255 - 103.939, 128 - 116.779, 0 - 123.68)),
        ("resnet50_v2", (-1, 128 / 127.5 - 1, 1)),
        ("densenet121", (-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225)),
        ("efficientnet_v2_b0", (-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225)),
        ("efficientnet_v2_s", (-1, 0, 255 / 128 - 1)),
    ],
)
def test_pixels(name, pixel):
    preprocess = KERAS.preprocess_for(registry.find(name))
    got = preprocess.normalize(np.array([0, 128, 255], np.uint8))
    np.testing.assert_allclose(got, pixel, rtol=1e-5, atol=1e-5)


def test_efficientnet_normalises_as_its_file_says():
    variant = registry.find("efficientnet_b0")
    mean = np.array(KERAS_TORCH.mean, np.float32)

    def preprocess(mean, variance):
        layer = "normalization_3"
        arrays = {f"{layer}/mean": mean, f"{layer}/variance": variance, f"{layer}/count": 0}
        return KERAS.preprocess_for(variant, {k: np.asarray(x) for k, x in arrays.items()})

    deviation = np.array(KERAS_TORCH.std, np.float32)
    assert preprocess(mean, deviation) == KERAS_TORCH  # as published, and mended by Keras
    np.testing.assert_allclose(preprocess(mean, deviation**2).std, KERAS_TORCH.std, rtol=1e-6)
    fresh = preprocess(np.zeros(3), np.ones(3))
    assert (fresh.mean, fresh.std) == ((0, 0, 0), (1, 1, 1))
    assert KERAS.preprocess_for(variant, {}) == KERAS_TORCH
    for variance in ([-1.0, 1, 1], [1.0, 1, 1, 1]):
        with pytest.raises(zoo.ZooError, match="std must be three positive numbers"):
            preprocess(mean, variance)
    assert KERAS.preprocess_for(registry.find("mobilenet_v2_100")) == KERAS_TF


def test_a_pool_padded_with_zeros(network):
    """Keras' ResNet v2 pools what no ReLU came before."""

    def pooled(numerics):
        head = dict(mean=GlobalAvgPool())
        model = network(dict(pool=MaxPool(3, 2)), head, num_classes=0, numerics=numerics)
        x = -1 - np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1) * np.ones(3, np.float32)
        return np.asarray(zoo.features(model, x)["pool"])

    windows = pooled(TORCH)[0, :, :, 0]
    assert (windows < 0).all()
    zeros = pooled(replace(TORCH, max_pool_pads_zeros=True))[0, :, :, 0]
    assert not zeros[0].any()
    assert not zeros[:, 0].any()
    np.testing.assert_array_equal(zeros[1:, 1:], windows[1:, 1:])


# --- Keras' logits -------------------------------------------------------------------------------


def load(name: str, path: Path, classes: int) -> zoo.Network:
    arrays, _ = files.read(path)
    model = empty(name, num_classes=classes)
    values = convert.convert(model, arrays, KERAS, new_head=False)
    model = materialize(model, init=model.spec.init, seed=0, values=values)
    model.preprocess = KERAS.preprocess_for(registry.find(name), arrays)
    return model


def error(model: zoo.Network, golden: Path) -> float:
    """Largest difference to the peer's logits from raw images, relative to the largest logit."""
    with np.load(golden) as z:
        raw, want = z["raw"], z["logits"]
    got = np.asarray(model(model.preprocess.normalize(raw)))
    return float(np.abs(got - want).max() / np.abs(want).max())


def test_keras_2_gives_these_logits(shared):
    stem = "parity/golden/keras2__MobileNetV3Small"
    model = load("mobilenet_v3_small_100", shared(f"{stem}.h5"), classes=1000)
    assert error(model, shared(f"{stem}.npz")) < 1e-4


# fmt: off
# Keras' model: ours, and the side of its images. Odd sides show how strides are padded; at 107 an
# input off by 1e-7 changes the logits of Inception v3 by 5e-4 already, at 203 by 4e-5.
PEERS = {
    "VGG16":                             ("vgg16",                          224),
    "ResNet50":                          ("resnet50_v1",                     97),
    "ResNet50V2":                        ("resnet50_v2",                     97),
    "DenseNet121":                       ("densenet121",                     65),
    "InceptionV3":                       ("inception_v3",                   203),
    "InceptionResNetV2":                 ("inception_resnet_v2",            203),
    "Xception":                          ("xception",                       107),
    "NASNetMobile":                      ("nasnet_mobile",                  131),
    "NASNetLarge":                       ("nasnet_large",                   131),
    "MobileNet:alpha=0.25":              ("mobilenet_v1_025",                97),
    "MobileNetV2:alpha=0.35":            ("mobilenet_v2_035",                97),
    "MobileNetV3Small":                  ("mobilenet_v3_small_100",          97),
    "MobileNetV3Large:alpha=0.75":       ("mobilenet_v3_large_075",          97),
    "MobileNetV3Large:minimalistic=True": ("mobilenet_v3_large_minimal_100", 96),
    "EfficientNetB0":                    ("efficientnet_b0",                 97),
    "EfficientNetV2B0":                  ("efficientnet_v2_b0",              97),
    "EfficientNetV2S":                   ("efficientnet_v2_s",              129),
    "ConvNeXtTiny":                      ("convnext_tiny",                   97),
}
# fmt: on


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("peer", PEERS)
def test_keras_gives_these_logits(shared, tmp_path, peer):
    if importlib.util.find_spec("keras") is None:  # to import it here would ask for TensorFlow
        pytest.skip("keras is not installed")
    name, size = PEERS[peer]
    # all of Keras' formats, but not half a gigabyte of each
    light = ["--light"] if peer in ("VGG16", "NASNetLarge") else []
    make = [sys.executable, shared("parity/make_parity.py"), "keras", peer, tmp_path]
    options = [f"--size={size}", "--classes=10", "--acts=2", *light]
    environment = {**os.environ, "PARITY_PY_KERAS": sys.executable}
    run = subprocess.run(
        [*make, *options], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    (golden,) = tmp_path.glob("*.npz")
    written = sorted(path for path in tmp_path.iterdir() if path != golden)
    assert len(written) == (1 if light else 3)
    errors = {path.name: error(load(name, path, classes=10), golden) for path in written}
    print(f"keras {peer} {size}: error {max(errors.values()):.1e}")
    assert max(errors.values()) < 1e-4, errors
