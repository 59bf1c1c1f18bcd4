"""Fitting a network: everything is checked, then the loop runs, and its result is written."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx

import zoo
from zoo.errors import ZooError, checked
from zoo.runtime import backend
from zoo.settings import shown
from zoo.wrapped import Wrapped

from . import distributed, folder, report
from .config import TrainConfig
from .data import Dataset
from .logging import Record, best_of, kept_of, say
from .loop import Loop
from .objective import PerPicture
from .objects import NONE, Callback, Objects, Optimizer
from .parallel import Devices
from .session import Session, build, open_data
from .state import put_together
from .step import Augment
from .stopping import Stop, heeded


@dataclass(frozen=True)
class Result:
    """The outcome of a run."""

    model: Any  # trained, in inference mode: a `zoo.Network`, or the module that was given
    accuracy: float  # of the model on the validation pictures
    history: list[Record]  # one record an epoch, as in metrics.jsonl
    out: Path


IN_CONFIG = "it is a field of the config: zoo.fit(zoo.TrainConfig(...))"


@checked(**{field.name: IN_CONFIG for field in fields(TrainConfig)})
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
    if not isinstance(config, TrainConfig | None):
        raise ZooError(f"fit: got {shown(config)}, expected a zoo.TrainConfig")
    objects = Objects(model, data, optimizer, schedule, loss, augment, metrics or {}, callbacks)
    return fit_opened(objects.entered(config or TrainConfig()), objects=objects)


def fit_opened(
    config: TrainConfig, dataset: Dataset | None = None, *, objects: Objects = NONE
) -> Result:
    """As `fit`.

    Args:
      config: of the run.
      dataset: `config.data`, where it is open already.
      objects: given in place of settings.
    """
    backend.expect_training()
    with heeded(jax.process_count() > 1) as stop, distributed.together():
        return _fit(config, objects, dataset, stop)


def _fit(config: TrainConfig, objects: Objects, dataset: Dataset | None, stop: Stop) -> Result:
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
        dataset = open_data(config, objects, dataset)
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
        with Loop(session, devices, stop) as loop:
            _announce(loop)
            loop.train()
            result = _finish(loop)
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


def _announce(loop: Loop) -> None:
    """Say what the run works on, and where it goes on."""
    say(loop.session.dataset.summary)
    if (processes := jax.process_count()) > 1:
        say(f"{processes} processes with {len(loop.devices)} devices share this run")
    if loop.position:
        say(f"continuing {loop.out} after step {loop.position}")


def _finish(loop: Loop) -> Result:
    """Write the trained network and the report on it."""
    loop.all_is_saved()
    history, out = loop.history, loop.out
    kept = _take_best(loop) if loop.config.keep == "best" else history[-1]
    if missed := loop.checkpoints.missed:
        say(
            f"{len(missed)} of the checkpoints could not be saved ({missed[-1]}); "
            f"{loop.checkpoints.kept}"
        )
    if loop.log:  # in the first process
        try:
            loop.log.write()
            zoo.save(loop.model, out / "model.safetensors")
            report.write(out, loop.model, loop.session.dataset, loop.config, history, kept)
        except OSError as error:
            raise ZooError(
                f"out: cannot write to {out}: {error.strerror or error}; "
                "the same command tries again"
            ) from error
    model = loop.model.module if isinstance(loop.model, Wrapped) else loop.model
    return Result(model, kept["val_accuracy"], history, out)


def _take_best(loop: Loop) -> Record:
    """Give the model the weights of the best saved epoch, and return its record."""
    best = loop.checkpoints.best()
    records = {record["step"]: record for record in loop.history}
    if best is None or best.step not in records:
        say("no checkpoint of the best epoch: keeping the last")
        return loop.history[-1]
    if best.step != best_of(loop.history)["step"]:
        say(f"no checkpoint of the best epoch: keeping epoch {records[best.step]['epoch']}")
    put_together(loop.model, jax.tree.map(jax.numpy.asarray, best.weights), {})
    return records[best.step]
