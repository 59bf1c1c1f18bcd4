"""What an experiment leaves to read: one section of the page."""

import datetime
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.paths import write
from zoo.report.table import Column, Table
from zoo.text import markdown

from .experiment import DIGITS

FILE = "section.json"
# of data, as their authors write them
WRITTEN = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "imagenette": "Imagenette",
}


def place(folder: Path, name: str, data: str) -> Path:
    """Where in the folder of all experiments a section lies: those of the digits come first."""
    return folder / name if data == DIGITS else folder / name / data


def provenance(device: str, cores: int, jax: str, seconds: float) -> str:
    """When, on what, with which versions, and how long an experiment was run."""
    counted = "1 core" if cores == 1 else f"{cores} cores"
    return (
        f"{datetime.date.today()}, {device}, {counted}, jax {jax}, "
        f"Python {platform.python_version()}, {seconds / 60:.1f} minutes"
    )


@dataclass(frozen=True)
class Section:
    """The result of an experiment on some data, but for its pictures, which lie beside it."""

    name: str
    title: str
    claim: str
    source: str
    url: str
    figures: tuple[tuple[str, str, str], ...]  # of the source: what, without, with
    ours: tuple[tuple[str, str, str], ...]  # the same of ours
    setting: str
    predicts: str
    refuted_by: str
    verdict: str
    found: tuple[str, ...]  # sentences
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the first cell is text, the others are numbers
    pictures: tuple[tuple[str, str], ...]  # file, and what it shows
    notes: tuple[str, ...]
    command: str
    made: str  # its provenance
    data: str = DIGITS  # its name

    @property
    def data_title(self) -> str:
        """The name of the data for people."""
        return WRITTEN.get(self.data, self.data)

    def table(self) -> Table:
        """The results by arm."""
        columns = tuple(
            Column(heading, heading, left=i == 0) for i, heading in enumerate(self.headings)
        )
        return Table(self.title, columns, self.rows)

    def beside(self) -> Table:
        """The source's figures and ours."""
        columns = tuple(
            Column(key, heading, left=True)
            for key, heading in (
                ("what", "what"),
                ("without", "without"),
                ("with", "with the trick"),
                ("where", "where"),
            )
        )
        rows = [(*figure, "source") for figure in self.figures]
        rows += [(*figure, "here") for figure in self.ours]
        return Table(self.title, columns, tuple(rows))

    def text(self, width: int = 80) -> str:
        """For a terminal."""
        lines = [self.title, "", self.table().text(width), "", *self.found]
        return "\n".join([*lines, f"verdict: {self.verdict}"])

    def heading_md(self) -> str:
        """What the experiment claims and predicts on all data, for the page."""
        parts = [
            f"## {self.title}",
            f"> {markdown(self.claim)}",
            f"Source: [{markdown(self.source)}]({self.url}).",
            f"**Predicted.** {markdown(self.predicts)} Refuted by: {markdown(self.refuted_by)}",
        ]
        return "\n\n".join(parts)

    def md(self) -> str:
        """What it found on its data, for the page."""
        folder = place(Path(), self.name, self.data).as_posix()
        parts = [
            f"### {self.title}: {markdown(self.data_title)}",
            f"**Setting.** {markdown(self.setting)}",
            f"**Verdict: {self.verdict}.** {markdown(' '.join(self.found))}",
            self.beside().md(),
            self.table().md(),
            "\n".join(f"![{markdown(text)}]({folder}/{file})" for file, text in self.pictures),
            f"`{self.command}` ({markdown(self.made)})",
        ]
        return "\n\n".join(part for part in parts if part)

    def save(self, folder: Path) -> None:
        """Write it to its place in the folder of all experiments."""
        own = place(folder, self.name, self.data)
        own.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        write(own / FILE, f"{text}\n".encode())

    @classmethod
    def load(cls, file: Path) -> "Section":
        """Read what `save` wrote.

        Raises:
          ZooError: it cannot be read.
        """
        try:
            return cls(**_tuples(json.loads(file.read_text("utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise ZooError(f"cannot read {file}: {error}") from error


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
