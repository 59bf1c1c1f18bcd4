"""Step 1: what machine this is, and how fast it multiplies and copies at best."""

import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

import zoo

from .bench import Bench

PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin", "libtpu")

# FLOP/s of dense bfloat16 products by the maker's data sheet, for what JAX calls the device.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L4": 121e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def run(bench: Bench) -> None:
    device, sizes = bench.device, bench.sizes
    bench.result.describe(
        {"accelerator": device.device_kind, "devices": len(jax.devices()), **driver()}, versions()
    )
    limit = memory(device).get("bytes_limit")
    bench.add(
        "device",
        figure=device.device_kind,
        unit=f"{len(jax.devices())} of {device.platform}"
        + (f", {limit / 1e9:.0f} GB" if limit else ""),
    )
    bench.add("software", figure=", ".join(f"{k} {v}" for k, v in versions().items()))

    n = sizes.matrix
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (n, n), jnp.bfloat16) for key in keys)
    multiply = jax.jit(jnp.matmul)
    bench.matmul = 2 * n**3 / seconds_of(lambda: multiply(a, b), sizes.seconds / 2)
    bench.add(f"bf16 matrix product, {n} x {n}", figure=bench.matmul / 1e12, unit="TFLOP/s")
    if known := peak(device):
        bench.add("the same by the data sheet", figure=known / 1e12, unit="TFLOP/s")
    x = jnp.zeros(sizes.copied // 4)
    shift = jax.jit(lambda x: x + 1)
    bench.copy = 2 * x.nbytes / seconds_of(lambda: shift(x), sizes.seconds / 2)
    bench.add(
        f"copy of {sizes.copied / 2**20:.0f} MiB",
        figure=bench.copy / 1e9,
        unit="GB/s, read and written",
    )


def seconds_of(call: Callable[[], Any], least: float) -> float:
    """Seconds of one of many calls that run for `least` seconds or more, the device kept busy."""
    jax.block_until_ready(call())  # compiles
    calls = 1
    while True:
        begun = time.perf_counter()
        for _ in range(calls):
            last = call()
        jax.block_until_ready(last)
        took = time.perf_counter() - begun
        if took >= least:
            return took / calls
        calls = max(2 * calls, int(1.2 * calls * least / max(took, 1e-6)))


def peak(device: jax.Device) -> float | None:
    """FLOP/s of bfloat16 products by the data sheet, where it is known."""
    return next((flops for name, flops in PEAKS.items() if name in device.device_kind), None)


def memory(device: jax.Device) -> dict[str, int]:
    """What the device says of its memory: nothing on CPU."""
    return device.memory_stats() or {}


def versions() -> dict[str, str]:
    found = {"zoo": zoo.__version__}
    for name in ("jax", "jaxlib", "flax", "optax", *PLUGINS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def driver() -> dict[str, str]:
    """The version of NVIDIA's driver, where there is one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"driver": told.stdout.splitlines()[0].strip()}
