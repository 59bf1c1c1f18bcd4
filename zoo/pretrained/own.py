"""The weights that this project trained: what trained them, and what they reach.

Beside each file of `checkpoints/` lie its card, its curves, and these facts as JSON, which
`tools/own.py` writes.
"""

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from ..errors import ZooError, few, nearest, unknown
from .catalogue import OWN, list_weights, weights

if TYPE_CHECKING:
    from ..report.table import Table


@dataclass(frozen=True)
class Own:
    """How weights of our own came about, and what they reach on pictures held out."""

    name: str  # "resnet20_cifar.cifar10"
    recipe: str  # of `training/recipes`
    data: str  # for people: "CIFAR-10 as JPEG files"
    kind: str  # of the data, before the colon of `--data`: "digits", "cifar10"
    train: int  # pictures
    held_out: int  # pictures
    correct: int  # of the pictures held out
    low: float  # of the accuracy's 95 % interval (Wilson's), 0 to 1
    high: float
    seconds: float
    device: str
    seed: int
    started_from: str = ""  # published weights; "": random ones

    @property
    def accuracy(self) -> float:
        """Of the pictures held out, 0 to 1."""
        return self.correct / self.held_out


def list_own() -> list[str]:
    """The names of the weights that this project trained, in the order of the catalogue."""
    return [name for name in list_weights() if weights(name).source == "zoo"]


def own(name: str) -> Own:
    """The facts about weights of our own.

    Raises:
      ZooError: these are not ours; the line offers the nearest.

    >>> own("resnet20_cifar.cifar10").recipe
    'resnet20_cifar10'
    """
    if name not in list_own():
        raise unknown("weights of our own", name, list_own())
    path = OWN / f"{name}.json"
    try:
        return Own(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ZooError(f"cannot read {path}: {error}") from error


def table(pattern: str = "*") -> "Table":
    """Weights of our own whose names match a shell pattern: what they reach, and what it took.

    Raises:
      ZooError: none matches.
    """
    from ..report.table import Column, Table, number

    names = [name for name in list_own() if fnmatch(name, pattern)]
    if not names:
        near = nearest(pattern, list_own())
        hint = f"did you mean {near}?" if near else f"there are {few(list_own())}"
        raise ZooError(f"no weights of our own match {pattern!r}: {hint}")
    columns = (
        Column("name", "weights", left=True),
        Column("data", "data", left=True),
        Column("accuracy", "accuracy (%)", number(".1f", 0.01)),
        Column("interval", "95 % interval", left=True),
        Column("held_out", "pictures held out", number()),
        Column("params", "parameters", number()),
        Column("minutes", "minutes", number(".1f", 60)),
        Column("device", "on", left=True),
        Column("recipe", "recipe", left=True),
    )
    rows = tuple(
        (
            *(one.name, one.data, one.accuracy, f"{100 * one.low:.1f} to {100 * one.high:.1f}"),
            *(one.held_out, weights(one.name).params, one.seconds, one.device, one.recipe),
        )
        for one in map(own, names)
    )
    note = (
        "zoo train --recipe RECIPE trains them again; zoo reproduce WEIGHTS compares the "
        "result with their card too."
    )
    return Table("weights of our own", columns, rows, (note,))
