"""The names of Keras Applications."""

import numpy as np

from ...context import KERAS
from ...layers import Network
from ...preprocess import INCEPTION
from .base import Layout, Rules


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


def _to_keras(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """The inverse of `_from_keras`; dense kernels stay [in, out]."""
    return array.transpose(0, 1, 3, 2) if path.endswith("depthwise.conv.kernel") else array


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
    restore=_to_keras,
    numerics={"*": KERAS},
    preprocess={"*": INCEPTION},
)
