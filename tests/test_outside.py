"""A stranger's package, installed from a wheel: a network, a dataset, a loss and a callback."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

import zoo
from training import doors
from training.config import TrainConfig
from training.sources import open_dataset
from zoo.errors import ZooError

PACKAGE = '''"""Blobs: pictures of two colours, a network for them, a loss and a reason to stop."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from zoo.layers import Conv, GlobalAvgPool, Network

PAPER = zoo.Paper(
    "Blobs", "Doe", 2026, "https://example.org/blobs", new="Two layers tell red from blue."
)


def blob_net(ctx):
    """Two convolutions."""
    body = dict(
        stem=Conv(3, 8, stride=2),  # 8x8
        conv2=Conv(3, 16, stride=2),  # 4x4
    )
    return Network(body, dict(pool=GlobalAvgPool()), ctx, min_size=8)


def blobs(path):
    """64 pictures, red and blue in turn; PATH is their side in pixels."""
    side = int(path or 16)
    rng = np.random.default_rng(0)
    labels = np.array(["red", "blue"])[np.arange(64) % 2]
    images = rng.integers(0, 60, (64, side, side, 3), np.uint8)
    images[labels == "red", ..., 0] += 150
    images[labels == "blue", ..., 2] += 150
    return images, labels


def squared(logits, targets):
    """Brier's score."""
    return jnp.square(nnx.softmax(logits) - targets).sum(-1)


class Patience:
    """Stops once the loss is low enough."""

    def __init__(self, loss):
        self.loss = loss

    def __call__(self, record):
        return record["val_loss"] < self.loss


def register():
    """What the entry point calls."""
    zoo.register(zoo.Variant("blob_net", blob_net, PAPER, input_size=16))
    zoo.register_dataset("blobs", blobs)
    zoo.register_loss("squared", squared)
'''

SCRIPT = """
import blobs, zoo
from training.sources import open_dataset

config = zoo.TrainConfig(
    "blob_net", data="blobs", loss="squared", epochs=3, batch_size=16, shift=0, out="stopped"
)
result = zoo.fit(config, callbacks=[blobs.Patience(10.0)])
assert len(result.history) == 1, result.history
assert zoo.count("blob_net", num_classes=2).params == 1450
model = zoo.load("run/model.safetensors")
assert model.classes == ("blue", "red")
print(zoo.evaluate("run", "blobs").accuracy)
"""


def wheel(folder):
    """The package as a wheel."""
    path = folder / "blobs-1.0-py3-none-any.whl"
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: blobs\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "[zoo.plugins]\nblobs = blobs:register\n",
    }
    files = {"blobs.py": PACKAGE, **{f"blobs-1.0.dist-info/{k}": v for k, v in info.items()}}
    record = "".join(f"{name},,\n" for name in files) + "blobs-1.0.dist-info/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, "blobs-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return path


def test_a_package_of_a_stranger(tmp_path):
    assert len(PACKAGE.splitlines()) <= 70
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(site), str(wheel(tmp_path))], check=True)
    path = os.pathsep.join(map(str, (site, ROOT)))
    env = {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": ""}

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], env=env, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    train = ["train", "blob_net", "--data", "blobs:16", "--loss", "squared", "--epochs", "3"]
    told = run("-m", "training", *train, "--batch-size", "16", "--shift", "0", "--out", "run")
    assert "validation accuracy" in told
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert (stored["model"], stored["data"], stored["loss"]) == ("blob_net", "blobs:16", "squared")
    assert " nats" not in (tmp_path / "run/report.md").read_text()
    assert float(run("-c", SCRIPT)) > 0.9


# --- names ---------------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch):
    """What a test registers is forgotten after it."""
    for known in ("_datasets", "_losses"):
        monkeypatch.setattr(doors, known, {})


def nothing(*_):
    return None


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("door", "name", "value", "told"),
    [
        (doors.register_dataset, "digits", nothing, "dataset: the name 'digits' is taken"),
        (doors.register_loss, "sigmoid", nothing, "loss: the name 'sigmoid' is taken"),
        (doors.register_loss, "a:b", nothing, "loss: got the name 'a:b', expected letters"),
        (doors.register_loss, 3, nothing, "loss: got the name 3, expected letters"),
        (doors.register_dataset, "mine", "path", "dataset 'mine': got str, expected a function"),
    ],
)
def test_names_that_cannot_be(door, name, value, told):
    with pytest.raises(ZooError, match=told):
        door(name, value)


@pytest.mark.usefixtures("names")
def test_names_are_known_where_names_are(monkeypatch):
    with pytest.raises(ZooError, match="unknown loss 'mine': expected one of sigmoid, softmax"):
        TrainConfig(loss="mine")
    zoo.register_loss("mine", nothing)
    zoo.register_loss("mine", nothing)  # the same again: a module that is imported twice
    assert TrainConfig(loss="mine").loss == "mine"
    with pytest.raises(ZooError, match="unknown loss 'min': did you mean 'mine'"):
        TrainConfig(loss="min")
    zoo.register_dataset("mine", nothing)
    with pytest.raises(ZooError, match="data: got NoneType, expected a training"):
        open_dataset("mine:path")
    with pytest.raises(ZooError, match="unknown dataset 'mined': did you mean 'mine'"):
        open_dataset("mined")
    with pytest.raises(ZooError, match="dataset: the name 'mine' is taken"):
        zoo.register_dataset("mine", print)
