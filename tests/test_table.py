"""A report as rows and columns: on a terminal, as Markdown, CSV, JSON, HTML and a data frame."""

import json
import sys
from dataclasses import replace

import pytest

import zoo
from zoo.errors import ZooError
from zoo.report import table
from zoo.report.count import LayerCount
from zoo.report.table import Column, Table, number

SMALL = Table(
    "two networks",
    (
        Column("network", "network", left=True),
        Column("params", "parameters", number()),
        Column("macs", "MACs (G)", number(",.2f", 1e9)),
    ),
    (("a|b", 1234567, 4_089_184_256), ("<i>", 5, None)),
    ("a note",),
)


def test_text():
    assert SMALL.render() == (
        "network  parameters  MACs (G)\n"
        "a|b       1,234,567      4.09\n"
        "<i>               5\n"
        "\n"
        "a note"
    )


def test_markdown_escapes_bars():
    assert SMALL.render("md").splitlines()[:3] == [
        "| network | parameters | MACs (G) |",
        "| :-- | --: | --: |",
        "| a\\|b | 1,234,567 | 4.09 |",
    ]


def test_text_is_but_text():
    table = Table("x", (Column("a", "a|<b>"), Column("b", "b", marked=True)), (("=<i>|", "`x`"),))
    assert table.md() == "| a\\|\\<b> | b |\n| --: | --: |\n| =\\<i>\\| | `x` |"
    assert table.csv() == "a,b\n'=<i>|,`x`"


def test_csv_and_json_hold_raw_values():
    assert SMALL.render("csv") == "network,params,macs\na|b,1234567,4089184256\n<i>,5,"
    found = json.loads(SMALL.render("json"))
    assert found["rows"][0] == {"network": "a|b", "params": 1234567, "macs": 4089184256}
    assert (found["title"], found["notes"]) == ("two networks", ["a note"])


def test_a_notebook_shows_it_escaped():
    shown = SMALL._repr_html_()
    assert "&lt;i&gt;" in shown
    assert "<i>" not in shown
    assert "4.09" in shown
    assert "<caption>two networks</caption>" in shown


def test_a_data_frame_of_raw_values(monkeypatch):
    class Pandas:
        @staticmethod
        def DataFrame(records, columns):
            return records, columns

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    records, columns = SMALL.to_pandas()
    assert columns == ["network", "params", "macs"]
    assert records[1] == {"network": "<i>", "params": 5, "macs": None}


def test_without_pandas_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ZooError, match="pandas is not installed: pip install pandas"):
        SMALL.to_pandas()


def test_another_format_is_refused():
    with pytest.raises(ZooError, match="unknown format 'htm'"):
        SMALL.render("htm")


def test_what_does_not_fit_follows_below():
    wide = Table(
        "wide",
        (Column("name", "name", left=True), *(Column(f"c{i}", f"column {i}") for i in range(9))),
        (("x" * 70, *(str(i) * 12 for i in range(9))),),
    )
    lines = wide.text(60).splitlines()
    assert max(map(len, lines)) <= 60
    for i in range(9):
        (line,) = (line for line in lines if str(i) * 12 in line)
        assert line.startswith("x" * 29 + "…")


def test_text_too_wide_for_any_line_is_cut():
    wide = Table(
        "wide", (Column("a", "a", left=True), Column("b", "b", left=True)), (("k", "y" * 99),)
    )
    assert wide.text(40).splitlines()[1] == "k  " + "y" * 36 + "…"


def test_layers_stand_under_the_sums_of_their_stages():
    def layer(name: str, params: int) -> LayerCount:
        return LayerCount(name, params, 0, 10 * params, (1, 1, params), "1x1", 0, 7)

    rows = (
        layer("body.stem", 1),
        layer("body.stage1.block0.conv1", 2),
        layer("body.stage1.block0.conv2", 3),
        layer("body.stage1.block1.conv1", 4),
        layer("classifier", 5),
    )
    c = replace(zoo.count("mobilenet_v1_025"), params=15, macs=150, layers=rows)
    shown = c.table()
    assert [(row["layer"], row["params"], row["macs"]) for row in shown.records()] == [
        ("body", 10, 100),
        ("body.stem", 1, 10),
        ("body.stage1", 9, 90),
        ("body.stage1.block0", 5, 50),
        ("body.stage1.block0.conv1", 2, 20),
        ("body.stage1.block0.conv2", 3, 30),
        ("body.stage1.block1", 4, 40),
        ("body.stage1.block1.conv1", 4, 40),
        ("classifier", 5, 50),
        ("total", 15, 150),
    ]
    lines = shown.text().splitlines()
    names = [line[: len("      conv1")].rstrip() for line in lines if line.strip()]
    assert "    block0" in names
    assert c._repr_html_() == shown._repr_html_()
    assert "      conv1" in names


def test_headings_of_numbers_are_broken_between_words():
    head = Table("", (Column("a", "a long heading"),), ((1,),)).text().splitlines()
    assert all(len(line.strip()) <= table.HEADING for line in head)


def test_a_notebook_folds_notes_away():
    noted = Table("t", (Column("a", "a"),), (("1",),), ("<b>what</b> a means",))
    shown = noted._repr_html_()
    head, _, rest = shown.partition("<details><summary>")
    assert "means" not in head
    assert "&lt;b&gt;what&lt;/b&gt; a means</p></details>" in rest
    assert "<details" not in Table("t", noted.columns, noted.rows)._repr_html_()
