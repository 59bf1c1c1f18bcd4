"""Read a weight file of any format as named NumPy arrays; its suffix decides which reader does it.

Files come from anywhere, so no reader trusts a size before it has compared it with the file: one
that is damaged or hostile gets an error of one line, and takes neither the memory nor the time.
"""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...errors import ZooError
from .base import Arrays, whole

Reader = Callable[[Path], tuple[Arrays, dict[str, str]]]


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
    """The format of a file, for errors, and the reader of it."""
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
    """What a file is if it starts with text, as a download that went wrong does; otherwise ""."""
    if not re.fullmatch(rb"[\t\n\f\r -~\x80-\xff]+", head) or len(head) < 16:
        return ""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return "text"


def _reader(name: str) -> Reader:
    """The function `read` of a module beside this one, which is imported when it is called."""
    return lambda path: import_module(f".{name}", __package__).read(path)


_TORCH = "PyTorch", _reader("torch")
_KERAS = "Keras", _reader("keras")
_TF = "TensorFlow", _reader("tf")

# Other suffixes that people try, and what such a file is
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
    ".safetensors": ("safetensors", _reader("safetensors")),
    ".npz": ("NumPy", _reader("npz")),
    **dict.fromkeys([".pth", ".pt", ".th", ".bin", ".tar"], _TORCH),
    **dict.fromkeys([".h5", ".hdf5", ".keras"], _KERAS),
    **dict.fromkeys([".ckpt", ".index", ".tar.gz", ".tgz"], _TF),
    ".caffemodel": ("Caffe", _reader("caffe")),
}
