"""Runs beside each other: `zoo compare` and `zoo runs`."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import TrainConfig, cli, compare_runs, list_runs
from training.comparing import mcnemar, paired, read_run
from training.evaluation import interval
from zoo.errors import ZooError

PICTURES = 40
RECORD = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.25, "seconds": 2.0}
DATA = {
    "classes": ["cat", "dog"],
    "split": "val/",
    "train": {"pictures": [9, 9], "digests": ["a", "b"], "sums": [1, 2]},
    "val": {"pictures": [20, 20], "digests": ["c", "d"], "sums": [3, 4]},
}


def made(folder: Path, right: set[int], *, names="pet{}.jpg", data=DATA, **settings) -> Path:
    """The folder of a finished run that names these pictures rightly."""
    folder.mkdir(parents=True)
    config = TrainConfig(data="folder:pets", epochs=2, out=str(folder), **settings)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "data.json").write_text(json.dumps(data))
    accuracy = len(right) / PICTURES
    lines = [
        {"epoch": i, "step": 10 * i, "val_accuracy": accuracy * i / 2, **RECORD} for i in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (folder / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("picture", "label", "prediction", "probability"))
        for i in range(PICTURES):
            rows.writerow((names.format(i), "cat", "cat" if i in right else "dog", "0.9"))
    for name in ("report.md", "model.safetensors"):
        (folder / name).write_text("")
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    a = made(tmp_path / "runs/a", {*range(20)}, learning_rate=0.1)
    b = made(tmp_path / "runs/b", {*range(4, 38)}, learning_rate=0.2, model="vgg11")
    return a, b


def test_the_test_is_exact():
    for a, b in ((2, 10), (0, 5), (7, 7), (30, 50)):
        n = a + b
        tail = sum(math.comb(n, k) for k in range(min(a, b) + 1)) / 2**n
        assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(min(2 * tail, 1))
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1
    assert 0 < mcnemar(1000, 1500) < 1e-20
    assert mcnemar(0, 5000) == 0  # less than any number


def test_the_same_pictures(two):
    pair = paired(*map(read_run, two))
    assert (pair.both, pair.only_a, pair.only_b, pair.neither) == (16, 4, 18, 2)
    assert pair.difference == pytest.approx(14 / 40)
    low, high = pair.interval
    assert low < 14 / 40 < high
    assert (low + high) / 2 == pytest.approx(14 / 40)
    assert pair.p == mcnemar(4, 18) < 0.01


def test_the_interval_holds_the_difference_as_often_as_it_says(tmp_path):
    a = read_run(made(tmp_path / "a", {*range(20)}))
    b = read_run(made(tmp_path / "b", {*range(20)}))
    random, inside = np.random.default_rng(0), 0
    for _ in range(200):  # both right with 70 %, each by itself: no difference
        for run in (a, b):
            run.__dict__["answers"] = {
                str(i): ("cat", "cat" if hit else "dog")
                for i, hit in enumerate(random.random(300) < 0.7)
            }
        low, high = paired(a, b).interval
        inside += low <= 0 <= high
    assert 180 <= inside <= 199


def test_a_comparison(two):
    found = compare_runs(two)
    settings = found.settings()
    assert {row[0]: row[1:] for row in settings.rows} == {
        "model": (TrainConfig.model, "vgg11"),
        "learning_rate": (0.1, 0.2),
    }
    (one, other), low_high = found.results().records(), interval(20, 40)
    assert (one["val_accuracy"], other["val_accuracy"]) == (0.5, 0.85)
    assert one["interval"] == f"{100 * low_high[0]:.1f} to {100 * low_high[1]:.1f}"
    assert one["seconds"] == 4
    (test,) = found.tests().records()
    assert (test["only_a"], test["only_b"], test["pictures"]) == (4, 18, 40)
    assert "<td" in found._repr_html_()


def test_the_command(two, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["compare", "runs/a", "runs/b"])
    text = capsys.readouterr().out
    for words in ("learning_rate", "50.00", "85.00", "+35.00", "McNemar"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80
    cli.main(["compare", "runs/a", "runs/b", "--format", "json"])
    tables = json.loads(capsys.readouterr().out)
    assert [table["title"] for table in tables] == [
        "settings that differ",
        "results",
        "the same pictures",
    ]
    cli.main(["compare", "runs/a", "runs/b", "--out", "beside"])
    files = capsys.readouterr().out.split()
    assert {Path(file).name for file in files} == {
        *("curves.png", "curves.svg", "compare.md", "compare.csv", "compare.json")
    }
    with Image.open("beside/curves.png") as picture:
        assert picture.width > 1000
    assert (
        Path("beside/compare.md").read_text().startswith("## Settings that differ\n\n| setting |")
    )


def test_runs_are_listed(two, capsys, tmp_path, monkeypatch):
    (tmp_path / "runs/c").mkdir()
    config = TrainConfig(model="vgg13", data="digits", epochs=5)
    (tmp_path / "runs/c/config.json").write_text(json.dumps(config.to_dict()))
    rows = {Path(row["run"]).name: row for row in list_runs(tmp_path / "runs").records()}
    assert [*rows] == ["a", "b", "c"]
    assert (rows["a"]["val_accuracy"], rows["a"]["epoch"], rows["a"]["state"]) == (
        0.5,
        "2/2",
        "finished",
    )
    assert (rows["c"]["val_accuracy"], rows["c"]["epoch"], rows["c"]["state"]) == (
        None,
        "0/5",
        "not over",
    )
    monkeypatch.chdir(tmp_path)
    cli.main(["runs", "--sort", "val_accuracy"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["runs/b", "runs/a", "runs/c"]


def test_what_cannot_be_paired_says_why(two, tmp_path):
    def why(folder: Path) -> str:
        (note,) = compare_runs([two[0], folder]).tests().notes
        return note

    assert "held out other pictures" in why(made(tmp_path / "x", {1}, names="other{}.jpg"))
    other = {**DATA, "val": {**DATA["val"], "digests": ["e", "f"]}}
    a = made(tmp_path / "n", {1}, names="{}")
    b = made(tmp_path / "m", {1}, names="{}", data=other)
    assert "their data differ" in paired(read_run(a), read_run(b))
    assert paired(read_run(a), read_run(made(tmp_path / "o", {1}, names="{}"))).count == PICTURES
    (two[1] / "predictions.csv").unlink()
    assert "has no predictions.csv, which its end writes" in why(two[1])
    assert "may show several classes" in why(made(tmp_path / "s", {1}, loss="sigmoid"))


def test_what_is_no_run(two, tmp_path):
    for folders, line in (
        ([two[0]], "got 1 run to compare, expected two or more"),
        ([two[0], two[0]], "got 1 run to compare"),
        ([two[0], tmp_path], "has no config.json: expected the folder of a run"),
        ([two[0], tmp_path / "none"], "is no folder: expected the folder of a run"),
    ):
        with pytest.raises(ZooError, match=line):
            compare_runs(folders)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="no runs in"):
        list_runs(tmp_path / "empty")
