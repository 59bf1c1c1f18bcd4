"""Which outputs of a network are the classes of a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zoo.errors import ZooError, few
from zoo.layers import Network
from zoo.pretrained.catalogue import imagenet_classes, imagenet_synsets

from .sources.base import Dataset, Source, labels_of


def outputs_of(model: Network, dataset: Dataset) -> np.ndarray | None:
    """The output of the network for each class of a dataset, int32 [K]; None: 0, 1, 2, ...

    Classes are found by their names, so that a dataset may have them in another order, or only some
    of the network's. The classes of ImageNet go by their synsets ("n01440764") too, which the
    folders of its pictures are called.

    Raises:
      ZooError: the dataset has classes that the network does not know; or the network does not
        know the names of its classes, and their number is not the dataset's.
    """
    classes = dataset.classes
    count, known = model.spec.num_classes, model.classes
    if not known or dataset.multilabel:
        if count != len(classes):
            raise ZooError(f"{model.spec.name} has {count} classes, the dataset {len(classes)}")
        if not known or known == classes:
            return None
        raise ZooError(
            f"{model.spec.name} was trained on other classes than the dataset's: expected the same "
            "ones in the same order where pictures may show several"
        )
    places = {name: i for i, name in enumerate(known)}
    names = zip(imagenet_synsets(), imagenet_classes(), strict=True)
    places = {synset: places[name] for synset, name in names if name in places} | places
    if unknown := [name for name in classes if name not in places]:
        raise ZooError(
            f"{model.spec.name} does not know {len(unknown)} of the dataset's {len(classes)} "
            f"classes: {few(unknown)}; it knows {few(known)}"
        )
    found = [places[name] for name in classes]
    return None if found == list(range(count)) else np.array(found, np.int32)


@dataclass(frozen=True)
class Renumbered:
    """The pictures of a source with other labels: class `i` becomes `outputs[i]`."""

    source: Source
    outputs: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        example = self.source[index]
        return {**example, "label": int(self.outputs[example["label"]])}

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels of all pictures, int32 [N]."""
        labels: np.ndarray = self.outputs[labels_of(self.source)]
        return labels
