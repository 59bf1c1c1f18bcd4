"""The names of timm.

https://github.com/huggingface/pytorch-image-models/tree/main/timm/models
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from typing import Any

from ...context import TF, TORCH
from ...layers import Concat, Network, Stack
from ...preprocess import INCEPTION
from .base import Layout, Rules
from .slim import nasnet_cells
from .torch import (
    COMMON,
    LEAVES,
    Match,
    Walk,
    branches,
    from_torch,
    head,
    layers_of,
    named,
    rename,
    resnet,
    squeeze,
    to_torch,
    unit,
    vgg_features,
)


def _vgg(model: Network) -> Rules:
    return (
        *vgg_features(model),
        (r"head\.(fc1|fc2)\.linear", r"pre_logits.\1"),
        head("head.fc"),
    )


def _inception_v4(model: Network) -> Rules:
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
                yield from named(rf"{ours}\.conv3x3\.conv", f"{theirs}.conv")
            elif isinstance(layer, Concat):
                yield from branches(ours, layer, theirs)
            else:
                yield from named(ours, theirs)

    return (*features(), head("last_linear"))


def _inception_resnet_v2(model: Network) -> Rules:
    body = layers_of(model.body)

    def blocks() -> Walk:
        *_, last = body["resnet_c"].order
        for ours, block, theirs in (
            ("resnet_a", r"block(\d+)", r"repeat.\1"),
            ("resnet_b", r"block(\d+)", r"repeat_1.\1"),
            ("resnet_c", last, "block8"),
            ("resnet_c", r"block(\d+)", r"repeat_2.\1"),
        ):
            at, first = rf"body\.{ours}\.{block}", layers_of(body[ours])["block0"]
            yield from branches(rf"{at}\.branches", first.branches, theirs)
            yield rf"{at}\.conv\.conv", f"{theirs}.conv2d"

    return (
        *named(r"body\.conv(..)", r"conv2d_\1"),
        *branches(r"body\.mixed5b", body["mixed5b"], "mixed_5b"),
        *branches(r"body\.reduction_a", body["reduction_a"], "mixed_6a"),
        *branches(r"body\.reduction_b", body["reduction_b"], "mixed_7a"),
        *blocks(),
        head("classif"),
    )


def _xception(model: Network) -> Rules:
    """legacy_xception: twelve blocks, in which ReLUs, convolutions and norms are numbered."""

    def blocks() -> Walk:
        body = layers_of(model.body)
        middle = {rf"middle\.{name}": block for name, block in body["middle"].layers()}
        rows = {**body, **middle}
        entry = ("entry1", "entry2", "entry3")
        for i, row in enumerate((*entry, *middle, "exit"), 1):
            ours, theirs, position = rf"body\.{row}", f"block{i}", 0
            yield from unit(rf"{ours}\.shortcut", f"{theirs}.skip", f"{theirs}.skipbn")
            for name, layer in rows[row].layers():
                if not isinstance(layer, Stack):  # a ReLU
                    position += 1
                    continue
                at, norm = f"{theirs}.rep.{position}", f"{theirs}.rep.{position + 1}"
                yield rf"{ours}\.{name}\.depthwise\.conv", f"{at}.conv1"
                yield from unit(rf"{ours}\.{name}\.pointwise", f"{at}.pointwise", norm)
                position += 2

    return (
        *unit(r"body\.conv(1|2)", r"conv\1", r"bn\1"),
        *blocks(),
        (r"body\.conv(3|4)\.depthwise\.conv", r"conv\1.conv1"),
        *unit(r"body\.conv(3|4)\.pointwise", r"conv\1.pointwise", r"bn\1"),
        head("fc"),
    )


def _resnet(model: Network) -> Rules:
    """A stem may have three convolutions before the norm "bn1"; all shortcuts a pool at first."""
    at, theirs = r"body\.stage(\d)\.block(\d+)\.shortcut", r"layer\1.\2.downsample"
    *_, last = layers_of(model.body).values()
    averages = isinstance(layers_of(last)["block0"].shortcut, Stack)
    return (
        *unit(r"body\.stem\.conv1", "conv1.0", "conv1.1"),
        *unit(r"body\.stem\.conv2", "conv1.3", "conv1.4"),
        *unit(r"body\.stem\.conv3", "conv1.6", "bn1"),
        *(unit(at + r"(?:\.conv)?", f"{theirs}.1", f"{theirs}.2") if averages else ()),
        *resnet(model),
    )


def _resnetv2(_model: Network) -> Rules:
    """Norms count from that before the first convolution; the classifier is a convolution."""
    at = r"body\.stage(\d)\.block(\d+)\."

    def block(leaf: str, add: int = 0) -> Callable[[Match], str]:
        def name(m: Match) -> str:
            number = str(int(m[3]) + add) if m.re.groups > 2 else ""
            return f"stages.{int(m[1]) - 1}.blocks.{m[2]}.{leaf}{number}"

        return name

    return (
        (r"body\.stem\.conv", "stem.conv"),
        (r"body\.stem\.(conv\d)\.conv", r"stem.\1"),
        (r"body\.stem\.conv(\d)\.norm", r"stem.norm\1"),
        (at + r"preact\.norm", block("norm1")),
        (at + r"conv(\d)\.conv", block("conv")),
        (at + r"conv(\d)\.norm", block("norm", add=1)),
        (at + r"projection(?:\.conv)?\.conv", block("downsample.conv")),
        (r"body\.postact\.norm", "norm"),
        head("head.fc"),
    )


# rows of our blocks, but for squeeze-excite -> their convolutions; norms are bn1, bn2, bn3
_BLOCKS = {
    ("depthwise", "pointwise"): ("conv_dw", "conv_pw"),
    ("depthwise", "project"): ("conv_dw", "conv_pw"),
    ("expand", "depthwise", "project"): ("conv_pw", "conv_dw", "conv_pwl"),
    ("expand", "project"): ("conv_exp", "conv_pwl"),
    ("conv",): ("conv",),
}


# blocks of MobileNet v3's stages, by how many there are in all: half as wide, two are of one width
_V3_STAGES = {15: (1, 2, 3, 4, 2, 3), 11: (1, 2, 3, 2, 3)}


def _blocks(model: Network) -> Iterator[tuple[str, str, Stack]]:
    """Pattern, name and layer of each block, or of all blocks of a stage at once.

    Where our table is of blocks, not of stages, timm's stages are the runs of one width.
    """
    layers = zip(model.body.layers(), model.body.widths, strict=True)
    rows = [(name, layer, width) for (name, layer), width in layers if isinstance(layer, Stack)]
    if "block0" in rows[0][1].order:
        for stage, (name, layer, _) in enumerate(rows):
            yield rf"body\.{name}\.block(\d+)", rf"blocks.{stage}.\1", layers_of(layer)["block0"]
    else:
        runs = (len(list(run)) for _, run in groupby(rows, key=lambda row: row[2]))
        blocks = iter(rows)
        for stage, depth in enumerate(_V3_STAGES.get(len(rows)) or runs):
            for i, (name, layer, _) in enumerate(islice(blocks, depth)):
                yield rf"body\.{name}", f"blocks.{stage}.{i}", layer


def _features(model: Network) -> Walk:
    """The stem and the blocks of everything that descends from MobileNet."""
    yield from unit(rf"body\.{model.body.order[0]}", "conv_stem", "bn1")
    for ours, theirs, block in _blocks(model):
        rows = tuple(row for row in block.order if row != "squeeze")
        for i, (row, conv) in enumerate(zip(rows, _BLOCKS[rows], strict=True), 1):
            yield from unit(rf"{ours}\.{row}", f"{theirs}.{conv}", f"{theirs}.bn{i}")
        at = rf"{ours}\.squeeze"
        yield from squeeze(at, f"{theirs}.se.conv_reduce", f"{theirs}.se.conv_expand")


def _mobilenet(model: Network) -> Rules:
    last = rf"body\.{model.body.order[-1]}"  # MobileNet v1 ends with a block
    return (*_features(model), *unit(last, "conv_head", "bn2"), head("classifier"))


def _mobilenet_v3(model: Network) -> Rules:
    """The last convolution of the table is a stage of its own, the Dense a convolution."""
    *_, (_, block, _) = _blocks(model)  # blocks.STAGE.BLOCK
    last = f"blocks.{int(block.split('.')[1]) + 1}.0"
    return (
        *_features(model),
        *unit(r"body\.last", f"{last}.conv", f"{last}.bn1"),
        (r"head\.fc\.linear", "conv_head"),
        head("classifier"),
    )


def _mobilenet_v4(_model: Network) -> Rules:
    """Stages count from 0 there; the last convolution of the table is one more."""

    def block(conv: str, norm: str) -> Callable[[Match], str]:
        leaf = dict(conv=conv, norm=norm)
        return lambda at: f"blocks.{int(at[1]) - 1}.{at[2]}.{leaf[at[3]]}"

    at = r"body\.stage(\d)\.block(\d+)\."
    rows = dict(dw1="dw_start", expand="pw_exp", dw2="dw_mid", project="pw_proj")
    return (
        *unit(r"body\.stem", "conv_stem", "bn1"),
        (at + "(conv|norm)", block("conv", "bn1")),
        (at + r"fused\.(conv|norm)", block("conv_exp", "bn1")),
        (at + r"linear\.(conv|norm)", block("conv_pwl", "bn2")),
        *(
            (at + rf"{ours}\.(conv|norm)", block(f"{theirs}.conv", f"{theirs}.bn"))
            for ours, theirs in rows.items()
        ),
        *unit(r"body\.last", "blocks.4.0.conv", "blocks.4.0.bn1"),
        *unit(r"head\.conv", "conv_head", "norm_head"),
        head("classifier"),
    )


def _regnet(_model: Network) -> Rules:
    """Blocks count from 1 there."""

    def block(leaf: str) -> Callable[[Match], str]:
        return lambda at: f"s{at[1]}.b{int(at[2]) + 1}." + at.expand(leaf)

    ours = r"body\.stage(\d)\.block(\d+)\."
    return (
        *named(r"body\.stem", "stem"),
        (ours + r"(conv\d)\.conv", block(r"\3.conv")),
        (ours + r"(conv\d)\.norm", block(r"\3.bn")),
        (ours + r"squeeze\.reduce\.conv", block("se.fc1")),
        (ours + r"squeeze\.expand\.conv", block("se.fc2")),
        (ours + r"shortcut\.conv", block("downsample.conv")),
        (ours + r"shortcut\.norm", block("downsample.bn")),
        head("head.fc"),
    )


def _convnext(_model: Network) -> Rules:
    def stages() -> Walk:
        for i in range(4):
            ours, theirs = rf"body\.stage{i + 1}\.block(\d+)\.", rf"stages.{i}.blocks.\1"
            yield ours + "layerscale", theirs
            yield ours + r"depthwise\.conv", f"{theirs}.conv_dw"
            yield ours + r"norm\.norm", f"{theirs}.norm"
            yield ours + r"expand\.linear", f"{theirs}.mlp.fc1"
            yield ours + "grn", f"{theirs}.mlp.grn"
            yield ours + r"project\.linear", f"{theirs}.mlp.fc2"
            yield rf"body\.down{i + 1}\.norm\.norm", f"stages.{i}.downsample.0"
            yield rf"body\.down{i + 1}\.conv\.conv", f"stages.{i}.downsample.1"

    return (
        (r"body\.stem\.conv\.conv", "stem.0"),
        (r"body\.stem\.norm\.norm", "stem.1"),
        *stages(),
        (r"head\.norm\.norm", "head.norm"),
        head("head.fc"),
    )


def _nasnet(model: Network) -> Rules:
    """NASNet-A and PNASNet-5, whose cells are called as slim's."""
    cells, progressive = nasnet_cells(model), model.spec.name.startswith("pnas")
    at, halved = r"body\.(\w+)\.", "conv_prev_1x1." if progressive else ""
    sum_, comb = at + r"(left|right)(\d)\.", r"comb_iter_\3_\2."

    def cell(theirs: str) -> Callable[[Match], str]:
        return lambda m: f"{cells[m[1]]}." + m.expand(theirs)

    def preact(ours: str, theirs: str) -> Walk:
        yield rf"{ours}\.conv", cell(f"{theirs}conv")
        yield rf"{ours}\.norm", cell(f"{theirs}bn")

    return (
        *named(r"body\.stem", "conv_0" if progressive else "conv0"),
        *preact(at + r"h\.conv", "conv_1x1."),
        *preact(at + r"p\.conv", "conv_prev_1x1."),
        (at + r"p\.paths\.path(\d)\.conv\.conv", cell(halved + r"path_\2.conv")),
        (at + r"p\.norm", cell(f"{halved}final_path_bn")),
        *preact(sum_ + "conv", comb),
        (sum_ + r"conv(\d)\.(\w+)\.conv", cell(comb + r"separable_\4.\5_conv2d")),
        (sum_ + r"conv(\d)\.\w+\.norm", cell(comb + r"bn_sep_\4")),
        head("last_linear"),
    )


_MLP_OF_CONVS = tuple(
    f"{name}_{size}"
    for name in ("convnext", "convnextv2")
    for size in ("atto", "femto", "pico", "nano")
)
_INCEPTION = replace(TORCH, bn_epsilon=1e-3)
TIMM = Layout(
    name="timm",
    rules=COMMON
    | {
        "convnext": _convnext,
        "convnext_v2": _convnext,
        "efficientnet": _mobilenet,
        "efficientnet_lite": _mobilenet,
        "efficientnet_v2": _mobilenet,
        "inception_resnet_v2": _inception_resnet_v2,
        "inception_v4": _inception_v4,
        "mnasnet": _mobilenet,
        "mobilenet_v1": _mobilenet,
        "mobilenet_v2": _mobilenet,
        "mobilenet_v3": _mobilenet_v3,
        "mobilenet_v4": _mobilenet_v4,
        "nasnet": _nasnet,
        "regnet": _regnet,
        "resnet_d": _resnet,
        "resnet_preact": _resnetv2,
        "seresnet": _resnet,
        "vgg": _vgg,
        "xception": _xception,
    },
    leaves=LEAVES | {"grn.scale": "weight"},
    join=".",
    arrange=from_torch,
    restore=partial(
        to_torch,
        as_conv={
            "mobilenet_v3": r"head\.fc",
            "resnet_preact": "classifier",
            "vgg": r"head\.fc[12]",
            **dict.fromkeys(_MLP_OF_CONVS, r".*\.(?:expand|project)"),
        },
        factor=(-1,),
    ),
    ignored=r".*\.num_batches_tracked",
    rename=rename,
    # Weights that timm took from TensorFlow, tf_*, need `TF` instead.
    numerics={
        "*": TORCH,
        "inception_v3": _INCEPTION,
        "inception_v4": replace(_INCEPTION, avg_pool_counts_padding=False),
        "inception_resnet_v2": replace(_INCEPTION, avg_pool_counts_padding=False),
        "nasnet": replace(TF, bn_momentum=0.9, avg_pool_counts_padding=True),
    },
    preprocess=dict.fromkeys(
        (
            "inception_resnet_v2",
            "inception_v3",
            "inception_v4",
            "mobilenet_v1",
            "nasnet",
            "xception",
        ),
        INCEPTION,
    ),
)
