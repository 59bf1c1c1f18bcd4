"""Batch-norm statistics of weights that no step has normalised with.

Weights between others have other activations than these, whose statistics are not theirs: they are
measured anew, as after stochastic weight averaging (P. Izmailov et al., 2018, arXiv:1803.05407,
section 3.2) and between networks (K. Jordan et al., "REPAIR", 2022, arXiv:2211.08403).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.layers import model_stages
from zoo.preprocess import Preprocess

from .parallel import Devices
from .session import Session
from .sources.base import spread
from .state import Arrays, Program, put_together, take_apart
from .step import AXIS, Batch

# A thousand pictures give statistics as good as those of all (Y. Wu and J. Johnson, "Rethinking
# 'Batch' in BatchNorm", 2021, arXiv:2105.07576, section 3).
ENOUGH = 1000  # pictures

Recalibrate = Callable[[Arrays, Arrays], Arrays]  # params, stats -> stats
Measuring = tuple[Arrays, Arrays, Arrays, jax.Array]  # params, stats, moments, batches so far


def adapt(session: Session, devices: Devices) -> None:
    """Give a pretrained network the statistics of the training pictures, where its steps use them.

    Features by the statistics that were loaded are others than those that training sees: a
    classifier solved on them would be far off at the first step.
    """
    model = session.model
    still = session.config.freeze_bn or set(model_stages(model)) - session.phases[0].trained
    program, params, stats = take_apart(model, freeze_bn=still)
    if program.moving:
        recalibrate = recalibration(session, devices, program)
        new = recalibrate(*devices.replicate((params, stats)))
        put_together(model, params, devices.own(new))


def recalibration(session: Session, devices: Devices, program: Program) -> Recalibrate:
    """A function of all parameters and all BN statistics that gives the statistics they should be.

    They are those of training pictures as evaluation sees them, of `ENOUGH` of them or all where
    there are fewer, but for those of frozen stages, which stay.

    Args:
      session: the pictures and the preprocessing.
      devices: that share every batch, and hold the arrays.
      program: the network.
    """
    size, train = session.config.batch_size, session.dataset.train
    count = min(-(-ENOUGH // size), len(train) // size) * size  # whole batches, without filling
    batches = session.eval_batches(spread(train, count))
    step = devices.compile(
        make_measuring_step(program, session.model.preprocess),
        donate=False,
        dtype=session.model.spec.dtype,
        inference=True,
    )

    def recalibrate(params: Arrays, stats: Arrays) -> Arrays:
        moments = {path: jnp.zeros_like(stats[path]) for path in program.moving}
        state: Measuring = (params, stats, *devices.replicate((moments, jnp.zeros(()))))
        for batch in batches:
            state = step(state, devices.shard(batch))
        return state[1]

    return recalibrate


def make_measuring_step(
    program: Program, preprocess: Preprocess
) -> Callable[[Measuring, Batch], Measuring]:
    """(params, stats, moments, batches so far), batch -> the same after one more batch.

    The moments are the means over the batches of each channel's mean and mean square; `stats`
    follow from them.
    """

    def step(state: Measuring, batch: Batch) -> Measuring:
        params, stats, moments, count = state
        network = program.network(params, stats, dropout=None)
        for path, module in nnx.iter_modules(network):
            if f"{'.'.join(map(str, path))}.mean" in program.moving:
                module.set_attributes(use_running_average=False, axis_name=AXIS, momentum=0.0)
        network.forward(preprocess.normalize(batch["image"]))
        found = program.stats(network)  # of this batch alone
        square = {
            path: found[path] + found[mean_of(path)] ** 2 if is_variance(path) else found[path]
            for path in moments
        }
        moments = {path: old + (square[path] - old) / (count + 1) for path, old in moments.items()}
        new = {
            path: x - moments[mean_of(path)] ** 2 if is_variance(path) else x
            for path, x in moments.items()
        }
        return params, {**stats, **new}, moments, count + 1

    return step


def is_variance(path: str) -> bool:
    """Whether a statistic of a batch norm, by its dotted path, is the variance, not the mean."""
    return path.endswith(".var")


def mean_of(path: str) -> str:
    """The path of the mean that goes with a variance."""
    return f"{path.removesuffix('.var')}.mean"
