"""Networks and published weights as tables to choose from: sorted, and filtered by what they cost.

Neither jax nor a network is imported for weights: their costs are in `costs.csv`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import ZooError, checked, nearest, unknown
from ..pretrained import catalogue
from ..pretrained.catalogue import Weights, weights
from ..settings import shown
from .costs import cost, countable
from .table import Column, Table, number, words

BEST_FIRST = (
    "top1",
    "top5",
    "year",
    "weights_known",
    "val_accuracy",
)  # columns that are sorted downwards
POWERS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}

WEIGHTS = (
    Column("weights", "weights", left=True),
    Column("top1", "top-1", number(".1f")),
    Column("top5", "top-5", number(".1f")),
    Column("params", "params (M)", number(",.2f", 1e6)),
    Column("macs", "MACs (G)", number(",.3f", 1e9)),
    Column("input_size", "px", words),
    Column("size_mb", "MB", number(".1f")),
    Column("licence", "licence", left=True),
    Column("cached", "cached", lambda there: "yes" if there else "", left=True),
    Column("source", "source", left=True),
    Column("check", "check", left=True),
)
NETWORKS = (
    Column("network", "network", left=True),
    Column("params", "params (M)", number(",.2f", 1e6)),
    Column("macs", "MACs (G)", number(",.3f", 1e9)),
    Column("input_size", "px", words),
    Column("top1", "best top-1", number(".1f")),
    Column("weights_known", "weights", words),
    Column("year", "year", words),
    Column("aliases", "also called", left=True),
    Column("paper", "paper", left=True),
)


class Listing(list[str]):
    """Names of published weights. A notebook shows them as the table that `table` gives."""

    def table(self) -> Table:
        """What there is to know of each: accuracy, costs, licence, whether it is in the cache."""
        from ..pretrained.store import in_cache  # slow to import

        rows = tuple(_row(w, _macs(w), in_cache(w)) for w in self._records)
        return Table("published weights", WEIGHTS, rows)

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame` of raw values: parameters and MACs in ones.

        Raises:
          ZooError: pandas is not installed.
        """
        return self.table().to_pandas()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    @property
    def _records(self) -> list[Weights]:
        return [weights(name) for name in self]


def _row(w: Weights, macs: int | None, cached: bool) -> tuple[Any, ...]:
    return (
        *(w.name, w.top1, w.top5, w.params, macs, w.preprocess.size, w.size_mb),
        w.licence + (" (non-commercial)" if w.non_commercial else ""),
        *(cached, w.source, w.check),
    )


def _macs(w: Weights) -> int | None:
    """Of a picture of the weights' size; None if the network takes none so small."""
    return cost(w.model, w.preprocess.size).macs if countable(w) else None


@checked()
def list_weights(
    pattern: str = "*",
    *,
    sort: str | None = None,
    max_params: float | str | None = None,
    max_macs: float | str | None = None,
    min_top1: float | None = None,
    licence: str | None = None,
    source: str | None = None,
    cached: bool = False,
) -> Listing:
    """The names of published weights, as a list that a notebook shows as a table.

    Args:
      pattern: shell pattern of names; a network's name or alias stands for all of its weights.
      sort: a column of `Listing.table`: "top1" and "top5", the best first; "params", "macs",
        "size_mb" and "input_size", the least first; or text. None: the catalogue's order.
      max_params: parameters at most, a number or "6M".
      max_macs: multiply-accumulates at most for a picture of the weights' size, a number or "1G".
      min_top1: percent of ImageNet's validation set at least; weights without a figure are left
        out.
      licence: "commercial" leaves out those that forbid commercial use, or may; otherwise the
        licence by its SPDX name.
      source: who published them: "timm", "torchvision", "keras".
      cached: only those that need no download.

    Raises:
      ZooError: a column, licence or source that there is not, or a number that is none.

    >>> list_weights("resnet18.a*")
    ['resnet18.a1_in1k', 'resnet18.a2_in1k', 'resnet18.a3_in1k']
    >>> list_weights(max_params="4M", sort="top1")[0]                    # doctest: +SKIP
    'convnextv2_atto.fcmae_ft_in1k'
    """
    records = [weights(name) for name in _names(pattern)]
    if licence and licence.lower() == "commercial":
        records = [w for w in records if not w.non_commercial]
    elif licence:
        records = _equal(records, "licence", licence)
    if source:
        records = _equal(records, "source", source)
    if cached:
        from ..pretrained.store import in_cache

        records = [w for w in records if in_cache(w)]
    most = _limits(max_params=max_params, max_macs=max_macs)
    count = "macs" in most or sort == "macs"  # of networks from outside it takes its time
    keys = [column.key for column in WEIGHTS]
    rows = {
        w.name: dict(zip(keys, _row(w, _macs(w) if count else None, cached), strict=True))
        for w in records
    }
    return Listing(select(rows, WEIGHTS, sort=sort, most=most, min_top1=min_top1))


def _names(pattern: str) -> list[str]:
    found = catalogue.list_weights(pattern)
    if found or re.search(r"[*?\[.]", pattern):
        return found
    from ..registry import find

    try:
        return catalogue.list_weights(f"{find(pattern).name}.*")
    except ZooError:
        return []


def _equal(records: list[Weights], field: str, asked: str) -> list[Weights]:
    """The records whose field is what was asked for, in whatever case."""
    known = {getattr(weights(name), field) for name in catalogue.list_weights()}
    if asked.lower() not in {value.lower() for value in known}:
        raise unknown(field, asked, known | ({"commercial"} if field == "licence" else set()))
    return [w for w in records if getattr(w, field).lower() == asked.lower()]


def models_table(names: Iterable[str]) -> Table:
    """Networks with what they cost at their published input size, and their best weights."""
    from ..registry import find

    rows = []
    for v in map(find, names):
        known = [weights(name) for name in catalogue.list_weights(f"{v.name}.*")]
        figures = cost(v.name, v.input_size)
        best = max((w.top1 for w in known if w.top1 is not None), default=None)
        rows.append(
            (
                *(v.name, figures.params, figures.macs, v.input_size, best, len(known)),
                *(v.paper.year, ", ".join(v.aliases), v.paper.url),
            )
        )
    return Table("networks", NETWORKS, tuple(rows))


def selected(
    table: Table,
    *,
    sort: str | None = None,
    max_params: float | str | None = None,
    max_macs: float | str | None = None,
    min_top1: float | None = None,
) -> Table:
    """The table with its rows filtered and sorted, as `list_weights` does."""
    rows = dict(enumerate(table.records()))
    most = _limits(max_params=max_params, max_macs=max_macs)
    kept = select(rows, table.columns, sort=sort, most=most, min_top1=min_top1)
    return replace(table, rows=tuple(table.rows[i] for i in kept))


def select(
    rows: Mapping[Any, Mapping[str, Any]],
    columns: Iterable[Column],
    *,
    sort: str | None,
    most: Mapping[str, float],
    min_top1: float | None,
) -> list[Any]:
    """The keys of the rows within the limits, in the order asked for; what has no value is last."""
    kept = [
        key
        for key, row in rows.items()
        if all(row[name] is not None and row[name] <= top for name, top in most.items())
    ]
    if min_top1 is not None:
        kept = [key for key in kept if (rows[key]["top1"] or 0) >= min_top1]
    if sort is None:
        return kept
    keys = [column.key for column in columns]
    if sort not in keys:
        raise unknown("column to sort by", sort, keys)

    known = [key for key in kept if rows[key][sort] is not None]
    known.sort(key=lambda key: rows[key][sort], reverse=sort in BEST_FIRST)
    return [*known, *(key for key in kept if rows[key][sort] is None)]


def _limits(**limits: float | str | None) -> dict[str, float]:
    """Numbers by column of the limits that were given."""
    return {
        name.removeprefix("max_"): quantity(name, value)
        for name, value in limits.items()
        if value is not None
    }


def quantity(name: str, value: float | str) -> float:
    """A number, perhaps with K, M, G (or B) or T after it.

    Raises:
      ZooError: it is none.

    >>> quantity("max_params", "5.5M")
    5500000.0
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(r"([0-9]+\.?[0-9]*|[0-9]*\.[0-9]+)\s*([KMGBT]?)", str(value).upper())
    if not found:
        raise ZooError(f"{name}: got {shown(value)}, expected a number such as 6M or 1.5G")
    return float(found[1]) * POWERS[found[2]]


def none_matches(what: str, pattern: str, names: Iterable[str]) -> ZooError:
    """The error for a pattern that matches nothing, with the nearest names."""
    near = nearest(re.sub(r"[*?\[\]]", "", pattern), names)
    hint = f": did you mean {near}?" if near else ""
    return ZooError(f"no {what} match {pattern!r}{hint or '; without a pattern all are shown'}")
