"""The article's tricks, each as an experiment: what it buys, measured.

The project grew from an article, "深度学习技巧1" (deep learning tricks, part 1), on why deep
networks are hard to train and which tricks made it possible. Each file states one claim and the
trainings that test it; `zoo tricks run NAME` does them.
"""

import importlib
from typing import TYPE_CHECKING

from zoo.errors import unknown

if TYPE_CHECKING:
    from .experiment import Trick

NAMES = (
    "initialisation",
    "learning_rate",
    "batch_norm",
    "small_kernels",
    "pointwise",
    "asymmetric",
    "depthwise",
    "avgpool",
    "devices",
    "relu",
    "augmentation",
    "dropout",
    "residuals",
    "transfer",
    "everything",
)


def trick(name: str) -> "Trick":
    """The experiment of that name.

    Raises:
      ZooError: there is none.
    """
    if name not in NAMES:
        raise unknown("trick", name, NAMES)
    experiment: Trick = importlib.import_module(f"{__name__}.{name}").TRICK
    return experiment
