"""Augmentation: functions of pictures and a key, against Pillow's and against numbers by hand."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from training import augment as ours
from training.augment import augment, cutmix, mix, mixup
from training.config import TrainConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 10, 8, 3), np.uint8)
KEY = jax.random.key(0)

# Smooth enough that a neighbour's rounding does not matter, none of its channels filling 0..255
WAVES = np.random.default_rng(1).integers(40, 180, (4, 3, 3), np.uint8)
PILLOW = Image.fromarray(WAVES).resize((30, 40), Image.Resampling.BICUBIC)
PICTURE = np.asarray(PILLOW)
GREY = (128, 128, 128)


@cache
def program(flip: bool, config: TrainConfig):
    return jax.jit(partial(augment, config=config, flip=flip))


def run(images=IMAGES, key=KEY, *, flip=False, **settings) -> np.ndarray:
    return np.asarray(program(flip, TrainConfig(**{"shift": 0, **settings}))(images, key))


rotate = jax.jit(ours.rotate, static_argnames="fill")

# What each operation is asked for with
EVERY = [
    {"flip": True},
    {"shift": 2},
    {"rotate": 30.0},
    {"color": 0.4},
    {"randaugment": 2},
    {"noise": 0.1},
    {"erase": 0.6},
]


def test_nothing_asked_nothing_changed():
    np.testing.assert_array_equal(run(), IMAGES)


@pytest.mark.parametrize("settings", EVERY, ids=lambda settings: next(iter(settings)))
def test_the_key_and_the_place_in_the_batch_decide(settings):
    out = run(**settings)
    assert out.shape == IMAGES.shape
    assert out.dtype == np.uint8
    assert (out != IMAGES).any()
    np.testing.assert_array_equal(out, run(**settings))
    assert (out != run(key=jax.random.key(1), **settings)).any()
    others = IMAGES.copy()
    others[1:] = 255 - IMAGES[:0:-1]
    np.testing.assert_array_equal(run(others, **settings)[0], out[0])
    # The same picture in every place: each is changed in its own way
    assert len(np.unique(run(np.repeat(IMAGES[:1], 64, 0), **settings), axis=0)) > 1


def test_an_operation_more_changes_nothing_in_the_others():
    shifted = run(shift=2).astype(int)
    np.testing.assert_allclose(run(shift=2, noise=0.001).astype(int), shifted, atol=2)


def test_flip_mirrors_about_half():
    out = run(flip=True)
    same = (out == IMAGES).all((1, 2, 3))
    mirrored = (out == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 20 <= mirrored.sum() <= 44


def test_shift_moves_each_picture_by_its_own_offset():
    out = run(shift=2)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    offsets = set()
    for picture, moved in zip(padded, out, strict=True):
        fits = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if (picture[i : i + 10, j : j + 8] == moved).all()
        ]
        assert len(fits) == 1
        offsets.add(fits[0])
    assert len(offsets) > 15  # of 25


def test_rotate_by_right_angles():
    square = IMAGES[0, :8]
    for quarters in (0, 1, -1):
        got = rotate(square, 90.0 * quarters)
        np.testing.assert_array_equal(got, np.rot90(square, quarters))
    np.testing.assert_array_equal(rotate(IMAGES[0], 180.0), IMAGES[0, ::-1, ::-1])


def test_what_a_rotation_uncovers():
    white = np.full((9, 9, 3), 255, np.uint8)
    assert (rotate(white, 45.0) == 255).all()  # the edge repeated
    filled = np.asarray(rotate(white, 45.0, fill=100.0))
    assert (filled[[0, 0, -1, -1], [0, -1, 0, -1]] == 100).all()
    assert (filled[2:-2, 2:-2] == 255).all()


def test_rotate_turns_each_picture_by_its_own_angle():
    ramp = 128 + 7 * (np.arange(17) - 8)  # from left to right
    picture = np.broadcast_to(ramp[None, :, None], (17, 17, 3)).astype(np.uint8)
    out = run(np.repeat(picture[None], 64, 0), rotate=20.0)[..., 0].astype(int)
    # Turned counter-clockwise by a, what was to the right is now above too: 7 sin(a) a row
    angles = np.rad2deg(np.arcsin((out[:, 3, 8] - out[:, 13, 8]) / 70))
    assert abs(angles).max() <= 21
    assert angles.min() < -15
    assert angles.max() > 15


def transformed(*matrix: float) -> Image.Image:
    return PILLOW.transform(
        PILLOW.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY
    )


def turned(degrees: float) -> Image.Image:
    return PILLOW.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY)


@cache
def randaugment_operations() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each makes of `PICTURE` at magnitude 15, for the signs 1 and -1."""
    known = ours.operations(15.0, *PICTURE.shape[:2])

    @jax.jit
    def all_of_them(picture):
        signs = jnp.array([1.0, -1.0])
        return {
            name: jax.vmap(partial(operation, picture))(signs) for name, operation in known.items()
        }

    return jax.device_get(all_of_them(PICTURE))


def test_randaugment_has_the_operations_of_the_paper():
    # Cubuk et al., 2019, section 3
    assert set(ours.operations(9.0, 8, 8)) == {
        *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize"),
        *("contrast", "brightness", "sharpness", "shear_x", "shear_y"),
        *("translate_x", "translate_y"),
    }


# At half of the magnitude: 0.45 of colours, 15 degrees, 0.15 of shear, 6 bits, the upper half
# inverted, 75/331 of the sides of 30 and 40 pixels.
@pytest.mark.parametrize(
    ("name", "up", "down", "levels"),
    [
        ("identity", PILLOW, PILLOW, 0),
        ("autocontrast", ImageOps.autocontrast(PILLOW), ImageOps.autocontrast(PILLOW), 1),
        ("equalize", ImageOps.equalize(PILLOW), ImageOps.equalize(PILLOW), 0),
        ("rotate", turned(15), turned(-15), 1),
        ("solarize", ImageOps.solarize(PILLOW, 128), ImageOps.solarize(PILLOW, 128), 0),
        ("posterize", ImageOps.posterize(PILLOW, 6), ImageOps.posterize(PILLOW, 6), 0),
        *(
            (name, enhance(PILLOW).enhance(1.45), enhance(PILLOW).enhance(0.55), 1)
            for name, enhance in [
                ("color", ImageEnhance.Color),
                ("contrast", ImageEnhance.Contrast),
                ("brightness", ImageEnhance.Brightness),
                ("sharpness", ImageEnhance.Sharpness),
            ]
        ),
        ("shear_x", transformed(1, 0.15, 0, 0, 1, 0), transformed(1, -0.15, 0, 0, 1, 0), 1),
        ("shear_y", transformed(1, 0, 0, 0.15, 1, 0), transformed(1, 0, 0, -0.15, 1, 0), 1),
        ("translate_x", transformed(1, 0, 7, 0, 1, 0), transformed(1, 0, -7, 0, 1, 0), 0),
        ("translate_y", transformed(1, 0, 0, 0, 1, 9), transformed(1, 0, 0, 0, 1, -9), 0),
    ],
)
def test_each_operation_of_randaugment_does_as_pillow(name, up, down, levels):
    got = randaugment_operations()[name].astype(int)
    np.testing.assert_allclose(got, [np.asarray(up, int), np.asarray(down, int)], atol=levels)


def test_equalize_of_few_pixels_and_of_one_value():
    for picture in (PICTURE[:10, :10], np.full((40, 30, 3), 77, np.uint8)):
        want = ImageOps.equalize(Image.fromarray(picture))
        np.testing.assert_array_equal(jax.jit(ours.equalize)(picture), want)


def test_autocontrast_of_one_value():
    flat = np.full((4, 4, 3), 77, np.uint8)
    np.testing.assert_array_equal(jax.jit(ours.autocontrast)(flat), flat)


def test_randaugment_draws_from_all_operations():
    out = run(np.repeat(PICTURE[None], 128, 0), randaugment=1, magnitude=15.0).astype(int)
    counts = dict.fromkeys(randaugment_operations(), 0)
    for picture in out:
        distances = {
            name: abs(picture - results.astype(int)).max((1, 2, 3)).min()
            for name, results in randaugment_operations().items()
        }
        nearest = min(distances, key=distances.__getitem__)
        assert distances[nearest] <= 1
        counts[nearest] += 1
    assert min(counts.values()) >= 1
    assert max(counts.values()) <= 24  # 9 of 128 are to be expected


def test_randaugment_applies_one_operation_after_the_other(monkeypatch):
    def known(magnitude, height, width):
        add, double = jnp.uint8(1), jnp.uint8(2)
        return {"add": lambda image, _: image + add, "double": lambda image, _: image * double}

    monkeypatch.setattr(ours, "operations", known)
    ones = np.ones((64, 2, 2, 3), np.uint8)
    out = np.asarray(ours.randaugment(ones, KEY, 3, 9.0))
    assert set(out[:, 0, 0, 0].tolist()) == {4, 5, 6, 8}  # and nothing else of three of these
    assert (out == out[:, :1, :1, :1]).all()


def test_all_branches_at_once_come_to_the_same(monkeypatch):
    one_by_one = run(randaugment=2)
    elsewhere = lambda *args, cpu, default: default(*args)  # noqa: E731
    monkeypatch.setattr(jax.lax, "platform_dependent", elsewhere)
    at_once = program.__wrapped__(False, TrainConfig(shift=0, randaugment=2))(IMAGES, KEY)
    np.testing.assert_allclose(np.asarray(at_once).astype(int), one_by_one, atol=1)


def test_magnitude_0_leaves_but_the_histograms_to_change():
    known = ours.operations(0.0, 10, 8)
    rest = known.keys() - {"autocontrast", "equalize"}
    done = jax.jit(lambda image: {name: known[name](image, jnp.float32(-1)) for name in rest})
    for name, image in done(IMAGES[0]).items():
        np.testing.assert_array_equal(image, IMAGES[0], err_msg=name)


def test_color_by_the_formulas():
    x = IMAGES[0].astype(float)
    grey = x @ [0.299, 0.587, 0.114]
    for operation, factor, want in (
        (ours.brightness, 1.3, 1.3 * x),
        (ours.contrast, 0.6, 0.6 * x + 0.4 * grey.mean()),
        (ours.saturation, 1.7, 1.7 * x - 0.7 * grey[..., None]),
    ):
        got = np.asarray(jax.jit(operation)(IMAGES[0], factor)).astype(int)
        np.testing.assert_allclose(got, want.clip(0, 255), atol=0.501)


def test_color_spans_the_range_asked_for():
    # Of one grey, contrast and saturation change nothing: what is left is the brightness
    out = run(np.full((64, 2, 2, 3), 100, np.uint8), color=0.4)
    assert 60 <= out.min() < 68
    assert 132 < out.max() <= 140


def test_noise_is_gaussian_with_the_deviation_asked_for():
    noise = run(np.full_like(IMAGES, 128), noise=0.05).astype(float) - 128
    assert abs(noise.mean()) < 0.3
    assert abs(noise.std() - 0.05 * 255) < 0.3
    assert 0.037 < (abs(noise) > 2 * noise.std()).mean() < 0.054  # 4.6 % of a normal distribution
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


def test_noise_is_clipped_not_wrapped():
    white = run(np.full_like(IMAGES, 255), noise=0.1)
    assert white.min() > 100
    assert (white == 255).mean() > 0.4


def test_erase_fills_a_rectangle_with_noise():
    height, width = 32, 24
    out = run(np.zeros((64, height, width, 3), np.uint8), erase=0.6)
    out = out[out.any((1, 2, 3))]
    spots = set()
    for picture in out:
        changed = picture.any(-1)
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        box = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.any(-1).all()  # a rectangle, without holes
        h, w, _ = box.shape
        assert (h + 0.5) * (w + 0.5) >= 0.02 * height * width
        assert (h - 0.5) * (w - 0.5) <= 0.33 * height * width
        assert (h + 0.5) / (w - 0.5) >= 0.3
        assert (h - 0.5) / (w + 0.5) <= 3.3
        spots.add((rows[0], columns[0]))
    assert len(spots) > 20
    filled = out[out.any(-1)]
    assert abs(filled.mean() - 127.5) < 2
    assert abs(filled.std() - 256 / 12**0.5) < 2


def test_erase_by_the_chance_asked_for():
    erased = (run(erase=0.6) != IMAGES).any((1, 2, 3))
    assert 28 <= erased.sum() <= 48


# 4 pictures of 6 x 8; no number twice, so that each tells where it comes from
X = np.random.default_rng(2).permutation(4 * 6 * 8 * 3).reshape(4, 6, 8, 3).astype(np.float32)
TARGETS = np.eye(5, dtype=np.float32)[:4]


def test_mixup_by_hand():
    x, targets = jax.jit(mixup)(X, TARGETS, 0.75)
    np.testing.assert_array_equal(x, 0.75 * X + 0.25 * X[::-1])
    assert targets.tolist() == [
        [0.75, 0, 0, 0.25, 0],
        [0, 0.75, 0.25, 0, 0],
        [0, 0.25, 0.75, 0, 0],
        [0.25, 0, 0, 0.75, 0],
    ]


def test_cutmix_by_hand():
    x, targets = jax.jit(cutmix)(X, TARGETS, (1, 4, 2, 8))
    want = X.copy()
    want[:, 1:4, 2:8] = X[::-1, 1:4, 2:8]
    np.testing.assert_array_equal(x, want)
    assert targets[0].tolist() == [0.625, 0, 0, 0.375, 0]  # 18 pixels of 48


@cache
def mixing(**settings):
    return jax.jit(partial(mix, config=TrainConfig(**settings)))


def test_mix_does_one_or_the_other_and_tells_the_targets():
    kinds = []
    for seed in range(40):
        got = mixing(mixup=1.0, cutmix=1.0)(X, TARGETS, jax.random.key(seed))
        x, targets = map(np.asarray, got)
        np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
        share = targets[0, 0]
        np.testing.assert_allclose(targets, mixup(X, TARGETS, share)[1], atol=1e-6)
        if np.isin(x, X).all():
            kinds.append("cutmix")
            np.testing.assert_allclose(share, (x == X).mean(), atol=1e-6)
            assert (x == X[::-1])[x != X].all()
        else:
            kinds.append("mixup")
            np.testing.assert_allclose(x, share * X + (1 - share) * X[::-1], rtol=1e-4)
    assert 10 <= kinds.count("mixup") <= 30


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mix_does_the_one_that_the_config_asks_for(kind):
    x, targets = mixing(**{kind: 0.4})(X, TARGETS, KEY)
    assert np.isin(x, X).all() == (kind == "cutmix")
    assert 0 < targets[0, 0] < 1
    again, _ = mixing(**{kind: 0.4})(X, TARGETS, KEY)
    np.testing.assert_array_equal(again, x)


def test_shares_follow_the_beta_distribution():
    keys = jax.random.split(KEY, 500)
    shares = np.array([mixing(mixup=0.4)(X, TARGETS, key)[1][0, 0] for key in keys])
    assert abs(shares.mean() - 0.5) < 0.05
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.015  # of Beta(a, a)


def test_boxes_of_cutmix():
    box = jax.jit(jax.vmap(lambda key, area: jnp.stack(ours.random_box(key, area, 40, 20))))
    areas = np.linspace(0, 1, 500)
    top, bottom, left, right = np.asarray(box(jax.random.split(KEY, 500), areas)).T
    assert ((top >= 0) & (top <= bottom) & (bottom <= 40)).all()
    assert ((left >= 0) & (left <= right) & (right <= 20)).all()
    whole = (top > 0) & (bottom < 40) & (left > 0) & (right < 20)  # not cut off
    sides = np.sqrt(areas[whole])
    assert whole.sum() > 50
    np.testing.assert_allclose((bottom - top)[whole], 40 * sides, atol=1)
    np.testing.assert_allclose((right - left)[whole], 20 * sides, atol=1)
    assert abs(((top + bottom) / 2)[whole].mean() - 20) < 2


def test_mix_leaves_alone_what_it_must():
    for x, config in ((X, TrainConfig()), (X[:1], TrainConfig(mixup=1.0, cutmix=1.0))):
        same, targets = mix(x, TARGETS, KEY, config)
        assert same is x
        assert targets is TARGETS


def test_mix_keeps_the_type():
    for share in (0.3, jnp.float32(0.3)):
        x, targets = mixup(jnp.asarray(X, jnp.bfloat16), TARGETS, share)
        assert x.dtype == jnp.bfloat16
        assert targets.dtype == jnp.float32
