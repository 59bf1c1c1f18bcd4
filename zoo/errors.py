"""The one exception that a user's mistake raises."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

MOST = 10  # names in an error
FILES = (
    *(".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".keras", ".npz", ".caffemodel"),
    *(".onnx", ".tar"),
)

P = ParamSpec("P")
T = TypeVar("T")


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
    near = nearest(got, choices)
    hint = f"did you mean {near}?" if near else f"expected one of {few(choices)}"
    return ZooError(f"unknown {kind} {got[:100]!r}: {hint}")


def nearest(got: str, choices: Iterable[str]) -> str:
    """The nearest three of the names, quoted, with commas between them; "" if none is near.

    Those that go on where `got` ends come first, the shortest before the others.

    >>> nearest("resnet5", ["resnet50", "vgg16"])
    "'resnet50'"
    """
    choices = sorted(choices)
    longer = [name for name in choices if len(got) > 1 and name.startswith(got)]
    close = difflib.get_close_matches(got[:100], choices, 3, 0.5)
    return ", ".join(map(repr, list(dict.fromkeys([*sorted(longer, key=len), *close]))[:3]))


def few(names: Iterable[str], between: str = ", ", most: int = MOST) -> str:
    """The first names, joined, and how many more there are.

    >>> few("abcde", most=3)
    'a, b, c, and 2 more'
    """
    names = list(names)
    more = f"{between}and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def check_no_file(name: object) -> None:
    """Refuse what can only be the path of a file, or of a run, that is not there.

    Raises:
      ZooError: "no file ...".
    """
    if isinstance(name, str) and ("/" in name or Path(name).suffix.lower() in FILES):
        there = Path(name).is_dir()
        why = f"{name} holds no network of a finished run" if there else f"no file {name}"
        raise ZooError(why)


def checked(**hints: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function answer a wrong call with one line of help, in place of a `TypeError`.

    For a class, decorate its `__init__`.

    Args:
      hints: by the keyword that is not one of the function's: what to do instead. `positional`:
        the same for too many arguments without a keyword.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
                raise _wrong_call(name, signature, kwargs, hints, error) from None
            return function(*args, **kwargs)

        return called

    return decorate


def _wrong_call(
    name: str,
    signature: inspect.Signature,
    given: Mapping[str, object],
    hints: Mapping[str, str],
    error: TypeError,
) -> ZooError:
    settings = [
        p.name
        for p in signature.parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name != "self"
    ]
    wrong = next((key for key in given if key not in settings), "")
    if wrong in hints:
        return ZooError(f"{name}: there is no {wrong}: {hints[wrong]}")
    if wrong:
        return ZooError(f"{name}: {unknown('setting', wrong, settings)}")
    hint = hints.get("positional") if "too many positional" in f"{error}" else None
    return ZooError(f"{name}: {error}" + (f": {hint}" if hint else ""))
