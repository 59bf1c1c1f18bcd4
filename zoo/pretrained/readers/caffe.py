"""Caffe's `.caffemodel`: a NetParameter message with the weights of each layer.

https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ZooError
from ...text import reason
from .base import Arrays
from .budget import Budget
from .protobuf import fields, message, number, shape_of, text, varints


@dataclass(frozen=True)
class _Format:
    """Numbers of the fields of a layer."""

    name: int
    type: int
    blobs: int


# NetParameter's field of layers -> what these are: LayerParameter, V1LayerParameter
FORMATS = {100: _Format(name=1, type=2, blobs=7), 2: _Format(name=4, type=5, blobs=6)}

# Dimensions of blob 0. Shapes of before 2014 always have four; all other blobs are vectors.
RANKS = {"Convolution": 4, "Deconvolution": 4, "InnerProduct": 2}
V1_TYPES = {4: "Convolution", 39: "Deconvolution", 14: "InnerProduct"}
LEAVES = {0: "weight", 1: "bias"}


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The blobs of all layers: "conv1.weight", "conv1.bias", further ones "bn1.2".

    Convolutions are [out, in, height, width], inner products [out, in]. BatchNorm's blobs are the
    mean, the variance and the factor to divide both by; Scale's are gamma and beta.

    Raises:
      ZooError: damaged bytes, no weights, or data that does not fit its shape.
    """
    arrays: Arrays = {}
    try:
        data = path.read_bytes()
        budget = Budget(len(data))
        for key, value in fields(memoryview(data), budget):
            if key in FORMATS:
                for name, array in _layer(message(value), FORMATS[key], budget).items():
                    if name in arrays:
                        raise ValueError(f"two layers have {name}")
                    arrays[name] = array
    except (ValueError, OverflowError) as error:
        raise ZooError(f"weights: {path} is not a whole Caffe model: {reason(error)}") from error
    if not arrays:
        raise ZooError(f"weights: {path} has no layer with weights, expected a Caffe model")
    return arrays, {}


def _layer(data: memoryview, form: _Format, budget: Budget) -> Arrays:
    name, kind, blobs = "", "", []
    for key, value in fields(data, budget):
        if key == form.name:
            name = text(value)
        elif key == form.type:
            kind = V1_TYPES.get(value, "") if isinstance(value, int) else text(value)
        elif key == form.blobs:
            blobs.append(message(value))
    return {
        f"{name}.{LEAVES.get(i, i)}": _blob(blob, RANKS.get(kind, 1) if i == 0 else 1, budget)
        for i, blob in enumerate(blobs)
    }


def _blob(data: memoryview, rank: int, budget: Budget) -> np.ndarray:
    """BlobProto as an array; `rank` is for shapes of the old kind."""
    floats: list[memoryview] = []
    doubles: list[memoryview] = []
    old = {1: 1, 2: 1, 3: 1, 4: 1}  # num, channels, height, width
    shape = None
    budget.spend(steps=5)  # an array takes as long as that
    for key, value in fields(data, budget):
        if key == 5:
            floats.append(message(value))
        elif key == 8:
            doubles.append(message(value))
        elif key == 7:
            shape = _shape(message(value), budget)
        elif key in old:
            old[key] = number(value)
    raw, dtype = (b"".join(doubles), "<f8") if doubles else (b"".join(floats), "<f4")
    if shape is None:
        shape = shape_of(old.values())
        if math.prod(shape[:-rank]) == 1:
            shape = shape[-rank:]
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if len(raw) != size:
        raise ValueError(f"a blob of {len(raw)} bytes, expected {size} for {list(shape)}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _shape(data: memoryview, budget: Budget) -> tuple[int, ...]:
    """BlobShape: its sizes packed, or one by one."""
    sizes: list[int] = []
    for key, value in fields(data, budget):
        if key == 1:
            sizes += [value] if isinstance(value, int) else varints(bytes(value), budget).tolist()
    return shape_of(sizes)
