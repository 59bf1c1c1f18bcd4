"""The state that a step reads and writes, and how it becomes a network again.

`TrainState` holds arrays only, under dotted paths; `Program` holds everything static.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike

from zoo.layers import Network
from zoo.wrapped import Wrapped

Arrays = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step reads besides its batch; the same on every device."""

    step: jax.Array  # int32 [], steps done
    params: Arrays  # being trained
    frozen: Arrays  # parameters that this phase leaves alone
    ema: Arrays  # averages of `params`; {} where none are kept
    stats: Arrays  # BN running statistics
    opt_state: optax.OptState
    totals: Arrays  # sums over the epoch so far, see `no_totals`
    inputs: Arrays  # what steps read and never change: "key" and "rates", see `start`

    @classmethod
    def start(
        cls,
        optimizer: optax.GradientTransformation,
        params: Arrays,
        stats: Arrays,
        *,
        rates: ArrayLike,
        seed: int = 0,
        frozen: Arrays | None = None,
        averaged: bool = False,
        metrics: Iterable[str] = (),
        step: int = 0,
    ) -> "TrainState":
        """The state before the first step of a phase.

        The seed and the learning rates are data, not constants of the compiled step: runs that
        differ in nothing else share one compiled program.

        Args:
          optimizer: see `training.optim.optimizer`.
          params: those to be trained.
          stats: the BN running statistics.
          rates: float32 [n]; step s of the run has the learning rate `rates[s % n]`.
          seed: of all random numbers of the run.
          frozen: the parameters that this phase leaves alone.
          averaged: whether to keep averages of `params`.
          metrics: names of what `Objective.metrics` measures.
          step: the number of the first step.
        """
        return cls(
            step=jnp.array(step, jnp.int32),
            params=params,
            frozen=frozen or {},
            ema=dict(params) if averaged else {},
            stats=stats,
            opt_state=jax.jit(optimizer.init)(params),
            totals=no_totals(metrics),
            inputs={
                "key": jax.random.key_data(jax.random.key(seed)),  # uint32 [2]
                "rates": jnp.asarray(rates, jnp.float32),
            },
        )

    @property
    def weights(self) -> Arrays:
        """All parameters for inference: their averages where averages are kept."""
        return {**self.params, **self.ema, **self.frozen}

    @property
    def lasting(self) -> "TrainState":
        """The part that a checkpoint holds. A continued run makes the `inputs` from its config."""
        return replace(self, inputs={})


@dataclass(frozen=True)
class Program:
    """A network taken apart so that pure functions of its arrays can run it."""

    training: nnx.GraphDef[Network]  # BN on batch statistics, dropout on
    inference: nnx.GraphDef[Network]
    moving: frozenset[str]  # paths of the BN statistics that training changes
    num_classes: int
    constants: dict[str, Any] = field(repr=False)  # dropout's random streams, reseeded each step

    def network(self, params: Arrays, stats: Arrays, *, dropout: jax.Array | None) -> Network:
        """The network around these arrays: in training mode if it gets a dropout key."""
        state = unflatten_dict({**params, **stats, **self.constants}, sep=".")
        if dropout is None:
            return nnx.merge(self.inference, state)
        model = nnx.merge(self.training, state)
        nnx.reseed(model, dropout=dropout, default=dropout)
        return model

    @staticmethod
    def stats(model: Network) -> Arrays:
        """The BN statistics that a network holds after it ran."""
        return flat(nnx.state(model, nnx.BatchStat))


def take_apart(
    model: Network,
    *,
    freeze_bn: bool | Collection[str] = False,
    bn_axis: str | None = None,
    bn_momentum: float = 0.9,
) -> tuple[Program, Arrays, Arrays]:
    """(program, parameters, BN statistics) of a network; the arrays under dotted paths.

    Args:
      model: in inference mode; it is left as it is.
      freeze_bn: normalise with the running statistics in training too, and do not update them, in
        the whole network or in the stages of these names.
      bn_axis: the axis of devices to take batch statistics over; None: per device.
      bn_momentum: the share of the old running statistics kept at each step.
    """
    inference, state = nnx.split(model)
    twin = nnx.merge(inference, state, copy=True)
    twin.deterministic = False
    twin.set_attributes(nnx.Dropout, deterministic=False, raise_if_not_found=False)
    if isinstance(twin, Wrapped):
        twin.module.train()  # it may have modes of its own
        twin.set_attributes(nnx.BatchNorm, use_running_average=True, raise_if_not_found=False)
    stats, moving = flat(nnx.filter_state(state, nnx.BatchStat)), set()
    for path, module in nnx.iter_modules(twin):
        frozen = freeze_bn if isinstance(freeze_bn, bool) else not set(path).isdisjoint(freeze_bn)
        if isinstance(module, nnx.BatchNorm) and not frozen:
            module.set_attributes(
                use_running_average=False, axis_name=bn_axis, momentum=bn_momentum
            )
            prefix = ".".join(map(str, path))
            moving |= {p for p in stats if p.startswith(f"{prefix}.")}
    params = flat(nnx.filter_state(state, nnx.Param))
    constants = {p: x for p, x in flat(state).items() if p not in params and p not in stats}
    program = Program(
        nnx.graphdef(twin), inference, frozenset(moving), model.spec.num_classes, constants
    )
    return program, params, stats


def put_together(model: Network, params: Arrays, stats: Arrays) -> None:
    """Give a network these arrays."""
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, unflatten_dict({**params, **stats}, sep="."))
    nnx.update(model, state)


def flat(state: nnx.State[Any, Any]) -> Arrays:
    """The arrays of a module's state by dotted path ("body.stem.conv.kernel")."""
    arrays: Arrays = flatten_dict(nnx.to_pure_dict(state), sep=".")
    return arrays


def no_totals(metrics: Iterable[str] = ()) -> Arrays:
    """Zero sums, to begin an epoch or an evaluation with."""
    return {name: jnp.zeros(()) for name in ("loss", "correct", "top5", "count", *metrics)}
