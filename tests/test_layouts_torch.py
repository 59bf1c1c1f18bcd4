"""torchvision's and timm's state dicts: every tensor has its place, and the outputs are theirs."""

import gzip
import importlib.util
import json
import logging
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_models import BY_NAME, PEERS, TABLE

import zoo
from zoo import registry
from zoo.context import Spec
from zoo.preprocess import IMAGENET, INCEPTION
from zoo.pretrained import convert
from zoo.pretrained.layouts import LAYOUTS

# (layout, their name, ours), but for what they build in two ways: "googlenet(aux_logits=False)".
PAIRS = [
    (source, theirs, ours)
    for ours, peers in PEERS.items()
    for source, _, theirs in (peer.partition(" ") for peer in peers)
    if source in ("torchvision", "timm") and "(" not in theirs
]
# The smallest of each family stands for all; `-m slow` checks the rest.
SIZES = {row.name: row.params for row in TABLE}
SMALLEST = {
    (source, registry.find(ours).family): ours
    for source, _, ours in sorted(PAIRS, key=lambda pair: SIZES[pair[2]], reverse=True)
}
QUICK = [p for p in PAIRS if SMALLEST[p[0], registry.find(p[2]).family] == p[2]]
every_pair = pytest.mark.parametrize(
    ("source", "theirs", "ours"),
    [pytest.param(*p, marks=() if p in QUICK else pytest.mark.slow) for p in PAIRS],
)

Shapes = dict[str, tuple[int, ...]]
GOLDEN = Path(__file__).parent / "golden"


@cache
def listed(path: Path) -> dict[str, Shapes]:
    with gzip.open(path) as file:
        models = json.load(file)
    return {m: {name: tuple(shape) for name, shape, _ in models[m]} for m in models}


@pytest.fixture
def published(shared):
    """`published("timm", "vgg11")`: the names and shapes of its state dict."""

    def names(source: str, theirs: str) -> Shapes:
        added = listed(GOLDEN / f"{source}_later.json.gz")  # of timm 1.0.31, torchvision 0.28
        return (listed(shared(f"reference/state_names/{source}.json.gz")) | added)[theirs]

    return names


def zeros(shapes: Shapes) -> dict[str, np.ndarray]:
    """Arrays of these shapes that hold a single byte each."""
    return {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}


def abstract(ours: str, source: str, names: Shapes) -> zoo.Network:
    aux = any(name.lower().startswith("aux") for name in names)
    numerics = LAYOUTS[source].numerics_for(registry.find(ours))
    return registry.abstract(Spec(ours, aux=aux, numerics=numerics))


def parameters(names: Shapes) -> Shapes:
    return {n: shape for n, shape in names.items() if not n.endswith("num_batches_tracked")}


@every_pair
def test_names_and_shapes_are_the_published_ones(published, source, theirs, ours):
    """Both ways: all that is read has its place, and all that is written its name and shape."""
    names, layout = published(source, theirs), LAYOUTS[source]
    model = abstract(ours, source, names)
    filled = convert.convert(model, zeros(names), layout, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)

    rules = layout.rules_for(model)
    written = {
        layout.source_name(path, rules): layout.restore(path, x, model).shape
        for path, x in filled.items()
    }
    assert written == parameters(names)


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        pytest.param(source, ours, marks=pytest.mark.slow if SIZES[ours] > 6e7 else ())
        for source, ours in dict.fromkeys((source, ours) for source, _, ours in QUICK)
    ],
)
def test_writing_undoes_reading(source, ours):
    layout = LAYOUTS[source]
    numerics = layout.numerics_for(registry.find(ours))
    model = registry.abstract(Spec(ours, num_classes=7, numerics=numerics))
    for path, shape in convert.expected(model).items():
        x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        back = layout.arrange(path, layout.restore(path, x, model), model)
        assert np.array_equal(back, x), path


def test_auxiliary_classifiers_have_flattened_maps_too(published):
    """Inception v1's see 4x4 pixels: C, H, W there and H, W, C here."""
    names = published("torchvision", "googlenet")
    model, layout = abstract("inception_v1", "torchvision", names), LAYOUTS["torchvision"]
    theirs = np.broadcast_to(np.arange(2048, dtype=np.int32), (1024, 2048))
    path = "aux_mixed4d.head.fc.linear.kernel"
    ours = layout.arrange(path, theirs, model)
    assert np.array_equal(ours[:, 0], np.arange(2048).reshape(128, 4, 4).transpose(1, 2, 0).ravel())
    assert np.array_equal(layout.restore(path, ours, model), theirs)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_the_oldest_densenet_files_spell_their_layers_with_a_dot(published, source):
    names = published(source, "densenet121")
    dotted = {re.sub(r"(layer\d+\.(?:norm|conv))(?=\d)", r"\1.", n): s for n, s in names.items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in dotted
    model = abstract("densenet121", source, names)
    filled = convert.convert(model, zeros(dotted), LAYOUTS[source], new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("fc.weight", "resnet18", (1000, 128, 2, 2)),  # a classifier that sees a map there
        ("fc.weight", "resnet18", (512, 1000)),  # turned round
        ("classifier.0.weight", "vgg11", (4096, 511)),  # not the 7x7 pixels of any channels
        ("classifier.1.weight", "squeezenet1_1", (1000, 512, 3, 3)),
        ("features.1.0.layer_scale", "convnext_tiny", (96, 1, 2)),
    ],
)
def test_other_shapes_are_told(published, name, ours, theirs):
    names = published("torchvision", ours)
    model = registry.abstract(Spec(ours))
    with pytest.raises(zoo.ZooError) as error:
        convert.convert(
            model, zeros({**names, name: theirs}), LAYOUTS["torchvision"], new_head=False
        )
    _, *problems = str(error.value).splitlines()
    assert len(problems) == 1
    assert problems[0].strip().startswith(f"mis-shaped  {name}, {list(theirs)}")


def test_numerics_and_preprocessing_are_the_sources():
    def of(source, ours):
        variant, layout = registry.find(ours), LAYOUTS[source]
        numerics = layout.numerics_for(variant)
        size = variant.input_size
        mean = "imagenet" if layout.preprocess_for(variant) == IMAGENET.at_size(size) else "half"
        if mean == "half":
            assert layout.preprocess_for(variant) == INCEPTION.at_size(size)
        return numerics.padding, numerics.bn_epsilon, numerics.avg_pool_counts_padding, mean

    symmetric = "symmetric"
    for ours in ("efficientnet_b5", "efficientnet_v2_s", "mobilenet_v3_small_100"):
        assert of("torchvision", ours) == (symmetric, 1e-3, True, "imagenet")
        assert of("timm", ours) == (symmetric, 1e-5, True, "imagenet")
    assert of("torchvision", "efficientnet_b4") == (symmetric, 1e-5, True, "imagenet")
    assert of("torchvision", "efficientnet_v2_l") == (symmetric, 1e-3, True, "half")
    for source in ("torchvision", "timm"):
        assert of(source, "resnet50") == (symmetric, 1e-5, True, "imagenet")
        assert of(source, "inception_v3") == (symmetric, 1e-3, True, "half")
    assert of("torchvision", "inception_v1") == (symmetric, 1e-3, True, "half")
    for ours in ("inception_v4", "inception_resnet_v2"):
        assert of("timm", ours) == (symmetric, 1e-3, False, "half")
    for ours in ("xception", "mobilenet_v1_100"):
        assert of("timm", ours) == (symmetric, 1e-5, True, "half")


# --- the peers themselves ------------------------------------------------------------------------

# Their own networks with random weights and statistics, on small images: one or two a family.
# fmt: off
BESIDE = {
    "torchvision": dict(
        shufflenet_v2_x0_5=96, squeezenet1_1=96, mnasnet0_5=96, mobilenet_v3_small=96,
        mobilenet_v2=96, efficientnet_b0=96, resnet18=64, regnet_y_400mf=96, densenet121=64,
        googlenet=96, mobilenet_v3_large=96, squeezenet1_0=96, convnext_tiny=64,
        resnext50_32x4d=96, inception_v3=139, efficientnet_v2_s=96, efficientnet_b5=160,
        regnet_x_400mf=96, alexnet=127, wide_resnet50_2=96, vgg11=64, vgg11_bn=64,
    ),
    "timm": dict(
        mobilenetv2_035=96, mobilenetv3_small_075=96, tf_mobilenetv3_small_100=96, mnasnet_050=96,
        semnasnet_075=96, mobilenetv1_100=96, tf_mobilenetv3_large_minimal_100=95,
        efficientnet_b0=96, tf_efficientnet_b0=95, resnet18=64, resnet18d=65, seresnet18=64,
        regnety_002=96, regnety_008_tv=96, mobilenetv3_large_100=96, tf_efficientnetv2_b0=96,
        densenet121=64, convnext_tiny=64, legacy_xception=96, resnet50d=96, inception_v3=139,
        efficientnetv2_s=96, inception_v4=235, inception_resnet_v2=139, vgg11=64, vgg11_bn=64,
        efficientnet_lite0=96, tf_efficientnet_lite0=95, convnext_atto=64, convnextv2_atto=64,
        regnetx_002=96, regnety_008=96, mobilenetv3_small_050=96, mobilenetv4_conv_small=128,
        mobilenetv4_conv_medium=224, resnet10t=64, resnet26t=65,
        resnet50c=96, resnet50s=96, seresnext26d_32x4d=65, seresnext50_32x4d=96, senet154=160,
        resnetv2_18=64, resnetv2_50=96, resnetv2_34d=65, resnetv2_50t=65,
        nasnetalarge=131, pnasnet5large=131,
    ),
}
# fmt: on
TOLERANCE = {"inception_v4": 1e-3}  # of the largest logit; its own float32 is 7e-4 off
OURS = {(source, theirs): ours for source, theirs, ours in PAIRS}
LISTED = {(source, theirs): BY_NAME[f"{source} {theirs}"] for source, theirs, _ in PAIRS}


@pytest.fixture
def torch(shared, monkeypatch):
    """torch, beside which torchvision and timm can be imported."""
    for package in ("torch", "torchvision", "timm"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.syspath_prepend(shared("parity/shim"))
    import torch
    import tv_import  # noqa: F401

    return torch


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("source", "theirs"), [(source, theirs) for source, theirs, _ in PAIRS])
def test_the_peers_code_counts_what_is_listed(torch, monkeypatch, source, theirs):
    """Nothing is computed: the network has no values. `test_models` compares ours with the list."""
    import timm
    import torchvision

    regnet = torchvision.models.regnet.BlockParams
    widths_of = regnet.from_init_params

    def widths(**settings):  # it computes them with torch
        with torch.device("cpu"):
            return widths_of(**settings)

    monkeypatch.setattr(regnet, "from_init_params", widths)
    listed, products = LISTED[source, theirs], 0

    def add(layer, _inputs, output):
        nonlocal products
        products += output.numel() * layer.weight[0].numel()

    options = dict(init_weights=False) if theirs in ("googlenet", "inception_v3") else {}
    with torch.device("meta"), torch.no_grad():
        if source == "timm":
            peer = timm.create_model(theirs).eval()
        else:
            peer = torchvision.models.get_model(theirs, weights=None, **options).eval()
        for layer in peer.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(add)
        peer(torch.zeros(1, 3, listed.input_size, listed.input_size))
    assert sum(p.numel() for p in peer.parameters()) == listed.trainable
    statistics = [b for n, b in peer.named_buffers() if n.endswith(("running_mean", "running_var"))]
    assert sum(b.numel() for b in statistics) == listed.batch_stats
    assert products / 1e9 == pytest.approx(listed.gmacs, abs=1e-6)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("source", "theirs", "size"),
    [(source, theirs, size) for source in BESIDE for theirs, size in BESIDE[source].items()],
)
def test_outputs_are_the_peers(torch, shared, tmp_path, monkeypatch, source, theirs, size):
    """The logits of our network with their weights, against theirs in float64.

    On images so small that the last maps are a pixel or two, float32 costs the peer itself more
    than the tolerance: hence the sizes.
    """
    monkeypatch.syspath_prepend(shared("parity"))
    monkeypatch.setattr(logging.root.manager, "disable", 0)  # `build` sets it
    import parity_common
    import parity_torch

    request = SimpleNamespace(source=source, model=theirs, size=size, classes=0)
    peer, _, (mean, std), about = parity_torch.build(request)
    random = parity_common.Filler(0)
    parity_torch.fill(peer.eval(), random)
    raw = parity_common.raw_images(size, 2) / 255
    x = torch.from_numpy((raw - mean) / std).permute(0, 3, 1, 2)  # float64, as `raw` is
    parity_torch.calibrate(peer, x.float(), random)
    file = tmp_path / "peer.safetensors"
    save_file({n: np.atleast_1d(t.numpy()) for n, t in peer.state_dict().items()}, file)
    with torch.no_grad():
        single = peer(x.float()).numpy()
        want = peer.double()(x).numpy()

    ours = OURS[source, theirs]
    variant = registry.find(ours)  # of tf_*, as a row of the catalogue says
    numerics = zoo.TF if theirs.startswith("tf_") else LAYOUTS[source].numerics_for(variant)
    model = zoo.load(ours, file=file, layout=source, numerics=numerics)
    if about.get("transform_input"):
        mean, std = model.preprocess.mean, model.preprocess.std
    got = np.asarray(model(((raw - mean) / std).astype(np.float32)))

    largest = np.abs(want).max()
    error, rounding = np.abs(got - want).max() / largest, np.abs(single - want).max() / largest
    print(f"{source} {theirs} {size}: error {error:.1e}, their own in float32 {rounding:.1e}")
    assert np.ptp(want, axis=0).max() > 0.01 * largest  # the images tell apart
    assert error < TOLERANCE.get(ours, 1e-4)


def test_strides_that_no_shape_shows():
    """torchvision's file would fit the network of the paper, and compute something else."""
    model = registry.abstract(Spec("resnet50_v1"))
    with pytest.raises(zoo.ZooError, match="have no resnet50_v1: expected resnet50"):
        LAYOUTS["torchvision"].rules_for(model)


# --- transformers --------------------------------------------------------------------------------


def transformers_names(depths: tuple[int, ...], bottleneck: bool) -> set[str]:
    """What `ResNetForImageClassification(...).state_dict()` holds, written out from its modules."""

    def unit(at: str) -> set[str]:
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{at}.convolution.weight", *(f"{at}.normalization.{leaf}" for leaf in norm)}

    names = unit("resnet.embedder.embedder") | {"classifier.1.weight", "classifier.1.bias"}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            at = f"resnet.encoder.stages.{stage}.layers.{block}"
            for i in range(3 if bottleneck else 2):
                names |= unit(f"{at}.layer.{i}")
            if block == 0 and (stage or bottleneck):
                names |= unit(f"{at}.shortcut")
    return names


@pytest.mark.parametrize(
    ("ours", "depths", "bottleneck"),
    [("resnet18", (2, 2, 2, 2), False), ("resnet50", (3, 4, 6, 3), True)],
)
@pytest.mark.parametrize("prefix", ["", "model.", "body alone"])
def test_transformers_names(ours, depths, bottleneck, prefix):
    layout = LAYOUTS["transformers"]
    model = registry.abstract(Spec(ours, num_classes=1))
    names = transformers_names(depths, bottleneck)
    rules, paths = layout.rules_for(model), convert.expected(model)
    shapes = {layout.source_name(path, rules): path for path in paths}
    arrays = {}
    for name in names:
        path = shapes.get(name.removeprefix("resnet."))
        array = np.zeros(()) if path is None else np.zeros(paths[path], np.int8)
        arrays[name] = array if path is None else layout.restore(path, array, model)
    if prefix == "body alone":
        arrays = {n.removeprefix("resnet."): x for n, x in arrays.items() if n[0] == "r"}
    elif prefix:
        arrays = {prefix + n: x for n, x in arrays.items()}
    arrays, notes = convert.unwrap(model, arrays, layout)
    assert bool(notes) == (prefix == "model.")
    filled = convert.convert(model, arrays, layout, new_head=prefix == "body alone")
    assert filled.keys() == {p for p in paths if prefix != "body alone" or p[:10] != "classifier"}


@pytest.mark.peers
@pytest.mark.parametrize(
    ("ours", "options"),
    [
        ("resnet18", dict(depths=[2] * 4, hidden_sizes=[64, 128, 256, 512], layer_type="basic")),
        ("resnet50", dict(downsample_in_bottleneck=False)),
        ("resnet50_v1", dict(downsample_in_bottleneck=True)),
    ],
)
def test_transformers_outputs(ours, options, tmp_path):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    torch.manual_seed(0)
    config = transformers.ResNetConfig(num_labels=5, **options)
    theirs = transformers.ResNetForImageClassification(config).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want = theirs(pixel_values=x).logits.numpy()
    model = zoo.load(ours, file=tmp_path / "w.pth", layout="transformers")
    got = np.asarray(model(x.permute(0, 2, 3, 1).numpy()))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
