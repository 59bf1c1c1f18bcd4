"""TensorFlow Datasets by name, without TensorFlow: "tfds:NAME"."""

import contextlib
import difflib
import importlib
import io
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError
from zoo.text import reason

from ..decode import Encoded
from .base import Content, Dataset, Request, Source, digest
from .splits import split_of, split_off, used_splits

# Writing and signs: mirrored, they are others or none.
UNMIRRORED = ("mnist", "emnist", "kmnist", "mnist_corrupted", "omniglot", "svhn_cropped", "digits")


class Records:
    """A split of a TFDS dataset as a `Source`; pictures stay encoded until they are needed.

    Args:
        records: what TFDS gives by number.
        image, label: the keys of the two features.
        name: of the split, for errors.
        made_of: what tells these records from others: the version, and the sizes of the files.
    """

    def __init__(self, records: Any, image: str, label: str, name: str, made_of: str):
        self._records, self._image, self._label, self._name = records, image, label, name
        self._made_of = made_of

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = self._records[index]
        name = f"{self._name}/{index}"
        return {
            "image": Encoded(name, record[self._image]),
            "label": self._checked(name, record[self._label]),
        }

    @cached_property
    def labels(self) -> np.ndarray:
        """Read from all records, once."""
        bar = tqdm(range(len(self)), desc="reading labels", delay=2, disable=None, leave=False)
        found = (self._checked(f"{self._name}/{i}", self._records[i][self._label]) for i in bar)
        return np.fromiter(found, np.int64, len(self))

    def contents(self, _classes: int) -> list[Content]:
        """One content for all classes: those of each would take reading every record."""
        return [(len(self), digest((self._made_of.encode(),)), 0)]

    @staticmethod
    def _checked(name: str, label: Any) -> int:
        if label < 0:  # how TFDS says so
            raise ZooError(f"{name} has no label")
        return int(label)


def open_tfds(request: Request, name: str) -> Dataset:
    """A dataset of TensorFlow Datasets, by name; see `open_dataset`."""
    match = re.fullmatch(r"([A-Za-z]\w*)(?:/(\w[\w.+-]*))?(?::(\d+\.\d+\.\d+))?", name)
    if not match:
        raise ZooError(f"{request.spec}: expected tfds:NAME, tfds:NAME/CONFIG or either :VERSION")
    import tensorflow_datasets as tfds

    data_dir = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = _prepared(data_dir, match[1], match[2], match[3])
    builder = tfds.builder_from_directory(folder) if folder else _prepare(request, name, data_dir)
    info = builder.info
    image, label = _image_and_label(request, info, tfds.features)
    splits: dict[str, str] = {}  # by what they are, the first that is called so
    for split in info.splits:
        splits.setdefault(split_of(split) or split, split)
    if "train" not in splits:
        known = ", ".join(info.splits) or "nothing"
        raise ZooError(f"{request.spec} has no train split, only {known}")
    used = used_splits(request, splits)
    # Pictures stay encoded: no other picture is of use, and ours may be decoded small.
    skip = {
        key: tfds.decode.SkipDecoding()
        for key, feature in info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    try:
        records = {split: builder.as_data_source(splits[split], decoders=skip) for split in used}
    except NotImplementedError as error:
        raise ZooError(
            f"{request.spec} is prepared as {info.file_format.value} in {info.data_dir}, which"
            " TensorFlow alone reads; set TFDS_DATA_DIR to another folder to have it prepared"
            " there as array_record"
        ) from error
    sources: dict[str, Source] = {}
    for split, found in records.items():
        own = info.splits[splits[split]]
        made_of = f"{info.full_name} {own.num_examples} {own.num_bytes} {own.shard_lengths}"
        name = f"{request.spec}/{splits[split]}"
        sources[split] = Records(found, image, label, name, made_of)
    height, width, _ = info.features[image].shape
    size = max(height, 32) if height and height == width else None
    held = sources.get("val") or sources.get("test")
    unused = [split for split in info.splits if split not in [splits[name] for name in used]]
    dataset = Dataset(
        request.spec,
        tuple(info.features[label].names),
        sources["train"],
        held or (),
        image_size=size,
        flip=match[1] not in UNMIRRORED,
        split=f"{' and '.join(splits[name] for name in used)}" if held else request.held_out,
        left_out=tuple(f"the split {split}" for split in unused),
        test=sources.get("test") if "val" in sources else None,
    )
    if held or request.val_fraction is None:
        return dataset
    return split_off(dataset, request)


def _prepared(data_dir: Path, name: str, config: str | None, version: str | None) -> Path | None:
    """The folder of a dataset that TFDS has prepared: the newest version, the only config."""

    def newest(folder: Path) -> Path | None:
        found = [
            (tuple(map(int, path.name.split("."))), path)
            for path in (folder.iterdir() if folder.is_dir() else ())
            if re.fullmatch(r"\d+\.\d+\.\d+", path.name)
            and version in (None, path.name)
            and (path / "dataset_info.json").is_file()
            and (path / "features.json").is_file()
        ]
        return max(found)[1] if found else None

    folder = data_dir / name
    try:
        if config:
            return newest(folder / config)
        if here := newest(folder):
            return here
        folders = sorted(folder.iterdir()) if folder.is_dir() else []
        configs = {path.name: found for path in folders if (found := newest(path))}
    except OSError as error:
        raise ZooError(f"cannot read {folder}: {error.strerror}") from error
    if len(configs) > 1:
        raise ZooError(
            f"tfds:{name} is prepared in several configs: say which, as"
            f" {' or '.join(f'tfds:{name}/{config}' for config in configs)}"
        )
    return next(iter(configs.values()), None)


def _prepare(request: Request, name: str, data_dir: Path) -> Any:
    """Prepare a dataset, and return its builder."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.extractor import ExtractError, UnsafeArchiveError

    _keep_tensorflow_off_the_gpu()
    # The copies in TFDS' own bucket are no array_record.
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # advice to install what is not needed
            builder = tfds.builder(name, data_dir=os.fspath(data_dir))
            builder.download_and_prepare(file_format="array_record", download_config=settings)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        plain = re.split("[/:]", name)[0]
        near = difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(f'tfds:{one}' for one in near)}?" if near else ""
        hint = hint or "https://www.tensorflow.org/datasets/catalog/overview lists all"
        raise ZooError(
            f"unknown dataset {request.spec!r}, nor is it prepared in {data_dir}: {hint}"
        ) from error
    except (
        ImportError,
        OSError,
        ValueError,
        AssertionError,
        RuntimeError,
        tfds.download.DownloadError,
        NonMatchingChecksumError,
        ExtractError,
        UnsafeArchiveError,
    ) as error:
        if folder := _prepared_meanwhile(data_dir, name, error):
            return tfds.builder_from_directory(folder)
        raise ZooError(f"{request.spec}: {_why_not(error, name, data_dir)}") from error
    return builder


def _prepared_meanwhile(data_dir: Path, name: str, error: Exception) -> Path | None:
    """The dataset's folder, if another process has meanwhile made it; our rename fails then."""
    if not isinstance(error, OSError):
        return None
    plain, _, version = name.partition(":")
    plain, _, config = plain.partition("/")
    return _prepared(data_dir, plain, config or None, version or None)


def _why_not(error: BaseException, name: str, data_dir: Path) -> str:
    """Why TFDS could not prepare a dataset, and what would help."""
    cause: BaseException | None = error
    while cause is not None:  # TFDS raises anew what it catches, without the module's name
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.partition(".")[0]
            if package == "tensorflow":
                return f"TFDS needs TensorFlow to prepare {name}: pip install 'jax-cnn-zoo[tf]'"
            return f"TFDS needs {package} to prepare {name}: pip install {package}"
        cause = cause.__cause__ or cause.__context__
    return f"TFDS cannot prepare {name} in {data_dir} (TFDS_DATA_DIR): {reason(error)}"


def _keep_tensorflow_off_the_gpu() -> None:
    """Hide the GPUs from TensorFlow, which would take all of their memory from JAX."""
    try:
        tensorflow = importlib.import_module("tensorflow")
    except ImportError:
        return
    # Where it has started already, it has what it took.
    with contextlib.suppress(RuntimeError):
        tensorflow.config.set_visible_devices([], "GPU")


def _image_and_label(request: Request, info: Any, features: Any) -> tuple[str, str]:
    """The keys of the picture and of its class."""
    images = [
        key
        for key, feature in info.features.items()
        if type(feature) is features.Image
        and feature.np_dtype != np.float32  # which TFDS stores as a PNG of four channels
        and len(feature.shape) == 3
    ]
    labels = [
        key for key, feature in info.features.items() if isinstance(feature, features.ClassLabel)
    ]
    keys: Sequence[str] = info.supervised_keys or ()
    if len(keys) == 2 and keys[0] in images and keys[1] in labels:
        return keys[0], keys[1]
    if len(images) != 1 or len(labels) != 1:
        raise ZooError(
            f"{request.spec} is not one picture with one class a record: its features are"
            f" {', '.join(info.features)}"
        )
    return images[0], labels[0]
