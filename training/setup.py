"""What a run works on: its pictures and its network, as the config asks for them."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import zoo
from zoo import ops
from zoo.errors import ZooError
from zoo.layers import Network, model_stages
from zoo.preprocess import INCEPTION, Preprocess
from zoo.pretrained.store import is_file
from zoo.registry import find

from . import data
from .config import TrainConfig
from .phases import phases
from .state import Arrays, Program, take_apart


def open_data(config: TrainConfig) -> data.Dataset:
    """
    Raises:
      ZooError: an unknown network or dataset, unreadable pictures, or fewer than a batch of them.
    """
    find(config.model)  # a wrong name is told before the pictures are read
    dataset = data.open_dataset(
        config.data, val_fraction=config.val_fraction, skip_unreadable=config.skip_unreadable
    )
    if len(dataset.train) < config.batch_size:
        raise ZooError(
            f"batch size: got {config.batch_size}, "
            f"expected at most the {len(dataset.train)} training pictures"
        )
    return dataset


def build(config: TrainConfig, dataset: data.Dataset) -> Network:
    """The network to train, with fresh or given weights, its preprocessing fit for the dataset."""
    classes = len(dataset.classes)
    switches: dict[str, Any] = {
        "dtype": config.dtype,
        "drop_path": config.drop_path,
        "remat": config.remat,
    }
    if config.weights:
        file = config.weights if is_file(config.weights) else None
        if file is None and zoo.weights(config.weights).model != find(config.model).name:
            raise ZooError(f"weights: {config.weights} are not for {config.model}")
        model = zoo.load(
            config.model if file else config.weights,
            file=file,
            layout=config.layout,
            num_classes=classes,
            dropout=config.dropout,
            **switches,
        )
    else:
        model = zoo.create(
            config.model,
            num_classes=classes,
            seed=config.seed,
            dropout=config.dropout,
            aux=True,
            **switches,
        )
    model.classes = dataset.classes
    model.preprocess = preprocessing(model.preprocess, config.image_size, dataset.image_size)
    model.check_input(
        jax.ShapeDtypeStruct((1, *[model.preprocess.size] * 2, 3), jnp.float32)  # too small?
    )
    return model


def check_batch_norm(config: TrainConfig, model: Network, devices: int) -> None:
    """
    Raises:
      ZooError: a batch norm that is to follow the batch would see one value a channel.
    """
    share = config.batch_size // devices
    part = share // config.accumulate
    if part * (devices if config.sync_bn else 1) > 1:
        return  # two pictures are two values, however small the map
    image = jax.ShapeDtypeStruct((1, *[model.preprocess.size] * 2, 3), jnp.float32)

    def forward(program: Program, params: Arrays, stats: Arrays, x: jax.Array) -> Any:
        return program.network(params, stats, dropout=jax.random.key(0)).forward(x)

    stages = model_stages(model)
    for phase in phases(config, stages):
        still = config.freeze_bn or set(stages) - phase.trained
        program, params, stats = take_apart(model, freeze_bn=still)
        try:
            with ops.native_only():  # half of the tracing
                jax.eval_shape(partial(forward, program), params, stats, image)
        except ZooError as error:
            fewer = [n for n in range(1, share // 2 + 1) if share % n == 0]
            ways = [f"accumulate {fewer[-1]}"] if fewer else []
            ways += [f"batch_size {2 * devices * config.accumulate}"]
            ways += ["sync_bn"] if devices > 1 else []
            raise ZooError(
                f"{error}; of {config.batch_size} pictures a step {devices} device(s) take one at "
                f"a time: choose {', '.join(ways)}, freeze_bn or a larger image_size"
            ) from error


def class_weights(dataset: data.Dataset) -> list[float]:
    """What each class counts in the loss, so that all count alike; 1 on average over the pictures.

    A class without training pictures counts 0.
    """
    counts = dataset.class_counts
    present = int((counts > 0).sum())
    return [float(counts.sum() / (present * n)) if n else 0.0 for n in counts]


def preprocessing(own: Preprocess, asked: int | None, usual: int | None) -> Preprocess:
    """The network's preprocessing at the size asked for, or else usual for the dataset.

    Where it takes the nearest pixels of the whole picture, as `keras.utils.load_img` does, pictures
    are averaged and cropped instead: Keras' networks were not trained on the former.
    """
    if own.interpolation == "nearest":
        own = replace(
            INCEPTION.at_size(own.size), mean=own.mean, std=own.std, channels=own.channels
        )
    if asked or usual:
        own = own.at_size(asked or usual or own.size)
    # A dataset with a size of its own fills its pictures to the edge: nothing may be cut off.
    return replace(own, resize=None) if usual else own
