"""CIFAR, MNIST and Fashion-MNIST from the files that their authors published."""

import gzip
import io
import math
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.errors import ZooError
from zoo.reading import is_picture, no_file
from zoo.text import reason

from .base import Arrays, Dataset, Request
from .folders import DAMAGED, open_folder, open_tar, tar_errors

# --- cifar10:PATH, cifar100:PATH ------------------------------------------------------------------


@dataclass(frozen=True)
class Cifar:
    """The files of the two CIFAR datasets (Krizhevsky, 2009).

    https://www.cs.toronto.edu/~kriz/cifar.html

    Args:
        train, val: the files of the Python version; the binary one's end in ".bin".
        names: where the Python and the binary version say how the classes are called.
        keys: of the labels and of those names, in the Python version.
        label_bytes: that stand before the pixels in the binary version; the last is the label.
        folders: that the archives hold.
        classes: what the classes are called where no file says so.
    """

    count: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    names: tuple[str, str]
    keys: tuple[str, str]
    label_bytes: int
    folders: tuple[str, ...]
    classes: tuple[str, ...] = ()


CIFAR10 = Cifar(
    10,
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    ("test_batch",),
    ("batches.meta", "batches.meta.txt"),
    ("labels", "label_names"),
    1,
    ("cifar-10-batches-py", "cifar-10-batches-bin"),
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
CIFAR100 = Cifar(
    100,
    ("train",),
    ("test",),
    ("meta", "fine_label_names.txt"),
    ("fine_labels", "fine_label_names"),
    2,
    ("cifar-100-python", "cifar-100-binary"),
)
PLENTY = 1 << 29  # bytes; the largest of the original files, CIFAR-100's training data, has 155 MB


def open_cifar(kind: Cifar, request: Request, path: str) -> Dataset:
    """CIFAR-10 or CIFAR-100, from the original files or from class folders; see `open_dataset`."""
    place = Path(path).expanduser()
    batches = (*kind.train, *kind.val)
    binaries = tuple(f"{name}.bin" for name in batches)
    found = _originals(place, kind.folders, (*batches, *binaries, *kind.names))
    as_pickles = any(name in found for name in batches)
    if not (as_pickles or any(name in found for name in binaries)):
        return _cifar_pictures(kind, request, place)
    wanted = batches if as_pickles else binaries
    if missing := [name for name in wanted if name not in found]:
        raise ZooError(f"{request.spec}: {place} lacks {', '.join(missing)}")

    classes = kind.classes
    names = kind.names[0 if as_pickles else 1]
    if names in found:
        classes = _cifar_names(names, found[names], kind.keys[1] if as_pickles else None)
    if len(classes) != kind.count:
        got = f"names {len(classes)} classes" if names in found else f"lacks {names}"
        raise ZooError(f"{request.spec}: {place} {got}, expected the names of {kind.count}")

    sources = []
    for group in (kind.train, kind.val):
        read = [
            _cifar_pickle(name, found[name], kind.keys[0])
            if as_pickles
            else _cifar_binary(f"{name}.bin", found[f"{name}.bin"], kind.label_bytes)
            for name in group
        ]
        pixels, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= kind.count:
            raise ZooError(
                f"{request.spec}: {place} has no labels, or others than 0 to {kind.count - 1}"
            )
        images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        sources.append(Arrays(images, labels))
    train, val = sources
    return Dataset(request.spec, classes, train, val, image_size=32, flip=True)


def _cifar_pictures(kind: Cifar, request: Request, place: Path) -> Dataset:
    """CIFAR as class folders of pictures, in a folder or an archive."""
    is_folder = place.is_dir()
    if is_folder and not (place / "train").is_dir():
        raise ZooError(
            f"{request.spec}: {place} has neither {kind.train[0]} nor {kind.train[0]}.bin: expected"
            " the files of https://www.cs.toronto.edu/~kriz/cifar.html, or class folders in train/"
        )
    dataset = (open_folder if is_folder else open_tar)(request, str(place))
    if len(dataset.classes) != kind.count:
        other = "folder" if is_folder else "tar"
        raise ZooError(
            f"{request.spec}: expected {kind.count} classes, got {len(dataset.classes)}; for"
            f" another dataset say {other}:{place}"
        )
    return replace(dataset, image_size=32)


def _originals(place: Path, folders: tuple[str, ...], wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of what there is of the wanted files, by name.

    Args:
        place: a tar file or a folder.
        folders: where else in `place` the files may lie, if it is a folder.
        wanted: the names of the files.
    """
    if not place.exists():
        raise ZooError(f"{place} does not exist")
    found: dict[str, bytes] = {}
    try:
        if place.is_dir():
            for folder in (place, *(place / name for name in folders)):
                files = {n: folder / n for n in wanted if (folder / n).is_file()}
                if files:
                    for name, file in files.items():
                        _check_plenty(file, file.stat().st_size)
                        found[name] = file.read_bytes()
                    break
            return found
    except OSError as error:
        raise ZooError(f"cannot read {place}: {error.strerror or error}") from error
    if why := no_file(place):
        raise ZooError(f"cannot read {place}: {why}")
    with tar_errors(place), tarfile.open(place) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if is_picture(name):
                break  # an archive of pictures: none of the wanted ones
            if name in wanted and member.isreg():
                _check_plenty(place / member.name, member.size)
                with tar.extractfile(member) as stream:  # type: ignore[union-attr]
                    found[name] = stream.read()
    return found


def _check_plenty(file: Path, size: int) -> None:
    if size > PLENTY:
        raise ZooError(f"{file} has {size} bytes, expected at most {PLENTY}")


def _cifar_names(name: str, data: bytes, key: str | None) -> tuple[str, ...]:
    """The names of the classes, from the entry `key` of a pickle or from the lines of a text."""
    if key is None:
        return tuple(line.strip() for line in data.decode("latin1").splitlines() if line.strip())
    names = _unpickled(name, data).get(key)
    if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
        raise ZooError(f"{name}: expected a list {key} of names")
    return tuple(n.decode("latin1") if isinstance(n, bytes) else n for n in names)


def _cifar_binary(name: str, data: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 3072] and labels int64 [N]."""
    length = label_bytes + 3072
    if len(data) % length:
        raise ZooError(f"{name}: got {len(data)} bytes, expected a multiple of {length}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, length)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _cifar_pickle(name: str, data: bytes, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 3072] and labels int64 [N]."""
    entries = _unpickled(name, data)
    pixels, labels = getattr(entries.get("data"), "pixels", None), entries.get(key)
    if (
        pixels is None
        or pixels.ndim != 2
        or pixels.shape[1] != 3072
        or not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int for label in labels)
    ):
        raise ZooError(f"{name}: expected data uint8 [N, 3072] and a list {key} of N numbers")
    return pixels, np.array(labels, np.int64)


class _Dtype:
    """Stands for `numpy.dtype` in a pickle."""

    def __init__(self, name: object = None, *_: object):
        self.is_byte = name in ("u1", b"u1")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: a byte has none."""


class _Pixels:
    """Stands for `numpy.ndarray` in a pickle: an array of bytes, or nothing."""

    pixels: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not dtype.is_byte or fortran:
            raise ValueError("an array that is not uint8 in rows")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape)


def _new_pixels(*_: object) -> _Pixels:
    return _Pixels()


def _latin1(text: str, _: object = None) -> bytes:
    return text.encode("latin1")


# Python's own: a pickle cannot make its memo a huge array
class _Unpickler(pickle._Unpickler):  # noqa: SLF001
    """Reads plain containers and arrays of bytes; imports nothing, calls only what stands here."""

    known: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "numpy.core.multiarray._reconstruct": _new_pixels,
        "numpy._core.multiarray._reconstruct": _new_pixels,
        "numpy.ndarray": _Pixels,
        "numpy.dtype": _Dtype,
        "_codecs.encode": _latin1,  # how Python 3 writes bytes for Python 2
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.known[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no array of numbers") from None

    def _load_bytearray(self) -> None:
        raise pickle.UnpicklingError("a bytearray, which would be made before its bytes are there")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # noqa: SLF001
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }


def _unpickled(name: str, data: bytes) -> dict[str, Any]:
    """A pickled dict by text keys, whichever Python wrote it.

    Raises:
        ZooError: damaged bytes, or anything but plain containers and arrays of bytes.
    """
    try:
        entries = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(entries, dict):
            raise pickle.UnpicklingError(f"a {type(entries).__name__}, expected a dict")
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        struct.error,
    ) as error:
        raise ZooError(
            f"{name} is not a file of CIFAR's Python version: {reason(error)}"
        ) from error
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in entries.items()}


# --- fashion_mnist:PATH, mnist:PATH ---------------------------------------------------------------

# https://github.com/zalandoresearch/fashion-mnist (Xiao et al., 2017, arXiv:1708.07747)
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def open_mnist(
    folder: str, classes: tuple[str, ...], flip: bool, request: Request, path: str
) -> Dataset:
    """MNIST or Fashion-MNIST, from the original idx files; see `open_dataset`."""
    place = Path(path).expanduser()
    # "train-images.idx3-ubyte" is what some unpackers make of it
    names = {
        (split, what): [
            f"{split}-{what}{dot}idx{dimensions}-ubyte{suffix}"
            for dot in "-."
            for suffix in ("", ".gz")
        ]
        for split in ("train", "t10k")
        for what, dimensions in (("images", 3), ("labels", 1))
    }
    found = _originals(
        place,
        ("raw", f"{folder}/raw"),  # torchvision's
        tuple(name for several in names.values() for name in several),
    )
    sources = []
    for split in ("train", "t10k"):
        arrays = []
        for what, dimensions in (("images", 3), ("labels", 1)):
            several = names[split, what]
            name = next((name for name in several if name in found), None)
            if name is None:
                raise ZooError(f"{request.spec}: {place} lacks {several[0]}, gzipped or not")
            arrays.append(_idx(name, found[name], dimensions))
        images, labels = arrays
        if len(images) != len(labels):
            raise ZooError(
                f"{request.spec}: {place} has {len(images)} images of {split} but {len(labels)}"
                " labels"
            )
        if len(labels) == 0 or labels.max() >= len(classes):
            raise ZooError(
                f"{request.spec}: {place} has no labels, or others than 0 to {len(classes) - 1}"
            )
        if images.shape[1:] == (28, 28):
            images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        sources.append(Arrays(images, labels.astype(np.int64)))
    train, val = sources
    return Dataset(request.spec, classes, train, val, image_size=32, flip=flip)


def _idx(name: str, data: bytes, dimensions: int) -> np.ndarray:
    """The uint8 array in an idx file (http://yann.lecun.com/exdb/mnist/), gzipped or not."""
    header = 4 + 4 * dimensions
    try:
        packed = data[:2] == b"\x1f\x8b"
        with gzip.open(io.BytesIO(data)) if packed else io.BytesIO(data) as stream:
            head = stream.read(header)
            magic = 0x0800 + dimensions  # unsigned bytes, so many dimensions
            if len(head) < header or int.from_bytes(head[:4]) != magic:
                raise ZooError(
                    f"{name}: got {head[:4].hex() or 'nothing'} at its start, expected"
                    f" {magic:08x}: no idx file of bytes in {dimensions} dimensions"
                )
            shape = [int.from_bytes(head[i : i + 4]) for i in range(4, header, 4)]
            size = math.prod(shape)
            if size > PLENTY:
                raise ZooError(f"{name}: {shape} numbers are too many")
            values = stream.read(size + 1)
    except DAMAGED as error:
        raise ZooError(f"{name} is damaged: {error}") from error
    if len(values) != size:
        more = "more" if len(values) > size else f"{len(values)}"
        raise ZooError(f"{name}: expected {size} bytes after its head ({shape}), got {more}")
    return np.frombuffer(values, np.uint8).reshape(shape)
