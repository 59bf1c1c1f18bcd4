"""Networks as files for others: the peers' names, StableHLO, ONNX."""

import collections
import json
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TEST_DATA
from flax import nnx
from safetensors.numpy import load_file

import zoo
from training.state import flat
from zoo import registry
from zoo.context import Spec
from zoo.init import materialize
from zoo.layers import Conv, Dense, FlattenAt, GlobalAvgPool, MaxPool, Separable
from zoo.preprocess import KERAS_CAFFE
from zoo.pretrained import convert, layouts, torch_names
from zoo.pretrained import export as exporting
from zoo.pretrained.layouts import TIMM, TORCHVISION
from zoo.pretrained.readers import files


def drawn(name: str, **switches) -> zoo.Network:
    """A network whose every tensor is random, variances positive."""
    model = registry.abstract(Spec(name, **switches))

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(zlib.crc32(path.encode()))
        if path.endswith((".var", ".scale", ".gamma")):
            return random.uniform(0.5, 1.5, shape).astype(np.float32)
        fan_in = max(1, int(np.prod(shape[:-1])))
        return random.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)

    values = {path: draw(path, shape) for path, shape in convert.expected(model).items()}
    model = materialize(model, init="he_normal", seed=0, values=values)
    model.preprocess = zoo.Preprocess().at_size(registry.find(name).input_size)
    return model


def values(model: zoo.Network) -> dict[str, np.ndarray]:
    state = flat(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {path: np.asarray(x) for path, x in state.items()}


def images(size: int, count: int, dtype=np.float32) -> np.ndarray:
    random = np.random.default_rng(count)
    if dtype == np.uint8:
        return random.integers(0, 256, (count, size, size, 3), np.uint8)
    return random.standard_normal((count, size, size, 3), np.float32)


@pytest.fixture
def small(network) -> zoo.Network:
    """Every kind of layer that is lowered by platform, and one that flattens, for 24 x 24."""
    body = dict(
        stem=Conv(3, 8, stride=2),
        pool1=MaxPool(3, 2),
        grouped=Conv(3, 8, groups=2),
        sep2=Separable(16, stride=2),
        point=Conv(1, 12),
    )
    model = network(body, dict(flat=FlattenAt(3), fc1=Dense(10)), num_classes=5)
    model.preprocess = KERAS_CAFFE.at_size(24)
    return model


# --- the peers' names ----------------------------------------------------------------------------

# The smallest network of each family.
NAMED = [("torchvision", "resnet18"), ("torchvision", "mobilenet_v3_small_100")]
NAMED += [("torchvision", "squeezenet1_1"), ("timm", "seresnet18"), ("timm", "mobilenet_v1_100")]
SLOWLY_NAMED = {
    "torchvision": "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s "
    "inception_v1 inception_v3 mnasnet_050 mobilenet_v2_100 regnet_y_400mf resnext50_32x4d "
    "shufflenet_v2_x0_5 vgg11 vgg11_bn wide_resnet50_2",
    "timm": "convnext_tiny efficientnet_b0 inception_resnet_v2 inception_v4 mnasnet_050 "
    "mobilenet_v2_100 mobilenet_v3_small_075 regnet_y_200mf resnet18d vgg11 xception",
}
NAMED += [
    pytest.param(format, name, marks=pytest.mark.slow)
    for format, names in SLOWLY_NAMED.items()
    for name in names.split()
]


@pytest.mark.parametrize(("format", "name"), NAMED)
def test_the_peers_names_load_back(format, name, tmp_path):
    layout = {"torchvision": TORCHVISION, "timm": TIMM}[format]
    numerics = layout.numerics_for(registry.find(name))
    model = drawn(name, num_classes=7, numerics=numerics)
    zoo.export(model, tmp_path / "a.safetensors", format)
    back = zoo.load(name, file=tmp_path / "a.safetensors", layout=format)
    assert back.spec.num_classes == 7
    got, want = values(back), values(model)
    assert got.keys() == want.keys()
    for path, x in want.items():
        np.testing.assert_array_equal(got[path], x, err_msg=path)


def test_counters_of_batches(tmp_path):
    zoo.export(drawn("resnet18", num_classes=2), tmp_path / "a.safetensors", "torchvision")
    arrays = load_file(tmp_path / "a.safetensors")
    counter = arrays["layer1.0.bn1.num_batches_tracked"]
    assert (counter.dtype, counter.shape) == (np.int64, ())
    norms = sum(name.endswith("running_var") for name in arrays)
    assert norms == sum(name.endswith("num_batches_tracked") for name in arrays) == 20


def test_auxiliary_classifiers_are_kept(tmp_path):
    numerics = TORCHVISION.numerics_for(registry.find("inception_v1"))
    model = drawn("inception_v1", num_classes=3, aux=True, numerics=numerics)
    zoo.export(model, tmp_path / "a.safetensors", "torchvision")
    file = dict(file=tmp_path / "a.safetensors", layout="torchvision")
    assert values(zoo.load("inception_v1", **file, aux=True)).keys() == values(model).keys()


def test_what_names_do_not_show_is_in_the_file(tmp_path):
    model = drawn("mobilenet_v3_small_075", num_classes=2, numerics=zoo.TF)
    model.classes, model.preprocess = ("ant", "bee"), KERAS_CAFFE
    zoo.export(model, tmp_path / "a.safetensors", "timm")
    back = zoo.load("mobilenet_v3_small_075", file=tmp_path / "a.safetensors", layout="timm")
    assert (back.spec, back.preprocess, back.classes) == (model.spec, KERAS_CAFFE, model.classes)
    with pytest.raises(zoo.ZooError, match="holds mobilenet_v3_small_075, asked for mobilenet_v1"):
        zoo.load("mobilenet_v1_100", file=tmp_path / "a.safetensors", layout="timm")


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("format", ["safetensors", "torchvision", "timm"])
def test_tensors_for_pictures_of_other_channels(format, in_chans, tmp_path):
    model = drawn("resnet18", num_classes=2, in_chans=in_chans)
    model.preprocess = KERAS_CAFFE.of_channels(in_chans)
    zoo.export(model, tmp_path / "a.safetensors", format)
    if format == "safetensors":
        back = zoo.load(tmp_path / "a.safetensors")
    else:
        assert load_file(tmp_path / "a.safetensors")["conv1.weight"].shape == (64, in_chans, 7, 7)
        back = zoo.load("resnet18", file=tmp_path / "a.safetensors", layout=format)
    assert (back.spec, back.preprocess) == (model.spec, model.preprocess)
    for path, x in values(model).items():
        np.testing.assert_array_equal(values(back)[path], x, err_msg=path)


def test_a_network_that_only_a_registered_layout_knows(tiny, tmp_path, monkeypatch):
    mine = replace(TORCHVISION, rules={"tiny": lambda _: ((r"(.*)\.conv", r"\1"),)})
    monkeypatch.setattr(layouts, "LAYOUTS", dict(layouts.LAYOUTS))
    monkeypatch.setattr(torch_names, "LAYOUTS", layouts.LAYOUTS)
    zoo.register_layout("mine", mine)
    model = zoo.create("tiny", num_classes=2)
    for format, line in (
        ("torchvision", "layout 'torchvision' has no names for tiny: it knows "),
        ("mine", "unknown format 'mine': expected one of onnx, safetensors, stablehlo, timm"),
    ):
        with pytest.raises(zoo.ZooError, match=line) as caught:
            zoo.export(model, tmp_path / "a.safetensors", format)
        assert "\n" not in f"{caught.value}"
    assert not [*tmp_path.iterdir()]
    zoo.export(model, tmp_path / "a.safetensors")  # ours needs no layout
    assert values(zoo.load(tmp_path / "a.safetensors")).keys() == values(model).keys()


def test_a_changed_network_has_no_peer(tmp_path):
    model = drawn("resnet18", num_classes=2)
    model.body.pool = MaxPool(2, 2)
    with pytest.raises(zoo.ZooError, match=r"export: resnet18 is not as zoo.create builds it: "):
        zoo.export(model, tmp_path / "a.safetensors", "torchvision")


def test_no_classifier(tmp_path):
    zoo.export(drawn("resnet18", num_classes=0), tmp_path / "a.safetensors", "timm")
    assert "fc.weight" not in load_file(tmp_path / "a.safetensors")


def test_safetensors_is_what_save_writes(tiny, tmp_path):
    small = zoo.create("tiny", num_classes=2)
    zoo.export(small, tmp_path / "a.safetensors")
    zoo.save(small, tmp_path / "b.safetensors")
    (got, about), (want, about_too) = (files.read(tmp_path / f"{n}.safetensors") for n in "ab")
    assert about == about_too
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_array_equal(got[name], x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(numerics=zoo.KERAS),
            "torchvision's resnet18 computes otherwise: got padding='same', expected 'sym",
        ),
        (dict(norm="none"), "torchvision has no resnet18 that is folded or built with another"),
        (dict(act="gelu"), "torchvision has no resnet18 that is folded or built with another"),
    ],
)
def test_networks_that_the_peer_has_not(changes, message, tmp_path):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.export(drawn("resnet18", **changes), tmp_path / "a.safetensors", "torchvision")
    assert not [*tmp_path.iterdir()]


@pytest.mark.peers
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_torchvision_loads_it(name, tmp_path, torchvision):
    theirs = torchvision.models.get_model(name, weights=None, num_classes=7)
    variant = registry.find(name)
    ours = drawn(variant.name, num_classes=7, numerics=TORCHVISION.numerics_for(variant))
    assert_torch_equals(ours, "torchvision", theirs, tmp_path)


@pytest.mark.peers
def test_torchvisions_mnasnet_loads_it_as_documented(tmp_path, torchvision):
    from safetensors.torch import load_file

    assert 'state._metadata = {"": {"version": 2}}' in zoo.export.__doc__
    theirs = torchvision.models.get_model("mnasnet0_5", weights=None, num_classes=7)
    ours = drawn("mnasnet_050", num_classes=7)
    zoo.export(ours, tmp_path / "a.safetensors", "torchvision")
    state = collections.OrderedDict(load_file(tmp_path / "a.safetensors"))
    state._metadata = {"": {"version": 2}}
    theirs.load_state_dict(state)
    assert_torch_answers(ours, theirs)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["seresnet18", "resnet18d"])
def test_timm_loads_it(name, tmp_path, torchvision):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(name, num_classes=7)
    assert_torch_equals(drawn(name, num_classes=7), "timm", theirs, tmp_path)


def assert_torch_equals(ours, format, theirs, folder) -> None:
    from safetensors.torch import load_file

    zoo.export(ours, folder / "a.safetensors", format)
    theirs.load_state_dict(load_file(folder / "a.safetensors"), strict=True)
    assert_torch_answers(ours, theirs)


def assert_torch_answers(ours, theirs) -> None:
    import torch

    x = images(224, 2)
    with torch.inference_mode():
        want = theirs.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours(x), want, atol=1e-4 * np.abs(want).max())


@pytest.fixture(scope="module")
def torchvision():
    pytest.importorskip("torch")
    shim = TEST_DATA / "parity" / "shim"
    if shim.is_dir():  # lets torchvision stand next to a CPU-only torch
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(shim)
            pytest.importorskip("tv_import")
    return pytest.importorskip("torchvision")


# --- programs ------------------------------------------------------------------------------------


def runner(path: Path):
    """A function of images: an exported program, run by what it was exported for."""
    if path.suffix == ".stablehlo":
        from jax import export

        return export.deserialize(bytearray(path.read_bytes())).call
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["logits"], {"images": x})[0]


PROGRAMS = [("stablehlo", "flatbuffers"), ("onnx", "onnx")]


@pytest.mark.parametrize(("format", "package"), PROGRAMS)
@pytest.mark.parametrize("training", [False, True])
def test_programs_equal_the_model(format, package, training, small, tmp_path):
    pytest.importorskip(package)
    path = tmp_path / f"a.{format}"
    want = {n: np.asarray(small(images(24, n))) for n in (1, 3)}
    if training:  # a file is for inference, and leaves the given network as it was
        small.train()
    zoo.export(small, path, format)
    assert small.deterministic != training
    run = runner(path)
    for n, logits in want.items():
        np.testing.assert_allclose(run(images(24, n)), logits, atol=1e-5)


@pytest.mark.parametrize(("format", "package"), PROGRAMS)
def test_programs_with_the_preprocessing_inside(format, package, small, tmp_path):
    pytest.importorskip(package)
    zoo.export(small, tmp_path / f"a.{format}", format, preprocess=True)
    run = runner(tmp_path / f"a.{format}")
    for n in (1, 3):
        pixels = images(24, n, np.uint8)
        want = np.asarray(small(small.preprocess.normalize(pixels)))
        np.testing.assert_allclose(run(pixels), want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("preprocess", [False, True])
def test_files_for_pictures_of_other_channels(in_chans, preprocess, network, tmp_path):
    pytest.importorskip("flatbuffers")
    pytest.importorskip("onnx")
    body = dict(stem=Conv(3, 8, stride=2), pool=MaxPool(2, 2))
    model = network(body, dict(pool=GlobalAvgPool()), num_classes=3, in_chans=in_chans)
    model.preprocess = KERAS_CAFFE.at_size(24).of_channels(in_chans)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, in_chans), np.uint8)
    normalized = np.asarray(model.preprocess.normalize(pixels))
    want = np.asarray(model(normalized))
    for format in ("stablehlo", "onnx"):
        zoo.export(model, tmp_path / f"a.{format}", format, preprocess=preprocess)
        got = runner(tmp_path / f"a.{format}")(pixels if preprocess else normalized)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_stablehlo_is_for_all_platforms_and_batches(small, tmp_path):
    pytest.importorskip("flatbuffers")
    from jax import export

    zoo.export(small, tmp_path / "a.stablehlo", "stablehlo")
    program = export.deserialize(bytearray((tmp_path / "a.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    (aval,) = program.in_avals
    assert str(aval) == "float32[n,24,24,3]"


NETWORKS = ["mobilenet_v3_small_075", "shufflenet_v2_x0_5", "resnet20_cifar"]
SLOW = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s inception_v1 inception_v3
    nin_imagenet resnet50 resnet50_v2 resnext50_32x4d seresnet18 squeezenet1_0 xception
"""
NETWORKS += [pytest.param(name, marks=pytest.mark.slow) for name in SLOW.split()]


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_of_whole_networks(name, tmp_path):
    """`export` itself compares the outputs."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    zoo.export(zoo.create(name, num_classes=10), tmp_path / "a.onnx", "onnx", preprocess=True)
    assert (tmp_path / "a.onnx").stat().st_size > 1000


def test_onnx_tells_classes_licence_and_preprocessing(small, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    small.classes = ("ant", "bee", "größe", "d", "e")
    small.origin = zoo.weights("resnet50.a1_in1k").origin
    zoo.export(small, tmp_path / "a.onnx", "onnx", preprocess=True)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    kept = session.get_modelmeta().custom_metadata_map
    facts = {name: json.loads(value) for name, value in kept.items()}
    assert facts.pop("classes") == ["ant", "bee", "größe", "d", "e"]
    assert zoo.Preprocess.from_dict(facts.pop("preprocess")) == small.preprocess
    assert facts == {
        "network": small.spec.name,
        "weights": "resnet50.a1_in1k",
        "licence": "Apache-2.0",
        "address": "https://huggingface.co/timm/resnet50.a1_in1k",
    }


# What docs/hub.md lists: one of each family, at the size of its weights.
RUNTIMES = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_b0 inception_v1 inception_v3
    mnasnet_050 mobilenet_v1_025 mobilenet_v2_035 mobilenet_v3_small_075 nin_cifar regnet_y_200mf
    resnet18 resnet18d resnet20_cifar resnet50_v2 resnext50_32x4d seresnet18 shufflenet_v2_x0_5
    squeezenet1_1 vgg11 xception
"""


@pytest.mark.peers
@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("name", RUNTIMES.split())
def test_onnx_in_openvino(name, uint8, tmp_path):
    """And in ONNX Runtime, where `export` itself compares."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    model = zoo.create(name, num_classes=10)
    zoo.export(model, tmp_path / "a.onnx", "onnx", preprocess=uint8)
    pixels = images(model.preprocess.size, 2, np.uint8)
    normalized = np.asarray(model.preprocess.normalize(pixels))
    want = np.asarray(model(normalized))
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16, where the processor has it
    program = openvino.Core().compile_model(tmp_path / "a.onnx", "CPU", exact)
    given = pixels if uint8 else normalized
    largest = max(1, np.abs(want).max())
    openvinos = np.abs(program([given])[0] - want).max() / largest
    onnxs = np.abs(runner(tmp_path / "a.onnx")(given) - want).max() / largest
    print(f"{name} uint8={uint8}: ONNX Runtime {onnxs:.0e}, OpenVINO {openvinos:.0e}")
    assert max(onnxs, openvinos) < 1e-4


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "options", "message"),
    [
        ("a.onnx", "onx", {}, "unknown format 'onx': did you mean 'onnx'"),
        ("a.pth", "torchvision", {}, r"torchvision is a \.safetensors file, got a\.pth"),
        (
            "a.safetensors",
            "timm",
            {"preprocess": True},
            "timm holds tensors alone, preprocess=True",
        ),
        ("none/a.onnx", "onnx", {}, "export: no folder .*none"),
    ],
)
def test_what_cannot_be(name, format, options, message, small, tmp_path):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.export(small, tmp_path / name, format, **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("format", "package"), PROGRAMS)
def test_a_missing_package(format, package, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(zoo.ZooError, match=rf"'{format}' needs the package {package}: pip install"):
        zoo.export(small, tmp_path / "a", format)


def test_a_wrong_program_is_not_left(small, tmp_path, monkeypatch):
    pytest.importorskip("flatbuffers")
    monkeypatch.setattr(
        exporting, "_function", lambda model, preprocess: lambda x: model.logits(x) + 0.1
    )
    with pytest.raises(zoo.ZooError, match=r"stablehlo file of .* would give other outputs: got a"):
        zoo.export(small, tmp_path / "a.stablehlo", "stablehlo")
    assert not [*tmp_path.iterdir()]


def test_onnx_is_float32(network, tmp_path):
    pytest.importorskip("onnx")
    model = network(dict(stem=Conv(3, 8)), dict(pool=GlobalAvgPool()), dtype="bfloat16")
    with pytest.raises(zoo.ZooError, match="onnx holds float32 networks, got bfloat16"):
        zoo.export(model, tmp_path / "a.onnx", "onnx")
