"""Text laid out for a terminal: paragraphs, and tables in aligned columns."""

import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence

NARROWEST = 40  # characters: nothing is squeezed into less


def line_width() -> int:
    """Characters in a line of the terminal; 80 where the output goes elsewhere.

    `COLUMNS` in the environment overrides both.
    """
    return max(shutil.get_terminal_size().columns, NARROWEST)


def fill(text: str, width: int, indent: str = "  ") -> str:
    """Text in lines of `width` characters, the second and later ones indented; URLs stay whole."""
    return textwrap.fill(
        text,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Collection[int] = (0,),
    *,
    width: int | None = None,
    heading: int | None = None,
) -> str:
    """Rows of cells under their headings, two spaces between the columns.

    Args:
      head: the heading of each column.
      rows: the cells of each row, as many as headings.
      left: numbers of the columns that are flush left (text). The others are flush right (numbers).
      width: characters in a line. Columns that do not fit beside the others follow below, the first
        one repeated; a cell too wide even so is cut. None: one line a row, however long.
      heading: characters at which headings of numbers are broken, between words. None: never.
    """
    headings = [
        [text]
        if heading is None or i in left
        else textwrap.wrap(text, heading, break_long_words=False)
        for i, text in enumerate(head)
    ]
    tall = max(map(len, headings))
    lines = [*zip(*([""] * (tall - len(h)) + h for h in headings), strict=True), *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    blocks = [[*range(len(widths))]] if width is None else _blocks(widths, width)

    def fitted(i: int, text: str) -> str:
        if len(text) > widths[i]:
            text = text[: widths[i] - 1] + "…"
        return text.ljust(widths[i]) if i in left else text.rjust(widths[i])

    return "\n\n".join(
        "\n".join("  ".join(fitted(i, line[i]) for i in block).rstrip() for line in lines)
        for block in blocks
    )


def _blocks(widths: list[int], width: int) -> list[list[int]]:
    """The numbers of the columns that stand beside each other; narrows `widths` to fit."""
    widths[0] = min(widths[0], width // 2)
    blocks = [[0]]
    for i in range(1, len(widths)):
        if len(blocks[-1]) > 1 and sum(widths[j] + 2 for j in blocks[-1]) + widths[i] > width:
            blocks.append([0])
        blocks[-1].append(i)
        widths[i] = min(widths[i], width - widths[0] - 2)
    return blocks
