"""The names of torchvision.

https://github.com/pytorch/vision/tree/main/torchvision/models
"""

from functools import partial

from ...layers import Network, Stack
from ...preprocess import INCEPTION
from .base import Layout, Rules
from .torch import (
    COMMON,
    LEAVES,
    Walk,
    branches,
    from_torch,
    head,
    layers_of,
    named,
    numbered,
    rename,
    squeeze,
    to_torch,
    unit,
    vgg_features,
)


def _alexnet(_model: Network) -> Rules:
    return (
        (r"body\.conv1\.conv\.conv", "features.0"),
        (r"body\.conv2\.conv", "features.3"),
        (r"body\.conv3\.conv", "features.6"),
        (r"body\.conv4\.conv", "features.8"),
        (r"body\.conv5\.conv", "features.10"),
        (r"head\.fc6\.linear", "classifier.1"),
        (r"head\.fc7\.linear", "classifier.4"),
        head("classifier.6"),
    )


def _vgg(model: Network) -> Rules:
    fc1, fc2 = (r"head\.fc1\.linear", "classifier.0"), (r"head\.fc2\.linear", "classifier.3")
    return (*vgg_features(model), fc1, fc2, head("classifier.6"))


def _inception_v1(model: Network) -> Rules:
    def auxiliary() -> Walk:
        for ours, theirs in ("aux_mixed4a", "aux1"), ("aux_mixed4d", "aux2"):
            yield from named(rf"{ours}\.head\.conv", f"{theirs}.conv")
            yield rf"{ours}\.head\.fc\.linear", f"{theirs}.fc1"
            yield rf"{ours}\.classifier\.linear", f"{theirs}.fc2"

    return (
        *named(r"body\.conv(\d)", r"conv\1"),
        *branches(r"body\.mixed(\d.)", layers_of(model.body)["mixed3a"], r"inception\1", first=1),
        *auxiliary(),
        head("fc"),
    )


def _squeezenet(model: Network) -> Rules:
    def features() -> Walk:
        for i, row in enumerate(model.body.order):
            ours, theirs = rf"body\.{row}", f"features.{i + 1}"  # the stem's ReLU counts
            yield rf"{ours}\.squeeze\.conv", f"{theirs}.squeeze"
            yield rf"{ours}\.expand\.(expand.x.)\.conv\.conv", rf"{theirs}.\1"

    return ((r"body\.conv1\.conv", "features.0"), *features(), head("classifier.1"))


def _shufflenet_v2(_model: Network) -> Rules:
    left, right = (
        rf"body\.stage(\d)\.block(\d+)\.branches\.{side}" for side in (r"left\.", r"(?:right\.)?")
    )
    theirs = r"stage\1.\2.branch"
    return (
        *numbered(r"body\.conv(1|5)", r"conv\1"),
        *unit(left + "depthwise", f"{theirs}1.0", f"{theirs}1.1"),
        *unit(left + "conv", f"{theirs}1.2", f"{theirs}1.3"),
        *unit(right + "conv1", f"{theirs}2.0", f"{theirs}2.1"),
        *unit(right + "depthwise", f"{theirs}2.3", f"{theirs}2.4"),
        *unit(right + "conv2", f"{theirs}2.5", f"{theirs}2.6"),
        head("fc"),
    )


def _mobilenet_v2(model: Network) -> Rules:
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
                yield from numbered(rf"{ours}\.{row}", f"{theirs}.{j}")
            yield from unit(rf"{ours}\.{last}", f"{theirs}.{n}", f"{theirs}.{n + 1}")
        yield from numbered(r"body\.last", f"features.{len(blocks) + 1}")

    return (*numbered(r"body\.stem", "features.0"), *features(), head("classifier.1"))


def _block(ours: str, block: Stack, theirs: str) -> Walk:
    """An inverted residual: its rows are numbered."""
    for j, row in enumerate(block.order):
        at = rf"{ours}\.{row}"
        yield from squeeze(at, f"{theirs}.{j}.fc1", f"{theirs}.{j}.fc2")
        yield from numbered(at, f"{theirs}.{j}")


def _mobilenet_v3(model: Network) -> Rules:
    def features() -> Walk:
        for i, (row, layer) in enumerate(model.body.layers()):
            ours, theirs = rf"body\.{row}", f"features.{i}"
            if isinstance(layer, Stack):
                yield from _block(ours, layer, f"{theirs}.block")
            else:
                yield from numbered(ours, theirs)

    return (*features(), (r"head\.fc\.linear", "classifier.0"), head("classifier.3"))


def _efficientnet(model: Network) -> Rules:
    def features() -> Walk:
        for i, (row, layer) in enumerate(model.body.layers()):
            ours, theirs = rf"body\.{row}", f"features.{i}"
            if isinstance(layer, Stack):
                yield from _block(
                    rf"{ours}\.block(\d+)", layers_of(layer)["block0"], rf"{theirs}.\1.block"
                )
            else:
                yield from numbered(ours, theirs)

    return (*features(), head("classifier.1"))


def _mnasnet(_model: Network) -> Rules:
    """Each convolution, norm and ReLU has a number; the first stage lies flat in the network."""
    first = r"body\.stage1\.block0\."

    def blocks() -> Walk:
        for stage in range(2, 8):
            ours, theirs = rf"body\.stage{stage}\.block(\d+)", rf"layers.{stage + 6}.\1.layers"
            for row, j in ("expand", 0), ("depthwise", 3), ("project", 6):
                yield from unit(rf"{ours}\.{row}", f"{theirs}.{j}", f"{theirs}.{j + 1}")

    return (
        *unit(r"body\.stem", "layers.0", "layers.1"),
        *unit(first + "depthwise", "layers.3", "layers.4"),
        *unit(first + "project", "layers.6", "layers.7"),
        *blocks(),
        *unit(r"body\.last", "layers.14", "layers.15"),
        head("classifier.1"),
    )


def _regnet(_model: Network) -> Rules:
    ours, theirs = r"body\.stage(\d)\.block(\d+)\.", r"trunk_output.block\1.block\1-\2."
    return (
        *numbered(r"body\.stem", "stem"),
        *numbered(ours + "conv1", theirs + "f.a"),
        *numbered(ours + "conv2", theirs + "f.b"),
        *squeeze(ours + "squeeze", theirs + "f.se.fc1", theirs + "f.se.fc2"),
        *numbered(ours + "conv3", theirs + "f.c"),
        *numbered(ours + "shortcut", theirs + "proj"),
        head("fc"),
    )


def _convnext(model: Network) -> Rules:
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

    return (*features(), (r"head\.norm\.norm", "classifier.0"), head("classifier.2"))


TORCHVISION = Layout(
    name="torchvision",
    rules=COMMON
    | {
        "alexnet": _alexnet,
        "convnext": _convnext,
        "efficientnet": _efficientnet,
        "efficientnet_v2": _efficientnet,
        "inception_v1": _inception_v1,
        "mnasnet": _mnasnet,
        "mobilenet_v2": _mobilenet_v2,
        "mobilenet_v3": _mobilenet_v3,
        "regnet": _regnet,
        "shufflenet_v2": _shufflenet_v2,
        "squeezenet": _squeezenet,
        "vgg": _vgg,
    },
    leaves=LEAVES | {"layerscale.gamma": "layer_scale"},
    join=".",
    arrange=from_torch,
    restore=partial(to_torch, as_conv={"squeezenet": "classifier"}, factor=(-1, 1, 1)),
    ignored=r".*\.num_batches_tracked",
    rename=rename,
    # The variants' own numerics are torchvision's. The two Inceptions make this preprocessing of
    # ImageNet's themselves (`transform_input`).
    preprocess=dict.fromkeys(("efficientnet_v2_l", "inception_v1", "inception_v3"), INCEPTION),
)
