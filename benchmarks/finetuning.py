"""Ways to fine-tune a pretrained network, on few pictures, near to what it was trained on and far.

Each way starts from the same weights and the same pictures, a seed at a time, and is measured on
the validation pictures (at most 1,000 of them) after its last epoch. What is in the file of
`--json` is not run again. The table has the mean over the seeds and their standard deviation.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import zoo
from training import linear
from training.config import FINETUNE, TrainConfig
from training.data import Dataset, open_dataset
from training.finetuning import enough_epochs
from training.fitting import fit
from training.predictions import predict_all
from training.session import Session
from training.sources.base import Subset

from . import harness
from .harness import Row

MODEL = "mobilenet_v1_025"
WEIGHTS = f"{MODEL}.keras_in1k_no_top"  # which come with the package
SIZES = (10, 60)  # pictures of each class
MOST = 1000  # validation pictures

# With `epochs` those of the way itself, else as many as `enough_epochs` says.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    # our defaults until this study: the classifier for a third of ten epochs, then all of it
    "head first": {
        **{"head_init": "random", "epochs": 10, "head_epochs": 4},
        **{"learning_rate": 5e-3, "unfreeze_scale": 0.02},
    },
    # https://keras.io/guides/transfer_learning: the classifier with Adam at 0.001, then ten epochs
    # of everything at 0.00001, batch norm in inference mode throughout
    "Keras' guide": {
        **{"head_init": "random", "epochs": 30, "head_epochs": 20, "depth_decay": 1.0},
        **{"learning_rate": 1e-3, "unfreeze_scale": 0.01, "schedule": "constant", "warmup": 0.0},
        "crop_scale": 1.0,
    },
    # fastai's `fine_tune`: an epoch of the classifier at 0.002, then everything by the one-cycle
    # policy at up to 0.001 and a hundredth of that at the stem; batch norm is trained
    "fastai's fine_tune": {
        **{"head_init": "random", "epochs": 11, "head_epochs": 1, "depth_decay": 0.72},
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
    parser.add_argument("--weights", default=WEIGHTS, help=f"of {MODEL} ({WEIGHTS})")
    parser.add_argument(
        "--data", action="append", required=True, metavar="DATA:SIDE", help="and side in pixels"
    )
    parser.add_argument(
        "--way", action="append", choices=tuple(WAYS), help="beside the ridge probe; all of them"
    )
    parser.add_argument("--seeds", type=int, default=3, help="(3)")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    zoo.enable_compilation_cache()
    result = harness.Result("finetuning", args)
    result.describe({}, {"jax": jax.__version__})
    if args.json.exists():
        result.content["rows"] = json.loads(args.json.read_bytes())["rows"]
    done = {(row["pictures"], row["way"], row["seed"]) for row in result.content["rows"]}
    for seed in range(1, args.seeds + 1):
        for spec in args.data:
            data, _, side = spec.rpartition(":")
            opened = _opened(data)
            for count in SIZES:
                for way in ("ridge probe", *(args.way or WAYS)):
                    pictures = f"{_name(data)}, {count} a class"
                    if (pictures, way, seed) in done:
                        continue
                    config = _config(args.weights, opened, int(side), count, seed, WAYS.get(way))
                    share = (_fit if way in WAYS else _probe)(config, opened)
                    print(f"{pictures}, {way}, seed {seed}: {share:.1%}", flush=True)
                    row = {"pictures": pictures, "way": way, "seed": seed}
                    result.put([{**row, "accuracy, %": 100 * share}])
    print(table(result.content["rows"]))


def _name(data: str) -> str:
    kind, _, path = data.partition(":")
    return Path(path).name if kind == "folder" else kind


def _opened(data: str) -> Dataset:
    opened = open_dataset(data, val_fraction=TrainConfig.val_fraction)
    if len(opened.val) <= MOST:
        return opened
    some = np.arange(MOST) * len(opened.val) // MOST
    return replace(opened, val=Subset(opened.val, some))


def _config(
    weights: str, data: Dataset, side: int, count: int, seed: int, way: Mapping[str, Any] | None
) -> TrainConfig:
    epochs = enough_epochs(count * len(data.classes), FINETUNE["batch_size"])
    common = dict(model=MODEL, weights=weights, image_size=side, per_class=count, seed=seed)
    return TrainConfig(**{**FINETUNE, "epochs": epochs, **(way or {}), **common})


def _probe(config: TrainConfig, data: Dataset) -> float:
    """The accuracy of ridge regression on the features."""
    session = Session.open(config, dataset=data)
    linear.start(session.model, session.dataset, config.batch_size, None)
    return predict_all(session.model, data.val).correct / len(data.val)


def _fit(config: TrainConfig, data: Dataset) -> float:
    with (
        tempfile.TemporaryDirectory() as out,
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stderr(nothing),
    ):
        result = fit(replace(config, out=f"{out}/run"), data=data)
    return float(result.history[-1]["val_accuracy"])


def table(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the seeds, in percent, as Markdown."""
    cells: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        ways_there = cells.setdefault(row["pictures"], {})
        ways_there.setdefault(row["way"], []).append(row["accuracy, %"])
    ways = ["ridge probe", *WAYS]
    lines = [f"| pictures | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
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
