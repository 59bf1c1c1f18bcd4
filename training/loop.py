"""The training loop: phases of epochs of steps. Every epoch is measured, reported and saved.

What surrounds it has files of its own: `fitting.py` checks everything before and writes the result
afterwards, `stopping.py` knows of signals, `checkpoint.py` saves and restores, `logging.py` reports
progress, `divergence.py` finds the way back when the loss explodes.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import grain
import jax
import optax

from zoo.errors import ZooError
from zoo.pretrained.saving import describe
from zoo.runtime import backend

from . import distributed, divergence, evaluation, folder, memory
from .checkpoint import Checkpoints
from .divergence import Diverged
from .logging import Log, Progress, Record, best_of, read_records, say
from .objects import path_of
from .parallel import Devices
from .phases import Phase
from .prefetch import Prefetch
from .recalibration import Recalibrate, recalibration
from .session import Session
from .starting import start_layers
from .state import TrainState, no_totals, put_together
from .step import elsewhere_on_the_way
from .stopping import Interrupted, Stop

GLANCE = 0.5  # seconds between two looks at the loss, each of which waits for a step
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the first weights to the trained ones


class Loop:
    """A run under way, from its start or from its newest checkpoint.

    Args:
      session: what is trained, and on what.
      devices: that share every step.
      stop: whether the process was told to stop.
    """

    def __init__(self, session: Session, devices: Devices, stop: Stop):
        self.session, self.devices, self.stop = session, devices, stop
        self.config, self.model = session.config, session.model
        self.out = self.config.folder
        self.steps_per_epoch = session.steps_per_epoch
        self.batches, self.val_batches = session.train_batches(), session.val_batches()
        self.checkpoints = Checkpoints(self.out / "checkpoints", say)
        self.checkpoints.clear()
        self.saved = self.checkpoints.newest()  # what the run continues from, until it does
        self.position = self.saved.step if self.saved else 0  # the step at which it continues
        self.history: list[Record] = []
        if self.saved:
            history = self.saved.history
            if history is None:  # an earlier version saved it
                history = read_records(self.out / "metrics.jsonl")
            self.history = [record for record in history if record["step"] <= self.position]
        # 1, or `divergence.SLOWER` once the loss has exploded
        scale: dict[str, float] = {"scale": folder.rate_scale(self.out)}
        self.rate_scale = distributed.from_first(scale)["scale"]
        self.about = describe(self.model)
        self.log = self._open_log()
        self.progress = Progress(
            self.config.epochs,
            self.steps_per_epoch * self.config.batch_size,
            self.position * self.config.batch_size,
        )

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.progress.close()
        if self.log:
            self.log.close()
        # After any other error the last save may wait for a process that is gone, and after the
        # second Ctrl-C nobody wants to.
        if kind is None or issubclass(kind, Interrupted | ZooError):
            self.checkpoints.close()

    # --- the loop

    def train(self) -> None:
        """Train from where the run stands to its end; afterwards the model has the weights."""
        if not self.position:
            for line in start_layers(self.session, self.devices):
                say(line)
        for phase in self.session.phases:
            while self.position <= phase.stop * self.steps_per_epoch:  # else done before a break
                try:
                    self._phase(phase)
                    break
                except Diverged as diverged:
                    self._roll_back(phase, diverged)

    def _phase(self, phase: Phase) -> None:
        if self._stopped:
            return
        self.all_is_saved()
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        rate = self.session.rate(phase, self.rate_scale)
        parts = self.session.assemble(phase, rate)
        state = self.devices.replicate(parts.start(first))
        needs = memory.needs(
            parts.program, self.model.preprocess, self.config, state, len(self.devices)
        )
        say(str(needs))
        on_cpu = self.devices.platform == "cpu"
        if on_cpu and self.config.dtype == "bfloat16" and (why := backend.against_bfloat16()):
            say(f"bfloat16 is no faster than float32 on this CPU: {why}")
        if self.saved and first < self.position <= last:
            state = self.devices.replicate(self.saved.fill(state))
        self.saved = None
        done = int(state.step)
        # each step takes one batch, so that any number of processes can continue
        grain.experimental.set_next_index(self.batches, done)
        train_step = self.devices.compile(parts.step, donate=True, dtype=self.config.dtype)
        eval_step = self.devices.compile(
            self.session.eval_step(parts.program),
            donate=False,
            dtype=self.model.spec.dtype,
            inference=True,
        )
        averaged = self.config.wise_ft < 1 and parts.program.moving
        recalibrate = recalibration(self.session, self.devices, parts.program) if averaged else None
        validate = partial(self._validate, eval_step=eval_step, metrics=parts.metrics)
        between = self.config.keep == "between" and self.config.wise_ft < 1
        look = None
        if self.config.probes and self.log:
            look = self.session.prober(self.session.measuring(parts.program, self.config.probes))
        for epoch in range(done // self.steps_per_epoch, phase.stop):
            rates = self.devices.replicate(parts.rates(epoch * self.steps_per_epoch - first))
            state = replace(state, inputs={**state.inputs, "rates": rates})
            state, timing = self._epoch(epoch, state, train_step)
            if recalibrate:  # the steps' own are those of weights that went all the way
                state = replace(state, stats=recalibrate(state.weights, state.stats))
            record = self._measure(epoch, state, validate)
            record |= self._rate(rate, record["step"] - first)
            record |= timing
            if self.log and look:
                probe = look(*jax.device_get(self.devices.own((state.weights, state.stats))))
                record["probe"] = probe.record()
                self.log.add_probe(record["step"], probe)
            if between and epoch + 1 == self.config.epochs:
                state, record = self._between(state, record, validate, recalibrate)
            if why := self._asks_to_stop(record, phase):
                record["stopped"] = why
                if between and epoch + 1 < self.config.epochs:
                    state, record = self._between(state, record, validate, recalibrate)
            self._report(record)
            state = replace(state, totals=self.devices.replicate(no_totals(parts.metrics)))
            self._save(state, record["val_accuracy"])
            if why:
                say(f"stopped after epoch {epoch + 1}: {why}")
                break
        put_together(self.model, *self.devices.own((state.weights, state.stats)))

    def _epoch(self, epoch: int, state: TrainState, train_step: Any) -> tuple[TrainState, Record]:
        """Take the remaining steps of an epoch; (state, how fast it went)."""
        begun = shown = time.perf_counter()
        start, end = int(state.step), (epoch + 1) * self.steps_per_epoch
        self.progress.begin(epoch)
        if self._stop_requested(start):
            self._interrupt(state)
        with Prefetch(lambda: self.devices.shard(next(self.batches)), end - start) as coming:
            for step, batch in enumerate(coming, start + 1):
                state = train_step(state, batch)
                self.stop.unsaved = True
                self.progress.advance(self.config.batch_size)
                if step == end:
                    break
                if self._stop_requested(step):
                    self._interrupt(state)
                if time.perf_counter() - shown > GLANCE:
                    now = evaluation.means(state.totals)
                    shown = time.perf_counter()
                    self.progress.glance(now.loss, now.accuracy, coming.waited / (shown - begun))
                    if jax.process_count() == 1:  # several look at different times
                        divergence.check_finite(epoch + 1, now.loss, self.history)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - begun
        return state, {
            "images_per_second": (end - start) * self.config.batch_size / seconds,
            "input_wait": coming.waited / seconds,  # share of the time without a batch to work on
            "seconds": seconds,
        }

    def _measure(
        self, epoch: int, state: TrainState, validate: Callable[[TrainState], Record]
    ) -> Record:
        """The record of an epoch: the training loss, and everything on the validation pictures.

        Raises:
          Diverged: one of the losses is not finite, or the training loss has exploded.
        """
        train = evaluation.means(state.totals)
        classes = len(self.session.dataset.classes)
        divergence.check_epoch(epoch + 1, train.loss, self.history, self.config, classes)
        val = validate(state)
        # the last update may have been the bad one
        divergence.check_finite(epoch + 1, val["val_loss"], self.history)
        return {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.steps_per_epoch,
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            **{f"train_{name}": value for name, value in train.metrics.items()},
            **val,
        }

    def _validate(self, state: TrainState, *, eval_step: Any, metrics: tuple[str, ...]) -> Record:
        """What a record says of the validation pictures."""
        val = evaluation.run(
            eval_step, self.devices, state.weights, state.stats, self.val_batches, metrics
        )
        return {
            "val_loss": val.loss,
            "val_accuracy": val.accuracy,
            "val_top5": val.top5,
            **{f"val_{name}": value for name, value in val.metrics.items()},
        }

    def _between(
        self,
        state: TrainState,
        record: Record,
        validate: Callable[[TrainState], Record],
        recalibrate: Recalibrate | None,
    ) -> tuple[TrainState, Record]:
        """The best weights between the first ones and the trained ones, and their record."""
        now, trained = self.devices.own((state.ema, state.params))
        best, kept = record, self.config.wise_ft
        for share in SHARES:
            if share == self.config.wise_ft:
                continue
            ema = elsewhere_on_the_way(now, trained, self.config.wise_ft, share)
            other = replace(state, ema=self.devices.replicate(ema))
            if recalibrate:
                other = replace(other, stats=recalibrate(other.weights, other.stats))
            tried = record | validate(other)
            if best_of([best, tried]) is tried:
                state, best, kept = other, tried, share
        advice = ""
        if kept == 0 and not self.config.head_only:
            advice = (
                "; training gained nothing here: --crop-scale 1 may help, --head-only is faster"
            )
        elif kept > 0.5:
            advice = f"; with more time --epochs {2 * self.config.epochs} may do better"
        say(
            f"of the weights between the first ones and the trained ones, those {kept:.0%} of the "
            f"way are kept: {best['val_accuracy']:.2%} of the validation pictures right{advice}"
        )
        return state, best | {"wise_ft": kept}

    def _rate(self, rate: optax.Schedule, step: int) -> Record:
        """What a record says of the learning rate, of which an optimizer object has its own."""
        own = isinstance(self.session.objects.optimizer, optax.GradientTransformation)
        record = {} if own else {"learning_rate": float(rate(step))}
        return record if self.rate_scale == 1 else {**record, "rate_scale": self.rate_scale}

    # --- ending early

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

    def _stop_requested(self, step: int) -> bool:
        return (
            distributed.stop_requested(step) if self.stop.several else self.stop.requested.is_set()
        )

    def _interrupt(self, state: TrainState) -> NoReturn:
        step = int(state.step)
        # the end of an epoch has been saved; NaN is not worth it
        if step % self.steps_per_epoch and math.isfinite(evaluation.means(state.totals).loss):
            self._save(state)
        raise Interrupted(f"stopped after step {step}; the same command continues the run")

    def _roll_back(self, phase: Phase, diverged: Diverged) -> None:
        """Go back once to the last good epoch, with a lower learning rate."""
        stride = self.steps_per_epoch
        steps = range(phase.start * stride, phase.stop * stride + 1, stride)
        self.saved = divergence.roll_back(
            *(diverged, self.checkpoints, self.out, self.config, self.rate_scale, steps),
            history=self.history,
        )
        self.rate_scale = divergence.SLOWER
        self.position = self.saved.step if self.saved else steps.start
        self.history = [record for record in self.history if record["step"] <= self.position]
        if self.log:
            self.log.close()
        self.log = self._open_log()
        self.progress.go_back(self.position * self.config.batch_size)
        where = f"step {self.position}" if self.saved else "the weights it began with"
        say(
            f"diverged in {diverged}: back to {where}, with {self.rate_scale:g} of the learning "
            "rate"
        )

    # --- what is written

    def _open_log(self) -> Log | None:
        """The log of a run that goes on from its position; None in all processes but the first."""
        return Log(self.out, self.history, self.position) if jax.process_index() == 0 else None

    def _report(self, record: Record) -> None:
        if self.log:
            try:
                self.log.add(record)
            except OSError as error:
                say(f"metrics of epoch {record['epoch']} not written: {error.strerror}")
        else:
            self.history.append(record)
        self.progress.end(record)

    def _save(self, state: TrainState, accuracy: float | None = None) -> None:
        self.checkpoints.save(self.devices.to_global(state), accuracy, self.history, self.about)

    def all_is_saved(self) -> None:
        """Wait for the last save: until the next step, a signal may then end the run at once.

        Raises:
          Interrupted: the run was told to stop before.
        """
        self.checkpoints.wait()
        self.stop.unsaved = False
        self.stop.check()
