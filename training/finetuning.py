"""The fine-tuning policy: the classifier first, then the whole network, more gently to the stem."""

from typing import Any

import zoo

from .config import FINETUNE, TrainConfig
from .fitting import Result, fit


def finetune(
    model: str, data: str, *, epochs: int = 10, out: str | None = None, **settings: Any
) -> Result:
    """Fine-tune a pretrained network on your own pictures.

    Args:
      model: published weights ("resnet50.a1_in1k", see `zoo.list_weights()`), or a network, whose
        default weights are then taken.
      data: "folder:PATH" or another dataset.
      epochs: passes over the training pictures, the first ones for the classifier alone.
      out: folder of the run; None: runs/DATA-MODEL.
      settings: anything else of `TrainConfig`; `weights` is a file to start from instead.

    Raises:
      ZooError: as `fit`; or no weights to start from.

    >>> finetune("mobilenet_v1_025", "folder:photos", out="runs/photos")     # doctest: +SKIP
    """
    return fit(finetune_config(model=model, data=data, epochs=epochs, out=out, **settings))


def finetune_config(**settings: Any) -> TrainConfig:
    """`TrainConfig` with the defaults of fine-tuning for whatever is not set."""
    if not settings.get("weights"):
        record = zoo.weights(settings.get("model", TrainConfig.model))
        settings |= {"model": record.model, "weights": record.name}
    epochs = settings.get("epochs", FINETUNE["epochs"])
    head_epochs = -(-epochs // 3)  # a third: an untrained classifier would wreck the body
    return TrainConfig.from_dict({**FINETUNE, "head_epochs": head_epochs, **settings})
