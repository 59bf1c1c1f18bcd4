"""What a network's activations and gradients look like, layer by layer, on one batch.

Vanishing gradients, exploding activations and dead units show here before they show in the loss.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo import ops
from zoo.errors import ZooError
from zoo.layers import Network, Output, observing
from zoo.report.table import Column, Table, number
from zoo.runtime import backend
from zoo.wrapped import wrapped

from .state import Arrays, Program, take_apart

BINS = 30  # of a histogram
SAMPLE = 10_000  # values of an array, at least, that a histogram is of, where it has so many


@dataclass(frozen=True)
class Distribution:
    """The distribution of an array's values."""

    mean: float
    std: float
    norm: float  # the square root of the sum of squares
    edges: tuple[float, ...]  # of the histogram's bins, one more than there are counts
    counts: tuple[float, ...]


@dataclass(frozen=True)
class LayerProbe:
    """One row of an architecture's table, or a stage."""

    name: str  # dotted path, "body.stage1.block0.conv1"
    activations: Distribution | None  # of what it returns; None where the network has no rows
    dead: float | None  # share of its channels that are the same at every pixel of every picture
    weights: float  # norm of its parameters, 0 without any
    gradients: Distribution | None  # of the loss by its parameters; None without any, or labels


@dataclass(frozen=True)
class Probe:
    """The activations and gradients of a network in training mode, on one batch."""

    name: str
    layers: tuple[LayerProbe, ...]  # in the order of computation: rows that hold no other rows
    stages: tuple[LayerProbe, ...]  # the rows of the outermost table
    loss: float | None  # cross-entropy, nats

    def table(self, *, layers: bool = False) -> Table:
        """By stage, or by layer."""
        rows = self.layers if layers else self.stages
        columns = (
            Column("name", "layer" if layers else "stage", left=True),
            Column("mean", "activations, mean", number(".2e")),
            Column("std", "standard deviation", number(".2e")),
            Column("dead", "dead channels (%)", number(".0f", 0.01)),
            Column("weights", "weights, norm", number(".2e")),
            Column("gradients", "gradients, norm", number(".2e")),
        )
        return Table(
            f"{self.name}, probed",
            columns,
            tuple(
                (
                    row.name,
                    row.activations and row.activations.mean,
                    row.activations and row.activations.std,
                    row.dead,
                    row.weights or None,
                    row.gradients and row.gradients.norm,
                )
                for row in rows
            ),
            (
                "Dead channels give the same value at every pixel of every picture of the batch.",
                "Norms are square roots of sums of squares; gradients are those of the batch's "
                "mean cross-entropy.",
            ),
        )

    def record(self) -> list[dict[str, Any]]:
        """The figures of each layer by name, ready for JSON; None for what there is not."""
        return [
            dict(
                layer=row.name,
                mean=row.activations and row.activations.mean,
                std=row.activations and row.activations.std,
                dead=row.dead,
                weights=row.weights,
                gradients=row.gradients and row.gradients.norm,
            )
            for row in self.layers
        ]

    def to_pandas(self) -> Any:
        """`table(layers=True)` as a `pandas.DataFrame` of raw values."""
        return self.table(layers=True).to_pandas()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def probe(model: Any, images: jax.Array, labels: jax.Array | None = None) -> Probe:
    """Look at a network's activations and gradients on one batch, in training mode.

    Batch norm uses the batch's statistics and dropout drops; the network itself is not changed.

    Args:
      model: a network, or any `nnx.Module` that maps images to logits, which has only gradients.
      images: preprocessed, [N, H, W, C] float.
      labels: the classes, [N] integers, for the gradients of the cross-entropy; None: activations
        alone.

    Raises:
      ZooError: images or labels that do not fit the network.

    >>> found = zoo.probe(model, model.preprocess(["cat.jpg"]))              # doctest: +SKIP
    >>> [(layer.name, layer.activations.std) for layer in found.layers]      # doctest: +SKIP
    """
    if not isinstance(model, Network):
        model = wrapped(model, images.shape[1], images.shape[-1])
    model.check_input(images)
    if labels is not None:
        labels = jnp.asarray(labels)
        known = jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == images.shape[:1]
        if not known or not 0 <= int(labels.min()) <= int(labels.max()) < model.spec.num_classes:
            raise ZooError(
                f"labels: got {labels.dtype} {list(labels.shape)}, expected a class from 0 to "
                f"{model.spec.num_classes - 1} for each of {len(images)} images"
            )
    program, params, stats = take_apart(model)

    run = compiled(program, None if labels is None else cross_entropy)
    return read(model.spec.name, run(params, stats, jnp.asarray(images), labels))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over a batch, nats: logits [N, K], labels [N] integers -> []."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (logits, labels) -> []


def compiled(program: Program, loss: Loss | None) -> Callable[..., "Measured"]:
    """`measure` as a compiled function of (parameters, BN statistics, images, labels)."""

    def run(params: Arrays, stats: Arrays, images: jax.Array, labels: Any) -> Measured:
        with ops.platform_only(jax.default_backend()):
            return measure(program, params, stats, images, labels, loss)

    function: Callable[..., Measured] = backend.jit(run, jax.default_backend())
    return function


Summary = dict[str, Any]  # of an array: its mean, standard deviation, size, and a sample of it
# What `read` makes a `Probe` of. XLA compiles a reduction for each array that is looked at, most of
# what a probe costs: histograms, and sums over several arrays, are left to NumPy.
Measured = dict[str, Any]


def measure(
    program: Program,
    params: Arrays,
    stats: Arrays,
    images: jax.Array,
    labels: jax.Array | None,
    loss: Loss | None,
) -> Measured:
    """The summaries of activations and gradients. For use inside a transformation.

    Args:
      program: the network.
      params: its parameters.
      stats: its BN statistics.
      images: preprocessed, [N, H, W, C].
      labels: for the loss.
      loss: None: there are no gradients.
    """

    def loss_of(params: Arrays) -> tuple[jax.Array, OrderedDict[str, Summary]]:
        # by row, in the order of computation; JAX would sort a dict
        rows: OrderedDict[str, Summary] = OrderedDict()

        def observer(path: str, y: jax.Array) -> None:
            values = y.astype(jnp.float32).reshape(-1, y.shape[-1])
            dead = (values.max(0) == values.min(0)).mean()
            rows[path] = {**_summary(values), "dead": dead}

        with observing(observer):
            output = program.network(params, stats, dropout=jax.random.key(0)).forward(images)
        logits = output.logits if isinstance(output, Output) else output
        if loss is None or labels is None:
            return jnp.zeros(()), rows
        return loss(logits.astype(jnp.float32), labels), rows

    squares = {path: jnp.vdot(x, x) for path, x in params.items()}
    if loss is None or labels is None:
        _, rows = loss_of(params)
        return dict(rows=rows, squares=squares, gradients={}, loss=None)
    (value, rows), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    summaries = {path: _summary(x) for path, x in gradients.items()}
    return dict(rows=rows, squares=squares, gradients=summaries, loss=value)


def _summary(x: jax.Array) -> Summary:
    x = x.astype(jnp.float32).ravel()
    mean = x.mean()
    std = jnp.sqrt(((x - mean) ** 2).mean())
    return dict(mean=mean, std=std, size=x.size, sample=x[:: (x.size // SAMPLE) | 1])


def read(name: str, measured: Measured) -> Probe:
    """The probe of a network of that name."""
    measured = jax.device_get(measured)
    squares, gradients = measured["squares"], measured["gradients"]
    activations: dict[str, Summary] = dict(measured["rows"])
    for path in squares:  # of modules that are not made of rows
        if not any(path.startswith(f"{row}.") for row in activations):
            activations.setdefault(path.rpartition(".")[0], {})

    def layer(row: str) -> LayerProbe:
        seen = activations[row]
        own = [path for path in squares if path.startswith(f"{row}.")]
        return LayerProbe(
            row,
            _distribution([seen]) if seen else None,
            float(seen["dead"]) if seen else None,
            math.sqrt(sum(float(squares[path]) for path in own)),
            _distribution([gradients[path] for path in own]) if own and gradients else None,
        )

    rows = {row: layer(row) for row in activations}
    inner = [p for p in rows if not any(other.startswith(f"{p}.") for other in rows)]
    outer = [
        p for p in rows if p.count(".") < 2 and p.split(".")[0] in ("body", "head", "classifier")
    ]
    return Probe(
        name,
        tuple(rows[path] for path in inner if rows[path].weights),
        tuple(rows[path] for path in outer or inner),
        None if measured["loss"] is None else float(measured["loss"]),
    )


def _distribution(summaries: Sequence[Summary]) -> Distribution:
    """That of several arrays together."""
    sizes, means, stds = (
        np.array([summary[key] for summary in summaries], float) for key in ("size", "mean", "std")
    )
    size = sizes.sum()
    with np.errstate(invalid="ignore"):  # infinities, which the figures show
        mean = float((sizes * means).sum() / size)
        squares = float((sizes * (stds**2 + (means - mean) ** 2)).sum())  # of the deviations
    sample = np.concatenate([summary["sample"] for summary in summaries]).astype(float)
    weights = np.concatenate(
        [np.full(len(s["sample"]), s["size"] / len(s["sample"])) for s in summaries]
    )
    finite = np.isfinite(sample)
    counts, edges = np.histogram(sample[finite], BINS, weights=weights[finite])
    return Distribution(
        mean,
        math.sqrt(squares / size),
        math.sqrt(squares + size * mean**2),
        tuple(edges.tolist()),
        tuple(counts.tolist()),
    )
