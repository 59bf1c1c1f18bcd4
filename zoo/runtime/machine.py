"""What the machine has: accelerators, whether JAX can use them or not, the CPU and memory."""

import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SMI_TIMEOUT = 20.0  # seconds for nvidia-smi, which asks each GPU
GOOGLE = "0x1ae0"  # as a vendor of PCI devices


@dataclass(frozen=True)
class Accelerators:
    """The accelerators of one kind in the machine, whether JAX can use them or not."""

    names: tuple[str, ...]  # "NVIDIA H100 80GB HBM3, 81559 MiB, driver 580.65.06"
    nvidia: bool
    driver: str  # NVIDIA's, "580.65.06"; empty if unknown
    tpu: bool


def accelerators(root: Path) -> Accelerators:
    """Those that `nvidia-smi` lists, or that have files below `root`."""
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
    return Accelerators(names, nvidia, driver, bool(tpus))


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


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(root: Path) -> str:
    """The model of the CPU, and the number of cores that this process may use."""
    name = re.search(r"^model name\s*: (.+)", _read(root / "proc/cpuinfo"), re.MULTILINE)
    model = name[1] if name else platform.processor() or platform.machine()
    return f"{model}, {cores()} of {os.cpu_count()} cores"


def processor_flags(root: Path = Path("/")) -> set[str]:
    """What the CPU can do, in Linux' names; empty where the system does not tell."""
    flags = re.search(r"^flags\s*: (.+)", _read(root / "proc/cpuinfo"), re.MULTILINE)
    return set(flags[1].split()) if flags else set()


def memory() -> str:
    """The size of the memory."""
    return readable_size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def folder_size(folder: Path) -> str:
    """A folder with the size and the number of all files below it."""
    sizes = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process has just removed it
            if path.is_file() and not path.is_symlink():
                sizes.append(path.stat().st_size)
    return f"{folder}, {readable_size(sum(sizes))} in {len(sizes):,} files"


def readable_size(count: float) -> str:
    """A number of bytes in readable units.

    >>> readable_size(85.0e9), readable_size(2_345_678)
    ('85.0 GB', '2.3 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
