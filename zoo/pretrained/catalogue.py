"""The catalogue of published weights: `catalogue.csv`, a row a file, and what reads it.

Collected from the sources' own metadata by `tools/catalogue.py`, which also says what each column
holds. Reading it imports neither jax nor a network.
"""

import csv
import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ZooError, unknown
from ..preprocess import Preprocess

HERE = Path(__file__).parent
OWN = HERE.parent / "checkpoints"  # weights that this project trained, each beside its card

HUB, FIRST = "sha256 of the Hub", "first download"  # of `Weights.check`: no hash was published

# fmt: off
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
# fmt: on

Row = dict[str, str]


@dataclass(frozen=True)
class Weights:
    """One published file of weights: where it is, what reads it, and what it is good for."""

    model: str  # one of `zoo.list_models()`
    tag: str  # who trained it, and on what: "tv2_in1k", "a1_in1k", "keras_in1k"
    source: str  # torchvision, timm, keras, slim, caffe, files; zoo: ours, in zoo/checkpoints
    file: str  # https://..., hf://organisation/repository/file, or a bare name: not for download
    hash: str  # "sha256:", "md5:" or "sha1:" and the digest or its first digits; empty: unknown
    size_mb: float | None  # 10^6 bytes, roughly; None: unknown
    layout: str  # how the file names its tensors
    numerics: str  # a preset of `zoo.context`; empty: the layout's own for the family
    preprocess: Preprocess
    classes: int  # 0: no classifier in the file
    label_offset: int  # output number of the first ILSVRC class: 1 where background comes first
    licence: str  # SPDX, where SPDX has it
    non_commercial: bool  # the licence forbids commercial use, or may
    top1: float | None  # percent of ImageNet's validation set as the source says; None: it does not
    top5: float | None
    params: int  # trainable parameters, as `zoo.count` gives them
    default: bool  # what the network's bare name stands for
    notes: str

    @property
    def name(self) -> str:
        """What `zoo.weights` and `zoo.load` call it: "resnet50.a1_in1k"."""
        return f"{self.model}.{self.tag}"

    @property
    def check(self) -> str:
        """What a download is checked against, and a cached file whenever it is read.

        "sha256", "md5" or "sha1": the published hash, "sha256, 8 digits" the beginning of one.
        "sha256 of the Hub": the one that the Hub declares at the download. "first download": what
        it is about in size, where `size_mb` is known, and an MD5, where the host declares one. A
        cached file of these two is checked against the digest noted at its download. "shipped":
        it is part of this package. "by hand": there is no download.
        """
        if self.source == "zoo":
            return "shipped"
        if "://" not in self.file:
            return "by hand"
        algorithm, _, digest = self.hash.partition(":")
        if digest:
            whole = len(digest) == 2 * hashlib.new(algorithm).digest_size
            return algorithm if whole else f"{algorithm}, {len(digest)} digits"
        return HUB if self.file.startswith("hf://") else FIRST


def weights(name: str) -> Weights:
    """The record of published weights.

    Args:
      name: one of `list_weights()`, or a network's name or alias alone for its default.

    Raises:
      ZooError: no such network or weights; the line offers the nearest names.

    >>> weights("resnet50.a1_in1k").top1
    80.382
    >>> weights("googlenet").name
    'inception_v1.tv1_in1k'
    """
    model, dot, tag = name.partition(".")
    if model not in _rows():
        from ..registry import find  # knows the aliases, and is slow to import

        model = find(model).name
    rows = _rows().get(model)
    if rows is None:
        raise ZooError(f"no published weights of {model} are known: see zoo.list_weights()")
    if not dot:
        default = next((row for row in rows.values() if row["default"]), None)
        if default is None:
            names = ", ".join(row["name"] for row in rows.values())
            raise ZooError(f"weights of {model} are non-commercial: ask for them by name: {names}")
        return _record(default)
    if tag not in rows:
        raise unknown("weights", f"{model}.{tag}", (row["name"] for row in rows.values()))
    return _record(rows[tag])


def list_weights(pattern: str = "*") -> list[str]:
    """The names of the published weights that match a shell pattern.

    >>> list_weights("resnet18.a*")
    ['resnet18.a1_in1k', 'resnet18.a2_in1k', 'resnet18.a3_in1k']
    """
    names = (row["name"] for rows in _rows().values() for row in rows.values())
    return [name for name in names if fnmatch(name, pattern)]


def class_names(weights: Weights) -> tuple[str, ...]:
    """What the outputs stand for, in order; empty where the source does not say (ImageNet-21k)."""
    if weights.source == "zoo":
        return tuple(about(OWN / weights.file)["classes"])
    imagenet = _imagenet_classes()
    by_number = {10: CIFAR10, 1000: imagenet, 1001: ("background", *imagenet)}
    return by_number.get(weights.classes, ())


def about(file: Path) -> dict[str, Any]:
    """What `zoo.save` wrote into a file beside the tensors: spec, preprocessing, classes."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        described: dict[str, Any] = json.loads(opened.metadata()["zoo"])
    return described


@cache
def _rows() -> dict[str, dict[str, Row]]:
    """Rows of the file by network and tag."""
    found: dict[str, dict[str, Row]] = {}
    with (HERE / "catalogue.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            model, _, tag = row["name"].partition(".")
            found.setdefault(model, {})[tag] = row
    return found


def _record(row: Row) -> Weights:
    model, _, tag = row["name"].partition(".")
    share = row["resize"].rpartition("%")[0]  # "87.5%" of both sides are cut out, then resized
    preprocess = {
        "size": int(row["input_size"]),
        "resize": int(row["resize"]) if row["resize"] and not share else None,
        "central": float(share) / 100 if share else 1.0,
        "squash": row["squash"] == "true",
        "interpolation": row["interpolation"],
        "mean": [float(v) for v in row["mean"].split()],
        "std": [float(v) for v in row["std"].split()],
        "channels": row["channels"],
    }
    return Weights(
        model=model,
        tag=tag,
        source=row["source"],
        file=row["file"],
        hash=row["hash"],
        size_mb=_number(row["size_mb"]),
        layout=row["layout"],
        numerics=row["numerics"],
        preprocess=Preprocess.from_dict(preprocess),
        classes=int(row["classes"]),
        label_offset=int(row["label_offset"]),
        licence=row["licence"],
        non_commercial=row["non_commercial"] == "true",
        top1=_number(row["top1"]),
        top5=_number(row["top5"]),
        params=int(row["params"]),
        default=row["default"] == "true",
        notes=row["notes"],
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


@cache
def _imagenet_classes() -> tuple[str, ...]:
    return tuple((HERE / "imagenet_classes.txt").read_text("utf-8").splitlines())
