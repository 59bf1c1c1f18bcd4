"""Text laid out for a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

from training.logging import Progress
from zoo import terminal
from zoo.report.table import Column, Table


def test_numbers_are_flush_right_and_text_flush_left():
    shown = terminal.table(
        ("name", "n", "what"), [("a", "1", "x"), ("bbbbb", "12,345", "yy")], (0, 2)
    )
    assert shown.splitlines() == ["name        n  what", "a           1  x", "bbbbb  12,345  yy"]


def test_without_a_width_a_row_is_one_line():
    lines = terminal.table(("a", "b"), [("x" * 300, "y" * 300)]).splitlines()
    assert [len(line) for line in lines] == [602, 602]


def test_a_head_alone():
    assert terminal.table(("network", "also called"), [], range(2)) == "network  also called"


def test_a_table_is_as_wide_as_the_terminal(monkeypatch):
    wide = Table("", tuple(Column(f"c{i}", f"c{i}") for i in range(20)), (("12345678",) * 20,))
    for columns in (60, 200):
        monkeypatch.setenv("COLUMNS", f"{columns}")
        widest = max(map(len, wide.text().splitlines()))
        assert columns - 10 <= widest <= columns
    monkeypatch.setenv("COLUMNS", "1")
    assert terminal.line_width() == terminal.NARROWEST


def test_paragraphs_keep_addresses_whole():
    address = "https://example.org/" + "x" * 50
    assert terminal.fill(f"see {address}", 40).splitlines() == ["see", f"  {address}"]


def shown(screen: int, text: str) -> str:
    """What a terminal shows, until it shows this: it comes in pieces."""
    seen = b""
    while text not in seen.decode(errors="ignore"):
        ready, _, _ = select.select([screen], [], [], 10)
        assert ready, f"{text!r} is missing: {seen!r}"
        seen += os.read(screen, 10_000)
    return seen.decode(errors="ignore")


def test_the_bar_says_when_it_compiles_and_fits_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(theirs, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        bar = Progress(epochs=100, pictures=1_281_167, done=0)
        bar.begin(98)
        assert "left" not in shown(ours, "epoch 99/100: compiling...")
        bar.advance(256)
        shown(ours, "? left, ?img/s")  # one step tells nothing
        time.sleep(0.2)  # longer than the bar stands still
        bar.advance(256)
        bar.glance(12.345, 0.999, 0.99)
        bar.close()
        last = shown(ours, "wait 99%")
    os.close(ours)
    assert re.search(r"[0-9:]{5,} left, [0-9.]+k?img/s, loss 12.345 acc 99.9% wait 99%", last)
    assert max(len(line.rstrip()) for line in re.split(r"[\r\n]+", last)) <= 80


def test_without_a_terminal_there_is_no_bar(capsys):
    bar = Progress(epochs=2, pictures=32, done=0)
    bar.begin(0)
    for _ in range(2):
        bar.advance(16)
        bar.glance(1.0, 0.5, 0.0)
    bar.go_back(16)
    bar.close()
    assert capsys.readouterr().err == ""
