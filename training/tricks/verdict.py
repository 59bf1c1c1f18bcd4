"""What the trainings of an experiment show, and whether it is what the article claims."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .experiment import Measure, Pair, Trick
from .runner import Training

DIVERGED = 100.0  # nats: a cross-entropy beyond this is not learning slowly

REPRODUCED = "reproduced"
DIRECTION = "direction only"
NOT_HERE = "not at this scale"
REFUTED = "refuted"
VERDICTS = {
    REPRODUCED: "the trick helps, beyond the spread of the seeds, by half of the source's effect "
    "or more; where the claim is as much for less, it costs at most a point, or twice what the "
    "source lost",
    DIRECTION: "it helps, beyond the spread of the seeds, by less than half of the source's effect",
    NOT_HERE: "the difference is within the spread of the seeds",
    REFUTED: "it does harm, beyond the spread of the seeds; where the claim is as much for less, "
    "it costs more than that",
}


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval by Student's t.

    The half is infinite for one value.
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, math.inf
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, half


def value(training: Training, measure: Measure, target: float = math.nan) -> float:
    """A measure of one training; `target` is an accuracy, of 1, for the steps that it takes."""
    record, last = training.record, training.epochs[-1]
    match measure.key:
        case "val_accuracy":
            return 100 * (last["val_accuracy"] or 0.0)
        case "train_loss":
            loss = last["train_loss"]
            return math.inf if loss is None or loss > DIVERGED else float(loss)
        case "gap":
            return 100 * ((last["train_accuracy"] or 0.0) - (last["val_accuracy"] or 0.0))
        case "steps" | "before":
            return steps_to(training, target)
        case "images_per_second":
            return statistics.median(epoch["images_per_second"] for epoch in training.epochs)
    return float(record[measure.key])


def steps_to(training: Training, target: float) -> float:
    """The steps to a validation accuracy, between epochs by a straight line.

    All steps of the training where it is not reached: a lower bound.
    """
    step = accuracy = 0.0
    for epoch in training.epochs:
        now = epoch["val_accuracy"] or 0.0
        if now >= target:
            share = (target - accuracy) / (now - accuracy) if now > accuracy else 1.0
            return max(step + share * (epoch["step"] - step), 1.0)
        step, accuracy = epoch["step"], now
    return float(training.epochs[-1]["step"])


@dataclass(frozen=True)
class Effect:
    """How much better the arm with the trick is, over the seeds."""

    pair: Pair
    mean: float  # a ratio or a difference, positive where the trick helps
    low: float
    high: float
    verdict: str
    is_bound: bool = False  # whether the arm without may need still more steps


class Outcome:
    """The trainings of an experiment by arm and point, the seeds in order."""

    def __init__(self, trick: Trick, trainings: Sequence[Training]):
        self.trick, self.trainings = trick, list(trainings)

    def of(self, arm: str, point: Any) -> list[Training]:
        """The trainings of an arm at a point, by seed."""
        return [t for t in self.trainings if (t.cell.arm, t.cell.point) == (arm, point)]

    def target(self, point: Any, measure: Measure) -> float:
        """The accuracy that a measure counts the steps to; NaN for one that counts none.

        Of what arms have in the end, over their seeds: 95 % of the best one's, or that of the arm
        without the trick.
        """

        def accuracy(arm: str) -> float:
            return statistics.fmean(
                training.epochs[-1]["val_accuracy"] or 0.0 for training in self.of(arm, point)
            )

        if measure.key == "steps":
            return 0.95 * max(map(accuracy, self.trick.arms))
        return accuracy(self.trick.pairs[0].without) if measure.key == "before" else math.nan

    def is_reached(self, arm: str, point: Any) -> bool:
        """Whether an arm reaches the target with every seed."""
        target = self.target(point, self.trick.measure)
        return all(
            any((epoch["val_accuracy"] or 0.0) >= target for epoch in training.epochs)
            for training in self.of(arm, point)
        )

    def values(self, arm: str, point: Any, measure: Measure) -> list[float]:
        """A measure of an arm at a point, by seed."""
        target = self.target(point, measure)
        return [value(training, measure, target) for training in self.of(arm, point)]

    def effect(self, pair: Pair, point: Any = None) -> Effect:
        """An arm with the trick against one without, seed by seed."""
        trick, measure = self.trick, self.trick.measure
        point = trick.points[-1] if point is None else point
        before, after = (self.values(arm, point, measure) for arm in (pair.without, pair.with_it))
        if not measure.higher_is_better:
            before, after = after, before
        if trick.ratio:
            logs = [math.log(b / a) for a, b in zip(before, after, strict=True)]
            mean, half = mean_and_interval(logs)
            found, low, high = (math.exp(x) for x in (mean, mean - half, mean + half))
            enough = found >= 1 + (trick.effect - 1) / 2
            neutral = 1.0
        else:
            both = zip(before, after, strict=True)
            differences = [0.0 if a == b else b - a for a, b in both]  # infinite ones too
            mean, half = mean_and_interval(differences)
            found, low, high = mean, mean - half, mean + half
            enough = found >= trick.effect / 2
            neutral = 0.0
        if trick.effect <= 0 and not trick.ratio:
            worse = min(2 * trick.effect, -1.0)  # what the claim allows, or a point
            verdict = REPRODUCED if low > worse else REFUTED if high < worse else NOT_HERE
        elif low > neutral or (math.isinf(found) and found > 0):
            verdict = REPRODUCED if enough else DIRECTION
        elif high < neutral:
            verdict = REFUTED
        else:
            verdict = NOT_HERE
        is_bound = measure.key == "steps" and not self.is_reached(pair.without, point)
        return Effect(pair, found, low, high, verdict, is_bound)

    @property
    def verdict(self) -> str:
        """That of the first pair."""
        return self.effect(self.trick.pairs[0]).verdict
