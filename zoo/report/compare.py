"""Networks beside each other: what each costs and how accurate it is, as table, pictures, page."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ZooError, checked
from ..paths import write
from ..plotting import DPI, encode, need_matplotlib
from ..pretrained.catalogue import Weights, list_weights, weights
from ..registry import find, list_models
from ..variant import Variant
from . import definitions, plots
from .costs import Cost, countable, weights_cost
from .count import Count
from .many import count_many
from .page import page
from .table import Column, Table, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MB = 1e6  # bytes
IMAGENET = 1000  # classes


@dataclass(frozen=True)
class Entry:
    """One network of a comparison."""

    variant: Variant
    count: Count  # at the published input size, with 1000 classes
    weights: Weights | None  # what the bare name loads; None: no such weights are known

    @property
    def name(self) -> str:
        """The network's name."""
        return self.variant.name

    @property
    def top1(self) -> float | None:
        """Percent of ImageNet's validation set, the source's figure for the default weights."""
        return self.weights.top1 if self.weights else None

    @property
    def top5(self) -> float | None:
        """As `top1`, with the class among the first five."""
        return self.weights.top5 if self.weights else None

    @property
    def extra_data(self) -> bool:
        """Whether the weights saw more pictures than ImageNet-1k's: their tag says `_ft_`."""
        return self.weights is not None and self.weights.extra_data

    @property
    def other_size(self) -> int | None:
        """The weights' input size, where the figures are counted at another one."""
        size = self.weights.preprocess.size if self.weights else self.count.input_size
        return size if size != self.count.input_size else None


@dataclass(frozen=True)
class Comparison:
    """Networks beside each other, in the order asked for."""

    entries: tuple[Entry, ...]

    def table(self) -> Table:
        """All figures, raw: counts in ones, memory and files in bytes, accuracy in percent."""
        notes = (*definitions.notes(), *self.notes())
        rows = tuple(_row(e.variant, e.count, e.weights) for e in self.entries)
        return Table("Networks compared", COLUMNS, rows, notes)

    def weights_table(self) -> Table:
        """The same of all published weights of these networks, each at its own input size.

        The head's share is left out where there are other classes than ImageNet's 1000.
        """
        rows = tuple(_row(find(w.model), weights_cost(w), w) for w in self.weights)
        return Table("Published weights compared", COLUMNS, rows, definitions.notes())

    @property
    def weights(self) -> list[Weights]:
        """All published weights of these networks whose size these can take."""
        every = (weights(name) for e in self.entries for name in list_weights(f"{e.name}.*"))
        return [w for w in every if countable(w)]

    def notes(self) -> tuple[str, ...]:
        """Where the numbers come from, and at which input sizes."""
        other = [f"{e.name} {e.other_size} for {e.count.input_size}" for e in self.entries
                 if e.other_size]  # fmt: skip
        more = [e.name for e in self.entries if e.extra_data]
        return (
            NOTE,
            *(
                [f"Weights with another input size, in pixels: {', '.join(other)}."]
                if other
                else []
            ),
            *([f"Trained on more than ImageNet-1k: {', '.join(more)}."] if more else []),
        )

    def figures(self) -> "dict[str, Figure]":
        """The pictures by name: matplotlib figures, for `savefig`.

        Raises:
          ZooError: matplotlib is not installed.
        """
        return {name: draw(self.entries) for name, draw in plots.PLOTS.items()}

    def html(self) -> str:
        """The page: complete in itself, for a browser without a network."""
        return page(self.entries, self.weights, self.notes())

    def save(self, folder: str | Path) -> list[Path]:
        """Write pictures, page and table into `folder`, each file whole or not at all.

        Returns:
          The files: bubble, kinds, depth and receptive_field as .png and .svg; compare.html, .csv,
          .md and .json; weights.csv, of `weights_table`.

        Raises:
          ZooError: a folder that cannot be made or written, or matplotlib is not installed.
        """
        folder = writable_folder(folder)
        files: dict[str, bytes] = {}
        for name, figure in self.figures().items():
            for suffix in ("png", "svg"):
                files[f"{name}.{suffix}"] = encode(figure, suffix, dpi=2 * DPI)
        files["compare.html"] = self.html().encode()
        table = self.table()
        for form in ("csv", "md", "json"):
            files[f"compare.{form}"] = (table.render(form) + "\n").encode()
        files["weights.csv"] = (self.weights_table().csv() + "\n").encode()
        return [_write(folder / name, data) for name, data in files.items()]

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame` of raw values."""
        return self.table().to_pandas()

    def __str__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@checked(positional="give the names in a list: zoo.compare(['resnet50', 'vgg16'])")
def compare(
    names: Iterable[str] | None = None, *, on_done: Callable[[], object] | None = None
) -> Comparison:
    """Count networks and set them beside each other.

    Args:
      names: of networks, or aliases; None takes all of `zoo.list_models()`. A name that comes twice
        counts once.
      on_done: called after each network that is counted.

    Raises:
      ZooError: an unknown name, or no name at all.

    >>> compare(["resnet18", "googlenet"]).entries[1].name
    'inception_v1'
    """
    names = [names] if isinstance(names, str) else list_models() if names is None else names
    chosen = {variant.name: variant for variant in map(find, names)}
    if not chosen:
        raise ZooError("nothing to compare: expected the name of a network, got none")
    counts = count_many(list(chosen), on_done=on_done)
    return Comparison(
        tuple(
            Entry(variant, count, default_weights(variant.name))
            for variant, count in zip(chosen.values(), counts, strict=True)
        )
    )


def default_weights(name: str) -> Weights | None:
    """The weights that `zoo.load(name)` loads; None where there are none."""
    try:
        return weights(name)
    except ZooError:  # the network exists: it has no known weights, or none that may be a default
        return None


def writable_folder(folder: str | Path) -> Path:
    """Create a folder and check that it can be written, before work is spent on its files.

    Raises:
      ZooError: it cannot be made or written, or matplotlib is not installed.
    """
    need_matplotlib()
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ZooError(f"cannot write into {folder}: {error.strerror}") from None
    return path


def _write(path: Path, data: bytes) -> Path:
    try:
        write(path, data)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from None
    return path


# --- the table -----------------------------------------------------------------------------------

NOTE = (
    "Counted at the published input size. Top-1: percent of ImageNet's validation set for the"
    " default weights, as their source states it, at its own recipe and input size."
)


def _tag(name: Any) -> str:
    """Weights without their network, which has a column of its own."""
    return "" if name is None else str(name).partition(".")[2]


COLUMNS = (
    Column("network", "network", left=True),
    Column("params", "params (M)", number(",.2f", 1e6)),
    Column("head_share", "head (%)", number(".1f", 0.01)),
    Column("macs", "MACs (G)", number(",.3f", 1e9)),
    Column("train_flops", "training FLOPs (G)", number(",.2f", 1e9)),
    Column("inference_memory", "inference memory (MB)", number(",.1f", MB)),
    Column("training_memory", "training memory (MB)", number(",.1f", MB)),
    Column("file_bytes", "file (MB)", number(",.1f", MB)),
    Column("input_size", "input (px)"),
    Column("top1", "top-1 (%)", number(".2f")),
    Column("top5", "top-5 (%)", number(".2f")),
    Column("weights", "weights", _tag, left=True),
    Column("licence", "licence", left=True),
    Column("source", "source", left=True),
    Column("family", "family", left=True),
    Column("year", "year"),
)


def _row(variant: Variant, c: Count | Cost, w: Weights | None) -> tuple[Any, ...]:
    return (
        variant.name,
        c.params,
        c.head / c.params if isinstance(c, Count) or (w and w.classes == IMAGENET) else None,
        c.macs,
        c.train_flops,
        c.inference_memory,
        c.training_memory,
        c.file_bytes,
        c.input_size,
        *((w.top1, w.top5, w.name, w.licence, w.source) if w else (None,) * 5),
        variant.family,
        variant.paper.year,
    )
