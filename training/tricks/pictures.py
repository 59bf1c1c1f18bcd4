"""The pictures of an experiment, each small enough to be read on a telephone."""

import io
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from PIL import Image

from zoo import plotting
from zoo.context import ACTIVATIONS
from zoo.init import initializer
from zoo.paths import write
from zoo.plotting import DASHES, LINES, styled

from .experiment import ACCURACY
from .runner import Training
from .verdict import Outcome, mean_and_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Callable[["Axes"], None]

SIZE = 5.2, 3.6  # inches
SHARP = 200  # dots an inch in the file
COLOURS = 128  # in the file, a third of the size that it has with all
HIGHEST = 10  # nats, of a training loss that is drawn


def draw(outcome: Outcome, folder: Path) -> tuple[tuple[str, str], ...]:
    """Write the pictures of an experiment; returns their names and what they show."""
    trick = outcome.trick
    point = trick.points[-1]
    at = "" if trick.axis is None else f", {_words(trick.axis[0])}: {point}"
    before = f"before the first step{at}"
    made = [ARTICLE[trick.name]] if trick.name in ARTICLE else []
    made += [
        ("loss.png", f"Training loss by step{at}", partial(_losses, outcome)),
        ("accuracy.png", f"Validation accuracy by step{at}", partial(_accuracies, outcome)),
    ]
    if trick.axis is not None:
        text = f"{trick.measure.name} by {_words(trick.axis[0])}"
        made.append(("axis.png", text, partial(_by_axis, outcome)))
    if trick.probed:
        made += [
            ("activations.png", f"Spread of activations {before}", partial(_spread, outcome)),
            ("gradients.png", f"Gradients {before}", partial(_gradients, outcome)),
        ]
    folder.mkdir(parents=True, exist_ok=True)
    for file, text, panel in made:
        save(_panel(text, panel), folder / file)
    return tuple((file, text) for file, text, _ in made)


def save(figure: "Figure", path: Path) -> None:
    """Write a picture for the page, which holds them all."""
    whole, small = io.BytesIO(plotting.encode(figure, "png", dpi=SHARP)), io.BytesIO()
    with Image.open(whole) as image:
        image.convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    write(path, small.getvalue())


@styled
def _panel(title: str, panel: Panel) -> "Figure":
    figure = plotting.figure(*SIZE)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    panel(axes)
    axes.set_title(title, fontsize=plotting.TEXT, loc="left")
    plotting.tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, min(3, 66 // (max(map(len, labels)) + 8)))
        figure.legend(
            handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=8
        )
    return figure


def _style(i: int) -> dict[str, Any]:
    return {"color": LINES[i % len(LINES)], "linestyle": DASHES[i // len(LINES) % len(DASHES)]}


def _band(
    axes: "Axes", xs: Sequence[float], curves: Sequence[Sequence[float]], i: int, label: str
) -> None:
    """The mean over the seeds as a line, their range as a band."""
    means = [statistics.fmean(values) for values in curves]
    dots = "." if len(xs) < 15 else None
    axes.plot(xs, means, label=label, lw=1.6, marker=dots, **_style(i))
    axes.fill_between(
        xs,
        [min(values) for values in curves],
        [max(values) for values in curves],
        color=LINES[i % len(LINES)],
        alpha=0.18,
        lw=0,
    )


def _curves(
    trainings: Sequence[Training], read: Callable[[Training], list[tuple[float, float]]]
) -> tuple[list[float], list[list[float]]]:
    """(x, the values of all seeds at each x), as far as all seeds have them."""
    runs = [read(training) for training in trainings]
    length = min(map(len, runs))
    xs = [x for x, _ in runs[0][:length]]
    return xs, [[run[k][1] for run in runs] for k in range(length)]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _losses(outcome: Outcome, axes: "Axes") -> None:
    top = 0.0
    for i, arm in enumerate(outcome.trick.arms):
        trainings = outcome.of(arm, outcome.trick.points[-1])
        xs, curves = _curves(
            trainings, lambda t: [(step, _number(loss)) for step, loss in t.record["losses"]]
        )
        if xs:
            seen = any(v <= HIGHEST for values in curves for v in values)
            _band(axes, xs, curves, i, arm if seen else f"{arm} (above {HIGHEST})")
            top = max([top, *(v for v in curves[0] if v <= HIGHEST)])
    axes.set(xlabel="step", ylabel="cross-entropy of the batches, nats")
    axes.set_ylim(0, top * 1.1 or HIGHEST)


def _accuracies(outcome: Outcome, axes: "Axes") -> None:
    for i, arm in enumerate(outcome.trick.arms):
        trainings = outcome.of(arm, outcome.trick.points[-1])
        xs, curves = _curves(
            trainings,
            lambda t: [(e["step"], 100 * (e["val_accuracy"] or 0.0)) for e in t.epochs],
        )
        _band(axes, xs, curves, i, arm)
    axes.set(xlabel="step", ylabel="validation accuracy, %")


def _words(setting: str) -> str:
    """A setting as a picture names it."""
    return {"per_class": "pictures a class", "model": "network"}.get(setting, setting)


def _by_axis(outcome: Outcome, axes: "Axes") -> None:
    trick = outcome.trick
    assert trick.axis is not None
    setting, points = trick.axis
    numbers = all(isinstance(point, int | float) for point in points)
    xs = list(points) if numbers else list(range(len(points)))
    for i, arm in enumerate(trick.arms):
        values = [mean_and_interval(outcome.values(arm, point, trick.measure)) for point in points]
        axes.errorbar(
            xs,
            [mean for mean, _ in values],
            yerr=[half if math.isfinite(half) else 0 for _, half in values],
            label=arm,
            marker="o",
            markersize=4,
            capsize=3,
            lw=1.4,
            **_style(i),
        )
    if numbers:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(xs, [str(point) for point in points])
    axes.set(xlabel=_words(setting), ylabel=trick.measure.name)
    if trick.measure is ACCURACY:  # intervals may go beyond what there is
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 101))  # a point of 100 whole


def _by_depth(outcome: Outcome, axes: "Axes", key: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for i, arm in enumerate(outcome.trick.arms):
        trainings = outcome.of(arm, outcome.trick.points[-1])
        rows = trainings[0].record["probe"]
        axes.plot(
            range(1, len(rows) + 1),
            [row[key] or math.nan for row in rows],
            label=arm,
            marker=".",
            markersize=4,
            lw=1.4,
            **_style(i),
        )
    plotting.log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="layer, from the image to the classifier", ylabel=label)


def _spread(outcome: Outcome, axes: "Axes") -> None:
    _by_depth(outcome, axes, "std", "standard deviation of the output")


def _gradients(outcome: Outcome, axes: "Axes") -> None:
    _by_depth(outcome, axes, "gradients", "norm of the gradient of the weights")


# --- the article's own two pictures ---------------------------------------------------------------


def _normals(axes: "Axes") -> None:
    draws = 200_000
    for i, name in enumerate(("normal(0.1)", "truncated_normal(0.1)")):
        values = initializer(name)(np.random.default_rng(0), (draws, 1)).ravel()
        axes.hist(
            values, bins=120, range=(-0.4, 0.4), histtype="step", label=name, color=LINES[i], lw=1.4
        )
    axes.set(xlabel="first value of a weight", ylabel=f"of {draws:,} draws")


def _functions(axes: "Axes") -> None:
    x = np.linspace(-4, 4, 401)
    for i, name in enumerate(("relu", "tanh", "sigmoid")):
        y, slope = jax.vmap(jax.value_and_grad(ACTIVATIONS[name]))(x)
        axes.plot(x, y, label=name, lw=1.6, color=LINES[i])
        axes.plot(x, slope, label=f"slope of {name}", lw=1.2, color=LINES[i], linestyle=DASHES[1])
    axes.set(xlabel="x", ylabel="activation of x, and its slope", ylim=(-1.2, 2.5))


# By experiment: the file, what it shows, and how it is drawn.
ARTICLE: dict[str, tuple[str, str, Panel]] = {
    "initialisation": ("article.png", "A truncated normal of deviation 0.1", _normals),
    "relu": ("article.png", "ReLU, tanh and sigmoid, and their slopes", _functions),
}
