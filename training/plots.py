"""The plots that a run leaves, drawn with matplotlib where it is installed."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from zoo.errors import ZooError
from zoo.plotting import BLUE, SKY, VERMILLION, log_scale, save, tidy
from zoo.text import plain

from .config import TrainConfig
from .logging import Record, best_of
from .optim import RISE, drop_factor

NAMED, NUMBERED = 100, 30  # classes, up to which the matrix has names, and numbers in its cells


def draw_curves(history: list[Record], path: Path, title: str) -> bool:
    """Draw loss, accuracy and learning rate by epoch; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    epochs = [record["epoch"] for record in history]
    best = history.index(best_of(history))
    figure = Figure(figsize=(13, 3.8), dpi=150)
    figure.set_layout_engine("constrained", wspace=0.04)
    loss, accuracy, rate = figure.subplots(1, 3)
    names = {"train": "training", "val": "validation"}
    line: dict[str, Any] = {"marker": ".", "markersize": 4}
    ring: dict[str, Any] = {"marker": "o", "markersize": 8, "markerfacecolor": "none"}
    ring |= {"linestyle": "none", "clip_on": False}

    def column(name: str, scale: float = 1) -> list[float]:
        """Values by epoch; NaN, which leaves a gap, for what cannot be drawn."""
        values = [record.get(name, math.nan) * scale for record in history]
        return [value if math.isfinite(value) else math.nan for value in values]

    for axes, name, unit, scale in (
        (loss, "loss", "cross-entropy, nats", 1),
        (accuracy, "accuracy", "accuracy, %", 100),
    ):
        for split, colour in (("train", BLUE), ("val", VERMILLION)):
            values = column(f"{split}_{name}", scale)
            label = f"{names[split]}, at the end {values[-1]:.3g}"
            axes.plot(epochs, values, color=colour, label=label, **line)
        val = column(f"val_{name}", scale)[best]
        if math.isfinite(val):
            label = f"best epoch, {epochs[best]}: {val:.3g}"
            axes.plot(epochs[best], val, color=VERMILLION, label=label, **ring)
        axes.set_ylabel(unit)
        axes.legend(loc="best", frameon=False)
    rate.plot(epochs, column("learning_rate"), color=BLUE, **line)
    rate.set_ylabel("learning rate at the epoch's end")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        edge = 0.5 if len(epochs) > 1 else 1  # wide enough for a whole number on the axis
        axes.set_xlim(epochs[0] - edge, epochs[-1] + edge)
        axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=100.5)
    rate.set_ylim(bottom=0)
    figure.suptitle(plain(title), parse_math=False)
    save(figure, path)
    return True


def draw_probe(history: list[Record], path: Path, title: str) -> bool:
    """Draw what `--probe` saw, by layer, at the first, the middle and the last epoch.

    Returns:
      False without matplotlib, or where nothing was probed.
    """
    probed = [record for record in history if "probe" in record]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not probed:
        return False
    shown = [
        (key, label)
        for key, label in (
            ("std", "standard deviation of the layer's output"),
            ("dead", "share of its channels that are dead"),
            ("gradients", "norm of its weights' gradients"),
        )
        if any(row[key] is not None for row in probed[-1]["probe"])
    ]
    figure = Figure(figsize=(4.4 * len(shown), 3.8), dpi=150, layout="constrained")
    epochs = {0, len(probed) // 2, len(probed) - 1}
    for axes, (key, label) in zip(np.ravel(figure.subplots(1, len(shown))), shown, strict=True):
        for colour, i in zip((SKY, BLUE, VERMILLION), sorted(epochs), strict=False):
            values = [math.nan if row[key] is None else row[key] for row in probed[i]["probe"]]
            name = f"epoch {probed[i]['epoch']}"
            axes.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=name)
        axes.set(xlabel="layer, from the image to the classifier", ylabel=label)
        if key == "dead":
            axes.set_ylim(-0.02, 1.02)
        else:
            log_scale(axes)
        axes.legend(loc="best", frameon=False)
        tidy(axes)
    figure.suptitle(plain(title), parse_math=False)
    save(figure, path)
    return True


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path, title: str) -> bool:
    """Draw the confusion matrix [K, K]; False without matplotlib.

    The colour shows the square root of the share of the true class, so that a few mistakes stand
    out among many hits. With up to 30 classes, each cell has its number and its share.
    """
    try:
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        return False
    k = len(matrix)
    names = [cut(plain(name), 24) for name in classes] if k <= NAMED else []
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(0.45 * k, 3.0), 11.0)  # inches, as all below; 72 points are one
    cell = 72 * side / k
    small = min(9.0, 0.75 * cell)  # points of the names: lines of text must not touch
    longest = max(map(len, names), default=4)
    margin = 0.6 * small / 72 * longest + 0.5
    upright = longest * 0.6 * small > 0.9 * cell  # names below the columns would run into another
    below = margin if upright else 0.6
    figure = Figure(figsize=(margin + side + 1.2, 0.5 + side + below), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    norm = PowerNorm(0.5, 0, 1)
    drawn = axes.imshow(shares, cmap="Blues", norm=norm)  # its lightness falls steadily
    if names:
        axes.set_xticks(
            range(k), names, rotation=90 if upright else 0, fontsize=small, parse_math=False
        )
        axes.set_yticks(range(k), names, fontsize=small, parse_math=False)
    if k <= NUMBERED:
        for row, column in np.argwhere(matrix).tolist():
            share = shares[row, column]
            digits = 0 if 0.01 <= share <= 0.99 or share == 1 else 1  # 999 of 1000 are not 100%
            axes.text(
                column,
                row,
                f"{matrix[row, column]:,}\n{share:.{digits}%}",
                ha="center",
                va="center",
                fontsize=min(9.0, 0.26 * cell),
                color="white" if norm(share) > 0.6 else "black",
                clip_on=True,  # which spares the layout from measuring it
            )
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(textwrap.fill(plain(title), int(12 * side)), fontsize=10, parse_math=False)
    # a fifth of an inch wide, whatever the matrix
    bar = figure.colorbar(
        drawn, ax=axes, shrink=0.8, aspect=4 * side, pad=0.02, format=PercentFormatter(1)
    )
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.set_label("share of the true class")
    save(figure, path, bbox_inches="tight")
    return True


def cut(text: str, length: int) -> str:
    """The text, or as much of its beginning as `length` characters hold, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def draw_schedule(
    config: TrainConfig, schedule: optax.Schedule, steps: int, steps_per_epoch: int, path: Path
) -> bool:
    """Draw the learning rate by epoch as a PNG; False if matplotlib is not installed.

    Args:
      config: where the title gets the kind and the settings of the schedule from.
      schedule: the learning rate by step.
      steps: of the run.
      steps_per_epoch: the unit of the axis, in steps.
      path: of the picture.

    Raises:
      ZooError: `path` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    at = np.unique(np.linspace(0, steps - 1, 2000).astype(int))  # more than the picture has pixels
    rates = np.asarray(jax.vmap(schedule)(at))
    figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    marker = "." if len(at) < 50 else None
    axes.plot(at / steps_per_epoch, rates, color=BLUE, marker=marker)
    axes.set(xlabel="epoch", ylabel="learning rate")
    axes.set_xlim(0, steps / steps_per_epoch)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    tidy(axes)
    axes.set_title(schedule_facts(config, rates, steps, steps_per_epoch), fontsize="medium")
    try:
        save(figure, path)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from error
    return True


def schedule_facts(config: TrainConfig, rates: np.ndarray, steps: int, steps_per_epoch: int) -> str:
    """The title above the picture of a schedule, in lines that fit its width."""
    kind = config.schedule
    if kind == "one_cycle":
        facts = [f"rising for {config.warmup or RISE:.0%}"]
    else:
        facts = [f"warm-up {config.warmup:.0%}" if config.warmup else "no warm-up"]
    if kind in ("step", "exponential"):
        facts.append(f"x {drop_factor(config):g} every {config.decay_epochs:g} epochs")
    if kind == "piecewise" and config.drops:
        places = ", ".join(f"{share:.0%}" for share in config.drops)
        facts.append(f"x {drop_factor(config):g} at {places}")
    facts.append(f"{steps:,} steps, {steps / steps_per_epoch:.4g} epochs")
    levels = f"{kind}: peak {rates.max():.3g}, at the end {rates[-1]:.3g}"
    return "\n".join([levels, *textwrap.wrap("; ".join(facts), 64)])


def draw_range_test(
    rates: Sequence[float], losses: Sequence[float], suggestion: float, path: Path
) -> bool:
    """Draw the smoothed loss over the learning rate as a PNG; False without matplotlib.

    Args:
      rates: of each step, rising.
      losses: at these rates.
      suggestion: the rate to mark.
      path: of the picture.

    Raises:
      OSError: `path` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses, color=BLUE)
    axes.axvline(
        suggestion,
        color=VERMILLION,
        linestyle="--",
        label=f"the loss falls fastest at {suggestion:.2g}",
    )
    axes.set(xlabel="learning rate", ylabel="cross-entropy, nats, smoothed")
    lowest = int(np.argmin(losses))
    # the fall is what counts; the rise after it would dwarf it
    axes.set_ylim(0.97 * losses[lowest], 1.1 * max(losses[: lowest + 1]))
    tidy(axes)
    axes.legend(loc="upper left", framealpha=1, edgecolor="none")  # over the line
    save(figure, path)
    return True
