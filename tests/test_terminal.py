"""Text laid out for a terminal."""

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
