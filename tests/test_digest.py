"""Files of ours that were damaged are refused, whatever still parses."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from zoo.errors import ZooError

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def path(tmp_path):
    """Of a network that `zoo.save` wrote."""
    model = zoo.create("tiny", num_classes=3, seed=1)
    model.classes = ("ant", "bee", "caf\udce9")  # the last is no text
    zoo.save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def header(path) -> tuple[int, dict]:
    """(bytes before the tensors, the header) of a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return 8 + size, json.loads(data[8 : 8 + size])


def test_what_is_whole_loads(path):
    assert zoo.load(str(path)).classes == ("ant", "bee", "caf\udce9")


def test_no_bit_of_the_values_may_change(path):
    start, _ = header(path)
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(start, len(data), 20):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ZooError, match=r"model.safetensors is damaged: its values are not"):
            zoo.load(str(path))


@pytest.mark.parametrize(("old", "new"), [(b"bee", b"wee"), (b"bilinear", b"bicubicc")])
def test_nor_the_description(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ZooError):
        zoo.load(str(path))


def test_nor_may_tensors_change_places(path):
    arrays = load_file(path)
    twins = [name for name in arrays if arrays[name].shape == (16,)][:2]
    arrays[twins[0]], arrays[twins[1]] = arrays[twins[1]] + 1, arrays[twins[0]]
    save_file(arrays, path, metadata=header(path)[1]["__metadata__"])
    with pytest.raises(ZooError, match="is damaged"):
        zoo.load(str(path))


def test_files_from_before_there_were_digests_load(path):
    metadata = header(path)[1]["__metadata__"]
    about = json.loads(metadata["zoo"])
    del about["sha256"]
    save_file(load_file(path), path, metadata={"zoo": json.dumps(about), "format": "np"})
    assert zoo.load(str(path)).classes[0] == "ant"


def test_the_same_network_is_the_same_file_in_every_process(tmp_path):
    save = "import sys, zoo; zoo.save(zoo.create('mobilenet_v1_025', num_classes=3), sys.argv[1])"
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-c", save, str(file)], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()
