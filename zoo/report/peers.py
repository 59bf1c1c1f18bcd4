"""Why a peer counts another number of parameters than zoo does, line by line.

`peers.csv` holds the peers' figures and the papers' (`tools/peers.py` writes it). The lines between
a peer's number and zoo's are computed: our network is built as the peer has it, and its values are
compared, by what holds them, with those of the network that `zoo.count` counts.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict

from ..context import TF, TORCH, Numerics, Spec
from ..errors import unknown
from ..layers import Network
from ..registry import abstract, find
from .definitions import notes
from .table import Column, Table, Tables
from .walk import value_of, walk

FILE = Path(__file__).with_name("peers.csv")

# What each peer means by "params", and where it says so (`SOURCES`).
MEANS = {
    "torchvision": "torchvision: num_params, the elements of parameters(), so without batch-norm "
    "statistics; of Inception v3 with the auxiliary head, of GoogLeNet without. Its GFLOPS are "
    "multiply-adds.",
    "timm": "timm: param_count, the elements of parameters() in millions, so without batch-norm "
    "statistics.",
    "keras": "keras: count_params(), as in the table of Applications, adds what is not trained: "
    "batch-norm statistics, and the constants of input normalisation.",
    "kerashub": "kerashub: a number declared with each preset: of the backbone, so without head, "
    "mostly, and with batch-norm statistics.",
    "slim": "slim: the trainable variables of the training graph, auxiliary heads among them; "
    "of Inception, ResNet v2 and MobileNet 1001 classes, the first for background.",
    "transformers": "transformers: num_parameters(), the elements of parameters(), so without "
    "batch-norm statistics; MobileNets, which came from slim, have 1001 classes.",
    "paper": "paper: as printed, FLOPs being multiply-adds. Zoo's agrees where it rounds to the "
    "printed figure; else the percentage is by how much zoo's is more.",
}
SOURCES = {
    "torchvision": "https://docs.pytorch.org/vision/stable/models.html",
    "timm": "https://github.com/huggingface/pytorch-image-models/tree/main/results",
    "keras": "https://keras.io/api/applications/",
    "kerashub": "https://github.com/keras-team/keras-hub/tree/master/keras_hub/src/models",
    "slim": "https://github.com/tensorflow/models/tree/master/research/slim",
    "transformers": "https://huggingface.co/docs/transformers/main_classes/model",
}

# What a peer's model has that ours has not.
NUMERICS = {
    "conv bias": replace(TORCH, conv_bias=True),
    "no scale": replace(TF, bn_scale=False),
}


@dataclass(frozen=True)
class Peer:
    """One model of a peer, and the network of ours that has its parameters."""

    network: str
    peer: str  # a key of `MEANS`
    model: str
    params: int  # as the peer prints or publishes it
    counts: frozenset[str]  # "aux", "statistics", "input" enter `params`; "headless": no head does
    classes: int
    built: str  # a key of `NUMERICS`; empty: as our variant is
    note: str
    elsewhere: bool  # its strides are in other layers: the same parameters, other MACs
    # of models that were built and counted; None and 0 of KerasHub's
    input_size: int | None
    gmacs: float | None  # at `input_size`
    aux_in_gmacs: bool
    trainable: int  # auxiliary classifiers included
    nontrainable: int
    batch_stats: int  # auxiliary classifiers included
    aux: int
    aux_batch_stats: int

    @property
    def name(self) -> str:
        """The library and its name for the network."""
        return f"{self.peer} {self.model}"

    @property
    def numerics(self) -> Numerics:
        """How the peer computes the network."""
        return NUMERICS[self.built] if self.built else find(self.network).numerics

    @property
    def spec(self) -> Spec:
        """Our network as the peer has it."""
        return Spec(self.network, self.classes, numerics=self.numerics, aux=True)


@dataclass(frozen=True)
class Printed:
    """What a paper prints of a network."""

    network: str
    model: str  # the paper's name for it
    params: str  # "25.5M", "<25M", "22855952"; empty: not printed
    macs: str  # "3.8G", "569M"
    classes: int
    where: str  # "table 1"
    note: str


@cache
def peers() -> tuple[Peer, ...]:
    """Every peer's model of every network, in the order of the file."""
    return tuple(
        Peer(
            network=row["network"],
            peer=row["peer"],
            model=row["model"],
            params=int(row["params"]),
            counts=frozenset(row["counts"].split()),
            classes=int(row["classes"]),
            built=row["built"],
            note=row["note"],
            elsewhere=bool(row["elsewhere"]),
            input_size=int(row["input_size"]) if row["input_size"] else None,
            gmacs=float(row["gmacs"]) if row["gmacs"] else None,
            aux_in_gmacs=bool(row["aux_in_gmacs"]),
            trainable=int(row["trainable"] or 0),
            nontrainable=int(row["nontrainable"] or 0),
            batch_stats=int(row["batch_stats"] or 0),
            aux=int(row["aux"] or 0),
            aux_batch_stats=int(row["aux_batch_stats"] or 0),
        )
        for row in _rows()
        if row["peer"] != "paper"
    )


def peers_of(network: str, peer: str) -> list[Peer]:
    """The peer's models of a network."""
    return [each for each in peers() if (each.network, each.peer) == (network, peer)]


@cache
def printed() -> tuple[Printed, ...]:
    """Every figure of a paper, in the order of the file."""
    return tuple(
        Printed(
            network=row["network"],
            model=row["model"],
            params=row["params"],
            macs=row["gmacs"],
            classes=int(row["classes"]),
            where=row["where"],
            note=row["note"],
        )
        for row in _rows()
        if row["peer"] == "paper"
    )


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with FILE.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


# --- the reconciliation ---------------------------------------------------------------------------

HEAD, AUX, STATISTICS, AUX_STATISTICS = "head", "aux", "statistics", "aux statistics"
UNEXPLAINED = "not explained"

Lines = list[tuple[str, int]]


def reconcile(peer: Peer) -> Lines:
    """How zoo's number becomes the peer's: labels and parameters, zoo's count first.

    They add up to `peer.params`: a last line `UNEXPLAINED` holds what no other does, if anything.
    """
    own = _own(peer.network)
    ours, theirs = _parts(own), _parts(peer.spec)
    lines = [("zoo: trainable, 1000 classes", _trainable(own))]
    for part, label in TRAINABLE.items():
        if part == HEAD and "headless" in peer.counts:
            lines.append((HEAD, -ours[part]))
        elif difference := theirs[part] - ours[part]:
            lines.append((label.format(peer.classes), difference))
    if "statistics" in peer.counts:
        lines.append(("BN statistics", theirs[STATISTICS]))
    if "aux" in peer.counts:
        lines.append(("aux heads", theirs[AUX]))
        if "statistics" in peer.counts:
            lines.append(("BN statistics of aux heads", theirs[AUX_STATISTICS]))
    if "input" in peer.counts:
        lines.append(("input normalisation", peer.nontrainable - peer.batch_stats))
    if rest := peer.params - sum(n for _, n in lines):
        lines.append((UNEXPLAINED, rest))
    return lines


# Parts of what `zoo.count` counts, with the label of a difference in them.
TRAINABLE = {
    "kernels": "kernels",
    "biases": "conv biases",
    "scales": "BN scales",
    "shifts": "BN shifts",
    "other": "others",
    HEAD: "{} classes",
}


def _own(name: str) -> Spec:
    """What `zoo.count(name)` counts."""
    return Spec(name, numerics=find(name).numerics, aux=True)


@lru_cache(maxsize=8)
def _built(spec: Spec) -> Network:
    return abstract(spec)


@cache
def _parts(spec: Spec) -> dict[str, int]:
    """Values of a network by what holds them: the keys of `TRAINABLE`, and the rest."""
    state = nnx.state(_built(spec))
    params = flatten_dict(nnx.to_pure_dict(nnx.filter_state(state, nnx.Param)))
    statistics = flatten_dict(nnx.to_pure_dict(nnx.filter_state(state, nnx.BatchStat)))
    parts: dict[str, int] = defaultdict(int)
    for path, leaf in params.items():
        if path[0].startswith("aux_"):
            part = AUX
        elif path[0] in ("head", "classifier"):
            part = HEAD
        elif path[-1] == "bias":  # a convolution's, or a norm's
            part = "biases" if (*path[:-1], "kernel") in params else "shifts"
        else:
            part = {"kernel": "kernels", "scale": "scales"}.get(path[-1], "other")
        parts[part] += math.prod(leaf.shape)
    for path, leaf in statistics.items():
        part = AUX_STATISTICS if path[0].startswith("aux_") else STATISTICS
        parts[part] += math.prod(leaf.shape)
    return parts


def _trainable(spec: Spec) -> int:
    """As `zoo.count` has it: without auxiliary classifiers."""
    return sum(number for part, number in _parts(spec).items() if part in TRAINABLE)


@cache
def macs(spec: Spec, input_size: int, with_aux: bool = False) -> int:
    """Multiply-adds of one image: those of `zoo.count`, and of auxiliary heads, if asked."""
    model = _built(spec)
    graphdef, state = nnx.split(model)
    rows = {".".join(map(str, path[:-2])) for path, _ in nnx.to_flat_state(state)}

    def forward(state: nnx.State[Any, Any], x: jax.Array) -> Any:
        twin = nnx.merge(graphdef, state)
        twin.deterministic = not with_aux
        return twin.forward(x)

    image = jax.ShapeDtypeStruct((1, input_size, input_size, 3), jnp.float32)
    program = jax.make_jaxpr(forward)(state, image)
    operations, _ = walk(program, [value_of(variable.aval) for variable in program.jaxpr.invars])
    # pooling may be a product too, but has no row
    return sum(operation.products for operation in operations if operation.row in rows)


# --- the report -----------------------------------------------------------------------------------


def against(name: str, peers: str | Sequence[str] | None = None) -> Tables:
    """Why each peer's number of parameters is what it is.

    Args:
      name: a network, or an alias.
      peers: keys of `MEANS`, in a list or with commas between them; None takes all that have the
        network.

    Returns:
      A summary with a row a peer's model, then a table for each that adds up zoo's count, what the
      peer counts besides, and its number, with both multiply-adds. The papers' figures share one.

    Raises:
      ZooError: an unknown network or peer.
    """
    network = find(name).name
    if isinstance(peers, str):
        peers = [peer.strip() for peer in peers.split(",")]
    for peer in peers or ():
        if peer not in MEANS:
            raise unknown("peer", peer, MEANS)
    size = find(network).input_size
    own = _own(network)
    rows: list[Cells] = [(f"zoo {network}", _trainable(own), macs(own, size) / 1e9, None)]
    tables: list[Table] = []
    for peer in MEANS if peers is None else dict.fromkeys(peers):
        summary, details = _of_papers(network) if peer == "paper" else _of_peer(network, peer)
        if peers is not None and not summary:
            no = "prints no figure of" if peer == "paper" else "has no"
            summary = [(peer, None, None, f"{no} {network}")]
        rows += summary
        tables += details
    summary_table = Table(
        title=f"{network}: what its peers call its parameters",
        columns=(
            Column("peer", "peer and its model", left=True),
            Column("params", "params", _figure),
            Column("gmacs", "GMACs", _rounded),
            Column("because", "differs by", left=True),
        ),
        rows=tuple(rows),
        notes=(
            *notes("parameters", "head", "auxiliary heads", "BN statistics", "MACs"),
            f"GMACs: 10^9 MACs at {size} pixels; a peer's at its model's own size.",
        ),
    )
    return Tables((summary_table, *tables))


Cells = tuple[Any, ...]


def _of_peer(network: str, peer: str) -> tuple[list[Cells], list[Table]]:
    """Rows of the summary and tables: one each for each of the peer's models of the network."""
    rows: list[Cells] = []
    tables: list[Table] = []
    for model in peers_of(network, peer):
        lines = reconcile(model)
        because = (
            f"no {label}" if number < 0 and label != UNEXPLAINED else label
            for label, number in lines[1:]
        )
        rows.append((model.name, model.params, model.gmacs, ", ".join(because) or "nothing"))
        tables.append(_addition(model, lines))
    return rows, tables


def _addition(peer: Peer, lines: Lines) -> Table:
    rows: list[Cells] = [lines[0]]
    rows += [(f"{'-' if number < 0 else '+'} {label}", number) for label, number in lines[1:]]
    rows.append((f"= {peer.name}", peer.params))
    if peer.gmacs is not None and peer.input_size is not None:
        ours = macs(peer.spec, peer.input_size, peer.aux_in_gmacs) / 1e9
        at = f"GMACs at {peer.input_size} pixels"
        rows.append((f"{at}, zoo", ours))
        rows.append((f"{at}, {peer.peer}", peer.gmacs))
        rows.append((f"{at}, difference", round(peer.gmacs - ours, 6) + 0.0))  # + 0.0: no -0.0
    remarks = [MEANS[peer.peer], SOURCES[peer.peer]]
    if peer.note:
        remarks.append(f"{peer.model}: {peer.note}.")
    if peer.elsewhere:
        remarks.append("Same parameters, other multiply-adds: the strides stand elsewhere.")
    return Table(
        title=f"{peer.network} against {peer.name}",
        columns=(
            Column("line", f"{peer.network} at {peer.peer}", left=True),
            Column("number", "number", _figure),
        ),
        rows=tuple(rows),
        notes=tuple(remarks),
    )


def _of_papers(network: str) -> tuple[list[Cells], list[Table]]:
    """Rows of the summary, one for each place where a paper prints figures, and their table."""
    summary: list[Cells] = []
    rows: list[Cells] = []
    remarks = [MEANS["paper"]]
    for figure in printed():
        if figure.network != network:
            continue
        spec = replace(_own(network), num_classes=figure.classes)
        products = macs(spec, find(network).input_size)
        place = f"{figure.where}: {figure.model}"
        for what, text, ours in (
            ("params", figure.params, _trainable(spec)),
            ("MACs", figure.macs, products),
        ):
            if text:
                rows.append((what, text, ours, verdict(ours, text), place))
        agrees = f"zoo's {verdict(_trainable(spec), figure.params)}" if figure.params else None
        gmacs = str(_parse(figure.macs)[1] / 10**9) if figure.macs else None
        summary.append((f"paper {figure.model}", figure.params or None, gmacs, agrees))
        if figure.classes != 1000:
            remarks.append(f"The paper's has {figure.classes} classes, and so zoo's here.")
        if figure.note:
            remarks.append(f"{figure.model}, {figure.where}: {figure.note}.")
    table = Table(
        title=f"{network} against the paper",
        columns=(
            Column("what", network, left=True),
            Column("printed", "printed"),
            Column("zoo", "zoo counts", _figure),
            Column("verdict", "verdict", left=True),
            Column("where", "where", left=True),
        ),
        rows=tuple(rows),
        notes=(*remarks, find(network).paper.url),
    )
    return summary, [table] if rows else []


def verdict(ours: int, text: str) -> str:
    """How our figure compares: "agrees" if it rounds to the printed one, else by what percent."""
    bound, figure, step = _parse(text)
    agrees = ours < figure if bound else 2 * abs(ours - figure) <= step
    return "agrees" if agrees else f"{float(100 * ours / figure - 100):+.1f} %"


def _parse(text: str) -> tuple[bool, Decimal, Decimal]:
    """Of "<25M" or "569M": is it a bound, its value, and a unit of its last digit."""
    unit = {"M": Decimal(10**6), "G": Decimal(10**9)}.get(text[-1], Decimal(1))
    digits = Decimal(text.strip("<MG"))
    last = Decimal((0, (1,), int(digits.as_tuple().exponent)))
    return text[0] == "<", digits * unit, last * unit


def _figure(value: Any) -> str:
    """Parameters in full, GMACs to six decimals; what is printed as it is printed."""
    return f"{value:.6f}" if isinstance(value, float) else _rounded(value)


def _rounded(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
