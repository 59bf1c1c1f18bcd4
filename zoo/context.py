"""How a network computes, apart from its architecture.

`Numerics` says how a source of weights computes what papers leave open, such as padding. `Context`
adds precision and switches (initialiser, normaliser, activation, dropout). Layers read both;
architecture files read neither.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from . import ops
from .errors import ZooError, unknown
from .settings import flag, real, shown, whole
from .switches import NORMS, initial, left_out

Activation = Callable[[jax.Array], jax.Array]

# --- padding rules: (input length, kernel, stride) -> (before, after) -----------------------------


def _symmetric(_length: int, kernel: int, _stride: int) -> tuple[int, int]:
    return (kernel - 1) // 2, (kernel - 1) // 2


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _same_even(_length: int, kernel: int, stride: int) -> tuple[int, int]:
    return _same(stride * kernel, kernel, stride)


def _valid(_length: int, _kernel: int, _stride: int) -> tuple[int, int]:
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

    Raises:
      ZooError: a field that is not the number or the bool it should be.
    """

    padding: str = "symmetric"  # a key of PADDINGS
    depthwise_padding: str = "symmetric"  # of depthwise convolutions
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    bn_scale: bool = True  # batch norm has a trainable scale
    conv_bias: bool = False  # convolutions keep a bias beside batch norm
    avg_pool_counts_padding: bool = True  # padded zeros enter the mean
    max_pool_pads_zeros: bool = False  # zeros that may win, not -inf

    def __post_init__(self) -> None:
        epsilon = real("bn_epsilon", self.bn_epsilon, "0 < epsilon <= 1")
        if not 0 < epsilon <= 1:
            raise ZooError(f"bn_epsilon: got {epsilon}, expected 0 < epsilon <= 1")
        momentum = real("bn_momentum", self.bn_momentum, "0 <= momentum <= 1")
        if not 0 <= momentum <= 1:
            raise ZooError(f"bn_momentum: got {momentum}, expected 0 <= momentum <= 1")
        flags = ("bn_scale", "conv_bias", "avg_pool_counts_padding", "max_pool_pads_zeros")
        _set(self, bn_epsilon=epsilon, bn_momentum=momentum)
        _set(self, **{name: flag(name, getattr(self, name)) for name in flags})


def _set(record: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass, in its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


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


# Defined here, because a network is pickled and copied together with its activations, and pickle
# cannot find most functions of jax.nn by name.


@ops.activation
def relu(x: jax.Array) -> jax.Array:
    """`max(x, 0)`."""
    return jax.nn.relu(x)


@ops.activation
def relu6(x: jax.Array) -> jax.Array:
    """`min(max(x, 0), 6)`."""
    return jax.nn.relu6(x)


@ops.activation
def tanh(x: jax.Array) -> jax.Array:
    """The hyperbolic tangent."""
    return jnp.tanh(x)


@ops.activation
def sigmoid(x: jax.Array) -> jax.Array:
    """`1 / (1 + exp(-x))`."""
    return jax.nn.sigmoid(x)


@ops.activation
def silu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(x)`, also called swish."""
    return jax.nn.silu(x)


@ops.activation
def gelu(x: jax.Array) -> jax.Array:
    """`x` times the normal distribution function of `x`: the exact GELU, by `erf`."""
    return jax.nn.gelu(x, approximate=False)


@ops.activation
def hard_sigmoid(x: jax.Array) -> jax.Array:
    """`relu6(x + 3) / 6`."""
    return jax.nn.hard_sigmoid(x)


@ops.activation
def hard_swish(x: jax.Array) -> jax.Array:
    """`x * hard_sigmoid(x)`."""
    return jax.nn.hard_swish(x)


def identity(x: jax.Array) -> jax.Array:
    """`x` as it is: no activation."""
    return x


ACTIVATIONS: dict[str, Activation] = {
    act.__name__: act
    for act in (relu, relu6, tanh, sigmoid, silu, gelu, hard_sigmoid, hard_swish, identity)
}


DTYPES = ("float32", "bfloat16", "float16")
MOST_CLASSES = 10_000_000
MOST_CHANNELS = 10_000


@dataclass(frozen=True)
class Spec:
    """The arguments of `zoo.create`, from which a network can be rebuilt; kept on the model.

    NumPy numbers and dtypes are converted, so that it can be written as JSON.

    Raises:
      ZooError: an unknown activation, initialiser, normaliser or padding; a field that is not a
        number, or out of its range.
    """

    name: str
    num_classes: int = 1000  # 0: no classifier, the pooled features are the output
    in_chans: int = 3  # channels of the pictures
    dtype: str = "float32"  # of the computation
    param_dtype: str = "float32"
    numerics: Numerics = TORCH
    init: str = "he_normal"
    norm: str = "batch"  # "batch" or "none"
    act: str | None = None  # None: the paper's own
    without: str = ""  # what is left out, of `WITHOUT`, with commas between
    dropout: float | None = None  # None: the paper's own
    drop_path: float = 0.0  # stochastic depth: the last residual block's chance to be skipped
    aux: bool = False  # with the auxiliary classifiers that a network may have for training
    remat: bool = False  # recompute activations in the backward pass instead of keeping them

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ZooError(f"network: got {shown(self.name)}, expected a name")
        if not isinstance(self.numerics, Numerics):
            raise ZooError(f"numerics: got {shown(self.numerics)}, expected a zoo.Numerics")
        _set(
            self,
            num_classes=whole("num_classes", self.num_classes, high=MOST_CLASSES),
            in_chans=whole("in_chans", self.in_chans, 1, MOST_CHANNELS),
            dtype=dtype_name("dtype", self.dtype),
            param_dtype=dtype_name("param_dtype", self.param_dtype),
            dropout=None if self.dropout is None else _rate("dropout", self.dropout),
            drop_path=_rate("drop_path", self.drop_path),
            aux=flag("aux", self.aux),
            remat=flag("remat", self.remat),
        )
        for kind, got, choices in (
            ("normaliser", self.norm, NORMS),
            ("activation", "relu" if self.act is None else self.act, ACTIVATIONS),
            ("padding", self.numerics.padding, PADDINGS),
            ("padding", self.numerics.depthwise_padding, PADDINGS),
        ):
            if not isinstance(got, str) or got not in choices:
                raise unknown(kind, got, choices)
        initial(self.init)  # for what it refuses
        _set(self, without=left_out(self.without))

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, ready for JSON; see `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Spec":
        """Rebuild a `Spec` from what `to_dict` returned."""
        return cls(**{**values, "numerics": Numerics(**values["numerics"])})


def dtype_name(name: str, value: Any) -> str:
    """The name of a dtype, if networks can compute in it."""
    try:
        got = jnp.dtype(value).name
    except TypeError:
        got = value if isinstance(value, str) else shown(value)
    if got not in DTYPES:
        raise unknown(name, got, DTYPES)
    return str(got)


def _rate(name: str, value: Any) -> float:
    rate = real(name, value, "0 <= rate < 1")
    if not 0 <= rate < 1:
        raise ZooError(f"{name}: got {rate}, expected 0 <= rate < 1")
    return rate


# Passed where Flax asks for `nnx.Rngs` to initialise parameters, which zoo/init.py does instead. A
# stream of `nnx.Rngs` counts its keys in a traced variable, which takes longer the more has been
# traced before: that would be most of the time needed to build a deep network.
NO_DRAWS: Any = SimpleNamespace(params=lambda: None)


@dataclass(frozen=True)
class Context:
    """What every row of a table is built with: a `Spec` and random streams.

    `rngs` has the stream `dropout`. Parameters are not drawn while layers are built (`NO_DRAWS`).
    """

    spec: Spec
    rngs: nnx.Rngs
    rewrite: Callable[[int, Any], Any] = lambda _channels, table: table  # see zoo/without.py
    used: set[str] = field(default_factory=set)  # the switches that mean something to the network

    @property
    def numerics(self) -> Numerics:
        """How the source of the weights computes the network."""
        return self.spec.numerics

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the activations."""
        return jnp.dtype(self.spec.dtype)

    @property
    def param_dtype(self) -> jnp.dtype:
        """The dtype of the parameters."""
        return jnp.dtype(self.spec.param_dtype)

    @property
    def has_norm(self) -> bool:
        """Whether the network has normalisers, batch norm as a rule."""
        self.used.add("norm")
        return self.spec.norm != "none"

    @property
    def has_shortcuts(self) -> bool:
        """Whether the network keeps its residual connections."""
        self.used.add("residual")
        return "residual" not in self.spec.without

    def act(self, paper: str | None) -> Activation:
        """The activation to use where the paper has `paper` (None: no activation there)."""
        return ACTIVATIONS["identity" if paper is None else self.spec.act or paper]

    def dropout(self, paper: float) -> float:
        """The dropout rate to use where the paper has `paper`."""
        self.used.add("dropout")
        return paper if self.spec.dropout is None else self.spec.dropout
