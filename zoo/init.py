"""Initial parameters, drawn by NumPy, so that nothing has to be compiled.

The values of a parameter depend only on the seed and on its path. So a new head, or one more layer,
changes no other parameter.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from .switches import initial

Model = TypeVar("Model", bound=nnx.Module)

# --- initialisers of kernels: shape -> standard deviation, then how it is drawn -------------------


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out) of a kernel, [kh, kw, C_in / groups, F] or [C_in, F]."""
    area = math.prod(shape[:-2])
    return area * shape[-2], area * shape[-1]


def _he(shape: tuple[int, ...]) -> float:
    return math.sqrt(2 / _fans(shape)[0])


def _lecun(shape: tuple[int, ...]) -> float:
    return math.sqrt(1 / _fans(shape)[0])


def _glorot(shape: tuple[int, ...]) -> float:
    return math.sqrt(2 / sum(_fans(shape)))


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    return rng.standard_normal(shape, np.float32) * np.float32(std)


def _truncated(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    """Normal values within two deviations, as from TensorFlow's `truncated_normal`."""
    x = rng.standard_normal(math.prod(shape), np.float32)
    while len(outside := np.flatnonzero(np.abs(x) > 2)):
        x[outside] = rng.standard_normal(len(outside), np.float32)
    return x.reshape(shape) * np.float32(std)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    limit = math.sqrt(3) * std
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def _dirac(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The first outputs of a convolution without groups copy its inputs, the rest is He's."""
    kernel = _truncated(rng, shape, _he(shape) / _TRUNCATION)
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        copies = np.arange(min(inputs, outputs))
        kernel[..., : len(copies)] = 0
        kernel[height // 2, width // 2, copies, copies] = 1
    return kernel


_TRUNCATION = 0.87962566103423978  # deviation of a unit normal cut off at two

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

INITIALIZERS: dict[str, Initializer] = {
    # He et al., 2015, arXiv:1502.01852, equation 10
    "he_normal": lambda rng, shape: _truncated(rng, shape, _he(shape) / _TRUNCATION),
    # Glorot and Bengio, 2010, equation 16
    "glorot_uniform": lambda rng, shape: _uniform(rng, shape, _glorot(shape)),
    "lecun_normal": lambda rng, shape: _truncated(rng, shape, _lecun(shape) / _TRUNCATION),
    # Zagoruyko and Komodakis, 2017, arXiv:1706.00388; partly, as Jordan, 2024, arXiv:2404.00498
    "dirac": _dirac,
    "zeros": lambda _rng, shape: np.zeros(shape, np.float32),
}

# Drawn with one deviation for all kernels, as in the first networks: AlexNet (section 5), Inception
# in slim. Values of "truncated_normal" lie within two of them.
WITH_DEVIATION: dict[str, Callable[[np.random.Generator, tuple[int, ...], float], np.ndarray]] = {
    "truncated_normal": _truncated,
    "normal": _normal,
}


def initializer(name: str) -> Initializer:
    """The initialiser called `name`, of `INITIALIZERS` or `WITH_DEVIATION`.

    Raises:
      ZooError: an unknown name, or a deviation that is not a number above 0.

    >>> initializer("normal(0.1)")(np.random.default_rng(0), (3, 3, 16, 16)).std().round(2)
    np.float32(0.1)
    """
    base, deviation = initial(name)
    if base in INITIALIZERS:
        return INITIALIZERS[base]
    draw = WITH_DEVIATION[base]
    return lambda rng, shape: draw(rng, shape, deviation)


# The initial values of leaves that are not kernels, by name.
CONSTANTS = {
    "bias": 0,
    "scale": 1,
    "mean": 0,
    "var": 1,
    "gamma": 1e-6,  # layer scale: arXiv:2103.17239; 1e-6 in ConvNeXt
    "count": 0,  # of random draws
}


def materialize(
    model: Model, *, init: str, seed: int, values: Mapping[str, np.ndarray] | None = None
) -> Model:
    """Fill an abstract network with arrays: from `values` by path, and random ones for the rest.

    Args:
      model: a network from `zoo.registry.abstract`.
      init: the initialiser of kernels, see `initializer`.
      seed: of the random values.
      values: arrays by dotted path ("body.stem.conv.kernel"), with the shapes of the model's.
    """
    values, draw = values or {}, initializer(init)
    graphdef, state = nnx.split(model)
    leaves = flatten_dict(nnx.to_pure_dict(state), sep=".")
    streams = (path for path in leaves if path.endswith(".key"))
    stream_of = {path: i for i, path in enumerate(streams)}

    def value(path: str) -> np.ndarray:
        if path in values:
            return values[path]
        shape, name = leaves[path].shape, path.rpartition(".")[2]
        if name == "kernel":
            rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
            return draw(rng, shape)
        return np.full(shape, CONSTANTS[name])

    filled = {
        path: jax.random.fold_in(jax.random.key(seed), stream)  # random streams of dropout
        for path, stream in stream_of.items()
    }
    rest = [path for path in leaves if path not in stream_of]
    with ThreadPoolExecutor() as pool:  # NumPy draws without holding the interpreter's lock
        for path, array in zip(rest, pool.map(value, rest), strict=True):
            filled[path] = jnp.array(array, leaves[path].dtype)
    nnx.replace_by_pure_dict(state, unflatten_dict(filled, sep="."))
    return nnx.merge(graphdef, state)
