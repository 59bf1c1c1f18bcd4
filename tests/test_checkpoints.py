"""The weights that come with the package: they load by name, and do what their cards say."""

import hashlib
import json
import re

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from training import evaluate
from training.cli import main
from training.config import TrainConfig
from training.evaluation import interval
from training.recipes import recipe
from training.reproduction import Reproduction, reproduction_config
from zoo.pretrained.catalogue import OWN
from zoo.pretrained.own import own

NAMES = sorted(path.stem for path in OWN.glob("*.json"))
BUNDLED = sorted({path.stem for path in OWN.glob("*.safetensors")} - {*NAMES})
FEATURES = "mobilenet_v1_025.keras_in1k_no_top"


def test_all_are_in_the_catalogue():
    assert NAMES
    assert [name for name in zoo.list_weights() if zoo.weights(name).source == "zoo"] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card_and_catalogue_speak_of_this_file(name):
    digest = hashlib.sha256((OWN / f"{name}.safetensors").read_bytes()).hexdigest()
    assert zoo.weights(name).hash == f"sha256:{digest}"
    card = (OWN / f"{name}.md").read_text("utf-8")
    assert f"`{digest}`" in card
    assert f'zoo.load("{name}")' in card
    assert (OWN / f"{name}.png").exists()


@pytest.mark.parametrize("name", BUNDLED)
def test_published_weights_are_there_without_a_network(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    row, model = zoo.weights(name), zoo.load(name)
    assert model.spec.num_classes == row.classes
    assert zoo.count(model).params == row.params
    assert model.preprocess == row.preprocess
    card = (OWN / f"{name}.md").read_text("utf-8")
    digest = hashlib.sha256((OWN / f"{name}.safetensors").read_bytes()).hexdigest()
    for fact in (f"`{digest}`", row.file, row.licence, f'zoo.load("{name}")'):
        assert fact in card


def test_bundled_features_are_those_that_keras_published(shared):
    file = shared("data/weights/mobilenet_2_5_224_tf_no_top.h5")
    card = (OWN / f"{FEATURES}.md").read_text("utf-8")
    assert f"`{hashlib.sha256(file.read_bytes()).hexdigest()}`" in card
    kinds = nnx.Any(nnx.Param, nnx.BatchStat)
    ours, theirs = (nnx.state(zoo.load(FEATURES, file=f), kinds) for f in (None, file))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_those_of_the_card(name):
    facts, card = own(name), (OWN / f"{name}.md").read_text("utf-8")
    assert facts.name == name
    assert f"({facts.correct:,} of {facts.held_out:,}, 95% interval" in card
    assert card.count(f"{zoo.weights(name).params:,} parameters, ") == 1
    assert f"on {facts.train:,} pictures" in card
    assert f"{facts.seconds:.0f} s on {facts.device} |" in card
    assert f"| seed | {facts.seed} |" in card
    assert (facts.low, facts.high) == pytest.approx(interval(facts.correct, facts.held_out))
    assert "expected calibration error" in card
    assert "multiply-accumulates" in card
    assert "taken for" in card


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_what_the_card_says(name):
    card = (OWN / f"{name}.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (.*?) \| .*\|$", card, re.MULTILINE))
    for key, value in recipe(own(name).recipe).items():
        assert rows[key] == str(value), key


def test_own_weights_as_a_table(capsys):
    main(["weights", "--own", "--format", "json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == NAMES
    main(["weights", "*.digits", "--own"])
    assert "cifar10" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["weights", "nothing", "--own"])
    assert "no weights of our own match 'nothing'" in capsys.readouterr().err


def test_reproduce_takes_the_recipe_and_the_same_pictures():
    config = reproduction_config("resnet20_cifar.digits")
    assert (config.image_size, config.epochs, config.data) == (32, 20, "digits")
    assert config.out == "runs/reproduce-resnet20_cifar.digits"
    config = reproduction_config("plain20_cifar.cifar10", "cifar10:x", "again")
    assert (config.weight_decay, config.data, config.out) == (0.005, "cifar10:x", "again")
    for name, data, said in (
        ("plain20_cifar.cifar10", None, "got nothing, expected --data cifar10:PATH"),
        ("vgg9_bn_cifar.digits", "cifar10:x", "got cifar10:x, expected --data digits"),
        ("vgg9_bn_cifar.digit", None, "did you mean 'vgg9_bn_cifar.digits'"),
        ("resnet50.a1_in1k", None, "unknown weights of our own"),
    ):
        with pytest.raises(zoo.ZooError, match=re.escape(said)):
            reproduction_config(name, data)


def test_reproduce_says_whether_the_result_is_within(monkeypatch, capsys):
    monkeypatch.setattr("training.cli._fit", lambda config: {"val_accuracy": 354 / 360})
    main(["reproduce", "mobilenet_v1_025.digits"])
    assert "98.33%, within the card's interval of 97.18% to 99.57%" in capsys.readouterr().out
    monkeypatch.setattr("training.cli._fit", lambda config: {"val_accuracy": 340 / 360})
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "mobilenet_v1_025.digits"])
    assert ended.value.code == 1
    assert "94.44%, outside the card's interval" in capsys.readouterr().out


def test_reproduced_at_the_edges_of_the_interval():
    facts = own("mobilenet_v1_025.digits")
    assert Reproduction(facts, facts.low).within
    assert not Reproduction(facts, facts.high + 1e-9).within


def test_the_command_of_the_card_still_means_its_settings():
    """A default that changes asks for these weights to be trained again."""
    card = (OWN / "mobilenet_v1_025.digits.md").read_text("utf-8")
    assert "\nzoo train mobilenet_v1_025 --data digits --out runs/digits\n" in card
    today = TrainConfig(model="mobilenet_v1_025", data="digits", out="runs/digits").to_dict()
    rows = re.findall(
        r"^\| (\w+) \| (.*?) \| .*\|$", card.partition("| setting |")[2], re.MULTILINE
    )
    assert len(rows) > 30
    assert {name: str(today[name]) for name, _ in rows} == dict(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".cifar10")])
def test_cifar10_reaches_the_accuracy_of_its_card(name, shared):
    found = evaluate(zoo.load(name), f"cifar10:{shared('data/cifar10/cifar10_jpeg.tar.gz')}")
    card = (OWN / f"{name}.md").read_text("utf-8")
    stated = int(re.search(r"\(([\d,]+) of 10,000", card)[1].replace(",", ""))
    # the GPU multiplied with 10 bits of precision
    assert found.count == 10_000
    assert abs(found.accuracy * 10_000 - stated) <= 10


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".digits")])
def test_digits_reach_the_accuracy_of_their_card(name):
    model = zoo.load(name)
    assert model.classes == tuple("0123456789")
    found = evaluate(model, "digits")
    assert (round(found.accuracy * found.count), found.count) == (own(name).correct, 360)


def test_imagenette_reaches_the_accuracy_of_its_card(shared):
    found = evaluate(zoo.load("mobilenet_v1_025.imagenette"), f"folder:{shared('data/imagenette')}")
    assert (round(found.accuracy * found.count), found.count) == (460, 500)
