"""All settings of a training run, in one frozen dataclass, with the reasons for the defaults."""

import dataclasses
import math
import operator
import os
import reprlib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, checked, unknown
from zoo.switches import ACTIVATIONS, NORMS, WITHOUT, initial, left_out

from .doors import LOSSES, losses

# Peak learning rates: for small batch-normalised networks at the default batch of 32.
LEARNING_RATES = {
    "adam": 1e-2,  # high for Adam, as fits few steps; without batch norm take 0.001
    "adamw": 1e-2,
    "adagrad": 2e-1,
    "rmsprop": 5e-2,  # its epsilon of 1 leaves gradients about as large as SGD's
    "sgd": 5e-2,
    "lamb": 1e-2,
    "lars": 10.0,  # times 0.001 of a kernel's norm
    "lion": 3e-3,  # below Adam's: every step has the size of the rate
    "muon": 5e-2,
}
# what others call some of the settings
OTHERS = {"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size"}
OPTIMIZERS = tuple(LEARNING_RATES)
SCHEDULES = ("cosine", "constant", "step", "piecewise", "exponential", "linear", "one_cycle")
DTYPES = ("float32", "bfloat16")
ENGINES = ("pmap", "shard_map")
KEEP = ("last", "best", "between")
HEADS = ("random", "ridge")
STEMS = ("random", "whitening")
PROBES = ("activations", "gradients")


def option(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | str | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A field of `TrainConfig` with its help text and its bounds.

    Args:
      default: its default value.
      text: the sentence that `--help` shows for it.
      low: the least value allowed.
      high: the greatest value allowed, or the name of the field that has it.
      choices: the texts allowed.
    """
    about = {"help": text, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Raises:
      ZooError: an invalid value.

    >>> TrainConfig(epochs=5, optimizer="sgd").peak_learning_rate
    0.05
    """

    model: str = option("mobilenet_v1_025", "network to train, see `zoo list`")
    data: str = option(
        "digits",
        "digits (embedded), folder:PATH of class folders, tar:FILE, list:FILE, cifar10:PATH, "
        "cifar100:PATH, fashion_mnist:PATH, mnist:PATH or tfds:NAME",
    )
    out: str | None = option(
        None, "folder of the run; an interrupted run there is continued; default: runs/DATA-MODEL"
    )

    # 30 passes bring mobilenet_v1_025 on the digits to 98 % in under a minute on two cores
    epochs: int = option(30, "passes over the training pictures", low=1, high=10**6)
    batch_size: int = option(32, "pictures a step, over all devices together", low=1, high=10**6)
    image_size: int | None = option(
        None, "side of the input, pixels; default: the dataset's", low=1, high=10**4
    )
    in_chans: int = option(
        3, "channels of the pictures: 1 (grey), 3 (RGB) or 4 (with transparency)", low=1, high=4
    )

    optimizer: str = option("adam", "one of " + ", ".join(OPTIMIZERS), choices=OPTIMIZERS)
    momentum: float = option(
        0.9,
        "of sgd, lars, rmsprop and muon (Nesterov's for sgd and muon), b1 of the others",
        low=0,
        high=0.9999,
    )
    learning_rate: float | None = option(
        None, "peak rate; default by optimizer: 0.01 for adam, 0.05 for sgd", low=0, high=1e3
    )
    base_batch_size: int | None = option(
        None,
        "the batch that the rate is meant for: the rate is scaled to the batch in proportion",
        low=1,
        high=10**6,
    )
    schedule: str = option(
        "cosine", "the rate after the warm-up: " + ", ".join(SCHEDULES), choices=SCHEDULES
    )
    # a twentieth of the run lets Adam's second moments and BatchNorm settle
    warmup: float = option(0.05, "share of the steps that raise the rate from 0", low=0, high=1)
    decay_rate: float | None = option(
        None,
        "factor of each drop; default: 0.94 (step, exponential), 0.1 (piecewise)",
        low=0,
        high=1,
    )
    decay_epochs: float = option(
        2.0, "epochs between drops of step and exponential", low=1e-3, high=1e6
    )
    milestones: str = option("0.3,0.6,0.9", "where piecewise drops, as shares of the run")
    clip_norm: float | None = option(
        None, "the most that the norm of all gradients may be", low=1e-9, high=1e9
    )
    weight_decay: float = option(1e-4, "decoupled; spares biases and batch norm", low=0, high=1e3)
    accumulate: int = option(
        1, "parts of a batch that are computed one after the other", low=1, high="batch_size"
    )
    ema: float = option(
        0.0,
        "decay of the average of weights that is then the result; 0: none",
        low=0,
        high=0.999999,
    )

    loss: str | None = option(
        None,
        "softmax or sigmoid (cross-entropy), or one that a package adds; default: sigmoid where "
        "pictures show several classes, else softmax",
    )
    label_smoothing: float = option(
        0.0, "share of the target spread over all classes", low=0, high=0.99
    )
    dropout: float | None = option(
        None,
        "dropout rate; default: the network's own. Before the classifier where it has no dropout",
        low=0,
        high=0.99,
    )
    drop_path: float = option(
        0.0,
        "stochastic depth: the chance to skip the last residual block, less towards the stem",
        low=0,
        high=0.99,
    )
    class_weights: bool = option(False, "weigh the loss so that every class counts alike")
    balanced: bool = option(False, "draw pictures so that every class comes as often")

    flip: bool | None = option(None, "mirror half of the pictures; default: as the dataset allows")
    alternate_flip: bool = option(
        False, "where pictures are mirrored, each in every other epoch in place of at random"
    )
    shift: int = option(2, "move each picture by up to this many pixels", low=0, high=10**4)
    rotate: float = option(0.0, "turn each picture by up to this many degrees", low=0, high=180)
    noise: float = option(
        0.0, "standard deviation of Gaussian noise, in shares of the full range", low=0, high=1
    )
    color: float = option(
        0.0, "change brightness, contrast and saturation by up to this share", low=0, high=1
    )
    randaugment: int = option(0, "RandAugment: operations a picture", low=0, high=10)
    magnitude: float = option(9.0, "RandAugment: their strength, of 30", low=0, high=30)
    erase: float = option(0.0, "chance to erase a random rectangle", low=0, high=1)
    mixup: float = option(0.0, "MixUp: alpha of the Beta distribution; 0: none", low=0, high=100)
    cutmix: float = option(0.0, "CutMix: alpha of the Beta distribution; 0: none", low=0, high=100)
    crop_scale: float = option(
        1.0, "random crops down to this share of a picture; 1: none", low=0.01, high=1
    )

    init: str = option(
        "he_normal",
        "initialiser of kernels: he_normal, glorot_uniform, lecun_normal, dirac, zeros, "
        "truncated_normal(0.1), normal(0.01)",
    )
    stem_init: str = option(
        "random",
        "what the first convolution starts from: random weights, or whitening, filters that whiten "
        "patches of the training pictures",
        choices=STEMS,
    )
    norm: str = option(
        "batch", "batch, or none to build the network as before batch norm", choices=NORMS
    )
    act: str | None = option(
        None,
        "activation in place of the paper's: " + ", ".join(ACTIVATIONS),
        choices=ACTIVATIONS,
    )
    without: str = option(
        "", "parts to build the network without, with commas: " + ", ".join(WITHOUT)
    )

    dtype: str = option(
        "float32", "of activations: float32 or bfloat16; weights stay float32", choices=DTYPES
    )
    remat: bool = option(False, "compute stages again for the gradients: less memory, more time")

    # The running average of a long schedule (0.99 in Keras) is still far off after 500 steps.
    bn_momentum: float = option(
        0.9, "share of the old BN statistics that a step keeps", low=0, high=1
    )
    sync_bn: bool = option(False, "batch-norm statistics over all devices, not each its own")

    weights: str | None = option(
        None, "weights to start from: published ones, hf-hub:USER/REPO, or a file"
    )
    layout: str | None = option(None, "the layout of a file of weights; default: by the file")
    like: str | None = option(None, "published weights that a file of weights computes like")
    head_epochs: int = option(
        0, "epochs at the start that train the classifier alone", low=0, high="epochs"
    )
    wise_ft: float = option(
        1.0,
        "WiSE-FT: how far the result goes from the first weights to the trained ones; 1: all the "
        "way",
        low=0,
        high=1,
    )
    head_init: str = option(
        "random",
        "what the classifier of a pretrained network starts from: random weights, or ridge, a "
        "ridge regression on the features of the training pictures",
        choices=HEADS,
    )
    head_only: bool = option(False, "train the classifier alone to the end")
    freeze: str | None = option(None, "stages to leave as loaded: stem..stage3, or stem,stage1")
    lr_mult: str | None = option(None, "factors of the rate by stage: stem=0.1,classifier=10")
    unfreeze_scale: float = option(
        0.1, "peak rate after those epochs, over the one before", low=0, high=1
    )
    freeze_bn: bool = option(False, "keep batch-norm statistics as they were loaded")
    depth_decay: float = option(
        1.0, "rate of a stage over the rate of the stage after it", low=0, high=1
    )

    engine: str = option(
        "pmap", "pmap or shard_map: what spreads a step over the devices", choices=ENGINES
    )
    seed: int = option(
        0,
        "of the weights, the order of the pictures, augmentation and dropout",
        low=0,
        high=2**31 - 1,
    )
    patience: int = option(
        0,
        "epochs without a better validation accuracy after which the run ends; 0: all are run",
        low=0,
        high=10**6,
    )
    probe: str = option(
        "",
        "look at these of every layer after each epoch: " + ", ".join(PROBES) + ", with commas",
    )
    keep: str = option(
        "last",
        "which weights model.safetensors has: those of the last epoch, of the best one, or, with "
        "wise_ft, the best of five between the first weights and the last ones",
        choices=KEEP,
    )
    val_fraction: float = option(
        0.2, "held out of each class where a folder has no val/", low=0, high=1
    )
    classes: str | None = option(
        None, "use these classes of the data alone: their names, with commas between them"
    )
    per_class: int | None = option(
        None,
        "use only so many training pictures of each class, drawn by the seed",
        low=1,
        high=10**9,
    )
    skip_unreadable: bool = option(False, "leave unreadable images out instead of stopping")

    # the import paths of what Python gave instead of settings, which `fit` enters
    objects: str | None = None

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _typed(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        for field in dataclasses.fields(self):
            self._check(field.name, field.metadata)
        if self.loss is not None and self.loss not in (names := (*LOSSES, *losses())):
            raise unknown("loss", self.loss, names)
        initial(self.init)  # for what it refuses
        object.__setattr__(self, "without", left_out(self.without))
        for name in self.probes:
            if name not in PROBES:
                raise unknown("probe", name, PROBES)
        if self.in_chans == 2:
            raise ZooError("in_chans: got 2, expected 1, 3 or 4")
        if self.in_chans != 3 and (self.color or self.randaugment):
            asked = "color" if self.color else "randaugment"
            raise ZooError(
                f"{asked}: expected pictures of 3 channels, got in_chans {self.in_chans}"
            )
        if self.batch_size % self.accumulate:
            raise ZooError(
                f"accumulate: {self.accumulate} parts cannot share out a batch of "
                f"{self.batch_size} evenly"
            )
        if self.ema and self.wise_ft < 1:
            raise ZooError("ema and wise_ft: each averages the weights, take one")
        if self.class_weights and self.balanced:
            raise ZooError("class_weights and balanced: each evens out the classes, take one")
        _ = self.drops, self.multipliers  # raises an error here if they cannot be parsed

    def _check(self, name: str, about: Mapping[str, Any]) -> None:
        """Check a field against the bounds or choices that stand with it.

        Raises:
          ZooError: a value out of its bounds, or not among the choices.
        """
        value = getattr(self, name)
        if value is None or not about:
            return
        if about["choices"] and value not in about["choices"]:
            raise unknown(name, value, about["choices"])
        if about["low"] is not None:
            high = about["high"]
            high = getattr(self, high) if isinstance(high, str) else high
            if not about["low"] <= value <= high:  # NaN is in no bounds
                raise ZooError(f"{name}: got {value}, expected {about['low']} to {high}")

    @property
    def folder(self) -> Path:
        """The folder that the run writes to."""
        data = self.data.rstrip("/").replace(":", "/").rpartition("/")[2]
        return Path(self.out or f"runs/{data}-{self.model}")

    @property
    def own_loss(self) -> bool:
        """Whether the loss is of another kind, and so of another scale, than cross-entropy."""
        return "loss=" in (self.objects or "") or self.loss not in (None, *LOSSES)

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate, scaled to the batch size if `base_batch_size` is set."""
        rate = self.learning_rate
        if rate is None:
            rate = LEARNING_RATES[self.optimizer]
        if self.base_batch_size:
            rate *= self.batch_size / self.base_batch_size  # Goyal et al., 2017, arXiv:1706.02677
        return rate

    @property
    def probes(self) -> tuple[str, ...]:
        """What is looked at after each epoch, of `PROBES`."""
        return tuple(name.strip() for name in self.probe.split(",") if name.strip())

    @property
    def drops(self) -> tuple[float, ...]:
        """Where the schedule "piecewise" drops, as shares of the run."""
        try:
            shares = tuple(float(part) for part in self.milestones.split(",") if part.strip())
        except ValueError:
            shares = (-1.0,)
        if list(shares) != sorted(shares) or not all(0 < share < 1 for share in shares):
            raise ZooError(
                f"milestones: got {reprlib.repr(self.milestones)}, "
                "expected rising shares such as 0.3,0.6,0.9"
            )
        return shares

    @property
    def multipliers(self) -> dict[str, float]:
        """Factors of the learning rate by stage."""
        factors = {}
        for part in filter(None, (self.lr_mult or "").split(",")):
            stage, _, text = part.partition("=")
            try:
                factor = float(text)
            except ValueError:
                factor = math.nan
            if not 0 <= factor <= 1e6:
                rate = "" if stage != part else "; the rate itself is learning_rate"
                raise ZooError(
                    f"lr_mult: got {reprlib.repr(part)}, expected STAGE=FACTOR such as stem=0.1, "
                    f"with a factor of 0 to 1000000{rate}"
                )
            factors[stage.strip()] = factor
        return factors

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, ready for `config.json`; see `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Rebuild a config. An unknown key is a `ZooError` that offers the nearest one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                if key in OTHERS:
                    raise ZooError(f"unknown setting {key!r}: did you mean {OTHERS[key]!r}?")
                raise unknown("setting", key, known)
        return cls(**values)


TrainConfig.__init__ = checked(  # type: ignore[method-assign]
    **{short: f"did you mean {name}?" for short, name in OTHERS.items()}
)(TrainConfig.__init__)


def _typed(name: str, hint: Any, value: Any) -> Any:
    """A value in the type of its field; NumPy's numbers and paths are converted.

    Raises:
      ZooError: it is of another type.
    """
    kinds = set(typing.get_args(hint) or (hint,))
    if value is None and type(None) in kinds:
        return None
    kind = (kinds - {type(None)}).pop()
    truth = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    try:
        if kind is bool and truth:
            return bool(value)
        if kind is int and not truth:
            return operator.index(value)
        if kind is float and not truth and not isinstance(value, str | bytes):
            return float(value)
        if kind is str and not isinstance(value, bytes):
            return str(os.fspath(value))
    except (TypeError, ValueError, OverflowError):
        pass
    expected = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}[kind]
    raise ZooError(f"{name}: got {reprlib.repr(value)}, expected {expected}")


# What fine-tuning sets differently from training; `finetuning.py` is its policy.
FINETUNE: dict[str, Any] = {
    "epochs": 10,  # and more for `FINETUNE_STEPS` where nobody asks for a number
    "batch_size": 32,
    "head_init": "ridge",  # an untrained classifier would wreck the body
    "learning_rate": 1e-3,  # benchmarks/finetuning.py compares
    "wise_ft": 0.5,  # arXiv:2109.01903: near to what the weights know, half the way is better
    "keep": "between",  # and where nothing that was learned helps, the start
    "freeze_bn": True,  # statistics of a million pictures beat those of a few batches
    "depth_decay": 0.8,
    "shift": 0,
    "crop_scale": 0.5,  # a few hundred pictures need stronger augmentation than a million
}
FINETUNE_STEPS = 200  # at least; a hundred pictures make three an epoch


def differences(stored: dict[str, Any], asked: TrainConfig) -> list[str]:
    """How the config of a run on disk differs from the one asked for, apart from `out`."""
    now = asked.to_dict()
    stored = {**TrainConfig().to_dict(), **stored}  # settings that are newer than the run
    return [
        f"{key} {stored.get(key)!r} there, {now.get(key)!r} asked"
        for key in sorted(stored.keys() | now.keys())
        if key != "out" and stored.get(key) != now.get(key)
    ]
