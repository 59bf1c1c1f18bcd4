"""The tables that were collected of peers, and those that are made of them: CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """The rows of a CSV file, by the names in its first line."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def text(lines: Iterable[Sequence[str]]) -> str:
    """The text of a CSV file, its lines ended as Git keeps them."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
