"""What a network is trained for: the loss of each picture, and what is measured beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax

from . import doors
from .state import Arrays

# (logits [B, K], targets [B, K]) -> [B], a number for each picture
PerPicture = Callable[[jax.Array, jax.Array], jax.Array]


def sigmoid(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropy, the mean over the classes, each of which is there or not."""
    losses: jax.Array = optax.sigmoid_binary_cross_entropy(logits, targets)  # [B, K]
    return losses.mean(-1)


LOSSES: Mapping[str, PerPicture] = dict(
    zip(doors.LOSSES, (optax.softmax_cross_entropy, sigmoid), strict=True)
)


@dataclass(frozen=True)
class Objective:
    """The loss of a picture and the figures measured with it.

    Labels are int32 [B], a class for each picture, or float32 [B, K], 1 for each class that a
    picture shows.

    Args:
      num_classes: K.
      loss: for each picture; cross-entropy in nats for the two of `LOSSES`.
      metrics: by name, further figures for each picture, of which the mean is reported.
      label_smoothing: the share of a training target that is spread over all classes.
      class_weights: [K], by what the loss of each class is multiplied in training; None: by 1.
    """

    num_classes: int
    loss: PerPicture = optax.softmax_cross_entropy
    metrics: Mapping[str, PerPicture] = field(default_factory=dict)
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    def targets(self, labels: jax.Array) -> jax.Array:
        """float32 [B, K], as the loss and the metrics take them."""
        return labels if labels.ndim == 2 else jax.nn.one_hot(labels, self.num_classes)

    def smoothed(self, labels: jax.Array) -> jax.Array:
        """The targets of training, before pictures are mixed."""
        targets: jax.Array = optax.smooth_labels(self.targets(labels), self.label_smoothing)
        return targets

    def weighted(self, targets: jax.Array) -> jax.Array:
        """The targets of training with the weights of their classes."""
        if self.class_weights is None:
            return targets
        return targets * jnp.asarray(self.class_weights)

    def measure(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Arrays:
        """Sums over this device's pictures, each times its weight [B].

        Top-1 and top-5 count the pictures of which a class is first, or among the first five.
        """
        targets = self.targets(labels)
        if labels.ndim == 1 and self.loss is optax.softmax_cross_entropy:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        else:
            losses = self.loss(logits, targets)
        rank = _rank(logits, labels)
        sums = {
            "loss": losses,
            "correct": rank < 1,
            "top5": rank < 5,
            "count": jnp.ones(len(labels)),
            **{name: metric(logits, targets) for name, metric in self.metrics.items()},
        }
        return {name: (values * weight).sum() for name, values in sums.items()}


def _rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The rank of a picture's class by logit, from 0, int [B]; of several classes the best rank."""
    one = labels
    if labels.ndim == 2:
        one = jnp.where(labels > 0, logits, -jnp.inf).argmax(-1)
    own = jnp.take_along_axis(logits, one[:, None], -1)
    # Of equal logits the first class is taken, as argmax does; NaN is no hit.
    first = jnp.arange(logits.shape[-1])[None] < one[:, None]
    rank = (~(logits <= own) | ((logits == own) & first)).sum(-1)
    if labels.ndim == 2:
        rank = jnp.where((labels > 0).any(-1), rank, logits.shape[-1])  # it shows none
    return rank
