"""The names of torchvision and timm: PyTorch's state dicts."""

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ...layers import FlattenAt, Network, Pool
from .base import Layout, Rules


def _torch_resnet(model: Network) -> Rules:
    block = r"body\.stage(\d)\.block(\d+)\."
    return (
        (r"body\.stem\.conv", "conv1"),
        (r"body\.stem\.norm", "bn1"),
        (block + r"shortcut\.conv", r"layer\1.\2.downsample.0"),
        (block + r"shortcut\.norm", r"layer\1.\2.downsample.1"),
        (block + r"conv(\d)\.conv", r"layer\1.\2.conv\3"),
        (block + r"conv(\d)\.norm", r"layer\1.\2.bn\3"),
        (r"classifier\.linear", "fc"),
    )


def _torch_vgg(model: Network) -> Rules:
    """torchvision numbers convolution, norm, ReLU and pool alike, in one Sequential."""

    def features() -> Iterator[tuple[str, str]]:
        position = 0
        for stage in model.body.order:
            for name, layer in getattr(model.body, stage).layers():
                if isinstance(layer, Pool):
                    position += 1
                    continue
                row = re.escape(f"body.{stage}.{name}")
                yield rf"{row}\.conv", f"features.{position}"
                yield rf"{row}\.norm", f"features.{position + 1}"
                position += 2 if layer.norm is None else 3

    head = (r"head\.fc1\.linear", "classifier.0"), (r"head\.fc2\.linear", "classifier.3")
    return (*features(), *head, (r"classifier\.linear", "classifier.6"))


def _from_torch(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """OIHW -> HWIO; [out, in] -> [in, out], a flattened CHW input reordered to HWC."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2:
        side = _flattened_side(path, model)
        out = len(array)
        return array.reshape(out, -1, side, side).transpose(2, 3, 1, 0).reshape(-1, out)
    return array


def _to_torch(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """The inverse of `_from_torch`."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2:
        side = _flattened_side(path, model)
        out = array.shape[1]
        return array.reshape(side, side, -1, out).transpose(3, 2, 0, 1).reshape(out, -1)
    return array


def _flattened_side(path: str, model: Network) -> int:
    """Height and width of the map that a fully connected kernel sees flattened; else 1."""
    for (_, layer), (after, _) in pairwise(model.head.layers()):
        if isinstance(layer, FlattenAt) and path == f"head.{after}.linear.kernel":
            return layer.size
    return 1


TORCHVISION = Layout(
    name="torchvision",
    rules={
        "resnet": _torch_resnet,
        "resnext": _torch_resnet,
        "wide_resnet": _torch_resnet,
        "vgg": _torch_vgg,
    },
    leaves={
        "conv.kernel": "weight",
        "norm.scale": "weight",
        "norm.mean": "running_mean",
        "norm.var": "running_var",
        "linear.kernel": "weight",
    },
    join=".",
    arrange=_from_torch,
    restore=_to_torch,
    ignored=r".*\.num_batches_tracked",
)
