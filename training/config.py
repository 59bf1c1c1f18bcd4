"""Everything a training run can be told: one frozen record, every default with its reason."""

import dataclasses
import difflib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, unknown

OPTIMIZERS = ("adam", "sgd")
ENGINES = ("pmap", "shard_map")


def option(default: Any, text: str) -> Any:
    """A field with the sentence that `--help` shows for it."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Raises:
      ZooError: a value that cannot be.

    >>> TrainConfig(epochs=5, optimizer="sgd").peak_learning_rate
    0.05
    """

    model: str = option("mobilenet_v1_025", "network to train, see `zoo list`")
    data: str = option("digits", "digits (embedded), or folder:PATH of class folders")
    out: str | None = option(
        None, "folder of the run; an interrupted run there is continued; default: runs/DATA-MODEL"
    )

    # 30 passes bring mobilenet_v1_025 on the digits to 98 % in under a minute on two cores
    epochs: int = option(30, "passes over the training pictures")
    batch_size: int = option(32, "pictures a step, over all devices together")
    image_size: int | None = option(None, "side of the input, pixels; default: the dataset's")

    optimizer: str = option("adam", "adam or sgd (Nesterov momentum 0.9)")
    # High for Adam, as fits small batch-normalised networks in few steps; without BN take 0.001.
    learning_rate: float | None = option(None, "peak rate; default: 0.01 for adam, 0.05 for sgd")
    # a twentieth of the run lets Adam's second moments and BatchNorm settle
    warmup: float = option(0.05, "share of the steps that raise the rate from 0, before the cosine")
    weight_decay: float = option(1e-4, "decoupled; spares biases and batch norm")
    label_smoothing: float = option(0.0, "share of the target spread over all classes")
    dropout: float | None = option(None, "dropout rate; default: the network's own")

    flip: bool | None = option(None, "mirror half of the pictures; default: as the dataset allows")
    shift: int = option(2, "move each picture by up to this many pixels")

    crop_scale: float = option(1.0, "random crops down to this share of a picture; 1: none")

    # The running average of a long schedule (0.99 in Keras) is still far off after 500 steps.
    bn_momentum: float = option(0.9, "share of the old BN statistics that a step keeps")
    sync_bn: bool = option(False, "batch-norm statistics over all devices, not each its own")

    weights: str | None = option(None, "weights to start from: published ones, or a file")
    layout: str | None = option(None, "the layout of a file of weights; default: by the file")
    head_epochs: int = option(0, "epochs at the start that train the classifier alone")
    unfreeze_scale: float = option(0.1, "peak rate after those epochs, over the one before")
    freeze_bn: bool = option(False, "keep batch-norm statistics as they were loaded")
    depth_decay: float = option(1.0, "rate of a stage over the rate of the stage after it")

    engine: str = option("pmap", "pmap or shard_map: what spreads a step over the devices")
    seed: int = option(0, "of the weights, the order of the pictures, augmentation and dropout")
    val_fraction: float = option(0.2, "held out of each class where a folder has no val/")
    skip_unreadable: bool = option(False, "leave unreadable images out instead of stopping")

    def __post_init__(self) -> None:
        for kind, got, choices in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("engine", self.engine, ENGINES),
        ):
            if got not in choices:
                raise unknown(kind, got, choices)
        for name, low, high in (
            ("epochs", 1, 10**6),
            ("batch_size", 1, 10**6),
            ("image_size", 1, 10**4),
            ("learning_rate", 0, 1e3),
            ("warmup", 0, 1),
            ("weight_decay", 0, 1e3),
            ("label_smoothing", 0, 0.99),
            ("bn_momentum", 0, 1),
            ("shift", 0, 10**4),
            ("crop_scale", 0.01, 1),
            ("head_epochs", 0, self.epochs),
            ("unfreeze_scale", 0, 1),
            ("depth_decay", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ZooError(f"{name}: got {value}, expected {low} to {high}")

    @property
    def folder(self) -> Path:
        """Where the run leaves its files."""
        data = self.data.rstrip("/").replace(":", "/").rpartition("/")[2]
        return Path(self.out or f"runs/{data}-{self.model}")

    @property
    def peak_learning_rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return {"adam": 1e-2, "sgd": 5e-2}[self.optimizer]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Rebuild a config; an unknown key is an error that offers the nearest."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                raise ZooError(f"unknown setting {key!r}{hint}")
        return cls(**values)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")


# What fine-tuning sets differently from training; `finetuning.py` is its policy.
FINETUNE: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 32,
    "learning_rate": 5e-3,
    "unfreeze_scale": 0.02,  # the body has little to learn and much to forget
    "freeze_bn": True,  # statistics of a million pictures beat those of a few batches
    "depth_decay": 0.8,
    "shift": 0,
    "crop_scale": 0.5,  # a few hundred pictures need stronger augmentation than a million
}


def differences(stored: dict[str, Any], asked: TrainConfig) -> list[str]:
    """What differs between the config of a run on disk and the one asked for, `out` apart."""
    now = asked.to_dict()
    return [
        f"{key} {stored.get(key)!r} there, {now.get(key)!r} asked"
        for key in sorted(stored.keys() | now.keys())
        if key != "out" and stored.get(key) != now.get(key)
    ]
