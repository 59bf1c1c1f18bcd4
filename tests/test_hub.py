"""The Hugging Face Hub, one on this machine: what timm pushed loads here, what we push loads there.

Without timm its side is files of its exact form; `-m peers` has timm itself push and load.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache

import hub as hubs
import numpy as np
import pytest
from conftest import ROOT, TEST_DATA
from flax import nnx
from safetensors.numpy import load_file, save, save_file
from test_export import drawn, values

import zoo
from training.cli import main
from zoo import registry
from zoo.context import Spec
from zoo.origin import Origin
from zoo.pretrained import timm_config
from zoo.pretrained.layouts import LAYOUTS

CLASSES = ("ant", "bee", "cat | dog")
SMALL = "mobilenet_v2_035"

# Of each family that both have, its smallest network: timm's name -> side of the pictures, pixels.
# fmt: off
FAMILIES = dict(
    convnext_tiny=64, densenet121=64, efficientnet_b0=96, tf_efficientnet_b0=95,
    tf_efficientnetv2_b0=96, inception_resnet_v2=139, inception_v3=139, inception_v4=139,
    legacy_xception=96, mnasnet_050=96, mobilenetv1_100=96, mobilenetv2_035=96,
    mobilenetv3_small_075=96, tf_mobilenetv3_small_minimal_100=95, regnety_002=96, resnet18=64,
    resnet18d=65, resnext50_32x4d=64, seresnet18=64, vgg11=64, vgg11_bn=64, wide_resnet50_2=64,
)
# fmt: on


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[hubs.Hub]:
    """A Hub that our client, and timm's in this process, take for the real one."""
    from huggingface_hub import constants

    with hubs.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", "hf_anything")
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield hub


@cache
def _drawn(name: str, **switches) -> zoo.Network:
    return drawn(name, num_classes=3, **switches)


def pets(name: str = SMALL, **switches) -> zoo.Network:
    """A network whose every tensor is random, with names of classes, preprocessing and origin."""
    model = nnx.clone(_drawn(name, **switches))
    model.classes = CLASSES
    model.preprocess = zoo.Preprocess(
        size=96, resize=105, interpolation="bicubic", mean=[0.5] * 3, std=[0.25] * 3
    )
    model.origin = Origin("resnet50.a1_in1k", "Apache-2.0", "https://huggingface.co/timm/a")
    return model


@cache
def _timm_tensors(name: str, **switches) -> bytes:
    model, layout = _drawn(name, **switches), LAYOUTS["timm"]
    rules = layout.rules_for(model)
    named = {
        layout.source_name(path, rules): layout.restore(path, x, model)
        for path, x in values(model).items()
    }
    return save({name: np.ascontiguousarray(x) for name, x in named.items()})


def timm_files(model: zoo.Network, **config) -> hubs.Files:
    """What `timm.models.push_to_hf_hub` uploads of a network: timm 1.0.31's config.json."""
    size = model.preprocess.size
    about = {
        "architecture": timm_config.architecture_of(model.spec),
        "num_classes": model.spec.num_classes,
        "num_features": 1280,
        "global_pool": "avg",
        "label_names": [*model.classes],
        "model_args": {"num_classes": 3, "in_chans": 3, "global_pool": "avg"},
        "pretrained_cfg": {
            "tag": "untrained",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "num_classes": model.spec.num_classes,
            "pool_size": [7, 7],
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "mit",
        },
        **config,
    }
    about = {key: value for key, value in about.items() if value is not None}
    tensors = _timm_tensors(model.spec.name, numerics=model.spec.numerics)
    return {"model.safetensors": tensors, "config.json": json.dumps(about).encode()}


def assert_same(got: zoo.Network, want: zoo.Network) -> None:
    assert values(got).keys() == values(want).keys()
    for path, x in values(want).items():
        np.testing.assert_array_equal(values(got)[path], x, err_msg=path)


# --- from the Hub --------------------------------------------------------------------------------


def test_what_timm_pushed(hub):
    model = pets()
    hub.add("me/pets", timm_files(model))
    back = zoo.load("hf-hub:me/pets")
    assert_same(back, model)
    assert (back.spec.name, back.spec.num_classes, back.classes) == (SMALL, 3, CLASSES)
    # floor(96 / 0.95): what timm resizes to
    assert back.preprocess == zoo.Preprocess(
        size=96, resize=101, interpolation="bicubic", mean=[0.5] * 3, std=[0.25] * 3
    )
    assert back.origin == Origin("hf-hub:me/pets", "MIT", "https://huggingface.co/me/pets")
    assert back.notes == ()


def test_a_new_head_on_what_timm_pushed(hub):
    hub.add("me/pets", timm_files(pets()))
    back = zoo.load("hf-hub:me/pets", num_classes=7, in_chans=1)
    assert (back.spec.num_classes, back.spec.in_chans, back.classes) == (7, 1, ())
    assert back.preprocess.mean == (0.5,)


@pytest.mark.parametrize(
    ("config", "classes"),
    [
        ({"label_names": {"2": "c", "0": "a", "1": "b"}}, ("a", "b", "c")),
        ({"label_names": {"0": "a", "2": "c"}}, ()),  # the second has no name
        ({"label_names": None}, ()),
    ],
)
def test_label_names_are_a_list_or_numbered(hub, config, classes):
    hub.add("me/pets", timm_files(pets(), **config))
    assert zoo.load("hf-hub:me/pets").classes == classes


def test_the_old_form_of_one_dict(hub):
    """As timm 0.6 wrote it."""
    files = timm_files(pets())
    about = json.loads(files["config.json"])
    old = {"architecture": about["architecture"], "labels": ["x", "y", "z"]}
    files["config.json"] = json.dumps(old | about["pretrained_cfg"]).encode()
    hub.add("me/pets", files)
    back = zoo.load("hf-hub:me/pets")
    assert (back.classes, back.preprocess.resize) == (("x", "y", "z"), 101)


def test_numerics_of_what_timm_has_from_tensorflow(hub):
    model = pets("mobilenet_v3_small_075", numerics=zoo.TF)
    hub.add("me/tf", timm_files(model))
    assert json.loads(hub.files("me/tf")["config.json"])["architecture"].startswith("tf_")
    assert zoo.load("hf-hub:me/tf").spec.numerics == zoo.TF
    hub.add("me/torch", timm_files(pets("mobilenet_v3_small_075")))
    assert zoo.load("hf-hub:me/torch").spec.numerics == zoo.TORCH


def test_the_newest_of_a_branch_and_a_fixed_commit(hub):
    old, new = pets(), pets()
    new.classes = ("x", "y", "z")
    commit = hub.add("me/pets", timm_files(old))
    assert zoo.load("hf-hub:me/pets").classes == CLASSES
    hub.add("me/pets", timm_files(new))
    assert zoo.load("hf-hub:me/pets").classes == ("x", "y", "z")
    fixed = zoo.load(f"hf-hub:me/pets@{commit}")
    assert (fixed.classes, fixed.origin.weights) == (CLASSES, f"hf-hub:me/pets@{commit}")


def test_offline_the_cache_serves(hub, monkeypatch):
    hub.add("me/pets", timm_files(pets()))
    zoo.load("hf-hub:me/pets")
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    hub.seen.clear()
    assert zoo.load("hf-hub:me/pets").classes == CLASSES
    assert hub.seen == []
    with pytest.raises(
        zoo.ZooError, match="hf-hub:me/other is not in the Hub's cache, and ZOO_OFF"
    ):
        zoo.load("hf-hub:me/other")


def test_licence_of_the_card(hub):
    files = timm_files(pets())
    card = b"---\r\ntags:\r\n- timm\r\nlicense: other\r\nlicense_name: my-own\r\n---\r\n# Pets\r\n"
    hub.add("me/pets", files | {"README.md": card})
    assert zoo.load("hf-hub:me/pets").origin.licence == "my-own"


def test_the_name_of_a_network_beside_a_repository(hub):
    """As `zoo.finetune(NETWORK, weights="hf-hub:...")` asks for it."""
    hub.add("me/pets", timm_files(pets()))
    assert_same(zoo.load(SMALL, file="hf-hub:me/pets"), pets())
    with pytest.raises(zoo.ZooError, match=f"hf-hub:me/pets holds {SMALL}, asked for resnet18"):
        zoo.load("resnet18", file="hf-hub:me/pets")


def test_finetuning_starts_from_a_repository(hub, tiny, undrawn, tmp_path):
    start = zoo.create("tiny", num_classes=3)
    start.origin = Origin("resnet50.a1_in1k", "Apache-2.0")
    zoo.push_to_hub(start, "me/tiny", format="safetensors")
    out = str(tmp_path / "run")
    zoo.finetune("hf-hub:me/tiny", "digits", epochs=1, out=out, head_init="random")
    card = (tmp_path / "run/card.md").read_text("utf-8")
    assert "| started from | [hf-hub:me/tiny](https://huggingface.co/me/tiny) |" in card
    assert "| licence of those | Apache-2.0 |" in card
    assert "trained from weights from hf-hub:me/tiny" in card
    origin = Origin("hf-hub:me/tiny", "Apache-2.0", "https://huggingface.co/me/tiny")
    assert zoo.load(tmp_path / "run").origin == origin
    zoo.push_to_hub(zoo.load(tmp_path / "run"), "me/digits", format="safetensors")
    assert zoo.evaluate("hf-hub:me/digits", "digits").count > 0


def test_preprocessing_can_be_another(hub):
    hub.add("me/pets", timm_files(pets()))
    assert zoo.load("hf-hub:me/pets", preprocess=zoo.Preprocess()).preprocess.size == 224


# fmt: off
REFUSED = [
    ({"architecture": "vit_base_patch16_224"}, "is timm's 'vit_base_patch16_224', which zoo"),
    ({"architecture": "resnet18t"}, "which zoo has not; nearest: resnet18"),
    ({"architecture": None}, "names no architecture, as those do that timm writes"),
    ({"model_args": {"act_layer": "silu"}}, "built with act_layer='silu': expected timm's network"),
    ({"model_args": {"global_pool": "catavgmax"}}, "was built with global_pool='catavgmax'"),
    ({"pretrained_cfg": {"input_size": [3, 96, 128]}}, r"input_size: got \[3, 96, 128\], expecte"),
    ({"pretrained_cfg": {"input_size": [1e9, 96, 96]}}, r"input_size: got 1000000000.0, expect"),
    ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode: got 'border', expected 'center'"),
    ({"pretrained_cfg": {"interpolation": "best"}}, "unknown interpolation 'best'"),
    ({"pretrained_cfg": {"crop_pct": "all"}}, "could not convert string to float"),
    ({"pretrained_cfg": []}, r"got \[\], expected settings"),
    ({"label_names": "ant"}, "label_names: got 'ant', expected a list of names"),
]
# fmt: on


@pytest.mark.parametrize(("config", "line"), REFUSED)
def test_what_cannot_be_told_is_refused(hub, config, line):
    hub.add("me/pets", timm_files(pets(), **config))
    with pytest.raises(zoo.ZooError, match=line) as caught:
        zoo.load("hf-hub:me/pets")
    assert f"{caught.value}".startswith("load: hf-hub:me/pets")
    assert "\n" not in f"{caught.value}"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hf-hub:me/none", "no repository me/none, or a private one: for that log in"),
        ("hf-hub:me/pets@v9", "me/pets has no revision v9: expected a branch, a tag or a commit"),
        ("hf-hub:me/gated", "me/gated is gated: ask for access on its page"),
        ("hf-hub:me/empty", "hf-hub:me/empty has no config.json: expected a network that timm or"),
        ("hf-hub:me/bare", r"hf-hub:me/bare has no weights: expected model.safetensors or pyt"),
        ("hf-hub:pets", "got 'hf-hub:pets', expected hf-hub:USER/REPO or hf-hub:USER/REPO@REV"),
        ("hf-hub:../../etc", "expected hf-hub:USER/REPO"),
        ("hf-hub:me/text", "config.json: Expecting value"),
    ],
)
def test_what_the_hub_has_not(hub, name, line):
    files = timm_files(pets())
    for repository, kept in {
        "me/pets": files,
        "me/gated": files,
        "me/empty": {"README.md": b"#"},
        "me/bare": {"config.json": files["config.json"]},
        "me/text": files | {"config.json": b"<html>"},
    }.items():
        hub.add(repository, kept)
    hub.gated = {"me/gated"}
    with pytest.raises(zoo.ZooError, match=line) as caught:
        zoo.load(name)
    assert "\n" not in f"{caught.value}"


def test_a_damaged_download_is_refused(hub):
    hub.add("me/pets", timm_files(pets()))
    hub.damaged = {"model.safetensors"}
    with pytest.raises(zoo.ZooError, match=r"the Hub's cache has a file of sha256 \w{8}, expected"):
        zoo.load("hf-hub:me/pets")


def test_no_hub_at_all(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(zoo.ZooError, match=r"load: hf-hub:me/pets: the Hub cannot be reached, and"):
        zoo.load("hf-hub:me/pets")
    monkeypatch.setenv("HF_ENDPOINT", "http://elsewhere.example")
    with pytest.raises(zoo.ZooError, match=r"HF_ENDPOINT: got .*elsewhere"):
        zoo.load("hf-hub:me/pets")


@pytest.mark.parametrize(
    "option", [{"like": "resnet18"}, {"layout": "torchvision"}, {"head": "fc"}]
)
def test_a_repository_says_itself_how_it_computes(hub, option):
    hub.add("me/pets", timm_files(pets()))
    with pytest.raises(zoo.ZooError, match="hf-hub:me/pets says itself how it computes"):
        zoo.load(SMALL, file="hf-hub:me/pets", **option)


# --- to the Hub ----------------------------------------------------------------------------------


def test_what_is_pushed(hub):
    model = pets()
    page = zoo.push_to_hub(model, "me/pets", private=True, message="First")
    assert page == f"{hub.address}/me/pets"
    assert "private" in (
        hub.made[0].get("visibility"),
        *(k for k, v in hub.made[0].items() if v is True),
    )
    files = hub.files("me/pets")
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    about = json.loads(files["config.json"])
    want = json.loads(timm_files(model)["config.json"])["pretrained_cfg"]
    for key in ("input_size", "interpolation", "mean", "std", "num_classes", "first_conv"):
        assert about["pretrained_cfg"][key] == want[key]
    assert about["pretrained_cfg"]["license"] == "apache-2.0"
    assert (about["architecture"], about["label_names"]) == ("mobilenetv2_035", [*CLASSES])
    back = zoo.load("hf-hub:me/pets")
    assert_same(back, model)
    assert (back.spec, back.preprocess, back.classes) == (model.spec, model.preprocess, CLASSES)
    assert back.origin == Origin("hf-hub:me/pets", "Apache-2.0", "https://huggingface.co/me/pets")


def test_the_card(hub):
    zoo.push_to_hub(pets(), "me/pets")
    card = hub.files("me/pets")["README.md"].decode()
    front = card.split("---\n")[1]
    assert 'license: "apache-2.0"\n' in front
    assert 'base_model: "timm/a"\n' in front
    assert 'library_name: "timm"\n' in front
    for line in (
        "# me/pets",
        "| classes | 3: ant, bee, cat \\| dog |",
        "| weights from | [resnet50.a1_in1k](https://huggingface.co/timm/a) |",
        "| their licence | Apache-2.0 |",
        'timm.create_model("hf-hub:me/pets", pretrained=True)',
        'zoo.load("hf-hub:me/pets")',
    ):
        assert line in card
    from huggingface_hub import ModelCard

    assert ModelCard(card).data.license == "apache-2.0"  # the Hub reads it as we mean it


def test_a_card_that_somebody_wrote_stays(hub):
    hub.add("me/pets", {"README.md": b"# Mine\n"})
    zoo.push_to_hub(pets(), "me/pets")
    assert hub.files("me/pets")["README.md"] == b"# Mine\n"
    assert "model.safetensors" in hub.files("me/pets")


def test_a_branch(hub):
    zoo.push_to_hub(pets(), "me/pets")
    other = pets()
    other.classes = ("x", "y", "z")
    zoo.push_to_hub(other, "me/pets", revision="second")
    assert zoo.load("hf-hub:me/pets@second").classes == ("x", "y", "z")
    assert zoo.load("hf-hub:me/pets").classes == CLASSES


def test_a_licence_that_the_hub_has_no_name_for(hub):
    model = pets()
    model.origin = Origin("resnet50.x", "SEER")
    zoo.push_to_hub(model, "me/pets")
    card = hub.files("me/pets")["README.md"].decode()
    assert 'license: "other"\nlicense_name: "seer"\n' in card
    assert "base_model" not in card
    assert zoo.load("hf-hub:me/pets").origin.licence == "seer"


def test_networks_that_timm_has_not(hub):
    model = pets("mobilenet_v1_025")
    with pytest.raises(zoo.ZooError, match="timm has no mobilenet_v1_025: expected format='safet"):
        zoo.push_to_hub(model, "me/small")
    assert hub.repositories == {}
    zoo.push_to_hub(model, "me/small", format="safetensors")
    back = zoo.load("hf-hub:me/small")
    assert_same(back, model)
    assert (back.preprocess, back.classes) == (model.preprocess, CLASSES)
    assert "timm" not in hub.files("me/small")["README.md"].decode().replace("timm/a", "")


def test_who_may_not_write(hub):
    hub.read_only = True
    with pytest.raises(zoo.ZooError, match=r"push_to_hub: the Hub refuses me/pets .*: log in with"):
        zoo.push_to_hub(pets(), "me/pets")
    with pytest.raises(zoo.ZooError, match="push_to_hub: got 'pets', expected USER/REPO"):
        zoo.push_to_hub(pets(), "pets")
    with pytest.raises(zoo.ZooError, match="unknown format 'onnx': expected one of safetensors"):
        zoo.push_to_hub(pets(), "me/pets", format="onnx")


# --- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}", "local-dir:{}"])
def test_a_folder_loads_back(tmp_path, name):
    model = pets()
    zoo.save(model, tmp_path / "pets", format="timm")
    back = zoo.load(name.format(tmp_path / "pets"))
    assert_same(back, model)
    assert (back.preprocess, back.classes, back.origin) == (
        *(model.preprocess, CLASSES, model.origin),
    )
    assert 'create_model("local-dir:.", pretrained=True)' in (
        tmp_path / "pets/README.md"
    ).read_text("utf-8")


def test_export_writes_the_same_folder(tmp_path):
    zoo.save(pets(), tmp_path / "a", format="timm")
    zoo.export(pets(), tmp_path / "b", "timm")
    assert (tmp_path / "a/config.json").read_bytes() == (tmp_path / "b/config.json").read_bytes()
    assert_same(zoo.load(tmp_path / "b"), zoo.load(tmp_path / "a"))


def test_a_folder_without_our_description(tmp_path):
    """config.json alone tells what timm's own file does not."""
    (tmp_path / "pets").mkdir()
    zoo.save(pets(), tmp_path / "pets", format="timm")
    arrays = load_file(tmp_path / "pets/model.safetensors")
    save_file(arrays, tmp_path / "pets/model.safetensors", {"format": "pt"})
    back = zoo.load(tmp_path / "pets")
    assert back.preprocess == pets().preprocess
    assert (back.spec, back.classes) == (pets().spec, CLASSES)
    assert back.origin.licence == "Apache-2.0"


def test_preprocessing_survives_config_json():
    """timm rounds size / crop_pct down; a share that rounds to a pixel less would be another."""
    model = registry.abstract(Spec(SMALL, 3))
    sizes = [(96, resize) for resize in range(97, 140)] + [(s, s * 8 // 7) for s in range(64, 400)]
    forms = [(*pair, squash) for pair in sizes for squash in (False, True)]
    for size, resize, squash in [*forms, (96, None, False), (96, 96, False)]:
        model.preprocess = zoo.Preprocess(size=size, resize=resize, squash=squash)
        pictures = timm_config.config_of(model)["pretrained_cfg"]
        assert timm_config._preprocess(json.loads(json.dumps(pictures))) == model.preprocess


def test_pictures_that_timm_cannot_prepare_alike(tmp_path):
    model = pets()
    model.preprocess = zoo.Preprocess(
        size=96, resize=None, central=0.875, interpolation="tf_bilinear"
    )
    zoo.save(model, tmp_path / "slim", format="timm")
    about = json.loads((tmp_path / "slim/config.json").read_bytes())["pretrained_cfg"]
    assert (about["crop_mode"], about["interpolation"]) == ("squash", "bilinear")
    assert round(96 / about["crop_pct"]) == 110  # 96 / 0.875, of which the centre is cut out
    assert "the nearest there are" in (tmp_path / "slim/README.md").read_text("utf-8")
    assert zoo.load(tmp_path / "slim").preprocess == model.preprocess  # ours reads all of it
    model.preprocess = zoo.Preprocess(size=96, channels="bgr")
    with pytest.raises(zoo.ZooError, match="timm gives networks R, G, B: got weights for B, G, R"):
        zoo.save(model, tmp_path / "caffe", format="timm")
    assert not (tmp_path / "caffe").exists()


@pytest.mark.parametrize(
    ("name", "switches", "line"),
    [
        (
            "resnet18",
            {"numerics": zoo.TF},
            "timm's resnet18 computes otherwise: got padding='same'",
        ),
        ("resnet50_v1", {}, "timm has no resnet50_v1: expected format='safetensors'"),
        ("resnet18", {"act": "gelu"}, "timm has no resnet18 that is folded or built with another"),
    ],
)
def test_networks_that_timm_builds_otherwise(name, switches, line, tmp_path):
    model = zoo.create(name, num_classes=3, **switches)
    with pytest.raises(zoo.ZooError, match=line):
        zoo.save(model, tmp_path / "a", format="timm")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["taken", "a.safetensors"])
def test_a_file_in_place_of_a_folder(name, tmp_path):
    (tmp_path / "taken").write_bytes(b"mine")
    with pytest.raises(zoo.ZooError, match=f"save: got the file .*{name}, expected a folder"):
        zoo.save(pets(), tmp_path / name, format="timm")
    assert [*tmp_path.iterdir()] == [tmp_path / "taken"]


def test_a_changed_folder_is_refused(tmp_path):
    zoo.save(pets("mobilenet_v1_025"), tmp_path / "a.safetensors")
    from zoo.pretrained.folder import save_folder

    save_folder(pets("mobilenet_v1_025"), tmp_path / "own", "safetensors")
    file = tmp_path / "own/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(zoo.ZooError, match="is damaged"):
        zoo.load(tmp_path / "own")


def test_every_name_of_timm_is_a_network_of_ours():
    for theirs, ours in timm_config.architectures().items():
        numerics = timm_config.numerics_of(theirs)
        assert registry.find(ours).name == ours
        # of two names that compute alike, the first is written
        assert (
            timm_config.architectures()[timm_config.architecture_of(Spec(ours, numerics=numerics))]
            == ours
        )


# --- where weights come from ---------------------------------------------------------------------


def test_the_origin_goes_from_file_to_file(tiny, tmp_path):
    model = zoo.create("tiny", num_classes=2)
    assert model.origin is None
    zoo.save(model, tmp_path / "a.safetensors")
    assert zoo.load(tmp_path / "a.safetensors").origin is None
    model.origin = zoo.weights("resnet50.a1_in1k").origin
    assert model.origin == Origin(
        *("resnet50.a1_in1k", "Apache-2.0", "https://huggingface.co/timm/resnet50.a1_in1k")
    )
    zoo.save(model, tmp_path / "b.safetensors")
    for classes in (None, 5):
        back = zoo.load(tmp_path / "b.safetensors", num_classes=classes)
        assert back.origin == zoo.fold(back).origin == model.origin


def test_the_origin_of_our_own_weights_and_of_a_file_by_its_published_name(tmp_path):
    own = zoo.load("mobilenet_v1_025.digits")
    assert own.origin.weights == "mobilenet_v1_025.digits"
    assert own.origin.licence == zoo.weights("mobilenet_v1_025.digits").licence != ""
    file = tmp_path / "mobile.safetensors"
    file.write_bytes(_timm_tensors("mobilenet_v2_050"))
    published = zoo.weights("mobilenet_v2_050.lamb_in1k")
    assert zoo.load(published.name, file=file).origin == published.origin
    assert zoo.load("mobilenet_v2_050", file=file, like=published.name).origin is None


@pytest.mark.parametrize(
    "origin", [["x"], {"licence": "MIT"}, {"weights": 3}, {"weights": "", "x": ""}]
)
def test_an_origin_that_is_none(origin):
    with pytest.raises(
        zoo.ZooError, match=r"origin: got .*, expected weights, licence and address"
    ):
        Origin.from_dict(origin)


# --- at the command line -------------------------------------------------------------------------


def test_the_commands(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    zoo.save(pets(), "pets.safetensors")
    main(["push", "pets.safetensors", "me/pets", "--private"])
    assert capsys.readouterr().out == f"{hub.address}/me/pets\n"
    main(["export", "hf-hub:me/pets", "pets", "--format", "timm"])
    assert capsys.readouterr().out == "pets\n"
    assert zoo.load("local-dir:pets").classes == CLASSES
    from PIL import Image

    Image.fromarray(np.zeros((120, 100, 3), np.uint8)).save("black.png")
    main(["predict", "black.png", "--model", "hf-hub:me/pets", "--top", "1"])
    said = capsys.readouterr().out
    assert any(name in said for name in CLASSES)
    with pytest.raises(SystemExit) as stopped:
        main(["push", "pets.safetensors", "pets"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "zoo push: push_to_hub: got 'pets', expected USER/REPO\n"


def test_the_page(hub, tmp_path, monkeypatch, capsys):
    """The Python of docs/hub.md, in its order; timm's own code there is `py`."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    hub.add("me/pets", timm_files(pets()))
    text = (ROOT / "docs" / "hub.md").read_text("utf-8")
    names: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(code, "docs/hub.md", "exec"), names)
    assert names["grey"].spec.in_chans == 1
    assert names["again"].classes == ("cat", "dog")
    assert capsys.readouterr().out.splitlines() == [
        "('ant', 'bee', 'cat | dog') 96 MIT",
        f"{hub.address}/me/cats-and-dogs",
        "resnet50.a1_in1k Apache-2.0 https://huggingface.co/timm/resnet50.a1_in1k",
        "['cat', 'dog']",
    ]


# --- timm itself ---------------------------------------------------------------------------------


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
