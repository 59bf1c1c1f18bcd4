"""The benchmarks run and tell what they measured; how fast that is, no test asks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from zoo.runtime import backend

BENCHMARKS = (
    *("accelerator", "models", "ops", "precision", "finetuning", "startup", "input"),
    *("scaling", "memory", "profile", "report"),
)


def benchmark(name: str, *args: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_shows_an_example(name):
    assert f"example: python -m benchmarks.{name}" in benchmark(name, "--help")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks") / "results"
    benchmark("ops", "--quick", "--json", str(folder / "ops.json"))
    return folder


def test_result_tells_what_where_and_how_fast(results):
    result = json.loads((results / "ops.json").read_text())
    assert result["benchmark"] == "ops"
    assert result["machine"]["cores"] > 0
    assert {"python", "jax"} <= result["versions"].keys()
    pairs = [row for row in result["rows"] if "ms" in row]
    ways = ["ours", "ours, onednn", "onednn", "xla, onednn", "xla"]
    ways = ways if backend.onednn() else ["ours", "xla"]
    assert [row["contender"] for row in pairs] == ways * (len(pairs) // len(ways))
    works = {tuple(row["work"].split(", ")[-2:]) for row in pairs}
    dtypes = ("float32", "bfloat16")
    assert works == {(dtype, way) for dtype in dtypes for way in ("forward", "gradient")}
    for rows in zip(*(pairs[i :: len(ways)] for i in range(len(ways))), strict=True):
        ours, *others = rows
        assert ours["low"] <= ours["ms"] <= ours["high"]
        for row in others:
            assert row["work"] == ours["work"]
            assert row["it / ours"] == pytest.approx(row["ms"] / ours["ms"])  # of a single round
        (chosen,) = (row for row in rows if "chosen" in row)
        best = min(rows, key=lambda row: row["ms"])
        slower = chosen["ms"] > 1.15 * best["ms"]
        assert chosen["holds"].startswith(f"no: {best['contender']} is" if slower else "yes")


def test_a_contender_that_is_not_installed_is_told(results):
    result = json.loads((results / "ops.json").read_text())
    took_part = any(row["contender"] == "torch" for row in result["rows"])
    assert took_part != any("left out: torch, " in line for line in result["notes"])


def test_report_holds_every_line(results):
    benchmark("report", "--results", str(results))
    text = (results.parent / "RESULTS.md").read_text()
    rows = json.loads((results / "ops.json").read_text())["rows"]
    assert all(f"| {row['work']} " in text for row in rows)
    assert "## ops" in text


def test_unknown_contender_is_one_line():
    command = [sys.executable, "-m", "benchmarks.models", "--contenders", "zoo,tourch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "got tourch, expected zoo, " in done.stderr
