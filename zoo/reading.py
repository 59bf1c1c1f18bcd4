"""Picture files: which files are pictures, and how to read them without trusting their content.

Nothing in a file is executed. Only regular files are opened (a pipe would block). The cost of a
picture is checked against a limit before it is decoded; `ZOO_MAX_PIXELS` in the environment raises
the limit.
"""

import io
import os
import re
import stat
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ZooError
from .text import plain, reason

if TYPE_CHECKING:  # slow to import
    from PIL import Image

    Source = str | os.PathLike[str] | Image.Image | np.ndarray

# The formats that are read, by Pillow's names, and the share of `max_pixels` that a picture of each
# may have: less where decoding takes many times as long (in Python) or as much memory as elsewhere.
# Left out are those that other programs decode (EPS: Ghostscript; WMF; the stubs of BUFR, GRIB and
# HDF5), that hold any other format (IPTC), and whose numbers are no grey levels (FITS, SPIDER).
FORMATS = {
    "JPEG": 1.0,
    "PNG": 1.0,
    "WEBP": 1 / 9,
    "GIF": 1.0,
    "BMP": 1.0,
    "TIFF": 1.0,
    "PPM": 1.0,
    "AVIF": 1 / 4,
    "JPEG2000": 1 / 16,
    "DIB": 1.0,
    "ICO": 1.0,
    "CUR": 1.0,
    "ICNS": 1 / 16,
    "TGA": 1.0,
    "PCX": 1.0,
    "DCX": 1.0,
    "SGI": 1.0,
    "SUN": 1.0,
    "PSD": 1.0,
    "XBM": 1.0,
    "FLI": 1.0,
    "DDS": 1 / 16,
    "BLP": 1 / 16,
    "QOI": 1 / 64,
    "MSP": 1 / 16,
    "XPM": 1 / 64,
}
# The first bytes of common formats, for files whose names have no suffix.
STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]|\0\0\0\x0cjP  ",
    re.DOTALL,
)
HIDDEN = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")  # what systems leave in folders
SCANS = 12  # of a progressive JPEG at its largest; more, where it has fewer pixels
BAND = 1 << 20  # pixels that are converted at a time
# The same share by Pillow's mode, where the pixels come in another than RGB, and stay beside it.
MODES = {"RGB": 1.0, "L": 1.0, "P": 1.0, "1": 1.0, "I;16": 1 / 2, "I;16B": 1 / 2, "I;16L": 1 / 2}
PILLOW = r"PIL\."  # its modules


def suffix_of(name: str) -> str:
    """The suffix of a file's name: ".jpg" of "photos/Cat.JPG", "" where there is none."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if stem and suffix else ""


@cache
def formats() -> tuple[str, ...]:
    """The `FORMATS` that the installed Pillow can read."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of files in these formats."""
    from PIL import Image

    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in formats())


def is_picture(name: str) -> bool:
    """Whether a file name has the suffix of a picture."""
    return suffix_of(name) in suffixes()


def begins_as_picture(start: bytes) -> bool:
    """Whether a file is a picture, by its first 16 bytes or more."""
    return bool(STARTS.match(start))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's own: ".DS_Store", "._cat.jpg", "Thumbs.db"."""
    return name.startswith(".") or name.casefold() in HIDDEN


def no_file(path: str | os.PathLike[str]) -> str | None:
    """Why a path is not a file that can be read; None if it is."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        return getattr(error, "strerror", None) or str(error)
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    if stat.S_ISREG(mode):
        return None
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"


def max_pixels() -> float:
    """The most pixels that a picture may have.

    `ZOO_MAX_PIXELS` in the environment, or else Pillow's limit: 178,956,970 unless
    `PIL.Image.MAX_IMAGE_PIXELS` was changed.

    Raises:
        ZooError: `ZOO_MAX_PIXELS` is not such a number.
    """
    from PIL import Image

    own = Image.MAX_IMAGE_PIXELS
    if asked := os.environ.get("ZOO_MAX_PIXELS"):
        if not re.fullmatch(r"[1-9][0-9]{0,14}", asked):
            raise ZooError(
                f"ZOO_MAX_PIXELS: got {asked[:40]!r}, expected a number of pixels such as 400000000"
            )
        if own is not None and own < int(asked):
            Image.MAX_IMAGE_PIXELS = int(asked)  # Pillow would refuse at twice its own
        return int(asked)
    return float("inf") if own is None else 2 * own


def too_much(
    width: int, height: int, kind: str = "JPEG", mode: str = "RGB", scans: int = 1
) -> str | None:
    """Why a picture would take too much time or memory to decode; None if it would not.

    Args:
        width: pixels.
        height: pixels.
        kind: one of `FORMATS`.
        mode: Pillow's, of its pixels.
        scans: how many times a JPEG goes over all of its pixels.
    """
    pixels, most = width * height, max_pixels()
    share = min(FORMATS.get(kind, 1.0), MODES.get(mode, 1 / 3))
    if scans > SCANS and pixels * scans > SCANS * most:
        needed = -(-pixels * scans // SCANS)
        what = f"{width} x {height} pixels in {scans:,} scans, more than"
    elif pixels > share * most:
        needed = int(-(-pixels // share))
        what = f"{width} x {height} pixels, more than"
    else:
        return None
    limit = share * most if scans <= SCANS else SCANS * most / scans
    return f"{what} {int(limit):,}; where it can be trusted, set ZOO_MAX_PIXELS={needed}"


def count_scans(jpeg: bytes) -> int:
    """How many scans a JPEG file has, counting those of its thumbnail too."""
    return jpeg.count(b"\xff\xda")


def read_picture(source: "Source", in_chans: int) -> "Image.Image":
    """A picture as upright 8-bit grey (1 channel), RGB (3) or RGBA (4), whatever it is stored as.

    Raises:
        ZooError: as `Preprocess.image`.
    """
    if in_chans == 1:
        return read_rgb(source).convert("L")  # of a grey picture its very values
    if in_chans not in (3, 4):
        raise ZooError(f"pictures have 1, 3 or 4 channels, expected arrays of {in_chans} instead")
    return read_rgb(source, mode="RGB" if in_chans == 3 else "RGBA")


def read_rgb(source: "Source", draft: bool = False, mode: str = "RGB") -> "Image.Image":
    """A picture as upright 8-bit RGB, whatever it is stored as.

    Args:
        source: as for `Preprocess.image`.
        mode: "RGBA" to keep its transparency, instead of laying it on white.
        draft: JPEG files come at about an eighth of their size. All of the file is decoded still,
            so this is the quick way to learn whether it can be read.

    Raises:
        ZooError: as `Preprocess.image`.
    """
    from PIL import Image

    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        if why := no_file(name):
            raise ZooError(f"cannot read image {plain(name)}: {why}")
        return read_file(name, name, draft, mode)
    if not isinstance(source, Image.Image):
        return Image.fromarray(_pixels(source, mode)).convert(mode)
    try:
        return _upright_rgb(source, in_place=False, mode=mode)
    except Exception as error:
        name = getattr(source, "filename", "") or "given as a PIL image"
        why = _reason(error, empty=False)
        raise ZooError(f"cannot read image {plain(str(name))}: {why}") from error


def read_file(
    file: "str | io.BytesIO", name: str, draft: bool = False, mode: str = "RGB"
) -> "Image.Image":
    """As `read_rgb`, from the path of a file that is there or from its bytes.

    Args:
        file: the path, or the bytes.
        name: what errors call it.
        draft: as in `read_rgb`.
        mode: as in `read_rgb`.
    """
    from PIL import Image

    _ignore_warnings()
    most = max_pixels()  # before Pillow looks at its own limit
    try:
        with Image.open(file, formats=formats()) as picture:
            kind, scans = picture.format or "", 1
            if picture.info.get("progressive") and picture.fp:
                place = picture.fp.tell()
                picture.fp.seek(0)
                scans = count_scans(picture.fp.read())
                picture.fp.seek(place)
            if why := too_much(*picture.size, kind, picture.mode, scans):
                raise ValueError(why)
            if draft:
                picture.draft("RGB", (1, 1))
            return _upright_rgb(picture, in_place=True, mode=mode)
    except Exception as error:  # Pillow's many readers raise nearly every kind there is
        if isinstance(error, Image.DecompressionBombError):
            number = re.search(r"\d+", str(error))
            pixels = int(number[0]) if number else 0
            why = f"{pixels:,} pixels, more than {int(most):,}"
            why += f"; where it can be trusted, set ZOO_MAX_PIXELS={pixels}"
        else:
            size = len(file.getbuffer()) if isinstance(file, io.BytesIO) else _size(file)
            why = _reason(error, empty=size == 0)
        raise ZooError(f"cannot read image {plain(name)}: {why}") from error


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _ignore_warnings() -> None:
    """Ignore Pillow's warnings of damaged metadata and large pictures: users cannot act on them."""
    known = (getattr(module, "pattern", None) for _, _, _, module, _ in warnings.filters)
    if PILLOW not in known:
        warnings.filterwarnings("ignore", module=PILLOW)


def _upright_rgb(picture: "Image.Image", in_place: bool, mode: str) -> "Image.Image":
    from PIL import ImageOps

    picture.load()  # before EXIF is touched, so that a damaged file is reported as such
    try:
        if in_place:
            ImageOps.exif_transpose(picture, in_place=True)
        else:
            picture = ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF says nothing about the pixels: take them as they lie
        pass
    if picture.mode[0] in "IF":  # I;16 and its byte orders, I (32 bits), F (float)
        if picture.mode == "F" or not _is_16_bits(picture.getextrema()):
            raise ValueError(f"{picture.mode} pixels have no agreed range, store 8 or 16 bits")
        return _in_bands(picture, _eight_bits).convert(mode)
    if picture.has_transparency_data and mode == "RGB":
        return _in_bands(picture, _on_white)
    return picture if picture.mode == mode else picture.convert(mode)


def _is_16_bits(extrema: Any) -> bool:
    low, high = extrema
    return bool(low >= 0 and high <= 65535)


def _in_bands(
    picture: "Image.Image", convert: Callable[["Image.Image"], "Image.Image"]
) -> "Image.Image":
    """`convert` a picture a few rows at a time, because it makes several copies of them."""
    from PIL import Image

    width, height = picture.size
    rows = max(BAND // width, 1)
    if rows >= height:
        return convert(picture)
    whole = Image.new("RGB", picture.size)
    for top in range(0, height, rows):
        band = picture.crop((0, top, width, min(top + rows, height)))
        whole.paste(convert(band), (0, top))
    return whole


def _eight_bits(picture: "Image.Image") -> "Image.Image":
    from PIL import Image

    # 65535 / 257 is 255. Pillow's own conversion of 16 bits clips instead of scaling.
    values = (np.asarray(picture).astype(np.uint32) + 128) // 257
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _on_white(picture: "Image.Image") -> "Image.Image":
    from PIL import Image

    # As a browser shows it; the colour that a file keeps under full transparency is arbitrary.
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _pixels(source: Any, mode: str) -> np.ndarray:
    """The array as uint8 [H, W, 3] or [H, W], or a ZooError where it is no picture.

    For the mode "RGBA" it may be [H, W, 4] too.
    """
    shapes = "[H, W, 3] or [H, W]" if mode == "RGB" else "[H, W, 4], [H, W, 3] or [H, W]"
    expected = f"expected a path, a PIL image or an array {shapes}, uint8 or float in 0..1"
    if not hasattr(source, "__array__"):
        raise ZooError(f"{expected}, got {type(source).__name__}")
    pixels = np.asarray(source)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    floats = pixels.dtype.kind == "f"
    shaped = pixels.ndim >= 2 and pixels.shape[2:] in ((), (3,), (len(mode),))
    if not shaped or not (floats or pixels.dtype == np.uint8):
        raise ZooError(f"{expected}, got {pixels.dtype} {list(pixels.shape)}")
    if not pixels.size:
        raise ZooError(f"{expected}, got no pixels: {list(pixels.shape)}")
    if floats:
        check_unit_range(pixels)
        pixels = np.rint(pixels * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def check_unit_range(pixels: np.ndarray) -> None:
    """Raise a `ZooError` unless all values lie in 0..1."""
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
        raise ZooError(
            "expected float images with values in 0..1 (or uint8 in 0..255), got "
            f"{pixels.dtype} {list(pixels.shape)} from {pixels.min():g} to {pixels.max():g}"
        )


def _reason(error: Exception, empty: bool) -> str:
    """Why a picture could not be read, in a few words on one line, without its path."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if empty else "not a picture of any format that is read"
    return reason(error)
