"""Image files in classes: the classes are checked, every file is read once, and split."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError, few
from zoo.runtime import machine
from zoo.text import plain

from ..decode import check
from .base import Dataset, Files, Request, Source, Tagged
from .splits import looks_like_split, split_of, split_off

if TYPE_CHECKING:
    from .folders import Archive


@dataclass
class Part:
    """The image files of a split by class, as they were found and before any is read.

    Args:
        kind: "folder", "archive" or "list", for error messages.
        root: its path, for error messages.
        classes: for each class its files, in order.
        broken: files and folders that could not be opened, with the reason.
        loose: the number of pictures that are in no class folder.
        others: the number of files that are no pictures, by suffix.
        inside: for each class, the folders within its folder that contain pictures.
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
        """All files, each once."""
        if self.several is not None:
            return [*self.several]
        return [path for files in self.classes.values() for path in files]

    def alone(self, name: str) -> str:
        """Advice on how to open one of its folders by itself."""
        if self.kind == "folder":
            return plain(f"give its own path, {self.root}/{name}")
        return plain(f"make an archive of {name}/ alone")

    def named(self, name: str) -> str:
        """The name of a class in error messages."""
        if self.kind == "list":
            return f"class {name!r} of {plain(self.root)}"
        return plain(f"class folder {self.root}/{name}")


def assemble(
    request: Request,
    by_split: Mapping[str, Part],
    archive: "Archive | None" = None,
    left_out: Iterable[str] = (),
) -> Dataset:
    """Check that the classes make sense and that every file can be read, and split.

    Args:
        request: what was asked for.
        by_split: the files of each split. If `train` is the only one, some of it is held out where
            `request` says so.
        archive: what the paths are in; None: the file system.
        left_out: what else was found but is not used, in words.
    """
    train, parts = by_split["train"], list(by_split.values())
    val = by_split.get("val") or by_split.get("test")
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
            f" be read: {few(skipped, '; ', 3)}. Leave them out with --skip-unreadable"
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
        split: _source(part, archive, unreadable) for split, part in by_split.items()
    }
    dataset = Dataset(
        request.spec,
        tuple(train.classes),
        sources["train"],
        sources["val" if "val" in by_split else "test"] if val else Files((), archive),
        image_size=None,
        flip=True,
        skipped=skipped,
        split=_split_words(by_split) if val else request.held_out,
        left_out=(*_left_out(parts), *left_out),
        test=sources.get("test") if "val" in by_split else None,
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


def _split_words(by_split: Mapping[str, Part]) -> str:
    """The splits that were found, in words: their folders or, in a list, their rows."""
    return " and ".join(
        f"{part.root.rpartition('/')[2]}/" if part.kind != "list" else f"rows of {split}"
        for split, part in by_split.items()
    )


def _left_out(parts: Sequence[Part]) -> list[str]:
    """The files that are in no class, in words."""
    others: Counter[str] = Counter()
    for part in parts:
        others += part.others
    left = []
    if loose := sum(part.loose for part in parts):
        left.append(f"{loose:,} picture{'s' * (loose > 1)} in no class folder")
    if count := others.total():
        kinds = [f"{plain(suffix) or 'no suffix'} {n:,}" for suffix, n in others.most_common()]
        what = "files that are no pictures" if count > 1 else "file that is no picture"
        left.append(f"{count:,} {what} ({few(kinds, most=5)})")
    return left


def _examples(part: Part) -> tuple[tuple[str, int], ...]:
    return tuple((p, label) for label, files in enumerate(part.classes.values()) for p in files)


def _top(parts: list[Part]) -> str:
    """The place that holds all parts."""
    roots = {part.root for part in parts}
    return roots.pop() if len(roots) == 1 else os.path.commonpath(roots) or "."


def _check_folders(part: Part) -> None:
    """Check that the class folders are classes.

    Raises:
        ZooError: folders that look like splits or versions of a dataset and not like classes.
    """
    alike = {name: found for name in part.classes if (found := looks_like_split(name))}
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
                f" ({few(sorted(same), most=3)}): these look like the classes, in several versions;"
                f" for one of them {part.alone(name)}, or name each picture's class in a"
                " list:FILE.csv"
            )
        )


def _check_classes(part: Part) -> None:
    filled = [name for name, files in part.classes.items() if files]
    reasons = [plain(f"{path}: {reason}") for path, reason in sorted(part.broken.items())]
    if part.others:
        reasons += _left_out([replace(part, loose=0)])
    detail = f" ({few(reasons, '; ', 3)})" if reasons else ""
    root = plain(part.root)
    if not filled:
        what = "images but no class folders" if part.loose else "no images"
        raise ZooError(
            f"{part.kind} {root} holds {what}{detail}: expected a folder of images for each class"
        )
    if len(part.classes) == 1:
        inside = sorted(part.inside.get(filled[0], ()))
        hint = f"; where its folders are them ({few(inside, most=3)}), {part.alone(filled[0])}"
        raise ZooError(
            f"{part.kind} {root} holds a single class, {filled[0]!r}: a classifier needs"
            f" at least 2{plain(hint) if len(inside) > 1 else ''}"
        )
    if empty := [name for name in part.classes if name not in filled]:
        folders = ", ".join(f"{root}/{plain(name)}" for name in empty)
        raise ZooError(
            f"no images in the class folder{'s' if len(empty) > 1 else ''} {folders}{detail}"
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

    with ThreadPool(machine.cores()) as pool:  # Pillow decodes outside the interpreter's lock
        reasons = tqdm(
            pool.imap(reason, paths, chunksize=16),
            desc="checking images",
            total=len(paths),
            delay=2,  # seconds: a small folder needs no report
            disable=None,  # unless stderr is a terminal
            leave=False,
        )
        return {path: why for path, why in zip(paths, reasons, strict=True) if why}
