"""Train, fine-tune and evaluate the networks of `zoo` on one CPU, several GPUs or a TPU pod.

>>> from training import TrainConfig, fit
>>> result = fit(TrainConfig(data="digits", out="runs/digits"))               # doctest: +SKIP
>>> result.accuracy                                                           # doctest: +SKIP
0.98...
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig as TrainConfig
    from .doors import register_dataset as register_dataset
    from .doors import register_loss as register_loss
    from .evaluation import Evaluation as Evaluation
    from .evaluation import Predictions as Predictions
    from .evaluation import evaluate as evaluate
    from .evaluation import predict_all as predict_all
    from .finetuning import finetune as finetune
    from .fitting import Result as Result
    from .fitting import fit as fit
    from .planning import Plan as Plan
    from .planning import plan as plan
    from .probing import Probe as Probe
    from .probing import probe as probe
    from .sources.base import Dataset as Dataset
    from .stopping import Interrupted as Interrupted

_HOME = {  # imported when asked for: `zoo --help` needs none of them
    "TrainConfig": "config",
    "register_dataset": "doors",
    "register_loss": "doors",
    "Dataset": "sources.base",
    "Evaluation": "evaluation",
    "Predictions": "evaluation",
    "predict_all": "evaluation",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "Interrupted": "stopping",
    "Result": "fitting",
    "fit": "fitting",
    "Plan": "planning",
    "plan": "planning",
    "Probe": "probing",
    "probe": "probing",
}

# What a package from outside may ask for where the extra `train` is not installed
_LIGHT = ("TrainConfig", "register_dataset", "register_loss")

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    if name not in _LIGHT:
        importlib.import_module(".needs", __name__).check()
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
