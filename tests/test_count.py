"""What a network costs, against sums done by hand."""

import subprocess
import sys

import jax
import pytest

import zoo
from zoo.layers import Conv, Dense, FlattenAt, GlobalAvgPool, MaxPool, Separable
from zoo.report.count import LayerCount

# Input 32x32x3; each convolution followed by batch norm: a scale, a bias, a mean and a variance
# for each of its features.
BODY = dict(
    conv=Conv(3, 8, stride=2),
    grouped=Conv((3, 1), 16, groups=2),
    depthwise=Conv(5, 16, stride=2, groups=16),
    pointwise=Conv(1, 4, norm=False),
    pool=MaxPool(2, 2),
)
HEAD = dict(mean=GlobalAvgPool(), fc=Dense(5))

BY_HAND = (
    #                            parameters      statistics   MACs           output
    LayerCount("body.conv", 3 * 3 * 3 * 8 + 2 * 8, 2 * 8, 16 * 16 * 8 * (3 * 3 * 3), (16, 16, 8)),
    # a 3x1 kernel pads the height only
    LayerCount("body.grouped", 3 * 4 * 16 + 2 * 16, 2 * 16, 16 * 16 * 16 * (3 * 4), (16, 16, 16)),
    LayerCount("body.depthwise", 5 * 5 * 16 + 2 * 16, 2 * 16, 8 * 8 * 16 * (5 * 5), (8, 8, 16)),
    LayerCount("body.pointwise", 16 * 4 + 4, 0, 8 * 8 * 4 * 16, (8, 8, 4)),
    LayerCount("head.fc", 4 * 5 + 5, 0, 4 * 5, (5,)),
    LayerCount("classifier", 5 * 10 + 10, 0, 5 * 10, (10,)),
)


@pytest.fixture(scope="module")
def tiny(network):
    return network(BODY, HEAD, num_classes=10)


def test_each_layer_is_the_sum_by_hand(tiny):
    assert zoo.count(tiny, input_size=32).layers == BY_HAND


def test_totals_are_the_sums_of_the_rows(tiny):
    c = zoo.count(tiny, input_size=32)
    assert (c.params, c.batch_stats, c.macs) == tuple(
        sum(getattr(row, column) for row in BY_HAND) for column in ("params", "batch_stats", "macs")
    )
    assert c.head == BY_HAND[-2].params + BY_HAND[-1].params
    assert c.aux == 0
    sizes = [16 * 16 * 8, 16 * 16 * 16, 8 * 8 * 16, 8 * 8 * 4, 5, 10]
    assert (c.activations, c.largest_activation) == (sum(sizes), 16 * 16 * 16)


def test_rows_below_a_row_are_told_apart(network):
    c = zoo.count(network(dict(sep=Separable(8)), dict(mean=GlobalAvgPool()), num_classes=0))
    assert [row.name for row in c.layers] == ["body.sep.depthwise", "body.sep.pointwise"]
    assert [row.macs for row in c.layers] == [224 * 224 * 3 * 9, 224 * 224 * 8 * 3]


def test_a_shortcut_is_a_row_of_its_own():
    c = zoo.count("resnet18")
    rows = {row.name: row for row in c.layers}
    shortcut = rows["body.stage2.block0.shortcut"]
    assert shortcut == LayerCount(
        shortcut.name, 64 * 128 + 2 * 128, 2 * 128, 28 * 28 * 128 * 64, (28, 28, 128)
    )
    assert [name for name in rows if "shortcut" in name] == [
        f"body.stage{i}.block0.shortcut" for i in (2, 3, 4)
    ]
    for column in ("params", "batch_stats", "macs"):
        assert sum(getattr(row, column) for row in c.layers) == getattr(c, column)
    assert c.head == 512 * 1000 + 1000


def test_without_norm_the_layers_have_biases(network):
    c = zoo.count(network(BODY, HEAD, num_classes=10, norm="none"), input_size=32)
    rows = {row.name: row.params for row in c.layers}
    assert rows["body.conv"] == 3 * 3 * 3 * 8 + 8
    assert c.batch_stats == 0
    assert c.macs == sum(row.macs for row in BY_HAND)


def test_the_input_size_scales_convolutions_alone(tiny):
    at32, at64 = (zoo.count(tiny, input_size=size) for size in (32, 64))
    assert at64.params == at32.params
    for small, large in zip(at32.layers, at64.layers, strict=True):
        assert large.macs == small.macs * (4 if small.name.startswith("body.") else 1)


def test_averaging_before_a_dense_layer_costs_nothing(network):
    head = dict(flatten=FlattenAt(2), fc=Dense(5))
    model = network(BODY, head, num_classes=10)
    at_16, at_64 = (zoo.count(model, input_size=size) for size in (16, 64))
    assert [row.name for row in at_64.layers] == [row.name for row in at_16.layers]
    dense = [{r.name: r.macs for r in c.layers if r.name == "head.fc"} for c in (at_16, at_64)]
    assert dense[0] == dense[1] == {"head.fc": 2 * 2 * 4 * 5}


def test_classes_change_the_classifier_alone():
    many, few = zoo.count("mobilenet_v1_025"), zoo.count("mobilenet_v1_025", num_classes=10)
    assert few.layers[:-1] == many.layers[:-1]
    assert few.head == 256 * 10 + 10
    headless = zoo.count("mobilenet_v1_025", num_classes=0)
    assert headless.layers == many.layers[:-1]
    assert headless.head == 0


def test_a_network_is_counted_as_its_name_is():
    model = zoo.create("mobilenet_v1_025", num_classes=10)
    assert zoo.count(model) == zoo.count("mobilenet_v1_025", num_classes=10)


def test_training_mode_counts_the_same(network):
    model = network(BODY, HEAD, num_classes=10)
    before = zoo.count(model, input_size=32)
    model.train()
    assert zoo.count(model, input_size=32) == before
    assert not model.body.conv.norm.use_running_average  # counting left the mode alone


def test_bad_questions_are_told(tiny):
    with pytest.raises(zoo.ZooError, match=r"got images of 16x16, expected .* H and W >= 32"):
        zoo.count("resnet18", input_size=16)
    with pytest.raises(zoo.ZooError, match="num_classes: expected with a name, got a network"):
        zoo.count(tiny, num_classes=3)


def test_no_array_is_left_behind():
    alive = {id(array) for array in jax.live_arrays()}
    zoo.count("vgg19")
    assert {id(array) for array in jax.live_arrays()} <= alive


def test_memory_stays_far_below_the_weights():
    """VGG-19's are 575 MB. In a process of its own: others have been at higher peaks."""
    code = """
import resource, zoo
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
zoo.count("mobilenet_v1_025")
before = peak()
assert zoo.count("vgg19").params == 143_667_240
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 50  # MB
