"""Measuring counts every picture once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from training import evaluate
from training.data import open_dataset
from training.evaluation import _chosen, interval
from training.numbering import outputs_of
from training.objective import Objective
from zoo.errors import ZooError
from zoo.preprocess import Preprocess
from zoo.pretrained.catalogue import imagenet_classes, imagenet_synsets


@pytest.fixture
def model(tiny):
    model = zoo.create("tiny", num_classes=10)
    model.preprocess = Preprocess(size=16, resize=None)
    return model


@pytest.mark.parametrize("engine", ["pmap", "shard_map"])
@pytest.mark.parametrize("batch_size", [56, 64])  # neither divides 360
def test_equals_what_the_network_says_picture_by_picture(model, engine, batch_size):
    val = open_dataset("digits").val
    logits = np.asarray(model(model.preprocess([example["image"] for example in val])))
    labels = np.array([example["label"] for example in val])
    own = logits[np.arange(360), labels]
    losses = np.log(np.exp(logits).sum(-1)) - own

    result = evaluate(model, "digits", batch_size=batch_size, engine=engine)
    assert result.count == 360
    assert result.accuracy == pytest.approx((logits.argmax(-1) == labels).mean(), abs=1e-6)
    assert result.top5 == pytest.approx(((logits > own[:, None]).sum(-1) < 5).mean(), abs=1e-6)
    assert result.loss == pytest.approx(losses.mean(), rel=1e-4)


def test_ties_and_nan_are_no_luck():
    def hits(logits) -> tuple[float, float]:
        logits = jnp.array(logits, jnp.float32)
        labels = jnp.arange(len(logits))
        sums = Objective(7).measure(logits, labels, jnp.ones(len(labels)))
        return float(sums["correct"]), float(sums["top5"])

    assert hits(np.zeros((7, 7))) == (1, 5)  # argmax says class 0, top 5 the first five
    assert hits(np.full((7, 7), np.nan)) == (0, 0)
    assert hits(np.eye(7)) == (7, 7)
    assert hits(-np.eye(7)) == (0, 0)


def test_training_split(model):
    assert evaluate(model, "digits", split="train", batch_size=512).count == 1437


def outputs(model, classes) -> np.ndarray | None:
    return outputs_of(model, replace(open_dataset("digits"), classes=tuple(classes)))


def test_other_classes_are_refused(model):
    with pytest.raises(ZooError, match="tiny has 10 classes, the dataset 3"):
        outputs(model, "abc")
    model.classes = tuple("0123456789")
    with pytest.raises(ZooError, match="tiny does not know 1 of the dataset's 10 classes: x; it"):
        outputs(model, "012345678x")
    assert outputs(model, "0123456789") is None


def test_classes_are_found_by_name(model):
    model.classes = tuple("0123456789")
    np.testing.assert_array_equal(outputs(model, "9876543210"), np.arange(9, -1, -1))
    np.testing.assert_array_equal(outputs(model, "72"), [7, 2])


@pytest.mark.parametrize("background", [(), ("background",)])
def test_folders_of_imagenet_are_known_by_their_synsets(tiny, background):
    classes = background + imagenet_classes()
    model = zoo.create("tiny", num_classes=len(classes))
    model.classes = classes
    tench, springer = outputs(model, ["n01440764", "n02102040"]) - len(background)
    assert (tench, springer) == (0, 217)
    assert (outputs(model, imagenet_synsets()) is None) == (not background)


def test_pictures_of_some_classes_are_ranked_among_all(model, tmp_path):
    draw(tmp_path / "val", "ba", 4)
    model.classes = tuple("0b2345a789")
    logits = np.asarray(model(model.preprocess(sorted((tmp_path / "val").glob("*/*.png")))))
    labels = np.repeat([6, 1], 4)
    result = evaluate(model, f"folder:{tmp_path}/val")
    assert result.accuracy == (logits.argmax(-1) == labels).mean()
    log_sums = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    assert result.loss == pytest.approx((log_sums - logits[range(8), labels]).mean(), rel=1e-4)
    assert result.which == "all 8; 2 of the network's 10 classes"


# --- which pictures


def draw(folder: Path, names: str, count: int) -> None:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (20 * i, 100 * (name == "a"), 0)).save(
                folder / name / f"{i}.png"
            )


@pytest.fixture
def run_folder(tiny, tmp_path):
    """A run's folder, whose model was trained on 8 of 10 pictures of each class in `seen`."""
    draw(tmp_path / "seen", "ab", 10)
    model = zoo.create("tiny", num_classes=2)
    model.preprocess, model.classes = Preprocess(size=16, resize=None), ("a", "b")
    out = tmp_path / "run"
    out.mkdir()
    zoo.save(model, out / "model.safetensors")
    settings = {"data": f"folder:{tmp_path}/seen", "val_fraction": 0.3}
    (out / "config.json").write_text(json.dumps(settings))
    record = open_dataset(settings["data"], val_fraction=0.3).record
    (out / "data.json").write_text(json.dumps(record))
    return out


def which(run: Path, data: Path | str, split: str | None = None, share: float | None = None) -> str:
    dataset = open_dataset(f"folder:{data}", val_fraction=None)
    source, words = _chosen(dataset, split, run, share)
    assert f"{len(source):,}" in words
    return words


def test_what_a_run_held_out_is_what_its_model_is_measured_on(run_folder, monkeypatch):
    seen = run_folder.parent / "seen"
    result = evaluate(run_folder / "model.safetensors", f"folder:{seen}")
    assert (result.count, result.which) == (6, "6 of 20, val (what its run held out)")
    assert result.data == "data: 2 classes, 20 pictures"
    moved = seen.rename(run_folder.parent / "moved")
    assert evaluate(run_folder, f"folder:{moved}").which == result.which
    assert which(run_folder, moved, "train") == "14 of 20, train (what its run held out)"
    assert which(run_folder, moved, "all") == "all 20"
    monkeypatch.chdir(moved)
    (run_folder / "data.json").unlink()  # a run from before there were records
    (run_folder / "config.json").write_text('{"data": "folder:.", "val_fraction": 0.3}')
    assert which(run_folder, ".") == "6 of 20, val (what its run held out)"


def test_other_pictures_are_all_measured_on(run_folder):
    new = run_folder.parent / "new"
    draw(new, "ab", 5)
    assert which(run_folder, new) == "all 10"
    assert which(run_folder, new, "val") == "2 of 10, val (0.2 of each class held out)"
    assert which(run_folder, new, "val", 0.4) == "4 of 10, val (0.4 of each class held out)"
    for path in new.rglob("[1-4].png"):
        path.unlink()  # one picture of each class is enough here
    assert which(run_folder, new) == "all 2"
    (run_folder / "config.json").write_text("no JSON")
    assert which(run_folder, run_folder.parent / "seen") == "all 20"


def test_data_that_changed_since_the_run_are_said(run_folder):
    draw(run_folder.parent / "seen", "ab", 15)
    assert which(run_folder, run_folder.parent / "seen") == (
        "8 of 30, val (but its run had other data, so it may know some:"
        " 5 pictures more in class 'a'; 5 pictures more in class 'b')"
    )


def test_splits_of_the_data_themselves(run_folder):
    root = run_folder.parent / "parted"
    for split, count in (("Train", 4), ("valid", 3), ("test", 2)):
        draw(root / split, "ab", count)
    told = [which(run_folder, root, split) for split in (None, "all", "train", "val", "test")]
    assert told == ["6 of 18, val", "all 18", "8 of 18, train", "6 of 18, val", "4 of 18, test"]
    shutil.rmtree(root / "valid")
    assert which(run_folder, root) == "4 of 12, val"
    assert which(run_folder, root, "test") == "4 of 12, test"
    with pytest.raises(ZooError, match="has no test split: expected all, train or val"):
        which(run_folder, root / "Train", "test")
    with pytest.raises(ZooError, match="unknown split 'vall': did you mean 'val'"):
        evaluate(run_folder, f"folder:{root}", split="vall")


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (354, 360, 0.9641, 0.9923),
        (20, 20, 1 - 0.1611, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilsons_interval(correct, count, low, high):
    assert interval(correct, count) == pytest.approx((low, high), abs=5e-5)


def test_no_interval():
    with pytest.raises(ZooError, match="got 5 of 4, expected 0 to 4"):
        interval(5, 4)
