"""The catalogue of published weights: every row holds, and is found by the names people type."""

import csv
import subprocess
import sys
from collections import Counter

import pytest

import tools.catalogue
import zoo
from zoo import context
from zoo.preprocess import CAFFE, IMAGENET, INCEPTION, KERAS_CAFFE, SLIM
from zoo.pretrained import catalogue
from zoo.pretrained.catalogue import class_names, list_weights, weights
from zoo.pretrained.layouts import LAYOUTS
from zoo.registry import list_models, variants

RECORDS = [weights(name) for name in list_weights()]


def test_every_row_is_sound():
    assert len(RECORDS) >= 680
    assert len(set(list_weights())) == len(RECORDS)
    for w in RECORDS:
        assert w.model in variants(), w.name
        assert weights(w.name) == w
        assert w.name == w.name.lower()
        assert w.file.startswith(("https://", "hf://timm/")) or "/" not in w.file, w.name
        algorithm, _, digest = w.hash.partition(":")
        assert algorithm in ("", "sha256", "md5", "sha1"), w.name
        assert not w.hash or (len(digest) >= 8 and int(digest, 16)), w.name
        assert not w.numerics or isinstance(getattr(context, w.numerics), context.Numerics), w.name
        assert w.label_offset == (w.classes == 1001), w.name
        assert w.licence, w.name
        assert "-NC" not in w.licence or w.non_commercial, w.name
        for percent in (w.top1, w.top5):
            assert percent is None or 40 < percent < 100, w.name


def test_what_downloads_are_checked_against():
    assert Counter(w.check for w in RECORDS) == {
        "sha256 of the Hub": 366,
        "first download": 131,
        "sha256, 8 digits": 94,
        "sha256, 9 digits": 1,
        "sha256, 10 digits": 4,
        "md5": 66,
        "sha256": 14,
        "sha1": 1,
        "by hand": 4,
        "shipped": 13,
    }
    for w in RECORDS:  # what the check by size allows for is more than rounding
        assert w.size_mb or w.source == "slim", w.name


def test_each_network_with_weights_has_one_default_that_anyone_may_use():
    counted = Counter(w.model for w in RECORDS if w.default)
    assert counted == Counter({w.model for w in RECORDS if not w.non_commercial})
    for w in RECORDS:
        if w.default:
            assert not w.non_commercial, w.name
            assert w.classes in (10, 1000, 1001), w.name
    with pytest.raises(zoo.ZooError, match=r"ask for them by name: nin_imagenet\.caffe_in1k"):
        weights("nin_imagenet")


def test_every_row_s_layout_knows_the_network():
    for w in RECORDS:
        variant = variants()[w.model]
        names = {variant.name, variant.family, "*"}
        assert names & set(LAYOUTS[w.layout].rules), w.name


def test_most_networks_have_weights():
    without = set(list_models()) - {w.model for w in RECORDS}
    assert without == {
        *("alexnet_2012", "alexnet_v2", "plain18", "plain34"),
        "resnet110_cifar",
        *("mnasnet_140", "semnasnet_140", "semnasnet_050"),
        *("seresnet18", "seresnet34", "seresnet101", "seresnet152"),
        *("resnet200", "resnet50t"),
        *("resnetv2_152", "resnetv2_50d", "resnetv2_101d", "resnetv2_152d", "resnetv2_50t"),
    }


def families():
    """The default of the smallest network of each family."""
    largest_first = sorted((w for w in RECORDS if w.default), key=lambda w: -w.params)
    return sorted({variants()[w.model].family: w.name for w in largest_first}.values())


@pytest.mark.parametrize("name", families())
def test_parameters_are_the_network_s(name):
    w = weights(name)
    assert zoo.count(w.model, num_classes=w.classes).params == w.params


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted({w.model for w in RECORDS}))
def test_parameters_are_every_network_s(model):
    for classes, params in {(w.classes, w.params) for w in RECORDS if w.model == model}:
        assert zoo.count(model, num_classes=classes).params == params, classes


def test_preprocessing_is_the_source_s():
    assert weights("vgg16.tv1_in1k").preprocess == IMAGENET
    assert weights("googlenet.tv1_in1k").preprocess == INCEPTION  # transform_input=True
    v3 = weights("inception_v3.tv1_in1k").preprocess
    assert (v3.size, v3.resize, v3.mean) == (299, 342, INCEPTION.mean)
    a1 = weights("resnet50.a1_in1k").preprocess
    assert (a1.size, a1.resize, a1.interpolation) == (224, 235, "bicubic")
    assert weights("resnet50_v1.keras_in1k").preprocess == KERAS_CAFFE
    assert weights("inception_v1_lrn.bvlc_in1k").preprocess == CAFFE
    slim = weights("mobilenet_v1_100.slim_in1k_192").preprocess
    assert slim == SLIM.at_size(192)
    squashed = weights("convnext_tiny.fb_in22k_ft_in1k_384").preprocess
    assert (squashed.size, squashed.resize) == (384, None)


def test_numerics_follow_the_weights():
    assert weights("mobilenet_v3_large_100.in1k").numerics == "TF"  # timm's tf_mobilenetv3
    assert weights("mobilenet_v3_large_100.ra_in1k").numerics == ""  # its layout's, PyTorch's
    assert weights("efficientnet_b0.ns_jft_in1k").numerics == "TF"


def test_bare_names_and_aliases_stand_for_the_default():
    assert weights("resnet50").name == "resnet50.tv2_in1k"
    assert weights("googlenet").name == "inception_v1.tv1_in1k"
    assert weights("mobilenet_v1.keras_in1k").name == "mobilenet_v1_100.keras_in1k"
    assert weights("mobilenet_v2_035").name == "mobilenet_v2_035.keras_in1k"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet50.a1_in2k", "unknown weights 'resnet50.a1_in2k': did you mean 'resnet50.a1_in1k'"),
        ("resnet5", "unknown model 'resnet5': did you mean 'resnet50'"),
        ("resnet5.a1_in1k", "unknown model 'resnet5': did you mean 'resnet50'"),
        ("plain18", "no published weights of plain18"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, line):
    with pytest.raises(zoo.ZooError, match=line) as error:
        weights(name)
    assert "\n" not in str(error.value)


def test_patterns():
    assert list_weights("resnet18.a*") == [f"resnet18.a{i}_in1k" for i in (1, 2, 3)]
    assert list_weights("nothing*") == []


def test_class_names():
    imagenet = class_names(weights("resnet50"))
    assert len(set(imagenet)) == len(imagenet) == 1000
    assert imagenet[0] == "tench"
    assert imagenet[134] != imagenet[517]  # both are cranes
    assert class_names(weights("inception_v4.slim_in1k")) == ("background", *imagenet)
    assert class_names(weights("resnet20_cifar"))[3] == "cat"
    assert class_names(weights("convnext_tiny.fb_in22k")) == ()


def test_reading_imports_no_jax():
    code = (
        "import sys; from zoo.pretrained.catalogue import weights, list_weights;"
        "list_weights(); weights('resnet50'); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_files_are_what_the_collected_tables_give(shared):
    known = {(w.model, w.classes): w.params for w in RECORDS}

    def params(model, classes):
        return known[model, classes]

    written = catalogue.HERE / "catalogue.csv"
    assert tools.catalogue.catalogue(shared("reference"), params) == written.read_text("utf-8")
    names = catalogue.HERE / "imagenet_classes.txt"
    assert tools.catalogue.class_names(shared(".")) == names.read_text("utf-8")
    synsets = shared("data/labels/synsets.txt").read_text("utf-8")
    assert tuple(synsets.split()) == catalogue.imagenet_synsets()


def test_the_file_is_plain_csv():
    with (catalogue.HERE / "catalogue.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert all(len(row) == len(header) for row in rows)
    assert [row[0] for row in rows] == list_weights()
