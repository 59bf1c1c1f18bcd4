"""The commands that look at runs: `zoo runs`, and `zoo compare` with folders of runs."""

import argparse
from pathlib import Path

from zoo.command import Commands, add_format, lines
from zoo.errors import ZooError

from . import needs


def add(found: Commands) -> None:
    """Add `zoo runs`, and let `zoo compare` take runs too."""
    parser = found.parsers["compare"]
    parser.set_defaults(run=_compare, of_networks=parser.get_default("run"))

    parser = found.add(
        "runs",
        _runs,
        "list the runs of a folder: network, data, epochs, accuracy, whether they are finished",
        "zoo runs --sort val_accuracy",
    )
    parser.add_argument("folder", nargs="?", default="runs", help="where to look (runs)")
    parser.add_argument("--sort", metavar="COLUMN", help="val_accuracy (best first), model, ...")
    add_format(parser)


def _compare(args: argparse.Namespace) -> None:
    if not any((Path(name) / "config.json").is_file() for name in args.names):
        args.of_networks(args)
        return
    needs.check()
    from .comparing import compare_runs  # slow to import

    if args.family or args.all:
        raise ZooError("--family and --all are of networks, got runs")
    found = compare_runs(args.names)
    if args.out:
        print("\n".join(map(str, found.save(args.out))))
    else:
        print(found.render(args.format))


def _runs(args: argparse.Namespace) -> None:
    needs.check()
    from zoo.report.listing import selected

    from .comparing import list_runs

    print(lines(selected(list_runs(args.folder), sort=args.sort), args.format))
