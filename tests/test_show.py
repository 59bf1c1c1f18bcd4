"""The contact sheet of a run's first batch: what is on it is what the first step computes with."""

import jax
import numpy as np
import optax
import pytest
from PIL import Image

import training.step
from training.config import TrainConfig
from training.data import open_dataset
from training.parallel import Devices
from training.session import build
from training.show import caption, show_batch
from training.state import TrainState, take_apart
from zoo.errors import ZooError

SIZE, SCALE = 16, 14  # of the pictures, and of a pixel on the sheet
CELL = SIZE * SCALE + 24
LINE = 17

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of six coloured noises."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (root / name).mkdir()
        for i in range(6):
            picture = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            picture.resize((24, 24)).save(root / name / f"{i}.png")
    return root


def config(folder, **settings) -> TrainConfig:
    defaults = {"model": "tiny", "image_size": SIZE, "batch_size": 8, "shift": 0, "flip": False}
    return TrainConfig(**{**defaults, "data": f"folder:{folder}", **settings})


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def tiles(sheet: np.ndarray) -> np.ndarray:
    """The pictures in the first row of a sheet, [N, SIZE, SIZE, 3]."""
    middle = slice(12 + SCALE // 2, 12 + SCALE // 2 + SIZE * SCALE, SCALE)
    starts = range(0, sheet.shape[1], CELL)
    return np.stack([sheet[:, start:][middle, middle] for start in starts])


def seen_by_the_first_step(monkeypatch, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """(what the network is given, the targets) in a step of training on one device."""
    seen = []

    def watched(*args):
        x, targets = mix(*args)
        jax.debug.callback(lambda *values: seen.append(values), x, targets)
        return x, targets

    mix = training.step.mix
    monkeypatch.setattr(training.step, "mix", watched)
    dataset = open_dataset(config.data)
    model = build(config, dataset)
    program, params, stats = take_apart(model)
    optimizer = optax.sgd(0.1)
    state = TrainState.start(optimizer, params, stats, rates=[0.1], seed=config.seed)
    batch = next(
        training.data.train_batches(
            dataset, model.preprocess, batch_size=config.batch_size, seed=config.seed
        )
    )
    devices = Devices(devices=jax.devices()[:1])
    make = training.step.make_train_step
    step = devices.compile(
        make(program, model.preprocess, optimizer, config, flip=bool(config.flip)), donate=False
    )
    jax.block_until_ready(step(devices.replicate(state), devices.shard(batch)))
    jax.effects_barrier()
    ((x, targets),) = seen
    mean, std = (np.array(v, np.float32) for v in (model.preprocess.mean, model.preprocess.std))
    return (np.asarray(x) * std + mean) * 255, np.asarray(targets)


@pytest.mark.parametrize("mixed", [{}, {"mixup": 1.0}], ids=["alone", "mixed"])
def test_it_shows_what_the_first_step_sees(folder, tmp_path, monkeypatch, mixed):
    asked = config(folder, rotate=30.0, color=0.3, flip=True, seed=3, **mixed)
    sheet = pixels(show_batch(asked, tmp_path / "batch.png"))
    assert sheet.shape == (CELL + (2 if mixed else 1) * LINE, 8 * CELL, 3)
    x, targets = seen_by_the_first_step(monkeypatch, asked)
    np.testing.assert_allclose(tiles(sheet).astype(float), x, atol=1.01)
    assert ((targets > 0).sum(-1).max() == 2) == bool(mixed)


def test_the_same_twice_and_another_when_augmented(folder, tmp_path):
    def sheet(**settings) -> bytes:
        return show_batch(config(folder, **settings), tmp_path / "batch.png").read_bytes()

    plain = sheet()
    assert sheet() == plain
    assert sheet(noise=0.1) != plain
    assert sheet(seed=1) != plain


def test_it_shows_as_many_as_asked_for(folder, tmp_path):
    few = pixels(show_batch(config(folder), tmp_path / "few.png", count=3))
    assert few.shape == (CELL + LINE, 3 * CELL, 3)
    many = pixels(show_batch(config(folder, batch_size=10), tmp_path / "many.png"))
    assert many.shape == (2 * (CELL + LINE), 8 * CELL, 3)  # the batch of 10 is all there is
    np.testing.assert_array_equal(tiles(many)[:3], tiles(few))


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ([0.0, 1.0, 0.0], ["dog"]),
        ([0.25, 0.0, 0.75], ["75% owl", "25% cat"]),
        ([0.5, 0.5, 0.0], ["50% cat", "50% dog"]),
        ([0.004, 0.0, 0.996], ["owl"]),
    ],
)
def test_captions(target, lines):
    assert caption(np.array(target), ("cat", "dog", "owl")) == lines


def test_bad_input_is_told(folder, tmp_path):
    with pytest.raises(ZooError, match="count: got 0, expected at least 1"):
        show_batch(config(folder), tmp_path / "batch.png", count=0)
    with pytest.raises(ZooError, match=r"cannot write .*batch.png: no folder .*missing"):
        show_batch(config(folder), tmp_path / "missing" / "batch.png")
    with pytest.raises(ZooError, match=f"cannot write {tmp_path}: Is a directory"):
        show_batch(config(folder), tmp_path, count=1)
