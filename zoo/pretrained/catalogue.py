"""The catalogue of published weights: `catalogue.csv`, one row for each file.

`tools/catalogue.py` collected it from the sources' own metadata; the fields of `Weights` say what
the columns hold. Reading it imports neither jax nor a network.
"""

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from .. import plugins
from ..errors import ZooError, check_no_file, few, unknown
from ..origin import Origin
from ..preprocess import Preprocess
from ..settings import shown
from ..text import reason

HERE = Path(__file__).parent
# weights that this project trained, each beside its card: beside the package in a clone
_installed = HERE.parent / "checkpoints"
OWN = _installed if _installed.is_dir() else HERE.parents[1] / "checkpoints"

PRESETS = ("TORCH", "TF", "KERAS")  # of `zoo.context`, which is slow to import
HUB, FIRST = "sha256 of the Hub", "first download"  # `Weights.check` where no hash was published

# fmt: off
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
# fmt: on

Row = dict[str, str]


@dataclass(frozen=True)
class Weights:
    """One published file of weights: where it is, how to read it, and how accurate it is."""

    model: str  # one of `zoo.list_models()`
    tag: str  # who trained it, and on what: "tv2_in1k", "a1_in1k", "keras_in1k"
    source: str  # torchvision, timm, keras, slim, caffe, files; zoo: ours, in `OWN`
    file: str  # https://..., hf://organisation/repository/file, or a bare name: not for download
    hash: str  # "sha256:", "md5:" or "sha1:" and the digest or its first digits; empty: unknown
    size_mb: float | None  # 10^6 bytes, roughly; None: unknown
    layout: str  # how the file names its tensors
    numerics: str  # a preset of `zoo.context`; empty: the layout's own for the family
    preprocess: Preprocess
    classes: int  # 0: no classifier in the file
    label_offset: int  # output number of the first ILSVRC class: 1 where background comes first
    licence: str  # SPDX, where SPDX has it
    non_commercial: bool  # the licence forbids commercial use, or may
    top1: float | None  # percent of ImageNet's validation set as the source says; None: it does not
    top5: float | None
    params: int  # trainable parameters, as `zoo.count` gives them
    default: bool  # what the network's bare name stands for
    notes: str

    @property
    def name(self) -> str:
        """What `zoo.weights` and `zoo.load` call it: "resnet50.a1_in1k"."""
        return f"{self.model}.{self.tag}"

    @property
    def extra_data(self) -> bool:
        """Whether they saw more pictures than ImageNet-1k's: their tag says `_ft_`."""
        return "_ft_" in self.tag

    @property
    def origin(self) -> Origin:
        """Their name, licence and address, which go with the tensors wherever these are written."""
        hub = re.match(r"hf://([^/]+/[^/@]+)", self.file)
        address = f"https://huggingface.co/{hub[1]}" if hub else self.file
        address = address if "://" in address else ""
        return Origin(self.name, self.licence, address, self._before())

    def _before(self) -> str:
        """What weights of our own started from, and where that is; "": from random weights."""
        facts = (OWN / self.file).with_suffix(".json")
        if self.source != "zoo" or not facts.is_file():
            return ""
        name: str = json.loads(facts.read_bytes()).get("started_from", "")
        return f"{name} ({weights(name).origin.address})" if name else ""

    @property
    def check(self) -> str:
        """What a download is compared with, and the cached file whenever it is read.

        "sha256", "md5", "sha1": the published hash; "sha256, 8 digits": its published beginning.
        "sha256 of the Hub": the hash that the Hub declares at the download. "first download": the
        approximate size, if `size_mb` is known, and the MD5, if the host declares one. After these
        two the cached file is compared with the digest that was recorded at the download.
        "shipped": the file is part of this package. "by hand": there is no download.
        """
        if self.source == "zoo":
            return "shipped"
        if "://" not in self.file:
            return "by hand"
        algorithm, _, digest = self.hash.partition(":")
        if digest:
            whole = len(digest) == 2 * hashlib.new(algorithm).digest_size
            return algorithm if whole else f"{algorithm}, {len(digest)} digits"
        return HUB if self.file.startswith("hf://") else FIRST


def weights(name: str) -> Weights:
    """The record of published weights.

    Args:
      name: one of `list_weights()`, or a network's name or alias alone for its default.

    Raises:
      ZooError: no such network or weights; the line offers the nearest names.

    >>> weights("resnet50.a1_in1k").top1
    80.382
    >>> weights("googlenet").name
    'inception_v1.tv1_in1k'
    """
    if not isinstance(name, str):
        raise ZooError(f"weights: got {shown(name)}, expected a name of zoo.list_weights()")
    model, dot, tag = name.partition(".")
    if model not in _rows():
        from ..registry import find  # knows the aliases, and is slow to import

        check_no_file(name)
        model = find(model).name
    rows = _rows().get(model)
    if rows is None:
        raise ZooError(f"no published weights of {model} are known: see zoo.list_weights()")
    if not dot:
        default = next(filter(_is_default, rows.values()), None)
        if default is None:
            names = few(row["name"] for row in rows.values())
            free = any(not row["non_commercial"] for row in rows.values())
            why = "have no default" if free else "are non-commercial"
            raise ZooError(f"weights of {model} {why}: ask for them by name: {names}")
        return _record(default)
    if tag not in rows:
        raise unknown("weights", f"{model}.{tag}", (row["name"] for row in rows.values()))
    return _record(rows[tag])


def list_weights(pattern: str = "*") -> list[str]:
    """The names of the published weights that match a shell pattern.

    `zoo.list_weights`, in `report/listing.py`, filters and sorts them too.

    >>> list_weights("resnet18.a*")
    ['resnet18.a1_in1k', 'resnet18.a2_in1k', 'resnet18.a3_in1k']
    """
    names = (row["name"] for rows in _rows().values() for row in rows.values())
    return [name for name in names if fnmatch(name, pattern)]


def class_names(weights: Weights) -> tuple[str, ...]:
    """The classes of the outputs, in order; () where the source names none (ImageNet-21k)."""
    if weights.source == "zoo":
        return tuple(about(OWN / weights.file)["classes"])
    imagenet = imagenet_classes()
    data = {"cifar10": CIFAR10, "in1k": imagenet, "features": imagenet}  # as tags say it
    names = next((data[part] for part in weights.tag.split("_") if part in data), ())
    if weights.label_offset:
        names = ("background", *names)
    return names if len(names) == weights.classes else ()


def bundled(weights: Weights) -> Path | None:
    """The file of weights that come with the package: our own, and a few published ones."""
    if weights.source == "zoo":
        return OWN / weights.file
    file = OWN / f"{weights.name}.safetensors"
    return file if file.is_file() else None


def about(file: Path) -> dict[str, Any]:
    """The description that `zoo.save` wrote into a file: spec, preprocessing, classes."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        described: dict[str, Any] = json.loads(opened.metadata()["zoo"])
    return described


def _rows() -> dict[str, dict[str, Row]]:
    """Rows by network and tag: ours, then those that plugins registered."""
    plugins.load()
    return _known()


@cache
def _known() -> dict[str, dict[str, Row]]:
    """Rows of our file and those that were registered so far."""
    rows: dict[str, dict[str, Row]] = {}
    with (HERE / "catalogue.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            model, _, tag = row["name"].partition(".")
            rows.setdefault(model, {})[tag] = row
    return rows


def register_weights(file: str | Path) -> None:
    """Add the rows of a CSV file of your own to the catalogue, for this process.

    Args:
      file: with the columns of `catalogue.csv`, in any order; the fields of `Weights` say what
        they hold. `name` is "network.tag" of a network that is known; `mean` and `std` are numbers
        with spaces between them; `resize` may be "87.5%", the share of both sides that is cut out
        before. Where `source` is "zoo", `file` is one that `zoo.save` wrote, beside the CSV.

    Raises:
      ZooError: the file cannot be read, or the first row and column that is wrong. Nothing is
        added then.
    """
    path = Path(file)
    new: dict[str, dict[str, Row]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            _check_head(reader.fieldnames or [])
            for row in reader:
                row = {**row, "folder": str(path.parent.resolve())}
                try:
                    _check(row, new)
                except ZooError as error:
                    raise ZooError(f"row {reader.line_num}, {error}") from error
                model, _, tag = row["name"].partition(".")
                new.setdefault(model, {})[tag] = row
    except ZooError as error:
        raise ZooError(f"register_weights: {path}, {error}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise ZooError(f"register_weights: cannot read {path}: {reason(error)}") from error
    for model, rows in new.items():
        _known().setdefault(model, {}).update(rows)


def _check_head(columns: Sequence[str]) -> None:
    for place, column in enumerate(columns):
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS)
        if column in columns[:place]:
            raise ZooError(f"column {column!r} comes twice")
    if missing := [column for column in COLUMNS if column not in columns]:
        raise ZooError(f"no column {', '.join(map(repr, missing))}")


def _check(row: Row, before: dict[str, dict[str, Row]]) -> None:
    """Refuse a row from outside that is wrong, or clashes with the catalogue or rows `before`."""
    from ..registry import find  # slow to import, as are the layouts
    from .layouts import layouts

    if None in row or None in row.values():
        raise ZooError(f"got more or fewer cells than {len(COLUMNS)}, one a column")
    record = _record(row)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", record.tag):  # part of a file's name in the cache
        raise ZooError(f"name: got {shown(row['name'])}, expected NETWORK.TAG")
    try:
        network = find(record.model).name
    except ZooError as error:
        raise ZooError(f"name: {error}") from error
    if network != record.model:
        raise ZooError(f"name: got {record.model!r}, expected {network!r}, which it stands for")
    others = _known().get(network, {}) | before.get(network, {})
    if record.tag in others:
        raise ZooError(f"name: {record.name!r} is taken")
    if record.default and (default := next(filter(_is_default, others.values()), None)):
        raise ZooError(f"default: the default weights of {network} are {default['name']}")
    if record.layout not in layouts():
        raise ZooError(f"layout: {unknown('layout', record.layout, layouts())}")
    if record.source == "zoo" and record.layout != "zoo":
        raise ZooError(f"layout: got {record.layout!r}, expected 'zoo', as `source` is")
    if record.source == "zoo" and not Path(record.file).is_file():
        raise ZooError(f"file: there is no {record.file}")


def _is_default(row: Row) -> bool:
    return row["default"] == "true"


# --- cells ---------------------------------------------------------------------------------------


def _text(cell: str) -> str:
    return cell


def _whole(cell: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", cell):
        raise ZooError(f"got {shown(cell)}, expected a whole number")
    return int(cell)


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ZooError(f"got {shown(cell)}, expected a number")
    return number


def _percent(cell: str) -> float:
    if (number := _number(cell)) > 100:
        raise ZooError(f"got {shown(cell)}, expected percent")
    return number


def _numbers(cell: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, cell.split()))
    except ValueError:
        raise ZooError(f"got {shown(cell)}, expected numbers") from None


def _yes(cell: str) -> bool:
    if cell not in ("", "true"):
        raise ZooError(f"got {shown(cell)}, expected 'true' or nothing")
    return bool(cell)


def _address(cell: str) -> str:
    if not cell or ("://" in cell and not cell.startswith(("https://", "hf://"))):
        raise ZooError(
            f"got {shown(cell)}, expected https://HOST/PATH, hf://OWNER/REPO/FILE or a file's name"
        )
    return cell


def _hash(cell: str) -> str:
    if cell and not re.fullmatch(r"(sha256|md5|sha1):[0-9a-fA-F]{8,64}", cell):
        raise ZooError(f"got {shown(cell)}, expected 'sha256:', 'md5:' or 'sha1:' and 8 digits on")
    return cell


def _preset(cell: str) -> str:
    if cell not in ("", *PRESETS):
        raise unknown("numerics", cell, PRESETS)
    return cell


def _optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: parse(cell) if cell else None


# The columns of the file, in order, with the function that parses a cell of each.
CELLS: dict[str, Callable[[str], Any]] = {
    "name": _text,
    "source": _text,
    "file": _address,
    "hash": _hash,
    "size_mb": _optional(_number),
    "layout": _text,
    "numerics": _preset,
    "classes": _whole,
    "label_offset": _whole,
    "licence": _text,
    "non_commercial": _yes,
    "top1": _optional(_percent),
    "top5": _optional(_percent),
    "params": _whole,
    "default": _yes,
    "notes": _text,
}
# The same for the columns of the preprocessing: a cell gives some fields of a `Preprocess`.
PICTURES: dict[str, Callable[[str], dict[str, Any]]] = {
    "input_size": lambda cell: {"size": _whole(cell), "resize": None},
    "resize": lambda cell: (
        {"central": _number(cell[:-1]) / 100}
        if cell.endswith("%")
        else {"resize": _optional(_whole)(cell)}
    ),
    "squash": lambda cell: {"squash": _yes(cell)},
    "interpolation": lambda cell: {"interpolation": cell},
    "mean": lambda cell: {"mean": _numbers(cell), "std": (1.0,) * len(cell.split())},
    "std": lambda cell: {"std": _numbers(cell)},
    "channels": lambda cell: {"channels": cell},
}
COLUMNS = (*CELLS, *PICTURES)


def _cell(row: Row, column: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(row[column])
    except ZooError as error:
        raise ZooError(f"{column}: {error}") from None


def _first_wrong(row: Row) -> str:
    """The first column whose value no `Preprocess` can have."""
    pictures: dict[str, Any] = {}
    for column, part in PICTURES.items():
        pictures |= part(row[column])
        try:
            Preprocess.from_dict(pictures)
        except ZooError:
            break
    return column


def _record(row: Row) -> Weights:
    """The record of a row.

    Raises:
      ZooError: the first cell that is wrong, by its column.
    """
    values = {column: _cell(row, column, parse) for column, parse in CELLS.items()}
    pictures: dict[str, Any] = {}
    for column, part in PICTURES.items():
        pictures |= _cell(row, column, part)
    try:
        preprocess = Preprocess.from_dict(pictures)
    except ZooError as error:
        raise ZooError(f"{_first_wrong(row)}: {error}") from None
    model, _, tag = values.pop("name").partition(".")
    if values["source"] == "zoo":  # our own lie in a folder of the package
        values["file"] = str(Path(row.get("folder", "")) / values["file"])
    return Weights(model=model, tag=tag, preprocess=preprocess, **values)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ILSVRC2012's 1000 classes, in the order of the outputs.

    >>> imagenet_classes()[0]
    'tench'
    """
    return tuple((HERE / "imagenet_classes.txt").read_text("utf-8").splitlines())


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The WordNet numbers of the same classes, which the folders of the pictures are called.

    >>> imagenet_synsets()[0]
    'n01440764'
    """
    return tuple((HERE / "imagenet_synsets.txt").read_text("utf-8").splitlines())
