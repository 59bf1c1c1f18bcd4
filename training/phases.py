"""What a run trains when: the classifier alone first if asked to, then everything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .config import TrainConfig


@dataclass(frozen=True)
class Phase:
    """Epochs `start` to `stop`: one set of trained parameters, one optimizer, one schedule."""

    start: int
    stop: int
    head_only: bool
    learning_rate: float  # peak

    def trains(self, path: str) -> bool:
        """Whether a parameter, by its dotted path, is trained."""
        return not self.head_only or path.startswith("classifier.")


def phases(config: TrainConfig) -> list[Phase]:
    """The phases of a run, without empty ones."""
    head, end, peak = config.head_epochs, config.epochs, config.peak_learning_rate
    both = [
        Phase(0, head, head_only=True, learning_rate=peak),
        Phase(
            head, end, head_only=False, learning_rate=peak * config.unfreeze_scale if head else peak
        ),
    ]
    return [phase for phase in both if phase.stop > phase.start]


def rate_scales(
    stages: Sequence[str], paths: Iterable[str], depth_decay: float
) -> dict[str, float]:
    """By parameter path, its learning rate over the last stage's.

    Args:
      stages: of the network, in order ("stem", ..., "classifier").
      paths: of the parameters ("body.stem.conv.kernel").
      depth_decay: rate of a stage over the rate of the stage after it.
    """
    below = {stage: len(stages) - 1 - i for i, stage in enumerate(stages)}

    def stage(path: str) -> str:
        return next(part for part in path.split(".") if part in below)

    return {path: depth_decay ** below[stage(path)] for path in paths}
