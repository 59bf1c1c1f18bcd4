"""Augmentation on the device, inside the step: a function of the pictures and a key, no state.

The key follows from the run's seed, the step and the device, so that a resumed run sees the very
same pictures.
"""

import jax
import jax.numpy as jnp


def augment(images: jax.Array, key: jax.Array, *, flip: bool, shift: int) -> jax.Array:
    """Mirror each picture with probability 1/2 and move it by up to `shift` pixels.

    Args:
      images: [N, H, W, 3] uint8. The edge is repeated where a shifted picture leaves a gap.
    """
    flip_key, shift_key = jax.random.split(key)
    n, height, width, _ = images.shape
    if flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (n, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if shift:
        padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
        corners = jax.random.randint(shift_key, (n, 2), 0, 2 * shift + 1)

        def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (*corner, 0), (height, width, 3))

        images = jax.vmap(crop)(padded, corners)
    return images
