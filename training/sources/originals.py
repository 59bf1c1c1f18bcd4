"""CIFAR, MNIST and Fashion-MNIST from the files that their authors published."""

import gzip
import io
import math
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.pretrained.readers.budget import Budget
from zoo.pretrained.readers.pickles import Machine, Object, Refused
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
LONGEST = 1000  # characters of a class name; a pickle can list a long one again and again
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
        place: a tar file, or a folder that holds them, perhaps within one of `folders`.
        folders: names of folders in which they may lie.
        wanted: names of files; those that are not there are left out.
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
    if not isinstance(names, list) or not all(
        isinstance(n, bytes | str) and len(n) <= LONGEST for n in names
    ):
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
    pixels, labels = getattr(entries.get("data"), "array", None), entries.get(key)
    if (
        pixels is None
        or pixels.ndim != 2
        or pixels.shape[1] != 3072
        or not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and label.bit_length() < 64 for label in labels)
    ):
        raise ZooError(f"{name}: expected data uint8 [N, 3072] and a list {key} of N numbers")
    return pixels, np.array(labels, np.int64)


@dataclass(eq=False)
class _Dtype(Object):
    """Stands for a `numpy.dtype` in a pickle."""

    name: object = None

    def set_state(self, state: Any) -> None:
        """Nothing is kept: byte order and the like, of which a byte has none."""


@dataclass(eq=False)
class _Pixels(Object):
    """Stands for a `numpy.ndarray` in a pickle: an array of bytes, or nothing yet."""

    array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Take NumPy's state of an array: version, shape, dtype, whether in columns, bytes."""
        _, shape, dtype, in_columns, data = state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1" or in_columns:
            raise ValueError("an array that is not uint8 in rows")
        raw = data.encode("latin-1") if isinstance(data, str) else data  # Python 2 wrote a text
        self.array = np.frombuffer(raw, np.uint8).reshape(shape)


def _encoded(text: Any, *_: object) -> bytes:
    """Bytes, as Python 3 writes them in protocol 2: a text and the name of its encoding."""
    if not isinstance(text, str):
        raise TypeError
    return text.encode("latin-1")


# All that the pickles of CIFAR name, with what stands for it here
CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": lambda *_: _Pixels(),
    "numpy._core.multiarray._reconstruct": lambda *_: _Pixels(),
    "numpy.dtype": lambda name, *_: _Dtype(name),
    "_codecs.encode": _encoded,
}
NAMES = ("numpy.ndarray",)


def _unpickled(name: str, data: bytes) -> dict[str, Any]:
    """A pickled dict by text keys, whichever Python wrote it.

    Raises:
        ZooError: damaged bytes, or anything but plain containers and arrays of bytes.
    """
    try:
        entries = Machine(data, Budget(len(data)), CALLS, NAMES).load()
        if not isinstance(entries, dict):
            raise TypeError(f"a {type(entries).__name__}, expected a dict")
    except Refused as error:
        why = f"{error.name} is no array of numbers"
        raise ZooError(f"{name} is not a file of CIFAR's Python version: {why}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise ZooError(
            f"{name} is not a file of CIFAR's Python version: {reason(error)}"
        ) from error
    return entries


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
