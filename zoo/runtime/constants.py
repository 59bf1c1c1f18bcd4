"""Programs that have a network's weights in them, for `calling`.

oneDNN wants kernels in an order of its own. XLA has them reordered at every call where they are
arguments of a program, and once where they are constants of it.
"""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from . import backend

MOST = 1 << 30  # bytes of weights in all programs of a network
SETTINGS = ("default_device", "default_matmul_precision", "enable_x64")  # what a program depends on


class Constants:
    """The programs of a network whose weights have these values: one for each shape of images.

    Each holds one copy of the weights, and is compiled at the first call with images of its shape.
    """

    def __init__(self, jitted: Any, values: list[Any]) -> None:
        """Compile nothing yet.

        Args:
          jitted: x -> result, with the values in it.
          values: of the variables.
        """
        self.values = values
        self._jitted = jitted
        self._each = sum(leaf.nbytes for leaf in jax.tree.leaves(values))
        self._programs: dict[tuple[Any, ...], Callable[[Any], Any]] = {}

    def program(self, x: Any) -> Callable[[Any], Any] | None:
        """The program for images such as these; None if their weights are to be arguments.

        That is so where the copies would exceed `MOST`, under `jax.disable_jit`, and where x is no
        array.
        """
        if jax.config.jax_disable_jit or not isinstance(x, np.ndarray | jax.Array):  # type: ignore[attr-defined]
            return None
        kind = (x.shape, x.dtype, getattr(x, "weak_type", False), getattr(x, "sharding", None))
        key = (*kind, *(getattr(jax.config, f"jax_{name}") for name in SETTINGS))
        if key not in self._programs:
            if (len(self._programs) + 1) * self._each > MOST:
                return None
            self._programs[key] = self._compile(x)
        return self._programs[key]

    def _compile(self, x: Any) -> Callable[[Any], Any]:
        """Lower it in a thread of its own, and keep nothing but the executable.

        JAX reuses one MLIR context for several programs of a thread, which would keep a copy of the
        weights as long as any of those programs is there.
        """
        with ThreadPoolExecutor(1) as own:
            program = own.submit(self._jitted.trace(x).lower).result().compile()
        self._jitted.clear_cache()
        gc.collect(1)  # what was lowered lies in a cycle
        backend.trim()
        return program  # type: ignore[no-any-return]
