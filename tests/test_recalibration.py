"""Batch-norm statistics of weights that no step has normalised with."""

import re

import jax
import numpy as np
import pytest

import zoo
from training import TrainConfig, fit
from training.data import open_dataset
from training.parallel import Devices
from training.recalibration import recalibration
from training.session import Session
from training.state import take_apart


def moments(model, pictures) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of what the first batch norm sees in these pictures."""
    x = model.preprocess([picture["image"] for picture in pictures])
    seen = np.asarray(model.body.stem.conv(x), np.float64)
    return seen.mean((0, 1, 2)), seen.var((0, 1, 2))


@pytest.mark.parametrize("engine", ["pmap", "shard_map"])
def test_they_are_those_of_the_pictures(engine, tiny):
    config = TrainConfig(model="tiny", batch_size=40, per_class=8)  # all pictures, in two batches
    session, devices = Session.open(config), Devices(engine)
    program, params, stats = take_apart(session.model)
    recalibrate = recalibration(session, devices, program)
    found = jax.device_get(recalibrate(*devices.replicate((params, stats))))
    assert found.keys() == stats.keys()
    mean, var = moments(session.model, session.dataset.train)
    np.testing.assert_allclose(found["body.stem.norm.mean"], mean, atol=1e-5)
    np.testing.assert_allclose(found["body.stem.norm.var"], var, rtol=1e-4)


def test_weights_half_the_way_get_their_own(tiny, undrawn, tmp_path):
    settings = {"model": "tiny", "data": "digits", "epochs": 2, "per_class": 16}
    result = fit(TrainConfig(**settings, wise_ft=0.5, out=str(tmp_path / "run")))
    norm = result.model.body.stem.norm
    pictures = Session.open(TrainConfig(**settings)).dataset.train
    mean, var = moments(result.model, pictures)
    np.testing.assert_allclose(norm.mean[...], mean, atol=1e-4)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-3)
    # what was measured, and what was saved, is that network
    assert zoo.evaluate(tmp_path / "run", "digits").accuracy == pytest.approx(result.accuracy)


def test_a_ridge_start_fits_the_statistics_that_training_uses(undrawn, tmp_path, capsys):
    """From CIFAR-10 to the digits, whose features are others by the statistics of CIFAR-10."""
    out = tmp_path / "run"
    config = TrainConfig(
        **{"model": "resnet20_cifar", "weights": "resnet20_cifar.cifar10", "data": "digits"},
        **{"image_size": 16, "per_class": 16, "epochs": 1, "learning_rate": 1e-4, "shift": 0},
        **{"head_init": "ridge", "wise_ft": 0.5, "out": str(out)},
    )
    result = fit(config)
    said = float(re.search(r"gets ([\d.]+)% of the training", capsys.readouterr().err)[1])
    assert 100 * result.history[0]["train_accuracy"] > said - 10
    assert result.accuracy == zoo.evaluate(out, "digits").accuracy > 0.5
    assert len(open_dataset("digits").val) == 360
