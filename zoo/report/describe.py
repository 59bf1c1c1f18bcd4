"""A network's stages in words, read off the layers themselves: "1x1 64 BN relu > 3x3/2 64 BN relu".

`LEGEND` says how to read them.
"""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from itertools import groupby
from typing import Any

from flax import nnx

from .. import ops
from ..context import ACTIVATIONS
from ..layers import (
    Concat,
    Conv2d,
    ConvNormAct,
    GlobalAvgPool,
    LinearAct,
    Network,
    Pool,
    Stack,
    max_pool_of_zeros,
)

LEGEND = "`>`: then; `|`: beside; `/2`: stride 2; `3 x`: three times, one after the other"


def stages(model: Network) -> dict[str, tuple[str, ...]]:
    """The rows of each stage of `zoo.layers.model_stages`, in words.

    >>> stages(zoo.create("resnet18"))["stage1"]                          # doctest: +SKIP
    ('2 x residual(3x3 64 BN relu > 3x3 64 BN, relu)',)
    """
    layers = [*model.body.layers(), *model.head.layers()]
    if model.classifier is not None:
        layers.append(("classifier", model.classifier))
    return {
        name: _rows(layer) if type(layer) is Stack else (describe(layer),) for name, layer in layers
    }


def describe(layer: Any) -> str:
    """One layer in words."""
    if activation := _activation(layer):
        return activation
    if isinstance(layer, ConvNormAct):
        return _joined(" ", (layer.conv, layer.norm, layer.act))
    if isinstance(layer, LinearAct):
        return _joined(" ", (layer.linear, layer.act))
    if isinstance(layer, Conv2d):
        return _convolution(layer)
    if isinstance(layer, nnx.Linear):
        return f"fully connected {layer.out_features}"
    if isinstance(layer, nnx.BatchNorm):
        return "BN"
    if isinstance(layer, nnx.LayerNorm):
        return "LN"
    if isinstance(layer, nnx.Dropout):
        return f"dropout {layer.rate:g}"
    if isinstance(layer, Pool):
        kind = "max" if layer.pool in (ops.max_pool, max_pool_of_zeros) else "average"
        return f"{kind} pool {layer.kernel}x{layer.kernel}{_stride(layer.stride)}"
    if isinstance(layer, GlobalAvgPool):
        return "global average pool"
    if isinstance(layer, Concat):
        return "{" + " | ".join(describe(getattr(layer, name)) for name in layer.order) + "}"
    if isinstance(layer, Stack):
        return _stack(layer)
    return _other(layer)


def _rows(stack: Stack) -> tuple[str, ...]:
    rows = []
    for row, run in groupby(stack.layers(), lambda item: describe(item[1])):
        (_, layer), *others = run
        if others:
            row = f"{len(others) + 1} x " + (f"({row})" if type(layer) is Stack else row)
        rows.append(row)
    return tuple(filter(None, rows))


def _stack(stack: Stack) -> str:
    table = " > ".join(_rows(stack))
    if type(stack) is Stack:
        return table
    rest = {name: value for name, value in vars(stack).items() if name not in stack.order}
    parts = ", ".join([table, *_parts(rest)])
    return _joined(" ", (f"{_words(stack)}({parts})", *filter(_activation, rest.values())))


def _convolution(conv: Conv2d) -> str:
    *_, inputs, features = conv.kernel.shape
    height, width = conv.size
    if conv.groups > 1:
        groups = " depthwise" if inputs == 1 else f" in {conv.groups} groups"
    else:
        groups = ""
    bias = "" if conv.bias is None else " bias"
    return f"{height}x{width}{_stride(conv.stride)}{groups} {features}{bias}"


def _stride(stride: int) -> str:
    return f"/{stride}" if stride > 1 else ""


def _other(layer: Any) -> str:
    """A layer that one family defines: the name of its class and what it consists of."""
    if is_dataclass(layer):
        values = (f"{f.name} {getattr(layer, f.name)}" for f in fields(layer))
        return " ".join([_words(layer), *values])
    if hasattr(layer, "norm"):
        return _joined(" ", (layer.norm, getattr(layer, "act", None)))
    parts = ", ".join(_parts(vars(layer)))
    return f"{_words(layer)}({parts})" if parts else _words(layer)


def _parts(values: dict[str, Any]) -> list[str]:
    """The layers among a module's attributes, each under its name."""
    layers = nnx.Module | Pool
    return [f"{name} {describe(x)}" for name, x in values.items() if isinstance(x, layers)]


def _activation(layer: Any) -> str | None:
    return next((name for name, function in ACTIVATIONS.items() if function is layer), None)


def _joined(between: str, layers: Iterable[Any]) -> str:
    """Layers or words one after the other; None and the identity are left out."""
    words = (x if isinstance(x, str) else describe(x) for x in layers if x is not None)
    return between.join(word for word in words if word != "identity")


def _words(layer: Any) -> str:
    """A class' name in words: "GlobalAvgPool" is "global avg pool"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(layer).__name__).lower()
