"""`zoo.load("hf-hub:...")`, on a Hub of this machine with files of the form that timm writes."""

import json
import socket

import pytest
from hub import CLASSES, SMALL, assert_same, pets, timm_files

import zoo
from zoo.origin import Origin


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
    hub.add("me/pets", timm_files(pets()))
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    loaded = zoo.load("hf-hub:me/pets")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert_same(zoo.load("hf-hub:me/pets"), loaded)  # from the cache
    monkeypatch.setenv("HF_ENDPOINT", "http://elsewhere.example")
    with pytest.raises(zoo.ZooError, match=r"HF_ENDPOINT: got .*elsewhere"):
        zoo.load("hf-hub:me/pets")


def test_without_a_network_the_client_is_not_asked(hub, monkeypatch, caplog):
    """It would try for half a minute, and print each time."""
    tried = []

    def unknown(*address, **_):
        tried.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("HF_ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(zoo.ZooError, match="load: hf-hub:me/pets: the Hub cannot be reached, and"):
        zoo.load("hf-hub:me/pets")
    assert len(tried) == 2
    assert not caplog.records
    tried.clear()
    with pytest.raises(zoo.ZooError, match=r"\(Name or service not known\), in 2 tries"):
        zoo.load("resnet18.a1_in1k")
    assert len(tried) == 2


@pytest.mark.parametrize(
    "option", [{"like": "resnet18"}, {"layout": "torchvision"}, {"head": "fc"}]
)
def test_a_repository_says_itself_how_it_computes(hub, option):
    hub.add("me/pets", timm_files(pets()))
    with pytest.raises(zoo.ZooError, match="hf-hub:me/pets says itself how it computes"):
        zoo.load(SMALL, file="hf-hub:me/pets", **option)
