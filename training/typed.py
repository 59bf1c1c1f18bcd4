"""The command of this process as it was typed: the report on a run repeats it."""

import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

FILE = "command.txt"  # in the folder of a run that a command began
COMMAND: ContextVar[str] = ContextVar("typed", default="")


def typed(argv: Sequence[str]) -> str:
    """A command line that a shell reads as these arguments of `zoo`.

    >>> typed(["train", "resnet18", "--data", "folder:my photos"])
    "zoo train resnet18 --data 'folder:my photos'"
    """
    return shlex.join(["zoo", *argv])


def typed_for(out: Path) -> str:
    """The command that began the run in a folder; "" if Python did."""
    path = out / FILE
    return path.read_text("utf-8", "replace").strip() if path.is_file() else ""
