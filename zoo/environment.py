"""`zoo env`: what is installed, what the machine has, and what JAX finds of it.

JAX is queried in a process of its own, question by question. If a flag, a plugin or a driver
crashes or hangs that process, the report says so in a line.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import __version__
from .errors import ZooError
from .paths import cache_folder
from .report.table import Column, Table

Row = tuple[str, str, str]  # part, what, value

TIMEOUT = 120.0  # seconds for JAX to answer: a TPU of several hosts waits for the others for ever
SMI_TIMEOUT = 20.0  # seconds for nvidia-smi, which asks each GPU
GOOGLE = "0x1ae0"  # as a vendor of PCI devices
MARK = "zoo env: "  # before a row that the process prints
SAID = 300  # characters of what was said on stderr

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
CUDA = {"jax-cuda13-plugin": 580, "jax-cuda12-plugin": 525}  # the oldest driver that will do
PLUGINS = (  # told of where they are installed
    *CUDA,
    *("jax-cuda13-pjrt", "jax-cuda12-pjrt", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
    *("nvidia-nccl-cu13", "nvidia-nccl-cu12", "jax-rocm7-plugin", "jax-metal", "libtpu"),
)
SETTINGS = re.compile(
    r"(ZOO|JAX|XLA|TPU|PJRT|MALLOC|OMP|CUDA_VISIBLE|NVIDIA_VISIBLE|HF_HUB)_.*|HF_HOME|HF_ENDPOINT"
    r"|LIBTPU_INIT_ARGS|GLIBC_TUNABLES|LD_LIBRARY_PATH|LD_PRELOAD|TFDS_DATA_DIR"
)
COMPLAINT = re.compile(  # but no line of a stack
    r"^(?!@|File |\*\*\*).*(error|warn|fail|unable|unknown|cannot|not installed)", re.IGNORECASE
)
ALWAYS = ("ZOO_CACHE", "ZOO_OFFLINE", "ZOO_MIRROR")  # told of where they are not set, too
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|KEY")


def environment(root: Path = Path("/"), timeout: float = TIMEOUT) -> Table:
    """A report to read, or to put into a bug report. It never raises: what is broken is a line.

    Passwords in addresses are left out.

    Args:
      root: where `dev`, `proc` and `sys` are.
      timeout: seconds for JAX to answer.
    """
    versions = {name: _version(name) for name in (*REQUIRED, *OPTIONAL, *PLUGINS)}
    found = _accelerators(root)
    answers = _answers(timeout)
    told = {name: value for part, name, value in answers if part == "jax"}
    rows = [
        ("software", "zoo", f"{__version__}, {Path(__file__).parent}"),
        ("software", "Python", f"{platform.python_version()}, {sys.executable}"),
        ("software", "system", _told(platform.platform)),
        *(("software", name, versions[name] or "not installed") for name in REQUIRED + OPTIONAL),
        *(("software", name, versions[name] or "") for name in PLUGINS if versions[name]),
        ("machine", "processor", _told(lambda: _processor(root))),
        ("machine", "memory", _told(_memory)),
        *(("machine", "accelerator", name) for name in found.names),
        *answers,
        ("settings", "cache", _told(lambda: _folder(cache_folder()))),
        *_settings(),
        *(("advice", "", line) for line in _advice(found, versions, told)),
    ]
    return Table("environment", COLUMNS, tuple((part, name, _plain(v)) for part, name, v in rows))


def _told(ask: Callable[[], str]) -> str:
    """An answer, or the error in its place: what is broken belongs in the report."""
    try:
        return ask()
    except Exception as error:
        return f"failed: {_line(error)}"


def _line(error: Exception) -> str:
    """An error in one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, ZooError) else f"{type(error).__name__}: {first}".rstrip(": ")


def _plain(value: str) -> str:
    """The text on one line, without what cannot be printed."""
    return " ".join(value.encode(errors="replace").decode().split())


def _version(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(name) or "unknown"
    except metadata.PackageNotFoundError:
        return None
    except Exception as error:  # what pip left of an installation that was cut off
        return f"failed: {_line(error)}"


def _size(count: float) -> str:
    """A number of bytes in readable units.

    >>> _size(85.0e9), _size(2_345_678)
    ('85.0 GB', '2.3 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# --- The machine ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Accelerators:
    """The accelerators of one kind in the machine, whether JAX can use them or not."""

    names: tuple[str, ...]  # "NVIDIA H100 80GB HBM3, 81559 MiB, driver 580.65.06"
    nvidia: bool
    driver: str  # NVIDIA's, "580.65.06"; empty if unknown
    tpu: bool


def _accelerators(root: Path) -> _Accelerators:
    cards = _nvidia_smi()
    version = _read(root / "proc/driver/nvidia/version")
    driver = cards[0].rpartition("driver ")[2] if cards else ""
    if not driver and (number := re.search(r"Module\D*([\d.]+)", version)):
        driver = number[1]
    nodes = sorted(f"/dev/{path.name}" for path in (root / "dev").glob("nvidia[0-9]*"))
    nvidia = bool(cards or nodes or version)
    if nvidia and not cards:
        cards = [f"NVIDIA GPU, {' '.join(nodes) or 'its driver is loaded'}, driver {driver or '?'}"]
    tpus = _tpus(root)
    names = (*cards, *([f"TPU, {' '.join(tpus)}"] if tpus else []))
    return _Accelerators(names, nvidia, driver, bool(tpus))


def _nvidia_smi() -> list[str]:
    """The name, memory and driver of each GPU; none if `nvidia-smi` is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=SMI_TIMEOUT)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(", ") for line in asked.stdout.splitlines() if line.count(",") >= 2]
    return [f"{card}, driver {driver}" for card, _, driver in rows] if asked.returncode == 0 else []


def _tpus(root: Path) -> list[str]:
    """The device nodes of TPUs. Those under `vfio` are of other devices on other machines."""
    nodes = sorted((root / "dev").glob("accel[0-9]*"))
    vendors = [_read(path).strip() for path in root.glob("sys/bus/pci/devices/*/vendor")]
    if GOOGLE in vendors or any(name.startswith("TPU_") for name in os.environ):
        nodes += sorted((root / "dev/vfio").glob("[0-9]*"))
    return [f"/{node.relative_to(root)}" for node in nodes]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _processor(root: Path) -> str:
    """The model of the CPU, and the number of cores that this process may use."""
    name = re.search(r"^model name\s*: (.+)", _read(root / "proc/cpuinfo"), re.MULTILINE)
    if hasattr(os, "sched_getaffinity"):  # on Linux
        cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    else:
        cores = f"{os.cpu_count()} cores"
    return f"{name[1] if name else platform.processor() or platform.machine()}, {cores}"


def _memory() -> str:
    return _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _folder(folder: Path) -> str:
    sizes = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process has just removed it
            if path.is_file() and not path.is_symlink():
                sizes.append(path.stat().st_size)
    return f"{folder}, {_size(sum(sizes))} in {len(sizes):,} files"


def _settings() -> Iterator[Row]:
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


# --- JAX, in a process of its own ----------------------------------------------------------------


def _answers(timeout: float) -> list[Row]:
    """What `_ask` prints in its process, and how that process ended if it failed."""
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
        out, end = "", f"failed: {_line(error)}"
    rows = sorted(_rows(out), key=lambda row: row[0] == "fast paths")
    if end:
        rows.append(("jax", "process", end))
    if line := _complaint(said):
        rows.append(("jax", "says", line))
    return rows


def _rows(out: str) -> Iterator[Row]:
    """The rows in the output, without what plugins print between them."""
    for line in out.splitlines():
        if line.startswith(MARK):
            part, name, value = json.loads(line.removeprefix(MARK))
            yield part, name, value


def _complaint(said: str) -> str:
    """The last line of stderr that sounds like a complaint; empty if there is none."""
    lines = [line.strip() for line in said.splitlines()]
    return next((line[:SAID] for line in reversed(lines) if COMPLAINT.search(line)), "")


def _ask() -> None:
    """Print a row for each question, as JSON, as soon as it is answered."""

    def tell(part: str, name: str, ask: Callable[[], str]) -> str:
        value = _told(ask)
        print(MARK + json.dumps([part, name, value]), flush=True)
        return value

    tell("fast paths", "JPEG", _jpeg)
    kind = tell("jax", "backend", _backend)
    if kind.startswith("failed"):
        return
    tell("jax", "devices", _devices)
    tell("jax", "version", _platform_version)
    tell("jax", "a convolution", _convolution)
    cpu = kind == "cpu"
    tell("fast paths", "lowerings", lambda: "ours" if cpu else "XLA's, as all but CPUs have them")
    if cpu:
        tell("fast paths", "compiler options", _compiler_options)
        tell("fast paths", "malloc keeps memory", _keeps_memory)
    tell("fast paths", "compilation cache", _compilation_cache)


def _backend() -> str:
    import jax

    return jax.default_backend()


def _devices() -> str:
    import jax

    def kind(device: jax.Device) -> str:
        limit = (device.memory_stats() or {}).get("bytes_limit")
        return str(device.device_kind) + (f", {_size(limit)} each" if limit else "")

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
        return f"Pillow alone ({_line(error)})"
    return "libjpeg-turbo and a SIMD resizer"


def _compiler_options() -> str:
    from . import backend

    options = backend.compiler_options() or {}
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "none"


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
    return f"{_folder(folder)}, {'any size' if limit < 0 else f'at most {_size(limit)}'}"


# --- Advice --------------------------------------------------------------------------------------


def _advice(
    found: _Accelerators, versions: Mapping[str, str | None], told: Mapping[str, str]
) -> Iterator[str]:
    """A line for each kind of accelerator that the machine has and JAX does not use.

    Args:
      versions: of packages; None where one is not installed.
      told: what JAX answered, by question.
    """
    backend = told.get("backend", "")
    if found.nvidia and backend != "gpu":
        yield f"an NVIDIA GPU is in this machine, {_no_gpu(found.driver, versions, told)}"
    if found.tpu and backend != "tpu":
        yield f"a TPU is in this machine, {_no_tpu(versions, told)}"


def _no_gpu(driver: str, versions: Mapping[str, str | None], told: Mapping[str, str]) -> str:
    """Why JAX does not use it, and what to do about it."""
    plugin = next((name for name in CUDA if versions[name]), None)
    number = re.match(r"\d+", driver)
    age = int(number[0]) if number else None
    old = age is not None and age < CUDA["jax-cuda13-plugin"]
    install = _install("cuda12" if old else "cuda13", versions)
    if plugin is None:
        other = "" if age else ", or jax[cuda12] where the driver is older than 580"
        return f"and jax is not built for it: {install}{other}"
    if setting := _hiding("cuda", "gpu"):
        return f"and {setting} keeps jax from it"
    if versions[plugin] != versions["jaxlib"]:
        return f"{plugin} is {versions[plugin]} but jaxlib {versions['jaxlib']}: {install}"
    if age is not None and age < CUDA[plugin]:
        remedy = f", or {install}" if age >= CUDA["jax-cuda12-plugin"] else ""
        return f"{plugin} needs driver {CUDA[plugin]}, this one is {driver}: update it{remedy}"
    return f"{plugin} is installed, and jax does not use it{_why(told)}"


def _no_tpu(versions: Mapping[str, str | None], told: Mapping[str, str]) -> str:
    """Why JAX does not use it, and what to do about it."""
    if not versions["libtpu"]:
        return f"and jax is not built for it: {_install('tpu', versions)}"
    if setting := _hiding("tpu"):
        return f"and {setting} keeps jax from it"
    return f"libtpu is installed, and jax does not use it{_why(told)}"


def _install(extra: str, versions: Mapping[str, str | None]) -> str:
    pinned = f"=={versions['jax']}" if versions["jax"] else ""
    return f'pip install "jax[{extra}]{pinned}"'


def _why(told: Mapping[str, str]) -> str:
    """What JAX said about it."""
    failed = (told[name] for name in ("backend", "process") if "failed" in told.get(name, ""))
    said = told.get("says") or next(failed, "")
    return f": {said}" if said else ""


def _hiding(*platforms: str) -> str | None:
    """The setting that keeps JAX from these platforms."""
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        asked = os.environ.get(name, "")
        if asked and not set(asked.split(",")) & set(platforms):
            return f"{name}={asked}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return "CUDA_VISIBLE_DEVICES" if hidden and "cuda" in platforms else None


if __name__ == "__main__":
    _ask()
