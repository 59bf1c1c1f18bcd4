"""Step 2: the accelerator's results against those of the CPU, in this process.

On a machine that has a CPU alone, XLA's own operations, which accelerators get, stand for the
accelerator: what is compared then is `zoo.ops`.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from zoo import ops
from zoo.runtime.backend import compiler_options

from ..contenders import zoo as contender
from ..harness import Row
from .bench import Bench

BOUND = 1e-4  # of the largest value of an array
HALF_BOUND = 0.1  # bfloat16 has three digits, and a random network of forty layers loses one
PICTURES = 4
UNIT = "of the largest"

# Nothing of these programs is timed: XLA need not try which of its kernels is fastest.
UNTUNED = {"xla_gpu_autotune_level": 0, "xla_gpu_experimental_enable_fusion_autotuner": False}

# SiLU has a smooth derivative. That of ReLU jumps: a value that rounds to the other side of zero
# changes a sum of few pictures by more than any error.
STEP: Row = dict(side=32, batch=16, act="silu", rate=0.1, engine="shard_map")
ENGINE_NAMES = ("pmap", "shard_map")
LOGITS = "{}: logits, accelerator against CPU"
TRAINED = "training step, accelerator against CPU: {}"
PARTS = ("parameters", "BN statistics", "gradients")
CALLED = "model(x) on the CPU beside the accelerator"
ENGINES = "pmap against shard_map"
HALF = "{}: bfloat16 logits against float32"
DEFAULT = "{}: float32 logits at JAX's default precision against the highest"  # TF32 on a GPU


def run(bench: Bench) -> None:
    families = bench.sizes.families
    halves = families[:2]
    bench.expect(*map(TRAINED.format, PARTS), ENGINES, CALLED)
    checks = [LOGITS.format(name) for name in families]
    checks += [form.format(name) for name in halves for form in (HALF, DEFAULT)]
    bench.expect(*checks)
    cpu = jax.devices("cpu")[-1]
    steps(bench, cpu)
    called(bench, cpu, families[0])
    # compiled side by side: that takes most of the time, and none of it holds Python's lock
    pool = ThreadPoolExecutor(min(len(families), os.cpu_count() or 1))
    try:
        tasks = [(BOUND, pool.submit(against_cpu, bench, cpu, name)) for name in families]
        for name in halves:
            half = pool.submit(against_highest, bench, name, "highest", dtype=jnp.bfloat16)
            default = pool.submit(against_highest, bench, name, "default")
            tasks += [(HALF_BOUND, half), (HALF_BOUND, default)]
        for what, (bound, task) in zip(checks, tasks, strict=True):
            with bench.attempt(what):
                apart = task.result()
                bench.check(what, apart <= bound, figure=apart, unit=UNIT)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def as_accelerator(device: jax.Device) -> Any:
    """A context in which programs for the device are traced as an accelerator has them."""
    return ops.native_only() if device.platform == "cpu" else nullcontext()


def logits(
    name: str, side: int, device: jax.Device, precision: str = "highest", **switches: Any
) -> np.ndarray:
    """Of a network with random weights, on pictures of noise."""
    graphdef, state = nnx.split(zoo.create(name, seed=0, **switches))
    forward = jax.jit(
        lambda state, x: nnx.merge(graphdef, state).logits(x),
        compiler_options=UNTUNED if device.platform == "gpu" else compiler_options(device.platform),
    )
    x = np.random.default_rng(0).standard_normal((PICTURES, side, side, 3), np.float32)
    with jax.default_matmul_precision(precision):
        return np.asarray(forward(jax.device_put(state, device), jax.device_put(x, device)))


def against_cpu(bench: Bench, cpu: jax.Device, name: str) -> float:
    with as_accelerator(bench.device):
        got = logits(name, bench.sizes.side, bench.device)
    return error(got, logits(name, bench.sizes.side, cpu))


def against_highest(bench: Bench, name: str, precision: str, **switches: Any) -> float:
    """Of the device's float32 logits, and others of its own."""
    got = logits(name, bench.sizes.side, bench.device, precision, **switches)
    return error(got, logits(name, bench.sizes.side, bench.device))


def called(bench: Bench, cpu: jax.Device, name: str) -> None:
    """The call that a user writes, under `jax.default_device`."""
    with bench.attempt(CALLED):
        side = bench.sizes.side
        x = np.random.default_rng(0).standard_normal((PICTURES, side, side, 3), np.float32)
        with jax.default_device(cpu), jax.default_matmul_precision("highest"):
            y = zoo.create(name, seed=0)(jnp.asarray(x))
        where = y.devices() == {cpu}
        apart = error(np.asarray(y), logits(name, side, cpu))
        bench.check(CALLED, where and apart <= BOUND, figure=apart, unit=UNIT)


def steps(bench: Bench, cpu: jax.Device) -> None:
    """One step of training: on both devices, under both engines, and twice."""
    work = {**STEP, "network": bench.sizes.stepped}
    whole = jax.devices()
    with bench.attempt("training step"):
        with as_accelerator(bench.device):
            first, again = trained(work, [bench.device], times=2)
        (reference,) = trained(work, [cpu])
        for part in PARTS:
            apart, worst = worst_of(first[part], reference[part])
            bench.check(
                TRAINED.format(part), apart <= BOUND, figure=apart, unit=f"{UNIT}, of {worst}"
            )
        one, other = first["gradients"], again["gradients"]
        differing = [name for name in one if not np.array_equal(one[name], other[name])]
        told = "the same bit for bit"
        if differing:
            told = f"{len(differing)} of {len(one)} gradients differ, {differing[0]}"
        bench.add("the same program run twice on the accelerator", figure=told)
    with bench.attempt(ENGINES):
        work["batch"] *= len(whole)
        (pmap,), (shard_map,) = (trained({**work, "engine": e}, whole) for e in ENGINE_NAMES)
        apart, worst = max(worst_of(pmap[part], shard_map[part]) for part in PARTS)
        unit = f"{UNIT}, of {worst}; {len(whole)} devices"
        bench.check(ENGINES, apart <= BOUND, figure=apart, unit=unit)


def trained(
    work: Row, devices: list[jax.Device], times: int = 1
) -> list[dict[str, dict[str, np.ndarray]]]:
    """What a step of training leaves, by name, each time from the same state.

    The first momentum is the gradients.
    """
    with jax.default_matmul_precision("highest"):
        shared, step, state = contender.training(work, devices)
        labels = np.arange(work["batch"], dtype=np.int32) % 1000
        batch = shared.shard({"image": contender.images(work), "label": labels})
        run = shared.compile(step, donate=False)
        return [_named(run(state, batch)) for _ in range(times)]


def _named(state: Any) -> dict[str, dict[str, np.ndarray]]:
    leaves = jax.tree.leaves(state.opt_state, is_leaf=_traced)
    (momentum,) = (leaf.trace for leaf in leaves if _traced(leaf))
    found = {"parameters": state.params, "BN statistics": state.stats, "gradients": momentum}
    return {part: {k: np.asarray(v) for k, v in arrays.items()} for part, arrays in found.items()}


def _traced(node: Any) -> bool:
    return hasattr(node, "trace") and not hasattr(node, "shape")


def error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, as a share of the largest value; infinite where a value is not."""
    scale = float(np.abs(want).max())
    apart = float(np.abs(got - want).max()) / (scale or 1.0)
    return apart if np.isfinite(apart) else float("inf")


def worst_of(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The largest `error` of arrays by name, and whose it is."""
    return max((error(got[name], want[name]), name) for name in want)
