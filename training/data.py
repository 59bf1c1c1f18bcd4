"""The Grain pipelines that turn a dataset's pictures into batches.

>>> dataset = open_dataset("digits")                                          # doctest: +SKIP
>>> batches = train_batches(dataset, preprocess, batch_size=32, seed=0)       # doctest: +SKIP
>>> next(batches)["image"].shape                                              # doctest: +SKIP
(32, 32, 32, 3)
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import grain
import numpy as np

from zoo.preprocess import Preprocess
from zoo.runtime import machine

from .decode import crop
from .sources import Dataset as Dataset
from .sources import Files as Files
from .sources import Source as Source
from .sources import labels_of as labels_of
from .sources import open_dataset as open_dataset

CHUNK = 16  # pictures at most that a thread decodes at a time
KEPT = 1 << 30  # bytes of pictures that are kept in memory once they have been decoded

Batch = dict[str, np.ndarray]


def train_batches(
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    crop_scale: float = 1.0,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
    balanced: bool = False,
    alternate_flip: bool = False,
) -> grain.DatasetIterator:
    """An endless stream of shuffled batches, the same for the same seed.

    Args:
        dataset: of which the pictures in `train` are used.
        preprocess: of the network, for the size of the pictures.
        batch_size: pictures in a batch of this host.
        seed: of the order, which is different in each epoch, and of random crops.
        crop_scale: below 1, each picture is cropped at random, down to this share of its area and
            to 3/4 .. 4/3 of its shape (Szegedy et al., 2014, arXiv:1409.4842, section 6).
        shard: (process index, process count). Hosts take turns in one common order, so that each
            epoch is shared out exactly, and all batches together do not depend on their number.
        threads: how many decode; by default one for each core that the process may use, 16 at most.
        balanced: show every class equally often, to within one picture in an epoch. An epoch is as
            long as without: pictures of small classes repeat, some of large classes are left out.
        alternate_flip: mirror half of the pictures, drawn by the seed, in the first epoch, the
            other half in the second, and so on (Jordan, 2024, arXiv:2404.00498).

    Returns:
        An iterator of `{"image": uint8 [B, S, S, C], "label": int32 [B]}`, the label float32
        [B, K] where pictures may show several classes. Its `get_state()` given
        to the `set_state()` of another continues with the very next batch.
    """
    source = dataset.train
    if balanced:
        balance = _balanced(labels_of(source), seed)
        order = grain.MapDataset.range(sys.maxsize).seed(seed).map(balance)
    else:  # in another order each epoch, without end
        order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    cropped = order.random_map(partial(_load_random, source, preprocess, crop_scale))
    whole = _Pictures(source, preprocess, partial(_load_centre, preprocess))

    first = np.random.default_rng(seed).permutation(len(source)) % 2 if alternate_flip else None

    def load(places: np.ndarray) -> Batch:
        indices = np.array([order[int(place)] for place in places])
        if crop_scale < 1:
            batch = _stacked([cropped[int(place)] for place in places])
        else:
            batch = whole(indices)
        if first is not None:
            turned = (first[indices] + places // len(source)) % 2 == 1
            batch["image"][turned] = batch["image"][turned, :, ::-1]
        return batch

    return iter(_batched(load, sys.maxsize, batch_size, shard, threads))


def _balanced(labels: np.ndarray, seed: int) -> Callable[[int], int]:
    """An endless order in which every class comes equally often: place -> index of the picture.

    In each epoch all classes get the same number of places; the remainder goes to classes drawn at
    random. No picture repeats before all others of its class have come.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    @lru_cache(maxsize=2)  # threads read ahead into the next epoch
    def epoch(number: int) -> np.ndarray:
        rng = np.random.default_rng((seed, number))
        shares = np.full(len(members), len(labels) // len(members))
        shares[rng.permutation(len(members))[: len(labels) % len(members)]] += 1
        drawn = [
            np.concatenate([rng.permutation(own) for _ in range(-(-share // len(own)))])[:share]
            for own, share in zip(members, shares, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))

    def order(place: int) -> int:
        number, within = divmod(place, len(labels))
        return int(epoch(number)[within])

    return order


def eval_batches(
    source: Source,
    preprocess: Preprocess,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
    keep: bool = False,
) -> grain.IterDataset:
    """Every picture once, in order, in batches of one shape.

    The arguments are those of `train_batches`, and `keep`: whether the batches are to be gone
    through again, so that pictures that fit into memory stay there. With several hosts, host `p` of
    `n` takes pictures `p`, `p + n`, ..., and all hosts get the same number of batches.

    Returns:
        An iterable of `{"image": uint8 [B, S, S, C], "label": int32 [B], "weight": float32 [B]}`,
        the label float32 [B, K] where pictures may show several classes.
        The weight is 1, and 0 for the blank pictures that fill up the last batch.
    """
    batches = -(-len(source) // (batch_size * shard[1]))  # rounded up
    pictures = _Pictures(source, preprocess, partial(_load, preprocess), keep=keep)

    def load(places: np.ndarray) -> Batch:
        there = places < len(source)
        own = pictures(places[there])
        blank = [(0, len(places) - there.sum())]
        batch = {name: np.pad(x, blank + [(0, 0)] * (x.ndim - 1)) for name, x in own.items()}
        return {**batch, "weight": there.astype(np.float32)}

    return _batched(load, batches * batch_size, batch_size, shard, threads)


class _Pictures:
    """Pictures by number. If all of them fit into `KEPT` bytes, each is made only once.

    Args:
        source: of the pictures.
        preprocess: of the network.
        load: makes {"image", "label"} of an example of the source, always the same.
        keep: False: never keep them.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        load: Callable[[Mapping[str, Any]], Batch],
        *,
        keep: bool = True,
    ):
        self._source, self._load = source, load
        label = _label(source[0]) if len(source) else np.int32(0)
        self._blank = {"image": np.zeros(preprocess.shape, np.uint8), "label": np.asarray(label)}
        self._kept: Batch | None = None
        if keep and len(source) * self._blank["image"].size <= KEPT:
            self._kept, self._made = self._empty(len(source)), np.zeros(len(source), bool)

    def __call__(self, indices: np.ndarray) -> Batch:
        """A batch of pictures; threads may call it at the same time."""
        if self._kept is None:
            batch = self._empty(len(indices))
            self._fill(batch, range(len(indices)), indices)
            return batch
        new = indices[~self._made[indices]]
        self._fill(self._kept, new, new)
        self._made[new] = True
        return {name: array[indices] for name, array in self._kept.items()}

    def _empty(self, count: int) -> Batch:
        return {name: np.empty((count, *x.shape), x.dtype) for name, x in self._blank.items()}

    def _fill(self, batch: Batch, places: Iterable[int], indices: np.ndarray) -> None:
        for place, index in zip(places, indices, strict=True):
            for name, value in self._load(self._source[int(index)]).items():
                batch[name][place] = value


def _load(preprocess: Preprocess, example: Mapping[str, Any]) -> dict[str, Any]:
    image = example["image"]
    if not _is_input(image, preprocess):
        image = preprocess.image(image)
    return {"image": image, "label": _label(example)}


def _is_input(image: Any, preprocess: Preprocess) -> bool:
    """Whether a picture is an array that preprocessing would leave as it is."""
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8):
        return False
    size = (preprocess.size, preprocess.size)
    same = preprocess.central == 1 and preprocess.resized(size) == size
    return same and image.shape == preprocess.shape


def _label(example: Mapping[str, Any]) -> np.ndarray | np.int32:
    label = example["label"]
    return np.asarray(label, np.float32) if np.ndim(label) else np.int32(label)


def _load_centre(preprocess: Preprocess, example: Mapping[str, Any]) -> dict[str, Any]:
    image = example["image"]
    if not _is_input(image, preprocess):
        image = crop(image, preprocess, preprocess.box)
    return {"image": image, "label": _label(example)}


def _load_random(
    source: Source,
    preprocess: Preprocess,
    crop_scale: float,
    index: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    example = source[index]
    image = crop(example["image"], preprocess, lambda size: random_box(size, crop_scale, rng))
    return {"image": image, "label": _label(example)}


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


def _batched(
    load: Callable[[np.ndarray], Batch],
    count: int,
    batch_size: int,
    shard: tuple[int, int],
    threads: int | None,
) -> grain.IterDataset:
    """Batches of the examples at `count` places a host.

    Args:
        load: the examples at some places of all hosts' common order.
        count: how many places each host takes.
        batch_size: examples in a batch of this host.
        shard: as for `train_batches`.
        threads: likewise.
    """
    process, processes = shard
    threads = threads or min(16, machine.cores())
    # A thread takes several pictures at once. For every element that it passes on, Grain asks all
    # pending ones whether they are done, which took longer than decoding a small picture.
    chunk = next(n for n in range(min(CHUNK, batch_size), 0, -1) if batch_size % n == 0)
    # Two batches ahead: one being filled while the other is taken.
    ahead = max(2 * batch_size // chunk, threads)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)

    def loaded(number: int) -> Batch:
        return load(process + processes * (number * chunk + np.arange(chunk)))

    chunks = grain.MapDataset.range(count // chunk).map(loaded).to_iter_dataset(options)
    return chunks.batch(batch_size // chunk, drop_remainder=True).map(_joined)


def _stacked(examples: Sequence[Batch]) -> Batch:
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _joined(chunks: Batch) -> Batch:
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in chunks.items()}
