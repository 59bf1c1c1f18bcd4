"""Checkpoints to resume from: the only file that says Orbax."""

import logging
from pathlib import Path
from typing import Any

import grain
import jax
from orbax.checkpoint import v1 as ocp

from .state import TrainState


class Checkpoints:
    """The checkpoints of a run: the latest two, and the one of the best validation accuracy.

    Saving goes on in the background; a checkpoint appears whole or not at all. Each holds the
    training state and the position in the stream of pictures, so that a run that resumes from it
    computes exactly what it would have without the break.
    """

    def __init__(self, folder: Path):
        logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells every step of a save
        keep = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
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
    def latest(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, batches: grain.DatasetIterator, accuracy: float) -> None:
        self._checkpointer.wait()  # for the one before
        self._checkpointer.save_checkpointables_async(
            int(state.step),
            {"state": state, "data": batches},
            metrics={"accuracy": accuracy},
            overwrite=True,
        )

    def restore(self, like: TrainState, batches: grain.DatasetIterator) -> TrainState:
        """The newest state, placed as `like` is; `batches` is set to where it was."""

        def abstract(x: jax.Array) -> Any:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        loaded = self._checkpointer.load_checkpointables(
            self.latest, {"state": jax.tree.map(abstract, like), "data": batches}
        )
        return loaded["state"]

    def close(self) -> None:
        """Wait for the last save."""
        self._checkpointer.close()
