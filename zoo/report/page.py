"""A comparison as one HTML page that is complete in itself: it asks no other host for anything."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plotting import MARKERS
from ..text import link
from .costs import weights_cost
from .count import KINDS
from .definitions import DEFINITIONS
from .plots import family_styles

if TYPE_CHECKING:
    from ..pretrained.catalogue import Weights
    from .compare import Entry

TEMPLATE = Path(__file__).with_name("page.html")


def page(
    entries: "Sequence[Entry]", weights: "Sequence[Weights]", notes: Sequence[str] = ()
) -> str:
    """The page: a plot of any two columns, a table to sort and filter, and bars by kind of layer.

    Args:
      entries: the networks, in the order that the table has at first.
      weights: all published weights of theirs, which the page shows when asked.
      notes: paragraphs above the definitions at the foot.
    """
    markers = list(MARKERS)
    data = {
        "kinds": KINDS,
        "families": {
            family: [markers.index(marker), colour]
            for family, (marker, colour) in family_styles(entries).items()
        },
        "networks": [_network(entry) for entry in entries],
        "weights": [_published(each) for each in weights],
    }
    parts = {
        "@@NOTES@@": "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        "@@DEFINITIONS@@": "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(says)}</dd>"
            for name, says in DEFINITIONS.items()
        ),
        # a script element ends at the first "</", wherever that stands
        "@@DATA@@": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    text = TEMPLATE.read_text("utf-8")
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _network(entry: "Entry") -> dict[str, Any]:
    """What the page's script knows of a network."""
    variant, count, weights = entry.variant, entry.count, entry.weights
    return {
        "name": variant.name,
        "aliases": variant.aliases,
        "family": variant.family,
        "input_size": count.input_size,
        "params": count.params,
        "head": count.head,
        "macs": count.macs,
        "train_flops": count.train_flops,
        "inference_memory": count.inference_memory,
        "training_memory": count.training_memory,
        "file_bytes": count.file_bytes,
        "by_kind": [count.by_kind[kind] for kind in KINDS],
        "top1": entry.top1,
        "top5": entry.top5,
        "weights": weights and weights.name,
        "weights_size": weights and weights.preprocess.size,
        "licence": weights and weights.licence,
        "source": weights and weights.source,
        "extra_data": entry.extra_data,
        "year": variant.paper.year,
        "title": variant.paper.title,
        "url": link(variant.paper.url),
    }


def _published(w: "Weights") -> dict[str, Any]:
    """What differs for weights from their network; no head: other classes than ImageNet's."""
    cost = weights_cost(w)
    return {
        "name": w.model,
        "weights": w.name,
        "params": cost.params,
        "head": cost.head if w.classes == 1000 else None,
        "macs": cost.macs,
        "train_flops": cost.train_flops,
        "inference_memory": cost.inference_memory,
        "training_memory": cost.training_memory,
        "file_bytes": cost.file_bytes,
        "input_size": w.preprocess.size,
        "weights_size": w.preprocess.size,
        "top1": w.top1,
        "top5": w.top5,
        "licence": w.licence,
        "source": w.source,
        "extra_data": w.extra_data,
    }
