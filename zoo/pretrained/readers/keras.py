"""Keras' weight files: legacy HDF5, Keras 3's `.weights.h5`, and `.keras` archives.

https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving/legacy_h5_format.py
https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
"""

import json
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ZooError
from ...text import reason
from .base import Arrays, open_zip, tokens
from .budget import NAME, Budget
from .hdf5 import Hdf5

Named = tuple[str, str, np.ndarray]  # a name, a longer one for when that is taken, the array

CONFIGURED = 16 << 20  # bytes of a configuration, at most
NESTED = 32  # models within models, at most
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"  # in a `.keras` archive
SHARDS = "model.weights.json"

# The variables of a layer in the order in which Keras 3 numbers them; the norm without gamma is
# that of Keras Applications, which keep beta wherever they leave one out.
_KERNEL = {1: ("kernel",), 2: ("kernel", "bias")}
LEAVES: dict[str, dict[int, tuple[str, ...]]] = {
    "conv1d": _KERNEL,
    "conv2d": _KERNEL,
    "conv2d_transpose": _KERNEL,
    "depthwise_conv2d": _KERNEL,
    "dense": _KERNEL,
    "separable_conv2d": {
        2: ("depthwise_kernel", "pointwise_kernel"),
        3: ("depthwise_kernel", "pointwise_kernel", "bias"),
    },
    "batch_normalization": {
        2: ("moving_mean", "moving_variance"),
        3: ("beta", "moving_mean", "moving_variance"),
        4: ("gamma", "beta", "moving_mean", "moving_variance"),
    },
    "layer_normalization": {1: ("gamma",), 2: ("gamma", "beta")},
    "normalization": {3: ("mean", "variance", "count")},
    "p_re_lu": {1: ("alpha",)},
}

# Keras 1 wrote "conv1_W"; its "running_std" is a variance.
KERAS_1 = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}

NUMBERED = re.compile(r"((?:.*/)?)vars/(\d{1,6})")
LEFT_OUT = re.compile(r"^optimizer/|^metrics/|^_?compile_metrics/|seed_generator")

# What zipfile and zlib raise for damaged bytes, and a configuration of another shape.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The variables of all layers, "layer/leaf" ("conv1/kernel"), in the order of the layers.

    A nested model's layers keep their own names. `.weights.h5` of Keras 3 numbers a layer's
    variables and sorts layers by class ("conv2d", "conv2d_1", "dense"): a leaf that `LEAVES` does
    not know keeps its number ("layer/0"). Depthwise kernels are "depthwise_kernel" in Keras 2's
    files and "kernel" in Keras 3's. Optimizers, metrics and the states of random generators are
    left out.

    Raises:
      ZooError: damaged bytes, links or data outside the file, sizes out of proportion to it, or
        variables that are no numbers.
    """
    try:
        if path.suffix.lower() == ".keras":
            return _archive(path), {}
        data = path.read_bytes()
        return _weights(Hdf5(data, Budget(len(data))), {}), {}
    except DAMAGE as error:
        raise ZooError(f"weights: {path} is not a whole Keras file: {reason(error)}") from error


def _archive(path: Path) -> Arrays:
    """Read a `.keras` file: numbered weights, and a configuration that names their layers."""
    budget = Budget(path.stat().st_size)
    with open_zip(path, bound=budget.bytes) as archive:
        if SHARDS in archive.namelist():
            raise ValueError("its weights are in several files, expected one")
        text = archive.read(CONFIG)  # of as many bytes as the archive says, which is bounded
        if len(text) > CONFIGURED:
            raise ValueError(f"{CONFIG} of {len(text)} bytes, expected {CONFIGURED} at most")
        budget.spend(len(text), steps=tokens(text))
        layers = dict(_configured(json.loads(text), budget))
        weights = archive.read(WEIGHTS)
    budget.spend(len(weights))
    return _weights(Hdf5(weights, budget), layers)


def _configured(
    model: dict[str, Any], budget: Budget, path: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(group, layer) of a model's configuration: a class's layers are numbered in order."""
    seen: Counter[str] = Counter()
    for layer in model["config"].get("layers", ()):
        budget.spend(steps=5)
        if depth > NESTED or len(path) + len(layer["class_name"]) > NAME:
            raise ValueError(f"layers within more than {NESTED} others, or of endless names")
        kind = re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", layer["class_name"]).lower()
        group = f"{path}layers/{kind}" + (f"_{seen[kind]}" if seen[kind] else "")
        seen[kind] += 1
        yield group, layer
        yield from _configured(layer, budget, f"{group}/", depth + 1)


# --- which array is what -------------------------------------------------------------------------


def _weights(file: Hdf5, layers: Mapping[str, dict[str, Any]]) -> Arrays:
    """The arrays of an HDF5 file of any version of Keras; `layers` are those of a configuration."""
    root = file.root
    if "model_weights" in file.links(root):
        root = file.find("model_weights", root)
    names = file.texts(root, "layer_names")
    if names is not None:
        return _unique(_legacy(file, root, names))
    places = dict(file.datasets(root))
    if any(NUMBERED.fullmatch(path) for path in places):
        return _unique(_numbered(file, places, layers))
    # a file without Keras' attributes, which has the same names all the same
    return _unique(
        ("/".join(path.split("/")[-2:]).removesuffix(":0"), path, file.read(place, path))
        for path, place in places.items()
        if not path.startswith("optimizer_weights/")
    )


def _legacy(file: Hdf5, root: int, layers: list[str]) -> Iterator[Named]:
    """`conv1/conv1/kernel:0`, listed by the attributes `layer_names` and `weight_names`."""
    for layer in layers:
        group = file.find(layer, root)
        paths = file.texts(group, "weight_names") or []
        nested = len({path.rpartition("/")[0] for path in paths}) > 1  # a model, not a layer
        for path in paths:
            name = path.removesuffix(":0")
            owner, _, leaf = name.rpartition("/")
            if leaf.startswith(f"{layer}_"):  # Keras 1: block1_conv1_W_1
                old = re.sub(r"_\d+$", "", leaf.removeprefix(f"{layer}_"))
                leaf = KERAS_1.get(old, old)
            own = owner.removeprefix(f"{layer}/") if nested and owner else layer
            place = file.find(path, group)
            yield f"{own}/{leaf}", f"{layer}/{name}", file.read(place, f"{layer}/{path}")


def _numbered(
    file: Hdf5, places: dict[str, int], layers: Mapping[str, dict[str, Any]]
) -> Iterator[Named]:
    """`layers/conv2d/vars/0`: the group gives the layer's name, and its class what 0 stands for."""
    owners: dict[str, dict[int, str]] = {}
    for path in places:
        match = NUMBERED.fullmatch(path)
        if match and not LEFT_OUT.search(path):
            owners.setdefault(match[1], {})[int(match[2])] = path

    def modern(owner: str) -> str:
        """The group as Keras 3 calls it; Keras 2.13, and Keras on Windows, wrote others."""
        plain = owner.replace("\\", "/").strip("/")
        return re.sub("(^|/)_layer_checkpoint_dependencies/", r"\1layers/", plain)

    rank = {group: i for i, group in enumerate(layers)}

    def position(owner: str) -> tuple[int, list[str | int]]:
        parts = re.split(r"(\d+)", modern(owner))
        natural = [int(part) if i % 2 else part for i, part in enumerate(parts)]
        return rank.get(modern(owner), len(rank)), natural

    for owner in sorted(owners, key=position):
        group, paths = modern(owner), owners[owner]
        config = layers.get(group, {}).get("config", {})
        name = file.text(file.find(f"{owner}vars", file.root), "name") or config.get("name", group)
        leaves = _leaves(re.sub(r"_\d+$", "", group.split("/")[-1]), len(paths), config)
        for i in sorted(paths):
            leaf = leaves[i] if i < len(leaves) else str(i)
            yield f"{name}/{leaf}", f"{group}/{i}", file.read(places[paths[i]], paths[i])


def _leaves(kind: str, count: int, config: dict[str, Any]) -> tuple[str, ...]:
    """The names of a layer's variables, () if `LEAVES` does not have them."""
    if kind == "batch_normalization" and count == 3 and config.get("center") is False:
        return "gamma", "moving_mean", "moving_variance"
    return LEAVES.get(kind, {}).get(count, ())


def _unique(named: Iterable[Named]) -> Arrays:
    """Arrays by name, or by the longer second name where the first is taken."""
    arrays: Arrays = {}
    for name, path, array in named:
        free = path if name in arrays else name
        if free in arrays:
            raise ValueError(f"two variables are called {free}")
        arrays[free] = array
    return arrays
