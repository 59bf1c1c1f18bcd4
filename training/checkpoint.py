"""Checkpoints to resume from. This is the only file that uses Orbax."""

import contextlib
import errno
import json
import logging
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

import zoo
from zoo.errors import ZooError
from zoo.layers import Network
from zoo.pretrained.digest import digest
from zoo.pretrained.saving import describe
from zoo.pretrained.store import rebuild

from . import distributed
from .logging import read_records
from .state import TrainState

# Disk errors as TensorStore and Orbax word them: they do not always raise an OSError.
DISK = re.compile(r"No space left on device|File too large|Disk quota exceeded|Input/output error")


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Drop the log of Orbax: each stage of a save, and each thread that fails on a full disk."""
    return "orbax" not in Path(record.pathname).parts


def _not_a_lost_task(record: logging.LogRecord) -> bool:
    """Drop asyncio's complaints about a damaged checkpoint: Orbax awaits one failed task only."""
    message = record.getMessage()
    return not ("never retrieved" in message and "tensorstore" in message.lower())


def _hush_tasks() -> None:
    """Silence the hundreds of unfinished tasks that a failed save leaves behind."""
    report = sys.unraisablehook
    if getattr(report, "__module__", None) == __name__:
        return

    def hook(what: "sys.UnraisableHookArgs") -> None:
        if str(what.exc_value) != "Event loop is closed":
            report(what)

    sys.unraisablehook = hook


@dataclass(frozen=True)
class Saved:
    """The content of a checkpoint that was read and found undamaged.

    Args:
      step: the step after which it was saved.
      arrays: those of the state, by field and key ("params/body.stem.conv.kernel").
      history: a record for each finished epoch, as in `metrics.jsonl`; None in the checkpoints of
        earlier versions.
      about: the description of the network, see `zoo.pretrained.saving.describe`; "" in those of
        earlier versions.
    """

    step: int
    arrays: dict[str, np.ndarray]
    history: list[dict[str, Any]] | None
    about: str

    def fill(self, like: TrainState) -> TrainState:
        """The state, on the host, in the structure of `like`.

        Raises:
          ZooError: the checkpoint has other arrays than `like`.
        """
        wanted, structure = jax.tree_util.tree_flatten_with_path(like.lasting)
        names = [_name(path) for path, _ in wanted]
        shapes = {name: (x.shape, x.dtype) for name, (_, x) in zip(names, wanted, strict=True)}
        got = {name: (x.shape, x.dtype) for name, x in self.arrays.items()}
        if other := sorted(name for name in {*shapes, *got} if shapes.get(name) != got.get(name)):
            raise ZooError(
                f"checkpoint of step {self.step}: {len(other)} of its arrays are not those of this "
                f"run ({other[0]}, ...): it was written by another version, or for another network"
            )
        leaves = [self.arrays[name] for name in names]
        filled = cast(TrainState, jax.tree_util.tree_unflatten(structure, leaves))
        return replace(filled, inputs=like.inputs)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Parameters (averaged where averages are kept) and BN statistics, by dotted path."""
        fields = [self._field(name) for name in ("params", "ema", "frozen", "stats")]
        return {path: x for field in fields for path, x in field.items()}

    def _field(self, name: str) -> dict[str, np.ndarray]:
        start = f"{name}/"
        return {k.removeprefix(start): x for k, x in self.arrays.items() if k.startswith(start)}


class Checkpoints:
    """The checkpoints of a run: the latest two, and the one of the best validation accuracy.

    Each checkpoint is a folder named by its step. Orbax writes it in the background, and it appears
    whole or not at all. A digest of its values shows later whether it is damaged. If one cannot be
    written (a full disk), the earlier ones stay, and the next save is tried as usual.

    Checkpoints can be restored on any number of devices and processes. All processes of a run have
    to call every method.

    Args:
      folder: where they are, shared by all processes; it is made at the first save.
      report: called with a line for each checkpoint that could not be saved or read.
    """

    def __init__(self, folder: Path, report: Callable[[str], None] | None = None):
        logging.getLogger("absl").addFilter(_not_from_orbax)
        logging.getLogger("asyncio").addFilter(_not_a_lost_task)
        _hush_tasks()
        self.folder = folder.absolute()
        self._report = report or (lambda line: print(line, file=sys.stderr))
        self._first = jax.process_index() == 0
        self._beside = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None
        self._step = 0  # of the save under way
        self._accuracies: dict[int, float] = {}  # by step, as far as they are known
        self.missed: list[str] = []  # why a checkpoint could not be saved, one each

    def clear(self) -> None:
        """Delete what a killed process left unfinished; only for the run that holds the folder."""
        if self._first and self.folder.is_dir():
            for left in self.folder.iterdir():
                if left.name.startswith(".") or ".orbax-checkpoint-tmp" in left.name:
                    shutil.rmtree(left, ignore_errors=True)

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal())

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        return max(self.steps, default=None)

    @property
    def kept(self) -> str:
        """What the run can continue from, in words."""
        return f"that of step {self.latest} is whole" if self.steps else "there is none yet"

    # --- saving

    def save(
        self,
        state: TrainState,
        accuracy: float | None = None,
        history: Iterable[dict[str, Any]] = (),
        about: str = "",
    ) -> None:
        """Begin to save a state, under the name `state.step`.

        Args:
          state: global arrays, see `Devices.to_global`.
          accuracy: the validation accuracy by which the best is chosen; None within an epoch.
          history: as in `Saved`.
          about: as in `Saved`.
        """
        self.wait()  # for the one before
        state = state.lasting
        self._step = int(state.step)
        host = jax.tree.map(np.array, state)  # a copy: the next step uses the state's memory again
        note = {"accuracy": accuracy, "history": list(history), "about": about}
        sha256 = digest(_named(host), json.dumps(note, sort_keys=True))
        try:
            self._check_room(host)
            response = ocp.save_checkpointables_async(
                self.folder / f".{self._step}",
                # with several processes all of them save, and Orbax needs the global arrays
                {"state": host if jax.process_count() == 1 else state},
                custom_metadata={**note, "sha256": sha256},
                overwrite=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            self._miss(error)
            return
        self._saving = self._beside.submit(self._finish, response, self._step, accuracy)

    def _finish(
        self, response: "ocp.AsyncResponse[None]", step: int, accuracy: float | None
    ) -> None:
        response.result()  # or its thread and event loop would never end
        if not self._first:
            return
        final = self.folder / str(step)
        if final.exists():  # damaged, or from before a break
            self._delete(step)
        (self.folder / f".{step}").rename(final)
        self._accuracies[step] = _number(accuracy)
        # those of later steps are from before a break
        past = [other for other in self.steps if other <= step]
        for other in self.steps:
            if other not in (*past[-2:], self._by_accuracy(past)[0]):
                self._delete(other)

    def wait(self) -> None:
        """Wait for the save under way."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()
        except (OSError, ValueError, RuntimeError) as error:
            self._miss(error)

    def close(self) -> None:
        """Wait for the last save."""
        self.wait()
        self._beside.shutdown()

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps."""
        self.wait()
        if self._first:
            for later in self.steps:
                if later > step:
                    self._delete(later)

    def _delete(self, step: int) -> None:
        """Delete a checkpoint. A process killed meanwhile leaves no part that looks whole."""
        gone = self.folder / f".{step}.gone"
        (self.folder / str(step)).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _check_room(self, state: TrainState) -> None:
        """Check that the disk has room for a state.

        Raises:
          OSError: the disk has no room, which TensorStore would report in hundreds of lines.
        """
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        self.folder.mkdir(parents=True, exist_ok=True)
        # several processes could find it differently full
        if jax.process_count() == 1 and shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _miss(self, error: Exception) -> None:
        """Report a checkpoint that could not be written to disk, and go on without it.

        Raises:
          Exception: the error itself, if the disk is not its cause.
          ZooError: there are several processes, and the others wait for this one.
        """
        why = error.strerror if isinstance(error, OSError) else None
        if why is None:
            if not (match := DISK.search(str(error))):
                raise error
            why = match.group()
        if jax.process_count() > 1:
            raise ZooError(f"checkpoint of step {self._step} not saved: {why}") from error
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        for left in self.folder.glob(f".{self._step}*"):
            shutil.rmtree(left, ignore_errors=True)
        self.missed.append(why)
        self._report(f"checkpoint of step {self._step} not saved: {why}; {self.kept}")

    # --- reading

    def newest(self, among: Iterable[int] | None = None) -> Saved | None:
        """The newest undamaged checkpoint; None if there are no checkpoints at all.

        Damaged ones are reported and left where they are.

        Args:
          among: the steps to choose from; None means all.

        Raises:
          ZooError: all checkpoints are damaged.
        """
        self.wait()
        return self._whole(sorted(self.steps if among is None else among, reverse=True))

    def best(self) -> Saved | None:
        """As `newest`, for the best validation accuracy; of equal ones the first."""
        self.wait()
        return self._whole(self._by_accuracy(self.steps))

    def _whole(self, steps: list[int]) -> Saved | None:
        """The first of these checkpoints that is not damaged."""
        saved, faults = None, []
        for step in steps if self._first else ():
            try:
                saved = self.read(step)
                break
            except ZooError as error:
                faults.append(str(error))
        if faults and not saved:
            raise ZooError(
                f"{faults[0]}, and no other is whole: restore {self.folder} from a copy, delete it "
                "to train from the beginning, or choose another --out"
            )
        if faults and saved:
            self._report(f"{'; '.join(faults)}: using that of step {saved.step}")
        chosen = distributed.from_first({"step": saved.step if saved else None})["step"]
        return saved if self._first or chosen is None else self.read(chosen)

    def _by_accuracy(self, steps: list[int]) -> list[int]:
        return sorted(steps, key=lambda step: (-self._accuracy(step), step))

    def read(self, step: int) -> Saved:
        """Read the checkpoint of a step.

        Raises:
          ZooError: it is damaged.
        """
        path = self.folder / str(step)
        # every process reads for itself, and none waits for another
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        try:
            with ocp.Context(multiprocessing_options=alone):
                metadata = ocp.checkpointables_metadata(path)
                like = jax.tree.map(
                    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
                    metadata.metadata["state"],
                )
                arrays = _named(ocp.load_checkpointables(path, {"state": like})["state"])
                note = dict(metadata.custom_metadata or {})
                if not note:  # an earlier version wrote it, without a digest
                    _old_note(path)
            sha256 = note.pop("sha256", None)
            values = digest(arrays, json.dumps(note, sort_keys=True))
        # the parsers of a damaged file may raise anything
        except Exception as error:
            lines = f"{error}".splitlines() or [""]
            why = f"{type(error).__name__}: {lines[0]:.80}"
            raise ZooError(f"checkpoint of step {step} is damaged ({why})") from error
        if note and sha256 != values:
            raise ZooError(f"checkpoint of step {step} is damaged (other values than were saved)")
        if arrays.get("step") != step:
            raise ZooError(f"checkpoint of step {step} is damaged (it is of another step)")
        return Saved(step, arrays, note.get("history"), note.get("about", ""))

    def _accuracy(self, step: int) -> float:
        """The accuracy noted in a checkpoint; -1 where there is none."""
        if step not in self._accuracies:
            path, note = self.folder / str(step), None
            with contextlib.suppress(Exception):  # a damaged one cannot be the best
                note = ocp.checkpointables_metadata(path).custom_metadata
                if not note:  # an earlier version wrote it
                    note = _old_note(path)
            self._accuracies[step] = _number(note.get("accuracy") if note else None)
        return self._accuracies[step]


def _old_note(path: Path) -> dict[str, Any]:
    """The accuracy, from where an earlier version wrote it."""
    note: dict[str, Any] = json.loads((path / "metrics" / "metrics").read_bytes())
    return note


def _number(accuracy: Any) -> float:
    """An accuracy to compare by: -1, lower than all, if it is unknown or NaN."""
    return accuracy if isinstance(accuracy, float) and math.isfinite(accuracy) else -1.0


def _named(state: Any) -> dict[str, np.ndarray]:
    """The arrays of a state, or of the tree that Orbax restores, by name."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {_name(path): np.asarray(x) for path, x in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def network_of(run: Path, epoch: str) -> Network:
    """The network as it was after an epoch, from a checkpoint of a run, finished or not.

    Args:
      run: the folder of the run.
      epoch: "best", "last" or a number.

    Raises:
      ZooError: there is no such checkpoint, or it is damaged.
    """
    store = Checkpoints(run / "checkpoints")
    saved = {r["epoch"]: r["step"] for r in read_records(run / "metrics.jsonl")}
    saved = {number: step for number, step in saved.items() if step in store.steps}
    if not saved:
        raise ZooError(f"export: {run} has no checkpoint of an epoch")
    if epoch == "last":
        chosen = store.newest(saved.values())
    elif epoch == "best":
        chosen = store.best()
    elif epoch in map(str, saved):
        chosen = store.read(saved[int(epoch)])
    else:
        kept = ", ".join(map(str, saved))
        raise ZooError(f"--epoch: got {epoch!r}, expected best, last or one of those kept: {kept}")
    store.close()
    assert chosen  # there are some
    source = f"checkpoint of step {chosen.step}"
    # an earlier version did not say it
    about = chosen.about or describe(zoo.load(f"{run / 'model.safetensors'}"))
    return rebuild(source, chosen.weights, about)
