"""What peers count and papers print, and how zoo's count leads there, line by line."""

import pytest

import tools.peers
import zoo
from zoo.report.peers import (
    FILE,
    MEANS,
    SOURCES,
    UNEXPLAINED,
    _parts,
    against,
    macs,
    peers,
    peers_of,
    printed,
    reconcile,
    verdict,
)

ALL = peers()
FEW = {  # each way to differ, and none
    *("torchvision inception_v3", "torchvision googlenet", "timm resnet50", "keras ResNet50"),
    *("keras InceptionV3", "keras EfficientNetB0", "keras VGG16", "slim inception_v1"),
    *("slim mobilenet_v1_0.25", "transformers google/mobilenet_v1_0.75_192", "timm convnext_tiny"),
    *("slim vgg_a", "slim resnet_v1_50", "kerashub resnet_50_imagenet", "keras MobileNetV3Small"),
    *("kerashub vgg_16_imagenet", "kerashub mobilenet_v3_small_100_imagenet"),
}
# Declared with the number of another network.
WRONG = {("resnet50_v2", "kerashub"), ("resnet101_v2", "kerashub")}


def lines(network, peer, model):
    (found,) = (p for p in peers_of(network, peer) if p.model == model)
    return dict(reconcile(found))


def text(name, *asked):
    return "\n\n".join(table.text() for table in against(name, asked or None))


def cells(table):
    """The rows of a table by their first cell."""
    return {row[0]: row[1:] for row in table.rows}


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(p, marks=() if p.name in FEW else pytest.mark.slow, id=f"{p.network}-{p.name}")
        for p in ALL
    ],
)
def test_every_parameter_is_explained(peer):
    found = reconcile(peer)
    assert sum(number for _, number in found) == peer.params
    assert (UNEXPLAINED in dict(found)) == ((peer.network, peer.peer) in WRONG)
    if peer.input_size:  # it was counted in full
        parts = _parts(peer.spec)
        trained = sum(n for part, n in parts.items() if "statistics" not in part)
        assert peer.trainable in (trained, trained - parts["aux"])
        assert peer.aux in (0, parts["aux"])
        assert peer.batch_stats - peer.aux_batch_stats == parts["statistics"]


def test_the_few_are_peers_models():
    assert {p.name for p in ALL} >= FEW


def test_what_nobody_reconciled():
    assert lines("resnet50", "keras", "ResNet50") == {
        "zoo: trainable, 1000 classes": 25_557_032,
        "conv biases": 26_560,
        "BN statistics": 53_120,
    }
    assert sum(lines("resnet50", "keras", "ResNet50").values()) == 25_636_712
    assert lines("resnet50", "kerashub", "resnet_50_imagenet") == {
        "zoo: trainable, 1000 classes": 25_557_032,
        "head": -2_049_000,
        "BN statistics": 53_120,
    }
    assert sum(lines("resnet50", "kerashub", "resnet_50_imagenet").values()) == 23_561_152
    assert lines("inception_v3", "torchvision", "inception_v3") == {
        "zoo: trainable, 1000 classes": 23_834_568,
        "aux heads": 3_326_696,
    }
    assert sum(lines("inception_v3", "torchvision", "inception_v3").values()) == 27_161_264
    (without,) = (p for p in peers_of("inception_v3", "torchvision") if "False" in p.model)
    assert reconcile(without) == [("zoo: trainable, 1000 classes", without.params)]
    assert lines("efficientnet_b0", "keras", "EfficientNetB0")["input normalisation"] == 7
    assert lines("mobilenet_v1_025", "slim", "mobilenet_v1_0.25")["1001 classes"] == 257


def test_each_network_is_listed_once_a_model():
    listed = [(p.network, p.name) for p in ALL]
    assert len(set(listed)) == len(listed)
    assert {network for network, _ in listed} <= set(zoo.list_models())
    assert {p.peer for p in ALL} == set(SOURCES) == set(MEANS) - {"paper"}
    assert {p.network for p in printed()} <= set(zoo.list_models())


def test_the_file_is_what_the_collected_tables_give(shared):
    assert tools.peers.peers(shared("reference")) == FILE.read_text("utf-8")


# --- papers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "figure", "said"),
    [
        (138_357_544, "138M", "agrees"),
        (132_500_000, "133M", "agrees"),  # a half goes either way
        (132_499_999, "133M", "-0.4 %"),
        (25_028_904, "25.0M", "agrees"),
        (25_557_032, "25.0M", "+2.2 %"),
        (22_855_952, "22855952", "agrees"),
        (22_855_953, "22855952", "+0.0 %"),
        (4_089_184_256, "3.8G", "+7.6 %"),
        (311_579_072, "312M", "agrees"),
        (23_834_568, "<25M", "agrees"),
        (25_000_000, "<25M", "+0.0 %"),
    ],
)
def test_verdicts(ours, figure, said):
    assert verdict(ours, figure) == said


def test_papers_that_agree_and_that_differ():
    summary, table = against("resnet20_cifar", ["paper"])
    assert cells(table)["params"] == ("0.27M", 269_722, "agrees", "table 6: ResNet-20")
    assert cells(summary)["zoo resnet20_cifar"][0] == 334_072  # of 1000 classes
    assert "10 classes" in table.text()
    _, table = against("alexnet_2012", ["paper"])
    assert cells(table)["params"] == ("60M", 60_965_224, "+1.6 %", "abstract: AlexNet")
    assert "rounded down" in table.text()


# --- the report -----------------------------------------------------------------------------------


def test_resnet50_against_its_peers():
    summary, torchvision, keras, paper = against("resnet50", ["torchvision", "keras", "paper"])
    assert summary.rows[:3] == (
        ("zoo resnet50", 25_557_032, pytest.approx(4.089184, abs=1e-6), None),
        ("torchvision resnet50", 25_557_032, 4.089184, "nothing"),
        ("keras ResNet50", 25_636_712, 3.857973, "conv biases, BN statistics"),
    )
    assert cells(torchvision)["GMACs at 224 pixels, difference"] == (0.0,)
    assert keras.rows[:4] == (
        ("zoo: trainable, 1000 classes", 25_557_032),
        ("+ conv biases", 26_560),
        ("+ BN statistics", 53_120),
        ("= keras ResNet50", 25_636_712),
    )
    assert cells(keras)["GMACs at 224 pixels, difference"] == (-0.231211,)
    assert keras.notes[:2] == (MEANS["keras"], SOURCES["keras"])
    assert "strides stand elsewhere" in keras.notes[-1]
    assert ("MACs", "3.8G", 4_089_184_256, "+7.6 %", "table 1: ResNet-50") in paper.rows


def test_it_fits_a_terminal():
    said = text("inception_v1")
    assert max(map(len, said.splitlines())) <= 80
    assert "- BN scales" in said
    assert "13,004,888" in said


def test_training_s_multiply_adds_are_compared_with_slim_s():
    _, slim = against("inception_v3", ["slim"])
    assert cells(slim)["GMACs at 299 pixels, difference"] == (0.0,)


def test_multiply_adds_are_those_of_count():
    (found,) = peers_of("mobilenet_v1_025", "slim")
    assert macs(found.spec, 128) == zoo.count(found.network, input_size=128, num_classes=1001).macs


def test_all_peers_are_those_that_have_the_network():
    assert [row[0] for row in against("alexnet")[0].rows] == ["zoo alexnet", "torchvision alexnet"]
    assert [row[0] for row in against("plain18")[0].rows] == ["zoo plain18"]


def test_a_peer_without_the_network_is_told():
    summary, *tables = against("alexnet", ["keras", "paper"])
    assert tables == []
    assert summary.rows[1:] == (
        ("keras", None, None, "has no alexnet"),
        ("paper", None, None, "prints no figure of alexnet"),
    )


def test_aliases_are_known():
    assert against("googlenet", ["timm"])[0].title.startswith("inception_v1:")


@pytest.mark.parametrize(
    ("name", "asked", "line"),
    [
        ("resnet50", ["torchvison"], "unknown peer 'torchvison': did you mean 'torchvision'"),
        ("resnet50", ["mxnet!"], "unknown peer 'mxnet!': expected one of keras, kerashub, paper"),
        ("resnet5", ["keras"], "unknown model 'resnet5': did you mean 'resnet50'"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, asked, line):
    with pytest.raises(zoo.ZooError, match=f"^{line}") as error:
        against(name, asked)
    assert "\n" not in str(error.value)
