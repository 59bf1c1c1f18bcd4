"""Datasets by name: where the pictures are, which class each has, and which are held out.

Nothing here decodes a picture to learn its class, and nothing is written but what TFDS prepares.
"""

import contextlib
import csv
import difflib
import gzip
import importlib
import io
import json
import lzma
import math
import os
import pickle
import re
import stat
import struct
import tarfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError, unknown

from .decode import Encoded, check

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
VAL_NAMES = ("val", "validation", "valid", "test")  # in this order, where there are several
UNPACKED = 4 << 30  # bytes of pictures that a compressed archive may unpack to in memory
IMAGE_COLUMNS = ("image", "path", "file")
LABEL_COLUMNS = ("label", "class")


class Source(Protocol):
    """Pictures by number: `{"image": path, PIL image, uint8 array or Encoded, "label": int}`.

    One that knows all its labels has them as `labels`, an int array [N]; see `labels_of`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def labels_of(source: Source) -> np.ndarray:
    """The label of every picture, int64 [N]; nothing is decoded where the source knows them."""
    known = getattr(source, "labels", None)
    if known is None:
        known = [source[i]["label"] for i in range(len(source))]
    return np.asarray(known, np.int64)


@dataclass(frozen=True)
class Dataset:
    """What to learn from, and what to measure on.

    Args:
        name: the spec it was opened with.
        classes: their names; a label is an index into them.
        train, val: the two sources.
        image_size: the size to train at unless told otherwise, pixels; None: the network's own.
        flip: whether a mirrored picture still belongs to its class.
        skipped: the files left out because they cannot be read, each "path: reason".
    """

    name: str
    classes: tuple[str, ...]
    train: Source
    val: Source
    image_size: int | None
    flip: bool
    skipped: tuple[str, ...] = ()

    @cached_property
    def class_counts(self) -> np.ndarray:
        """How many training pictures each class has, int64 [classes]."""
        return np.bincount(labels_of(self.train), minlength=len(self.classes))


@dataclass(frozen=True)
class Files:
    """A `Source` of image files, or of such files inside an archive.

    Args:
        examples: pairs of path and label.
        archive: what the paths lead into; None: the disk.
    """

    examples: tuple[tuple[str, int], ...]
    archive: "Archive | None" = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        path, label = self.examples[index]
        return {"image": self.archive[path] if self.archive else path, "label": label}

    @cached_property
    def labels(self) -> np.ndarray:
        return np.array([label for _, label in self.examples], np.int64)


@dataclass(frozen=True, eq=False)
class Arrays:
    """A `Source` of pictures in memory: uint8 [N, H, W, 3] or [N, H, W], labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}


@dataclass(frozen=True, eq=False)
class Subset:
    """Some pictures of another `Source`, by number."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return self.source[int(self.indices[index])]

    @cached_property
    def labels(self) -> np.ndarray:
        return labels_of(self.source)[self.indices]


@dataclass(frozen=True)
class Request:
    """What `open_dataset` was asked for."""

    spec: str
    val_fraction: float
    split_seed: int
    skip_unreadable: bool


def open_dataset(
    spec: str, *, val_fraction: float = 0.2, split_seed: int = 0, skip_unreadable: bool = False
) -> Dataset:
    """Open a dataset by name.

    Args:
        spec: one of

            - "digits": scikit-learn's 8x8 digits, with a split of their own.
            - "folder:PATH": a folder of class folders of pictures, or of `train/` and `val/` (or
              `validation/`, `valid/`, `test/`) that hold those.
            - "tar:FILE": the same inside a tar file. An uncompressed one is read where it lies, a
              compressed one unpacked in memory, up to 4 GiB.
            - "list:FILE": FILE.csv, with a header, or FILE.jsonl: a row has an `image` (or `path`,
              `file`), relative to the list's folder, a `label` (or `class`), and where pictures
              are not to be held out at random a `split`: train, val or test.
            - "cifar10:PATH", "cifar100:PATH": the original files, the Python or the binary version,
              in a folder or still in their .tar.gz; or a tar file or folder of class folders. The
              classes of CIFAR-100 are its 100 fine ones.
            - "fashion_mnist:PATH", "mnist:PATH": a folder of the original idx files, gzipped or
              not. Their 28x28 pixels get an edge of 2 black ones.
            - "tfds:NAME", "tfds:NAME/CONFIG", either with ":VERSION": TensorFlow Datasets, without
              TensorFlow. What is prepared as array_record in $TFDS_DATA_DIR (by default
              ~/tensorflow_datasets) is read from there, the newest version; anything else is
              downloaded and prepared, where the builder can do without TensorFlow.
        val_fraction: share of each class to hold out where the dataset has no validation split.
        split_seed: which pictures are held out then.
        skip_unreadable: leave out files that cannot be read instead of raising.

    Raises:
        ZooError: an unknown spec, or one that leads to no such dataset. The pictures of "folder",
            "tar" and "list" are decoded once, so that a damaged file is told now and not an hour
            into training.
    """
    if not 0 < val_fraction < 1:
        raise ZooError(f"val_fraction must lie between 0 and 1, got {val_fraction}")
    request = Request(spec, val_fraction, split_seed, skip_unreadable)
    kind, _, path = spec.partition(":")
    for known, opener in OPENERS.items():
        if path and known.startswith(f"{kind}:"):
            return opener(request, path)
    if spec == "digits":
        return _digits()
    raise unknown("dataset", spec, ("digits", *OPENERS))


def _digits() -> Dataset:
    from . import digits  # TFDS takes a while to import

    cache = Path(os.environ.get("ZOO_CACHE") or Path.home() / ".cache" / "zoo")
    splits = digits.sources(cache / "tfds")
    return Dataset(
        "digits", digits.CLASSES, splits["train"], splits["val"], image_size=48, flip=False
    )


# --- image files: found, checked, split -----------------------------------------------------------


@dataclass
class Part:
    """The image files of a split by class, as they were found, not yet read.

    Args:
        kind: "folder", "archive" or "list", for errors.
        root: where it is, for errors.
        classes: for each class its files, in order.
        broken: what could not even be looked into, with the reason.
        loose: whether there are pictures that are in no class folder.
    """

    kind: str
    root: str
    classes: dict[str, list[str]]
    broken: dict[str, str] = field(default_factory=dict)
    loose: bool = False

    def named(self, name: str) -> str:
        """How errors call a class."""
        if self.kind == "list":
            return f"class {name!r} of {self.root}"
        return f"class folder {self.root}/{name}"


def _assemble(
    request: Request, train: Part, val: Part | None, archive: "Archive | None" = None
) -> Dataset:
    """Check that the classes make sense and that every file can be read, and split."""
    _check_classes(train)
    if val and val.kind != "list":  # whose rows were checked one by one
        _check_same(train, val)
        _check_classes(val)
    parts = [train, val] if val else [train]
    paths = [path for part in parts for files in part.classes.values() for path in files]
    unreadable = _unreadable(paths, archive)
    broken = {path: why for part in parts for path, why in part.broken.items()}
    where = f"{archive.path}/" if archive else ""
    skipped = tuple(
        _shown(f"{where}{path}: {reason}")
        for path, reason in sorted({**unreadable, **broken}.items())
    )
    if skipped and not request.skip_unreadable:
        raise ZooError(
            f"{len(skipped)} of {len(paths) + len(broken)} images in {_shown(_top(parts))} cannot"
            f" be read: {_few(skipped)}. Leave them out with --skip-unreadable"
            " (in Python: skip_unreadable=True)"
        )
    for part in parts:
        for name, files in part.classes.items():
            part.classes[name] = [path for path in files if path not in unreadable]
            if files and not part.classes[name]:
                raise ZooError(f"{part.named(name)} has no image that can be read")
    train_examples, val_examples = _examples(train), _examples(val) if val else ()
    if not val:
        labels = np.array([label for _, label in train_examples])
        names = [train.named(name) for name in train.classes]
        kept, held = hold_out(labels, names, request.val_fraction, request.split_seed)
        val_examples = tuple(train_examples[i] for i in held)
        train_examples = tuple(train_examples[i] for i in kept)
    if not val_examples:
        raise ZooError(f"{val.root if val else train.root} has no image to validate on")
    return Dataset(
        request.spec,
        tuple(train.classes),
        Files(train_examples, archive),
        Files(val_examples, archive),
        image_size=None,
        flip=True,
        skipped=skipped,
    )


def _examples(part: Part) -> tuple[tuple[str, int], ...]:
    return tuple((p, label) for label, files in enumerate(part.classes.values()) for p in files)


def _top(parts: list[Part]) -> str:
    """The place that holds all parts."""
    roots = {part.root for part in parts}
    return roots.pop() if len(roots) == 1 else os.path.commonpath(roots) or "."


def _few(lines: Sequence[str]) -> str:
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


def _shown(path: str) -> str:
    """A path that can be printed, whatever bytes its name has."""
    return path.encode(errors="backslashreplace").decode()


def hold_out(
    labels: np.ndarray, names: list[str], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the pictures to keep and of those to hold out, both rising.

    Held out is `fraction` of each class, rounded, but at least one picture and never all.

    Args:
        names: how an error calls the classes.
    """
    members = np.split(
        np.argsort(labels, kind="stable"), np.bincount(labels, minlength=len(names)).cumsum()[:-1]
    )
    held = []
    for label, own in enumerate(members):
        if not len(own):
            continue
        if len(own) == 1:
            raise ZooError(f"{names[label]} has one image: to hold some out it takes at least 2")
        count = min(max(round(len(own) * fraction), 1), len(own) - 1)
        order = np.random.default_rng((seed, label)).permutation(len(own))
        held.append(own[order[:count]])
    val = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), val), val


def _check_classes(part: Part) -> None:
    filled = [name for name, files in part.classes.items() if files]
    reasons = [_shown(f"{path}: {reason}") for path, reason in sorted(part.broken.items())]
    told = f" ({_few(reasons)})" if reasons else ""
    if not filled:
        what = "images but no class folders" if part.loose else "no images"
        raise ZooError(
            f"{part.kind} {part.root} holds {what}{told}: expected a folder of images for each"
            " class"
        )
    if len(part.classes) == 1:
        raise ZooError(
            f"{part.kind} {part.root} holds a single class, {filled[0]!r}: a classifier needs at"
            " least 2"
        )
    if empty := [name for name in part.classes if name not in filled]:
        folders = ", ".join(f"{part.root}/{name}" for name in empty)
        raise ZooError(
            f"no images in the class folder{'s' if len(empty) > 1 else ''} {folders}{told}"
        )


def _check_same(train: Part, val: Part) -> None:
    lacks = [
        f"{part.root} lacks {', '.join(map(repr, sorted(missing)))}"
        for part, missing in (
            (train, set(val.classes) - set(train.classes)),
            (val, set(train.classes) - set(val.classes)),
        )
        if missing
    ]
    if lacks:
        raise ZooError(f"training and validation must have the same classes: {'; '.join(lacks)}")


def _unreadable(paths: list[str], archive: "Archive | None") -> dict[str, str]:
    """The files that cannot be decoded, with the reason for each."""

    def reason(path: str) -> str | None:
        try:
            if archive:
                check(archive[path])
            elif why := _no_file(path):  # to open a pipe would wait for ever
                return why
            else:
                check(path)
        except ZooError as error:
            name = f"{archive.path}/{path}" if archive else path
            return str(error).removeprefix(f"cannot read image {name}: ")
        return None

    with ThreadPool(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        reasons = tqdm(
            pool.imap(reason, paths, chunksize=16),
            desc="checking images",
            total=len(paths),
            delay=2,  # seconds: a small folder needs no report
            disable=None,  # unless stderr is a terminal
            leave=False,
        )
        return {path: why for path, why in zip(paths, reasons, strict=True) if why}


def _no_file(path: str) -> str | None:
    """Why there is no file to be read, where that is so."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    if stat.S_ISREG(mode):
        return None
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"


# --- folder:PATH ----------------------------------------------------------------------------------


def _folder(request: Request, path: str) -> Dataset:
    root = Path(path).expanduser()
    try:
        if not root.exists():
            raise ZooError(f"folder {root} does not exist")
        if not root.is_dir():
            raise ZooError(f"{root} is not a folder")
        train_root, val_root = _split_roots(root)
        train = _in_folder(train_root)
        val = _in_folder(val_root) if val_root else None
    except OSError as error:
        raise ZooError(f"cannot read folder {root}: {error.strerror or error}") from error
    return _assemble(request, train, val)


def _split_roots(root: Path) -> tuple[Path, Path | None]:
    """The folders that hold the class folders of training and of validation, if that is apart."""
    names = _subfolders(root)
    only_splits = bool(names) and set(names) <= {"train", *VAL_NAMES}
    # "train" may be a class among others, next to "plane": then it holds pictures, not folders.
    if not (only_splits or ("train" in names and _subfolders(root / "train"))):
        return root, None
    if "train" not in names:
        raise ZooError(f"folder {root} has {names[0]}/ but no train/")
    val = next((name for name in VAL_NAMES if name in names), None)
    return root / "train", root / val if val else None


def _subfolders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _in_folder(root: Path) -> Part:
    """The image files at any depth below each subfolder, all sorted by name."""
    part = Part("folder", str(root), {})
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    for name in _subfolders(root):
        if _identity(root / name) in above:
            part.broken[str(root / name)] = "a link to a folder above it"
        else:
            part.classes[name] = sorted(_images(root / name, above, part.broken))
    part.loose = any(p.name.lower().endswith(SUFFIXES) for p in root.iterdir())
    return part


def _identity(folder: str | Path) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _images(root: Path, above: set[tuple[int, int]], broken: dict[str, str]) -> Iterator[str]:
    """Files with a picture's suffix, from each folder once; `broken` gets what is none."""
    seen = set(above)
    folders = [str(root)]
    links: list[str] = []  # come last: a folder is found by its own path first
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            broken[folder] = error.strerror or str(error)
            continue
        if identity in seen:
            broken[folder] = "a link to a folder that is read already"
            continue
        seen.add(identity)
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        if not entries and folder.lower().endswith(SUFFIXES):
            broken[folder] = "a folder, not a file"
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif entry.name.lower().endswith(SUFFIXES):
                yield entry.path


# --- tar:FILE -------------------------------------------------------------------------------------


# What damaged archives raise
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


class Archive:
    """The picture files of a tar file, by path.

    Of an uncompressed one only the places are kept, and a picture is read where it lies; the
    pictures of a compressed one are kept in memory. Nothing is ever written.

    Args:
        path: the tar file.

    Raises:
        ZooError: no tar file, a damaged one, or one that unpacks to more than `UNPACKED` bytes.
    """

    def __init__(self, path: Path):
        self.path = path
        self.broken: dict[str, str] = {}  # members that are no files
        self._data: dict[str, bytes] = {}
        self._places: dict[str, tuple[int, int]] = {}  # offset and size, bytes
        with _tar_errors(path):
            plain = _is_plain_tar(path)
            with tarfile.open(path, "r:" if plain else "r:*") as tar:
                self._index(tar, plain)
            if plain:
                self._file = os.open(path, os.O_RDONLY)
                weakref.finalize(self, os.close, self._file)

    def _index(self, tar: tarfile.TarFile, plain: bool) -> None:
        unpacked = 0
        for member in tar:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if member.isdir() or any(part.startswith(".") for part in parts):
                continue
            name = "/".join(parts)
            if not name.lower().endswith(SUFFIXES):
                continue
            if not member.isreg() or member.issparse():
                self.broken[name] = "a link, not a file" if member.issym() else "not a plain file"
            elif plain:
                self._places[name] = (member.offset_data, member.size)
            else:
                unpacked += member.size
                if unpacked > UNPACKED:
                    raise ZooError(
                        f"{self.path} unpacks to more than {UNPACKED / 2**30:g} GiB of pictures:"
                        " decompress it, for an uncompressed .tar is read where it lies"
                    )
                with tar.extractfile(member) as file:  # type: ignore[union-attr]
                    self._data[name] = file.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places or self._data)

    def __getitem__(self, name: str) -> Encoded:
        if name in self._data:
            data = self._data[name]
        else:
            offset, size = self._places[name]
            data = os.pread(self._file, size, offset)
        return Encoded(f"{self.path}/{name}", data)


@contextlib.contextmanager
def _tar_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ZooError(f"cannot read archive {path}: {reason}") from error


def _is_plain_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.ReadError:
        return False
    return True


def _tar(request: Request, path: str) -> Dataset:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ZooError(f"archive {file} {'is not a file' if file.exists() else 'does not exist'}")
    archive = Archive(file)
    tree = {name: name.split("/") for name in sorted([*archive, *archive.broken])}
    # Most archives hold one folder that holds the rest.
    while tree and min(map(len, tree.values())) > 2 and len({p[0] for p in tree.values()}) == 1:
        tree = {name: parts[1:] for name, parts in tree.items()}
    tops = {parts[0] for parts in tree.values() if len(parts) > 1}
    only_splits = bool(tops) and tops <= {"train", *VAL_NAMES}
    if not only_splits and not any(p[0] == "train" and len(p) > 2 for p in tree.values()):
        return _assemble(request, _in_archive(archive, tree), None, archive)
    if "train" not in tops:
        raise ZooError(f"archive {file} has {min(tops)}/ but no train/")
    val = next((name for name in VAL_NAMES if name in tops), None)
    return _assemble(
        request,
        _in_archive(archive, tree, "train"),
        _in_archive(archive, tree, val) if val else None,
        archive,
    )


def _in_archive(archive: Archive, tree: Mapping[str, list[str]], top: str | None = None) -> Part:
    """The members below the folder `top`, by class.

    Args:
        tree: the path of each member, taken apart.
    """
    part = Part("archive", f"{archive.path}/{top}" if top else str(archive.path), {})
    for name, parts in tree.items():
        if top:
            if parts[0] != top:
                continue
            parts = parts[1:]
        if len(parts) < 2:
            part.loose = True
            continue
        files = part.classes.setdefault(parts[0], [])
        if name in archive.broken:
            part.broken[name] = archive.broken[name]
        else:
            files.append(name)
    part.classes = dict(sorted(part.classes.items()))
    return part


# --- list:FILE ------------------------------------------------------------------------------------


def _list(request: Request, path: str) -> Dataset:
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
    numbers = all(label.isdecimal() for label in given)
    names = sorted(given, key=int) if numbers else sorted(given)
    train = Part("list", str(file), {name: given[name] for name in names})
    held = next((splits[name] for name in VAL_NAMES if name in splits), None)
    if held is None:
        return _assemble(request, train, None)
    split = next(name for name in VAL_NAMES if name in splits)
    for label in held:
        if label not in given:
            raise ZooError(
                f"list {file}, row {rows[split, label]}: label {label!r} of {split} is not in train"
            )
    return _assemble(
        request, train, Part("list", str(file), {name: held.get(name, []) for name in names})
    )


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

    split = cell(("split",)).lower() if "split" in row else ""
    if split and split not in ("train", *VAL_NAMES):
        raise ZooError(
            f"list {file}, row {number}: {unknown('split', split, ('train', *VAL_NAMES))}"
        )
    return cell(IMAGE_COLUMNS), cell(LABEL_COLUMNS), split


# --- cifar10:PATH, cifar100:PATH ------------------------------------------------------------------


@dataclass(frozen=True)
class Cifar:
    """The files of the two CIFAR datasets (Krizhevsky, 2009).

    https://www.cs.toronto.edu/~kriz/cifar.html

    Args:
        train, val: the files of the Python version; the binary one's end in ".bin".
        names: where the Python and the binary version say how the classes are called.
        keys: of the labels and of those names, in the Python version.
        label_bytes: that stand before the pixels in the binary version; the last is the label.
        folders: that the archives hold.
        classes: what the classes are called where no file says so.
    """

    count: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    names: tuple[str, str]
    keys: tuple[str, str]
    label_bytes: int
    folders: tuple[str, ...]
    classes: tuple[str, ...] = ()


CIFAR10 = Cifar(
    10,
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    ("test_batch",),
    ("batches.meta", "batches.meta.txt"),
    ("labels", "label_names"),
    1,
    ("cifar-10-batches-py", "cifar-10-batches-bin"),
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
CIFAR100 = Cifar(
    100,
    ("train",),
    ("test",),
    ("meta", "fine_label_names.txt"),
    ("fine_labels", "fine_label_names"),
    2,
    ("cifar-100-python", "cifar-100-binary"),
)
PLENTY = 1 << 29  # bytes; the largest of the original files, CIFAR-100's training data, has 155 MB


def _cifar(kind: Cifar, request: Request, path: str) -> Dataset:
    place = Path(path).expanduser()
    batches = (*kind.train, *kind.val)
    binaries = tuple(f"{name}.bin" for name in batches)
    found = _originals(place, kind.folders, (*batches, *binaries, *kind.names))
    as_pickles = any(name in found for name in batches)
    if not (as_pickles or any(name in found for name in binaries)):
        return _cifar_pictures(kind, request, place)
    wanted = batches if as_pickles else binaries
    if missing := [name for name in wanted if name not in found]:
        raise ZooError(f"{request.spec}: {place} lacks {', '.join(missing)}")

    classes = kind.classes
    names = kind.names[0 if as_pickles else 1]
    if names in found:
        classes = _cifar_names(names, found[names], kind.keys[1] if as_pickles else None)
    if len(classes) != kind.count:
        got = f"names {len(classes)} classes" if names in found else f"lacks {names}"
        raise ZooError(f"{request.spec}: {place} {got}, expected the names of {kind.count}")

    sources = []
    for group in (kind.train, kind.val):
        read = [
            _cifar_pickle(name, found[name], kind.keys[0])
            if as_pickles
            else _cifar_binary(f"{name}.bin", found[f"{name}.bin"], kind.label_bytes)
            for name in group
        ]
        pixels, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= kind.count:
            raise ZooError(
                f"{request.spec}: {place} has no labels, or others than 0 to {kind.count - 1}"
            )
        images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        sources.append(Arrays(images, labels))
    train, val = sources
    return Dataset(request.spec, classes, train, val, image_size=32, flip=True)


def _cifar_pictures(kind: Cifar, request: Request, place: Path) -> Dataset:
    """CIFAR as class folders of pictures, in a folder or an archive."""
    is_folder = place.is_dir()
    if is_folder and not (place / "train").is_dir():
        raise ZooError(
            f"{request.spec}: {place} has neither {kind.train[0]} nor {kind.train[0]}.bin: expected"
            " the files of https://www.cs.toronto.edu/~kriz/cifar.html, or class folders in train/"
        )
    dataset = (_folder if is_folder else _tar)(request, str(place))
    if len(dataset.classes) != kind.count:
        other = "folder" if is_folder else "tar"
        raise ZooError(
            f"{request.spec}: expected {kind.count} classes, got {len(dataset.classes)}; for"
            f" another dataset say {other}:{place}"
        )
    return replace(dataset, image_size=32)


def _originals(place: Path, folders: tuple[str, ...], wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of what there is of the wanted files, by name.

    Args:
        place: a tar file, or the folder that has them or one of `folders` that has.
    """
    if not place.exists():
        raise ZooError(f"{place} does not exist")
    found: dict[str, bytes] = {}
    try:
        if place.is_dir():
            for folder in (place, *(place / name for name in folders)):
                files = {n: folder / n for n in wanted if (folder / n).is_file()}
                if files:
                    for name, file in files.items():
                        _check_plenty(file, file.stat().st_size)
                        found[name] = file.read_bytes()
                    break
            return found
    except OSError as error:
        raise ZooError(f"cannot read {place}: {error.strerror or error}") from error
    with _tar_errors(place), tarfile.open(place) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name.lower().endswith(SUFFIXES):
                break  # an archive of pictures: none of the wanted ones
            if name in wanted and member.isreg():
                _check_plenty(place / member.name, member.size)
                with tar.extractfile(member) as stream:  # type: ignore[union-attr]
                    found[name] = stream.read()
    return found


def _check_plenty(file: Path, size: int) -> None:
    if size > PLENTY:
        raise ZooError(f"{file} has {size} bytes, expected at most {PLENTY}")


def _cifar_names(name: str, data: bytes, key: str | None) -> tuple[str, ...]:
    """The names of the classes, from the entry `key` of a pickle or from the lines of a text."""
    if key is None:
        return tuple(line.strip() for line in data.decode("latin1").splitlines() if line.strip())
    names = _unpickled(name, data).get(key)
    if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
        raise ZooError(f"{name}: expected a list {key} of names")
    return tuple(n.decode("latin1") if isinstance(n, bytes) else n for n in names)


def _cifar_binary(name: str, data: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 3072] and labels int64 [N]."""
    length = label_bytes + 3072
    if len(data) % length:
        raise ZooError(f"{name}: got {len(data)} bytes, expected a multiple of {length}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, length)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _cifar_pickle(name: str, data: bytes, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 3072] and labels int64 [N]."""
    entries = _unpickled(name, data)
    pixels, labels = getattr(entries.get("data"), "pixels", None), entries.get(key)
    if (
        pixels is None
        or pixels.ndim != 2
        or pixels.shape[1] != 3072
        or not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int for label in labels)
    ):
        raise ZooError(f"{name}: expected data uint8 [N, 3072] and a list {key} of N numbers")
    return pixels, np.array(labels, np.int64)


class _Dtype:
    """Stands for `numpy.dtype` in a pickle."""

    def __init__(self, name: object = None, *_: object):
        self.is_byte = name in ("u1", b"u1")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: a byte has none."""


class _Pixels:
    """Stands for `numpy.ndarray` in a pickle: an array of bytes, or nothing."""

    pixels: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not dtype.is_byte or fortran:
            raise ValueError("an array that is not uint8 in rows")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape)


def _new_pixels(*_: object) -> _Pixels:
    return _Pixels()


def _latin1(text: str, _: object = None) -> bytes:
    return text.encode("latin1")


class _Unpickler(pickle._Unpickler):  # Python's own: a pickle cannot make its memo a huge array
    """Reads plain containers and arrays of bytes; imports nothing, calls only what stands here."""

    known: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "numpy.core.multiarray._reconstruct": _new_pixels,
        "numpy._core.multiarray._reconstruct": _new_pixels,
        "numpy.ndarray": _Pixels,
        "numpy.dtype": _Dtype,
        "_codecs.encode": _latin1,  # how Python 3 writes bytes for Python 2
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.known[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no array of numbers") from None

    def _load_bytearray(self) -> None:
        raise pickle.UnpicklingError("a bytearray, which would be made before its bytes are there")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }


def _unpickled(name: str, data: bytes) -> dict[str, Any]:
    """A pickled dict by text keys, whichever Python wrote it.

    Raises:
        ZooError: damaged bytes, or anything but plain containers and arrays of bytes.
    """
    try:
        entries = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(entries, dict):
            raise ValueError(f"a {type(entries).__name__}, expected a dict")
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        struct.error,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ZooError(f"{name} is not a file of CIFAR's Python version: {reason}") from error
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in entries.items()}


# --- fashion_mnist:PATH, mnist:PATH ---------------------------------------------------------------

# https://github.com/zalandoresearch/fashion-mnist (Xiao et al., 2017, arXiv:1708.07747)
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _mnist(
    folder: str, classes: tuple[str, ...], flip: bool, request: Request, path: str
) -> Dataset:
    place = Path(path).expanduser()
    # "train-images.idx3-ubyte" is what some unpackers make of it
    names = {
        (split, what): [
            f"{split}-{what}{dot}idx{dimensions}-ubyte{suffix}"
            for dot in "-."
            for suffix in ("", ".gz")
        ]
        for split in ("train", "t10k")
        for what, dimensions in (("images", 3), ("labels", 1))
    }
    found = _originals(
        place,
        ("raw", f"{folder}/raw"),  # torchvision's
        tuple(name for several in names.values() for name in several),
    )
    sources = []
    for split in ("train", "t10k"):
        arrays = []
        for what, dimensions in (("images", 3), ("labels", 1)):
            several = names[split, what]
            name = next((name for name in several if name in found), None)
            if name is None:
                raise ZooError(f"{request.spec}: {place} lacks {several[0]}, gzipped or not")
            arrays.append(_idx(name, found[name], dimensions))
        images, labels = arrays
        if len(images) != len(labels):
            raise ZooError(
                f"{request.spec}: {place} has {len(images)} images of {split} but {len(labels)}"
                " labels"
            )
        if len(labels) == 0 or labels.max() >= len(classes):
            raise ZooError(
                f"{request.spec}: {place} has no labels, or others than 0 to {len(classes) - 1}"
            )
        if images.shape[1:] == (28, 28):
            images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        sources.append(Arrays(images, labels.astype(np.int64)))
    train, val = sources
    return Dataset(request.spec, classes, train, val, image_size=32, flip=flip)


def _idx(name: str, data: bytes, dimensions: int) -> np.ndarray:
    """The uint8 array in an idx file (http://yann.lecun.com/exdb/mnist/), gzipped or not."""
    header = 4 + 4 * dimensions
    try:
        packed = data[:2] == b"\x1f\x8b"
        with gzip.open(io.BytesIO(data)) if packed else io.BytesIO(data) as stream:
            head = stream.read(header)
            magic = 0x0800 + dimensions  # unsigned bytes, so many dimensions
            if len(head) < header or int.from_bytes(head[:4]) != magic:
                raise ZooError(
                    f"{name}: got {head[:4].hex() or 'nothing'} at its start, expected"
                    f" {magic:08x}: no idx file of bytes in {dimensions} dimensions"
                )
            shape = [int.from_bytes(head[i : i + 4]) for i in range(4, header, 4)]
            size = math.prod(shape)
            if size > PLENTY:
                raise ZooError(f"{name}: {shape} numbers are too many")
            values = stream.read(size + 1)
    except DAMAGED as error:
        raise ZooError(f"{name} is damaged: {error}") from error
    if len(values) != size:
        more = "more" if len(values) > size else f"{len(values)}"
        raise ZooError(f"{name}: expected {size} bytes after its head ({shape}), got {more}")
    return np.frombuffer(values, np.uint8).reshape(shape)


# --- tfds:NAME ------------------------------------------------------------------------------------

# Writing and signs: mirrored, they are others or none.
UNMIRRORED = ("mnist", "emnist", "kmnist", "mnist_corrupted", "omniglot", "svhn_cropped", "digits")


class Records:
    """A split of a TFDS dataset as a `Source`; pictures stay encoded until they are needed.

    Args:
        records: what TFDS gives by number.
        image, label: the keys of the two features.
        name: of the split, for errors.
    """

    def __init__(self, records: Any, image: str, label: str, name: str):
        self._records, self._image, self._label, self._name = records, image, label, name

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = self._records[index]
        name = f"{self._name}/{index}"
        return {
            "image": Encoded(name, record[self._image]),
            "label": self._checked(name, record[self._label]),
        }

    @cached_property
    def labels(self) -> np.ndarray:
        """Read from all records, once."""
        bar = tqdm(range(len(self)), desc="reading labels", delay=2, disable=None, leave=False)
        found = (self._checked(f"{self._name}/{i}", self._records[i][self._label]) for i in bar)
        return np.fromiter(found, np.int64, len(self))

    @staticmethod
    def _checked(name: str, label: Any) -> int:
        if label < 0:  # how TFDS says so
            raise ZooError(f"{name} has no label")
        return int(label)


def _tfds(request: Request, name: str) -> Dataset:
    match = re.fullmatch(r"([A-Za-z]\w*)(?:/(\w[\w.+-]*))?(?::(\d+\.\d+\.\d+))?", name)
    if not match:
        raise ZooError(f"{request.spec}: expected tfds:NAME, tfds:NAME/CONFIG or either :VERSION")
    import tensorflow_datasets as tfds

    data_dir = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _prepared(data_dir, match[1], match[2], match[3])
    builder = tfds.builder_from_directory(folder) if folder else _prepare(request, name, data_dir)
    info = builder.info
    image, label = _image_and_label(request, info, tfds.features)
    splits = list(info.splits)
    if "train" not in splits:
        raise ZooError(f"{request.spec} has no train split, only {', '.join(splits) or 'nothing'}")
    held = next((split for split in VAL_NAMES if split in splits), None)
    # Pictures stay encoded: no other picture is of use, and ours may be decoded small.
    skip = {
        key: tfds.decode.SkipDecoding()
        for key, feature in info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    try:
        records = {
            split: builder.as_data_source(split, decoders=skip)
            for split in ("train", held)
            if split
        }
    except NotImplementedError as error:
        raise ZooError(
            f"{request.spec} is prepared as {info.file_format.value} in {info.data_dir}, which"
            " TensorFlow alone reads; set TFDS_DATA_DIR to another folder to have it prepared"
            " there as array_record"
        ) from error
    sources: list[Source] = [
        Records(found, image, label, f"{request.spec}/{split}") for split, found in records.items()
    ]
    classes = tuple(info.features[label].names)
    if held is None:
        (whole,) = sources
        kept, out = hold_out(
            labels_of(whole),
            [f"class {name!r} of {request.spec}" for name in classes],
            request.val_fraction,
            request.split_seed,
        )
        sources = [Subset(whole, kept), Subset(whole, out)]
    height, width, _ = info.features[image].shape
    size = max(height, 32) if height and height == width else None
    train, val = sources
    return Dataset(
        request.spec, classes, train, val, image_size=size, flip=match[1] not in UNMIRRORED
    )


def _prepared(data_dir: Path, name: str, config: str | None, version: str | None) -> Path | None:
    """The folder of a dataset that TFDS has prepared: the newest version, the only config."""

    def newest(folder: Path) -> Path | None:
        found = [
            (tuple(map(int, path.name.split("."))), path)
            for path in (folder.iterdir() if folder.is_dir() else ())
            if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
            and version in (None, path.name)
            and (path / "dataset_info.json").is_file()
            and (path / "features.json").is_file()
        ]
        return max(found)[1] if found else None

    folder = data_dir / name
    try:
        if config:
            return newest(folder / config)
        if here := newest(folder):
            return here
        folders = sorted(folder.iterdir()) if folder.is_dir() else []
        configs = {path.name: found for path in folders if (found := newest(path))}
    except OSError as error:
        raise ZooError(f"cannot read {folder}: {error.strerror}") from error
    if len(configs) > 1:
        raise ZooError(
            f"tfds:{name} is prepared in several configs: say which, as"
            f" {' or '.join(f'tfds:{name}/{config}' for config in configs)}"
        )
    return next(iter(configs.values()), None)


def _prepare(request: Request, name: str, data_dir: Path) -> Any:
    """The builder of a dataset that was not prepared yet, once it is."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError, UnsafeArchiveError

    _keep_tensorflow_off_the_gpu()
    # The copies in TFDS' own bucket are no array_record.
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # advice to install what is not needed
            builder = tfds.builder(name, data_dir=os.fspath(data_dir))
            builder.download_and_prepare(file_format="array_record", download_config=settings)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        plain = re.split("[/:]", name)[0]
        near = difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(f'tfds:{one}' for one in near)}?" if near else ""
        hint = hint or "https://www.tensorflow.org/datasets/catalog/overview lists all"
        raise ZooError(
            f"unknown dataset {request.spec!r}, nor is it prepared in {data_dir}: {hint}"
        ) from error
    except (
        ImportError,
        OSError,
        ValueError,
        AssertionError,
        RuntimeError,
        tfds.download.DownloadError,
        NonMatchingChecksumError,
        ExtractError,
        UnsafeArchiveError,
    ) as error:
        if folder := _prepared_meanwhile(data_dir, name, error):
            return tfds.builder_from_directory(folder)
        raise ZooError(f"{request.spec}: {_why_not(error, name, data_dir)}") from error
    return builder


def _prepared_meanwhile(data_dir: Path, name: str, error: Exception) -> Path | None:
    """Another process may have put its copy in place first, which fails our rename."""
    if not isinstance(error, OSError):
        return None
    plain, _, version = name.partition(":")
    plain, _, config = plain.partition("/")
    return _prepared(data_dir, plain, config or None, version or None)


def _why_not(error: BaseException, name: str, data_dir: Path) -> str:
    """Why TFDS could not prepare a dataset, and what would help."""
    cause: BaseException | None = error
    while cause is not None:  # TFDS raises anew what it catches, without the module's name
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.partition(".")[0]
            if package == "tensorflow":
                return f"TFDS needs TensorFlow to prepare {name}: pip install 'jax-cnn-zoo[tf]'"
            return f"TFDS needs {package} to prepare {name}: pip install {package}"
        cause = cause.__cause__ or cause.__context__
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return f"TFDS cannot prepare {name} in {data_dir} (TFDS_DATA_DIR): {reason}"


def _keep_tensorflow_off_the_gpu() -> None:
    """TensorFlow would take all of the memory that JAX is to have."""
    try:
        tensorflow = importlib.import_module("tensorflow")
    except ImportError:
        return
    # Where it has started already, it has what it took.
    with contextlib.suppress(RuntimeError):
        tensorflow.config.set_visible_devices([], "GPU")


def _image_and_label(request: Request, info: Any, features: Any) -> tuple[str, str]:
    """The keys of the picture and of its class."""
    images = [
        key
        for key, feature in info.features.items()
        if type(feature) is features.Image
        and feature.np_dtype != np.float32  # which TFDS stores as a PNG of four channels
        and len(feature.shape) == 3
    ]
    labels = [
        key for key, feature in info.features.items() if isinstance(feature, features.ClassLabel)
    ]
    keys: Sequence[str] = info.supervised_keys or ()
    if len(keys) == 2 and keys[0] in images and keys[1] in labels:
        return keys[0], keys[1]
    if len(images) != 1 or len(labels) != 1:
        raise ZooError(
            f"{request.spec} is not one picture with one class a record: its features are"
            f" {', '.join(info.features)}"
        )
    return images[0], labels[0]


OPENERS: Mapping[str, Callable[[Request, str], Dataset]] = {
    "folder:PATH": _folder,
    "tar:FILE": _tar,
    "list:FILE": _list,
    "cifar10:PATH": partial(_cifar, CIFAR10),
    "cifar100:PATH": partial(_cifar, CIFAR100),
    "fashion_mnist:PATH": partial(_mnist, "FashionMNIST", FASHION, True),
    "mnist:PATH": partial(_mnist, "MNIST", tuple("0123456789"), False),
    "tfds:NAME": _tfds,
}
