"""Weights: read, named, ordered and checked without mercy; saved whole or not at all."""

import gzip
import json
import re
import resource
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import zoo
from training.state import flat
from zoo import registry
from zoo.context import Spec
from zoo.init import materialize
from zoo.layers import Conv, Dense, FlattenAt
from zoo.preprocess import INCEPTION, KERAS_TF
from zoo.pretrained import convert, saving
from zoo.pretrained.layouts import KERAS_APPLICATIONS, LAYOUTS, TORCHVISION, ZOO
from zoo.pretrained.readers import files

H5 = "data/weights/mobilenet_2_5_224_tf_no_top.h5"

Arrays = dict[str, np.ndarray]


def values(model: zoo.Network) -> Arrays:
    """Parameters and BN statistics by path."""
    state = flat(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {path: np.asarray(x) for path, x in state.items()}


def assert_same(got: Arrays, want: Arrays) -> None:
    assert got.keys() == want.keys()
    for path, x in want.items():
        assert got[path].dtype == x.dtype, path
        assert got[path].tobytes() == x.tobytes(), path


def assert_fresh_head(got: Arrays, shape: tuple[int, int]) -> None:
    """A classifier of zeros, which is taken out of `got`."""
    kernel, bias = (got.pop(f"classifier.linear.{leaf}") for leaf in ("kernel", "bias"))
    assert (kernel.shape, bias.shape) == (shape, shape[1:])
    assert not kernel.any()
    assert not bias.any()


def draw(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


# --- Keras: HDF5 files ---------------------------------------------------------------------------


def test_a_published_keras_file_computes_what_keras_computes(shared):
    model = zoo.load("mobilenet_v1_025", file=shared(H5), num_classes=0)
    assert model.spec.numerics == zoo.KERAS
    assert model.preprocess == KERAS_TF
    with np.load(shared("data/reference/keras_mobilenet_v1_0.25_224_features.npz")) as reference:
        images, want = reference["inputs_nhwc"], reference["features16"]
    error = np.abs(np.asarray(model(images)) - want).max() / np.abs(want).max()
    assert error < 1e-4


def test_a_file_without_classifier_wants_to_know_the_classes(shared):
    with pytest.raises(
        zoo.ZooError, match=r"has no classifier .*: expected num_classes=N for a fresh"
    ):
        zoo.load("mobilenet_v1_025", file=shared(H5))
    fresh = values(zoo.load("mobilenet_v1_025", file=shared(H5), num_classes=3))
    bare = values(zoo.load("mobilenet_v1_025", file=shared(H5), num_classes=0))
    assert_fresh_head(fresh, (256, 3))
    assert_same(fresh, bare)


def keras_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `keras.applications.MobileNet(alpha=0.25)`, as its files have them."""
    shapes = {"conv1/kernel:0": (3, 3, 3, 8)}
    norms = {"conv1_bn": 8}
    channels = 8
    for i, features in enumerate([16, 32, 32, 64, 64, *6 * [128], 256, 256], 1):
        shapes[f"conv_dw_{i}/depthwise_kernel:0"] = (3, 3, channels, 1)
        shapes[f"conv_pw_{i}/kernel:0"] = (1, 1, channels, features)
        norms |= {f"conv_dw_{i}_bn": channels, f"conv_pw_{i}_bn": features}
        channels = features
    for norm, size in norms.items():
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"{norm}/{leaf}:0"] = (size,)
    return {**shapes, "conv_preds/kernel:0": (1, 1, 256, classes), "conv_preds/bias:0": (classes,)}


def write_h5(path: Path, arrays: Arrays, prefix: str = "") -> Path:
    """As Keras 2 does: the layer's group, in it the tensor by its full name."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer = name.partition("/")[0]
            file[f"{prefix}{layer}/{name}"] = array
    return path


@pytest.fixture(scope="module")
def keras() -> Arrays:
    return draw(keras_shapes(classes=4))


@pytest.mark.parametrize("prefix", ["", "model_weights/"], ids=["weights", "whole-model"])
def test_keras_files_are_read_to_the_last_tensor(keras, tmp_path, prefix):
    path = write_h5(tmp_path / "w.h5", keras, prefix)
    if prefix:
        with h5py.File(path, "a") as file:
            file["optimizer_weights/Adam/conv1/kernel/m:0"] = np.zeros(3)
    arrays, metadata = files.read(path)
    assert metadata == {}
    assert_same(arrays, {name.removesuffix(":0"): x for name, x in keras.items()})

    model = zoo.load("mobilenet_v1_025", file=path)
    assert model.spec.num_classes == 4
    got = values(model)
    assert len(got) == len(keras)
    # Depthwise kernels are [kh, kw, C, 1] there, [kh, kw, 1, C] here; the classifier a 1x1 conv.
    for ours, theirs in {
        "body.stem.conv.kernel": keras["conv1/kernel:0"],
        "body.stem.norm.scale": keras["conv1_bn/gamma:0"],
        "body.stem.norm.bias": keras["conv1_bn/beta:0"],
        "body.stem.norm.mean": keras["conv1_bn/moving_mean:0"],
        "body.stem.norm.var": keras["conv1_bn/moving_variance:0"],
        "body.sep13.depthwise.conv.kernel": keras["conv_dw_13/depthwise_kernel:0"].swapaxes(2, 3),
        "body.sep2.pointwise.conv.kernel": keras["conv_pw_2/kernel:0"],
        "body.sep2.pointwise.norm.mean": keras["conv_pw_2_bn/moving_mean:0"],
        "classifier.linear.kernel": keras["conv_preds/kernel:0"][0, 0],
        "classifier.linear.bias": keras["conv_preds/bias:0"],
    }.items():
        np.testing.assert_array_equal(got[ours], theirs)


# --- names and shapes of every published file ----------------------------------------------------


def zeros(shapes) -> Arrays:
    """Arrays of these shapes that hold a single byte each."""
    return {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes}


@pytest.mark.parametrize(
    "name", [f"resnet{layers}" for layers in (18, 34, 50, 101, 152)] + zoo.list_models("vgg1*")
)
def test_torchvision_names_cover_the_published_file(shared, name):
    with gzip.open(shared("reference/state_names/torchvision.json.gz")) as file:
        published = [(tensor, shape) for tensor, shape, _ in json.load(file)[name]]
    model = registry.abstract(Spec(name))
    filled = convert.convert(model, zeros(published), TORCHVISION, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)
    counters = sum(tensor.endswith(".num_batches_tracked") for tensor, _ in published)
    assert len(filled) == len(published) - counters
    assert convert.classes_in(model, zeros(published), TORCHVISION) == 1000


def test_keras_names_cover_the_published_file(shared):
    with gzip.open(shared("reference/state_names/keras2_h5.json.gz")) as file:
        layers = json.load(file)["MobileNet"]
    published = [(n.removesuffix(":0"), shape) for _, tensors in layers for n, shape in tensors]
    model = registry.abstract(Spec("mobilenet_v1_100"))
    filled = convert.convert(model, zeros(published), KERAS_APPLICATIONS, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)
    assert len(filled) == len(published)


# --- torchvision: a ResNet-18 with tensors of our own --------------------------------------------


def torch_resnet18_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, [out, in, kh, kw] and [out, in]."""
    convs = {("conv1", "bn1"): (64, 3, 7, 7)}
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            at = f"layer{stage}.{block}."
            convs[at + "conv1", at + "bn1"] = (width, inputs, 3, 3)
            convs[at + "conv2", at + "bn2"] = (width, width, 3, 3)
            if inputs != width:
                convs[at + "downsample.0", at + "downsample.1"] = (width, inputs, 1, 1)
            inputs = width
    shapes: dict[str, tuple[int, ...]] = {}
    for (conv, norm), shape in convs.items():
        shapes[f"{conv}.weight"] = shape
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{leaf}"] = shape[:1]
        shapes[f"{norm}.num_batches_tracked"] = ()
    return {**shapes, "fc.weight": (classes, 512), "fc.bias": (classes,)}


@pytest.fixture(scope="session")
def torch_arrays() -> Arrays:
    return draw(torch_resnet18_shapes(classes=6))


@pytest.fixture(scope="session")
def torch_file(torch_arrays, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "resnet18.safetensors"
    save_file({name: np.atleast_1d(x) for name, x in torch_arrays.items()}, path)
    return path


@pytest.fixture(scope="session")
def torch_values(torch_file) -> Arrays:
    model = zoo.load("resnet18", file=torch_file, layout="torchvision")
    assert model.spec == Spec("resnet18", num_classes=6)
    return values(model)


def test_torchvision_tensors_land_in_their_places(torch_arrays, torch_values):
    stem, theirs = torch_values["body.stem.conv.kernel"], torch_arrays["conv1.weight"]
    assert stem.shape == (7, 7, 3, 64)
    assert stem[1, 2, 0, 5] == theirs[5, 0, 1, 2]
    np.testing.assert_array_equal(stem, np.einsum("oihw->hwio", theirs))
    for ours, name in {
        "body.stem.norm.scale": "bn1.weight",
        "body.stem.norm.bias": "bn1.bias",
        "body.stem.norm.mean": "bn1.running_mean",
        "body.stem.norm.var": "bn1.running_var",
        "body.stage3.block1.conv2.norm.mean": "layer3.1.bn2.running_mean",
        "body.stage4.block0.shortcut.norm.var": "layer4.0.downsample.1.running_var",
        "classifier.linear.bias": "fc.bias",
    }.items():
        np.testing.assert_array_equal(torch_values[ours], torch_arrays[name])
    np.testing.assert_array_equal(
        torch_values["body.stage2.block0.shortcut.conv.kernel"][0, 0],
        torch_arrays["layer2.0.downsample.0.weight"][:, :, 0, 0].T,
    )
    np.testing.assert_array_equal(
        torch_values["classifier.linear.kernel"], torch_arrays["fc.weight"].T
    )


@pytest.mark.parametrize("classes", [3, 0])
def test_another_head_keeps_the_rest_to_the_bit(torch_file, torch_values, classes):
    model = zoo.load("resnet18", file=torch_file, layout="torchvision", num_classes=classes)
    assert model.spec.num_classes == classes
    body = {p: x for p, x in torch_values.items() if not p.startswith("classifier.")}
    got = values(model)
    if classes:
        assert_fresh_head(got, (512, 3))
    assert_same(got, body)


def test_a_dense_kernel_on_a_flattened_map_sees_the_same_pixels(network):
    """torch flattens [C, H, W], we flatten [H, W, C]: the answer must not change."""
    model = network(
        dict(conv=Conv(1, 3)), dict(flat=FlattenAt(2), fc1=Dense(5), fc2=Dense(4)), num_classes=6
    )
    random = np.random.default_rng(0)
    maps = random.standard_normal((3, 2, 2))  # [C, H, W]
    theirs = random.standard_normal((5, 3 * 2 * 2))
    ours = TORCHVISION.arrange("head.fc1.linear.kernel", theirs, model)
    np.testing.assert_allclose(maps.transpose(1, 2, 0).ravel() @ ours, theirs @ maps.ravel())
    # Pixel (h, w) = (1, 0) of channel 2 is entry 2 * 4 + 1 * 2 + 0 there, (1 * 2 + 0) * 3 + 2 here.
    np.testing.assert_array_equal(ours[8], theirs[:, 10])

    for after in ("head.fc2.linear.kernel", "classifier.linear.kernel"):
        theirs = random.standard_normal((4, 5))
        np.testing.assert_array_equal(TORCHVISION.arrange(after, theirs, model), theirs.T)


def test_vgg_fc1_is_the_kernel_that_sees_the_map():
    model = registry.abstract(Spec("vgg11"))
    theirs = np.broadcast_to(np.arange(512 * 49, dtype=np.int32), (4096, 512 * 49))
    ours = TORCHVISION.arrange("head.fc1.linear.kernel", theirs, model)
    pixels = np.arange(512 * 49).reshape(512, 7, 7).transpose(1, 2, 0).ravel()
    np.testing.assert_array_equal(ours[:, 0], pixels)


# --- what does not fit ---------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_listed_at_once(torch_arrays):
    wrong = dict(torch_arrays)
    del wrong["layer1.0.conv1.weight"], wrong["layer4.1.bn2.running_var"]
    wrong["layer2.0.conv2.weight"] = wrong["layer2.0.conv2.weight"][:, :, :1]
    wrong["extra.weight"] = np.zeros((2, 3), np.float32)
    wrong["bn1.extra"] = np.zeros(4, np.float32)
    model = registry.abstract(Spec("resnet18", num_classes=6))
    with pytest.raises(zoo.ZooError) as error:
        convert.convert(model, wrong, TORCHVISION, new_head=False)
    head, *problems = str(error.value).splitlines()
    assert head == "weights do not fit resnet18 in layout 'torchvision':"
    first = "for body.stage1.block0.conv1.conv.kernel"
    assert sorted(line.strip() for line in problems) == [
        "mis-shaped  layer2.0.conv2.weight, [128, 128, 1, 3]: gives [1, 3, 128, 128] where "
        "body.stage2.block0.conv2.conv.kernel needs [3, 3, 128, 128]",
        f"missing     layer1.0.conv1.weight, [3, 3, 64, 64] {first}",
        "missing     layer4.1.bn2.running_var, [512] for body.stage4.block1.conv2.norm.var",
        "unexpected  bn1.extra, [4]",
        "unexpected  extra.weight, [2, 3]",
    ]


@pytest.mark.parametrize("new_head", [False, True])
def test_half_a_classifier(torch_arrays, new_head):
    """A head that is replaced may lack what it likes; one that is kept may not."""
    wrong = {name: x for name, x in torch_arrays.items() if name != "fc.weight"}
    model = registry.abstract(Spec("resnet18", num_classes=6))
    if new_head:
        filled = convert.convert(model, wrong, TORCHVISION, new_head=True)
        assert not any(path.startswith("classifier.") for path in filled)
    else:
        with pytest.raises(zoo.ZooError, match=r"missing     fc\.weight"):
            convert.convert(model, wrong, TORCHVISION, new_head=False)


def test_weights_of_another_network(torch_file):
    with pytest.raises(zoo.ZooError, match=r"missing     layer1\.2\.conv1\.weight"):
        zoo.load("resnet34", file=torch_file, layout="torchvision")
    with pytest.raises(zoo.ZooError, match="layout 'keras' has no names for resnet18"):
        zoo.load("resnet18", file=torch_file, layout="keras")


def test_layouts_are_named(torch_file):
    with pytest.raises(zoo.ZooError, match="unknown layout 'torchvison': did you mean 'torchvi"):
        zoo.load("resnet18", file=torch_file, layout="torchvison")
    with pytest.raises(zoo.ZooError, match="does not say its layout: expected layout= one of"):
        zoo.load("resnet18", file=torch_file)
    with pytest.raises(zoo.ZooError, match=r"was not written by zoo\.save"):
        zoo.load("resnet18", file=torch_file, layout="zoo")
    assert all(name == layout.name for name, layout in LAYOUTS.items())


def test_no_more_problems_than_a_screen_holds(torch_arrays):
    model = registry.abstract(Spec("resnet18", num_classes=6))
    wrong = {name.replace("layer", "stage"): x for name, x in torch_arrays.items()}
    with pytest.raises(zoo.ZooError) as error:
        convert.convert(model, wrong, TORCHVISION, new_head=False)
    _, *lines = str(error.value).splitlines()
    assert len(lines) == 2 * (10 + 1)
    first, more = lines[0], lines[10]
    assert first.startswith("  missing     layer1.0.conv1.weight, [3, 3, 64, 64] for body")
    assert first.endswith("; nearest: stage1.0.conv1.weight")
    assert more == "  ... and 85 more missing"


def test_names_of_another_layout_or_of_nothing(torch_arrays):
    model = registry.abstract(Spec("resnet18", num_classes=6))
    for layout, wrong, last in (
        ("transformers", torch_arrays, "the names are those of layout 'torchvision': expected"),
        ("torchvision", {"a\x1b[31m": np.zeros(3)}, "no name fits: expected weights of resnet18"),
    ):
        with pytest.raises(zoo.ZooError) as error:
            convert.convert(model, wrong, LAYOUTS[layout], new_head=True)
        assert last in str(error.value).splitlines()[-1]
        assert "\x1b" not in str(error.value)


def test_wrong_names_are_not_a_missing_classifier(torch_arrays, tmp_path):
    wrong = {f"x{name}": np.atleast_1d(x) for name, x in torch_arrays.items()}
    save_file(wrong, tmp_path / "w.safetensors")
    with pytest.raises(zoo.ZooError, match=r"missing     layer1\.0\.conv1\.weight"):
        zoo.load("resnet18", file=tmp_path / "w.safetensors", layout="torchvision")


# --- names that a trainer wrapped, and classifiers of other names --------------------------------


@pytest.fixture(scope="session")
def whole() -> zoo.Network:
    return registry.abstract(Spec("resnet18", num_classes=6))


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "a.b.c.", "net/x."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_all_names_begin_with_is_stripped_and_said(torch_arrays, whole, prefix):
    wrapped = {prefix + name: x for name, x in torch_arrays.items()}
    bare, notes = convert.unwrap(whole, wrapped, TORCHVISION)
    assert_same(bare, torch_arrays)
    assert notes
    for part in re.findall(r"[^.]+\.", prefix):
        assert part in " ".join(notes)


def test_names_as_they_are_need_no_note(torch_arrays, whole):
    bare, notes = convert.unwrap(whole, torch_arrays, TORCHVISION)
    assert_same(bare, torch_arrays)
    assert notes == ()


def test_compiled_layers_and_averaged_weights(torch_arrays, whole):
    wrapped = {
        "module." + name.replace("layer2.0.", "layer2.0._orig_mod."): x
        for name, x in torch_arrays.items()
    }
    wrapped["n_averaged"] = np.array(7)
    bare, notes = convert.unwrap(whole, wrapped, TORCHVISION)
    assert_same(bare, torch_arrays)
    assert len(notes) == 2


def test_densenets_oldest_names_are_unwrapped_too():
    model = registry.abstract(Spec("densenet121"))
    names = convert._names(model, TORCHVISION)
    old = [re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name) for name in names]
    arrays = {f"module.{name}": np.zeros(1) for name in old}
    bare, _ = convert.unwrap(model, arrays, TORCHVISION)
    assert set(TORCHVISION.rename(model, bare)) == set(names)


def test_two_networks_in_a_file(torch_arrays, whole):
    both = {f"{p}{name}": x for p in ("model.", "ema.") for name, x in torch_arrays.items()}
    with pytest.raises(zoo.ZooError, match=r"holds 2 networks.*begin with 'ema.', 'model.'"):
        convert.unwrap(whole, both, TORCHVISION)
    twice = {f"{p}{name}": x for p in ("", "ema.") for name, x in torch_arrays.items()}
    with pytest.raises(zoo.ZooError, match="holds 2 networks"):
        convert.unwrap(whole, twice, TORCHVISION)


def test_what_stands_beside_the_network_is_unexpected(torch_arrays, whole):
    wrapped = {f"model.{name}": x for name, x in torch_arrays.items()}
    wrapped["criterion.weight"] = np.zeros(6, np.float32)
    bare, _ = convert.unwrap(whole, wrapped, TORCHVISION)
    with pytest.raises(zoo.ZooError) as error:
        convert.convert(whole, bare, TORCHVISION, new_head=True)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "unexpected  criterion.weight, [6]",
        "all of resnet18 is there: expected a file without the unexpected ones",
    ]


# a file's own classifier in place of "fc"
HEADS = {
    "fc.1": dict(kernel="fc.1.weight", bias="fc.1.bias"),
    "head": dict(kernel="head.weight", bias="head.bias"),
    "my.cls": dict(kernel="my.cls.weight", bias="my.cls.bias"),
    "head.fc": dict(kernel="head.fc.weight", bias=None),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_another_name(torch_arrays, whole, tmp_path, head):
    names = {"fc.weight": HEADS[head]["kernel"], "fc.bias": HEADS[head]["bias"]}
    arrays = {names.get(name, name): x for name, x in torch_arrays.items()}
    arrays.pop(None, None)
    arrays["fc.0.running_mean" if head == "fc.1" else "bn1.weight"] = torch_arrays["bn1.weight"]
    assert convert.other_heads(whole, arrays, TORCHVISION) == {head: 6}
    body = convert.convert(whole, arrays, TORCHVISION, new_head=True)
    assert not any(path.startswith("classifier.") for path in body)

    arrays.pop("fc.0.running_mean", None)
    taken = convert.take_head(whole, arrays, TORCHVISION, head)
    filled = convert.convert(whole, taken, TORCHVISION, new_head=False)
    want = torch_arrays["fc.weight"].T
    np.testing.assert_array_equal(filled["classifier.linear.kernel"], want)
    bias = torch_arrays["fc.bias"] if HEADS[head]["bias"] else np.zeros(6)
    np.testing.assert_array_equal(filled["classifier.linear.bias"], bias)
    with pytest.raises(zoo.ZooError, match=f"unknown head 'fx': .*'?{head}"):
        convert.take_head(whole, arrays, TORCHVISION, "fx")


def test_a_head_of_another_name_is_said(torch_arrays, tmp_path):
    arrays = {re.sub(r"^fc", "fc.1", n): np.atleast_1d(x) for n, x in torch_arrays.items()}
    save_file(arrays, tmp_path / "w.safetensors")
    file = dict(file=tmp_path / "w.safetensors", layout="torchvision")
    with pytest.raises(zoo.ZooError, match=r"or head= one of 'fc\.1' of 6 classes"):
        zoo.load("resnet18", **file)
    fresh = zoo.load("resnet18", num_classes=6, **file)
    assert fresh.notes[0] == "left out: 'fc.1' of 6 classes; head= takes one"
    got = values(fresh)
    assert_fresh_head(got, (512, 6))
    kept = values(zoo.load("resnet18", head="fc.1", **file))
    np.testing.assert_array_equal(kept["classifier.linear.kernel"], arrays["fc.1.weight"].T)


def test_keras_dense_head(keras, tmp_path):
    """A `Sequential` of a network without its top, and layers of the user's."""
    arrays = {n: x for n, x in keras.items() if not n.startswith("conv_preds")}
    arrays |= draw({"dense/kernel:0": (256, 5), "dense/bias:0": (5,)})
    path = write_h5(tmp_path / "w.h5", arrays)
    assert zoo.load("mobilenet_v1_025", file=path, num_classes=0).spec.num_classes == 0
    got = values(zoo.load("mobilenet_v1_025", file=path, head="dense"))
    np.testing.assert_array_equal(got["classifier.linear.kernel"], arrays["dense/kernel:0"])


def test_auxiliary_classifiers_may_be_of_other_classes():
    """Who fine-tunes torchvision's GoogLeNet replaces the last layer alone."""
    model = registry.abstract(Spec("inception_v1", num_classes=6, aux=True))
    shapes = dict.fromkeys(convert._names(model, TORCHVISION), (1,))
    paths = convert.expected(model)
    rules = TORCHVISION.rules_for(model)
    arrays = {
        TORCHVISION.source_name(path, rules): TORCHVISION.restore(
            path, np.broadcast_to(np.float32(0), shape), model
        )
        for path, shape in paths.items()
    }
    assert arrays.keys() == shapes.keys()
    arrays["aux1.fc2.bias"] = np.zeros(1000)
    filled = convert.convert(model, arrays, TORCHVISION, new_head=False, aux=False)
    assert not any(path.startswith("aux_") for path in filled)
    with pytest.raises(zoo.ZooError, match=r"mis-shaped  aux1\.fc2\.bias"):
        convert.convert(model, arrays, TORCHVISION, new_head=False)


# --- files that are not what they should be ------------------------------------------------------


def test_half_a_safetensors_file(torch_file, tmp_path):
    data = torch_file.read_bytes()
    path = tmp_path / "half.safetensors"
    for size in (0, 4, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        message = re.escape(f"weights: {path} is not a whole safetensors file: ")
        with pytest.raises(zoo.ZooError, match=f"^{message}"):
            zoo.load("resnet18", file=path, layout="torchvision")


def test_half_an_hdf5_file(keras, tmp_path):
    path = write_h5(tmp_path / "half.h5", keras)
    data = path.read_bytes()
    for size in (0, 4, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        message = re.escape(f"weights: {path} is not a whole Keras file: ")
        with pytest.raises(zoo.ZooError, match=f"^{message}"):
            zoo.load("mobilenet_v1_025", file=path)


def test_an_hdf5_file_of_another_kind(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(zoo.ZooError):
        zoo.load("mobilenet_v1_025", file=path, num_classes=3)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("w.onnx", " is a program: its network's own weights are needed"),
        ("w.gguf", " is of another library"),
        ("w.safetensors.index.json", " is a list of parts: weights in one file are needed"),
        ("w", ""),
    ],
)
def test_a_suffix_without_reader(tmp_path, name, what):
    path = tmp_path / name
    path.write_bytes(b"anything")
    message = f"cannot read {name}: suffix '{path.suffix}'{what}, expected one of .safetensors, "
    with pytest.raises(zoo.ZooError, match=re.escape(message)):
        zoo.load("resnet18", file=path)


def test_no_file(tmp_path):
    with pytest.raises(zoo.ZooError, match=re.escape(f"weights: no file {tmp_path}/w.h5")):
        zoo.load("mobilenet_v1_025", file=tmp_path / "w.h5")
    with pytest.raises(zoo.ZooError, match="weights: no file"):
        zoo.load("resnet18", file=tmp_path)


def test_a_description_that_is_damaged(torch_arrays, tmp_path):
    path = tmp_path / "w.safetensors"
    for text in ("", "{", "[]", '{"spec": {}}', "[" * 100_000, '{"a":' * 100_000):
        save_file({"a": np.zeros(1, np.float32)}, path, metadata={"zoo": text})
        with pytest.raises(zoo.ZooError, match=r"was not written by zoo\.save"):
            zoo.load(str(path))


HOSTILE = {
    "spec": [
        dict(num_classes=10**9),
        dict(num_classes=-1),
        dict(num_classes=3.0),
        dict(num_classes="3"),
        dict(num_classes=10**6, classes=[]),
        dict(name=["mobilenet_v1_025"]),
        dict(name="\x1b[31m\n" * 99),
        dict(dropout=float("nan")),
        dict(dtype="complex64"),
        dict(aux="yes"),
        dict(numerics=dict(bn_epsilon=float("nan"))),
        dict(numerics=dict(bn_epsilon=-1)),
        dict(numerics=dict(padding=["same"])),
        dict(numerics=[]),
        dict(extra=1),
    ],
    "preprocess": [
        dict(size=10**8),
        dict(mean=[float("inf")] * 3),
        dict(std=[0, 0, 0]),
        dict(interpolation={}),
        dict(extra=1),
    ],
    "classes": ["abc", ["ant"], [1, 2, 3], {"ant": 1, "bee": 2, "cat": 3}, None, 3],
}


@pytest.mark.parametrize(
    ("part", "value"), [(p, v) for p in HOSTILE for v in HOSTILE[p]], ids=lambda v: f"{v}"[:40]
)
def test_a_description_that_lies(part, value, model, tmp_path):
    arrays, metadata = saving.pack(model)
    about = json.loads(metadata["zoo"])
    if part == "classes":
        about["classes"] = value
    else:
        value = dict(value)
        about["classes"] = value.pop("classes", about["classes"])
        if isinstance(value.get("numerics"), dict):
            value["numerics"] = about["spec"]["numerics"] | value["numerics"]
        about[part] |= value
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, metadata={"zoo": json.dumps(about)})
    with pytest.raises(zoo.ZooError) as error:
        zoo.load(str(path))
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


# --- our own files -------------------------------------------------------------------------------


@pytest.fixture
def small(tiny):
    """A network that saves in no time."""
    return zoo.create("tiny", num_classes=2)


@pytest.fixture(scope="module")
def model() -> zoo.Network:
    """One whose every value, statistics too, differs from a fresh network's."""
    spec = Spec("mobilenet_v1_025", num_classes=3, numerics=zoo.KERAS, act="tanh")
    empty = registry.abstract(spec)
    model = materialize(empty, init=spec.init, seed=0, values=draw(convert.expected(empty)))
    model.preprocess = INCEPTION.at_size(96)
    model.classes = ("ant", "bee", "cat")
    return model


def test_save_and_load_change_no_bit(model, tmp_path):
    path = tmp_path / "model.safetensors"
    zoo.save(model, path)
    for loaded in (
        zoo.load(str(path)),
        zoo.load("mobilenet_v1_025", file=path),
        zoo.load("mobilenet_v1_025", file=path, layout="zoo", num_classes=3),
    ):
        assert_same(values(loaded), values(model))
        assert loaded.spec == model.spec
        assert loaded.preprocess == model.preprocess
        assert loaded.classes == model.classes
        assert loaded.min_size == model.min_size
        assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

    other = zoo.load(str(path), num_classes=5)
    assert other.classes == ()
    assert other.preprocess == model.preprocess
    for name, x in values(model).items():
        if not name.startswith("classifier."):
            assert np.array_equal(values(other)[name], x)


def test_the_file_holds_contiguous_arrays_by_path(model, tmp_path):
    zoo.save(model, tmp_path / "model.safetensors")
    arrays, metadata = files.read(tmp_path / "model.safetensors")
    assert_same(arrays, values(model))
    about = json.loads(metadata["zoo"])
    assert Spec.from_dict(about["spec"]) == model.spec
    assert about["classes"] == ["ant", "bee", "cat"]
    assert ZOO.source_name("body.stem.conv.kernel", ZOO.rules_for(model)) == "body.stem.conv.kernel"


@pytest.mark.parametrize(
    "switches",
    [
        dict(num_classes=0),
        dict(param_dtype="bfloat16"),
        dict(norm="none", init="normal"),
        dict(dropout=0.25),
    ],
    ids=str,
)
def test_every_switch_survives(switches, tmp_path):
    model = zoo.create("mobilenet_v1_025", **switches)
    zoo.save(model, tmp_path / "model.safetensors")
    loaded = zoo.load(str(tmp_path / "model.safetensors"))
    assert loaded.spec == model.spec
    assert_same(values(loaded), values(model))


def test_a_file_of_another_network(model, tmp_path):
    zoo.save(model, tmp_path / "model.safetensors")
    with pytest.raises(zoo.ZooError, match="holds mobilenet_v1_025, asked for resnet18"):
        zoo.load("resnet18", file=tmp_path / "model.safetensors")


def test_load_replaces_what_is_asked(model, tmp_path):
    zoo.save(model, tmp_path / "model.safetensors")
    loaded = zoo.load(str(tmp_path / "model.safetensors"), dtype="bfloat16", dropout=0.4)
    assert (loaded.spec.dtype, loaded.spec.dropout) == ("bfloat16", 0.4)
    assert loaded.head.drop.rate == 0.4
    assert_same(values(loaded), values(model))


def replaced_classifier(model):
    model.classifier = nnx.Linear(256, 7, rngs=nnx.Rngs(0))


def replaced_kernel(model):
    model.classifier.linear.kernel = nnx.Param(np.zeros((256, 9), np.float32))


def added_layer(model):
    model.extra = nnx.Linear(2, 2, rngs=nnx.Rngs(0))


def replaced_pool(model):
    model.head.pool = FlattenAt(1)


def replaced_activation(model):
    model.body.stem.act = nnx.gelu


def removed_norm(model):
    model.body.stem.norm = None


def too_few_names(model):
    model.classes = ("ant",)


CHANGES = [replaced_classifier, replaced_kernel, added_layer, replaced_pool, replaced_activation]
CHANGES += [removed_norm, too_few_names]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("write", [zoo.save, zoo.export], ids=["save", "export"])
def test_what_would_not_load_is_not_saved(change, write, tmp_path):
    model = zoo.create("mobilenet_v1_025", num_classes=3)
    change(model)
    with pytest.raises(zoo.ZooError, match=r"^(save|export): "):
        write(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_modes_and_use_change_nothing_that_is_saved(small, tmp_path):
    small.train()
    small.classes = ["ant", "bee"]
    small.preprocess = INCEPTION
    zoo.save(small, tmp_path / "model.safetensors")
    assert zoo.load(str(tmp_path / "model.safetensors")).classes == ("ant", "bee")


@pytest.mark.parametrize("name", ["model.pth", "model", "model.safetensors.gz"])
def test_no_suffix_but_ours(small, tmp_path, name):
    with pytest.raises(zoo.ZooError, match=r"expected a name that ends with \.safetensors"):
        zoo.save(small, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_does_not_read_back_is_not_left(small, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    zoo.save(small, path)
    old = path.read_bytes()
    for damage in (lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:50]):
        monkeypatch.setattr(saving, "write", lambda p, data, d=damage: p.write_bytes(d(data)))
        with pytest.raises(zoo.ZooError, match="does not read back as it was written"):
            zoo.save(small, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saving_anew_replaces_the_file(small, model, tmp_path):
    path = tmp_path / "model.safetensors"
    zoo.save(small, path)
    zoo.save(model, path)
    assert zoo.load(str(path)).classes == model.classes
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@contextmanager
def full_disk(room: int):
    """No file grows beyond `room` bytes, for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_and_no_other(small, model, tmp_path):
    path = tmp_path / "model.safetensors"
    zoo.save(small, path)
    old = path.read_bytes()
    with full_disk(room=100_000), pytest.raises(OSError, match="File too large"):
        zoo.save(model, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saving_over_a_folder_leaves_no_file(small, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(IsADirectoryError):
        zoo.save(small, tmp_path / "folder.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.safetensors"]


def test_saving_where_nothing_can_be_written(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError):
        zoo.save(small, tmp_path / "none" / "model.safetensors")
    with pytest.raises(NotADirectoryError):
        zoo.save(small, tmp_path / "file" / "model.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
