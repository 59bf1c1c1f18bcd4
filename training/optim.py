"""Optimizers and schedules, from Optax."""

from collections.abc import Mapping

import jax
import optax

from .config import TrainConfig


def schedule(peak: float, steps: int, *, warmup: float) -> optax.Schedule:
    """Learning rate by step: linear from 0 for a share of `steps`, then a cosine from peak to 0."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak,
        warmup_steps=round(warmup * steps),
        decay_steps=steps,
    )


def optimizer(
    config: TrainConfig, rate: optax.Schedule, scales: Mapping[str, float]
) -> optax.GradientTransformation:
    """The optimizer of a phase.

    Args:
      rate: the learning rate by step.
      scales: by parameter path, what its learning rate is multiplied with.
    """
    rule = {
        "adam": optax.scale_by_adam(),
        "sgd": optax.trace(decay=0.9, nesterov=True),
    }[config.optimizer]

    def matrices(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    def scaled(updates: optax.Updates, params: optax.Params) -> optax.Updates:
        return {path: update * scales[path] for path, update in updates.items()}

    return optax.chain(
        rule,
        optax.add_decayed_weights(config.weight_decay, mask=matrices),
        optax.stateless(scaled),
        optax.scale_by_learning_rate(rate),
    )
