"""Train, fine-tune and evaluate the networks of `zoo` on one CPU, several GPUs or a TPU pod.

>>> from training import TrainConfig, fit
>>> result = fit(TrainConfig(data="digits", out="runs/digits"))               # doctest: +SKIP
>>> result.accuracy                                                           # doctest: +SKIP
0.98...
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparing import compare_runs as compare_runs
    from .comparing import list_runs as list_runs
    from .config import TrainConfig as TrainConfig
    from .doors import register_dataset as register_dataset
    from .doors import register_loss as register_loss
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .finetuning import finetune as finetune
    from .fitting import Result as Result
    from .fitting import fit as fit
    from .planning import Plan as Plan
    from .planning import plan as plan
    from .predictions import Embeddings as Embeddings
    from .predictions import Predictions as Predictions
    from .predictions import embed_all as embed_all
    from .predictions import predict_all as predict_all
    from .probing import Probe as Probe
    from .probing import probe as probe
    from .sources.base import Dataset as Dataset
    from .stopping import Interrupted as Interrupted

_HOME = {  # imported when asked for: `zoo --help` needs none of them
    "compare_runs": "comparing",
    "list_runs": "comparing",
    "TrainConfig": "config",
    "register_dataset": "doors",
    "register_loss": "doors",
    "Dataset": "sources.base",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "Interrupted": "stopping",
    "Result": "fitting",
    "fit": "fitting",
    "Embeddings": "predictions",
    "Predictions": "predictions",
    "embed_all": "predictions",
    "predict_all": "predictions",
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
