"""The names of efficientnet_pytorch and of what was made from it.

https://github.com/lukemelas/EfficientNet-PyTorch,
https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch
"""

from dataclasses import replace

from ...context import TF
from ...layers import Network, Stack
from ...preprocess import IMAGENET
from .base import Layout, Rules
from .torch import LEAVES, Walk, from_torch, head, squeeze, to_torch, unit

# x / 128 - 127 / 128, the authors' for EfficientNet-Lite
LITE = replace(IMAGENET, interpolation="bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def _efficientnet(model: Network) -> Rules:
    """The blocks of all stages are numbered alike."""
    (stem, _), *stages, (last, _) = model.body.layers()

    def blocks() -> Walk:
        rows = [
            rf"body\.{stage}\.{name}"
            for stage, layer in stages
            if isinstance(layer, Stack)
            for name in layer.order
        ]
        for i, ours in enumerate(rows):
            theirs = f"_blocks.{i}."
            yield from unit(rf"{ours}\.expand", f"{theirs}_expand_conv", f"{theirs}_bn0")
            yield from unit(rf"{ours}\.depthwise", f"{theirs}_depthwise_conv", f"{theirs}_bn1")
            yield from squeeze(rf"{ours}\.squeeze", f"{theirs}_se_reduce", f"{theirs}_se_expand")
            yield from unit(rf"{ours}\.project", f"{theirs}_project_conv", f"{theirs}_bn2")

    return (
        *unit(rf"body\.{stem}", "_conv_stem", "_bn0"),
        *blocks(),
        *unit(rf"body\.{last}", "_conv_head", "_bn1"),
        head("_fc"),
    )


EFFICIENTNET_PYTORCH = Layout(
    name="efficientnet_pytorch",
    rules={"efficientnet": _efficientnet, "efficientnet_lite": _efficientnet},
    leaves=LEAVES,
    join=".",
    arrange=from_torch,
    restore=lambda path, array, model: to_torch(path, array, model, as_conv={}, factor=(-1,)),
    ignored=r".*\.num_batches_tracked",
    numerics={"*": replace(TF, bn_momentum=0.99)},
    preprocess={"efficientnet_lite": LITE},
)
