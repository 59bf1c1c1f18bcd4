"""What a file of networks declares: each network, and where it was published."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

from .context import TORCH, Context, Numerics
from .errors import ZooError
from .layers import Network
from .settings import shown, whole

NAME = re.compile(r"[A-Za-z0-9_-]+")  # no dot: "resnet50.a1_in1k" are weights of "resnet50"


@dataclass(frozen=True)
class Paper:
    """Where a network was published, and what was new in it.

    Raises:
      ZooError: a field that is not a text, or a year that is not a number.
    """

    title: str
    authors: str  # surnames, in the paper's order: "He, Zhang, Ren, Sun"
    year: int  # of the first version
    url: str
    new: str  # one or two sentences

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "year" and not isinstance(value, str):
                raise ZooError(f"paper, {field.name}: got {shown(value)}, expected a text")
        object.__setattr__(self, "year", whole("paper, year", self.year, 1900, 9999))


@dataclass(frozen=True)
class Variant:
    """One network of a family: its name, how to build it, and where it was published.

    Raises:
      ZooError: a field of the wrong type; a name with characters other than letters, digits, "_"
        and "-".
    """

    name: str
    build: Callable[[Context], Network]
    paper: Paper
    input_size: int = 224  # of the published figures
    aliases: tuple[str, ...] = ()
    numerics: Numerics = TORCH  # of random weights; published ones bring their own
    family: str = ""  # "": the name of the file that it is declared in

    def __post_init__(self) -> None:
        if not isinstance(self.aliases, tuple | list):  # a text would be taken apart
            raise ZooError(f"{self.name}: aliases are {shown(self.aliases)}, expected a tuple")
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ZooError(
                    f"network: got the name {shown(name)}, expected letters, digits, '_' and '-'"
                )
        for what, fits, expected in (
            ("build", callable(self.build), "a function of a zoo.context.Context"),
            ("paper", isinstance(self.paper, Paper), "a zoo.Paper"),
            ("numerics", isinstance(self.numerics, Numerics), "a zoo.Numerics"),
            ("family", isinstance(self.family, str), "a text"),
        ):
            if not fits:
                got = shown(getattr(self, what))
                raise ZooError(f"{self.name}: {what} is {got}, expected {expected}")
        size = whole(f"{self.name}: input_size", self.input_size, 1, 10_000)
        object.__setattr__(self, "input_size", size)
        object.__setattr__(self, "aliases", tuple(self.aliases))
