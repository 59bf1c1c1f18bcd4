"""What Python gives a run in place of a setting, and pictures of several classes."""

import csv
import json
import re
from dataclasses import replace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from runs import records

import zoo
from training import Interrupted, TrainConfig, evaluate, fit
from training.cli import main
from training.objective import LOSSES, Objective
from training.objects import Objects
from training.session import Session
from training.sources.own import own_dataset
from zoo.errors import ZooError

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES = 3


class Net(nnx.Module):
    """A stranger's: plain Flax, nothing of the zoo's."""

    def __init__(self, classes: int = CLASSES, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.out(self.drop(x.mean((1, 2))))


def picture(label: int, rng) -> np.ndarray:
    """A picture whose colour is its class."""
    image = rng.integers(0, 60, (16, 16, 3), np.uint8)
    image[..., label] += 150
    return image


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % CLASSES
    return np.stack([picture(label, rng) for label in labels]), labels


def config(out, **settings) -> TrainConfig:
    """Batch norm sees all devices' pictures: it would see one, whose colour it takes away."""
    own = {"epochs": 2, "batch_size": 8, "shift": 0, "out": str(out), "sync_bn": True}
    return TrainConfig(**{**own, **settings})


def squared(logits, targets):
    return jnp.square(jax.nn.softmax(logits) - targets).sum(-1)


def surest(logits, targets):
    return jax.nn.softmax(logits).max(-1)


def untouched(images, key):
    return images


def to_grey(images, key):
    return jnp.broadcast_to(images.mean(-1, keepdims=True).astype(jnp.uint8), images.shape)


# --- each object does what it is for -------------------------------------------------------------


def test_everything_at_once(arrays, tmp_path):
    seen: list[dict] = []
    net = Net(rngs=nnx.Rngs(0))
    result = fit(
        config(tmp_path / "run", epochs=6),
        model=net,
        data=arrays,
        optimizer=optax.adamw,
        schedule=optax.constant_schedule(0.03),
        loss=squared,
        augment=untouched,
        metrics={"surest": surest},
        callbacks=[seen.append],
    )
    assert result.model is net
    assert result.accuracy > 0.9
    assert [record["epoch"] for record in seen] == [1, 2, 3, 4, 5, 6]
    assert seen == result.history
    assert seen[-1]["learning_rate"] == pytest.approx(0.03)
    assert 1 / CLASSES < seen[-1]["val_surest"] <= 1
    named = json.loads((tmp_path / "run/config.json").read_text())["objects"]
    for part in ("model=test_objects.Net", "loss=test_objects.squared", "metrics.surest="):
        assert part in named
    text = (tmp_path / "run/report.md").read_text()
    assert "zoo.fit(" in text
    assert "| surest |" in text
    assert f"| loss | {result.history[-1]['val_loss']:.4f} |" in text  # not nats

    again = Net(rngs=nnx.Rngs(1))
    zoo.restore(again, tmp_path / "run/model.safetensors")
    x = jnp.ones((1, 16, 16, 3))
    again.eval()
    np.testing.assert_array_equal(again(x), net(x))
    x, y = arrays
    assert zoo.evaluate(again, (x, y)).accuracy > 0.9
    assert zoo.evaluate(again, (x, y)).count == 60
    with pytest.raises(ZooError, match=r"holds 'test_objects.Net', .* call zoo.restore"):
        zoo.load(str(tmp_path / "run/model.safetensors"))
    with pytest.raises(ZooError, match=r"does not fit Net: out.bias is float32 \[3\] in the file"):
        zoo.restore(Net(4, rngs=nnx.Rngs(0)), tmp_path / "run/model.safetensors")


def test_a_broken_run_goes_on_bit_for_bit_with_the_same_objects_alone(arrays, tmp_path):
    def run(out, **more):
        return fit(
            config(out, epochs=3),
            model=Net(rngs=nnx.Rngs(0)),
            data=arrays,
            **{"loss": squared, "optimizer": optax.adam(0.01), **more},
        )

    whole = run(tmp_path / "whole")
    assert "learning_rate" not in whole.history[0]  # the optimizer's own

    def interrupt(record):
        if record["epoch"] == 2:
            raise Interrupted("now")

    broken = tmp_path / "broken"
    with pytest.raises(Interrupted):
        run(broken, callbacks=[interrupt])
    config_file = broken / "config.json"
    stored = json.loads(config_file.read_text())
    stored["objects"] = stored["objects"].partition(", callbacks=")[0]
    config_file.write_text(json.dumps(stored))

    with pytest.raises(ZooError, match=r"loss=test_objects\.squared.* there"):
        run(broken, loss=None)
    with pytest.raises(ZooError, match=r"holds another run .*objects 'model=test_objects\.Net"):
        fit(config(broken, epochs=3))
    run(broken)
    assert records(broken) == records(tmp_path / "whole")
    same = [(d / "model.safetensors").read_bytes() for d in (broken, tmp_path / "whole")]
    assert same[0] == same[1]


def test_augmentation_is_what_was_given(arrays, tmp_path, tiny):
    grey = fit(config(tmp_path / "grey", model="tiny"), data=arrays, augment=to_grey)
    plain = fit(config(tmp_path / "plain", model="tiny"), data=arrays, augment=untouched)
    # colour is all that there is to learn
    assert grey.history[-1]["train_loss"] > plain.history[-1]["train_loss"]
    with pytest.raises((ZooError, TypeError), match="float32"):
        fit(
            config(tmp_path / "float", model="tiny"),
            data=arrays,
            augment=lambda images, key: images / 255,
        )


def test_a_callback_ends_the_run(arrays, tmp_path, tiny, capsys):
    def run():
        return fit(
            config(tmp_path, model="tiny", epochs=5),
            data=arrays,
            callbacks=[lambda record: record["epoch"] == 2],
        )

    assert len(run().history) == 2
    assert "stopped after epoch 2: " in capsys.readouterr().err
    assert len(run().history) == 2  # it is over
    assert "has all of its 2 epochs" in capsys.readouterr().err


def test_patience_is_a_setting(arrays, tmp_path, tiny):
    stuck = config(tmp_path, model="tiny", epochs=9, patience=2, learning_rate=0.0, warmup=0.0)
    history = fit(stuck, data=arrays).history
    assert len(history) == 3  # the first is the best, and stays it
    assert history[-1]["stopped"] == "no better val_accuracy in 2 epochs"


def test_stages_of_a_module(arrays, tmp_path):
    net = Net(rngs=nnx.Rngs(0))
    before = np.asarray(net.conv.kernel[...])
    fit(config(tmp_path, freeze="conv,norm", lr_mult="out=2"), model=net, data=arrays)
    np.testing.assert_array_equal(net.conv.kernel[...], before)
    other = config(tmp_path / "other", freeze="stem")
    with pytest.raises(ZooError, match="unknown stage 'stem': expected one of conv, norm, out"):
        fit(other, model=net, data=arrays)


def test_a_network_of_the_zoo_as_it_is(arrays, tmp_path, tiny):
    model = zoo.create("tiny", num_classes=CLASSES)
    result = fit(config(tmp_path, image_size=16), model=model, data=arrays)
    assert result.model is model
    assert zoo.load(str(tmp_path / "model.safetensors")).classes == ("0", "1", "2")


# --- data ----------------------------------------------------------------------------------------


class Numbered:
    """A random access source as Grain's, of tuples."""

    classes = ("red", "green", "blue")

    def __init__(self, images, labels):
        self.images, self.labels_ = images, labels

    def __len__(self):
        return len(self.labels_)

    def __getitem__(self, index):
        return self.images[index], self.labels_[index]


def test_sources_and_grain(arrays, tiny):
    images, labels = arrays
    items = [{"image": i, "label": int(n)} for i, n in zip(images, labels, strict=True)]
    val = grain.MapDataset.source(items[:16])
    dataset = own_dataset((Numbered(images, labels), val), 0.2)
    assert dataset.classes == ("red", "green", "blue")
    assert (len(dataset.train), len(dataset.val)) == (60, 16)
    own = Objects(data=replace(dataset, image_size=16))
    session = Session.open(TrainConfig("tiny", batch_size=16), own)
    batch = next(iter(session.val_batches()))
    np.testing.assert_array_equal(batch["label"], labels[:16])
    np.testing.assert_array_equal(batch["image"], images[:16])


def test_names_as_labels(arrays):
    images, labels = arrays
    names = np.array(["red", "green", "blue"])[labels]
    dataset = own_dataset(((images, names), (images[:6], names[:6])), 0.2)
    assert dataset.classes == ("blue", "green", "red")
    assert dataset.val[0]["label"] == 2
    assert own_dataset((images[..., :1], labels), 0.5).train[0]["image"].shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (7, "data: got int, expected a training.Dataset"),
        ((np.zeros((4, 8, 8, 3)), np.arange(4)), r"got images float64 \[4, 8, 8, 3\], expected ui"),
        ((np.zeros((4, 8, 8, 3), np.uint8), np.arange(3)), "got 4 images and 3 labels"),
        ((np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) - 1), "the label -1, expected 0 or more"),
        ((np.zeros((4, 8, 8, 3), np.uint8), np.full((4, 2), 7)), "expected 0 and 1"),
        (([1, 2, 3], [4]), "data: got a list of 3 and a list of 1"),
        ((Numbered([], []), Numbered([], [])), "data: train has no pictures"),
    ],
)
def test_data_that_cannot_be(data, told):
    with pytest.raises(ZooError, match=told) as error:
        own_dataset(data, 0.2)
    assert "\n" not in str(error.value)


def test_items_that_cannot_be():
    source = own_dataset((Numbered([1, 2], [0, 1]), Numbered([1], [0])), 0.2).train
    for item, told in (
        ((1, 3), "label 3, expected 0 to 2"),
        ((1, "red"), "label red, expected 0 to 2"),
        ((1, [1, 0]), r"labels \[2\], expected \[3\]"),
        ("red", "a str, expected image and label"),
    ):
        wrong = replace(source, source=[item])
        with pytest.raises(ZooError, match=f"data: item 0 .*{told}"):
            wrong[0]


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        ({"loss": "sigmoid"}, {}, "loss: got a str, expected a function"),
        ({"model": "resnet50"}, {}, "model: got a str, expected an nnx.Module"),
        ({"optimizer": 3}, {}, "optimizer: got a int, expected an optax"),
        ({"metrics": {"loss": squared}}, {}, "metrics: the name 'loss' is taken"),
        ({"callbacks": print}, {}, "callbacks: expected a list of functions"),
        ({"loss": squared}, {"loss": "sigmoid"}, "loss: has no effect beside loss="),
        ({"loss": squared}, {"class_weights": True}, "class_weights: has no effect beside loss="),
        ({"model": Net(rngs=nnx.Rngs(0))}, {"dropout": 0.1}, "dropout: has no effect beside model"),
        ({}, {"objects": "loss=other.loss"}, "the run had loss=other.loss; got none"),
    ],
)
def test_objects_that_cannot_be(given, settings, told, tmp_path):
    with pytest.raises(ZooError, match=told) as error:
        fit(config(tmp_path / "run", **settings), **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (Net(4, rngs=nnx.Rngs(0)), "test_objects.Net gives 4 classes, the data have 3"),
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), r"Linear does not take images \[1, 16, 16, 3\]"),
        (
            nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)),
            r"gives \[1, 16, 16, 4\] .*expected \[1, classes",
        ),
    ],
    ids=["classes", "input", "output"],
)
def test_modules_that_cannot_be(net, told, arrays, tmp_path):
    with pytest.raises(ZooError, match=told):
        fit(config(tmp_path / "run"), model=net, data=arrays)


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels(channels, arrays, tmp_path, tiny):
    images, labels = arrays
    images = images[..., :1] if channels == 1 else np.pad(images, [(0, 0)] * 3 + [(0, 1)])
    asked = config(
        tmp_path / "run", model="tiny", in_chans=channels, rotate=5, shift=1, crop_scale=0.9
    )
    result = fit(asked, data=(images, labels))
    assert result.model.spec.in_chans == channels
    assert len(result.model.preprocess.mean) == channels
    found = zoo.load(str(tmp_path / "run/model.safetensors"))
    assert found(found.preprocess(images[:2])).shape == (2, CLASSES)
    assert {1: "grey", 4: "RGBA"}[channels] in (tmp_path / "run/card.md").read_text()
    with pytest.raises(ZooError, match="color: expected pictures of 3 channels"):
        config(tmp_path, in_chans=channels, color=0.1)


# --- several classes a picture -------------------------------------------------------------------


def test_the_loss_of_several_classes():
    logits = jnp.array([[2.0, -1.0, 0.0], [0.0, 3.0, 1.0]])
    labels = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    goal = Objective(3, LOSSES["sigmoid"])
    sums = goal.measure(logits, labels, jnp.ones(2))
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    want = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(-1).sum()
    assert float(sums["loss"]) == pytest.approx(float(want), rel=1e-5)
    assert float(sums["correct"]) == 1  # the second shows nothing


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A list of pictures with squares of the colours that their labels name."""
    folder = tmp_path_factory.mktemp("tagged")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        shown = [c for c in range(CLASSES) if number >> c & 1]
        image = rng.integers(0, 60, (16, 16, 3), np.uint8)
        for c in shown:
            image[..., c] += 150
        Image.fromarray(image).save(folder / f"{number}.png")
        rows.append((f"{number}.png", "|".join(Numbered.classes[c] for c in shown)))
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "labels"), *rows])
    return folder / "list.csv"


def test_pictures_of_several_classes_from_the_command(tagged, tmp_path, tiny, capsys):
    out = tmp_path / "run"
    command = ["train", "tiny", "--data", f"list:{tagged}", "--image-size", "16", "--out", str(out)]
    command += ["--batch-size", "16", "--shift", "0", "--learning-rate", "0.03", "--sync-bn"]
    main([*command, "--epochs", "20"])
    report = (out / "report.md").read_text()
    mean = float(report.partition("| mean average precision | **")[2].partition("%")[0])
    assert mean > 90
    assert "| class | pictures | average precision |" in report
    assert not (out / "confusion.png").exists()
    with (out / "predictions.csv").open() as file:
        labels = {row["label"] for row in csv.DictReader(file)}
    assert labels & {"green|red", "blue|red", "blue|green", "blue|green|red"}
    capsys.readouterr()
    main(["evaluate", str(out), "--data", f"list:{tagged}"])
    told = capsys.readouterr().out
    assert re.search(rf"mean average precision +{mean:.2f}%", told)
    assert evaluate(out, f"list:{tagged}").mean_average_precision == pytest.approx(
        mean / 100, abs=1e-4
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss": "softmax"}, "loss: got softmax, expected sigmoid"),
        ({"class_weights": True}, "class_weights: expected pictures of one class each"),
        ({"balanced": True}, "balanced: expected pictures of one class each"),
    ],
)
def test_settings_that_several_classes_cannot_have(tagged, tmp_path, tiny, settings, told):
    asked = config(tmp_path / "run", model="tiny", image_size=16, data=f"list:{tagged}", **settings)
    with pytest.raises(ZooError, match=told):
        fit(asked)


def test_a_list_of_labels_that_cannot_be(tmp_path):
    from training.sources import open_dataset

    for text, told in (
        ('{"image": "a.png", "labels": 3}', "row 1: expected a list of names"),
        ('{"image": "a.png", "labels": ["a"]}\n{"image": "a.png", "labels": []}', "a second time"),
    ):
        (tmp_path / "list.jsonl").write_text(text)
        with pytest.raises(ZooError, match=told):
            open_dataset(f"list:{tmp_path / 'list.jsonl'}")
