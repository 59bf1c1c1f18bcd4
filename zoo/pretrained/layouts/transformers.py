"""The names of Hugging Face's transformers, `ResNetForImageClassification`.

https://github.com/huggingface/transformers/blob/main/src/transformers/models/resnet/modeling_resnet.py
Its ResNets are torchvision's but for their names (microsoft/resnet-50: `downsample_in_bottleneck`
False, so that the 3x3 convolution of a block has the stride).
"""

import re
from dataclasses import replace

from ...context import TORCH
from ...layers import Network
from ...preprocess import IMAGENET
from ..readers.base import Arrays
from .base import Layout, Rules
from .torchvision import TORCHVISION


def _resnet(_model: Network) -> Rules:
    rows = dict(conv="convolution", norm="normalization")

    def block(m: re.Match[str]) -> str:
        at = f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}"
        row = "shortcut" if m[3] == "shortcut" else f"layer.{int(m[3][-1]) - 1}"
        return f"{at}.{row}.{rows[m[4]]}"

    return (
        (r"body\.stem\.(conv|norm)", lambda m: f"embedder.embedder.{rows[m[1]]}"),
        (r"body\.stage(\d)\.block(\d+)\.(shortcut|conv\d)\.(conv|norm)", block),
        (r"classifier\.linear", "classifier.1"),
    )


def _rename(_model: Network, arrays: Arrays) -> Arrays:
    """A classifier's file has "resnet." before the names of `ResNetModel`."""
    return {re.sub(r"\bresnet\.(?=embedder|encoder)", "", n): x for n, x in arrays.items()}


TRANSFORMERS = Layout(
    name="transformers",
    rules={"resnet": _resnet},
    leaves=TORCHVISION.leaves,
    join=".",
    arrange=TORCHVISION.arrange,
    restore=TORCHVISION.restore,
    ignored=TORCHVISION.ignored,
    rename=_rename,
    numerics={"*": TORCH},
    # microsoft/resnet-*: ConvNextImageProcessor, crop_pct 0.875, resample 3
    preprocess={"*": replace(IMAGENET, interpolation="bicubic")},
)
