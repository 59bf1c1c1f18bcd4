"""The fine-tuning policy: the classifier first, then the whole network, more gently to the stem."""

from typing import Any

from zoo.errors import ZooError

from .config import FINETUNE, TrainConfig
from .loop import Result, fit


def finetune(
    model: str, data: str, *, epochs: int = 10, out: str | None = None, **settings: Any
) -> Result:
    """Fine-tune a pretrained network on your own pictures.

    Args:
      model: name of the network, see `zoo.list_models()`.
      data: "folder:PATH" or another dataset.
      epochs: passes over the training pictures, the first ones for the classifier alone.
      out: folder of the run; None: runs/DATA-MODEL.
      settings: anything else of `TrainConfig`; `weights` is the file to start from.

    Raises:
      ZooError: as `fit`; or no weights to start from.

    >>> finetune("mobilenet_v1_025", "folder:photos", out="runs/photos",
    ...          weights="mobilenet_2_5_224_tf_no_top.h5")                    # doctest: +SKIP
    """
    return fit(finetune_config(model=model, data=data, epochs=epochs, out=out, **settings))


def finetune_config(**settings: Any) -> TrainConfig:
    """`TrainConfig` with the defaults of fine-tuning for whatever is not set."""
    if not settings.get("weights"):
        raise ZooError("finetune: expected weights=FILE to start from; `train` starts from nothing")
    epochs = settings.get("epochs", FINETUNE["epochs"])
    head_epochs = -(-epochs // 3)  # a third: an untrained classifier would wreck the body
    return TrainConfig.from_dict({**FINETUNE, "head_epochs": head_epochs, **settings})
