"""Hostile files by the hundred; the thousands are for `python tests/faults/...`."""

import pytest
from faults.pictures import run


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_picture_is_read_or_refused_in_one_line(thorough):
    found = run(2000 if thorough else 200, thorough=thorough)
    assert found["which"] == []
    assert not [line for line in found["printed"] if "Warning" in line or "Traceback" in line]
    assert found["tried"] == found["read"] + found["refused"]
    assert min(found["read"], found["refused"]) > 20
