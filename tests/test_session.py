"""What a run works on, and what is refused before it begins."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import zoo
from training.config import TrainConfig
from training.fitting import fit
from training.lr_finder import find_learning_rate
from training.parallel import Devices
from training.session import Session, check_batch_norm, class_weights, preprocessing
from training.sources.base import Arrays, Dataset
from zoo.errors import ZooError
from zoo.preprocess import IMAGENET, PRESETS, Preprocess

PICKED = [
    name for name, preset in PRESETS.items() if preset.interpolation in ("nearest", "tf_bilinear")
]


@pytest.fixture(scope="module")
def mobilenet():
    """Its last map at 32 pixels is 1x1, at 64 pixels 2x2."""
    model = zoo.create("mobilenet_v1_025", num_classes=3)
    model.preprocess = preprocessing(model.preprocess, 32, None)
    return model


@pytest.mark.parametrize(
    ("devices", "settings", "ways"),
    [
        (1, {"batch_size": 1}, "choose batch_size 2, freeze_bn or a larger"),
        (1, {"batch_size": 12, "accumulate": 12}, "choose accumulate 6, batch_size 24, freeze_bn"),
        (8, {"batch_size": 8}, "choose batch_size 16, sync_bn, freeze_bn"),
        (2, {"batch_size": 6, "accumulate": 3}, "choose accumulate 1, batch_size 12, sync_bn"),
        (1, {"batch_size": 1, "sync_bn": True}, "choose batch_size 2, freeze_bn"),
        (1, {"batch_size": 1, "head_epochs": 2}, "choose batch_size 2"),  # the phase after it
    ],
)
def test_one_value_a_channel_teaches_nothing(mobilenet, devices, settings, ways):
    config = TrainConfig(model="mobilenet_v1_025", **settings)
    with pytest.raises(ZooError, match=f"body/sep12: batch norm .* one value.*{ways}") as told:
        check_batch_norm(config, mobilenet, devices)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("devices", "settings"),
    [
        (1, {"batch_size": 2}),
        (1, {"batch_size": 12, "accumulate": 6}),
        (8, {"batch_size": 8, "sync_bn": True}),
        (8, {"batch_size": 8, "freeze_bn": True}),
        (8, {"batch_size": 8, "head_only": True}),
        (8, {"batch_size": 8, "freeze": "..sep12,sep13"}),
    ],
)
def test_what_teaches_something(mobilenet, devices, settings):
    check_batch_norm(TrainConfig(model="mobilenet_v1_025", **settings), mobilenet, devices)


def test_a_larger_map_is_enough(mobilenet):
    model = zoo.create("mobilenet_v1_025", num_classes=3)
    model.preprocess = preprocessing(model.preprocess, 64, None)
    check_batch_norm(TrainConfig(batch_size=1), model, 1)


def test_it_is_refused_before_anything_is_written(tmp_path):
    out, alone = str(tmp_path / "run"), jax.device_count()  # one picture a device
    config = TrainConfig(data="digits", batch_size=alone, image_size=32, out=out)
    for begin in (fit, find_learning_rate):
        with pytest.raises(ZooError, match="batch norm in training mode"):
            begin(config)
    assert not (tmp_path / "run").exists()


def of_labels(*labels: int, classes: int) -> Dataset:
    pictures = Arrays(np.zeros((len(labels), 8, 8, 3), np.uint8), np.array(labels))
    names = tuple(map(str, range(classes)))
    return Dataset("labels", names, pictures, pictures, image_size=None, flip=False)


def test_classes_count_alike_and_an_empty_one_nothing():
    weights = class_weights(of_labels(0, 0, 0, 0, 2, 2, classes=4))
    assert weights == [6 / (2 * 4), 0.0, 6 / (2 * 2), 0.0]  # the two that are there share all
    assert class_weights(of_labels(1, 0, classes=2)) == [1.0, 1.0]


@pytest.mark.parametrize("name", PICKED)
def test_pictures_that_their_source_picks_pixels_of_are_averaged_and_cropped(name):
    own = PRESETS[name].at_size(160)
    to_train = preprocessing(own, None, None)
    usual = IMAGENET.at_size(160)  # the shorter side to 8/7 of that, antialiased, and the middle
    assert to_train == replace(usual, mean=own.mean, std=own.std, channels=own.channels)
    assert to_train.resize > to_train.size == 160
    assert preprocessing(own, 96, None) == to_train.at_size(96)


@pytest.mark.parametrize("interpolation", ["box", "bilinear", "bicubic", "lanczos"])
def test_pictures_that_their_source_averages_stay_as_they_are(interpolation):
    own = Preprocess(size=160, resize=170, interpolation=interpolation, note="assumed")
    assert preprocessing(own, None, None) == replace(own, note="")
    assert preprocessing(own, None, 32) == replace(own.at_size(32), resize=None, note="")
    assert preprocessing(own, 64, 32).size == 64


def lowered(**settings) -> str:
    """The training step of a run as XLA gets it, by which compiled programs are cached."""
    config = TrainConfig(model="tiny", **{"mixup": 0.2, "optimizer": "lars", **settings})
    session, devices = Session.open(config), Devices(devices=jax.devices()[:1])
    parts = session.assemble(session.phases[-1])
    state, batch = parts.start(), next(session.train_batches())
    step = devices.jit(parts.step, donate=True)
    text: str = step.lower(devices.replicate(state), devices.shard(batch)).as_text()
    return text


def test_seeds_rates_and_lengths_share_one_program(tiny):
    rate = {"learning_rate": 0.123, "schedule": "one_cycle", "epochs": 7, "head_epochs": 1}
    program = lowered()
    assert lowered(seed=2**31 - 1, **rate) == program
    assert lowered(momentum=0.8) != program  # which is a constant of it
