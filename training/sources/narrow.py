"""A dataset with some of its classes, or with few training pictures of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from zoo.errors import ZooError, unknown

from .base import Content, Dataset, Source, Subset, labels_of


@dataclass(frozen=True)
class Relabelled:
    """A `Source` whose labels have other numbers.

    Args:
        source: with labels that all have a new number.
        numbers: the new number of each label; -1 for those that do not occur.
    """

    source: Source
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self.source[index]
        return {**example, "label": self.numbers[int(example["label"])]}

    @cached_property
    def labels(self) -> np.ndarray:
        """The new labels, int64 [N]."""
        labels: np.ndarray = np.asarray(self.numbers)[labels_of(self.source)]
        return labels

    def contents(self, classes: int) -> list[Content]:
        """What the pictures are, whatever their labels."""
        contents = getattr(self.source, "contents", None)
        return list(contents(classes)) if contents else [(len(self), "", 0)]


def narrowed(dataset: Dataset, classes: str | None, per_class: int | None, seed: int) -> Dataset:
    """The dataset with some classes, and with few training pictures of each.

    Args:
      dataset: the whole.
      classes: their names, with commas between them; None: all.
      per_class: how many training pictures of each, drawn at random; None, or more than there are:
        all.
      seed: of the draw.

    Raises:
      ZooError: unknown classes, fewer than two of them, or pictures that show several classes.
    """
    if classes is None and per_class is None:
        return dataset
    if dataset.multilabel:
        setting = "per_class" if classes is None else "classes"
        raise ZooError(f"{setting}: expected pictures of one class each")
    if classes is not None:
        asked = list(dict.fromkeys(name.strip() for name in classes.split(",")))
        for name in asked:
            if name not in dataset.classes:
                raise unknown("class", name, dataset.classes)
        if len(asked) < 2:
            raise ZooError(f"classes: got {classes}, expected two or more, with commas")
        numbers = tuple(asked.index(name) if name in asked else -1 for name in dataset.classes)

        def chosen(source: Source) -> Source:
            kept = np.flatnonzero(np.asarray(numbers)[labels_of(source)] >= 0)
            return Relabelled(Subset(source, kept), numbers)

        dataset = replace(
            dataset,
            classes=tuple(asked),
            train=chosen(dataset.train),
            val=chosen(dataset.val) if len(dataset.val) else dataset.val,
            left_out=(*dataset.left_out, f"{len(dataset.classes) - len(asked)} classes"),
        )
    if per_class is not None:
        labels = labels_of(dataset.train)
        order = np.random.default_rng(seed).permutation(len(labels))
        first = [order[labels[order] == label][:per_class] for label in range(len(dataset.classes))]
        kept = np.sort(np.concatenate(first))
        left = len(labels) - len(kept)
        dataset = replace(
            dataset,
            train=Subset(dataset.train, kept),
            left_out=(*dataset.left_out, f"{left:,} training pictures beyond {per_class} a class"),
        )
    return dataset
