"""The command `zoo` with what trains: train, finetune, evaluate, runs, reproduce, tricks, plan."""

import argparse
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli import commands, export_model
from zoo.command import Commands, add_format
from zoo.completion import SHELLS, script
from zoo.errors import ZooError
from zoo.terminal import table
from zoo.text import plain

from . import needs, runs, stopping, typed
from .config import DTYPES, FINETUNE, TrainConfig
from .options import (
    FINETUNE_HELP,
    HELP,
    add_previews,
    add_recipe,
    add_settings,
    given,
    with_recipe,
)
from .stopping import EXIT_INTERRUPTED
from .topologies import known, topologies, topology
from .tricks import cli as tricks

if TYPE_CHECKING:
    from .data import Dataset
    from .logging import Record

EXIT_OUTSIDE = 1
EXIT_BAD_INPUT = 2
LIST = "list"  # what `zoo plan --topology` is asked without a name


def main(argv: list[str] | None = None) -> None:
    """Run the command. Bad input is one line and exit code 2; an interrupted run exits with 75.

    Args:
      argv: None: the process is the command.
    """
    if argv is None:
        stopping.take_over()
    args = command().parse(argv)
    words = typed.COMMAND.set(typed.typed(sys.argv[1:] if argv is None else argv))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text at all
    try:
        args.run(args)
    except ZooError as error:
        print(plain(f"zoo {args.command}: {error}", keep="\n"), file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `zoo list | head`
        sys.stderr.close()
    finally:
        typed.COMMAND.reset(words)


def command() -> Commands:
    """The whole command line."""
    zoo_commands = commands()
    _add_training(zoo_commands)
    return zoo_commands


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    return command().parser


def _add_training(found: Commands) -> None:
    parser = found.add(
        "train",
        _train,
        "train a network from random weights",
        "zoo train mobilenet_v1_025 --data digits --out runs/digits",
    )
    parser.add_argument("model", nargs="?", help=HELP["model"] + "; default: the recipe's")
    add_recipe(parser)
    add_settings(parser, TrainConfig().to_dict())
    add_previews(parser)

    parser = found.add(
        "finetune",
        _finetune,
        "fine-tune a pretrained network on your own pictures",
        "zoo finetune resnet18.a1_in1k --data folder:photos/ --out runs/photos",
    )
    parser.add_argument("model", help="published weights, see `zoo weights`; or a network")
    add_settings(parser, {**TrainConfig().to_dict(), **FINETUNE}, FINETUNE_HELP)
    parser.usage = "%(prog)s --data TEXT [--out TEXT] [--epochs N] [option ...] MODEL"
    add_previews(parser)

    parser = found.add(
        "evaluate",
        _evaluate,
        "measure a trained network on a dataset",
        "zoo evaluate resnet50.a1_in1k --data folder:imagenet/val",
    )
    parser.add_argument(
        "model", help="weights by name, a trained network's file, or the folder of its run"
    )
    parser.add_argument("--data", required=True, help=HELP["data"])
    parser.add_argument(
        "--split",
        choices=("all", "train", "val", "test"),
        help="pictures to use; default: val, or all of a folder without a split that the network"
        " was not trained on",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at a time (64)")
    parser.add_argument("--dtype", choices=DTYPES, help="to compute in (the network's own)")
    parser.add_argument("--skip-unreadable", action="store_true", help=HELP["skip_unreadable"])
    parser.add_argument(
        "--mirror", action="store_true", help="judge by each picture and its mirror image together"
    )

    parser = found.add(
        "reproduce",
        _reproduce,
        "train weights of our own again by their recipe, and compare them with their card; "
        "the exit code is 1 if they lie outside its interval",
        "zoo reproduce mobilenet_v1_025.digits",
    )
    parser.add_argument("weights", metavar="NETWORK.TAG", help="see `zoo weights --own`")
    parser.add_argument("--data", help="the pictures that they were trained on: cifar10:PATH")
    parser.add_argument("--out", help="folder of the run; an interrupted run there is continued")

    tricks.add(found)

    parser = found.parsers["export"]
    parser.add_argument(
        "--epoch",
        metavar="EPOCH",
        help="of a run, whose folder MODEL is then: best, last, or the number of one it still has",
    )
    parser.set_defaults(run=_export, of_file=parser.get_default("run"))

    runs.add(found)

    parser = found.add(
        "completion",
        _completion,
        "print a script that completes this command in a shell, for the shell's folder of them: "
        "~/.local/share/bash-completion/completions/zoo, for bash",
        "zoo completion bash",
    )
    parser.add_argument("shell", choices=SHELLS, help=", ".join(SHELLS), metavar="SHELL")

    parser = found.add(
        "plan",
        _plan,
        "tell whether a run would fit machines that are not here, and how fast it could be",
        "zoo plan resnet50 --topology v5e:4x4 --batch-size 4096 --dtype bfloat16",
    )
    parser.add_argument("model", nargs="?", help=HELP["model"] + "; default: the recipe's")
    parser.add_argument(
        "--topology",
        nargs="?",
        const=LIST,
        metavar="NAME",
        help=f"the machine: a TPU, for which the step is compiled (with the extra `plan`), or "
        f"GPUs, for which it is counted. {known()}. Without a name: list them",
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="INT", help="of the classifier; default: data's, or 1000"
    )
    add_recipe(parser)
    add_format(parser, ("text", "md", "json"))
    add_settings(parser, {**TrainConfig().to_dict(), "data": None, "engine": "shard_map"})


def _train(args: argparse.Namespace) -> None:
    needs.check()
    _run(TrainConfig.from_dict(with_recipe(args)), args)


def _finetune(args: argparse.Namespace) -> None:
    needs.check()
    from .finetuning import finetune_config

    if "data" not in args:
        raise ZooError("--data is missing: expected your pictures, such as folder:photos/")
    _run(finetune_config(**given(args)), args, enough="epochs" not in args)


def _run(config: TrainConfig, args: argparse.Namespace, *, enough: bool = False) -> None:
    """Train, or draw the previews asked for; `enough`: with enough epochs to fine-tune."""
    from zoo.runtime.cache import enable_compilation_cache

    from . import distributed

    distributed.start(args.coordinator, args.processes, args.process)
    enable_compilation_cache()
    dataset = None
    if enough:
        from .finetuning import with_enough_epochs

        config, dataset = with_enough_epochs(config)
    previews = (
        (args.show_schedule, _schedule),
        (args.show_batch, _batch),
        (args.find_lr, _find_rate),
    )
    asked = [(path, preview) for path, preview in previews if path]
    for path, preview in asked:
        preview(config, Path(path))
    if not asked:
        _fit(config, dataset)


def _schedule(config: TrainConfig, path: Path) -> None:
    import optax

    from zoo.context import Spec
    from zoo.layers import model_stages
    from zoo.registry import abstract, find

    from . import optim, plots
    from .phases import phases
    from .session import open_data

    each = len(open_data(config).train) // config.batch_size  # steps an epoch
    parts = phases(config, model_stages(abstract(Spec(find(config.model).name))))
    rate = optax.join_schedules(
        [
            optim.schedule(config, part.learning_rate, (part.stop - part.start) * each, each)
            for part in parts
        ],
        [part.stop * each for part in parts[:-1]],
    )
    if not plots.draw_schedule(config, rate, config.epochs * each, each, path):
        raise ZooError(f"{path} needs matplotlib: pip install matplotlib")
    print(f"wrote {path}")


def _batch(config: TrainConfig, path: Path) -> None:
    from .show import show_batch

    print(f"wrote {show_batch(config, path)}")


def _find_rate(config: TrainConfig, path: Path) -> None:
    from .lr_finder import find_learning_rate

    finding = find_learning_rate(config)
    for file in finding.save(path):
        print(f"wrote {file}")
    print(f"suggestion: --learning-rate {finding.suggestion:.2g}")


def _fit(config: TrainConfig, dataset: "Dataset | None" = None) -> "Record":
    """Train, print what came of it, and return the record of the epoch that is kept."""
    from .fitting import fit_opened
    from .logging import best_of, kept_of
    from .stopping import Interrupted

    try:
        result = fit_opened(config, dataset)
    except Interrupted as stopped:
        print(f"zoo: {stopped}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    last = result.history[-1]
    best, kept = best_of(result.history), kept_of(result.history, config.keep)
    rows = [
        ("validation accuracy", f"{kept['val_accuracy']:.2%}"),
        ("validation loss", f"{kept['val_loss']:.4f}"),
        ("training accuracy", f"{kept['train_accuracy']:.2%}"),
        ("best epoch", f"{best['epoch']} ({best['val_accuracy']:.2%})"),
        ("epochs", str(last["epoch"])),
        ("training time", f"{sum(record['seconds'] for record in result.history):.0f} s"),
        ("speed, last epoch", f"{last['images_per_second']:,.0f} img/s"),
        ("waiting for input", f"{last['input_wait']:.0%}"),
    ]
    print(table((plain(config.model), plain(config.data)), rows))
    print(f"run: {result.out}")
    return kept


def _reproduce(args: argparse.Namespace) -> None:
    from zoo.pretrained.own import own
    from zoo.runtime.cache import enable_compilation_cache

    from .reproduction import Reproduction, reproduction_config

    needs.check()
    config = reproduction_config(args.weights, args.data, args.out)
    enable_compilation_cache()
    found = Reproduction(own(args.weights), _fit(config)["val_accuracy"])
    print(found)
    if not found.within:
        sys.exit(EXIT_OUTSIDE)


def _export(args: argparse.Namespace) -> None:
    if args.epoch is None:
        args.of_file(args)
        return
    needs.check()
    from .checkpoint import network_of

    if not Path(args.model).is_dir():
        raise ZooError(f"--epoch: got the model {args.model}, expected the folder of a run")
    export_model(network_of(Path(args.model), args.epoch), args)


def _completion(args: argparse.Namespace) -> None:
    print(script(command(), args.shell))


def _evaluate(args: argparse.Namespace) -> None:
    needs.check()
    from zoo.runtime.cache import enable_compilation_cache

    from .evaluation import evaluate, interval

    enable_compilation_cache()
    result = evaluate(
        args.model,
        args.data,
        split=args.split,
        batch_size=args.batch_size,
        dtype=args.dtype,
        skip_unreadable=args.skip_unreadable,
        mirror=args.mirror,
    )
    low, high = interval(round(result.accuracy * result.count), result.count)
    precision = result.mean_average_precision
    rows = [
        *([] if precision is None else [("mean average precision", f"{precision:.2%}")]),
        ("accuracy", f"{result.accuracy:.2%}"),
        ("95 % interval", f"{low:.2%} to {high:.2%}"),
        ("top-5 accuracy", f"{result.top5:.2%}"),
        ("loss", f"{result.loss:.4f}"),
        ("pictures", result.which),
    ]
    print(result.data)
    print(table((plain(args.model), plain(args.data)), rows))


def _plan(args: argparse.Namespace) -> None:
    if args.topology == LIST:
        print(_topologies(args.format))
        return
    settings = with_recipe(args)
    needs.check()
    topology(args.topology)  # an error comes before jax is imported, which takes a second
    # Nothing is computed here. Where libtpu is installed JAX would look for a TPU, and complain.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from .planning import plan

    planned = plan(topology=args.topology, num_classes=args.num_classes, **settings)
    print(planned.render(args.format))


def _topologies(form: str) -> str:
    from zoo.report.table import Column, Table, number

    columns = (
        Column("topology", "topology", left=True),
        Column("chip", "chip", left=True),
        Column("chips", "chips", number()),
        Column("memory", "memory of a chip (GB)", number(",.1f", 1e9)),
        Column("bf16", "bf16 (TFLOP/s)", number(",.0f", 1e12)),
        Column("bandwidth", "memory (GB/s)", number(",.0f", 1e9)),
        Column("link", "links (GB/s)", number(",.0f", 1e9)),
    )
    rows = [
        (m.name, c.name, m.chips, c.memory, c.bf16, c.bandwidth, c.link)
        for m, c in ((m, m.chip) for m in map(topology, topologies()))
    ]
    return Table("topologies", columns, tuple(rows)).render(form)
