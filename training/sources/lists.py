"""Image files that a table names: "list:FILE.csv", "list:FILE.tsv" or "list:FILE.jsonl"."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, unknown
from zoo.reading import no_file
from zoo.text import plain

from .base import Dataset, Request
from .classes import Part, assemble
from .splits import SPLIT_NAMES, split_of, used_splits

LABEL_COLUMNS = ("label", "class")
SEVERAL = "labels"  # the column of pictures that may show several classes, or none
BETWEEN = "|"  # their names in a CSV file
IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "image_path", "filepath", "id")
SEPARATORS = ",;\t|"
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # that an id may lack


def open_list(request: Request, path: str) -> Dataset:
    """A CSV or JSON Lines file that lists pictures with their labels; see `open_dataset`."""
    file = Path(path).expanduser()
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows}
    if file.suffix.lower() not in readers:
        raise ZooError(f"list {plain(str(file))}: expected FILE.csv, FILE.tsv or FILE.jsonl")
    splits: dict[str, dict[str, list[str]]] = {}  # by split, by class
    rows: dict[tuple[str, str], int] = {}  # where a class first comes in a split
    shown: dict[str, dict[str, set[str]]] = {}  # by split, by picture: its classes
    several = False
    if why := no_file(file):
        raise ZooError(f"cannot read list {plain(str(file))}: {why}")
    try:
        for number, row in readers[file.suffix.lower()](file):
            image, labels, split = _row(file, number, row)
            several = several or SEVERAL in row
            picture = _picture(file.parent / image) if "id" in row else str(file.parent / image)
            if SEVERAL in row and picture in shown.get(split, ()):
                raise ZooError(f"{_at(file, number)}: {plain(image)[:80]} comes a second time")
            shown.setdefault(split, {}).setdefault(picture, set()).update(labels)
            by_label = splits.setdefault(split, {})
            for label in labels:
                by_label.setdefault(label, []).append(picture)
                rows.setdefault((split, label), number)
    except UnicodeError as error:
        raise ZooError(
            f"cannot read list {plain(str(file))}: not UTF-8 ({error.reason} in"
            f" {error.object[error.start : error.start + 20]!r}): save it as UTF-8"
            if isinstance(error, UnicodeDecodeError)
            else f"cannot read list {plain(str(file))}: {error}"
        ) from error
    except (OSError, csv.Error) as error:
        raise ZooError(f"cannot read list {plain(str(file))}: {error}") from error
    if not splits:
        raise ZooError(f"list {plain(str(file))} has no rows")
    if "" in splits and len(splits) > 1:
        raise ZooError(f"list {plain(str(file))}: some rows have a split and others do not")
    given = splits.get("") or splits.get("train")
    if given is None:
        raise ZooError(
            f"list {plain(str(file))} has rows of {', '.join(sorted(splits))} but none of train"
        )
    numbers = all(label.isdecimal() and label.isascii() for label in given)
    names = sorted(given, key=lambda label: (len(label.lstrip("0")), label.lstrip("0"), label))
    names = names if numbers else sorted(given)
    used = used_splits(request, splits) or [""]
    parts: dict[str, Part] = {}
    for split in used:
        for label in splits[split]:
            if label not in given:
                raise ZooError(
                    f"{_at(file, rows[split, label])}: label {label[:40]!r} of {split} is not"
                    " in train"
                )
        by_class = {name: splits[split].get(name, []) for name in names}
        parts[split or "train"] = Part(
            "list", str(file), by_class, several=shown[split] if several else None
        )
    left = [
        f"{len(shown[split]):,} rows of {split}, as val is used"
        for split in splits
        if split not in used
    ]
    return assemble(request, parts, left_out=left)


def _csv_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows by their number, the header being row 1, which shows what separates cells."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        first = lines.readline()
        lines.seek(0)
        reader = csv.reader(lines, delimiter=max(SEPARATORS, key=first.count))
        header = _named([name.strip().lower() for name in next(reader, [])])
        for columns in (IMAGE_COLUMNS, (*LABEL_COLUMNS, SEVERAL)):
            if not set(columns) & set(header):
                raise ZooError(
                    f"list {plain(str(file))}: its header (row 1) lacks a column"
                    f" {' or '.join(columns[:3])}, got"
                    f" {plain(','.join(header))[:200] or 'nothing'}"
                )
        for number, cells in enumerate(reader, 2):
            if not cells:
                continue  # an empty line
            if len(cells) != len(header):
                raise ZooError(
                    f"{_at(file, number)}: got {len(cells)} cells, expected {len(header)}:"
                    f" {plain(','.join(header))[:200]}"
                )
            yield number, dict(zip(header, cells, strict=True))


def _named(header: list[str]) -> list[str]:
    """The header with the label's column called so where it is the only one that has another use.

    >>> _named(["id", "breed"])
    ['id', 'label']
    """
    others = [name for name in header if name not in (*IMAGE_COLUMNS, "split")]
    known = {*LABEL_COLUMNS, SEVERAL} & {*header}
    if len(others) == 1 and len(header) > 1 and not known:
        return ["label" if name == others[0] else name for name in header]
    return header


def _picture(path: Path) -> str:
    """The file of an id, which may lack its suffix."""
    names = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return str(path if path.is_file() else next(filter(Path.is_file, names), path))


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ZooError(f"{_at(file, number)}: not JSON: {error}") from error
            if not isinstance(row, dict):
                got = repr(line[:40])
                raise ZooError(f"{_at(file, number)}: expected an object, got {got}")
            yield number, {name.lower(): value for name, value in row.items()}


def _row(file: Path, number: int, row: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """The picture's path, labels and split ("" where there is no such column)."""

    def cell(columns: tuple[str, ...], longest: int) -> str:
        value = next((row[name] for name in columns if name in row), None)
        whole = isinstance(value, int) and not isinstance(value, bool)
        text = str(value).strip() if isinstance(value, str) or whole else ""
        where = f"{_at(file, number)}: expected text for {' or '.join(columns[:3])}"
        if not text:
            got = "nothing" if value in (None, "") else repr(value)[:60]
            raise ZooError(f"{where}, got {got}")
        if len(text) > longest or "\0" in text:
            got = f"{len(text):,} characters" if len(text) > longest else repr(text)
            raise ZooError(f"{where}, at most {longest:,} characters without NUL, got {got}")
        return text

    named = cell(("split",), 20) if "split" in row else ""
    split = split_of(named) if named else ""
    if split is None:
        raise ZooError(f"{_at(file, number)}: {unknown('split', named.lower(), SPLIT_NAMES)}")
    labels = _labels(file, number, row[SEVERAL]) if SEVERAL in row else [cell(LABEL_COLUMNS, 255)]
    return cell(IMAGE_COLUMNS, 4096), labels, split


def _labels(file: Path, number: int, value: Any) -> list[str]:
    """The names of a picture's classes, of which there may be none."""
    names = value.split(BETWEEN) if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ZooError(
            f"{_at(file, number)}: expected a list of names for {SEVERAL}, or text with {BETWEEN} "
            f"between them, got {value!r:.60}"
        )
    names = [name.strip() for name in names if name.strip()]
    if any(len(name) > 255 or "\0" in name for name in names):
        raise ZooError(f"{_at(file, number)}: expected names of at most 255 characters without NUL")
    return [*dict.fromkeys(names)]


def _at(file: Path, number: int) -> str:
    """The name of a row in error messages."""
    return f"list {plain(str(file))}, row {number}"
