"""The range test: what it suggests for known curves, and on the digits."""

import csv
import math
import sys

import numpy as np
import pytest
from PIL import Image

from training.config import TrainConfig
from training.lr_finder import BLOWN_UP, SMOOTHING, Finding, find_learning_rate, finding
from zoo.errors import ZooError

RATES = np.geomspace(1e-6, 10, 100).tolist()


def curve(falls_at: float) -> list[float]:
    """Losses that fall from 2.3 around a rate, and soar after thirty times that."""
    x = np.log10(RATES) - math.log10(falls_at)
    fall, rise = 2 / (1 + np.exp(-3 * x)), 50 / (1 + np.exp(-8 * (x - 2)))
    return (2.3 - fall + rise).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("falls_at", [1e-4, 1e-3, 1e-2])
def test_it_suggests_where_the_loss_falls_fastest(falls_at, noise):
    losses = curve(falls_at) + np.random.default_rng(0).normal(0, noise, 100)
    found = finding(RATES, losses.tolist())
    assert falls_at / 3 < found.suggestion < falls_at * 10  # an average of past losses lags


def test_ten_steps_are_enough():
    found = finding(RATES[:10], [2.0, 2.0, 2.0, 1.9, 1.2, 0.8, 0.7, 0.7, 0.7, 0.7])
    assert found.suggestion in RATES[3:6]


def test_losses_are_smoothed_without_bias():
    losses = [3.0, 1.0, 2.0, *np.linspace(1.9, 1.0, 20)]
    found = finding(RATES[:23], losses)
    assert found.losses[0] == pytest.approx(3.0)
    for i in (1, 2, 22):
        weights = SMOOTHING ** np.arange(i, -1, -1)
        assert found.losses[i] == pytest.approx(np.average(losses[: i + 1], weights=weights))
    assert found.rates == tuple(RATES[:23])


@pytest.mark.parametrize("last", [math.nan, math.inf, 1e4])
def test_it_stops_when_the_loss_blows_up(last):
    def losses():
        yield from np.linspace(2, 1, 50)
        yield last
        pytest.fail("took another step")

    found = finding(RATES, losses())
    assert len(found.rates) == len(found.losses) == 50
    assert max(found.losses) < BLOWN_UP * min(found.losses)


def test_it_stops_at_four_times_the_best_of_averages_that_forget_a_fiftieth():
    losses = [*np.linspace(2, 1, 20), *[12.0] * 80]
    averages = [
        np.average(losses[: i + 1], weights=0.98 ** np.arange(i, -1, -1)) for i in range(100)
    ]
    before = sum(average <= 4 * min(averages) for average in averages)
    assert 20 < before < 60
    assert len(finding(RATES, losses).losses) == before


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        (np.linspace(1, 2, 100), "it began at 1"),
        ([2.0, math.nan], "it began at 2"),
        ([math.nan], "it was never finite"),
    ],
)
def test_it_says_so_where_no_step_lowered_the_loss(losses, told):
    with pytest.raises(ZooError, match=rf"no rate from 1e-06 to 10 lowered the loss \({told}\)"):
        finding(RATES, losses)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"steps": 9}, "steps: got 9, expected at least 10"),
        ({"low": 0.0}, "rates: got 0 to 10, expected 0 < low < high"),
        ({"low": 1.0, "high": 0.1}, "rates: got 1 to 0.1, expected"),
        ({"high": math.inf}, "rates: got 1e-06 to inf, expected"),
    ],
)
def test_impossible_ranges_are_refused(settings, line):
    with pytest.raises(ZooError, match=line):
        find_learning_rate(TrainConfig(), **settings)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "tinny"}, "unknown model 'tinny'"),
        ({"data": "digit"}, "unknown dataset 'digit'"),
        ({"batch_size": 30}, "8 devices cannot share out 30"),
        ({"batch_size": 1440}, "expected at most the 1437 training pictures"),
    ],
)
def test_bad_settings(settings, line):
    with pytest.raises(ZooError, match=line):
        find_learning_rate(TrainConfig(**{"model": "tiny", "image_size": 16, **settings}))


@pytest.mark.usefixtures("tiny")
def test_the_digits(tmp_path):
    config = TrainConfig(model="tiny", image_size=16, batch_size=64, out=str(tmp_path / "run"))
    found = find_learning_rate(config)
    assert 1e-4 < found.suggestion < 1
    assert found.suggestion in found.rates
    assert found.rates[0] == pytest.approx(1e-6)
    assert found.losses[0] > math.log(10) - 0.5  # about chance among ten classes
    assert min(found.losses) < 0.9 * found.losses[0]
    assert not (tmp_path / "run").exists()

    table, picture = found.save(tmp_path / "new" / "folder")
    assert (table.name, picture.name) == ("lr_finder.csv", "lr_finder.png")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(float(row["rate"]) for row in rows) == found.rates
    assert tuple(float(row["loss"]) for row in rows) == found.losses
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert np.asarray(drawn.convert("L")).std() > 5  # something is drawn


def test_it_begins_with_the_layers_that_the_run_begins_with():
    config = TrainConfig(
        **{"model": "resnet20_cifar", "weights": "resnet20_cifar.cifar10", "head_init": "ridge"},
        **{"data": "digits", "image_size": 16, "batch_size": 64},
    )
    found = find_learning_rate(config, steps=10, low=1e-6, high=1e-2)
    assert found.losses[0] < 0.75 * math.log(10)  # the ridge regression's, not that of chance


def test_without_matplotlib_there_is_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert Finding((0.1, 0.2), (2.0, 1.0), 0.1).save(tmp_path) == [tmp_path / "lr_finder.csv"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"cannot write to .*file"):
        Finding((0.1, 0.2), (2.0, 1.0), 0.1).save(tmp_path / "file")
