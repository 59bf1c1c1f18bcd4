"""Named datasets, and the Grain pipelines that turn them into batches.

>>> dataset = open_dataset("digits")                                          # doctest: +SKIP
>>> batches = train_batches(dataset, preprocess, batch_size=32, seed=0)       # doctest: +SKIP
>>> next(batches)["image"].shape                                              # doctest: +SKIP
(32, 32, 32, 3)
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError, unknown
from zoo.preprocess import Preprocess, read_rgb

from .decode import centre_box, crop

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
VAL_NAMES = ("val", "validation", "valid", "test")  # in this order, where there are several


class Source(Protocol):
    """Pictures by number: `{"image": path, PIL image or uint8 array, "label": int}`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Dataset:
    """What to learn from, and what to measure on.

    Args:
        name: the spec it was opened with.
        classes: their names; a label is an index into them.
        train, val: the two sources.
        image_size: the size to train at unless told otherwise, pixels; None: the network's own.
        flip: whether a mirrored picture still belongs to its class.
        skipped: the files left out because they cannot be read, each "path: reason".
    """

    name: str
    classes: tuple[str, ...]
    train: Source
    val: Source
    image_size: int | None
    flip: bool
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """A `Source` of image files: `examples` are pairs of path and label."""

    examples: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        path, label = self.examples[index]
        return {"image": path, "label": label}


def open_dataset(
    spec: str, *, val_fraction: float = 0.2, split_seed: int = 0, skip_unreadable: bool = False
) -> Dataset:
    """Open a dataset by name.

    Args:
        spec: "digits", scikit-learn's 8x8 digits (with a split of their own); or "folder:PATH", a
            folder of class folders of pictures, or of `train/` and `val/` that hold those.
        val_fraction: share of each class to hold out where a folder has no `val/`.
        split_seed: which pictures are held out then.
        skip_unreadable: leave out files that cannot be read instead of raising.

    Raises:
        ZooError: an unknown spec, or a folder that is no such dataset. Every picture is decoded
            once, so that a damaged file is told now and not an hour into training.
    """
    if not 0 < val_fraction < 1:
        raise ZooError(f"val_fraction must lie between 0 and 1, got {val_fraction}")
    kind, _, path = spec.partition(":")
    if spec == "digits":
        return _digits()
    if kind == "folder" and path:
        return _folder(spec, Path(path).expanduser(), val_fraction, split_seed, skip_unreadable)
    raise unknown("dataset", spec, ("digits", "folder:PATH"))


def train_batches(
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    crop_scale: float = 1.0,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
) -> grain.DatasetIterator:
    """An endless stream of shuffled batches, the same for the same seed.

    Args:
        batch_size: pictures a batch for this host.
        seed: of the order, which is another in each epoch, and of random crops.
        crop_scale: below 1, each picture is cropped at random, down to this share of its area and
            to 3/4 .. 4/3 of its shape (Szegedy et al., 2014, arXiv:1409.4842, section 6).
        shard: (process index, process count). Hosts take turns in one common order, so that they
            share out each epoch exactly and together see the same batches however many they are.
        threads: that decode; by default one per core, 16 at most.

    Returns:
        An iterator of `{"image": uint8 [B, S, S, 3], "label": int32 [B]}`. Its `get_state()` given
        to the `set_state()` of another continues with the very next batch.
    """
    stream = grain.MapDataset.source(dataset.train).seed(seed).shuffle().repeat()
    if crop_scale < 1:
        examples = stream.random_map(partial(_load_random, preprocess, crop_scale))
    else:
        examples = stream.map(partial(_load_centre, preprocess))
    process, processes = shard
    return iter(_batched(examples[process::processes], batch_size, threads))


def eval_batches(
    source: Source,
    preprocess: Preprocess,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
) -> grain.IterDataset:
    """Every picture once, in order, in batches of one shape.

    Args: as for `train_batches`. With several hosts, host `p` of `n` takes pictures `p`, `p + n`,
        ..., and all hosts get the same number of batches.

    Returns:
        An iterable of `{"image": uint8 [B, S, S, 3], "label": int32 [B], "weight": float32 [B]}`.
        The weight is 1, and 0 for the blank pictures that fill up the last batch.
    """
    process, processes = shard
    batches = -(-len(source) // (batch_size * processes))  # rounded up
    blank = np.zeros((preprocess.size, preprocess.size, 3), np.uint8)

    def load(index: int) -> dict[str, Any]:
        if index < len(source):
            return {**_load(preprocess, source[index]), "weight": np.float32(1)}
        return {"image": blank, "label": np.int32(0), "weight": np.float32(0)}

    indices = grain.MapDataset.range(batches * batch_size * processes)[process::processes]
    return _batched(indices.map(load), batch_size, threads)


def _load(preprocess: Preprocess, example: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": preprocess.image(example["image"]), "label": np.int32(example["label"])}


def _load_centre(preprocess: Preprocess, example: Mapping[str, Any]) -> dict[str, Any]:
    image = crop(example["image"], preprocess, partial(centre_box, preprocess))
    return {"image": image, "label": np.int32(example["label"])}


def _load_random(
    preprocess: Preprocess,
    crop_scale: float,
    example: Mapping[str, Any],
    rng: np.random.Generator,
) -> dict[str, Any]:
    image = crop(example["image"], preprocess, lambda size: random_box(size, crop_scale, rng))
    return {"image": image, "label": np.int32(example["label"])}


def random_box(
    size: tuple[int, int], crop_scale: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random crop of a picture of `size` (width, height).

    Ten tries, then the largest box of an allowed shape from the middle, as torchvision's
    RandomResizedCrop.
    """
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(crop_scale, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, height * 4 / 3), min(height, width * 4 / 3)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def _batched(examples: grain.MapDataset, batch_size: int, threads: int | None) -> grain.IterDataset:
    threads = threads or min(16, os.cpu_count() or 1)
    # Two batches ahead: one being filled while the other is taken.
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(2 * batch_size, threads)
    )
    return examples.to_iter_dataset(options).batch(batch_size, drop_remainder=True)


def _digits() -> Dataset:
    from . import digits  # TFDS takes a while to import

    cache = Path(os.environ.get("ZOO_CACHE") or Path.home() / ".cache" / "zoo")
    splits = digits.sources(cache / "tfds")
    return Dataset(
        "digits", digits.CLASSES, splits["train"], splits["val"], image_size=48, flip=False
    )


def _folder(
    spec: str, root: Path, val_fraction: float, split_seed: int, skip_unreadable: bool
) -> Dataset:
    if not root.exists():
        raise ZooError(f"folder {root} does not exist")
    if not root.is_dir():
        raise ZooError(f"{root} is not a folder")
    train_root, val_root = _split_roots(root)
    train = _class_files(train_root)
    val = _class_files(val_root) if val_root else {}
    _check_classes(train_root, train)
    if val_root:
        _check_same(train_root, train, val_root, val)
        _check_classes(val_root, val)

    paths = [path for files in (*train.values(), *val.values()) for path in files]
    unreadable = _unreadable(paths)
    skipped = tuple(f"{path}: {reason}" for path, reason in unreadable.items())
    if skipped and not skip_unreadable:
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise ZooError(
            f"{len(skipped)} of {len(paths)} images in {root} cannot be read:"
            f" {'; '.join(skipped[:3])}{more}. Leave them out with --skip-unreadable"
            " (in Python: skip_unreadable=True)"
        )
    for folder, classes in ((train_root, train), (val_root, val)):
        for name, files in classes.items():
            classes[name] = [path for path in files if path not in unreadable]
            if not classes[name]:
                raise ZooError(f"class folder {folder}/{name} has no image that can be read")
    if not val_root:
        train, val = _stratified(train_root, train, val_fraction, split_seed)
    return Dataset(
        spec, tuple(train), _files(train), _files(val), image_size=None, flip=True, skipped=skipped
    )


def _split_roots(root: Path) -> tuple[Path, Path | None]:
    """The folders that hold the class folders of training and of validation, if that is apart."""
    names = _subfolders(root)
    only_splits = bool(names) and set(names) <= {"train", *VAL_NAMES}
    # "train" may be a class among others, next to "plane": then it holds pictures, not folders.
    if not (only_splits or ("train" in names and _subfolders(root / "train"))):
        return root, None
    if "train" not in names:
        raise ZooError(f"folder {root} has {names[0]}/ but no train/")
    val = next((name for name in VAL_NAMES if name in names), None)
    return root / "train", root / val if val else None


def _subfolders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_files(root: Path) -> dict[str, list[str]]:
    """The image files at any depth below each subfolder, all sorted by name."""
    return {name: sorted(_images(root / name)) for name in _subfolders(root)}


def _images(root: Path) -> Iterable[str]:
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield str(Path(folder, name))


def _check_classes(root: Path, classes: Mapping[str, list[str]]) -> None:
    filled = [name for name, files in classes.items() if files]
    if not filled:
        loose = any(p.name.lower().endswith(SUFFIXES) for p in root.iterdir())
        what = "images but no class folders" if loose else "no images"
        raise ZooError(f"folder {root} holds {what}: expected a folder of images for each class")
    if len(classes) == 1:
        raise ZooError(
            f"folder {root} holds a single class, {filled[0]!r}: a classifier needs at least 2"
        )
    if empty := [name for name in classes if name not in filled]:
        folders = ", ".join(str(root / name) for name in empty)
        raise ZooError(f"no images in the class folder{'s' if len(empty) > 1 else ''} {folders}")


def _check_same(train_root: Path, train: Iterable[str], val_root: Path, val: Iterable[str]) -> None:
    lacks = [
        f"{root} lacks {', '.join(map(repr, sorted(missing)))}"
        for root, missing in (
            (train_root, set(val) - set(train)),
            (val_root, set(train) - set(val)),
        )
        if missing
    ]
    if lacks:
        raise ZooError(f"training and validation must have the same classes: {'; '.join(lacks)}")


def _unreadable(paths: list[str]) -> dict[str, str]:
    """The files that cannot be decoded, with the reason for each."""

    def reason(path: str) -> str | None:
        try:
            read_rgb(path, draft=True)
        except ZooError as error:
            return str(error).removeprefix(f"cannot read image {path}: ")
        return None

    with ThreadPool(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        reasons = tqdm(
            pool.imap(reason, paths, chunksize=16),
            desc="checking images",
            total=len(paths),
            delay=2,  # seconds: a small folder needs no report
            disable=None,  # unless stderr is a terminal
            leave=False,
        )
        return {path: why for path, why in zip(paths, reasons, strict=True) if why}


def _stratified(
    root: Path, classes: Mapping[str, list[str]], val_fraction: float, seed: int
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Hold out `val_fraction` of each class, rounded, but at least one picture and never all."""
    train, val = {}, {}
    for label, (name, files) in enumerate(classes.items()):
        if len(files) < 2:
            raise ZooError(
                f"class folder {root / name} has one image: to hold some out it takes at least 2"
            )
        count = min(max(round(len(files) * val_fraction), 1), len(files) - 1)
        order = np.random.default_rng((seed, label)).permutation(len(files))
        val[name] = [files[i] for i in sorted(order[:count])]
        train[name] = [files[i] for i in sorted(order[count:])]
    return train, val


def _files(classes: Mapping[str, list[str]]) -> Files:
    return Files(tuple((p, label) for label, files in enumerate(classes.values()) for p in files))
