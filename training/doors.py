"""What a package from outside adds by name, for the command `zoo` too: datasets and losses."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from zoo import plugins
from zoo.errors import ZooError

DATASETS = (
    "digits",
    "folder",
    "tar",
    "list",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "mnist",
    "tfds",
)
LOSSES = ("softmax", "sigmoid")  # `training.objective.LOSSES` has the functions

_datasets: dict[str, Callable[[str], Any]] = {}
_losses: dict[str, Callable[..., Any]] = {}


def register_dataset(name: str, open_: Callable[[str], Any]) -> None:
    """Add a dataset, which is then known as NAME and NAME:PATH wherever datasets are named.

    Args:
      name: of letters, digits, `_` and `-`.
      open_: a function of the PATH, "" without one, that gives what `zoo.fit` takes as `data`.

    Raises:
      ZooError: the name is taken, or cannot be one.

    >>> zoo.register_dataset("squares", lambda path: (images, labels))        # doctest: +SKIP
    """
    _enter(_datasets, DATASETS, "dataset", name, open_)


def register_loss(name: str, loss: Callable[..., Any]) -> None:
    """Add a loss, which is then a value of the setting `loss`.

    Args:
      name: of letters, digits, `_` and `-`.
      loss: a function of (logits, targets), [B, K] each, that gives [B].

    Raises:
      ZooError: the name is taken, or cannot be one.

    >>> zoo.register_loss("focal", focal)                                     # doctest: +SKIP
    """
    _enter(_losses, LOSSES, "loss", name, loss)


def datasets() -> Mapping[str, Callable[[str], Any]]:
    """The datasets from outside by name."""
    plugins.load()
    return _datasets


def losses() -> Mapping[str, Callable[..., Any]]:
    """The losses from outside by name."""
    plugins.load()
    return _losses


def _enter(
    known: dict[str, Callable[..., Any]],
    ours: tuple[str, ...],
    what: str,
    name: str,
    function: Callable[..., Any],
) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise ZooError(f"{what}: got the name {name!r:.60}, expected letters, digits, _ and -")
    if name in ours or known.get(name, function) is not function:
        raise ZooError(f"{what}: the name {name!r} is taken")
    if not callable(function):
        raise ZooError(f"{what} {name!r}: got {type(function).__name__}, expected a function")
    known[name] = function
