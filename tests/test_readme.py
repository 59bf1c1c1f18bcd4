"""What the documentation says, run."""

import doctest
import importlib
import pkgutil
import re
import shlex

import numpy as np
import pytest
from conftest import ROOT

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
