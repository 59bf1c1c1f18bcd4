"""How a dataset differs from the record that a run keeps of its own, see `data_record`."""

from collections.abc import Mapping
from typing import Any

from .base import Content

Both = tuple[Content, Content]  # of train and of val


def record_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the data differ from the record of a run, each point in a few words; []: they do not.

    Args:
        stored: the `data_record` of the run, read back from JSON.
        now: the record of the data at hand.

    >>> there = data_record(open_dataset("digits"))                           # doctest: +SKIP
    >>> record_differences(there, {**there, "split": "val/"})                 # doctest: +SKIP
    ["the split: the dataset's own split there, val/ now"]
    """
    try:
        return _record_differences(stored, now)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        return ["the record of its data is damaged"]


def _record_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before, after = _by_class(stored), _by_class(now)
    changes, other_classes = _renamed(before, after)
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        changes.append("the classes are in another order")
    if stored["split"] != now["split"]:
        changes.append(f"the split: {stored['split']} there, {now['split']} now")
    for name in kept:
        # in another place, a class has other pictures held out
        if change := _changed(f"class {name!r}", before[name], after[name], other_classes):
            changes.append(change)
    if not changes and any(stored[split] != now[split] for split in ("train", "val")):
        changes.append(_changed("the dataset", _whole(stored), _whole(now)) or "other pictures")
    return [*changes[:6], *([f"and {len(changes) - 6} more"] if len(changes) > 6 else [])]


def _by_class(record: Mapping[str, Any]) -> dict[str, Both | None]:
    """The contents of each class in order; None if only those of all classes are known."""
    classes = record["classes"]
    splits = [record[split] for split in ("train", "val")]
    each = [
        list(zip(split["pictures"], split["digests"], split["sums"], strict=True))
        for split in splits
    ]
    if any(len(contents) != len(classes) for contents in each):
        return dict.fromkeys(classes)
    return dict(zip(classes, zip(*each, strict=True), strict=True))


def _whole(record: Mapping[str, Any]) -> Both:
    train, val = (
        (sum(split["pictures"]), " ".join(split["digests"]), 0)
        for split in (record["train"], record["val"])
    )
    return train, val


def _sum(content: Both | None) -> int:
    """What identifies a class whatever its name and however it is split; 0: unknown."""
    return sum(part[2] for part in content) % 2**64 if content else 0


def _renamed(
    before: Mapping[str, Both | None], after: Mapping[str, Both | None]
) -> tuple[list[str], bool]:
    """(the classes that are gone, new or renamed, in words; whether there are any)."""
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    changes = []
    for name in list(gone):  # perhaps its pictures are there under another name
        sums = {_sum(after[other]): other for other in new}
        place = [*before].index(name)
        there = [*after][place] if len(before) == len(after) else None
        other = sums.get(_sum(before[name])) if _sum(before[name]) else there
        if other in new:
            changes.append(f"class {name!r} is now {other!r}")
            gone.remove(name)
            new.remove(other)
    any_other = bool(changes or gone or new)
    changes += [f"class {name!r} is gone" for name in gone]
    return [*changes, *(f"class {name!r} is new" for name in new)], any_other


def _changed(
    what: str, before: Both | None, after: Both | None, ignore_split: bool = False
) -> str | None:
    if before is None or after is None or before == after:
        return None
    if ignore_split and _sum(before) and _sum(before) == _sum(after):
        return None
    (train, *_), (val, *_) = before
    (new_train, *_), (new_val, *_) = after
    if more := new_train + new_val - train - val:
        number = f"{abs(more):,} picture{'s' * (abs(more) > 1)}"
        return f"{number} {'more' if more > 0 else 'fewer'} in {what}"
    if train != new_train:
        return (
            f"{what}: {train:,} pictures to train on and {val:,} to validate on there, now"
            f" {new_train:,} and {new_val:,}"
        )
    if _sum(before) and _sum(before) == _sum(after):
        return f"the same pictures in another order, or split in another way, in {what}"
    return f"other pictures, of the same number, in {what}"
