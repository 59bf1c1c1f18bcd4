"""When the loss explodes: how that is noticed, and the one way back from it."""

import json
import math
from pathlib import Path

import jax

from zoo.errors import ZooError
from zoo.paths import write

from .checkpoint import Checkpoints, Saved
from .config import TrainConfig
from .logging import Record

# The loss has exploded when its mean is this many times that of the epoch before, and over twice
# that of guessing: not even a restart of the learning rate does that to a trained network.
EXPLODED = 10.0
SLOWER = 0.1  # the learning rate of the second attempt, over that of the first


class Diverged(Exception):
    """The loss of an epoch is NaN or infinite, or many times that of the epoch before.

    Args:
      epoch: its number, from 1.
      loss: its mean training loss.
      before: that of the epoch before.
      guessing: that of a network that knows nothing.
    """

    def __init__(self, epoch: int, loss: float, before: float, guessing: float = math.inf):
        super().__init__(f"epoch {epoch}: loss {loss:.3g}, {before:.3g} before")
        self.guessing = guessing

    def began_in(self, record: Record) -> bool:
        """Whether the weights at the end of an epoch were going wrong already.

        Its training loss is that of the weights before each step, and shows nothing of the last
        ones; the pictures held out are measured after them.
        """
        loss = record["val_loss"]
        return not math.isfinite(loss) or _exploded(loss, record["train_loss"], self.guessing)


def check_finite(epoch: int, loss: float, history: list[Record]) -> None:
    """Check a loss. NaN stays NaN, so it does not matter at which step of the epoch this is done.

    Args:
      epoch: its number, from 1.
      loss: the mean so far.
      history: the records of the epochs before.

    Raises:
      Diverged: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise Diverged(epoch, loss, history[-1]["train_loss"] if history else math.nan)


def check_epoch(
    epoch: int, loss: float, history: list[Record], config: TrainConfig, classes: int
) -> None:
    """Check the mean training loss of a whole epoch.

    Raises:
      Diverged: the loss is not finite, or has exploded.
    """
    check_finite(epoch, loss, history)
    guessing = math.log(classes)
    if config.own_loss:
        guessing = abs(history[0]["train_loss"] if history else loss)
    before = history[-1]["train_loss"] if history else guessing
    if _exploded(loss, before, guessing):
        raise Diverged(epoch, loss, before, guessing)


def _exploded(loss: float, before: float, guessing: float) -> bool:
    return loss > max(EXPLODED * before, 2 * guessing)


def roll_back(
    diverged: Diverged,
    checkpoints: Checkpoints,
    out: Path,
    config: TrainConfig,
    scale: float,
    steps: range,
    history: list[Record],
) -> Saved | None:
    """Find the last good epoch of the phase, note the return to it, and delete what came after.

    Args:
      diverged: what happened.
      checkpoints: of the run.
      out: folder of the run; `rollback.json` is written there.
      config: of the run.
      scale: the factor on the learning rate so far: 1 unless the run has gone back before.
      steps: of the phase, with a stride of an epoch.
      history: the records of the epochs before.

    Returns:
      The checkpoint to go on from; None: the phase begins again.

    Raises:
      ZooError: the run has gone back before.
    """
    checkpoints.wait()
    # A checkpoint from within an epoch may be of one that was going wrong already.
    good_ones = {record["step"] for record in history if not diverged.began_in(record)}
    within = good_ones & {*steps[1:]}  # at its start the phase begins again
    kept = [step for step in checkpoints.steps if step in within]
    saved = checkpoints.newest(kept)
    good = saved.step if saved else steps.start
    if scale != 1:
        raise ZooError(
            f"training diverged again, in {diverged}, with {scale:g} of the learning "
            f"rate: try a lower --learning-rate than {config.peak_learning_rate:g}, or "
            f"--clip-norm 1; the last good checkpoint is of step {good}"
        )
    if jax.process_index() == 0:
        note = {"step": good, "why": str(diverged), "rate_scale": SLOWER}
        write(out / "rollback.json", (json.dumps(note, indent=2) + "\n").encode())
    checkpoints.forget_after(good)
    return saved
