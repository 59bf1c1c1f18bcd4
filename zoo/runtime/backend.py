"""Settings of XLA's CPU backend and of the memory allocator, for the programs that we compile.

The user's environment is not changed, and a user's own settings take precedence:

- `compiler_options()` makes XLA compute convolutions and matrix products with Eigen, in our
  programs only. By default XLA uses its newer YNN library for them, which is slower. Reductions
  stay with YNN, which is far faster at those. For inference, and for training in bfloat16, they go
  to oneDNN where jaxlib has it (0.11 and later). The same flags in `XLA_FLAGS` override this.
- `keep_memory()` makes malloc keep freed memory in this process, because mapping a fresh page costs
  more than the arithmetic on it. Memory left over from compiling a large program is returned to
  the system before the program runs. `share_heap()` makes all threads use one heap, for inference.
  `ZOO_KEEP_MEMORY=0`, or any malloc setting of the user's, turns both off.
- `expect_training()` makes programs run in the thread that calls them.
  `JAX_CPU_ENABLE_ASYNC_DISPATCH` overrides this.

On GPU and TPU only `share_heap` applies, since it concerns the host.
"""

import ctypes
import os
import platform
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, monitoring
from jax.extend.core import get_opaque_trace_state

from .machine import processor_flags

COMPILED = "/jax/core/compile/backend_compile_duration"  # the event of jax.monitoring
YNN = "xla_cpu_experimental_ynn_fusion_type"
ONEDNN = "xla_cpu_experimental_onednn_custom_call"
DISABLED = "xla_disable_hlo_passes"
MAKES_DENSE = "convolution-group-converter"  # a pass: grouped convolutions, unless in float32
BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # what processors call it
UNCACHED = "Error writing persistent compilation cache entry .* std::bad_alloc"
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # mallopt(3)


def jit(
    function: Callable[..., Any],
    platform: str | None = None,
    *,
    library: str = "eigen",
    inference: bool = False,
    **settings: Any,
) -> Any:
    """`jax.jit` with our compiler options for `platform`.

    None means the default backend, which is then started. Do not use it inside another `jax.jit`:
    compiler options belong to the outermost one. `library` and `inference` are those of
    `compiler_options`.
    """
    keep_memory()
    options = compiler_options(platform, library, inference=inference)
    return jax.jit(function, compiler_options=options, **settings)


def under_jit() -> bool:
    """Whether we are inside a `jax.jit`, so that even constants are traced into its program."""
    if get_opaque_trace_state() == _outside():  # in no time, where an operation takes 0.1 ms
        return False
    return isinstance(jnp.zeros(()), jax.core.Tracer)


@cache
def _outside() -> Any:
    """What JAX says of its state outside of all transformations, as in a thread of its own."""
    with ThreadPoolExecutor(1) as own:
        return own.submit(get_opaque_trace_state).result()


def compiler_options(
    platform: str | None = None, library: str = "eigen", *, inference: bool = False
) -> dict[str, str | bool] | None:
    """The value for `jax.jit(..., compiler_options=)` on a platform; None as in `jit`.

    Args:
      platform: what the program is for.
      library: of convolutions and products on CPU, "eigen" or "onednn"; Eigen where `onednn()` is
        false.
      inference: the program takes no gradients, so that XLA need not rewrite the gradients of
        grouped convolutions. It then leaves grouped ones of bfloat16 to oneDNN too.
    """
    if (platform or jax.default_backend()) != "cpu" or YNN in os.environ.get("XLA_FLAGS", ""):
        return None
    options: dict[str, str | bool] = {YNN: "LIBRARY_FUSION_TYPE_REDUCE"}
    if library == "onednn" and onednn():
        options[ONEDNN] = True
        if inference:
            options[DISABLED] = MAKES_DENSE
    return options


def fastest(dtype: str, *, inference: bool) -> tuple[str, str]:
    """What a program on CPU is compiled by: the library, and the variants of `zoo.ops` (`only`).

    Inference goes to oneDNN where jaxlib has it, training in bfloat16 likewise, but with our own
    lowerings, as oneDNN's gradients of depthwise convolutions are slow. Training in float32 is
    faster by Eigen. `python -m benchmarks.ops` measures each kind of layer by each of them.

    In bfloat16 it is Eigen on a processor that does not multiply it: there oneDNN takes its
    reference implementation, several times slower, or has none and ends the process.

    Args:
      dtype: what the network computes in.
      inference: no gradients are taken.
    """
    narrow = dtype == "bfloat16"
    if not onednn() or (narrow and not multiplies_bfloat16()):
        return "eigen", "cpu"
    return ("onednn" if inference or narrow else "eigen"), "onednn" if inference else "cpu"


def against_bfloat16() -> str | None:
    """Why it is no faster than float32 on this CPU; None where it is, as a rule."""
    if not onednn():
        return "without oneDNN (jax 0.11 or later, no XLA_FLAGS against it)"
    return None if multiplies_bfloat16() else "the processor has no instructions for it"


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 that oneDNN uses."""
    return not BFLOAT16.isdisjoint(processor_flags())


@cache
def onednn() -> bool:
    """Whether XLA gives convolutions on CPU to oneDNN if told to: asked once, of a small program.

    jaxlib 0.10 knows the option and ignores it. False as well where a GPU or TPU is the default, or
    where `XLA_FLAGS` says something of an option that comes with it. No version can write such
    programs to the compilation cache; each says so with a warning, which is then ignored.
    """
    asked = os.environ.get("XLA_FLAGS", "")
    if jax.default_backend() != "cpu" or any(o in asked for o in (YNN, ONEDNN, DISABLED)):
        return False

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 8), (3, 3, 8, 8))]
    options: dict[str, str | bool] = {
        YNN: "LIBRARY_FUSION_TYPE_REDUCE",
        ONEDNN: True,
        DISABLED: MAKES_DENSE,
    }
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", UNCACHED)
            program = jax.jit(convolve, compiler_options=options).lower(*shapes).compile()
    except jax.errors.JaxRuntimeError:  # an option that this version does not know
        return False
    if "onednn$convolution" not in (program.as_text() or ""):
        return False
    warnings.filterwarnings("ignore", UNCACHED)
    return True


def caches_programs() -> bool:
    """Whether JAX keeps compiled programs in a folder."""
    settings = jax.config.values
    return bool(settings["jax_compilation_cache_dir"] and settings["jax_enable_compilation_cache"])


@cache
def keep_memory() -> bool:
    """Make malloc keep freed memory instead of returning it; True if that worked.

    It works with glibc only. The process then stays at its peak memory until it ends, except for
    what compiling took.
    """
    if jax.default_backend() != "cpu":
        return False
    kept = _tell_malloc(M_MMAP_MAX, 0) and _tell_malloc(M_TRIM_THRESHOLD, -1)
    if kept:
        monitoring.register_event_duration_secs_listener(_after_compiling)
    return kept


def _after_compiling(event: str, duration_secs: float, **_: Any) -> None:
    """Return the memory that compiling, or copying weights before it, has left free in the heap.

    It is too fragmented for the program to use, and would add 0.3 to 0.5 GB to the peak of training
    a ResNet-50 or a MobileNet v2. JAX reports the event before the program runs.
    """
    if event == COMPILED and duration_secs > 1:
        trim()


def trim() -> None:
    """Return the memory that is free in the heap to the system, if `keep_memory` kept it there."""
    if keep_memory():
        ctypes.CDLL(None).malloc_trim(0)


_training = False


def expect_training() -> None:
    """Prepare this process for training. Call it before JAX computes anything.

    Heaps are not shared, see `share_heap`. With a single CPU device, programs run in the calling
    thread once their inputs are ready. The heap of that thread keeps the memory of a step; the
    heaps of XLA's threads map it anew every time, which takes a tenth of a ResNet's step and a
    quarter of a MobileNet v2's. With several devices, each would have to wait for the others.
    """
    global _training
    _training = True
    several = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    several |= jax.config.jax_num_cpu_devices > 1  # type: ignore[attr-defined]
    if not several:
        run_in_calling_thread(True)


def run_in_calling_thread(yes: bool) -> None:
    """Choose whether CPU programs run in the thread that calls them.

    Call it before JAX computes anything. `JAX_CPU_ENABLE_ASYNC_DISPATCH` takes precedence.
    """
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", not yes)


@cache
def share_heap() -> bool:
    """Make all threads started from now on share one heap; True if that worked.

    Heaps other than the main one return large blocks to the system whatever malloc was told, and
    have to map them anew: with one heap, inference with MobileNet v2 is a quarter faster. The
    setting only works before XLA starts its threads, so it is made when a network is created.
    Training does better with many heaps: XLA frees the memory of a step shortly after the results
    are ready, and a single heap would end up holding two such blocks.
    """
    return not _training and _tell_malloc(M_ARENA_MAX, 1)


def _tell_malloc(what: int, value: int) -> bool:
    users = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    wanted = os.environ.get("ZOO_KEEP_MEMORY", "1") != "0"
    if users or not wanted or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(what, value))
