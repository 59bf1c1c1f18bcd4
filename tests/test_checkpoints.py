"""The weights that this project trained: they load by name, and do what their cards say."""

import hashlib
import re

import pytest

import zoo
from training import evaluate
from training.config import TrainConfig
from zoo.pretrained.catalogue import OWN

NAMES = sorted(path.stem for path in OWN.glob("*.safetensors"))


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


def test_digits_reach_the_accuracy_of_their_card():
    model = zoo.load("mobilenet_v1_025.digits")
    assert model.classes == tuple("0123456789")
    found = evaluate(model, "digits")
    assert f"{found.accuracy:.2%} (356 of {found.count}," in (
        OWN / "mobilenet_v1_025.digits.md"
    ).read_text("utf-8")
