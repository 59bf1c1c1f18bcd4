"""Some of a dataset's classes, and few pictures of each."""

import numpy as np
import pytest

import zoo
from training.config import TrainConfig
from training.data import labels_of, open_dataset
from training.session import open_data
from training.sources.narrow import narrowed


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


def test_few_pictures_of_each_class(digits):
    few = narrowed(digits, None, 5, seed=0)
    assert np.bincount(labels_of(few.train)).tolist() == [5] * 10
    assert len(few.val) == len(digits.val)
    assert "beyond 5 a class" in few.summary
    again, other = (narrowed(digits, None, 5, seed=seed).train.indices for seed in (0, 1))
    assert np.array_equal(few.train.indices, again)
    assert not np.array_equal(again, other)


def test_more_than_there_are_is_all(digits):
    assert len(narrowed(digits, None, 10**6, seed=0).train) == len(digits.train)


def test_some_classes(digits):
    some = narrowed(digits, "7, 3", None, seed=0)
    assert some.classes == ("7", "3")
    assert set(labels_of(some.train)) == {0, 1}
    old, new = labels_of(digits.train), labels_of(some.train)
    assert (new == 0).sum() == (old == 7).sum()
    assert some.train[0]["label"] == new[0]
    first = np.flatnonzero(np.isin(old, (3, 7)))[0]
    assert np.array_equal(some.train[0]["image"], digits.train[int(first)]["image"])
    assert len(some.val) == np.isin(labels_of(digits.val), (3, 7)).sum()
    assert "left out: 8 classes" in some.summary


def test_both(digits):
    both = narrowed(digits, "0,1,2", 4, seed=0)
    assert np.bincount(labels_of(both.train)).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        ("0,ten", "unknown class 'ten'"),
        ("0", "classes: got 0, expected two or more, with commas"),
    ],
)
def test_classes_that_cannot_be(digits, classes, line):
    with pytest.raises(zoo.ZooError, match=line):
        narrowed(digits, classes, None, seed=0)


def test_settings_of_a_run():
    dataset = open_data(TrainConfig(classes="0,1", per_class=20, batch_size=16))
    assert dataset.class_counts.tolist() == [20, 20]
    with pytest.raises(zoo.ZooError, match="batch size: got 64, expected at most the 40"):
        open_data(TrainConfig(classes="0,1", per_class=20, batch_size=64))


def test_switches_of_a_network_and_weights_are_one_too_many():
    from training.session import outline

    config = TrainConfig(model="mobilenet_v1_025", weights="mobilenet_v1_025.digits", norm="none")
    with pytest.raises(zoo.ZooError, match="norm: got none and weights mobilenet_v1_025"):
        outline(config, 10)
