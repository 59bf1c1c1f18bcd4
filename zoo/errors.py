"""The one exception that a user's mistake raises."""

import difflib
from collections.abc import Iterable


class ZooError(ValueError):
    """A user's mistake, in one line: what was got, what was expected, the nearest valid choice.

    The command line prints the line and exits with code 2; in Python it is a `ValueError`.
    """


def unknown(kind: str, got: str, choices: Iterable[str]) -> ZooError:
    """The error for a name that is none of `choices`, offering the nearest of them.

    >>> unknown("model", "resnet5", ["resnet50", "vgg16"])
    ZooError("unknown model 'resnet5': did you mean 'resnet50'?")
    """
    got, choices = f"{got}", sorted(choices)  # a file may give anything for a name
    near = difflib.get_close_matches(got[:100], choices, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + ", ".join(map(repr, near)) + "?"
    else:
        hint = "expected one of " + ", ".join(choices)
    return ZooError(f"unknown {kind} {got[:100]!r}: {hint}")
