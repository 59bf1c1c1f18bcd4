"""Whole runs of a tiny network, and of the command: what they leave, and how they survive."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import assert_same, files_of, records, tensors
from safetensors.numpy import load_file

import zoo
from training import Interrupted, TrainConfig, fit
from training.cli import main
from training.config import FINETUNE
from training.parallel import Devices

pytestmark = pytest.mark.usefixtures("tiny")


def config(out: Path, **settings) -> TrainConfig:
    defaults = {"model": "tiny", "epochs": 2, "image_size": 16, "batch_size": 64}
    return TrainConfig(**{**defaults, "out": str(out), **settings})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where a run that nothing interrupted lies; made by the first test that asks."""
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture
def uninterrupted(whole):
    if not whole.exists():
        fit(config(whole, epochs=3))
    return whole


def test_a_run_leaves_all_it_promises(uninterrupted):
    assert files_of(uninterrupted) == {
        "config.json",
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
}


def test_it_continues_bit_for_bit_with_everything_on(tmp_path, stop_before):
    fit(config(tmp_path / "whole", **EVERYTHING))
    stop_before(27)
    with pytest.raises(Interrupted):
        fit(config(tmp_path / "run", **EVERYTHING))
    fit(config(tmp_path / "run", **EVERYTHING))
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_finished_run_trains_no_more(uninterrupted, monkeypatch):
    before = records(uninterrupted)
    shard = Devices.shard

    def measure_only(self, batch):
        assert "weight" in batch, "took another step"
        return shard(self, batch)

    monkeypatch.setattr(Devices, "shard", measure_only)
    result = fit(config(uninterrupted, epochs=3))
    assert records(uninterrupted) == before
    assert result.accuracy == before[-1]["val_accuracy"]


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


COMMAND = [
    *(sys.executable, "-c", "import sys; from training.cli import main; main(sys.argv[1:])"),
    *("train", "mobilenet_v1_025", "--data", "digits", "--image-size", "32"),
    *("--epochs", "4", "--batch-size", "128"),
]


def start(out: Path) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # one device
    return subprocess.Popen([*COMMAND, "--out", str(out)], env=environment, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def command_whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("command") / "whole"
    process = start(out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_and_started_again(command_whole, tmp_path, number):
    out = tmp_path / "run"
    process = start(out)
    while process.poll() is None and not list(out.glob("checkpoints/[0-9]*[0-9]")):
        time.sleep(0.01)  # until the first epoch is saved
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    if number == signal.SIGTERM:
        assert "the same command continues the run" in errors.decode()
    assert not (out / "model.safetensors").exists()

    process = start(out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    assert "continuing" in errors.decode()
    assert_same(command_whole, out)
