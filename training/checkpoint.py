"""Checkpoints to resume from: the only file that says Orbax."""

import errno
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from zoo.errors import ZooError

from .state import TrainState

# What TensorStore and Orbax make of the system's errors, which not all are an OSError.
DISK = re.compile(r"No space left on device|File too large|Disk quota exceeded|Input/output error")


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Orbax tells every step of a save, and every thread that a full disk fails."""
    return "orbax" not in Path(record.pathname).parts


def _hush_tasks() -> None:
    """Say nothing of the tasks that a failed save leaves behind, hundreds of them."""
    tell = sys.unraisablehook
    if getattr(tell, "__module__", None) == __name__:
        return

    def hook(what: "sys.UnraisableHookArgs") -> None:
        if str(what.exc_value) != "Event loop is closed":
            tell(what)

    sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints of a run: the latest two, and the one of the best validation accuracy.

    Saving goes on in the background; a checkpoint appears whole or not at all. Where one cannot be
    written (a full disk), those before it stay, and the next is tried as if nothing had happened.

    They can be restored on any number of devices and processes. All processes of a run call every
    method alike.

    Args:
      folder: theirs, shared by all processes.
      tell: gets a line for each checkpoint that could not be saved.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] | None = None):
        logging.getLogger("absl").addFilter(_not_from_orbax)
        _hush_tasks()
        self._folder = folder.absolute()
        self._tell = tell or (lambda line: print(line, file=sys.stderr))
        self._step = 0  # of the save under way
        self.missed: list[str] = []  # why a checkpoint could not be saved, one each
        self._open()

    def _open(self) -> None:
        keep = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=keep.AnyPreservationPolicy(
                [
                    keep.LatestN(2),
                    keep.BestN(n=1, get_metric_fn=lambda metrics: metrics["accuracy"]),
                ]
            ),
            cleanup_tmp_directories=True,
        )

    @property
    def steps(self) -> list[int]:
        """The steps there are checkpoints of, in order."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        return max(self.steps, default=None)

    @property
    def kept(self) -> str:
        """What there is to continue from, in words."""
        return f"that of step {self.latest} is whole" if self.steps else "there is none yet"

    def save(self, state: TrainState, accuracy: float) -> None:
        """Begin to save a state, of which `state.step` is the name.

        Args:
          state: global arrays, see `Devices.to_global`.
          accuracy: the validation accuracy by which the best is chosen.
        """
        self.wait()  # for the one before
        self._step = int(state.step)
        if self._full(state):
            self._miss(os.strerror(errno.ENOSPC))
            return
        with self._on_disk():
            self._checkpointer.save_checkpointables_async(
                self._step, {"state": state}, metrics={"accuracy": accuracy}, overwrite=True
            )

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state of a step, or the newest one, placed as `like` is."""

        def abstract(x: jax.Array) -> Any:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        loaded = self._checkpointer.load_checkpointables(
            self.latest if step is None else step, {"state": jax.tree.map(abstract, like)}
        )
        return loaded["state"]

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps."""
        for later in self.steps:
            if later > step:
                self._checkpointer.delete(later)

    def wait(self) -> None:
        """Wait for the save under way."""
        with self._on_disk():
            self._checkpointer.wait()

    def close(self) -> None:
        """Wait for the last save."""
        self.wait()
        self._checkpointer.close()

    def _full(self, state: TrainState) -> bool:
        """Whether the disk has no room, which TensorStore would tell in hundreds of lines."""
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        # several processes could find it differently full
        return jax.process_count() == 1 and shutil.disk_usage(self._folder).free < needed

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """What the disk refuses is told and noted, and the checkpoints are those on the disk.

        Raises:
          ZooError: it was refused to one of several processes: the others wait for it.
        """
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            if why is None:
                if not (found := DISK.search(str(error))):
                    raise
                why = found.group()
            if jax.process_count() > 1:
                raise ZooError(f"checkpoint of step {self._step} not saved: {why}") from error
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            # Orbax counts it among its own. The next save waits till its remains are gone.
            self._open()
            self._miss(why)

    def _miss(self, why: str) -> None:
        self.missed.append(why)
        self._tell(f"checkpoint of step {self._step} not saved: {why}; {self.kept}")
