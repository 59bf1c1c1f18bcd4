"""What the plots of a comparison show: which networks stand for all, and their curves."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .count import KINDS

if TYPE_CHECKING:
    from .compare import Entry


def representatives(
    entries: "Sequence[Entry]",
    limit: int,
    curve: "Callable[[Entry], np.ndarray]",
) -> "tuple[list[Entry], list[str]]":
    """At most `limit` networks, and the rule that chose them where that is not all.

    Of each family the first with default weights stands for it. Where those are too many, or few,
    the networks whose curves [N, 2], its x from 0 upwards, lie farthest apart are taken or added.
    """
    if len(entries) <= limit:
        return list(entries), []
    families: dict[str, Any] = {}
    for e in sorted(entries, key=lambda e: e.weights is None):
        families.setdefault(e.variant.family, e)
    first = [i for i, e in enumerate(entries) if families[e.variant.family] is e]
    rule = f"Of {len(entries)} networks the first of each family that has default weights"
    if limit // 2 < len(first) <= limit:
        return [entries[i] for i in first], [f"{rule}."]
    if len(first) > limit:
        pool, taken, rule = first, first[:1], f"{rule}, and of these the {limit} most unlike."
    else:
        pool, taken = list(range(len(entries))), first
        rule = f"{rule}, and of the others the {limit - len(first)} most unlike."
    shapes = {i: _shape(curve(entries[i])) for i in pool}
    taken = list(taken)
    while len(taken) < limit:
        rest = [i for i in pool if i not in taken]
        taken.append(
            max(rest, key=lambda i: min(np.abs(shapes[i] - shapes[j]).mean() for j in taken))
        )
    return [entries[i] for i in sorted(taken)], [rule]


def _shape(points: np.ndarray) -> np.ndarray:
    """A curve [N, 2] at 50 places along its x, stretched to the same length for all."""
    x, y = points.T
    places: np.ndarray = np.interp(np.linspace(0, 1, 50), x / max(x.max(), 1e-9), y)
    return places


def parameters_by_depth(entry: "Entry") -> np.ndarray:
    """[layers + 1, 2]: share of the layers passed and of the parameters so far, 0 to 1."""
    params = [layer.params for layer in entry.count.layers if layer.macs]
    total = np.concatenate([[0], np.cumsum(params)])
    return np.stack([np.linspace(0, 1, len(total)), total / max(total[-1], 1)], axis=1)


def parameters_by_kind(entry: "Entry") -> np.ndarray:
    """[kinds, 2]: the number of a kind, and its share of the parameters."""
    shares = [entry.count.by_kind[kind] / entry.count.params for kind in KINDS]
    return np.stack([np.arange(len(KINDS)), shares], axis=1)


def fields(entry: "Entry") -> np.ndarray:
    """[stages, 2]: share of them passed, in percent, and receptive field in pixels."""
    sides = [s.receptive_field for s in entry.count.stages if s.receptive_field is not None]
    passed = 100 * np.arange(1, len(sides) + 1) / max(len(sides), 1)
    return np.stack([passed, np.array(sides, dtype=float)], axis=1)


def fields_by_depth(entry: "Entry") -> np.ndarray:
    """As `fields`, with the logarithm of each receptive field to base 2."""
    points = fields(entry)
    return np.stack([points[:, 0], np.log2(points[:, 1])], axis=1)


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, gain) that no other one beats at both, by rising cost."""
    best, unbeaten = -math.inf, []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            unbeaten.append(i)
    return unbeaten
