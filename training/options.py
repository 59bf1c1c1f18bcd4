"""The options of the commands that train: one for each setting, in groups."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from zoo.command import Parser
from zoo.errors import ZooError

from .config import FINETUNE, FINETUNE_STEPS, TrainConfig


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add `--recipe`."""
    parser.add_argument(
        "--recipe", metavar="NAME", help="settings of training/recipes to start from"
    )


def add_previews(parser: argparse.ArgumentParser) -> None:
    """Add the options for a preview in place of a run, and for a run on several hosts."""
    previews = parser.add_argument_group("instead of training")
    for name, text in (
        ("--show-schedule", "draw the learning rate over the run into this PNG"),
        ("--show-batch", "write the first batch, augmented, with its labels, into this PNG"),
        (
            "--find-lr",
            "try rising learning rates and write a curve and a suggestion into this folder",
        ),
    ):
        previews.add_argument(name, metavar="PATH", help=text)
    hosts = parser.add_argument_group(
        "several hosts (Slurm, OpenMPI, GKE and Cloud TPU are recognised without these)"
    )
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument("--processes", type=int, metavar="N", help="processes of the run")
    hosts.add_argument("--process", type=int, metavar="I", help="number of this one, from 0")


HELP = {
    field.name: field.metadata["help"]
    for field in dataclasses.fields(TrainConfig)
    if field.metadata
}

# Headings of the options, by the first field below each
GROUPS = {
    "data": "what to train on, and for how long",
    "optimizer": "optimizer and learning rate",
    "loss": "loss and regularisation",
    "flip": "augmentation",
    "init": "the network",
    "dtype": "how it is computed",
    "weights": "pretrained weights",
    "engine": "the run",
    "val_fraction": "which pictures",
}

# What fine-tuning does where it is not told, in words
FINETUNE_HELP = {
    "data": f"your pictures; this option is required: {HELP['data']}",
    "epochs": f"passes over the training pictures; default: {FINETUNE['epochs']}, and more where"
    f" these make less than {FINETUNE_STEPS} steps",
    "learning_rate": f"peak rate, whatever the optimizer ({FINETUNE['learning_rate']})",
    "image_size": "side of the input, pixels; default: the dataset's, or else the weights'",
    "weights": "weights to start from, published ones or a file; default: those that the model"
    " names, or the network's default",
}


def add_settings(
    parser: Parser, defaults: dict[str, Any], says: Mapping[str, str] | None = None
) -> None:
    """An option for each field of `TrainConfig`, absent from the arguments unless given.

    Args:
      parser: to add them to.
      defaults: by field, as the help shows them.
      says: help with its default, in place of the field's.
    """
    parser.usage = "%(prog)s [--data TEXT] [--out TEXT] [--epochs N] [option ...] MODEL"
    hints = typing.get_type_hints(TrainConfig)
    group = parser.add_argument_group("settings")
    for field in dataclasses.fields(TrainConfig):
        if field.name == "model" or field.name not in HELP:
            continue
        if field.name in GROUPS:
            group = parser.add_argument_group(GROUPS[field.name])
        name = "--" + field.name.replace("_", "-")
        default = defaults[field.name]
        default = {True: "on", False: ""}[default] if isinstance(default, bool) else default
        shown = "" if default in (None, "") else f" ({default})"
        text = (says or {}).get(field.name, field.metadata["help"] + shown)
        option = group.add_argument(
            name,
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **_kind(hints[field.name]),
        )
        parser.arguments.append(option)


def _kind(hint: Any) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    if isinstance(hint, types.UnionType):  # int | None
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": hint, "metavar": {str: "TEXT", int: "N", float: "X"}[hint]}


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a command line, without those that it leaves to their defaults."""
    return {name: value for name, value in vars(args).items() if name in HELP}


def with_recipe(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of the recipe, if one is asked for, and over them those of the command line.

    Raises:
      ZooError: no such recipe, or no network.
    """
    from .recipes import recipe

    settings = given(args)
    if args.model is None:
        if not args.recipe:
            raise ZooError("expected the name of a network, see `zoo list`; or --recipe NAME")
        del settings["model"]
    return {**(recipe(args.recipe) if args.recipe else {}), **settings}
