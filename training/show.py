"""A contact sheet of what the network sees: the first batch of a run, augmented."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ZooError
from zoo.sheet import contact_sheet

from .augment import augment, mix, to_uint8
from .config import TrainConfig
from .objective import Objective
from .session import Session
from .step import AXIS, MIXING, keys

COLUMNS, WIDTH = 8, 224  # pictures in a row; the width of one, pixels, at most


def show_batch(config: TrainConfig, path: str | Path, *, count: int = 32) -> Path:
    """Write training pictures as they enter the network, each above the name of its class, as PNG.

    They are the first of the run's first batch: the pictures, their order and every random number
    are those of its first step on one device. Where pictures are mixed, each class is named with
    its share.

    Args:
      config: of the run.
      path: of the PNG; its folder must exist.
      count: pictures to show, of the batch's at most.

    Raises:
      ZooError: what the config names cannot be used, as in `fit`; or `path` cannot be written.

    >>> show_batch(TrainConfig(data="folder:photos", rotate=15), "batch.png")   # doctest: +SKIP
    """
    path = Path(path)
    if count < 1:
        raise ZooError(f"count: got {count}, expected at least 1")
    if not path.parent.is_dir():
        raise ZooError(f"cannot write {path}: no folder {path.parent}")
    session = Session.open(config)
    classes = session.dataset.classes
    batch = next(session.train_batches())
    # A function of both, for a batch of mixed pictures needs all of it
    first = jax.jit(
        partial(first_step, config=config, flip=session.random_flip, goal=session.objective)
    )
    images, targets = (np.asarray(values[:count]) for values in first(**batch))
    # A pixel of a small picture becomes a square of several
    scale = max(1, WIDTH // images.shape[2])
    sheet = contact_sheet(
        list(images.repeat(scale, 1).repeat(scale, 2)),
        [caption(target, classes) for target in targets],
        columns=COLUMNS,
        width=min(WIDTH, scale * images.shape[2]),
    )
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from error
    return path


def first_step(
    image: jax.Array, label: jax.Array, *, config: TrainConfig, flip: bool, goal: Objective
) -> tuple[jax.Array, jax.Array]:
    """(uint8 [B, H, W, 3], float [B, K]): pictures and targets as the first step makes them.

    Without label smoothing. To mix before normalising or after it comes to the same.
    """
    seed = jax.random.key_data(jax.random.key(config.seed))
    seeds = jax.vmap(partial(keys, seed), axis_name=AXIS)(jnp.zeros(1, jnp.int32))
    augmenting = seeds[0][0]  # of the first device
    images = augment(image, augmenting, config, flip=flip)
    targets = goal.targets(label)
    if config.mixup or config.cutmix:
        mixing = jax.random.fold_in(augmenting, MIXING)
        x, targets = mix(images.astype(jnp.float32), targets, mixing, config)
        images = to_uint8(x)
    return images, targets


def caption(target: np.ndarray, classes: Sequence[str]) -> list[str]:
    """A line a class of the target [K], the largest first, with their shares if there are two.

    What would read 0 % is left out.
    """
    order = [i for i in np.argsort(-target, kind="stable") if target[i] >= 0.005]
    if len(order) == 1:
        return [classes[order[0]]]
    return [f"{target[i]:.0%} {classes[i]}" for i in order]
