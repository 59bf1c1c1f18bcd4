"""The memory that a run will need on each device, worked out before anything is allocated."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo import ops
from zoo.preprocess import Preprocess
from zoo.report.memory import held

from .config import TrainConfig
from .state import Program, TrainState
from .step import AXIS


@dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    parameters: int  # trained, frozen and averaged, and BN statistics
    optimizer: int
    gradients: int
    activations: int  # kept from the forward for the backward pass

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch size."""
        return self.parameters + self.optimizer + self.gradients

    @property
    def total(self) -> int:
        """Bytes on each device: all parts together."""
        return self.fixed + self.activations

    def __str__(self) -> str:
        parts = ("parameters", "optimizer", "gradients", "activations")
        listed = ", ".join(f"{part} {megabytes(getattr(self, part))}" for part in parts)
        return f"memory a device: about {megabytes(self.total)} ({listed})"


def needs(
    program: Program, preprocess: Preprocess, config: TrainConfig, state: TrainState, devices: int
) -> Memory:
    """The memory of training: the state, one set of gradients, the activations of one part.

    Activations are counted as by `zoo.count`, with auxiliary classifiers where the network has
    some. XLA's scratch space and the input's prefetched batches come on top.

    Args:
      program: the network.
      preprocess: for the size of its input.
      config: for the batch size and the parts of a batch.
      state: arrays, or their shapes.
      devices: how many share a batch.
    """
    part = max(config.batch_size // devices // config.accumulate, 1)
    images = jax.ShapeDtypeStruct((part, *preprocess.shape), jnp.float32)

    def residuals(params: tuple[Any, Any], stats: Any, x: jax.Array) -> list[Any]:
        trained, frozen = params

        def forward(trained: Any) -> Any:
            key = jax.random.key(0)
            model = program.network({**trained, **frozen}, stats, dropout=key)
            return model.forward(x)

        return jax.tree.leaves(jax.vjp(forward, trained)[1])

    with ops.native_only():  # or the activations of all platforms' variants would be added up
        activations = held(
            residuals, (state.params, state.frozen), state.stats, images, axis=(AXIS, devices)
        )
    weights = size((state.params, state.frozen, state.stats))
    return Memory(
        parameters=weights + size(state.ema),
        optimizer=size(state.opt_state),
        gradients=size(state.params),
        activations=activations,
    )


def size(tree: Any) -> int:
    """Bytes of all arrays in a tree."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def megabytes(count: int) -> str:
    """A number of bytes for people: "21.3 MB", "1.25 GB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
