"""TensorFlow checkpoints, V1 and V2, read without TensorFlow.

Both are a table of sorted keys in LevelDB's format. In V1 the table holds the tensors; in V2 it is
the `.index`, which says where in the `.data-00000-of-00001` files each tensor lies.

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/saved_tensor_slice.proto
"""

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import ZooError
from ...text import reason
from .base import Arrays
from .budget import NAME, Budget
from .leveldb import CHECKSUM, MAGIC, check, table
from .protobuf import fields, message, number, shape_of, text, varints

Files = Mapping[str, Path | bytes]  # by name

BLOCK = 512  # bytes that a tar archive is made of

# tensorflow/core/framework/types.proto; strings, complex and quantized numbers are no weights
DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
STRING, BFLOAT16 = 7, 14

# TensorProto's field for each type that V1 stores
FLOATS = {1: 5, 2: 6}
INTEGERS = {3: 7, 4: 7, 5: 7, 6: 7, 9: 10, 10: 11, 17: 7, 22: 16, 23: 17}
HALF = {19: 13}  # the bits, as integers

# What training leaves beside the weights: single tensors, and companions of another tensor.
STATE = re.compile(
    r"(.*/)?(global_step(_\d+)?|beta[12]_power(_\d+)?|save_counter/.*"
    r"|_CHECKPOINTABLE_OBJECT_GRAPH)"
)
COMPANION = re.compile(
    r"(.+)/(ExponentialMovingAverage|Momentum|RMSProp|Adam|Adagrad|Adadelta|Ftrl)(_\d+)?"
)


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The weights of a checkpoint by the names it stores ("MobilenetV1/Conv2d_0/weights").

    Where a checkpoint has the moving average of a tensor, it is that tensor's value: publishers
    evaluate with it. Left out: `global_step`, the optimizer's `beta1_power` and `beta2_power`,
    `save_counter`, text tensors, and the optimizer's slots (`*/Momentum`, `*/RMSProp`,
    `*/RMSProp_1`, `*/Adam` and so on) of tensors that are there themselves.

    Args:
      path: the checkpoint's prefix (`x.ckpt`), its `.index`, a V1 file, or a folder, `.tar.gz` or
        `.tgz` that holds exactly one checkpoint.

    Raises:
      ZooError: no checkpoint or several, damaged bytes, or a tensor stored in parts.
    """
    try:
        files = _beside(path)
        name = _one_table(path, files)
        budget = Budget(sum(map(_size, files.values())))
        entries = table(_bytes(files[name]), budget)
        if name.endswith(".index"):
            arrays = _bundle(entries, name.removesuffix(".index"), files, budget)
        else:
            arrays = _slices(entries, budget)
    except ZooError:
        raise
    except (ValueError, OSError, EOFError, zlib.error, OverflowError) as error:
        raise ZooError(f"weights: {path} is not a whole TF checkpoint: {reason(error)}") from error
    return _weights(arrays), {}


def _weights(arrays: Arrays) -> Arrays:
    def is_weight(name: str) -> bool:
        companion = COMPANION.fullmatch(name)
        return not (STATE.fullmatch(name) or (companion and companion[1] in arrays))

    return {
        name: arrays.get(f"{name}/ExponentialMovingAverage", array)
        for name, array in arrays.items()
        if is_weight(name)
    }


# --- where the bytes are -------------------------------------------------------------------------


def _beside(path: Path) -> Files:
    """The files that may belong to a checkpoint at this path."""
    if path.is_dir():
        return {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
    if path.name.endswith((".tar.gz", ".tgz")):
        return _packed(path)
    if path.suffix != ".index" and path.is_file():  # V1
        return {path.name: path}
    index = path if path.suffix == ".index" else path.with_name(path.name + ".index")
    if not index.is_file():
        raise ZooError(f"weights: no checkpoint {path}: expected that file or {index.name}")
    data = index.name.removesuffix(".index") + ".data-"
    parts = [file for file in sorted(index.parent.iterdir()) if file.name.startswith(data)]
    return {file.name: file for file in (index, *parts)}


def _one_table(path: Path, files: Files) -> str:
    """The name of the only file that is a table, by its last bytes."""
    tables = [name for name, file in files.items() if _bytes(file, len(MAGIC)) == MAGIC]
    if len(tables) != 1:
        raise ZooError(
            f"weights: {path} holds {len(tables)} TF checkpoints, expected one"
            + (": " + ", ".join(tables[:5]) if tables else "")
        )
    return tables[0]


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _bytes(file: Path | bytes, last: int = 0) -> bytes:
    """A file's bytes, or only so many of the last."""
    if isinstance(file, bytes):
        return file[-last:]
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - last) if last else 0)
        return stream.read()


def _packed(path: Path) -> Files:
    """Tables and data files of a packed folder, in memory; nothing is written."""
    files: dict[str, bytes] = {}
    with gzip.open(path) as stream:
        for name, data in _members(stream, Budget(path.stat().st_size)):
            if data.endswith(MAGIC) or ".data-" in name:
                if name in files:
                    raise ValueError(f"holds {name} twice")
                files[name] = data
    return files


def _members(stream: gzip.GzipFile, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """Name, without its folders, and bytes of each file of a tar archive.

    Python's `tarfile` recurses for each long name and can search a header for ever
    (CVE-2024-6232), so the little that is needed is read here.
    https://www.gnu.org/software/tar/manual/html_node/Standard.html
    """

    def take(size: int) -> bytes:
        budget.spend(size, steps=10)
        data = stream.read(size)
        if len(data) < size:
            raise EOFError("ends within a file")
        return data

    longer = b""  # the name of the next file, where its header has no room for it
    while any(header := take(BLOCK)):
        if _octal(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            raise ValueError("a header of its archive is damaged")
        name, size, kind = header[:100].rstrip(b"\0"), _octal(header[124:136]), header[156:157]
        data = take(-(-size // BLOCK) * BLOCK)[:size]
        if kind in (b"L", b"x") and size > 16 * NAME:
            raise ValueError(f"a name of {size} bytes")
        if kind == b"L":  # GNU's
            longer = data.rstrip(b"\0")
        elif kind == b"x":  # POSIX's: lines "LENGTH path=NAME"
            line = re.search(rb"(?:^|\n)\d{1,6} path=([^\n]*)\n", data)
            longer = line[1] if line else longer
        elif kind in (b"0", b"\0", b"7"):
            yield PurePosixPath((longer or name).decode(errors="replace")).name, data
        if kind not in (b"L", b"K", b"x"):
            longer = b""


def _octal(field: bytes) -> int:
    """A number of a tar header: octal digits, or where the first bit is set, the bytes after it."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


# --- tensors -------------------------------------------------------------------------------------


def _shape(data: memoryview, budget: Budget) -> tuple[int, ...]:
    """TensorShapeProto."""

    def sizes() -> Iterator[int]:
        for key, value in fields(data, budget):
            if key == 2:
                last = [number(size) for k, size in fields(message(value), budget) if k == 1]
                yield last[-1] if last else 0

    shape = shape_of(sizes())
    if math.prod(shape) >= 1 << 40:
        raise ValueError(f"a tensor of shape {list(shape)}")
    return shape


def _bundle(
    entries: Iterator[tuple[bytes, memoryview]], prefix: str, files: Files, budget: Budget
) -> Arrays:
    """V2: the entries of the index, cut from the data files."""
    _, header = next(entries, (b"", memoryview(b"")))
    about = dict(fields(header, budget))
    if about.get(2, 0) != 0:
        raise ValueError("big-endian")
    count = number(about.get(1, 0))
    shards = {}
    left = 0  # tensors do not overlap
    arrays: Arrays = {}
    for key, data in entries:
        name = key.decode()
        budget.spend(steps=CHECKSUM)
        entry = dict(fields(data, budget))
        dtype, size = number(entry.get(1, 0)), number(entry.get(5, 0))
        if dtype == STRING:
            continue
        if 7 in entry:
            raise ValueError(f"{name} is stored in parts, expected whole tensors")
        shard, offset = number(entry.get(3, 0)), number(entry.get(4, 0))
        if shard not in shards:
            file = f"{prefix}.data-{shard:05d}-of-{count:05d}"
            if file not in files:
                raise ValueError(f"{file} is missing")
            shards[shard] = _bytes(files[file])
            left += len(shards[shard])
        left -= size
        if left < 0 or offset + size > len(shards[shard]):
            raise ValueError(f"{name} lies beyond the end of the data")
        raw = memoryview(shards[shard])[offset : offset + size]
        check(raw, int.from_bytes(message(entry.get(6, memoryview(b""))), "little"))
        arrays[name] = _array(
            name, dtype, _shape(message(entry.get(2, memoryview(b""))), budget), raw
        )
    return arrays


def _array(name: str, dtype: int, shape: tuple[int, ...], raw: memoryview | bytes) -> np.ndarray:
    if dtype == BFLOAT16:  # the upper half of a float32
        bits = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2").astype(np.uint32) << 16
        flat = bits.view(np.float32)
    elif dtype in DTYPES:
        kind = DTYPES[dtype]
        flat = np.frombuffer(raw[: len(raw) // kind.itemsize * kind.itemsize], kind)
    else:
        raise ValueError(f"{name} has type {dtype}, expected numbers")
    if len(flat) != math.prod(shape):
        raise ValueError(f"{name} has {len(flat)} numbers, expected {list(shape)}")
    return flat.reshape(shape).copy()


def _slices(entries: Iterator[tuple[bytes, memoryview]], budget: Budget) -> Arrays:
    """V1: the first entry lists names, shapes and types, the others hold a tensor each."""
    about: dict[str, tuple[int, tuple[int, ...]]] = {}
    _, first = next(entries, (b"", memoryview(b"")))
    for meta in (message(v) for k, v in fields(first, budget) if k == 1):
        for tensor in (message(v) for k, v in fields(meta, budget) if k == 1):
            row = dict(fields(tensor, budget))
            shape = _shape(message(row.get(2, memoryview(b""))), budget)
            about[text(row.get(1, memoryview(b"")))] = number(row.get(3, 0)), shape
    arrays: Arrays = {}
    for _, saved in entries:
        for data in (message(v) for k, v in fields(saved, budget) if k == 2):
            row = dict(fields(data, budget))
            name = text(row.get(1, memoryview(b"")))
            if name not in about:
                raise ValueError(f"{name!r} is not in the list of tensors")
            dtype, shape = about[name]
            if dtype == STRING:
                continue
            if name in arrays or _is_part(message(row.get(2, memoryview(b""))), budget):
                raise ValueError(f"{name} is stored in parts, expected whole tensors")
            tensor = message(row.get(3, memoryview(b"")))
            arrays[name] = _array(name, dtype, shape, _content(dtype, tensor, budget))
    missing = [name for name, (dtype, _) in about.items() if dtype != STRING and name not in arrays]
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing: {', '.join(missing[:3])}")
    return arrays


def _is_part(data: memoryview, budget: Budget) -> bool:
    """TensorSliceProto: whether any of its extents has a start or a length."""
    return any(len(message(value)) for key, value in fields(data, budget) if key == 1)


def _content(dtype: int, tensor: memoryview, budget: Budget) -> bytes:
    """TensorProto's numbers as the bytes of an array."""
    if dtype in FLOATS:
        wanted = FLOATS[dtype]
        return b"".join(message(value) for key, value in fields(tensor, budget) if key == wanted)
    wanted = INTEGERS.get(dtype) or HALF.get(dtype) or 0
    packed = b"".join(message(value) for key, value in fields(tensor, budget) if key == wanted)
    whole = varints(packed, budget)
    return whole.astype(DTYPES[dtype].str.replace("f", "u")).tobytes() if dtype in DTYPES else b""
