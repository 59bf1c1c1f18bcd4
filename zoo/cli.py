"""The command `zoo`, but for the commands that train, which `training.cli` adds.

Nothing here imports jax before a command runs, so that `zoo --help` answers at once.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .errors import ZooError

Command = Callable[[argparse.Namespace], None]

_MODEL = "published weights (see `zoo weights`), or the file of a network"


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
        "weights",
        _weights,
        "list published weights: licence, size, accuracy, and which are in the cache",
        "zoo weights 'resnet50*'",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")

    parser = found.add(
        "convert",
        _convert,
        "turn a published file into one of ours, every tensor checked",
        "zoo convert resnet50.pth resnet50.safetensors --model resnet50 --layout torchvision",
    )
    parser.add_argument("file", help="weights in a published format")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument(
        "--model", required=True, help="the network they are for, or what they are published as"
    )
    parser.add_argument("--layout", help="how the file names its tensors; default: by the file")
    parser.add_argument("--num-classes", type=int, help="0: without the classifier")

    parser = found.add(
        "export",
        _export,
        "write a network for other programs",
        "zoo export runs/photos/model.safetensors photos.onnx --format onnx",
    )
    parser.add_argument("model", help=_MODEL)
    parser.add_argument("out", help="file to write")
    parser.add_argument(
        "--format",
        default="safetensors",
        help="safetensors (ours), torchvision or timm (their names), stablehlo, onnx",
    )
    parser.add_argument(
        "--preprocess", action="store_true", help="take uint8 pictures (stablehlo, onnx)"
    )

    parser = found.add(
        "predict",
        _predict,
        "name what is in pictures",
        "zoo predict cat.jpg --model resnet50.a1_in1k",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture file")
    parser.add_argument("--model", required=True, help=_MODEL)
    parser.add_argument("--top", type=int, default=5, help="how many classes to show (5)")
    parser.add_argument("--png", metavar="FILE", help="write a contact sheet of the pictures too")
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


def _weights(args: argparse.Namespace) -> None:
    from .pretrained.catalogue import list_weights, weights
    from .pretrained.store import in_cache

    found = [weights(name) for name in list_weights(args.pattern)]
    if not found:
        raise ZooError(f"no weights match {args.pattern!r}; `zoo weights` shows all")
    rows = [
        (
            w.name,
            w.licence + (" (non-commercial)" if w.non_commercial else ""),
            "yes" if in_cache(w) else "",
            *("" if value is None else f"{value:.1f}" for value in (w.size_mb, w.top1, w.top5)),
        )
        for w in found
    ]
    print(table(("weights", "licence", "cached", "MB", "top-1", "top-5"), rows, left=3))


def _convert(args: argparse.Namespace) -> None:
    from .pretrained.store import load, save

    model = load(
        args.model, file=args.file, layout=args.layout, num_classes=args.num_classes, aux=True
    )
    save(model, _writable(args.out))
    print(f"{args.out}: {model.spec.name}, {model.spec.num_classes} classes")


def _export(args: argparse.Namespace) -> None:
    from .pretrained.export import export
    from .pretrained.store import load

    export(load(args.model), _writable(args.out), args.format, preprocess=args.preprocess)
    print(args.out)


def _writable(out: str) -> Path:
    folder = Path(out).parent
    if not folder.is_dir():
        raise ZooError(f"cannot write {out}: no folder {folder}")
    return Path(out)


def _predict(args: argparse.Namespace) -> None:
    import jax
    import numpy as np

    from .cache import enable_compilation_cache
    from .pretrained.store import load

    enable_compilation_cache()
    sheet = _writable(args.png) if args.png else None
    model = load(args.model, fold=True)
    pictures = np.stack([model.preprocess.image(Path(image)) for image in args.images])
    logits = jax.jit(model.logits)(model.preprocess.normalize(pictures))
    probabilities = np.asarray(jax.nn.softmax(logits))
    names = model.classes or [f"class {i}" for i in range(model.spec.num_classes)]
    answers = [
        [f"{row[i]:6.1%}  {names[i]}" for i in row.argsort()[::-1][: args.top]]
        for row in probabilities
    ]
    for image, lines in zip(args.images, answers, strict=True):
        print("\n".join([image, *("  " + line for line in lines)]))
    if sheet:
        from .sheet import contact_sheet

        captions = [
            [Path(image).name, *lines] for image, lines in zip(args.images, answers, strict=True)
        ]
        contact_sheet(list(pictures), captions).save(sheet)
        print(sheet)
