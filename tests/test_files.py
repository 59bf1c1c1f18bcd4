"""Files from anywhere: read to the last bit, or refused in a line; nothing in them is executed."""

import builtins
import io
import json
import os
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import zoo
from zoo.pretrained.readers import files, npz
from zoo.pretrained.readers.base import Arrays

# Written by PyTorch 2.13: `torch.save(checkpoint, "torch_zip.pth")`, and `torch_legacy.pth` with
# `_use_new_zipfile_serialization=False`, where
#   x = torch.arange(24, dtype=torch.float32)
#   weights = {"module.conv.weight": torch.nn.Parameter(x.reshape(2, 3, 2, 2) / 7),
#              "module.turned": x.reshape(4, 6).t(), "module.shared": x[5:11],
#              "module.every_other": x[1::4], "module.bf16": (x / 7).bfloat16(),
#              "module.half": (x / 7).half()[:5], "module.flags": x[:4] > 1,
#              "module.count": torch.tensor(7), "module.empty": torch.zeros(0, 3)}
#   checkpoint = {"epoch": 3, "best_prec1": torch.tensor(91.5), "arch": "net",
#                 "state_dict": weights,
#                 "optimizer": {"state": {0: {"momentum_buffer": torch.ones(5)}},
#                               "param_groups": [{"lr": 0.1, "params": [0]}]}}
GOLDEN = Path(__file__).parent / "golden"


def bf16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16's 8 bits, to nearest even."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


X = np.arange(24, dtype=np.float32)
BARE = {
    "conv.weight": X.reshape(2, 3, 2, 2) / np.float32(7),
    "turned": X.reshape(4, 6).T,
    "shared": X[5:11],
    "every_other": X[1::4],
    "bf16": bf16(X / np.float32(7)),
    "half": (X / np.float32(7)).astype(np.float16)[:5],
    "flags": X[:4] > 1,
    "count": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
}
WEIGHTS = {f"module.{name}": x for name, x in BARE.items()}


def assert_same(got: Arrays, want: Arrays) -> None:
    assert list(got) == list(want)
    for name, x in want.items():
        assert got[name].dtype == x.dtype, name
        assert got[name].shape == x.shape, name
        assert got[name].tobytes() == x.tobytes(), name


def refused(path: Path, match: str | None = None) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(zoo.ZooError, match=match) as error:
        files.read(path)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith("weights: ")
    assert path.name in line
    return line


# --- PyTorch, as PyTorch writes it ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch_zip.pth", "torch_legacy.pth"])
def test_a_checkpoint_of_pytorch(name):
    arrays, metadata = files.read(GOLDEN / name)
    assert_same(arrays, WEIGHTS)
    assert metadata == {}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin", ".pth.tar", ".ckpt", ".PTH"])
def test_the_suffixes_of_pytorch(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes((GOLDEN / "torch_zip.pth").read_bytes())
    assert_same(files.read(path)[0], WEIGHTS)


def test_a_published_checkpoint(shared):
    arrays, _ = files.read(shared("data/weights/resnet20-12fca82f.th"))
    assert len(arrays) == 97
    assert all(name.startswith("module.") for name in arrays)  # `zoo.load` strips it, and says so
    assert arrays["module.conv1.weight"].shape == (16, 3, 3, 3)
    assert arrays["module.linear.weight"].shape == (10, 64)
    assert all(np.isfinite(x).all() for x in arrays.values())


# --- PyTorch, written by hand ---------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def name(path: str) -> bytes:
    module, _, last = path.rpartition(".")
    return pickle.GLOBAL + f"{module}\n{last}\n".encode()


def items(*values: bytes) -> bytes:
    """A tuple."""
    return pickle.MARK + b"".join(values) + pickle.TUPLE


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + items(*arguments) + pickle.REDUCE


def mapping(values: dict[str, bytes]) -> bytes:
    pairs = b"".join(text(key) + value for key, value in values.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def storage(key: str, elements: int, kind: str = "torch.FloatStorage") -> bytes:
    """What zip files say; legacy files add None."""
    identity = items(text("storage"), name(kind), text(key), text("cpu"), integer(elements))
    return identity + pickle.BINPERSID


def tensor(
    where: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    sizes = (items(*map(integer, x)) for x in (shape, strides))
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2", where, integer(offset), *sizes, pickle.NEWFALSE, hooks
    )


def write_zip(path: Path, body: bytes, records: dict[str, bytes], **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\2" + body + pickle.STOP)
        for key, data in (records | others).items():
            archive.writestr(f"archive/{key}", data)
    return path


def write_legacy(path: Path, body: bytes, storages: dict[str, tuple[int, bytes]]) -> Path:
    def dump(value: object) -> bytes:
        return pickle.dumps(value, protocol=2)

    parts = [dump(0x1950A86A20F9469CFC6C), dump(1001), dump({"little_endian": True})]
    parts += [pickle.PROTO + b"\2" + body + pickle.STOP, dump(list(storages))]
    parts += [struct.pack("<q", count) + data for count, data in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


SIX = np.arange(6, dtype=np.float32)
ONE = {"w": tensor(storage("0", 6), (2, 3), (3, 1))}
RECORDS = {"data/0": SIX.tobytes()}


def test_big_endian_files_are_read(tmp_path):
    data = {"data/0": SIX.astype(">f4").tobytes(), "byteorder": b"big"}
    arrays, _ = files.read(write_zip(tmp_path / "w.pth", mapping(ONE), data))
    assert_same(arrays, {"w": SIX.reshape(2, 3)})
    data["byteorder"] = b"middle"
    refused(write_zip(tmp_path / "w.pth", mapping(ONE), data), "neither little nor big")


@pytest.mark.parametrize(
    "storage_type",
    ["Double f8", "Float f4", "Half f2", "Long i8", "Int i4", "Short i2", "Char i1", "Byte u1"],
)
@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_types_of_storages(module, storage_type, tmp_path):
    kind, dtype = storage_type.split()
    data = np.array([0, 1, 100, 0]).astype(dtype)
    body = mapping({"w": tensor(storage("0", 4, f"{module}.{kind}Storage"), (4,), (1,))})
    arrays, _ = files.read(write_zip(tmp_path / "w.pth", body, {"data/0": data.tobytes()}))
    assert_same(arrays, {"w": data})


def test_every_bfloat16_is_exact(tmp_path):
    data = np.arange(1 << 16, dtype=np.uint16)
    body = mapping({"w": tensor(storage("0", 1 << 16, "torch.BFloat16Storage"), (1 << 16,), (1,))})
    arrays, _ = files.read(write_zip(tmp_path / "w.pth", body, {"data/0": data.tobytes()}))
    assert arrays["w"].dtype == np.float32
    np.testing.assert_array_equal(arrays["w"].view(np.uint32), data.astype(np.uint32) << 16)


def test_memory_is_twice_the_file_at_most(tmp_path):
    """bfloat16 doubles; a file of one storage must not be there a second time meanwhile."""
    count = 8 << 20
    body = mapping({"w": tensor(storage("0", count, "torch.BFloat16Storage"), (count,), (1,))})
    path = write_zip(tmp_path / "w.pth", body, {"data/0": bytes(2 * count)})
    assert peak(lambda: files.read(path)) < 2 * path.stat().st_size + (8 << 20)


def test_parameters_of_before_0_4(tmp_path):
    """Made empty, then given state: (data, grad, hooks, requires_grad, volatile)."""
    flags = pickle.NONE + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
    empty = name("torch.nn.parameter.Parameter") + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    body = mapping({"w": empty + items(ONE["w"], flags) + pickle.BUILD})
    assert_same(
        files.read(write_zip(tmp_path / "w.pth", body, RECORDS))[0], {"w": SIX.reshape(2, 3)}
    )


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "anything"])
def test_the_entry_that_has_the_weights(key, tmp_path):
    rate = pickle.BINFLOAT + struct.pack(">d", 0.1)
    others = {"epoch": integer(3), "args": mapping({"lr": rate})}
    body = mapping(others | {key: mapping(ONE)})
    assert list(files.read(write_zip(tmp_path / "w.pth", body, RECORDS))[0]) == ["w"]


def test_two_entries_with_tensors(tmp_path):
    body = mapping({"a": mapping(ONE), "b": mapping(ONE)})
    refused(
        write_zip(tmp_path / "w.pth", body, RECORDS),
        r"has 2 entries with tensors: got 'a', 'b', expected one of state_dict, ",
    )
    refused(write_zip(tmp_path / "w.pth", integer(3), RECORDS), "holds no tensors by name")
    refused(write_zip(tmp_path / "w.pth", ONE["w"], RECORDS), "holds no tensors by name")


# --- PyTorch, hostile -----------------------------------------------------------------------------


class Attack:
    """A pickle that, unpickled by Python, calls a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(trace: Path) -> dict[str, tuple[object, str]]:
    """Objects that leave a trace when unpickled carelessly, and what the refusal names."""
    code = f"open({str(trace)!r}, 'w')"
    return {
        "os.system": (Attack(os.system, f"touch {trace}"), "posix.system"),
        "eval": (Attack(builtins.eval, code), "builtin.*eval"),
        "exec": ({"w": [Attack(builtins.exec, code)]}, "builtin.*exec"),
        "getattr": (Attack(getattr, Attack(eval, code), "x"), "builtin.*getattr"),
        "open": (Attack(open, str(trace), "w"), "io.open"),
        "nested": (Attack(tuple, [Attack(Attack, Attack(eval, code))]), "tuple"),
    }


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("attack", list(attacks(Path("x"))))
def test_nothing_is_executed(attack, protocol, form, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "w.pth"
    value, named = attacks(trace)[attack]
    body = pickle.dumps(value, protocol)
    if form == "zip":
        write_zip(path, body.removesuffix(pickle.STOP), RECORDS)
    elif form == "legacy":
        write_legacy(path, body.removesuffix(pickle.STOP), {})
    else:
        path.write_bytes(body)
    line = refused(path)
    if form != "bare" and protocol:
        assert re.search(f"asks for '.*{named}', which is refused: expected tensors", line)
    assert not trace.exists()


SIZES = {  # what it says, and what is the matter
    "10^12 elements in the storage": (
        tensor(storage("0", 10**12), (10**12,), (1,)),
        "storage '0' needs 4000000000000 bytes, but has 24",
    ),
    "10^12 elements in the tensor": (
        tensor(storage("0", 6), (10**6, 10**6), (10**6, 1)),
        r"a tensor of shape \[1000000, 1000000\].* of a storage of 6 elements",
    ),
    "one element 10^12 times": (tensor(storage("0", 6), (10**12,), (0,)), "of 6 elements"),
    "past the end": (tensor(storage("0", 6), (2, 3), (4, 1)), "of 6 elements"),
    "offset": (tensor(storage("0", 6), (6,), (1,), offset=1), "of 6 elements"),
    "negative stride": (tensor(storage("0", 6), (2,), (-1,), offset=3), "without storage, shape"),
    "negative shape": (tensor(storage("0", 6), (-2, -3), (3, 1)), "without storage, shape"),
    "overflow": (tensor(storage("0", 6), (2**63, 2**63), (0, 0)), "without storage, shape"),
    "33 dimensions": (tensor(storage("0", 6), (1,) * 33, (1,) * 33), "without storage, shape"),
    "strides missing": (tensor(storage("0", 6), (2, 3), (1,)), "without storage, shape"),
    "no storage": (tensor(pickle.NONE, (2, 3), (3, 1)), "without storage, shape"),
    "storage not there": (tensor(storage("../1", 6), (6,), (1,)), "'../1' needs .* is not there"),
}


@pytest.mark.parametrize("case", list(SIZES))
def test_sizes_that_cannot_be(case, tmp_path):
    body, match = SIZES[case]
    path = write_zip(tmp_path / "w.pth", mapping({"w": body}), RECORDS)
    assert peak(lambda: refused(path, match)) < 4 << 20


def test_two_types_of_one_storage(tmp_path):
    both = {"a": tensor(storage("0", 6), (6,), (1,))}
    both["b"] = tensor(storage("0", 3, "torch.DoubleStorage"), (3,), (1,))
    refused(write_zip(tmp_path / "w.pth", mapping(both), RECORDS), "is of two types or sizes")


def legacy_tensor(elements: int) -> bytes:
    kind = name("torch.FloatStorage")
    identity = items(text("storage"), kind, text("7"), text("cpu"), integer(elements), pickle.NONE)
    return mapping({"w": tensor(identity + pickle.BINPERSID, (elements,), (1,))})


@pytest.mark.parametrize("count", [5, 7, -1, 10**12, -(2**63)])
def test_legacy_storages_that_cannot_be(count, tmp_path):
    path = tmp_path / "w.pth"
    write_legacy(path, legacy_tensor(6), {"7": (6, SIX.tobytes())})
    assert_same(files.read(path)[0], {"w": SIX})
    refused(
        write_legacy(path, legacy_tensor(6), {"7": (count, SIX.tobytes())}),
        f"storage '7' of {count} elements is none of the pickle's",
    )
    if count > 6:
        write_legacy(path, legacy_tensor(count), {"7": (count, SIX.tobytes())})
        assert peak(lambda: refused(path, "ends after the file")) < 4 << 20
    refused(write_legacy(path, legacy_tensor(6), {}), "storage '7' is not there")


BOMBS = {
    "long integer": (pickle.LONG4 + struct.pack("<I", 2**31 - 1), r"instruction b'\\x8b'"),
    "integer": (pickle.LONG1 + b"\xff" + b"\1" * 255, "an integer of 255 bytes"),
    "text": (pickle.BINUNICODE8 + struct.pack("<Q", 2**62), "ends early"),
    "bytes": (pickle.BINBYTES8 + struct.pack("<Q", 2**64 - 1), "ends early"),
    "memo": (pickle.NONE + pickle.LONG_BINPUT + b"\xff" * 4, "no tensors by name"),
    "depth": (pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000, "no tensors by name"),
    "dicts in dicts": (
        (pickle.EMPTY_DICT + text("model")) * 20_000 + pickle.NONE + pickle.SETITEM * 20_000,
        "0 entries with tensors: got 'model'",
    ),
    "size of bytes": (
        text("x" * 100_000)
        + pickle.BINPUT
        + b"\0"
        + (name("torch.Size") + pickle.BINGET + b"\0" + pickle.TUPLE1 + pickle.REDUCE) * 2,
        "damaged pickle",
    ),
    "state of a function": (
        name("torch._utils._rebuild_tensor_v2") + mapping({"__code__": text("x")}) + pickle.BUILD,
        "damaged pickle",
    ),
    "a call of text": (text("eval") + items(text("1")) + pickle.REDUCE, "damaged pickle"),
    "a class made": (name("torch.FloatStorage") + pickle.EMPTY_TUPLE + pickle.NEWOBJ, "damaged"),
    "extension": (pickle.EXT1 + b"\1", "instruction"),
    "instance": (pickle.MARK + pickle.INST + b"os\nsystem\n", "instruction"),
    "module": (
        items(text("module"), text("m"), text("f"), text("s"), text("x")) + pickle.BINPERSID,
        "no storage",
    ),
    "nothing": (b"", "damaged pickle"),
}


@pytest.mark.parametrize("case", list(BOMBS))
def test_pickles_that_are_bombs(case, tmp_path):
    body, match = BOMBS[case]
    path = write_zip(tmp_path / "w.pth", body, RECORDS)
    assert peak(lambda: refused(path, match)) < 200 << 20


def test_a_list_of_pairs_is_used_once(tmp_path):
    """An OrderedDict of Python 2; a million of them from one list would be a bomb."""
    made = name("collections.OrderedDict")
    pairs = pickle.EMPTY_LIST + pickle.BINPUT + b"\7" + items(text("w"), ONE["w"]) + pickle.APPEND
    once = made + pairs + pickle.TUPLE1 + pickle.REDUCE
    arrays, _ = files.read(write_zip(tmp_path / "w.pth", once, RECORDS))
    assert_same(arrays, {"w": SIX.reshape(2, 3)})
    twice = once + made + pickle.BINGET + b"\7" + pickle.TUPLE1 + pickle.REDUCE
    refused(write_zip(tmp_path / "w.pth", twice, RECORDS), "0 entries with tensors: got nothing")


def test_long_pickles(tmp_path):
    body = text("x" * (5 << 20)) + mapping(ONE)
    refused(write_zip(tmp_path / "w.pth", body, RECORDS), "a pickle of more than 4194304 bytes")
    refused(write_legacy(tmp_path / "w.pth", body, {}), "pickles of more than 4194304 bytes")


# --- zip archives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
@pytest.mark.parametrize("entry", ["../x.npy", "/x.npy", "a/../../x.npy", "C:/x.npy", "..\\x.npy"])
def test_names_that_lead_elsewhere(entry, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, b"x")
    refused(path, "has an entry .* expected a plain name")


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_a_name_that_occurs_twice(suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"2")
    refused(path, "has two entries 'a/data.pkl'")


def test_bombs_of_zips(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(50 << 20))
    assert peak(lambda: refused(path, "52428[0-9]+, expected [0-9]+ at most")) < 4 << 20

    # Two entries of a directory that are the same bytes
    data = write_zip(path, mapping(ONE), RECORDS | {"data/1": bytes(10_000)}).read_bytes()
    start = data.index(b"PK\1\2")
    entry = data[data.rindex(b"PK\1\2") : data.rindex(b"PK\5\6")]
    directory = data[start : data.rindex(b"PK\5\6")]
    for i in range(2, 9):
        directory += entry.replace(b"data/1", b"data/%d" % i)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 10, 10, len(directory), start, 0)
    path.write_bytes(data[:start] + directory + end)
    refused(path, "says to hold 80")


def test_a_directory_that_is_too_long(tmp_path):
    path = tmp_path / "w.pth"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, 1, *[0] * 6) + b"x"
    count = (17 << 20) // len(entry)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, count * len(entry), 0, 0)
    path.write_bytes(entry * count + end)
    assert peak(lambda: refused(path, "a list of entries of 178.* bytes")) < 4 << 20


def test_an_entry_that_was_changed(tmp_path):
    path = write_zip(tmp_path / "w.pth", mapping(ONE), RECORDS)
    data = path.read_bytes()
    path.write_bytes(data.replace(SIX.tobytes(), SIX[::-1].tobytes()))
    refused(path, "is not a whole PyTorch file: Bad CRC-32 for file 'archive/data/0'")


def test_zips_of_another_kind(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    refused(tmp_path / "w.pth", r"without data\.pkl")
    script = write_zip(tmp_path / "w.pth", mapping(ONE), RECORDS, **{"constants.pkl": b"x"})
    refused(script, "is TorchScript, a program: expected tensors alone, as of torch.save")


# --- NumPy ----------------------------------------------------------------------------------------


def test_npz(tmp_path):
    arrays = {"conv1/7x7_s2.weight": SIX.reshape(2, 3), "b": np.asfortranarray(X.reshape(4, 6))}
    arrays |= {"n": np.array(3), "e": np.zeros((0, 2)), "f": np.array([True]), "v": X[:1]}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "w.npz", **arrays)
        got, metadata = files.read(tmp_path / "w.npz")
        assert_same(got, arrays)
        assert metadata == {}


def write_npz(path: Path, header: str, data: bytes, version: int = 1) -> Path:
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    with zipfile.ZipFile(path, "w") as archive:
        npy = b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + data
        archive.writestr("w.npy", npy)
    return path


@pytest.mark.parametrize(
    ("shape", "descr", "match"),
    [
        ("(1000000, 1000000)", "<f4", "needs 40000000000.. bytes, has 1"),
        ("(5,)", "<f4", r"'w.npy' of shape \[5\] needs"),
        ("(9999999999999999999, 9999999999999999999, 0)", "<f4", "needs"),
        ("(6,)", "|O", "is no array of numbers"),
        ("(6,)", "<U1", "is no array of numbers"),
        ("(6,)", "<f3", "is no array of numbers"),
        ("[6]", "<f4", "is no array of numbers"),
        ("(-6,)", "<f4", "is no array of numbers"),
        ("(6,), 'x': __import__('os')", "<f4", "is no array of numbers"),
    ],
)
def test_npz_headers_that_lie(shape, descr, match, tmp_path):
    form = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
    for version in (1, 2):
        good = write_npz(tmp_path / "w.npz", form.format("<f4", "(6,)"), SIX.tobytes(), version)
        assert_same(files.read(good)[0], {"w": SIX})
        path = write_npz(tmp_path / "w.npz", form.format(descr, shape), SIX.tobytes(), version)
        assert peak(lambda path=path: refused(path, match)) < 4 << 20


def test_npz_of_objects(tmp_path):
    trace = tmp_path / "trace"
    evil = np.array([Attack(os.system, f"touch {trace}")], object)
    np.savez(tmp_path / "w.npz", w=evil)
    refused(tmp_path / "w.npz", "'w.npy' is no array of numbers")
    assert not trace.exists()


def test_npz_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "ROOM", 1 << 20)
    np.savez_compressed(tmp_path / "w.npz", w=np.zeros(1 << 20))
    assert peak(lambda: refused(tmp_path / "w.npz", "unpack to 8388736, expected")) < 4 << 20


# --- safetensors ----------------------------------------------------------------------------------


def test_safetensors(tmp_path):
    arrays = {"a": SIX.reshape(2, 3), "h": SIX.astype(np.float16), "n": np.array(3)}
    save_file(arrays, tmp_path / "w.safetensors", metadata={"format": "pt"})
    got, metadata = files.read(tmp_path / "w.safetensors")
    assert_same(dict(sorted(got.items())), arrays)
    assert metadata == {"format": "pt"}


def write_safetensors(path: Path, header: object, data: bytes, length: int | None = None) -> Path:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)
    return path


def entry(start: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_bfloat16_of_safetensors(tmp_path):
    data = np.arange(1 << 16, dtype=np.uint16)
    header = {"w": entry(0, 1 << 17, (1 << 16,), "BF16")}
    path = write_safetensors(tmp_path / "w.safetensors", header, data.tobytes())
    arrays, _ = files.read(path)
    assert arrays["w"].dtype == np.float32
    numbers = ~np.isnan(arrays["w"])
    assert numbers.sum() == (1 << 16) - 254
    bits = arrays["w"].view(np.uint32)[numbers]
    np.testing.assert_array_equal(bits, data.astype(np.uint32)[numbers] << 16)


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(0, 8)},
        {"a": entry(0, 8), "b": entry(16, 24)},
        {"a": entry(8, 0), "b": entry(8, 16)},
        {"a": entry(0, 16, (10**12,))},
        {"a": entry(0, 16, (2**62, 2**62))},
        {"a": entry(0, 4 * 10**12, (10**12,))},
        {"a": entry(0, 8)},
        {"a": entry(0, 16, (16,), "F8_E4M3")},
        {"a": entry(0, 16, (2,), "C64")},
        {"a": entry(0, 16, (1,) * 99 + (4,))},
        {"a": 3},
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda header: str(header)[:50],
)
def test_safetensors_that_lie(header, tmp_path):
    path = write_safetensors(tmp_path / "w.safetensors", header, bytes(16))
    assert peak(lambda: refused(path, "is not a whole safetensors file: ")) < 16 << 20


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**63, 2**64 - 1])
def test_a_header_length_that_lies(length, tmp_path):
    header = {"a": entry(0, 16, (4,))}
    path = write_safetensors(tmp_path / "w.safetensors", header, bytes(16), length)
    refused(path, "is not a whole safetensors file: ")


# --- what is no file of weights -------------------------------------------------------------------

SUFFIXES = list(files.READERS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_hold_something_else(suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"\n <!DOCTYPE html>\n<html><head><title>404</title></head></html>\n")
    refused(path, "is a web page, not weights")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
    refused(path, "is a Git LFS pointer, not weights")
    path.write_bytes("Nicht gefunden: das Gewünschte\n".encode() * 100)
    refused(path, "is text, not weights")
    path.write_bytes(b"")
    refused(path, "is not a whole .* file: it is empty")
    path.write_bytes(b"\x89\0\1\2\3nothing that anyone reads")
    refused(path)
    path.unlink()
    refused(path, f"no file {re.escape(str(path))}$")
    path.mkdir()
    refused(path, f"no file {re.escape(str(path))}: it is a folder$")


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.touch()

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, f"cannot read {re.escape(str(path))}: Permission denied")


def test_suffixes_without_reader(tmp_path):
    for name_ in ("w.onnx", "w", "w.ckpt-x"):
        (tmp_path / name_).write_bytes(b"\0" * 99)
        refused(tmp_path / name_, r"suffix '.*'.*, expected one of .safetensors, .npz, .pth, ")


# --- damage ---------------------------------------------------------------------------------------


def peak(run: Callable[[], object]) -> int:
    """Bytes of memory that Python and NumPy took at once."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def mutated(random: np.random.Generator, data: bytes) -> bytes:
    """A few bytes changed, inserted, left out or repeated, or the end missing."""
    out = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(out) + 1))
        size = int(random.choice([1, 1, 2, 4, 8, 100]))
        noise = bytes(random.integers(256, size=size, dtype=np.uint8))
        match random.integers(7):
            case 0:
                out[at : at + size] = noise
            case 1:
                out[at : at + size] = random.choice([b"\xff", b"\0", b"\x7f"]) * size
            case 2:
                out[at:at] = noise
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = out[at : at + size]
            case 5 if at < len(out):
                out[at] ^= 1 << int(random.integers(8))
            case 6 if random.random() < 0.3:
                del out[at:]
    return bytes(out)


def inside(data: bytes, entry: str, random: np.random.Generator) -> bytes:
    """An archive with an entry that is mutated, its checksum right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name_ in old.namelist():
            content = old.read(name_)
            new.writestr(name_, mutated(random, content) if name_.endswith(entry) else content)
    return out.getvalue()


def samples(folder: Path) -> dict[str, tuple[str, bytes, str]]:
    """Sound files: suffix, bytes, and the entry to mutate, or "" for the file as a whole."""
    np.savez(folder / "w.npz", a=SIX.reshape(2, 3), b=X)
    np.savez_compressed(folder / "c.npz", a=SIX.reshape(2, 3), b=X)
    save_file({"a": SIX.reshape(2, 3), "b": X}, folder / "w.safetensors", metadata={"x": "y"})
    packed = (GOLDEN / "torch_zip.pth").read_bytes()
    npz = (folder / "w.npz").read_bytes()
    return {
        "safetensors": (".safetensors", (folder / "w.safetensors").read_bytes(), ""),
        "torch-zip": (".pth", packed, ""),
        "torch-zip-pickle": (".pth", packed, "data.pkl"),
        "torch-legacy": (".pth", (GOLDEN / "torch_legacy.pth").read_bytes(), ""),
        "npz": (".npz", npz, ""),
        "npz-array": (".npz", npz, "a.npy"),
        "npz-compressed": (".npz", (folder / "c.npz").read_bytes(), ""),
    }


FORMATS = ["safetensors", "torch-zip", "torch-zip-pickle", "torch-legacy", "npz", "npz-array"]
FORMATS += ["npz-compressed"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_damage_is_an_error_or_arrays(form, count, tmp_path):
    suffix, data, entry = samples(tmp_path)[form]
    random = np.random.default_rng([count, FORMATS.index(form)])
    path = tmp_path / f"damaged{suffix}"
    outcomes = {"read": 0, "refused": 0}

    def run() -> None:
        for _ in range(count):
            path.write_bytes(inside(data, entry, random) if entry else mutated(random, data))
            try:
                arrays, metadata = files.read(path)
            except zoo.ZooError as error:
                outcomes["refused"] += str(error).count("\n") == 0
            else:
                assert all(type(key) is type(value) is str for key, value in metadata.items())
                for key, array in arrays.items():
                    assert type(key) is str
                    assert type(array) is np.ndarray
                    assert array.dtype.kind in "biuf"
                    array.tobytes()
                outcomes["read"] += 1

    assert peak(run) < 32 << 20
    assert sum(outcomes.values()) == count
    assert outcomes["refused"] > count // 3, outcomes


# --- beside PyTorch's own reader ------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_pytorch_reads_the_same(new, tmp_path):
    torch = pytest.importorskip("torch")
    random = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, 8, generator=random)
    weights = {
        "plain": base,
        "part": base[1:3, ::2, 3:],
        "turned": base.permute(2, 0, 1),
        "parameter": torch.nn.Parameter(base[0] * 2),
        "scalar": base[0, 0, 0],
        "none": base[:, :0],
        "channels_last": base[None].contiguous(memory_format=torch.channels_last),
    }
    types = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    weights |= {name: (base * 9).to(getattr(torch, name)) for name in types}
    if new:  # the legacy format has no names for these
        weights |= {"uint16": (base.abs() * 9).to(torch.uint16)}
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    parallel = {f"module.{key}": value for key, value in module.state_dict().items()}
    for i, (saved, want) in enumerate(
        [
            (weights, weights),
            ({"epoch": 1, "model": weights, "best": np.float64(3)}, weights),
            (module.state_dict(), module.state_dict()),
            ({"state_dict": parallel, "arch": "x"}, parallel),
        ]
    ):
        path = tmp_path / f"{i}.pth"
        torch.save(saved, path, _use_new_zipfile_serialization=new)
        assert_same(files.read(path)[0], as_numpy(want))
    torch.save(torch.nn.ReLU(), path, _use_new_zipfile_serialization=new)
    refused(path, r"asks for 'torch.nn.modules.activation.ReLU', which is refused")


def as_numpy(weights: dict) -> Arrays:
    return {
        name: (x.float() if str(x.dtype) == "torch.bfloat16" else x).detach().numpy()
        for name, x in weights.items()
    }


@pytest.mark.peers
@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_pytorch_reads_published_files_the_same(name, shared):
    torch = pytest.importorskip("torch")
    path = shared(f"data/weights/{name}")
    want = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert_same(files.read(path)[0], as_numpy(want))
