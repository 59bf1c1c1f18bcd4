"""How good a network is on a dataset, every picture counted exactly once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.layers import Network

from . import data
from .parallel import Devices
from .state import Arrays, no_totals, take_apart
from .step import make_eval_step


@dataclass(frozen=True)
class Evaluation:
    """Means over `count` pictures. `loss` is cross-entropy in nats; the others are shares of 1."""

    loss: float
    accuracy: float  # top-1
    top5: float
    count: int


def evaluate(
    model: Network | str | Path,
    data_spec: str,
    *,
    split: str = "val",
    batch_size: int = 64,
    engine: str = "pmap",
    val_fraction: float = 0.2,
    skip_unreadable: bool = False,
) -> Evaluation:
    """Measure a network on a dataset.

    Args:
      model: a network, or a file that `zoo.save` or a training run wrote.
      data_spec: "digits" or "folder:PATH".
      split: "val" or "train".
      batch_size: pictures at a time, over all devices together; rounded up to share out evenly.

    Raises:
      ZooError: the dataset has other classes than the network.

    >>> evaluate("runs/digits/model.safetensors", "digits").accuracy          # doctest: +SKIP
    0.98...
    """
    if not isinstance(model, Network):
        model = zoo.load(str(model))
    dataset = data.open_dataset(
        data_spec, val_fraction=val_fraction, skip_unreadable=skip_unreadable
    )
    check_classes(model, dataset.classes)
    devices = Devices(engine)
    batch_size = -(-batch_size // len(devices)) * len(devices)
    program, params, stats = take_apart(model)
    step = devices.compile(make_eval_step(program, model.preprocess), donate=False)
    source = {"val": dataset.val, "train": dataset.train}[split]
    batches = data.eval_batches(source, model.preprocess, batch_size=batch_size)
    bar = tqdm(
        batches,
        total=-(-len(source) // batch_size),
        desc=f"evaluate {model.spec.name}",
        unit="batch",
        disable=None,
        leave=False,
    )
    return run(step, devices, devices.replicate(params), devices.replicate(stats), bar)


def run(
    step: Callable[[Any, Mapping[str, Any]], Any],
    devices: Devices,
    params: Arrays,
    stats: Arrays,
    batches: Iterable[Mapping[str, np.ndarray]],
) -> Evaluation:
    """Feed all batches to a compiled evaluation step; the sums stay on the devices till the end."""
    state = (params, stats, devices.replicate(no_totals()))
    for batch in batches:
        state = step(state, devices.shard(batch))
    return means(state[2])


def means(totals: Arrays) -> Evaluation:
    """What the sums of an epoch or an evaluation come to; it waits for the devices."""
    sums = {name: float(total) for name, total in totals.items()}
    count = sums.pop("count")
    loss, accuracy, top5 = (sums[name] / max(count, 1) for name in ("loss", "correct", "top5"))
    return Evaluation(loss, accuracy, top5, int(count))


def check_classes(model: Network, classes: tuple[str, ...]) -> None:
    """
    Raises:
      ZooError: the network's classes are not these.
    """
    if model.spec.num_classes != len(classes):
        raise ZooError(
            f"{model.spec.name} has {model.spec.num_classes} classes, the dataset {len(classes)}"
        )
    if model.classes and model.classes != classes:
        other = sorted(set(model.classes) ^ set(classes))
        raise ZooError(
            f"{model.spec.name} was trained on other classes than the dataset's; "
            f"not in both: {', '.join(other) or 'none, their order differs'}"
        )
