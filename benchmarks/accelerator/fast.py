"""Step 4: images a second of training and inference in bfloat16, beside PyTorch."""

import contextlib
import gc
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import zoo

from ..contenders import zoo as contender
from ..harness import TORCH, Contender, LeftOut, Row, Worker
from . import machine
from .bench import LEFT_OUT, Bench, time_left

WARM = 3  # steps before a clock runs
ROUNDS = 3  # alternations with PyTorch
PATIENCE = 150.0  # seconds that PyTorch may take, to compile most of them,
PATIENT = 0.7  # and the share of what is left of this step's time
TARGET = 2900  # images/s of ResNet-50's training on an H100
TRAINED, TARGETED = "{} training, no slower than torch.compile", "{} training, {:,} images/s"


@dataclass
class Training:
    """The training step of `zoo train`, compiled for one device, with a batch that stays on it."""

    work: Row
    device: jax.Device
    program: Any = field(init=False)  # jax.stages.Compiled
    seconds_to_compile: float = field(init=False)

    def __post_init__(self) -> None:
        devices, step, self._state = contender.training(self.work, [self.device])
        rng = np.random.default_rng(0)
        shape = (self.work["batch"], self.work["side"], self.work["side"], 3)
        labels = rng.integers(0, 1000, self.work["batch"], np.int32)
        self._batch = devices.shard(
            {"image": rng.integers(0, 256, shape, np.uint8), "label": labels}
        )
        begun = time.perf_counter()
        jitted = devices.jit(step, donate=True, dtype=self.work["dtype"])
        self.program = jitted.lower(self._state, self._batch).compile()
        self.seconds_to_compile = time.perf_counter() - begun

    def step(self) -> Any:
        self._state = self.program(self._state, self._batch)
        if self.device.platform == "cpu":  # see `Devices.compile`
            jax.block_until_ready(self._state)
        return self._state

    def seconds(self, steps: int) -> float:
        """Of a step, when so many follow each other."""
        begun = time.perf_counter()
        for _ in range(steps):
            self.step()
        jax.block_until_ready(self._state)
        return (time.perf_counter() - begun) / steps

    def steps_in(self, seconds: float) -> int:
        self.seconds(WARM)
        return max(2, round(seconds / self.seconds(WARM)))

    @property
    def bytes_needed(self) -> int:
        """What the program has in the device's memory at once."""
        sizes = self.program.memory_analysis()
        if sizes is None:  # the backend does not tell
            return 0
        held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        return held - sizes.alias_size_in_bytes + sizes.temp_size_in_bytes


def run(bench: Bench) -> None:
    sizes = bench.sizes
    first, *more = sizes.batches
    on_gpu, kind = bench.device.platform == "gpu", bench.device.device_kind
    if on_gpu:
        bench.expect(*(TRAINED.format(name) for name in sizes.networks))
        if "H100" in kind or "H200" in kind:
            bench.expect(*(TARGETED.format(n, TARGET) for n in sizes.networks if n == "resnet50"))
    bench.note(
        "MFU: 3 x MACs x 2 FLOPs a picture, forward and backward, times images/s, over the "
        "matrix product's rate as measured; of peak: over that of the data sheet"
    )
    for network in sizes.networks:
        train_beside_torch(bench, network, first)
    for network in sizes.networks:
        for batch in more:
            train(bench, network, batch)
    for network in sizes.networks:
        for batch in sizes.inference:
            infer(bench, network, batch)


def work_of(bench: Bench, kind: str, network: str, batch: int) -> Row:
    name = {"train": "training", "infer": "inference"}[kind]
    return {
        **dict(kind=kind, work=f"{network} {name}, batch {batch}", network=network, batch=batch),
        **dict(side=bench.sizes.pixels, dtype="bfloat16"),
    }


def train(bench: Bench, network: str, batch: int) -> None:
    work = work_of(bench, "train", network, batch)
    with bench.attempt(work["work"], may_not_fit=True):
        training = Training(work, bench.device)
        seconds = training.seconds(training.steps_in(bench.sizes.seconds))
        bench.add(work["work"], **figures(bench, training, seconds))
    gc.collect()  # an error's frames hold the batch


def train_beside_torch(bench: Bench, network: str, batch: int) -> None:
    """Ours, then ours and PyTorch's in turn, when it has compiled; both are in memory at once."""
    work = work_of(bench, "train", network, batch)
    with torch_worker(bench, work) as coming, bench.attempt(work["work"], may_not_fit=True):
        training = Training(work, bench.device)
        if network == bench.sizes.networks[0]:
            bench.kept = training
        steps = training.steps_in(bench.sizes.seconds / 2)
        ours = [training.seconds(steps)]
        bench.add(work["work"], **figures(bench, training, ours[0]))
        with bench.attempt(TRAINED.format(network)):
            compare(bench, training, steps, coming)
        targeted = TARGETED.format(network, TARGET)
        if targeted in bench.expected:
            ours.append(training.seconds(steps))  # undisturbed: PyTorch has stopped
            speed = batch / min(ours)
            bench.check(targeted, speed >= TARGET, **{"images/s": speed})
    gc.collect()


def compare(
    bench: Bench, training: Training, steps: int, coming: "Future[tuple[Worker, float]] | None"
) -> None:
    """Ours and PyTorch's steps in turn, and the check that comes of it."""
    network, batch = training.work["network"], training.work["batch"]
    check, ours, theirs = TRAINED.format(network), [], []
    if coming is None:
        why = "PyTorch is compared on a GPU; benchmarks.models does so on a CPU"
        bench.add(check, check=f"{LEFT_OUT}: {why}")
        return
    try:
        worker, seconds = coming.result()
        calls = max(2, round(bench.sizes.seconds / 2 / seconds))
        for _ in range(ROUNDS):
            ours.append(training.seconds(steps))
            theirs.append(worker.run(calls)["seconds"])
    except LeftOut as error:
        bench.add(check, check=f"{LEFT_OUT}: {error}")
        return
    for name, times in (("ours", ours), ("torch.compile, channels last", theirs)):
        seconds = statistics.median(times)
        figure = {"images/s": batch / seconds, "ms": 1e3 * seconds}
        bench.add(f"{training.work['work']}, in turn: {name}", **figure)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    bench.check(check, ratio >= 1, **{"zoo / it": ratio})


def infer(bench: Bench, network: str, batch: int) -> None:
    """`model(x)`, as a user writes it, with batch norm folded."""
    work = work_of(bench, "infer", network, batch)
    with bench.attempt(work["work"], may_not_fit=True):
        model = zoo.fold(zoo.create(network, dtype=work["dtype"]))
        images = np.random.default_rng(0).integers(
            0, 256, (batch, *[work["side"]] * 2, 3), np.uint8
        )
        x = model.preprocess.normalize(jnp.asarray(images))
        begun = time.perf_counter()
        model(x).block_until_ready()
        compiled = time.perf_counter() - begun
        seconds = machine.seconds_of(lambda: model(x), bench.sizes.seconds / 2)
        flops = 2 * batch * zoo.count(network, input_size=work["side"]).macs
        bench.add(
            work["work"],
            **{"images/s": batch / seconds, "ms": 1e3 * seconds},
            **shares(bench, flops / seconds),
            **{"compiled in, s": compiled},
        )


def figures(bench: Bench, training: Training, seconds: float) -> Row:
    work = training.work
    flops = training_flops(work["network"], work["side"], work["batch"])
    most = machine.memory(bench.device).get("peak_bytes_in_use")
    return {
        "images/s": work["batch"] / seconds,
        "ms": 1e3 * seconds,
        **shares(bench, flops / seconds),
        "program GB": training.bytes_needed / 1e9,
        "most so far, GB": most and most / 1e9,
        "compiled in, s": training.seconds_to_compile,
    }


def training_flops(network: str, side: int, batch: int) -> float:
    """Of a step: 2 a multiply-accumulate, and the two gradients cost what the forward pass does."""
    return 3 * 2 * batch * zoo.count(network, input_size=side).macs


def shares(bench: Bench, rate: float) -> Row:
    """What a rate in FLOP/s is of the two that the machine has, in percent."""
    known = machine.peak(bench.device)
    return {
        "MFU, %": 100 * rate / bench.matmul if bench.matmul else None,
        "of peak, %": 100 * rate / known if known else None,
    }


@contextlib.contextmanager
def torch_worker(bench: Bench, work: Row) -> Iterator["Future[tuple[Worker, float]] | None"]:
    """PyTorch in a process of its own, which compiles while ours does; None without a GPU.

    The future has the worker and the seconds that one of its calls takes, or LeftOut. Where it
    takes too long the process is ended.
    """
    if bench.device.platform != "gpu":
        yield None
        return
    peer = Contender("torch", "torch", TORCH, options={"compile": True, "device": "cuda"})
    worker = Worker(peer)

    seconds, over = min(PATIENCE, PATIENT * time_left()), threading.Event()

    def setup() -> tuple[Worker, float]:
        try:
            answer = worker.setup(work)
            bench.result.describe({}, answer["versions"])
            worker.run(WARM)
            return worker, worker.run(WARM)["seconds"]
        except LeftOut:
            if not over.is_set():
                raise
            raise LeftOut(f"not compiled within {seconds:.0f} s") from None

    def end() -> None:
        over.set()
        for process in worker.processes:
            process.kill()

    limit = threading.Timer(seconds, end)
    limit.daemon = True
    limit.start()
    pool = ThreadPoolExecutor(1)
    try:
        yield pool.submit(setup)
    finally:
        limit.cancel()
        end()
        pool.shutdown()  # who waits for an answer there gets none
        worker.close()
