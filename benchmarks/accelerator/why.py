"""Step 5: what the compiled training step consists of, and where its time goes."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from zoo import ops
from zoo.context import ACTIVATIONS
from zoo.runtime import backend

from ..contenders import ops as contender
from ..harness import Row
from ..ops import WORKS
from ..profile import spent
from . import hlo
from .bench import LEFT_OUT, Bench, one_line
from .fast import Training, training_flops, work_of
from .machine import seconds_of

STEPS = 3  # that are profiled
SLOWEST = 10
PROFILE = "profile"


def run(bench: Bench) -> None:
    sizes = bench.sizes
    training = bench.kept
    if training is None:
        work = work_of(bench, "train", sizes.networks[0], sizes.batches[0])
        training = Training(work, bench.device)
    bench.add("the step looked into", figure=training.work["work"])
    text = training.program.as_text()
    found = hlo.summary(text)
    for place, moves in (("by themselves", found.outside), ("within fusions", found.fused)):
        for kind, moved in moves.items():
            plural = {"transpose": "transposes", "copy": "copies"}[kind]
            bench.add(f"{plural} {place}", figure=moved.count, unit=f"{moved.bytes / 1e9:.3g} GB")
    for kind, count in found.convolutions.most_common():
        bench.add("convolutions", figure=count, unit=kind)
    bench.add("fusions", figure=found.opcodes["fusion"])
    costs(bench, training)
    slowest(bench, training, text)
    lowerings(bench)


def costs(bench: Bench, training: Training) -> None:
    """What XLA counts, and how long the machine's ceilings say that it takes at least."""
    told = training.program.cost_analysis() or {}
    told = told[0] if isinstance(told, list) else told
    work = training.work
    flops = training_flops(work["network"], work["side"], work["batch"])
    for name, amount, ceiling in (
        ("FLOPs that XLA counts", told.get("flops"), bench.matmul),
        ("FLOPs of the definition of MFU", flops, bench.matmul),
        ("bytes accessed, as XLA counts", told.get("bytes accessed"), bench.copy),
    ):
        if amount:
            least = f"{1e3 * amount / ceiling:.3g} ms at the measured ceiling" if ceiling else ""
            bench.add(name, figure=float(amount), unit=least)


def slowest(bench: Bench, training: Training, text: str) -> None:
    """The operations that take most of the time, by JAX's profiler."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            training.seconds(1)
            with jax.profiler.trace(folder):
                for _ in range(STEPS):
                    state = training.step()
                jax.block_until_ready(state)
            times = spent(Path(folder))
    except Exception as error:
        bench.add(PROFILE, check=f"{LEFT_OUT}: {one_line(error)}")
        return
    if not times:
        bench.add(PROFILE, check=f"{LEFT_OUT}: the trace tells of no operation of the device")
        return
    sources = {i.name: i.source for body in hlo.computations(text).values() for i in body}
    total = sum(times.values())
    for name, milliseconds in times.most_common(SLOWEST):
        share = f"% of the time, {milliseconds / STEPS:.3g} ms; {tail(sources.get(name, ''))}"
        bench.add(f"slowest: {name}", figure=100 * milliseconds / total, unit=share)
    kinds: Counter[str] = Counter()
    for name, milliseconds in times.items():
        kinds[name.rstrip("0123456789.")] += milliseconds
    for name, milliseconds in kinds.most_common(SLOWEST):
        bench.add(f"all of {name}", figure=100 * milliseconds / total, unit="% of the time")


def lowerings(bench: Bench) -> None:
    """Operations and their gradients in bfloat16: XLA's own, the GPU's and the CPU's lowerings."""
    sizes = bench.sizes
    batch, works = sizes.batches[0], {work["work"]: work for work in WORKS}
    for name in sizes.operations:
        work = {**works[name], "side": min(works[name]["side"], sizes.pixels)}
        compare(bench, f"{name}, and its gradient", contender.operation(work), shapes(work, batch))
    scale, bias, side = jnp.ones(256), jnp.zeros(256), min(56, sizes.pixels)

    def norm(x: jax.Array) -> jax.Array:
        return ops.batch_norm(x, scale, bias, ACTIVATIONS["relu"], epsilon=1e-5)[0]

    what = "batch norm and ReLU, 56x56x256, and their gradient"
    compare(bench, what, norm, [(batch, side, side, 256)])


def compare(
    bench: Bench, what: str, function: Callable[..., jax.Array], sizes: Sequence[tuple[int, ...]]
) -> None:
    args = [jax.random.normal(jax.random.key(0), size, jnp.bfloat16) for size in sizes]
    cotangent = jnp.ones_like(jax.eval_shape(function, *args))
    with bench.attempt(what, may_not_fit=True):
        times = {}
        for which in ("default", "gpu", "cpu"):

            def gradients(which: str, g: jax.Array, *args: jax.Array) -> Any:
                with ops.only(which):
                    y, pull = jax.vjp(function, *args)
                    return y, pull(g)

            run = backend.jit(partial(gradients, which))
            seconds = seconds_of(lambda run=run: run(cotangent, *args), bench.sizes.seconds / 10)
            times[which] = 1e3 * seconds
        names = {"default": "XLA's own, ms", "gpu": "the GPU's, ms", "cpu": "the CPU's, ms"}
        bench.add(what, **{name: times[which] for which, name in names.items()})


def shapes(work: Row, batch: int) -> list[tuple[int, ...]]:
    """Of what an operation of `benchmarks.ops` reads."""
    found = [(batch, work["side"], work["side"], work["channels"])]
    if work["op"] == "conv":
        depth = work["channels"] // work["groups"]
        found.append((*work["size"], depth, work["features"]))
    return found


def tail(source: str) -> str:
    """The end of an operation's name, which says most."""
    return source if len(source) <= 80 else f"...{source[-77:]}"
