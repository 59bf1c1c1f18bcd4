"""What a name stands for besides a network: published weights, a trained file, a run's folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..context import Spec
from ..preprocess import Preprocess
from ..pretrained import infer
from ..pretrained.catalogue import Weights, weights
from ..pretrained.readers import files
from ..pretrained.saving import described
from ..pretrained.store import in_cache, is_file, run_file
from ..registry import abstract, find
from .count import Count, count
from .table import Column, Table

FACTS = (Column("fact", "", left=True), Column("value", "", left=True))
NAMED = 12  # classes


@dataclass(frozen=True)
class Asked:
    """Weights, published or of a file, without their tensors."""

    name: str  # as it was asked for
    spec: Spec
    preprocess: Preprocess
    classes: tuple[str, ...]
    row: Weights | None  # None: of a file

    def count(self, input_size: int | None = None) -> Count:
        """The cost of the network as it is: its classes and channels, its own input size."""
        size = self.preprocess.size if input_size is None else input_size
        return replace(count(abstract(self.spec), input_size=size), name=self.name)

    def facts(self) -> Table:
        """What is known of the weights, one fact a line."""
        known = _of_weights(self.row) if self.row else _of_file(self)
        rows = [*known, ("input", _seen(self.preprocess)), ("to load", f'zoo.load("{self.name}")')]
        return Table(f"{self.name}: weights", FACTS, tuple(rows))


def asked(name: str) -> Asked | None:
    """Weights by their name, file or run; None for what can only be a network's name.

    Raises:
      ZooError: no such weights or file.
    """
    if is_file(name):
        path = run_file(name)
        about = described(str(path), files.read(path)[1])
        return Asked(name, about.spec, about.preprocess, about.classes, None)
    if "." not in name:
        return None
    row = weights(name)
    numerics = infer.published_numerics(row)
    spec = Spec(find(row.model).name, num_classes=row.classes, numerics=numerics)
    return Asked(row.name, spec, row.preprocess, (), row)


def _of_weights(w: Weights) -> list[tuple[str, Any]]:
    percents = [f"{top:.1f} % {name}" for name, top in (("top-1", w.top1), ("top-5", w.top5))
                if top is not None]  # fmt: skip
    facts = [
        ("network", w.model),
        ("published by", w.source),
        ("file", Path(w.file).name if w.source == "zoo" else w.file),
        ("size", f"{w.size_mb:g} MB" if w.size_mb else ""),
        ("licence", w.licence + (" (non-commercial)" if w.non_commercial else "")),
        ("started from", w.origin.before),
        ("on ImageNet", ", ".join(percents)),
        ("classes", f"{w.classes or 'none: features only'}"),
        ("checked by", w.check),
        ("in the cache", "yes" if in_cache(w) else "no"),
        ("default", f'yes: zoo.load("{w.model}") takes them' if w.default else ""),
        ("notes", w.notes),
    ]
    return [(fact, value) for fact, value in facts if value]


def _of_file(found: Asked) -> list[tuple[str, Any]]:
    path = run_file(found.name)
    more = f", ... ({len(found.classes)})" if len(found.classes) > NAMED else ""
    names = ", ".join(found.classes[:NAMED]) + more
    return [
        ("network", found.spec.name),
        ("file", f"{path}"),
        ("size", f"{path.stat().st_size / 1e6:,.1f} MB"),
        ("classes", names or f"{found.spec.num_classes or 'none: features only'}"),
    ]


def _seen(p: Preprocess) -> str:
    """How pictures are seen, in words."""
    cut = f"central {p.central:.1%} cut out, then " if p.central != 1 else ""
    if p.resize is None:
        how = f"squashed to {p.size} x {p.size}"
    elif p.squash:
        how = f"squashed to {p.resize} x {p.resize}, centre {p.size} x {p.size} cut out"
    else:
        how = f"shorter side to {p.resize}, centre {p.size} x {p.size} cut out"
    mean, std = (" ".join(f"{x:g}" for x in values) for values in (p.mean, p.std))
    return f"{cut}{how}, {p.interpolation}, {p.channels}, mean {mean}, std {std}"
