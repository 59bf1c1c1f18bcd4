"""Plain Flax: the obvious NNX module (`plain_flax.py`), jitted by hand, with Optax.

With `onednn`, compiled with the option that hands convolutions and products to oneDNN, which jaxlib
has from 0.11 on; YNN, which would take them first, keeps reductions alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from .. import plain_flax

ONEDNN = {
    "xla_cpu_experimental_onednn_custom_call": True,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
}


def versions() -> dict[str, str]:
    return {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}


def make(work: dict[str, Any]) -> Callable[[], Any]:
    network = plain_flax.NETWORKS.get(work["network"])
    if network is None:
        raise NotImplementedError(f"plain_flax has no {work['network']}")
    # in one compilation: initialising eagerly takes a network of this size 20 seconds
    model = nnx.jit(lambda: network(rngs=nnx.Rngs(params=0, dropout=1)))()
    jit = partial(jax.jit, compiler_options=ONEDNN) if work.get("onednn") else jax.jit
    return {"infer": infer, "train": train}[work["kind"]](model, images(work), jit)


def images(work: dict[str, Any]) -> jax.Array:
    shape = (work["batch"], work["side"], work["side"], 3)
    return jax.random.normal(jax.random.key(0), shape)


def infer(model: nnx.Module, x: jax.Array, jit: Callable = jax.jit) -> Callable[[], Any]:
    model.eval()
    graphdef, state = nnx.split(model)
    forward = jit(lambda state, x: nnx.merge(graphdef, state)(x))
    return lambda: forward(state, x).block_until_ready()


def train(model: nnx.Module, x: jax.Array, jit: Callable = jax.jit) -> Callable[[], Any]:
    model.train()
    optimizer = optax.sgd(1e-3, momentum=0.9, nesterov=True)
    labels = jnp.arange(len(x))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def loss_of(params, rest, x):
        model = nnx.merge(graphdef, params, rest)
        output = model(x)
        logits, *aux = output if isinstance(output, tuple) else (output,)

        def loss(logits):
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        _, _, rest = nnx.split(model, nnx.Param, ...)
        return loss(logits) + 0.3 * sum(map(loss, aux)), nnx.to_pure_dict(rest)

    @partial(jit, donate_argnums=(0, 1, 2))
    def step(params, rest, opt_state, x):
        grads, rest = jax.grad(loss_of, has_aux=True)(params, rest, x)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), rest, opt_state

    state = params, rest, optimizer.init(params)

    def call() -> None:
        nonlocal state
        state = jax.block_until_ready(step(*state, x))

    return call
