"""Who imports whom, in functions too; and that importing changes nothing."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

# The package `training` behind zoo.fit and its kin, and behind `python -m zoo`
ALLOWED = {("zoo", "training"), ("zoo.__main__", "training.__main__")}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("zoo", "training"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that one imports anywhere, but not for types alone."""
    tree = ast.parse(path.read_text())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= (names & known.keys()) | ({base} if names - known.keys() else set())
    return (found & known.keys()) - {name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imported(name, path, known) for name, path in known.items()}


def test_nobody_imports_in_circles(graph):
    try:
        order = [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")
    assert len(order) == len(graph)


def test_zoo_does_not_know_of_training(graph):
    arrows = {(a, b) for a, targets in graph.items() for b in targets}
    up = {(a, b) for a, b in arrows if a.startswith("zoo") and b.startswith("training")}
    assert up <= ALLOWED


def test_tests_see_what_a_function_imports(tmp_path):
    known = {"zoo": tmp_path, "zoo.a": tmp_path / "a.py", "zoo.report.b": tmp_path / "b.py"}
    (tmp_path / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import zoo\n"
        "def f():\n    from ..a import name\n"
    )
    assert imported("zoo.report.b", tmp_path / "b.py", known) == {"zoo.a"}


IMPORT = """
import ctypes, sys
told = []
class Watched(ctypes.CDLL):
    def __getattr__(self, name):
        if name in ("mallopt", "malloc_trim"):
            told.append(name)
        return super().__getattr__(name)
ctypes.CDLL = Watched
import jax, tensorboardX, grain, orbax.checkpoint, flax.nnx, optax.contrib
before = dict(jax.config.values)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
after = dict(jax.config.values)
print({key: value for key, value in after.items() if before.get(key) != value}, told)
"""


def test_importing_changes_nothing():
    names = [name for name in modules() if not name.endswith("__main__")]
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT, *names], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "{} []", ran.stderr
