"""Ways to fine-tune a pretrained network, on few pictures, near to what it was trained on and far.

Each way starts from the same weights and the same pictures, a seed at a time, and is measured on
the validation pictures (at most 1,000 of them) after its last epoch. What is in the file of
`--json` is not run again, and sizes that a dataset does not have are left out. The table has the
mean over the seeds and their standard deviation.

The default keeps the best of five networks by the validation pictures. "default, unseen" counts
each half of them with the network that is the best by the other half, so that no picture is counted
that had a part in the choice.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import jax
import numpy as np

import zoo
from training import linear
from training.config import FINETUNE, TrainConfig
from training.data import Dataset, open_dataset
from training.finetuning import enough_epochs
from training.fitting import Result, fit
from training.predictions import predict_all
from training.session import Session
from training.sources.base import Subset

from . import harness
from .harness import Row

WEIGHTS = "mobilenet_v1_025.keras_in1k_no_top"  # which come with the package
SIZES = (10, 60, 300, 1000)  # pictures of each class
MOST = 1000  # validation pictures
PROBE, UNSEEN = "ridge probe", "default, unseen"

OTHERS = {"head_init": "random", "wise_ft": 1.0, "keep": "last"}  # what no other way does
# With `epochs` those of the way itself, else as many as `enough_epochs` says.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    # our defaults until this study: the classifier for a third of ten epochs, then all of it
    "head first": {
        **{**OTHERS, "epochs": 10, "head_epochs": 4},
        **{"learning_rate": 5e-3, "unfreeze_scale": 0.02},
    },
    # https://keras.io/guides/transfer_learning: the classifier with Adam at 0.001, then ten epochs
    # of everything at 0.00001, batch norm in inference mode throughout, pictures mirrored and
    # turned by a tenth of a circle at most
    "Keras' guide": {
        **{**OTHERS, "epochs": 30, "head_epochs": 20, "depth_decay": 1.0, "optimizer": "adam"},
        **{"learning_rate": 1e-3, "unfreeze_scale": 0.01, "schedule": "constant", "warmup": 0.0},
        **{"crop_scale": 1.0, "rotate": 36.0},
    },
    # fastai's `fine_tune`: an epoch of the classifier at 0.002, then everything by the one-cycle
    # policy at up to 0.001 and a hundredth of that at the stem; batch norm is trained
    "fastai's fine_tune": {
        **{**OTHERS, "epochs": 11, "head_epochs": 1, "depth_decay": 0.72},
        **{"learning_rate": 2e-3, "unfreeze_scale": 0.5, "schedule": "one_cycle"},
        **{"crop_scale": 0.35, "freeze_bn": False},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m benchmarks.finetuning --data folder:imagenette:96 "
        "--data digits:64 --json FILE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--weights",
        action="append",
        metavar="NAME.TAG[=FILE]",
        help=f"published weights to start from, and their file ({WEIGHTS})",
    )
    parser.add_argument(
        "--data", action="append", required=True, metavar="DATA:SIDE", help="and side in pixels"
    )
    parser.add_argument(
        "--way",
        action="append",
        choices=(*WAYS, UNSEEN),
        help="beside the ridge probe; all of them",
    )
    parser.add_argument(
        "--size", action="append", type=int, help=f"pictures of each class ({SIZES})"
    )
    parser.add_argument("--seeds", type=int, default=3, help="(3)")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    zoo.enable_compilation_cache()
    result = harness.Result("finetuning", args)
    result.describe({}, {"jax": jax.__version__})
    if args.json.exists():
        result.content["rows"] = json.loads(args.json.read_bytes())["rows"]
    rows = result.content["rows"]
    data = {spec: _opened(spec.rpartition(":")[0]) for spec in args.data}
    measures = {PROBE: _probe, **dict.fromkeys(WAYS, _fit), UNSEEN: _unseen}
    ways = [PROBE, *args.way] if args.way else list(measures)
    cells = product(range(1, args.seeds + 1), args.weights or [WEIGHTS], data, args.size or SIZES)
    for seed, weights, spec, count in cells:
        config = _config(weights, data[spec], spec, count, seed)
        if config is None:
            continue
        row: Row = {"weights": weights.partition("=")[0]}
        row |= {"pictures": f"{_name(spec.rpartition(':')[0])}, {count} a class", "seed": seed}
        done = {known["way"] for known in rows if row.items() <= known.items()}
        for way in ways:
            if way not in done:
                tried = replace(config, **WAYS.get(way, {}))
                share = measures[way](tried, data[spec])
                print(f"{', '.join(map(str, row.values()))}, {way}: {share:.1%}", flush=True)
                result.put([{**row, "way": way, "accuracy, %": 100 * share}])
    print(table(rows))


def _name(data: str) -> str:
    kind, _, path = data.partition(":")
    return Path(path).name if kind == "folder" else kind


def _opened(data: str) -> Dataset:
    opened = open_dataset(data, val_fraction=TrainConfig.val_fraction)
    if len(opened.val) <= MOST:
        return opened
    some = np.arange(MOST) * len(opened.val) // MOST
    return replace(opened, val=Subset(opened.val, some))


def _config(weights: str, data: Dataset, spec: str, count: int, seed: int) -> TrainConfig | None:
    """The default way; None where a class has too few pictures."""
    if len(data.train) < count * len(data.classes):
        return None
    name, _, file = weights.partition("=")
    epochs = enough_epochs(count * len(data.classes), FINETUNE["batch_size"])
    own = dict(image_size=int(spec.rpartition(":")[2]), per_class=count, seed=seed, epochs=epochs)
    own |= dict(model=zoo.weights(name).model, weights=file or name, like=name if file else None)
    return TrainConfig(**{**FINETUNE, **own})


def _probe(config: TrainConfig, data: Dataset) -> float:
    """The accuracy of ridge regression on the features."""
    session = Session.open(config, dataset=data)
    linear.start(session.model, session.dataset, config.batch_size, None)
    return predict_all(session.model, data.val).correct / len(data.val)


def _fit(config: TrainConfig, data: Dataset) -> float:
    return float(_fitted(config, data).history[-1]["val_accuracy"])


def _unseen(config: TrainConfig, data: Dataset) -> float:
    halves = [Subset(data.val, np.arange(k, len(data.val), 2)) for k in range(2)]
    right = 0
    for known, unseen in permutations(halves):
        right += predict_all(_fitted(config, replace(data, val=known)).model, unseen).correct
    return right / len(data.val)


def _fitted(config: TrainConfig, data: Dataset) -> Result:
    with (
        tempfile.TemporaryDirectory() as out,
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stderr(nothing),
    ):
        return fit(replace(config, out=f"{out}/run"), data=data)


def table(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the seeds, in percent, as Markdown."""
    cells: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        ways_there = cells.setdefault(f"{row['weights']} | {row['pictures']}", {})
        ways_there.setdefault(row["way"], []).append(row["accuracy, %"])
    ways = [PROBE, *WAYS, UNSEEN]
    lines = [f"| weights | pictures | {' | '.join(ways)} |", "|---" * (len(ways) + 2) + "|"]
    for where, row in cells.items():
        shown = [_shown(row.get(way, [])) for way in ways]
        lines.append(f"| {where} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
