"""What a network is built with that is not its architecture.

`Numerics` holds how a source of weights computes what the papers leave open; `Context` adds the
precision and the switches of the article (initialiser, normaliser, activation, dropout). Layers
read both; no architecture file does.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .errors import ZooError, unknown
from .init import INITIALIZERS

Activation = Callable[[jax.Array], jax.Array]

# --- padding rules: (input length, kernel, stride) -> (before, after) -----------------------------


def _symmetric(length: int, kernel: int, stride: int) -> tuple[int, int]:
    return (kernel - 1) // 2, (kernel - 1) // 2


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _same_even(length: int, kernel: int, stride: int) -> tuple[int, int]:
    return _same(stride * kernel, kernel, stride)


def _valid(length: int, kernel: int, stride: int) -> tuple[int, int]:
    return 0, 0


def _ceil(length: int, kernel: int, stride: int) -> tuple[int, int]:
    return 0, max(-(length - kernel) % stride, kernel - length)


PADDINGS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "symmetric": _symmetric,  # PyTorch: (kernel - 1) // 2 on both sides
    "same": _same,  # TensorFlow: at stride 2 an even length gets the odd pixel at its end
    "same_even": _same_even,  # what "same" gives a length that the stride divides, at any length
    "valid": _valid,
    "ceil": _ceil,  # of pools, Caffe's and PyTorch's ceil_mode: the last window may stick out
}


@dataclass(frozen=True)
class Numerics:
    """How one source of weights computes the same architecture; see `TORCH`, `TF`, `KERAS`.

    `bn_momentum` is Flax's: the share of the old running statistics kept at a step
    (PyTorch's 0.1 is 0.9 here).
    """

    padding: str = "symmetric"  # a key of PADDINGS
    depthwise_padding: str = "symmetric"  # of depthwise convolutions
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    bn_scale: bool = True  # batch norm has a trainable scale
    conv_bias: bool = False  # convolutions keep a bias beside batch norm
    avg_pool_counts_padding: bool = True  # padded zeros enter the mean
    max_pool_pads_zeros: bool = False  # zeros that may win, not -inf


TORCH = Numerics()
TF = Numerics(
    padding="same",
    depthwise_padding="same",
    bn_epsilon=1e-3,
    bn_momentum=0.9997,
    avg_pool_counts_padding=False,
)
# keras.applications.MobileNet pads strided depthwise convolutions ((0, 1), (0, 1)) at any size.
KERAS = Numerics(
    padding="same",
    depthwise_padding="same_even",
    bn_epsilon=1e-3,
    bn_momentum=0.99,
    avg_pool_counts_padding=False,
)


# Functions with a name of their own, for a network is pickled and copied with its activations:
# most of jax.nn's are objects that pickle cannot find again.


def relu(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)


def relu6(x: jax.Array) -> jax.Array:
    return jax.nn.relu6(x)


def tanh(x: jax.Array) -> jax.Array:
    return jnp.tanh(x)


def sigmoid(x: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(x)


def silu(x: jax.Array) -> jax.Array:
    return jax.nn.silu(x)


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    return jax.nn.hard_sigmoid(x)


def hard_swish(x: jax.Array) -> jax.Array:
    return jax.nn.hard_swish(x)


def identity(x: jax.Array) -> jax.Array:
    return x


ACTIVATIONS: dict[str, Activation] = {
    act.__name__: act
    for act in (relu, relu6, tanh, sigmoid, silu, gelu, hard_sigmoid, hard_swish, identity)
}


@dataclass(frozen=True)
class Spec:
    """All that rebuilds a network: what `zoo.create` was asked for. JSON-able, kept on the model.

    Raises:
      ZooError: an activation, initialiser, normaliser or padding that does not exist.
    """

    name: str
    num_classes: int = 1000  # 0: no classifier, the pooled features are the output
    dtype: str = "float32"  # of the computation
    param_dtype: str = "float32"
    numerics: Numerics = TORCH
    init: str = "he_normal"
    norm: str = "batch"  # "batch" or "none"
    act: str | None = None  # None: the paper's own
    dropout: float | None = None  # None: the paper's own
    drop_path: float = 0.0  # stochastic depth: the last residual block's chance to be skipped
    aux: bool = False  # with the auxiliary classifiers that a network may have for training
    remat: bool = False  # recompute activations in the backward pass instead of keeping them

    def __post_init__(self) -> None:
        for kind, got, choices in (
            ("initialiser", self.init, INITIALIZERS),
            ("normaliser", self.norm, ("batch", "none")),
            ("activation", self.act or "relu", ACTIVATIONS),
            ("padding", self.numerics.padding, PADDINGS),
            ("padding", self.numerics.depthwise_padding, PADDINGS),
            ("dtype", self.dtype, ("float32", "bfloat16", "float16")),
            ("param_dtype", self.param_dtype, ("float32", "bfloat16", "float16")),
        ):
            if got not in choices:
                raise unknown(kind, got, choices)
        if self.num_classes < 0:
            raise ZooError(f"num_classes: got {self.num_classes}, expected 0 or more")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ZooError(f"dropout: got {self.dropout}, expected 0 <= rate < 1")
        if not 0 <= self.drop_path < 1:
            raise ZooError(f"drop_path: got {self.drop_path}, expected 0 <= rate < 1")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Spec":
        return cls(**{**values, "numerics": Numerics(**values["numerics"])})


# Stands for `nnx.Rngs` where Flax asks for the key of a draw: zoo/init.py has the values. A stream
# counts its keys in a traced variable, which takes Flax a time that grows with all that was traced
# before: most of a deep network's building.
NO_DRAWS: Any = SimpleNamespace(params=lambda: None)


@dataclass(frozen=True)
class Context:
    """What every row of a table is built with: a `Spec`, and the random streams to draw from.

    `rngs` names the stream `dropout`; parameters are not drawn as layers are built (`NO_DRAWS`).
    """

    spec: Spec
    rngs: nnx.Rngs

    @property
    def numerics(self) -> Numerics:
        return self.spec.numerics

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.spec.dtype)

    @property
    def param_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.spec.param_dtype)

    @property
    def has_norm(self) -> bool:
        return self.spec.norm != "none"

    def act(self, paper: str | None) -> Activation:
        """The activation to use where the paper has `paper` (None: no activation there)."""
        return ACTIVATIONS["identity" if paper is None else self.spec.act or paper]

    def dropout(self, paper: float) -> float:
        """The dropout rate to use where the paper has `paper`."""
        return paper if self.spec.dropout is None else self.spec.dropout
