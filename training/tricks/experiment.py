"""What an experiment states before it is run: the claim, the arms, the prediction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.variant import Variant

from ..config import TrainConfig

Settings = Mapping[str, Any]  # of `TrainConfig`, by name
DIGITS = "digits"  # the data of all experiments by default
PRETRAINED = "PRETRAINED"  # as `weights`: those of the training that `Trick.pretraining` describes


# Of every experiment with `--data cifar10:PATH`, besides its epochs: a tenth of the pictures.
CIFAR10: Settings = dict(image_size=32, per_class=500, batch_size=64)


@dataclass(frozen=True)
class Measure:
    """What is read off a finished training, the same for every arm."""

    key: str  # of `runner.measured`
    name: str  # for people, with the unit
    higher_is_better: bool
    form: str = ".3g"


ACCURACY = Measure("val_accuracy", "validation accuracy (%)", True, ".1f")
TRAIN_LOSS = Measure("train_loss", "training loss of the last epoch (nats)", False, ".3f")
GAP = Measure("gap", "training less validation accuracy (points)", False, ".1f")
STEPS = Measure("steps", "steps to 95 % of the best arm's accuracy", False, ",.0f")
BEFORE = Measure("before", "steps to the accuracy that the network without ends at", False, ",.0f")


@dataclass(frozen=True)
class Figure:
    """A figure of the source, to stand beside ours."""

    what: str  # "ImageNet, steps to 72.2 %"
    without: str
    with_it: str


@dataclass(frozen=True)
class Pair:
    """Two arms to set against each other."""

    without: str
    with_it: str


def kind_of(asked: Settings) -> str:
    """The kind of data that a user asks for: "digits", "cifar10", "folder"."""
    return str(asked.get("data", DIGITS)).partition(":")[0]


def name_of(asked: Settings) -> str:
    """What to call the data that a user asks for: a folder by its own name.

    >>> name_of({}), name_of({"data": "cifar10:a/b"}), name_of({"data": "folder:a/flowers:val"})
    ('digits', 'cifar10', 'flowers')
    """
    kind, _, rest = str(asked.get("data", DIGITS)).partition(":")
    return Path(rest.partition(":")[0]).resolve().name if kind == "folder" else kind


@dataclass(frozen=True)
class Trick:
    """An experiment: a network trained with a trick and without it.

    Args:
      name: "batch_norm", of the command line.
      title: "Batch normalisation".
      claim: the article's, in English.
      source: paper, and where in it its figures stand.
      url: of the paper.
      figures: those of the source.
      setting: what all arms have in common, as far as it differs from `TrainConfig`.
      arms: by name, what is set differently in each. The first one is the baseline.
      pairs: the comparisons that decide; the first one is the experiment's.
      measure: what they are compared by.
      effect: how large the source's effect is in that measure: the ratio of the arms where `ratio`
        is set, else their difference, positive where the trick helps. 0 or less: the claim is that
        it costs no more than that.
      ratio: whether the effect is a ratio.
      rates: learning rates tried for each arm with one seed; each arm is then run at its best. ():
        the rate is a part of the arm.
      pretraining: by the kind of data, what the training of the `PRETRAINED` weights sets
        differently from `setting`.
      axis: a setting and the values at which all arms are compared; the last one decides. Epochs
        are those of the largest `per_class`, and more with fewer pictures, for as many steps.
      predicts: what we expect to see here, written down before the first full run.
      refuted_by: what would show the claim to be wrong here.
      page: by the kind of data, what the setting is there: `{"cifar10": dict(epochs=20)}`.
      page_axis: by the kind of data, the values of the axis there.
      page_rates: by the kind of data, the learning rates tried there.
      quick: what `--quick` sets, to try the machinery.
      networks: those of the experiment's own, by the names that `setting` or `arms` use.
      also: further measures for the table.
      probed: whether activations and gradients are looked at before the first step.
      notes: what to know when reading the results.
    """

    name: str
    title: str
    claim: str
    source: str
    url: str
    figures: tuple[Figure, ...]
    setting: Settings
    arms: Mapping[str, Settings]
    pairs: tuple[Pair, ...]
    measure: Measure
    effect: float
    predicts: str
    refuted_by: str
    ratio: bool = False
    rates: tuple[float, ...] = ()
    pretraining: Mapping[str, Settings] = field(default_factory=dict)
    axis: tuple[str, tuple[Any, ...]] | None = None
    page: Mapping[str, Settings] = field(default_factory=dict)
    page_axis: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    page_rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    quick: Settings = field(default_factory=dict)
    networks: tuple[Variant, ...] = ()
    also: tuple[Measure, ...] = ()
    probed: bool = False
    notes: tuple[str, ...] = ()

    def config(
        self,
        arm: str,
        *,
        point: Any = None,
        rate: float | None = None,
        seed: int = 0,
        asked: Settings | None = None,
        quick: bool = False,
    ) -> TrainConfig:
        """The settings of one training.

        Args:
          arm: one of `arms`.
          point: one of the values of `axis`.
          rate: one of `rates`; None leaves the arm's.
          seed: of the weights, the order of the pictures and all else.
          asked: what the user sets: `data`, `epochs` and the like.
          quick: whether it is to be over soon, whatever comes of it.
        """
        asked = asked or {}
        kind = kind_of(asked)
        settings = {**self.setting, **self.page.get(kind, {}), **(self.quick if quick else {})}
        settings |= {**self.arms[arm], **asked}
        if "weights" not in self.arms[arm]:
            settings.pop("weights", None)
        if self.axis is not None:
            settings[self.axis[0]] = point
            if self.axis[0] == "per_class":  # as many steps with few pictures as with all
                settings["epochs"] *= round(max(self.axis[1]) / point)
        if rate is not None and "learning_rate" not in self.arms[arm]:
            settings["learning_rate"] = rate
        return TrainConfig(**{**settings, "seed": seed})

    @property
    def points(self) -> tuple[Any, ...]:
        """The values of the axis, or None alone."""
        return (None,) if self.axis is None else self.axis[1]

    def rates_of(self, arm: str) -> tuple[float | None, ...]:
        """The learning rates that are tried for an arm."""
        return (None,) if "learning_rate" in self.arms[arm] or not self.rates else self.rates
