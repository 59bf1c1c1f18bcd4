"""A network's card: its paper, its stages, what it costs, and the weights published for it."""

import html
import json
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from ..context import Spec
from ..errors import ZooError, checked
from ..pretrained.catalogue import Weights, list_weights, weights
from ..registry import abstract, find
from ..terminal import fill
from ..text import link, markdown, markdown_link
from ..variant import Paper, Variant
from .asked import asked
from .count import Count, count
from .definitions import notes
from .describe import LEGEND, stages
from .table import Column, Table, folded, number, shape, words

CIFAR = 32  # pixels: networks of this size are published for CIFAR-10
IMAGE = "one image; of n, n times that"


def side(pixels: int | None) -> str:
    """The side of a receptive field in pixels; "all" if it is the whole image."""
    return "all" if pixels is None else str(pixels)


def quantity(value: float, unit: str = "") -> str:
    """A number with three digits or more: "4.09 G", "470 k", "650".

    >>> quantity(102_440_608, "B")
    '102 MB'
    """
    power = 0
    while value >= 999.5 and power < 4:
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {('', 'k', 'M', 'G', 'T')[power]}{unit}".strip()


def percent(part: int, whole: int) -> str:
    """A share to the tenth: "8.0 %"; what would round to zero is "<0.1 %"."""
    share = 100 * part / whole
    return "<0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


STAGES = (
    Column("name", "stage", left=True),
    Column("output", "output", shape),
    Column("params", "parameters", number()),
    Column("macs", "MACs (M)", number(",.1f", 1e6)),
    Column("receptive_field", "receptive field", side),
)
FIGURES = (
    Column("name", "figure", left=True),
    Column("value", "value"),
    Column("remark", "remark", left=True),
)
MARKS = {"default": "*", "non-commercial": "†"}
SHORT = {"FAIR-Noncommercial-Research": "FAIR-NC"}
WEIGHTS = (
    Column("name", "weights", lambda name: name.partition(".")[2], left=True),
    Column("use", "", lambda use: MARKS.get(use, ""), left=True),
    Column("top1", "top-1", number(".1f")),
    Column("top5", "top-5", number(".1f")),
    Column("input_size", "px", words),
    Column("licence", "licence", lambda name: SHORT.get(name, name), left=True),
    Column("source", "source", left=True),
)


def cited(paper: Paper) -> str:
    """A paper in Markdown: its title as a link, authors and year."""
    title = markdown_link(paper.title, paper.url)
    return f"{title}, {markdown(paper.authors)}, {paper.year}"


@dataclass(frozen=True)
class Card:
    """What `zoo info` prints about a network, for a terminal, a notebook, a file or a program."""

    variant: Variant
    count: Count
    stages: Table
    rows: dict[str, tuple[str, ...]]  # of each stage, in words
    weights: Table  # no rows: none are published
    default: str | None  # of the weights: what the network's bare name stands for
    cifar_params: int | None  # with the 10 classes of CIFAR-10, of networks for its pictures
    facts: Table | None = None  # of weights, where these were asked for
    classes: int = 1000  # that are counted

    @property
    def figures(self) -> Table:
        """The totals, as they are shown."""
        c = self.count
        cifar = "" if self.cifar_params is None else f"{self.cifar_params:,}"
        rows = [
            ("parameters", f"{c.params:,}", f"{self.classes} classes"),
            *([("with 10 classes", cifar, "as for CIFAR-10")] if cifar else []),
            ("of them head", f"{c.head:,}", percent(c.head, c.params)),
            ("BN statistics", f"{c.batch_stats:,}", "not in the parameters"),
            ("auxiliary heads", f"{c.aux:,}", "not in the parameters"),
            ("total", f"{c.params + c.batch_stats:,}", "parameters and BN statistics"),
            ("MACs", quantity(c.macs), "one image"),
            ("FLOPs of a training step", quantity(c.train_flops), "one image"),
            ("activation memory, inference", quantity(c.inference_memory, "B"), IMAGE),
            ("activation memory, training", quantity(c.training_memory, "B"), IMAGE),
            ("file size", quantity(c.file_bytes, "B"), "float32"),
        ]
        return Table(f"{c.name}: figures", FIGURES, tuple(rows))

    @property
    def kinds(self) -> str:
        """The share of the parameters in each kind of layer: one line of percents."""
        kinds = {kind: n for kind, n in self.count.by_kind.items() if n}
        if self.count.batch_stats == 0 and "batch norm" in kinds:
            kinds = {"layer norm" if kind == "batch norm" else kind: n for kind, n in kinds.items()}
        return ", ".join(f"{kind} {percent(n, self.count.params)}" for kind, n in kinds.items())

    def text(self, width: int = 80) -> str:
        """For a terminal of `width` characters."""
        paper = self.variant.paper
        stages, figures = self.stages.text(width), self.figures.text(width).splitlines()[1:]
        rows = [fill(row, width, "    ") for row in self._rows()]
        facts = self.facts.rows if self.facts else ()
        parts = [
            self._title(),
            *(
                ["\n".join(fill(f"{fact}: {value}", width) for fact, value in facts)]
                if facts
                else []
            ),
            f"{textwrap.fill(paper.title, width)}\n"
            f"{textwrap.fill(f'{paper.authors}, {paper.year}', width)}\n{paper.url}",
            textwrap.fill(f"New in it: {paper.new}", width),
            f"{self._input()}\n\n{stages}",
            "\n".join([textwrap.fill(f"In words ({LEGEND}):", width), *rows]),
            "\n".join(figures),
            textwrap.fill(f"Parameters by kind: {self.kinds}", width),
            self._published() if not self.weights.rows else self.weights.text(width),
            "\n".join(fill(note, width) for note in notes()),
        ]
        return "\n\n".join(parts)

    def md(self) -> str:
        """As GitHub shows it."""
        paper = self.variant.paper
        parts = [
            f"## {markdown(self._title())}",
            *([self.facts.md()] if self.facts else []),
            cited(paper),
            f"New in it: {markdown(paper.new)}",
            self._input(),
            self.stages.md(),
            "\n".join([f"In words ({LEGEND}):\n", *(f"- {markdown(row)}" for row in self._rows())]),
            self.figures.md(),
            f"Parameters by kind: {self.kinds}",
            self._published() if not self.weights.rows else self.weights.md(),
            "\n".join(f"- {note}" for note in notes()),
        ]
        return "\n\n".join(parts)

    def json(self) -> str:
        """Raw values."""
        c = self.count
        return json.dumps(
            {
                "name": c.name,
                **({"weights_of": dict(self.facts.rows)} if self.facts else {}),
                "network": self.variant.name,
                "aliases": self.variant.aliases,
                "family": self.variant.family,
                "paper": asdict(self.variant.paper),
                "input_size": c.input_size,
                "params": c.params,
                "batch_stats": c.batch_stats,
                "head": c.head,
                "aux": c.aux,
                "macs": c.macs,
                "train_flops": c.train_flops,
                "inference_memory": c.inference_memory,
                "training_memory": c.training_memory,
                "file_bytes": c.file_bytes,
                "by_kind": c.by_kind,
                "stages": self.stages.records(),
                "rows": self.rows,
                "weights": self.weights.records(),
                "default": self.default,
            },
            indent=1,
        )

    def to_pandas(self) -> Any:
        """The stages as a `pandas.DataFrame` of raw values."""
        return self.stages.to_pandas()

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        paper = self.variant.paper

        def p(text: str) -> str:
            return f"<p>{html.escape(text)}</p>"

        title = f'<a href="{html.escape(link(paper.url))}">{html.escape(paper.title)}</a>'
        parts = [
            f"<h3>{html.escape(self._title())}</h3>",
            *([self.facts._repr_html_()] if self.facts else []),
            f"<p>{title}<br>{html.escape(paper.authors)}, {paper.year}</p>",
            p(f"New in it: {paper.new}"),
            p(self._input()),
            self.stages._repr_html_(),
            p(f"In words ({LEGEND}):"),
            "<ul>" + "".join(f"<li>{html.escape(row)}</li>" for row in self._rows()) + "</ul>",
            self.figures._repr_html_(),
            p(f"Parameters by kind: {self.kinds}"),
            self.weights._repr_html_() if self.weights.rows else p(self._published()),
            folded(notes()),
        ]
        return "\n".join(parts)

    def _title(self) -> str:
        aliases = () if self.facts else self.variant.aliases
        return self.count.name + (f", also called {', '.join(aliases)}" if aliases else "")

    def _rows(self) -> list[str]:
        return [f"{name}: {'; '.join(rows)}" for name, rows in self.rows.items()]

    def _input(self) -> str:
        size = self.count.input_size
        return f"Input: {size} x {size} pixels"

    def _published(self) -> str:
        return f"No published weights of {self.count.name} are known."


@checked()
def info(name: str, *, in_chans: int | None = None) -> Card:
    """The card of a network, or of weights: what is known of them, then of their network.

    Args:
      name: one of `list_models()`, or an alias; or one of `list_weights()`; or the path of a file
        that `zoo.save` wrote, or of a run's folder. Weights are counted as they are: with their
        classes, at their input size.
      in_chans: where `name` is a network: channels of the pictures; None counts the 3 of RGB.

    Raises:
      ZooError: an unknown name; the message suggests the nearest. Or a file that is not there.

    >>> info("resnet50").count.params
    25557032
    >>> info("resnet50.a1_in1k").count.input_size
    224
    """
    if found := asked(name):
        if in_chans is not None:
            raise ZooError(f"in_chans: expected with a network, got {name}, which has its own")
        spec, counted = found.spec, found.count()
    else:
        variant = find(name)
        spec = Spec(variant.name, in_chans=in_chans or 3, numerics=variant.numerics)
        counted = count(variant.name, in_chans=in_chans)
    variant = find(spec.name)
    records = [weights(each) for each in list_weights(f"{variant.name}.*")]
    cifar = found is None and variant.input_size == CIFAR
    return Card(
        variant,
        counted,
        stage_table(counted),
        stages(abstract(spec)),
        weights_table(variant.name, records),
        next((record.name for record in records if record.default), None),
        count(variant.name, num_classes=10, in_chans=in_chans).params if cifar else None,
        found.facts() if found else None,
        spec.num_classes,
    )


def stage_table(counted: Count) -> Table:
    """A network's stages with their output shapes, parameters and multiplications."""
    rows = [(s.name, s.output, s.params, s.macs, s.receptive_field) for s in counted.stages]
    return Table(f"{counted.name}: stages", STAGES, tuple(rows))


def weights_table(name: str, records: list[Weights]) -> Table:
    """The weights published for a network; `use` marks the default and the non-commercial ones."""
    rows = [
        (
            w.name,
            "default" if w.default else "non-commercial" if w.non_commercial else None,
            w.top1,
            w.top5,
            w.preprocess.size,
            w.licence,
            w.source,
        )
        for w in records
    ]
    uses = {use for _, use, *_ in rows}
    lines = [f'To load: zoo.load("{record.name}")' for record in records[:1]]
    if "default" in uses:
        lines.append(f'* what zoo.load("{name}") takes')
    if "non-commercial" in uses:
        lines.append("† not for commercial use")
    return Table(f"{name}: published weights", WEIGHTS, tuple(rows), tuple(lines))
