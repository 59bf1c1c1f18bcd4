"""The loop: files, clocks, signals, progress, and what can go wrong around the pure step."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import grain
import jax
import optax
from flax import nnx
from tqdm import tqdm

import zoo
from zoo import backend
from zoo.errors import ZooError
from zoo.paths import write
from zoo.pretrained.saving import describe
from zoo.wrapped import Wrapped

from . import distributed, evaluation, folder, memory, report
from .checkpoint import Checkpoints
from .config import TrainConfig
from .logging import Log, Record, best_of, kept_of, read_records
from .objective import PerPicture
from .objects import Callback, Objects, Optimizer, path_of
from .parallel import Devices
from .phases import Phase
from .session import Session, build, open_data
from .state import TrainState, no_totals, put_together
from .step import Augment
from .stopping import EXIT_INTERRUPTED, Stop, heeded
from .stopping import Interrupted as Interrupted

# The loss has exploded when its mean is this many times that of the epoch before, and over twice
# that of guessing: not even a restart of the learning rate does that to a trained network.
EXPLODED = 10.0
SLOWER = 0.1  # the learning rate of the second attempt, over that of the first
GLANCE = 0.5  # seconds between two looks at the loss, each of which waits for a step


@dataclass(frozen=True)
class Result:
    """The outcome of a run."""

    model: Any  # trained, in inference mode: a `zoo.Network`, or the module that was given
    accuracy: float  # of the model on the validation pictures
    history: list[Record]  # one record an epoch, as in metrics.jsonl
    out: Path


class PeerLost(Interrupted):
    """Another process of the run is gone. The same call in all processes continues the run.

    JAX cannot go on in this process: it ends within `distributed.GRACE` seconds.
    """


class Diverged(Exception):
    """The loss of an epoch is NaN or infinite, or many times that of the epoch before."""

    def __init__(self, epoch: int, loss: float, before: float):
        super().__init__(f"epoch {epoch}: loss {loss:.3g}, {before:.3g} before")


def fit(
    config: TrainConfig | None = None,
    *,
    model: nnx.Module | None = None,
    data: Any = None,
    optimizer: Optimizer | None = None,
    schedule: optax.Schedule | None = None,
    loss: PerPicture | None = None,
    augment: Augment | None = None,
    metrics: Mapping[str, PerPicture] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Train a network, or continue the interrupted run in `config.folder`.

    Everything is checked before the first file is written. The run leaves in `config.folder`:
    `config.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `model.safetensors` (the
    last epoch's, or the best one's with `config.keep`) with its `card.md`, and `report.md` with
    `curves.png`, `confusion.png`, `mistakes.png` and `predictions.csv`. A finished
    run is left as it is, and its result is returned again.

    A run whose loss explodes goes back once to its last good checkpoint and continues with a tenth
    of the learning rate, which `rollback.json` records.

    Several processes (`distributed.start`) all call this, with a folder that they share. The first
    one writes everything but the checkpoints, which all write together.

    Wherever the config takes a name, an object can be given instead. `config.json` then has its
    import path, and the run is continued only with objects of the same paths.

    Args:
      config: None: the defaults.
      model: any `nnx.Module` that maps images [N, H, W, 3], float32, to logits [N, K]. It is
        trained itself, and left in inference mode.
      data: a `training.Dataset`; arrays, (images, labels) or two such pairs; or two sources of
        pictures, see `training.sources.own.own_dataset`.
      optimizer: an `optax.GradientTransformation` over {dotted path: parameter}, or a function of
        the schedule that gives one, such as `optax.adamw`. `clip_norm`, `lr_mult` and `depth_decay`
        still apply, `momentum` and `weight_decay` do not.
      schedule: the learning rate by step of the run.
      loss: of (logits [B, K], targets [B, K]) for each picture, [B].
      augment: of (images uint8 [B, H, W, 3], key) -> images uint8, in place of flips, shifts,
        colours and the like; `crop_scale`, `mixup` and `cutmix` still apply.
      metrics: by name, functions like `loss`, whose means are in every record as train_NAME and
        val_NAME.
      callbacks: each is called with the record of every epoch. One that returns a true value ends
        the run, which then counts as finished. A continued run calls them for new epochs only.

    Raises:
      ZooError: an unknown network or dataset, unreadable pictures, a batch that the devices cannot
        share out, weights that do not fit, an `out` that holds another run or that another process
        works in, no checkpoint that is whole, or a loss that exploded twice.
      Interrupted: the process was told to stop; the run is saved.
      PeerLost: another process of the run is gone.

    >>> result = fit(TrainConfig(data="folder:photos", out="runs/photos"))    # doctest: +SKIP
    >>> result = fit(model=net, data=(images, labels), optimizer=optax.adamw) # doctest: +SKIP
    """
    backend.expect_training()
    objects = Objects(model, data, optimizer, schedule, loss, augment, metrics or {}, callbacks)
    config = objects.entered(config or TrainConfig())
    with heeded(jax.process_count() > 1) as stop, _together():
        return _fit(config, objects, stop)


def _fit(config: TrainConfig, objects: Objects, stop: Stop) -> Result:
    devices = Devices(config.engine)
    devices.check_batch(config.batch_size, config.accumulate)
    out = config.folder
    folder.check_out(out, config)
    first = jax.process_index() == 0
    over = distributed.from_first({"over": folder.is_finished(out)})["over"]
    with contextlib.ExitStack() as stack:
        there = (out / "config.json").exists()
        if first and there and not over:
            stack.enter_context(folder.held(out))
        dataset = open_data(config, objects)
        folder.check_data(out, config, dataset.record)
        if over:
            return _finished(config, objects)
        session = Session(config, objects, dataset, build(config, dataset, objects))
        session.check(len(devices))
        distributed.barrier("checked")  # before the first process writes what the others check
        if first:
            if not there:
                folder.make(out)
                stack.enter_context(folder.held(out))
                folder.check_out(out, config)  # somebody may have been faster
            folder.begin(out, config, dataset.record)
        distributed.barrier("begun")
        folder.check_shared(out)
        with Run(session, devices, stop) as run:
            run.train()
            result = run.finish()
        distributed.barrier("done")
    return result


def _finished(config: TrainConfig, objects: Objects) -> Result:
    """The result of a finished run, read from its folder. Nothing is written."""
    out = config.folder
    history = folder.finished_history(out, config)
    file = out / "model.safetensors"
    model: Any = objects.model
    if model is None:
        model = zoo.load(f"{file}")
    else:
        zoo.restore(model, file)
    if jax.process_index() == 0:
        epochs = f"{len(history)} epoch{'s' * (len(history) > 1)}"
        print(f"finished: {out} has all of its {epochs}", file=sys.stderr)
    return Result(model, kept_of(history, config.keep)["val_accuracy"], history, out)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """If one of several processes fails, end them all."""
    try:
        yield
    except Interrupted:
        raise  # all of them were
    except BaseException as error:
        bad_input, impatience = isinstance(error, ZooError), isinstance(error, KeyboardInterrupt)
        # JAX may raise anything from a collective or a barrier
        if isinstance(error, Exception) and not bad_input:
            if distributed.peer_lost():
                raise PeerLost(distributed.LOST) from error
            if distributed.too_slow(error):
                distributed.failed(EXIT_INTERRUPTED)
                raise PeerLost(distributed.SLOW) from error
        distributed.failed(2 if bad_input else 130 if impatience else 1)  # as `zoo` exits
        raise


class Run:
    """A run in progress: everything it needs to train, evaluate, save and report."""

    def __init__(self, session: Session, devices: Devices, stop: Stop):
        self.session, self.devices, self.stop = session, devices, stop
        self.config, self.dataset, self.model = session.config, session.dataset, session.model
        config = session.config
        self.about = describe(self.model)
        self.out = config.folder
        self.first = jax.process_index() == 0  # the process that writes and tells
        self.steps_per_epoch = session.steps_per_epoch
        self.batches, self.val_batches = session.train_batches(), session.val_batches()
        self.checkpoints = Checkpoints(self.out / "checkpoints", self._say)
        self.checkpoints.clear()
        self.saved = self.checkpoints.newest()  # what the run continues from, till it does
        self.resumed_at = self.saved.step if self.saved else 0
        history = self.saved.history if self.saved else []
        if history is None:  # an earlier version saved it
            records = read_records(self.out / "metrics.jsonl")
            history = [record for record in records if record["step"] <= self.resumed_at]
        self.history: list[Record] = history
        # 1, or `SLOWER` once the loss has exploded
        self.rate_scale: float = distributed.from_first({"scale": folder.rate_scale(self.out)})[
            "scale"
        ]
        self.log = Log(self.out, history, self.resumed_at) if self.first else None
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

    def train(self) -> None:
        """All phases from where the run stands; afterwards the model holds the result."""
        self._say(self.dataset.summary)
        if (processes := jax.process_count()) > 1:
            self._say(f"{processes} processes with {len(self.devices)} devices share this run")
        if self.resumed_at:
            self._say(f"continuing {self.out} after step {self.resumed_at}")
        for phase in self.session.phases:
            while self.resumed_at <= phase.stop * self.steps_per_epoch:  # else done before a break
                try:
                    self._phase(phase)
                    break
                except Diverged as told:
                    self._roll_back(phase, told)

    def _phase(self, phase: Phase) -> None:
        if self._stopped:
            return
        self._all_is_saved()
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        rate = self.session.rate(phase, self.rate_scale)
        parts = self.session.assemble(phase, rate)
        program, preprocess = parts.program, self.model.preprocess
        state = self.devices.replicate(parts.start(first))
        self._say(str(memory.needs(program, preprocess, self.config, state, len(self.devices))))
        if self.saved and first < self.resumed_at <= last:
            state = self.devices.replicate(self.saved.fill(state))
        self.saved = None
        done = int(state.step)
        # each step takes one batch, so that any number of processes can continue
        grain.experimental.set_next_index(self.batches, done)
        train_step = self.devices.compile(parts.step, donate=True)
        eval_step = self.devices.compile(self.session.eval_step(program), donate=False)
        for epoch in range(done // self.steps_per_epoch, phase.stop):
            state, timing = self._epoch(epoch, state, train_step)
            train = evaluation.means(state.totals)
            self._check(epoch, train.loss)
            val = evaluation.run(
                eval_step,
                self.devices,
                state.weights,
                state.stats,
                self.val_batches,
                parts.metrics,
            )
            self._check_finite(epoch, val.loss)  # the last update may have been the bad one
            step = (epoch + 1) * self.steps_per_epoch
            record = {
                "epoch": epoch + 1,
                "step": step,
                "train_loss": train.loss,
                "train_accuracy": train.accuracy,
                "val_loss": val.loss,
                "val_accuracy": val.accuracy,
                "val_top5": val.top5,
                **{f"train_{name}": value for name, value in train.metrics.items()},
                **{f"val_{name}": value for name, value in val.metrics.items()},
                **self._rate(rate, step - first),
                **({} if self.rate_scale == 1 else {"rate_scale": self.rate_scale}),
                **timing,
            }
            if why := self._asks_to_stop(record, phase):
                record["stopped"] = why
            self._tell(record)
            state = replace(state, totals=self.devices.replicate(no_totals(parts.metrics)))
            self._save(state, val.accuracy)
            if why:
                self._say(f"stopped after epoch {epoch + 1}: {why}")
                break
        put_together(self.model, *self.devices.own((state.weights, state.stats)))

    def _rate(self, rate: optax.Schedule, step: int) -> Record:
        """The learning rate as part of a record; {} if the optimizer has its own."""
        own = isinstance(self.session.objects.optimizer, optax.GradientTransformation)
        return {} if own else {"learning_rate": float(rate(step))}

    @property
    def _stopped(self) -> bool:
        """Whether the run was ended before its last epoch."""
        return bool(self.history) and "stopped" in self.history[-1]

    def _asks_to_stop(self, record: Record, phase: Phase) -> str:
        """Why the run should end with this epoch; "" if it goes on. The same in all processes."""
        why, patience = "", self.config.patience
        for callback in self.session.objects.callbacks:
            if callback(dict(record)):
                why = why or f"{path_of(callback)} asked for it"
        since = [r for r in [*self.history, record] if r["epoch"] > phase.start]
        best = best_of(since)
        last = phase.stop == self.config.epochs
        if not why and last and 0 < patience <= record["epoch"] - best["epoch"]:
            why = f"no better val_accuracy in {patience} epochs"
        return distributed.from_first({"why": why})["why"]

    def _epoch(self, epoch: int, state: TrainState, train_step: Any) -> tuple[TrainState, Record]:
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
        if self._told_to_stop(start):
            self._stop(state)
        with ThreadPoolExecutor(1) as beside:  # a step may keep this thread: see `Devices.compile`
            coming = beside.submit(following)
            for step in range(start + 1, end + 1):
                batch = waited_for(coming)
                if step < end:
                    coming = beside.submit(following)
                state = train_step(state, batch)
                self.stop.unsaved = True
                self.bar.update(self.config.batch_size)
                if step == end:
                    break
                if self._told_to_stop(step):
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

    def _told_to_stop(self, step: int) -> bool:
        return distributed.told_to_stop(step) if self.stop.several else self.stop.told.is_set()

    def _all_is_saved(self) -> None:
        """Everything is saved: until the next step, a signal may end the run at once.

        Raises:
          Interrupted: the run was told to stop before.
        """
        self.checkpoints.wait()
        self.stop.unsaved = False
        self.stop.check()

    def _save(self, state: TrainState, accuracy: float | None = None) -> None:
        self.checkpoints.save(self.devices.to_global(state), accuracy, self.history, self.about)

    def _stop(self, state: TrainState) -> NoReturn:
        step = int(state.step)
        # the end of an epoch has been saved; NaN is not worth it
        if step % self.steps_per_epoch and math.isfinite(evaluation.means(state.totals).loss):
            self._save(state)
        raise Interrupted(f"stopped after step {step}; the same command continues the run")

    # --- when the loss explodes

    def _check(self, epoch: int, loss: float) -> None:
        """Check the training loss of an epoch.

        Raises:
          Diverged: the mean training loss of an epoch is not finite, or has exploded.
        """
        self._check_finite(epoch, loss)
        guessing = math.log(len(self.dataset.classes))
        if self.config.own_loss:
            guessing = abs(self.history[0]["train_loss"] if self.history else loss)
        before = self.history[-1]["train_loss"] if self.history else guessing
        if loss > max(EXPLODED * before, 2 * guessing):
            raise Diverged(epoch + 1, loss, before)

    def _check_finite(self, epoch: int, loss: float) -> None:
        # In the middle of an epoch too: NaN stays NaN, so that it does not matter when one looks.
        if not math.isfinite(loss):
            before = self.history[-1]["train_loss"] if self.history else math.nan
            raise Diverged(epoch + 1, loss, before)

    def _roll_back(self, phase: Phase, told: Diverged) -> None:
        """Go back once to the last good epoch, with a lower learning rate."""
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        self.checkpoints.wait()
        # Those within an epoch are of one that may have been going wrong already.
        kept = [step for step in self.checkpoints.steps if step % self.steps_per_epoch == 0]
        self.saved = self.checkpoints.newest(step for step in kept if first < step <= last)
        good = self.saved.step if self.saved else first
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
        self.history = [record for record in self.history if record["step"] <= good]
        if self.log:
            self.log.close()
            self.log = Log(self.out, self.history, good)
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
        self._all_is_saved()
        kept = self._take_best() if self.config.keep == "best" else self.history[-1]
        if missed := self.checkpoints.missed:
            self._say(
                f"{len(missed)} of the checkpoints could not be saved ({missed[-1]}); "
                f"{self.checkpoints.kept}"
            )
        if self.first:
            try:
                self._write(kept)
            except OSError as error:
                raise ZooError(
                    f"out: cannot write to {self.out}: {error.strerror or error}; "
                    "the same command tries again"
                ) from error
        model = self.model.module if isinstance(self.model, Wrapped) else self.model
        return Result(model, kept["val_accuracy"], self.history, self.out)

    def _take_best(self) -> Record:
        """Give the model the weights of the best saved epoch, and return its record."""
        best = self.checkpoints.best()
        records = {record["step"]: record for record in self.history}
        if best is None or best.step not in records:
            self._say("no checkpoint of the best epoch: keeping the last")
            return self.history[-1]
        if best.step != best_of(self.history)["step"]:
            self._say(
                f"no checkpoint of the best epoch: keeping epoch {records[best.step]['epoch']}"
            )
        put_together(self.model, jax.tree.map(jax.numpy.asarray, best.weights), {})
        return records[best.step]

    def _write(self, kept: Record) -> None:
        if self.log:
            self.log.write()
        zoo.save(self.model, self.out / "model.safetensors")
        report.write(self.out, self.model, self.dataset, self.config, self.history, kept)
