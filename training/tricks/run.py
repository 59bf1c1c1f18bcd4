"""Run an experiment, and write down what it shows."""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo.errors import ZooError
from zoo.runtime import machine

from . import devices, pictures, trick
from .experiment import Measure, Settings, Trick, name_of
from .runner import Runner
from .section import Section, place, provenance
from .verdict import Effect, Outcome, mean_and_interval


def run(
    name: str,
    folder: Path,
    *,
    seeds: int = 3,
    asked: Settings | None = None,
    quick: bool = False,
    command: str = "",
) -> Section:
    """Do the trainings of an experiment that are not there yet, and write its section.

    Args:
      name: of the experiment.
      folder: of all experiments. Trainings go into `NAME/trainings` there, and stay; the section
        goes where `place` says.
      seeds: how many each arm is trained with, after the search for its learning rate.
      asked: settings of the user's, for all arms.
      quick: one epoch, one seed and one rate, to see that everything works.
      command: the command line, for the section.

    Raises:
      ZooError: an unknown experiment, settings that do not fit, a folder that cannot be written.
    """
    if seeds < 1:
        raise ZooError(f"seeds: got {seeds}, expected 1 or more")
    if name == "devices":
        return devices.run(folder, asked=asked, quick=quick, command=command)
    runner = Runner(trick(name), folder / name / "trainings", asked, quick=quick)
    seeds = 1 if quick else seeds
    todo, seconds = runner.estimate(seeds)
    if todo:
        print(
            f"{name}: {todo} trainings to do, about {max(seconds / 60, 1):.0f} min on this "
            "processor; stopped, the same command goes on with the next",
            file=sys.stderr,
        )
    outcome = Outcome(runner.trick, runner.run(seeds))
    section = describe(outcome, folder, name_of(asked or {}), command)
    section.save(folder)
    return section


def describe(outcome: Outcome, folder: Path, data: str, command: str) -> Section:
    """The section of an experiment on the data of that name, its pictures drawn."""
    trick = outcome.trick
    effects = [outcome.effect(pair) for pair in trick.pairs]
    measures = (trick.measure, *trick.also)
    headings = ["arm", *([trick.axis[0]] if trick.axis else []), "rate"]
    headings += [measure.name for measure in measures]
    rows = []
    for point in trick.points:
        for arm in trick.arms:
            rate = outcome.of(arm, point)[0].cell.config.peak_learning_rate
            cells = [arm, *([f"{point}"] if trick.axis else []), f"{rate:g}"]
            cells += [_shown(outcome.values(arm, point, measure), measure) for measure in measures]
            rows.append(tuple(cells))
    first = trick.pairs[0]
    last = trick.points[-1]
    ours = [
        (
            measure.name,
            _shown(outcome.values(first.without, last, measure), measure),
            _shown(outcome.values(first.with_it, last, measure), measure),
        )
        for measure in measures
    ]
    seconds = sum(training.record["seconds"] for training in outcome.trainings)
    ran = outcome.trainings[0].record
    cores = ran.get("cores", machine.cores())  # which older trainings did not tell
    return Section(
        name=trick.name,
        title=trick.title,
        claim=trick.claim,
        source=trick.source,
        url=trick.url,
        figures=tuple((f.what, f.without, f.with_it) for f in trick.figures),
        ours=tuple(ours),
        setting=_setting(outcome),
        predicts=trick.predicts,
        refuted_by=trick.refuted_by,
        verdict=effects[0].verdict,
        found=tuple(_sentence(trick, effect) for effect in effects),
        headings=tuple(headings),
        rows=tuple(rows),
        pictures=pictures.draw(outcome, place(folder, trick.name, data)),
        notes=trick.notes,
        command=command or f"zoo tricks run {trick.name}",
        made=provenance(ran["device"], cores, ran["jax"], seconds) + " of training",
        data=data,
    )


def _shown(values: Sequence[float], measure: Measure) -> str:
    mean, half = mean_and_interval(values)
    if not math.isfinite(mean):
        return "diverged"
    if not math.isfinite(half) or half == 0:
        return format(mean, measure.form)
    return f"{mean:{measure.form}} ± {half:{measure.form}}"


def _sentence(trick: Trick, effect: Effect) -> str:
    """What a comparison shows, in words."""
    pair = effect.pair
    name = f"{pair.with_it} against {pair.without}"
    if trick.ratio:
        found, low, high = (f"{x:.2g}" for x in (effect.mean, effect.low, effect.high))
        least = "at least " if effect.is_bound else ""
        what = f"{name}: {least}{found} times as fast, {low} to {high} with 95 % confidence"
    else:
        if math.isinf(effect.mean):
            return f"{name}: the latter diverges."
        kind = "gain" if effect.mean >= 0 else "loss"
        sign = 1 if effect.mean >= 0 else -1
        bounds = sorted((sign * effect.low, sign * effect.high))
        found, low, high = (f"{round(x, 6):.2g}" for x in (sign * effect.mean, *bounds))
        what = f"{name}: a {kind} of {found}, {low} to {high} with 95 % confidence"
    if not math.isfinite(effect.high):
        what = what.rpartition(",")[0] + " with one seed, which shows no spread"
    return f"{what} ({trick.measure.name}): {effect.verdict}."


def _setting(outcome: Outcome) -> str:
    """What the trainings have in common, in words; the values of what the axis changes."""
    trick = outcome.trick
    configs = [training.cell.config for training in outcome.trainings]
    config, record = configs[-1], outcome.trainings[-1].record
    pictures = _each(f"{t.record['train_pictures']:,}" for t in outcome.trainings)
    schedules = {f"{c.optimizer}, {c.schedule} rate" for c in configs}
    seeds = sorted({t.cell.seed for t in outcome.trainings})
    rates = ", ".join(f"{rate:g}" for rate in trick.rates)
    parts = [
        f"{_each(c.model for c in configs)} on {config.data} ({pictures} pictures to train on, "
        f"{record['val_pictures']:,} to validate)",
        f"{config.image_size or 'the data set'} pixels",
        f"{_each(str(c.epochs) for c in configs)} epochs of batches of {config.batch_size}",
        *(schedules if len(schedules) == 1 else ()),  # else they are what the arms differ in
        f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}",
    ]
    if rates:
        parts.append(f"each arm at the best of the rates {rates}, chosen with seed 0")
    return "; ".join(parts) + "."


def _each(values: Iterable[str]) -> str:
    """Different values in the order of their coming: "400, 120 or 40"."""
    *first, last = dict.fromkeys(values)
    return f"{', '.join(first)} or {last}" if first else last
