"""What datasets are made of: sources of pictures; image files by class, checked and split."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError

from ..decode import check

if TYPE_CHECKING:
    from .folders import Archive


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
VAL_NAMES = ("val", "validation", "valid", "test")  # in this order, where there are several


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


def assemble(
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
