"""A quick part of what `tests/faults/` does to runs for hours."""

import pytest
from faults import damage, kills, soak


def test_damaged_checkpoints_cost_an_epoch_and_no_more():
    found = damage.run(len(damage.KINDS))  # each kind once, on a file of its own
    assert found["tried"] == len(damage.KINDS)
    assert (found["garbage"], found["stuck"]) == ([], [])


def test_checkpoints_leave_nothing_in_memory():
    first, *_, last = soak.saves(40, looks=8)
    assert last["files"] <= first["files"] + 1
    assert last["threads"] <= first["threads"] + 4  # of pools that are still filling
    assert last["memory_mb"] < first["memory_mb"] + 20


@pytest.mark.slow
def test_a_run_that_goes_on_holds_no_more():
    _, first, *_, last = soak.run(60, looks=6)
    assert last["epochs"] > first["epochs"]
    assert last["files"] <= first["files"]
    assert last["threads"] <= first["threads"] + 1  # of those that come and go


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_any_moment(kind, processes):
    found = kills.run(kind, 2, processes)
    assert found["tried"] == 2
    assert found["lost"] == []
