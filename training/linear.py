"""A classifier solved at once: ridge regression on the features of a pretrained network.

It starts fine-tuning at what a linear probe reaches, where a random classifier first sends noise
into the body.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.layers import LinearAct, Network

from .data import Dataset
from .parallel import Devices
from .predictions import embed_all, outputs_of
from .sources.base import spread

MOST = 10_000  # pictures
MOST_MAPS = 256  # pictures whose pixels are looked at one by one
PENALTIES = np.logspace(-4, 3, 15)  # of ridge regression on standardised features, a picture
SCALES = np.logspace(0, 2, 41)  # of the logits


@dataclass(frozen=True)
class Linear:
    """A linear classifier, and what it would be worth on other pictures."""

    kernel: np.ndarray  # float32 [D, K]
    bias: np.ndarray  # float32 [K]
    accuracy: float  # leaving out one picture at a time, 0 to 1


def ridge(features: np.ndarray, labels: np.ndarray, classes: int) -> Linear:
    """The classifier that ridge regression on standardised features gives.

    The targets are 1 for a picture's class and 0 for the others. Of the penalties the one is taken
    that gets most pictures right, each predicted by the solution without it, which has a closed
    form (T. Hastie et al., The Elements of Statistical Learning, 2nd edition, equation 7.64). The
    outputs are then scaled such that these predictions have the least cross-entropy: regression
    itself gives no logits.

    Args:
      features: of the training pictures, [N, D].
      labels: their classes, integers [N].
      classes: how many there are.
    """
    x = features.astype(np.float64)
    mean, deviation = x.mean(0), x.std(0)
    deviation = np.where(deviation > 1e-6 * deviation.max(initial=1e-30), deviation, 1.0)
    x = (x - mean) / deviation
    y = np.eye(classes)[labels]
    prior = y.mean(0)
    u, squares = _left_singular(x)
    projected = u.T @ (y - prior)
    accuracy, penalty, chosen = -1.0, 0.0, y
    for tried in PENALTIES * len(x):
        shrunk = squares / (squares + tried)
        leverage = 1 / len(x) + (u**2) @ shrunk
        fitted = prior + u @ (shrunk[:, None] * projected)
        left_out = y + (fitted - y) / np.maximum(1 - leverage, 1e-9)[:, None]
        right = float((left_out.argmax(1) == labels).mean())
        if right >= accuracy:  # of equal ones the largest penalty
            accuracy, penalty, chosen = right, float(tried), left_out
    scale = min(SCALES, key=lambda scale: _cross_entropy(scale * chosen, labels))
    kernel = scale * (x.T @ (u @ (projected / (squares + penalty)[:, None]))) / deviation[:, None]
    bias = scale * prior - mean @ kernel
    return Linear(kernel.astype(np.float32), bias.astype(np.float32), accuracy)


def _left_singular(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left singular vectors [N, R] of a matrix [N, D], and the squares of its singular values.

    Of the smaller of its two Gram matrices, which is several times as fast as `np.linalg.svd`.
    """
    wide = x.shape[0] <= x.shape[1]
    squares, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = squares > 1e-10 * squares[-1]
    squares, vectors = squares[kept], vectors[:, kept]
    return (vectors if wide else x @ vectors / np.sqrt(squares)), squares


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(1)) - own).mean())


def start(
    model: Network,
    dataset: Dataset,
    batch_size: int,
    devices: Devices | None,
    *,
    softmax: bool = True,
) -> str:
    """Make the classifier of a pretrained network what `ridge` gives, and say what became of it.

    The features are those of the pictures as evaluation sees them, of at most `MOST` pictures.
    Nothing is done where there is no such solution: pictures show several classes, or the
    classifier is not one linear layer with biases.

    NiN and SqueezeNet classify each pixel, and take the mean after a ReLU. There the solution is
    that for the mean of the pixels, and its biases are raised by one number until the ReLU changes
    nothing: softmax does not see what is added to all logits.

    Args:
      model: its classifier is replaced.
      dataset: the training pictures and their classes.
      batch_size: pictures at a time.
      devices: see `predict_all`.
      softmax: whether that is the loss.
    """
    if dataset.multilabel:
        return "classifier: untrained at first, as pictures show several classes"
    classifier = model.classifier
    of_pixels = isinstance(classifier, LinearAct) and type(classifier) is not LinearAct
    if not isinstance(classifier, LinearAct) or (of_pixels and not softmax):
        return f"classifier: untrained at first, as that of {model.spec.name} is not linear"
    if classifier.linear.bias is None:
        return f"classifier: untrained at first, as that of {model.spec.name} has no biases"
    source, classes = spread(dataset.train, MOST), len(dataset.classes)
    found = embed_all(model, source, batch_size=batch_size, devices=devices)
    solved = ridge(found.features, found.labels, classes)
    values = {"kernel": jnp.asarray(solved.kernel), "bias": jnp.asarray(solved.bias)}
    nnx.update(classifier.linear, values)
    if of_pixels:
        maps = nnx.clone(model)
        maps.classifier = maps.classifier.linear  # type: ignore[union-attr]  # without its ReLU
        some = spread(source, MOST_MAPS)
        lowest, _ = outputs_of(maps, some, classes, batch_size, devices, pool=_least)
        nnx.update(classifier.linear, {"bias": values["bias"] - lowest.min()})
    return (
        f"classifier: ridge regression on the features gets {solved.accuracy:.1%} of the training "
        "pictures right, each left out in turn"
    )


def _least(maps: jax.Array) -> jax.Array:
    return maps.min((1, 2))
