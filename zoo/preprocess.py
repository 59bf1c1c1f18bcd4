"""How pictures become the input of a network; it belongs to the weights of the network.

The host does the geometry in uint8 (decode, rotate, resize, crop) and the device the arithmetic
(`Preprocess.normalize`), so that a quarter of the float32 size is transferred.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ZooError, unknown
from .reading import check_unit_range, read_picture
from .settings import flag, real, shown, whole

if TYPE_CHECKING:  # both are slow to import, and building a record needs neither
    import jax
    from PIL import Image

    from .reading import Source

INTERPOLATIONS = ("nearest", "box", "bilinear", "bicubic", "lanczos", "tf_bilinear")
CHANNELS = ("rgb", "bgr")
LARGEST = 10_000  # pixels of a side
MOST = 1 << 24  # pixels of a whole picture that is resized before its centre is cut out


def _pixels_of(name: str, value: Any) -> int:
    """Check the length of a side, pixels."""
    try:
        return whole(name, value, 1, LARGEST)
    except ZooError:
        raise ZooError(
            f"{name} must be a positive number of pixels, got {shown(value)}, "
            f"expected 1 to {LARGEST:,}"
        ) from None


def _per_channel(values: Any, least: float) -> tuple[float, ...]:
    """Numbers of at least `least`, one for each channel; () if they are anything else."""
    try:
        numbers = tuple(real("", value, "") for value in values)
    except (TypeError, ZooError):
        return ()
    return numbers if all(least <= number <= 1e6 for number in numbers) else ()


def _of_channels(rgb: tuple[float, ...], count: int) -> tuple[float, ...]:
    kept, mean = rgb if count > 3 else (), sum(rgb) / 3
    return (*kept, *(mean,) * (count - len(kept)))


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
            "nearest" averaging when they shrink; or "tf_bilinear": `resize_bilinear` of TensorFlow
            1, which does not, and counts pixels from their upper left corner.
        mean, std: per channel R, G, B whatever `channels` says, in units of 0..1. Their number is
            that of the pictures' channels: one for grey ones, four for R, G, B, alpha.
        channels: the order that the network sees: "rgb", or Caffe's "bgr".
        squash: the whole picture is warped to `resize` x `resize`, its aspect lost, and the centre
            cut out of that: Caffe's way.
        central: the share of both sides that is cut out of the picture's middle before anything
            else: 0.875 is slim's way.
        note: what of all this is only assumed; "" if it is known. It does not count in
            comparisons.

    Raises:
        ZooError: an invalid value (a crop larger than the resized picture, a zero std, ...).
    """

    size: int = 224
    resize: int | None = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: str = "rgb"
    squash: bool = False
    central: float = 1.0
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _pixels_of("size", self.size))
        if self.resize is not None:
            object.__setattr__(self, "resize", _pixels_of("resize", self.resize))
            if self.resize < self.size:
                raise ZooError(
                    f"resize must be None or at least size ({self.size}), got {self.resize}"
                )
        for kind, got, choices in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("channel order", self.channels, CHANNELS),
        ):
            if not isinstance(got, str) or got not in choices:
                raise unknown(kind, got, choices)
        object.__setattr__(self, "squash", flag("squash", self.squash))
        object.__setattr__(self, "central", real("central", self.central, "0 < share <= 1"))
        if not 0 < self.central <= 1:
            raise ZooError(f"central: got {self.central}, expected 0 < share <= 1")
        if not isinstance(self.note, str):
            raise ZooError(f"note: got {shown(self.note)}, expected a text")
        mean, std = _per_channel(self.mean, -1e6), _per_channel(self.std, 1e-6)
        for name, kind, value in (("mean", "numbers", mean), ("std", "positive numbers", std)):
            if len(value) != 3 and not 0 < len(mean) == len(std):
                raise ZooError(
                    f"{name} must be three {kind} (R, G, B), or as many as the other has, got "
                    f"{shown(getattr(self, name))}"
                )
            object.__setattr__(
                self, name, value
            )  # tuples, because JSON has lists and a record is hashable

    @property
    def in_chans(self) -> int:
        """How many channels the pictures have."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [H, W, C] of a picture for the network."""
        return self.size, self.size, self.in_chans

    def of_channels(self, in_chans: int) -> "Preprocess":
        """The same for pictures with another number of channels than three.

        Grey pictures get the mean of the three means, and of the three deviations. So does every
        channel after the third, such as alpha in RGBA.

        Raises:
            ZooError: it is itself for another number of channels than three.

        >>> Preprocess(std=(0.25, 0.5, 0.75)).of_channels(1).std
        (0.5,)
        """
        if in_chans == self.in_chans:
            return self
        if self.in_chans != 3:
            raise ZooError(
                f"preprocess: got pictures of {self.in_chans} channels, expected {in_chans} or 3"
            )
        mean, std = (_of_channels(values, in_chans) for values in (self.mean, self.std))
        return replace(self, mean=mean, std=std)

    def at_size(self, size: int) -> "Preprocess":
        """The same for another input size. The crop keeps its share of the picture.

        `resize` is rounded down, as timm does: 224/256 becomes 299/341, where torchvision's
        Inception v3 has 342.
        """
        resize = None if self.resize is None else size * self.resize // self.size
        return replace(self, size=size, resize=resize)

    @property
    def filter(self) -> "Image.Resampling":
        """Pillow's filter for the interpolation, or the one closest to it."""
        from PIL import Image

        return Image.Resampling[self.interpolation.removeprefix("tf_").upper()]

    def image(self, source: "Source") -> np.ndarray:
        """The part that the host does: decode, resize, crop.

        Args:
            source: a path, a PIL image, or an array [H, W, 3], [H, W, 1] or [H, W], uint8 or float
                in 0..1; [H, W, 4] too where four channels are wanted. EXIF rotation is applied,
                transparency is laid on white unless it is one of them, 16 bits and floats become
                8 bits.

        Returns:
            uint8 [size, size, C], grey, R, G, B or with alpha: to the bit what torchvision's
            `Resize` and `CenterCrop` make of such a PIL image (or, with `resize=None`, Keras'
            `load_img(target_size=...)`).

        Raises:
            ZooError: a file that cannot be read ("cannot read image PATH: reason"), an array
                of another type, shape or range, or another number of channels than 1, 3 and 4.
        """
        picture = read_picture(source, self.in_chans)
        if self.central < 1:
            left, top = (int((side - side * self.central) / 2) for side in picture.size)
            picture = picture.crop((left, top, picture.width - left, picture.height - top))
        whole = replace(self, central=1)
        width, height = whole.resized(picture.size)
        if self.interpolation == "tf_bilinear":
            return _tf_bilinear(_array(picture), (height, width), self.size)
        if width * height > MOST:
            return _array(whole._centre(picture))  # noqa: SLF001  # of the same class
        picture = picture.resize((width, height), self.filter)  # a copy where the size stays
        left, top = (round((side - self.size) / 2.0) for side in (width, height))
        return _array(picture.crop((left, top, left + self.size, top + self.size)))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of a picture of `size` (width, height) before its centre is cut out.

        Where only the share `central` is used, it is still that of the whole picture, rounded.
        """
        if self.resize is None:
            width = height = self.size
        elif self.squash:
            width = height = self.resize
        else:  # truncated here, the offsets rounded in `image`: torchvision; or slim's rounding
            whole = round if self.interpolation == "tf_bilinear" else int
            width, height = (whole(self.resize * side / min(size)) for side in size)
        return round(width / self.central), round(height / self.central)

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
        """What `image` cuts out of the resized picture, without resizing the rest.

        It agrees within a grey level. For very long pictures: one of 1 x 60,000 pixels would
        become 256 x 15,360,000.
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
        """The part that the device does: images [..., C] to the network's input, float32 [..., C].

        The first three channels are R, G, B in `images`, and in the order `channels` in the result.

        `(x / 255 - mean) / std`: with `INCEPTION` that is Keras' `x / 127.5 - 1`.

        Args:
            images: uint8, for use under `jit` too; or floats in 0..1, but not under `jit`, where
                their range cannot be seen.

        Raises:
            ZooError: another type or range, or another number of channels last.
        """
        import jax
        import jax.numpy as jnp
        from jax import lax

        floats = images.dtype.kind == "f" and not isinstance(images, jax.core.Tracer)
        typed = floats or images.dtype == np.uint8
        if not typed or images.ndim == 0 or images.shape[-1] != self.in_chans:
            raise ZooError(
                f"expected images uint8 0..255 [..., {self.in_chans}], got {images.dtype} "
                f"{list(images.shape)}"
            )
        if floats:
            check_unit_range(np.asarray(images))
        # Spelt out in full rank, so that it also runs where rank promotion is an error.
        per_channel = (1,) * (images.ndim - 1) + (self.in_chans,)
        bgr = self.channels == "bgr"  # the first three channels; any others stay behind them
        mean, std = (
            np.asarray((*v[2::-1], *v[3:]) if bgr else v, np.float32).reshape(per_channel)
            for v in (self.mean, self.std)
        )
        x = jnp.asarray(images, jnp.float32)
        if bgr and self.in_chans > 3:
            # slices of lax, because indexing gathers where the batch is symbolic, in exports
            colours, others = (
                lax.slice_in_dim(x, start, stop, axis=-1)
                for start, stop in ((0, 3), (3, self.in_chans))
            )
            x = jnp.concatenate([jnp.flip(colours, -1), others], -1)
        elif bgr:
            x = jnp.flip(x, -1)
        return ((x if floats else x / 255) - mean) / std

    def __call__(self, sources: "Source | list[Source] | tuple[Source, ...]") -> "jax.Array":
        """Both parts: one picture, a list or an array [N, H, W, C] of them, to network input.

        Returns:
            float32 [N, size, size, C].

        Raises:
            ZooError: as `image`; or no picture at all.
        """
        if not isinstance(sources, list | tuple):
            sources = list(sources) if getattr(sources, "ndim", 0) == 4 else [sources]  # type: ignore
        if not sources:
            raise ZooError("expected at least one image, got none")
        return self.normalize(np.stack([self.image(source) for source in sources]))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values, an empty note apart; `from_dict` reads them back."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return values if self.note else {k: v for k, v in values.items() if k != "note"}

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
# TF-slim's preprocess_for_eval, of inception_preprocessing.py and vgg_preprocessing.py:
# https://github.com/tensorflow/models/tree/master/research/slim/preprocessing
SLIM = replace(INCEPTION, resize=None, central=0.875, interpolation="tf_bilinear")
SLIM_VGG = Preprocess(
    interpolation="tf_bilinear",
    mean=(123.68 / 255, 116.78 / 255, 103.94 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
)
# All of the above by name.
PRESETS = {name: value for name, value in vars().items() if isinstance(value, Preprocess)}


def _array(picture: "Image.Image") -> np.ndarray:
    """Its pixels, uint8 [H, W, C]."""
    return np.array(picture).reshape(picture.height, picture.width, -1)


def _tf_bilinear(pixels: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    """The middle [size, size, C] of uint8 [H, W, C] resized to `shape` (height, width).

    As `tf.compat.v1.image.resize_bilinear` does it: row i of n is taken at i * H / n, between the
    two rows there, and columns likewise. Only the result is rounded, to 8 bits.
    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/kernels/image/resize_bilinear_op.cc
    """
    x = pixels
    for axis, length in enumerate(shape):
        start, last = (length - size) // 2, x.shape[axis] - 1
        at = np.arange(start, start + size, dtype=np.float32) * np.float32((last + 1) / length)
        low = np.minimum(at.astype(int), last)
        share = np.expand_dims((at - low).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
        first, second = (
            x.take(i, axis).astype(np.float32) for i in (low, np.minimum(low + 1, last))
        )
        x = first + (second - first) * share
    resized: np.ndarray = np.rint(x).astype(np.uint8)
    return resized
