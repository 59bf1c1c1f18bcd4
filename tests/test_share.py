"""What goes to the Hugging Face Hub, or into a folder of its form, and what goes with it."""

import json
import re

import numpy as np
import pytest
from conftest import ROOT
from hub import CLASSES, SMALL, assert_same, pets, timm_files, timm_tensors
from safetensors.numpy import load_file, save_file

import zoo
from training.cli import main
from zoo import registry
from zoo.context import Spec
from zoo.origin import Origin
from zoo.pretrained import timm_config

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
    further = zoo.load("mobilenet_v1_025.imagenette")  # fine-tuned from weights of Keras
    keras = zoo.weights("mobilenet_v1_025.keras_in1k_no_top").origin
    assert further.origin.before == f"{keras.weights} ({keras.address})"
    zoo.save(further, tmp_path / "further.safetensors")
    assert zoo.load(tmp_path / "further.safetensors").origin == further.origin
    file = tmp_path / "mobile.safetensors"
    file.write_bytes(timm_tensors("mobilenet_v2_050"))
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
    ]
