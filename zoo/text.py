"""Make text from outside, such as names of files and classes, safe to print in every format."""

import re
from typing import Any
from urllib.parse import quote

JOINERS = "\u200c\u200d"  # not printable by themselves, but parts of words and of emoji
# What Markdown gives a meaning to within a line: not every star, underscore or "less than" has one.
MARKDOWN = re.compile(
    r"[\\`\[\]|~$@]|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|\*(?=\S)|(?<=\S)\*"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.",
    re.IGNORECASE,
)
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001  what spreadsheets compute
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def plain(text: str, keep: str = "") -> str:
    r"""The text on one line, with escapes for what cannot be printed or controls a terminal.

    Args:
      text: any text.
      keep: characters to leave as they are.

    >>> plain("cat\nor \x1b[31mdog")
    'cat\\nor \\x1b[31mdog'
    """
    if text.isprintable():
        return text
    left = JOINERS + keep
    return "".join(
        c if c.isprintable() or c in left else c.encode("unicode_escape").decode() for c in text
    )


def reason(error: BaseException) -> str:
    """What an error says, as the end of a line of ours: 200 characters of plain text at most."""
    said = getattr(error, "strerror", None) or str(error)
    return plain(" ".join(said.split())[:200]) or type(error).__name__


def markdown(text: str) -> str:
    r"""The text escaped for Markdown: no links, no HTML, no end of a table cell.

    >>> markdown("<b>[cat](javascript:alert(1))")
    '\\<b>\\[cat\\](javascript:alert(1))'
    """
    return MARKDOWN.sub(lambda match: f"\\{match[0]}", plain(text))


def code(text: str) -> str:
    """The text as code within a line of Markdown.

    >>> code("a`b")
    '``a`b``'
    """
    text = plain(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{space}{text}{space}{fence}"


def block(text: str, language: str = "") -> str:
    """The text as a block of code in Markdown, without a line break at its end."""
    fence = "`" * max(max(map(len, re.findall("`+", text)), default=0) + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def cell(value: Any) -> Any:
    """A value for a CSV file that a spreadsheet will not take for a formula: `'` goes before one.

    https://owasp.org/www-community/attacks/CSV_Injection

    >>> cell("=1+2"), cell("-1"), cell(-1)
    ("'=1+2", '-1', -1)
    """
    if not isinstance(value, str) or not value.startswith(FORMULA) or NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def link(url: str) -> str:
    """An address that a page may link to; "" for anything but http and https."""
    return url if re.match(r"https?://", url, re.IGNORECASE) else ""


def markdown_link(text: str, url: str) -> str:
    """The text as a link in Markdown."""
    address = quote(plain(link(url)), safe=":/?#@!$&*+,;=%~'")
    return f"[{markdown(text)}]({address})"
