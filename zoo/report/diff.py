"""What differs between two networks: their totals, where their costs lie, and stage by stage."""

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from ..context import Spec
from ..errors import checked
from ..registry import abstract, find
from ..terminal import fill
from .count import Count, StageCount
from .describe import LEGEND, stages
from .many import count_many
from .table import Column, Table, number, shape


@dataclass(frozen=True)
class Stage:
    """A stage of one network: what it costs, and its rows in words (`zoo.report.describe`)."""

    cost: StageCount
    rows: tuple[str, ...]

    def __str__(self) -> str:
        params = f", {self.cost.params:,} parameters" if self.cost.params else ""
        return shape(self.cost.output) + params


@dataclass(frozen=True)
class Diff:
    """Two networks side by side."""

    a: Count
    b: Count
    stages: tuple[tuple[Stage | None, Stage | None], ...]  # in order; those of one name in a pair

    @property
    def totals(self) -> Table:
        """Each figure of both, and the second less the first."""
        figures = [
            ("parameters", self.a.params, self.b.params),
            ("  of them head", self.a.head, self.b.head),
            ("auxiliary heads", self.a.aux, self.b.aux),
            ("BN statistics", self.a.batch_stats, self.b.batch_stats),
            ("MACs", self.a.macs, self.b.macs),
            ("FLOPs of a training step", self.a.train_flops, self.b.train_flops),
            ("activation bytes, inference", self.a.inference_memory, self.b.inference_memory),
            ("activation bytes, training", self.a.training_memory, self.b.training_memory),
            ("layers with parameters", len(self.a.layers), len(self.b.layers)),
            ("input side, pixels", self.a.input_size, self.b.input_size),
        ]
        return Table(
            f"{self.a.name} and {self.b.name}",
            (
                Column("figure", "", left=True),
                Column(self.a.name, self.a.name, number()),
                Column(self.b.name, self.b.name, number()),
                Column("difference", "difference", number("+,")),
            ),
            tuple((name, a, b, b - a) for name, a, b in figures),
        )

    @property
    def by_stride(self) -> Table:
        """Where the costs lie: parameters and MACs by how much the image has shrunk."""
        a, b = _by_stride(self.a), _by_stride(self.b)
        columns = [Column("stride", "stride", lambda s: f"1/{s}" if s else "no image", left=True)]
        for c in (self.a, self.b):
            columns += [
                Column(f"{c.name}_params", f"{c.name} parameters", number()),
                Column(f"{c.name}_macs", f"{c.name} MACs (M)", number(",.0f", 1e6)),
            ]
        strides = sorted({*a, *b}, key=lambda stride: stride or math.inf)
        return Table(
            "by stride",
            tuple(columns),
            tuple((stride, *a.get(stride, (0, 0)), *b.get(stride, (0, 0))) for stride in strides),
            ("stride: side of a stage's output as a share of the input's",),
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """(mark, text) of each line of the stages: "-" of the first network, "+" of the second."""
        for a, b in self.stages:
            name = (a or b).cost.name  # type: ignore[union-attr]
            if a and b and a.rows == b.rows and str(a) == str(b):
                yield " ", f"{name}: {a}, the same"
                continue
            if a and b and str(a) == str(b):
                yield " ", f"{name}: {a}"
            else:
                yield from ((m, f"{name}: {s}") for m, s in (("-", a), ("+", b)) if s)
            rows_a, rows_b = (stage.rows if stage else () for stage in (a, b))
            for kind, i, j, k, m in SequenceMatcher(a=rows_a, b=rows_b).get_opcodes():
                if kind == "equal":
                    yield from ((" ", f"  {row}") for row in rows_a[i:j])
                else:
                    yield from (("-", f"  {row}") for row in rows_a[i:j])
                    yield from (("+", f"  {row}") for row in rows_b[k:m])

    def render(self, form: str = "text") -> str:
        """Totals, strides and stages as "text" or "md"; as "csv" or "json" the totals alone.

        Raises:
          ZooError: another format.
        """
        if form in ("csv", "json"):
            return self.totals.render(form)
        tables = [self.totals.render(form), self.by_stride.render(form)]
        if form == "md":
            body = "\n".join(f"{mark} {text}" for mark, text in self.lines())
            return "\n\n".join([*tables, f"```diff\n{body}\n```"])
        marks = f"-: {self.a.name} alone; +: {self.b.name} alone; {LEGEND}"
        return "\n\n".join([*tables, fill(marks, 80), self._text()])

    def _text(self, width: int = 80) -> str:
        indents = ((mark, text, len(text) - len(text.lstrip()) + 2) for mark, text in self.lines())
        return "\n".join(
            fill(f"{mark} {text}", width, f"{mark} " + " " * indent)
            for mark, text, indent in indents
        )

    def to_pandas(self) -> Any:
        """The totals as a `pandas.DataFrame`."""
        return self.totals.to_pandas()

    def __str__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        colours = {"-": "#d55e00", "+": "#0072b2", " ": "inherit"}
        lines = "\n".join(
            f'<span style="color:{colours[mark]}">{mark} {html.escape(text)}</span>'
            for mark, text in self.lines()
        )
        tables = self.totals._repr_html_() + self.by_stride._repr_html_()
        return f'{tables}<pre style="white-space:pre-wrap">{lines}</pre>'


@checked()
def diff(a: str, b: str) -> Diff:
    """What differs between two networks of `zoo.list_models()`.

    Raises:
      ZooError: an unknown name.

    >>> print(zoo.diff("resnet50", "resnet50_v2").render())               # doctest: +SKIP
    """
    count_a, count_b = count_many([a, b])
    of_a, of_b = _stages(count_a), _stages(count_b)
    names_a, names_b = list(of_a), list(of_b)
    pairs: list[tuple[Stage | None, Stage | None]] = []
    for kind, i, j, k, m in SequenceMatcher(a=names_a, b=names_b, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs += [(of_a[name], of_b[name]) for name in names_a[i:j]]
        else:
            pairs += [(of_a[name], None) for name in names_a[i:j]]
            pairs += [(None, of_b[name]) for name in names_b[k:m]]
    return Diff(count_a, count_b, tuple(pairs))


def _stages(c: Count) -> dict[str, Stage]:
    rows = stages(abstract(Spec(c.name, numerics=find(c.name).numerics)))
    return {cost.name: Stage(cost, rows[cost.name]) for cost in c.stages}


def _by_stride(c: Count) -> dict[int | None, tuple[int, int]]:
    """(parameters, MACs) by the stride of a stage's output; None where it is not an image."""
    costs: dict[int | None, tuple[int, int]] = {}
    for stage in c.stages:
        image = len(stage.output) == 3
        stride = 2 ** round(math.log2(c.input_size / stage.output[0])) if image else None
        params, macs = costs.get(stride, (0, 0))
        costs[stride] = params + stage.params, macs + stage.macs
    return costs
