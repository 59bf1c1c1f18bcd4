"""Published weights by name: `zoo.load("arch.tag")` through catalogue, cache and conversion."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import zoo
from zoo import registry
from zoo.errors import ZooError
from zoo.preprocess import CAFFE, SLIM
from zoo.pretrained import fetch, infer, saving, store
from zoo.pretrained.addresses import place
from zoo.pretrained.layouts import LAYOUTS
from zoo.pretrained.readers import files

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
    download = place(record.file)
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
    save_file({n: np.asarray(x + 1) for n, x in arrays.items()}, path, metadata=metadata)


def test_a_download_that_cannot_be_read_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    record = zoo.weights("mobilenet_v1_025.keras_in1k")
    download = place(record.file)
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

    monkeypatch.setattr(saving, "write", refuse)
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


# --- files that do not tell all ------------------------------------------------------------------


TF_LIKE = "mobilenet_v3_small_075"  # timm has it of its own and from TensorFlow


@pytest.fixture(scope="module")
def tf_file(tmp_path_factory) -> Path:
    """A file of timm's tf_mobilenetv3_small_075, fine-tuned to 37 classes."""
    folder = tmp_path_factory.mktemp("tf")
    model = zoo.create(TF_LIKE, num_classes=37, numerics=zoo.TF)
    model.preprocess = zoo.weights(f"{TF_LIKE}.in1k").preprocess
    zoo.export(model, folder / "exported.safetensors", "timm")
    save_file(load_file(folder / "exported.safetensors"), folder / "bare.safetensors")
    return folder / "bare.safetensors"


def test_numerics_that_nothing_tells_are_asked_for(tf_file):
    with pytest.raises(ZooError) as error:
        zoo.load(TF_LIKE, file=tf_file, layout="timm")
    for choice in (f"like='{TF_LIKE}.in1k' (TF)", f"like='{TF_LIKE}.lamb_in1k' (TORCH)"):
        assert choice in str(error.value)
    assert "numerics=" in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "numerics", "source"),
    [
        (f"{TF_LIKE}.in1k", {}, zoo.TF, "in1k"),
        (TF_LIKE, dict(like=f"{TF_LIKE}.in1k"), zoo.TF, "in1k"),
        (TF_LIKE, dict(like=f"{TF_LIKE}.lamb_in1k", layout="timm"), zoo.TORCH, "lamb_in1k"),
        (TF_LIKE, dict(numerics="tf", layout="timm", preprocess=f"{TF_LIKE}.in1k"), zoo.TF, "in1k"),
    ],
    ids=["full-name", "like", "like-other", "numerics"],
)
def test_a_fine_tuned_file_keeps_its_classifier(tf_file, name, options, numerics, source):
    model = zoo.load(name, file=tf_file, **options)
    assert model.spec.numerics == numerics
    assert model.preprocess == zoo.weights(f"{TF_LIKE}.{source}").preprocess
    assert (model.spec.num_classes, model.classes, model.notes) == (37, (), ())
    kernel = values(model)["classifier/linear/kernel"][...]
    np.testing.assert_array_equal(kernel, load_file(tf_file)["classifier.weight"].T)


def test_what_zoo_wrote_tells_all_under_any_names(tf_file):
    model = zoo.load(TF_LIKE, file=tf_file.with_name("exported.safetensors"), layout="timm")
    assert model.spec.numerics == zoo.TF
    assert model.preprocess == zoo.weights(f"{TF_LIKE}.in1k").preprocess
    assert not model.notes


def test_choices_that_are_none(tf_file, tmp_path):
    for options, message in (
        (dict(like="resnet50.a1_in1k"), f"got resnet50.a1_in1k for {TF_LIKE}"),
        (dict(numerics="TFF", layout="timm"), "unknown numerics 'TFF': did you mean 'TF'"),
        (dict(numerics="TF", layout="timm", preprocess="nothing.at_all"), "unknown model"),
        (dict(numerics="TF", layout="timm", preprocess={}), "preprocess: got {}, expected"),
        (dict(num_classes="37", like=f"{TF_LIKE}.in1k"), "num_classes: got '37', expected a whole"),
        (dict(head="fc", like=f"{TF_LIKE}.in1k"), "unknown head 'fc'"),
    ):
        with pytest.raises(ZooError, match=re.escape(message)):
            zoo.load(TF_LIKE, file=tf_file, **options)
    with pytest.raises(ZooError, match="are for a file="):
        zoo.load(f"{TF_LIKE}.in1k", numerics="TORCH")
    zoo.save(zoo.create("mobilenet_v1_025", num_classes=2), tmp_path / "own.safetensors")
    with pytest.raises(ZooError, match="says itself how it computes"):
        zoo.load("mobilenet_v1_025", file=tmp_path / "own.safetensors", numerics="TF")


def test_every_published_file_is_told_or_asked_about():
    """Without its full name, a published file gets its own numerics, a note or an error."""
    silent = []
    for record in map(zoo.weights, zoo.list_weights()):
        layout, variant = LAYOUTS[record.layout], registry.find(record.model)
        if record.source == "zoo":
            continue
        try:
            numerics, note = infer.numerics("file", variant, layout, {}, None, None)
        except ZooError:  # asked about
            continue
        assert numerics == infer.published_numerics(record), record.name
        assert bool(note) == (numerics != layout.numerics_for(variant))
        preprocess, _ = infer.preprocessing("file", variant, layout, ({}, {}), None)
        if preprocess != record.preprocess and not preprocess.note:
            silent.append(record.name)
    assert not silent


def test_agreed_preprocessing_needs_no_note():
    """All published SqueezeNets of torchvision are alike, its ResNet-50 are not."""

    def preprocessing(name: str, layout: str) -> zoo.Preprocess:
        network = registry.find(name)
        return infer.preprocessing("file", network, LAYOUTS[layout], ({}, {}), None)[0]

    sure = preprocessing("squeezenet1_1", "torchvision")
    assert (sure, sure.note) == (zoo.weights(NAME).preprocess, "")
    unsure = preprocessing("resnet50", "torchvision")
    assert "preprocessing is assumed" in unsure.note
    assert "differ in resize" in unsure.note
    none = preprocessing("resnet34", "transformers")
    assert "there are no published weights of resnet34" in none.note


def test_a_note_outlives_the_file(tmp_path):
    model = zoo.create("mobilenet_v1_025", num_classes=2)
    model.preprocess = replace(model.preprocess, note="assumed")
    zoo.save(model, tmp_path / "a.safetensors")
    assert zoo.load(str(tmp_path / "a.safetensors")).notes == ("assumed",)
    told = zoo.load(str(tmp_path / "a.safetensors"), preprocess=zoo.Preprocess())
    assert told.notes == ()


def test_a_published_file_of_another_size_is_none(published, monkeypatch):
    wrong = replace(zoo.weights(NAME), hash="", classes=999)
    monkeypatch.setattr(store, "weights", lambda name: wrong)
    with pytest.raises(ZooError, match="has 1000 classes, expected 999"):
        zoo.load(NAME)


def test_our_own_file_under_a_full_name_says_all_itself(tmp_path):
    model = zoo.create("squeezenet1_1", num_classes=1000)
    model.preprocess, model.classes = SLIM, tuple(f"mine {i}" for i in range(1000))
    zoo.save(model, tmp_path / "own.safetensors")
    loaded = zoo.load(NAME, file=tmp_path / "own.safetensors")
    assert (loaded.preprocess, loaded.classes) == (SLIM, model.classes)


def test_the_folder_of_a_run(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    zoo.save(zoo.create("mobilenet_v1_025", num_classes=2), tmp_path / "run" / "model.safetensors")
    assert zoo.load(str(tmp_path / "run")).spec.num_classes == 2
    monkeypatch.chdir(tmp_path)
    assert zoo.load("run").spec.num_classes == 2
    with pytest.raises(ZooError, match="no file"):
        zoo.load(str(tmp_path / "none"))


def test_a_path_is_no_name(tmp_path):
    with pytest.raises(ZooError, match="no file"):
        zoo.load(str(Path(tmp_path) / "resnet50"))


def test_the_list_says_what_a_download_is_checked_against(capsys):
    from training.cli import main

    main(["weights", "resnet50*.*_in1k"])
    _, head, *rows = capsys.readouterr().out.splitlines()
    assert {"weights", "licence", "check"} < {*head.split()}
    said = {row.split()[0]: row for row in rows}
    assert said["resnet50.a1_in1k"].rstrip().endswith("  sha256 of the Hub")
    assert said["resnet50.tv2_in1k"].rstrip().endswith("  sha256, 8 digits")
    assert said["resnet50_v1.keras_in1k"].rstrip().endswith("  md5")


@pytest.mark.parametrize("classes", [None, 7, 0])
def test_a_classifier_without_biases_is_known_by_its_kernel(tmp_path, classes):
    model = zoo.create("airbench94_cifar", num_classes=5)
    file = tmp_path / "model.safetensors"
    zoo.save(model, file)
    loaded = zoo.load(str(file), num_classes=classes)
    assert loaded.spec.num_classes == (5 if classes is None else classes)
    if classes is None:
        kernel = loaded.classifier.linear.kernel[...]
        np.testing.assert_array_equal(kernel, model.classifier.linear.kernel[...])
    elif classes:
        assert loaded.classifier.linear.kernel[...].shape == (256, classes)
        assert loaded.classifier.linear.bias is None
