"""Augmentation: a function of pictures and key."""

import jax
import numpy as np
import pytest

from training.augment import augment

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
KEY = jax.random.key(0)


def test_nothing_asked_nothing_changed():
    np.testing.assert_array_equal(augment(IMAGES, KEY, flip=False, shift=0), IMAGES)


def test_flip_mirrors_about_half():
    out = np.asarray(augment(IMAGES, KEY, flip=True, shift=0))
    same = (out == IMAGES).all((1, 2, 3))
    mirrored = (out == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 20 <= mirrored.sum() <= 44


def test_shift_moves_each_picture_by_its_own_offset():
    out = np.asarray(augment(IMAGES, KEY, flip=False, shift=2))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    offsets = set()
    for picture, moved in zip(padded, out, strict=True):
        fits = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if (picture[i : i + 8, j : j + 8] == moved).all()
        ]
        assert len(fits) == 1
        offsets.add(fits[0])
    assert len(offsets) > 15  # of 25


@pytest.mark.parametrize("same", [True, False])
def test_the_key_decides(same):
    other = KEY if same else jax.random.key(1)
    a, b = (np.asarray(augment(IMAGES, k, flip=True, shift=2)) for k in (KEY, other))
    assert (a == b).all() == same
