"""What the names of torchvision and timm have in common: PyTorch's state dicts.

A module of PyTorch has the attribute names of its class, or positions where it is a `Sequential`;
the functions here give both from the network at hand. Rules speak of repeated blocks through
groups.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np

from ...errors import ZooError
from ...layers import Concat, FlattenAt, LinearAct, Network, Pool, Stack
from ...registry import find
from .base import Rules, of

Match = re.Match[str]
Walk = Iterator[tuple[str, str | Callable[[Match], str]]]  # what `Rules` are made of
Shape = tuple[int, ...]

# --- names in common -----------------------------------------------------------------------------


def unit(ours: str, conv: str, norm: str) -> Rules:
    """A convolution and its norm."""
    return (rf"{ours}\.conv", conv), (rf"{ours}\.norm", norm)


def numbered(ours: str, theirs: str) -> Rules:
    """A convolution and its norm in a `Sequential`."""
    return unit(ours, f"{theirs}.0", f"{theirs}.1")


def named(ours: str, theirs: str) -> Rules:
    """A convolution and its norm in a module of both."""
    return unit(ours, f"{theirs}.conv", f"{theirs}.bn")


def squeeze(ours: str, fc1: str, fc2: str) -> Rules:
    """The two layers of a squeeze-excite."""
    return (rf"{ours}\.reduce\.conv", fc1), (rf"{ours}\.expand\.conv", fc2)


def layers_of(stack: Stack) -> dict[str, Any]:
    """The layers of a stack by name, in order."""
    return dict(stack.layers())


def head(theirs: str) -> tuple[str, str]:
    """The classifier."""
    return r"classifier\.linear", theirs


def branches(ours: str, layer: Concat, theirs: str, first: int = 0) -> Walk:
    """branch0, branch1.0, branch1.1, ...: a branch of several rows is a `Sequential`.

    Where rows part into two (`split` of Inception v4) all have names: branch1_0, branch1_1a, _1b.
    """
    for i, branch in enumerate(layer.order, first):
        rows = list(getattr(layer, branch).layers())
        join = "_" if any(isinstance(row, Concat) for _, row in rows) else "."
        for j, (name, row) in enumerate(rows):
            at = rf"{ours}\.{branch}\.{name}"
            position = f"{theirs}.branch{i}" if len(rows) == 1 else f"{theirs}.branch{i}{join}{j}"
            if isinstance(row, Concat):
                for letter, half in zip("ab", row.order, strict=True):
                    yield from named(rf"{at}\.{half}\.conv", position + letter)
            else:
                yield from named(at, position)


# --- the same in both ----------------------------------------------------------------------------


def resnet(model: Network) -> Rules:
    """ResNet and its kin, with squeeze-excite or without."""
    name = model.spec.name
    if name.endswith("_v1"):  # the same names and shapes, strides elsewhere: another function
        usual = name.removesuffix("_v1")
        raise ZooError(f"torchvision and timm have no {name}: expected {usual}")
    at = r"body\.stage(\d)\.block(\d+)\."
    return (
        *unit(r"body\.stem", "conv1", "bn1"),
        *unit(at + "shortcut", r"layer\1.\2.downsample.0", r"layer\1.\2.downsample.1"),
        *unit(at + r"conv(\d)", r"layer\1.\2.conv\3", r"layer\1.\2.bn\3"),
        *squeeze(at + "se", r"layer\1.\2.se.fc1", r"layer\1.\2.se.fc2"),
        head("fc"),
    )


def vgg_features(model: Network) -> Walk:
    """Convolution, norm, ReLU and pool numbered alike, in one `Sequential`."""
    position = 0
    for stage in model.body.order:
        for name, layer in getattr(model.body, stage).layers():
            if isinstance(layer, Pool):
                position += 1
                continue
            yield from unit(
                rf"body\.{stage}\.{name}", f"features.{position}", f"features.{position + 1}"
            )
            position += 2 if layer.norm is None else 3


def _densenet(_model: Network) -> Rules:
    """DenseNet; both libraries count its layers from 1."""

    def layer(leaf: str) -> Callable[[Match], str]:
        return lambda at: f"features.denseblock{at[1]}.denselayer{int(at[2]) + 1}.{leaf}"

    ours = r"body\.dense(\d)\.layer(\d+)\."
    return (
        *unit(r"body\.stem", "features.conv0", "features.norm0"),
        (ours + r"preact\.norm", layer("norm1")),
        (ours + r"conv1\.conv", layer("conv1")),
        (ours + r"conv1\.norm", layer("norm2")),
        (ours + r"conv2\.conv", layer("conv2")),
        (r"body\.transition(\d)\.preact\.norm", r"features.transition\1.norm"),
        (r"body\.transition(\d)\.conv\.conv", r"features.transition\1.conv"),
        (r"body\.postact\.norm", "features.norm5"),
        head("classifier"),
    )


# modules, and in them our rows -> their attributes; the first that fits
# fmt: off
_INCEPTION_V3 = (
    ("6a", {
        "conv3x3.conv": "branch3x3",
    }),
    ("7a", {
        "conv7x7.reduce": "branch7x7x3_1",
        "conv7x7.conv1":  "branch7x7x3_2",
        "conv7x7.conv2":  "branch7x7x3_3",
        "conv7x7.conv3":  "branch7x7x3_4",
    }),
    ("..", {
        "conv1x1.conv":                 "branch1x1",
        "conv5x5.reduce":               "branch5x5_1",
        "conv5x5.conv":                 "branch5x5_2",
        "conv3x3.reduce":               "branch3x3_1",
        "conv3x3.conv":                 "branch3x3_2",
        "conv3x3.split.conv1x3.conv":   "branch3x3_2a",
        "conv3x3.split.conv3x1.conv":   "branch3x3_2b",
        "double3x3.reduce":             "branch3x3dbl_1",
        "double3x3.conv":               "branch3x3dbl_2",
        "double3x3.conv1":              "branch3x3dbl_2",
        "double3x3.conv2":              "branch3x3dbl_3",
        "double3x3.split.conv1x3.conv": "branch3x3dbl_3a",
        "double3x3.split.conv3x1.conv": "branch3x3dbl_3b",
        "conv7x7.reduce":               "branch7x7_1",
        "conv7x7.conv1":                "branch7x7_2",
        "conv7x7.conv2":                "branch7x7_3",
        "double7x7.reduce":             "branch7x7dbl_1",
        "double7x7.conv1":              "branch7x7dbl_2",
        "double7x7.conv2":              "branch7x7dbl_3",
        "double7x7.conv3":              "branch7x7dbl_4",
        "double7x7.conv4":              "branch7x7dbl_5",
        "pool.conv":                    "branch_pool",
    }),
)
# fmt: on


def _inception_v3(_model: Network) -> Rules:
    def mixed() -> Walk:
        for modules, rows in _INCEPTION_V3:
            for ours, theirs in rows.items():
                at = rf"body\.mixed({modules})\.{re.escape(ours)}"
                yield from named(at, rf"Mixed_\1.{theirs}")

    return (
        *named(r"body\.conv(3b)", r"Conv2d_\1_1x1"),
        *named(r"body\.conv(..)", r"Conv2d_\1_3x3"),
        *mixed(),
        *named(r"aux_mixed6e\.head\.reduce", "AuxLogits.conv0"),
        *named(r"aux_mixed6e\.head\.conv", "AuxLogits.conv1"),
        (r"aux_mixed6e\.classifier\.linear", "AuxLogits.fc"),
        head("fc"),
    )


# --- arrays --------------------------------------------------------------------------------------


def from_torch(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """OIHW -> HWIO; [out, in] -> [in, out], a flattened CHW input reordered to HWC.

    A layer that is fully connected here may be a convolution over the whole map there, and a factor
    for each channel may be [C, 1, 1]. An array of any other shape comes back with a shape that does
    not fit, which `convert` reports.
    """
    if path.endswith("linear.kernel"):
        side = _flattened_side(path, model)
        if array.ndim == 2 and array.shape[1] % side**2 == 0:
            array = array.reshape(len(array), -1, side, side)
        if array.shape[2:] == (side, side):
            return array.transpose(2, 3, 1, 0).reshape(-1, len(array))
    elif array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    elif array.shape[1:] == (1, 1):
        return array[:, 0, 0]
    return array


def to_torch(
    path: str, array: np.ndarray, model: Network, *, as_conv: Mapping[str, str], factor: Shape
) -> np.ndarray:
    """The inverse of `from_torch`.

    Args:
      path: ours.
      array: ours.
      model: the network that has them.
      as_conv: by network or family, the pattern of fully connected layers that are convolutions
        there.
      factor: the shape that a factor for each channel has there.
    """
    if path.endswith("linear.kernel"):
        side, out = _flattened_side(path, model), array.shape[1]
        array = array.reshape(side, side, -1, out).transpose(3, 2, 0, 1)
        pattern = of(as_conv, find(model.spec.name)) or "$^"
        convolution = re.fullmatch(pattern, path.removesuffix(".linear.kernel"))
        return array if convolution else array.reshape(out, -1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.reshape(factor) if path.endswith("layerscale.gamma") else array


def _flattened_side(path: str, model: Network) -> int:
    """Height and width of the map that a fully connected layer gets flattened; 1 without one."""
    *where, row, _, _ = path.split(".")
    stack = reduce(getattr, where, model)
    side = 1
    for name, layer in stack.layers() if isinstance(stack, Stack) else ():
        if name == row:
            break
        if isinstance(layer, FlattenAt):
            side = layer.size
        elif isinstance(layer, LinearAct):
            side = 1
    return side


def rename(_model: Network, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The oldest files of DenseNet have "denselayer1.norm.1" where newer ones have "norm1"."""
    dotted = re.compile(r"(features\.denseblock\d\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {dotted.sub(r"\1\2", name): array for name, array in arrays.items()}


# --- of both layouts ---

COMMON: dict[str, Callable[[Network], Rules]] = {
    "resnet": resnet,
    "resnext": resnet,
    "wide_resnet": resnet,
    "densenet": _densenet,
    "inception_v3": _inception_v3,
}

LEAVES = {
    "conv.kernel": "weight",
    "norm.scale": "weight",
    "norm.mean": "running_mean",
    "norm.var": "running_var",
    "linear.kernel": "weight",
}
