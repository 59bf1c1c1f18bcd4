"""The quick part of `python -m tests.faults`, whose results are in docs/RELIABILITY.md."""

import pytest
from faults import attacks, pictures, readers
from faults.watch import Tally, attempt

import zoo
from zoo.pretrained.readers.budget import ROOM, STEPS, Budget


def test_a_budget_counts_visits_and_steps():
    budget = Budget(100)
    budget.spend(ROOM + 200)
    with pytest.raises(ValueError, match="far more than its size"):
        budget.spend(1)
    budget = Budget(100)
    budget.spend(steps=STEPS)
    with pytest.raises(ValueError, match="takes more than 1,000,000 steps"):
        budget.spend()


@pytest.mark.parametrize("reader", attacks.ATTACKS)
def test_attacks_on_readers_cost_little(reader):
    """At one of the three sizes of docs/RELIABILITY.md; the largest takes a minute a reader."""
    total = Tally()
    for name in attacks.ATTACKS[reader][1]:
        total.add(readers.targeted((reader, name, 5_000)))
    assert total.over == []
    assert set(total.outcomes) <= {"read", "refused"}


def test_what_is_lost_is_told(tmp_path):
    """The measure itself: errors that are no line, and memory out of proportion."""

    def fails(path):
        raise KeyError("x")

    def tells_too_much(path):
        raise zoo.ZooError("two\nlines")

    def takes(path):
        bytearray(400 << 20)

    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    assert attempt(fails, path, "a").over == ["a: KeyError: 'x'"]
    assert attempt(tells_too_much, path, "a").outcomes["lost"] == 1
    assert "MiB more" in attempt(takes, path, "a").over[0]


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_picture_is_read_or_refused_in_one_line(thorough):
    found = pictures.run(2000 if thorough else 200, thorough=thorough)
    assert found["which"] == []
    assert not [line for line in found["printed"] if "Warning" in line or "Traceback" in line]
    assert found["tried"] == found["read"] + found["refused"]
    assert min(found["read"], found["refused"]) > 20
