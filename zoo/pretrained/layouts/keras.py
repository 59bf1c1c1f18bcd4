"""The names of Keras Applications, as Keras 3 builds its networks.

https://github.com/keras-team/keras/tree/master/keras/src/applications
Keras itself matches files by order alone, so that published ones may have names of any age:
`_rename` brings them up to date.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...context import KERAS, TORCH, Numerics
from ...layers import ConvNormAct, Network
from ...preprocess import KERAS_CAFFE, KERAS_TF, KERAS_TORCH, Preprocess
from ...registry import find
from ..readers.base import Arrays
from .base import Layout, Rules

Match = re.Match[str]

# --- names: one function for each family ----------------------------------------------------------

_PREDICTIONS = (r"classifier\.linear", "predictions")
_SUFFIX = dict(conv="_conv", norm="_bn")
_BN = dict(conv="", norm="_bn")  # where a convolution has the name alone


def _vgg(_model: Network) -> Rules:
    return (
        (r"body\.stage(\d)\.conv(\d)\.conv", r"block\1_conv\2"),
        (r"head\.fc(\d)\.linear", r"fc\1"),
        _PREDICTIONS,
    )


def _resnet(_model: Network) -> Rules:
    """ResNet, both versions."""
    rows = dict(shortcut="0", projection="0", preact="preact", conv1="1", conv2="2", conv3="3")

    def unit(m: Match) -> str:
        return f"conv{int(m[1]) + 1}_block{int(m[2]) + 1}_{rows[m[3]]}{_SUFFIX[m[4]]}"

    return (
        (r"body\.stem\.(conv|norm)", lambda m: f"conv1{_SUFFIX[m[1]]}"),
        (r"body\.stage(\d)\.block(\d+)\.(\w+)\.(conv|norm)", unit),
        (r"body\.postact\.norm", "post_bn"),
        _PREDICTIONS,
    )


def _densenet(_model: Network) -> Rules:
    rows = dict(preact="0", conv1="1", conv2="2")

    def layer(m: Match) -> str:
        return f"conv{int(m[1]) + 1}_block{int(m[2]) + 1}_{rows[m[3]]}{_SUFFIX[m[4]]}"

    return (
        (r"body\.stem\.(conv|norm)", lambda m: f"conv1{_SUFFIX[m[1]]}"),
        (r"body\.dense(\d)\.layer(\d+)\.(\w+)\.(conv|norm)", layer),
        (
            r"body\.transition(\d)\.\w+\.(conv|norm)",
            lambda m: f"pool{int(m[1]) + 1}{_SUFFIX[m[2]]}",
        ),
        (r"body\.postact\.norm", "bn"),
        _PREDICTIONS,
    )


def _units(layer: Any, path: str) -> Iterator[str]:
    """The paths of all convolutions with a norm, in the order of the tables."""
    if isinstance(layer, ConvNormAct) and layer.norm is not None:
        yield path
    for name in getattr(layer, "order", ()):
        yield from _units(getattr(layer, name), f"{path}.{name}")


def _unnamed(paths: list[str]) -> Callable[[Match], str]:
    """The names that Keras itself gives to the layers at these paths, in the order of creation."""
    numbers = {path: f"_{i}" if i else "" for i, path in enumerate(paths)}
    kinds = dict(conv="conv2d", norm="batch_normalization")
    return lambda m: kinds[m[2]] + numbers[m[1]]


def _inception_v3(model: Network) -> Rules:
    return (
        (r"(body\..*)\.(conv|norm)", _unnamed(list(_units(model.body, "body")))),
        _PREDICTIONS,
    )


def _inception_resnet_v2(model: Network) -> Rules:
    blocks = dict(a="block35", b="block17", c="block8")
    units = [path for path in _units(model.body, "body") if path != "body.conv7b"]
    return (
        (
            r"body\.resnet_(.)\.block(\d+)\.conv\.conv",
            lambda m: f"{blocks[m[1]]}_{int(m[2]) + 1}_conv",
        ),
        (r"body\.conv7b\.(conv|norm)", lambda m: f"conv_7b{_BN[m[1]]}"),
        (r"(body\..*)\.(conv|norm)", _unnamed(units)),
        _PREDICTIONS,
    )


def _xception(_model: Network) -> Rules:
    """Xception, where one `SeparableConv2D` has both kernels of ours."""
    blocks = {"entry1": 2, "entry2": 3, "entry3": 4, "exit": 13}
    shortcuts = [f"body.{block}.shortcut" for block in blocks]
    blocks |= {f"middle.block{i}": i + 5 for i in range(8)}
    names = {
        f"{block}.conv{i}": f"block{number}_sepconv{i}"
        for block, number in blocks.items()
        for i in (1, 2, 3)
    }
    names |= {"conv3": "block14_sepconv1", "conv4": "block14_sepconv2"}
    return (
        (r"body\.(conv[12])\.(conv|norm)", lambda m: f"block1_{m[1]}{_BN[m[2]]}"),
        (r"body\.(.+)\.depthwise\.conv", lambda m: names[m[1]]),
        (r"body\.(.+)\.pointwise\.conv\.kernel", lambda m: f"{names[m[1]]}/pointwise_kernel"),
        (r"body\.(.+)\.pointwise\.norm", lambda m: f"{names[m[1]]}_bn"),
        (r"(.+\.shortcut)\.(conv|norm)", _unnamed(shortcuts)),
        _PREDICTIONS,
    )


def _nasnet(model: Network) -> Rules:
    """NASNet-A: its cells are numbered, which the reductions between the stages are not."""
    repeats = sum(row.startswith("normal1") for row in model.body.order)

    def cell(theirs: str) -> Callable[[Match], str]:
        def name(m: Match) -> str:
            stage, i, sum_ = (int(m.groupdict().get(key) or 0) for key in ("stage", "i", "sum"))
            if m["kind"] == "normal":
                kind, number = "normal", str((stage - 1) * repeats + i - (stage == 1))
            else:
                kind, sum_ = "reduction", min(sum_, 3)  # the fifth sum is called the fourth there
                number = f"stem_{stage}" if m["kind"] == "stem" else f"reduce_{stage * repeats}"
            return m.expand(theirs).format(kind=kind, number=number, sum=sum_ + 1)

        return name

    at = r"body\.(?P<kind>[a-z]+)(?P<stage>\d)_?(?P<i>\d*)\."
    sep = at + r"(left|right)(?P<sum>\d)\.conv(\d)\."
    theirs = r"separable_conv_\6_{}{{kind}}_\4{{sum}}_{{number}}"
    return (
        (r"body\.stem\.(conv|norm)", lambda m: f"stem{_SUFFIX[m[1]]}1"),
        (at + r"h\.conv\.conv", cell("{kind}_conv_1_{number}")),
        (at + r"h\.conv\.norm", cell("{kind}_bn_1_{number}")),
        (at + r"p\.conv\.conv", cell("adjust_conv_projection_{number}")),
        (at + r"p\.paths\.path(\d)\.conv\.conv", cell(r"adjust_conv_\4_{number}")),
        (at + r"p\.(?:conv\.)?norm", cell("adjust_bn_{number}")),
        (sep + r"depthwise\.conv", cell(theirs.format(""))),
        (sep + r"pointwise\.conv\.kernel", cell(theirs.format("") + "/pointwise_kernel")),
        (sep + r"pointwise\.norm", cell(theirs.format("bn_"))),
        _PREDICTIONS,
    )


def _mobilenet_v1(_model: Network) -> Rules:
    parts = dict(depthwise="dw", pointwise="pw")
    return (
        (r"body\.stem\.(conv|norm)", lambda m: f"conv1{_BN[m[1]]}"),
        (
            r"body\.sep(\d+)\.(depthwise|pointwise)\.(conv|norm)",
            lambda m: f"conv_{parts[m[2]]}_{m[1]}{_BN[m[3]]}",
        ),
        (r"classifier\.linear", "conv_preds"),
    )


def _mobilenet_v2(model: Network) -> Rules:
    stages = [(name, stage) for name, stage in model.body.layers() if hasattr(stage, "order")]
    blocks = [f"{name}.{block}" for name, stage in stages for block in stage.order]

    def part(m: Match) -> str:
        number = blocks.index(m[1])
        block = f"block_{number}" if number else "expanded_conv"
        return f"{block}_{m[2]}{_BN[m[3]].upper()}"

    return (
        (r"body\.stem\.conv", "Conv1"),
        (r"body\.stem\.norm", "bn_Conv1"),
        (r"body\.(stage\d\.block\d+)\.(\w+)\.(conv|norm)", part),
        (r"body\.last\.(conv|norm)", lambda m: f"Conv_1{_BN[m[1]]}"),
        _PREDICTIONS,
    )


def _mobilenet_v3(_model: Network) -> Rules:
    squeeze = dict(reduce="squeeze_excite_conv", expand="squeeze_excite_conv_1")

    def block(m: Match) -> str:
        return "expanded_conv_" + ("" if m[1] == "1" else f"{int(m[1]) - 1}_")

    return (
        (r"body\.stem\.(conv|norm)", lambda m: f"conv{_BN[m[1]]}"),
        (r"body\.bneck(\d+)\.(\w+)\.(conv|norm)", lambda m: block(m) + m[2] + _BN[m[3]]),
        (r"body\.bneck(\d+)\.squeeze\.(\w+)\.conv", lambda m: block(m) + squeeze[m[2]]),
        (r"body\.last\.(conv|norm)", lambda m: f"conv_1{_BN[m[1]]}"),
        (r"head\.fc\.linear", "conv_2"),
        (r"classifier\.linear", "logits"),
    )


def _efficientnet(model: Network, depthwise: str = "dwconv") -> Rules:
    stem, *stages, top = model.body.order
    parts = {
        "expand.conv": "expand_conv",
        "expand.norm": "expand_bn",
        "depthwise.conv": depthwise,
        "depthwise.norm": "bn",
        "squeeze.reduce.conv": "se_reduce",
        "squeeze.expand.conv": "se_expand",
        "project.conv": "project_conv",
        "project.norm": "project_bn",
        "conv.conv": "project_conv",  # the one convolution of a fused block that does not expand
        "conv.norm": "project_bn",
    }

    def part(m: Match) -> str:
        return f"block{stages.index(m[1]) + 1}{chr(ord('a') + int(m[2]))}_{parts[m[3]]}"

    return (
        (rf"body\.{stem}\.(conv|norm)", lambda m: f"stem{_SUFFIX[m[1]]}"),
        (r"body\.(stage\d)\.block(\d+)\.(.+\.(?:conv|norm))", part),
        (rf"body\.{top}\.(conv|norm)", lambda m: f"top{_SUFFIX[m[1]]}"),
        _PREDICTIONS,
    )


def _efficientnet_v2(model: Network) -> Rules:
    return _efficientnet(model, depthwise="dwconv2")


def _convnext(model: Network) -> Rules:
    """ConvNeXt, whose depthwise convolution is a `Conv2D` of as many groups as channels."""
    name = model.spec.name
    parts = {
        "depthwise.conv": "depthwise_conv",
        "depthwise.conv.kernel": "depthwise_conv/kernel",
        "norm.norm": "layernorm",
        "expand.linear": "pointwise_conv_1",
        "project.linear": "pointwise_conv_2",
        "layerscale": "layer_scale",
    }
    rows = dict(conv="conv", norm="layernorm")
    part = "|".join(map(re.escape, parts))
    return (
        (r"body\.stem\.(conv|norm)\.\1", lambda m: f"{name}_stem_{rows[m[1]]}"),
        (
            rf"body\.stage(\d)\.block(\d+)\.({part})",
            lambda m: f"{name}_stage_{int(m[1]) - 1}_block_{m[2]}_{parts[m[3]]}",
        ),
        (
            r"body\.down(\d)\.(conv|norm)\.\2",
            lambda m: f"{name}_downsampling_{rows[m[2]]}_{int(m[1]) - 2}",
        ),
        (r"head\.norm\.norm", f"{name}_head_layernorm"),
        (r"classifier\.linear", f"{name}_head_dense"),
    )


# --- names of any age ----------------------------------------------------------------------------

# What a layer was called -> what it is called, by family: substitutions, one after the other.
_OLD_LAYERS: dict[str, list[tuple[str, str | Callable[[Match], str]]]] = {
    "convnext": [(r".*/", "")],  # the layers around it
    "densenet": [("/", "_")],
    "nasnet": [(r".*/", "")],  # as ConvNeXt
    "mobilenet_v2": [
        (r"^mobl0_conv_0_(\w+)$", r"expanded_conv_\1"),
        (r"^bn0_conv_0_bn_(\w+)$", r"expanded_conv_\1_BN"),
        (r"^mobl(\d+)_conv_\1_(\w+)$", r"block_\1_\2"),
        (r"^bn(\d+)_conv_\1_bn_(\w+)$", r"block_\1_\2_BN"),
        (r"^Logits$", "predictions"),
    ],
    "mobilenet_v3": [
        (r"/BatchNorm$", "_bn"),
        ("/", "_"),
        ("[A-Z]", lambda m: m[0].lower()),
    ],
}
_NUMBERED = {
    "conv2d": r"conv(?:olution)?2d(?:_(\d+))?",
    "batch_normalization": r"batch_?normalization(?:_(\d+))?",
}
_DEPTHWISE = r"conv_dw_\d+|.*_depthwise|.*_dwconv2?"
_NORMALIZATION = r"(?:.*/)?normalization(?:_\d+)?/(mean|variance|count)"


def _rename(model: Network, arrays: Arrays) -> Arrays:
    """The arrays by the names of `_TABLE`; what has no such name keeps its own.

    Layers that Keras numbers itself count from wherever the session stood: only their order says
    which is which. EfficientNet's `Normalization` is left to `_normalization`.
    """
    family = find(model.spec.name).family
    layers: dict[str, str] = {}
    for kind, pattern in _NUMBERED.items():
        matches = (re.fullmatch(pattern, name.rpartition("/")[0]) for name in arrays)
        numbers = {m[0]: int(m[1] or 0) for m in matches if m}
        for i, layer in enumerate(sorted(numbers, key=numbers.__getitem__)):
            layers[layer] = f"{kind}_{i}" if i else kind
    renamed: Arrays = {}
    for name, array in arrays.items():
        if family == "efficientnet" and re.fullmatch(_NORMALIZATION, name):
            continue
        layer, _, leaf = name.rpartition("/")
        layer = layers.get(layer, layer)
        for pattern, new in _OLD_LAYERS.get(family, ()):
            layer = re.sub(pattern, new, layer)
        if family == "convnext":
            layer = _convnext_layer(layer, leaf, model.spec.name)
        if leaf == "kernel" and re.fullmatch(_DEPTHWISE, layer):
            leaf = "depthwise_kernel"  # Keras 3 calls it "kernel"
        if layer.endswith("_layer_scale"):
            leaf = "gamma"  # its only variable, which has no name of its own
        new_name = f"{layer}/{leaf}" if layer else name
        renamed[name if new_name in renamed else new_name] = array
    return renamed


def _convnext_layer(layer: str, leaf: str, name: str) -> str:
    """The layer of a leaf that may be known by the container alone, or have no name of its own."""
    row = "conv" if leaf in ("kernel", "bias") else "layernorm"
    if m := re.fullmatch(r"(.*_downsampling)_block_(\d)", layer):
        return f"{m[1]}_{row}_{m[2]}"
    if layer.endswith("_stem"):
        return f"{layer}_{row}"
    if re.fullmatch(r"layer_normalization(_\d+)?", layer):
        return f"{name}_head_layernorm"  # where no classifier follows
    return layer


# --- arrays --------------------------------------------------------------------------------------


def _arrange(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """Depthwise [kh, kw, C, 1] -> [kh, kw, 1, C]; 1x1 convolution as dense layer -> [in, out]."""
    if _is_depthwise(path, model) and array.ndim == 4:
        return array.transpose(0, 1, 3, 2)
    if _is_conv(path, model) and array.shape[:-2] == (1, 1):
        return array.reshape(array.shape[-2:])
    return array


def _restore(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """The inverse of `_arrange`."""
    if _is_depthwise(path, model):
        return array.transpose(0, 1, 3, 2)
    return array[None, None] if _is_conv(path, model) else array


def _is_depthwise(path: str, model: Network) -> bool:
    """Whether this is the kernel of a `DepthwiseConv2D` or `SeparableConv2D`."""
    return path.endswith("depthwise.conv.kernel") and find(model.spec.name).family != "convnext"


def _is_conv(path: str, model: Network) -> bool:
    """Whether this is the kernel of a dense layer that is a 1x1 convolution there."""
    convolutional = ("mobilenet_v1", "mobilenet_v3")
    return path.endswith("linear.kernel") and find(model.spec.name).family in convolutional


# --- preprocessing and numerics ------------------------------------------------------------------

_128 = replace(
    KERAS_TORCH, mean=(128 / 255,) * 3, std=(128 / 255,) * 3
)  # x / 128 - 1, in the model


def _normalization(arrays: Arrays) -> Preprocess:
    """What EfficientNet's `Normalization` does; without one in the file, as published.

    The published files have the standard deviations where the layer expects variances, and Keras
    divides by their root once more (https://github.com/tensorflow/tensorflow/issues/49930), but
    for those files only.
    """
    matches = {name: re.fullmatch(_NORMALIZATION, name) for name in arrays}
    stored = {m[1]: arrays[name].ravel() for name, m in matches.items() if m}
    if not {"mean", "variance"} <= stored.keys():
        return KERAS_TORCH
    variance = np.maximum(stored["variance"], 0)
    if variance.shape == (3,) and np.allclose(variance, KERAS_TORCH.std, rtol=1e-3):
        return KERAS_TORCH
    about = dict(mean=stored["mean"].tolist(), std=np.sqrt(variance).tolist())
    return Preprocess.from_dict(KERAS_TORCH.to_dict() | about)


class _Family(NamedTuple):
    names: Callable[[Network], Rules]
    numerics: Numerics
    preprocess: Preprocess | Callable[[Arrays], Preprocess]


_RESNET = replace(TORCH, bn_epsilon=1.001e-5, bn_momentum=0.99)
_RESNET_V1 = _Family(_resnet, replace(_RESNET, conv_bias=True), KERAS_CAFFE)
_RESNET_V2 = replace(_RESNET, max_pool_pads_zeros=True)
_SAME = replace(KERAS, depthwise_padding="same")  # what its `correct_pad` comes to, too
_INCEPTION = replace(_SAME, bn_scale=False)
_MOBILENET = replace(_SAME, bn_momentum=0.999)
_V2 = replace(_SAME, bn_momentum=0.9)
_PADDED = replace(  # pools of stride 2 see zeros
    _SAME, bn_momentum=0.9997, avg_pool_counts_padding=True, max_pool_pads_zeros=True
)

# fmt: off
_TABLE = {
    "vgg16":               _Family(_vgg, TORCH, KERAS_CAFFE),
    "vgg19":               _Family(_vgg, TORCH, KERAS_CAFFE),
    "resnet50_v1":         _RESNET_V1,  # its ResNets have the stride in the first 1x1
    "resnet101_v1":        _RESNET_V1,
    "resnet152_v1":        _RESNET_V1,
    "resnet_v2":           _Family(_resnet, _RESNET_V2, KERAS_TF),
    "densenet":            _Family(_densenet, _RESNET, KERAS_TORCH),
    "inception_v3":        _Family(_inception_v3, _INCEPTION, KERAS_TF),
    "inception_resnet_v2": _Family(_inception_resnet_v2, _INCEPTION, KERAS_TF),
    "xception":            _Family(_xception, _SAME, KERAS_TF),
    "nasnet_mobile":       _Family(_nasnet, _PADDED, KERAS_TF),
    "nasnet_large":        _Family(_nasnet, _PADDED, KERAS_TF),
    "mobilenet_v1":        _Family(_mobilenet_v1, KERAS, KERAS_TF),
    "mobilenet_v2":        _Family(_mobilenet_v2, _MOBILENET, KERAS_TF),
    "mobilenet_v3":        _Family(_mobilenet_v3, _MOBILENET, KERAS_TF),
    "efficientnet":        _Family(_efficientnet, _SAME, _normalization),
    "efficientnet_v2":     _Family(_efficientnet_v2, _V2, KERAS_TORCH),
    "efficientnet_v2_s":   _Family(_efficientnet_v2, _V2, _128),
    "efficientnet_v2_m":   _Family(_efficientnet_v2, _V2, _128),
    "efficientnet_v2_l":   _Family(_efficientnet_v2, _V2, _128),
    "convnext":            _Family(_convnext, TORCH, KERAS_TORCH),
}
# fmt: on

KERAS_APPLICATIONS = Layout(
    name="keras",
    rules={name: family.names for name, family in _TABLE.items()},
    leaves={
        "depthwise.conv.kernel": "depthwise_kernel",
        "norm.scale": "gamma",
        "norm.bias": "beta",
        "norm.mean": "moving_mean",
        "norm.var": "moving_variance",
    },
    join="/",
    arrange=_arrange,
    restore=_restore,
    rename=_rename,
    numerics={name: family.numerics for name, family in _TABLE.items()},
    preprocess={name: family.preprocess for name, family in _TABLE.items()},
)
