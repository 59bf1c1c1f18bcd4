"""Compile the training step for TPUs that are not there, in a process of its own.

libtpu can compile without a TPU. But once it is loaded, JAX looks for a TPU and complains if there
is none. So only a child process loads it, which compiles one configuration after another.
"""

import importlib.util
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from tqdm import tqdm

from zoo.errors import ZooError

from .config import TrainConfig
from .topologies import Topology

T = TypeVar("T")

INSTALL = 'pip install -U "jax-cnn-zoo[plan]"'
STEPS = 1000  # of the learning rate's schedule
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIGN_OF_LIFE = 60  # seconds between two lines if there is no terminal to show the time
MAKE_CHIPS_WHOLE = {"v4": {"chip_config_name": "megacore"}}  # as JAX does: one device, two cores
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # do not ask a cloud which TPU this is
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # several plans at once
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # such programs are written to it and cannot be read
}


@dataclass(frozen=True)
class Pictures:
    """What a step needs to know about a dataset."""

    num_classes: int
    image_size: int | None = None  # usual for the dataset
    flip: bool = True
    class_weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Cost:
    """What one step costs each chip: bytes of memory, operations and traffic."""

    batch_size: int  # of all chips together
    arguments: int  # the state and the pictures
    outputs: int  # the next state
    aliased: int  # of the outputs, those written over arguments
    scratch: int  # activations, gradients and all else that lives within a step
    flops: float
    traffic: float  # bytes read from and written to the chip's memory
    reductions: int | None  # over all chips; None: not known
    reduced: int  # bytes that they sum up
    ahead: int = 0  # bytes of the next batch, which is brought to the chips during the step
    seconds: float = 0.0  # that compiling took

    @property
    def memory(self) -> int:
        """Bytes that the program needs on each device at its peak."""
        return self.arguments + self.outputs - self.aliased + self.scratch + self.ahead


@dataclass(frozen=True)
class Overflow:
    """A step that does not fit."""

    batch_size: int
    memory: int  # bytes of each chip that it would take, the next batch among them
    seconds: float = 0.0


Compiler = Callable[[TrainConfig], Cost | Overflow]


# --- this side -----------------------------------------------------------------------------------


@contextmanager
def compiler(machine: Topology, pictures: Pictures) -> Iterator[Compiler]:
    """A function that compiles the step of a configuration, which takes minutes, and says so.

    Raises:
      ZooError: libtpu is not installed, or does not match the version of jax. The function raises
        it for invalid settings.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ZooError(f"topology: compiling for {machine.name} needs libtpu: {INSTALL}")
    with (
        tempfile.TemporaryFile() as errors,
        _process(errors) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.stdin
        assert process.stdout
        questions, answers = process.stdin, process.stdout

        def ask(question: TrainConfig) -> Cost | Overflow | ZooError:
            try:
                pickle.dump(question, questions)
                questions.flush()
                answer: Cost | Overflow | ZooError = pickle.load(answers)
                return answer
            except (EOFError, BrokenPipeError):
                return ZooError(_ended(process.wait(), errors))

        def compile_(config: TrainConfig) -> Cost | Overflow:
            what = f"compiling {config.model} for {machine.name}, batch {config.batch_size}"
            answer = _watched(what, pool.submit(ask, config))
            if isinstance(answer, ZooError):
                raise answer
            return answer

        try:
            pickle.dump((machine, pictures), questions)
            yield compile_
        finally:
            process.kill()


@contextmanager
def _process(errors: IO[bytes]) -> "Iterator[subprocess.Popen[bytes]]":
    """A child process that runs `main`; its pipes are closed when it has ended."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        with suppress(BrokenPipeError), process:
            pass  # closes what it has


def _ended(status: int, errors: IO[bytes]) -> str:
    """Why the child ended early, in one line."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if status < 0:
        last = signal.Signals(-status).name
        if -status == signal.SIGKILL:
            last += ", perhaps for want of memory"
    return f"plan: the process that compiles ended early: {last}"


def _watched(what: str, answer: Future[T]) -> T:
    """Wait for the answer, and show that it is still being worked on."""
    begun = time.monotonic()
    bar_format = "{desc}: {elapsed}"
    with tqdm(desc=what, bar_format=bar_format, leave=False, disable=None) as bar:
        if bar.disable:
            print(f"{what} ...", file=sys.stderr, flush=True)
        while wait([answer], 1 if not bar.disable else SIGN_OF_LIFE).not_done:
            if bar.disable:
                print(f"... {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            bar.refresh()
    return answer.result()


# --- the other side ------------------------------------------------------------------------------


def main() -> None:
    """Read configurations from stdin and answer on stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libtpu prints is no answer
    machine, pictures = pickle.load(sys.stdin.buffer)
    devices: list[Any] = []
    while True:
        try:
            config = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            devices = devices or absent(machine)
            answer: Any = compiled(config, pictures, devices, machine.chip.memory)
        except ZooError as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even in the middle of a compilation."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def absent(machine: Topology) -> list[Any]:
    """The devices of a TPU that is not there.

    Raises:
      ZooError: libtpu cannot describe it.
    """
    import jax
    from jax.experimental import topologies

    kind = machine.name.partition(":")[0]
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=machine.name, **MAKE_CHIPS_WHOLE.get(kind, {})
        )
    except Exception as error:  # whatever a library of another age may say
        said = str(error).partition("\n")[0] or type(error).__name__
        raise ZooError(
            f"topology: libtpu does not know {machine.name}, or does not fit jax "
            f"{jax.__version__} ({said}): {INSTALL}"
        ) from error
    return list(description.devices)


def compiled(
    config: TrainConfig, pictures: Pictures, devices: list[Any], room: float
) -> Cost | Overflow:
    """The cost of the training step on these devices.

    Args:
      config: of the run.
      pictures: what it trains on.
      devices: a topology's, see `training.topologies`; none of them has to be there.
      room: bytes of memory of each device.

    Raises:
      ZooError: invalid settings, or the compiler failed.
    """
    import jax

    from . import memory

    begun = time.monotonic()
    step = traced(config, pictures, devices)
    (_, batch), _ = step.args_info
    ahead = memory.size(batch) // len(devices)  # which the compiler does not know of
    try:
        program = step.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if (needed := overflow(str(error))) is None:
            said = str(error).partition("\n")[0]
            raise ZooError(f"plan: the compiler failed: {said}") from error
        return Overflow(config.batch_size, needed + ahead, time.monotonic() - begun)
    cost = measured(program, config, ahead, time.monotonic() - begun)
    return cost if cost.memory <= room else Overflow(config.batch_size, cost.memory, cost.seconds)


def traced(config: TrainConfig, pictures: Pictures, devices: list[Any] | None = None) -> Any:
    """The training step traced on shapes alone, ready to be lowered.

    It is the step of `training.loop` under `shard_map`: pmap only takes devices that are there.

    Args:
      config: of the run.
      pictures: what it trains on.
      devices: None takes all that JAX sees.
    """
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from .parallel import Devices
    from .step import AXIS

    crew = Devices("shard_map", devices)
    model, parts = outlined(config, pictures)

    def placed(tree: Any, spec: P) -> Any:
        sharding = NamedSharding(crew.mesh, spec)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    shape = model.preprocess.shape
    batch = {
        "image": jax.ShapeDtypeStruct((config.batch_size, *shape), "uint8"),
        "label": jax.ShapeDtypeStruct((config.batch_size,), "int32"),
    }
    step = crew.jit(parts.step, donate=True)
    return step.trace(placed(parts.shapes(), P()), placed(batch, P(AXIS)))


def outlined(config: TrainConfig, pictures: Pictures) -> tuple[Any, Any]:
    """(network, assembly) of the run's last phase, which trains most, as shapes alone.

    Raises:
      ZooError: invalid settings.
    """
    from zoo.layers import model_stages

    from . import optim
    from .phases import phases
    from .session import assemble, objective, outline

    model = outline(config, pictures.num_classes, pictures.image_size)
    phase = phases(config, model_stages(model))[-1]
    rate = optim.schedule(config, phase.learning_rate, STEPS, STEPS)  # costs the same however long
    mirrored = pictures.flip if config.flip is None else config.flip
    parts = assemble(
        config,
        model,
        phase,
        rate,
        objective(config, pictures.num_classes, pictures.class_weights),
        period=1,
        flip=mirrored and not config.alternate_flip,
    )
    return model, parts


# --- what a compiled program says of itself ------------------------------------------------------


def measured(program: Any, config: TrainConfig, ahead: int = 0, seconds: float = 0.0) -> Cost:
    """The cost of a compiled step; `ahead` and `seconds` are passed on.

    XLA counts the body of a loop once. So with `accumulate`, operations and traffic are multiplied
    by the number of parts, including those of the weight update, which are a small share.
    """
    memory, counts = program.memory_analysis(), program.cost_analysis()
    reductions = all_reduces(program.as_text(), config.accumulate)
    return Cost(
        config.batch_size,
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        scratch=memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        flops=counts["flops"] * config.accumulate,
        traffic=counts["bytes accessed"] * config.accumulate,
        reductions=len(reductions),
        reduced=sum(reductions),
        ahead=ahead,
        seconds=seconds,
    )


def all_reduces(program: str, repeats: int = 1) -> list[int]:
    """The bytes that each all-reduce of a step sums up.

    Args:
      program: the text of a compiled program (HLO).
      repeats: how often the body of a loop runs.
    """
    bodies = set(re.findall(r"\bbody=%?([\w.-]+)", program))
    sizes, computation = [], ""
    for line in program.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            computation = header[1]
        elif shape := re.match(r"\s+(?:ROOT )?%?[\w.-]+ = (.*?) all-reduce(?:-start)?\(", line):
            times = repeats if computation in bodies else 1
            sizes += [_bytes(shape[1])] * times
    return sizes


def _bytes(shape: str) -> int:
    """Bytes of an HLO shape, "f32[64]{0:T(256)}" or a tuple of such."""
    total = 0
    for bits, sizes in re.findall(r"\b[a-z]+(\d+)\[([\d,]*)\]", shape):
        total += math.prod(map(int, filter(None, sizes.split(",")))) * int(bits) // 8
    return total


def overflow(message: str) -> int | None:
    """The bytes that a program would take, from the compiler's error; None: another error."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    used = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    asked = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM", message)
    size = used or asked
    return int(float(size[1]) * UNITS[size[2]]) if size else None
