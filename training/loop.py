"""The loop: files, clocks, signals, progress, and what can go wrong around the pure step."""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import grain
import jax
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.layers import Network, model_stages
from zoo.pretrained.fetch import write

from . import data, distributed, evaluation, memory, optim, report
from .checkpoint import Checkpoints
from .config import TrainConfig, differences
from .logging import Log, Record
from .parallel import Devices
from .phases import Phase, phases, rate_scales
from .setup import assemble, build, check_batch_norm, class_weights, open_data
from .state import TrainState, no_totals, put_together
from .step import make_eval_step

# A mean loss this many times the epoch's before, and above twice that of guessing, has come apart:
# not even a restart of the learning rate does that to a network that has learnt something.
EXPLODED = 10.0
SLOWER = 0.1  # the learning rate of the second attempt, over that of the first
GLANCE = 0.5  # seconds between two looks at the loss, each of which waits for a step
SHARED = 60  # seconds in which a shared folder shows on one host what another wrote


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    model: Network  # trained, in inference mode
    accuracy: float  # on the validation pictures, at the end
    history: list[Record]  # one record an epoch, as in metrics.jsonl
    out: Path


class Interrupted(Exception):
    """The run was told to stop (SIGTERM, Ctrl-C) and saved itself; the same call continues it."""


class PeerLost(Interrupted):
    """Another process of the run is gone. The same call in all processes continues the run.

    JAX cannot go on in this process: it ends within `distributed.GRACE` seconds.
    """


class Diverged(Exception):
    """The loss of an epoch is no number, or many times what it was."""

    def __init__(self, epoch: int, loss: float, before: float):
        super().__init__(f"epoch {epoch}: loss {loss:.3g}, {before:.3g} before")


def fit(config: TrainConfig) -> Result:
    """Train a network, or continue the interrupted run in `config.folder`.

    Everything is checked before the first file is written. The run leaves in `config.folder`:
    `config.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `model.safetensors` (the
    last epoch's) with its `card.md`, and `report.md` with `curves.png`, `confusion.png`,
    `mistakes.png` and `predictions.csv`.

    A run whose loss explodes goes back to its last good checkpoint once, with a tenth of the
    learning rate, which `rollback.json` then says.

    Several processes (`distributed.start`) call this alike, with a folder that they share; the
    first of them writes all but the checkpoints, which all write together.

    Raises:
      ZooError: an unknown network or dataset, unreadable pictures, a batch that the devices cannot
        share out, weights that do not fit, an `out` that holds another run, or a loss that exploded
        twice.
      Interrupted: the process was told to stop; the run is saved.
      PeerLost: another process of the run is gone.

    >>> result = fit(TrainConfig(data="folder:photos", out="runs/photos"))    # doctest: +SKIP
    """
    with _together():
        return _fit(config)


def _fit(config: TrainConfig) -> Result:
    devices = Devices(config.engine)
    devices.check_batch(config.batch_size, config.accumulate)
    out = config.folder
    check_out(out, config)
    dataset = open_data(config)
    model = build(config, dataset)
    stages = model_stages(model)
    phases(config, stages)  # these two for what they refuse
    rate_scales(stages, (), config.depth_decay, config.multipliers)
    check_batch_norm(config, model, len(devices))
    distributed.barrier("checked")  # before the first process writes what the others check
    if jax.process_index() == 0:
        begin(out, config)
    distributed.barrier("begun")
    check_shared(out)
    with Run(config, devices, dataset, model) as run, _signals() as stop:
        run.train(stop)
        result = run.finish()
    distributed.barrier("done")
    return result


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What ends one of several processes ends them all."""
    try:
        yield
    except Interrupted:
        raise  # all of them were
    except BaseException as error:
        # what JAX raises from a collective or a barrier
        if isinstance(error, RuntimeError) and distributed.peer_lost():
            raise PeerLost(distributed.LOST) from error
        bad_input, impatience = isinstance(error, ZooError), isinstance(error, KeyboardInterrupt)
        distributed.failed(2 if bad_input else 130 if impatience else 1)  # as `zoo` exits
        raise


def check_out(out: Path, config: TrainConfig) -> None:
    """
    Raises:
      ZooError: the folder cannot be used for this run; nothing has been written.
    """
    try:
        stored = json.loads((out / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        stored = None
    except (OSError, ValueError) as error:
        raise ZooError(f"out: cannot read {out / 'config.json'}: {error}") from error
    if stored is not None and (differs := differences(stored, config)):
        raise ZooError(f"out: {out} holds another run ({'; '.join(differs)}): choose another --out")
    if out.exists() and not out.is_dir():
        raise ZooError(f"out: {out} is a file, expected a folder")
    # a hidden file may be a config.json that a crash left half written
    if stored is None and out.exists() and any(p.name[0] != "." for p in out.iterdir()):
        raise ZooError(f"out: {out} holds other files and no config.json: choose another --out")
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ZooError(f"out: no permission to write to {existing}")


def begin(out: Path, config: TrainConfig) -> None:
    """Make the folder of a run, with its `config.json`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "config.json").exists():
            part = out / ".config.json"
            config.save(part)
            part.replace(out / "config.json")
    except OSError as error:
        raise ZooError(f"out: cannot write to {out}: {error.strerror}") from error


def check_shared(out: Path) -> None:
    """
    Raises:
      ZooError: another process made the folder, but not where this one looks.
    """
    begun = time.monotonic()
    while not (out / "config.json").exists():
        if time.monotonic() - begun > SHARED:
            raise ZooError(
                f"out: process 0 made {out}, which process {jax.process_index()} does not see: "
                "expected a folder that all hosts share"
            )
        time.sleep(1)


class Run:
    """A run under way: what it needs to step, to measure, to save and to tell."""

    def __init__(
        self, config: TrainConfig, devices: Devices, dataset: data.Dataset, model: Network
    ):
        self.config, self.devices, self.dataset, self.model = config, devices, dataset, model
        self.out = config.folder
        self.first = jax.process_index() == 0  # the process that writes and tells
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.stages = model_stages(model)
        self.phases = phases(config, self.stages)
        host_batch = config.batch_size // jax.process_count()
        host = jax.process_index(), jax.process_count()
        self.batches: grain.DatasetIterator = data.train_batches(
            dataset,
            model.preprocess,
            batch_size=host_batch,
            seed=config.seed,
            crop_scale=config.crop_scale,
            shard=host,
            balanced=config.balanced,
        )
        self.val_batches = data.eval_batches(
            dataset.val, model.preprocess, batch_size=host_batch, shard=host
        )
        self.checkpoints = Checkpoints(self.out / "checkpoints", self._say)
        self.resumed_at = self.checkpoints.latest or 0
        self.log = Log(self.out, self.resumed_at) if self.first else None
        known: dict[str, Any] = distributed.from_first(
            {"history": self.log.history, "scale": rate_scale(self.out)} if self.log else {}
        )
        self.history: list[Record] = self.log.history if self.log else known["history"]
        self.rate_scale: float = known["scale"]  # 1, or `SLOWER` once the loss has exploded
        self.bar = tqdm(
            total=config.epochs * self.steps_per_epoch * config.batch_size,
            initial=self.resumed_at * config.batch_size,
            unit="img",
            unit_scale=True,
            disable=None if self.first else True,  # on a terminal; a line an epoch everywhere
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.close()
        if self.log:
            self.log.close()
        # After any other error the last save may wait for a process that is gone, and after the
        # second Ctrl-C nobody wants to.
        if kind is None or issubclass(kind, Interrupted | ZooError):
            self.checkpoints.close()

    def train(self, stop: threading.Event) -> None:
        """All phases from where the run stands; afterwards the model holds the result."""
        self._say(self.dataset.summary)
        if (processes := jax.process_count()) > 1:
            self._say(f"{processes} processes with {len(self.devices)} devices share this run")
        if self.resumed_at:
            self._say(f"continuing {self.out} after step {self.resumed_at}")
        for phase in self.phases:
            while self.resumed_at <= phase.stop * self.steps_per_epoch:  # else done before a break
                try:
                    self._phase(phase, stop)
                    break
                except Diverged as told:
                    self._roll_back(phase, told)

    def _phase(self, phase: Phase, stop: threading.Event) -> None:
        config = self.config
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        peak = phase.learning_rate * self.rate_scale
        rate = optim.schedule(config, peak, last - first, self.steps_per_epoch)
        parts = assemble(
            config,
            self.model,
            phase,
            rate,
            flip=self.dataset.flip,
            class_weights=class_weights(self.dataset) if config.class_weights else None,
        )
        program, preprocess = parts.program, self.model.preprocess
        state = self.devices.replicate(parts.start(first))
        self._say(str(memory.needs(program, preprocess, config, state, len(self.devices))))
        if first < self.resumed_at <= last:
            whole = self.checkpoints.restore(self.devices.to_global(state), self.resumed_at)
            state = self.devices.to_local(whole)
        done = int(state.step)
        # each step takes one batch, so that any number of processes can continue
        grain.experimental.set_next_index(self.batches, done)
        train_step = self.devices.compile(parts.step, donate=True)
        eval_step = self.devices.compile(make_eval_step(program, preprocess), donate=False)
        for epoch in range(done // self.steps_per_epoch, phase.stop):
            state, timing = self._epoch(epoch, state, train_step, stop)
            train = evaluation.means(state.totals)
            self._check(epoch, train.loss)
            val = evaluation.run(
                eval_step, self.devices, state.weights, state.stats, self.val_batches
            )
            self._check_finite(epoch, val.loss)  # the last update may have been the bad one
            step = (epoch + 1) * self.steps_per_epoch
            self._tell(
                {
                    "epoch": epoch + 1,
                    "step": step,
                    "train_loss": train.loss,
                    "train_accuracy": train.accuracy,
                    "val_loss": val.loss,
                    "val_accuracy": val.accuracy,
                    "val_top5": val.top5,
                    "learning_rate": float(rate(step - first)),
                    **({} if self.rate_scale == 1 else {"rate_scale": self.rate_scale}),
                    **timing,
                }
            )
            state = replace(state, totals=self.devices.replicate(no_totals()))
            self.checkpoints.save(self.devices.to_global(state), val.accuracy)
        put_together(self.model, *self.devices.own((state.weights, state.stats)))

    def _epoch(
        self, epoch: int, state: TrainState, train_step: Any, stop: threading.Event
    ) -> tuple[TrainState, Record]:
        """The rest of an epoch; (state, how fast it went)."""
        begin = shown = time.perf_counter()
        waited = 0.0

        def following() -> dict[str, jax.Array]:
            """The next batch, on the devices."""
            return self.devices.shard(next(self.batches))

        def waited_for(batch: "Future[dict[str, jax.Array]]") -> dict[str, jax.Array]:
            nonlocal waited
            asked = time.perf_counter()
            found = batch.result()
            waited += time.perf_counter() - asked
            return found

        start, end = int(state.step), (epoch + 1) * self.steps_per_epoch
        self.bar.set_description(f"epoch {epoch + 1}/{self.config.epochs}", refresh=False)
        if self._told_to_stop(stop, start):
            self._stop(state)
        with ThreadPoolExecutor(1) as beside:  # a step may keep this thread: see `Devices.compile`
            coming = beside.submit(following)
            for step in range(start + 1, end + 1):
                batch = waited_for(coming)
                if step < end:
                    coming = beside.submit(following)
                state = train_step(state, batch)
                self.bar.update(self.config.batch_size)
                if step == end:
                    break
                if self._told_to_stop(stop, step):
                    self._stop(state)
                if time.perf_counter() - shown > GLANCE:
                    now = evaluation.means(state.totals)
                    shown = time.perf_counter()
                    share = waited / (shown - begin)  # of the time, spent waiting for pictures
                    self.bar.set_postfix_str(
                        f"loss {now.loss:.3f} acc {now.accuracy:.1%} input wait {share:.0%}"
                    )
                    if jax.process_count() == 1:  # several look at different times
                        self._check_finite(epoch, now.loss)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - begin
        images = (end - start) * self.config.batch_size
        return state, {
            "images_per_second": images / seconds,
            "input_wait": waited / seconds,  # share of the time that the devices lacked pictures
            "seconds": seconds,
        }

    # --- when told to stop

    def _told_to_stop(self, stop: threading.Event, step: int) -> bool:
        return distributed.told_to_stop(step) if jax.process_count() > 1 else stop.is_set()

    def _stop(self, state: TrainState) -> NoReturn:
        step = int(state.step)
        # the end of an epoch has been saved; NaN is not worth it
        if step % self.steps_per_epoch and math.isfinite(evaluation.means(state.totals).loss):
            self.checkpoints.save(self.devices.to_global(state), 0.0)
        raise Interrupted(f"stopped after step {step}; the same command continues the run")

    # --- when the loss explodes

    def _check(self, epoch: int, loss: float) -> None:
        """
        Raises:
          Diverged: the mean training loss of an epoch is not finite, or has exploded.
        """
        self._check_finite(epoch, loss)
        guessing = math.log(len(self.dataset.classes))
        before = self.history[-1]["train_loss"] if self.history else guessing
        if loss > max(EXPLODED * before, 2 * guessing):
            raise Diverged(epoch + 1, loss, before)

    def _check_finite(self, epoch: int, loss: float) -> None:
        # In the middle of an epoch too: NaN stays NaN, so that it does not matter when one looks.
        if not math.isfinite(loss):
            before = self.history[-1]["train_loss"] if self.history else math.nan
            raise Diverged(epoch + 1, loss, before)

    def _roll_back(self, phase: Phase, told: Diverged) -> None:
        """Back to the last epoch that went well, once, with a lower learning rate."""
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        self.checkpoints.wait()
        # Those within an epoch are of one that may have been going wrong already.
        kept = [step for step in self.checkpoints.steps if step % self.steps_per_epoch == 0]
        good = max((step for step in kept if first <= step <= last), default=first)
        if self.rate_scale != 1:
            raise ZooError(
                f"training diverged again, in {told}, with {self.rate_scale:g} of the learning "
                f"rate: try a lower --learning-rate than {self.config.peak_learning_rate:g}, or "
                f"--clip-norm 1; the last good checkpoint is of step {good}"
            )
        self.rate_scale = SLOWER
        if self.first:
            note = {"step": good, "why": str(told), "rate_scale": self.rate_scale}
            write(self.out / "rollback.json", (json.dumps(note, indent=2) + "\n").encode())
        self.checkpoints.forget_after(good)
        self.resumed_at = good
        if self.log:
            self.log.close()
            self.log = Log(self.out, good)
            self.history = self.log.history
        else:
            self.history = [record for record in self.history if record["step"] <= good]
        self.bar.n = good * self.config.batch_size
        where = f"step {good}" if good > first else "the weights it began with"
        self._say(f"diverged in {told}: back to {where}, with {SLOWER:g} of the learning rate")

    # --- what it tells and leaves

    def _say(self, line: str) -> None:
        if self.first:
            tqdm.write(line, file=sys.stderr)

    def _tell(self, record: Record) -> None:
        if self.log:
            try:
                self.log.add(record)
            except OSError as error:
                self._say(f"metrics of epoch {record['epoch']} not written: {error.strerror}")
        else:
            self.history.append(record)
        self._say(
            f"epoch {record['epoch']:>3}/{self.config.epochs}"
            f"  loss {record['train_loss']:.3f}  acc {record['train_accuracy']:6.1%}"
            f"  val loss {record['val_loss']:.3f}  val acc {record['val_accuracy']:6.1%}"
            f"  {record['images_per_second']:,.0f} img/s"
        )

    def finish(self) -> Result:
        """Write the trained network and the report on it."""
        self.checkpoints.wait()
        if missed := self.checkpoints.missed:
            self._say(
                f"{len(missed)} of the checkpoints could not be saved ({missed[-1]}); "
                f"{self.checkpoints.kept}"
            )
        if self.first:
            try:
                self._write()
            except OSError as error:
                raise ZooError(
                    f"out: cannot write to {self.out}: {error.strerror or error}; "
                    "the same command tries again"
                ) from error
        return Result(self.model, self.history[-1]["val_accuracy"], self.history, self.out)

    def _write(self) -> None:
        zoo.save(self.model, self.out / "model.safetensors")
        report.write(self.out, self.model, self.dataset, self.config, self.history)


def rate_scale(out: Path) -> float:
    """The factor of the learning rate that an earlier attempt at this run settled on.

    Raises:
      ZooError: `rollback.json` is damaged.
    """
    path = out / "rollback.json"
    try:
        return float(json.loads(path.read_text())["rate_scale"])
    except FileNotFoundError:
        return 1.0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"out: cannot read {path}: {error}") from error


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, so that the loop can stop between two steps.

    The second Ctrl-C stops at once. Of several processes, SIGTERM to any stops all: JAX has a
    handler for that, to which Ctrl-C is passed on here.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread gets signals
        return
    alone = jax.process_count() == 1

    def handle(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        if not alone:
            signal.raise_signal(signal.SIGTERM)

    ours = (signal.SIGTERM, signal.SIGINT) if alone else (signal.SIGINT,)
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
