"""The command `zoo`: list, params and predict. `training.cli` adds the commands that train.

Nothing here imports jax before a command runs, so that `zoo --help` answers at once.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .errors import ZooError

Command = Callable[[argparse.Namespace], None]


class Commands:
    """The command `zoo` and its subcommands."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="zoo",
            description="The classic convolutional networks in JAX: look, load, train, predict.",
            epilog="example: zoo train mobilenet_v1_025 --data digits\n\n"
            "Compiled programs are kept in ~/.cache/zoo/xla, at most 1 GB of them.\n"
            "Environment: ZOO_COMPILE_CACHE=off or a size (500M, 2G); ZOO_CACHE, the folder for\n"
            "~/.cache/zoo; JAX_COMPILATION_CACHE_DIR, JAX's own setting, goes first.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._subparsers = self.parser.add_subparsers(
            dest="command", required=True, metavar="COMMAND"
        )

    def add(self, name: str, run: Command, text: str, example: str) -> argparse.ArgumentParser:
        """A subcommand: its parser, to give arguments to."""
        parser = self._subparsers.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(run=run)
        return parser


def commands() -> Commands:
    """The command with what needs no training."""
    found = Commands()
    parser = found.add("list", _list, "list the networks", "zoo list 'resnet*'")
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")

    parser = found.add(
        "params",
        _params,
        "count the parameters and costs of networks",
        "zoo params resnet50 vgg16",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="network, see `zoo list`")
    parser.add_argument("--layers", action="store_true", help="a line for each layer")
    parser.add_argument("--size", type=int, help="side of the input, pixels")
    parser.add_argument("--claims", action="store_true", help="the article's arithmetic, checked")

    parser = found.add(
        "predict",
        _predict,
        "name what is in pictures",
        "zoo predict cat.jpg --model runs/photos/model.safetensors",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture file")
    parser.add_argument("--model", required=True, help="file of a trained network")
    parser.add_argument("--top", type=int, default=5, help="how many classes to show (5)")
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Rows under a head, the first `left` columns flush left, the others right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cell(column: int, text: str) -> str:
        return text.ljust(widths[column]) if column < left else text.rjust(widths[column])

    return "\n".join(
        "  ".join(cell(i, text) for i, text in enumerate(line)).rstrip() for line in lines
    )


def _list(args: argparse.Namespace) -> None:
    from .registry import list_models, variants

    found = [variants()[name] for name in list_models(args.pattern)]
    if not found:
        raise ZooError(f"no network matches {args.pattern!r}; `zoo list` shows all")
    rows = [(v.name, ", ".join(v.aliases), v.paper) for v in found]
    print(table(("network", "also called", "paper"), rows, left=3))


def _params(args: argparse.Namespace) -> None:
    from .registry import find
    from .report.count import count

    if args.claims:
        from .report.claims import claims

        for claim in claims():
            print(f"{claim.says}\n  article {claim.article}; here {claim.ours:.3f}", end="")
            print(f" = {claim.formula}")
        return
    if not args.names:
        raise ZooError("expected the name of a network, or --claims")
    names = [find(name).name for name in args.names]  # all are checked before the first is counted
    counts = [count(name, input_size=args.size) for name in names]
    head = ("network", "parameters", "of them head", "BN statistics", "MACs (G)", "input")
    rows = [
        (
            c.name,
            f"{c.params:,}",
            f"{c.head:,}",
            f"{c.batch_stats:,}",
            f"{c.macs / 1e9:.3f}",
            str(c.input_size),
        )
        for c in counts
    ]
    print(table(head, rows))
    if args.layers:
        for c in counts:
            layers = [
                (r.name, "x".join(map(str, r.output)), f"{r.params:,}", f"{r.macs / 1e6:,.1f}")
                for r in c.layers
            ]
            print("\n" + table((c.name, "output", "parameters", "MACs (M)"), layers))


def _predict(args: argparse.Namespace) -> None:
    import jax
    import numpy as np

    from .cache import enable_compilation_cache
    from .pretrained.store import load

    enable_compilation_cache()
    model = load(args.model, fold=True)
    images = model.preprocess([Path(image) for image in args.images])
    probabilities = np.asarray(jax.nn.softmax(jax.jit(model.logits)(images)))
    names = model.classes or [f"class {i}" for i in range(model.spec.num_classes)]
    for image, row in zip(args.images, probabilities, strict=True):
        print(image)
        for i in row.argsort()[::-1][: args.top]:
            print(f"  {row[i]:6.1%}  {names[i]}")
