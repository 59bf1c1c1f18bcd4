"""Counts as tables: networks beside each other, and one network layer by layer."""

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from .definitions import DEFINITIONS, notes
from .table import Column, Table, number, shape

if TYPE_CHECKING:
    from .count import Count, LayerCount

FIELD = "receptive field"


def networks(counts: "Sequence[Count]", batch_size: int = 1) -> Table:
    """A row a network, with every figure of `Count`, activations for `batch_size` images."""
    meant = [note for name, note in zip(DEFINITIONS, notes(), strict=True) if name != FIELD]
    if batch_size > 1:
        meant.append(f"activations here: of {batch_size} images together")
    return Table(
        "parameters and costs",
        (
            Column("network", "network", left=True),
            Column("params", "parameters", number()),
            Column("head", "head", number()),
            Column("aux", "auxiliary heads", number()),
            Column("batch_stats", "BN statistics", number()),
            Column("total", "total", number()),
            Column("file_bytes", "file (MB)", number(",.1f", 1e6)),
            Column("input_size", "input (pixels)", number()),
            Column("macs", "MACs (G)", number(",.3f", 1e9)),
            Column("train_flops", "training step (GFLOPs)", number(",.2f", 1e9)),
            Column("inference_memory", "activations, inference (MB)", number(",.1f", 1e6)),
            Column("training_memory", "activations, training (MB)", number(",.1f", 1e6)),
        ),
        tuple(
            (
                c.name,
                c.params,
                c.head,
                c.aux,
                c.batch_stats,
                c.params + c.batch_stats,
                c.file_bytes,
                c.input_size,
                c.macs,
                c.train_flops,
                batch_size * c.inference_memory,
                batch_size * c.training_memory,
            )
            for c in counts
        ),
        tuple(meant),
    )


def layers(c: "Count") -> Table:
    """The rows of a network's table under its stages and blocks, which show their sums."""
    rows: list[tuple[object, ...]] = []
    opened: tuple[str, ...] = ()
    for layer in c.layers:
        path = tuple(layer.name.split("."))
        shared = sum(
            1
            for _ in takewhile(lambda names: names[0] == names[1], zip(opened, path, strict=False))
        )
        rows.extend(_sum(c, path[:depth]) for depth in range(shared + 1, len(path)))
        rows.append(_row(layer.name, [layer], layer.output, layer.kind))
        opened = path[:-1]
    return Table(
        c.name,
        (
            Column("layer", c.name, _indented, left=True),
            Column("kind", "kind", left=True),
            Column("output", "output", shape),
            Column("params", "parameters", number()),
            Column("macs", "MACs (M)", number(",.1f", 1e6)),
            Column("receptive_field", "receptive field", number()),
        ),
        (*rows, ("total", "", (), c.params, c.macs, None)),
        notes("MACs", FIELD),
    )


def _sum(c: "Count", path: Sequence[str]) -> tuple[object, ...]:
    name = ".".join(path)
    inside = [layer for layer in c.layers if layer.name.startswith(f"{name}.")]
    return _row(name, inside, (), "")


def _row(
    name: str, inside: "Sequence[LayerCount]", output: tuple[int, ...], kind: str
) -> tuple[object, ...]:
    field = inside[0].receptive_field if kind else None
    params, macs = (sum(getattr(layer, key) for layer in inside) for key in ("params", "macs"))
    return name, kind, output, params, macs, field


def _indented(name: str) -> str:
    *outer, own = name.split(".")
    return "  " * len(outer) + own
