"""The names of torchvision and timm: PyTorch's state dicts.

A torch module has the attribute names of its class, or positions where it is a `Sequential`; the
functions here give both from the network at hand. Rules speak of repeated blocks through groups.

https://github.com/pytorch/vision/tree/main/torchvision/models
https://github.com/huggingface/pytorch-image-models/tree/main/timm/models
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial, reduce
from itertools import groupby
from typing import Any

import numpy as np

from ...context import TORCH
from ...errors import ZooError
from ...layers import Concat, FlattenAt, LinearAct, Network, Pool, Stack
from ...preprocess import INCEPTION
from ...registry import find
from .base import Layout, Rules

Match = re.Match[str]
Walk = Iterator[tuple[str, str | Callable[[Match], str]]]  # what `Rules` are made of
Shape = tuple[int, ...]

# --- names in common -----------------------------------------------------------------------------


def _unit(ours: str, conv: str, norm: str) -> Rules:
    """A convolution and its norm."""
    return (rf"{ours}\.conv", conv), (rf"{ours}\.norm", norm)


def _numbered(ours: str, theirs: str) -> Rules:
    return _unit(ours, f"{theirs}.0", f"{theirs}.1")


def _named(ours: str, theirs: str) -> Rules:
    return _unit(ours, f"{theirs}.conv", f"{theirs}.bn")


def _squeeze(ours: str, fc1: str, fc2: str) -> Rules:
    """The two layers of a squeeze-excite."""
    return (rf"{ours}\.reduce\.conv", fc1), (rf"{ours}\.expand\.conv", fc2)


def _layers(stack: Stack) -> dict[str, Any]:
    return dict(stack.layers())


def _head(theirs: str) -> tuple[str, str]:
    return r"classifier\.linear", theirs


def _branches(ours: str, layer: Concat, theirs: str, first: int = 0) -> Walk:
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
                    yield from _named(rf"{at}\.{half}\.conv", position + letter)
            else:
                yield from _named(at, position)


# --- the same in both ----------------------------------------------------------------------------


def _resnet(model: Network) -> Rules:
    name = model.spec.name
    if name.endswith("_v1"):  # the same names and shapes, strides elsewhere: another function
        usual = name.removesuffix("_v1")
        raise ZooError(f"torchvision and timm have no {name}: expected {usual}")
    at = r"body\.stage(\d)\.block(\d+)\."
    return (
        *_unit(r"body\.stem", "conv1", "bn1"),
        *_unit(at + "shortcut", r"layer\1.\2.downsample.0", r"layer\1.\2.downsample.1"),
        *_unit(at + r"conv(\d)", r"layer\1.\2.conv\3", r"layer\1.\2.bn\3"),
        *_squeeze(at + "se", r"layer\1.\2.se.fc1", r"layer\1.\2.se.fc2"),
        _head("fc"),
    )


def _vgg_features(model: Network) -> Walk:
    """Convolution, norm, ReLU and pool numbered alike, in one `Sequential`."""
    position = 0
    for stage in model.body.order:
        for name, layer in getattr(model.body, stage).layers():
            if isinstance(layer, Pool):
                position += 1
                continue
            yield from _unit(
                rf"body\.{stage}\.{name}", f"features.{position}", f"features.{position + 1}"
            )
            position += 2 if layer.norm is None else 3


def _densenet(_model: Network) -> Rules:
    """Layers count from 1 there."""

    def layer(leaf: str) -> Callable[[Match], str]:
        return lambda at: f"features.denseblock{at[1]}.denselayer{int(at[2]) + 1}.{leaf}"

    ours = r"body\.dense(\d)\.layer(\d+)\."
    return (
        *_unit(r"body\.stem", "features.conv0", "features.norm0"),
        (ours + r"preact\.norm", layer("norm1")),
        (ours + r"conv1\.conv", layer("conv1")),
        (ours + r"conv1\.norm", layer("norm2")),
        (ours + r"conv2\.conv", layer("conv2")),
        (r"body\.transition(\d)\.preact\.norm", r"features.transition\1.norm"),
        (r"body\.transition(\d)\.conv\.conv", r"features.transition\1.conv"),
        (r"body\.postact\.norm", "features.norm5"),
        _head("classifier"),
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
                yield from _named(at, rf"Mixed_\1.{theirs}")

    return (
        *_named(r"body\.conv(3b)", r"Conv2d_\1_1x1"),
        *_named(r"body\.conv(..)", r"Conv2d_\1_3x3"),
        *mixed(),
        *_named(r"aux_mixed6e\.head\.reduce", "AuxLogits.conv0"),
        *_named(r"aux_mixed6e\.head\.conv", "AuxLogits.conv1"),
        (r"aux_mixed6e\.classifier\.linear", "AuxLogits.fc"),
        _head("fc"),
    )


# --- torchvision ---------------------------------------------------------------------------------


def _tv_alexnet(_model: Network) -> Rules:
    return (
        (r"body\.conv1\.conv\.conv", "features.0"),
        (r"body\.conv2\.conv", "features.3"),
        (r"body\.conv3\.conv", "features.6"),
        (r"body\.conv4\.conv", "features.8"),
        (r"body\.conv5\.conv", "features.10"),
        (r"head\.fc6\.linear", "classifier.1"),
        (r"head\.fc7\.linear", "classifier.4"),
        _head("classifier.6"),
    )


def _tv_vgg(model: Network) -> Rules:
    fc1, fc2 = (r"head\.fc1\.linear", "classifier.0"), (r"head\.fc2\.linear", "classifier.3")
    return (*_vgg_features(model), fc1, fc2, _head("classifier.6"))


def _tv_inception_v1(model: Network) -> Rules:
    def auxiliary() -> Walk:
        for ours, theirs in ("aux_mixed4a", "aux1"), ("aux_mixed4d", "aux2"):
            yield from _named(rf"{ours}\.head\.conv", f"{theirs}.conv")
            yield rf"{ours}\.head\.fc\.linear", f"{theirs}.fc1"
            yield rf"{ours}\.classifier\.linear", f"{theirs}.fc2"

    return (
        *_named(r"body\.conv(\d)", r"conv\1"),
        *_branches(r"body\.mixed(\d.)", _layers(model.body)["mixed3a"], r"inception\1", first=1),
        *auxiliary(),
        _head("fc"),
    )


def _tv_squeezenet(model: Network) -> Rules:
    def features() -> Walk:
        for i, row in enumerate(model.body.order):
            ours, theirs = rf"body\.{row}", f"features.{i + 1}"  # the stem's ReLU counts
            yield rf"{ours}\.squeeze\.conv", f"{theirs}.squeeze"
            yield rf"{ours}\.expand\.(expand.x.)\.conv\.conv", rf"{theirs}.\1"

    return ((r"body\.conv1\.conv", "features.0"), *features(), _head("classifier.1"))


def _tv_shufflenet_v2(_model: Network) -> Rules:
    left, right = (
        rf"body\.stage(\d)\.block(\d+)\.branches\.{side}" for side in (r"left\.", r"(?:right\.)?")
    )
    theirs = r"stage\1.\2.branch"
    return (
        *_numbered(r"body\.conv(1|5)", r"conv\1"),
        *_unit(left + "depthwise", f"{theirs}1.0", f"{theirs}1.1"),
        *_unit(left + "conv", f"{theirs}1.2", f"{theirs}1.3"),
        *_unit(right + "conv1", f"{theirs}2.0", f"{theirs}2.1"),
        *_unit(right + "depthwise", f"{theirs}2.3", f"{theirs}2.4"),
        *_unit(right + "conv2", f"{theirs}2.5", f"{theirs}2.6"),
        _head("fc"),
    )


def _tv_mobilenet_v2(model: Network) -> Rules:
    """Blocks of all stages are numbered alike, and their rows, the projection's norm apart."""

    def features() -> Walk:
        blocks = [
            (rf"body\.{stage}\.{name}", block)
            for stage, row in model.body.layers()
            if isinstance(row, Stack)
            for name, block in row.layers()
        ]
        for i, (ours, block) in enumerate(blocks, 1):
            *inner, last = block.order
            theirs, n = f"features.{i}.conv", len(inner)
            for j, row in enumerate(inner):
                yield from _numbered(rf"{ours}\.{row}", f"{theirs}.{j}")
            yield from _unit(rf"{ours}\.{last}", f"{theirs}.{n}", f"{theirs}.{n + 1}")
        yield from _numbered(r"body\.last", f"features.{len(blocks) + 1}")

    return (*_numbered(r"body\.stem", "features.0"), *features(), _head("classifier.1"))


def _tv_block(ours: str, block: Stack, theirs: str) -> Walk:
    """An inverted residual: its rows are numbered."""
    for j, row in enumerate(block.order):
        at = rf"{ours}\.{row}"
        yield from _squeeze(at, f"{theirs}.{j}.fc1", f"{theirs}.{j}.fc2")
        yield from _numbered(at, f"{theirs}.{j}")


def _tv_mobilenet_v3(model: Network) -> Rules:
    def features() -> Walk:
        for i, (row, layer) in enumerate(model.body.layers()):
            ours, theirs = rf"body\.{row}", f"features.{i}"
            if isinstance(layer, Stack):
                yield from _tv_block(ours, layer, f"{theirs}.block")
            else:
                yield from _numbered(ours, theirs)

    return (*features(), (r"head\.fc\.linear", "classifier.0"), _head("classifier.3"))


def _tv_efficientnet(model: Network) -> Rules:
    def features() -> Walk:
        for i, (row, layer) in enumerate(model.body.layers()):
            ours, theirs = rf"body\.{row}", f"features.{i}"
            if isinstance(layer, Stack):
                yield from _tv_block(
                    rf"{ours}\.block(\d+)", _layers(layer)["block0"], rf"{theirs}.\1.block"
                )
            else:
                yield from _numbered(ours, theirs)

    return (*features(), _head("classifier.1"))


def _tv_mnasnet(_model: Network) -> Rules:
    """Each convolution, norm and ReLU has a number; the first stage lies flat in the network."""
    first = r"body\.stage1\.block0\."

    def blocks() -> Walk:
        for stage in range(2, 8):
            ours, theirs = rf"body\.stage{stage}\.block(\d+)", rf"layers.{stage + 6}.\1.layers"
            for row, j in ("expand", 0), ("depthwise", 3), ("project", 6):
                yield from _unit(rf"{ours}\.{row}", f"{theirs}.{j}", f"{theirs}.{j + 1}")

    return (
        *_unit(r"body\.stem", "layers.0", "layers.1"),
        *_unit(first + "depthwise", "layers.3", "layers.4"),
        *_unit(first + "project", "layers.6", "layers.7"),
        *blocks(),
        *_unit(r"body\.last", "layers.14", "layers.15"),
        _head("classifier.1"),
    )


def _tv_regnet(_model: Network) -> Rules:
    ours, theirs = r"body\.stage(\d)\.block(\d+)\.", r"trunk_output.block\1.block\1-\2."
    return (
        *_numbered(r"body\.stem", "stem"),
        *_numbered(ours + "conv1", theirs + "f.a"),
        *_numbered(ours + "conv2", theirs + "f.b"),
        *_squeeze(ours + "squeeze", theirs + "f.se.fc1", theirs + "f.se.fc2"),
        *_numbered(ours + "conv3", theirs + "f.c"),
        *_numbered(ours + "shortcut", theirs + "proj"),
        _head("fc"),
    )


def _tv_convnext(model: Network) -> Rules:
    """The stem, the stages and what halves the image before them are numbered alike."""

    def features() -> Walk:
        for i, row in enumerate(model.body.order):
            if row.startswith("stage"):
                ours, theirs = rf"body\.{row}\.block(\d+)\.", rf"features.{i}.\1"
                yield ours + "layerscale", theirs
                yield ours + r"depthwise\.conv", f"{theirs}.block.0"
                yield ours + r"norm\.norm", f"{theirs}.block.2"
                yield ours + r"expand\.linear", f"{theirs}.block.3"
                yield ours + r"project\.linear", f"{theirs}.block.5"
            else:
                for j, name in enumerate(getattr(model.body, row).order):
                    yield rf"body\.{row}\.{name}\.(?:conv|norm)", f"features.{i}.{j}"

    return (*features(), (r"head\.norm\.norm", "classifier.0"), _head("classifier.2"))


# --- timm ----------------------------------------------------------------------------------------


def _timm_vgg(model: Network) -> Rules:
    return (
        *_vgg_features(model),
        (r"head\.(fc1|fc2)\.linear", r"pre_logits.\1"),
        _head("head.fc"),
    )


def _timm_inception_v4(model: Network) -> Rules:
    """Modules of all kinds are numbered alike."""

    def modules() -> Iterator[tuple[str, Any]]:
        for row, layer in model.body.layers():
            if isinstance(layer, Stack):
                yield from ((rf"{row}\.{name}", block) for name, block in layer.layers())
            else:
                yield row, layer

    def features() -> Walk:
        for i, (row, layer) in enumerate(modules()):
            ours, theirs = rf"body\.{row}", f"features.{i}"
            if row in ("mixed3a", "mixed5a"):  # one convolution beside a pool
                yield from _named(rf"{ours}\.conv3x3\.conv", f"{theirs}.conv")
            elif isinstance(layer, Concat):
                yield from _branches(ours, layer, theirs)
            else:
                yield from _named(ours, theirs)

    return (*features(), _head("last_linear"))


def _timm_inception_resnet_v2(model: Network) -> Rules:
    body = _layers(model.body)

    def blocks() -> Walk:
        *_, last = body["resnet_c"].order
        for ours, block, theirs in (
            ("resnet_a", r"block(\d+)", r"repeat.\1"),
            ("resnet_b", r"block(\d+)", r"repeat_1.\1"),
            ("resnet_c", last, "block8"),
            ("resnet_c", r"block(\d+)", r"repeat_2.\1"),
        ):
            at, first = rf"body\.{ours}\.{block}", _layers(body[ours])["block0"]
            yield from _branches(rf"{at}\.branches", first.branches, theirs)
            yield rf"{at}\.conv\.conv", f"{theirs}.conv2d"

    return (
        *_named(r"body\.conv(..)", r"conv2d_\1"),
        *_branches(r"body\.mixed5b", body["mixed5b"], "mixed_5b"),
        *_branches(r"body\.reduction_a", body["reduction_a"], "mixed_6a"),
        *_branches(r"body\.reduction_b", body["reduction_b"], "mixed_7a"),
        *blocks(),
        _head("classif"),
    )


def _timm_xception(model: Network) -> Rules:
    """legacy_xception: twelve blocks, in which ReLUs, convolutions and norms are numbered."""

    def blocks() -> Walk:
        body = _layers(model.body)
        middle = {rf"middle\.{name}": block for name, block in body["middle"].layers()}
        rows = {**body, **middle}
        entry = ("entry1", "entry2", "entry3")
        for i, row in enumerate((*entry, *middle, "exit"), 1):
            ours, theirs, position = rf"body\.{row}", f"block{i}", 0
            yield from _unit(rf"{ours}\.shortcut", f"{theirs}.skip", f"{theirs}.skipbn")
            for name, layer in rows[row].layers():
                if not isinstance(layer, Stack):  # a ReLU
                    position += 1
                    continue
                at, norm = f"{theirs}.rep.{position}", f"{theirs}.rep.{position + 1}"
                yield rf"{ours}\.{name}\.depthwise\.conv", f"{at}.conv1"
                yield from _unit(rf"{ours}\.{name}\.pointwise", f"{at}.pointwise", norm)
                position += 2

    return (
        *_unit(r"body\.conv(1|2)", r"conv\1", r"bn\1"),
        *blocks(),
        (r"body\.conv(3|4)\.depthwise\.conv", r"conv\1.conv1"),
        *_unit(r"body\.conv(3|4)\.pointwise", r"conv\1.pointwise", r"bn\1"),
        _head("fc"),
    )


def _timm_resnet_d(model: Network) -> Rules:
    """Three convolutions before the norm "bn1", and a pool before that of a shortcut."""
    shortcut = r"body\.stage(\d)\.block(\d+)\.shortcut(?:\.conv)?"
    return (
        *_unit(r"body\.stem\.conv1", "conv1.0", "conv1.1"),
        *_unit(r"body\.stem\.conv2", "conv1.3", "conv1.4"),
        *_unit(r"body\.stem\.conv3", "conv1.6", "bn1"),
        *_unit(shortcut, r"layer\1.\2.downsample.1", r"layer\1.\2.downsample.2"),
        *_resnet(model),
    )


# rows of our blocks, but for squeeze-excite -> their convolutions; norms are bn1, bn2, bn3
_TIMM_BLOCKS = {
    ("depthwise", "pointwise"): ("conv_dw", "conv_pw"),
    ("depthwise", "project"): ("conv_dw", "conv_pw"),
    ("expand", "depthwise", "project"): ("conv_pw", "conv_dw", "conv_pwl"),
    ("expand", "project"): ("conv_exp", "conv_pwl"),
    ("conv",): ("conv",),
}


def _timm_blocks(model: Network) -> Iterator[tuple[str, str, Stack]]:
    """Pattern, name and layer of each block, or of all blocks of a stage at once.

    Where our table is of blocks, not of stages, timm's stages are the runs of one width.
    """
    layers = zip(model.body.layers(), model.body.widths, strict=True)
    rows = [(name, layer, width) for (name, layer), width in layers if isinstance(layer, Stack)]
    if "block0" in rows[0][1].order:
        for stage, (name, layer, _) in enumerate(rows):
            yield rf"body\.{name}\.block(\d+)", rf"blocks.{stage}.\1", _layers(layer)["block0"]
    else:
        for stage, (_, run) in enumerate(groupby(rows, key=lambda row: row[2])):
            for i, (name, layer, _) in enumerate(run):
                yield rf"body\.{name}", f"blocks.{stage}.{i}", layer


def _timm_features(model: Network) -> Walk:
    """The stem and the blocks of everything that descends from MobileNet."""
    yield from _unit(rf"body\.{model.body.order[0]}", "conv_stem", "bn1")
    for ours, theirs, block in _timm_blocks(model):
        rows = tuple(row for row in block.order if row != "squeeze")
        for i, (row, conv) in enumerate(zip(rows, _TIMM_BLOCKS[rows], strict=True), 1):
            yield from _unit(rf"{ours}\.{row}", f"{theirs}.{conv}", f"{theirs}.bn{i}")
        at = rf"{ours}\.squeeze"
        yield from _squeeze(at, f"{theirs}.se.conv_reduce", f"{theirs}.se.conv_expand")


def _timm_mobilenet(model: Network) -> Rules:
    last = rf"body\.{model.body.order[-1]}"  # MobileNet v1 ends with a block
    return (*_timm_features(model), *_unit(last, "conv_head", "bn2"), _head("classifier"))


def _timm_mobilenet_v3(model: Network) -> Rules:
    """The last convolution of the table is a stage of its own, the Dense a convolution."""
    *_, (_, block, _) = _timm_blocks(model)  # blocks.STAGE.BLOCK
    last = f"blocks.{int(block.split('.')[1]) + 1}.0"
    return (
        *_timm_features(model),
        *_unit(r"body\.last", f"{last}.conv", f"{last}.bn1"),
        (r"head\.fc\.linear", "conv_head"),
        _head("classifier"),
    )


def _timm_regnet(_model: Network) -> Rules:
    """Blocks count from 1 there."""

    def block(leaf: str) -> Callable[[Match], str]:
        return lambda at: f"s{at[1]}.b{int(at[2]) + 1}." + at.expand(leaf)

    ours = r"body\.stage(\d)\.block(\d+)\."
    return (
        *_named(r"body\.stem", "stem"),
        (ours + r"(conv\d)\.conv", block(r"\3.conv")),
        (ours + r"(conv\d)\.norm", block(r"\3.bn")),
        (ours + r"squeeze\.reduce\.conv", block("se.fc1")),
        (ours + r"squeeze\.expand\.conv", block("se.fc2")),
        (ours + r"shortcut\.conv", block("downsample.conv")),
        (ours + r"shortcut\.norm", block("downsample.bn")),
        _head("head.fc"),
    )


def _timm_convnext(_model: Network) -> Rules:
    def stages() -> Walk:
        for i in range(4):
            ours, theirs = rf"body\.stage{i + 1}\.block(\d+)\.", rf"stages.{i}.blocks.\1"
            yield ours + "layerscale", theirs
            yield ours + r"depthwise\.conv", f"{theirs}.conv_dw"
            yield ours + r"norm\.norm", f"{theirs}.norm"
            yield ours + r"expand\.linear", f"{theirs}.mlp.fc1"
            yield ours + r"project\.linear", f"{theirs}.mlp.fc2"
            yield rf"body\.down{i + 1}\.norm\.norm", f"stages.{i}.downsample.0"
            yield rf"body\.down{i + 1}\.conv\.conv", f"stages.{i}.downsample.1"

    return (
        (r"body\.stem\.conv\.conv", "stem.0"),
        (r"body\.stem\.norm\.norm", "stem.1"),
        *stages(),
        (r"head\.norm\.norm", "head.norm"),
        _head("head.fc"),
    )


# --- arrays --------------------------------------------------------------------------------------


def _from_torch(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """OIHW -> HWIO; [out, in] -> [in, out], a flattened CHW input reordered to HWC.

    What is fully connected here may be a convolution of the whole map there, and a factor for each
    channel may be [C, 1, 1]. An array of another shape comes back with one that does not fit.
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


def _to_torch(
    path: str, array: np.ndarray, model: Network, *, as_conv: Mapping[str, str], factor: Shape
) -> np.ndarray:
    """The inverse of `_from_torch`.

    Args:
      path, array, model: our path, our array, the network that has them.
      as_conv: by family, the pattern of fully connected layers that are convolutions there.
      factor: the shape that a factor for each channel has there.
    """
    if path.endswith("linear.kernel"):
        side, out = _flattened_side(path, model), array.shape[1]
        array = array.reshape(side, side, -1, out).transpose(3, 2, 0, 1)
        layer, family = path.removesuffix(".linear.kernel"), find(model.spec.name).family
        return array if re.fullmatch(as_conv.get(family, "$^"), layer) else array.reshape(out, -1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.reshape(factor) if path.endswith("layerscale.gamma") else array


def _flattened_side(path: str, model: Network) -> int:
    """Height and width of the map that a fully connected kernel sees flattened; else 1."""
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


def _rename(_model: Network, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The oldest files, DenseNet's, have "denselayer1.norm.1" where newer have "norm1"."""
    dotted = re.compile(r"(features\.denseblock\d\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {dotted.sub(r"\1\2", name): array for name, array in arrays.items()}


# --- the layouts ---------------------------------------------------------------------------------

_COMMON: dict[str, Callable[[Network], Rules]] = {
    "resnet": _resnet,
    "resnext": _resnet,
    "wide_resnet": _resnet,
    "densenet": _densenet,
    "inception_v3": _inception_v3,
}

_LEAVES = {
    "conv.kernel": "weight",
    "norm.scale": "weight",
    "norm.mean": "running_mean",
    "norm.var": "running_var",
    "linear.kernel": "weight",
}

TORCHVISION = Layout(
    name="torchvision",
    rules=_COMMON
    | {
        "alexnet": _tv_alexnet,
        "convnext": _tv_convnext,
        "efficientnet": _tv_efficientnet,
        "efficientnet_v2": _tv_efficientnet,
        "inception_v1": _tv_inception_v1,
        "mnasnet": _tv_mnasnet,
        "mobilenet_v2": _tv_mobilenet_v2,
        "mobilenet_v3": _tv_mobilenet_v3,
        "regnet": _tv_regnet,
        "shufflenet_v2": _tv_shufflenet_v2,
        "squeezenet": _tv_squeezenet,
        "vgg": _tv_vgg,
    },
    leaves=_LEAVES | {"layerscale.gamma": "layer_scale"},
    join=".",
    arrange=_from_torch,
    restore=partial(_to_torch, as_conv={"squeezenet": "classifier"}, factor=(-1, 1, 1)),
    ignored=r".*\.num_batches_tracked",
    rename=_rename,
    # The variants' own numerics are torchvision's. The two Inceptions make this preprocessing of
    # ImageNet's themselves (`transform_input`).
    preprocess=dict.fromkeys(("efficientnet_v2_l", "inception_v1", "inception_v3"), INCEPTION),
)

_INCEPTION = replace(TORCH, bn_epsilon=1e-3)
TIMM = Layout(
    name="timm",
    rules=_COMMON
    | {
        "convnext": _timm_convnext,
        "efficientnet": _timm_mobilenet,
        "efficientnet_v2": _timm_mobilenet,
        "inception_resnet_v2": _timm_inception_resnet_v2,
        "inception_v4": _timm_inception_v4,
        "mnasnet": _timm_mobilenet,
        "mobilenet_v1": _timm_mobilenet,
        "mobilenet_v2": _timm_mobilenet,
        "mobilenet_v3": _timm_mobilenet_v3,
        "regnet": _timm_regnet,
        "resnet_d": _timm_resnet_d,
        "seresnet": _resnet,
        "vgg": _timm_vgg,
        "xception": _timm_xception,
    },
    leaves=_LEAVES,
    join=".",
    arrange=_from_torch,
    restore=partial(
        _to_torch, as_conv={"mobilenet_v3": r"head\.fc", "vgg": r"head\.fc[12]"}, factor=(-1,)
    ),
    ignored=r".*\.num_batches_tracked",
    rename=_rename,
    # Weights that timm took from TensorFlow, tf_*, need `TF` instead.
    numerics={
        "*": TORCH,
        "inception_v3": _INCEPTION,
        "inception_v4": replace(_INCEPTION, avg_pool_counts_padding=False),
        "inception_resnet_v2": replace(_INCEPTION, avg_pool_counts_padding=False),
    },
    preprocess=dict.fromkeys(
        ("inception_resnet_v2", "inception_v3", "inception_v4", "mobilenet_v1", "xception"),
        INCEPTION,
    ),
)
