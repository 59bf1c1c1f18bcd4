"""Write `MODELS.md`: every network and all published weights, from `zoo/models` and the catalogue.

    python -m tools.models_md > MODELS.md

What the plugins of the environment add is left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

from zoo.pretrained.catalogue import HERE, Weights, weights
from zoo.registry import ours
from zoo.report.card import CIFAR, cited
from zoo.report.count import count
from zoo.report.definitions import DEFINITIONS
from zoo.report.many import count_many
from zoo.report.table import Column, Table, number, words
from zoo.text import code, markdown
from zoo.variant import Variant

from .csv_files import read


class Figures(NamedTuple):
    """What is said of a network, counted with 1000 classes."""

    params: int
    head: int
    batch_stats: int
    macs: int
    aux: int
    cifar_params: int | None  # with 10 classes, of networks for CIFAR's pictures


NETWORKS = (
    Column("name", "network", code, left=True, marked=True),
    Column(
        "aliases",
        "also called",
        lambda aliases: ", ".join(map(code, aliases)),
        left=True,
        marked=True,
    ),
    Column("input_size", "input (px)", words),
    Column("params", "parameters", number()),
    Column("head", "of them head", number()),
    Column("batch_stats", "BN statistics", number()),
    Column("macs", "MACs (M)", number(",.1f", 1e6)),
)
WEIGHTS = (
    Column("name", "weights", left=True, marked=True),
    Column("top1", "top-1", number(".1f")),
    Column("top5", "top-5", number(".1f")),
    Column("input_size", "input (px)", words),
    Column("classes", "classes", lambda n: str(n) if n else "no top"),
    Column("size_mb", "MB", number(",.1f")),
    Column("licence", "licence", left=True),
    Column("source", "source", left=True),
)
MEANT = ("parameters", "head", "auxiliary heads", "BN statistics", "MACs")


def main() -> None:
    print(text(figures([*ours()])))


def figures(names: list[str]) -> dict[str, Figures]:
    """Count these networks: half a minute for all of them."""
    return {
        c.name: Figures(c.params, c.head, c.batch_stats, c.macs, c.aux, cifar_params(c.name))
        for c in count_many(names)
    }


def cifar_params(name: str) -> int | None:
    cifar = ours()[name].input_size == CIFAR
    return count(name, num_classes=10).params if cifar else None


def text(counted: Mapping[str, Figures]) -> str:
    """The page, without a line break at its end; `counted` has every network of ours."""
    families = {
        family: list(members) for family, members in groupby(ours().values(), lambda v: v.family)
    }
    records = [weights(row["name"]) for row in read(HERE / "catalogue.csv")]
    parts = [
        "# Networks and weights",
        "<!-- Written by `python -m tools.models_md > MODELS.md`: do not edit. -->",
        introduction(families, records),
        *(
            section(family, members, counted, [w for w in records if ours()[w.model] in members])
            for family, members in families.items()
        ),
    ]
    return "\n\n".join(parts)


def introduction(families: Mapping[str, list[Variant]], records: list[Weights]) -> str:
    measured = sum(w.top1 is not None for w in records)
    restricted = sum(w.non_commercial for w in records)
    without = [name for name in ours() if not any(w.model == name for w in records)]
    links = " · ".join(f"[{family}](#{family})" for family in families)
    parts = [
        f"{len(ours())} networks in {len(families)} families, and {len(records)} published "
        f"weights of {len(ours()) - len(without)} of them: {measured} with the accuracy "
        f"that their source states, {restricted} not for commercial use. `zoo info NAME` shows the "
        "card of one network, `zoo weights` what is in the cache.",
        links,
        "\n".join(f"- **{name}**: {DEFINITIONS[name]}" for name in MEANT),
        "Of weights, **bold** are what `zoo.load` takes for the network's name alone; the others "
        "come by their full names. Top-1 and top-5 are percents of ImageNet's validation set, as "
        "the source states them; blank where it states none. No top: the file has no classifier.",
        f"Sources: {tally(w.source for w in records)}.\nLicences: {tally(map(licence, records))}.",
        f"No published weights: {', '.join(map(code, without))}.",
    ]
    return "\n\n".join(parts)


def tally(names: Iterable[str]) -> str:
    """How often each name occurs, the most frequent first: "timm 255, keras 148"."""
    counts = Counter(names)
    return ", ".join(
        f"{name} {counts[name]}" for name in sorted(counts, key=lambda n: (-counts[n], n))
    )


def section(
    family: str, members: list[Variant], counted: Mapping[str, Figures], records: list[Weights]
) -> str:
    """A family: its papers, a table of its networks, and one of their weights, folded."""
    papers = dict.fromkeys(v.paper for v in members)
    parts = [f"## {family}", *(f"{cited(paper)}. {markdown(paper.new)}" for paper in papers)]
    parts.append(networks_table(members, counted).md())
    apart: dict[str, dict[str, int | None]] = {
        "Auxiliary heads": {v.name: counted[v.name].aux for v in members},
        "Parameters with CIFAR-10's 10 classes": {
            v.name: counted[v.name].cifar_params for v in members
        },
    }
    parts += [
        f"{what}: {', '.join(f'{code(name)} {n:,}' for name, n in by_name.items() if n)}."
        for what, by_name in apart.items()
        if any(by_name.values())
    ]
    if records:
        parts.append(
            f"<details><summary>Published weights: {len(records)}</summary>\n\n"
            f"{weights_table(records).md()}\n\n</details>"
        )
    return "\n\n".join(parts)


def networks_table(members: list[Variant], counted: Mapping[str, Figures]) -> Table:
    rows = []
    for v in members:
        f = counted[v.name]
        rows.append((v.name, v.aliases, v.input_size, f.params, f.head, f.batch_stats, f.macs))
    return Table("networks", NETWORKS, tuple(rows))


def weights_table(records: list[Weights]) -> Table:
    rows = [
        (
            f"**{code(w.name)}**" if w.default else code(w.name),
            w.top1,
            w.top5,
            w.preprocess.size,
            w.classes,
            w.size_mb,
            licence(w),
            w.source,
        )
        for w in records
    ]
    return Table("weights", WEIGHTS, tuple(rows))


def licence(record: Weights) -> str:
    return record.licence + (" (non-commercial)" if record.non_commercial else "")


if __name__ == "__main__":
    main()
