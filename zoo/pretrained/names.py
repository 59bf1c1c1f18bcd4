"""What each source calls our tensors, and how it lays them out.

A `Layout` translates one of our paths ("body.stem.conv.kernel") into the source's name
("conv1.weight") and turns the source's array into ours. Network-specific parts are regular
expressions on our paths, one table a family.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..context import KERAS, TORCH, Numerics
from ..errors import ZooError
from ..layers import FlattenAt, Network, Pool
from ..preprocess import IMAGENET, INCEPTION, Preprocess
from ..registry import find

Rules = tuple[tuple[str, str], ...]  # (pattern of our module path, the source's module name)


@dataclass(frozen=True)
class Layout:
    """One source's names, array order and numerics."""

    name: str
    rules: Mapping[str, Callable[[Network], Rules]]  # by family; "*" for any
    leaves: Mapping[str, str]  # "conv.kernel" -> the source's name, where it has another
    join: str  # between a module's name and a leaf's
    arrange: Callable[[str, np.ndarray, Network], np.ndarray]  # (our path, theirs) -> ours
    ignored: str = r"$^"  # pattern of source names that hold no part of the function
    numerics: Numerics = TORCH
    preprocess: Preprocess = IMAGENET

    def source_name(self, path: str, rules: Rules) -> str:
        """The source's name for one of our paths.

        Raises:
          KeyError: no rule speaks of it.
        """
        module, kind, leaf = path.rsplit(".", 2)
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, f"{module}.{kind}"):
                return match.expand(replacement) + self.join + self._leaf(module, kind, leaf)
        raise KeyError(path)

    def _leaf(self, module: str, kind: str, leaf: str) -> str:
        special = f"{module.rpartition('.')[2]}.{kind}.{leaf}"
        return self.leaves.get(special) or self.leaves.get(f"{kind}.{leaf}", leaf)

    def rules_for(self, model: Network) -> Rules:
        family = find(model.spec.name).family
        rules = self.rules.get(family) or self.rules.get("*")
        if rules is None:
            raise ZooError(
                f"layout {self.name!r} has no names for {model.spec.name}: it knows "
                + ", ".join(self.rules)
            )
        return rules(model)


# --- torchvision ---------------------------------------------------------------------------------


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
    ignored=r".*\.num_batches_tracked",
)

# --- keras.applications --------------------------------------------------------------------------


def _keras_mobilenet_v1(model: Network) -> Rules:
    return (
        (r"body\.stem\.conv", "conv1"),
        (r"body\.stem\.norm", "conv1_bn"),
        (r"body\.sep(\d+)\.depthwise\.conv", r"conv_dw_\1"),
        (r"body\.sep(\d+)\.depthwise\.norm", r"conv_dw_\1_bn"),
        (r"body\.sep(\d+)\.pointwise\.conv", r"conv_pw_\1"),
        (r"body\.sep(\d+)\.pointwise\.norm", r"conv_pw_\1_bn"),
        (r"classifier\.linear", "conv_preds"),
    )


def _from_keras(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """Depthwise [kh, kw, C, 1] -> [kh, kw, 1, C]; a 1x1 convolution as classifier -> [in, out]."""
    if path.endswith("depthwise.conv.kernel"):
        return array.transpose(0, 1, 3, 2)
    if path.endswith("linear.kernel"):
        return array.reshape(array.shape[-2:])
    return array


KERAS_APPLICATIONS = Layout(
    name="keras",
    rules={"mobilenet_v1": _keras_mobilenet_v1},
    leaves={
        "depthwise.conv.kernel": "depthwise_kernel",
        "norm.scale": "gamma",
        "norm.bias": "beta",
        "norm.mean": "moving_mean",
        "norm.var": "moving_variance",
    },
    join="/",
    arrange=_from_keras,
    numerics=KERAS,
    preprocess=INCEPTION,
)

# --- our own files -------------------------------------------------------------------------------

ZOO = Layout(
    name="zoo",
    rules={"*": lambda model: (("(.*)", r"\1"),)},
    leaves={},
    join=".",
    arrange=lambda path, array, model: array,
)

LAYOUTS = {layout.name: layout for layout in (TORCHVISION, KERAS_APPLICATIONS, ZOO)}
