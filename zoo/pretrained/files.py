"""Weight files -> named NumPy arrays; nothing in them is executed. The suffix picks a reader.

Files come from anywhere, so no reader trusts a size that it has not compared with the file: a
damaged or hostile one costs a line, not the memory or the machine.
"""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from io import BufferedReader, FileIO
from pathlib import Path

import numpy as np

from ..errors import ZooError
from ..text import reason
from .budget import RANK, ROOM, Budget

Arrays = dict[str, np.ndarray]
Reader = Callable[[Path], tuple[Arrays, dict[str, str]]]

DIRECTORY = 4 << 20  # bytes of a zip's list of entries; 3,000 of them take 0.3 MB
HEADER = 16 << 20  # bytes of a safetensors file's header
NPY_HEADER = 10_000  # bytes; NumPy's own limit


def read(path: str | Path) -> tuple[Arrays, dict[str, str]]:
    """All tensors of a file by the file's own names, and its text metadata.

    bfloat16, which NumPy lacks, comes as float32: every value of it is one there.

    Raises:
      ZooError: no such file, a suffix without a reader, or content that is not what it says.
    """
    path = Path(path)
    try:
        kind, reader = _pick(path)
    except OSError as error:
        raise ZooError(f"weights: cannot read {path}: {error.strerror}") from error
    with whole(path, kind):
        return reader(path)


def _pick(path: Path) -> tuple[str, Reader]:
    if Path(f"{path}.index").is_file() or (path.is_dir() and any(path.glob("*.index"))):
        return READERS[".ckpt"]
    if not path.is_file():
        folder = ": it is a folder" if path.is_dir() else ""
        raise ZooError(f"weights: no file {path}{folder}")
    name = re.sub(r"\.ckpt-\d+$", ".ckpt", path.name.lower())  # with the step's number
    suffix = next(filter(name.endswith, READERS), None)
    if suffix is None:
        raise ZooError(
            f"weights: cannot read {path.name}: suffix {path.suffix!r}"
            + OTHERS.get(path.suffix.lower(), "")
            + f", expected one of {', '.join(READERS)}"
        )
    kind, reader = READERS[suffix]
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ZooError(f"weights: {path} is not a whole {kind} file: it is empty")
    if text := _text(head):
        raise ZooError(f"weights: {path} is {text}, not weights")
    if suffix == ".ckpt" and head.startswith((b"PK", b"\x80")):  # PyTorch Lightning's
        return READERS[".pth"]
    return kind, reader


def _text(head: bytes) -> str:
    """What a file is that starts with text, as a download that went wrong does; or ""."""
    if not re.fullmatch(rb"[\t\n\f\r -~\x80-\xff]+", head) or len(head) < 16:
        return ""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return "text"


@contextmanager
def whole(path: Path, kind: str) -> Iterator[None]:
    """What damaged bytes make Python's and NumPy's readers raise, as one line."""
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


# --- zip archives: NumPy's and PyTorch's ----------------------------------------------------------


class _Capped(BufferedReader):
    """A file that does not give a zip's directory more memory than it needs."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise ValueError(f"a list of entries of {size} bytes, expected {DIRECTORY} at most")
        return super().read(size)


@contextmanager
def open_zip(path: Path, bound: int) -> Iterator[zipfile.ZipFile]:
    """An archive whose entries, together, hold at most `bound` bytes and lie in the file.

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


# --- NumPy ----------------------------------------------------------------------------------------

# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_NPY = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]))', 'fortran_order': (?:True|False), "
    rb"'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19},?)?)\),? ?\} *\n"
)


def _npz(path: Path) -> tuple[Arrays, dict[str, str]]:
    arrays: Arrays = {}
    with open_zip(path, bound=2 * path.stat().st_size + ROOM) as archive:
        budget = Budget(path.stat().st_size)
        for entry in archive.infolist():
            budget.spend(steps=50)
            if not entry.filename.endswith(".npy"):
                raise ValueError(f"an entry {entry.filename[:80]!r}, expected arrays, .npy")
            with archive.open(entry) as file:
                _check_npy(entry, file.read(12 + NPY_HEADER))
                file.seek(0)
                array = np.lib.format.read_array(file, allow_pickle=False)
            arrays[entry.filename.removesuffix(".npy")] = array
    return arrays, {}


def _check_npy(entry: zipfile.ZipInfo, head: bytes) -> None:
    """That a header is one of numbers, and says the size that its entry has."""
    name = entry.filename[:80]
    wide = head[6:7] != b"\1"  # version 1 has the header's length in 2 bytes, later ones in 4
    start = 12 if wide else 10
    if not head.startswith(b"\x93NUMPY") or len(head) < start:
        raise ValueError(f"{name!r} is no array")
    (length,) = struct.unpack_from("<I" if wide else "<H", head, 8)
    header = _NPY.fullmatch(head[start : start + length])
    if not header:
        raise ValueError(f"{name!r} is no array of numbers")
    shape = [int(n) for n in header[2].split(b",") if n.strip()]
    if len(shape) > RANK:
        raise ValueError(f"{name!r} has {len(shape)} dimensions, expected {RANK} at most")
    size = start + length + math.prod(shape) * np.dtype(header[1].decode()).itemsize
    if size != entry.file_size:
        raise ValueError(f"{name!r} of shape {shape[:8]} needs {size} bytes, has {entry.file_size}")


# --- safetensors ----------------------------------------------------------------------------------


def tokens(json: bytes) -> int:
    """How many values a JSON text holds, about: commas and brackets within texts count too."""
    return sum(json.count(mark) for mark in (b",", b"{", b"["))


_SAFETENSORS = {"F64", "F32", "F16", "BF16", "BOOL"} | {
    f"{s}{n}" for s in "IU" for n in (8, 16, 32, 64)
}


def _safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    The library refuses headers that lie: https://github.com/huggingface/safetensors#format
    """
    import ml_dtypes  # noqa: F401  # teaches NumPy the name "bfloat16", which safetensors uses
    from safetensors import SafetensorError, safe_open

    arrays: Arrays = {}
    with path.open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head, "little")
        if size > HEADER:
            raise ValueError(f"a header of {size} bytes, expected {HEADER} at most")
        # names, numbers and texts of the header; the library builds objects of them all
        Budget(path.stat().st_size).spend(steps=tokens(file.read(size)))
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _SAFETENSORS:
                    raise ValueError(f"{name[:80]!r} is {dtype}, expected F32 or alike")
                array = file.get_tensor(name)
                arrays[name] = array.astype(np.float32) if dtype == "BF16" else array
            return arrays, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error


# --- all of them ----------------------------------------------------------------------------------


def _module(name: str) -> Reader:
    """`read` of a module beside this one, which is imported when needed."""
    return lambda path: import_module(f".{name}", __package__).read(path)


_TORCH = "PyTorch", _module("torch_files")
_KERAS = "Keras", _module("keras_files")
_TF = "TensorFlow", _module("tf_files")

# What has another suffix and is often tried.
OTHERS = {
    **dict.fromkeys(
        [".onnx", ".tflite", ".pb", ".pt2", ".mlmodel", ".engine"],
        " is a program: its network's own weights are needed",
    ),
    **dict.fromkeys([".gguf", ".ggml", ".msgpack"], " is of another library"),
    ".json": " is a list of parts: weights in one file are needed",
    ".pkl": " may be any Python object",
}
READERS: dict[str, tuple[str, Reader]] = {
    ".safetensors": ("safetensors", _safetensors),
    ".npz": ("NumPy", _npz),
    **dict.fromkeys([".pth", ".pt", ".th", ".bin", ".tar"], _TORCH),
    **dict.fromkeys([".h5", ".hdf5", ".keras"], _KERAS),
    **dict.fromkeys([".ckpt", ".index", ".tar.gz", ".tgz"], _TF),
    ".caffemodel": ("Caffe", _module("caffe_files")),
}
