"""Published weights by name: `zoo.load("arch.tag")` through catalogue, cache and conversion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.errors import ZooError
from zoo.preprocess import CAFFE
from zoo.pretrained import fetch, files, store

NAME = "squeezenet1_1.tv1_in1k"


def values(model):
    return {
        "/".join(map(str, path)): v for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }


@pytest.fixture(scope="module")
def original():
    return zoo.create("squeezenet1_1", seed=3)


@pytest.fixture
def published(original, tmp_path, monkeypatch):
    """The catalogue's file is one made here, under the publisher's names; fetching is counted."""
    file = tmp_path / "squeezenet.safetensors"
    zoo.export(original, file, "torchvision")
    fetched: list[str] = []

    def fetch(source, **_):
        fetched.append(source)
        return file

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "fetch", fetch)
    monkeypatch.setattr(store, "weights", lambda name: replace(zoo.weights(name), hash=""))
    return fetched


def test_a_name_is_enough(published, original):
    model = zoo.load(NAME)
    assert published == [zoo.weights(NAME).file]
    got, want = values(model), values(original)
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path][...], want[path][...])
    assert model.preprocess == zoo.weights(NAME).preprocess
    assert len(model.classes) == 1000
    assert model.classes[1] == "goldfish"


def test_the_second_load_fetches_and_converts_nothing(published):
    first, second = zoo.load(NAME), zoo.load(NAME)
    assert len(published) == 1
    assert store.in_cache(store.weights(NAME))
    for path, value in values(first).items():
        np.testing.assert_array_equal(value[...], values(second)[path][...])


def test_a_changed_catalogue_is_heeded(published, monkeypatch):
    """What was converted holds the preprocessing, so that another record makes it anew."""
    zoo.load(NAME)
    other = replace(zoo.weights(NAME), hash="", preprocess=CAFFE)
    monkeypatch.setattr(store, "weights", lambda name: other)
    assert zoo.load(NAME).preprocess == CAFFE
    assert len(published) == 2


@pytest.mark.parametrize(
    ("name", "change"),  # of three families, small and on the Hub: we can write its files
    [
        ("mobilenet_v2_050.lamb_in1k", "values"),
        ("regnet_y_200mf.pycls_in1k", "bit"),
        ("semnasnet_075.rmsp_in1k", "note"),
    ],
)
def test_weights_tampered_in_the_cache(name, change, tmp_path, monkeypatch):
    """The converted file is made again, and no changed download is used."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    record = zoo.weights(name)
    download = fetch._place(record.file)
    download.parent.mkdir(parents=True)
    original = zoo.create(record.model, seed=3)
    zoo.export(original, download, "timm")
    zoo.load(name)
    kept = store._kept(record)
    assert fetch.as_noted(kept)

    if change == "values":
        poison(kept)
    elif change == "bit":
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        fetch._note(kept).unlink()
    want = values(original)
    for path, value in values(zoo.load(name)).items():
        np.testing.assert_array_equal(value[...], want[path][...])
    assert fetch.as_noted(kept)

    poison(kept)
    poison(download)
    with pytest.raises(ZooError, match=r"the cache has a file of sha256 .* at its first download"):
        zoo.load(name)


def poison(path: Path) -> None:
    """Change the values of all tensors in a file, which stays a sound one."""
    arrays, metadata = files.read(path)
    store._write(({name: array + 1 for name, array in arrays.items()}, metadata), path)


def test_a_download_that_cannot_be_read_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    record = zoo.weights("mobilenet_v1_025.keras_in1k")
    download = fetch._place(record.file)
    download.parent.mkdir(parents=True)
    download.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2_000_000))
    with pytest.raises(ZooError, match="is not a whole Keras file"):
        zoo.load(record.name)
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    assert not store.in_cache(record)


def test_a_damaged_cache_is_made_again(published, tmp_path):
    zoo.load(NAME)
    (kept,) = (tmp_path / "cache").rglob("squeezenet*.safetensors")
    kept.write_bytes(kept.read_bytes()[:1000])
    zoo.load(NAME)
    assert len(published) == 2


def test_a_cache_that_cannot_be_written_is_done_without(published, monkeypatch):
    def refuse(path, data):
        raise PermissionError("read-only")

    monkeypatch.setattr(store, "write", refuse)
    zoo.load(NAME)
    zoo.load(NAME)
    assert len(published) == 2


@pytest.mark.parametrize("classes", [0, 7])
def test_another_head_keeps_all_else(published, original, classes):
    model = zoo.load(NAME, num_classes=classes)
    got, want = values(model), values(original)
    body = [path for path in want if not path.startswith("classifier")]
    assert [path for path in got if not path.startswith("classifier")] == body
    for path in body:
        np.testing.assert_array_equal(got[path][...], want[path][...])
    assert model.spec.num_classes == classes
    assert model.classes == ()


def test_a_file_got_by_hand(published, original, tmp_path):
    model = zoo.load(NAME, file=tmp_path / "squeezenet.safetensors")
    assert not published
    assert model.classes[1] == "goldfish"
    for path, value in values(model).items():
        np.testing.assert_array_equal(value[...], values(original)[path][...])


def test_a_layout_that_the_catalogue_contradicts(published):
    with pytest.raises(ZooError, match="has layout 'torchvision', got 'keras'"):
        zoo.load(NAME, layout="keras")
    assert not published


def test_a_network_alone_has_default_weights():
    assert zoo.weights("googlenet") == zoo.weights("inception_v1")
    assert zoo.weights("inception_v1").default


def test_unknown_weights():
    with pytest.raises(ZooError, match=r"did you mean .*resnet50\.a1_in1k"):
        zoo.load("resnet50.a1_in1")


def test_a_path_is_no_name(tmp_path):
    with pytest.raises(ZooError, match="no file"):
        zoo.load(str(Path(tmp_path) / "resnet50"))


def test_the_list_says_what_a_download_is_checked_against(capsys):
    from training.cli import main

    main(["weights", "resnet50*.*_in1k"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["weights", "licence", "check"]
    said = {row.split()[0]: row for row in rows}
    assert "  sha256 of the Hub  " in said["resnet50.a1_in1k"]
    assert "  sha256, 8 digits  " in said["resnet50.tv2_in1k"]
    assert "  md5  " in said["resnet50_v1.keras_in1k"]
