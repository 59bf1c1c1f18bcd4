"""The digits of scikit-learn as a TFDS dataset, prepared and read without TensorFlow.

`digits.npz` holds `sklearn.datasets.load_digits()` in its order: 1,797 handwritten digits of 8x8
pixels, values 0..16, which are the test set of "Optical Recognition of Handwritten Digits"
(E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49), under CC BY 4.0.
"""

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from zoo.errors import ZooError

CLASSES = tuple("0123456789")


class Digits(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]  # TFDS has no types
    """Splits `train` (1,437) and `val` (360), each in scikit-learn's order.

    Images are uint8 [8, 8, 1], scikit-learn's value times 255/16, rounded.
    """

    VERSION = tfds.core.Version("1.0.0")  # names the folder in the cache: raise it with the data
    # Nothing is downloaded. TFDS would look for checksums beside this file, and for that it imports
    # `importlib_resources`, which it does not declare (4.9.10).
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            homepage="https://doi.org/10.24432/C50P49",
            license="CC BY 4.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            disable_shuffling=True,  # else records lie in the order of the hashes of their keys
        )

    def _split_generators(self, _dl_manager: object) -> dict[str, Any]:
        labels = _arrays()["labels"]
        # Every fifth digit of the digits ordered by class: 20% of each, to within one.
        val = np.argsort(labels, kind="stable")[::5]
        train = np.setdiff1d(np.arange(len(labels)), val)
        return {"train": self._generate_examples(train), "val": self._generate_examples(val)}

    def _generate_examples(self, indices: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        arrays = _arrays()
        pixels = np.round(arrays["pixels"] * (255 / 16)).astype(np.uint8)
        for i in sorted(indices.tolist()):
            # PIL images, because encoding arrays takes TensorFlow.
            yield i, {"image": Image.fromarray(pixels[i]), "label": int(arrays["labels"][i])}


@cache
def sources(folder: Path) -> dict[str, tuple[dict[str, Any], ...]]:
    """The examples of `train` and `val`, prepared in `folder` if they are not there yet.

    Processes may do this at the same time: each prepares a folder of its own and renames it.

    Raises:
        ZooError: the folder cannot be written.
    """
    try:
        with _silent():
            folder.mkdir(parents=True, exist_ok=True)
            builder = _prepared(folder)
            # Decoded once a process (115 kB): TFDS takes 0.1 ms a digit, five times our resizing.
            return {split: tuple(builder.as_data_source(split)) for split in ("train", "val")}
    except OSError as error:
        raise ZooError(
            f"cannot prepare the digits in the cache folder {folder}: {error.strerror or error};"
            " the environment variable ZOO_CACHE names another"
        ) from error


def _prepared(cache: Path) -> Digits:
    builder = Digits(data_dir=os.fspath(cache))
    try:
        builder.download_and_prepare(file_format="array_record")
    except OSError:
        # Another process may have put its copy in place first, which fails our rename.
        builder = Digits(data_dir=os.fspath(cache))
        if not builder.is_prepared():
            raise
    return builder


def _arrays() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        return dict(file)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence what TFDS prints: the work takes a second and needs no report."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        absl.logging.set_verbosity(verbosity)
