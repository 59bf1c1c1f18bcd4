"""The fine-tuning policy: a classifier solved at once, then all of it, more gently to the stem."""

import math
from dataclasses import replace
from typing import Any

import zoo
from zoo.errors import checked
from zoo.pretrained.source import in_folder, is_folder

from .config import FINETUNE, FINETUNE_STEPS, TrainConfig
from .data import Dataset
from .fitting import Result, fit, fit_opened
from .session import open_data, opened


@checked()
def finetune(
    model: str, data: str, *, epochs: int | None = None, out: str | None = None, **settings: Any
) -> Result:
    """Fine-tune a pretrained network on your own pictures.

    Args:
      model: published weights ("resnet50.a1_in1k", see `zoo.list_weights()`), a repository on the
        Hub ("hf-hub:USER/REPO"), or a network, whose default weights are then taken.
      data: "folder:PATH" or another dataset.
      epochs: passes over the training pictures; None: 10, and more where these are so few that
        10 take less than 200 steps.
      out: folder of the run; None: runs/DATA-MODEL.
      settings: anything else of `TrainConfig`; `weights` is a file to start from instead.

    Raises:
      ZooError: as `fit`; or no weights to start from.

    >>> finetune("mobilenet_v1_025", "folder:photos", out="runs/photos")     # doctest: +SKIP
    """
    settings |= {"model": model, "data": data, "out": out}
    if epochs is not None:
        return fit(finetune_config(epochs=epochs, **settings))
    return fit_opened(*with_enough_epochs(finetune_config(**settings)))


def finetune_config(**settings: Any) -> TrainConfig:
    """`TrainConfig` with the defaults of fine-tuning for whatever is not set."""
    model = settings.get("model", TrainConfig.model)
    if not settings.get("weights") and is_folder(model):
        settings |= {"model": in_folder(model, "").spec.name, "weights": f"{model}"}
    elif not settings.get("weights"):
        record = zoo.weights(model)
        settings |= {"model": record.model, "weights": record.name}
    return TrainConfig.from_dict({**FINETUNE, **settings})


def with_enough_epochs(config: TrainConfig) -> tuple[TrainConfig, Dataset]:
    """The settings with so many epochs that they make at least `FINETUNE_STEPS` steps.

    And `config.data`, which is open then.

    Raises:
      ZooError: as `open_data`.
    """
    dataset = opened(config)
    pictures = len(open_data(config, dataset=dataset).train)
    return replace(config, epochs=enough_epochs(pictures, config.batch_size)), dataset


def enough_epochs(pictures: int, batch_size: int) -> int:
    """Ten epochs, and more where so few training pictures make less than 200 steps of them."""
    epochs: int = max(FINETUNE["epochs"], math.ceil(FINETUNE_STEPS / (pictures // batch_size)))
    return epochs
