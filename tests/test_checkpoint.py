"""Checkpoints: whole or refused, and nothing left behind that grows with their number."""

import gc
import os
import threading
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from training import TrainConfig, checkpoint, optim
from training.checkpoint import Checkpoints
from training.parallel import Devices
from training.state import TrainState
from zoo.errors import ZooError

ONE = Devices("pmap", jax.devices()[:1])


def state(step: int, value: float = 0.0) -> TrainState:
    """Of two arrays, after that step."""
    params = {"a.kernel": jnp.full((4, 3), value), "b.bias": jnp.full((5,), value)}
    optimizer = optim.optimizer(TrainConfig(), dict.fromkeys(params, 1.0))
    return replace(
        ONE.replicate(TrainState.start(optimizer, params, {}, rates=[0.01])),
        step=ONE.replicate(jnp.array(step, jnp.int32)),
    )


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, told):
    with_lines = Checkpoints(tmp_path / "checkpoints", told.append)
    yield with_lines
    with_lines.close()


def saved(store: Checkpoints, *accuracies: float | None) -> None:
    """Steps 1, 2, ... of these accuracies; their values are their steps."""
    for step, accuracy in enumerate(accuracies, 1):
        store.save(state(step, step), accuracy)
    store.wait()


def of_step(folder: Path, step: int, name: str) -> list[Path]:
    return sorted(p for p in (folder / str(step)).rglob(name) if p.is_file())


# --- what stays


def test_the_latest_two_and_the_best_stay(store):
    saved(store, 0.1, 0.7, 0.3, 0.7, None, 0.2)
    assert store.steps == [2, 5, 6]
    assert store.newest().step == 6
    assert store.best().step == 2  # of equal ones the first
    assert sorted(p.name for p in store.folder.iterdir()) == ["2", "5", "6"]


def test_a_second_store_knows_the_best_of_the_first(store, tmp_path):
    saved(store, 0.1, 0.7, 0.3)
    again = Checkpoints(tmp_path / "checkpoints")
    again.save(state(4), 0.5)
    again.close()
    assert again.steps == [2, 3, 4]


def test_those_of_later_steps_go_with_the_next_save(store):
    saved(store, 0.1, 0.2, 0.3)
    store.save(state(2, 9.0), 0.9)
    store.wait()
    assert store.steps == [2]
    assert store.newest().arrays["params/b.bias"][0] == 9.0


def test_what_was_saved_comes_back(store):
    store.save(state(7, 0.5), 0.25, [{"epoch": 1, "val_accuracy": 0.25}], "{}")
    found = store.newest()
    assert (found.step, found.history, found.about) == (
        7,
        [{"epoch": 1, "val_accuracy": 0.25}],
        "{}",
    )
    back = found.fill(state(0))
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(state(7, 0.5)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.weights.keys() == {"a.kernel", "b.bias"}
    with pytest.raises(ZooError, match=r"step 7: 2 of its arrays are not those .*params/b.bias"):
        found.fill(
            replace(state(0), params={"a.kernel": jnp.zeros((4, 3))}, stats={"s": jnp.ones(1)})
        )


def test_nothing_grows_with_their_number(store):
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    saved(store, *[0.5] * 3)
    before = held()
    for step in range(4, 24):
        store.save(state(step), 0.5)
    store.wait()
    assert all(now <= then for now, then in zip(held(), before, strict=True))


# --- what an earlier version saved


def test_one_without_a_digest(store, tmp_path):
    with_metrics = ocp.training.Checkpointer(tmp_path / "checkpoints")
    for step, accuracy in ((3, 0.9), (4, 0.2)):
        like = state(step, float(step)).lasting
        with_metrics.save_checkpointables(step, {"state": like}, metrics={"accuracy": accuracy})
    with_metrics.close()
    found = store.newest()
    assert (found.step, found.history) == (4, None)
    assert found.fill(state(0)).params["b.bias"][0] == 4.0
    assert store.best().step == 3


# --- damage


def damage_values(path: Path) -> None:
    """Other values of the right shapes, written by Orbax itself."""
    ocp.save(path / "other", jax.tree.map(np.asarray, state(3, -1.0).lasting))
    for file in (path / "state").rglob("*"):
        if file.is_file():
            file.unlink()
    for file in (path / "other" / "state").rglob("*"):
        if file.is_file():
            (path / "state" / file.relative_to(path / "other" / "state")).parent.mkdir(
                parents=True, exist_ok=True
            )
            file.rename(path / "state" / file.relative_to(path / "other" / "state"))


DAMAGE = {
    "other values": damage_values,
    "no manifest": lambda path: (path / "state" / "manifest.ocdbt").unlink(),
    "empty note": lambda path: (path / "_CHECKPOINT_METADATA").write_bytes(b""),
    "zeros": lambda path: [f.write_bytes(bytes(f.stat().st_size)) for f in path.rglob("d/*")],
    "a record changed": lambda path: (path / "_CHECKPOINT_METADATA").write_text(
        (path / "_CHECKPOINT_METADATA").read_text().replace('"epoch": 3', '"epoch": 8')
    ),
    "no node": lambda path: [f.unlink() for f in path.glob("state/d/*")],
    "no state": lambda path: [f.unlink() for f in path.rglob("*") if f.is_file()],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_newest_whole_one_is_used(store, told, kind, caplog):
    for step in (2, 3):
        store.save(state(step, step), 0.5, [{"epoch": step}])
    store.wait()
    DAMAGE[kind](store.folder / "3")
    assert store.newest().step == 2
    (line,) = told
    assert line.startswith("checkpoint of step 3 is damaged (")
    assert line.endswith("): using that of step 2")
    assert "\n" not in line
    gc.collect()  # asyncio tells of tasks that nobody awaited
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert store.steps == [2, 3]


def test_a_renamed_one_is_refused(store, told):
    saved(store, 0.1, 0.2)
    (store.folder / "2").rename(store.folder / "5")
    assert store.newest().step == 1
    assert told == ["checkpoint of step 5 is damaged (it is of another step): using that of step 1"]


def test_none_whole(store):
    saved(store, 0.1, 0.2)
    for path in of_step(store.folder, 1, "*") + of_step(store.folder, 2, "*"):
        path.write_bytes(b"")
    before = sorted(store.folder.rglob("*"))
    with pytest.raises(ZooError, match=r"step 2 is damaged \(.*\), and no other is whole: restore"):
        store.newest()
    assert sorted(store.folder.rglob("*")) == before


def test_the_best_whole_one_is_taken(store, told):
    saved(store, 0.9, 0.2, 0.3)
    DAMAGE["zeros"](store.folder / "1")
    assert store.best().step == 3
    assert told[0].startswith("checkpoint of step 1 is damaged")


def test_a_damaged_one_is_written_again(store):
    saved(store, 0.1, 0.2)
    DAMAGE["zeros"](store.folder / "2")
    store.save(state(2, 2.0), 0.2)
    assert store.newest().step == 2


def test_what_a_killed_process_left_is_cleared(tmp_path):
    for name in (".7", ".6.gone", ".7.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-17"):
        (tmp_path / name / "state").mkdir(parents=True)
    left = Checkpoints(tmp_path)
    assert left.steps == []
    left.clear()
    assert list(tmp_path.iterdir()) == []


# --- what cannot be written


@pytest.mark.parametrize("when", ["at once", "in the background"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ValueError('OUT_OF_RANGE: Error writing "x" [OS error 28: ENOSPC No space left on device]'),
    ],
)
def test_what_the_disk_refuses(store, told, monkeypatch, error, when):
    saved(store, 0.5)

    class Response:
        def result(self) -> None:
            raise error

    def save(*_, **__):
        if when == "at once":
            raise error
        return Response()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp, "save_checkpointables_async", save)
        store.save(state(2), accuracy=0.5)
        store.wait()
    assert told == [
        "checkpoint of step 2 not saved: No space left on device; that of step 1 is whole"
    ]
    assert store.missed == ["No space left on device"]
    store.save(state(3), accuracy=0.5)  # is not skipped
    store.wait()
    assert store.steps == [1, 3]


def test_other_errors_are_no_full_disk(store, monkeypatch):
    def save(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(checkpoint.ocp, "save_checkpointables_async", save)
    with pytest.raises(ValueError, match="a bug"):
        store.save(state(1), accuracy=0.5)
