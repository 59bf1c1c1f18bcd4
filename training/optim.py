"""Optimizers and schedules, from Optax: one table of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from .config import TrainConfig

# Szegedy et al., 2015, arXiv:1512.00567, section 8, and MobileNet after it. With so large a value
# small gradients are not scaled up: the rates of those papers (0.045) are like SGD's.
RMSPROP_EPSILON = 1.0
LARS_TRUST = 0.001  # You et al., 2017, arXiv:1708.03888, section 5
RISE = 0.3  # one_cycle: the share of the run in which the rate rises, if `warmup` is not set


@dataclass(frozen=True)
class Rule:
    """How an optimizer turns gradients into updates.

    Args:
      direction: the transformation of the gradients, before weight decay and learning rate.
      trust: a coefficient of the learning rate. The update of a matrix (direction plus weight
        decay) is then rescaled to the norm of the matrix, as in LARS and LAMB. None: no rescaling.
      velocity: whether momentum is applied to the finished updates, after the learning rate.
    """

    direction: Callable[[TrainConfig], optax.GradientTransformation]
    trust: float | None = None
    velocity: bool = False


def muon(config: TrainConfig) -> optax.GradientTransformation:
    """Muon for matrices, Adam for everything else, at the same rate.

    The momentum of a matrix [inputs, outputs] is replaced by the nearest orthogonal one (Jordan et
    al., 2024, https://kellerjordan.github.io/posts/muon). A convolution's kernel
    [kh, kw, ci, co] counts as the matrix [kh*kw*ci, co]. A depthwise kernel, [kh, kw, 1, co], acts
    on each channel separately and does not count as a matrix.
    """

    def kind(update: jax.Array) -> str:
        depthwise = update.ndim == 4 and update.shape[2] == 1
        return "matrix" if update.ndim > 1 and not depthwise else "other"

    def kinds(updates: optax.Updates) -> optax.Updates:
        return jax.tree.map(kind, updates)

    def axes(updates: optax.Updates) -> optax.Updates:
        return jax.tree.map(
            lambda u: MuonDimensionNumbers(tuple(range(u.ndim - 1)), u.ndim - 1), updates
        )

    def widened(updates: optax.Updates, _params: optax.Params) -> optax.Updates:
        # as in Jordan's code and in optax.contrib.muon: more outputs than inputs, larger steps
        return jax.tree.map(lambda u: u * max(1, u.shape[-1] ** 2 / u.size) ** 0.5, updates)

    return optax.partition(
        {
            "matrix": optax.chain(
                scale_by_muon(beta=config.momentum, weight_dimension_numbers=axes),
                optax.stateless(widened),
            ),
            "other": optax.scale_by_adam(b1=config.momentum),
        },
        kinds,
    )


RULES = {
    "adam": Rule(lambda config: optax.scale_by_adam(b1=config.momentum)),
    "adamw": Rule(lambda config: optax.scale_by_adam(b1=config.momentum)),  # all decay is decoupled
    "adagrad": Rule(lambda _: optax.scale_by_rss()),
    "rmsprop": Rule(  # TensorFlow's: epsilon inside the root, squares start at 1
        lambda _: optax.scale_by_rms(
            decay=0.9, eps=RMSPROP_EPSILON, initial_scale=1.0, eps_in_sqrt=True
        ),
        velocity=True,
    ),
    "sgd": Rule(lambda config: optax.trace(config.momentum, nesterov=True)),
    "lamb": Rule(lambda config: optax.scale_by_adam(b1=config.momentum, eps=1e-6), trust=1.0),
    "lars": Rule(lambda _: optax.identity(), trust=LARS_TRUST, velocity=True),
    "lion": Rule(lambda config: optax.scale_by_lion(b1=config.momentum, b2=0.99)),
    "muon": Rule(muon),
}


def scale_by_learning_rate() -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_learning_rate` with the rate as an extra argument of `update`."""

    def by(rate: jax.typing.ArrayLike) -> optax.GradientTransformation:
        return optax.scale_by_learning_rate(lambda _: rate)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        learning_rate: jax.Array,
        **_: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        scaled: tuple[optax.Updates, optax.OptState]
        scaled = by(learning_rate).update(updates, state, params)
        return scaled

    return optax.GradientTransformationExtraArgs(by(0.0).init, update)


def optimizer(
    config: TrainConfig,
    scales: Mapping[str, float],
    own: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """The optimizer of a phase, over a flat dict {dotted path: parameter}.

    Its `update` takes the learning rate of the step as the extra argument `learning_rate`.

    Args:
      config: for the kind of optimizer and its settings.
      scales: by parameter path, a factor of its learning rate. A parameter with 0 is not changed,
        though its gradient counts in the norm that `clip_norm` limits.
      own: it takes the place of `config.optimizer` and has learning rates of its own; then neither
        `momentum` nor `weight_decay` applies.
    """

    def matrices(params: optax.Params) -> optax.Params:
        return {path: p.ndim > 1 for path, p in params.items()}

    def decayed(params: optax.Params) -> optax.Params:
        return {path: p.ndim > 1 and scales[path] != 0 for path, p in params.items()}

    def scaled(updates: optax.Updates, _params: optax.Params) -> optax.Updates:
        return {
            path: u * scales[path] if scales[path] else jnp.zeros_like(u)  # 0 x NaN is NaN
            for path, u in updates.items()
        }

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if own is not None:
        return optax.chain(clip, own, optax.stateless(scaled))
    rule = RULES[config.optimizer]
    # As in the authors' code, biases and batch norm, which start at 0 and 1, are not rescaled by
    # their norms. The coefficient applies to them too: the learning rates that suit it are far too
    # large without.
    ratio = optax.masked(optax.scale_by_trust_ratio(), matrices)
    return optax.chain(
        clip,
        rule.direction(config),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.chain(ratio, optax.scale(rule.trust)) if rule.trust else optax.identity(),
        optax.stateless(scaled),
        scale_by_learning_rate(),
        optax.trace(config.momentum) if rule.velocity else optax.identity(),
    )


def schedule(config: TrainConfig, peak: float, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 to `peak` during the warm-up, then `config.schedule`.

    "cosine" and "linear" end at 0. "step" and "exponential" count epochs from the end of the
    warm-up; "piecewise" drops the rate at fixed shares of `steps`. "one_cycle" takes the place of
    the warm-up too, see `one_cycle`.

    Args:
      config: for the kind of schedule and its settings.
      peak: the highest learning rate.
      steps: the length of the phase in steps, at least 1.
      steps_per_epoch: the unit of `config.decay_epochs`, in steps.
    """
    if config.schedule == "one_cycle":
        return one_cycle(peak, steps, config.warmup or RISE)
    warm = round(config.warmup * steps)
    rest = max(steps - warm, 1)
    between = config.decay_epochs * steps_per_epoch  # drops, in steps
    factor = drop_factor(config)

    def stairs(step: jax.Array) -> jax.Array:
        # in whole numbers: XLA divides by way of 1/n, and 49 x (1/49) is less than 1
        return peak * factor ** (jnp.maximum(step, 0) // max(round(between), 1))

    def smooth(step: jax.Array) -> jax.Array:
        return peak * factor ** (jnp.maximum(step, 0) / between)

    places = np.array([max(round(share * steps), 1) - warm for share in config.drops], np.int32)

    def pieces(step: jax.Array) -> jax.Array:
        return peak * factor ** (jnp.asarray(step)[..., None] >= places).sum(-1)

    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "constant": optax.constant_schedule(peak),
        "step": stairs,
        "piecewise": pieces,
        "exponential": smooth,
        "linear": optax.linear_schedule(peak, 0.0, rest),
    }[config.schedule]
    if not warm:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warm), after], [warm])


def table(schedule: optax.Schedule, length: int) -> Callable[[int], jax.Array]:
    """A function `rates(start)`: the learning rates of `length` steps from `start` on, float32."""

    def rate(step: jax.Array) -> jax.Array:
        return jnp.asarray(schedule(step), jnp.float32)

    rates: Callable[[int], jax.Array] = jax.jit(
        lambda start: jax.vmap(rate)(start + jnp.arange(length))
    )
    return rates


def drop_factor(config: TrainConfig) -> float:
    """The factor of each drop of the schedules "step", "piecewise" and "exponential"."""
    if config.decay_rate is not None:
        return config.decay_rate
    # a tenth as in the ResNet papers; 0.94 as in Inception's (arXiv:1512.00567, section 8)
    return 0.1 if config.schedule == "piecewise" else 0.94


def one_cycle(peak: float, steps: int, rise: float) -> optax.Schedule:
    """The 1cycle policy (Smith, 2018, arXiv:1803.09820), piecewise linear.

    The rate rises from peak / 25 to the peak in the share `rise` of the steps, falls back to
    peak / 25 in four fifths of the rest, and to 0 in the remaining steps.
    """
    up = round(rise * steps)
    down = up + round(0.8 * (steps - up))
    places = np.array([0, up, down, steps], np.float32)
    rates = np.array([peak / 25, peak, peak / 25, 0], np.float32)
    return lambda step: jnp.interp(step, places, rates)
