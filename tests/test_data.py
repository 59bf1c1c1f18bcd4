"""Datasets by name, and the batches that come out of them: `training.data`."""

import itertools
import os
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import (
    Dataset,
    _balanced,
    eval_batches,
    open_dataset,
    random_box,
    train_batches,
)
from training.decode import Encoded, crop
from zoo.errors import ZooError
from zoo.preprocess import IMAGENET, Preprocess
from zoo.reading import read_rgb

ROOT = Path(__file__).parents[1]
TINY = Preprocess(size=4, resize=None)


# --- digits


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def digits(cache, monkeypatch) -> Dataset:
    monkeypatch.setenv("ZOO_CACHE", str(cache))
    return open_dataset("digits")


def split(source) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([e["image"] for e in source]), np.array([e["label"] for e in source])


def test_digits_are_those_of_scikit_learn(digits):
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    (train, train_labels), (val, val_labels) = split(digits.train), split(digits.val)
    assert train.dtype == np.uint8
    assert (len(train), len(val)) == (1437, 360)
    assert digits.classes == tuple("0123456789")

    pixels, labels = load_digits(return_X_y=True)
    # Each digit and its label once, in one split or the other: disjoint and complete.
    ours = [
        (tuple(np.round(p.ravel() / 255 * 16).astype(int)), int(label))
        for p, label in zip([*train, *val], [*train_labels, *val_labels], strict=True)
    ]
    theirs = [(tuple(p.astype(int)), int(t)) for p, t in zip(pixels, labels, strict=True)]
    assert sorted(ours) == sorted(theirs)
    assert len(set(theirs)) == len(theirs)  # no digit twice, or the line above would prove less
    for part in (ours[:1437], ours[1437:]):
        known = set(part)
        assert part == [digit for digit in theirs if digit in known]  # in the same order


def test_digits_are_stratified(digits):
    train = np.bincount(split(digits.train)[1])
    val = np.bincount(split(digits.val)[1])
    assert np.abs(val - 0.2 * (train + val)).max() <= 1


def test_digits_use_the_whole_range_and_do_not_flip(digits):
    pixels = split(digits.train)[0]
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert not digits.flip
    assert digits.image_size == 48
    assert digits.name == "digits"


def test_digits_are_prepared_by_several_processes_at_once_and_in_silence(tmp_path):
    code = "from training.data import open_dataset; print(len(open_dataset('digits').val))"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "ZOO_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.communicate() == ("360\n", "")
    assert [p.name for p in (tmp_path / "tfds" / "digits").iterdir()] == ["1.0.0"]


def test_losing_the_race_to_prepare_is_no_error(tmp_path, monkeypatch):
    from training.digits import Digits, sources

    original = Digits.download_and_prepare

    def slow(self, **kwargs):  # between our check and our rename, another one finishes
        monkeypatch.setattr(Digits, "download_and_prepare", original)
        sources(tmp_path)
        raise FileExistsError("Cannot rename")

    monkeypatch.setattr(Digits, "download_and_prepare", slow)
    assert len(sources(tmp_path)["train"]) == 1437


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ZooError, match=r"cache folder .*file/tfds: Not a directory; .*ZOO_CACHE"):
        open_dataset("digits")


# --- folders


def draw(path: Path, value: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def pets(tmp_path) -> Path:
    for name, count in (("dog", 10), ("cat", 5)):
        for i in range(count):
            draw(tmp_path / name / f"{i}.jpg", 10 * i)
    return tmp_path


def paths(source) -> set[str]:
    return {source[i]["image"] for i in range(len(source))}


def labels(source) -> list[int]:
    return [source[i]["label"] for i in range(len(source))]


def test_folder_is_split_by_class(pets):
    data = open_dataset(f"folder:{pets}")
    assert data.classes == ("cat", "dog")
    assert labels(data.val) == [0, 1, 1]  # a fifth of 5 and of 10
    assert labels(data.train) == [0] * 4 + [1] * 8
    assert not paths(data.train) & paths(data.val)
    assert paths(data.train) | paths(data.val) == set(map(str, pets.rglob("*.jpg")))
    assert all(Path(e["image"]).parent.name == data.classes[e["label"]] for e in data.train)
    assert data.flip
    assert data.image_size is None
    assert data.skipped == ()


def test_split_is_fixed_by_its_seed(pets):
    spec = f"folder:{pets}"
    assert open_dataset(spec) == open_dataset(spec)
    assert any(open_dataset(spec).val != open_dataset(spec, split_seed=s).val for s in (1, 2, 3))
    assert len(open_dataset(spec, val_fraction=0.4).val) == 2 + 4
    assert labels(open_dataset(spec, val_fraction=0.01).val) == [0, 1]  # never an empty class
    assert labels(open_dataset(spec, val_fraction=0.99).train) == [0, 1]
    with pytest.raises(ZooError, match="val_fraction must lie between 0 and 1, got 1"):
        open_dataset(spec, val_fraction=1)


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test"])
def test_folder_with_train_and_val(val, tmp_path):
    for name in ("train/a", "train/b", f"{val}/a", f"{val}/b"):
        draw(tmp_path / name / "x.png")
    draw(tmp_path / "train" / "b" / "y.png")
    data = open_dataset(f"folder:{tmp_path}")
    assert labels(data.train) == [0, 1, 1]
    assert paths(data.val) == {str(tmp_path / val / c / "x.png") for c in "ab"}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("train", "testing"),
        ("training", "Validation"),
        ("trn", "tst"),
        ("train", "dev"),
        ("train", "Eval"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "tar", "list"])
def test_splits_are_known_by_many_names(kind, train, val, tmp_path):
    names = [f"{train}/a/1", f"{train}/b/1", f"{train}/b/2", f"{val}/a/3", f"{val}/b/3"]
    for name in names:
        draw(tmp_path / "in" / f"{name}.png")
    place = tmp_path / "in"
    if kind == "tar":
        place = tmp_path / "x.tar"
        with tarfile.open(place, "w") as tar:
            tar.add(tmp_path / "in", "in")
    elif kind == "list":
        place = tmp_path / "x.csv"
        rows = [f"in/{name}.png,{name.split('/')[1]},{name.split('/')[0]}\n" for name in names]
        place.write_text("image,label,split\n" + "".join(rows))
    data = open_dataset(f"{kind}:{place}")
    assert data.classes == ("a", "b")
    assert (labels(data.train), labels(data.val)) == ([0, 1, 1], [0, 1])


@pytest.mark.parametrize("kind", ["folder", "tar", "list"])
def test_of_val_and_test_one_is_used_and_the_other_said_to_be_left_out(kind, tmp_path):
    for split, value in (("train", 1), ("valid", 2), ("Test", 3)):
        for name in "ab":
            draw(tmp_path / "in" / split / name / f"{value}.png")
    draw(tmp_path / "in" / "extra" / "x.png")
    (tmp_path / "in" / "notes.txt").touch()
    place = tmp_path / "in"
    if kind == "tar":
        place = tmp_path / "x.tar"
        with tarfile.open(place, "w") as tar:
            tar.add(tmp_path / "in", "in")
    elif kind == "list":
        place = tmp_path / "x.csv"
        found = sorted((tmp_path / "in").glob("*/?/*"))
        rows = [f"{path},{path.parent.name},{path.parts[-3]}\n" for path in found]
        place.write_text("image,label,split\n" + "".join(rows))
    data = open_dataset(f"{kind}:{place}")
    assert {Path(str(path)).name for path, _ in data.val.examples} == {"2.png"}
    told = {
        "folder": "train/ and valid/); left out: 1 file that is no picture (.txt 1), Test/, as"
        " valid/ is used, extra/ beside the splits",
        "list": "rows of train and rows of val); left out: 2 rows of test, as val is used",
    }.get(kind, "train/ and valid/); left out: Test/, as valid/ is used, extra/ beside the splits")
    assert data.summary.endswith(f"data: 2 classes, 2 training and 2 validation pictures ({told}")
    assert data.test is None
    whole = open_dataset(f"{kind}:{place}", val_fraction=None)
    assert {Path(str(path)).name for path, _ in whole.test.examples} == {"3.png"}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (
            ("cat/train/1", "cat/val/1", "dog/train/1", "dog/val/1"),
            "class folder ROOT/cat holds train/ and val/: expected the splits above the classes",
        ),
        (
            ("data/train/cat/1", "data/val/cat/1", "data/train/dog/1", "data/val/dog/1"),
            "ROOT/data holds train/ and val/: expected the splits above the classes, as train/CLASS"
            "/ and val/CLASS/; where it is the whole of a dataset, give its own path, ROOT/data",
        ),
        (
            ("v1/train/cat/1", "v1/Test/cat/1", "v2/train/cat/1", "v2/Test/cat/1"),
            "give its own path, ROOT/v1",
        ),
        (
            ("color/cat/1", "color/dog/1", "gray/cat/1", "gray/dog/1"),
            "every folder in folder ROOT holds the same folders (cat, dog): these look like the"
            " classes, in several versions; for one of them give its own path, ROOT/color, or name",
        ),
        (
            ("seg_train/seg_train/cat/1", "seg_test/seg_test/cat/1"),
            "ROOT: seg_train/ and seg_test/ look like splits, not like classes: call them train/",
        ),
        (("training_set/cat/1", "test_set/cat/1"), "training_set/ and test_set/ look like splits"),
        (("train1/1", "test1/1"), "train1/ and test1/ look like splits"),
        (("TrainSet/1", "Testset/1"), "TrainSet/ and Testset/ look like splits"),
        (("photos/cat/1", "photos/dog/1"), "where its folders are them (cat, dog), give its own"),
        (("train/cat/1", "Train/cat/1"), "ROOT has both Train/ and train/: expected one of them"),
        (("val/cat/1", "Valid/cat/1", "train/cat/1"), "ROOT has both Valid/ and val/: expected"),
        (("cat/1", "dog/1", "val/cat/2", "val/dog/2"), "ROOT has val/ but no train/: expected"),
        (
            ("train/cat/1", "train/dog/1", "val/Cat/1", "val/dog/1"),
            "train lacks 'Cat'; ROOT/val lacks 'cat' (upper and lower case differ: call them alik",
        ),
        (
            ("train/cat/1", "train/dog/1", "test/1"),
            "test lacks 'cat', 'dog'; to hold some of ROOT/train out instead, give that path",
        ),
    ],
)
def test_folders_that_are_no_classes_are_refused(names, line, tmp_path):
    for i, name in enumerate(names):
        draw(tmp_path / f"{name}.png", i)
        draw(tmp_path / f"{name}x.png", i)
    told = fails(tmp_path).replace(str(tmp_path), "ROOT")
    assert line in told
    place = tmp_path / "x.tar"
    with tarfile.open(place, "w") as tar:
        for path in sorted(tmp_path.rglob("*.png")):
            tar.add(path, path.relative_to(tmp_path))
    if line.startswith("ROOT/data"):  # one folder that holds the rest: the usual archive
        assert open_dataset(f"tar:{place}").classes == ("cat", "dog")
    elif len({name.split("/")[0] for name in names}) > 1:
        with pytest.raises(ZooError):
            open_dataset(f"tar:{place}")


@pytest.mark.parametrize(
    "names",
    [
        ("bullet train/1", "test tube/1"),
        ("train/1", "plane/1"),
        ("cat/images/1", "dog/images/1"),
        ("cat/left/1", "dog/right/1", "dog/left/1"),
        ("trainer/1", "tester/1"),
    ],
)
def test_classes_may_have_such_names(names, tmp_path):
    for i, name in enumerate(names):
        draw(tmp_path / f"{name}.png", i)
        draw(tmp_path / f"{name}x.png", i)
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    assert open_dataset(f"folder:{tmp_path}").classes == classes


def test_train_without_val_is_split(tmp_path):
    for name in ("a/1", "a/2", "b/1", "b/2"):
        draw(tmp_path / "train" / f"{name}.png")
    data = open_dataset(f"folder:{tmp_path}")
    assert labels(data.train) == labels(data.val) == [0, 1]


def test_train_may_be_a_class(tmp_path):
    for name in ("train/1", "train/2", "plane/1", "plane/2"):
        draw(tmp_path / f"{name}.png")
    assert open_dataset(f"folder:{tmp_path}").classes == ("plane", "train")


def test_every_picture_any_depth_but_nothing_hidden(pets):
    names = "A.JPEG b.PnG c.webp d.bmp e.gif f.tif g.TIFF h.ppm i.jfif j.jpe k.pgm l.jp2 m.avif"
    for name in [*names.split(), "n.tga", "o.pcx", "p.ico", "q.sgi", "r.dib"]:
        draw(pets / "cat" / "deeper" / name)
    draw(pets / "cat" / "x.png").rename(pets / "cat" / "no suffix")
    hidden = [pets / "cat" / "._1.jpg", pets / ".git" / "x.jpg", pets / "cat" / ".thumbs" / "x.jpg"]
    hidden += [pets / "__MACOSX" / "x.jpg", pets / "cat" / "Thumbs.db", pets / ".DS_Store"]
    for path in hidden:
        path.parent.mkdir(exist_ok=True)
        path.write_text("no picture")
    data = open_dataset(f"folder:{pets}")
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.val) == 15 + 19
    assert data.left_out == ()


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_picture_is_counted_and_named(packed, pets, tmp_path):
    for name in ("a.TXT", "b.txt", "c.mp4", "d.txt", "e.heic", "README", "f.eps", "g.JPG~"):
        (pets / "cat" / name).write_text("no picture")
    draw(pets / "loose.png")
    (pets / "dog" / "empty.png").touch()
    place = pets
    if packed:
        place = tmp_path / "x.tar"
        with tarfile.open(place, "w") as tar:
            for folder in ("cat", "dog", "loose.png"):
                tar.add(pets / folder, folder)
    data = open_dataset(f"{'tar' if packed else 'folder'}:{place}", skip_unreadable=True)
    assert data.summary == (
        "data: 2 classes, 12 training and 3 validation pictures (0.2 of each class held out);"
        " left out: 1 picture in no class folder, 8 files that are no pictures"
        " (.txt 3, .mp4 1, .heic 1, no suffix 1, .eps 1, and 1 more), 1 unreadable"
    ).replace(".mp4 1, .heic 1, no suffix 1, .eps 1", ", ".join(_order(data.left_out[1])))


def _order(line: str) -> list[str]:
    """The four suffixes that come once, as they were found."""
    return line.partition(".txt 3, ")[2].split(", and")[0].split(", ")


def test_a_class_without_a_picture_says_what_it_has(pets):
    (pets / "emu").mkdir()
    (pets / "emu" / "1.heic").touch()
    assert fails(pets) == (
        f"no images in the class folder {pets}/emu (1 file that is no picture (.heic 1))"
    )


def test_home_is_found(pets, monkeypatch):
    monkeypatch.setenv("HOME", str(pets.parent))
    assert len(open_dataset(f"folder:~/{pets.name}").train) == 12


def fails(root: Path, **options) -> str:
    with pytest.raises(ZooError) as error:
        open_dataset(f"folder:{root}", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_that_are_none(tmp_path):
    assert fails(tmp_path / "no") == f"folder {tmp_path}/no does not exist"
    file = draw(tmp_path / "x.png")
    assert fails(file) == f"{file} is not a folder"
    assert fails(tmp_path).startswith(f"folder {tmp_path} holds images but no class folders")
    file.unlink()
    assert fails(tmp_path).startswith(f"folder {tmp_path} holds no images")


def test_classes_that_are_too_few_or_empty(tmp_path):
    draw(tmp_path / "cat" / "1.png")
    assert "single class, 'cat': a classifier needs at least 2" in fails(tmp_path)
    (tmp_path / "dog").mkdir()
    assert fails(tmp_path) == f"no images in the class folder {tmp_path}/dog"
    (tmp_path / "emu").mkdir()
    assert fails(tmp_path) == f"no images in the class folders {tmp_path}/dog, {tmp_path}/emu"


def test_a_class_of_one_picture_cannot_be_split(pets):
    draw(pets / "emu" / "1.png")
    assert f"class folder {pets}/emu has one image" in fails(pets)


def test_train_and_val_that_do_not_match(tmp_path):
    for name in ("train/a", "train/b", "train/c", "val/a", "val/d"):
        draw(tmp_path / name / "x.png")
    line = fails(tmp_path)
    assert f"{tmp_path}/train lacks 'd'" in line
    assert f"{tmp_path}/val lacks 'b', 'c'" in line


def test_val_without_train_or_without_classes(tmp_path):
    draw(tmp_path / "val" / "a" / "x.png")
    assert fails(tmp_path).startswith(f"folder {tmp_path} has val/ but no train/: expected class")
    draw(tmp_path / "train" / "x.png")  # pictures straight in train/ are not two classes
    assert f"{tmp_path}/train holds images but no class folders" in fails(tmp_path)


def spoil(root: Path) -> dict[Path, str]:
    """Three files that cannot be read, and what is wrong with each."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    truncated, text, empty = (root / "cat" / f"{name}.jpg" for name in ("t", "u", "v"))
    Image.fromarray(noise).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:1500])
    text.write_text("hello")
    empty.touch()
    return {truncated: "truncated", text: "not a picture", empty: "is empty"}


def test_unreadable_images_are_counted_and_named(pets):
    bad = spoil(pets)
    line = fails(pets)
    assert line.startswith(f"3 of 18 images in {pets} cannot be read: ")
    for path, reason in bad.items():
        assert f"{path}: " in line
        assert reason in line
    assert "--skip-unreadable" in line
    assert "skip_unreadable=True" in line
    for i in range(4):
        (pets / "dog" / f"bad{i}.png").touch()
    assert "; and 4 more" in fails(pets)


def test_unreadable_images_are_skipped_on_demand(pets):
    bad = spoil(pets)
    data = open_dataset(f"folder:{pets}", skip_unreadable=True)
    assert len(data.train) + len(data.val) == 15
    assert not (paths(data.train) | paths(data.val)) & set(map(str, bad))
    for skipped, (path, reason) in zip(data.skipped, bad.items(), strict=True):
        assert skipped.startswith(f"{path}: ")
        assert reason in skipped


def test_a_class_with_nothing_readable(pets):
    (pets / "emu").mkdir()
    (pets / "emu" / "1.jpg").touch()
    want = f"class folder {pets}/emu has no image that can be read"
    assert fails(pets, skip_unreadable=True) == want


def test_a_small_folder_needs_no_progress_bar(pets, capfd):
    open_dataset(f"folder:{pets}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("spec", ["digit", "photos/", "folder:", "folder", ""])
def test_unknown_specs(spec):
    with pytest.raises(ZooError, match=rf"unknown dataset '{spec}': .*(digits|folder:PATH)"):
        open_dataset(spec)


# --- batches


def numbered(count: int) -> Dataset:
    """`count` pictures, each of the brightness and with the label of its number."""
    source = tuple({"image": np.full((5, 5), i, np.uint8), "label": i} for i in range(count))
    return Dataset("numbered", tuple(map(str, range(count))), source, source, None, False)


def take(batches, count: int) -> np.ndarray:
    """The labels of the next `count` batches, [count, B]; their pictures must be theirs."""
    out = []
    for _ in range(count):
        batch = next(batches)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32
        assert batch["image"].shape == (*batch["label"].shape, 4, 4, 3)
        assert (batch["image"] == batch["label"][:, None, None, None]).all()
        out.append(batch["label"])
    return np.stack(out)


class Counted(tuple):
    """Pictures that count how often each is asked for."""

    def __getitem__(self, index):
        self.asked[index] += 1
        return super().__getitem__(index)


@pytest.mark.parametrize(("room", "often"), [(60 * 4 * 4 * 3, False), (60 * 4 * 4 * 3 - 1, True)])
def test_pictures_that_fit_into_memory_are_made_once(monkeypatch, room, often):
    monkeypatch.setattr("training.data.KEPT", room)
    data = numbered(60)
    source = Counted(data.train)
    source.asked = Counter()
    data = replace(data, train=source)
    take(train_batches(data, TINY, batch_size=20, seed=3, threads=1), 12)  # four epochs
    source.asked[0] -= 1  # for the type of its label
    if often:
        assert min(source.asked.values()) >= 4
    else:
        assert set(source.asked.values()) == {1}


def test_epochs_are_permutations_and_differ():
    batches = train_batches(numbered(60), TINY, batch_size=20, seed=3)
    epochs = take(batches, 12).reshape(4, 60)
    assert (np.sort(epochs) == np.arange(60)).all()
    for i in range(4):
        assert (epochs[i] != np.arange(60)).any()
        for j in range(i):
            assert (epochs[i] != epochs[j]).any()


@pytest.mark.parametrize("crop_scale", [1.0, 0.9])
def test_each_picture_is_mirrored_in_every_other_epoch(crop_scale):
    halves = np.zeros((60, 4, 4, 3), np.uint8)
    halves[:, :, 2:] = 255
    source = [{"image": image, "label": number} for number, image in enumerate(halves)]
    data = replace(numbered(60), train=source)
    settings = {"batch_size": 20, "seed": 3, "crop_scale": crop_scale}
    batches = train_batches(data, TINY, alternate_flip=True, **settings)
    epochs = []
    for _ in range(4):
        taken = [next(batches) for _ in range(3)]
        labels, images = (np.concatenate([b[k] for b in taken]) for k in ("label", "image"))
        left, right = images[:, :, 0].mean((1, 2)), images[:, :, -1].mean((1, 2))
        turned = left > right
        if crop_scale == 1:
            np.testing.assert_array_equal(images[turned], halves[labels[turned]][:, :, ::-1])
            np.testing.assert_array_equal(images[~turned], halves[labels[~turned]])
        epochs.append(turned[np.argsort(labels)])
    assert epochs[0].sum() == 30
    for epoch, later in itertools.pairwise(epochs):
        np.testing.assert_array_equal(later, ~epoch)


def test_the_seed_decides_the_order_and_the_threads_do_not():
    def order(seed, threads=None):
        return take(train_batches(numbered(60), TINY, batch_size=20, seed=seed, threads=threads), 6)

    assert (order(0) == order(0)).all()
    assert (order(0, threads=1) == order(0, threads=8)).all()
    assert (order(0) != order(1)).any()
    assert (order(0)[3:] != order(1)[:3]).any()  # seed 1 is not seed 0 an epoch later


@pytest.mark.parametrize("done", [0, 1, 4, 7])  # an epoch is 60 / 16 = 3.75 batches
def test_resume_is_exact(done):
    def start():
        return train_batches(numbered(60), TINY, batch_size=16, seed=5)

    batches = start()
    for _ in range(done):
        next(batches)
    state = batches.get_state()
    want = take(batches, 6)
    resumed = start()
    resumed.set_state(state)
    assert (take(resumed, 6) == want).all()


def test_batches_may_be_larger_than_the_data():
    labels = take(train_batches(numbered(3), TINY, batch_size=9, seed=0), 2)
    assert (np.bincount(labels.ravel()) == 6).all()


def test_hosts_share_out_each_epoch():
    """Two hosts, and an odd epoch of 31 pictures: 62 in a row hold two whole epochs."""
    hosts = [
        take(train_batches(numbered(31), TINY, batch_size=31, seed=2, shard=(p, 2)), 1)[0]
        for p in range(2)
    ]
    stream = np.stack(hosts, axis=1).ravel()
    assert (np.sort(stream.reshape(2, 31)) == np.arange(31)).all()
    alone = take(train_batches(numbered(31), TINY, batch_size=62, seed=2), 1)[0]
    assert (stream == alone).all()


@pytest.mark.parametrize("count", [1, 7, 8, 17])
@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_evaluation_sees_every_picture_once(count, hosts):
    data = numbered(count)
    seen, lengths = [], set()
    for p in range(hosts):
        batches = list(eval_batches(data.val, TINY, batch_size=4, shard=(p, hosts)))
        lengths.add(len(batches))
        real = []
        for batch in batches:
            assert batch["image"].shape == (4, 4, 4, 3)
            assert batch["weight"].dtype == np.float32
            assert set(batch["weight"]) <= {0, 1}
            blank = batch["weight"] == 0
            assert (batch["image"][blank] == 0).all()
            assert (batch["image"][~blank, 0, 0, 0] == batch["label"][~blank]).all()
            real += batch["label"][~blank].tolist()
        assert real == sorted(real)
        seen += real
    assert sorted(seen) == list(range(count))
    assert lengths == {-(-count // (4 * hosts))}  # the same for all, and no batch too many


def test_evaluation_can_be_run_again():
    batches = eval_batches(numbered(6).val, TINY, batch_size=4)
    first, second = ([b["label"].tolist() for b in batches] for _ in range(2))
    assert first == second == [[0, 1, 2, 3], [4, 5, 0, 0]]


def test_digits_in_batches(digits):
    preprocess = Preprocess(size=digits.image_size, resize=None)
    batch = next(train_batches(digits, preprocess, batch_size=8, seed=0))
    assert batch["image"].shape == (8, 48, 48, 3)
    weights = [b["weight"].sum() for b in eval_batches(digits.val, preprocess, batch_size=100)]
    assert weights == [100, 100, 100, 60]


# --- balanced batches

COUNTS = (40, 15, 5)  # pictures of three classes


def lopsided() -> Dataset:
    """60 pictures, each of the brightness of its number, of classes of very unlike sizes."""
    source = tuple(
        {"image": np.full((5, 5), i, np.uint8), "label": label}
        for i, label in enumerate(np.repeat(range(3), COUNTS).tolist())
    )
    return Dataset("lopsided", ("a", "b", "c"), source, source, None, False)


def drawn(count: int, *, seed: int = 1, batch_size: int = 20, **settings) -> np.ndarray:
    """The numbers of the pictures of the next `count` balanced batches, [count * B]."""
    batches = train_batches(
        lopsided(), TINY, batch_size=batch_size, seed=seed, balanced=True, **settings
    )
    return np.concatenate([next(batches)["image"][:, 0, 0, 0] for _ in range(count)])


def test_balanced_epochs_have_as_many_of_each_class():
    labels = np.repeat(range(3), COUNTS)
    for epoch in drawn(12).reshape(4, 60):
        assert np.bincount(labels[epoch]).tolist() == [20, 20, 20]
        times = np.bincount(epoch, minlength=60)
        assert times[:40].max() == 1  # half of a large class
        assert set(times[40:55]) == {1, 2}  # 20 of 15
        assert set(times[55:]) == {4}


def test_balanced_epochs_are_shuffled_anew():
    epochs = drawn(12).reshape(4, 60)
    for i in range(4):
        assert (np.diff(np.repeat(range(3), COUNTS)[epochs[i]]) != 0).sum() > 20  # mixed
        for j in range(i):
            assert (epochs[i] != epochs[j]).any()
    assert set(epochs[:, :].ravel()) >= set(range(40, 60))
    assert (drawn(3) == epochs[0]).all()
    assert (drawn(3, threads=1) == epochs[0]).all()
    assert (drawn(3, seed=2) != epochs[0]).any()
    assert (drawn(3, crop_scale=0.9) == epochs[0]).all()


def test_an_epoch_that_classes_do_not_share_out_evenly():
    labels = np.repeat(range(4), (4, 3, 2, 1))
    order = _balanced(labels, seed=0)
    extra = set()
    for epoch in range(20):
        counts = np.bincount(labels[[order(10 * epoch + i) for i in range(10)]])
        assert sorted(counts) == [2, 2, 3, 3]
        extra |= {int(label) for label in np.flatnonzero(counts == 3)}
    assert extra == {0, 1, 2, 3}  # who gets one more changes


def test_balanced_batches_are_shared_out_by_hosts_and_resumed():
    alone = drawn(6)
    hosts = [drawn(6, batch_size=10, shard=(p, 2)) for p in range(2)]
    assert (np.stack(hosts, axis=1).ravel() == alone).all()
    batches = train_batches(lopsided(), TINY, batch_size=16, seed=1, balanced=True)
    for _ in range(5):  # into the second epoch
        next(batches)
    resumed = train_batches(lopsided(), TINY, batch_size=16, seed=1, balanced=True)
    resumed.set_state(batches.get_state())
    for _ in range(5):
        np.testing.assert_array_equal(next(resumed)["image"], next(batches)["image"])


def test_folder_in_batches_equals_preprocess(pets):
    data = open_dataset(f"folder:{pets}")
    small = IMAGENET.at_size(8)
    (batch,) = eval_batches(data.train, small, batch_size=12)
    for i in range(12):
        want = small.image(data.train[i]["image"])
        np.testing.assert_array_equal(batch["image"][i], want)


def test_a_file_lost_on_the_way_is_named(pets):
    data = open_dataset(f"folder:{pets}")
    lost = data.val[0]["image"]
    Path(lost).unlink()
    with pytest.raises(ZooError, match=f"cannot read image {lost}: No such file"):
        list(eval_batches(data.val, TINY, batch_size=2))


def test_imagenette(shared):
    data = open_dataset(f"folder:{shared('data/imagenette')}")
    assert (len(data.train), len(data.val), len(data.classes)) == (1000, 500, 10)
    assert data.classes[0] == "n01440764"
    assert np.bincount(labels(data.val)).tolist() == [50] * 10
    batch = next(train_batches(data, IMAGENET, batch_size=4, seed=0))
    assert batch["image"].shape == (4, 224, 224, 3)


# --- random crops


def test_random_boxes_keep_their_share_of_the_picture():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        left, top, right, bottom = random_box((500, 375), 0.25, rng)
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 375
        assert 0.74 < (right - left) / (bottom - top) < 1.34
        shares.append((right - left) * (bottom - top) / (500 * 375))
    assert min(shares) >= 0.25 - 1e-9
    assert np.std(shares) > 0.1


def test_a_picture_too_narrow_for_them_is_cropped_in_the_middle():
    assert random_box((40, 300), 0.9, np.random.default_rng(0)) == pytest.approx(
        (0, 150 - 80 / 3, 40, 150 + 80 / 3)
    )


def test_random_crops_follow_from_the_seed_and_the_picture_alone(digits):
    def crops(**settings) -> np.ndarray:
        batches = train_batches(digits, TINY, seed=3, **settings)
        return np.concatenate([next(batches)["image"] for _ in range(16 // settings["batch_size"])])

    plain = crops(batch_size=16)
    cropped = crops(batch_size=16, crop_scale=0.3)
    assert (plain != cropped).any()
    np.testing.assert_array_equal(cropped, crops(batch_size=8, crop_scale=0.3))
    hosts = [crops(batch_size=8, crop_scale=0.3, shard=(i, 2))[:8] for i in (0, 1)]
    np.testing.assert_array_equal(hosts[0], cropped[0::2])
    np.testing.assert_array_equal(hosts[1], cropped[1::2])


# --- training crops of JPEG files: `training.decode`


def drawing(width: int, height: int) -> Image.Image:
    """Colour gradients and a little noise, as photographs have."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [127 + 100 * np.sin(x / 9 + i) * np.cos(y / (7 + 3 * i)) for i in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return Image.fromarray((np.stack(waves, 2) + noise).clip(0, 255).astype(np.uint8))


def difference(source, preprocess: Preprocess, box) -> np.ndarray:
    """Our crop against Pillow's of the whole picture, grey levels."""
    size = (preprocess.size, preprocess.size)
    want = np.asarray(read_rgb(source).resize(size, preprocess.filter, box=box), int)
    got = crop(source, preprocess, lambda _: box)
    assert got.dtype == np.uint8
    return np.abs(got - want)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [48, 64, 200])  # a halving would not cover the crop
def test_crops_are_those_of_pillow_to_two_levels(size, interpolation, tmp_path):
    drawing(121, 97).save(tmp_path / "x.jpg")
    preprocess = Preprocess(size=size, resize=None, interpolation=interpolation)
    box = (10.25, 3.5, 100.75, 90.0)
    assert difference(tmp_path / "x.jpg", preprocess, box).max() <= 2


@pytest.mark.parametrize("size", [30, 15, 7])  # decoded at a half, a quarter, an eighth
def test_crops_of_pictures_decoded_small_are_close(size, tmp_path):
    drawing(121, 97).save(tmp_path / "x.jpg")
    box = (10.25, 3.5, 101.25, 97.0)
    assert difference(tmp_path / "x.jpg", Preprocess(size, None), box).mean() < 3


def test_crops_of_photographs_are_close_to_those_of_pillow(shared):
    means = []
    for i, path in enumerate(sorted(shared("data/photos").iterdir())[:8]):
        for size in (224, 64):  # whole, and mostly decoded at half or a quarter
            box = random_box(read_rgb(path).size, 0.3, np.random.default_rng(i))
            means.append(difference(path, Preprocess(size, None), box).mean())
    assert max(means) < 3


@pytest.mark.parametrize("preprocess", [IMAGENET, Preprocess(96, None), Preprocess(30, 37)])
@pytest.mark.parametrize("size", [(121, 97), (97, 121), (400, 300)])
def test_the_centre_is_what_evaluation_sees(preprocess, size, tmp_path):
    drawing(*size).save(tmp_path / "x.png")  # Pillow's own resizing of a box of it
    drawing(*size).save(tmp_path / "x.jpg")
    for path, bound in ((tmp_path / "x.png", 1), (tmp_path / "x.jpg", 3)):
        seen = crop(path, preprocess, preprocess.box)
        assert np.abs(seen.astype(int) - preprocess.image(path)).mean() < bound


def turned(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawing(60, 40).save(path, exif=exif)
    return path


def cmyk(path: Path) -> Path:
    drawing(60, 40).convert("CMYK").save(path)
    return path


def grey(path: Path) -> Path:
    drawing(60, 40).convert("L").save(path)
    return path


def turned_by_xmp(path: Path) -> Path:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    drawing(60, 40).save(path, xmp=xmp)
    return path


@pytest.mark.parametrize(
    "make",
    [cmyk, grey, turned_by_xmp, *(partial(turned, orientation=i) for i in (1, 3, 6, 8))],
)
def test_jpeg_files_of_every_kind_are_read_as_evaluation_reads_them(make, tmp_path):
    path = make(tmp_path / "x.jpg")
    upright = read_rgb(path)
    sizes = []

    def choose(size):
        sizes.append(size)
        return (0, 0, *size)

    got = crop(path, Preprocess(32, None), choose)
    assert sizes == [upright.size]  # and chosen once, or the random numbers would shift
    assert np.abs(got.astype(int) - Preprocess(32, None).image(path)).max() <= 1


@pytest.mark.parametrize("make", [cmyk, grey, partial(turned, orientation=6)])
@pytest.mark.parametrize("size", [32, 15])
def test_encoded_pictures_are_cropped_as_their_files(make, size, tmp_path):
    box, preprocess = (5.5, 2, 38, 39), Preprocess(size, None)
    for path in (make(tmp_path / "x.jpg"), tmp_path / "y.jpg", tmp_path / "y.png"):
        if not path.exists():
            drawing(60, 40).save(path)
        got = crop(Encoded("x", path.read_bytes()), preprocess, lambda _: box)
        np.testing.assert_array_equal(got, crop(path, preprocess, lambda _: box))


def test_a_jpeg_too_large_for_pillow_is_not_decoded_either(tmp_path, monkeypatch):
    drawing(60, 40).save(tmp_path / "x.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ZooError, match=r"cannot read image .*x.jpg: 2,400 pixels, more than 2,000"):
        crop(tmp_path / "x.jpg", TINY, lambda size: (0, 0, *size))


def test_sources_that_are_no_jpeg_file_give_pillows_crop(tmp_path):
    picture, box = drawing(60, 40), (5.5, 2, 50, 39)
    picture.save(tmp_path / "x.png")
    for source in (tmp_path / "x.png", picture, np.asarray(picture)):
        assert difference(source, Preprocess(32, None), box).max() == 0


def test_a_damaged_jpeg_is_named_in_training_too(tmp_path):
    path = tmp_path / "x.jpg"
    drawing(60, 40).save(path)
    path.write_bytes(path.read_bytes()[:900])
    for damaged, reason in ((path, "truncated"), (tmp_path / "none.jpg", "No such file")):
        with pytest.raises(ZooError, match=f"^cannot read image {damaged}: .*{reason}"):
            crop(damaged, TINY, lambda size: (0, 0, *size))
    with pytest.raises(ZooError, match=r"^cannot read image box/x: .*truncated"):
        crop(Encoded("box/x", path.read_bytes()), TINY, lambda size: (0, 0, *size))
