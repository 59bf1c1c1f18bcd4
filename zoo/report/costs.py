"""What each network costs at each size its weights are published for: `costs.csv`, read at once.

`tools/costs.py` counted them with `zoo.count`, which takes seconds a network. What the file does
not have, such as the networks of plugins, is counted when it is asked for.
"""

import csv
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ZooError

if TYPE_CHECKING:
    from ..pretrained.catalogue import Weights
    from .count import Count

FILE = Path(__file__).with_name("costs.csv")


@dataclass(frozen=True)
class Cost:
    """What `zoo.count` says of a network with 1000 classes, for one picture of 3 channels."""

    network: str
    input_size: int  # pixels
    params: int
    batch_stats: int
    head: int  # of the parameters
    macs: int
    train_flops: int
    inference_memory: int  # bytes
    training_memory: int  # bytes

    @property
    def file_bytes(self) -> int:
        """Of the weights in float32, without a file's header."""
        return 4 * (self.params + self.batch_stats)


def cost(network: str, input_size: int) -> Cost:
    """The cost of a network for a picture of `input_size` x `input_size` pixels.

    Raises:
      ZooError: an unknown network, or an input below its minimum.
    """
    return _known().get((network, input_size)) or _counted(network, input_size)


def weights_cost(w: "Weights") -> Cost:
    """The cost of a network with published weights, at their input size.

    The parameters are those of their own classifier; all else is counted with 1000 classes.
    """
    return replace(cost(w.model, w.preprocess.size), params=w.params)


def countable(w: "Weights") -> bool:
    """Whether the network takes pictures of the weights' size."""
    try:
        cost(w.model, w.preprocess.size)
    except ZooError:
        return False
    return True


def of(counted: "Count") -> Cost:
    """The figures of a count."""
    figures = {field.name: getattr(counted, field.name) for field in fields(Cost)[1:]}
    return Cost(counted.name, **figures)


@cache
def _counted(network: str, input_size: int) -> Cost:
    from .count import count  # slow to import

    return of(count(network, input_size=input_size))


@cache
def _known() -> dict[tuple[str, int], Cost]:
    names = [field.name for field in fields(Cost)[1:]]
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = [Cost(row["network"], **{name: int(row[name]) for name in names})
                for row in csv.DictReader(file)]  # fmt: skip
    return {(row.network, row.input_size): row for row in rows}
