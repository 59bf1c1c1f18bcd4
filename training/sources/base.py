"""What datasets are made of: sources of pictures."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zoo.text import plain

if TYPE_CHECKING:
    from .folders import Archive


class Source(Protocol):
    """Pictures by number: `{"image": path, PIL image, uint8 array or Encoded, "label": int}`.

    Where a picture may show several classes, its label is a float32 array [K] with 1 for each class
    that it shows. A source that knows all labels without decoding pictures offers them as `labels`,
    int [N] or float32 [N, K]; see `labels_of`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def labels_of(source: Source) -> np.ndarray:
    """The labels of all pictures, int64 [N], or float32 [N, K] if one may show several classes.

    No picture is decoded if the source knows its labels.
    """
    known = getattr(source, "labels", None)
    if known is None:
        known = [source[i]["label"] for i in range(len(source))]
    known = np.asarray(known)
    return known.astype(np.float32 if known.ndim == 2 else np.int64)


@dataclass(frozen=True)
class Dataset:
    """Pictures to train and to validate on, and the names of their classes.

    Args:
        name: the spec that it was opened with.
        classes: their names; a label is an index into them.
        train: the pictures to train on.
        val: the pictures to validate on.
        image_size: side of the network's input in pixels, unless the config sets another; None: the
            network's own.
        flip: whether a mirrored picture still belongs to its class.
        skipped: the files left out because they cannot be read, each "path: reason".
        split: how the pictures to validate on were chosen, in words.
        left_out: what else was found but is not used, and why, in words.
        test: the pictures of a test split besides `val`, if they were asked for.
        multilabel: whether a picture may show several classes, or none.
    """

    name: str
    classes: tuple[str, ...]
    train: Source
    val: Source
    image_size: int | None
    flip: bool
    skipped: tuple[str, ...] = ()
    split: str = "the dataset's own split"
    left_out: tuple[str, ...] = ()
    test: Source | None = None
    multilabel: bool = False

    @cached_property
    def record(self) -> dict[str, Any]:
        """See `data_record`."""
        return data_record(self)

    @property
    def summary(self) -> str:
        """The dataset in one line: classes, pictures, split, what was left out and why."""
        left = [*self.left_out, *([f"{len(self.skipped):,} unreadable"] if self.skipped else ())]
        pictures = f"{len(self.train):,} pictures"
        if len(self.val):
            pictures = f"{len(self.train):,} training and {len(self.val):,} validation pictures"
            pictures += f" ({plain(self.split)})"
        return f"data: {len(self.classes):,} classes, {pictures}" + (
            f"; left out: {', '.join(left)}" if left else ""
        )

    @cached_property
    def class_counts(self) -> np.ndarray:
        """How many training pictures each class has, int64 [classes]."""
        labels = labels_of(self.train)
        if self.multilabel:
            counts: np.ndarray = labels.sum(0).astype(np.int64)
            return counts
        return np.bincount(labels, minlength=len(self.classes))


@dataclass(frozen=True)
class Files:
    """A `Source` of image files, or of such files inside an archive.

    Args:
        examples: pairs of path and label.
        archive: what the paths are in; None: the file system.
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
        """The class of every file, int64 [N]."""
        return np.array([label for _, label in self.examples], np.int64)

    def contents(self, classes: int) -> "list[Content]":
        """The content of each class: names of its files below their common folder, and sizes."""
        own: list[list[str]] = [[] for _ in range(classes)]
        for path, label in self.examples:
            own[label].append(path)
        size = self.archive.size if self.archive else _file_size
        return [_files_content(paths, size) for paths in own]


@dataclass(frozen=True, eq=False)
class Tagged:
    """A `Source` of image files that may show several classes, or none.

    Args:
        files: the image files; their own labels are ignored.
        labels: float32 [N, K], 1 for each class that a picture shows.
    """

    files: Files
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {**self.files[index], "label": self.labels[index]}

    @property
    def examples(self) -> tuple[tuple[str, int], ...]:
        """Pairs of path and number, as in `Files`."""
        return self.files.examples

    def contents(self, _classes: int) -> "list[Content]":
        """As `Files.contents`. A picture of several classes counts in each, one of none in none."""
        paths = [path for path, _ in self.examples]
        own = [[paths[i] for i in np.flatnonzero(column)] for column in self.labels.T]
        return [_files_content(names, _file_size) for names in own]


# What tells the pictures of a class, or of a whole source, from others: their number, a digest that
# depends on their order, and a sum of digests that does not: it is the same for every split.
Content = tuple[int, str, int]


def _files_content(paths: Sequence[str], size: Callable[[str], int]) -> Content:
    folders = {path.rpartition(os.sep)[0] for path in paths}
    try:
        top = len(os.path.commonpath(folders)) if folders else 0
    except ValueError:  # a list may have relative and absolute paths
        top = 0
    names = [path[top:].lstrip(os.sep) for path in paths]
    known = [
        f"{name}\0{size(path)}\0".encode(errors="surrogatepass")
        for name, path in zip(names, paths, strict=True)
    ]
    each = (int(digest((line.rpartition(os.sep.encode())[2],)), 16) for line in known)
    return len(paths), digest(known), sum(each) % 2**64


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # deleted since it was checked: reading it will say so
        return -1


def digest(parts: Iterable[bytes]) -> str:
    """64 bits of SHA-256, enough to notice an accidental change."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Arrays:
    """A `Source` of pictures in memory: uint8 [N, H, W, 3] or [N, H, W].

    Their labels are int64 [N], or float32 [N, K].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        label = self.labels[index]
        return {"image": self.images[index], "label": label if label.ndim else int(label)}

    def contents(self, classes: int) -> list[Content]:
        """The content of each class: its pixels, and which pictures they are."""
        several = self.labels.ndim == 2
        own = [
            np.flatnonzero(self.labels[:, label] if several else self.labels == label)
            for label in range(classes)
        ]
        return [(len(i), digest((i.tobytes(), self.images[i].tobytes())), 0) for i in own]


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
        """The labels of the chosen pictures, in their order."""
        labels: np.ndarray = labels_of(self.source)[self.indices]
        return labels

    def contents(self, classes: int) -> list[Content]:
        """One content for all classes: that of the whole source, and which pictures are chosen."""
        whole = repr(contents(self.source, classes)).encode()
        return [(len(self), digest((whole, self.indices.tobytes())), 0)]


def spread(source: Source, most: int) -> Source:
    """At most so many of the pictures, spread over all of them."""
    if len(source) <= most:
        return source
    return Subset(source, np.arange(most) * len(source) // most)


@dataclass(frozen=True)
class Joined:
    """The pictures of several sources, one after the other."""

    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        for source in self.sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError(index)

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels of all sources, one source after the other."""
        return np.concatenate([labels_of(source) for source in self.sources])


@dataclass(frozen=True)
class Request:
    """The arguments of `open_dataset`. Without a `val_fraction` nothing is held out."""

    spec: str
    val_fraction: float | None
    split_seed: int
    skip_unreadable: bool

    @property
    def held_out(self) -> str:
        """How the validation pictures of a dataset without a split are chosen, in words."""
        if self.val_fraction is None:
            return "nothing held out"
        seed = f", seed {self.split_seed}" if self.split_seed else ""
        return f"{self.val_fraction:g} of each class held out{seed}"


def data_record(dataset: Dataset) -> dict[str, Any]:
    """What a dataset is made of, as values for JSON. No picture is decoded.

    It has the classes in order, how the validation pictures were chosen, and for each class of both
    splits the number of its pictures and a digest: of the names and sizes of files, or of the
    pixels of pictures in memory. Where these are not known by class (TFDS), it has those of all
    classes together. The location of a dataset and the dates of its files are not part of it.
    """
    record: dict[str, Any] = {"classes": list(dataset.classes), "split": dataset.split}
    for name, source in (("train", dataset.train), ("val", dataset.val)):
        counts, digests, sums = zip(*contents(source, len(dataset.classes)), strict=True)
        record[name] = {"pictures": [*counts], "digests": [*digests], "sums": [*sums]}
    return record


def contents(source: Source, classes: int) -> list[Content]:
    """The content of each class of a source, or a single one of all classes together."""
    known = getattr(source, "contents", None)
    return known(classes) if known else [(len(source), "", 0)]
