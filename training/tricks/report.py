"""The page of all experiments: Markdown with its pictures beside it, and one file of HTML."""

import base64
import html
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path

from zoo.errors import ZooError
from zoo.paths import write
from zoo.report.claims import ARTICLE
from zoo.report.table import Column, Table
from zoo.text import markdown

from . import NAMES
from .section import FILE, Section, place
from .verdict import VERDICTS

TITLE = "What each trick buys"
INTRODUCTION = (
    f"The project grew from an article, {ARTICLE}, on why deep "
    "networks are hard to train and which tricks made it possible. Here each trick is a switch, "
    "and an experiment: the same network is trained with it and without it, each at the best of "
    "the same learning rates, with several seeds. The prediction was written down before. Lines "
    "are means over the seeds, bands their range; ± is a 95 % confidence interval by Student's t. "
    "The same command gives the same figures again on the same processor, with as many cores and "
    "the same version of jax; elsewhere rounding differs, and a training may end as another seed's "
    "would."
)


def sections(folder: Path) -> list[Section]:
    """The experiments that were run, in the article's order, on the digits and then on other data.

    Raises:
      ZooError: there are none.
    """
    found = [
        Section.load(file)
        for name in NAMES
        for pattern in (FILE, f"*/{FILE}")
        for file in sorted((folder / name).glob(pattern))
    ]
    if not found:
        raise ZooError(f"{folder}: no experiment was run there yet, see `zoo tricks run --help`")
    return found


def experiments(found: Sequence[Section]) -> list[list[Section]]:
    """The sections of each experiment."""
    return [list(same) for _, same in groupby(found, lambda section: section.name)]


def notes(same: Sequence[Section]) -> list[str]:
    """What to know when reading the results of an experiment, each note once."""
    return list(dict.fromkeys(note for section in same for note in section.notes))


def verdicts(found: Sequence[Section]) -> Table:
    """The verdicts, a row for each experiment on some data."""
    columns = (
        Column("trick", "trick", left=True),
        Column("claim", "the article's claim", left=True),
        Column("data", "data", left=True),
        Column("verdict", "verdict here", left=True),
        Column("found", "what was found", left=True),
    )
    rows = tuple(
        (*(("", "") if i else (s.title, s.claim)), s.data_title, s.verdict, s.found[0])
        for same in experiments(found)
        for i, s in enumerate(same)
    )
    legend = tuple(f"{name}: {text}." for name, text in VERDICTS.items())
    if missing := [name for name in NAMES if name not in {section.name for section in found}]:
        legend = (f"Not run here: {', '.join(missing)}.", *legend)
    return Table(TITLE, columns, rows, legend)


def report(folder: Path) -> list[Path]:
    """Write `README.md` and `tricks.html` of the experiments in a folder.

    Raises:
      ZooError: there are none, or the folder cannot be written.
    """
    found = sections(folder)
    parts = [f"# {TITLE}", markdown(INTRODUCTION), verdicts(found).md()]
    for same in experiments(found):
        parts += [same[0].heading_md(), *(section.md() for section in same)]
        parts += map(markdown, notes(same))
    page = [_experiment(same, folder) for same in experiments(found)]
    template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    text = (
        template.replace("@@TITLE@@", html.escape(TITLE))
        .replace("@@INTRODUCTION@@", html.escape(INTRODUCTION))
        .replace("@@VERDICTS@@", _table(verdicts(found)))
        .replace("@@SECTIONS@@", "\n".join(page))
    )
    made = {folder / "README.md": "\n\n".join(parts) + "\n", folder / "tricks.html": text}
    try:
        for path, content in made.items():
            write(path, content.encode())
    except OSError as error:
        raise ZooError(f"cannot write to {folder}: {error.strerror}") from error
    return list(made)


def _experiment(same: Sequence[Section], folder: Path) -> str:
    """An experiment as HTML, on all its data."""
    section = same[0]
    return "\n".join(
        [
            f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>',
            f"<blockquote>{html.escape(section.claim)}</blockquote>",
            _link(section),
            f"<p><b>Predicted.</b> {html.escape(section.predicts)} "
            f"<b>Refuted by:</b> {html.escape(section.refuted_by)}</p>",
            *(_section(section, folder) for section in same),
            *(f"<p>{html.escape(note)}</p>" for note in notes(same)),
            "</section>",
        ]
    )


def _section(section: Section, folder: Path) -> str:
    """What an experiment found on some data as HTML, its pictures within."""
    own = place(folder, section.name, section.data)
    pictures = []
    for file, text in section.pictures:
        data = base64.b64encode((own / file).read_bytes()).decode()
        pictures.append(f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">')
    paragraphs = [
        f"<b>Verdict: {html.escape(section.verdict)}.</b> {html.escape(' '.join(section.found))}",
        f"<b>Setting.</b> {html.escape(section.setting)}",
    ]
    made = f"<code>{html.escape(section.command)}</code> ({html.escape(section.made)})"
    return "\n".join(
        [
            f"<h3>{html.escape(section.title)}: {html.escape(section.data_title)}</h3>",
            *(f"<p>{text}</p>" for text in paragraphs),
            _table(section.beside()),
            f'<div class="pictures">{"".join(pictures)}</div>',
            _table(section.table()),
            f'<p class="faint">{made}</p>',
        ]
    )


def _link(section: Section) -> str:
    url, source = html.escape(section.url), html.escape(section.source)
    return f'<p>Source: <a href="{url}">{source}</a>.</p>'


def _table(table: Table) -> str:
    """A table that scrolls by itself where the page is narrow."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    head = line("th", [column.heading for column in table.columns])
    body = "".join(
        line("td", [column.show(value) for column, value in zip(table.columns, row, strict=True)])
        for row in table.rows
    )
    notes = "".join(f'<p class="faint">{html.escape(note)}</p>' for note in table.notes)
    return f'<div class="table"><table>{head}{body}</table></div>{notes}'
