"""The names of small ResNets on CIFAR-10, of two sources."""

from ...layers import Network
from ...preprocess import Preprocess
from .base import Layout, Rules
from .torchvision import TORCHVISION


def _akamaster(_model: Network) -> Rules:
    block = r"body\.stage(\d)\.block(\d+)\."
    return (
        (r"body\.stem\.conv", "conv1"),
        (r"body\.stem\.norm", "bn1"),
        (block + r"conv(\d)\.conv", r"layer\1.\2.conv\3"),
        (block + r"conv(\d)\.norm", r"layer\1.\2.bn\3"),
        (r"classifier\.linear", "linear"),
    )


# https://github.com/akamaster/pytorch_resnet_cifar10
CIFAR = Layout(
    name="cifar",
    rules={"resnet_cifar": _akamaster},
    leaves=TORCHVISION.leaves,
    join=".",
    arrange=TORCHVISION.arrange,
    restore=TORCHVISION.restore,
    ignored=TORCHVISION.ignored,
    preprocess={"*": Preprocess(size=32, resize=32)},
)


def _mlperf_tiny(_model: Network) -> Rules:
    """Keras counts the layers of each kind in the order in which the code makes them."""
    made = (
        (r"stem", "", ""),
        (r"stage1\.block0\.conv1", "_1", "_1"),
        (r"stage1\.block0\.conv2", "_2", "_2"),
        (r"stage2\.block0\.conv1", "_3", "_3"),
        (r"stage2\.block0\.conv2", "_4", "_4"),
        (r"stage2\.block0\.shortcut", "_5", None),
        (r"stage3\.block0\.conv1", "_6", "_5"),
        (r"stage3\.block0\.conv2", "_7", "_6"),
        (r"stage3\.block0\.shortcut", "_8", None),
    )
    return (
        *((rf"body\.{ours}\.conv", f"conv2d{conv}") for ours, conv, _ in made),
        *(
            (rf"body\.{ours}\.norm", f"batch_normalization{norm}")
            for ours, _, norm in made
            if norm is not None
        ),
        (r"classifier\.linear", "dense"),
    )


# https://github.com/mlcommons/tiny/tree/master/benchmark/training/image_classification
MLPERF = Layout(
    name="mlperf",
    rules={"resnet8_mlperf": _mlperf_tiny},
    leaves={
        "norm.scale": "gamma",
        "norm.bias": "beta",
        "norm.mean": "moving_mean",
        "norm.var": "moving_variance",
    },
    join="/",
    arrange=lambda _path, array, _model: array,
    restore=lambda _path, array, _model: array,
    preprocess={"*": Preprocess(size=32, resize=32, mean=(0, 0, 0), std=(1 / 255,) * 3)},
)
