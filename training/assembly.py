"""A phase of a run put together: its step, and the state from which it starts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import optax

from zoo.layers import Network, model_stages

from . import optim
from .config import TrainConfig
from .objective import Objective
from .objects import NONE, Objects
from .phases import Phase, rate_scales
from .state import Arrays, Program, TrainState, take_apart
from .step import AXIS, Batch, make_train_step


@dataclass(frozen=True)
class Assembly:
    """A phase of a run, assembled: its step, and the state from which it starts."""

    program: Program
    trained: Arrays
    frozen: Arrays
    stats: Arrays
    averaged: bool
    seed: int
    rates: Callable[[int], jax.Array]  # of the steps from one on, counted within the phase
    optimizer: optax.GradientTransformation
    step: Callable[[TrainState, Batch], TrainState]  # for one device of many
    metrics: tuple[str, ...] = ()  # names of further figures

    def start(self, step: int = 0) -> TrainState:
        """The state at the first step of the phase, whose number is `step`."""
        return TrainState.start(
            self.optimizer,
            self.trained,
            self.stats,
            rates=self.rates(0),
            seed=self.seed,
            frozen=self.frozen,
            averaged=self.averaged,
            metrics=self.metrics,
            step=step,
        )

    def shapes(self) -> TrainState:
        """The same, with shapes in place of arrays."""

        def start(trained: Arrays, frozen: Arrays, stats: Arrays) -> TrainState:
            return replace(self, trained=trained, frozen=frozen, stats=stats).start()

        shapes: TrainState = jax.eval_shape(start, self.trained, self.frozen, self.stats)
        return shapes


def assemble(
    config: TrainConfig,
    model: Network,
    phase: Phase,
    rate: optax.Schedule,
    objective: Objective,
    *,
    period: int,
    flip: bool,
    objects: Objects = NONE,
) -> Assembly:
    """The step of a phase and its parts.

    Args:
      config: of the run.
      model: with arrays, or with shapes in their place.
      phase: which parameters are trained.
      rate: the learning rate by step of the phase.
      objective: the loss and the metrics.
      period: the steps of an epoch, whose learning rates the state holds.
      flip: whether to mirror pictures.
      objects: given in place of settings.
    """
    stages = model_stages(model)
    program, params, stats = take_apart(
        model,
        freeze_bn=config.freeze_bn or set(stages) - phase.trained,
        bn_axis=AXIS if config.sync_bn else None,
        bn_momentum=config.bn_momentum,
    )
    trained = {path: x for path, x in params.items() if phase.trains(path)}
    frozen = {path: x for path, x in params.items() if path not in trained}
    scales = rate_scales(stages, trained, config.depth_decay, config.multipliers)
    own = objects.optimizer
    if own is not None and not isinstance(own, optax.GradientTransformation):
        own = own(rate)
    optimizer = optim.optimizer(config, scales, own)
    step = make_train_step(
        program,
        model.preprocess,
        optimizer,
        config,
        objective,
        flip=flip,
        own_augment=objects.augment,
    )
    return Assembly(
        program,
        trained,
        frozen,
        stats,
        averaged=config.ema > 0 or config.wise_ft < 1,
        seed=config.seed,
        rates=optim.table(rate, period),
        optimizer=optimizer,
        step=step,
        metrics=tuple(objective.metrics),
    )
