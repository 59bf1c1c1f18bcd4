"""The range test: which learning rate to train with, found in a minute (Smith, 2015)."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError

from . import plots
from .config import TrainConfig
from .parallel import Devices
from .session import Session, check_batch_norm
from .starting import start_layers

SMOOTHING = 0.98  # decay of the running average of the losses
BLOWN_UP = 4.0  # the test ends where the loss is this many times its best
REACH = 100.0  # the suggestion is at least the rate with the least loss, divided by this


@dataclass(frozen=True)
class Finding:
    """The result of a range test."""

    rates: tuple[float, ...]  # of each step, rising
    losses: tuple[float, ...]  # at each step, smoothed; cross-entropy in nats
    suggestion: float  # the rate at which the loss fell fastest

    def save(self, folder: str | Path) -> list[Path]:
        """Write `lr_finder.csv`, and `lr_finder.png` where matplotlib is installed.

        Raises:
          ZooError: the folder cannot be written.
        """
        folder = Path(folder)
        table, picture = folder / "lr_finder.csv", folder / "lr_finder.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with table.open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(("rate", "loss"))
                rows.writerows(zip(self.rates, self.losses, strict=True))
            drawn = plots.draw_range_test(self.rates, self.losses, self.suggestion, picture)
        except OSError as error:
            raise ZooError(f"cannot write to {folder}: {error.strerror}") from error
        return [table, picture] if drawn else [table]


def find_learning_rate(
    config: TrainConfig, *, steps: int = 100, low: float = 1e-6, high: float = 10.0
) -> Finding:
    """Train for some steps at ever higher rates, and see at which the loss falls fastest.

    The learning rate range test of Smith, 2015 (arXiv:1506.01186, section 3.3) with the settings of
    fastai: the rate rises exponentially, the loss is smoothed, and the test ends where the loss is
    four times its best or not finite. What is trained, from where, and how, is the first phase of
    the run that `config` describes; nothing is written.

    Args:
      config: of the run.
      steps: at most; each takes a batch.
      low: the rate of the first step.
      high: the rate of the last step.

    Raises:
      ZooError: what the config names cannot be used, as in `fit`; or no step lowered the loss.

    >>> find_learning_rate(TrainConfig(model="resnet18")).suggestion          # doctest: +SKIP
    0.01...
    """
    if steps < 10:
        raise ZooError(f"steps: got {steps}, expected at least 10")
    if not 0 < low < high < math.inf:
        raise ZooError(f"rates: got {low:g} to {high:g}, expected 0 < low < high")
    rates = np.geomspace(low, high, steps)
    with tqdm(
        total=steps,
        desc="learning rate",
        unit="step",
        disable=None if jax.process_index() == 0 else True,
        leave=False,
        dynamic_ncols=True,
    ) as bar:
        return finding(rates.tolist(), _losses(config, rates, bar))


def finding(rates: Sequence[float], losses: Iterable[float]) -> Finding:
    """The result of a test with these losses at these rates.

    `losses` is read until the test ends. The suggestion is the rate at which the smoothed loss
    falls fastest over the logarithm of the rate. The slope is that of a straight line fitted to a
    sixth of the steps. Only rates within two powers of ten below the minimum count: further down,
    the noise of the first few batches is steeper than any descent.

    Raises:
      ZooError: no step lowered the loss.
    """
    average, best, smooth = 0.0, math.inf, []
    for i, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        now = average / (1 - SMOOTHING**i)  # without bias: the average began at 0
        if not math.isfinite(now) or now > BLOWN_UP * best:
            break
        best = min(best, now)
        smooth.append(now)
    steepest = _steepest(rates, smooth)
    if steepest is None:
        detail = f"it began at {smooth[0]:.3g}" if smooth else "it was never finite"
        raise ZooError(
            f"no rate from {rates[0]:g} to {rates[-1]:g} lowered the loss ({detail}): "
            "expected some that do, try a wider range or more steps"
        )
    return Finding(tuple(rates[: len(smooth)]), tuple(smooth), rates[steepest])


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> int | None:
    """The step at which these smoothed losses fall fastest; None where they never fall."""
    if not losses:
        return None
    half = max(len(rates) // 12, 1)
    padded = np.pad(losses, half, mode="edge")
    slopes = np.correlate(padded, np.arange(-half, half + 1), "valid")  # but for a common factor
    lowest = int(np.argmin(losses))
    first = int(np.searchsorted(rates, rates[lowest] / REACH))
    steepest = first + int(np.argmin(slopes[first : lowest + 1]))
    return steepest if slopes[steepest] < 0 else None


def _losses(config: TrainConfig, rates: np.ndarray, bar: "tqdm[Any]") -> Iterator[float]:
    """Train one step at each rate, and yield the loss of its batch before the update."""
    devices = Devices(config.engine)
    devices.check_batch(config.batch_size)
    session = Session.open(config)
    check_batch_norm(config, session.model, len(devices))
    start_layers(session, devices)
    table = np.asarray(rates, np.float32)
    parts = session.assemble(
        session.phases[0], lambda step: jnp.asarray(table)[step], period=len(table)
    )
    state = devices.replicate(parts.start())
    step = devices.compile(parts.step, donate=True, dtype=config.dtype)
    batches = session.train_batches()
    total = count = 0.0
    for rate in rates:
        state = step(state, devices.shard(next(batches)))
        before, total = total, float(state.totals["loss"])
        pictures, count = count, float(state.totals["count"])
        loss = (total - before) / (count - pictures)
        bar.set_postfix_str(f"rate {rate:.1e} loss {loss:.3f}", refresh=False)
        bar.update()
        yield loss
