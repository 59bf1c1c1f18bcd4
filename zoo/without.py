"""Networks as they were before a trick: what `Spec.without` does to the tables of an architecture.

The paper that brought a trick compares with the network that lacks it; this switch builds that
other network, of any architecture, and no architecture knows of it.

>>> zoo.create("mobilenet_v1", without="depthwise")          # doctest: +SKIP
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from .layers import Conv, Dense, FlattenAt, GlobalAvgPool, Row, Table, pair

Rule = Callable[[int, Table], Table]  # of the input's channels and the rows of a table


def joining(rule: Callable[[int, Conv, Conv], Conv | None]) -> Rule:
    """The rule that puts one convolution in place of two successive ones.

    Args:
      rule: (channels of the input, 0 where unknown, first, second) -> what replaces both, or None
        to keep both.
    """

    def rewrite(channels: int, table: Table) -> Table:
        rows: list[tuple[str, Row]] = []
        widths = [channels]  # of the input of each row
        for name, row in table.items():
            joined = None
            if rows and isinstance(last := rows[-1][1], Conv) and isinstance(row, Conv):
                joined = rule(widths[-2], last, row)
            if joined is None:
                rows.append((name, row))
                widths.append(row.features if isinstance(row, Conv) else 0)
            else:
                rows[-1], widths[-1] = (name, joined), joined.features
        return dict(rows)

    return rewrite


@joining
def asymmetric(_channels: int, first: Conv, second: Conv) -> Conv | None:
    """1xn and nx1 become nxn (Szegedy et al., 2015, arXiv:1512.00567, section 3.2)."""
    size, turned = pair(first.kernel), pair(second.kernel)[::-1]
    if size != turned or 1 not in size or max(size) == 1 or first.stride != 1:
        return None
    return replace(second, kernel=max(size))


@joining
def small_kernels(_channels: int, first: Conv, second: Conv) -> Conv | None:
    """3x3 and 3x3 become 5x5 (the same paper, section 3.1)."""
    if not pair(first.kernel) == pair(second.kernel) == (3, 3) or first.stride != 1:
        return None
    if first.padding != second.padding or first.groups * second.groups != 1:
        return None
    return replace(second, kernel=5)


@joining
def reduction(channels: int, first: Conv, second: Conv) -> Conv | None:
    """A 1x1 that leaves fewer channels to a larger kernel is left out.

    So module (b) in figure 2 of Szegedy et al., 2014 (arXiv:1409.4842), becomes the "naive" one,
    (a), but for its pool.
    """
    if pair(first.kernel) != (1, 1) or pair(second.kernel) == (1, 1) or first.stride != 1:
        return None
    return second if first.features < channels and second.groups == 1 else None


@joining
def _separable(_channels: int, first: Conv, second: Conv) -> Conv | None:
    if not _is_depthwise(first) or pair(second.kernel) != (1, 1) or second.stride != 1:
        return None
    if second.groups != 1:
        return None
    return replace(second, kernel=first.kernel, stride=first.stride, padding=first.padding)


def _is_depthwise(row: Row) -> bool:
    return isinstance(row, Conv) and row.groups == row.features > 1


def depthwise(channels: int, table: Table) -> Table:
    """A depthwise convolution and a 1x1 become one full convolution.

    That is "Conv MobileNet" in table 4 of Howard et al., 2017 (arXiv:1704.04861). A depthwise
    convolution that something else follows becomes a full one by itself.
    """
    return {
        name: replace(row, groups=1) if isinstance(row, Conv) and _is_depthwise(row) else row
        for name, row in _separable(channels, table).items()
    }


def avgpool(_channels: int, table: Table) -> Table:
    """The classifier sees every cell of the last feature map, at most 7x7, not their mean.

    The opposite of Lin et al., 2013 (arXiv:1312.4400), section 3.2.
    """
    return {
        name: FlattenAt(7) if isinstance(row, GlobalAvgPool) else row for name, row in table.items()
    }


def fully_connected(_channels: int, table: Table) -> Table:
    """Global average pooling in place of all fully connected layers before the classifier.

    Lin et al., 2013 (arXiv:1312.4400), section 3.2; their dropout goes with them.
    """
    if not any(isinstance(row, Dense) for row in table.values()):
        return table
    kept: dict[str, Row] = {}
    for name, row in table.items():
        if isinstance(row, FlattenAt):
            return {**kept, "avgpool": GlobalAvgPool()}
        kept[name] = row
    return table


RULES: dict[str, Rule] = dict(
    asymmetric=asymmetric,
    avgpool=avgpool,
    depthwise=depthwise,
    fully_connected=fully_connected,
    reduction=reduction,
    small_kernels=small_kernels,
)


@dataclass
class Rewriting:
    """The rules asked for, applied to one table after the other.

    Args:
      names: of rules; others are left to the layers.
      done: gets the names of those that changed a table.
    """

    names: Iterable[str]
    done: set[str] = field(default_factory=set)

    def __call__(self, channels: int, table: Table) -> Table:
        """The table with its tricks undone."""
        for name in self.names:
            if name in RULES and (changed := RULES[name](channels, table)) != table:
                self.done.add(name)
                table = changed
        return table
