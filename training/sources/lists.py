"""Image files that a table names: "list:FILE.csv" or "list:FILE.jsonl"."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, unknown

from .base import SPLIT_NAMES, Dataset, Part, Request, assemble, split_of, used_splits

LABEL_COLUMNS = ("label", "class")
IMAGE_COLUMNS = ("image", "path", "file")


def open_list(request: Request, path: str) -> Dataset:
    file = Path(path).expanduser()
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if file.suffix.lower() not in readers:
        raise ZooError(f"list {file}: expected FILE.csv or FILE.jsonl")
    splits: dict[str, dict[str, list[str]]] = {}  # by split, by class
    rows: dict[tuple[str, str], int] = {}  # where a class first comes in a split
    try:
        for number, row in readers[file.suffix.lower()](file):
            image, label, split = _row(file, number, row)
            splits.setdefault(split, {}).setdefault(label, []).append(str(file.parent / image))
            rows.setdefault((split, label), number)
    except (OSError, UnicodeError, csv.Error) as error:
        raise ZooError(f"cannot read list {file}: {error}") from error
    if not splits:
        raise ZooError(f"list {file} has no rows")
    if "" in splits and len(splits) > 1:
        raise ZooError(f"list {file}: some rows have a split and others do not")
    given = splits.get("") or splits.get("train")
    if given is None:
        raise ZooError(f"list {file} has rows of {', '.join(sorted(splits))} but none of train")
    numbers = all(label.isdecimal() and label.isascii() for label in given)
    names = sorted(given, key=lambda label: (len(label.lstrip("0")), label.lstrip("0"), label))
    names = names if numbers else sorted(given)
    used = used_splits(request, splits) or [""]
    found: dict[str, Part] = {}
    for split in used:
        for label in splits[split]:
            if label not in given:
                raise ZooError(
                    f"list {file}, row {rows[split, label]}: label {label[:40]!r} of {split} is not"
                    " in train"
                )
        by_class = {name: splits[split].get(name, []) for name in names}
        found[split or "train"] = Part("list", str(file), by_class)
    left = [
        f"{sum(map(len, splits[split].values())):,} rows of {split}, as val is used"
        for split in splits
        if split not in used
    ]
    return assemble(request, found, left_out=left)


def _csv_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows by their number, the header being row 1."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        header = [name.strip().lower() for name in next(reader, [])]
        for columns in (IMAGE_COLUMNS, LABEL_COLUMNS):
            if not set(columns) & set(header):
                raise ZooError(
                    f"list {file}: its header (row 1) lacks a column {' or '.join(columns)}, got"
                    f" {','.join(header) or 'nothing'}"
                )
        for number, cells in enumerate(reader, 2):
            if not cells:
                continue  # an empty line
            if len(cells) != len(header):
                raise ZooError(
                    f"list {file}, row {number}: got {len(cells)} cells, expected {len(header)}:"
                    f" {','.join(header)}"
                )
            yield number, dict(zip(header, cells, strict=True))


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ZooError(f"list {file}, row {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ZooError(f"list {file}, row {number}: expected an object, got {line[:40]!r}")
            yield number, {name.lower(): value for name, value in row.items()}


def _row(file: Path, number: int, row: Mapping[str, Any]) -> tuple[str, str, str]:
    """The picture's path, label and split ("" where there is no such column)."""

    def cell(columns: tuple[str, ...]) -> str:
        value = next((row[name] for name in columns if name in row), None)
        whole = isinstance(value, int) and not isinstance(value, bool)
        text = str(value).strip() if isinstance(value, str) or whole else ""
        if not text:
            got = "nothing" if value in (None, "") else repr(value)
            raise ZooError(
                f"list {file}, row {number}: expected text for {' or '.join(columns)}, got {got}"
            )
        return text

    named = cell(("split",)) if "split" in row else ""
    split = split_of(named) if named else ""
    if split is None:
        raise ZooError(
            f"list {file}, row {number}: {unknown('split', named.lower()[:40], SPLIT_NAMES)}"
        )
    return cell(IMAGE_COLUMNS), cell(LABEL_COLUMNS), split
