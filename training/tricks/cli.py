"""The command `zoo tricks`."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from zoo.command import Commands
from zoo.errors import ZooError

from .. import needs

ASKED = ("data", "model", "epochs", "image_size", "batch_size", "weights", "classes")


def add(found: Commands) -> None:
    """Add the command."""
    parser = found.add(
        "tricks",
        _tricks,
        "list the article's tricks, measure what each buys, and make a page of it",
        "zoo tricks run batch_norm --seeds 3",
    )
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "run", "report"), help="(list)"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of tricks to run, or all")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where results are kept (runs/tricks)", type=Path
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="trainings of each arm, after the search (3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one epoch and one seed: to see that it works"
    )
    for name, kind, text in (
        ("data", str, "as of zoo train (digits)"),
        ("model", str, "network in place of the experiment's"),
        ("epochs", int, "in place of the experiment's"),
        ("image_size", int, "side of the pictures, pixels"),
        ("batch_size", int, "pictures a step"),
        ("weights", str, "for transfer: published weights to start from, or a file"),
        ("classes", str, "for transfer: classes to learn, with commas"),
    ):
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            metavar=kind.__name__.upper(),
            default=argparse.SUPPRESS,
            help=text,
        )


def _tricks(args: argparse.Namespace) -> None:
    needs.check()
    if args.action != "run" and args.names:
        raise ZooError(f"{args.action} takes no names, got {' '.join(args.names)}")
    out = args.out or Path("runs/tricks-quick" if args.quick else "runs/tricks")
    {"list": _list, "run": _run, "report": _report}[args.action](args, out)


def _list(_args: argparse.Namespace, _out: Path) -> None:
    from zoo.report.table import Column, Table

    from . import NAMES, devices, trick

    rows = [(name, devices.CLAIM if name == "devices" else trick(name).claim) for name in NAMES]
    columns = (Column("name", "name", left=True), Column("claim", "claim", left=True))
    print(Table("tricks", columns, tuple(rows)).text(width=200))


def _run(args: argparse.Namespace, out: Path) -> None:
    from zoo.runtime.cache import enable_compilation_cache

    from . import NAMES
    from .run import run
    from .section import place

    if not args.names:
        raise ZooError(f"expected the name of a trick, or all: {', '.join(NAMES)}")
    names = list(NAMES) if "all" in args.names else args.names
    asked: dict[str, Any] = {key: value for key, value in vars(args).items() if key in ASKED}
    enable_compilation_cache()
    for name in names:
        options = [f"--{key.replace('_', '-')} {shlex.quote(str(v))}" for key, v in asked.items()]
        options += ["--quick"] if args.quick else [f"--seeds {args.seeds}"]
        section = run(
            name,
            out,
            seeds=args.seeds,
            asked=asked,
            quick=args.quick,
            command=" ".join(["zoo tricks run", name, *options]),
        )
        print(section.text())
        print(place(out, name, section.data), file=sys.stderr)


def _report(_args: argparse.Namespace, out: Path) -> None:
    from .report import report

    for path in report(out):
        print(f"wrote {path}")
