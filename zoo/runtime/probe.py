"""What JAX finds, asked in a process of its own, question by question.

If a flag, a plugin or a driver crashes or hangs that process, the answers say so in a line.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from ..errors import ZooError
from .machine import folder_size, readable_size

Fact = tuple[str, str, str]  # part of the report, what, value

MARK = "zoo env: "  # before a fact that the process prints
SAID = 300  # characters of what was said on stderr
COMPLAINT = re.compile(  # but no line of a stack
    r"^(?!@|File |\*\*\*).*(error|warn|fail|unable|unknown|cannot|not installed)", re.IGNORECASE
)


def attempt(ask: Callable[[], str]) -> str:
    """An answer, or the error in its place: a failure belongs in the report."""
    try:
        return ask()
    except Exception as error:
        return f"failed: {one_line(error)}"


def one_line(error: Exception) -> str:
    """An error in one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, ZooError) else f"{type(error).__name__}: {first}".rstrip(": ")


def ask_jax(timeout: float) -> list[Fact]:
    """What `main` prints in its process, and how that process ended if it failed.

    Args:
      timeout: seconds until the process is ended.
    """
    env = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a run may have the GPU's memory
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
    }
    said, end = "", ""
    try:
        asked = subprocess.run(
            [sys.executable, "-m", __name__],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )
        out, said = asked.stdout.decode(errors="replace"), asked.stderr.decode(errors="replace")
        if asked.returncode < 0:
            end = f"failed: the process was ended by signal {-asked.returncode}"
        elif asked.returncode:
            end = f"failed: the process ended with {asked.returncode}"
    except subprocess.TimeoutExpired as late:
        out, said = ((text or b"").decode(errors="replace") for text in (late.stdout, late.stderr))
        end = f"failed: no answer in {timeout:g} s"
    except (OSError, ValueError) as error:
        out, end = "", f"failed: {one_line(error)}"
    rows = sorted(_facts(out), key=lambda row: row[0] == "fast paths")
    if end:
        rows.append(("jax", "process", end))
    if line := _complaint(said):
        rows.append(("jax", "says", line))
    return rows


def _facts(out: str) -> Iterator[Fact]:
    """The facts in the output, without what plugins print between them."""
    for line in out.splitlines():
        if line.startswith(MARK):
            part, name, value = json.loads(line.removeprefix(MARK))
            yield part, name, value


def _complaint(said: str) -> str:
    """The last line of stderr that sounds like a complaint; empty if there is none."""
    lines = [line.strip() for line in said.splitlines()]
    return next((line[:SAID] for line in reversed(lines) if COMPLAINT.search(line)), "")


def main() -> None:
    """Print a fact for each question, as JSON, as soon as it is answered."""

    def answer(part: str, name: str, ask: Callable[[], str]) -> str:
        value = attempt(ask)
        print(MARK + json.dumps([part, name, value]), flush=True)
        return value

    answer("fast paths", "JPEG", _jpeg)
    kind = answer("jax", "backend", _backend)
    if kind.startswith("failed"):
        return
    answer("jax", "devices", _devices)
    answer("jax", "version", _platform_version)
    answer("jax", "a convolution", _convolution)
    lowerings = {"cpu": "ours", "gpu": "ours for images and depthwise convolutions"}
    answer("fast paths", "lowerings", lambda: lowerings.get(kind, "XLA's own"))
    if kind == "cpu":
        answer("fast paths", "compiler options", _compiler_options)
        answer("fast paths", "bfloat16", _bfloat16)
        answer("fast paths", "malloc keeps memory", _keeps_memory)
    answer("fast paths", "compilation cache", _compilation_cache)


def _backend() -> str:
    import jax

    return jax.default_backend()


def _devices() -> str:
    import jax

    def kind(device: jax.Device) -> str:
        limit = (device.memory_stats() or {}).get("bytes_limit")
        return str(device.device_kind) + (f", {readable_size(limit)} each" if limit else "")

    kinds = [kind(device) for device in jax.local_devices()]
    return "; ".join(f"{kinds.count(name)} x {name}" for name in dict.fromkeys(kinds))


def _platform_version() -> str:
    import jax

    return " ".join(jax.devices()[0].client.platform_version.split())


def _convolution() -> str:
    """Whether a convolution gives the right result: on a GPU, that needs cuDNN and the compiler."""
    import jax.numpy as jnp
    from jax import lax

    from . import backend

    def convolve(x: jnp.ndarray, w: jnp.ndarray) -> jnp.ndarray:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=layout)

    began = time.perf_counter()
    y = backend.jit(convolve)(jnp.ones((4, 16, 16, 32)), jnp.ones((3, 3, 32, 64)))
    right = bool((y == 3 * 3 * 32).all())
    return f"{'right' if right else 'WRONG'}, {time.perf_counter() - began:.1f} s with compilation"


def _jpeg() -> str:
    """What decodes JPEG files, as `training.decode` decides it."""
    try:
        import cykooz_resizer  # noqa: F401
        import simplejpeg  # noqa: F401
    except ImportError as error:
        return f"Pillow alone ({one_line(error)})"
    return "libjpeg-turbo and a SIMD resizer"


def _compiler_options() -> str:
    from . import backend

    options = backend.compiler_options() or {}
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "none"


def _bfloat16() -> str:
    """Whether it is worth asking for: measured on processors with AMX and with AVX-512."""
    from . import backend

    if why := backend.against_bfloat16():
        return f"no faster than float32: {why}"
    return "oneDNN: faster than float32, mostly"


def _keeps_memory() -> str:
    from . import backend

    return "yes" if backend.keep_memory() else "no"


def _compilation_cache() -> str:
    import jax

    from .cache import enable_compilation_cache

    folder = enable_compilation_cache()
    if folder is None:
        return "off (ZOO_COMPILE_CACHE, or a folder that cannot be written to)"
    limit = jax.config.values["jax_compilation_cache_max_size"]
    return (
        f"{folder_size(folder)}, {'any size' if limit < 0 else f'at most {readable_size(limit)}'}"
    )


if __name__ == "__main__":
    main()
