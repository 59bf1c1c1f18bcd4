"""What is installed: the wheel, the source distribution, and what the two extras need."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from importlib import util
from pathlib import Path

import pytest
from conftest import ROOT

import zoo
from training import needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDRESS = "https://example.org/owner/zoo"


def setup():
    """The module `setup.py`, of which nothing runs where it is imported."""
    spec = util.spec_from_file_location("zoo_setup", ROOT / "setup.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what only training needs ---------------------------------------------------------------------

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder
class Blocked(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
ABSENT = ("grain", "tensorflow_datasets", "tensorboardX", "orbax", "simplejpeg", "cykooz_resizer")
COMMANDS = (
    "train mobilenet_v1_025 --data digits --out run",
    "finetune mobilenet_v1_025 --out run",
    "evaluate mobilenet_v1_025.digits --data digits",
    "reproduce mobilenet_v1_025.digits",
    "plan resnet50 --topology h100:8",
    "tricks",
    "export run out.safetensors --epoch best",
)
LINE = (
    "training and evaluation need grain, orbax.checkpoint, tensorboardX, tensorflow_datasets: "
    "pip install 'jax-cnn-zoo[train]'"
)
INFERENCE = """
import json
import numpy as np
import zoo
model = zoo.load("mobilenet_v1_025.digits", fold=True)
zoo.save(zoo.create("resnet8_mlperf"), "mine.safetensors")
zoo.load("mine.safetensors", num_classes=3)
zoo.export(zoo.create("resnet18"), "torch.safetensors", "torchvision")
zoo.compare(["resnet18", "alexnet"]), zoo.info("alexnet"), zoo.TrainConfig(), zoo.register_dataset
for name in ("fit", "finetune", "evaluate", "probe"):
    try:
        getattr(zoo, name)
    except zoo.ZooError as error:
        print(error)
from training.cli import main
main(["predict", {seven!r}, "--model", "mobilenet_v1_025.digits", "--top", "1"])
main(["params", "alexnet"])
for command in {commands!r}:
    try:
        main(command.split())
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


def test_inference_needs_nothing_of_training(tmp_path):
    code = BLOCKED.format(names=ABSENT) + INFERENCE.format(
        seven=str(ROOT / "tests/seven.png"), commands=COMMANDS
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=python_path(),
    )
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.splitlines()
    assert told[:4] == [LINE] * 4
    assert "7" in told[5].split()
    assert "61,100,840" in ran.stdout
    said = [f"zoo {command.split()[0]}: {LINE}" for command in COMMANDS]
    assert ran.stderr.splitlines() == [
        line for pair in zip(said, "2222222", strict=True) for line in pair
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"mine.safetensors", "torch.safetensors"}


def python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_check_names_packages_of_the_extra():
    declared = {
        re.match(r"[\w-]+", line)[0]
        for line in PROJECT["project"]["optional-dependencies"]["train"]
    }
    by_module = importlib.metadata.packages_distributions()
    for name in needs.PACKAGES:
        assert set(by_module[name.split(".")[0]]) & declared, name


# --- what an index page shows ---------------------------------------------------------------------


def test_links_are_absolute_on_an_index_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    text = setup().readme(readme, ADDRESS, zoo.__version__)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert not [target for target in targets if not target.startswith("https://")]
    assert f"]({ADDRESS}/raw/v{zoo.__version__}/docs/networks.png)" in text
    assert f"]({ADDRESS}/blob/v{zoo.__version__}/docs/index.md)" in text


def test_without_an_address_no_link_is_dead():
    text = setup().readme("A [link](docs/a.md), ![picture](b.png) and [web](https://c.d).", "", "1")
    assert text == "A link,  and [web](https://c.d)."
    assert setup().urls("") == {}


def test_links_of_the_readme_lead_somewhere():
    for _, _, path in setup().LINK.findall((ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / path.partition("#")[0]).exists(), path


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@example.org:owner/zoo.git", ADDRESS),
        ("https://example.org/owner/zoo.git", ADDRESS),
        ("https://user:secret@example.org/owner/zoo", ""),
        ("/srv/zoo", ""),
    ],
)
def test_the_address_is_that_of_the_remote(remote, address, tmp_path, monkeypatch):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    module = setup()
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.delenv("ZOO_REPOSITORY", raising=False)
    assert module.repository() == ""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    assert module.repository() == address
    (tmp_path / "PKG-INFO").write_text("Name: a\nProject-URL: Repository, https://a.b/c\n\n")
    assert module.repository() == "https://a.b/c"
    monkeypatch.setenv("ZOO_REPOSITORY", f"{ADDRESS}/")
    assert module.repository() == ADDRESS


def test_the_version_stands_in_one_place():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {zoo.__version__}\n" in citation
    newest = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == zoo.__version__


# --- the files ------------------------------------------------------------------------------------


def newest_setuptools() -> bool:
    return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it alone."""
    if not newest_setuptools():
        pytest.skip("setuptools is older than pyproject.toml asks for")
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=left_out)
    for name in (".ci", ".pre-commit-config.yaml"):
        of, to = ROOT / name, tree / name
        shutil.copytree(of, to) if of.is_dir() else shutil.copy(of, to)
    build("sdist", tree, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder / "from", filter="data")
    build("wheel", next((folder / "from").iterdir()), folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def build(kind: str, tree: Path, out: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    env = {**os.environ, "ZOO_REPOSITORY": ADDRESS} if kind == "sdist" else None
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_the_source_holds_what_its_tests_need(built):
    with tarfile.open(built[0]) as tar:
        inside = {"/".join(Path(name).parts[1:]) for name in tar.getnames()}
    for path in (
        *("README.md", "CONTRIBUTING.md", "MODELS.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"),
        *("constraints.txt", "pyproject.toml", "setup.py", ".ci/run", "tests/seven.png"),
        *("docs/conf.py", "docs/extending.md", "docs/networks.png", "docs/tricks/README.md"),
        *("benchmarks/README.md", "tools/models_md.py", "checkpoints/README.md"),
    ):
        assert path in inside, path
    of_tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert of_tests <= inside
    assert not [name for name in inside if name.endswith(".pyc") or name.startswith("runs")]


def test_the_wheel_holds_the_packages_and_their_data(built):
    with zipfile.ZipFile(built[1]) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
        meta = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        about = message_from_bytes(wheel.read(meta))
    kept = (
        ".py",
        ".csv",
        ".html",
        ".npz",
        ".safetensors",
        ".toml",
        ".txt",
        ".typed",
        ".json",
        ".md",
    )
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("zoo", "training")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kept or path.name == "py.typed"
    }
    weights = {f"zoo/checkpoints/{path.name}" for path in (ROOT / "checkpoints").iterdir()}
    assert inside == there | {name for name in weights if not name.endswith("__pycache__")}
    assert about["Version"] == zoo.__version__
    # the wheel was built from the source distribution, which remembers where it is from
    assert f"Repository, {ADDRESS}" in about.get_all("Project-URL")
    assert f"{ADDRESS}/raw/v{zoo.__version__}/docs/networks.png" in about.get_payload()
    needed = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in needed if line.startswith(("grain", "tensorflow", "orbax"))]


# --- new environments -----------------------------------------------------------------------------

PYTHONS = [
    path
    for version in ("3.11", "3.12", "3.13")
    for path in sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
] or [Path(sys.executable)]
# What JAX and Flax ask for and inference never imports
UNUSED = ("scipy", "tensorstore", "orbax-checkpoint", "uvloop")


def run(*words: object, cwd: Path) -> str:
    env = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")
    }
    ran = subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(params=PYTHONS, ids=lambda path: path.parts[-3])
def environment(request, tmp_path) -> Path:
    """The Python of a new environment."""
    run(request.param, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    return tmp_path / "env/bin/python"


@pytest.mark.slow
def test_the_wheel_in_a_new_environment(built, environment, tmp_path):
    constraints = ROOT / "constraints.txt"
    run(environment, "-m", "pip", "install", "-q", "-c", constraints, built[1], cwd=tmp_path)
    zoo_command = environment.parent / "zoo"
    code = INFERENCE.format(seven=str(ROOT / "tests/seven.png"), commands=COMMANDS)
    for _ in "all", "without what it does not use":
        told = run(environment, "-c", f"import sys{code}", cwd=tmp_path)
        assert "61,100,840" in told
        assert "pip install 'jax-cnn-zoo[train]'" in told
        run(environment, "-m", "pip", "uninstall", "-q", "-y", *UNUSED, cwd=tmp_path)
    train = f"{built[1]}[train]"
    run(environment, "-m", "pip", "install", "-q", "-c", constraints, train, cwd=tmp_path)
    command = "train mobilenet_v1_025 --data digits --epochs 1 --out runs/digits"
    assert "validation accuracy" in run(zoo_command, *command.split(), cwd=tmp_path)


@pytest.mark.slow
def test_the_source_in_a_new_environment(built, environment, tmp_path):
    with tarfile.open(built[0]) as tar:
        tar.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("jax_cnn_zoo-*")
    pip = ("-m", "pip", "install", "-q", "-c", "constraints.txt")
    run(environment, *pip, "-e", ".[test]", cwd=source)

    names = ("imports", "readme", "registry", "tools", "package", "checkpoints")
    files = [f"tests/test_{name}.py" for name in names]
    told = run(environment, "-m", "pytest", "-q", "-n", "2", *files, cwd=source)
    assert " passed" in told
