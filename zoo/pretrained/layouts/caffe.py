"""The names of Caffe's layers, in the model zoo of BVLC and elsewhere.

`<layer>.weight` [out, in, kh, kw] (of an inner product [out, in], on a flattened CHW map) and
`<layer>.bias`. The networks see B, G, R in 0..255 less the mean.
"""

import numpy as np

from ...layers import Network
from ...preprocess import Preprocess
from .base import Layout, Rules
from .torchvision import TORCHVISION


def _googlenet(_model: Network) -> Rules:
    """The names in Caffe's GoogLeNet.

    https://github.com/BVLC/caffe/blob/master/models/bvlc_googlenet/train_val.prototxt
    """
    module = r"body\.mixed(\d\w)\."
    return (
        (r"body\.conv1\.conv", "conv1/7x7_s2"),
        (r"body\.conv2\.conv", "conv2/3x3_reduce"),
        (r"body\.conv3\.conv", "conv2/3x3"),
        (module + r"conv1x1\.conv\.conv", r"inception_\1/1x1"),
        (module + r"conv(\dx\d)\.reduce\.conv", r"inception_\1/\2_reduce"),
        (module + r"conv(\dx\d)\.conv\.conv", r"inception_\1/\2"),
        (module + r"pool\.proj\.conv", r"inception_\1/pool_proj"),
        (r"classifier\.linear", "loss3/classifier"),
        *(
            rule
            for loss, at in (("loss1", "aux_mixed4a"), ("loss2", "aux_mixed4d"))
            for rule in (
                (rf"{at}\.head\.(conv|fc)\.(?:conv|linear)", rf"{loss}/\1"),
                (rf"{at}\.classifier\.linear", f"{loss}/classifier"),
            )
        ),
    )


def _nin_imagenet(_model: Network) -> Rules:
    """The names in the authors' network: https://gist.github.com/mavenlin/d802a5849de39225bcc6."""
    return (
        (r"body\.mlpconv(\d)\.conv\.conv", r"conv\1"),
        *(
            (rf"body\.mlpconv{i}\.cccp{j}\.conv", f"cccp{2 * (i - 1) + j}")
            for i in (1, 2, 3)
            for j in (1, 2)
        ),
        (r"head\.mlpconv4\.conv\.conv", "conv4-1024"),
        (r"head\.mlpconv4\.cccp1\.conv", "cccp7-1024"),
        (r"classifier\.linear", "cccp8-1024"),
    )


def _to_caffe(path: str, array: np.ndarray, model: Network) -> np.ndarray:
    """As for PyTorch, except for NiN's classifier, which is a convolution."""
    array = TORCHVISION.restore(path, array, model)
    if path == "classifier.linear.kernel" and model.spec.name == "nin_imagenet":
        return array[:, :, None, None]
    return array


CAFFE = Layout(
    name="caffe",
    rules={"inception_v1_lrn": _googlenet, "nin_imagenet": _nin_imagenet},
    leaves={"conv.kernel": "weight", "linear.kernel": "weight"},
    join=".",
    arrange=TORCHVISION.arrange,
    restore=_to_caffe,
    preprocess={
        "*": Preprocess(
            mean=(123 / 255, 117 / 255, 104 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
            channels="bgr",
            squash=True,
        )
    },
)
