"""A first convolution that whitens patches of the training pictures.

After Page, 2019, https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/, and Jordan,
2024, arXiv:2404.00498.
"""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view

from zoo.layers import Conv2d, Network

MOST = 5_000  # pictures
PATCHES = 50  # of each
EPSILON = 5e-4  # added to the variances: directions that hardly vary are not blown up to one


def filters(patches: np.ndarray) -> np.ndarray:
    """The filters that whiten patches, and their negatives, those of the largest variance first.

    Args:
      patches: [N, kh, kw, C].

    Returns:
      float32 [kh, kw, C, 2 kh kw C]: filter 2 i + 1 is filter 2 i times -1.
    """
    shape = patches.shape[1:]
    x = patches.reshape(len(patches), -1).astype(np.float64)
    variances, directions = np.linalg.eigh(x.T @ x / len(x))
    scaled = (directions / np.sqrt(np.maximum(variances, 0) + EPSILON))[:, ::-1]
    both = np.stack((scaled, -scaled), -1)
    return both.reshape(*shape, -1).astype(np.float32)


def start(model: Network, batches: Iterable[Mapping[str, np.ndarray]], *, seed: int) -> str:
    """Make the first convolution of a network whiten patches, and say what became of it.

    A convolution of fewer features than filters gets those of the largest variance; one of more
    keeps the random ones that it has for the rest.

    Args:
      model: its first convolution is changed.
      batches: of training pictures, as from `training.data.eval_batches`.
      seed: of the patches that are looked at.
    """
    _, first = next(model.body.layers())
    convolutions = (
        module
        for _, module in nnx.iter_modules(first)
        if isinstance(module, Conv2d) and module.kernel[...].shape[2] == model.spec.in_chans
    )
    conv = next(convolutions, None)
    if conv is None:
        return f"stem: random at first, as {model.spec.name} does not begin with a convolution"
    rng = np.random.default_rng(seed)
    taken = [patches_of(model, batch, conv.size, rng) for batch in batches]
    found = filters(np.concatenate(taken))
    features = conv.kernel[...].shape[-1]
    count = min(features, found.shape[-1])
    kernel = np.array(conv.kernel[...])
    kernel[..., :count] = found[..., :count]
    conv.kernel[...] = jnp.asarray(kernel, conv.kernel[...].dtype)
    height, width = conv.size
    return f"stem: {count} of {features} filters whiten patches of {height}x{width} pixels"


def patches_of(
    model: Network,
    batch: Mapping[str, np.ndarray],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """`PATCHES` patches of each picture at random places, preprocessed, [N, kh, kw, C]."""
    images = np.asarray(model.preprocess.normalize(batch["image"][batch["weight"] > 0]))
    windows = sliding_window_view(images, size, axis=(1, 2))  # [N, H', W', C, kh, kw]
    count, rows, columns = windows.shape[:3]
    shape = (count, PATCHES)
    some = windows[
        np.arange(count)[:, None], rng.integers(rows, size=shape), rng.integers(columns, size=shape)
    ]
    return some.reshape(-1, *some.shape[2:]).transpose(0, 2, 3, 1)
