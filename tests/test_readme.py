"""What the documentation says, run."""

import doctest
import importlib
import pkgutil
import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from safetensors.numpy import save_file

import tools
import training
import zoo
from training.cli import parser
from zoo.context import Spec
from zoo.pretrained.convert import expected
from zoo.pretrained.layouts import LAYOUTS
from zoo.registry import abstract

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_command_is_one():
    lines = "\n".join(blocks("sh")).replace("&&", "\n").splitlines()
    commands = [line.strip().removeprefix(".venv/bin/") for line in lines if "zoo " in line]
    commands = [line for line in commands if line.startswith("zoo ")]
    assert len(commands) >= 8
    for line in commands:
        parser().parse_args(shlex.split(line, comments=True)[1:])


def test_looking(capsys):
    look = next(block for block in blocks("python") if "zoo.create" in block)
    exec(look, {})
    assert "25557032" in capsys.readouterr().out


def test_loading(tmp_path, monkeypatch, shared):
    weights = shared("data/weights/mobilenet_2_5_224_tf_no_top.h5")
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, tmp_path)
    Image.new("RGB", (300, 250), "orange").save("cat.jpg")
    save_file(torchvision_file("resnet18"), "resnet18.safetensors")
    load = next(block for block in blocks("python") if "zoo.load" in block)
    names: dict = {}
    exec(load, names)
    assert names["logits"].shape == (1, 1000)
    assert names["model"].spec.num_classes == 37


def torchvision_file(name: str) -> dict[str, np.ndarray]:
    """Zeros under torchvision's names."""
    model, layout = abstract(Spec(name)), LAYOUTS["torchvision"]
    rules = layout.rules_for(model)
    to_torch = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return {
        layout.source_name(path, rules): np.zeros([shape[i] for i in to_torch[len(shape)]], "f")
        for path, shape in expected(model).items()
    }


def test_the_test_data_is_described():
    """Where a stranger gets what a test is skipped without."""
    described = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("### Test data")[2]
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("*.py"))
    asked = set(re.findall(r'shared\(f?"(data/\w+|reference|parity)', tests))
    assert {"data/weights", "data/photos", "reference"} <= asked
    assert not [path for path in asked if f"`{path}/" not in described]


def test_settings_in_examples_exist():
    finetune = next(block for block in blocks("python") if "finetune(" in block)
    settings = re.findall(r"^    (\w+)=", finetune, re.MULTILINE)
    assert settings
    assert set(settings) <= set(training.TrainConfig().to_dict())


MODULES = [
    module.name
    for package in (zoo, training, tools)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


@pytest.mark.parametrize("name", ["zoo", "training", *MODULES])
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"zoo": zoo, "np": np})
    assert not failed
