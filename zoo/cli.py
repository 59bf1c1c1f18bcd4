"""The command `zoo`, without the commands that train, which `training.cli` adds.

Nothing here imports jax before a command runs, so that `zoo --help` is quick.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import pushing
from .command import (
    Commands,
    add_choosing,
    add_format,
    chosen,
    lines,
    none_left,
    note,
    progress,
    rendered,
)
from .errors import ZooError, unknown
from .switches import WITHOUT
from .text import plain

if TYPE_CHECKING:
    from .layers import Network

_NAME = "network, see `zoo list`; weights, see `zoo weights`; or a trained file or its run's folder"
_MODEL = (
    "published weights (see `zoo weights`), hf-hub:USER/REPO, a trained file, or its run's folder"
)


def commands() -> Commands:
    """The command with the subcommands that need no training."""
    command = Commands()
    parser = command.add(
        "list",
        _list,
        "list the networks: costs, best published accuracy, paper",
        "zoo list --max-params 6M --sort top1",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    add_choosing(parser, weights=False)
    add_format(parser)

    parser = command.add(
        "params",
        _params,
        "count the parameters and costs of networks",
        "zoo params resnet50 vgg16",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=_NAME)
    parser.add_argument("--layers", action="store_true", help="by stage and layer")
    parser.add_argument("--size", type=int, metavar="N", help="side of the input, pixels")
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images for activations (1)"
    )
    _add_channels(parser)
    parser.add_argument(
        "--without",
        default="",
        metavar="PART,...",
        help="leave these parts out of the networks: " + ", ".join(WITHOUT),
    )
    parser.add_argument(
        "--against",
        metavar="PEER,...",
        help="why a peer's number is another: torchvision, timm, keras, kerashub, slim, "
        "transformers, paper",
    )
    parser.add_argument("--claims", action="store_true", help="the article's arithmetic, checked")
    add_format(parser)

    parser = command.add(
        "info",
        _info,
        "tell what a network or its weights are: paper, stages, costs, licence, preprocessing",
        "zoo info inception_v3",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=_NAME)
    _add_channels(parser)
    add_format(parser, ("text", "md", "json"))

    parser = command.add(
        "compare",
        _compare,
        "set networks, or runs, beside each other, as a table, as pictures and as a page",
        "zoo compare vgg16 'resnet*' --out comparison\n         zoo compare runs/a runs/b",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="network, or shell pattern; or folders of runs"
    )
    parser.add_argument("--family", help="all networks of a family: resnet, mobilenet_v1")
    parser.add_argument("--all", action="store_true", help="all networks")
    parser.add_argument(
        "--out", metavar="FOLDER", help="write pictures (PNG, SVG), a page (HTML) and tables there"
    )
    add_format(parser)

    parser = command.add(
        "diff",
        _diff,
        "tell what differs between two networks, stage by stage",
        "zoo diff resnet50 resnet50_v2",
    )
    parser.add_argument("names", nargs=2, metavar="NAME", help=_NAME)
    add_format(parser)

    parser = command.add(
        "weights",
        _weights,
        "list published weights: accuracy, costs, licence, what they are checked against, "
        "and which are in the cache",
        "zoo weights --max-params 6M --licence commercial --sort top1",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="a network's name, or a shell pattern of names"
    )
    add_choosing(parser, weights=True)
    parser.add_argument(
        "--own", action="store_true", help="those of this project, which need no network"
    )
    add_format(parser)

    parser = command.add(
        "convert",
        _convert,
        "turn a published file into one of ours, every tensor checked",
        "zoo convert resnet50.pth resnet50.safetensors --model resnet50.tv2_in1k",
    )
    parser.add_argument("file", help="weights in a published format")
    parser.add_argument("out", help="file to write, .safetensors")
    parser.add_argument(
        "--model", required=True, help="the network they are for, or what they are published as"
    )
    _add_file_options(parser)
    parser.add_argument("--num-classes", type=int, metavar="N", help="0: without the classifier")
    _add_channels(parser, "as the file")

    parser = command.add(
        "export",
        _export,
        "write a network for other programs",
        "zoo export runs/photos photos.onnx --format onnx --uint8\n"
        "         zoo export runs/photos photos --format timm",
    )
    parser.add_argument("model", help=_MODEL)
    parser.add_argument("out", help="file to write; for timm it may be a folder")
    parser.add_argument(
        "--format",
        default="safetensors",
        metavar="FORM",
        help="safetensors (ours, the default), torchvision or timm (their names), stablehlo, onnx",
    )
    parser.add_argument(
        *("--uint8", "--preprocess"),
        dest="preprocess",
        action="store_true",
        help="take uint8 pictures, and normalise them inside (stablehlo, onnx)",
    )
    pushing.add(command)

    parser = command.add(
        "predict",
        _predict,
        "name what is in pictures",
        "zoo predict cat.jpg --model resnet50.a1_in1k",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="picture file, or folder of pictures"
    )
    parser.add_argument("--model", required=True, help=_MODEL)
    parser.add_argument("--file", help="weights in a published format, of the network --model")
    _add_file_options(parser)
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="how many classes to show (5)"
    )
    parser.add_argument("--png", metavar="FILE", help="write a contact sheet of the pictures too")
    add_format(parser, ("text", "csv", "json"))

    parser = command.add(
        "env",
        _env,
        "tell what is installed and what JAX sees, for bug reports too",
        "zoo env --format md",
    )
    add_format(parser)
    return command


def _add_channels(parser: argparse.ArgumentParser, usual: str = "3") -> None:
    parser.add_argument(
        "--in-chans", type=int, metavar="N", help=f"channels of the pictures ({usual})"
    )


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what a file from elsewhere does not say itself."""
    parser.add_argument("--layout", help="how the file names its tensors; default: by the file")
    parser.add_argument(
        "--like", metavar="WEIGHTS", help="published weights that it computes and sees like"
    )
    parser.add_argument("--numerics", metavar="NAME", help="how it computes: TORCH, TF or KERAS")
    parser.add_argument(
        "--preprocess", metavar="WEIGHTS", help="published weights that see pictures as it does"
    )
    parser.add_argument("--head", metavar="NAME", help="the layer of the file that classifies")


def _load(args: argparse.Namespace, **options: Any) -> "Network":
    """Load the network that the options ask for, and print what had to be assumed."""
    from .pretrained.store import load

    for name in ("layout", "like", "numerics", "preprocess", "head"):
        options[name] = getattr(args, name)
    model = load(args.model, file=args.file, **options)
    note(args, *model.notes)
    return model


def _list(args: argparse.Namespace) -> None:
    from .registry import list_models
    from .report.listing import models_table, none_matches, selected

    names = list_models(args.pattern)
    if not names:
        raise none_matches("networks", args.pattern, list_models())
    asked = chosen(args)
    found = selected(models_table(names), **asked)
    if not found.rows:
        raise none_left("networks", len(names), asked)
    print(lines(found, args.format))


def _env(args: argparse.Namespace) -> None:
    from .runtime.environment import environment

    report = environment()
    # whole lines, however long: they are to be read by others
    print(report.text(width=sys.maxsize) if args.format == "text" else report.render(args.format))


def _params(args: argparse.Namespace) -> None:
    from .registry import find
    from .report.asked import asked
    from .report.claims import ARTICLE, claims
    from .report.count_tables import networks
    from .report.many import count_many
    from .report.peers import against

    if args.claims:
        print(f"The arithmetic of the article {ARTICLE}, on the networks themselves:")
        for claim in claims():
            print(f"{claim.says}\n  article {claim.article}; here {claim.ours:.3f}", end="")
            print(f" = {claim.formula}")
        return
    if not args.names:
        raise ZooError("expected the name of a network, or --claims")
    if args.batch_size < 1:
        raise ZooError(f"--batch-size: got {args.batch_size}, expected 1 or more")
    # all are checked before the first is counted
    of = {name: found for name in args.names if (found := asked(name))}
    names = [find(name).name for name in args.names if name not in of]
    for option, given in (
        ("--against", args.against),
        ("--without", args.without),
        ("--in-chans", args.in_chans),
    ):
        if of and given:
            raise ZooError(f"{option}: expected networks alone, got {next(iter(of))}")
    if args.against is not None and args.in_chans not in (None, 3):
        raise ZooError(f"--against: peers count 3 channels, got --in-chans {args.in_chans}")
    if args.against is not None and args.without:
        raise ZooError(f"--against: peers have the whole network, got --without {args.without}")
    if args.against is not None:
        reports = [table for name in names for table in against(name, args.against)]
    else:
        with progress(len(names)) as bar:
            counted = count_many(
                names,
                input_size=args.size,
                in_chans=args.in_chans,
                without=args.without,
                on_done=bar.update,
            )
        each = iter(counted)
        counts = [of[n].count(args.size) if n in of else next(each) for n in args.names]
        if of:
            note(args, "weights and runs are counted with their own classes, networks with 1000")
        reports = (
            [c.table() for c in counts] if args.layers else [networks(counts, args.batch_size)]
        )
    print(rendered(reports, args.format))


def _info(args: argparse.Namespace) -> None:
    from .registry import find
    from .report.asked import asked
    from .report.card import info

    for name in args.names:  # all are checked before the first is counted
        asked(name) or find(name)
    print(rendered([info(name, in_chans=args.in_chans) for name in args.names], args.format))


def _compare(args: argparse.Namespace) -> None:
    from .registry import find, list_models, variants
    from .report.compare import compare, writable_folder
    from .report.listing import none_matches

    names = list_models() if args.all else []
    if args.family:
        members = [v.name for v in variants().values() if v.family == args.family]
        if not members:
            raise unknown("family", args.family, {v.family for v in variants().values()})
        names += members
    for name in args.names:
        if not (matching := list_models(name)) and set(name) & set("*?["):
            raise none_matches("networks", name, list_models())
        names += matching or [find(name).name]
    if not names:
        raise ZooError("expected names of networks, --family or --all")
    folder = writable_folder(args.out) if args.out else None
    with progress(len(set(names))) as bar:
        comparison = compare(names, on_done=bar.update)
    if folder is None:
        print(comparison.table().render(args.format))
    else:
        print("\n".join(map(str, comparison.save(folder))))


def _diff(args: argparse.Namespace) -> None:
    from .report.diff import diff

    print(diff(*args.names).render(args.format))


def _weights(args: argparse.Namespace) -> None:
    from .pretrained import own
    from .report.listing import list_weights, none_matches

    asked = chosen(args, "licence", "source", "cached")
    if args.own and asked:
        raise ZooError(f"--own: expected alone, got --{next(iter(asked)).replace('_', '-')} too")
    if args.own:
        print(own.table(args.pattern).render(args.format))
        return
    matching = list_weights(args.pattern)
    if not matching:
        from .registry import list_models

        raise none_matches("weights", args.pattern, [*list_weights(), *list_models()])
    found = list_weights(args.pattern, **asked)
    if not found:
        raise none_left("weights", len(matching), asked)
    print(lines(found.table(), args.format))


def _convert(args: argparse.Namespace) -> None:
    from .pretrained.folder import save

    model = _load(args, num_classes=args.num_classes, in_chans=args.in_chans, aux=True)
    save(model, _writable(args.out))
    print(f"{args.out}: {model.spec.name}, {model.spec.num_classes} classes")


def _export(args: argparse.Namespace) -> None:
    from .pretrained.store import load

    model = load(args.model)
    note(args, *model.notes)
    export_model(model, args)


def export_model(model: "Network", args: argparse.Namespace) -> None:
    """Write a network as the options of `zoo export` say."""
    from .pretrained.export import export

    export(model, _writable(args.out), args.format, preprocess=args.preprocess)
    print(args.out)


def _writable(out: str) -> Path:
    folder = Path(out).parent
    if not folder.is_dir():
        raise ZooError(f"cannot write {out}: no folder {folder}")
    return Path(out)


def _predict(args: argparse.Namespace) -> None:
    from .predicting import FORMS, SHEET, Answer, pictures_in, predict
    from .runtime.cache import enable_compilation_cache

    enable_compilation_cache()
    if args.top < 1:
        raise ZooError(f"--top: got {args.top}, expected 1 or more")
    sheet = _writable(args.png) if args.png else None
    images, others = pictures_in(args.images)
    if others:
        note(args, f"files left out that are no pictures by their names: {others}")
    model = _load(args, fold=True)
    if not model.spec.num_classes:
        raise ZooError(f"{args.model} has no classifier: expected a network that has one")
    bad: list[str] = []
    shown: list[Answer] = []

    def tell(line: str) -> None:
        bad.append(line)
        if len(images) > 1:
            with bar.external_write_mode(file=sys.stderr):
                note(args, line)

    with progress(len(images), "picture") as bar:

        def answers() -> Iterator[Answer]:
            for answer in predict(model, images, args.top, tell):
                if sheet and len(shown) < SHEET:
                    shown.append(answer)
                bar.update()
                yield answer

        for text in FORMS[args.format](answers(), images):
            with bar.external_write_mode(file=sys.stdout):
                print(text)
    if len(bad) == len(images):
        raise ZooError(bad[0] if len(bad) == 1 else f"none of {len(bad)} pictures could be read")
    if bad:
        note(args, f"{len(bad)} of {len(images)} pictures could not be read")
    if sheet:
        from .sheet import contact_sheet

        if len(shown) < len(images) - len(bad):
            note(args, f"the contact sheet shows the first {len(shown)} pictures")
        captions = [[plain(Path(a.image).name), *a.lines()] for a in shown]
        contact_sheet([answer.pixels for answer in shown], captions).save(sheet)
        print(sheet, file=sys.stdout if args.format == "text" else sys.stderr)
