"""The names of TF-Slim: https://github.com/tensorflow/models/tree/master/research/slim.

A convolution is `<scope>/<name>/weights`, its batch norm `<scope>/<name>/BatchNorm/...`. Fully
connected layers are convolutions as large as the map that they see. The Inceptions and MobileNets
have 1001 classes, the first of them the background.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from ... import preprocess
from ...context import TF, TORCH
from ...layers import Concat, Network, Pool
from ...preprocess import SLIM_VGG
from ...registry import find
from .base import Layout, Rules

# --- Inception -----------------------------------------------------------------------------------

# Slim names a convolution after its place in its branch and its kernel: Conv2d_0b_3x3 stands
# second and sees 3x3; Conv2d_1a_3x3 makes the image smaller. Where it does otherwise:
EXCEPTIONS = {
    "inception_v1": (("Mixed_5b/Branch_2/Conv2d_0b_3x3", "Mixed_5b/Branch_2/Conv2d_0a_3x3"),),
    "inception_v2": (),
    "inception_v3": (
        ("Mixed_5c/Branch_1/Conv2d_0a_1x1", "Mixed_5c/Branch_1/Conv2d_0b_1x1"),
        ("Mixed_5c/Branch_1/Conv2d_0b_5x5", "Mixed_5c/Branch_1/Conv_1_0c_5x5"),
        (r"Mixed_6a/(Branch_\d)/Conv2d_1a_3x3", r"Mixed_6a/\1/Conv2d_1a_1x1"),
        ("Mixed_7b/Branch_1/Conv2d_0c_3x1", "Mixed_7b/Branch_1/Conv2d_0b_3x1"),
    ),
    "inception_v4": (("Mixed_3a/Branch_1/Conv2d_1a_3x3", "Mixed_3a/Branch_1/Conv2d_0a_3x3"),),
    "inception_resnet_v2": (
        ("(Mixed_5b|Repeat.*|Block8)/Branch_0/Conv2d_0a_1x1", r"\1/Branch_0/Conv2d_1x1"),
    ),
}

Pairs = tuple[tuple[str, str], ...]  # (pattern of our module path, slim's name below the scope)

V3_STEM: Pairs = (
    (r"body\.conv(1a|2a|2b|4a)", r"Conv2d_\1_3x3"),
    (r"body\.conv3b", "Conv2d_3b_1x1"),
)
AUX: Pairs = (
    (r"aux_\w+\.head\.reduce", "AuxLogits/Conv2d_1b_1x1"),
    (r"aux_\w+\.head\.conv", "AuxLogits/Conv2d_2a_5x5"),
)


def _named(scope: str, *pairs: tuple[str, str]) -> Rules:
    return tuple((rf"{ours}\.\w+", f"{scope}/{theirs}") for ours, theirs in pairs)


def _modules(model: Network, *names: str) -> Pairs:
    """The body's Inception modules, in order, under slim's names for them."""

    def concats() -> Iterator[tuple[str, Concat]]:
        for stage, layer in model.body.layers():
            blocks = layer.layers() if hasattr(layer, "layers") else [("", layer)]
            for block, module in blocks:
                path = f"body.{stage}.{block}".rstrip(".")
                if hasattr(module, "branches"):  # of a residual block
                    path, module = f"{path}.branches", module.branches
                if isinstance(module, Concat):
                    yield path, module

    exceptions = EXCEPTIONS[model.spec.name]

    def convs() -> Iterator[tuple[str, str]]:
        for (path, module), name in zip(concats(), names, strict=True):
            for ours, theirs in _branches(module):
                full = f"{name}/{theirs}"
                for pattern, replacement in exceptions:
                    full = re.sub(f"^{pattern}$", replacement, full)
                yield re.escape(f"{path}.{ours}"), full

    return tuple(convs())


def _branches(module: Concat) -> Iterator[tuple[str, str]]:
    """Path of each convolution of an Inception module, and slim's name for it."""
    for i, branch in enumerate(module.order):
        places = iter("abcdef")
        for row, layer in getattr(module, branch).layers():
            if isinstance(layer, Concat):  # the two ends of a branch of Inception v3 and v4
                for side in layer.order:
                    conv = getattr(layer, side).conv.conv
                    name = f"Branch_{i}/Conv2d_0{next(places)}_{_kernel(conv)}"
                    yield f"{branch}.{row}.{side}.conv", name
                continue
            place = next(places)
            if isinstance(layer, Pool):
                continue
            smaller = layer.conv.stride > 1 or layer.conv.padding == "valid"
            at = "1a" if smaller else f"0{place}"
            yield f"{branch}.{row}", f"Branch_{i}/Conv2d_{at}_{_kernel(layer.conv)}"


def _kernel(conv: Any) -> str:
    height, width = conv.size
    return f"{height}x{width}"


def _mixed(*names: str) -> list[str]:
    """`_mixed("3bc", "4bcd")`: Mixed_3b, Mixed_3c, Mixed_4b, ..."""
    return [f"Mixed_{name[0]}{letter}" for name in names for letter in name[1:]]


def _inception_v1(model: Network) -> Rules:
    return _named(
        "InceptionV1",
        (r"body\.conv1", "Conv2d_1a_7x7"),
        (r"body\.conv2", "Conv2d_2b_1x1"),
        (r"body\.conv3", "Conv2d_2c_3x3"),
        *_modules(model, *_mixed("3bc", "4bcdef", "5bc")),
        ("classifier", "Logits/Conv2d_0c_1x1"),
    )


def _inception_v2(model: Network) -> Rules:
    return (
        (r"body\.conv1\.pointwise\.conv\.kernel", "InceptionV2/Conv2d_1a_7x7/pointwise_weights"),
        *_named(
            "InceptionV2",
            (r"body\.conv1\.(?:depthwise|pointwise)", "Conv2d_1a_7x7"),
            (r"body\.conv2", "Conv2d_2b_1x1"),
            (r"body\.conv3", "Conv2d_2c_3x3"),
            *_modules(model, *_mixed("3bc", "4abcde", "5abc")),
            ("classifier", "Logits/Conv2d_1c_1x1"),
        ),
    )


def _inception_v3(model: Network) -> Rules:
    return _named(
        "InceptionV3",
        *V3_STEM,
        *_modules(model, *_mixed("5bcd", "6abcde", "7abc")),
        *AUX,
        (r"aux_\w+\.classifier", "AuxLogits/Conv2d_2b_1x1"),
        ("classifier", "Logits/Conv2d_1c_1x1"),
    )


def _inception_v4(model: Network) -> Rules:
    return _named(
        "InceptionV4",
        *V3_STEM,
        *_modules(model, *_mixed("3a", "4a", "5abcde", "6abcdefgh", "7abcd")),
        AUX[0],
        (r"aux_\w+\.head\.conv", "AuxLogits/Conv2d_2a"),
        (r"aux_\w+\.classifier", "AuxLogits/Aux_logits"),
        ("classifier", "Logits/Logits"),
    )


def _inception_resnet_v2(model: Network) -> Rules:
    blocks = dict(
        resnet_a=[f"Repeat/block35_{i}" for i in range(1, 11)],
        resnet_b=[f"Repeat_1/block17_{i}" for i in range(1, 21)],
        resnet_c=[*(f"Repeat_2/block8_{i}" for i in range(1, 10)), "Block8"],
    )
    a, b, c = blocks.values()
    return _named(
        "InceptionResnetV2",
        *V3_STEM,
        *_modules(model, "Mixed_5b", *a, "Mixed_6a", *b, "Mixed_7a", *c),
        *(
            (rf"body\.{stage}\.block{i}\.conv", f"{name}/Conv2d_1x1")
            for stage, names in blocks.items()
            for i, name in enumerate(names)
        ),
        (r"body\.conv7b", "Conv2d_7b_1x1"),
        *AUX,
        (r"aux_\w+\.classifier", "AuxLogits/Logits"),
        ("classifier", "Logits/Logits"),
    )


# --- MobileNet -----------------------------------------------------------------------------------


def _mobilenet_v1(_model: Network) -> Rules:
    return _named(
        "MobilenetV1",
        (r"body\.stem", "Conv2d_0"),
        (r"body\.sep(\d+)\.(depthwise|pointwise)", r"Conv2d_\1_\2"),
        ("classifier", "Logits/Conv2d_1c_1x1"),
    )


def _expanded(i: int) -> str:
    return f"expanded_conv_{i}" if i else "expanded_conv"


def _mobilenet_v2(model: Network) -> Rules:
    blocks = [
        rf"body\.{stage}\.{block}\."
        for stage, layer in model.body.layers()
        if stage.startswith("stage")
        for block, _ in layer.layers()
    ]
    return _named(
        "MobilenetV2",
        (r"body\.stem", "Conv"),
        *((block + r"(\w+)", rf"{_expanded(i)}/\1") for i, block in enumerate(blocks)),
        (r"body\.last", "Conv_1"),
        ("classifier", "Logits/Conv2d_1c_1x1"),
    )


def _mobilenet_v3(model: Network) -> Rules:
    def blocks() -> Iterator[tuple[str, str]]:
        for i in range(len(model.body.order) - 2):
            block = rf"body\.bneck{i + 1}\."
            yield block + r"squeeze\.reduce", f"{_expanded(i)}/squeeze_excite/Conv"
            yield block + r"squeeze\.expand", f"{_expanded(i)}/squeeze_excite/Conv_1"
            yield block + r"(\w+)", rf"{_expanded(i)}/\1"

    return _named(
        "MobilenetV3",
        (r"body\.stem", "Conv"),
        *blocks(),
        (r"body\.last", "Conv_1"),
        (r"head\.fc", "Conv_2"),
        ("classifier", "Logits/Conv2d_1c_1x1"),
    )


# --- the others ----------------------------------------------------------------------------------


def _vgg(model: Network) -> Rules:
    return _named(
        model.spec.name.replace("vgg", "vgg_"),
        (r"body\.stage(\d)\.conv(\d)", r"conv\1/conv\1_\2"),
        (r"head\.fc1", "fc6"),
        (r"head\.fc2", "fc7"),
        ("classifier", "fc8"),
    )


def _alexnet(_model: Network) -> Rules:
    return _named(
        "alexnet_v2",
        (r"body\.(conv\d)", r"\1"),
        (r"head\.(fc[67])", r"\1"),
        ("classifier", "fc8"),
    )


def _resnet_v2(model: Network) -> Rules:
    def units() -> Iterator[tuple[str, str]]:
        for stage, layer in model.body.layers():
            if stage.startswith("stage"):
                for i, (block, _) in enumerate(layer.layers(), 1):
                    unit = f"block{stage[-1]}/unit_{i}/bottleneck_v2"
                    yield rf"body\.{stage}\.{block}\.projection", f"{unit}/shortcut"
                    yield rf"body\.{stage}\.{block}\.(\w+)", rf"{unit}/\1"

    return _named(
        model.spec.name.replace("resnet", "resnet_v2_").removesuffix("_v2"),
        (r"body\.stem", "conv1"),
        *units(),
        (r"body\.postact", "postnorm"),
        ("classifier", "logits"),
    )


def nasnet_cells(model: Network) -> dict[str, str]:
    """Our cells -> slim's and timm's: all but the stem's and NASNet-A's reductions are counted."""
    kinds = dict(stem="cell_stem_", reduction="reduction_cell_")
    count = itertools.count()

    def name(kind: str, number: str) -> str:
        return f"{kinds[kind]}{int(number) - 1}" if kind in kinds else f"cell_{next(count)}"

    cells = (re.fullmatch(r"([a-z]+)(\d.*)", row) for row in model.body.order)
    return {cell[0]: name(cell[1], cell[2]) for cell in cells if cell}


# Within a cell; a norm has a scope beside its convolution's. Groups count from 2: 1 is the cell.
_SUM = r"(left|right)(\d)\."
_CELL = (
    (r"h\.conv\.conv", "1x1/"),
    (r"h\.conv\.norm", "beginning_bn/"),
    (r"p\.conv\.conv", "prev_1x1/"),
    (r"p\.conv\.norm", "prev_bn/"),
    (r"p\.paths\.path(\d)\.conv\.conv", r"path\2_conv/"),
    (r"p\.norm", "final_path_bn/"),
    (_SUM + r"conv(\d)\.(\w+)\.conv", r"comb_iter_\3/\2/separable_KERNEL_\4/\5_"),
    (_SUM + r"conv(\d)\.\w+\.norm", r"comb_iter_\3/\2/bn_sep_KERNEL_\4/"),
    (_SUM + r"conv\.conv", r"comb_iter_\3/\2/1x1/"),
    (_SUM + r"conv\.norm", r"comb_iter_\3/\2/bn_1/"),
)
_CELL_AUX = (
    (r"head\.reduce\.conv", "proj/"),
    (r"head\.reduce\.norm", "aux_bn0/"),
    (r"head\.conv\.conv", "Conv/"),
    (r"head\.conv\.norm", "aux_bn1/"),
)


def _nasnet(model: Network) -> Rules:
    cells = nasnet_cells(model)
    aux = {cell: name.replace("cell", "aux") + "/aux_logits" for cell, name in cells.items()}
    leaves = dict(NORM, kernel="weights")

    def rule(scopes: dict[str, str], theirs: str) -> Callable[[re.Match[str]], str]:
        def name(m: re.Match[str]) -> str:
            name = m.expand(theirs)
            if "KERNEL" in name:
                conv = _layer(model, f"body.{m[1]}.{m[2]}{m[3]}").conv1.depthwise.conv
                name = name.replace("KERNEL", _kernel(conv))
            return f"{scopes[m[1]]}/{name}{leaves[m['leaf']]}"

        return name

    return (
        (r"body\.stem\.conv", "conv0"),
        (r"body\.stem\.norm\.(\w+)", lambda m: f"conv0_bn/{NORM[m[1]]}"),
        *(
            (rf"{at}(\w+)\.{ours}\.(?P<leaf>\w+)", rule(scopes, theirs))
            for at, scopes, names in ((r"body\.", cells, _CELL), ("aux_", aux, _CELL_AUX))
            for ours, theirs in names
        ),
        (r"aux_(\w+)\.classifier\.linear", lambda m: f"{aux[m[1]]}/FC"),
        (r"classifier\.linear", "final_layer/FC"),
    )


# --- arrays --------------------------------------------------------------------------------------

# Slim's squeeze-and-excite gate is relu6(x + 3) * 0.16667, ours relu6(x + 3) / 6. The ratio goes
# into the convolution that the gate's output meets next, which is linear.
GATE = np.float32(0.16667 * 6)


DENSE = ("inception_v4", "inception_resnet_v2", "nasnet")  # whose classifiers are [in, out]
FC6 = ("head.fc1.linear.kernel", "head.fc6.linear.kernel")  # of VGG and AlexNet: [7, 7, C, 4096]


def _layer(model: Network, path: str) -> Any:
    """The layer at a path."""
    return reduce(getattr, path.split("."), model)


def _gated(path: str, model: Network) -> bool:
    block, _, rest = path.rpartition(".project.")
    return rest == "conv.kernel" and hasattr(_layer(model, block), "squeeze")


def _from_slim(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """Depthwise [kh, kw, C, m] -> [kh, kw, 1, C m]; convolutions as classifiers -> [in, out]."""
    if path.endswith("depthwise.conv.kernel"):
        return array.reshape(*array.shape[:2], 1, -1)
    if path.endswith("linear.kernel"):
        return array.reshape(-1, array.shape[-1])
    return array * GATE if _gated(path, model) else array


def _to_slim(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """The inverse of `_from_slim`."""
    if path.endswith("depthwise.conv.kernel"):
        channels = _layer(model, path.removesuffix(".kernel")).groups
        return array.reshape(*array.shape[:2], channels, -1)
    if path.endswith("linear.kernel") and find(model.spec.name).family not in DENSE:
        side = _layer(model, "head.flatten").size if path in FC6 else 1
        return array.reshape(side, side, -1, array.shape[-1])
    return array / GATE if _gated(path, model) else array


# --- the layout -----------------------------------------------------------------------------------

NORM = dict(scale="gamma", bias="beta", mean="moving_mean", var="moving_variance")

INCEPTION = replace(TF, bn_scale=False)
MOBILENET = replace(TF, bn_momentum=0.997)
RESNET = replace(TF, bn_epsilon=1e-5, bn_momentum=0.997)

SLIM = Layout(
    name="slim",
    rules={
        "inception_v1": _inception_v1,
        "inception_v2": _inception_v2,
        "inception_v3": _inception_v3,
        "inception_v4": _inception_v4,
        "inception_resnet_v2": _inception_resnet_v2,
        "mobilenet_v1": _mobilenet_v1,
        "mobilenet_v2": _mobilenet_v2,
        "mobilenet_v3": _mobilenet_v3,
        "nasnet": _nasnet,
        "vgg": _vgg,
        "alexnet_v2": _alexnet,
        "resnet_v2": _resnet_v2,
    },
    leaves={
        "conv.kernel": "weights",
        "conv.bias": "biases",
        "depthwise.conv.kernel": "depthwise_weights",
        "linear.kernel": "weights",
        "linear.bias": "biases",
        **{f"norm.{ours}": f"BatchNorm/{theirs}" for ours, theirs in NORM.items()},
        # ResNet v2's norms that precede their convolution stand alone
        **{f"preact.norm.{ours}": theirs for ours, theirs in NORM.items()},
        **{f"postact.norm.{ours}": theirs for ours, theirs in NORM.items()},
    },
    join="/",
    arrange=_from_slim,
    restore=_to_slim,
    ignored=r"global_step|.*/mean_rgb|.*/(ExponentialMovingAverage|Momentum|RMSProp(_1)?)",
    numerics={
        **dict.fromkeys(EXCEPTIONS, INCEPTION),
        "mobilenet_v2": MOBILENET,
        "mobilenet_v3": MOBILENET,
        "resnet_v2": RESNET,
        # no batch norm; their pools are VALID, as torch's without padding
        "alexnet_v2": TORCH,
        "vgg": TORCH,
        "*": TF,
    },
    preprocess={"vgg": SLIM_VGG, "alexnet": SLIM_VGG, "*": preprocess.SLIM},
)
