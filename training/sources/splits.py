"""Training, validation and test pictures: told apart by name, or held out at random."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from zoo.errors import ZooError, few
from zoo.text import plain

from .base import Dataset, Files, Request, Source, Subset, Tagged, labels_of

# The names of splits in folders, lists and TFDS, in upper or lower case. A run validates on "val",
# or on "test" where there is no "val".
SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "validation", "valid", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
SPLIT_NAMES = tuple(name for names in SPLITS.values() for name in names)


def split_of(name: str) -> str | None:
    """The split that goes by this name: "train", "val" or "test"; None: it is not one."""
    return next((split for split, names in SPLITS.items() if name.casefold() in names), None)


def split_folders(
    where: str, names: Sequence[str], holds_folders: Callable[[str], bool]
) -> dict[str, str]:
    """The folder of each split; {} if the folders are classes.

    Args:
        where: what holds them, as errors call it: "folder photos".
        names: the folders in it.
        holds_folders: whether one of them holds folders.

    Raises:
        ZooError: two folders for one split, or no training split among them.
    """
    known = [name for name in names if split_of(name)]
    # "train" may be a class among others, next to "plane": then it holds pictures, not folders.
    if not known or (len(known) < len(names) and not any(map(holds_folders, known))):
        return {}
    by_split: dict[str, str] = {}
    for name in known:
        other = by_split.setdefault(split_of(name) or "", name)
        if other != name:
            raise ZooError(f"{where} has both {other}/ and {name}/: expected one of them")
    if "train" not in by_split:
        raise ZooError(
            f"{where} has {known[0]}/ but no train/: expected class folders in train/ and"
            f" {known[0]}/, or, for {known[0]}/ alone, its own path"
        )
    return by_split


def beside(splits: Mapping[str, str], names: Iterable[str], used: Iterable[str]) -> list[str]:
    """What lies beside the splits that are used, and is left out, in words."""
    unused = [name for split, name in splits.items() if split not in used]
    others = [name for name in names if name not in splits.values()]
    left = [f"{plain(name)}/, as {splits['val']}/ is used" for name in unused]
    if others:
        left.append(f"{few([plain(f'{name}/') for name in others], most=3)} beside the splits")
    return left


def used_splits(request: Request, splits: Iterable[str]) -> list[str]:
    """The splits that a dataset uses: `test` only without a `val`, or if nothing is held out."""
    names = [split for split in SPLITS if split in splits]
    return [n for n in names if n != "test" or request.val_fraction is None or "val" not in names]


def looks_like_split(name: str) -> tuple[str, str] | None:
    """(split, the rest of the name) of "seg_train", "Test set", "train1"; else None."""
    for split, words in SPLITS.items():
        pattern = rf"(|.*[\W_\d])({'|'.join(words)})((?:set|data|images)?(?:|[\W_\d].*))"
        if match := re.fullmatch(pattern, name, re.IGNORECASE | re.DOTALL):
            return split, f"{match[1]}/{match[3]}".casefold()
    return None


def split_off(dataset: Dataset, request: Request, names: list[str] | None = None) -> Dataset:
    """The dataset with some pictures of each class moved from `train` to `val`.

    Args:
        dataset: one that was opened without a `val_fraction`, or a part of one.
        request: for the share and the seed.
        names: of the classes, as errors call them.
    """
    source, fraction = dataset.train, request.val_fraction
    assert fraction is not None
    names = names or [f"class {name!r} of {dataset.name}" for name in dataset.classes]
    parts: list[Source] = []
    for indices in hold_out(labels_of(source), names, fraction, request.split_seed):
        if isinstance(source, Files):
            chosen = tuple(source.examples[i] for i in indices)
            parts.append(Files(chosen, source.archive))
        elif isinstance(source, Tagged):
            chosen = tuple(source.examples[i] for i in indices)
            parts.append(Tagged(Files(chosen), source.labels[indices]))
        else:
            parts.append(Subset(source, indices))
    train, val = parts
    return replace(dataset, train=train, val=val, split=request.held_out)


def hold_out(
    labels: np.ndarray, names: list[str], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the pictures to keep and of those to hold out, each in ascending order.

    A `fraction` of each class is held out, rounded, but at least one picture and never all. Where a
    picture may show several classes, it is a fraction of all pictures.

    Args:
        labels: of all pictures, int [N] or float32 [N, K].
        names: of the classes, as errors call them.
        fraction: the share to hold out, between 0 and 1.
        seed: of the random choice.
    """
    if labels.ndim == 2:
        if len(labels) < 2:
            raise ZooError("data: got one image: to hold some out it takes at least 2")
        count = min(max(round(len(labels) * fraction), 1), len(labels) - 1)
        val = np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
        return np.setdiff1d(np.arange(len(labels)), val), val
    members = np.split(
        np.argsort(labels, kind="stable"), np.bincount(labels, minlength=len(names)).cumsum()[:-1]
    )
    held = []
    for label, own in enumerate(members):
        if not len(own):
            continue
        if len(own) == 1:
            raise ZooError(f"{names[label]} has one image: to hold some out it takes at least 2")
        count = min(max(round(len(own) * fraction), 1), len(own) - 1)
        order = np.random.default_rng((seed, label)).permutation(len(own))
        held.append(own[order[:count]])
    val = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), val), val
