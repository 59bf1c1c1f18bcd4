"""`zoo env`: what is installed, what the machine has, and what JAX finds of it."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from .. import __version__
from ..paths import cache_folder
from ..report.table import Column, Table
from .advice import CUDA, advice
from .machine import accelerators, folder_size, memory, processor
from .probe import Fact, ask_jax, attempt, one_line

TIMEOUT = 120.0  # seconds for JAX to answer: a TPU of several hosts waits for the others for ever

COLUMNS = (
    Column("part", "part", left=True),
    Column("name", "what", left=True),
    Column("value", "value", left=True),
)
REQUIRED = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"),
    *("importlib_resources", "safetensors", "ml_dtypes", "numpy", "huggingface_hub", "pillow"),
    *("filelock", "tqdm", "tensorboardX"),
)
OPTIONAL = (
    *("simplejpeg", "cykooz-resizer", "matplotlib", "pandas", "flatbuffers", "onnx"),
    *("onnxruntime", "torch", "tensorflow-cpu"),
)
PLUGINS = (  # reported only where they are installed
    *CUDA,
    *("jax-cuda13-pjrt", "jax-cuda12-pjrt", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
    *("nvidia-nccl-cu13", "nvidia-nccl-cu12", "jax-rocm7-plugin", "jax-metal", "libtpu"),
)
SETTINGS = re.compile(
    r"(ZOO|JAX|XLA|TPU|PJRT|MALLOC|OMP|CUDA_VISIBLE|NVIDIA_VISIBLE|HF_HUB)_.*|HF_HOME|HF_ENDPOINT"
    r"|LIBTPU_INIT_ARGS|GLIBC_TUNABLES|LD_LIBRARY_PATH|LD_PRELOAD|TFDS_DATA_DIR"
)
ALWAYS = ("ZOO_CACHE", "ZOO_OFFLINE", "ZOO_MIRROR")  # reported even where they are not set
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|KEY")


def environment(root: Path = Path("/"), timeout: float = TIMEOUT) -> Table:
    """A report to read, or to put into a bug report. It never raises: whatever fails is reported.

    Passwords in addresses are left out.

    Args:
      root: where `dev`, `proc` and `sys` are.
      timeout: seconds for JAX to answer.
    """
    versions = {name: _version(name) for name in (*REQUIRED, *OPTIONAL, *PLUGINS)}
    present = accelerators(root)
    answers = ask_jax(timeout)
    of_jax = {name: value for part, name, value in answers if part == "jax"}
    rows = [
        ("software", "zoo", f"{__version__}, {files('zoo')}"),
        ("software", "Python", f"{platform.python_version()}, {sys.executable}"),
        ("software", "system", attempt(platform.platform)),
        *(("software", name, versions[name] or "not installed") for name in REQUIRED + OPTIONAL),
        *(("software", name, versions[name] or "") for name in PLUGINS if versions[name]),
        ("machine", "processor", attempt(lambda: processor(root))),
        ("machine", "memory", attempt(memory)),
        *(("machine", "accelerator", name) for name in present.names),
        *answers,
        ("settings", "cache", attempt(lambda: folder_size(cache_folder()))),
        *_settings(),
        *(("advice", "", line) for line in advice(present, versions, of_jax)),
    ]
    facts = tuple((part, name, _printable(value)) for part, name, value in rows)
    return Table("environment", COLUMNS, facts)


def _printable(value: str) -> str:
    """The text on one line; what cannot be encoded becomes `?`."""
    return " ".join(value.encode(errors="replace").decode().split())


def _version(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(name) or "unknown"
    except metadata.PackageNotFoundError:
        return None
    except Exception as error:  # what pip left of an installation that was cut off
        return f"failed: {one_line(error)}"


def _settings() -> Iterator[Fact]:
    """The environment variables that matter, without the secrets in them."""
    for name in sorted({*ALWAYS, *filter(SETTINGS.fullmatch, os.environ)}):
        value = os.environ.get(name)
        if value is None:
            shown = "not set"
        elif SECRET.search(name):
            shown = "set"
        else:
            shown = _without_secrets(value)
        yield "settings", name, shown


def _without_secrets(value: str) -> str:
    """Hide the user, the password and the query of an address.

    >>> _without_secrets("https://me:secret@mirror/path?token=1")
    'https://***@mirror/path?***'
    """
    value = re.sub(r"(\w+://)?\S*@", r"\1***@", value)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1?***", value)
