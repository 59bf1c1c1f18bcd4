"""How a source names our tensors, and in which order of axes it stores them.

A `Layout` translates one of our paths ("body.stem.conv.kernel") into the source's name
("conv1.weight") and turns the source's array into ours. Network-specific parts are regular
expressions on our paths, one table for each family.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ...context import Numerics
from ...errors import ZooError
from ...layers import Network
from ...preprocess import IMAGENET, Preprocess
from ...registry import find
from ...variant import Variant
from ..readers.base import Arrays

# (pattern of our module path, or of a whole path; the source's module name, or whole name). A name
# is a template of `re.Match.expand`, or a function of the match where that cannot say it.
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Layout:
    """One source's names, array order, numerics and preprocessing.

    Mappings are by network or by family (the name of its file in `models/`); "*" stands for all
    others.
    """

    name: str
    rules: Mapping[str, Callable[[Network], Rules]]
    leaves: Mapping[str, str]  # "conv.kernel" -> the source's name, where it has another
    join: str  # between a module's name and a leaf's
    arrange: Callable[[str, np.ndarray, Network], np.ndarray]  # (our path, theirs) -> ours
    restore: Callable[[str, np.ndarray, Network], np.ndarray]  # (our path, ours) -> theirs
    ignored: str = r"$^"  # pattern of source names that hold no part of the function
    # names as a file happens to have them -> those of `rules`, before anything else looks at them
    rename: Callable[[Network, Arrays], Arrays] = lambda _, arrays: arrays
    numerics: Mapping[str, Numerics] = field(default_factory=dict)  # elsewhere the variant's own
    # elsewhere IMAGENET; a function where the file's arrays say it
    preprocess: Mapping[str, Preprocess | Callable[[Arrays], Preprocess]] = field(
        default_factory=dict
    )

    def source_name(self, path: str, rules: Rules) -> str:
        """The source's name for one of our paths.

        Raises:
          KeyError: no rule matches it, or the function of the rule has no name for it.
        """
        module, kind, leaf = path.rsplit(".", 2)
        for pattern, name in rules:
            for whole, subject in ((True, path), (False, f"{module}.{kind}")):
                if match := re.fullmatch(pattern, subject):
                    theirs = match.expand(name) if isinstance(name, str) else name(match)
                    return theirs if whole else theirs + self.join + self._leaf(module, kind, leaf)
        raise KeyError(path)

    def _leaf(self, module: str, kind: str, leaf: str) -> str:
        special = f"{module.rpartition('.')[2]}.{kind}.{leaf}"
        return self.leaves.get(special) or self.leaves.get(f"{kind}.{leaf}", leaf)

    def rules_for(self, model: Network) -> Rules:
        """The rules for a network's names.

        Raises:
          ZooError: the layout has no names for it.
        """
        rules = of(self.rules, find(model.spec.name))
        if rules is None:
            raise ZooError(
                f"layout {self.name!r} has no names for {model.spec.name}: it knows "
                + ", ".join(self.rules)
            )
        return rules(model)

    def numerics_for(self, variant: Variant) -> Numerics:
        """The numerics of the source's own network."""
        return of(self.numerics, variant) or variant.numerics

    def preprocess_for(self, variant: Variant, arrays: Arrays | None = None) -> Preprocess:
        """The preprocessing at the variant's size; `arrays` are the file's, if there is one."""
        preprocess = of(self.preprocess, variant) or IMAGENET
        if not isinstance(preprocess, Preprocess):
            preprocess = preprocess(arrays or {})
        return preprocess.at_size(variant.input_size)


def of(by_name: Mapping[str, Value], variant: Variant) -> Value | None:
    """The value for a variant: under its own name, its family's, or "*"."""
    names = (variant.name, variant.family, "*")
    return next((by_name[name] for name in names if name in by_name), None)
