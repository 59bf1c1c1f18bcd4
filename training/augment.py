"""Augmentation on the device, inside the step: functions of the pictures and a key, no state.

The key follows from the run's seed, the step and the device, so that a resumed run sees the very
same pictures. Each operation has a key of its own and draws for each picture by its place in the
batch: switching one on changes nothing in what the others draw.

What is random works on a batch, uint8 [N, H, W, C]. What it does to a picture is a function of one,
uint8 [H, W, C], and of numbers. Pictures need not be square. What changes colours needs three
channels.
"""

import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from .config import TrainConfig

Number = float | jax.Array  # a scalar
# Rows from top to bottom, columns from left to right, the ends not in it
Box = tuple[Number, Number, Number, Number]

KEYS = 7  # that `augment` takes from its own; `mix` takes those after them
GREY = 128.0  # where RandAugment uncovers what is no picture, as its authors' code


def augment(images: jax.Array, key: jax.Array, config: TrainConfig, *, flip: bool) -> jax.Array:
    """Augment as the config says: first what moves pixels, then colours, then what covers pixels.

    Args:
      images: uint8 [N, H, W, 3]; so is the result.
      key: for all random choices; each picture gets its own.
      config: its fields from `shift` to `erase` are read.
      flip: mirror half of the pictures, whatever `config.flip` leaves to the dataset.
    """
    keys = jax.random.split(key, KEYS)
    if flip:
        images = random_flip(images, keys[0])
    if config.shift:
        images = random_shift(images, keys[1], config.shift)
    if config.rotate:
        images = random_rotate(images, keys[2], config.rotate)
    if config.randaugment:
        images = randaugment(images, keys[3], config.randaugment, config.magnitude)
    if config.color:
        images = random_color(images, keys[4], config.color)
    if config.noise:
        images = add_noise(images, keys[5], config.noise)
    if config.erase:
        images = random_erase(images, keys[6], config.erase)
    return images


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror each picture with probability 1/2."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_shift(images: jax.Array, key: jax.Array, most: int) -> jax.Array:
    """Move each picture by up to `most` pixels; gaps are filled with its edge."""
    n, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (n, 2), 0, 2 * most + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (*corner, 0), (height, width, channels))

    return jax.vmap(crop)(padded, corners)


def random_rotate(images: jax.Array, key: jax.Array, most: float) -> jax.Array:
    """Turn each picture by up to `most` degrees; gaps are filled with its edge."""
    angles = jax.random.uniform(key, (len(images),), minval=-most, maxval=most)
    return jax.vmap(rotate)(images, angles)


def random_color(images: jax.Array, key: jax.Array, most: float) -> jax.Array:
    """Multiply brightness, contrast and saturation by factors from 1 - `most` to 1 + `most`.

    As torchvision's ColorJitter, but always in this order: except for clipping, the three commute.
    """
    factors = jax.random.uniform(key, (len(images), 3), minval=1 - most, maxval=1 + most)

    def jitter(image: jax.Array, factors: jax.Array) -> jax.Array:
        image = brightness(image, factors[0])
        return saturation(contrast(image, factors[1]), factors[2])

    return jax.vmap(jitter)(images, factors)


def add_noise(images: jax.Array, key: jax.Array, deviation: float) -> jax.Array:
    """Add Gaussian noise; its standard deviation is given as a share of the full range."""
    # Of 65,536 equally likely values: half the random bits of a float, and nobody can tell.
    steps = random_bits(key, images.shape, jnp.uint16).astype(jnp.float32)
    normal = math.sqrt(2) * lax.erf_inv((steps + 0.5) / 2**15 - 1)
    return to_uint8(images + 255 * deviation * normal)


def random_erase(images: jax.Array, key: jax.Array, chance: float) -> jax.Array:
    """Zhong et al., 2017, arXiv:1708.04896: by that chance, fill a rectangle with uniform noise.

    Of 2 to 33 % of the picture's area, its height 0.3 to 3.3 times its width, with ten tries for
    one that fits: torchvision's RandomErasing, whose noise is normal, after normalising.
    """
    n, height, width, _ = images.shape
    tries_key, place_key, noise_key = jax.random.split(key, 3)
    tries = jax.random.uniform(tries_key, (n, 10, 2))
    area = height * width * (0.02 + 0.31 * tries[..., 0])
    ratio = jnp.exp(math.log(0.3) + math.log(3.3 / 0.3) * tries[..., 1])
    h = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    w = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (h < height) & (w < width)
    first = fits.argmax(1)[:, None]
    h, w, fits = (jnp.take_along_axis(values, first, 1)[:, 0] for values in (h, w, fits))
    down, across, hit = jax.random.uniform(place_key, (n, 3)).T
    top = (down * (height - h + 1)).astype(jnp.int32)
    left = (across * (width - w + 1)).astype(jnp.int32)
    erased = fits & (hit < chance)
    # An empty box where nothing is erased
    masks = jax.vmap(lambda *box: box_mask(height, width, box))(
        top, top + h * erased, left, left + w
    )
    return jnp.where(masks, random_bits(noise_key, images.shape, jnp.uint8), images)


def randaugment(images: jax.Array, key: jax.Array, count: int, magnitude: float) -> jax.Array:
    """Cubuk et al., 2019, arXiv:1909.13719: `count` of the operations below on each picture.

    One after the other, each drawn from all of them, all at one `magnitude` of 30.
    """
    which_key, sign_key = jax.random.split(key)
    n, height, width, _ = images.shape
    known = list(operations(magnitude, height, width).values())
    which = jax.random.randint(which_key, (n, count), 0, len(known))
    signs = jax.random.rademacher(sign_key, (n, count), jnp.float32)

    def apply(image: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return lax.switch(drawn[0], known, image, drawn[1]), None

    def one(image: jax.Array, which: jax.Array, signs: jax.Array) -> jax.Array:
        return lax.scan(apply, image, (which, signs))[0]

    def one_by_one(*batch: jax.Array) -> jax.Array:
        return cast(jax.Array, lax.map(lambda args: one(*args), batch))

    # Under `vmap` a switch computes every branch: on a CPU far more than is drawn. Accelerators
    # have the power to spare, and to them every turn of a loop is a wait.
    changed: jax.Array = lax.platform_dependent(
        images, which, signs, cpu=one_by_one, default=jax.vmap(one)
    )
    return changed


def operations(
    magnitude: float, height: int, width: int
) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """RandAugment's by name: (picture, a sign of 1 or -1) -> picture.

    Their ranges are AutoAugment's (Cubuk et al., 2018, arXiv:1805.09501) as torchvision reads them:
    more magnitude changes more, 0 nothing. Where it takes the nearest pixel, this is bilinear.
    """
    m = magnitude / 30
    y, x = (1.0, 0.0), (0.0, 1.0)  # the rows of a matrix that moves nothing
    corner = -0.5, -0.5  # Pillow shears about the corner of the picture
    across, down = round(150 / 331 * m * width), round(150 / 331 * m * height)
    return {
        "identity": lambda image, _: image,
        "autocontrast": lambda image, _: autocontrast(image),
        "equalize": lambda image, _: equalize(image),
        "rotate": lambda image, sign: rotate(image, sign * 30 * m, fill=GREY),
        "solarize": lambda image, _: solarize(image, 256 * (1 - m)),
        "color": lambda image, sign: saturation(image, 1 + sign * 0.9 * m),
        "posterize": lambda image, _: posterize(image, 8 - round(4 * m)),
        "contrast": lambda image, sign: contrast(image, 1 + sign * 0.9 * m),
        "brightness": lambda image, sign: brightness(image, 1 + sign * 0.9 * m),
        "sharpness": lambda image, sign: sharpness(image, 1 + sign * 0.9 * m),
        "shear_x": lambda image, sign: affine(
            image, (y, (sign * 0.3 * m, 1.0)), centre=corner, fill=GREY
        ),
        "shear_y": lambda image, sign: affine(
            image, ((1.0, sign * 0.3 * m), x), centre=corner, fill=GREY
        ),
        "translate_x": lambda image, sign: affine(
            image, (y, x), shift=(0.0, sign * across), fill=GREY
        ),
        "translate_y": lambda image, sign: affine(
            image, (y, x), shift=(sign * down, 0.0), fill=GREY
        ),
    }


def rotate(image: jax.Array, degrees: Number, fill: float | None = None) -> jax.Array:
    """Turn a picture about its centre, counter-clockwise; `fill` as in `affine`."""
    height, width, _ = image.shape
    radians = jnp.deg2rad(degrees)
    sin, cos = jnp.sin(radians), jnp.cos(radians)
    centre = (height - 1) / 2, (width - 1) / 2
    return affine(image, ((cos, sin), (-sin, cos)), centre=centre, fill=fill)


def affine(
    image: jax.Array,
    matrix: tuple[tuple[Number, Number], tuple[Number, Number]],
    *,
    shift: tuple[Number, Number] = (0.0, 0.0),
    centre: tuple[float, float] = (0.0, 0.0),
    fill: float | None = None,
) -> jax.Array:
    """Each pixel, at `centre + d`, from `centre + matrix @ d + shift` in the picture, bilinear.

    Args:
      image: uint8 [H, W, 3].
      matrix: rows before columns, as everywhere here.
      shift: in pixels.
      centre: in pixels; (0, 0) is the middle of the first pixel.
      fill: the grey of what lies outside of the picture; None repeats its edge.
    """
    height, width, _ = image.shape
    (yy, yx), (xy, xx) = matrix
    dy = (jnp.arange(height) - centre[0])[:, None]
    dx = (jnp.arange(width) - centre[1])[None]
    y = centre[0] + shift[0] + (yy * dy + yx * dx)  # [H, W]
    x = centre[1] + shift[1] + (xy * dy + xx * dx)
    inside = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    top, left = y.astype(jnp.int32), x.astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    lower, later = (y - top)[..., None], (x - left)[..., None]  # shares of the bottom and the right

    def pixel(row: jax.Array, column: jax.Array) -> jax.Array:
        return image.at[row, column].get(mode="promise_in_bounds").astype(jnp.float32)

    above = pixel(top, left) * (1 - later) + pixel(top, right) * later
    below = pixel(bottom, left) * (1 - later) + pixel(bottom, right) * later
    out = above * (1 - lower) + below * lower
    return to_uint8(out if fill is None else jnp.where(inside[..., None], out, fill))


def brightness(image: jax.Array, factor: Number) -> jax.Array:
    """Change the brightness: factor 0 gives black, 1 the picture, more a brighter one."""
    return blend(image, 0.0, factor)


def contrast(image: jax.Array, factor: Number) -> jax.Array:
    """Change the contrast: factor 0 gives the picture's mean grey, 1 the picture."""
    height, width, _ = image.shape
    red, green, blue = image.sum((0, 1), dtype=jnp.int32) / (height * width)
    return blend(image, luma(red, green, blue), factor)


def saturation(image: jax.Array, factor: Number) -> jax.Array:
    """Change the saturation: factor 0 gives a grey picture, 1 the picture."""
    red, green, blue = (image[..., i : i + 1].astype(jnp.float32) for i in range(3))
    return blend(image, luma(red, green, blue), factor)


def sharpness(image: jax.Array, factor: Number) -> jax.Array:
    """Change the sharpness: factor 0 smooths as Pillow does, border left alone; 1: no change."""
    x = image.astype(jnp.float32)
    rows = x[:-2] + x[1:-1] + x[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = (box + 4 * x[1:-1, 1:-1]) / 13  # 1 1 1, 1 5 1, 1 1 1
    return image.at[1:-1, 1:-1].set(blend(image[1:-1, 1:-1], smooth, factor))


def posterize(image: jax.Array, bits: int) -> jax.Array:
    """Keep only the highest bits of each value."""
    kept: jax.Array = image & jnp.uint8(256 - 2 ** (8 - bits))
    return kept


def solarize(image: jax.Array, threshold: float) -> jax.Array:
    """Invert the values that are `threshold` or more."""
    return jnp.where(image.astype(jnp.float32) < threshold, image, 255 - image)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel to 0..255."""
    low = image.min((0, 1), keepdims=True).astype(jnp.float32)
    span = image.max((0, 1), keepdims=True) - low
    stretched = (image - low) * 255 / jnp.maximum(span, 1)
    return jnp.where(span > 0, to_uint8(stretched), image)


def equalize(image: jax.Array) -> jax.Array:
    """Equalize the histogram of each channel, bit for bit as Pillow does."""
    height, width, _ = image.shape
    place = image + 256 * jnp.arange(3).reshape(1, 1, 3)
    counts = jnp.zeros(768, jnp.int32).at[place.reshape(-1)].add(1).reshape(3, 256)
    brightest = jnp.take_along_axis(counts, image.max((0, 1)).astype(jnp.int32)[:, None], 1)
    step = (height * width - brightest) // 255  # pixels to a level, [3, 1]
    before = counts.cumsum(1) - counts
    table = jnp.minimum((before + step // 2) // jnp.maximum(step, 1), 255).astype(jnp.uint8)
    table = jnp.where(step > 0, table, jnp.arange(256, dtype=jnp.uint8)[None])
    return table.reshape(-1).at[place].get(mode="promise_in_bounds")


def blend(image: jax.Array, other: Number, factor: Number) -> jax.Array:
    """Interpolate: factor 0 gives `other`, 1 the picture; above 1 it extrapolates."""
    return to_uint8(factor * image.astype(jnp.float32) + (1 - factor) * other)


def luma(red: jax.Array, green: jax.Array, blue: jax.Array) -> jax.Array:
    """The grey of a colour: ITU-R BT.601, as Pillow's mode L."""
    return 0.299 * red + 0.587 * green + 0.114 * blue


def to_uint8(x: jax.Array) -> jax.Array:
    """Values rounded and clipped to 0..255, as uint8."""
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)


def random_bits(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Uniform unsigned integers [N, ...]; those of a place in the batch do not depend on N.

    `jax.random.bits` spends 32 random bits on each number, these as many as it has.
    """
    n, each = shape[0], math.prod(shape[1:])
    words = -(-each * jnp.dtype(dtype).itemsize // 4)
    numbers = lax.bitcast_convert_type(jax.random.bits(key, (n, words)), dtype)
    return numbers.reshape(n, -1)[:, :each].reshape(shape)


def box_mask(height: int, width: int, box: Box) -> jax.Array:
    """Which pixels lie in the box, bool [H, W, 1]."""
    top, bottom, left, right = box
    y = jnp.arange(height)[:, None, None]
    x = jnp.arange(width)[None, :, None]
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def mix(
    x: jax.Array, targets: jax.Array, key: jax.Array, config: TrainConfig
) -> tuple[jax.Array, jax.Array]:
    """Apply MixUp or CutMix as the config says; with both, a coin decides for each batch.

    The shares are drawn once a batch, as by the authors of both and by timm, whose recipes so keep
    their meaning. The other picture is the one as far from the batch's end as this is from its
    start: the order is random already. A single picture stays as it is.

    Args:
      x: float [N, H, W, 3], normalised or not.
      targets: float [N, K], rows that sum to 1; so do those that come out.
      key: may be the one that `augment` gets.
      config: its fields `mixup` and `cutmix` are read.
    """
    if len(x) == 1 or not (config.mixup or config.cutmix):
        return x, targets
    coin_key, share_key, box_key = jax.random.split(key, KEYS + 3)[KEYS:]
    both = config.mixup and config.cutmix
    coin = jax.random.bernoulli(coin_key)
    alpha = jnp.where(coin, config.mixup, config.cutmix) if both else config.mixup or config.cutmix
    # Beta(alpha, alpha) from two gammas in one draw, which compiles in half of the time
    gammas = jax.random.loggamma(share_key, alpha, (2,))
    share = jax.nn.sigmoid(gammas[0] - gammas[1])

    def by_mixup(x: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return mixup(x, targets, share)

    def by_cutmix(x: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return cutmix(x, targets, random_box(box_key, 1 - share, *x.shape[1:3]))

    if both:
        mixed: tuple[jax.Array, jax.Array] = lax.cond(coin, by_mixup, by_cutmix, x, targets)
        return mixed
    return by_mixup(x, targets) if config.mixup else by_cutmix(x, targets)


def mixup(x: jax.Array, targets: jax.Array, share: Number) -> tuple[jax.Array, jax.Array]:
    """Zhang et al., 2017, arXiv:1710.09412: `share` of each picture, the rest of its partner."""
    own = jnp.asarray(share, x.dtype)
    return own * x + (1 - own) * x[::-1], mixed(targets, share)


def cutmix(x: jax.Array, targets: jax.Array, box: Box) -> tuple[jax.Array, jax.Array]:
    """Yun et al., 2019, arXiv:1905.04899: the box of each picture is its partner's.

    The targets follow the area of the box, which has to lie within the picture.
    """
    _, height, width, _ = x.shape
    top, bottom, left, right = box
    share = 1 - (bottom - top) * (right - left) / (height * width)
    inside = box_mask(height, width, box)[None]
    return jnp.where(inside, x[::-1], x), mixed(targets, share)


def mixed(targets: jax.Array, share: Number) -> jax.Array:
    """Each picture's targets blended with those of the picture that it is mixed with."""
    return share * targets + (1 - share) * targets[::-1]


def random_box(key: jax.Array, area: Number, height: int, width: int) -> Box:
    """CutMix's: that share of a picture's area, in its shape, its middle anywhere in it.

    What then lies outside of the picture is cut off.
    """
    box: list[jax.Array] = []
    for middle_key, length in zip(jax.random.split(key), (height, width), strict=True):
        side = (length * jnp.sqrt(area)).astype(jnp.int32)
        start = jax.random.randint(middle_key, (), 0, length) - side // 2
        box += [jnp.clip(start, 0, length), jnp.clip(start + side, 0, length)]
    return box[0], box[1], box[2], box[3]
