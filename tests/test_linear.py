"""The classifier that fine-tuning starts from: ridge regression on features."""

import re
from dataclasses import replace

import numpy as np
import pytest

import zoo
from training import linear
from training.config import TrainConfig
from training.linear import PENALTIES, ridge
from training.parallel import Devices
from training.predictions import embed_all, predict_all
from training.session import Session


def clusters(count: int, width: int, classes: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of a centre for each class, on features of very different sizes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, width))
    labels = np.arange(count) % classes
    sizes = 10.0 ** rng.uniform(-2, 2, width)
    features = (centres[labels] + noise * rng.normal(size=(count, width))) * sizes + 5
    return features.astype(np.float32), labels


def left_out_one_by_one(features: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """The class of each picture by the regression without it, solved anew each time."""
    x = (features - features.mean(0)) / features.std(0)
    y = np.eye(labels.max() + 1)[labels]
    said = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        mean = x[rest].mean(0)
        a = x[rest] - mean
        weights = np.linalg.solve(
            a.T @ a + penalty * np.eye(x.shape[1]), a.T @ (y[rest] - y[rest].mean(0))
        )
        said.append(((x[i] - mean) @ weights + y[rest].mean(0)).argmax())
    return np.array(said)


@pytest.mark.parametrize("width", [4, 40])  # fewer features than pictures, and more
def test_accuracy_is_that_of_leaving_out_one_at_a_time(width):
    features, labels = clusters(30, width, 3, noise=1.5)
    best = max(
        (left_out_one_by_one(features.astype(float), labels, p * 30) == labels).mean()
        for p in PENALTIES
    )
    assert ridge(features, labels, 3).accuracy == pytest.approx(best)


def test_it_classifies_other_pictures_as_surely_as_it_may():
    features, labels = clusters(400, 20, 4, noise=3.0)
    solved = ridge(features[:200], labels[:200], 4)
    logits = features[200:] @ solved.kernel + solved.bias
    assert solved.kernel.shape == (20, 4)
    assert (logits.argmax(1) == labels[200:]).mean() > 0.6

    def cross_entropy(logits: np.ndarray) -> float:
        shifted = logits - logits.max(1, keepdims=True)
        own = shifted[np.arange(len(shifted)), labels[200:]]
        return float((np.log(np.exp(shifted).sum(1)) - own).mean())

    assert cross_entropy(logits) < min(cross_entropy(0.25 * logits), cross_entropy(4 * logits))


def test_features_that_never_change_and_a_class_without_pictures_do_no_harm():
    features, labels = clusters(40, 6, 2, noise=0.5)
    features[:, 2] = 7
    solved = ridge(features, labels, 3)
    assert np.isfinite(solved.kernel).all()
    assert np.abs(solved.kernel[2]).max() < 1e-12
    assert (features @ solved.kernel + solved.bias).argmax(1).max() < 2


def session(**settings: object) -> Session:
    given = {"model": "resnet20_cifar", "data": "digits", "image_size": 16, "per_class": 8}
    return Session.open(TrainConfig(**{**given, "head_init": "ridge", **settings}))


def test_the_network_starts_at_what_the_regression_reaches():
    opened = session(weights="resnet20_cifar.cifar10")
    before = opened.model.body.stem.conv.kernel.get_value()
    told = opened.start_classifier(Devices("pmap"))
    said = float(re.search(r"gets ([\d.]+)% of the training pictures right", told)[1])
    after = predict_all(opened.model, opened.dataset.val)
    assert 100 * after.correct / len(after.labels) == pytest.approx(said, abs=15)
    assert after.correct / len(after.labels) > 0.5
    np.testing.assert_array_equal(before, opened.model.body.stem.conv.kernel.get_value())


def test_where_there_is_no_such_solution_the_classifier_stays_and_a_line_says_so():
    opened = session(weights="resnet20_cifar.cifar10")
    several = replace(opened.dataset, multilabel=True)
    told = linear.start(opened.model, several, 32, None)
    assert told == "classifier: untrained at first, as pictures show several classes"
    pixels = zoo.create("nin_cifar", num_classes=10)
    told = linear.start(pixels, opened.dataset, 32, None, softmax=False)
    assert told == "classifier: untrained at first, as that of nin_cifar is not linear"


def test_a_classifier_of_pixels_starts_there_too():
    data = session(weights="resnet20_cifar.cifar10").dataset
    model = zoo.create("nin_cifar", num_classes=10)  # random features tell digits apart too
    model.preprocess = model.preprocess.at_size(16)
    told = linear.start(model, data, 40, None)
    said = float(re.search(r"gets ([\d.]+)% of the training pictures right", told)[1])
    features = embed_all(model, data.train).features
    solved = ridge(features, embed_all(model, data.train).labels, 10)
    logits = predict_all(model, data.train).logits
    assert logits.min() > 0  # the ReLU lets all of it through
    shift = logits - (features @ solved.kernel + solved.bias)
    np.testing.assert_allclose(shift, shift.mean(), atol=1e-3)
    after = predict_all(model, data.val)
    assert 100 * after.correct / len(after.labels) == pytest.approx(said, abs=15)
    assert after.correct / len(after.labels) > 0.5


def test_ridge_wants_pretrained_weights():
    with pytest.raises(zoo.ZooError, match="head_init: got ridge and no weights"):
        session().check(1)
    with pytest.raises(zoo.ZooError, match="unknown head_init 'rigde': did you mean 'ridge'"):
        TrainConfig(head_init="rigde")
