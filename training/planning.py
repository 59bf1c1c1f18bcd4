"""Plan a run on a machine that is not here: whether it fits, and how fast it could be.

For a TPU the training step itself is compiled (`absent`). For a GPU its cost is estimated by
counting on the network.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from zoo.errors import ZooError, unknown
from zoo.layers import Network
from zoo.registry import find
from zoo.report.card import FIGURES, percent, quantity
from zoo.report.count import count
from zoo.report.table import Table, shape
from zoo.terminal import fill

from . import memory, topologies
from .absent import Compiler, Cost, Overflow, Pictures, compiler, outlined
from .config import TrainConfig
from .parallel import check_share
from .session import class_weights, open_data
from .topologies import Topology

FORMATS = ("text", "md", "json")
TRIES = 3  # compilations, of minutes each, to find the largest batch
NEAR = 0.03  # a gain in batch size below this share is not worth another compilation
# After a batch that did not fit, the next guess is at most this share of it: near the limit the TPU
# compiler fills memory with what it would otherwise recompute, so that memory is not linear.
BACK = 0.9
STEP = 8  # pictures a chip: TPUs and GPUs compute that many rows at least
LARGEST = 3  # activations that are listed
# How often a step reads or writes the output of a convolution where nothing is fused with it.
# Forward 5: written, read for the statistics, read and written normalised, read by the next layer.
# Backward 7: three reads and a write for batch norm with its activation; the gradient is read for
# the kernel's and for the input's, and the input once more.
PASSES = 12


@dataclass(frozen=True)
class Roofline:
    """The least seconds that a step can take, with every part of a chip at its peak."""

    compute: float
    traffic: float
    communication: float

    @property
    def step(self) -> float:
        """Seconds of a step: compute and memory traffic overlap, and the all-reduce comes after."""
        return max(self.compute, self.traffic) + self.communication


def roofline(cost: Cost, machine: Topology, dtype: str) -> Roofline:
    """The least time of a step.

    An all-reduce sends and receives every byte twice, except for the chip's own share.
    """
    chip, chips = machine.chip, machine.chips
    return Roofline(
        compute=cost.flops / chip.peak(dtype),
        traffic=cost.traffic / chip.bandwidth,
        communication=2 * (chips - 1) / chips * cost.reduced / chip.link,
    )


@dataclass(frozen=True)
class Saving:
    """A setting that saves memory, and what a step that does not fit would take with it."""

    setting: str  # "--remat"
    memory: float  # bytes a chip, about
    fits: bool


@dataclass(frozen=True)
class Activation:
    """One of the largest outputs of a convolution or dense layer on each chip."""

    layer: str  # dotted path
    output: tuple[int, ...]  # of one picture
    bytes: int


@dataclass(frozen=True)
class Plan:
    """A run on a machine: what `zoo plan` prints, as text, Markdown or JSON."""

    config: TrainConfig
    machine: Topology
    pictures: Pictures
    image_size: int
    cost: Cost | Overflow
    largest: Cost | None  # the largest batch found to fit, where the one asked for does not
    savings: tuple[Saving, ...]  # where it does not fit
    activations: tuple[Activation, ...]
    remarks: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the batch asked for fits into the machine's memory."""
        return isinstance(self.cost, Cost)

    @property
    def running(self) -> Cost | None:
        """The cost of the batch asked for, or else of the largest; None where nothing fits."""
        return self.cost if isinstance(self.cost, Cost) else self.largest

    @property
    def roofline(self) -> Roofline | None:
        """The least time of a step with `running`; None where nothing fits."""
        if self.running is None:
            return None
        return roofline(self.running, self.machine, self.config.dtype)

    @property
    def images_per_second(self) -> float | None:
        """The most images per second that all chips together can reach, by the roofline."""
        if self.running is None or self.roofline is None:
            return None
        return self.running.batch_size / self.roofline.step

    def render(self, form: str = "text") -> str:
        """The plan as "text", "md" or "json".

        Raises:
          ZooError: another format.
        """
        if form not in FORMATS:
            raise unknown("format", form, FORMATS)
        return str(getattr(self, form)())

    def table(self) -> Table:
        """All figures, each with an explanation."""
        rows = [*self._memory(), *self._speed()]
        return Table(self._title(), FIGURES, tuple(rows), self._notes())

    def text(self, width: int = 80) -> str:
        """The plan for a terminal of `width` characters."""
        return f"{fill(self._title(), width)}\n\n{self.table().text(width)}"

    def md(self) -> str:
        """The plan in Markdown, for GitHub."""
        return f"**{self._title()}**\n\n{self.table().md()}"

    def json(self) -> str:
        """The plan as JSON: bytes, seconds and counts, unrounded."""
        values = asdict(self)
        values["machine"] |= {"chips": self.machine.chips}
        values |= {
            "fits": self.fits,
            "estimated": not self.machine.is_tpu,
            "roofline": self.roofline and asdict(self.roofline) | {"step": self.roofline.step},
            "images_per_second": self.images_per_second,
            "versions": versions() if self.machine.is_tpu else {},
        }
        return json.dumps(values, indent=1)

    def _title(self) -> str:
        c = self.config
        return (
            f"{c.model} on {self.machine.name} ({self.machine.chips} x {self.machine.chip.name}), "
            f"batch {c.batch_size:,} ({c.batch_size / self.machine.chips:,g} a chip), {c.dtype}, "
            f"{self.image_size} px, {self.pictures.num_classes:,} classes"
        )

    def _memory(self) -> list[tuple[str, str, str]]:
        room, cost = self.machine.chip.memory, self.cost
        share = f"{percent(cost.memory, int(room))} of {quantity(room, 'B')}"
        verdict = "fits" if self.fits else "does not fit"
        rows = [("memory of a chip", quantity(cost.memory, "B"), f"{share}: {verdict}")]
        if isinstance(cost, Cost):
            rows += _parts(cost)
        elif self.largest is None:
            rows.append(("largest batch that fits", "none", "not even one picture a chip"))
        else:
            each = self.largest.batch_size // self.machine.chips
            how = "compiled" if self.machine.is_tpu else "counted"
            rows += [
                ("largest batch that fits", f"{self.largest.batch_size:,}", f"{each:,} a chip"),
                ("memory of a chip then", quantity(self.largest.memory, "B"), how),
                *_parts(self.largest),
            ]
        for saving in self.savings:
            answer = "would fit" if saving.fits else "would not fit"
            figure = f"about {quantity(saving.memory, 'B')}"
            rows.append((f"memory with {saving.setting}", figure, answer))
        for one in self.activations:
            where = f"{one.layer}, {shape(one.output)}"
            rows.append(("large activation", quantity(one.bytes, "B"), where))
        return rows

    def _speed(self) -> list[tuple[str, str, str]]:
        cost, bound, chip = self.running, self.roofline, self.machine.chip
        if cost is None or bound is None or self.images_per_second is None:
            return []
        peak = quantity(chip.peak(self.config.dtype), "FLOP/s")
        summed = f"sum up {quantity(cost.reduced, 'B')}"
        rows = [
            ("FLOPs of a step", quantity(cost.flops), "a chip"),
            ("memory traffic", quantity(cost.traffic, "B"), "a chip"),
            ("all-reduces", "" if cost.reductions is None else str(cost.reductions), summed),
            ("time to compute", _ms(bound.compute), f"at {peak}"),
            ("time of memory traffic", _ms(bound.traffic), f"at {quantity(chip.bandwidth, 'B/s')}"),
            ("time to sum up", _ms(bound.communication), f"at {quantity(chip.link, 'B/s')}"),
            ("step (roofline)", _ms(bound.step), "the longer of two, then the sums"),
            ("images/s (roofline)", f"{self.images_per_second:,.0f}", f"batch {cost.batch_size:,}"),
        ]
        if self.machine.is_tpu:
            rows.append(("compiling took", f"{cost.seconds:.0f} s", ""))
        return rows

    def _notes(self) -> tuple[str, ...]:
        if self.machine.is_tpu:
            made = ", ".join(f"{name} {number}" for name, number in versions().items())
            how = f"compiled for this machine, which is not here, by {made}"
            traffic = (
                "what every fused operation reads and writes; what stays on the chip between two "
                "of them is counted too, so less is moved in truth"
            )
        else:
            how = "an estimate: counted on the network, and a compiler's scratch space comes on top"
            traffic = f"the outputs of convolutions, read or written {PASSES} times in all"
        return (
            how,
            "roofline: every unit at the peak that its maker publishes, and no waiting for input",
            f"memory traffic: {traffic}",
            *self.remarks,
        )


def _parts(cost: Cost) -> list[tuple[str, str, str]]:
    rows = [
        ("  arguments", cost.arguments, "state and pictures"),
        ("  outputs", cost.outputs - cost.aliased, "not written over arguments"),
        ("  scratch", cost.scratch, "activations, gradients, temporaries"),
        ("  next batch", cost.ahead, "brought there during the step"),
    ]
    return [(name, quantity(size, "B"), remark) for name, size, remark in rows if size >= 1e5]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def versions() -> dict[str, str]:
    """The versions of the libraries that compile."""
    installed = {}
    for name in ("jax", "libtpu"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "unknown"
    return installed


def plan(
    model: str, *, topology: str | None, num_classes: int | None = None, **settings: Any
) -> Plan:
    """Work out the memory and the time of a run on a machine that is not here.

    For a TPU the training step is compiled in a process of its own, which takes minutes and is
    reported on stderr; nothing is allocated. For a GPU its cost is counted.

    Args:
      model: network to train.
      topology: "v5e:4x4", "h100:8" or another of `training.topologies`.
      num_classes: of the classifier; None: those of `data` where that is given, else 1000.
      settings: of `TrainConfig`. `data` is opened for its classes and the size of its pictures,
        and only if `num_classes` is not given; `weights` are not read; the engine is shard_map.

    Raises:
      ZooError: an unknown network, machine or setting, a batch that the chips cannot share out, or
        libtpu is missing.

    >>> plan("resnet50", topology="v5e:2x2", batch_size=512).fits             # doctest: +SKIP
    True
    """
    machine = topologies.topology(topology)
    config = TrainConfig.from_dict({"model": model, **settings})
    config = replace(config, model=find(config.model).name, engine="shard_map")
    check_share(machine.chips, config.batch_size, config.accumulate)
    pictures = _pictures(config, "data" in settings, num_classes)
    remarks = []
    if machine.is_tpu and settings.get("engine") == "pmap":
        remarks.append("planned with shard_map: pmap compiles only for devices that are there")
    with _costs(machine, pictures) as cost_of:
        cost = cost_of(config)
        found = None
        if isinstance(cost, Overflow):
            fixed = _needs(config, pictures, machine).fixed
            unit = machine.chips * config.accumulate

            def at(batch_size: int) -> Cost | Overflow:
                return cost_of(replace(config, batch_size=batch_size))

            found = largest(cost, fixed, machine.chip.memory, unit, at)
    network, _ = outlined(config, pictures)
    return Plan(
        config,
        machine,
        pictures,
        network.preprocess.size,
        cost,
        found,
        savings(cost, config, pictures, machine, network.preprocess.size)
        if isinstance(cost, Overflow)
        else (),
        activations(network, config, machine),
        tuple(remarks),
    )


def _pictures(config: TrainConfig, given: bool, num_classes: int | None) -> Pictures:
    if num_classes is not None and num_classes < 1:
        raise ZooError(f"num_classes: got {num_classes}, expected 1 or more")
    if num_classes is not None or not given:
        classes = 1000 if num_classes is None else num_classes
        even = (1.0,) * classes if config.class_weights else None
        return Pictures(classes, flip=True, class_weights=even)
    dataset = open_data(config)
    weights = tuple(class_weights(dataset)) if config.class_weights else None
    return Pictures(len(dataset.classes), dataset.image_size, dataset.flip, weights)


@contextmanager
def _costs(machine: Topology, pictures: Pictures) -> Iterator[Compiler]:
    if machine.is_tpu:
        with compiler(machine, pictures) as compiled:
            yield compiled
    else:
        yield partial(counted, pictures=pictures, machine=machine)


def _needs(config: TrainConfig, pictures: Pictures, machine: Topology) -> memory.Memory:
    network, parts = outlined(config, pictures)
    return memory.needs(parts.program, network.preprocess, config, parts.shapes(), machine.chips)


def _picture(size: int, channels: int) -> int:
    """Bytes of a picture and its label."""
    return channels * size**2 + 4


def counted(config: TrainConfig, pictures: Pictures, machine: Topology) -> Cost | Overflow:
    """The cost of a step by counting alone."""
    network, _ = outlined(config, pictures)
    need, size = _needs(config, pictures, machine), network.preprocess.size
    share = config.batch_size // machine.chips
    batch = share * _picture(size, config.in_chans)
    if (total := need.total + 2 * batch) > machine.chip.memory:
        return Overflow(config.batch_size, total)
    costs = count(network, input_size=size)
    forwards = 4 / 3 if config.remat else 1  # of three passes, one is done again
    itemsize = 2 if config.dtype == "bfloat16" else 4
    updates = 2 * (need.parameters + need.optimizer) + 2 * need.gradients  # read and written
    return Cost(
        config.batch_size,
        arguments=need.parameters + need.optimizer + batch,
        outputs=0,
        aliased=0,
        scratch=need.gradients + need.activations,
        flops=share * costs.train_flops * forwards,
        traffic=share * costs.activations * itemsize * PASSES * forwards + updates,
        reductions=None,
        reduced=need.gradients + 4 * costs.batch_stats,
        ahead=batch,
    )


def largest(
    refused: Overflow,
    fixed: int,
    room: float,
    unit: int,
    cost_of: Callable[[int], Cost | Overflow],
) -> Cost | None:
    """The largest batch that fits, or one close to it; None if not even `unit` pictures fit.

    Memory is nearly linear in the batch, apart from what the compiler does near the limit. Each
    guess is where the line through the two nearest known batches reaches the memory of a chip.

    Args:
      refused: the batch that did not fit.
      fixed: bytes on each chip that do not depend on the batch, roughly.
      room: bytes of memory of a chip.
      unit: the smallest batch of all chips together; others are multiples of it.
      cost_of: the cost at a batch size.
    """
    low, high = (0, fixed), (refused.batch_size // unit, refused.memory)  # (units, bytes)
    found, most = None, high[0] - 1
    for _ in range(TRIES):
        slope = (high[1] - low[1]) / (high[0] - low[0])
        fitting = min(int((room - low[1]) / slope) + low[0] if slope > 0 else 0, most)
        guess = fitting - fitting % STEP if fitting >= 2 * STEP else fitting
        if guess <= low[0] or (found and guess - low[0] <= low[0] * NEAR):
            break
        cost = cost_of(guess * unit)
        if isinstance(cost, Cost):
            found, low = cost, (guess, cost.memory)
        else:
            high, most = (guess, cost.memory), int(guess * BACK)
    return found


def savings(
    cost: Overflow, config: TrainConfig, pictures: Pictures, machine: Topology, size: int
) -> tuple[Saving, ...]:
    """What other settings would take, in proportion to the counted memory of both.

    Args:
      cost: of the settings that do not fit.
      config: those settings.
      pictures: what the run trains on.
      machine: what it runs on.
      size: side of the pictures, which no setting changes.
    """
    batches = (
        2 * config.batch_size // machine.chips * _picture(size, config.in_chans)
    )  # this one and the next
    now, found = _needs(config, pictures, machine).total, []
    changes: dict[str, dict[str, Any]] = {} if config.remat else {"--remat": {"remat": True}}
    for parts in (2, 4):
        if parts > config.accumulate and config.batch_size % (machine.chips * parts) == 0:
            changes[f"--accumulate {parts}"] = {"accumulate": parts}
    for setting, change in changes.items():
        then = _needs(replace(config, **change), pictures, machine).total
        bytes_ = batches + (cost.memory - batches) * then / now
        found.append(Saving(setting, bytes_, bytes_ <= machine.chip.memory))
    return tuple(found)


def activations(network: Network, config: TrainConfig, machine: Topology) -> tuple[Activation, ...]:
    """The largest layer outputs, for the pictures that a chip computes at once."""
    images = config.batch_size // machine.chips // config.accumulate
    itemsize = 2 if config.dtype == "bfloat16" else 4
    layers = [x for x in count(network, input_size=network.preprocess.size).layers if x.output]
    layers.sort(key=lambda layer: -math.prod(layer.output))
    return tuple(
        Activation(x.name, x.output, images * itemsize * math.prod(x.output))
        for x in layers[:LARGEST]
    )
