"""A model zoo for JAX: the classic convolutional networks as Flax NNX modules.

>>> import zoo
>>> zoo.count("resnet50").params
25557032
>>> model = zoo.create("resnet50", num_classes=10)           # doctest: +SKIP
>>> logits = model(images)                                   # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache import enable_compilation_cache
    from .context import KERAS, TF, TORCH, Numerics
    from .errors import ZooError
    from .folding import fold
    from .layers import Network, features
    from .preprocess import Preprocess
    from .pretrained.catalogue import Weights, list_weights, register_weights, weights
    from .pretrained.export import export
    from .pretrained.layouts import register_layout
    from .pretrained.store import load, save
    from .registry import create, list_models, register
    from .report.card import Card, info
    from .report.compare import Comparison, compare
    from .report.count import Count, count
    from .report.diff import Diff, diff
    from .report.peers import against
    from .variant import Paper, Variant

# Where each public name lives. Nothing is imported, jax least of all, before a name is asked for.
_HOME = {
    "KERAS": "context",
    "TF": "context",
    "TORCH": "context",
    "Numerics": "context",
    "ZooError": "errors",
    "Network": "layers",
    "features": "layers",
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
    "enable_compilation_cache": "cache",
    "fold": "folding",
    "Weights": "pretrained.catalogue",
    "list_weights": "pretrained.catalogue",
    "register_weights": "pretrained.catalogue",
    "weights": "pretrained.catalogue",
    "export": "pretrained.export",
    "register_layout": "pretrained.layouts",
    "load": "pretrained.store",
    "save": "pretrained.store",
}

__all__ = [*_HOME]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
