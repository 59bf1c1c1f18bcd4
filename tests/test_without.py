"""Networks as they were before a trick, against what the papers say of them."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

import zoo
from zoo import context, init, switches, without
from zoo.context import Spec
from zoo.layers import Conv, Dense, Dropout, FlattenAt, GlobalAvgPool, branches
from zoo.registry import abstract


def shapes(name: str, **settings) -> list[tuple[int, ...]]:
    """Of all parameters and statistics, in no order."""
    state = nnx.state(abstract(Spec(name, **settings)), nnx.Any(nnx.Param, nnx.BatchStat))
    return sorted(leaf.shape for leaf in jax.tree.leaves(state))


def params(name: str, **settings) -> int:
    return sum(map(math.prod, shapes(name, **settings)))


def kernels(name: str, **settings) -> dict[str, int]:
    """The size of each kernel, by the path of its layer."""
    state = nnx.to_pure_dict(nnx.state(abstract(Spec(name, **settings)), nnx.Param))
    leaves = flatten_dict(state, sep=".")
    sizes = {path: math.prod(x.shape) for path, x in leaves.items() if path.endswith(".kernel")}
    return {path.removesuffix(".kernel").removesuffix(".conv"): n for path, n in sizes.items()}


def test_names_are_those_of_what_there_is():
    assert tuple(context.ACTIVATIONS) == switches.ACTIVATIONS
    assert set(init.INITIALIZERS) == set(switches.FITTED)
    assert set(init.WITH_DEVIATION) == set(switches.FIXED)
    assert {*without.RULES, "residual"} == set(switches.WITHOUT)


@pytest.mark.parametrize("layers", [18, 34])
def test_a_resnet_without_residual_connections_is_the_papers_plain_network(layers):
    assert shapes(f"resnet{layers}", without="residual") == shapes(f"plain{layers}")


def test_a_plain_network_computes_what_the_papers_does():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    plain = zoo.create("plain18", num_classes=5)
    bare = zoo.create("resnet18", num_classes=5, without="residual")
    assert jnp.array_equal(plain(x), bare(x))


def test_mobilenet_without_depthwise_convolutions_is_conv_mobilenet():
    counted = zoo.count("mobilenet_v1", without="depthwise")
    # arXiv:1704.04861, table 4: 29.3 million parameters, 4866 million multiply-adds
    assert round(counted.params / 1e6, 1) == 29.3
    assert round((counted.macs - 1024 * 1000) / 1e6) == 4866  # without the classifier
    assert counted.by_kind["depthwise"] == 0


def test_what_the_papers_say_was_saved():
    model, square, large = (
        kernels("inception_v3", without=part) for part in ("", "asymmetric", "small_kernels")
    )
    # arXiv:1512.00567, section 3.2: 1xn and nx1 cost 2 / n of nxn
    conv1, conv2 = (f"body.mixed6e.conv7x7.conv{i}" for i in (1, 2))
    assert (model[conv1] + model[conv2]) / square[conv2] == pytest.approx(2 / 7)
    assert conv1 not in square
    # the same, section 3.1: two 3x3 cost 18 / 25 of a 5x5; here from 64 channels and from 96
    conv1, conv2 = (f"body.mixed5b.double3x3.conv{i}" for i in (1, 2))
    assert (model[conv1] * 96 / 64 + model[conv2]) / (large[conv2] * 96 / 64) == 18 / 25
    assert params("inception_v1", without="reduction") > 2 * params("inception_v1")


def test_the_head():
    # its convolutions, and a classifier of 512 features
    assert params("vgg16", without="fully_connected") == 14_714_688 + 513_000
    wide, usual = (kernels("resnet18", without=part) for part in ("avgpool", ""))
    assert wide["classifier.linear"] == 49 * usual["classifier.linear"]  # 7x7 cells, not one


CONV3, CONV5, TALL, WIDE = (Conv(kernel, 8) for kernel in (3, 5, (5, 1), (1, 5)))
DEPTHWISE, POINTWISE = Conv(3, 4, groups=4, stride=2), Conv(1, 8, act="relu6")


@pytest.mark.parametrize(
    ("part", "rows", "expected"),
    [
        ("asymmetric", [TALL, WIDE], [CONV5]),
        ("asymmetric", [WIDE, TALL, WIDE, TALL], [CONV5, CONV5]),
        ("asymmetric", [TALL, CONV3, WIDE], [TALL, CONV3, WIDE]),
        ("asymmetric", [POINTWISE, POINTWISE], [POINTWISE, POINTWISE]),
        ("small_kernels", [CONV3, CONV3, CONV3], [CONV5, CONV3]),
        ("small_kernels", [Conv(3, 8, stride=2), CONV3], [Conv(3, 8, stride=2), CONV3]),
        ("small_kernels", [CONV3, Conv(3, 8, stride=2)], [Conv(5, 8, stride=2)]),
        ("reduction", [Conv(1, 2), CONV3], [CONV3]),
        ("reduction", [Conv(1, 8), CONV3], [Conv(1, 8), CONV3]),  # from 4 channels: no reduction
        ("reduction", [CONV3, Conv(1, 2), CONV5], [CONV3, CONV5]),
        ("depthwise", [DEPTHWISE, POINTWISE], [Conv(3, 8, stride=2, act="relu6")]),
        ("depthwise", [DEPTHWISE, CONV3], [Conv(3, 4, stride=2), CONV3]),
        ("avgpool", [CONV3, GlobalAvgPool()], [CONV3, FlattenAt(7)]),
        (
            "fully_connected",
            [CONV3, FlattenAt(6), Dropout(0.5), Dense(9), Dense(9)],
            [CONV3, GlobalAvgPool()],
        ),
        ("fully_connected", [CONV3, FlattenAt(6)], [CONV3, FlattenAt(6)]),
    ],
)
def test_rules(part, rows, expected):
    table = {f"row{i}": row for i, row in enumerate(rows)}
    assert list(without.RULES[part](4, table).values()) == expected


def test_a_rule_leaves_tables_within_rows_to_their_own_turn():
    nested = dict(mixed=branches(double=dict(a=CONV3, b=CONV3)))
    done = without.Rewriting(["small_kernels"])
    assert done(4, nested) == nested  # the branch is a table of its own, rewritten when it is built
    assert not done.done


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("vgg11", dict(without="residual"), "without: vgg11 has no residual connections"),
        ("resnet18", dict(without="depthwise"), "without: resnet18 has no depthwise convolutions"),
        ("alexnet", dict(norm="none"), "norm: alexnet has no batch norm to leave out"),
        (
            "resnet18",
            dict(without="residuals"),
            "unknown part to leave out 'residuals': did you mean 'residual'?",
        ),
        (
            "resnet18",
            dict(without="residual", drop_path=0.1),
            "drop_path: without residual connections no block can be skipped",
        ),
        ("resnet18", dict(without=3), "without: got 3, expected names such as 'residual'"),
        ("resnet18", dict(init="normal(-1)"), "initialiser: got 'normal(-1)', expected a deviat"),
        ("resnet18", dict(init="he_normal(2)"), "unknown initialiser 'he_normal(2)': did you mea"),
    ],
)
def test_what_a_network_has_not_cannot_be_left_out(name, settings, line):
    with pytest.raises(zoo.ZooError) as caught:
        abstract(Spec(name, **settings))
    assert str(caught.value).startswith(line)


def test_the_order_of_names_does_not_matter():
    assert Spec("x", without="residual, avgpool") == Spec("x", without="avgpool,residual")


def test_dropout_where_the_paper_has_none(tmp_path):
    model = zoo.create("resnet20_cifar", num_classes=10, dropout=0.5)
    rates = [m.rate for _, m in nnx.iter_modules(model) if isinstance(m, nnx.Dropout)]
    assert rates == [0.5]
    assert model.stages[-2:] == ("drop", "classifier")
    assert shapes("resnet20_cifar", dropout=0.5) == shapes("resnet20_cifar")
    zoo.save(model, tmp_path / "model.safetensors")
    again = zoo.load(str(tmp_path / "model.safetensors"))
    assert again.spec == model.spec


def test_saved_and_loaded(tmp_path):
    model = zoo.create("mobilenet_v1_025", num_classes=3, without="depthwise", act="tanh")
    zoo.save(model, tmp_path / "model.safetensors")
    again = zoo.load(str(tmp_path / "model.safetensors"))
    x = jnp.linspace(-1, 1, 32 * 32 * 3).reshape(1, 32, 32, 3)
    assert again.spec == model.spec
    assert jnp.array_equal(again(x), model(x))


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("depthwise", "efficientnet_b0"),
        ("reduction", "resnet50"),
        ("residual", "resnet50_v2"),
        ("small_kernels", "inception_v2"),
    ],
)
def test_other_networks_change_too(part, name):
    assert shapes(name, without=part) != shapes(name)
