"""Readers of published files: every array by its name, and one line for whatever is damaged."""

import gzip
import io
import json
import os
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import zoo
from zoo.pretrained.readers import budget, caffe, keras, leveldb, tf

Arrays = dict[str, np.ndarray]
GOLDEN = "parity/golden/"


def assert_same(got: Arrays, want: Arrays) -> None:
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert (got[name].shape, got[name].dtype) == (array.shape, array.dtype), name
        assert got[name].tobytes() == array.tobytes(), name


def refused(read: Callable, path: Path, match: str) -> None:
    with pytest.raises(zoo.ZooError, match=match) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    draw = np.random.default_rng(0).standard_normal
    return {
        "conv1/kernel": draw((3, 3, 2, 4), np.float32),
        "conv1_bn/gamma": draw(4, np.float32),
        "conv1_bn/beta": draw(4, np.float32),
        "conv1_bn/moving_mean": draw(4, np.float32),
        "conv1_bn/moving_variance": draw(4, np.float32),
        "dense/kernel": draw((4, 3), np.float32),
        "dense/bias": draw(3, np.float32),
    }


# --- Keras: HDF5 of versions 1 and 2 -------------------------------------------------------------


def write_h5(path: Path, arrays: Arrays, layers: list[str], prefix: str = "", **how) -> Path:
    """As Keras does: names in attributes, in the order of the layers."""
    with h5py.File(path, "w") as file:
        root = file.create_group(prefix) if prefix else file
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            group = root.create_group(layer)
            mine = {name: x for name, x in arrays.items() if name.rpartition("/")[0] == layer}
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in mine]
            for name, array in mine.items():
                group.create_dataset(f"{name}:0", data=array, **(how if array.ndim > 1 else {}))
    return path


LAYERS = ["input", "dense", "conv1", "conv1_bn"]  # not the order of the alphabet


@pytest.mark.parametrize("prefix", ["", "model_weights"], ids=["weights", "whole-model"])
@pytest.mark.parametrize(
    "how",
    [{}, dict(chunks=True), dict(chunks=True, compression="gzip", shuffle=True)],
    ids=["plain", "chunked", "gzip"],
)
def test_keras_layers_come_in_the_order_of_the_model(arrays, tmp_path, prefix, how):
    path = write_h5(tmp_path / "w.h5", arrays, LAYERS, prefix, **how)
    got, metadata = keras.read(path)
    assert metadata == {}
    assert_same(got, arrays)
    assert list(got) == sorted(arrays, key=lambda name: LAYERS.index(name.split("/")[0]))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i4", "u1", ">i8"])
def test_keras_numbers_of_every_type(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    got, _ = keras.read(write_h5(tmp_path / "w.h5", {"a/kernel": array}, ["a"]))
    np.testing.assert_array_equal(got["a/kernel"], array)
    assert got["a/kernel"].dtype == array.dtype.newbyteorder("=")


def test_keras_long_lists_of_names_are_cut_into_several_attributes(arrays, tmp_path):
    path = write_h5(tmp_path / "w.h5", arrays, LAYERS)
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = LAYERS[:2], LAYERS[2:]
    assert_same(keras.read(path)[0], arrays)


def test_keras_names_stay_apart_where_paths_end_alike(tmp_path):
    layers = ["block_1/conv/norm", "block_2/conv/norm", "norm"]
    want = {f"{layer}/gamma": np.full(2, i, np.float32) for i, layer in enumerate(layers)}
    assert_same(keras.read(write_h5(tmp_path / "w.h5", want, layers))[0], want)


def test_keras_nested_models_keep_the_names_of_their_layers(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = ["base"]
        group = file.create_group("base")
        group.attrs["weight_names"] = ["a/kernel:0", "base/b/c/gamma:0"]
        group["a/kernel:0"], group["base/b/c/gamma:0"] = np.zeros(1), np.ones(1)
    want = {"a/kernel": np.zeros(1), "b/c/gamma": np.ones(1)}
    assert_same(keras.read(tmp_path / "w.h5")[0], want)


def test_keras_1_names_become_those_of_keras_2(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = ["c_1", "n"]
        names = {"c_1": ["c_1_W_1:0", "c_1_b_1:0"], "n": ["n_gamma:0", "n_running_std:0"]}
        for layer, weights in names.items():
            file.create_group(layer).attrs["weight_names"] = weights
            for name in weights:
                file[layer][name] = np.zeros(1)
    got, _ = keras.read(tmp_path / "w.h5")
    assert list(got) == ["c_1/kernel", "c_1/bias", "n/gamma", "n/moving_variance"]


@pytest.mark.parametrize("name", ["MobileNetV3Small"])
def test_keras_2_golden_file_is_what_h5py_reads(shared, name):
    path = shared(f"{GOLDEN}keras2__{name}.h5")
    want: Arrays = {}
    with h5py.File(path) as file:
        for layer in file.attrs["layer_names"]:
            for weight in file[layer].attrs["weight_names"]:
                leaf = weight.split("/")[-1].removesuffix(":0")
                want[f"{layer}/{leaf}"] = file[layer][weight][()]
    got, _ = keras.read(path)
    assert list(got) == list(want)
    assert_same(got, want)


# --- Keras 3 -------------------------------------------------------------------------------------


def numbered(file: h5py.File | h5py.Group, group: str, name: str | None, *values) -> None:
    made = file.create_group(f"{group}/vars")
    if name:
        made.attrs["name"] = name
    for i, value in enumerate(values):
        made[str(i)] = value


def write_numbered(file, arrays: Arrays, names: bool = True) -> None:
    with h5py.File(file, "w") as root:
        for group, layer in (("conv2d", "conv1"), ("batch_normalization", "conv1_bn")):
            mine = [x for name, x in arrays.items() if name.split("/")[0] == layer]
            numbered(root, f"layers/{group}", layer if names else None, *mine)
        mine = [arrays["dense/kernel"], arrays["dense/bias"]]
        numbered(root, "_layer_checkpoint_dependencies/dense", "dense" if names else None, *mine)
        numbered(root, "layers/dropout/seed_generator", "seed_generator", np.zeros(2, np.uint32))
        numbered(root, "optimizer", "adam", np.zeros(3))
        root.create_group("layers/re_lu/vars")


def test_keras_numbered_variables_get_the_names_of_their_layers(arrays, tmp_path):
    write_numbered(tmp_path / "w.weights.h5", arrays)
    assert_same(keras.read(tmp_path / "w.weights.h5")[0], arrays)


def test_keras_numbered_variables_of_unknown_layers_keep_their_number(tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        for i in (2, 10):  # in the order of numbers, not of text
            numbered(file, f"layers/mine_{i}", f"mine_{i}", np.full(1, i))
        numbered(file, "layers/conv2d", None, np.zeros((1, 1, 1, 1)))
        numbered(file, "layers/batch_normalization", "bn", np.zeros(1), np.ones(1), np.ones(1))
    got, _ = keras.read(tmp_path / "w.weights.h5")
    assert list(got) == [
        "bn/beta",
        "bn/moving_mean",
        "bn/moving_variance",
        "layers/conv2d/kernel",
        "mine_2/0",
        "mine_10/0",
    ]


def test_keras_bfloat16_is_read_as_float32(tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        numbered(file, "layers/dense", "dense", np.array([0x3F80, 0xC000], "<u2").view("V2"))
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"
    got, _ = keras.read(tmp_path / "w.weights.h5")
    assert_same(got, {"dense/kernel": np.array([1, -2], np.float32)})


def layer(kind: str, name: str, **config) -> dict:
    return {"class_name": kind, "config": {"name": name, **config}}


CONFIG = {
    "class_name": "Functional",
    "config": {
        "layers": [
            layer("InputLayer", "input"),
            layer("Conv2D", "conv1"),
            layer("BatchNormalization", "conv1_bn"),
            layer("ReLU", "relu"),
            layer("Dense", "dense"),
        ]
    },
}


def write_keras(path: Path, weights: bytes, config: dict = CONFIG, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
        for name, data in more.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def archive(arrays, tmp_path_factory) -> Path:
    weights = io.BytesIO()
    write_numbered(weights, arrays, names=False)
    return write_keras(tmp_path_factory.mktemp("keras") / "m.keras", weights.getvalue())


def test_keras_archives_know_the_names_and_the_order(archive, arrays):
    got, _ = keras.read(archive)
    assert_same(got, arrays)
    assert list(got) == list(arrays)


def test_keras_archives_know_what_a_norm_leaves_out(tmp_path):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        numbered(file, "layers/batch_normalization", None, *np.zeros((3, 1)))
        numbered(file, "layers/batch_normalization_1", None, *np.zeros((3, 1)))
    config = {
        "config": {
            "layers": [
                layer("BatchNormalization", "a", center=False, scale=True),
                layer("BatchNormalization", "b", center=True, scale=False),
            ]
        }
    }
    got, _ = keras.read(write_keras(tmp_path / "m.keras", weights.getvalue(), config))
    assert list(got)[::3] == ["a/gamma", "b/beta"]


@pytest.fixture(scope="module")
def keras_model():
    """Keras' own MobileNet, of random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "jax"))
        keras = pytest.importorskip("keras")
        return keras.applications.MobileNet((32, 32, 3), 0.25, weights=None, classes=5)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_files_that_keras_writes(suffix, keras_model, tmp_path):
    path = tmp_path / f"m{suffix}"
    (keras_model.save_weights if suffix == ".weights.h5" else keras_model.save)(path)
    want = {f"{x.name}/{w.name}": np.array(w.value) for x in keras_model.layers for w in x.weights}
    got, _ = keras.read(path)
    assert len(got) == len(keras_model.get_weights()) == 137
    assert_same(got, want)
    if suffix != ".weights.h5":  # which is sorted by class
        assert list(got) == list(want)


# --- hostile Keras files -------------------------------------------------------------------------


def hostile(name: str) -> Callable[[h5py.File, Path], None]:
    """What is done to a file with the empty group "a"."""

    def soft(file, folder):
        file["a/w:0"] = h5py.SoftLink("/b")

    def external_link(file, folder):
        file["a/w:0"] = h5py.ExternalLink("other.h5", "/w")

    def external_storage(file, folder):
        (folder / "secret").write_bytes(bytes(16))
        file["a"].create_dataset("w:0", (4,), "<f4", external=[(str(folder / "secret"), 0, 16)])

    def virtual(file, folder):
        layout = h5py.VirtualLayout((4,), "<f4")
        layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
        file["a"].create_virtual_dataset("w:0", layout)

    def cycle(file, folder):
        file["a/w:0"] = file["a"]

    def huge(file, folder):
        file["a"].create_dataset("w:0", (1 << 40,), "<f4", chunks=(1 << 20,), compression="gzip")

    def large_chunk(file, folder):
        file["a"].create_dataset("w:0", (1 << 28,), "<f4", chunks=(1 << 28,), compression="gzip")

    def unwritten(file, folder):
        file["a"].create_dataset("w:0", (1 << 20,), "<f4")

    def bomb(file, folder):
        w = file["a"].create_dataset("w:0", (64,), "u1", chunks=(64,), compression="gzip")
        w.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 24)))

    def words(file, folder):
        file["a/w:0"] = ["text"]

    def fixed_words(file, folder):
        file["a/w:0"] = np.array([b"text"])

    def lists(file, folder):
        file["a"].create_dataset("w:0", (1,), h5py.vlen_dtype(np.float32))

    def complex_numbers(file, folder):
        file["a/w:0"] = np.zeros(2, np.complex64)

    def references(file, folder):
        file["a"].create_dataset("w:0", data=[file.ref], dtype=h5py.ref_dtype)

    def missing(file, folder):
        pass

    return {f.__name__: f for f in locals().values() if callable(f)}[name]


@pytest.mark.parametrize(
    ("name", "says"),
    {
        "soft": "is a link",
        "external_link": "is a link",
        "external_storage": "another file",
        "virtual": "other files|does not use",
        "cycle": "is not a dataset",
        "huge": "less data than its shape",
        "large_chunk": "far more|has less data",
        "unwritten": "beyond the end",
        "bomb": "chunk of 65 bytes, expected 64",
        "words": "expected numbers",
        "fixed_words": "expected numbers",
        "lists": "expected text",
        "complex_numbers": "expected numbers",
        "references": "expected numbers",
        "missing": "is missing",
    }.items(),
)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "found"])
def test_hostile_hdf5_is_refused_in_a_line(name, says, listed, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = np.zeros(4, np.float32)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["b"] = np.zeros(4, np.float32)
        file.create_group("a")
        if listed:
            file.attrs["layer_names"] = ["a"]
            file["a"].attrs["weight_names"] = ["w:0"]
        hostile(name)(file, tmp_path)
    if not listed and name in ("cycle", "missing"):
        assert list(keras.read(tmp_path / "w.h5")[0]) == ["b"]  # nothing else is there
        return
    refused(keras.read, tmp_path / "w.h5", f"w.h5 is not a whole Keras file: .*({says})")


def test_hostile_archives_are_refused_in_a_line(archive, tmp_path):
    path = tmp_path / "m.keras"
    refused(keras.read, write_keras(path, b"", **{"../evil": b""}), "expected a plain name")
    refused(keras.read, write_keras(path, b"", **{"/evil": b""}), "expected a plain name")
    refused(keras.read, write_keras(path, b"", **{"model.weights.json": b""}), "several")
    refused(keras.read, write_keras(path, b"no HDF5"), "not a whole Keras file")
    refused(keras.read, write_keras(path, b"", config={}), "not a whole Keras file")
    refused(keras.read, write_keras(path, b"", config=[1]), "not a whole Keras file")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", bytes(1 << 27), zipfile.ZIP_DEFLATED)
    refused(keras.read, path, "unpack to 134217728, expected")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}", zipfile.ZIP_BZIP2)
    refused(keras.read, path, "of compression 12")
    path.write_bytes(b"")
    refused(keras.read, path, "not a whole Keras file")


def test_hdf5_of_another_kind_is_refused_in_a_line(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w", libver="latest") as file:
        file["a/kernel"] = np.zeros(3)
    refused(keras.read, tmp_path / "w.h5", "of a kind that Keras does not write")


# --- protocol buffers and tables, written by hand ------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked(data: bytes) -> bytes:
    """The checksum as LevelDB stores it, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def table(rows: dict[str, bytes], snappy: bool = False, spoil: Callable = bytes) -> bytes:
    """A table of one block; `spoil` changes the block before its checksum is taken."""
    out = bytearray()

    def block(rows: Iterator[tuple[str, bytes]]) -> bytes:
        before = b""
        content = bytearray()
        for name, value in rows:
            key = name.encode()
            pairs = enumerate(zip(before, key, strict=False))
            shared = next((i for i, (a, b) in pairs if a != b), min(len(before), len(key)))
            content += varint(shared) + varint(len(key) - shared) + varint(len(value))
            content += key[shared:] + value
            before = key
        data = spoil(bytes(content) + struct.pack("<II", 0, 1))
        if snappy:
            data = compressed(data)
        place = varint(len(out)) + varint(len(data))
        kind = bytes([snappy])
        out.extend(data + kind + masked(data + kind))
        return place

    first = block(iter(rows.items()))
    meta = block(iter(()))
    index = block(iter([("~", first)]))
    footer = meta + index
    return bytes(out) + footer.ljust(40, b"\0") + leveldb.MAGIC


def compressed(data: bytes) -> bytes:
    """Snappy: runs of a byte as a literal and a copy, all else as literals."""
    out = bytearray(varint(len(data)))
    at = 0
    while at < len(data):
        run = next((i for i in range(1, 65) if data[at + i : at + i + 1] != data[at : at + 1]), 65)
        if run > 5:
            out += bytes([0, data[at], (run - 2) << 2 | 2, 1, 0])
            at += run
        else:
            piece = data[at : at + 100]
            out += bytes([60 << 2, len(piece) - 1]) + piece
            at += len(piece)
    return bytes(out)


TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def proto_shape(array: np.ndarray) -> bytes:
    return b"".join(field(2, field(1, size)) for size in array.shape)


def write_v1(arrays: Arrays, **how) -> bytes:
    about, rows = b"", {}
    for name, x in arrays.items():
        whole = field(1, b"") * x.ndim  # an extent without start and length
        meta = field(1, name.encode()) + field(2, proto_shape(x)) + field(3, TYPES[str(x.dtype)])
        about += field(1, meta + field(4, whole))
        values = {
            "float32": lambda x: field(5, x.tobytes()),
            "float64": lambda x: field(6, x.tobytes()),
            "int32": lambda x: field(7, b"".join(varint(int(v) & (1 << 64) - 1) for v in x.flat)),
            "int64": lambda x: field(10, b"".join(varint(int(v) & (1 << 64) - 1) for v in x.flat)),
        }[str(x.dtype)](x)
        saved = field(1, name.encode()) + field(2, whole) + field(3, values)
        rows[f"\0{name}"] = field(2, saved)
    return table({"": field(1, about), **rows}, **how)


def write_v2(arrays: Arrays, **how) -> tuple[bytes, bytes]:
    """The index and the data."""
    data, rows = b"", {"": field(1, 1) + field(3, field(1, 1))}
    for name, x in sorted(arrays.items()):
        entry = field(1, TYPES[str(x.dtype)]) + field(2, proto_shape(x)) + field(4, len(data))
        checksum = varint(6 << 3 | 5) + masked(x.tobytes())
        rows[name] = entry + field(5, x.nbytes) + checksum
        data += x.tobytes()
    return table(rows, **how), data


def slim() -> Arrays:
    draw = np.random.default_rng(0).standard_normal
    return {
        "Net/Conv/weights": draw((3, 3, 2, 4), np.float32),
        "Net/Conv/BatchNorm/beta": draw(4, np.float32),
        "Net/Logits/biases": draw(3),
        "Net/ones": np.ones(300, np.float32),
        "Net/numbers": np.array([[0, -1], [300, -(2**31)]], np.int32),
    }


def training() -> Arrays:
    """What `zoo` has no use for."""
    conv = slim()["Net/Conv/weights"]
    return {
        "global_step": np.array(1 << 40, np.int64),
        "beta1_power": np.array(0.9, np.float32),
        "Net/Conv/weights": conv + 1,  # the average below is what is published
        "Net/Conv/weights/ExponentialMovingAverage": conv,
        "Net/Conv/weights/RMSProp": conv,
        "Net/Conv/weights/RMSProp_1": conv,
        "Net/Conv/weights/Momentum": conv,
    }


# --- TensorFlow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v1.ckpt", "v2.ckpt", "v2.ckpt.index"])
def test_tf_golden_checkpoints_are_equal_to_the_last_bit(shared, name):
    from safetensors.numpy import load_file

    index = shared(f"{GOLDEN}slim__mobilenet_v1_0.25.v2.ckpt.index")
    path = index.with_name(f"slim__mobilenet_v1_0.25.{name}")
    got, metadata = tf.read(path)
    assert metadata == {}
    assert_same(got, load_file(index.with_name("slim__mobilenet_v1_0.25.safetensors")))


@pytest.mark.parametrize("snappy", [False, True], ids=["plain", "snappy"])
def test_tf_reads_the_weights_and_leaves_the_rest(tmp_path, snappy):
    everything = slim() | training()
    (tmp_path / "v1.ckpt").write_bytes(write_v1(everything, snappy=snappy))
    assert_same(tf.read(tmp_path / "v1.ckpt")[0], slim())
    index, data = write_v2(everything, snappy=snappy)
    (tmp_path / "v2.ckpt.index").write_bytes(index)
    (tmp_path / "v2.ckpt.data-00000-of-00001").write_bytes(data)
    assert_same(tf.read(tmp_path / "v2.ckpt")[0], slim())
    assert_same(tf.read(tmp_path / "v2.ckpt.index")[0], slim())
    refused(tf.read, tmp_path, "holds 2 TF checkpoints, expected one: v1.ckpt, v2.ckpt.index")
    (tmp_path / "v1.ckpt").unlink()
    assert_same(tf.read(tmp_path)[0], slim())


def test_tf_moving_averages_alone_are_the_weights(tmp_path):
    want = {"Net/w/ExponentialMovingAverage": np.ones(2, np.float32)}
    (tmp_path / "a.ckpt").write_bytes(write_v1(want))
    assert_same(tf.read(tmp_path / "a.ckpt")[0], want)


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_tf_packed_checkpoints_are_read_in_memory(tmp_path):
    index, data = write_v2(slim())
    path = tmp_path / "net.tgz"
    shard = "./net/net.ckpt.data-00000-of-00001"
    files = {"README": b"text", "../net.ckpt.index": index, shard: data}
    assert_same(tf.read(pack(path, files))[0], slim())
    assert [file.name for file in tmp_path.iterdir()] == ["net.tgz"]
    path = pack(tmp_path / "net.tar.gz", {"net.ckpt": write_v1(slim())})
    assert_same(tf.read(path)[0], slim())
    refused(tf.read, pack(path, {"a": b"", "b": b""}), "holds 0 TF checkpoints")
    refused(tf.read, pack(path, {"net.ckpt.index": index}), "data-00000-of-00001 is missing")
    path.write_bytes(b"no archive")
    refused(tf.read, path, "not a whole TF checkpoint")


def test_tf_archives_that_unpack_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "ROOM", 1 << 16)
    path = pack(tmp_path / "net.tgz", {"zeros": bytes(1 << 22)})
    refused(tf.read, path, "far more than its size")
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    path.write_bytes(gzip.compress(long.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    refused(tf.read, path, "far more than its size")


def test_tf_mistakes_are_told_in_a_line(tmp_path):
    refused(tf.read, tmp_path / "no.ckpt", "no checkpoint .*: expected .*no.ckpt.index")
    (tmp_path / "a.ckpt").write_bytes(b"text")
    refused(tf.read, tmp_path / "a.ckpt", "holds 0 TF checkpoints, expected one")
    whole = bytearray(write_v1(slim()))
    whole[100] ^= 1
    (tmp_path / "a.ckpt").write_bytes(whole)
    refused(tf.read, tmp_path / "a.ckpt", "a checksum does not hold")
    index, data = write_v2(slim())
    (tmp_path / "b.ckpt.index").write_bytes(index)
    shard = tmp_path / "b.ckpt.data-00000-of-00001"
    shard.write_bytes(data[:-1] + b"!")
    refused(tf.read, tmp_path / "b.ckpt", "a checksum does not hold")
    shard.write_bytes(data[:-1])
    refused(tf.read, tmp_path / "b.ckpt", "Net/ones lies beyond the end of the data")


def test_tf_partitioned_tensors_are_refused(tmp_path):
    about = field(1, field(1, b"w") + field(2, field(2, field(1, 4))) + field(3, 1))
    part = field(1, field(1, 2) + field(2, 2))
    saved = field(1, b"w") + field(2, part) + field(3, field(5, bytes(8)))
    (tmp_path / "a.ckpt").write_bytes(table({"": field(1, about), "w": field(2, saved)}))
    refused(tf.read, tmp_path / "a.ckpt", "w is stored in parts")


@pytest.mark.parametrize("size", [*range(12), 255, 256, 1000])
def test_checksums_are_those_of_castagnoli(size):
    assert leveldb.crc32c(b"123456789") == 0xE3069283
    data = np.random.default_rng(size).bytes(size)
    leveldb.check(data, int.from_bytes(masked(data), "little"))


# --- Caffe ---------------------------------------------------------------------------------------


def blob(array: np.ndarray, how: str) -> bytes:
    if how == "old":
        shape = (*[1] * (4 - array.ndim), *array.shape)
        sizes = b"".join(field(i, size) for i, size in enumerate(shape, 1))
    else:
        sizes = field(7, field(1, b"".join(map(varint, array.shape))))
    if how == "double":
        return sizes + field(8, array.astype("<f8").tobytes())
    if how == "unpacked":
        sizes += b"".join(varint(5 << 3 | 5) + bytes(value.data) for value in array.ravel())
        return sizes
    return sizes + field(5, array.tobytes())


def write_caffe(arrays: Arrays, how: str = "new") -> bytes:
    net = field(1, b"net")
    kinds = {"conv1": (b"Convolution", 4), "fc": (b"InnerProduct", 14), "bn": (b"BatchNorm", 0)}
    for layer, kind in kinds.items():
        blobs = [blob(x, how) for name, x in arrays.items() if name.startswith(f"{layer}.")]
        if how == "old":
            head, number, place = field(4, layer.encode()) + field(5, kind[1]), 6, 2
        else:
            head, number, place = field(1, layer.encode()) + field(2, kind[0]), 7, 100
        net += field(place, head + b"".join(field(number, data) for data in blobs))
    return net + field(100, field(1, b"relu") + field(2, b"ReLU"))


def caffe_arrays() -> Arrays:
    draw = np.random.default_rng(0).standard_normal
    return {
        "conv1.weight": draw((4, 2, 3, 3), np.float32),
        "conv1.bias": draw(4, np.float32),
        "fc.weight": draw((3, 4), np.float32),
        "fc.bias": draw(3, np.float32),
        "bn.weight": draw(4, np.float32),
        "bn.bias": draw(4, np.float32),
        "bn.2": np.ones(1, np.float32),
    }


@pytest.mark.parametrize("how", ["new", "old", "unpacked", "double"])
def test_caffe_layers_of_both_formats(tmp_path, how):
    (tmp_path / "a.caffemodel").write_bytes(write_caffe(caffe_arrays(), how))
    got, metadata = caffe.read(tmp_path / "a.caffemodel")
    assert metadata == {}
    dtype = np.float64 if how == "double" else np.float32
    assert_same(got, {name: x.astype(dtype) for name, x in caffe_arrays().items()})


def test_caffe_mistakes_are_told_in_a_line(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(b"")
    refused(caffe.read, path, "has no layer with weights, expected a Caffe model")
    path.write_bytes(write_caffe(caffe_arrays())[:-100])
    refused(caffe.read, path, "not a whole Caffe model: a field of .* bytes where")
    conv = field(1, b"c") + field(7, field(7, field(1, varint(1 << 60))) + field(5, bytes(8)))
    path.write_bytes(field(100, conv))
    refused(caffe.read, path, r"a blob of 8 bytes, expected \d+ for \[1152921504606846976\]")
    conv = field(1, b"c") + field(7, blob(np.zeros(2, np.float32), "new"))
    path.write_bytes(2 * field(100, conv))
    refused(caffe.read, path, "two layers have c.weight")


# --- damaged bytes -------------------------------------------------------------------------------


def mutated(data: bytes, seed: int) -> bytes:
    """Cut off, or with some bytes, bits or words changed, half of the time near the start."""
    draw = random.Random(seed)
    if draw.random() < 0.15:
        return data[: draw.randrange(len(data))]
    changed = bytearray(data)
    reach = len(data) if draw.random() < 0.5 else min(len(data), 2000)
    for _ in range(draw.choice([1, 1, 2, 8, 40])):
        at = draw.randrange(reach)
        size = draw.choice([1, 1, 2, 4, 8])
        junk = draw.choice([draw.randbytes(8), bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 7])
        changed[at : at + size] = junk[:size]
    return bytes(changed[: len(data)])


def damaged(kind: str, arrays: Arrays, folder: Path) -> Callable[[int], Path]:
    """A function of the seed that writes a damaged file of this kind and gives its path."""
    path = folder / {"keras": "a.keras", "caffe": "a.caffemodel"}.get(kind, "a.h5")
    if kind in ("h5", "gzip"):
        how = dict(chunks=True, compression="gzip") if kind == "gzip" else {}
        whole = write_h5(path, arrays, LAYERS, **how).read_bytes()
    elif kind == "caffe":
        whole = write_caffe(caffe_arrays())
    elif kind in ("weights", "keras"):
        stream = io.BytesIO()
        write_numbered(stream, arrays)
        whole = stream.getvalue()
    elif kind == "archive":
        path = folder / "a.keras"
        stream = io.BytesIO()
        write_numbered(stream, arrays)
        whole = write_keras(path, stream.getvalue()).read_bytes()
    elif kind == "tgz":
        path = folder / "a.tgz"
        whole = pack(path, {"a.ckpt": write_v1(slim())}).read_bytes()

    def write(seed: int) -> Path:
        if kind.startswith("v"):
            # inside of a block, so that the checksums hold
            how = dict(snappy=seed % 2 == 1, spoil=lambda block: mutated(block, seed))
            few = {name: x for name, x in slim().items() if x.size < 50}
            if kind == "v1":
                (folder / "a.ckpt").write_bytes(write_v1(few, **how))
            else:
                index, data = write_v2(few, **how)
                (folder / "a.ckpt.index").write_bytes(index)
                (folder / "a.ckpt.data-00000-of-00001").write_bytes(data)
            return folder / "a.ckpt"
        changed = mutated(whole, seed)
        if kind == "keras":  # inside of the archive, so that its checksum holds
            return write_keras(path, changed)
        path.write_bytes(changed)
        return path

    return write


READERS = {
    "h5": keras.read,
    "gzip": keras.read,
    "weights": keras.read,
    "keras": keras.read,
    "archive": keras.read,
    "v1": tf.read,
    "v2": tf.read,
    "tgz": tf.read,
    "caffe": caffe.read,
}


def load_or_refuse(kind: str, arrays: Arrays, folder: Path, seeds: range) -> None:
    write = damaged(kind, arrays, folder)
    refusals = []
    for seed in seeds:
        try:
            READERS[kind](write(seed))
        except zoo.ZooError as error:
            refusals.append(str(error))
    assert len(refusals) > len(seeds) // 4
    assert not [line for line in refusals if not line.isprintable() or len(line) > 500]


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_load_or_are_refused(kind, arrays, tmp_path):
    load_or_refuse(kind, arrays, tmp_path, range(300))


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_a_thousand_damaged_files_load_or_are_refused(kind, arrays, tmp_path):
    load_or_refuse(kind, arrays, tmp_path, range(1000, 2000))
