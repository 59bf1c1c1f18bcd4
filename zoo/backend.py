"""What is told to XLA's CPU backend, and to the memory allocator under it, where we compile.

Nothing of a user's environment is changed, and what the user has set wins:

- `compiler_options()` leaves convolutions and matrix products to Eigen, for our compilations only:
  XLA's newer YNN library takes them by default and is slower at them. It keeps the reductions, at
  which it is far faster. The same flag in `XLA_FLAGS` overrides it.
- `keep_memory()` has malloc keep what is freed, for this process: a fresh page costs more than the
  arithmetic on it. What compiling a large program leaves behind is given back before the program
  runs. `share_heap()` has all threads use one heap, for inference. `ZOO_KEEP_MEMORY=0`,
  or any malloc setting of the user's, overrides both.
- `expect_training()` has programs run in the thread that calls them.
  `JAX_CPU_ENABLE_ASYNC_DISPATCH` overrides it.

On GPU and TPU only `share_heap` applies, for it concerns the host.
"""

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import monitoring

COMPILED = "/jax/core/compile/backend_compile_duration"  # the event of jax.monitoring
YNN = "xla_cpu_experimental_ynn_fusion_type"
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # mallopt(3)


def jit(function: Callable[..., Any], platform: str | None = None, **settings: Any) -> Any:
    """`jax.jit` with the options of a platform; None: of the default backend, which it starts.

    Not for use under another `jax.jit`: the options are then for the caller to set.
    """
    keep_memory()
    return jax.jit(function, compiler_options=compiler_options(platform), **settings)


def under_jit() -> bool:
    """Whether what is computed now, constants too, is traced into the program of a `jax.jit`."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def compiler_options(platform: str | None = None) -> dict[str, str] | None:
    """What `jax.jit(..., compiler_options=)` is to be given for a platform, as `jit` takes it."""
    if (platform or jax.default_backend()) != "cpu" or YNN in os.environ.get("XLA_FLAGS", ""):
        return None
    return {YNN: "LIBRARY_FUSION_TYPE_REDUCE"}


@cache
def keep_memory() -> bool:
    """Have malloc neither map large blocks one by one nor give memory back; True if it does now.

    Only glibc can be told. The process then stays at its peak memory until it ends, but for what
    compiling took.
    """
    if jax.default_backend() != "cpu":
        return False
    kept = _tell_malloc(M_MMAP_MAX, 0) and _tell_malloc(M_TRIM_THRESHOLD, -1)
    if kept:
        monitoring.register_event_duration_secs_listener(_after_compiling)
    return kept


def _after_compiling(event: str, duration_secs: float, **_: Any) -> None:
    """Give back what compiling leaves in the heap, and what was there before as copies of weights.

    It lies in pieces between what stays, so that a program's memory would come on top: 0.3 to 0.5
    GB of the peak of a ResNet-50 or a MobileNet v2 that trains. JAX tells before the program runs.
    """
    if event == COMPILED and duration_secs > 1:
        _trim()


def _trim() -> None:
    ctypes.CDLL(None).malloc_trim(0)


_training = False


def expect_training() -> None:
    """Make this process ready to train; for before JAX computes anything.

    Heaps stay as they are, see `share_heap`. Programs of a single CPU device run in the thread that
    calls them, once their inputs are ready: its heap keeps a step's memory, where those of XLA's
    threads map it anew each time, which is a tenth of a ResNet's step and a quarter of a MobileNet
    v2's. With several devices one would wait for the others.
    """
    global _training
    _training = True
    several = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    several |= jax.config.jax_num_cpu_devices > 1  # type: ignore[attr-defined]
    if not several:
        run_in_calling_thread(True)


def run_in_calling_thread(yes: bool) -> None:
    """Whether CPU programs do; for before JAX computes anything. A user's own setting wins."""
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", not yes)


@cache
def share_heap() -> bool:
    """Have threads that start from now on share one heap; True if they do.

    Other heaps give large blocks back whatever malloc was told, and their pages come back empty:
    MobileNet v2 infers a quarter faster without. It has to be told before XLA starts its threads,
    so models are made with it. Training is better off with many heaps: XLA frees a step's memory a
    moment after the results are ready, and one heap would end up with two such blocks.
    """
    return not _training and _tell_malloc(M_ARENA_MAX, 1)


def _tell_malloc(what: int, value: int) -> bool:
    told = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    wanted = os.environ.get("ZOO_KEEP_MEMORY", "1") != "0"
    if told or not wanted or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(what, value))
