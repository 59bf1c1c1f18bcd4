"""Pictures of other than three channels: networks, published weights, preprocessing, files."""

import math
import re

import numpy as np
import pytest
from PIL import Image

import zoo
from training.cli import main
from zoo import registry
from zoo.context import Spec
from zoo.preprocess import IMAGENET, KERAS_CAFFE
from zoo.pretrained import convert
from zoo.pretrained.layouts import LAYOUTS

FAMILIES = {variant.family: name for name, variant in reversed(registry.variants().items())}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    *("mobilenet_v1_025", "inception_v2", "squeezenet1_1"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES.values()),
])  # fmt: skip
@pytest.mark.parametrize("in_chans", [1, 4])
def test_what_reads_the_picture_alone_is_another(name, in_chans):
    model = registry.abstract(Spec(name))
    rgb, first = convert.expected(model), f"body.{model.body.order[0]}."
    other = convert.expected(registry.abstract(Spec(name, in_chans=in_chans)))
    assert rgb.keys() == other.keys()
    for path in [path for path in rgb if rgb[path] != other[path]]:
        assert path.startswith(first)
    params = sum(math.prod(shape) for path, shape in other.items() if ".norm." not in path)
    grown = params - sum(math.prod(shape) for path, shape in rgb.items() if ".norm." not in path)
    assert grown // (in_chans - 3) > 0


def test_counts_by_hand(capsys):
    grey = zoo.count("resnet18", in_chans=1)
    assert zoo.count("resnet18").params - grey.params == 2 * 64 * 7 * 7
    assert zoo.count("resnet18").macs - grey.macs == 2 * 64 * 7 * 7 * 112 * 112
    assert zoo.info("resnet18", in_chans=1).count == grey
    for command in ("params", "info"):
        main([command, "resnet18", "--in-chans", "1"])
        assert f"{grey.params:,}"[:5] in capsys.readouterr().out
    for bad in ("0", "-1", "10001"):
        with pytest.raises(SystemExit, match="2"):
            main(["params", "resnet18", "--in-chans", bad])
        assert capsys.readouterr().err == (
            f"zoo params: in_chans: got {bad}, expected 1 to 10,000\n"
        )
    with pytest.raises(SystemExit, match="2"):
        main(["params", "resnet18", "--in-chans", "1", "--against", "timm"])


def test_bad_numbers_of_channels(tiny):
    for bad in (0, "1", 1.0, True):
        with pytest.raises(zoo.ZooError, match=r"^in_chans: got "):
            zoo.create("resnet18", in_chans=bad)
    with pytest.raises(zoo.ZooError, match="in_chans: expected with a name, got a network"):
        zoo.count(zoo.create("tiny"), in_chans=1)
    grey = zoo.create("tiny", in_chans=1)
    with pytest.raises(zoo.ZooError, match=r"got float32 \[1, 16, 16, 3\], .*\[N, H, W, 1\]"):
        grey(np.zeros((1, 16, 16, 3), "f"))


def test_a_convolution_in_groups_that_do_not_divide_the_channels():
    from flax import nnx

    from zoo.context import Context
    from zoo.layers import Conv

    ctx = Context(Spec("resnet18"), nnx.Rngs(dropout=0))
    with pytest.raises(zoo.ZooError, match="resnet18: got 4 channels for a convolution in 3 group"):
        Conv(3, 9, groups=3).build(4, ctx)


# --- weights -------------------------------------------------------------------------------------


def kernel(model):
    return np.asarray(model.body.stem.conv.kernel[...])


def test_a_published_first_convolution_is_converted_as_timm_does(tmp_path):
    rgb = zoo.load("mobilenet_v1_025.digits")
    x = np.random.default_rng(0).normal(size=(2, 48, 48, 1)).astype("f")
    want = np.asarray(rgb(np.repeat(x, 3, -1)))
    k = kernel(rgb)
    for in_chans, expected in (
        (1, k.sum(2, keepdims=True)),
        (2, k[:, :, :2] * 1.5),
        (4, np.concatenate([k, k[:, :, :1]], 2) * 0.75),
        (7, np.concatenate([k, k, k[:, :, :1]], 2) * (3 / 7)),
    ):
        model = zoo.load("mobilenet_v1_025.digits", in_chans=in_chans)
        np.testing.assert_allclose(kernel(model), expected, rtol=1e-6)
        assert model.spec.in_chans == model.preprocess.in_chans == in_chans
        assert model.classes == rgb.classes
        assert "first convolution" in model.notes[0]
    grey = zoo.load("mobilenet_v1_025.digits", in_chans=1)
    np.testing.assert_allclose(np.asarray(grey(x)), want, rtol=1e-3, atol=1e-4)
    zoo.save(grey, tmp_path / "grey.safetensors")
    back = zoo.load(tmp_path / "grey.safetensors")
    assert (back.spec, back.preprocess, back.notes) == (grey.spec, grey.preprocess, ())
    np.testing.assert_array_equal(kernel(back), kernel(grey))
    with pytest.raises(zoo.ZooError, match="the weights are for 1 channels, got 4: expected 1, or"):
        zoo.load(tmp_path / "grey.safetensors", in_chans=4)
    other = zoo.load(tmp_path / "grey.safetensors", num_classes=3)
    assert (other.spec.in_chans, other.spec.num_classes) == (1, 3)


def test_files_of_others_show_their_channels(tmp_path):
    grey = zoo.create("mobilenet_v1_025", num_classes=4, in_chans=1)
    model = registry.abstract(grey.spec)
    from flax import nnx
    from flax.traverse_util import flatten_dict

    state = nnx.to_pure_dict(nnx.state(grey, nnx.Any(nnx.Param, nnx.BatchStat)))
    layout = LAYOUTS["keras"]
    theirs = {
        layout.source_name(path, layout.rules_for(model)): layout.restore(
            path, np.asarray(value), model
        )
        for path, value in flatten_dict(state, sep=".").items()
    }
    np.savez(tmp_path / "grey.npz", **theirs)
    how = dict(file=tmp_path / "grey.npz", layout="keras", numerics="KERAS")
    back = zoo.load("mobilenet_v1_025", **how)
    assert back.spec.in_chans == back.preprocess.in_chans == 1
    np.testing.assert_array_equal(kernel(back), kernel(grey))
    with pytest.raises(zoo.ZooError, match="the weights are for 1 channels, got 3"):
        zoo.load("mobilenet_v1_025", in_chans=3, **how)


def test_what_reads_each_channel_by_itself_is_not_converted():
    shapes = convert.expected(registry.abstract(Spec("inception_v2")))
    values = {path: np.zeros(shape, "f") for path, shape in shapes.items()}
    model = registry.abstract(Spec("inception_v2", in_chans=4))
    with pytest.raises(zoo.ZooError, match=r"in_chans: inception_v2 reads each channel by itself"):
        convert.adapt_channels(model, values, 3)


def test_several_layers_may_read_the_picture(network):
    from zoo.layers import GlobalAvgPool
    from zoo.models.resnet import Block

    body, head = dict(block=Block(8, 2)), dict(pool=GlobalAvgPool())
    rgb, grey = (network(body, head, num_classes=2, in_chans=n) for n in (3, 1))
    values = {path: np.ones(shape, "f") for path, shape in convert.expected(rgb).items()}
    adapted = convert.adapt_channels(grey, values, 3)
    for path, shape in convert.expected(grey).items():
        assert adapted[path].shape == shape
        assert (adapted[path] == (3 if shape != values[path].shape else 1)).all()


# --- preprocessing -------------------------------------------------------------------------------


def test_means_and_deviations_of_other_channels():
    grey, rgba = IMAGENET.of_channels(1), IMAGENET.of_channels(4)
    assert grey.mean == pytest.approx([0.449])
    assert grey.std == pytest.approx([0.226])
    assert rgba.mean == pytest.approx([*IMAGENET.mean, 0.449])
    assert IMAGENET.of_channels(3) is IMAGENET
    assert rgba.of_channels(4) is rgba
    for record in (grey, rgba):
        assert zoo.Preprocess.from_dict(record.to_dict()) == record
    with pytest.raises(zoo.ZooError, match="pictures of 1 channels, expected 4 or 3"):
        grey.of_channels(4)
    for mean, std in (((0.5,), (0.5,) * 3), ((0.5,) * 3, (0.5,)), ((), ()), ((0.5,) * 4, (0.5,))):
        with pytest.raises(zoo.ZooError, match=r"^(mean|std) must be three .*, got \("):
            zoo.Preprocess(mean=mean, std=std)


def test_grey_pictures_keep_their_values(tmp_path):
    pixels = noise(40, 50)
    grey = zoo.Preprocess(size=32, resize=32).of_channels(1)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    picture = Image.fromarray(pixels).resize((40, 32), Image.Resampling.BILINEAR)
    want = np.asarray(picture)[:, 4:36, None]
    for source in (tmp_path / "grey.png", pixels, pixels[..., None], Image.fromarray(pixels)):
        np.testing.assert_array_equal(grey.image(source), want)
    np.testing.assert_allclose(
        grey.normalize(want), (want / 255 - 0.449) / 0.226, rtol=1e-5, atol=1e-5
    )
    Image.fromarray(pixels.astype(np.int32) * 257).convert("I;16").save(tmp_path / "deep.png")
    np.testing.assert_array_equal(grey.image(tmp_path / "deep.png"), want)
    colours = Image.fromarray(noise(32, 32, 3))
    np.testing.assert_array_equal(grey.image(colours)[..., 0], np.asarray(colours.convert("L")))


def test_four_channels_keep_transparency(tmp_path):
    pixels = noise(32, 32, 4)
    pixels[..., 3] |= 1
    rgba = zoo.Preprocess(size=32, resize=32).of_channels(4)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    for source in (tmp_path / "alpha.png", pixels, pixels / np.float32(255)):
        np.testing.assert_array_equal(rgba.image(source), pixels)
    opaque = rgba.image(pixels[..., :3])
    np.testing.assert_array_equal(opaque[..., :3], pixels[..., :3])
    assert (opaque[..., 3] == 255).all()
    with pytest.raises(zoo.ZooError, match=r"\[H, W, 3\] or \[H, W\], .*got uint8 \[32, 32, 4\]"):
        zoo.Preprocess(size=32, resize=32).image(pixels)
    with pytest.raises(zoo.ZooError, match=r"uint8 0..255 \[..., 4\], got uint8 \[32, 32, 3\]"):
        rgba.normalize(pixels[..., :3])


@pytest.mark.parametrize("interpolation", ["tf_bilinear", "nearest"])
@pytest.mark.parametrize("in_chans", [1, 4])
def test_every_way_to_resize_gives_as_many_channels(interpolation, in_chans):
    record = zoo.Preprocess(size=16, resize=20, interpolation=interpolation).of_channels(in_chans)
    assert record.image(noise(30, 30, 3)).shape == (16, 16, in_chans)
    assert record.image(noise(2, 30_000)).shape == (16, 16, in_chans)  # like a thread
    assert record(noise(5, 30, 30, 3)).shape == (5, 16, 16, in_chans)


def test_other_orders_and_numbers():
    bgra = KERAS_CAFFE.of_channels(4)
    x = noise(2, 2, 4)
    want = (x / 255 - np.asarray(bgra.mean)) / np.asarray(bgra.std)
    np.testing.assert_allclose(bgra.normalize(x), want[..., [2, 1, 0, 3]], rtol=1e-4, atol=1e-3)
    many = IMAGENET.of_channels(13)
    assert many.normalize(noise(1, 8, 8, 13)).shape == (1, 8, 8, 13)
    with pytest.raises(zoo.ZooError, match=re.escape("pictures have 1, 3 or 4 channels, expected")):
        many.image(noise(8, 8, 3))


# --- what is done with them ----------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("in_chans", [1, 4])
def test_predict(in_chans, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = zoo.create("tiny", num_classes=2, in_chans=in_chans)
    model.classes = ["no", "yes"]
    zoo.save(model, "model.safetensors")
    Image.fromarray(noise(20, 20, 4)).save("a.png")
    Image.fromarray(noise(20, 20)).save("b.jpg")
    main(["predict", "a.png", "b.jpg", "--model", "model.safetensors", "--png", "sheet.png"])
    assert len(re.findall(r"%  (?:yes|no)$", capsys.readouterr().out, re.MULTILINE)) == 4
    with Image.open("sheet.png") as sheet:
        assert sheet.mode == "RGB"


def test_convert(tmp_path, capsys):
    rgb = zoo.load("mobilenet_v1_025.digits")
    zoo.save(rgb, tmp_path / "rgb.safetensors")
    out = str(tmp_path / "grey.safetensors")
    name = ["--model", "mobilenet_v1_025", "--in-chans", "1"]
    main(["convert", str(tmp_path / "rgb.safetensors"), out, *name])
    assert "first convolution" in capsys.readouterr().err
    assert zoo.load(out).spec.in_chans == 1
