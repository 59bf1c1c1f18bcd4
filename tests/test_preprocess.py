"""From pictures of every kind to network input: `zoo.preprocess`."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT, TEST_DATA
from PIL import Image

from zoo import preprocess as preprocess_module
from zoo import reading
from zoo.errors import ZooError
from zoo.preprocess import (
    CAFFE,
    IMAGENET,
    INCEPTION,
    INTERPOLATIONS,
    KERAS_CAFFE,
    KERAS_TF,
    KERAS_TORCH,
    PRESETS,
    SLIM,
    SLIM_VGG,
    Preprocess,
)

reading.suffixes()  # has Pillow know all of its formats
SAVED = {*Image.SAVE} - {"BLP"}  # which takes a palette of its own


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)


def torchvision_crop(picture: Image.Image, resize: int, size: int, filter) -> np.ndarray:
    """Resize(resize) and CenterCrop(size) of torchvision on a PIL image, written out anew."""
    w, h = picture.size
    if w <= h:
        w, h = resize, int(resize * h / w)
    else:
        w, h = int(resize * w / h), resize
    pixels = np.asarray(picture.resize((w, h), filter))
    top, left = round((h - size) / 2.0), round((w - size) / 2.0)
    return pixels[top : top + size, left : left + size]


# --- geometry


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 333), (256, 256), (256, 301), (33, 97), (701, 299)]
)
def test_crop_equals_torchvision_rule(height, width, interpolation):
    pixels = noise(height, width, 3)
    filter = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[interpolation]
    for resize, size in ((256, 224), (341, 299), (73, 64)):
        ours = Preprocess(size=size, resize=resize, interpolation=interpolation).image(pixels)
        want = torchvision_crop(Image.fromarray(pixels), resize, size, filter)
        assert ours.dtype == np.uint8
        np.testing.assert_array_equal(ours, want)


def test_squash_keeps_all_of_the_picture():
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 50:] = 200  # right half
    out = Preprocess(size=20, resize=None).image(pixels)
    assert out.shape == (20, 20, 3)
    assert (out[:, :9] == 0).all()
    assert (out[:, 11:] == 200).all()


@pytest.mark.parametrize("interpolation", [i for i in INTERPOLATIONS if i != "tf_bilinear"])
def test_interpolations_are_pillows(interpolation):
    out = Preprocess(size=32, resize=None, interpolation=interpolation).image(noise(50, 70, 3))
    filter = getattr(Image, interpolation.upper())
    want = np.asarray(Image.fromarray(noise(50, 70, 3)).resize((32, 32), filter))
    np.testing.assert_array_equal(out, want)


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """TensorFlow's kernel, pixel by pixel: align_corners and half_pixel_centers False."""
    out = np.empty((height, width, 3), np.float32)
    rows, columns = image.shape[:2]
    for i, j in np.ndindex(height, width):
        y, x = (
            np.float32(i) * np.float32(rows / height),
            np.float32(j) * np.float32(columns / width),
        )
        top, left = int(y), int(x)
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        above = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
        below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
        out[i, j] = above + (below - above) * (y - top)
    return out


@pytest.mark.parametrize("shape", [(50, 71), (97, 64), (20, 30)], ids=str)
def test_slims_pictures(shape):
    """inception_preprocessing.preprocess_for_eval and vgg_preprocessing's, in NumPy."""
    pixels = noise(*shape, 3)
    floats = pixels.astype(np.float32)
    rows, columns = (side // 16 for side in shape)  # tf.image.central_crop(image, 0.875)
    middle = floats[rows : shape[0] - rows, columns : shape[1] - columns]
    want = resize_bilinear(middle, 24, 24)
    assert np.abs(SLIM.at_size(24).image(pixels) - want).max() <= 0.501  # rounded

    vgg = replace(SLIM_VGG, size=24, resize=28)
    height, width = (round(28 * side / min(shape)) for side in shape)
    top, left = (height - 24) // 2, (width - 24) // 2
    want = resize_bilinear(floats, height, width)[top : top + 24, left : left + 24]
    assert np.abs(vgg.image(pixels) - want).max() <= 0.501


def test_training_crops_what_slim_cuts_out():
    assert SLIM.resized((500, 375)) == (256, 256)  # of which the middle 224 is used


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            dict(size=10**9),
            "size must be a positive number of pixels, got 1000000000, expected 1 to 10,000",
        ),
        (dict(size="224"), "size must be a positive number of pixels, got '224'"),
        (dict(size=True), "size must be a positive number"),
        (dict(resize=256.0), "resize must be a positive number of pixels"),
        (dict(mean=[float("nan")] * 3), "mean must be three numbers"),
        (dict(mean=[1e300] * 3), "mean must be three numbers"),
        (dict(std=[1, 1, float("inf")]), "std must be three positive numbers"),
        (dict(std=["1", "1", "1"]), "std must be three positive numbers"),
        (dict(central=0), "central: got 0.0, expected 0 < share <= 1"),
        (dict(interpolation=["bilinear"]), "unknown interpolation"),
        (dict(channels=None), "unknown channel order"),
        (dict(squash=1), "squash: got 1, expected True or False"),
        (dict(note=["a"]), "note: got"),
    ],
    ids=str,
)
def test_values_that_a_file_may_have(values, message):
    with pytest.raises(ZooError, match=re.escape(message)):
        Preprocess.from_dict(values)


def test_numpys_numbers_become_pythons():
    record = Preprocess(size=np.int64(32), resize=np.int16(40), mean=np.zeros(3), std=np.ones(3))
    assert json.loads(json.dumps(record.to_dict())) == record.to_dict()
    assert Preprocess.from_dict(record.to_dict()) == record


def test_a_note_is_kept_and_makes_no_difference():
    noted = Preprocess(note="assumed")
    assert noted == Preprocess()
    assert "assumed" in repr(noted)
    assert Preprocess.from_dict(noted.to_dict()).note == "assumed"
    assert "note" not in Preprocess().to_dict()


def test_squash_then_crop():
    pixels = noise(40, 100, 3)
    out = Preprocess(size=20, resize=30, squash=True).image(pixels)
    warped = np.asarray(Image.fromarray(pixels).resize((30, 30), Image.BILINEAR))
    np.testing.assert_array_equal(out, warped[5:25, 5:25])
    assert CAFFE.at_size(227).resized((640, 480)) == (259, 259)


def test_at_size_keeps_the_crop_share():
    assert (IMAGENET.at_size(299).size, IMAGENET.at_size(299).resize) == (299, 341)
    assert IMAGENET.at_size(224) == IMAGENET
    assert IMAGENET.at_size(32).resize == 36
    assert Preprocess(resize=None).at_size(32) == Preprocess(size=32, resize=None)
    assert INCEPTION.at_size(96).mean == INCEPTION.mean


# --- pictures of every kind


@pytest.fixture
def plain() -> Preprocess:
    return Preprocess(size=8, resize=8)


def test_path_string_pil_and_array_agree(tmp_path, plain):
    pixels = noise(8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        np.testing.assert_array_equal(plain.image(source), pixels)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(mode, tmp_path, plain):
    grey = Image.fromarray(noise(8, 8)).convert(mode)
    grey.save(tmp_path / "a.png")
    want = np.repeat(np.asarray(grey.convert("L"))[..., None], 3, axis=-1)
    np.testing.assert_array_equal(plain.image(tmp_path / "a.png"), want)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_grey_arrays(shape, plain):
    pixels = noise(*shape)
    want = np.repeat(pixels.reshape(8, 8, 1), 3, axis=-1)
    np.testing.assert_array_equal(plain.image(pixels), want)


def test_palette_keeps_its_colours(tmp_path, plain):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[4:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).quantize(2).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(plain.image(tmp_path / "a.gif"), pixels)


def test_cmyk(tmp_path, plain):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cyan.save(tmp_path / "a.jpg", quality=100)
    out = plain.image(tmp_path / "a.jpg").astype(int)
    assert np.abs(out - (0, 255, 255)).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode, tmp_path, plain):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:4] = 0
    if mode == "P":
        picture = Image.new("P", (8, 8), 1)
        picture.putpalette([0, 0, 0, 90, 90, 90])
        picture.paste(0, (0, 0, 8, 4))
        picture.save(tmp_path / "a.png", transparency=0)
    else:
        picture = Image.new("RGB" if mode == "RGBA" else "L", (8, 8), "#5a5a5a")
        picture.putalpha(Image.fromarray(alpha))
        picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == mode
    out = plain.image(tmp_path / "a.png")
    assert (out[:4] == 255).all()
    assert (out[4:] == 90).all()


def test_opaque_alpha_changes_nothing(plain):
    pixels = noise(8, 8, 4)
    pixels[..., 3] = 255
    np.testing.assert_array_equal(plain.image(Image.fromarray(pixels)), pixels[..., :3])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(suffix, tmp_path, plain):
    values = np.zeros((8, 8), np.uint16)
    values[2:4], values[4:6], values[6:] = 257 * 100, 65535, 200
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    rows = plain.image(tmp_path / f"a.{suffix}")[:, 0, 0]
    assert rows.tolist() == [0, 0, 100, 100, 255, 255, 1, 1]


def test_pixels_without_an_agreed_range_are_an_error(tmp_path, plain):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ZooError, match=r"a\.tif: F pixels have no agreed range"):
        plain.image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, -1), (8, 1)], ids="1368"
)
def test_exif_rotation(orientation, quarter_turns, tmp_path, plain):
    pixels = noise(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    want = np.rot90(pixels, quarter_turns)
    np.testing.assert_array_equal(plain.image(tmp_path / "a.png"), want)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture(tmp_path, plain):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.jpg", exif=b"Exif\0\0neither II nor MM")
    for name in ("a.jpg", "b.jpg"):
        assert plain.image(tmp_path / name)[0, 0, 0] > 250


def test_the_given_picture_is_left_as_it_was(plain):
    picture = Image.fromarray(noise(20, 30, 3))
    before = np.array(picture)
    plain.image(picture)
    np.testing.assert_array_equal(np.asarray(picture), before)


# --- errors


def damaged(folder: Path, kind: str) -> Path:
    path = folder / "bad.jpg"
    if kind == "truncated":
        Image.fromarray(noise(64, 64, 3)).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    elif kind == "text":
        path.write_text("not a picture at all")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "truncated"),
        ("text", "not a picture of any format that is read"),
        ("empty", "it is empty"),
        ("missing", "No such file or directory"),
        ("folder", "a folder, not a file"),
    ],
)
def test_unreadable_files(kind, reason, tmp_path):
    path = damaged(tmp_path, kind)
    with pytest.raises(ZooError) as error:
        IMAGENET.image(path)
    line = str(error.value)
    assert line.startswith(f"cannot read image {path}: ")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (np.zeros((8, 8, 3), np.int64), r"uint8 or float in 0\.\.1, got int64 \[8, 8, 3\]"),
        (
            np.full((8, 8, 3), 255.0),
            r"values in 0\.\.1 .*, got float64 \[8, 8, 3\] from 255 to 255",
        ),
        (np.full((8, 8, 3), -0.1, np.float32), r"in 0\.\.1 \(or uint8 in 0\.\.255\), got float32"),
        (np.full((8, 8, 3), np.nan, np.float32), "from nan to nan"),
        (np.zeros((8, 8, 4), np.float32), r"got float32 \[8, 8, 4\]"),
        (np.zeros((8, 8, 4), np.uint8), r"got uint8 \[8, 8, 4\]"),
        (np.zeros((3, 8, 8), np.uint8), r"got uint8 \[3, 8, 8\]"),
        (np.zeros(8, np.uint8), r"got uint8 \[8\]"),
        (np.zeros((0, 8, 3), np.uint8), r"got no pixels: \[0, 8, 3\]"),
        (None, "got NoneType"),
    ],
)
def test_sources_that_are_no_picture(source, got):
    with pytest.raises(ZooError, match=got):
        IMAGENET.image(source)
    with pytest.raises(ZooError, match=got):
        IMAGENET(source)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"size": 0}, "size must be a positive number of pixels, got 0"),
        ({"size": 300}, r"resize must be None or at least size \(300\), got 256"),
        ({"interpolation": "bilinar"}, "did you mean 'bilinear'"),
        ({"mean": (0.5, 0.5)}, "mean must be three numbers"),
        ({"std": (0.5, 0.5, 0)}, "std must be three positive numbers"),
        ({"mean": 0.5}, "mean must be three numbers"),
        ({"channels": "grb"}, "unknown channel order 'grb': did you mean 'rgb', 'bgr'"),
        ({"squash": 256}, "squash: got 256, expected True or False"),
    ],
)
def test_impossible_values(field, message):
    with pytest.raises(ZooError, match=message):
        Preprocess(**field)


# --- hostile pictures


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 30_000)])
def test_of_a_thread_of_a_picture_what_is_seen_alone_is_resized(size, tmp_path):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "thread.png")
    begun = time.process_time()
    seen = IMAGENET.image(tmp_path / "thread.png")
    assert time.process_time() - begun < 1
    assert seen.shape == (224, 224, 3)
    assert (seen == (200, 100, 50)).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(7, 900), (900, 7), (40, 900)])
def test_that_gives_the_same_pixels(size, interpolation, monkeypatch):
    picture, record = Image.fromarray(noise(*size[::-1], 3)), Preprocess(56, 64, interpolation)
    whole = record.image(picture).astype(int)
    monkeypatch.setattr(preprocess_module, "MOST", 0)
    assert abs(record.image(picture) - whole).max() <= 1
    assert (record.image(picture) != whole).mean() < 0.02


def test_no_other_program_is_started(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("cat.jpg", "cat.eps", "cat.ps", "cat"):
        (tmp_path / name).write_text(eps)
        with pytest.raises(ZooError, match="not a picture of any format that is read"):
            IMAGENET.image(tmp_path / name)
    assert not (tmp_path / "started").exists()
    assert not {".eps", ".ps", ".wmf", ".pdf", ".mpg", ".h5"} & reading.suffixes()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pipe", "a pipe, not a file"),
        ("/dev/zero", "a device, not a file"),
        ("/dev/null", "a device, not a file"),
        (".", "a folder, not a file"),
        ("a\0b", "embedded null"),
        ("x" * 300, "File name too long"),
        ("new\nline", "No such file or directory"),
    ],
)
def test_what_is_no_file_is_not_opened(path, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(ZooError, match=reason) as error:
        IMAGENET.image(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_setting_raises_the_most_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    Image.new("RGB", (300, 300), "red").save(tmp_path / "x.png")
    line = "90,000 pixels, more than 80,000; where it can be trusted, set ZOO_MAX_PIXELS=90000"
    with pytest.raises(ZooError, match=line) as error:
        IMAGENET.image(tmp_path / "x.png")
    monkeypatch.setenv(*str(error.value).rpartition("set ")[2].split("="))
    assert IMAGENET.image(tmp_path / "x.png").shape == (224, 224, 3)
    Image.new("CMYK", (300, 300)).save(tmp_path / "x.jpg")  # which takes more memory
    with pytest.raises(ZooError, match="300 x 300 pixels, more than 30,000;") as error:
        IMAGENET.image(tmp_path / "x.jpg")
    monkeypatch.setenv(*str(error.value).rpartition("set ")[2].split("="))
    assert IMAGENET.image(tmp_path / "x.jpg").shape == (224, 224, 3)
    for wrong in ("lots", "0", "-1", "1e9", "9" * 5000):
        monkeypatch.setenv("ZOO_MAX_PIXELS", wrong)
        with pytest.raises(ZooError, match="expected a number of pixels such as 400000000"):
            IMAGENET.image(tmp_path / "x.png")


def test_a_large_picture_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)  # above which Pillow warns
    Image.new("RGB", (300, 300), "red").save(tmp_path / "x.png")
    assert IMAGENET.image(tmp_path / "x.png").shape == (224, 224, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "P"])
def test_large_pictures_are_converted_band_by_band(mode, tmp_path, plain, monkeypatch):
    pixels = noise(50, 40, 4)
    picture = {
        "RGBA": Image.fromarray(pixels),
        "LA": Image.fromarray(pixels[..., :2].copy()),
        "I;16": Image.fromarray(pixels[..., 0].astype(np.uint16) * 255),
        "P": Image.fromarray(pixels[..., :3].copy()).quantize(16),
    }[mode]
    file = tmp_path / "x.png"
    picture.save(file, **({"transparency": 3} if mode == "P" else {}))
    whole = plain.image(file)
    monkeypatch.setattr(reading, "BAND", 400)
    np.testing.assert_array_equal(plain.image(file), whole)


@pytest.mark.parametrize("kind", sorted(SAVED & {*reading.formats()}))
def test_every_format_is_read_by_its_content_and_its_suffix(kind, tmp_path, plain):
    mode = {"XBM": "1", "MSP": "1"}.get(kind, "RGB")
    picture = Image.new("RGB", (32, 32), (200, 60, 60)).convert(mode)
    suffixes = [s for s, name in Image.registered_extensions().items() if name == kind]
    for suffix in suffixes:
        assert reading.is_picture(f"cat{suffix.upper()}")
    picture.save(tmp_path / "cat.jpg", kind)
    assert plain.image(tmp_path / "cat.jpg").shape == plain.image(picture).shape
    started = (tmp_path / "cat.jpg").read_bytes()[:16]
    if kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000"):
        assert reading.begins_as_picture(started)


# --- numbers


def test_normalize_equals_keras_tf_mode():
    x = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3)
    out = INCEPTION.normalize(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, x / 127.5 - 1, atol=2e-7)
    assert float(out.min()) == -1
    assert float(out.max()) == 1


def test_normalize_equals_torchvision():
    out = IMAGENET.normalize(np.array([[[0, 128, 255]]], np.uint8))
    want = [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(np.ravel(out), want, rtol=1e-6)


def test_the_network_sees_bgr():
    out = KERAS_CAFFE.normalize(np.array([[200, 100, 50]], np.uint8))
    np.testing.assert_allclose(out, [[50 - 103.939, 100 - 116.779, 200 - 123.68]], atol=1e-4)
    out = CAFFE.normalize(np.array([[200, 100, 50]], np.uint8))
    np.testing.assert_allclose(out, [[50 - 104, 100 - 117, 200 - 123]], atol=1e-4)


@pytest.mark.parametrize("preprocess", [IMAGENET, KERAS_CAFFE], ids=["rgb", "bgr"])
def test_normalize_under_jit_and_strict_ranks(preprocess):
    x = noise(2, 5, 4, 3)
    with jax.numpy_rank_promotion("raise"):
        compiled = jax.jit(preprocess.normalize)(x)
        want = preprocess.normalize(jax.numpy.asarray(x))
        np.testing.assert_allclose(compiled, want, atol=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_pictures(dtype):
    pixels = noise(40, 50, 3)
    floats = (pixels / 255).astype(dtype)
    small = IMAGENET.at_size(24)
    level = 1 / 255 / min(IMAGENET.std)
    np.testing.assert_allclose(small(floats), small(pixels), atol=1.01 * level)
    np.testing.assert_allclose(small(floats[None]), small(pixels), atol=1.01 * level)
    np.testing.assert_allclose(small.normalize(floats), small.normalize(pixels), atol=level)


@pytest.mark.parametrize("x", [np.zeros((2, 4, 4, 3), np.int32), np.zeros((2, 3, 4), np.uint8)])
def test_normalize_wants_uint8_channels_last(x):
    with pytest.raises(ZooError, match=r"expected images uint8 0\.\.255 \[\.\.\., 3\], got"):
        IMAGENET.normalize(x)


def test_normalize_sees_no_range_under_jit():
    with pytest.raises(ZooError, match=r"expected images uint8 0\.\.255 .* got float32"):
        jax.jit(IMAGENET.normalize)(np.zeros((1, 4, 4, 3), np.float32))


@pytest.mark.parametrize("worst", [-0.01, 1.01, 255, np.nan])
def test_normalize_refuses_floats_out_of_range(worst):
    x = np.zeros((1, 4, 4, 3), np.float32)
    x[0, 2, 1, 0] = worst
    with pytest.raises(
        ZooError, match=r"expected float images with values in 0\.\.1 .* got"
    ) as error:
        IMAGENET.normalize(x)
    assert "\n" not in str(error.value)


def test_call_takes_one_or_many(tmp_path):
    pixels = noise(2, 40, 50, 3)
    Image.fromarray(pixels[1]).save(tmp_path / "a.png")
    small = IMAGENET.at_size(24)
    want = np.stack([small.normalize(small.image(p)) for p in pixels])
    for many in (pixels, list(pixels), (pixels[0], tmp_path / "a.png")):
        out = small(many)
        assert isinstance(out, jax.Array)
        np.testing.assert_array_equal(out, want)
    for one in (pixels[1], tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels[1])):
        np.testing.assert_array_equal(small(one), want[1:])
    with pytest.raises(ZooError, match="at least one image"):
        small([])


# --- the record


def test_round_trip_through_json():
    record = Preprocess(299, 320, "lanczos", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "bgr", squash=True)
    again = Preprocess.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again == record
    assert hash(again) == hash(record)
    assert Preprocess.from_dict({}) == IMAGENET
    older = {"size": 299, "resize": 341, "interpolation": "bilinear", "mean": [0.5] * 3}
    assert Preprocess.from_dict(older) == Preprocess(299, 341, mean=(0.5, 0.5, 0.5))


def test_unknown_key():
    with pytest.raises(ZooError, match="unknown preprocess field 'sizes': did you mean 'size'"):
        Preprocess.from_dict({"sizes": 3})


def test_import_is_cheap():
    code = "import sys, zoo.preprocess; print({'jax', 'PIL', 'flax'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "set()\n", run.stderr


def test_real_photos_of_all_shapes(shared):
    for path in sorted(shared("data/photos").iterdir()):
        with Image.open(path) as picture:
            want = torchvision_crop(picture.convert("RGB"), 256, 224, Image.BILINEAR)
        np.testing.assert_array_equal(IMAGENET.image(path), want, err_msg=path.name)


# --- the sources' own pipelines


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, shared) -> list[Path]:
    """Real photos, some of them grey, and files of the other kinds that are met."""
    photos = sorted(shared("data/photos").iterdir())
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(photos[0]) as picture:
        picture = picture.convert("RGB")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.crop((5, 9, 105, 67)).save(folder / "small.png")
    picture.convert("P").save(folder / "palette.gif")
    return [*photos[::4], *sorted(folder.iterdir())]


def levels(images, preprocess: Preprocess) -> np.ndarray:
    """Network input [..., 3] back as grey levels 0..255, channels R, G, B."""
    images = np.asarray(images, np.float64)
    images = images[..., ::-1] if preprocess.channels == "bgr" else images
    return (images * preprocess.std + preprocess.mean) * 255


def assert_same_levels(preprocess: Preprocess, theirs, pictures) -> None:
    for path in pictures:
        ours = preprocess(path)[0]
        want = np.asarray(theirs(path))
        assert ours.shape == want.shape
        error = np.abs(levels(ours, preprocess) - levels(want, preprocess)).max()
        assert error <= 1, path.name


@pytest.mark.peers
@pytest.mark.parametrize(
    ("mode", "record"), [("caffe", KERAS_CAFFE), ("tf", KERAS_TF), ("torch", KERAS_TORCH)]
)
@pytest.mark.parametrize("interpolation", [i for i in INTERPOLATIONS if i != "tf_bilinear"])
def test_keras(mode, record, interpolation, pictures, keras):
    record = Preprocess.from_dict({**record.to_dict(), "interpolation": interpolation})
    record = record.at_size(160)

    def theirs(path):
        target = dict(target_size=(160, 160), interpolation=interpolation)
        x = keras.utils.img_to_array(keras.utils.load_img(path, **target))
        # every network's own `preprocess_input` is this function with its mode
        return keras.applications.imagenet_utils.preprocess_input(x, mode=mode)

    assert_same_levels(record, theirs, pictures)


@pytest.mark.peers
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 232), (299, 342)])
def test_torchvision_preset(size, resize, interpolation, pictures, torchvision):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(
        crop_size=size, resize_size=resize, interpolation=InterpolationMode(interpolation)
    )
    record = Preprocess(size=size, resize=resize, interpolation=interpolation)

    def theirs(path):
        with Image.open(path) as picture:
            return preset(picture.convert("RGB")).permute(1, 2, 0)

    assert_same_levels(record, theirs, pictures)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("crop_pct", "crop_mode", "resize"),
    [(0.875, "center", 256), (0.95, "center", 235), (1.0, "center", 224), (0.9, "squash", 248)],
)
def test_timm(crop_pct, crop_mode, resize, pictures, torchvision):
    data = pytest.importorskip("timm.data")
    config = dict(input_size=(3, 224, 224), interpolation="bicubic", crop_pct=crop_pct)
    config |= dict(crop_mode=crop_mode, mean=INCEPTION.mean, std=INCEPTION.std)
    transform = data.create_transform(**config)
    record = Preprocess(
        resize=resize,
        interpolation="bicubic",
        mean=INCEPTION.mean,
        std=INCEPTION.std,
        squash=crop_mode == "squash",
    )

    def theirs(path):
        with Image.open(path) as picture:
            return transform(picture.convert("RGB")).permute(1, 2, 0)

    assert_same_levels(record, theirs, pictures)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["turned", "alpha", "sixteen"])
def test_files_that_peers_leave_to_the_caller(kind, pictures, tmp_path, torchvision):
    """Read as they are seen; from there on as torchvision has it."""
    from torchvision.transforms._presets import ImageClassification

    with Image.open(pictures[0]) as photo:
        photo = photo.convert("RGB")
    path = tmp_path / "a.png"
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.save(path, exif=exif)
        seen = photo.transpose(Image.Transpose.ROTATE_270)
    elif kind == "alpha":
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
        photo.save(path)
        rgba = np.asarray(photo, np.float64)
        alpha = rgba[..., 3:] / 255
        seen = Image.fromarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
    else:
        grey = np.asarray(photo.convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
        seen = Image.fromarray(grey).convert("RGB")
    assert reading.read_rgb(path).size == seen.size
    preset = ImageClassification(crop_size=224)
    assert_same_levels(IMAGENET, lambda _: preset(seen).permute(1, 2, 0), [path])


@pytest.fixture(scope="module")
def keras():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        yield pytest.importorskip("keras")


@pytest.fixture(scope="module")
def torchvision():
    pytest.importorskip("torch")
    shim = TEST_DATA / "parity" / "shim"
    if shim.is_dir():  # lets torchvision stand next to a CPU-only torch
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(shim)
            pytest.importorskip("tv_import")
    return pytest.importorskip("torchvision")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_goes_through_a_file_and_takes_other_sizes_and_channels(name):
    preset = PRESETS[name]
    assert preset is getattr(preprocess_module, name)
    assert Preprocess.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    for in_chans in (1, 3, 4):
        other = preset.at_size(32).of_channels(in_chans)
        pixels = other.image(noise(40, 50, in_chans))
        assert pixels.shape == other.shape == (32, 32, in_chans)
        assert np.isfinite(other.normalize(pixels[None])).all()
