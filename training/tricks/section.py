"""What an experiment leaves to read: one section of the page."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.paths import write
from zoo.report.table import Column, Table
from zoo.text import markdown

FILE = "section.json"


@dataclass(frozen=True)
class Section:
    """The result of an experiment, complete but for its pictures, which lie beside it."""

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
    made: str  # when, on what, with which versions, how long

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

    def md(self, folder: str = "") -> str:
        """For the page; pictures lie in `folder`."""
        parts = [
            f"## {self.title}",
            f"> {markdown(self.claim)}",
            f"Source: [{markdown(self.source)}]({self.url}).",
            f"**Setting.** {markdown(self.setting)}",
            f"**Predicted.** {markdown(self.predicts)} Refuted by: {markdown(self.refuted_by)}",
            f"**Verdict: {self.verdict}.** {markdown(' '.join(self.found))}",
            self.beside().md(),
            self.table().md(),
            "\n".join(f"![{markdown(text)}]({folder}{file})" for file, text in self.pictures),
            *(markdown(note) for note in self.notes),
            f"`{self.command}` ({markdown(self.made)})",
        ]
        return "\n\n".join(part for part in parts if part)

    def save(self, folder: Path) -> None:
        """Write it into the experiment's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        write(folder / FILE, f"{text}\n".encode())

    @classmethod
    def load(cls, folder: Path) -> "Section":
        """Read what `save` wrote.

        Raises:
          ZooError: it cannot be read.
        """
        try:
            return cls(**_tuples(json.loads((folder / FILE).read_text("utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise ZooError(f"cannot read {folder / FILE}: {error}") from error


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
