"""The phases of a run: first the classifier alone, if asked for, then all that is not frozen."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import ZooError, unknown

from .config import TrainConfig


@dataclass(frozen=True)
class Phase:
    """Epochs `start` to `stop`: one set of trained parameters, one optimizer, one schedule."""

    start: int
    stop: int
    trained: frozenset[str]  # stages; the others keep their parameters and BN statistics
    learning_rate: float  # peak

    def trains(self, path: str) -> bool:
        """Whether a parameter, by its dotted path, is trained."""
        return stage_of(path, self.trained) is not None


def phases(config: TrainConfig, stages: Sequence[str]) -> list[Phase]:
    """The phases of a run, without empty ones.

    Args:
      config: of the run.
      stages: of the network, in order ("stem", ..., "classifier").

    Raises:
      ZooError: `freeze` names an unknown stage, or leaves nothing to train.
    """
    head = 0 if config.head_only else config.head_epochs
    end, peak = config.epochs, config.peak_learning_rate
    top = frozenset({"classifier"} & set(stages))
    rest = top if config.head_only else frozenset(stages) - set(frozen_stages(config, stages))
    if not rest:
        raise ZooError("freeze: it leaves nothing to train")
    both = [
        Phase(0, head, top, peak),
        Phase(head, end, rest, peak * config.unfreeze_scale if head else peak),
    ]
    return [phase for phase in both if phase.stop > phase.start]


def frozen_stages(config: TrainConfig, stages: Sequence[str]) -> tuple[str, ...]:
    """The stages that `config.freeze` names: "stem..stage3", "stem,stage1" or both forms mixed."""
    frozen: list[str] = []
    for part in filter(None, re.split(r"\s*,\s*", config.freeze or "")):
        first, dots, last = part.partition("..")
        for stage in filter(None, (first, last)):
            if stage not in stages:
                raise unknown("stage", stage, stages)
        start = stages.index(first) if first else 0
        stop = stages.index(last) if last else len(stages) - 1 if dots else start
        frozen += stages[start : stop + 1]
    return tuple(frozen)


def rate_scales(
    stages: Sequence[str],
    paths: Iterable[str],
    depth_decay: float,
    multipliers: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The learning rate of each parameter, by path, relative to that of the last stage.

    Args:
      stages: of the network, in order ("stem", ..., "classifier").
      paths: of the parameters ("body.stem.conv.kernel").
      depth_decay: rate of a stage over the rate of the stage after it.
      multipliers: further factors, by stage.

    Raises:
      ZooError: a multiplier for an unknown stage.
    """
    multipliers = multipliers or {}
    for stage in multipliers:
        if stage not in stages:
            raise unknown("stage", stage, stages)
    scale = {
        stage: depth_decay ** (len(stages) - 1 - i) * multipliers.get(stage, 1.0)
        for i, stage in enumerate(stages)
    }
    return {path: scale[stage_of(path, stages) or stages[-1]] for path in paths}


def stage_of(path: str, stages: Iterable[str]) -> str | None:
    """The stage that a parameter belongs to; auxiliary classifiers go with the classifier."""
    parts = ["classifier"] if path.startswith("aux_") else path.split(".")
    return next((part for part in parts if part in stages), None)
