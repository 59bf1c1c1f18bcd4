"""What datasets are made of: sources of pictures; image files by class, checked and split."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError
from zoo.text import plain

from ..decode import check

if TYPE_CHECKING:
    from .folders import Archive


# What folders, rows and TFDS call the splits, in any case. "val" is what a run measures itself on,
# "test" where there is no "val".
SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "validation", "valid", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
SPLIT_NAMES = tuple(name for names in SPLITS.values() for name in names)


class Source(Protocol):
    """Pictures by number: `{"image": path, PIL image, uint8 array or Encoded, "label": int}`.

    Where pictures may show several classes a label is a float32 array [K], 1 for each that is
    there. A source that knows all its labels has them as `labels`, int [N] or float32 [N, K]; see
    `labels_of`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def labels_of(source: Source) -> np.ndarray:
    """The label of every picture, int64 [N]; nothing is decoded where the source knows them.

    float32 [N, K] where pictures may show several classes.
    """
    known = getattr(source, "labels", None)
    if known is None:
        known = [source[i]["label"] for i in range(len(source))]
    known = np.asarray(known)
    return known.astype(np.float32 if known.ndim == 2 else np.int64)


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
        split: how the pictures to validate on were chosen, in words.
        left_out: what else was found and is not used, and why, in words.
        test: the pictures of a test split beside `val`, where they were asked for.
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
        """What was understood, in one line: classes, pictures, split, what was left out and why."""
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
        """The class of every file, int64 [N]."""
        return np.array([label for _, label in self.examples], np.int64)

    def contents(self, classes: int) -> "list[Content]":
        """Of each class the files: names within the folder that holds them all, and sizes."""
        own: list[list[str]] = [[] for _ in range(classes)]
        for path, label in self.examples:
            own[label].append(path)
        size = self.archive.size if self.archive else _file_size
        return [_files_content(paths, size) for paths in own]


@dataclass(frozen=True, eq=False)
class Tagged:
    """A `Source` of image files that may show several classes, or none.

    Args:
        files: whose own labels do not count.
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
        """Pairs of path and index, as those of `Files`."""
        return self.files.examples

    def contents(self, _classes: int) -> "list[Content]":
        """Of each class its files, as `Files.contents`; of pictures of no class their number."""
        paths = [path for path, _ in self.examples]
        own = [[paths[i] for i in np.flatnonzero(column)] for column in self.labels.T]
        return [_files_content(names, _file_size) for names in own]


# Of the pictures of a class or of all: their number, a digest of them in order, and one that is a
# sum, so that it stays the same however they are shared out to splits.
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
    except OSError:  # lost since it was read: whoever reads it next says so
        return -1


def digest(parts: Iterable[bytes]) -> str:
    """64 bits of SHA-256: enough to tell what changed by accident."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


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
        """Of each class the pixels, and which pictures they are."""
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
        """Of all classes together what the whole is, and which pictures of it."""
        whole = repr(_contents(self.source, classes)).encode()
        return [(len(self), digest((whole, self.indices.tobytes())), 0)]


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
    """What `open_dataset` was asked for; without `val_fraction` nothing is held out."""

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


@dataclass
class Part:
    """The image files of a split by class, as they were found, not yet read.

    Args:
        kind: "folder", "archive" or "list", for errors.
        root: where it is, for errors.
        classes: for each class its files, in order.
        broken: what could not even be looked into, with the reason.
        loose: how many pictures are in no class folder.
        others: of the files that are no pictures how many have each suffix.
        inside: for each class the folders in its folder that lead to pictures.
        several: the classes of each picture, which may be several or none; None: one each.
    """

    kind: str
    root: str
    classes: dict[str, list[str]]
    broken: dict[str, str] = field(default_factory=dict)
    loose: int = 0
    others: Counter[str] = field(default_factory=Counter)
    inside: dict[str, set[str]] = field(default_factory=dict)
    several: dict[str, set[str]] | None = None

    @property
    def files(self) -> list[str]:
        """All of them, each once."""
        if self.several is not None:
            return [*self.several]
        return [path for files in self.classes.values() for path in files]

    def alone(self, name: str) -> str:
        """How to have one of its folders for itself."""
        if self.kind == "folder":
            return plain(f"give its own path, {self.root}/{name}")
        return plain(f"make an archive of {name}/ alone")

    def named(self, name: str) -> str:
        """How errors call a class."""
        if self.kind == "list":
            return f"class {name!r} of {plain(self.root)}"
        return plain(f"class folder {self.root}/{name}")


# --- what is a split, and what a class ------------------------------------------------------------


def split_of(name: str) -> str | None:
    """The split that a folder, row or TFDS split of this name is: "train", "val" or "test"."""
    return next((split for split, names in SPLITS.items() if name.casefold() in names), None)


def split_folders(
    where: str, names: Sequence[str], holds_folders: Callable[[str], bool]
) -> dict[str, str]:
    """The folder of each split; none where the folders are classes.

    Args:
        where: what holds them, for errors: "folder photos".
        names: the folders in it.
        holds_folders: whether one of them holds folders.

    Raises:
        ZooError: two folders of one split, or splits without one to train on.
    """
    known = [name for name in names if split_of(name)]
    # "train" may be a class among others, next to "plane": then it holds pictures, not folders.
    if not known or (len(known) < len(names) and not any(map(holds_folders, known))):
        return {}
    found: dict[str, str] = {}
    for name in known:
        other = found.setdefault(split_of(name) or "", name)
        if other != name:
            raise ZooError(f"{where} has both {other}/ and {name}/: expected one of them")
    if "train" not in found:
        raise ZooError(
            f"{where} has {known[0]}/ but no train/: expected class folders in train/ and"
            f" {known[0]}/, or, for {known[0]}/ alone, its own path"
        )
    return found


def beside(splits: Mapping[str, str], names: Iterable[str], used: Iterable[str]) -> list[str]:
    """What is left out beside the splits that are used, in words."""
    unused = [name for split, name in splits.items() if split not in used]
    others = [name for name in names if name not in splits.values()]
    left = [f"{plain(name)}/, as {splits['val']}/ is used" for name in unused]
    if others:
        left.append(f"{_few([plain(f'{name}/') for name in others], ', ')} beside the splits")
    return left


def used_splits(request: Request, splits: Iterable[str]) -> list[str]:
    """Those that a dataset is made of: `test` too where nothing is to be held out."""
    names = [split for split in SPLITS if split in splits]
    return [n for n in names if n != "test" or request.val_fraction is None or "val" not in names]


def _looks_like_split(name: str) -> tuple[str, str] | None:
    """(split, the rest of the name) of "seg_train", "Test set", "train1"; else None."""
    for split, words in SPLITS.items():
        pattern = rf"(|.*[\W_\d])({'|'.join(words)})((?:set|data|images)?(?:|[\W_\d].*))"
        if match := re.fullmatch(pattern, name, re.IGNORECASE | re.DOTALL):
            return split, f"{match[1]}/{match[3]}".casefold()
    return None


def _check_folders(part: Part) -> None:
    """Check that the class folders are classes.

    Raises:
        ZooError: folders that look like splits or versions of a dataset and not like classes.
    """
    alike = {name: found for name in part.classes if (found := _looks_like_split(name))}
    for name, (split, rest) in alike.items():
        others = [n for n, (kind, own) in alike.items() if kind != "train" and own == rest]
        if part.kind != "list" and split == "train" and others:
            raise ZooError(
                plain(
                    f"{part.kind} {part.root}: {name}/ and {others[0]}/ look like splits, not like"
                    " classes: call them train/ and val/ and leave nothing else beside them, or"
                    " name each picture's class in a list:FILE.csv"
                )
            )
    for name, inside in part.inside.items():
        splits = {split_of(folder): folder for folder in sorted(inside) if split_of(folder)}
        if "train" in splits and len(splits) > 1:
            raise ZooError(
                f"{part.named(name)} holds {'/ and '.join(splits.values())}/: expected the splits"
                " above the classes, as train/CLASS/ and val/CLASS/; where it is the whole of a"
                f" dataset, {part.alone(name)}"
            )
    same = next(iter(part.inside.values()), set())
    if len(part.inside) > 1 and len(same) > 1 and all(same == own for own in part.inside.values()):
        name = next(iter(part.inside))
        raise ZooError(
            plain(
                f"every folder in {part.kind} {part.root} holds the same folders"
                f" ({_few(sorted(same), ', ')}): these look like the classes, in several versions;"
                f" for one of them {part.alone(name)}, or name each picture's class in a"
                " list:FILE.csv"
            )
        )


# --- the dataset ----------------------------------------------------------------------------------


def assemble(
    request: Request,
    found: Mapping[str, Part],
    archive: "Archive | None" = None,
    left_out: Iterable[str] = (),
) -> Dataset:
    """Check that the classes make sense and that every file can be read, and split.

    Args:
        found: what each split has; `train` alone is split where that was asked for.
        left_out: what is not in it, in words.
    """
    train, parts = found["train"], list(found.values())
    val = found.get("val") or found.get("test")
    for part in parts:
        if part is not train and part.kind != "list":  # whose rows were checked one by one
            _check_same(train, part)
        if part is train or part.kind != "list":
            _check_folders(part)
            _check_classes(part)
    paths = [path for part in parts for path in part.files]
    unreadable = _unreadable(paths, archive)
    broken = {path: why for part in parts for path, why in part.broken.items()}
    where = f"{archive.path}/" if archive else ""
    skipped = tuple(
        plain(f"{where}{path}: {reason}")
        for path, reason in sorted({**unreadable, **broken}.items())
    )
    if skipped and not request.skip_unreadable:
        raise ZooError(
            f"{len(skipped)} of {len(paths) + len(broken)} images in {plain(_top(parts))} cannot"
            f" be read: {_few(skipped)}. Leave them out with --skip-unreadable"
            " (in Python: skip_unreadable=True)"
        )
    for part in parts:
        for name, files in part.classes.items():
            part.classes[name] = [path for path in files if path not in unreadable]
            if files and not part.classes[name]:
                raise ZooError(f"{part.named(name)} has no image that can be read")
    if val and not any(val.classes.values()):
        raise ZooError(f"{plain(val.root)} has no image to validate on")
    sources: dict[str, Source] = {
        split: _source(part, archive, unreadable) for split, part in found.items()
    }
    dataset = Dataset(
        request.spec,
        tuple(train.classes),
        sources["train"],
        sources["val" if "val" in found else "test"] if val else Files((), archive),
        image_size=None,
        flip=True,
        skipped=skipped,
        split=_split_words(found) if val else request.held_out,
        left_out=(*_left_out(parts), *left_out),
        test=sources.get("test") if "val" in found else None,
        multilabel=train.several is not None,
    )
    if val or request.val_fraction is None:
        return dataset
    names = [train.named(name) for name in train.classes]
    return split_off(dataset, request, names)


def _source(part: Part, archive: "Archive | None", unreadable: Mapping[str, str]) -> Source:
    if part.several is None:
        return Files(_examples(part), archive)
    shown = {path: own for path, own in part.several.items() if path not in unreadable}
    labels = [[name in own for name in part.classes] for own in shown.values()]
    return Tagged(Files(tuple((path, 0) for path in shown)), np.array(labels, np.float32))


def _split_words(found: Mapping[str, Part]) -> str:
    """How errors and records call a split that was found: by its folder or, in a list, its rows."""
    return " and ".join(
        f"{part.root.rpartition('/')[2]}/" if part.kind != "list" else f"rows of {split}"
        for split, part in found.items()
    )


def split_off(dataset: Dataset, request: Request, names: list[str] | None = None) -> Dataset:
    """The same with some pictures of each class held out from its `train`, as its `val`.

    Args:
        dataset: one that was opened without a `val_fraction`, or a part of such.
        names: how an error calls the classes.
    """
    source, fraction = dataset.train, request.val_fraction
    assert fraction is not None
    names = names or [f"class {name!r} of {dataset.name}" for name in dataset.classes]
    parts: list[Source] = []
    for indices in hold_out(labels_of(source), names, fraction, request.split_seed):
        if isinstance(source, Files):
            chosen = tuple(source.examples[i] for i in indices)
            parts.append(Files(chosen, source.archive))
        elif isinstance(source, Tagged):
            chosen = tuple(source.examples[i] for i in indices)
            parts.append(Tagged(Files(chosen), source.labels[indices]))
        else:
            parts.append(Subset(source, indices))
    train, val = parts
    return replace(dataset, train=train, val=val, split=request.held_out)


def _left_out(parts: Sequence[Part]) -> list[str]:
    """What is in no class, in words."""
    others: Counter[str] = Counter()
    for part in parts:
        others += part.others
    left = []
    if loose := sum(part.loose for part in parts):
        left.append(f"{loose:,} picture{'s' * (loose > 1)} in no class folder")
    if count := others.total():
        kinds = [f"{plain(suffix) or 'no suffix'} {n:,}" for suffix, n in others.most_common()]
        what = "files that are no pictures" if count > 1 else "file that is no picture"
        left.append(f"{count:,} {what} ({_few(kinds, ', ', 5)})")
    return left


def _examples(part: Part) -> tuple[tuple[str, int], ...]:
    return tuple((p, label) for label, files in enumerate(part.classes.values()) for p in files)


def _top(parts: list[Part]) -> str:
    """The place that holds all parts."""
    roots = {part.root for part in parts}
    return roots.pop() if len(roots) == 1 else os.path.commonpath(roots) or "."


def _few(lines: Sequence[str], between: str = "; ", most: int = 3) -> str:
    more = f"{between}and {len(lines) - most} more" if len(lines) > most else ""
    return between.join(lines[:most]) + more


def hold_out(
    labels: np.ndarray, names: list[str], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the pictures to keep and of those to hold out, both rising.

    Held out is `fraction` of each class, rounded, but at least one picture and never all; where a
    picture may show several classes, of all pictures.

    Args:
        names: how an error calls the classes.
    """
    if labels.ndim == 2:
        if len(labels) < 2:
            raise ZooError("data: got one image: to hold some out it takes at least 2")
        count = min(max(round(len(labels) * fraction), 1), len(labels) - 1)
        val = np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
        return np.setdiff1d(np.arange(len(labels)), val), val
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
    reasons = [plain(f"{path}: {reason}") for path, reason in sorted(part.broken.items())]
    if part.others:
        reasons += _left_out([replace(part, loose=0)])
    told = f" ({_few(reasons)})" if reasons else ""
    root = plain(part.root)
    if not filled:
        what = "images but no class folders" if part.loose else "no images"
        raise ZooError(
            f"{part.kind} {root} holds {what}{told}: expected a folder of images for each class"
        )
    if len(part.classes) == 1:
        inside = sorted(part.inside.get(filled[0], ()))
        hint = f"; where its folders are them ({_few(inside, ', ')}), {part.alone(filled[0])}"
        raise ZooError(
            f"{part.kind} {root} holds a single class, {filled[0]!r}: a classifier needs"
            f" at least 2{plain(hint) if len(inside) > 1 else ''}"
        )
    if empty := [name for name in part.classes if name not in filled]:
        folders = ", ".join(f"{root}/{plain(name)}" for name in empty)
        raise ZooError(
            f"no images in the class folder{'s' if len(empty) > 1 else ''} {folders}{told}"
        )


def _check_same(train: Part, other: Part) -> None:
    lacks = [
        f"{part.root} lacks {', '.join(map(repr, sorted(missing)))}"
        for part, missing in (
            (train, set(other.classes) - set(train.classes)),
            (other, set(train.classes) - set(other.classes)),
        )
        if missing
    ]
    if lacks:
        alike = {name.casefold() for name in train.classes}
        case = alike == {name.casefold() for name in other.classes}
        raise ZooError(
            plain(
                f"training and validation must have the same classes: {'; '.join(lacks)}"
                + (" (upper and lower case differ: call them alike)" if case else "")
                + (
                    f"; to hold some of {train.root} out instead, give that path"
                    if not other.classes
                    else ""
                )
            )
        )


def _unreadable(paths: list[str], archive: "Archive | None") -> dict[str, str]:
    """The files that cannot be decoded, with the reason for each."""

    def reason(path: str) -> str | None:
        try:
            if archive:
                check(archive[path])
            else:
                check(path)
        except ZooError as error:
            name = f"{archive.path}/{path}" if archive else path
            return str(error).removeprefix(f"cannot read image {plain(name)}: ")
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


# --- what a run remembers of its data -------------------------------------------------------------


def data_record(dataset: Dataset) -> dict[str, Any]:
    """What a dataset is made of, as values for JSON; no picture is read for it.

    The classes in order, how the validation pictures were chosen, and of both splits, by class, how
    many pictures there are and a digest of their names and sizes in order, of pictures in memory of
    their pixels. Where the numbers of each class are not at hand (TFDS), both are of all together.
    Where the dataset lies does not count, nor when its files were written.
    """
    record: dict[str, Any] = {"classes": list(dataset.classes), "split": dataset.split}
    for name, source in (("train", dataset.train), ("val", dataset.val)):
        counts, digests, sums = zip(*_contents(source, len(dataset.classes)), strict=True)
        record[name] = {"pictures": [*counts], "digests": [*digests], "sums": [*sums]}
    return record


def _contents(source: Source, classes: int) -> list[Content]:
    """By class, or of all together, what a source has."""
    known = getattr(source, "contents", None)
    return known(classes) if known else [(len(source), "", 0)]


def record_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is other now than in the record of a run, each in a few words; none: the same data.

    Args:
        stored: a record of `data_record`, as it came back from JSON.
        now: the record of the data at hand.

    >>> there = data_record(open_dataset("digits"))                           # doctest: +SKIP
    >>> record_differences(there, {**there, "split": "val/"})                 # doctest: +SKIP
    ["the split: the dataset's own split there, val/ now"]
    """
    try:
        return _record_differences(stored, now)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        return ["the record of its data is damaged"]


def _record_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before, after = _by_class(stored), _by_class(now)
    told, other_classes = _renamed(before, after)
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        told.append("the classes are in another order")
    if stored["split"] != now["split"]:
        told.append(f"the split: {stored['split']} there, {now['split']} now")
    for name in kept:
        # where a class moved up or down, others of it may be held out
        if change := _changed(f"class {name!r}", before[name], after[name], other_classes):
            told.append(change)
    if not told and any(stored[split] != now[split] for split in ("train", "val")):
        told.append(_changed("the dataset", _whole(stored), _whole(now)) or "other pictures")
    return [*told[:6], *([f"and {len(told) - 6} more"] if len(told) > 6 else [])]


Both = tuple[Content, Content]  # of train and of val


def _by_class(record: Mapping[str, Any]) -> dict[str, Both | None]:
    """The contents of each class in order, None where they are only known of all together."""
    classes = record["classes"]
    splits = [record[split] for split in ("train", "val")]
    each = [
        list(zip(split["pictures"], split["digests"], split["sums"], strict=True))
        for split in splits
    ]
    if any(len(contents) != len(classes) for contents in each):
        return dict.fromkeys(classes)
    return dict(zip(classes, zip(*each, strict=True), strict=True))


def _whole(record: Mapping[str, Any]) -> Both:
    train, val = (
        (sum(split["pictures"]), " ".join(split["digests"]), 0)
        for split in (record["train"], record["val"])
    )
    return train, val


def _sum(content: Both | None) -> int:
    """What stays the same of a class whatever it is called; 0: unknown."""
    return sum(part[2] for part in content) % 2**64 if content else 0


def _renamed(
    before: Mapping[str, Both | None], after: Mapping[str, Both | None]
) -> tuple[list[str], bool]:
    """(the classes that are gone, new, or have another name, whether there are such)."""
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    told = []
    for name in list(gone):  # the same pictures are there under another name
        sums = {_sum(after[other]): other for other in new}
        place = [*before].index(name)
        there = [*after][place] if len(before) == len(after) else None
        other = sums.get(_sum(before[name])) if _sum(before[name]) else there
        if other in new:
            told.append(f"class {name!r} is now {other!r}")
            gone.remove(name)
            new.remove(other)
    any_other = bool(told or gone or new)
    told += [f"class {name!r} is gone" for name in gone]
    return [*told, *(f"class {name!r} is new" for name in new)], any_other


def _changed(
    what: str, before: Both | None, after: Both | None, ignore_split: bool = False
) -> str | None:
    if before is None or after is None or before == after:
        return None
    if ignore_split and _sum(before) and _sum(before) == _sum(after):
        return None
    (train, *_), (val, *_) = before
    (new_train, *_), (new_val, *_) = after
    if more := new_train + new_val - train - val:
        number = f"{abs(more):,} picture{'s' * (abs(more) > 1)}"
        return f"{number} {'more' if more > 0 else 'fewer'} in {what}"
    if train != new_train:
        return (
            f"{what}: {train:,} pictures to train on and {val:,} to validate on there, now"
            f" {new_train:,} and {new_val:,}"
        )
    if _sum(before) and _sum(before) == _sum(after):
        return f"the same pictures in another order, or split in another way, in {what}"
    return f"other pictures, of the same number, in {what}"
