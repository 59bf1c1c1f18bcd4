"""Objects that Python code gives a run, in place of the names in its config."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import optax
from flax import nnx

from zoo.errors import ZooError
from zoo.layers import Network

from .config import TrainConfig
from .logging import Record
from .objective import PerPicture
from .step import Augment

Optimizer: TypeAlias = (
    optax.GradientTransformation | Callable[[optax.Schedule], optax.GradientTransformation]
)
Callback: TypeAlias = Callable[[Record], object]

# Settings that say what an object already is
INSTEAD = {
    "model": (
        *("weights", "layout", "like", "dropout", "drop_path", "remat"),
        *("init", "norm", "act", "without"),
    ),
    "loss": ("loss", "class_weights"),
    "data": ("skip_unreadable",),
}


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects given to `training.fit`, which describes them."""

    model: nnx.Module | None = None
    data: Any = None
    optimizer: Optimizer | None = None
    schedule: optax.Schedule | None = None
    loss: PerPicture | None = None
    augment: Augment | None = None
    metrics: Mapping[str, PerPicture] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, nnx.Module):
            raise ZooError(f"model: got {_kind(self.model)}, expected an nnx.Module")
        for name in ("schedule", "loss", "augment"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ZooError(f"{name}: got {_kind(value)}, expected a function")
        if not (
            self.optimizer is None
            or isinstance(self.optimizer, optax.GradientTransformation)
            or callable(self.optimizer)
        ):
            raise ZooError(
                f"optimizer: got {_kind(self.optimizer)}, expected an "
                "optax.GradientTransformation, or a function of a schedule that gives one"
            )
        if not isinstance(self.metrics, Mapping) or not all(map(callable, self.metrics.values())):
            raise ZooError("metrics: expected functions by name")
        for name in self.metrics:
            if name in ("loss", "accuracy", "correct", "top5", "count"):
                raise ZooError(f"metrics: the name {name!r} is taken, choose another")
        if callable(self.callbacks) or not all(map(callable, self.callbacks)):
            raise ZooError("callbacks: expected a list of functions")

    def names(self) -> str | None:
        """The objects given, by import path; None if there are none.

        >>> Objects(loss=optax.safe_softmax_cross_entropy).names()
        'loss=optax.losses._classification.safe_softmax_cross_entropy'
        """
        given = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "metrics":
                given += [f"metrics.{name}={path_of(metric)}" for name, metric in value.items()]
            elif entry.name == "callbacks":
                given += [f"callbacks={path_of(callback)}" for callback in value]
            elif value is not None:
                given.append(f"{entry.name}={path_of(value)}")
        return ", ".join(given) or None

    def entered(self, config: TrainConfig) -> TrainConfig:
        """The config with the names of the objects entered.

        Raises:
          ZooError: a setting that an object replaces; the config of a run that had other objects.
        """
        names = self.names()
        if config.objects not in (None, names):
            raise ZooError(
                f"objects: the run had {config.objects}; got {names or 'none'}: give fit the same"
            )
        default = TrainConfig()
        for given, settings in INSTEAD.items():
            for setting in settings if getattr(self, given) is not None else ():
                if getattr(config, setting) != getattr(default, setting):
                    raise ZooError(f"{setting}: has no effect beside {given}=: leave one out")
        if self.model is not None:
            config = replace(config, model=name_of(self.model))
        if self.data is not None:
            config = replace(config, data=getattr(self.data, "name", "python"))
        return replace(config, objects=names)


NONE = Objects()


def path_of(value: Any) -> str:
    """The import path of a function or class; for any other object, that of its class.

    >>> path_of(functools.partial(max, 3))
    'partial(builtins.max)'
    """
    if isinstance(value, functools.partial):
        return f"partial({path_of(value.func)})"
    if not hasattr(value, "__qualname__"):
        value = type(value)
    return f"{value.__module__}.{value.__qualname__}"


def name_of(model: nnx.Module) -> str:
    """The name of a network in a run."""
    return model.spec.name if isinstance(model, Network) else type(model).__name__


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
