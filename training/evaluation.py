"""How good a network is on a dataset, every picture counted exactly once."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from tqdm import tqdm

import zoo
from zoo.errors import ZooError, checked, unknown
from zoo.layers import Network
from zoo.pretrained.source import is_folder
from zoo.runtime import backend
from zoo.wrapped import wrapped

from . import data
from .numbering import Renumbered, outputs_of
from .parallel import Devices
from .predictions import Predictions, predict_all
from .sources.base import Joined, Request
from .sources.own import own_dataset
from .sources.record import record_differences
from .sources.splits import split_off
from .state import Arrays, no_totals, take_apart
from .step import make_eval_step

Z_95 = 1.959963984540054  # 95 % of a normal distribution lies within so many deviations


@dataclass(frozen=True)
class Evaluation:
    """Means over `count` pictures. `loss` is cross-entropy in nats; the others are shares of 1."""

    loss: float
    accuracy: float  # top-1
    top5: float
    count: int
    which: str = ""  # which pictures were measured, and why: set by `evaluate`
    data: str = ""  # what the dataset is, in one line
    metrics: Mapping[str, float] = field(default_factory=dict)  # means of `Objective.metrics`
    mean_average_precision: float | None = None  # where pictures may show several classes


SPLITS = ("all", "train", "val", "test")


@checked()
def evaluate(
    model: nnx.Module | str | Path,
    data_spec: Any,
    *,
    split: str | None = None,
    batch_size: int = 64,
    engine: str = "pmap",
    val_fraction: float | None = None,
    dtype: str | None = None,
    skip_unreadable: bool = False,
    mirror: bool = False,
) -> Evaluation:
    """Measure a network on a dataset.

    Classes are matched by their names, those of ImageNet by their synsets too ("n01440764"): the
    dataset may have some of the network's classes alone, and each picture is ranked among all.

    Args:
      model: a network, or anything that `zoo.load` takes: published weights, a file that `zoo.save`
        wrote, a run's folder, "hf-hub:USER/REPO"; or an `nnx.Module` that maps images to logits.
      data_spec: as for `training.data.open_dataset`, or what `fit` takes as `data`.
      split: "all", "train", "val" or "test". None takes the validation split if the dataset has
        one; else the pictures held out by the run that trained the model, if it was trained on this
        dataset; else all pictures.
      batch_size: pictures at a time, over all devices; rounded up to a multiple of their number.
      val_fraction: share of each class that makes up "val" if the dataset has no validation split;
        None: what the run held out, or else a fifth.
      engine: "pmap" or "shard_map".
      dtype: to compute in, where `model` is a file or a name; None: that of the network.
      skip_unreadable: leave out pictures that cannot be read, instead of refusing the dataset.
      mirror: judge by the mean of the logits of each picture and of its mirror image, which takes
        twice as long; the figures that others publish are as a rule without.

    Raises:
      ZooError: the dataset has classes that the network does not know, or no such split.

    >>> evaluate("runs/digits/model.safetensors", "digits").accuracy          # doctest: +SKIP
    0.98...
    """
    if split not in (None, *SPLITS):
        raise unknown("split", str(split), SPLITS)
    backend.expect_training()
    folder = None
    if isinstance(model, str | Path):
        path = Path(model)
        if path.is_dir() and not is_folder(path):
            path = path / "model.safetensors"
        folder, model = path.parent, zoo.load(str(path), dtype=dtype)
    if isinstance(data_spec, str):
        dataset = data.open_dataset(data_spec, val_fraction=None, skip_unreadable=skip_unreadable)
    else:
        dataset = own_dataset(data_spec, None)
    if not isinstance(model, Network):
        model = wrapped(model, dataset.image_size)
    outputs = outputs_of(model, dataset)
    source, which = _chosen(dataset, split, folder, val_fraction)
    if mirror:
        which += "; with their mirror images"
    if outputs is not None:
        source = Renumbered(source, outputs)
    if len(dataset.classes) < model.spec.num_classes:
        which += f"; {len(dataset.classes)} of the network's {model.spec.num_classes:,} classes"
    devices = Devices(engine)
    batch_size = -(-batch_size // len(devices)) * len(devices)
    if dataset.multilabel:
        predictions = predict_all(
            model, source, batch_size=batch_size, devices=devices, mirror=mirror
        )
        return Evaluation(
            float(predictions.losses.mean()),
            predictions.correct / max(len(source), 1),
            _in_top5(predictions),
            len(source),
            which,
            dataset.summary,
            mean_average_precision=predictions.mean_average_precision,
        )
    program, params, stats = take_apart(model)
    step = devices.compile(
        make_eval_step(program, model.preprocess, mirror=mirror),
        donate=False,
        dtype=model.spec.dtype,
        inference=True,
    )
    batches = data.eval_batches(source, model.preprocess, batch_size=batch_size)
    bar = tqdm(
        batches,
        total=-(-len(source) // batch_size),
        desc=f"evaluate {model.spec.name}",
        unit="batch",
        disable=None,
        leave=False,
    )
    measured = run(step, devices, devices.replicate(params), devices.replicate(stats), bar)
    return replace(measured, which=which, data=dataset.summary)


def _in_top5(predictions: Predictions) -> float:
    """The share of pictures with one of their classes among the five largest logits."""
    first = np.argsort(-predictions.logits, kind="stable")[:, :5]
    return float((np.take_along_axis(predictions.labels, first, -1) > 0).any(-1).mean())


def _chosen(
    dataset: data.Dataset, split: str | None, folder: Path | None, val_fraction: float | None
) -> tuple[data.Source, str]:
    """The pictures of a dataset to measure on, and in words how many they are and why these."""
    sources = [dataset.train, dataset.val, *([dataset.test] if dataset.test else [])]
    whole: data.Source = Joined(tuple(sources)) if any(map(len, sources[1:])) else dataset.train
    test, why = dataset.test, ""
    if len(dataset.val):
        split = split or "val"
        if test is None and "test" in dataset.split.casefold():
            test = dataset.val  # the split beside train
    elif split not in ("all", "test"):
        held, why = _held_out_by(folder, dataset)
        if val_fraction is not None or (held is None and split):
            held = _parted(dataset, val_fraction or 0.2)
            why = f" ({held.split})"
        split = split or ("val" if held else "all")
        dataset = held or dataset
    if split == "test" and test is None:
        raise ZooError(f"{dataset.name} has no test split: expected all, train or val")
    chosen = {"all": whole, "train": dataset.train, "val": dataset.val, "test": test}[split]
    assert chosen is not None
    if split == "all":
        return chosen, f"all {len(whole):,}{why}"
    return chosen, f"{len(chosen):,} of {len(whole):,}, {split}{why}"


def _held_out_by(folder: Path | None, dataset: data.Dataset) -> tuple[data.Dataset | None, str]:
    """The dataset split as a run split it, and why; None if the run used another dataset."""
    config, record = (_read(folder, name) if folder else None for name in RUN_FILES)
    fraction = (config or {}).get("val_fraction")
    if not config or not isinstance(fraction, float) or not 0 < fraction < 1:
        return None, ""
    same_place = _place(str(config.get("data"))) == _place(dataset.name)
    if not same_place and not record:
        return None, ""
    try:
        parted = _parted(dataset, fraction)
    except ZooError:  # a class of one picture, which no run takes
        return None, ""
    differs = record_differences(record, parted.record) if record else []
    if not differs and (record or same_place):
        return parted, " (what its run held out)"
    if same_place:
        return parted, f" (but its run had other data, so it may know some: {'; '.join(differs)})"
    return None, ""


def _parted(dataset: data.Dataset, fraction: float) -> data.Dataset:
    if not 0 < fraction < 1:
        raise ZooError(f"val_fraction must lie between 0 and 1, got {fraction!r}")
    return split_off(dataset, Request(dataset.name, fraction, 0, False))


RUN_FILES = ("config.json", "data.json")  # beside a run's model: its settings and its data


def _read(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON in a file of a run; None if it cannot be read."""
    try:
        content = json.loads((folder / name).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _place(spec: str) -> tuple[str, str]:
    """The kind and the absolute path of a dataset spec."""
    kind, _, path = spec.partition(":")
    try:
        return kind, str(Path(path).expanduser().resolve()) if path else ""
    except (OSError, RuntimeError, ValueError):
        return kind, path


def run(
    step: Callable[[Any, Mapping[str, Any]], Any],
    devices: Devices,
    params: Arrays,
    stats: Arrays,
    batches: Iterable[Mapping[str, np.ndarray]],
    metrics: Iterable[str] = (),
) -> Evaluation:
    """Feed all batches to a compiled evaluation step; the sums stay on the devices until the end.

    Args:
      step: `make_eval_step`'s, compiled for the devices.
      devices: that share every batch.
      params: all parameters, on the devices.
      stats: the BN statistics, on the devices.
      batches: this process's part of them, see `training.data.eval_batches`.
      metrics: names of the further metrics of its objective.
    """
    state = (params, stats, devices.replicate(no_totals(metrics)))
    for batch in batches:
        state = step(state, devices.shard(batch))
    return means(state[2])


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval (low, high) of an accuracy of which `correct` of `count` are known.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    (0, 1) if `count` is 0.

    Raises:
      ZooError: `correct` is not between 0 and `count`.

    >>> [round(share, 3) for share in interval(354, 360)]
    [0.964, 0.992]
    """
    if not 0 <= correct <= count:
        raise ZooError(f"interval: got {correct} of {count}, expected 0 to {count} of them")
    if not count:
        return 0.0, 1.0
    share, z2 = correct / count, Z_95**2 / count
    middle = share + z2 / 2
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    low = (middle - half) / (1 + z2) if correct else 0.0  # exactly, without rounding
    high = (middle + half) / (1 + z2) if correct < count else 1.0
    return low, high


def means(totals: Arrays) -> Evaluation:
    """The means from the sums of an epoch or an evaluation. It waits for the devices."""
    sums = {name: float(total) for name, total in totals.items()}
    count = sums.pop("count")
    found = {name: total / max(count, 1) for name, total in sums.items()}
    loss, accuracy, top5 = (found.pop(name) for name in ("loss", "correct", "top5"))
    return Evaluation(loss, accuracy, top5, int(count), metrics=found)
