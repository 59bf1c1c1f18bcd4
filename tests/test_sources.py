"""Every way to name a dataset: `training.sources`. Plain folders are in test_data.py."""

import gzip
import io
import json
import os
import pickle
import re
import socket
import sys
import tarfile
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training import doors, sources
from training.data import eval_batches, open_dataset, train_batches
from training.decode import Encoded
from training.sources import (
    Arrays,
    Dataset,
    Files,
    folders,
    labels_of,
    originals,
)
from training.sources import tfds as by_tfds
from training.sources.base import Subset
from training.sources.record import record_differences
from training.sources.splits import hold_out
from zoo.errors import ZooError
from zoo.preprocess import Preprocess
from zoo.pretrained.readers import budget

TINY = Preprocess(size=4, resize=None)


def labels(source) -> list[int]:
    return [source[i]["label"] for i in range(len(source))]


def pixels(source) -> np.ndarray:
    """All pictures of a source at 16x16, uint8 [N, 16, 16, 3]."""
    batches = eval_batches(source, Preprocess(size=16, resize=None), batch_size=len(source))
    return next(iter(batches))["image"]


def fails(spec: str, **settings) -> str:
    with pytest.raises(ZooError) as caught:
        open_dataset(spec, **settings)
    (line,) = str(caught.value).splitlines()
    return line


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)
    return path


@pytest.fixture
def pets(tmp_path) -> Path:
    for i, name in enumerate(("dog/1", "dog/2", "dog/3", "cat/1", "cat/2")):
        draw(tmp_path / "pets" / f"{name}.{('jpg', 'png')[i % 2]}", i)
    return tmp_path / "pets"


# --- what all sources have in common


def test_labels_are_known_without_reading_a_picture(pets):
    data = open_dataset(f"folder:{pets}")
    for path in pets.rglob("*.*"):
        path.unlink()
    assert data.class_counts.tolist() == [1, 2]
    assert data.class_counts.dtype == np.int64
    assert labels_of(data.val).tolist() == [0, 1]


def test_labels_of_a_source_that_does_not_have_them_at_hand():
    examples = tuple({"image": np.zeros((2, 2), np.uint8), "label": i % 2} for i in range(5))
    assert labels_of(examples).tolist() == [0, 1, 0, 1, 0]
    data = Dataset("x", ("a", "b", "c"), examples, examples, None, False)
    assert data.class_counts.tolist() == [3, 2, 0]


def test_subsets_and_arrays():
    whole = Arrays(np.arange(5, dtype=np.uint8)[:, None, None], np.arange(5) * 10)
    some = Subset(whole, np.array([3, 1]))
    assert labels(some) == [30, 10] == labels_of(some).tolist()
    assert [example["image"].item() for example in some] == [3, 1]
    assert type(some[0]["label"]) is int


def test_hold_out_takes_a_share_of_each_class():
    known = np.array([0] * 10 + [2] * 5 + [0] * 10)
    kept, held = hold_out(known, ["a", "b", "c"], 0.2, 0)
    assert sorted([*kept, *held]) == list(range(25))
    assert np.bincount(known[held]).tolist() == [4, 0, 1]
    with pytest.raises(ZooError, match="b has one image: to hold some out it takes at least 2"):
        hold_out(np.array([0, 0, 1]), ["a", "b"], 0.2, 0)


def test_unknown_specs_name_the_nearest():
    assert fails("cifar:x") == (
        "unknown dataset 'cifar:x': did you mean 'cifar10:PATH', 'cifar100:PATH'?"
    )
    every = fails("wurlitzer")
    known = ("digits", *sources.OPENERS)
    assert tuple(sorted(spec.partition(":")[0] for spec in known)) == tuple(sorted(doors.DATASETS))
    for spec in known:
        assert spec in every
        assert spec.partition(":")[0] in open_dataset.__doc__


def test_a_spec_without_a_path_is_unknown():
    assert "unknown dataset 'tar:'" in fails("tar:")


# --- what a run remembers of its data


def recorded(spec: str, **settings) -> Dataset:
    data = open_dataset(spec, **settings)
    assert json.loads(json.dumps(data.record)) == data.record  # which looks at the files, once
    return data


def changes(before: Dataset, after: Dataset) -> list[str]:
    return record_differences(before.record, after.record)


def test_the_record_of_a_folder(pets):
    data = open_dataset(f"folder:{pets}")
    assert data.record["classes"] == ["cat", "dog"]
    assert data.record["split"] == "0.2 of each class held out"
    assert data.record["train"]["pictures"] == [1, 2]
    assert data.record["val"]["pictures"] == [1, 1]
    assert changes(data, open_dataset(f"folder:{pets}")) == []


def test_a_moved_touched_packed_folder_is_the_same_data(pets, tmp_path):
    before = recorded(f"folder:{pets}")
    packed = recorded(f"tar:{pack(pets, tmp_path / 'x.gz')}")
    moved = pets.rename(tmp_path / "elsewhere")
    for path in moved.rglob("*.*"):
        os.utime(path, (1, 1))
    (moved / "notes.txt").touch()  # no picture
    rows = [f"{path},{path.parent.name}\n" for path in sorted(moved.rglob("*.*g"))]
    named = listed(tmp_path, "image,label\n" + "".join(rows))
    for after in (packed, open_dataset(f"folder:{moved}"), open_dataset(named)):
        assert changes(before, after) == []


def test_what_changed_in_a_folder_is_told(pets):
    def now(**settings) -> Dataset:
        return recorded(f"folder:{pets}", **settings)

    before = now()
    line = "the split: 0.2 of each class held out there, 0.4 of each class held out now"
    assert changes(before, now(val_fraction=0.4))[0] == line
    assert changes(before, now(split_seed=1))[0].endswith("0.2 of each class held out, seed 1 now")
    (pets / "dog").rename(pets / "auroch")  # now the first class: others of each are held out
    assert changes(before, now()) == ["class 'dog' is now 'auroch'"]
    (pets / "auroch").rename(pets / "dog")
    for i in range(60):
        draw(pets / "cat" / f"more{i}.png", i)
    assert changes(before, now()) == ["60 pictures more in class 'cat'"]
    assert changes(now(), before) == ["60 pictures fewer in class 'cat'"]
    grown = now()
    draw(pets / "cat" / "more3.png", 5).write_bytes(draw(pets / "x.png").read_bytes() + b"more")
    assert changes(grown, now()) == ["other pictures, of the same number, in class 'cat'"]
    draw(pets / "emu" / "1.png")
    draw(pets / "emu" / "2.png")
    assert changes(grown, now())[0] == "class 'emu' is new"
    assert changes(now(), grown)[0] == "class 'emu' is gone"


def test_the_record_of_a_folder_with_splits(tmp_path):
    for name in ("train/a/1", "train/b/1", "val/a/2", "val/b/2"):
        draw(tmp_path / f"{name}.png")
    before = recorded(f"folder:{tmp_path}")
    assert before.record["split"] == "train/ and val/"
    draw(tmp_path / "train" / "a" / "1.png").rename(tmp_path / "train" / "a" / "9.png")
    assert changes(before, recorded(f"folder:{tmp_path}")) == [
        "other pictures, of the same number, in class 'a'"
    ]
    (tmp_path / "train" / "a" / "9.png").rename(tmp_path / "train" / "a" / "1.png")
    (tmp_path / "val" / "b" / "2.png").rename(tmp_path / "train" / "b" / "2.png")
    draw(tmp_path / "train" / "b" / "1.png").rename(tmp_path / "val" / "b" / "1.png")
    assert changes(before, recorded(f"folder:{tmp_path}")) == [
        "the same pictures in another order, or split in another way, in class 'b'"
    ]


def test_pixels_in_memory_are_part_of_the_record():
    def made(images: np.ndarray, labels: list[int]) -> Dataset:
        source = Arrays(images, np.array(labels))
        return Dataset("x", ("a", "b"), source, source, None, False)

    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), np.uint8)
    before = made(images, [0, 1, 0, 1])
    assert before.record["train"]["pictures"] == [2, 2]
    assert changes(before, made(images.copy(), [0, 1, 0, 1])) == []
    other = images.copy()
    other[1] += 1
    assert changes(before, made(other, [0, 1, 0, 1])) == [
        "other pictures, of the same number, in class 'b'"
    ]
    assert len(changes(before, made(images, [1, 1, 0, 0]))) == 2


def test_sources_whose_labels_are_not_at_hand_are_not_read_for_the_record():
    class Unread:
        def __init__(self, count: int):
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int, /):
            raise AssertionError("read")

    four, five = (Dataset("x", ("a", "b"), Unread(n), (), None, False) for n in (4, 5))
    assert changes(four, four) == []
    assert changes(four, five) == ["1 picture more in the dataset"]
    assert changes(four, replace(four, classes=("a", "c"))) == ["class 'b' is now 'c'"]
    three = Arrays(np.zeros((3, 1, 1), np.uint8), np.arange(3))
    part = replace(four, train=Subset(three, np.array([0, 1])))
    assert changes(part, replace(part, train=Subset(three, np.array([0, 2])))) == [
        "other pictures, of the same number, in the dataset"
    ]


def test_a_damaged_record_is_no_record(pets):
    good = open_dataset(f"folder:{pets}").record
    for key, value in (("classes", 3), ("train", None), ("val", {}), ("train", {"pictures": "x"})):
        assert record_differences({**good, key: value}, good) == [
            "the record of its data is damaged"
        ]
    assert record_differences({}, good) == ["the record of its data is damaged"]


# --- pictures inside another file


def test_an_encoded_picture_may_stand_for_an_array(tmp_path):
    for name in ("x.jpg", "x.png"):
        path = draw(tmp_path / name)
        encoded = Encoded("box/x", path.read_bytes())
        np.testing.assert_array_equal(np.asarray(encoded), np.asarray(Image.open(path)))
        np.testing.assert_array_equal(TINY.image(encoded), TINY.image(path))
        assert str(path.read_bytes()) not in repr(encoded)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "it is empty"), (b"hello", "not a picture"), (None, "truncated")],
)
def test_a_damaged_encoded_picture_is_named(data, reason):
    if data is None:
        file = io.BytesIO()
        Image.effect_noise((64, 64), 50).save(file, "JPEG")
        data = file.getvalue()[:1000]
    with pytest.raises(ZooError, match=f"^cannot read image box/x: .*{reason}"):
        TINY.image(Encoded("box/x", data))


# --- tar:FILE


def pack(folder: Path, file: Path, names: list[str] | None = None) -> Path:
    """A tar file of a folder, compressed as its name says."""
    mode: Any = f"w:{file.suffix[1:]}" if file.suffix != ".tar" else "w"
    with tarfile.open(file, mode) as tar:
        for path in sorted(folder.rglob("*")):
            if names is None or path.name in names:
                tar.add(path, path.relative_to(folder), recursive=False)
    return file


@pytest.mark.parametrize("suffix", ["tar", "gz", "xz"])
def test_a_tar_file_is_as_its_folder(pets, suffix, tmp_path):
    file = pack(pets, tmp_path / f"pets.{suffix}")
    packed, loose = open_dataset(f"tar:{file}"), open_dataset(f"folder:{pets}")
    assert packed.classes == loose.classes == ("cat", "dog")
    assert packed.class_counts.tolist() == [1, 2]
    assert (packed.flip, packed.image_size, packed.skipped) == (True, None, ())
    for split in ("train", "val"):
        ours, theirs = getattr(packed, split), getattr(loose, split)
        assert isinstance(ours, Files)
        assert [str(pets / path) for path, _ in ours.examples] == [p for p, _ in theirs.examples]
        assert labels(ours) == labels(theirs)
        np.testing.assert_array_equal(pixels(ours), pixels(theirs))
    crops = [
        next(train_batches(data, TINY, batch_size=6, seed=0, crop_scale=0.3))
        for data in (packed, loose)
    ]
    np.testing.assert_array_equal(crops[0]["image"], crops[1]["image"])


@pytest.mark.parametrize("top", ["", "nest/pets-2/"])
@pytest.mark.parametrize("val", ["val", "test"])
def test_a_tar_file_with_train_and_val(top, val, tmp_path):
    for i, name in enumerate(("train/a/x", "train/b/x", "train/b/y", f"{val}/a/x", f"{val}/b/x")):
        draw(tmp_path / "in" / f"{top}{name}.png", i)
    (tmp_path / "in" / top / "README.txt").touch()
    draw(tmp_path / "in" / top / "train" / ".hidden" / "x.png")
    data = open_dataset(f"tar:{pack(tmp_path / 'in', tmp_path / 'x.tar')}")
    assert (labels(data.train), labels(data.val)) == ([0, 1, 1], [0, 1])
    assert [path for path, _ in data.val.examples] == [f"{top}{val}/{c}/x.png" for c in "ab"]


def test_members_that_cannot_be_read(pets, tmp_path):
    (pets / "cat" / "text.png").write_text("hello")
    (pets / "cat" / "link.png").symlink_to("1.png")
    os.link(pets / "dog" / "1.jpg", pets / "dog" / "9.jpg")  # tar stores it as a link to the first
    file = pack(pets, tmp_path / "x.tar")
    line = fails(f"tar:{file}")
    assert line.startswith(f"3 of 8 images in {file} cannot be read: {file}/cat/link.png: a link")
    data = open_dataset(f"tar:{file}", skip_unreadable=True)
    assert [entry.split(": ")[0] for entry in data.skipped] == [
        f"{file}/{name}" for name in ("cat/link.png", "cat/text.png", "dog/9.jpg")
    ]
    assert "not a picture" in data.skipped[1]
    assert len(data.train) + len(data.val) == 5


def test_names_that_lead_outside_lead_nowhere(pets, tmp_path):
    file = pack(pets, tmp_path / "x.tar")
    png = draw(tmp_path / "a.png").read_bytes()
    with tarfile.open(file, "a") as tar:
        for name in ("../evil/x.png", "/rooted/x.png", "/rooted/y.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png)
            tar.addfile(member, io.BytesIO(png))
    before = sorted(tmp_path.parent.rglob("*"))
    assert open_dataset(f"tar:{file}").classes == ("cat", "dog", "rooted")
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert not Path("/rooted").exists()


def test_tar_files_that_are_none(tmp_path, pets):
    assert fails(f"tar:{tmp_path}/x.tar") == f"archive {tmp_path}/x.tar does not exist"
    assert fails(f"tar:{pets}") == f"archive {pets} is not a file"
    (tmp_path / "x.tar").write_text("hello " * 200)
    assert fails(f"tar:{tmp_path}/x.tar").startswith(f"cannot read archive {tmp_path}/x.tar: ")
    (tmp_path / "empty.tar").touch()
    assert fails(f"tar:{tmp_path}/empty.tar").startswith("cannot read archive")
    whole = pack(pets, tmp_path / "y.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    assert fails(f"tar:{tmp_path}/cut.gz").startswith(f"cannot read archive {tmp_path}/cut.gz: ")
    whole = pack(pets, tmp_path / "z.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:4000])
    assert fails(f"tar:{tmp_path}/cut.tar").startswith(f"cannot read archive {tmp_path}/cut.tar: ")
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "notes.txt").touch()
    none = pack(tmp_path / "no", tmp_path / "no.tar")
    assert fails(f"tar:{none}").startswith(f"archive {none} holds no images")
    draw(tmp_path / "no" / "x.png")
    none = pack(tmp_path / "no", tmp_path / "no.tar")
    assert fails(f"tar:{none}").startswith(f"archive {none} holds images but no class folders")
    draw(tmp_path / "val" / "val" / "a" / "x.png")
    val = pack(tmp_path / "val", tmp_path / "val.tar")
    assert "val" in fails(f"tar:{val}")


def test_a_compressed_archive_may_not_fill_the_memory(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "UNPACKED", 1000)
    line = fails(f"tar:{pack(pets, tmp_path / 'x.gz')}")
    assert "unpacks to more than" in line
    assert "an uncompressed .tar is read where it lies" in line
    assert len(open_dataset(f"tar:{pack(pets, tmp_path / 'x.tar')}").train) == 3


def test_the_archive_is_closed_with_its_dataset(pets, tmp_path):
    archive = folders.Archive(pack(pets, tmp_path / "x.tar"))
    number = archive._file
    assert os.fstat(number).st_size > 0
    del archive
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


# --- list:FILE


def listed(folder: Path, text: str, name: str = "list.csv") -> str:
    (folder / name).write_text(text)
    return f"list:{folder / name}"


def test_a_list_with_splits(pets):
    text = "split,Label,image\n" + "".join(
        f"{split},{path.split('/')[0]},{path}\n"
        for split, path in (
            ("train", "dog/1.jpg"),
            ("train", "cat/1.png"),
            ("val", "dog/2.png"),
            ("test", "dog/3.jpg"),  # there is a val: not used
            ("train", "cat/2.jpg"),
        )
    )
    data = open_dataset(listed(pets, text))
    assert data.classes == ("cat", "dog")
    assert [(Path(p).name, n) for p, n in data.train.examples] == [
        ("1.png", 0),
        ("2.jpg", 0),
        ("1.jpg", 1),
    ]
    assert data.val.examples == ((str(pets / "dog" / "2.png"), 1),)
    assert data.class_counts.tolist() == [2, 1]
    assert pixels(data.train).shape == (3, 16, 16, 3)


@pytest.mark.parametrize("column", ["image", "path", "file"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_list_without_splits_is_split(suffix, column, pets):
    rows = [(str(p), p.parent.name) for p in sorted(pets.rglob("*.*"))]
    if suffix == "csv":
        text = f"\ufeff{column},class,note\n\n" + "".join(f'"{p}",{n},"a, b"\n' for p, n in rows)
    else:
        text = "".join(json.dumps({column: p, "class": n}) + "\n\n" for p, n in rows)
    data = open_dataset(listed(pets, text, f"x.{suffix}"))
    folder = open_dataset(f"folder:{pets}")  # which counts the list too
    assert replace(data, name="") == replace(folder, name="", left_out=())


def test_numbers_as_labels_are_in_their_order(pets):
    rows = [{"image": str(p), "label": [2, 10][i % 2]} for i, p in enumerate(pets.rglob("*.*"))]
    data = open_dataset(listed(pets, "\n".join(map(json.dumps, rows)), "x.jsonl"))
    assert data.classes == ("2", "10")


@pytest.mark.parametrize(
    ("head", "between", "suffix"),
    [
        ("filename,class", ",", True),
        ("file_name;label", ";", True),
        ("id\tbreed", "\t", False),
        ("split|id|kind", "|", True),
    ],
)
def test_lists_as_others_write_them(head, between, suffix, pets):
    rows = [head]
    for path in sorted(pets.rglob("*.*")):
        name = path.relative_to(pets)
        cells = [str(name if suffix else name.with_suffix("")), path.parent.name]
        rows.append(between.join(["train", *cells] if "split" in head else cells))
    data = open_dataset(listed(pets, "\n".join(rows)))
    folder = open_dataset(f"folder:{pets}")  # which counts the list too
    assert data.classes == folder.classes
    assert len(data.train) + len(data.val) == len(folder.train) + len(folder.val)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"its header \(row 1\) lacks a column image or path or file, got nothing"),
        ("dog/1.jpg,dog\n", r"its header \(row 1\) lacks a column image"),
        ("image,a,b\nx,y,z\n", r"header \(row 1\) lacks a column label or class or labels, got im"),
        ("image,label\nx.png,a\ny.png\n", "row 3: got 1 cells, expected 2: image,label"),
        ("image,label\nx.png,a,b\n", "row 2: got 3 cells"),
        ("image,label\nx.png,a\n,b\n", "row 3: expected text for image or path or file, got noth"),
        ("image,label\nx.png, \n", "row 2: expected text for label or class, got ' '"),
        ("image,label,split\nx,a,trian\n", "row 2: unknown split 'trian': did you mean 'train'"),
        ("image,label,split\nx,a,train\nx,a,\n", "row 3: expected text for split, got nothing"),
        ("image,label,split\nx,a,test\n", "has rows of test but none of train"),
        ("image,label,split\nx,a,train\nx,b,val\n", "row 3: label 'b' of val is not in train"),
        ("image,label\n", "has no rows"),
        (f"image,label\nx,{'9' * 5000}\n", "row 2: .* at most 255 characters .*, got 5,000 char"),
        (f"image,label\n{'x' * 5000},a\n", "row 2: .* at most 4,096 characters .*, got 5,000 cha"),
        ("image,label\nx,a\0b\n", "row 2: .* without NUL, got 'a.x00b'|NUL"),
        (f"image,label\nx,{'a' * 200_000}\n", "cannot read list .*: field larger than field limit"),
        (f"{'c' * 3000},label\nx,y\n", "lacks a column image or path or file, got ccc"),
        (f"image,label,split\nx,a,{'t' * 99}\n", "row 2: expected text for split, at most 20"),
        ("image,label\nx,a\ny,a\n", "holds a single class, 'a'"),
        (
            "image,label\n1.png,a\n2.png,b\n",
            "2 of 2 images in .*list.csv cannot be read: .*No such",
        ),
    ],
)
def test_lists_that_are_wrong(text, reason, tmp_path):
    assert re.search(reason, line := fails(listed(tmp_path, text))), line
    assert "list.csv" in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "row 1: not JSON"),
        ('{"image": "x", "label": "a"}\n[1]\n', "row 2: expected an object, got '[1]"),
        ('{"image": "x"}', "row 1: expected text for label or class, got nothing"),
        ('{"image": "x", "label": true}', "row 1: expected text for label or class, got True"),
        ('{"image": ["x"], "label": 1}', "row 1: expected text for image or path or file"),
        (f'{{"image": "x", "label": {"9" * 5000}}}', "row 1: not JSON: Exceeds the limit (4300"),
        (f'{{"image": "x", "label": {"9" * 4000}}}', "row 1: expected text for label or class, at"),
        ('{"image": "x", "label": 1e999}', "row 1: expected text for label or class, got inf"),
        ('{"image": "x", "label": ' + "[" * 100_000, "row 1: not JSON"),
        ('{"image": "x", "label": 1, "split": "train"}\n{"image": "x", "label": 1}', "do not"),
    ],
)
def test_json_lists_that_are_wrong(text, reason, tmp_path):
    line = fails(listed(tmp_path, text, "x.jsonl"))
    assert reason in line
    assert f"list {tmp_path}/x.jsonl" in line


def test_lists_that_cannot_be_read(tmp_path):
    assert "No such file" in fails(f"list:{tmp_path}/x.csv")
    assert fails(f"list:{tmp_path}/x.txt") == (
        f"list {tmp_path}/x.txt: expected FILE.csv, FILE.tsv or FILE.jsonl"
    )
    for data in (b"image,label\n\xff\xfe,a\n", "image,label\nx,a\n".encode("utf-16")):
        (tmp_path / "x.csv").write_bytes(data)
        line = fails(f"list:{tmp_path}/x.csv")
        assert f"cannot read list {tmp_path}/x.csv: not UTF-8" in line
        assert line.endswith("save it as UTF-8")
    os.mkfifo(tmp_path / "y.csv")
    assert fails(f"list:{tmp_path}/y.csv").endswith("y.csv: a pipe, not a file")
    (tmp_path / "a\nb.csv").write_text("image,label\n")
    assert fails(f"list:{tmp_path}/a\nb.csv").endswith("a\\nb.csv has no rows")


# --- cifar10:PATH, cifar100:PATH


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")


def text(value: bytes) -> bytes:
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + len(value).to_bytes(4, "little") + value


def python2_pickle(entries: dict[bytes, Any]) -> bytes:
    """What Python 2's cPickle wrote of a dict: the form of the original files."""
    out = [b"\x80\x02}q\x01("]
    for key, value in entries.items():
        out.append(text(key))
        if isinstance(value, bytes):
            out.append(text(value))
        elif isinstance(value, list):
            items = [text(v) if isinstance(v, bytes) else number(v) for v in value]
            out.append(b"](" + b"".join(items) + b"e")
        else:
            count, width = value.shape
            shape = number(count) + number(width) + b"\x86"
            out += [b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"]
            out += [b"(K\x01", shape, b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"]
            out += [b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"]
            out += [text(value.tobytes()), b"tb"]
    return b"".join(out) + b"u."


def batch(seed: int, count: int = 3, classes: int = 10) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, classes, count).tolist()


NAMES10 = [f"class {i}" for i in range(10)]
NAMES100 = [f"fine {i}" for i in range(100)]


def write_cifar10(folder: Path, form: str, names: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows, own = batch(i)
        if form == "binary":
            joined = np.hstack([np.array(own, np.uint8)[:, None], rows])
            (folder / f"{name}.bin").write_bytes(joined.tobytes())
        elif form == "python2":
            entry = {b"batch_label": b"batch", b"labels": own, b"data": rows, b"filenames": [b"a"]}
            (folder / name).write_bytes(python2_pickle(entry))
        else:
            (folder / name).write_bytes(pickle.dumps({"labels": own, "data": rows}, int(form)))
    if names and form == "binary":
        (folder / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    elif names:
        entry = {b"label_names": [name.encode() for name in NAMES10], b"note": b"3072"}
        (folder / "batches.meta").write_bytes(python2_pickle(entry))
    return folder


def write_cifar100(folder: Path, form: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(("train", "test")):
        rows, own = batch(i, 5, 100)
        if form == "binary":
            coarse = np.full((5, 1), 19, np.uint8)
            joined = np.hstack([coarse, np.array(own, np.uint8)[:, None], rows])
            (folder / f"{name}.bin").write_bytes(joined.tobytes())
        else:
            entry = {b"coarse_labels": [19] * 5, b"fine_labels": own, b"data": rows}
            (folder / name).write_bytes(python2_pickle(entry))
    if form == "binary":
        (folder / "fine_label_names.txt").write_text("\n".join(NAMES100))
    else:
        entry = {b"fine_label_names": [name.encode() for name in NAMES100]}
        (folder / "meta").write_bytes(python2_pickle(entry))
    return folder


def check_images(source, seeds: list[int], count: int = 3, classes: int = 10) -> None:
    rows, own = zip(*(batch(seed, count, classes) for seed in seeds), strict=True)
    want = np.concatenate(rows).reshape(-1, 3, 32, 32)
    assert len(source) == len(want)
    for i, planes in enumerate(want):
        np.testing.assert_array_equal(source[i]["image"], planes.transpose(1, 2, 0))
    assert labels(source) == np.concatenate(own).tolist() == labels_of(source).tolist()


def test_the_pickles_written_here_are_those_that_python_reads():
    rows, own = batch(0)
    data = python2_pickle({b"labels": own, b"data": rows, b"name": b"x" * 300})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core
        read = pickle.loads(data, encoding="bytes")
    np.testing.assert_array_equal(read.pop(b"data"), rows)
    assert read == {b"labels": own, b"name": b"x" * 300}


@pytest.mark.parametrize("form", ["binary", "python2", "2", "4"])
def test_cifar10(form, tmp_path):
    data = open_dataset(f"cifar10:{write_cifar10(tmp_path, form)}")
    assert data.classes == tuple(NAMES10)
    assert (data.image_size, data.flip, data.skipped) == (32, True, ())
    check_images(data.train, [0, 1, 2, 3, 4])
    check_images(data.val, [5])
    assert data.class_counts.sum() == 15
    seen = next(iter(eval_batches(data.val, Preprocess(32, None), batch_size=3)))["image"]
    np.testing.assert_array_equal(seen[1], data.val[1]["image"])


@pytest.mark.parametrize("form", ["binary", "python2"])
def test_cifar100_has_its_fine_classes(form, tmp_path):
    data = open_dataset(f"cifar100:{write_cifar100(tmp_path, form)}")
    assert data.classes == tuple(NAMES100)
    check_images(data.train, [0], 5, 100)
    check_images(data.val, [1], 5, 100)


@pytest.mark.parametrize("form", ["binary", "python2"])
def test_cifar_in_its_own_folder_or_archive(form, tmp_path):
    folder = "cifar-10-batches-" + {"binary": "bin", "python2": "py"}[form]
    write_cifar10(tmp_path / "in" / folder, form)
    file = pack(tmp_path / "in", tmp_path / "cifar.gz")
    for place in (tmp_path / "in", file):
        check_images(open_dataset(f"cifar10:{place}").train, [0, 1, 2, 3, 4])


def test_cifar10_knows_its_classes_without_the_file_that_names_them(tmp_path):
    classes = open_dataset(f"cifar10:{write_cifar10(tmp_path, 'binary', names=False)}").classes
    assert (classes[0], classes[1], classes[9]) == ("airplane", "automobile", "truck")
    (write_cifar100(tmp_path / "c", "binary") / "fine_label_names.txt").unlink()
    line = fails(f"cifar100:{tmp_path}/c")
    assert "lacks fine_label_names.txt, expected the names of 100" in line


def test_cifar_files_that_are_wrong(tmp_path):
    assert fails(f"cifar10:{tmp_path}/x") == f"{tmp_path}/x does not exist"
    line = fails(f"cifar10:{tmp_path}")
    assert "has neither data_batch_1 nor data_batch_1.bin" in line
    folder = write_cifar10(tmp_path, "binary")
    (folder / "data_batch_3.bin").unlink()
    assert fails(f"cifar10:{folder}").endswith(f"{folder} lacks data_batch_3.bin")
    (folder / "data_batch_3.bin").write_bytes(b"\x0a" + bytes(3072))
    assert "others than 0 to 9" in fails(f"cifar10:{folder}")
    (folder / "data_batch_3.bin").write_bytes(bytes(3072))
    assert "got 3072 bytes, expected a multiple of 3073" in fails(f"cifar10:{folder}")
    write_cifar10(folder, "python2")
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [b"a"]}))
    assert "names 1 classes, expected the names of 10" in fails(f"cifar10:{folder}")
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": b"a"}))
    assert "expected a list label_names" in fails(f"cifar10:{folder}")


class Evil:
    def __init__(self, call: Callable, *arguments: Any):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_a_pickle_cannot_run_anything(tmp_path):
    folder = write_cifar10(tmp_path / "c", "python2")
    for call, argument in ((os.mkdir, f"{tmp_path}/made"), (np.load, "x"), (eval, "1")):
        (folder / "data_batch_2").write_bytes(pickle.dumps({"data": Evil(call, argument)}))
        line = fails(f"cifar10:{folder}")
        assert "data_batch_2 is not a file of CIFAR's Python version: " in line
        assert "is no array of numbers" in line
    assert not (tmp_path / "made").exists()


LONG = 5_000_000  # bytes of a text that a pickle hands on again and again
GET = b"h\0"  # it, from the memo
KEPT = b"B" + LONG.to_bytes(4, "little") + bytes(LONG) + b"q\0"  # bytes
KEPT_TEXT = b"X" + LONG.to_bytes(4, "little") + bytes(LONG) + b"q\0"
PIXELS = b"cnumpy.core.multiarray\n_reconstruct\n)R"  # an array without its state
SHAPE = b"J" + LONG.to_bytes(4, "little") + b"\x85"
U1 = b"cnumpy\ndtype\nU\x02u1\x85R"

# What is wrong with each, and what the line says of it
GREEDY = {
    "a bytearray": ("instruction b'.x96'", b"\x96" + (1 << 30).to_bytes(8, "little")),
    "a text of a gigabyte": ("ends early", b"\x8d" + (1 << 30).to_bytes(8, "little")),
    "a memo of 16 GB": ("expected data uint8", b"}r\xff\xff\xff\x7f"),
    "empty dicts": ("steps to read", b"}" * 30_000),
    "marks": ("steps to read", b"(" * 30_000),
    "bytes of a text": (
        "unpacks to far more than its size",
        KEPT_TEXT + (b"c_codecs\nencode\n" + GET + b"\x85R") * 1000,
    ),
    "arrays of a text": (
        "unpacks to far more than its size",
        KEPT_TEXT + (PIXELS + b"(K\1" + SHAPE + U1 + b"\x89" + GET + b"tb") * 1000,
    ),
    "keys": ("unpacks to far more than its size", KEPT + (b"}" + GET + b"Ns") * 1000),
    "names": ("expected a list", b"}U\x0blabel_names](" + KEPT + GET * 1000 + b"es"),
    "arguments": (
        "10000 arguments",
        b"(" + b"N" * 10_000 + b"tq\0" + (b"cnumpy\ndtype\n" + GET + b"R") * 1000,
    ),
    "a wide text": (
        "not Latin-1",
        b"X" + (LONG + 4).to_bytes(4, "little") + bytes(LONG) + "\U0001f600".encode(),
    ),
    "dimensions": (
        "dimension",
        PIXELS + b"(K\1(" + b"K\1" * 10_000 + b"t" + U1 + b"\x89C\0tb",
    ),
}


@pytest.mark.parametrize("attack", GREEDY)
def test_a_pickle_cannot_ask_for_more_than_it_has(attack, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "STEPS", 50_000)
    folder = write_cifar10(tmp_path, "python2")
    name = "batches.meta" if attack == "names" else "data_batch_2"
    says, body = GREEDY[attack]
    (folder / name).write_bytes(b"\x80\x02" + body + b".")
    started = time.process_time()
    tracemalloc.start()
    try:
        assert re.match(rf"{name}.*{says}", fails(f"cifar10:{folder}"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body) + (128 << 20)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x80\x02]q\x01.",  # a list
        python2_pickle({b"labels": [1]}),
        python2_pickle({b"labels": [1, 2], b"data": np.zeros((1, 3072), np.uint8)}),
        python2_pickle({b"labels": [b"x"], b"data": np.zeros((1, 3072), np.uint8)}),
        python2_pickle({b"labels": [1], b"data": np.zeros((1, 12), np.uint8)}),
        python2_pickle({b"labels": [1], b"data": np.zeros((1, 3072), np.uint8)})[:-500],
        python2_pickle({b"labels": [1], b"data": np.zeros((1, 3072), np.uint8)}).replace(
            b"U\x02u1", b"U\x02i1"
        ),
        pickle.dumps({"labels": [1], "data": np.zeros((1, 3072))}, 2),
        python2_pickle({b"labels": [1], b"data": np.zeros((1, 3072), np.uint8)}).replace(
            b"](K\1e", b"](\x8a\x09" + bytes(8) + b"\1e"
        ),  # a label of 65 bits
        b"\x80\x02c_codecs\nencode\nK\1\x85R.",  # the bytes of a number
        b"\x80\x02" + PIXELS + b"(K\1\x8a\x09" + bytes(8) + b"\1\x85" + U1 + b"\x89U\0tb.",
        b"(dp1\n.",  # of protocol 0
    ],
)
def test_damaged_pickles_are_named(data, tmp_path):
    folder = write_cifar10(tmp_path, "python2")
    (folder / "data_batch_2").write_bytes(data)
    assert "data_batch_2" in fails(f"cifar10:{folder}")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bytes_changed_at_random_are_read_or_refused(protocol):
    rows, own = batch(0, 1)
    entries = {b"labels": own, b"data": rows, b"batch_label": b"x", b"filenames": [b"a.png"]}
    whole = pickle.dumps(entries, protocol) if protocol else python2_pickle(entries)
    rng = np.random.default_rng(0)
    changeable = [i for i, byte in enumerate(whole) if whole[i : i + 100] not in rows.tobytes()]
    refusals = []
    for _ in range(1000):
        data = bytearray(whole)
        for at in rng.choice(changeable, rng.integers(1, 4)):
            data[at] = rng.integers(256)
        try:
            originals._cifar_pickle("batch", bytes(data), "labels")
        except ZooError as error:
            refusals.append(str(error))
    assert 100 < len(refusals) < 1000
    expected = re.compile(r"batch( is not a file of CIFAR|: expected data)")
    assert all(map(expected.match, refusals))


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_as_pictures(packed, tmp_path):
    for split in ("train", "test"):
        for i, name in enumerate(originals.CIFAR10.classes):
            draw(tmp_path / "in" / split / name / "0000.jpg", i)
    place = pack(tmp_path / "in", tmp_path / "x.gz") if packed else tmp_path / "in"
    data = open_dataset(f"cifar10:{place}")
    assert data.classes == originals.CIFAR10.classes
    assert (data.image_size, len(data.train), len(data.val)) == (32, 10, 10)
    assert f"cifar100:{place}: expected 100 classes, got 10" in fails(f"cifar100:{place}")


# --- fashion_mnist:PATH, mnist:PATH


def write_idx(folder: Path, zipped: bool, dot: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, split, count in ((0, "train", 4), (1, "t10k", 3)):
        rng = np.random.default_rng(seed)
        for what, array in (
            ("images{}idx3", rng.integers(0, 256, (count, 28, 28), np.uint8)),
            ("labels{}idx1", np.arange(count, dtype=np.uint8)),
        ):
            head = [0x800 + array.ndim, *array.shape]
            data = b"".join(n.to_bytes(4) for n in head) + array.tobytes()
            name = f"{split}-{what.format(dot)}-ubyte" + (".gz" if zipped else "")
            (folder / name).write_bytes(gzip.compress(data) if zipped else data)
    return folder


@pytest.mark.parametrize(
    ("spec", "folder", "zipped", "dot"),
    [
        ("fashion_mnist", "", True, "-"),
        ("fashion_mnist", "FashionMNIST/raw", False, "-"),
        ("mnist", "raw", False, "."),
        ("mnist", "MNIST/raw", True, "-"),
    ],
)
def test_idx_files(spec, folder, zipped, dot, tmp_path):
    write_idx(tmp_path / folder, zipped, dot)
    data = open_dataset(f"{spec}:{tmp_path}")
    fashion = spec == "fashion_mnist"
    assert data.classes[9] == ("Ankle boot" if fashion else "9")
    assert (data.image_size, data.flip, len(data.classes)) == (32, fashion, 10)
    assert (labels(data.train), labels(data.val)) == ([0, 1, 2, 3], [0, 1, 2])
    want = np.random.default_rng(1).integers(0, 256, (3, 28, 28), np.uint8)
    seen = next(iter(eval_batches(data.val, Preprocess(32, None), batch_size=3)))["image"]
    assert (seen[..., :1] == seen).all()
    np.testing.assert_array_equal(seen[:, 2:-2, 2:-2, 0], want)
    assert seen[:, :2].max() == seen[:, :, -2:].max() == 0


def test_idx_files_that_are_wrong(tmp_path):
    assert "lacks train-images-idx3-ubyte, gzipped or not" in fails(f"mnist:{tmp_path}")
    write_idx(tmp_path, zipped=False)
    for file, start, reason in (
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x01", "got 00000801 at its start, expected 000"),
        ("train-labels-idx1-ubyte", b"", "got nothing at its start"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x04\0", "expected 4 bytes after its head"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x01\0", "has 4 images of train but 1"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x04\0\0\0\x0a", "others than 0 to 9"),
        ("t10k-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "are too many"),
        ("t10k-images-idx3-ubyte", b"\x1f\x8b\x08", "is damaged"),
    ):
        before = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(start)
        assert reason in fails(f"mnist:{tmp_path}")
        (tmp_path / file).write_bytes(before)
    data = gzip.compress(before)
    (tmp_path / file).write_bytes(data[: len(data) // 2])
    assert "is damaged" in fails(f"mnist:{tmp_path}")


# --- tfds:NAME


@pytest.fixture(scope="module")
def builders() -> SimpleNamespace:
    """Datasets as others write them for TFDS, registered under their names."""
    import tensorflow_datasets as tfds

    def encoded(seed: int) -> io.BytesIO:
        file = io.BytesIO()
        picture(seed).save(file, "JPEG")
        return io.BytesIO(file.getvalue())

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None
        shape: tuple[int | None, int | None, int] = (28, 28, 1)
        splits: tuple[tuple[str, int], ...] = (("train", 6), ("test", 4))
        image = "image"

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        self.image: tfds.features.Image(shape=self.shape),
                        "label": tfds.features.ClassLabel(names=("circle", "square")),
                        "name": tfds.features.Text(),
                    }
                ),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: object) -> dict[str, Any]:
            return {name: self._generate_examples(count) for name, count in self.splits}

        def _generate_examples(self, count: int):
            for i in range(count):
                grey = Image.new("L", (28, 28), 20 * i)
                image = encoded(i) if self.shape[0] is None else grey
                yield i, {self.image: image, "label": i % 2, "name": f"{i}"}

    class TinyShapes(Tiny):
        """Grey, of one size, with a test split."""

    class TinyPhotos(Tiny):
        """JPEG of any size, all in one split."""

        shape = (None, None, 3)
        splits = (("train", 20),)

    class TinyKinds(Tiny):
        """In two configurations."""

        BUILDER_CONFIGS = [  # noqa: RUF012
            tfds.core.BuilderConfig(name="a", version="1.0.0"),
            tfds.core.BuilderConfig(name="b-2", version="1.0.0"),
        ]

    class TinyTest(Tiny):
        splits = (("test", 4),)

    class TinyNeedy(Tiny):
        def _split_generators(self, dl_manager: object) -> dict[str, Any]:
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow.io")

    class TinyOffline(Tiny):
        def _split_generators(self, dl_manager: object) -> dict[str, Any]:
            raise ConnectionError("no route\nto host")

    class TinyMusic(Tiny):
        def _info(self) -> tfds.core.DatasetInfo:
            features = {"sound": tfds.features.Tensor(shape=(1,), dtype=np.float32)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, count: int):
            yield 0, {"sound": np.zeros(1, np.float32)}

    return SimpleNamespace(**{k: v for k, v in locals().items() if k.startswith("Tiny")})


@pytest.fixture
def data_dir(tmp_path, monkeypatch, builders) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def test_tfds_is_prepared_and_then_read_by_name_alone(data_dir, monkeypatch):
    import tensorflow_datasets as tfds

    first = open_dataset("tfds:tiny_shapes")
    assert (data_dir / "tiny_shapes" / "1.0.0" / "dataset_info.json").is_file()
    monkeypatch.setattr(tfds, "builder", None)  # the code that made it is not needed any more
    for data in (first, open_dataset("tfds:tiny_shapes"), open_dataset("tfds:tiny_shapes:1.0.0")):
        assert data.classes == ("circle", "square")
        assert (data.image_size, data.flip) == (32, True)
        assert (labels(data.train), labels(data.val)) == ([0, 1, 0, 1, 0, 1], [0, 1, 0, 1])
        assert data.class_counts.tolist() == [3, 3]
        want = np.arange(6, dtype=np.uint8)[:, None, None, None] * 20
        np.testing.assert_array_equal(pixels(data.train), np.broadcast_to(want, (6, 16, 16, 3)))
        assert next(train_batches(data, TINY, batch_size=4, seed=0))["image"].shape == (4, 4, 4, 3)
        assert [example["label"] for example in data.val] == [0, 1, 0, 1]  # it ends


def test_tfds_with_one_split_is_split_by_class(data_dir):
    data = open_dataset("tfds:tiny_photos", val_fraction=0.3)
    assert (labels_of(data.train).tolist().count(0), len(data.train)) == (7, 14)
    assert sorted(labels(data.val)) == [0, 0, 0, 1, 1, 1]
    assert data.image_size is None
    names = [source[i]["image"].name for source in (data.train, data.val) for i in range(6)]
    assert len(set(names)) == 12
    assert names[0].startswith("tfds:tiny_photos/train/")
    i = int(data.val[0]["image"].name.rpartition("/")[2])
    file = io.BytesIO()
    picture(i).save(file, "JPEG")
    assert data.val[0]["image"].data == file.getvalue()  # decoded by us, small where that is enough


def test_tfds_configurations(data_dir):
    a = open_dataset("tfds:tiny_kinds/a")
    assert (data_dir / "tiny_kinds" / "a" / "1.0.0").is_dir()
    assert labels(open_dataset("tfds:tiny_kinds").val) == labels(a.val)  # the only one there is
    open_dataset("tfds:tiny_kinds/b-2")
    assert "say which, as tfds:tiny_kinds/a or tfds:tiny_kinds/b-2" in fails("tfds:tiny_kinds")


def test_tfds_takes_the_newest_version(data_dir):
    open_dataset("tfds:tiny_shapes")
    folder = data_dir / "tiny_shapes"
    for version in ("0.9.0", "1.10.0", "1.9.0"):
        (folder / version).mkdir()
        for file in (folder / "1.0.0").iterdir():
            there = file.read_bytes().replace(
                b'"version": "1.0.0"', b'"version": "%s"' % (version.encode())
            )
            (folder / version / file.name).write_bytes(there)
    (folder / "2.0.0.incomplete123").mkdir()
    (folder / "2.0.0").mkdir()
    (folder / "2.0.0" / "dataset_info.json").touch()  # written before the records were
    assert by_tfds._prepared(data_dir, "tiny_shapes", None, None) == folder / "1.10.0"
    assert by_tfds._prepared(data_dir, "tiny_shapes", None, "0.9.0") == folder / "0.9.0"
    assert by_tfds._prepared(data_dir, "tiny_shapes", None, "3.0.0") is None
    assert labels(open_dataset("tfds:tiny_shapes").val) == [0, 1, 0, 1]


def test_tfds_that_takes_tensorflow(data_dir):
    assert fails("tfds:tiny_needy") == "tfds:tiny_needy: TFDS needs TensorFlow to prepare " + (
        "tiny_needy: pip install 'jax-cnn-zoo[tf]'"
    )
    open_dataset("tfds:tiny_shapes")
    info = data_dir / "tiny_shapes" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    line = fails("tfds:tiny_shapes")
    assert "prepared as tfrecord" in line
    assert "set TFDS_DATA_DIR to another folder" in line


def test_tfds_that_cannot_be_had(data_dir):
    assert f"in {data_dir} (TFDS_DATA_DIR): no route to host" in fails("tfds:tiny_offline")
    assert "did you mean tfds:tiny_shapes" in fails("tfds:tiny_shape")
    assert "datasets/catalog" in fails("tfds:zzyzx")
    assert "has no train split, only test" in fails("tfds:tiny_test")
    assert "its features are sound" in fails("tfds:tiny_music")
    for spec in ("tfds:../x", "tfds:x/../y", "tfds:x y", "tfds:x:1"):
        assert "expected tfds:NAME" in fails(spec)
    data_dir.chmod(0o700)
    (data_dir / "file").touch()
    assert "TFDS_DATA_DIR" in fails("tfds:tiny_offline")


def test_tfds_prepared_by_another_process_meanwhile(data_dir, builders, monkeypatch):
    original = builders.TinyShapes.download_and_prepare

    def slow(self, **settings):
        monkeypatch.setattr(builders.TinyShapes, "download_and_prepare", original)
        open_dataset("tfds:tiny_shapes")
        raise FileExistsError("cannot rename")

    monkeypatch.setattr(builders.TinyShapes, "download_and_prepare", slow)
    assert labels(open_dataset("tfds:tiny_shapes").val) == [0, 1, 0, 1]


def test_a_record_without_label_is_named():
    records = [{"image": b"", "label": -1}]
    source = by_tfds.Records(records, "image", "label", "tfds:x/train", "")
    with pytest.raises(ZooError, match="tfds:x/train/0 has no label"):
        source[0]
    with pytest.raises(ZooError, match="tfds:x/train/0 has no label"):
        labels_of(source)


def test_tensorflow_is_kept_off_the_gpu(monkeypatch):
    asked = []
    fake = SimpleNamespace(
        config=SimpleNamespace(set_visible_devices=lambda *args: asked.append(args))
    )
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    by_tfds._keep_tensorflow_off_the_gpu()
    assert asked == [([], "GPU")]
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    by_tfds._keep_tensorflow_off_the_gpu()  # not installed: nothing to do


# --- folders with everything wrong in them

ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0  # may read what nobody may


def truncated(path: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    return "truncated"


def empty(path: Path) -> str:
    path.touch()
    return "is empty"


def words(path: Path) -> str:
    path.write_text("hello")
    return "not a picture"


def huge(path: Path) -> str:
    """A PNG that says it is 30000x30000, in a few bytes."""
    Image.new("L", (1, 1)).save(path, "PNG")
    data = bytearray(path.read_bytes())
    data[16:24] = (30000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)
    return "pixels, more than"


def huge_jpeg(path: Path) -> str:
    Image.new("RGB", (16, 16)).save(path, "JPEG")
    data = path.read_bytes()
    start = data.index(b"\xff\xc0") + 5  # height and width, of the start of the frame
    path.write_bytes(data[:start] + (30000).to_bytes(2) * 2 + data[start + 4 :])
    return "pixels, more than"


def dangling(path: Path) -> str:
    path.symlink_to("nowhere.jpg")
    return "No such file"


def own_link(path: Path) -> str:
    path.symlink_to(path.name)
    return "symbolic links"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "a pipe, not a file"


def bound_socket(path: Path) -> str:
    here = Path.cwd()
    os.chdir(path.parent)  # its full path may be too long
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)
    return "a socket, not a file"


def device(path: Path) -> str:
    path.symlink_to("/dev/null")
    return "a device, not a file"


def folder(path: Path) -> str:
    path.mkdir()
    return "a folder, not a file"


def loop(path: Path) -> str:
    """A link to its own folder, with no suffix."""
    path.with_suffix("").symlink_to(".")
    return "a link to a folder"


BROKEN = (
    truncated,
    empty,
    words,
    huge,
    huge_jpeg,
    dangling,
    own_link,
    pipe,
    bound_socket,
    device,
    folder,
    loop,
)


def wrong_suffix(path: Path) -> None:
    picture(0).save(path, "PNG")


def cmyk(path: Path) -> None:
    picture(0).convert("CMYK").save(path)


def deep(path: Path) -> None:
    """16 bits, a PNG called JPEG."""
    Image.fromarray(np.full((9, 9), 0x8081, np.uint16)).save(path, "PNG")


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def forbidden(path: Path) -> None:
    """For nobody's eyes; root reads it all the same."""
    picture(0).save(path)
    path.chmod(0)


ODD = (wrong_suffix, cmyk, deep, animated)


def mixed_folder(root: Path, count: int, broken: int) -> tuple[set[str], dict[str, str]]:
    """`count` pictures of three classes, `broken` of them no pictures.

    Returns:
        the paths of those that can be read, and of each other one a part of the reason.
    """
    good, bad = set(), {}
    plain = io.BytesIO()
    picture(1).save(plain, "JPEG")
    for i in range(count):
        path = root / "abc"[i % 3] / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < broken:
            make = BROKEN[i % len(BROKEN)]
            bad[str(path.with_suffix("") if make is loop else path)] = make(path)
        elif i < broken + len(ODD):
            ODD[i - broken](path)
            good.add(str(path))
        elif i == broken + len(ODD):
            forbidden(path)
            if ROOT_USER:
                good.add(str(path))
            else:
                bad[str(path)] = "Permission denied"
        else:
            path.write_bytes(plain.getvalue())
            good.add(str(path))
    return good, bad


@pytest.mark.parametrize(
    ("count", "broken"), [(200, 24), pytest.param(2000, 100, marks=pytest.mark.slow)]
)
def test_a_folder_with_everything_wrong_in_it(count, broken, tmp_path):
    good, bad = mixed_folder(tmp_path, count, broken)
    assert len(good) + len(bad) == count

    line = fails(f"folder:{tmp_path}")
    assert line.startswith(f"{len(bad)} of {count} images in {tmp_path} cannot be read: ")
    told = sorted(bad)
    for path in told[:3]:
        assert f"{path}: " in line
    assert told[3] not in line
    assert f"; and {len(bad) - 3} more. Leave them out with --skip-unreadable" in line

    data = open_dataset(f"folder:{tmp_path}", skip_unreadable=True)
    assert {path for source in (data.train, data.val) for path, _ in source.examples} == good
    assert len(data.train) + len(data.val) == len(good)
    assert len(data.skipped) == len(bad)
    for entry, path in zip(data.skipped, told, strict=True):
        assert entry.startswith(f"{path}: ")
        assert bad[path] in entry
    weights = [b["weight"].sum() for b in eval_batches(data.val, TINY, batch_size=16)]
    assert sum(weights) == len(data.val)
    batches = train_batches(data, TINY, batch_size=16, seed=0, crop_scale=0.5)
    seen = sum(len(next(batches)["label"]) for _ in range(len(data.train) // 16))
    assert seen == len(data.train) // 16 * 16


def test_what_looks_odd_is_read_right(tmp_path):
    for make in ODD:
        make(tmp_path / f"{make.__name__}.jpg")

    def pixel(name: str) -> list[int]:
        return TINY.image(tmp_path / f"{name}.jpg")[2, 2].tolist()

    assert pixel("deep") == [0x80] * 3  # 0x8081 / 257, not clipped to 255
    assert pixel("animated")[0] > 200  # the first frame: red
    assert TINY.image(tmp_path / "cmyk.jpg").std() > 5
    np.testing.assert_array_equal(TINY.image(tmp_path / "wrong_suffix.jpg"), TINY.image(picture(0)))


def test_folders_that_are_linked_in_circles(pets):
    (pets / "cat" / "up").symlink_to("..")
    (pets / "cat" / "more" / "deep").mkdir(parents=True)
    draw(pets / "cat" / "more" / "deep" / "x.png")
    (pets / "cat" / "z").symlink_to("more")
    (pets / "dog" / "more.png").symlink_to(pets / "cat" / "more")  # a folder, and another class's
    (pets / "emu").symlink_to(".")
    data = open_dataset(f"folder:{pets}", skip_unreadable=True)
    assert data.classes == ("cat", "dog")
    assert [entry.removeprefix(f"{pets}/") for entry in data.skipped] == [
        "cat/up: a link to a folder that is read already",
        "cat/z: a link to a folder that is read already",
        "emu: a link to a folder above it",
    ]
    assert len(data.train) + len(data.val) == 5 + 2


@pytest.mark.skipif(ROOT_USER, reason="root may read every folder")
def test_a_folder_that_may_not_be_entered(pets):
    draw(pets / "cat" / "own" / "x.png")
    (pets / "cat" / "own").chmod(0)
    assert f"1 of 6 images in {pets} cannot be read: {pets}/cat/own: Perm" in fails(
        f"folder:{pets}"
    )
    (pets / "cat").chmod(0)
    assert f"no images in the class folder {pets}/cat ({pets}/cat: Permission denied)" in fails(
        f"folder:{pets}"
    )
    pets.chmod(0)
    assert fails(f"folder:{pets}") == f"cannot read folder {pets}: Permission denied"
    pets.chmod(0o700)
    (pets / "cat").chmod(0o700)
    (pets / "cat" / "own").chmod(0o700)


def test_a_class_all_of_whose_files_cannot_be_looked_into(pets):
    (pets / "emu").mkdir()
    (pets / "emu" / "x").symlink_to("..")
    line = fails(f"folder:{pets}", skip_unreadable=True)
    assert line.startswith(f"no images in the class folder {pets}/emu ({pets}/emu/x: a link")


def test_pictures_that_cannot_be_named_are_named(pets):
    rows = [{"image": name, "label": "a\ud800"} for name in ("\ud800.png", "\udcff.png")]
    line = fails(
        listed(pets, "\n".join(map(json.dumps, [*rows, {"image": "x", "label": 2}])), "x.jsonl")
    )
    assert line.startswith("3 of 3 images in ")
    assert "\\ud800.png: 'utf-8' codec can't encode" in line


def test_pipes_are_not_opened_by_any_spec(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for kind in ("cifar10", "cifar100", "mnist", "tar", "folder"):
        assert "pipe" in fails(f"{kind}:{tmp_path}/pipe")


def test_names_that_are_no_text_are_shown(pets):
    os.write(os.open(os.fsencode(pets) + b"/dog/\xff.jpg", os.O_CREAT | os.O_WRONLY), b"hello")
    data = open_dataset(f"folder:{pets}", skip_unreadable=True)
    (entry,) = data.skipped
    assert entry.encode().startswith(f"{pets}/dog/\\udcff.jpg: not a picture".encode())
