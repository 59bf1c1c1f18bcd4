"""A report as rows and columns: shown on a terminal or in a notebook, or written for others."""

import csv
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import terminal
from ..errors import ZooError, unknown
from ..text import cell, markdown

FORMATS = ("text", "md", "csv", "json")
HEADING = 8  # characters: longer headings of numbers are broken between words
TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"


def number(form: str = ",", scale: float = 1) -> Callable[[Any], str]:
    """Shows a number in multiples of `scale`; None is left blank."""
    return lambda value: (
        "" if value is None else format(value / scale if scale != 1 else value, form)
    )


def words(value: Any) -> str:
    """The value as text; nothing for None."""
    return "" if value is None else str(value)


def shape(value: Sequence[int]) -> str:
    """Shows a shape: "56x56x64"."""
    return "x".join(map(str, value))


def folded(notes: Sequence[str]) -> str:
    """Notes as HTML that opens with a click; nothing without notes."""
    inside = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<details><summary>Notes and definitions</summary>{inside}</details>" if notes else ""


@dataclass(frozen=True)
class Column:
    """What stands in one column: its values are raw, and `show` makes them readable."""

    key: str  # in CSV, JSON and pandas: "macs"
    heading: str  # for people, with the unit: "MACs (G)"
    show: Callable[[Any], str] = words
    left: bool = False  # flush left: text
    marked: bool = False  # `show` gives Markdown, not text


@dataclass(frozen=True)
class Table:
    """A report: its rows hold raw values, in the order of the columns."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()  # what the columns mean, and where the numbers come from

    def render(self, form: str = "text") -> str:
        """The table as "text", "md", "csv" or "json", without a line break at its end.

        Raises:
          ZooError: another format.
        """
        if form not in FORMATS:
            raise unknown("format", form, FORMATS)
        return str(getattr(self, form)())

    def text(self, width: int | None = None) -> str:
        """For a terminal of `width` characters; None: as wide as the terminal is.

        Columns that do not fit beside the others follow below, the first one repeated; text too
        wide even so is cut.
        """
        width = width or terminal.line_width()
        left = {i for i, column in enumerate(self.columns) if column.left}
        head = [column.heading for column in self.columns]
        body = terminal.table(head, self._shown(), left, width=width, heading=HEADING)
        notes = [terminal.fill(note, width) for note in self.notes]
        return "\n".join([body, *([""] if notes else []), *notes])

    def md(self) -> str:
        """As GitHub shows it."""
        rule = [":--" if column.left else "--:" for column in self.columns]
        rows = [
            [
                text if column.marked else markdown(text)
                for column, text in zip(self.columns, line, strict=True)
            ]
            for line in self._shown()
        ]
        lines = ([markdown(column.heading) for column in self.columns], rule, *rows)
        shown = (f"| {' | '.join(line)} |" for line in lines)
        return "\n".join([*shown, *(f"\n{markdown(note)}" for note in self.notes)])

    def csv(self) -> str:
        """Raw values under the columns' keys; what a spreadsheet would compute has ' before it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(column.key for column in self.columns)
        writer.writerows(map(cell, row) for row in self.rows)
        return text.getvalue().rstrip("\n")

    def json(self) -> str:
        """Title, notes and rows of raw values by key."""
        return json.dumps(
            {"title": self.title, "notes": self.notes, "rows": self.records()}, indent=1
        )

    def records(self) -> list[dict[str, Any]]:
        """The raw values of each row by the columns' keys."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of the raw values.

        Raises:
          ZooError: pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-untyped]
        except ImportError:
            raise ZooError("to_pandas: pandas is not installed: pip install pandas") from None
        return pandas.DataFrame(self.records(), columns=[column.key for column in self.columns])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """What a notebook shows."""

        def line(tag: str, cells: Sequence[str]) -> str:
            sides = ("left" if column.left else "right" for column in self.columns)
            inside = "".join(
                f'<{tag} style="text-align:{side};white-space:pre">{html.escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )
            return f"<tr>{inside}</tr>"

        head = line("th", [column.heading for column in self.columns])
        body = "".join(line("td", cells) for cells in self._shown())
        notes = folded(self.notes)
        return (
            f'<table style="{TABLE_STYLE}"><caption>{html.escape(self.title)}</caption>'
            f"<thead>{head}</thead><tbody>{body}</tbody></table>{notes}"
        )

    def _shown(self) -> list[tuple[str, ...]]:
        return [
            tuple(column.show(value) for column, value in zip(self.columns, row, strict=True))
            for row in self.rows
        ]


class Tables(tuple[Table, ...]):
    """Reports that belong together, one below the other where they are printed or shown."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n\n".join(table.text() for table in self)

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self)
