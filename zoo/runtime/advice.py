"""What to do about an accelerator that the machine has and JAX does not use."""

import os
import re
from collections.abc import Iterator, Mapping

from .machine import Accelerators

CUDA = {"jax-cuda13-plugin": 580, "jax-cuda12-plugin": 525}  # the oldest driver that will do


def advice(
    present: Accelerators, versions: Mapping[str, str | None], of_jax: Mapping[str, str]
) -> Iterator[str]:
    """A line for each kind of accelerator that the machine has and JAX does not use.

    Args:
      present: what is in the machine.
      versions: of packages; None where one is not installed.
      of_jax: what JAX answered, by question.
    """
    backend = of_jax.get("backend", "")
    if present.nvidia and backend != "gpu":
        yield f"an NVIDIA GPU is in this machine, {_no_gpu(present.driver, versions, of_jax)}"
    if present.tpu and backend != "tpu":
        yield f"a TPU is in this machine, {_no_tpu(versions, of_jax)}"


def _no_gpu(driver: str, versions: Mapping[str, str | None], of_jax: Mapping[str, str]) -> str:
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
    return f"{plugin} is installed, and jax does not use it{_why(of_jax)}"


def _no_tpu(versions: Mapping[str, str | None], of_jax: Mapping[str, str]) -> str:
    """Why JAX does not use it, and what to do about it."""
    if not versions["libtpu"]:
        return f"and jax is not built for it: {_install('tpu', versions)}"
    if setting := _hiding("tpu"):
        return f"and {setting} keeps jax from it"
    return f"libtpu is installed, and jax does not use it{_why(of_jax)}"


def _install(extra: str, versions: Mapping[str, str | None]) -> str:
    pinned = f"=={versions['jax']}" if versions["jax"] else ""
    return f'pip install "jax[{extra}]{pinned}"'


def _why(of_jax: Mapping[str, str]) -> str:
    """What JAX said about it."""
    failed = (of_jax[name] for name in ("backend", "process") if "failed" in of_jax.get(name, ""))
    said = of_jax.get("says") or next(failed, "")
    return f": {said}" if said else ""


def _hiding(*platforms: str) -> str | None:
    """The setting that keeps JAX from these platforms."""
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        asked = os.environ.get(name, "")
        if asked and not set(asked.split(",")) & set(platforms):
            return f"{name}={asked}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return "CUDA_VISIBLE_DEVICES" if hidden and "cuda" in platforms else None
