"""What a run works on, and what is refused before it begins."""

import jax
import pytest

import zoo
from training.config import TrainConfig
from training.loop import fit
from training.lr_finder import find_learning_rate
from training.session import check_batch_norm, preprocessing
from zoo.errors import ZooError


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
