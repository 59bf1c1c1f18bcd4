"""What a run works on: its pictures and its network, as the config asks for them."""

import sys
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

import zoo
from zoo.errors import ZooError, printable
from zoo.layers import Network
from zoo.preprocess import INCEPTION, Preprocess
from zoo.pretrained.store import is_file
from zoo.registry import find

from . import data
from .config import TrainConfig


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
            like=config.like,
            num_classes=classes,
            dropout=config.dropout,
            **switches,
        )
        if jax.process_index() == 0:
            for note in model.notes:
                print(printable(f"zoo: {config.weights}: {note}"), file=sys.stderr)
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


def class_weights(dataset: data.Dataset) -> list[float]:
    """What each class counts in the loss, so that all count alike; 1 on average over the pictures.

    A class without training pictures counts 0.
    """
    counts = dataset.class_counts
    present = int((counts > 0).sum())
    return [float(counts.sum() / (present * n)) if n else 0.0 for n in counts]


def preprocessing(own: Preprocess, asked: int | None, usual: int | None) -> Preprocess:
    """The network's preprocessing at the size asked for, or else usual for the dataset.

    Where it picks pixels, as `keras.utils.load_img` and slim do, pictures are averaged and cropped
    instead: the networks were not trained on the former. What was only assumed holds from now on.
    """
    own = replace(own, note="")
    if own.interpolation in ("nearest", "tf_bilinear"):
        own = replace(
            INCEPTION.at_size(own.size), mean=own.mean, std=own.std, channels=own.channels
        )
    if asked or usual:
        own = own.at_size(asked or usual or own.size)
    # A dataset with a size of its own fills its pictures to the edge: nothing may be cut off.
    return replace(own, resize=None) if usual else own
