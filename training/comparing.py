"""Runs beside each other: what they were set to, what came of it, and whether that is chance."""

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import ZooError
from zoo.paths import write
from zoo.plotting import DASHES, LINES, encode, figure, need_matplotlib, styled, tidy
from zoo.report.table import Column, Table, number, words
from zoo.text import plain

from .config import TrainConfig
from .evaluation import Z_95, interval
from .folder import is_finished, read_json
from .logging import Record, best_of, kept_of, read_records
from .sources.record import record_differences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAY_ON = "expected the folder of a run"
PAIRED = 5  # runs, up to which each is tested against each other; of more, each against the first


@dataclass(frozen=True)
class Run:
    """What the folder of a run tells."""

    folder: Path
    config: dict[str, Any]  # as `TrainConfig.to_dict`
    history: list[Record]  # one record an epoch so far
    data: dict[str, Any] | None  # the record of its data

    @property
    def name(self) -> str:
        """The folder, as it was asked for."""
        return f"{self.folder}"

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return is_finished(self.folder)

    @property
    def kept(self) -> Record | None:
        """The record of the epoch that it keeps; None before the first epoch."""
        return kept_of(self.history, self.config["keep"]) if self.history else None

    @cached_property
    def answers(self) -> dict[str, tuple[str, str]]:
        """Label and prediction of each held-out picture; none before its end."""
        path = self.folder / "predictions.csv"
        if not path.is_file():
            return {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return {
                    row["picture"]: (row["label"], row["prediction"])
                    for row in csv.DictReader(file)
                }
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise ZooError(f"cannot read {path}: {error}") from None

    @property
    def several(self) -> bool:
        """Whether its pictures may show several classes."""
        return bool(self.data and self.data.get("multilabel")) or self.config["loss"] == "sigmoid"


def read_run(folder: str | Path) -> Run:
    """The run in a folder, whether it is finished or not.

    Raises:
      ZooError: no such folder, or one that is not a run's or is damaged.

    >>> read_run("runs/digits").kept["val_accuracy"]                         # doctest: +SKIP
    0.98...
    """
    folder = Path(folder)
    config = read_json(folder / "config.json", WAY_ON)
    if config is None:
        what = "has no config.json" if folder.is_dir() else "is no folder"
        raise ZooError(f"{folder} {what}: {WAY_ON}")
    return Run(
        folder,
        {**TrainConfig().to_dict(), **config},  # settings that are newer than the run
        read_records(folder / "metrics.jsonl"),
        read_json(folder / "data.json", WAY_ON),
    )


# --- a list of runs -------------------------------------------------------------------------------

RUNS = (
    Column("run", "run", left=True),
    Column("model", "network", left=True),
    Column("data", "data", left=True),
    Column("epoch", "epoch", words),
    Column("val_accuracy", "accuracy (%)", number(".2f", 0.01)),
    Column("state", "state", left=True),
    Column("weights", "started from", lambda name: name or "random weights", left=True),
)


def list_runs(folder: str | Path = "runs") -> Table:
    """The runs in a folder and below it, by name; `accuracy` is of the epoch that each keeps.

    Raises:
      ZooError: no such folder, or no run in it.
    """
    if not Path(folder).is_dir():
        raise ZooError(f"no folder {folder}: expected one with runs in it")
    found = [read_run(each) for each in sorted(_runs_below(Path(folder)))]
    if not found:
        raise ZooError(f"no runs in {folder}: expected folders that hold a config.json")
    rows = tuple(
        (
            plain(run.name),
            plain(run.config["model"]),
            plain(run.config["data"]),
            f"{len(run.history)}/{run.config['epochs']}",
            run.kept["val_accuracy"] if run.kept else None,
            _state(run),
            run.config["weights"],
        )
        for run in found
    )
    return Table("runs", RUNS, rows)


def _runs_below(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        if "config.json" in names:
            folders.clear()  # nothing below a run is another
            yield Path(path)


def _state(run: Run) -> str:
    if not run.finished:
        return "not over"
    return "stopped early" if run.history and "stopped" in run.history[-1] else "finished"


# --- a comparison ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paired:
    """Two runs on the same pictures.

    The test is McNemar's, exact: of the pictures on which one alone is right, were as many one's as
    the other's, `p` is the chance of a split as uneven as this. Q. McNemar, "Note on the sampling
    error of the difference between correlated proportions or percentages", Psychometrika 12, 1947.
    """

    a: Run
    b: Run
    both: int  # pictures that both name rightly
    only_a: int
    only_b: int
    neither: int

    @property
    def count(self) -> int:
        """Pictures."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """How much more accurate b is than a, -1 to 1."""
        return (self.only_b - self.only_a) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The difference's 95 % interval, of paired shares (Wald's)."""
        n, d = self.count, self.difference
        half = Z_95 * math.sqrt(max((self.only_a + self.only_b) / n - d * d, 0) / n)
        return max(d - half, -1.0), min(d + half, 1.0)

    @property
    def p(self) -> float:
        """Of the exact test, two-sided; 1 where they never differ."""
        return mcnemar(self.only_a, self.only_b)


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p of McNemar's exact test.

    Args:
      only_a: pictures on which a alone is right.
      only_b: pictures on which b alone is right.

    >>> round(mcnemar(2, 10), 4)
    0.0386
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    term = total = 1  # binomial coefficients, exact
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        total += term
    return min(2 * total / (1 << n), 1.0)


def paired(a: Run, b: Run) -> Paired | str:
    """The two runs on the pictures that both held out, or why these cannot be compared."""
    for run in (a, b):
        if not run.answers:
            return f"{run.name} has no predictions.csv, which its end writes"
        if run.several:
            return f"pictures of {run.name} may show several classes"
    names = [name for name in a.answers if name in b.answers]
    numbered = all(name.isdecimal() for name in names)  # and not files
    if numbered and (not a.data or not b.data or record_differences(a.data, b.data)):
        return "their data differ, and their pictures have numbers instead of names"
    if not names or any(a.answers[name][0] != b.answers[name][0] for name in names):
        return "they held out other pictures"
    x, y = (
        np.array([run.answers[name][0] == run.answers[name][1] for name in names]) for run in (a, b)
    )
    cells = (x & y, x & ~y, ~x & y, ~x & ~y)
    return Paired(a, b, *(int(cell.sum()) for cell in cells))


RESULTS = (
    Column("run", "run", left=True),
    Column("val_accuracy", "accuracy (%)", number(".2f", 0.01)),
    Column("interval", "95 % interval", left=True),
    Column("pictures", "pictures held out", number()),
    Column("val_loss", "loss", number(".4f")),
    Column("best_epoch", "best epoch", words),
    Column("epochs", "epochs", words),
    Column("seconds", "training (s)", number(",.0f")),
)
TESTS = (
    Column("a", "a", left=True),
    Column("b", "b", left=True),
    Column("pictures", "pictures", number()),
    Column("only_a", "only a right", number()),
    Column("only_b", "only b right", number()),
    Column("difference", "b - a (points)", number("+.2f", 0.01)),
    Column("interval", "95 % interval", left=True),
    Column("p", "p", lambda p: "<0.001" if p < 0.001 else f"{p:.3f}"),
)


@dataclass(frozen=True)
class RunComparison:
    """Runs beside each other, in the order asked for."""

    runs: tuple[Run, ...]

    def tables(self) -> tuple[Table, ...]:
        """What differs in their settings, their results, and the paired tests of those."""
        return self.settings(), self.results(), self.tests()

    def settings(self) -> Table:
        """The settings that differ, a column a run."""
        configs = [run.config for run in self.runs]
        keys = [key for key in configs[0] if key != "out"]
        values = {key: [config.get(key) for config in configs] for key in keys}
        rows = [(key, *each) for key, each in values.items() if any(x != each[0] for x in each)]
        columns = (
            Column("setting", "setting", left=True),
            *(Column(run.name, plain(run.name), _setting, left=True) for run in self.runs),
        )
        same = len(keys) - len(rows)
        notes = [f"{same} other settings are the same."]
        first = self.runs[0]
        notes += [
            f"Data of {first.name} and {run.name}: {'; '.join(differs)}."
            for run in self.runs[1:]
            if first.data and run.data and (differs := record_differences(first.data, run.data))
        ]
        return Table("settings that differ", columns, tuple(rows), tuple(map(plain, notes)))

    def results(self) -> Table:
        """Accuracy with its interval, loss and time of each."""
        rows = tuple(map(_result, self.runs))
        note = (
            "Of the epoch that each run keeps, on its held-out pictures. 95 % interval: Wilson's,"
            " of a share of so many pictures."
        )
        return Table("results", RESULTS, rows, (note,))

    def tests(self) -> Table:
        """Each two runs on the pictures that both held out."""
        pairs = [*combinations(self.runs, 2)]
        if len(self.runs) > PAIRED:
            pairs = [(self.runs[0], run) for run in self.runs[1:]]
        found = [(a, b, paired(a, b)) for a, b in pairs]
        rows = tuple(
            (
                *(plain(a.name), plain(b.name), pair.count, pair.only_a, pair.only_b),
                *(pair.difference, _points(*pair.interval), pair.p),
            )
            for a, b, pair in found
            if isinstance(pair, Paired)
        )
        notes = [
            f"{a.name} and {b.name} have no paired test: {pair}."
            for a, b, pair in found
            if isinstance(pair, str)
        ]
        if rows:
            notes.insert(
                0,
                "p: McNemar's exact test on the same pictures, the chance of so uneven a split of "
                "those that one run alone names rightly if neither were better. It knows nothing "
                "of another seed."
                + (" Several tests are not corrected for their number." if len(rows) > 1 else ""),
            )
        return Table("the same pictures", TESTS, rows, tuple(map(plain, notes)))

    def figure(self) -> "Figure":
        """Validation accuracy and loss by epoch, a line a run.

        Raises:
          ZooError: matplotlib is not installed.
        """
        return _curves(self.runs)

    def save(self, folder: str | Path) -> list[Path]:
        """Write curves.png, curves.svg and compare.md, .csv and .json into a folder.

        Raises:
          ZooError: the folder cannot be written, or matplotlib is not installed.
        """
        folder = Path(folder)
        drawn = self.figure()
        files = {f"curves.{form}": encode(drawn, form) for form in ("png", "svg")}
        for form in ("md", "csv", "json"):
            files[f"compare.{form}"] = (self.render(form) + "\n").encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                write(folder / name, data)
        except OSError as error:
            raise ZooError(f"cannot write into {folder}: {error.strerror}") from None
        return [folder / name for name in files]

    def render(self, form: str = "text") -> str:
        """All tables as "text", "md", "csv" or "json"."""
        tables = [table for table in self.tables() if table.rows or table.notes]
        if form == "json":
            return json.dumps([json.loads(table.json()) for table in tables], indent=1)
        heads = {"text": "{}\n\n", "md": "## {}\n\n", "csv": ""}
        empty = {"text": "none", "md": "none", "csv": ""}
        return "\n\n".join(
            heads[form].format(table.title[0].upper() + table.title[1:])
            + (table.render(form) if table.rows else "\n".join([empty[form], *table.notes]).strip())
            for table in tables
            if table.rows or form != "csv"
        )

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables())


def compare_runs(folders: Sequence[str | Path]) -> RunComparison:
    """Set runs beside each other.

    Args:
      folders: of two runs or more, finished or not.

    Raises:
      ZooError: fewer than two, or one that is not the folder of a run.

    >>> print(compare_runs(["runs/a", "runs/b"]).render())                   # doctest: +SKIP
    """
    chosen = {Path(folder).resolve(): read_run(folder) for folder in folders}
    if len(chosen) < 2:
        raise ZooError(f"got {len(chosen)} run to compare, expected two or more")
    return RunComparison(tuple(chosen.values()))


def _result(run: Run) -> tuple[Any, ...]:
    kept = run.kept
    if kept is None:
        return (plain(run.name), *[None] * 5, 0, None)
    count = 0 if run.several else len(run.answers)
    right = sum(label == answer for label, answer in run.answers.values())
    return (
        plain(run.name),
        right / count if count else kept["val_accuracy"],
        _points(*interval(right, count)) if count else "",
        count or None,
        kept["val_loss"],
        best_of(run.history)["epoch"],
        len(run.history),
        sum(record["seconds"] for record in run.history),
    )


def _points(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _setting(value: Any) -> str:
    return plain(f"{value}") if value is not None else "-"


@styled
def _curves(runs: Sequence[Run]) -> "Figure":
    need_matplotlib()
    drawn = figure(11, 4.2)
    drawn.set_layout_engine("constrained")
    accuracy, loss = drawn.subplots(1, 2)
    for i, run in enumerate(runs):
        look: dict[str, Any] = {
            "color": LINES[i % len(LINES)],
            "linestyle": DASHES[i // len(LINES) % len(DASHES)],
            "marker": ".",
            "label": plain(run.name),
        }
        epochs = [record["epoch"] for record in run.history]
        accuracy.plot(epochs, [100 * r["val_accuracy"] for r in run.history], **look)
        loss.plot(epochs, [r["val_loss"] for r in run.history], **look)
    accuracy.set_ylabel("validation accuracy (%)")
    loss.set_ylabel("validation loss")
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        tidy(axes)
    handles, labels = accuracy.get_legend_handles_labels()
    drawn.legend(
        handles, labels, loc="outside lower center", ncols=min(len(runs), 3), frameon=False
    )
    return drawn
