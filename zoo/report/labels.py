"""Where labels are placed in a plot, so that none overlaps another. Lengths are in pixels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Circle = tuple[float, float, float]  # x, y, radius
Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: "Box") -> bool:
        """Whether the two boxes overlap."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )

    def inside(self, other: "Box") -> bool:
        """Whether this box lies within the other."""
        return (
            self.x0 >= other.x0 and self.y0 >= other.y0
            and self.x1 <= other.x1 and self.y1 <= other.y1
        )  # fmt: skip

    def nearest(self, x: float, y: float) -> Point:
        """The point of the box nearest to (x, y)."""
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)


class Placed(NamedTuple):
    """Where a label is placed, and the line that leads to it from a mark further away."""

    box: Box
    leader: tuple[Point, Point] | None


ANGLES = [math.radians(a) for a in (0, 180, 90, 270, 35, 145, 325, 215, 60, 120, 300, 240)]
GAPS = (2, 7, 14, 24, 36, 50)  # between mark and label


def place(
    anchors: Sequence[Sequence[Circle]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    blocked: Sequence[Circle],
    *,
    all_of_them: bool = False,
) -> list[Placed | None]:
    """Place labels beside their marks, in order of priority, so that none overlaps another.

    Args:
      anchors: for each label the marks that it may be placed beside, the best first.
      sizes: width and height of each.
      bounds: where labels may be placed.
      blocked: what labels must not cover, and leaders must not seem to start from.
      all_of_them: where there is no room, let a leader, then the label itself, lie on what is
        blocked.

    Returns:
      For each label its place; None where there is no room.
    """
    circles = np.array(blocked, dtype=float).reshape(-1, 3)
    none = circles[:0]
    taken: list[Placed] = []
    places: list[Placed | None] = []
    for marks, size in zip(anchors, sizes, strict=True):
        spot = _spot(marks, size, bounds, circles, circles, taken)
        if spot is None and all_of_them:
            spot = _spot(marks, size, bounds, circles, none, taken)
            spot = spot or _spot(marks, size, bounds, none, none, taken)
        places.append(spot)
        if spot is not None:
            taken.append(spot)
    return places


def _spot(
    marks: Sequence[Circle],
    size: tuple[float, float],
    bounds: Box,
    circles: np.ndarray,
    passed: np.ndarray,
    taken: Sequence[Placed],
) -> Placed | None:
    """The nearest place that covers none of `circles` and whose leader keeps clear of `passed`."""
    width, height = size
    for gap in GAPS:
        for x, y, radius in marks:
            for angle in ANGLES:
                dx, dy = math.cos(angle), math.sin(angle)
                cx = x + dx * (radius + gap) + width / 2 * min(max(1.4 * dx, -1), 1)
                cy = y + dy * (radius + gap) + height / 2 * min(max(1.4 * dy, -1), 1)
                box = Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                if not box.inside(bounds) or any(box.meets(other.box) for other in taken):
                    continue
                near = np.hypot(
                    circles[:, 0] - circles[:, 0].clip(box.x0, box.x1),
                    circles[:, 1] - circles[:, 1].clip(box.y0, box.y1),
                )
                if (near < circles[:, 2]).any():
                    continue
                leader = None
                if gap > GAPS[0]:
                    end = box.nearest(x, y)
                    leader = ((x + dx * radius, y + dy * radius), end)
                    if _passes(leader, passed[np.hypot(*(passed[:, :2] - (x, y)).T) > 9]):
                        continue
                if not _tangled(box, leader, taken):
                    return Placed(box, leader)
    return None


def _tangled(box: Box, leader: tuple[Point, Point] | None, taken: Sequence[Placed]) -> bool:
    """Whether a leader would run through a label, or two leaders cross."""
    for other in taken:
        if leader and _through(leader, other.box):
            return True
        if other.leader and _through(other.leader, box):
            return True
        if leader and other.leader and _cross(*leader, *other.leader):
            return True
    return False


def _passes(line: tuple[Point, Point], circles: np.ndarray) -> bool:
    """Whether a leader comes so close to another mark's centre that it seems to belong to it."""
    (x0, y0), (x1, y1) = line
    steps = np.linspace(0, 1, 24)[:, None]
    x, y = x0 + steps * (x1 - x0), y0 + steps * (y1 - y0)
    return bool((np.hypot(x - circles[:, 0], y - circles[:, 1]) < circles[:, 2].clip(max=6)).any())


def _through(line: tuple[Point, Point], box: Box) -> bool:
    (x0, y0), (x1, y1) = line
    steps = np.linspace(0, 1, 24)
    x, y = x0 + steps * (x1 - x0), y0 + steps * (y1 - y0)
    return bool(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any())


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    def side(p: Point, q: Point, r: Point) -> bool:
        return (q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) != side(a, b, d) and side(c, d, a) != side(c, d, b)


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved so that any two are at least `gap` apart, in the same order.

    They stay within `low` and `high` where there is room.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [places[i] for i in order]
    for _ in range(50):  # neighbours push each other apart by halves
        for k in range(len(moved) - 1):
            lack = gap - (moved[k + 1] - moved[k])
            if lack > 0:
                moved[k] -= lack / 2
                moved[k + 1] += lack / 2
        moved = [min(max(y, low), high) for y in moved]
    for k in range(1, len(moved)):  # what is left of it, upwards
        moved[k] = max(moved[k], moved[k - 1] + gap)
    result = [0.0] * len(places)
    for i, y in zip(order, moved, strict=True):
        result[i] = y
    return result
