"""PyTorch's checkpoints, zip and legacy, read without PyTorch; nothing in them is executed.

Both formats hold a pickle that says how to build the tensors, and their bytes apart from it. The
machine of `pickles` runs it and calls nothing but the functions of `CALLS`, which describe tensors;
the numbers are read after that.

https://docs.pytorch.org/docs/stable/notes/serialization.html
https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
"""

import math
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ZooError
from .base import Arrays, open_zip, whole
from .budget import RANK, Budget
from .pickles import Ignored, Machine, Name, Object, Refused

PICKLES = 4 << 20  # bytes that the pickles of a file may take; ResNet-152's takes 0.1 MB
CHUNK = 1 << 17  # elements read at once: a piece stays in the cache
PROTOCOL = 1001  # of the legacy format
MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")

# How a dtype's elements are stored; bfloat16 is the upper half of a float32.
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "Untyped": "uint8",
}
# The names by which pickles give a dtype
STORAGES = {
    f"{module}.{name}Storage": dtype
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in _STORAGES.items()
} | {f"torch.{name}": name for name in DTYPES}

# The entries of a checkpoint that may hold its weights; the first that does counts
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The tensors of a checkpoint, by their names in the dict that has them.

    Of a checkpoint only its weights are taken: those of an entry in `ENTRIES`, or of the one entry
    that has tensors. Tensors that share memory in the file do so here. bfloat16 becomes float32.

    Raises:
      ZooError: damaged bytes, sizes that cannot be, or anything that is not made of tensors and
        plain values, such as a pickled module.
    """
    path = Path(path)
    with whole(path, "PyTorch"):
        with path.open("rb") as file:
            head = file.read(512)
        try:
            if head.startswith(b"PK"):
                return _zip(path), {}
            if MAGIC in head[:16]:
                return _legacy(path), {}
        except Refused as error:
            raise ZooError(
                f"weights: {path} asks for {error.name!r}, which is refused: expected tensors "
                "and plain values, as of torch.save(model.state_dict(), 'new.pth')"
            ) from error
        if head[257:262] == b"ustar":
            raise ZooError(f"weights: {path} is a tar archive, expected a file of torch.save")
        raise ValueError(f"it starts with {head[:8]!r}")


# --- what a pickle may build ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Storage:
    """A flat run of elements in the file."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class _Parameter(Object):
    """A parameter or variable as PyTorch wrote it before 0.4: made empty, filled from its state."""

    tensor: _Tensor | None = None

    def set_state(self, state: Any) -> None:
        """Of a variable: its data and 4 flags. Of a tensor: storage, offset, shape, strides."""
        self.tensor = state[0] if len(state) == 5 else _tensor(*state)


def _is_natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> _Tensor:
    """`_rebuild_tensor`, `_rebuild_tensor_v2`: what follows is whether it needs a gradient."""
    if not (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= RANK
        and all(map(_is_natural, (offset, *shape, *strides)))
    ):
        raise ValueError("a tensor without storage, shape or strides")
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if count and (count > storage.elements or last >= storage.elements):
        raise ValueError(
            f"a tensor of shape {list(shape)}, strides {list(strides)} at element {offset} "
            f"of a storage of {storage.elements} elements"
        )
    return _Tensor(storage, offset, shape, strides)


def _tensor_of_bytes(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """`_rebuild_tensor_v3`, whose storage is of bytes and whose dtype is an argument."""
    _, _, name, *_ = rest
    if not (
        isinstance(storage, _Storage)
        and storage.dtype == "uint8"
        and isinstance(name, Name)
        and name.name in STORAGES
    ):
        raise ValueError("a tensor without storage of bytes, or without dtype")
    dtype = STORAGES[name.name]
    elements = storage.elements // np.dtype(DTYPES[dtype]).itemsize
    return _tensor(_Storage(storage.key, dtype, elements), offset, shape, strides)


def _same(value: Any, *_: object) -> Any:
    return value


def _size(value: Any) -> tuple[Any, ...]:
    if type(value) is not tuple:
        raise TypeError
    return value


def _ordered(pairs: Any = None) -> dict[str, Any]:
    """An `OrderedDict`, as a plain dict.

    Python 2 wrote its items as a list. The list is emptied, because a file can ask for the same
    list again and again, at three bytes each time.
    """
    if pairs is None:
        return {}
    if type(pairs) is not list:
        raise TypeError
    items = {key: value for key, value in pairs if type(key) is str}
    pairs.clear()
    return items


def _parameter(data: Any = None, *_: object) -> _Parameter:
    return _Parameter(data)


def _ignore(*_: object) -> Ignored:
    return Ignored()


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered,
    # what checkpoints hold beside weights: accuracies, arguments of a script, devices
    "numpy.core.multiarray.scalar": _ignore,
    "numpy._core.multiarray.scalar": _ignore,
    "numpy.dtype": _ignore,
    "_codecs.encode": _ignore,
    "argparse.Namespace": _ignore,
    "collections.Counter": _ignore,
    "torch.device": _ignore,
}


@dataclass
class _Storages:
    """The storages that a file's pickles refer to, by their keys.

    Args:
      records: bytes of each storage in the file; None where that is not known yet.
    """

    records: dict[str, int] | None = None
    known: dict[str, _Storage] = field(default_factory=dict)

    def refer(self, identity: Any) -> _Storage:
        """The storage that a persistent id of a pickle stands for.

        Raises:
          ValueError: it is none, or its size or type contradicts the file or what was said before.
        """
        what, name, key, _, elements, *view = identity
        if not (what == "storage" and isinstance(name, Name) and name.name in STORAGES):
            raise ValueError("a reference to something that is no storage")
        if type(key) is not str or not _is_natural(elements) or any(view):
            raise ValueError("a storage without name or size, or a part of one")
        dtype = STORAGES[name.name]
        size = elements * np.dtype(DTYPES[dtype]).itemsize
        if self.records is not None and size > self.records.get(key, -1):
            has = f"has {self.records[key]}" if key in self.records else "is not there"
            raise ValueError(f"storage {key[:40]!r} needs {size} bytes, but {has}")
        storage = _Storage(key, dtype, elements)
        if self.known.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:40]!r} is of two types or sizes")
        return storage


# --- from the machine to arrays -------------------------------------------------------------------


def _weights(path: Path, loaded: Any) -> dict[str, _Tensor]:
    """The tensors by name in what the pickle of a checkpoint holds."""
    known: dict[int, dict[str, _Tensor]] = {}  # a pickle may name one dict a million times

    def tensors(value: Any) -> dict[str, _Tensor]:
        if not isinstance(value, dict):
            return {}
        if id(value) not in known:
            bare = {k: x.tensor if isinstance(x, _Parameter) else x for k, x in value.items()}
            known[id(value)] = {k: x for k, x in bare.items() if isinstance(x, _Tensor)}
        return known[id(value)]

    def entries(value: Any) -> list[Any]:
        return [value[k] for k in ENTRIES if isinstance(value.get(k), dict)]

    if not isinstance(loaded, dict):
        raise ZooError(f"weights: {path} holds no tensors by name, expected a state_dict")
    if {"state", "param_groups"} <= loaded.keys():
        raise ZooError(f"weights: {path} is an optimizer's state, expected model.state_dict()")
    for _ in range(4):  # a checkpoint's model may be a checkpoint
        if not (likely := [x for x in entries(loaded) if tensors(x) or entries(x)]):
            break
        loaded = likely[0]
    choices = [loaded] if tensors(loaded) else [x for x in loaded.values() if tensors(x)]
    if len(choices) != 1:
        have = ", ".join(repr(key[:40]) for key in list(loaded)[:8])
        raise ZooError(
            f"weights: {path} has {len(choices)} entries with tensors: "
            f"got {have or 'nothing'}, expected one of {', '.join(ENTRIES)}"
        )
    return tensors(choices[0])


def _storages(weights: dict[str, _Tensor]) -> dict[str, _Storage]:
    storages: dict[str, _Storage] = {}
    for tensor in weights.values():
        storage = tensor.storage
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key[:40]!r} is of two types")
    return storages


def _elements(file: IO[bytes], dtype: str, count: int, order: str) -> np.ndarray:
    """The next elements of a file, [count], in our types, without a second copy of all of them."""
    stored = np.dtype(order + DTYPES[dtype])
    out = np.empty(count, "float32" if dtype == "bfloat16" else dtype)
    for start in range(0, count, CHUNK):
        part = out[start : start + CHUNK]
        data = file.read(part.size * stored.itemsize)
        if len(data) < part.size * stored.itemsize:
            raise ValueError("it ends early")
        raw = np.frombuffer(data, stored)
        if dtype == "bfloat16":
            np.left_shift(raw, 16, out=part.view(np.uint32), dtype=np.uint32)
        else:
            part[:] = raw
    return out


def _view(tensor: _Tensor, flat: np.ndarray) -> np.ndarray:
    """A tensor as a view of its storage's elements; `_tensor` checked that it stays inside."""
    if 0 in tensor.shape:
        return np.empty(tensor.shape, flat.dtype)
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)


def _zip(path: Path) -> Arrays:
    """Read a zip: ARCHIVE/data.pkl, and the storages ARCHIVE/data/KEY; nothing is compressed."""
    with open_zip(path, bound=path.stat().st_size) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        roots = [
            name.removesuffix("data.pkl")
            for name in sizes
            if re.fullmatch(r"[^/]+/data\.pkl", name)
        ]
        if len(roots) != 1:
            raise ValueError("a zip archive without data.pkl, expected a file of torch.save")
        (root,) = roots
        if f"{root}constants.pkl" in sizes:
            raise ZooError(
                f"weights: {path} is TorchScript, a program: expected tensors alone, as of "
                "torch.save(torch.jit.load(FILE).state_dict(), 'new.pth')"
            )
        if sizes[f"{root}data.pkl"] > PICKLES:
            raise ValueError(f"a pickle of more than {PICKLES} bytes")
        order = "<"
        if f"{root}byteorder" in sizes:
            order = {b"little": "<", b"big": ">"}.get(_record(archive, f"{root}byteorder", 16), "")
            if not order:
                raise ValueError("a byte order that is neither little nor big")
        data = f"{root}data/"
        records = {n.removeprefix(data): size for n, size in sizes.items() if n.startswith(data)}
        pickles = _record(archive, f"{root}data.pkl", PICKLES)
        budget, storages = Budget(path.stat().st_size), _Storages(records)
        machine = Machine(pickles, budget, CALLS, STORAGES, storages.refer)
        weights = _weights(path, machine.load())
        flat: dict[str, np.ndarray] = {}
        for key, storage in _storages(weights).items():
            with archive.open(f"{data}{key}") as file:
                flat[key] = _elements(file, storage.dtype, storage.elements, order)
    return {name: _view(x, flat[x.storage.key]) for name, x in weights.items()}


def _record(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as file:
        return file.read(limit)


def _legacy(path: Path) -> Arrays:
    """Read the older format, five pickles: magic number, protocol, system, object, storages' keys.

    Each storage follows: the number of its elements, then the elements, little-endian.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        data = file.read(min(size, PICKLES))
    short = "it ends early" if len(data) == size else f"pickles of more than {PICKLES} bytes"
    storages = _Storages()
    machine = Machine(data, Budget(size), CALLS, STORAGES, storages.refer, short)
    machine.load()
    if machine.load() != PROTOCOL:
        raise ValueError(f"expected protocol {PROTOCOL}")
    machine.load()
    weights = _weights(path, machine.load())
    keys = machine.load()
    if type(keys) is not list or not set(map(type, keys)) <= {str}:
        raise ValueError("no names of storages")
    needed = _storages(weights)
    flat: dict[str, np.ndarray] = {}
    at = machine.at
    with path.open("rb") as file:
        for key in keys:
            file.seek(at)
            (count,) = struct.unpack("<q", file.read(8))
            known = storages.known.get(key)
            if known is None or known.elements != count:
                raise ValueError(
                    f"storage {key[:40]!r} of {count} elements is none of the pickle's"
                )
            at += 8 + count * np.dtype(DTYPES[known.dtype]).itemsize
            if at > size:
                raise ValueError(f"storage {key[:40]!r} of {count} elements ends after the file")
            if key in needed:
                flat[key] = _elements(file, needed[key].dtype, needed[key].elements, "<")
    if missing := needed.keys() - flat.keys():
        raise ValueError(f"storage {min(missing)[:40]!r} is not there")
    return {name: _view(x, flat[x.storage.key]) for name, x in weights.items()}
