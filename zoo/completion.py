"""Completion of the command `zoo` in a shell, by shtab (https://docs.iterative.ai/shtab)."""

import argparse
from typing import Any

from .command import Commands
from .errors import ZooError

SHELLS = ("bash", "zsh", "fish", "tcsh")
FILES = ("images", "file", "out", "png", "folder")  # arguments that are paths
WEIGHTS = ("like", "weights")  # that are published weights
BOTH = ("names", "model")  # that are networks or weights


def script(commands: Commands, shell: str) -> str:
    """A script that completes commands, options, and names of networks and weights.

    Args:
      commands: made anew: they then take no other names.
      shell: one of `SHELLS`.

    Raises:
      ZooError: shtab is not installed.
    """
    try:
        import shtab  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ZooError("completion needs shtab: pip install 'jax-cnn-zoo[completion]'") from None
    from .registry import list_models
    from .report.listing import list_weights

    models, weights = list_models(), list(list_weights())
    for name, parser in commands.parsers.items():
        for argument in parser.arguments:
            if argument.choices is not None:
                continue
            if argument.dest in BOTH:
                argument.choices = [*models, *weights]
            elif argument.dest in WEIGHTS or (name, argument.dest) == ("weights", "pattern"):
                argument.choices = weights
            elif argument.dest == "pattern":
                argument.choices = models
            elif argument.dest in FILES:
                _complete(argument, shtab.FILE)
    return str(shtab.complete(commands.parser, shell))


def _complete(argument: argparse.Action, how: Any) -> None:
    """Set the attribute in which shtab looks for a way to complete an argument."""
    argument.complete = how  # type: ignore[attr-defined]
