"""What a source calls our tensors, and how it lays them out.

A `Layout` translates one of our paths ("body.stem.conv.kernel") into the source's name
("conv1.weight") and turns the source's array into ours. Network-specific parts are regular
expressions on our paths, one table a family.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...context import Numerics
from ...errors import ZooError
from ...layers import Network
from ...preprocess import IMAGENET, Preprocess
from ...registry import Variant, find

Rules = tuple[tuple[str, str], ...]  # (pattern of our module path, the source's module name)


@dataclass(frozen=True)
class Layout:
    """One source's names, array order, numerics and preprocessing.

    Mappings are by family (the name of its file in `models/`); "*" stands for all others.
    """

    name: str
    rules: Mapping[str, Callable[[Network], Rules]]
    leaves: Mapping[str, str]  # "conv.kernel" -> the source's name, where it has another
    join: str  # between a module's name and a leaf's
    arrange: Callable[[str, np.ndarray, Network], np.ndarray]  # (our path, theirs) -> ours
    restore: Callable[[str, np.ndarray, Network], np.ndarray]  # (our path, ours) -> theirs
    ignored: str = r"$^"  # pattern of source names that hold no part of the function
    numerics: Mapping[str, Numerics] = field(default_factory=dict)  # elsewhere the variant's own
    preprocess: Mapping[str, Preprocess] = field(default_factory=dict)  # elsewhere IMAGENET

    def source_name(self, path: str, rules: Rules) -> str:
        """The source's name for one of our paths.

        Raises:
          KeyError: no rule speaks of it.
        """
        module, kind, leaf = path.rsplit(".", 2)
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, f"{module}.{kind}"):
                return match.expand(replacement) + self.join + self._leaf(module, kind, leaf)
        raise KeyError(path)

    def _leaf(self, module: str, kind: str, leaf: str) -> str:
        special = f"{module.rpartition('.')[2]}.{kind}.{leaf}"
        return self.leaves.get(special) or self.leaves.get(f"{kind}.{leaf}", leaf)

    def rules_for(self, model: Network) -> Rules:
        family = find(model.spec.name).family
        rules = self.rules.get(family) or self.rules.get("*")
        if rules is None:
            raise ZooError(
                f"layout {self.name!r} has no names for {model.spec.name}: it knows "
                + ", ".join(self.rules)
            )
        return rules(model)

    def numerics_for(self, variant: Variant) -> Numerics:
        return self.numerics.get(variant.family) or self.numerics.get("*") or variant.numerics

    def preprocess_for(self, variant: Variant) -> Preprocess:
        found = self.preprocess.get(variant.family) or self.preprocess.get("*") or IMAGENET
        return found.at_size(variant.input_size)
