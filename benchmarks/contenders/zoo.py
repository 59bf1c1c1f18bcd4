"""Ours: what a user of `zoo` and `training` runs."""

from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo


def versions() -> dict[str, str]:
    return {"zoo": zoo.__version__, "jax": jax.__version__, "flax": flax.__version__}


def make(work: dict[str, Any]) -> Callable[[], Any]:
    return globals()[work["kind"]](work)


def images(work: dict[str, Any]) -> np.ndarray:
    shape = (work["batch"], work["side"], work["side"], 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def gemm(work: dict[str, Any]) -> Callable[[], Any]:
    """A square float32 matrix product."""
    a = jax.random.normal(jax.random.key(0), (work["size"], work["size"]))
    multiply = jax.jit(jnp.dot)
    return lambda: multiply(a, a).block_until_ready()


def infer(work: dict[str, Any]) -> Callable[[], Any]:
    """Images to logits, as `model(x)` does it. `cache` and `file` are those of `startup`."""
    if work.get("cache"):
        zoo.enable_compilation_cache()
    model = zoo.load(work["file"]) if work.get("file") else network(work)
    if work.get("fold"):
        model = zoo.fold(model)
    x = model.preprocess.normalize(jnp.asarray(images(work)))
    return lambda: model(x).block_until_ready()


def network(work: dict[str, Any]) -> zoo.Network:
    """With biases and statistics other than the zeros and ones of a network that is not trained.

    Where weights are part of a program, adding zeros is not.
    """
    model = zoo.create(work["network"], dtype=work.get("dtype", "float32"))
    random = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        for name, low, high in (("bias", -0.3, 0.3), ("mean", -0.3, 0.3), ("var", 0.5, 1.5)):
            leaf = getattr(module, name, None)
            if isinstance(leaf, nnx.Variable):
                leaf[...] = random.uniform(low, high, leaf.shape).astype(np.float32)
    return model


def train(work: dict[str, Any]) -> Callable[[], Any]:
    """The step of `training.fit` with SGD, as `zoo train` runs it, augmentation apart.

    `cache` is that of `startup`.
    """
    if work.get("cache"):
        zoo.enable_compilation_cache()
    if work.get("coordinator"):
        # Who waits for its turn is stopped, and is not dead: no heartbeat for an hour.
        jax.distributed.initialize(
            work["coordinator"], work["processes"], work["rank"], heartbeat_timeout_seconds=3600
        )
    devices, step, state = training(work)
    step = devices.compile(step, donate=True, dtype=work.get("dtype", "float32"))
    share = slice(jax.process_index(), None, jax.process_count())
    labels = np.arange(work["batch"], dtype=np.int32)
    batch = {"image": images(work)[share], "label": labels[share]}

    def call() -> None:
        nonlocal state
        state = step(state, devices.shard(batch))
        jax.block_until_ready(state)

    return call


def training(work: dict[str, Any], on: Sequence[jax.Device] | None = None) -> tuple:
    """What `zoo train` is made of: (devices, the step for one of them, the state to begin with).

    `work` is that of `train`, and may say `dtype`, `engine`, `rate`, and `act`: other activations.
    """
    from training import TrainConfig, optim
    from training.parallel import Devices
    from training.phases import phases
    from training.session import assemble, objective

    config = TrainConfig(
        model=work["network"],
        optimizer="sgd",
        batch_size=work["batch"],
        dtype=work.get("dtype", "float32"),
        warmup=0.0,
        shift=0,
        weight_decay=0.0,
    )
    devices = Devices(work.get("engine", config.engine), on)
    model = zoo.create(config.model, aux=True, dtype=config.dtype, act=work.get("act"))
    rate = optim.schedule(config, work.get("rate", 1e-3), 10**6, 10**3)
    goal = objective(config, model.spec.num_classes, None)
    (phase,) = phases(config, model.stages)
    parts = assemble(config, model, phase, rate, goal, period=10**3, flip=False)
    return devices, parts.step, devices.replicate(parts.start())


def plain_jit(work: dict[str, Any]) -> Callable[[], Any]:
    """The same network trained by a jitted step that knows of no devices."""
    from zoo.runtime.backend import jit

    from . import flax

    model = zoo.create(work["network"])
    model.train()
    return flax.train(model, flax.images(work), jit)


def batches(work: dict[str, Any]) -> Callable[[], Any]:
    """Batches of augmented pictures for training, more than the stream keeps ready."""
    from training import decode
    from training.data import open_dataset, train_batches
    from zoo.preprocess import IMAGENET

    if work.get("pillow"):
        decode.resizer = None
    stream = train_batches(
        open_dataset(f"folder:{work['folder']}"),
        IMAGENET.at_size(work["side"]),
        batch_size=work["batch"],
        seed=0,
        crop_scale=work["crop_scale"],
        threads=work["threads"],
    )
    return lambda: [next(stream) for _ in range(work["batches"])]
