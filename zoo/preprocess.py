"""From a picture to the input of a network, bound to the weights it belongs to.

The host does the geometry in uint8 (decode, rotate, resize, crop), the device the arithmetic
(`Preprocess.normalize`), so that what crosses to the device is a quarter of its float32 size.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ZooError, unknown
from .reading import check_unit_range, read_rgb

if TYPE_CHECKING:  # both are slow to import, and building a record needs neither
    import jax
    from PIL import Image

    from .reading import Source

INTERPOLATIONS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
CHANNELS = ("rgb", "bgr")
MOST = 1 << 24  # pixels of a whole picture that is resized before its centre is cut out


@dataclass(frozen=True)
class Preprocess:
    """How pictures become the input that a set of weights was trained on.

    >>> Preprocess(size=96, resize=None).image(np.zeros((50, 70, 3), np.uint8)).shape
    (96, 96, 3)

    Args:
        size: side of the square network input, pixels.
        resize: the shorter side is resized to this, keeping the aspect, and the centre `size` x
            `size` is cut out; `None` squashes the whole picture to `size` x `size`.
        interpolation: "nearest", "box", "bilinear", "bicubic" or "lanczos": Pillow's, all but
            "nearest" averaging when they shrink.
        mean, std: per channel R, G, B whatever `channels` says, in units of 0..1.
        channels: the order that the network sees: "rgb", or Caffe's "bgr".
        squash: the whole picture is warped to `resize` x `resize`, its aspect lost, and the centre
            cut out of that: Caffe's way.

    Raises:
        ZooError: a value that cannot be (a crop larger than the resized picture, a zero std, ...).
    """

    size: int = 224
    resize: int | None = 256
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: str = "rgb"
    squash: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ZooError(f"size must be a positive number of pixels, got {self.size!r}")
        if self.resize is not None and (
            not isinstance(self.resize, int) or self.resize < self.size
        ):
            raise ZooError(
                f"resize must be None or at least size ({self.size}), got {self.resize!r}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", str(self.interpolation), INTERPOLATIONS)
        if self.channels not in CHANNELS:
            raise unknown("channel order", str(self.channels), CHANNELS)
        if not isinstance(self.squash, bool):
            raise ZooError(f"squash must be True or False, got {self.squash!r}")
        for name in ("mean", "std"):
            value = getattr(self, name)
            try:
                value = tuple(float(v) for v in value)
            except (TypeError, ValueError):
                value = ()
            if len(value) != 3 or (name == "std" and min(value) <= 0):
                kind = "three numbers" if name == "mean" else "three positive numbers"
                raise ZooError(f"{name} must be {kind} (R, G, B), got {getattr(self, name)!r}")
            object.__setattr__(self, name, value)  # JSON gives lists, and a record is hashable

    def at_size(self, size: int) -> "Preprocess":
        """The same for another input size: the crop keeps its share of the picture.

        Rounded down, as timm does (224/256 becomes 299/341; torchvision's Inception v3 says 342).
        """
        resize = None if self.resize is None else size * self.resize // self.size
        return replace(self, size=size, resize=resize)

    @property
    def filter(self) -> "Image.Resampling":
        """Pillow's name for the interpolation."""
        from PIL import Image

        return Image.Resampling[self.interpolation.upper()]

    def image(self, source: "Source") -> np.ndarray:
        """The host's part: decode, resize, crop.

        Args:
            source: a path, a PIL image, or an array [H, W, 3], [H, W, 1] or [H, W], uint8 or float
                in 0..1. EXIF rotation is applied, transparency is laid on white, 16 bits and
                floats become 8 bits.

        Returns:
            uint8 [size, size, 3], R, G, B: to the bit what torchvision's `Resize` and `CenterCrop`
            make of the PIL image (or, with `resize=None`, Keras' `load_img(target_size=...)`).

        Raises:
            ZooError: a file that cannot be read ("cannot read image PATH: reason"), or an array
                of another type, shape or range.
        """
        picture = read_rgb(source)
        width, height = self.resized(picture.size)
        if width * height > MOST:
            return np.array(self._centre(picture))
        picture = picture.resize((width, height), self.filter)  # a copy where the size stays
        left, top = (round((side - self.size) / 2.0) for side in (width, height))
        return np.array(picture.crop((left, top, left + self.size, top + self.size)))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of a picture of `size` (width, height) before its centre is cut out."""
        if self.resize is None:
            return self.size, self.size
        if self.squash:
            return self.resize, self.resize
        # The truncation here and the rounding of the offsets in `image` are torchvision's.
        width, height = (int(self.resize * side / min(size)) for side in size)
        return width, height

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part of a picture of `size` that `image` shows."""
        box = []
        for side, resized in zip(size, self.resized(size), strict=True):
            start = round((resized - self.size) / 2)
            # the sum may be rounded to more than the side
            box.append((start * side / resized, min((start + self.size) * side / resized, side)))
        (left, right), (top, bottom) = box
        return left, top, right, bottom

    def _centre(self, picture: "Image.Image") -> "Image.Image":
        """What `image` cuts out of the resized picture, to a grey level, without resizing the rest.

        For a picture like a thread: one of 1 x 60,000 pixels would become 256 x 15,360,000.
        """
        left, top, right, bottom = self.box(picture.size)
        reach = 4 * max((bottom - top) / self.size, 1)  # rows; a filter's is 3 at most
        first, last = max(int(top - reach), 0), min(int(bottom + reach), picture.height)
        rows = picture.crop((0, first, picture.width, last))
        # One direction after the other, in the order in which Pillow resizes the whole.
        across = (left, 0, right, rows.height)
        rows = rows.resize((self.size, rows.height), self.filter, box=across)
        down = (0, top - first, self.size, min(bottom - first, rows.height))
        return rows.resize((self.size, self.size), self.filter, box=down)

    def normalize(self, images: "jax.Array | np.ndarray") -> "jax.Array":
        """The device's part: R, G, B images [..., 3] to float32 [..., 3] in the order `channels`.

        `(x / 255 - mean) / std`: with `INCEPTION` that is Keras' `x / 127.5 - 1`.

        Args:
            images: uint8, for use under `jit` too; or floats in 0..1, but not under `jit`, where
                their range cannot be seen.

        Raises:
            ZooError: another type or range, or not three channels last.
        """
        import jax
        import jax.numpy as jnp

        floats = images.dtype.kind == "f" and not isinstance(images, jax.core.Tracer)
        if not (floats or images.dtype == np.uint8) or images.ndim == 0 or images.shape[-1] != 3:
            raise ZooError(
                f"expected images uint8 0..255 [..., 3], got {images.dtype} {list(images.shape)}"
            )
        if floats:
            check_unit_range(np.asarray(images))
        order = 1 if self.channels == "rgb" else -1
        # Spelt out in full rank, so that it also runs where rank promotion is an error.
        per_channel = (1,) * (images.ndim - 1) + (3,)
        mean, std = (
            np.asarray(v[::order], np.float32).reshape(per_channel) for v in (self.mean, self.std)
        )
        x = jnp.asarray(images, jnp.float32)
        x = x if order == 1 else jnp.flip(x, -1)
        return ((x if floats else x / 255) - mean) / std

    def __call__(self, sources: "Source | list[Source] | tuple[Source, ...]") -> "jax.Array":
        """Both parts: one picture, a list or an array [N, H, W, 3] of them, to network input.

        Returns:
            float32 [N, size, size, 3].

        Raises:
            ZooError: as `image`; or no picture at all.
        """
        if not isinstance(sources, list | tuple):
            sources = list(sources) if getattr(sources, "ndim", 0) == 4 else [sources]  # type: ignore
        if not sources:
            raise ZooError("expected at least one image, got none")
        return self.normalize(np.stack([self.image(source) for source in sources]))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values; `from_dict` reads them back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The record of `to_dict`; what is left out keeps its default.

        Raises:
            ZooError: a key that is no field, or a value that cannot be.
        """
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown("preprocess field", str(key), names)
        return cls(**values)


IMAGENET = Preprocess()  # torchvision's and most of timm's
INCEPTION = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # -1..1: slim's, Keras' "tf" mode

# keras.utils.load_img(path, target_size=...) and preprocess_input in its three modes:
# https://github.com/keras-team/keras/blob/v3.12.0/keras/src/applications/imagenet_utils.py
KERAS_TORCH = Preprocess(resize=None, interpolation="nearest")
KERAS_TF = replace(KERAS_TORCH, mean=INCEPTION.mean, std=INCEPTION.std)
KERAS_CAFFE = replace(
    KERAS_TORCH,
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    channels="bgr",
)
# Caffe's convert_imageset --resize_height=256 --resize_width=256, then the centre and `mean_value`:
# https://github.com/BVLC/caffe/blob/master/models/bvlc_googlenet/train_val.prototxt
CAFFE = replace(
    KERAS_CAFFE,
    resize=256,
    squash=True,
    interpolation="bilinear",
    mean=(123 / 255, 117 / 255, 104 / 255),
)
