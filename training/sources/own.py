"""Datasets given as Python objects: arrays, Grain sources, anything with length and items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zoo.errors import ZooError

from .base import Arrays, Dataset, Request, Source
from .splits import split_off

EXPECTED = (
    "a training.Dataset, (images, labels), ((images, labels), (images, labels)) or (train, val), "
    "two sources of which the first has `classes`"
)


def own_dataset(data: Any, val_fraction: float | None) -> Dataset:
    """Make a `Dataset` of the objects given to a run.

    Args:
      data: a `Dataset`; two arrays, images uint8 [N, H, W, 3] or [N, H, W] and labels: int [N],
        names [N], or 0 and 1 for each class [N, K]; two such pairs, to train and to validate on; or
        two sources, see `OwnSource`, the first with the attribute `classes`, a list of names.
      val_fraction: share of each class to hold out of two arrays; None: nothing.

    Raises:
      ZooError: something else, or arrays that do not fit together.
    """
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, Sequence) or len(data) != 2:
        raise ZooError(f"data: got {type(data).__name__}, expected {EXPECTED}")
    if all(isinstance(part, tuple | list) for part in data):
        if any(len(part) != 2 for part in data):
            raise ZooError(f"data: got {_lengths(data)}, expected {EXPECTED}")
        (train, labels), (val, val_labels) = data
        classes = _classes(labels)
        return Dataset(
            "arrays",
            classes,
            _arrays(train, labels, classes),
            _arrays(val, val_labels, classes),
            image_size=_side(train),
            flip=True,
            split="given",
            multilabel=np.ndim(labels) == 2,
        )
    if all(hasattr(part, "shape") for part in data):
        images, labels = data
        classes = _classes(labels)
        whole = Dataset(
            "arrays",
            classes,
            _arrays(images, labels, classes),
            Arrays(np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0, np.int64)),
            image_size=_side(images),
            flip=True,
            multilabel=np.ndim(labels) == 2,
        )
        if val_fraction is None:
            return whole
        return split_off(whole, Request("arrays", val_fraction, 0, False))
    train, val = data
    for name, source in (("train", train), ("val", val)):
        if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
            raise ZooError(f"data: {name} is a {type(source).__name__}, expected {EXPECTED}")
        if not len(source):
            raise ZooError(f"data: {name} has no pictures")
    names = getattr(train, "classes", None)
    if names is None:
        raise ZooError("data: train has no attribute `classes`, expected the names of its classes")
    classes = tuple(map(str, names))
    train, val = OwnSource(train, len(classes)), OwnSource(val, len(classes))
    multilabel = np.ndim(train[0]["label"]) == 1
    return Dataset("sources", classes, train, val, None, True, split="given", multilabel=multilabel)


@dataclass(frozen=True)
class OwnSource:
    """A source from outside; its items are checked.

    Args:
      source: its items are `{"image": ..., "label": ...}` or `(image, label)`. An image is a path,
        a PIL image or an array uint8 [H, W, 3]; a label a number, or 0 and 1 for each class.
        Grain's random access sources and `grain.MapDataset` are such.
      classes: how many there are.
    """

    source: Any
    classes: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        item = self.source[index]
        if isinstance(item, Mapping) and {"image", "label"} <= item.keys():
            image, label = item["image"], item["label"]
        elif isinstance(item, tuple | list) and len(item) == 2:
            image, label = item
        else:
            raise ZooError(
                f"data: item {index} is a {type(item).__name__}, expected image and label"
            )
        label = np.asarray(label)
        if label.ndim == 1 and label.shape != (self.classes,):
            raise ZooError(
                f"data: item {index} has labels {list(label.shape)}, expected [{self.classes}]"
            )
        if label.ndim == 0 and not (label.dtype.kind in "iu" and 0 <= label < self.classes):
            raise ZooError(
                f"data: item {index} has label {label!s:.40}, expected 0 to {self.classes - 1}"
            )
        return {"image": image, "label": label if label.ndim else int(label)}

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels that the source knows, or else those of all its items."""
        known = getattr(self.source, "labels", None)
        items = (self[i]["label"] for i in range(len(self)))
        return np.asarray(list(items) if known is None else known)


def _classes(labels: Any) -> tuple[str, ...]:
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return tuple(map(str, range(labels.shape[1])))
    if labels.ndim != 1 or labels.dtype.kind not in "iuUO" or not len(labels):
        raise ZooError(
            f"data: got labels {labels.dtype} {list(labels.shape)}, expected int [N], names [N] or "
            "0 and 1 [N, classes]"
        )
    if labels.dtype.kind in "UO":
        return tuple(sorted({str(label) for label in labels}))
    if labels.min() < 0:
        raise ZooError(f"data: got the label {labels.min()}, expected 0 or more")
    return tuple(map(str, range(int(labels.max()) + 1)))


def _arrays(images: Any, labels: Any, classes: tuple[str, ...]) -> Source:
    images, labels = np.asarray(images), np.asarray(labels)
    shapes = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3, 4))
    if images.dtype != np.uint8 or not shapes:
        raise ZooError(
            f"data: got images {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, C] "
            "with 1, 3 or 4 channels, or, grey, [N, H, W]"
        )
    if len(images) != len(labels):
        raise ZooError(f"data: got {len(images)} images and {len(labels)} labels")
    if labels.dtype.kind in "UO":
        numbers = {name: number for number, name in enumerate(classes)}
        if unknown := sorted({str(label) for label in labels} - numbers.keys()):
            raise ZooError(f"data: class {unknown[0]!r} of the second pair is not in the first")
        labels = np.array([numbers[str(label)] for label in labels], np.int64)
    if labels.ndim == 1 and not ((labels >= 0) & (labels < len(classes))).all():
        raise ZooError(
            f"data: got labels {labels.min()} to {labels.max()}, expected 0 to {len(classes) - 1}"
        )
    if labels.ndim == 2 and (
        labels.shape[1] != len(classes) or not ((labels == 0) | (labels == 1)).all()
    ):
        raise ZooError(
            f"data: got labels {list(labels.shape)} from {labels.min():g} to {labels.max():g}, "
            f"expected 0 and 1 [N, {len(classes)}]"
        )
    return Arrays(images, labels.astype(np.float32 if labels.ndim == 2 else np.int64))


def _side(images: Any) -> int | None:
    """The side of square pictures, pixels."""
    height, width = np.shape(images)[1:3]
    return int(height) if height == width else None


def _lengths(data: Sequence[Any]) -> str:
    return " and ".join(f"a {type(part).__name__} of {len(part)}" for part in data)
