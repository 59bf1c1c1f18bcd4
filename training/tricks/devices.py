"""Many devices: the batch shared out by `pmap`.

That the numbers stay the same is measured, on virtual devices of this machine's CPU, which make
nothing faster. The time on many machines is a model of two measured times, with its assumptions
written beside it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo import plotting
from zoo.errors import ZooError
from zoo.plotting import styled
from zoo.runtime import machine

from ..config import TrainConfig
from ..parallel import Devices
from ..session import Session
from .experiment import Settings, name_of
from .pictures import SIZE, save
from .section import Section, place, provenance
from .verdict import DIRECTION, REFUTED, REPRODUCED

TITLE = "Many devices"
CLAIM = "50 GPUs take a quarter of the time that 10 take."
SOURCE = "Goyal et al., 2017, Accurate, Large Minibatch SGD, figure 1 and section 5"
URL = "https://arxiv.org/abs/1706.02677"
COUNTS = (1, 2, 4, 8)
STEPS = 5
SETTING = dict(
    model="resnet20_cifar",
    image_size=32,
    batch_size=64,
    optimizer="sgd",
    learning_rate=0.05,
    warmup=0.0,  # else the first step changes nothing
    shift=0,
    flip=False,
    sync_bn=True,  # else each device normalises by its own part of the batch
)
ETHERNET = 1.25e9  # bytes a second each way: 10 Gbit/s, the network of Chen et al., 2016
LATENCY = 50e-6  # seconds a message, of Ethernet
# Said on the page, because the first measurement would have had another verdict.
TRIED = (
    "A first measurement, after five steps, found weights 4e-4 of the largest apart, which "
    "we take for rounding that later steps magnify."
)
TOLERANCE = 1e-4  # of the largest difference of a weight, relative to the largest weight


def measure(config: TrainConfig, counts: tuple[int, ...]) -> dict[str, Any]:
    """Train some steps on each number of virtual devices; times in seconds."""
    session = Session.open(config)
    weights: dict[int, list[np.ndarray]] = {}
    found: dict[str, Any] = {"differences": {}, "device": jax.devices()[0].device_kind}
    parts = session.assemble(session.phases[0])
    for count in counts:
        devices = Devices(config.engine, jax.devices()[:count])
        step = devices.compile(parts.step, donate=True)
        state = devices.replicate(parts.start())
        batches = session.train_batches()
        times = []
        for _ in range(STEPS):
            batch = devices.shard(next(batches))
            begin = time.perf_counter()
            state = jax.block_until_ready(step(state, batch))
            times.append(time.perf_counter() - begin)
            # after the first step: later ones magnify differences of rounding
            weights.setdefault(count, [np.array(x) for x in jax.tree.leaves(state.params)])
        first = weights[counts[0]]
        apart = max(np.abs(a - b).max() for a, b in zip(first, weights[count], strict=True))
        largest = max(np.abs(a).max() for a in first)
        found["differences"][count] = float(apart / largest)
        if count == 1:
            found["step"] = sorted(times)[len(times) // 2]
    found["bytes"] = int(sum(x.nbytes for x in weights[counts[0]]))
    found["all_reduce"] = _all_reduce(found["bytes"], counts[-1])
    return found


def _all_reduce(size: int, count: int) -> float:
    """The time of a sum over virtual devices, seconds."""
    values = np.zeros((count, size // 4), np.float32)
    total = jax.pmap(lambda x: jax.lax.psum(x, "i"), axis_name="i", devices=jax.devices()[:count])
    x = jax.block_until_ready(total(values))
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        jax.block_until_ready(total(x))
        times.append(time.perf_counter() - begin)
    return min(times)


def step_time(compute: float, size: int, count: int, bandwidth: float, latency: float) -> float:
    """The time of a step on so many devices, each with the same share of pictures, in seconds.

    The gradients are summed by a ring after the backward pass, without overlap: each device sends
    and receives 2 (n - 1) / n of them in 2 (n - 1) messages.

    >>> step_time(1.0, 10**9, 1, 1e9, 0.0), step_time(1.0, 10**9, 2, 1e9, 0.0)
    (1.0, 2.0)
    """
    if count == 1:
        return compute
    return compute + 2 * (count - 1) * (size / count / bandwidth + latency)


def run(
    folder: Path, *, asked: Settings | None = None, quick: bool = False, command: str = ""
) -> Section:
    """Measure in a process of its own, which has the virtual devices, and write the section.

    Raises:
      ZooError: the process failed.
    """
    counts = COUNTS[:2] if quick else COUNTS
    config = TrainConfig(**{**SETTING, **(asked or {})})
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={counts[-1]}"
    begin = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps([config.to_dict(), counts]),
        env={**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ZooError(f"devices: the process with virtual devices failed: {last:.300}")
    found = json.loads(child.stdout.strip().splitlines()[-1])
    section = describe(found, config, folder, counts, command, time.perf_counter() - begin)
    section.save(folder)
    return section


def describe(
    found: Mapping[str, Any],
    config: TrainConfig,
    folder: Path,
    counts: tuple[int, ...],
    command: str,
    seconds: float,
) -> Section:
    """The section, of what `measure` found."""
    links = {
        "this machine's memory": (found["all_reduce"] and _bandwidth(found, counts[-1]), 0.0),
        "Ethernet, 10 Gbit/s": (ETHERNET, LATENCY),
    }
    plot = _scaling(found, links)
    data = name_of({"data": config.data})
    own = place(folder, "devices", data)
    own.mkdir(parents=True, exist_ok=True)
    save(plot, own / "scaling.png")
    gains = {}
    for name, link in links.items():
        ten, fifty = (step_time(found["step"], found["bytes"], n, *link) / n for n in (10, 50))
        gains[name] = ten / fifty
    worst = max(found["differences"].values())
    gain = gains["Ethernet, 10 Gbit/s"]
    verdict = REFUTED if worst > TOLERANCE else REPRODUCED if gain >= 4 else DIRECTION
    return Section(
        name="devices",
        title=TITLE,
        claim=CLAIM,
        source=SOURCE,
        url=URL,
        figures=(
            ("ResNet-50, ImageNet, 90 epochs", "8 GPUs: 29 hours", "256 GPUs: 1 hour"),
            ("scaling efficiency, 8 to 256 GPUs", "-", "about 90 %"),
        ),
        ours=(
            (
                "largest difference of a weight after a step, relative",
                "1 device",
                f"{counts[-1]} virtual devices: {worst:.1e}",
            ),
            ("time of 10 devices over that of 50, modelled", "-", f"{gain:.1f}"),
        ),
        setting=f"{config.model} on {config.data}, {config.image_size} pixels, a batch of "
        f"{config.batch_size} over 1 to {counts[-1]} virtual devices, batch norm over all of them.",
        predicts="The weights are those of one device to rounding, 1e-6 of the largest. With this "
        "network and machine a step takes far longer than the sum of the gradients, so that 50 "
        "devices take about a fifth of the time of 10.",
        refuted_by=f"weights that differ by more than {TOLERANCE:g}; a ratio below 2.",
        verdict=verdict,
        found=(
            f"{counts[-1]} virtual devices step to the weights of one, to {worst:.1e} of the "
            f"largest.",
            f"50 devices would be {gain:.1f} times as fast as 10 over Ethernet of 10 Gbit/s: a "
            f"model, not a measurement.",
        ),
        headings=("virtual devices", "difference of the weights, relative"),
        rows=tuple((str(n), f"{d:.1e}") for n, d in found["differences"].items()),
        pictures=(("scaling.png", "Pictures a second by number of devices, modelled"),),
        notes=(
            f"The model: each device takes {config.batch_size} pictures a step, which takes "
            f"{found['step'] * 1e3:.0f} ms, measured on one; then a ring sums "
            f"{found['bytes'] / 1e6:.1f} MB of gradients, with nothing overlapped. The sum over "
            f"{counts[-1]} virtual devices took {found['all_reduce'] * 1e3:.1f} ms, measured. "
            "Virtual devices share the cores of one processor.",
            TRIED,
        ),
        command=command or "zoo tricks run devices",
        made=provenance(found["device"], machine.cores(), jax.__version__, seconds),
        data=data,
    )


def _bandwidth(found: Mapping[str, Any], count: int) -> float:
    """Bytes a second of each device, by the measured sum."""
    return 2 * (count - 1) / count * float(found["bytes"]) / float(found["all_reduce"])


@styled
def _scaling(found: Mapping[str, Any], links: Mapping[str, tuple[float, float]]) -> Any:
    figure = plotting.figure(*SIZE)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    counts = [2**i for i in range(9)]
    axes.plot(counts, counts, color=plotting.FAINT, linestyle=":", label="as many times as devices")
    for (name, link), colour in zip(links.items(), plotting.LINES, strict=False):
        speed = [
            n * found["step"] / step_time(found["step"], found["bytes"], n, *link) for n in counts
        ]
        axes.plot(counts, speed, color=colour, marker=".", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    ticks = counts[::2]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_yticks(ticks, [str(n) for n in ticks])
    axes.set(xlabel="devices", ylabel="times as fast as one")
    axes.legend(frameon=False, fontsize=plotting.SMALL)
    plotting.tidy(axes)
    return figure


if __name__ == "__main__":
    settings, counts = json.load(sys.stdin)
    print(json.dumps(measure(TrainConfig.from_dict(settings), tuple(counts))))
