"""From a picture to a training crop, in about half the time that Pillow takes.

JPEG files are decoded at half, a quarter or an eighth of their size where that still leaves more
than the crop needs, and resized with SIMD. The filters are Pillow's: where nothing is halved, the
crop differs from Pillow's by two grey levels at most. Evaluation uses `Preprocess.image`, exact to
the bit.
"""

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.preprocess import Preprocess
from zoo.reading import count_scans, no_file, read_file, read_picture, read_rgb, too_much

try:
    import cykooz_resizer as resizer
    import simplejpeg
except ImportError:  # no wheels for this platform: Pillow does everything
    resizer = None

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, as Pillow's

# Pillow's names and the resizer's
MOST = 1 << 25  # pixels that a JPEG is decoded to here; a larger one is Pillow's
FILTERS = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3", "box": "box"}
# The EXIF entry of the orientation (tag 274, one SHORT), little or big endian.
ORIENTATION = re.compile(rb"\x12\x01\x03\0\x01\0\0\0(.\0)|\x01\x12\0\x03\0\0\0\x01(\0.)", re.DOTALL)


@dataclass(frozen=True)
class Encoded:
    """An encoded picture inside a larger file: the bytes of a JPEG, PNG, ... file.

    It can be given wherever an array of pixels can, and is decoded there.

    Args:
        name: what errors call it.
    """

    name: str
    data: bytes = field(repr=False)

    def rgb(self, draft: bool = False, mode: str = "RGB") -> Image.Image:
        """As `read_rgb` of a file.

        Raises:
            ZooError: "cannot read image NAME: reason".
        """
        return read_file(io.BytesIO(self.data), self.name, draft, mode)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.rgb(), dtype)


def crop(
    source: Any, preprocess: Preprocess, choose: Callable[[tuple[int, int]], Box]
) -> np.ndarray:
    """A box of a picture, resized to the input of a network.

    Args:
        source: as for `Preprocess.image`, or `Encoded`.
        preprocess: its `size` and `interpolation` are used.
        choose: the box, given the (width, height) of the upright picture. Called once.

    Returns:
        uint8 [size, size, C].

    Raises:
        ZooError: as `Preprocess.image`.
    """
    plain = preprocess.in_chans == 3 and preprocess.interpolation in FILTERS
    jpeg = _plain_jpeg(source) if plain else None
    if jpeg is None:
        picture = _picture(source, preprocess.in_chans)
        box = choose(picture.size)
    else:
        data, size = jpeg
        box = choose(size)
        try:
            return _jpeg_crop(data, size, box, preprocess)
        except ValueError:  # damaged: Pillow reads what can be read, or says what is wrong
            picture = _picture(source, preprocess.in_chans)
    out = (preprocess.size, preprocess.size)
    pixels = np.array(picture.resize(out, preprocess.filter, box=box))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def check(source: str | Encoded) -> None:
    """Decode as much of a picture as shows that it can be read.

    Raises:
        ZooError: as `Preprocess.image`.
    """
    if jpeg := _plain_jpeg(source):
        try:
            with Image.open(io.BytesIO(jpeg[0]), formats=("JPEG",)):  # its header, for evaluation
                simplejpeg.decode_jpeg(jpeg[0], min_width=1, min_height=1)  # at an eighth
            return
        except Exception:  # of nearly every kind: below, Pillow reads it or says what is wrong
            pass
    if isinstance(source, Encoded):
        source.rgb(draft=True)
    else:
        read_rgb(source, draft=True)


def _picture(source: Any, in_chans: int) -> Image.Image:
    if isinstance(source, Encoded):
        source = source.rgb(mode="RGBA" if in_chans == 4 else "RGB")
    return read_picture(source, in_chans)


def _plain_jpeg(source: Any) -> tuple[bytes, tuple[int, int]] | None:
    """The bytes and (width, height) of an upright colour JPEG file; None for any other picture."""
    if resizer is None or not isinstance(source, str | os.PathLike | Encoded):
        return None
    try:
        data = source.data if isinstance(source, Encoded) else _jpeg_bytes(source)
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (OSError, ValueError):
        return None
    # A picture that is too large is left to `read_file`, which says so.
    if colours != "YCbCr" or too_much(width, height, scans=count_scans(data)):
        return None
    return None if _may_be_turned(data) else (data, (width, height))


def _jpeg_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file that begins like a JPEG file; no other file is read to its end."""
    if no_file(path):
        return b""
    with Path(path).open("rb") as file:
        start = file.read(3)
        return start + file.read() if start == b"\xff\xd8\xff" else b""


def _may_be_turned(data: bytes) -> bool:
    """Whether the metadata of a JPEG may ask for a rotation, which is then left to Pillow."""
    end = 2  # of the segments before the pixels: two bytes of marker, two of length, content
    while data[end : end + 1] == b"\xff" and data[end + 1 : end + 2] != b"\xda":
        end += 2 + int.from_bytes(data[end + 2 : end + 4])
    metadata = data[:end]
    if b"Exif\0\0" not in metadata and b"tiff:Orientation" not in metadata:
        return False
    orientations = [little or big[::-1] for little, big in ORIENTATION.findall(metadata)]
    return not orientations or any(value != b"\x01\0" for value in orientations)


def _jpeg_crop(data: bytes, size: tuple[int, int], box: Box, preprocess: Preprocess) -> np.ndarray:
    left, top, right, bottom = box
    shrink = min(right - left, bottom - top) / preprocess.size
    # libjpeg has SIMD for these; 5/8, 6/8 and 7/8 take longer than the whole picture. What is left
    # to the filter, 1.5 or more, keeps the mean difference from Pillow's crop to about 2 levels.
    factor = next((f for f in (8, 4, 2) if 1.5 * f <= shrink), 1)
    width, height = (-(-side // factor) for side in size)
    if width * height > MOST:
        raise ValueError("too large: the resizer takes copies")
    pixels = simplejpeg.decode_jpeg(data, min_width=width, min_height=height)
    height, width, _ = pixels.shape
    scaled = resizer.CropBox(*(v / factor for v in (left, top, right - left, bottom - top)))
    kind = getattr(resizer.FilterType, FILTERS[preprocess.interpolation])
    options = resizer.ResizeOptions(
        resize_alg=resizer.ResizeAlg.convolution(kind),
        crop_box=scaled,
    )
    rgb = resizer.PixelType.U8x3
    out = resizer.ImageData(preprocess.size, preprocess.size, rgb)
    # A resizer works for one thread at a time, and making one costs nothing.
    resizer.Resizer().resize(resizer.ImageData(width, height, rgb, pixels.tobytes()), out, options)
    return np.frombuffer(out.get_buffer(), np.uint8).reshape(preprocess.size, preprocess.size, 3)
