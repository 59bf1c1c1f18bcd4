"""The documentation: its Python code runs, its commands are commands, and the site builds."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from test_readme import torchvision_file

import zoo
from training.cli import parser

# docs/extending.md, hub.md, nnx.md: tests/test_registry.py, test_share.py, test_nnx.py
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUN_ELSEWHERE = ("extending", "hub", "nnx")
NEEDS = {"export": ("onnx", "onnxruntime", "flatbuffers")}
WITH_CODE = [
    path.stem
    for path in [*PAGES, ROOT / "README.md"]
    if "\n```python\n" in path.read_text("utf-8") and path.stem not in RUN_ELSEWHERE
]


def text_of(page: str) -> str:
    return (ROOT / ("README.md" if page == "README" else f"docs/{page}.md")).read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests/seven.png", tmp_path)
    digits, labels = load_digits(return_X_y=True)
    for name, digit in (("cat", 0), ("dog", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        drawn = (digits[labels == digit][:150] * 15).reshape(-1, 8, 8).astype(np.uint8)
        for i, pixels in enumerate(drawn):
            Image.fromarray(pixels).resize((40, 40)).convert("RGB").save(f"photos/{name}/{i}.png")
        Image.open(f"photos/{name}/0.png").save(f"{name}.jpg")
    save_file(torchvision_file("resnet18"), "resnet18.safetensors")
    return tmp_path


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(page, folder, capsys):
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    names: dict = {}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}.md, block {number}", "exec"), names)
        check_comments(block, names)
    printed = capsys.readouterr().out
    for promised in PROMISED.get(page, ()):
        assert promised in printed


# what comments in the code say that it prints
PROMISED = {
    "README": ("25557032",),
    "export": ("7\n7\n",),
    "look": ("['vgg11', 'vgg13', 'vgg16', 'vgg19']", "25557032", "'fully connected': 123642856"),
    "tricks": ("29294088",),
}


def check_comments(block: str, names: dict) -> None:
    """`logits = ...  # [2, 10]` is an array of that shape."""
    for name, shape in re.findall(r"^(\w+) = .*# \[(\d+(?:, \d+)*)\]", block, re.MULTILINE):
        assert list(names[name].shape) == ast.literal_eval(f"[{shape}]"), name


@pytest.mark.parametrize("page", [path.stem for path in PAGES])
def test_every_command_of_a_page_is_one(page):
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", "").replace("&&", "\n").splitlines()
    commands = [line.strip().strip('"') for line in lines]
    for line in commands:
        if line.startswith("zoo "):
            parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_reference_has_every_public_name():
    told = re.findall(r"^\.\. auto\w+:: zoo\.(\w+)", text_of("api"), re.MULTILINE)
    assert sorted(told) == sorted(zoo.__all__)


def test_every_page_is_in_the_index():
    told = re.findall(r"^([\w/]+)$", text_of("index"), re.MULTILINE)
    assert {path.stem for path in PAGES} - {"index"} <= set(told)


def test_the_questions_are_fifteen_or_more():
    questions = re.findall(r"^## (.*)", text_of("faq"), re.MULTILINE)
    assert len(set(questions)) == len(questions) >= 15


def test_the_site_builds_without_a_warning_and_without_a_network(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[docs]'")
    out = tmp_path / "site"
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE, "-q", "-W", "--keep-going", "-c", "docs", ".", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    index = (out / "docs/index.html").read_text("utf-8")
    assert "docs/index.html" in (out / "index.html").read_text()
    assert "networks.png" in index
    reference = (out / "docs/api.html").read_text("utf-8")
    assert 'id="zoo.load"' in reference
    assert "num_classes" in reference
    assert "passes over the training pictures" in reference  # the settings
    for page in out.rglob("*.html"):  # nothing is fetched to show it
        fetched = re.findall(FETCHED, page.read_text("utf-8"))
        assert not fetched, page


FETCHED = r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(http[^"]*)'
OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise OSError("no network for the documentation")
socket.socket.connect = socket.create_connection = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""
