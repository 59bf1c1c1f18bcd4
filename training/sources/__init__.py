"""Datasets by name: where the pictures are, which class each has, and which are held out.

Nothing here decodes a picture to learn its class, and nothing is written but what TFDS prepares.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from zoo.errors import ZooError, unknown
from zoo.paths import cache_folder

from ..doors import datasets
from .base import Arrays as Arrays
from .base import Dataset as Dataset
from .base import Files as Files
from .base import Request
from .base import Source as Source
from .base import labels_of as labels_of
from .folders import open_folder, open_tar
from .lists import open_list
from .originals import CIFAR10, CIFAR100, FASHION, open_cifar, open_mnist
from .own import own_dataset
from .tfds import open_tfds


def open_dataset(
    spec: str,
    *,
    val_fraction: float | None = 0.2,
    split_seed: int = 0,
    skip_unreadable: bool = False,
) -> Dataset:
    """Open a dataset by name.

    Args:
        spec: one of

            - "digits": scikit-learn's 8x8 digits, with a split of their own.
            - "folder:PATH": a folder of class folders of pictures, or of `train/` and `val/` that
              hold those. Splits may have other names (`SPLITS` in splits.py), in upper or lower
              case; of `val` and `test`, `val` is used. Pictures are files with a suffix that
              Pillow reads.
            - "tar:FILE": the same inside a tar file. An uncompressed one is read where it lies, a
              compressed one unpacked in memory, up to 4 GiB.
            - "list:FILE": FILE.csv or FILE.tsv, with a header and commas, semicolons, tabs or |
              between cells, or FILE.jsonl: a row has an `image` (or `path`, `file`, `filename`,
              `file_name`, `image_path`, `filepath`), relative to the list's folder, or an `id`,
              which may lack the suffix; a `label` (or `class`, or whatever the only other column
              is called); and where pictures are not to be held out at random a `split`: train,
              val or test. Pictures that may show several classes, or none, have `labels` instead:
              names with | between them, in FILE.jsonl also a list.
            - "cifar10:PATH", "cifar100:PATH": the original files, the Python or the binary version,
              in a folder or still in their .tar.gz; or a tar file or folder of class folders. The
              classes of CIFAR-100 are its 100 fine ones.
            - "fashion_mnist:PATH", "mnist:PATH": a folder of the original idx files, gzipped or
              not. Their 28x28 pixels get an edge of 2 black ones.
            - "tfds:NAME", "tfds:NAME/CONFIG", either with ":VERSION": TensorFlow Datasets, without
              TensorFlow. What is prepared as array_record in $TFDS_DATA_DIR (by default
              ~/tensorflow_datasets) is read from there, the newest version; anything else is
              downloaded and prepared, where the builder can do without TensorFlow.
            - "NAME", "NAME:PATH": what `zoo.register_dataset` added.
        val_fraction: share of each class to hold out where the dataset has no validation split;
            None: nothing, `val` is then empty, and a test split beside `val` is `test`.
        split_seed: which pictures are held out then.
        skip_unreadable: leave out files that cannot be read instead of raising.

    Raises:
        ZooError: an unknown spec, or one that leads to no such dataset. The pictures of "folder",
            "tar" and "list" are decoded once, so that a damaged file is reported now, not an hour
            into training.
    """
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise ZooError(f"val_fraction must lie between 0 and 1, got {val_fraction}")
    request = Request(spec, val_fraction, split_seed, skip_unreadable)
    kind, _, path = spec.partition(":")
    for known, opener in OPENERS.items():
        if path and known.startswith(f"{kind}:"):
            return opener(request, path)
    if spec == "digits":
        return _digits()
    if kind in (outside := datasets()):
        return replace(own_dataset(outside[kind](path), val_fraction), name=spec)
    if "/" in spec and len(spec) < 1000 and Path(spec).is_dir():
        raise ZooError(f"unknown dataset {spec!r}: did you mean 'folder:{spec}'?")
    raise unknown("dataset", spec, ("digits", *OPENERS, *outside))


def _digits() -> Dataset:
    from .. import digits  # TFDS takes a while to import

    splits = digits.sources(cache_folder() / "tfds")
    return Dataset(
        "digits", digits.CLASSES, splits["train"], splits["val"], image_size=48, flip=False
    )


OPENERS: Mapping[str, Callable[[Request, str], Dataset]] = {
    "folder:PATH": open_folder,
    "tar:FILE": open_tar,
    "list:FILE": open_list,
    "cifar10:PATH": partial(open_cifar, CIFAR10),
    "cifar100:PATH": partial(open_cifar, CIFAR100),
    "fashion_mnist:PATH": partial(open_mnist, "FashionMNIST", FASHION, True),
    "mnist:PATH": partial(open_mnist, "MNIST", tuple("0123456789"), False),
    "tfds:NAME": open_tfds,
}
