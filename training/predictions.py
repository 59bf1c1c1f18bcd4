"""What a network says of every picture: its outputs and what follows from them, or its features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from zoo import ops
from zoo.errors import ZooError
from zoo.layers import Network
from zoo.preprocess import Preprocess

from . import data
from .parallel import Devices
from .state import Arrays, Program, take_apart
from .step import AXIS, Batch, outputs_for

BINS = 15  # of probabilities, to compare them with accuracies


@dataclass(frozen=True, eq=False)
class Predictions:
    """The outputs of a network for every picture of a source, in order."""

    logits: np.ndarray  # float32 [N, K]
    labels: np.ndarray  # int32 [N]; float32 [N, K] where pictures may show several classes

    @property
    def multilabel(self) -> bool:
        """Whether a picture may show several classes, or none."""
        return self.labels.ndim == 2

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of the largest logit, int [N]; of equal ones the first, -1 if any is NaN."""
        return np.where(np.isnan(self.logits).any(-1), -1, self.logits.argmax(-1))

    @cached_property
    def losses(self) -> np.ndarray:
        """float64 [N]: cross-entropy with the label, nats; with several, the mean over classes."""
        if self.multilabel:
            x = self.logits.astype(np.float64)
            means: np.ndarray = (np.logaddexp(0, x) - x * self.labels).mean(-1)
            return means
        own = self.logits[np.arange(len(self.labels)), self.labels]
        with np.errstate(invalid="ignore"):  # infinite less infinite, of a network that diverged
            losses: np.ndarray = self._log_sums - own
        return losses

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float64 [N]: softmax's for `classes`; sigmoid's where pictures may show several."""
        if self.multilabel:
            largest = self.logits.max(-1).astype(np.float64)
            sigmoids: np.ndarray = np.exp(-np.logaddexp(0, -largest))
            return sigmoids
        with np.errstate(invalid="ignore"):
            probabilities: np.ndarray = np.exp(self.logits.max(-1) - self._log_sums)
        return probabilities

    @cached_property
    def right(self) -> np.ndarray:
        """Whether `classes` is the picture's class, or one of its classes, bool [N]."""
        if self.multilabel:
            shown = np.take_along_axis(self.labels, self.classes[:, None], -1)[:, 0] > 0
            right: np.ndarray = shown & (self.classes >= 0)
        else:
            right = self.classes == self.labels
        return right

    @property
    def correct(self) -> int:
        """How many pictures are classified correctly."""
        return int(self.right.sum())

    @property
    def calibration_error(self) -> float:
        """`calibration_error` of `probabilities`; NaN where pictures may show several classes."""
        return math.nan if self.multilabel else calibration_error(self.probabilities, self.right)

    @cached_property
    def average_precisions(self) -> np.ndarray:
        """The `average_precision` of each class, float64 [K]; NaN if no picture shows it."""
        columns = zip(self.logits.T, self.labels.T, strict=True)
        return np.array([average_precision(scores, labels) for scores, labels in columns])

    @property
    def mean_average_precision(self) -> float:
        """The mean over the classes that pictures show; NaN where there are none."""
        known = self.average_precisions[~np.isnan(self.average_precisions)]
        return float(known.mean()) if len(known) else math.nan

    @cached_property
    def _log_sums(self) -> np.ndarray:
        """float64 [N]: log of the sum of exp of the logits; in slices, to spare memory."""
        sums = np.empty(len(self.logits))
        with np.errstate(invalid="ignore"):
            for i in range(0, len(sums), 1024):
                rows = self.logits[i : i + 1024].astype(np.float64)
                top = rows.max(-1, keepdims=True)
                sums[i : i + 1024] = top[:, 0] + np.log(np.exp(rows - top).sum(-1))
        return sums


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """How far the probability of an answer is from how often such answers are right, 0 to 1.

    The expected calibration error of C. Guo et al., "On Calibration of Modern Neural Networks",
    2017, arXiv:1706.04599, section 2: the distance between accuracy and mean probability, in 15
    bins of equal width, weighted by the number of pictures. NaN without pictures, and where a
    probability is NaN.

    Args:
      probabilities: of the answers, [N], 0 to 1.
      right: whether each answer is right, bool [N].

    >>> round(calibration_error(np.array([0.9, 0.9, 0.5]), np.array([True, False, True])), 3)
    0.433
    """
    if not len(right):
        return math.nan
    bins = np.minimum((np.nan_to_num(probabilities) * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, probabilities - right, BINS)
    return float(np.abs(gaps).sum() / len(right))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The area under the steps of a class's precision over its recall.

    The sum over rising thresholds of (recall - recall before) x precision, without interpolation,
    as `sklearn.metrics.average_precision_score`; equal scores are one threshold.

    Args:
      scores: [N], high for pictures that show the class.
      labels: [N], 1 where they do.

    >>> average_precision(np.array([0.9, 0.8, 0.3]), np.array([1, 0, 1]))
    0.8333333333333333
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order] > 0)
    if not len(hits) or not hits[-1]:
        return math.nan
    last = np.flatnonzero(np.append(np.diff(scores[order]), 1))  # the last of each score
    precision = hits[last] / (last + 1)
    recall = hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


class Embeddings(NamedTuple):
    """The features of every picture of a source, in order."""

    features: np.ndarray  # float32 [N, D]: what the classifier sees, or would see
    labels: np.ndarray  # int32 [N]; float32 [N, K] where pictures may show several classes


def predict_all(
    model: Network,
    source: data.Source,
    *,
    batch_size: int = 64,
    devices: Devices | None = None,
    preprocess: Preprocess | None = None,
    mirror: bool = False,
) -> Predictions:
    """The logits of every picture of a source, in its order.

    Args:
      model: the network.
      source: the pictures.
      batch_size: pictures at a time, over all devices together; rounded up to share out evenly.
      devices: None takes all of this host, as several hosts always do: each that calls this
        computes everything by itself, and none waits for another.
      preprocess: None takes the network's own.
      mirror: give the means of the logits of each picture and of its mirror image.

    Raises:
      ZooError: the network has no classifier.
    """
    if not model.spec.num_classes:
        raise ZooError(
            f"predict_all: {model.spec.name} has no classifier: embed_all gives its features"
        )
    return Predictions(
        *outputs_of(
            model, source, model.spec.num_classes, batch_size, devices, preprocess, mirror=mirror
        )
    )


def embed_all(
    model: Network,
    source: data.Source,
    *,
    batch_size: int = 64,
    devices: Devices | None = None,
    preprocess: Preprocess | None = None,
) -> Embeddings:
    """The features of every picture of a source, in its order: the input of the classifier.

    They are what `zoo.load(..., num_classes=0)` returns: pooled, where the classifier looks at
    every pixel (NiN, SqueezeNet).

    Args:
      model: the network, with or without a classifier.
      source: the pictures.
      batch_size: as for `predict_all`, and so are the others.
      devices: see there.
      preprocess: see there.

    >>> embed_all(zoo.load("resnet20_cifar.cifar10"), dataset.train).features.shape # doctest: +SKIP
    (1437, 64)
    """
    headless = nnx.clone(model)
    headless.classifier = None
    return Embeddings(
        *outputs_of(headless, source, model.head.channels, batch_size, devices, preprocess)
    )


Pool = Callable[[jax.Array], jax.Array]  # [N, H, W, C] -> [N, C]


def outputs_of(
    model: Network,
    source: data.Source,
    width: int,
    batch_size: int,
    devices: Devices | None,
    preprocess: Preprocess | None = None,
    pool: Pool = ops.global_avg_pool,
    *,
    mirror: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(outputs [N, width], labels) of every picture.

    Args:
      model: a network whose outputs are `width` numbers, or maps of as many channels.
      source: the pictures.
      width: of the outputs.
      batch_size: see `predict_all`, as for the next two.
      devices: see there.
      preprocess: see there.
      pool: what makes numbers of maps.
      mirror: as in `outputs_for`.
    """
    if devices is None or jax.process_count() > 1:
        devices = Devices("shard_map", jax.local_devices())  # pmap would take those of all hosts
    preprocess = preprocess or model.preprocess
    batch_size = -(-batch_size // len(devices)) * len(devices)
    program, params, stats = take_apart(model)
    step = devices.compile(
        _output_step(program, preprocess, pool, mirror=mirror),
        donate=True,
        dtype=model.spec.dtype,
        inference=True,
    )
    state = devices.replicate((params, stats, jnp.zeros((batch_size, width))))
    outputs = np.empty((len(source), width), np.float32)
    labels: np.ndarray | None = None
    bar = tqdm(
        data.eval_batches(source, preprocess, batch_size=batch_size),
        total=-(-len(source) // batch_size),
        desc=f"predict {model.spec.name}",
        unit="batch",
        disable=None,
        leave=False,
    )
    for start, batch in zip(range(0, len(source), batch_size), bar, strict=True):
        state = step(state, devices.shard(batch))
        rows = slice(start, start + batch_size)  # rows past the end of the source are padding
        if labels is None:  # whatever a label is
            labels = np.empty((len(source), *batch["label"].shape[1:]), batch["label"].dtype)
        labels[rows] = batch["label"][: len(labels[rows])]
        outputs[rows] = np.asarray(state[2])[: len(outputs[rows])]
    return outputs, np.empty(0, np.int32) if labels is None else labels


def _output_step(
    program: Program, preprocess: Preprocess, pool: Pool, *, mirror: bool
) -> Callable[[tuple[Arrays, Arrays, jax.Array], Batch], tuple[Arrays, Arrays, jax.Array]]:
    """(params, stats, outputs), batch -> the same with the outputs of the batch.

    Every device returns the outputs of the whole batch, [B, K], in order: `Devices.compile` needs
    the same state on all of them.
    """

    def step(
        state: tuple[Arrays, Arrays, jax.Array], batch: Batch
    ) -> tuple[Arrays, Arrays, jax.Array]:
        params, stats, _ = state
        network = program.network(params, stats, dropout=None)
        outputs = outputs_for(network, preprocess.normalize(batch["image"]), mirror=mirror)
        outputs = pool(outputs) if outputs.ndim == 4 else outputs
        return params, stats, jax.lax.all_gather(outputs, AXIS, tiled=True)

    return step
