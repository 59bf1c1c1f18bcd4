"""Published weights by name: `zoo.load("arch.tag")` through catalogue, cache and conversion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.errors import ZooError
from zoo.pretrained import store

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
