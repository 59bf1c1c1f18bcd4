"""A model zoo for JAX: the classic convolutional networks as Flax NNX modules.

>>> import zoo
>>> zoo.count("resnet50").params
25557032
>>> model = zoo.create("resnet50", num_classes=10)           # doctest: +SKIP
>>> logits = model(images)                                   # doctest: +SKIP
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training import TrainConfig as TrainConfig
    from training import evaluate as evaluate
    from training import finetune as finetune
    from training import fit as fit
    from training import probe as probe
    from training import register_dataset as register_dataset
    from training import register_loss as register_loss

    from .context import KERAS as KERAS
    from .context import TF as TF
    from .context import TORCH as TORCH
    from .context import Numerics as Numerics
    from .errors import ZooError as ZooError
    from .folding import fold as fold
    from .layers import Network as Network
    from .layers import features as features
    from .origin import Origin as Origin
    from .preprocess import Preprocess as Preprocess
    from .pretrained.catalogue import Weights as Weights
    from .pretrained.catalogue import register_weights as register_weights
    from .pretrained.catalogue import weights as weights
    from .pretrained.export import export as export
    from .pretrained.folder import save as save
    from .pretrained.hub import push_to_hub as push_to_hub
    from .pretrained.layouts import register_layout as register_layout
    from .pretrained.saving import restore as restore
    from .pretrained.store import load as load
    from .registry import create as create
    from .registry import list_models as list_models
    from .registry import register as register
    from .report.card import Card as Card
    from .report.card import info as info
    from .report.compare import Comparison as Comparison
    from .report.compare import compare as compare
    from .report.count import Count as Count
    from .report.count import count as count
    from .report.diff import Diff as Diff
    from .report.diff import diff as diff
    from .report.listing import Listing as Listing
    from .report.listing import list_weights as list_weights
    from .report.peers import against as against
    from .runtime.cache import enable_compilation_cache as enable_compilation_cache
    from .variant import Paper as Paper
    from .variant import Variant as Variant

# Where each public name lives. Nothing is imported, jax least of all, before a name is asked for.
_HOME = {
    "KERAS": "context",
    "TF": "context",
    "TORCH": "context",
    "Numerics": "context",
    "ZooError": "errors",
    "Network": "layers",
    "features": "layers",
    "Origin": "origin",
    "Preprocess": "preprocess",
    "create": "registry",
    "list_models": "registry",
    "register": "registry",
    "Paper": "variant",
    "Variant": "variant",
    "Card": "report.card",
    "Comparison": "report.compare",
    "Count": "report.count",
    "Diff": "report.diff",
    "against": "report.peers",
    "compare": "report.compare",
    "count": "report.count",
    "diff": "report.diff",
    "info": "report.card",
    "Listing": "report.listing",
    "list_weights": "report.listing",
    "enable_compilation_cache": "runtime.cache",
    "fold": "folding",
    "Weights": "pretrained.catalogue",
    "register_weights": "pretrained.catalogue",
    "weights": "pretrained.catalogue",
    "export": "pretrained.export",
    "push_to_hub": "pretrained.hub",
    "register_layout": "pretrained.layouts",
    "load": "pretrained.store",
    "restore": "pretrained.saving",
    "save": "pretrained.folder",
}

# The public face of the package `training`, which stands beside this one
_TRAINING = (
    "TrainConfig",
    "evaluate",
    "finetune",
    "fit",
    "probe",
    "register_dataset",
    "register_loss",
)

__all__ = [*_HOME, *_TRAINING]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name in _TRAINING:
        value = getattr(_training(), name)
    elif name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    globals()[name] = value
    return value


def _training() -> Any:
    """Our package `training`.

    Raises:
      ZooError: another package or folder of that name comes first on the path.
    """
    from .errors import ZooError

    ours = Path(__file__).resolve().parents[1] / "training"
    try:
        package = importlib.import_module("training")
        where = Path(package.__file__ or next(iter(package.__path__)))
    except ImportError as error:
        if error.name != "training":
            raise
        where = Path("nothing")
    if where.resolve().parent != ours:
        raise ZooError(
            f"import training: got {where}, expected {ours}, which it hides: rename it, or start "
            "Python from another folder"
        )
    return package


def __dir__() -> list[str]:
    return __all__
