"""Any `nnx.Module` that maps images to logits, as a network of the zoo."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from .context import Spec
from .errors import ZooError
from .layers import Network, walk
from .preprocess import IMAGENET, Preprocess
from .runtime.calling import computes_in


@dataclass(frozen=True)
class NoRows:
    """The body and the head of a network that is not made of tables."""

    order: tuple[str, ...] = ()


class Wrapped(Network):
    """A module from outside the zoo, as a `Network`. It holds the module itself, not a copy.

    The module is put into inference mode (`nnx.Module.eval`). Its stages are its attributes that
    have parameters.

    Args:
      module: maps images [N, H, W, C] float to logits [N, K].
      preprocess: of the images.

    Raises:
      ZooError: the module cannot be called like that, or returns something else.
    """

    def __init__(self, module: nnx.Module, preprocess: Preprocess):
        module.eval()
        self.module = module
        self.deterministic = True
        self.preprocess = preprocess
        self.min_size = 1
        self.notes = ()
        self.origin = None
        self.classes = ()
        self.body = self.head = NoRows()  # type: ignore[assignment]
        self.classifier = None
        self.aux_after = ()
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        classes = _classes(module, preprocess, name)
        self.spec = Spec(
            name,
            num_classes=classes,
            in_chans=preprocess.in_chans,
            dtype=computes_in(module),
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The module's attributes that have parameters, in the order in which they were set."""
        state = nnx.to_pure_dict(nnx.state(self.module, nnx.Param))
        return tuple(name for name in vars(self.module) if name in state)

    @walk
    def steps(self, x: jax.Array) -> Iterator[tuple[str, jax.Array]]:
        """The one stage there is: the module itself."""
        with jax.named_scope("module"):
            x = self.module(x)
        yield "module", x


def wrapped(module: nnx.Module, size: int | None, in_chans: int | None = None) -> Wrapped:
    """A module as a network, preprocessed as its attribute `preprocess` says, or else as ImageNet.

    Args:
      module: maps images [N, H, W, C] float to logits [N, K].
      size: side of the images, pixels; None: what the preprocessing says.
      in_chans: channels of the images; None: what the preprocessing says.

    Raises:
      ZooError: as `Wrapped`.
    """
    own = getattr(module, "preprocess", None)
    own = own if isinstance(own, Preprocess) else IMAGENET
    return Wrapped(module, own.at_size(size or own.size).of_channels(in_chans or own.in_chans))


def _classes(module: nnx.Module, preprocess: Preprocess, name: str) -> int:
    shape = (1, *preprocess.shape)
    if not callable(module):
        raise ZooError(f"model: {name} cannot be called, expected images -> logits")
    try:
        logits = nnx.eval_shape(lambda m, x: m(x), module, jnp.zeros(shape))
    except (TypeError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise ZooError(f"model: {name} does not take images {list(shape)}: {said:.200}") from error
    if not hasattr(logits, "shape") or len(logits.shape) != 2 or logits.shape[0] != 1:
        got = list(logits.shape) if hasattr(logits, "shape") else type(logits).__name__
        raise ZooError(f"model: {name} gives {got} for images {list(shape)}, expected [1, classes]")
    return int(logits.shape[1])
