"""Small files that ask a reader for far too much: for each reader, by name, a function of a size.

`n` is how often the file says what it should not say; every attack is made at several sizes.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import test_files as torch
import test_formats as formats
from test_formats import field, varint

from zoo.pretrained.readers import leveldb

Attack = Callable[[int], bytes]

# --- PyTorch --------------------------------------------------------------------------------------


def torch_zip(body: bytes, records: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\2" + body + pickle.STOP)
        for key, data in (torch.RECORDS if records is None else records).items():
            archive.writestr(f"archive/{key}", data)
    return out.getvalue()


def put(number: int) -> bytes:
    return pickle.LONG_BINPUT + struct.pack("<I", number)


GET = pickle.BINGET + b"\0"


def again(function: str, n: int, code: bytes = pickle.REDUCE) -> bytes:
    """One tuple of `n` values, given to a function as often as a pickle has room for."""
    wide = pickle.MARK + (pickle.BININT1 + b"\1") * min(n, 1_000_000) + pickle.TUPLE + put(0)
    called = torch.name(function) if function else b""
    return torch_zip(wide + (called + GET + code) * (min(n, 100_000) // (1 + len(called) // 4)))


def tensors_of_one(n: int) -> bytes:
    arguments = torch.items(
        torch.storage("0", 6), *map(torch.integer, (0,)), torch.items(), torch.items(),
        pickle.NEWFALSE, torch.call("collections.OrderedDict"),
    )  # fmt: skip
    made = torch.name("torch._utils._rebuild_tensor_v2") + put(1) + arguments + put(2)
    one = pickle.BINGET + b"\1" + pickle.BINGET + b"\2" + pickle.REDUCE
    pairs = b"".join(pickle.SHORT_BINUNICODE + b"\6%06d" % i + one for i in range(min(n, 260_000)))
    return torch_zip(made + pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS)


def zip_of_many(name: str, n: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(min(n, 60_000)):
            archive.writestr(name % i, b"")
    return out.getvalue()


def directory_of_many(n: int) -> bytes:
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, 6, *[0] * 6)
    listed = b"".join(entry + b"%06d" % i for i in range(min(n, 300_000)))
    count = min(n, 65_535)
    return listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(listed), 0, 0)


def deflated(name: str, n: int, value: bytes = b"\0") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, value * (n * 500))
    return out.getvalue()


def legacy(body: bytes, keys: list[str], tail: bytes) -> bytes:
    def dump(value: object) -> bytes:
        return pickle.dumps(value, protocol=2)

    head = dump(0x1950A86A20F9469CFC6C) + dump(1001) + dump({"little_endian": True})
    return head + pickle.PROTO + b"\2" + body + pickle.STOP + dump(keys) + tail


def legacy_storages(n: int) -> bytes:
    n = min(n, 100_000)
    where = torch.items(
        torch.text("storage"), torch.name("torch.FloatStorage"), torch.text("0"),
        torch.text("cpu"), torch.integer(0), pickle.NONE,
    )  # fmt: skip
    zero = torch.tensor(where + pickle.BINPERSID, (0,), (1,))
    return legacy(torch.mapping({"w": zero}), ["0"] * n, struct.pack("<q", 0) * n)


PICKLES: dict[str, Callable[[int], bytes]] = {
    "empty dicts": lambda n: pickle.EMPTY_DICT * (2 * n),
    "empty lists": lambda n: pickle.EMPTY_LIST * (2 * n),
    "marks": lambda n: pickle.MARK * (2 * n),
    "memo": lambda n: pickle.NONE + b"".join(map(put, range(min(n, 700_000)))),
    "memoize": lambda n: pickle.NONE + pickle.MEMOIZE * (2 * n),
    "protocols": lambda n: (pickle.PROTO + b"\2") * n,
    "tuples in tuples": lambda n: pickle.EMPTY_TUPLE + pickle.TUPLE1 * (2 * n),
    "lists in lists": lambda n: pickle.EMPTY_LIST * n + pickle.APPEND * (n - 1),
    "checkpoints in checkpoints": lambda n: (
        (pickle.EMPTY_DICT + torch.text("model")) * (n // 6)
        + pickle.NONE
        + pickle.SETITEM * (n // 6)
    ),
    "numbers as keys": lambda n: (
        pickle.EMPTY_DICT + pickle.MARK + (pickle.BININT1 + b"\1" + pickle.NONE) * n
        + pickle.SETITEMS
    ),
    "one dict of many names": lambda n: (
        torch.mapping(torch.ONE) + put(0) + pickle.EMPTY_DICT + pickle.MARK
        + b"".join(
            pickle.SHORT_BINUNICODE + b"\6%06d" % i + GET for i in range(min(n, 400_000))
        )
        + pickle.SETITEMS
    ),
    "a long text": lambda n: torch.text("x" * min(2 * n, 4_000_000)) + put(0) + GET * n,
    "a name of long texts": lambda n: (
        torch.text("x" * min(n, 2_000_000)) + put(0) + (GET + GET + pickle.STACK_GLOBAL) * 1000
    ),
    "integers": lambda n: (pickle.LONG1 + b"\x10" + b"\1" * 16) * (n // 6),
    "storages": lambda n: torch.mapping(
        {f"{i}": torch.storage(f"{i}", 0) for i in range(min(n // 40, 40_000))}
    ),
}  # fmt: skip

TORCH: dict[str, Attack] = {
    **{name: (lambda n, make=make: torch_zip(make(n))) for name, make in PICKLES.items()},
    "a reference of many parts": partial(again, "", code=pickle.BINPERSID),
    "many arguments, ignored": partial(again, "torch.device"),
    "many arguments": partial(again, "torch._utils._rebuild_tensor_v2"),
    "many sizes": partial(again, "torch.Size"),
    "state of many parts": lambda n: torch_zip(
        pickle.MARK + (pickle.BININT1 + b"\1") * min(n, 1_000_000) + pickle.TUPLE + put(0)
        + torch.name("torch.nn.parameter.Parameter") + pickle.EMPTY_TUPLE + pickle.REDUCE
        + (GET + pickle.BUILD) * min(n, 200_000)
    ),
    "tensors of one storage": tensors_of_one,
    "entries": partial(zip_of_many, "archive/data/%d"),
    "a long directory": directory_of_many,
    "deflated": partial(deflated, "archive/data.pkl"),
    "deflated storage": partial(deflated, "archive/data/0"),
    "legacy storages": legacy_storages,
    "legacy dicts": lambda n: legacy(pickle.EMPTY_DICT * n, [], b""),
    "legacy names": lambda n: legacy(
        torch.mapping(torch.ONE), [f"{i}" for i in range(min(n, 300_000))], b""
    ),
}  # fmt: skip

# --- NumPy ----------------------------------------------------------------------------------------


def npy(shape: str, data: bytes = b"", descr: str = "<f4") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", min(len(head), 65535)) + head + data


def npz(files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


NPZ: dict[str, Attack] = {
    "entries": partial(zip_of_many, "%d.npy"),
    "a long directory": directory_of_many,
    "empty arrays": lambda n: npz(
        {f"{i}.npy": npy("0,") for i in range(min(n // 20, 40_000))}, zipfile.ZIP_DEFLATED
    ),
    "dimensions": lambda n: npz({"a.npy": npy("1," * min(n, 4000), bytes(4))}),
    "dimensions of nothing": lambda n: npz({"a.npy": npy("0," + f"{10**18}," * min(n, 400))}),
    "deflated": lambda n: npz(
        {"a.npy": npy(f"{n * 100},", bytes(n * 400))}, zipfile.ZIP_DEFLATED
    ),
    "deflated arrays": lambda n: npz(
        {f"{i}.npy": npy("500000,", bytes(2_000_000)) for i in range(min(n // 5000, 100))},
        zipfile.ZIP_DEFLATED,
    ),
    "long names": lambda n: npz({f"{i}{'x' * 60_000}.npy": b"" for i in range(min(n // 9000, 60))}),
    "a long header": lambda n: npz({"a.npy": npy("1," + " " * min(n, 60_000), bytes(4))}),
    "objects": lambda n: npz({"a.npy": npy("1,", pickle.dumps([0] * min(n, 1000)), "|O")}),
}  # fmt: skip

# --- safetensors ----------------------------------------------------------------------------------


def tensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


NOTHING = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'

SAFETENSORS: dict[str, Attack] = {
    "empty tensors": lambda n: tensors(
        ("{" + ",".join(f'"{i}":{NOTHING}' for i in range(n)) + "}").encode()
    ),
    "metadata": lambda n: tensors(
        ('{"__metadata__":{' + ",".join(f'"{i}":""' for i in range(4 * n)) + "}}").encode()
    ),
    "dimensions": lambda n: tensors(
        b'{"a":{"dtype":"F32","shape":[' + b"1," * (8 * n) + b'1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "dimensions of nothing": lambda n: tensors(
        b'{"a":{"dtype":"F32","shape":[' + b"0," * (8 * n) + b'0],"data_offsets":[0,0]}}'
    ),
    "brackets": lambda n: tensors(b'{"a":' + b"[" * (16 * n) + b"]" * (16 * n) + b"}"),
    "spaces": lambda n: tensors(b"{" + b" " * (60 * n) + b"}"),
    "a long name": lambda n: tensors(b'{"' + b"x" * (60 * n) + f'":{NOTHING}}}'.encode()),
    "a long text": lambda n: tensors(b'{"__metadata__":{"a":"' + b"x" * (60 * n) + b'"}}'),
    "escapes": lambda n: tensors(b'{"__metadata__":{"a":"' + b"\\u0001" * (10 * n) + b'"}}'),
    "a length that lies": lambda n: struct.pack("<Q", 60 * n) + b"{}",
}

# --- Keras ----------------------------------------------------------------------------------------


AFTER = 1 << 16


def hdf5(messages: bytes, after: bytes = b"") -> bytes:
    """A file whose root has these messages; `after` begins at byte `AFTER`."""
    head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    head = (head + struct.pack("<QQQQ", 0, 2**64 - 1, 2**62, 2**64 - 1)).ljust(64, b"\0")
    root = struct.pack("<BBHIII", 1, 0, 1, 1, len(messages), 0) + messages
    body = (head + struct.pack("<Q", 96)).ljust(96, b"\0") + root
    if after:
        body = body.ljust(AFTER, b"\0") + after
    return body[:40] + struct.pack("<Q", len(body)) + body[48:]


def message(kind: int, data: bytes) -> bytes:
    data = data.ljust(-(-len(data) // 8) * 8, b"\0")
    return struct.pack("<HHBBBB", kind, len(data), 0, 0, 0, 0) + data


def one_node_many_times(n: int) -> bytes:
    """A group whose tree names one and the same node of names again and again."""
    count = min(n, 60_000)
    tree, symbols = AFTER + 128, AFTER + 128 + 24 + 16 * count
    heap = (b"HEAP" + bytes(4) + struct.pack("<QQQ", 16, 0, AFTER + 64)).ljust(64, b"\0")
    leaves = b"TREE\0\0" + struct.pack("<HQQ", count, 0, 0)
    leaves += struct.pack("<QQ", 0, symbols) * count
    node = b"SNOD\1\0" + struct.pack("<H", count)
    node += struct.pack("<QQIIQQ", 0, 96, 0, 0, 0, 0) * count
    root = message(0x11, struct.pack("<QQ", tree, AFTER))
    return hdf5(root, heap + b"a\0".ljust(64, b"\0") + leaves + node)


def listed(n: int) -> bytes:
    """`layer_names` that name one group again and again."""
    out = io.BytesIO()
    with formats.h5py.File(out, "w") as file:
        group = file.create_group("a")
        for i in range(50):
            group.attrs[f"x{i}"] = np.zeros(100)
        for i in range(-(-n // 3000)):
            file.attrs[f"layer_names{i}"] = [b"a"] * min(n, 3000)
    return out.getvalue()


def shared_text(n: int) -> bytes:
    heap = b"GCOL\1\0\0\0" + struct.pack("<Q", 1_000_032)
    heap += struct.pack("<HHIQ", 1, 1, 0, 1_000_000) + b"x" * 1_000_000
    count = min(n, 3500)
    rows = struct.pack("<IQI", 1_000_000, AFTER, 1) * count
    kind = bytes([0x19, 1, 0, 0]) + struct.pack("<I", 16) + bytes(8)
    space = bytes([1, 1, 0, 0, 0, 0, 0, 0]) + struct.pack("<Q", count)
    name = b"layer_names\0".ljust(16, b"\0")
    attribute = struct.pack("<BBHHH", 1, 0, 12, len(kind), len(space)) + name + kind + space + rows
    return hdf5(message(0x0C, attribute), heap.ljust(1_000_032, b"\0"))


def heap_of_many(n: int) -> bytes:
    heap = b"GCOL\1\0\0\0" + struct.pack("<Q", 16 + 16 * n)
    heap += b"".join(struct.pack("<HHIQ", i % 65535 + 1, 1, 0, 0) for i in range(n))
    rows = struct.pack("<IQI", 0, AFTER, 1)
    kind = bytes([0x19, 1, 0, 0]) + struct.pack("<I", 16) + bytes(8)
    space = bytes([1, 1, 0, 0, 0, 0, 0, 0]) + struct.pack("<Q", 1)
    name = b"layer_names\0".ljust(16, b"\0")
    attribute = struct.pack("<BBHHH", 1, 0, 12, len(kind), len(space)) + name + kind + space + rows
    return hdf5(message(0x0C, attribute), heap)


def shared_chunk(n: int) -> bytes:
    """A dataset of `n` chunks that are one and the same bytes, which unpack to far more."""
    out = io.BytesIO()
    with formats.h5py.File(out, "w") as file:
        chunks = min(n // 2000, 500)
        data = file.create_dataset(
            "w", (chunks, 1 << 20), "u1", chunks=(1, 1 << 20), compression="gzip"
        )
        packed = zlib.compress(bytes(1 << 20))
        for i in range(chunks):
            data.id.write_direct_chunk((i, 0), packed)
    return out.getvalue()


def layers(depth: int, kind: str) -> dict:
    inner: list = []
    for _ in range(depth):
        inner = [{"class_name": kind, "config": {"name": "x", "layers": inner}}]
    return {"config": {"layers": inner}}


def keras(config: bytes, weights: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights or hdf5(b""))
    return out.getvalue()


CONTINUED = 0x10

HDF5: dict[str, Attack] = {
    "continued in itself": lambda n: hdf5(
        message(CONTINUED, struct.pack("<QQ", 112, 24)) + bytes(8 * min(n, 400))
    ),
    "continued in all of itself": lambda n: hdf5(
        message(CONTINUED, struct.pack("<QQ", AFTER, 24 * min(n, 100_000))),
        message(CONTINUED, struct.pack("<QQ", AFTER, 24 * min(n, 100_000))) * min(n, 100_000),
    ),
    "empty messages": lambda n: hdf5(
        message(CONTINUED, struct.pack("<QQ", AFTER, 8 * n)), message(0, b"") * n
    ),
    "one node many times": one_node_many_times,
    "one group many times": listed,
    "one text many times": shared_text,
    "a heap of many": heap_of_many,
    "one chunk many times": shared_chunk,
    "links": lambda n: hdf5(
        message(CONTINUED, struct.pack("<QQ", AFTER, 24 * n)),
        b"".join(message(6, b"\1\0\3%03d" % (i % 1000) + struct.pack("<Q", 96)) for i in range(n)),
    ),
    "attributes": lambda n: hdf5(
        message(CONTINUED, struct.pack("<QQ", AFTER, 48 * n)),
        message(
            0x0C,
            struct.pack("<BBHHH", 1, 0, 2, 8, 8) + b"a\0".ljust(8, b"\0")
            + bytes([0x13, 0, 0, 0, 1, 0, 0, 0]) + bytes([1, 0]).ljust(8, b"\0") + bytes(8),
        ) * n,
    ),
}  # fmt: skip

KERAS: dict[str, Attack] = {
    "empty objects": lambda n: keras(b"[" + b",".join([b"{}"] * (8 * n)) + b"]"),
    "brackets": lambda n: keras(b"[" * (8 * n) + b"]" * (8 * n)),
    "numbers": lambda n: keras(b"[" + b",".join([b"1"] * (8 * n)) + b"]"),
    "a long number": lambda n: keras(b"[" + b"9" * (8 * n) + b"]"),
    "layers in layers": lambda n: keras(json.dumps(layers(min(n, 200), "Functional")).encode()),
    "long classes": lambda n: keras(json.dumps(layers(20, "Ab" * min(2 * n, 150_000))).encode()),
    "layers": lambda n: keras(
        b'{"config":{"layers":[' + b",".join([b'{"class_name":"A","config":{}}'] * n) + b"]}}"
    ),
    "HDF5 of zeros": lambda n: keras(b'{"config":{}}', bytes(400 * n)),
    "HDF5 in a zip": lambda n: keras(b'{"config":{}}', hdf5(b"").ljust(400 * n, b"\0")),
    "entries": partial(zip_of_many, "%d"),
}

# --- TensorFlow -----------------------------------------------------------------------------------


def checksum(data: bytes) -> bytes:
    crc = leveldb.crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def table(blocks: list[tuple[int, bytes]]) -> bytes:
    """A LevelDB table of these blocks; 1 says that one is compressed."""
    out = bytearray()

    def add(kind: int, data: bytes) -> bytes:
        place = varint(len(out)) + varint(len(data))
        out.extend(data + bytes([kind]) + checksum(data + bytes([kind])))
        return place

    handles = [add(*block) for block in blocks]
    end = struct.pack("<II", 0, 1)
    meta = add(0, end)
    index = b"".join(varint(0) + varint(1) + varint(len(h)) + b"~" + h for h in handles) + end
    footer = (meta + add(0, index)).ljust(40, b"\0")
    return bytes(out) + footer + leveldb.MAGIC


def entries(values: list[bytes]) -> bytes:
    """A block of entries, each a letter longer than nothing."""
    rows = b"".join(varint(0) + varint(6) + varint(len(v)) + b"%06d" % i + v
                    for i, v in enumerate(values))  # fmt: skip
    return rows + struct.pack("<II", 0, 1)


def meta_of(tensor: bytes) -> bytes:
    """A V1 checkpoint whose list of tensors is this."""
    return table([(0, entries([field(1, field(1, tensor))]))])


def tar_of(headers: bytes, n: int) -> bytes:
    return gzip.compress(headers * n + bytes(1024), 1)


def tar_header(kind: bytes, size: int, pax: dict | None = None) -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def snappy(n: int) -> bytes:
    tags = (bytes([1, 1])) * n  # copies of four bytes
    return table([(1, varint(4 * n + 4) + bytes([3 << 2]) + b"abcd" + tags)])


TF_V1: dict[str, Attack] = {
    "dimensions": lambda n: meta_of(
        field(1, b"w") + field(2, field(2, field(1, 2)) * n) + field(3, 1)
    ),
    "large dimensions": lambda n: meta_of(
        field(1, b"w") + field(2, field(2, field(1, 2**63)) * (n // 2)) + field(3, 1)
    ),
    "copies": snappy,
    "empty fields": lambda n: meta_of(field(9, b"") * (2 * n)),
    "names": lambda n: table([(0, entries([field(1, field(1, field(1, b"w")) * n)]))]),
    "long names": lambda n: table(
        [(0, (varint(0) + varint(4000) + varint(0) + b"x" * 4000
              + (varint(3999) + varint(1) + varint(0) + b"y") * n + struct.pack("<II", 0, 1)))]
    ),
    "blocks": lambda n: table([(0, struct.pack("<II", 0, 1))] * min(n // 5, 100_000)),
    "small integers": lambda n: table(
        [(0, entries([
            field(1, field(1, field(1, b"w") + field(2, field(2, field(1, 8 * n))) + field(3, 9))),
            field(2, field(1, b"w") + field(3, field(10, b"\1" * (8 * n)))),
        ]))]
    ),
}  # fmt: skip

TGZ: dict[str, Attack] = {
    "long names": lambda n: tar_of(tar_header(b"L", 512) + b"x" * 512, min(n // 10, 50_000)),
    "very long names": lambda n: tar_of(
        tar_header(b"L", 512 * n) + b"x" * 512 * n, 3
    ),
    "POSIX names": lambda n: tar_of(
        tar_header(b"x", 4096) + (b"9" * 4000).ljust(4096, b"\n"), min(n // 20, 20_000)
    ),
    "spaces in a POSIX name": lambda n: tar_of(
        tar_header(b"x", 512 * min(n, 100)) + b" " * (512 * min(n, 100)), 20
    ),
    "empty files": lambda n: tar_of(tar_header(b"0", 0), n),
    "sparse files": lambda n: tar_of(tar_header(b"S", 0), min(n, 10_000)),
    "zeros": lambda n: tar_of(tar_header(b"0", 512 * n) + bytes(512 * n), 1),
    "sizes that lie": lambda n: tar_of(tar_header(b"0", 1 << 32), 1 + n // 1000),
}  # fmt: skip


# --- Caffe ----------------------------------------------------------------------------------------


def layer(blob: bytes, name: bytes = b"c") -> bytes:
    return field(100, field(1, name) + field(7, blob))


CAFFE: dict[str, Attack] = {
    "dimensions": lambda n: layer(field(7, field(1, b"\1" * (4 * n)))),
    "large dimensions": lambda n: layer(field(7, field(1, (b"\xff" * 8 + b"\x7f") * n))),
    "dimensions one by one": lambda n: layer(field(7, field(1, 3) * n)),
    "numbers one by one": lambda n: layer(field(5, bytes(4)) * n),
    "layers": lambda n: b"".join(field(100, field(1, b"%d" % i)) for i in range(n)),
    "blobs": lambda n: field(100, field(1, b"c") + field(7, b"") * n),
    "blobs of a long name": lambda n: field(
        100, field(1, b"x" * (4 * n)) + field(7, field(5, bytes(4))) * n
    ),
    "blobs of a name": lambda n: field(100, field(1, b"x" * 4000) + field(7, b"") * n),
    "empty fields": lambda n: b"\x0a\0" * (4 * n),
    "long numbers": lambda n: (b"\x08" + b"\xff" * 9 + b"\1") * n,
}

SIZES = (2_000, 60_000, 1_000_000)
ATTACKS: dict[str, tuple[str, dict[str, Attack]]] = {
    "PyTorch": (".pth", TORCH),
    "NumPy": (".npz", NPZ),
    "safetensors": (".safetensors", SAFETENSORS),
    "HDF5": (".h5", HDF5),
    "Keras": (".keras", KERAS),
    "TensorFlow": (".ckpt", TF_V1),
    "TensorFlow, packed": (".tgz", TGZ),
    "Caffe": (".caffemodel", CAFFE),
}
