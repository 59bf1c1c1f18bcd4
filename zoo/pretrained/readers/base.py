"""What the readers share: the type of a result, and zip archives of honest sizes."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path

import numpy as np

from ...errors import ZooError
from ...text import reason

Arrays = dict[str, np.ndarray]

DIRECTORY = 4 << 20  # bytes of a zip's list of entries; 3,000 of them take 0.3 MB


@contextmanager
def whole(path: Path, kind: str) -> Iterator[None]:
    """Turn what Python's and NumPy's readers raise for damaged bytes into one line.

    Raises:
      ZooError: the file is not a whole one of this kind.
    """
    try:
        yield
    except ZooError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        NotImplementedError,  # of zipfile: a feature of zips that nobody uses
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ZooError(f"weights: {path} is not a whole {kind} file: {reason(error)}") from error


class _Capped(BufferedReader):
    """A file that refuses to read more bytes at once than a zip's list of entries may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise ValueError(f"a list of entries of {size} bytes, expected {DIRECTORY} at most")
        return super().read(size)


@contextmanager
def open_zip(path: Path, bound: int) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose entries lie in the file and unpack to at most `bound` bytes in all.

    Raises:
      ZooError: names that are absolute, lead upwards or occur twice, or sizes that cannot be.
      ValueError, zipfile.BadZipFile, zlib.error, ...: see `whole`.
    """
    size = path.stat().st_size
    with _Capped(FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        seen: set[str] = set()
        packed = unpacked = 0
        for entry in archive.infolist():
            name = entry.orig_filename
            parts = name.replace("\\", "/").split("/")
            if ".." in parts or not parts[0] or ":" in parts[0] or "\0" in name:
                raise ZooError(f"weights: {path} has an entry {name[:80]!r}: expected a plain name")
            if name in seen:
                raise ZooError(f"weights: {path} has two entries {name[:80]!r}")
            if entry.flag_bits & 1:
                raise ZooError(f"weights: {path} is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ZooError(
                    f"weights: {path} has an entry {name[:80]!r} of compression "
                    f"{entry.compress_type}, expected 0 (stored) or 8 (deflate)"
                )
            seen.add(name)
            packed += entry.compress_size
            unpacked += entry.file_size
        if packed > size or unpacked > bound:
            raise ZooError(
                f"weights: {path} of {size} bytes says to hold {packed} bytes that unpack to "
                f"{unpacked}, expected {bound} at most"
            )
        yield archive


def tokens(json: bytes) -> int:
    """Roughly how many values a JSON text has: commas and brackets within its strings count too."""
    return sum(json.count(mark) for mark in (b",", b"{", b"["))
