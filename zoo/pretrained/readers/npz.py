"""NumPy's `.npz`: a zip of arrays, of which only those of numbers are read."""

import math
import re
import struct
import zipfile
from pathlib import Path

import numpy as np

from .base import Arrays, open_zip
from .budget import RANK, ROOM, Budget

HEADER = 10_000  # bytes; NumPy's own limit

# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]))', 'fortran_order': (?:True|False), "
    rb"'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19},?)?)\),? ?\} *\n"
)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a `.npz` by their names there; it has no metadata.

    Raises:
      ZooError, ValueError, zipfile.BadZipFile, ...: damaged bytes, or anything but arrays of
        numbers whose sizes are those of their entries; see `base.whole`.
    """
    arrays: Arrays = {}
    with open_zip(path, bound=2 * path.stat().st_size + ROOM) as archive:
        budget = Budget(path.stat().st_size)
        for entry in archive.infolist():
            budget.spend(steps=50)
            if not entry.filename.endswith(".npy"):
                raise ValueError(f"an entry {entry.filename[:80]!r}, expected arrays, .npy")
            with archive.open(entry) as file:
                _check(entry, file.read(12 + HEADER))
                file.seek(0)
                array = np.lib.format.read_array(file, allow_pickle=False)
            arrays[entry.filename.removesuffix(".npy")] = array
    return arrays, {}


def _check(entry: zipfile.ZipInfo, head: bytes) -> None:
    """Refuse a header that is not of numbers, or whose shape does not fit the entry's size."""
    name = entry.filename[:80]
    wide = head[6:7] != b"\1"  # version 1 has the header's length in 2 bytes, later ones in 4
    start = 12 if wide else 10
    if not head.startswith(b"\x93NUMPY") or len(head) < start:
        raise ValueError(f"{name!r} is no array")
    (length,) = struct.unpack_from("<I" if wide else "<H", head, 8)
    header = _HEADER.fullmatch(head[start : start + length])
    if not header:
        raise ValueError(f"{name!r} is no array of numbers")
    shape = [int(n) for n in header[2].split(b",") if n.strip()]
    if len(shape) > RANK:
        raise ValueError(f"{name!r} has {len(shape)} dimensions, expected {RANK} at most")
    size = start + length + math.prod(shape) * np.dtype(header[1].decode()).itemsize
    if size != entry.file_size:
        raise ValueError(f"{name!r} of shape {shape[:8]} needs {size} bytes, has {entry.file_size}")
