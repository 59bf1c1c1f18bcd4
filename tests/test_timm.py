"""timm itself and we: each loads what the other pushed to a Hub on this machine. `-m peers`."""

import importlib.util

import numpy as np
import pytest
from conftest import TEST_DATA
from hub import CLASSES, pets
from test_export import values

import zoo
from zoo.pretrained import timm_config

# Of each family that both have, its smallest network: timm's name -> side of the pictures, pixels.
# fmt: off
FAMILIES = dict(
    convnext_tiny=64, densenet121=64, efficientnet_b0=96, tf_efficientnet_b0=95,
    tf_efficientnetv2_b0=96, inception_resnet_v2=139, inception_v3=139, inception_v4=235,
    legacy_xception=96, mnasnet_050=96, mobilenetv1_100=96, mobilenetv2_035=96,
    mobilenetv3_small_075=96, tf_mobilenetv3_small_minimal_100=95, regnety_002=96, resnet18=64,
    resnet18d=65, resnext50_32x4d=64, seresnet18=64, vgg11=64, vgg11_bn=64, wide_resnet50_2=64,
)
# fmt: on


@pytest.fixture
def timm(monkeypatch):
    for package in ("torch", "torchvision", "timm"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    shim = TEST_DATA / "parity" / "shim"
    if shim.is_dir():  # lets torchvision stand next to a CPU-only torch
        monkeypatch.syspath_prepend(shim)
        pytest.importorskip("tv_import")
    return pytest.importorskip("timm")


def pushed_by_timm(timm, name: str, size: int):
    """A network of timm with random weights and statistics of random pictures, on the Hub."""
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    for at, tensor in model.named_parameters():  # of norms and layer scales, some of which are zero
        if tensor.ndim == 1 and at.endswith(("weight", "gamma")):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.ndim == 1:
            torch.nn.init.normal_(tensor, std=0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, size, size))
    timm.models.push_to_hf_hub(
        model.eval(),
        "me/theirs",
        model_config={"label_names": [*CLASSES]},
        data_config={"input_size": (3, size, size), "crop_pct": 0.9, "mean": (0.4, 0.5, 0.6)},
    )
    return model


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_timm_and_we_load_what_the_other_pushed(hub, timm, name, size):
    import torch

    theirs = pushed_by_timm(timm, name, size)
    ours = zoo.load("hf-hub:me/theirs")
    assert ours.spec.name == timm_config.architectures()[name]
    assert ours.classes == CLASSES
    assert (ours.preprocess.size, ours.preprocess.mean) == (size, (0.4, 0.5, 0.6))
    assert ours.preprocess.resize == int(size / 0.9)

    x = np.random.default_rng(0).standard_normal((2, size, size, 3), np.float32)
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.inference_mode():
        single = theirs(tensor).numpy()
        want = theirs.double()(tensor.double()).numpy()
    largest = np.abs(want).max()
    error, rounding = (
        np.abs(got - want).max() / max(1, largest) for got in (np.asarray(ours(x)), single)
    )

    zoo.push_to_hub(ours, "me/ours")
    back = timm.create_model("hf-hub:me/ours", pretrained=True).eval()
    assert back.pretrained_cfg["label_names"] == [*CLASSES]
    settings = timm.data.resolve_model_data_config(back)
    assert [*settings["input_size"]] == [3, size, size]
    assert int(size / settings["crop_pct"]) == ours.preprocess.resize
    assert [*settings["mean"]] == [0.4, 0.5, 0.6]
    with torch.inference_mode():
        np.testing.assert_array_equal(back(tensor).numpy(), single)  # the same tensors
    print(f"{name} {size}: {error:.1e}, timm's own in float32 {rounding:.1e}")
    assert np.ptp(want, axis=0).max() > 1e-3 * largest  # the pictures tell apart
    # on pictures as small as these float32 alone costs some networks more
    assert error < max(1e-5, 4 * rounding)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_timm_loads_a_folder_and_its_transform_is_ours(hub, timm, tmp_path):
    import torch
    from PIL import Image

    model = pets()
    zoo.save(model, tmp_path / "pets", format="timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'pets'}", pretrained=True).eval()
    assert [*theirs.pretrained_cfg["label_names"]] == [*CLASSES]
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    pixels = np.random.default_rng(0).integers(0, 256, (150, 130, 3), np.uint8)
    x = transform(Image.fromarray(pixels))[None]
    mine = np.asarray(model.preprocess([pixels]))
    np.testing.assert_allclose(x.permute(0, 2, 3, 1).numpy(), mine, atol=1e-5)
    with torch.inference_mode():
        want = theirs(x).numpy()
    np.testing.assert_allclose(np.asarray(model(mine)), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_timm_puts_another_head_and_other_channels_on_ours(hub, timm):
    """It finds both layers by their names in config.json."""
    zoo.push_to_hub(pets(), "me/pets")
    other = timm.create_model("hf-hub:me/pets", pretrained=True, num_classes=7, in_chans=1)
    assert tuple(other.conv_stem.weight.shape[:2]) == (16, 1)
    assert other.classifier.out_features == 7


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_what_timm_pickled(hub, timm):
    theirs = pushed_by_timm(timm, "mobilenetv2_035", 96)
    files = dict(hub.files("me/theirs"))
    assert "pytorch_model.bin" in files
    del files["model.safetensors"]
    hub.add("me/pickled", files)
    ours = zoo.load("hf-hub:me/pickled")
    want = theirs.classifier.weight.detach().numpy()
    np.testing.assert_array_equal(values(ours)["classifier.linear.kernel"], want.T)
