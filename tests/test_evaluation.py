"""Measuring counts every picture once."""

import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from training import evaluate
from training.data import open_dataset
from training.evaluation import check_classes
from training.step import measure
from zoo.errors import ZooError
from zoo.preprocess import Preprocess


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
        sums = measure(logits, labels, jnp.ones(len(labels)))
        return float(sums["correct"]), float(sums["top5"])

    assert hits(np.zeros((7, 7))) == (1, 5)  # argmax says class 0, top 5 the first five
    assert hits(np.full((7, 7), np.nan)) == (0, 0)
    assert hits(np.eye(7)) == (7, 7)
    assert hits(-np.eye(7)) == (0, 0)


def test_training_split(model):
    assert evaluate(model, "digits", split="train", batch_size=512).count == 1437


def test_other_classes_are_refused(model):
    with pytest.raises(ZooError, match="tiny has 10 classes, the dataset 3"):
        check_classes(model, ("a", "b", "c"))
    model.classes = tuple("0123456789")
    with pytest.raises(ZooError, match="not in both: 9, x"):
        check_classes(model, tuple("012345678x"))
    check_classes(model, tuple("0123456789"))
