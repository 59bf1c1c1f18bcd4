"""One training step and one evaluation step: pure functions, each for one device of many.

Both run under the axis name `AXIS`, which `parallel.py` provides; nothing else here knows how many
devices there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from zoo.layers import Network, Output
from zoo.preprocess import Preprocess

from .augment import augment, mix
from .config import TrainConfig
from .objective import Objective
from .state import Arrays, Program, TrainState

Tree = TypeVar("Tree")

AXIS = "batch"
MIXING = 1  # folded into the key of augmentation: for MixUp and CutMix
AUX_WEIGHT = 0.3  # of an auxiliary classifier's loss: Szegedy et al., 2014, section 5

# image: uint8 [B, H, W, 3]; label: int32 [B] or float32 [B, K]; weight: float32 [B]
Batch = Mapping[str, jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]  # (images uint8, key) -> images uint8


def keys(data: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(augmentation key, dropout key) of this device at this step.

    Args:
      data: the key of the run as plain numbers, uint32 [2].
      step: its number, int32 [].
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(data), step)
    augmenting, dropping = jax.random.split(jax.random.fold_in(key, jax.lax.axis_index(AXIS)))
    return augmenting, dropping


def make_train_step(
    program: Program,
    preprocess: Preprocess,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    objective: Objective | None = None,
    *,
    flip: bool = False,
    own_augment: Augment | None = None,
) -> Callable[[TrainState, Batch], TrainState]:
    """The step of training: `(state, this device's part of a batch) -> state`.

    Args:
      program: the network.
      preprocess: how pictures become its input.
      optimizer: it may read the extra argument `learning_rate`, the rate of the step.
      config: augmentation, `accumulate` and `ema` are read from it.
      objective: None: cross-entropy, smoothed as the config says.
      flip: whether to mirror pictures.
      own_augment: replaces the augmentation in the config, except for MixUp and CutMix.
    """
    goal = objective or Objective(program.num_classes, label_smoothing=config.label_smoothing)
    changed = own_augment or partial(augment, config=config, flip=flip)
    optimizer = optax.with_extra_args_support(optimizer)

    def loss_and_gradients(
        state: TrainState, stats: Arrays, x: jax.Array, targets: jax.Array, dropping: jax.Array
    ) -> tuple[jax.Array, Arrays, Arrays]:
        def loss_of(params: Arrays) -> tuple[jax.Array, tuple[jax.Array, Arrays]]:
            model = program.network({**params, **state.frozen}, stats, dropout=dropping)
            output = model.forward(x)
            logits, aux = output if isinstance(output, Output) else Output(output, {})
            loss = goal.loss(logits, targets).mean()
            for inner in aux.values():
                loss += AUX_WEIGHT * goal.loss(inner, targets).mean()
            return loss, (logits, program.stats(model))

        (_, (logits, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return logits, stats, grads

    def train_step(state: TrainState, batch: Batch) -> TrainState:
        augmenting, dropping = keys(state.inputs["key"], state.step)
        x, labels = preprocess.normalize(changed(batch["image"], augmenting)), batch["label"]
        mixing = jax.random.fold_in(augmenting, MIXING)
        x, targets = mix(x, goal.smoothed(labels), mixing, config)
        targets = goal.weighted(targets)
        logits, stats, grads = in_parts(
            partial(loss_and_gradients, state), state, x, targets, dropping, config.accumulate
        )
        # Replicas hold equal shares of the batch, so the mean of their means is the batch's.
        grads = mean(grads)
        # The mean of eight equal numbers is not always that number: frozen statistics stay out.
        stats = {**state.stats, **mean({path: stats[path] for path in program.moving})}
        rates = state.inputs["rates"]
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, learning_rate=rates[state.step % len(rates)]
        )
        params: Arrays = optax.apply_updates(state.params, updates)
        sums = goal.measure(logits, labels, jnp.ones(len(labels)))
        return replace(
            state,
            step=state.step + 1,
            params=params,
            ema=average(state.ema, params, state.step, config.ema)
            if config.ema
            else part_of_the_way(state.ema, state.params, params, config.wise_ft),
            stats=stats,
            opt_state=opt_state,
            totals=add(state.totals, sums),
        )

    return train_step


def make_eval_step(
    program: Program,
    preprocess: Preprocess,
    objective: Objective | None = None,
    *,
    mirror: bool = False,
) -> Callable[[tuple[Arrays, Arrays, Arrays], Batch], tuple[Arrays, Arrays, Arrays]]:
    """(params, stats, totals), batch -> the same with the batch added to the totals.

    Args:
      program: the network.
      preprocess: how pictures become its input.
      objective: None: cross-entropy.
      mirror: as in `outputs_for`.
    """
    goal = objective or Objective(program.num_classes)

    def eval_step(
        state: tuple[Arrays, Arrays, Arrays], batch: Batch
    ) -> tuple[Arrays, Arrays, Arrays]:
        params, stats, totals = state
        labels, weight = batch["label"], batch["weight"]  # weight 0: filling, not a picture
        network = program.network(params, stats, dropout=None)
        logits = outputs_for(network, preprocess.normalize(batch["image"]), mirror=mirror)
        return params, stats, add(totals, goal.measure(logits, labels, weight))

    return eval_step


def outputs_for(network: Network, x: jax.Array, *, mirror: bool) -> jax.Array:
    """What a network says of images, and of their mirror images where asked for.

    Args:
      network: in inference mode.
      x: images [N, H, W, C].
      mirror: give the mean of the outputs for both.
    """
    outputs = network.logits(x)
    return (outputs + network.logits(x[:, :, ::-1])) / 2 if mirror else outputs


def in_parts(
    loss_and_gradients: Callable[..., tuple[jax.Array, Arrays, Arrays]],
    state: TrainState,
    x: jax.Array,
    targets: jax.Array,
    dropping: jax.Array,
    parts: int,
) -> tuple[jax.Array, Arrays, Arrays]:
    """(logits, BN statistics, mean gradients) of a batch, computed part after part.

    Only one part's activations are in memory at a time; batch norm sees one part at a time too.
    """
    if parts == 1:
        return loss_and_gradients(state.stats, x, targets, dropping)

    def one(carry: tuple[Arrays, Arrays], part: tuple[jax.Array, ...]) -> Any:
        stats, total = carry
        x, targets, number = part
        logits, stats, grads = loss_and_gradients(
            stats, x, targets, jax.random.fold_in(dropping, number)
        )
        return (stats, jax.tree.map(jnp.add, total, grads)), logits

    split = [array.reshape(parts, -1, *array.shape[1:]) for array in (x, targets)]
    start = state.stats, jax.tree.map(jnp.zeros_like, state.params)
    (stats, total), logits = jax.lax.scan(one, start, (*split, jnp.arange(parts)))
    grads = jax.tree.map(lambda g: g / parts, total)
    return logits.reshape(len(x), -1), stats, grads


def part_of_the_way(ema: Arrays, before: Arrays, after: Arrays, share: float) -> Arrays:
    """Weights between the first ones and the trained ones, after one more step; {} for none.

    Args:
      ema: those before the step: at first, the parameters themselves.
      before: the parameters before the step.
      after: the parameters after it.
      share: of the way that they have come.
    """
    return {path: old + share * (after[path] - before[path]) for path, old in ema.items()}


def elsewhere_on_the_way(now: Arrays, trained: Arrays, share: float, other: float) -> Arrays:
    """Weights at another share of the way from the first ones to the trained ones.

    Args:
      now: those at `share`, less than 1; {} for none.
      trained: those at its end.
      share: of the way that `now` has come.
      other: the share to come to.
    """
    step = (other - share) / (1 - share)
    return {path: x + step * (trained[path] - x) for path, x in now.items()}


def average(ema: Arrays, params: Arrays, step: jax.Array, decay: float) -> Arrays:
    """The averages after one more step, of the parameters in `ema`; {} for none.

    The decay starts small, at (1 + step) / (10 + step), as in TensorFlow's
    ExponentialMovingAverage, so that the initial weights are soon forgotten.
    """
    decay_now = jnp.minimum(decay, (1 + step) / (10 + step))
    return {path: decay_now * old + (1 - decay_now) * params[path] for path, old in ema.items()}


def mean(tree: Tree) -> Tree:
    """The mean over all devices. With one device it is the tree itself: XLA would copy it."""
    return tree if jax.lax.axis_size(AXIS) == 1 else jax.lax.pmean(tree, AXIS)


def add(totals: Arrays, sums: Arrays) -> Arrays:
    """The totals with the sums of all devices added."""
    total: Arrays = jax.tree.map(jnp.add, totals, jax.lax.psum(sums, AXIS))
    return total
