"""What a network says of every picture, in order."""

import numpy as np
import pytest

import zoo
from training import embed_all, evaluate
from training.data import open_dataset
from training.parallel import Devices
from training.predictions import Predictions, average_precision, predict_all
from zoo.errors import ZooError
from zoo.preprocess import Preprocess


@pytest.fixture
def model(tiny):
    model = zoo.create("tiny", num_classes=10)
    model.preprocess = Preprocess(size=16, resize=None)
    return model


@pytest.fixture(scope="module")
def pictures():
    """21 pictures that 8 devices cannot share out, each of a colour of its own."""
    colours = np.random.default_rng(0).permutation(21 * 3).reshape(21, 1, 1, 3) * 4
    images = np.broadcast_to(colours, (21, 20, 20, 3)).astype(np.uint8)
    return [{"image": image, "label": i % 10} for i, image in enumerate(images)]


@pytest.mark.parametrize("engine", ["pmap", "shard_map", None])
def test_predictions_come_in_order_without_filling(model, pictures, engine):
    expected = np.asarray(model(model.preprocess([picture["image"] for picture in pictures])))
    differences = np.abs(expected[:, None] - expected[None]).max(-1)
    assert (differences + np.eye(21)).min() > 1e-3  # no two pictures give the same

    devices = engine and Devices(engine)
    predictions = predict_all(model, pictures, batch_size=7, devices=devices)  # 8, that is
    assert predictions.logits.shape == (21, 10)
    assert predictions.logits.dtype == np.float32
    assert predictions.labels.dtype == np.int32
    np.testing.assert_allclose(predictions.logits, expected, atol=1e-5)
    assert predictions.labels.tolist() == [i % 10 for i in range(21)]
    # the network is left as it was
    np.testing.assert_array_equal(
        model(model.preprocess([picture["image"] for picture in pictures])), expected
    )


def test_a_picture_and_its_mirror_image_are_judged_together(model, pictures):
    images = np.random.default_rng(1).integers(0, 256, (21, 20, 20, 3)).astype(np.uint8)
    drawn = [{"image": image, "label": 0} for image in images]
    turned = [{"image": image[:, ::-1], "label": 0} for image in images]
    one, other = (predict_all(model, source).logits for source in (drawn, turned))
    assert np.abs(one - other).max() > 1e-3
    for source in (drawn, turned):
        both = predict_all(model, source, mirror=True).logits
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-5)
    predictions = predict_all(model, open_dataset("digits").val, mirror=True)
    result = evaluate(model, "digits", mirror=True)
    assert result.which.endswith("; with their mirror images")
    assert predictions.correct == round(result.accuracy * 360)
    assert predictions.losses.mean() == pytest.approx(result.loss, rel=1e-5)


def test_predictions_equal_the_sums(model):
    predictions = predict_all(model, open_dataset("digits").val)
    result = evaluate(model, "digits")
    assert predictions.correct == round(result.accuracy * 360)
    assert predictions.losses.mean() == pytest.approx(result.loss, rel=1e-5)


def test_what_predictions_say():
    nan, inf = np.nan, np.inf
    logits = np.array([[1, 3, 1], [2, 2, 0], [nan, 9, 0], [0, -inf, 0]], np.float32)
    said = Predictions(logits, np.array([1, 1, 1, 1], np.int32))
    assert said.classes.tolist() == [1, 0, -1, 0]
    assert said.correct == 1
    e = np.exp(1.0)
    np.testing.assert_allclose(
        said.probabilities, [e**3 / (2 * e + e**3), e**2 / (2 * e**2 + 1), nan, 0.5]
    )
    np.testing.assert_allclose(
        said.losses, [-np.log(said.probabilities[0]), -np.log(said.probabilities[1]), nan, inf]
    )


def test_many_pictures_in_slices():
    logits = np.random.default_rng(0).normal(size=(2500, 4), scale=50).astype(np.float32)
    said = Predictions(logits, np.arange(2500, dtype=np.int32) % 4)
    wide = logits.astype(np.float64)
    softmax = np.exp(wide - wide.max(-1, keepdims=True))
    softmax /= softmax.sum(-1, keepdims=True)
    np.testing.assert_allclose(said.probabilities, softmax.max(-1))
    own = softmax[np.arange(2500), said.labels]
    np.testing.assert_allclose(said.losses, -np.log(own), atol=1e-9)


def test_average_precision_by_hand():
    scores, labels = np.array([0.9, 0.8, 0.7, 0.7, 0.1]), np.array([1, 0, 1, 0, 1])
    # thresholds 0.9: 1/1 at recall 1/3; 0.7 (a tie): 2/4 at 2/3; 0.1: 3/5 at 1
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert np.isnan(average_precision(scores, np.zeros(5)))


def test_features_of_all_pictures(model, pictures):
    x = model.preprocess([picture["image"] for picture in pictures])
    expected = zoo.features(model, x)["drop"]
    found = embed_all(model, pictures, batch_size=7)
    assert found.features.shape == (21, 16)
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    assert found.labels.tolist() == [i % 10 for i in range(21)]
    bare = zoo.create("tiny", num_classes=0)
    bare.preprocess = model.preprocess
    assert embed_all(bare, pictures).features.shape == (21, 16)
    with pytest.raises(ZooError, match="predict_all: tiny has no classifier: embed_all gives"):
        predict_all(bare, pictures)


def test_features_of_pixels_are_their_means(pictures):
    model = zoo.create("nin_cifar", num_classes=10)
    bare = zoo.create("nin_cifar", num_classes=0)
    for net in (model, bare):
        net.preprocess = Preprocess(size=16, resize=None)
    expected = bare(bare.preprocess([picture["image"] for picture in pictures]))
    np.testing.assert_allclose(embed_all(model, pictures).features, expected, atol=1e-5)
