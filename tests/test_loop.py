"""Whole runs of a tiny network, and of the command: what they leave, and how they survive."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from faults import kills
from matplotlib.figure import Figure
from PIL import Image
from runs import assert_same, files_of, records, tensors
from safetensors.numpy import load_file

import zoo
from training import Interrupted, TrainConfig, evaluation, fit, fitting, folder
from training.checkpoint import Checkpoints
from training.cli import main
from training.config import FINETUNE
from zoo.errors import ZooError
from zoo.pretrained import saving

pytestmark = pytest.mark.usefixtures("tiny", "undrawn")

STEPS = 1437 // 64  # an epoch


def config(out: Path, **settings) -> TrainConfig:
    defaults = {"model": "tiny", "epochs": 2, "image_size": 16, "batch_size": 64}
    return TrainConfig(**{**defaults, "out": str(out), **settings})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where a run that nothing interrupted lies; made by the first test that asks."""
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture
def uninterrupted(whole, undrawn, monkeypatch):
    if not whole.exists():
        with monkeypatch.context() as patch:
            patch.setattr(Figure, "savefig", undrawn)
            fit(config(whole, epochs=3))
    return whole


def test_a_run_leaves_all_it_promises(uninterrupted):
    assert files_of(uninterrupted) == {
        "config.json",
        "data.json",
        "versions.json",
        "metrics.jsonl",
        "events.out",
        "report.md",
        "curves.png",
        "confusion.png",
        "mistakes.png",
        "predictions.csv",
        "checkpoints",
        "model.safetensors",
        "card.md",
    }
    history = records(uninterrupted)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[-1]["step"] == 3 * (1437 // 64)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["val_accuracy"] > 0.2  # chance is 0.1
    picture = np.asarray(Image.open(uninterrupted / "curves.png").convert("L"))
    assert picture.std() > 5  # something is drawn
    assert f"{history[-1]['val_accuracy']:.2%}" in (uninterrupted / "card.md").read_text()

    model = zoo.load(str(uninterrupted / "model.safetensors"))
    assert model.classes == tuple("0123456789")
    assert model.preprocess.size == 16


def test_the_same_run_twice_is_the_same(uninterrupted, tmp_path):
    fit(config(tmp_path / "again", epochs=3))
    assert_same(uninterrupted, tmp_path / "again")
    one, other = (out / "model.safetensors" for out in (uninterrupted, tmp_path / "again"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "step", [10, 22, 30]
)  # of 22 an epoch: in the first, at its end, in the second
def test_told_to_stop_it_continues_bit_for_bit(uninterrupted, tmp_path, stop_before, step):
    out = tmp_path / "run"
    stop_before(step)
    with pytest.raises(Interrupted, match=f"stopped after step {step}; the same command"):
        fit(config(out, epochs=3))
    assert not (out / "model.safetensors").exists()
    result = fit(config(out, epochs=3))
    assert_same(uninterrupted, out)
    assert len(result.history) == 3


EVERYTHING = {
    "optimizer": "rmsprop",
    "schedule": "step",
    "clip_norm": 1.0,
    "ema": 0.9,
    "accumulate": 2,
    "label_smoothing": 0.1,
    "class_weights": True,
    "rotate": 10.0,
    "noise": 0.05,
    "erase": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "crop_scale": 0.5,
    "sync_bn": True,
    "image_size": 8,  # what moves and covers pixels is slow
}


def test_it_continues_bit_for_bit_with_everything_on(tmp_path, stop_before):
    fit(config(tmp_path / "whole", **EVERYTHING))
    stop_before(27)
    with pytest.raises(Interrupted):
        fit(config(tmp_path / "run", **EVERYTHING))
    fit(config(tmp_path / "run", **EVERYTHING))
    assert_same(tmp_path / "whole", tmp_path / "run")


# --- a run that is over


def as_it_was(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and what it holds."""
    return {
        f"{path.relative_to(folder)}": (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_finished_run_stays_as_it_is(uninterrupted, capsys):
    before = as_it_was(uninterrupted)
    result = fit(config(uninterrupted, epochs=3))
    assert as_it_was(uninterrupted) == before
    assert capsys.readouterr().err == f"finished: {uninterrupted} has all of its 3 epochs\n"
    assert result.accuracy == records(uninterrupted)[-1]["val_accuracy"]
    assert [record["epoch"] for record in result.history] == [1, 2, 3]
    assert result.model.classes == tuple("0123456789")


def test_what_is_missing_of_a_finished_run_is_made_again(uninterrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    (out / "model.safetensors").unlink()
    (out / "metrics.jsonl").unlink()
    fit(config(out, epochs=3))
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_longer_run_is_another(uninterrupted, capsys):
    arguments = ["train", "tiny", "--image-size", "16", "--batch-size", "64"]
    line = refused(capsys, *arguments, "--epochs", "5", "--out", str(uninterrupted))
    assert re.search(r"holds a finished run of 3 epochs, asked for 5: its learning rate has", line)
    command = line.rpartition(": ")[2]
    assert command == (
        f"zoo train tiny --data digits --out {uninterrupted}-2 --epochs 2 --batch-size 64 "
        f"--image-size 16 --weights {uninterrupted}/model.safetensors"
    )


def test_the_command_that_goes_on_from_a_finished_run_works(uninterrupted, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    arguments = ["train", "tiny", "--image-size", "16", "--batch-size", "64"]
    line = refused(capsys, *arguments, "--epochs", "4", "--out", str(out))
    main(shlex.split(line.rpartition(": ")[2])[1:])
    before, (after,) = records(uninterrupted), records(tmp_path / "run-2")
    assert after["val_loss"] < before[0]["val_loss"]


def test_an_unfinished_run_of_other_epochs(uninterrupted, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    (out / "report.md").unlink()
    arguments = ["train", "tiny", "--image-size", "16", "--batch-size", "64"]
    line = refused(capsys, *arguments, "--epochs", "5", "--out", str(out))
    assert "holds a run of 3 epochs that is not over, asked for 5" in line
    assert "finish it with --epochs 3, or choose another --out" in line


def test_the_best_epoch_is_kept(tmp_path, uninterrupted, monkeypatch):
    run = evaluation.run
    accuracies = iter((0.3, 0.9, 0.9, 0.5))

    def measured(*args):
        return replace(run(*args), accuracy=next(accuracies))

    out = tmp_path / "best"
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "run", measured)
        result = fit(config(out, epochs=4, keep="best", schedule="constant", warmup=0, ema=0.5))
    assert result.accuracy == 0.9
    kept = Checkpoints(out / "checkpoints").read(2 * STEPS)
    assert any(name.startswith("ema/") for name in kept.arrays)
    for name, value in tensors(out).items():
        np.testing.assert_array_equal(value, kept.weights[name], err_msg=name)
        np.testing.assert_array_equal(
            nnx_arrays(result.model)[name], kept.weights[name], err_msg=name
        )
    assert "| validation accuracy, epoch 2 | 90.00%" in (out / "card.md").read_text()

    for epoch, step in (("best", 2), ("last", 4), ("3", 3)):
        main(["export", str(out), str(tmp_path / "e.safetensors"), "--epoch", epoch])
        want = Checkpoints(out / "checkpoints").read(step * STEPS).weights
        got = load_file(tmp_path / "e.safetensors")
        assert got.keys() == want.keys()
        assert all(np.array_equal(got[name], want[name]) for name in want), epoch
    assert zoo.load(str(tmp_path / "e.safetensors")).classes == tuple("0123456789")


def nnx_arrays(model) -> dict[str, np.ndarray]:
    return saving.pack(model)[0]


def test_an_epoch_that_is_not_kept(uninterrupted, tmp_path, capsys):
    line = refused(
        capsys, "export", str(uninterrupted), str(tmp_path / "e.safetensors"), "--epoch", "7"
    )
    assert re.search(
        r"--epoch: got '7', expected best, last or one of those kept: (1, )?2, 3", line
    )
    model = str(uninterrupted / "model.safetensors")
    line = refused(capsys, "export", model, str(tmp_path / "e.safetensors"), "--epoch", "best")
    assert line.endswith("expected the folder of a run")


# --- what a run is made of


def test_a_run_on_other_data_is_refused(capsys, photos, tmp_path):
    arguments = ["train", "tiny", "--data", f"folder:{photos}", "--image-size", "16"]
    arguments += ["--batch-size", "8", "--epochs", "1", "--out", str(tmp_path / "run")]
    main(arguments)
    capsys.readouterr()
    before = as_it_was(tmp_path / "run")
    (photos / "dog").rename(photos / "ant")
    line = refused(capsys, *arguments)
    assert "is a run on other data (class 'dog' is now 'ant'): bring those back, or train" in line
    assert as_it_was(tmp_path / "run") == before
    main(shlex.split(line.rpartition(": ")[2])[1:])
    assert zoo.load(str(tmp_path / "run-2" / "model.safetensors")).classes == ("ant", "cat")


def test_an_interrupted_run_on_other_data_is_refused(capsys, photos, tmp_path, stop_before):
    arguments = ["train", "tiny", "--data", f"folder:{photos}", "--image-size", "16"]
    arguments += ["--batch-size", "8", "--epochs", "3", "--out", str(tmp_path / "run")]
    stop_before(3)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 75
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "6.png")
    line = refused(capsys, *arguments)
    assert "is a run on other data (1 picture more in class 'cat')" in line
    for command in line.partition("from its weights: ")[2].split(" && "):
        main(shlex.split(command)[1:])
    assert [line["epoch"] for line in records(tmp_path / "run-2")] == [1, 2, 3]


def test_other_versions_are_said(uninterrupted, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    versions = json.loads((out / "versions.json").read_text())
    assert versions.keys() == {"zoo", "jax", "flax", "optax"}
    (out / "versions.json").write_text(json.dumps({**versions, "jax": "0.1"}))
    (out / "report.md").unlink()
    fit(config(out, epochs=3))
    told = capsys.readouterr().err.splitlines()
    assert f"{out} was begun with jax 0.1: a result may differ in its last digits" in told


@pytest.mark.parametrize("name", ["config.json", "data.json", "rollback.json"])
@pytest.mark.parametrize("content", [b"", b'{"epo', b"[1]", b"\xff\x00", b"[" * 9999, b'{"a": 1}'])
def test_a_damaged_file_of_a_run_is_named(uninterrupted, tmp_path, capsys, name, content):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    (out / "report.md").unlink()
    (out / name).write_bytes(content)
    before = as_it_was(out)
    arguments = ["train", "tiny", "--image-size", "16", "--batch-size", "64", "--epochs", "3"]
    line = refused_last(capsys, *arguments, "--out", str(out))
    if content != b'{"a": 1}':
        assert f"{out / name} is damaged (" in line
    assert as_it_was(out) == before


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b'{"epoch": 1, "step": 22}\n{"ep'])
def test_damaged_metrics_of_a_finished_run(uninterrupted, tmp_path, capsys, content):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    (out / "metrics.jsonl").write_bytes(content)
    arguments = ["train", "tiny", "--image-size", "16", "--batch-size", "64", "--epochs", "3"]
    line = refused_last(capsys, *arguments, "--out", str(out))
    assert f"{out / 'metrics.jsonl'} is damaged, expected a record of each of 3 epochs" in line
    if not content:
        (out / "report.md").unlink()  # as the line says
        main([*arguments, "--out", str(out)])
        assert records(out) == records(uninterrupted)


def refused_last(capsys, *arguments: str) -> str:
    """The last line that `zoo` ends with, after others."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# --- one run at a time


def test_a_second_run_in_the_same_folder_is_refused(uninterrupted, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    (out / "report.md").unlink()
    (out / ".report.md.0123abcd").write_text("half")  # of a process that was killed
    arguments = ["train", "tiny", "--image-size", "16", "--batch-size", "64", "--epochs", "3"]
    with folder.held(out):
        line = refused(capsys, *arguments, "--out", str(out))
    assert line.endswith(
        f"another process is at work in {out}: wait until it ends, or choose another --out"
    )
    main([*arguments, "--out", str(out)])


def test_of_two_that_begin_at_once_one_is_refused(tmp_path, capsys, monkeypatch):
    build_, other = fitting.build, contextlib.ExitStack()

    def build(*args):
        (tmp_path / "run").mkdir()  # by another, meanwhile
        other.enter_context(folder.held(tmp_path / "run"))
        return build_(*args)

    monkeypatch.setattr(fitting, "build", build)
    with other, pytest.raises(ZooError, match="another process is at work in"):
        fit(config(tmp_path / "run"))
    assert files_of(tmp_path / "run") == set()


def test_shard_map_trains_the_same_network(uninterrupted, tmp_path):
    fit(config(tmp_path, epochs=3, engine="shard_map"))
    x, y = tensors(uninterrupted), tensors(tmp_path)
    assert max(float(np.abs(x[name] - y[name]).max()) for name in x) < 1e-4


# --- fine-tuning


@pytest.fixture
def pretrained(uninterrupted):
    return str(uninterrupted / "model.safetensors")


def test_the_head_alone_changes_nothing_else(pretrained, tmp_path):
    settings = {**FINETUNE, "epochs": 2, "head_epochs": 2, "batch_size": 64}
    fit(config(tmp_path, weights=pretrained, **settings))
    before, after = load_file(pretrained), tensors(tmp_path)
    for name in before:
        assert np.array_equal(before[name], after[name]) != name.startswith("classifier."), name


def test_then_the_whole_network_but_no_frozen_statistics(pretrained, tmp_path):
    settings = {**FINETUNE, "epochs": 2, "head_epochs": 1, "batch_size": 64}
    result = fit(config(tmp_path, weights=pretrained, **settings))
    before, after = load_file(pretrained), tensors(tmp_path)
    for name in before:
        statistic = name.endswith((".mean", ".var"))
        assert np.array_equal(before[name], after[name]) == statistic, name
    assert result.accuracy > records(Path(pretrained).parent)[-1]["val_accuracy"] - 0.1


def test_frozen_stages_stay_as_they_were(pretrained, tmp_path):
    fit(config(tmp_path, weights=pretrained, freeze="stem", lr_mult="conv2=0.5", epochs=1))
    before, after = load_file(pretrained), tensors(tmp_path)
    for name in before:
        assert np.array_equal(before[name], after[name]) == name.startswith("body.stem."), name


def test_fine_tuning_resumes_in_its_second_phase(pretrained, tmp_path, stop_before):
    settings = {**FINETUNE, "epochs": 3, "head_epochs": 1, "batch_size": 64, "weights": pretrained}
    fit(config(tmp_path / "whole", **settings))
    stop_before(30)
    with pytest.raises(Interrupted):
        fit(config(tmp_path / "run", **settings))
    fit(config(tmp_path / "run", **settings))
    assert_same(tmp_path / "whole", tmp_path / "run")


# --- bad input: one line, exit code 2, nothing written


@pytest.fixture
def photos(tmp_path):
    """Two classes of three noisy pictures."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def refused(capsys, *arguments: str) -> str:
    """The line that `zoo` ends with."""
    capsys.readouterr()  # what fixtures printed
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["mobilenet_v1_25"], "unknown model 'mobilenet_v1_25': did you mean .*'mobilenet_v1_025'"),
        (["tiny", "--data", "digit"], "unknown dataset 'digit': did you mean 'digits'"),
        (["tiny", "--data", "folder:nowhere"], "nowhere does not exist"),
        (["tiny", "--batch-size", "30"], "8 devices cannot share out 30 evenly: .* 24 or 32"),
        (["tiny", "--batch-size", "1440"], "got 1440, expected at most the 1437 training"),
        (["tiny", "--image-size", "4"], "tiny: got images of 4x4, expected .* >= 8"),
        (["tiny", "--epochs", "0"], "epochs: got 0, expected 1 to"),
        (["tiny", "--weights", "no.safetensors"], "no file no.safetensors"),
        (["tiny", "--dropout", "1.5"], "dropout: got 1.5, expected 0 to 0.99"),
    ],
)
def test_bad_settings(capsys, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert re.search(line, refused(capsys, "train", *arguments, "--out", "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refused(
        capsys, "train", "tiny", "--data", f"folder:{tmp_path}/empty", "--out", f"{tmp_path}/run"
    )
    assert "holds no images" in line
    assert not (tmp_path / "run").exists()


def test_a_single_class(capsys, photos, tmp_path):
    for file in (photos / "dog").iterdir():
        file.unlink()
    (photos / "dog").rmdir()
    line = refused(
        capsys, "train", "tiny", "--data", f"folder:{photos}", "--out", f"{tmp_path}/run"
    )
    assert "single class, 'cat': a classifier needs at least 2" in line


def test_an_unreadable_picture_is_named_or_skipped(capsys, photos, tmp_path):
    (photos / "cat" / "broken.jpg").write_bytes(b"no picture")
    arguments = ["train", "tiny", "--data", f"folder:{photos}", "--image-size", "16"]
    arguments += ["--batch-size", "8", "--epochs", "1", "--out", str(tmp_path / "run")]
    line = refused(capsys, *arguments)
    assert "1 of 13 images" in line
    assert "broken.jpg" in line
    assert "--skip-unreadable" in line
    assert not (tmp_path / "run").exists()
    main([*arguments, "--skip-unreadable"])
    assert "| left out as unreadable | 1 |" in (tmp_path / "run" / "card.md").read_text()


def test_the_folder_of_another_run(capsys, uninterrupted):
    before = tensors(uninterrupted)
    line = refused(
        capsys, "train", "tiny", "--epochs", "3", "--image-size", "16", "--batch-size", "64",
        "--seed", "7", "--out", str(uninterrupted),
    )  # fmt: skip
    assert "holds another run (seed 0 there, 7 asked)" in line
    assert tensors(uninterrupted).keys() == before.keys()


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(capsys, "train", "tiny", "--out", str(tmp_path / "file" / "run"))
    assert "file" in line
    line = refused(capsys, "train", "tiny", "--out", str(tmp_path / "file"))
    assert "is a file, expected a folder" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(capsys, tmp_path):
    tmp_path.chmod(0o500)
    line = refused(capsys, "train", "tiny", "--out", str(tmp_path / "run"))
    assert "no permission to write" in line


# --- the command itself, killed


# On one device, compiled as for users; `kills.COMMAND` is `python -m training` with "tiny" in it.


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return kills.Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def command_whole(job, tmp_path_factory):
    out = tmp_path_factory.mktemp("command") / "whole"
    assert job.finish(job.start(out)) == [(0, ANY)]
    return out


# tests/test_survival.py stops runs by SIGTERM too, within this process
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_killed_and_started_again(job, command_whole, tmp_path, number):
    out = tmp_path / "run"
    (process,) = job.start(out)
    while process.poll() is None and not list(out.glob("checkpoints/[0-9]*[0-9]")):
        time.sleep(0.01)  # until the first epoch is saved
    process.send_signal(number)
    ((code, errors),) = job.finish([process])
    assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    if number == signal.SIGTERM:
        assert "the same command continues the run" in errors
    assert not (out / "model.safetensors").exists()

    ((code, errors),) = job.finish(job.start(out))
    assert code == 0, errors
    assert "continuing" in errors
    assert_same(command_whole, out)
