"""What the subcommands of `zoo` share: their parser, its errors, and how a report is printed."""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import ZooError, unknown
from .terminal import fill, line_width
from .text import plain

if TYPE_CHECKING:
    from tqdm import tqdm

    from .report.card import Card
    from .report.table import Table

Command = Callable[[argparse.Namespace], None]

CHOICE = re.compile(r"argument (.+?): invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)
NUMBER = re.compile(r"argument (.+?): invalid (int|float) value: '(.*)'", re.DOTALL)
KINDS = {"int": "a whole number", "float": "a number"}
KIND = {"COMMAND": "command"}


class Help(argparse.RawDescriptionHelpFormatter):
    """Breaks lines between words only, not at hyphens: addresses and options stay whole."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line, with the nearest valid choice."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.arguments: list[argparse.Action] = []  # but for those of groups
        super().__init__(*args, **settings)

    def add_argument(self, *args: Any, **settings: Any) -> argparse.Action:
        """Add an argument, as argparse does, and keep it."""
        self.arguments.append(super().add_argument(*args, **settings))
        return self.arguments[-1]

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with code 2."""
        if found := CHOICE.fullmatch(message):
            argument, got, choices = found.groups()
            names = [name.strip("' ") for name in choices.split(",")]
            message = f"{unknown(KIND.get(argument, argument), got, names)}"
        if found := NUMBER.fullmatch(message):
            argument, kind, got = found.groups()
            message = f"{argument}: got {got!r}, expected {KINDS[kind]}"
        self.exit(2, plain(f"{self.prog}: {message}; see `{self.prog} --help`") + "\n")


class Commands:
    """The command `zoo` and its subcommands."""

    def __init__(self) -> None:
        from . import __version__

        self.parser = Parser(
            prog="zoo",
            description="The classic convolutional networks in JAX: look, load, train, predict.",
            epilog="example: zoo train mobilenet_v1_025 --data digits\n\n"
            "Compiled programs are kept in ~/.cache/zoo/xla, at most 1 GB of them.\n"
            "Environment: ZOO_COMPILE_CACHE=off or a size (500M, 2G); ZOO_CACHE, the folder\n"
            "for ~/.cache/zoo; JAX_COMPILATION_CACHE_DIR, JAX's own setting, goes first.",
            formatter_class=Help,
        )
        self.parser.add_argument("--version", action="version", version=f"zoo {__version__}")
        self._subparsers = self.parser.add_subparsers(
            dest="command", required=True, metavar="COMMAND", parser_class=Parser
        )
        self.parsers: dict[str, Parser] = {}  # of the subcommands, by name

    def add(self, name: str, run: Command, text: str, example: str) -> Parser:
        """Add a subcommand, and return its parser to add arguments to."""
        parser = self._subparsers.add_parser(
            name,
            help=text,
            description=fill(text[0].upper() + text[1:] + ".", line_width() - 2, indent=""),
            epilog=f"example: {example}",
            formatter_class=Help,
        )
        parser.set_defaults(run=run)
        self.parsers[name] = parser
        return parser

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The arguments of a command line; a wrong one ends the process with a line and code 2."""
        args, rest = self.parser.parse_known_args(argv)
        if rest:
            parser = self.parsers[args.command]
            option = rest[0].partition("=")[0]
            known = re.findall(r"(?<![\w-])--[a-z][\w-]*", parser.format_help())
            parser.error(
                f"{unknown('option', option, {*known} - {'--help'})}"
                if option.startswith("--")
                else f"unexpected argument {rest[0]!r}"
            )
        return args


def add_format(
    parser: argparse.ArgumentParser, forms: Sequence[str] = ("text", "md", "csv", "json")
) -> None:
    """Add the option `--format`."""
    parser.add_argument(
        "--format", default=forms[0], choices=forms, metavar="FORM", help=f"{', '.join(forms)}"
    )


def note(args: argparse.Namespace, *lines: str) -> None:
    """Print notes to stderr."""
    for line in lines:
        print(plain(f"zoo {args.command}: {line}"), file=sys.stderr)


def rendered(reports: "Sequence[Table | Card]", form: str) -> str:
    """Reports one below the other; one document, as JSON."""
    if form == "json" and len(reports) > 1:
        return "[" + ",\n".join(report.json() for report in reports) + "]"
    return "\n\n".join(getattr(report, form)() for report in reports)


def lines(table: "Table", form: str) -> str:
    """A long table with one line a row: whole, or cut where a terminal ends."""
    if form != "text":
        return table.render(form)
    text = table.text(width=sys.maxsize)
    if not sys.stdout.isatty():
        return text
    width = line_width()
    return "\n".join(x if len(x) <= width else x[: width - 1] + "…" for x in text.splitlines())


def progress(total: int, unit: str = "network") -> "tqdm[Any]":
    """A progress bar on a terminal, which is cleared at the end."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, leave=False, disable=None if total > 1 else True)


def add_choosing(parser: argparse.ArgumentParser, *, weights: bool) -> None:
    """Add the options that sort and filter networks, or published weights."""
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        help="top1 (best first), params, macs, input_size (least first), "
        + ("size_mb, licence, ..." if weights else "year, ..."),
    )
    parser.add_argument("--max-params", metavar="N", help="parameters at most: 6M")
    parser.add_argument("--max-macs", metavar="N", help="multiply-accumulates at most: 1G")
    parser.add_argument(
        "--min-top1", type=float, metavar="PERCENT", help="top-1 on ImageNet at least: 75"
    )
    if weights:
        parser.add_argument(
            "--licence", metavar="NAME", help="commercial (allows it), or a licence: MIT, ..."
        )
        parser.add_argument("--source", metavar="NAME", help="timm, torchvision, keras, ...")
        parser.add_argument("--cached", action="store_true", help="only what needs no download")


def chosen(args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """What `add_choosing` added, as settings; `more` are those of weights alone."""
    names = ("sort", "max_params", "max_macs", "min_top1", *more)
    return {name: value for name in names if (value := getattr(args, name)) not in (None, False)}


def none_left(what: str, count: int, settings: dict[str, Any]) -> ZooError:
    """The error where no row passes the filters."""
    asked = " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in settings.items()
        if name != "sort"
    )
    return ZooError(f"none of {count} {what} pass {asked}")
