"""What differs between two networks: totals, strides, and the stages in words."""

import pytest

import zoo
from zoo.context import Spec
from zoo.registry import abstract
from zoo.report.describe import stages
from zoo.report.diff import diff


def words(name: str) -> dict[str, tuple[str, ...]]:
    return stages(abstract(Spec(name)))


@pytest.fixture(scope="module")
def found():
    return diff("resnet18", "plain18")


def test_stages_in_words():
    resnet, mobilenet = words("resnet18"), words("mobilenet_v3_small_100")
    assert resnet["stem"] == ("7x7/2 64 BN relu",)
    assert resnet["pool"] == ("max pool 3x3/2",)
    assert resnet["stage1"] == ("2 x residual(3x3 64 BN relu > 3x3 64 BN) relu",)
    assert resnet["stage2"] == (
        "residual(3x3/2 128 BN relu > 3x3 128 BN, shortcut 1x1/2 128 BN) relu",
        "residual(3x3 128 BN relu > 3x3 128 BN) relu",
    )
    assert resnet["avgpool"] == ("global average pool",)
    assert resnet["classifier"] == ("fully connected 1000",)
    assert mobilenet["bneck1"] == (
        "3x3/2 depthwise 16 BN relu",
        "gate(1x1 8 bias relu > 1x1 16 bias) hard_sigmoid",
        "1x1 16 BN",
    )


def test_branches_groups_and_layers_of_a_familys_own_in_words():
    assert words("inception_v3")["mixed6a"] == (
        "{3x3/2 384 BN relu | 1x1 64 BN relu > 3x3 96 BN relu > 3x3/2 96 BN relu | max pool 3x3/2}",
    )
    alexnet = words("alexnet_2012")
    assert alexnet["conv2"] == ("5x5 in 2 groups 256 bias relu",)
    assert alexnet["norm1"] == ("lrn size 5 alpha 0.0005 beta 0.75 k 2",)
    assert words("convnext_tiny")["stage1"] == (
        "3 x residual(7x7 depthwise 96 bias > LN > fully connected 384 gelu > "
        "fully connected 96 > scaled)",
    )
    assert words("densenet121")["transition1"] == ("BN relu", "1x1 128", "average pool 2x2/2")


def test_totals_are_the_counts(found):
    a, b = zoo.count("resnet18"), zoo.count("plain18")
    rows = {row["figure"].strip(): row for row in found.totals.records()}
    assert rows["parameters"] == {
        "figure": "parameters", "resnet18": a.params, "plain18": b.params,
        "difference": -173_824,  # three projections
    }  # fmt: skip
    assert rows["MACs"]["difference"] == b.macs - a.macs
    assert rows["layers with parameters"]["difference"] == -3


def test_strides_share_out_the_totals(found):
    rows = found.by_stride.records()
    assert [row["stride"] for row in rows] == [2, 4, 8, 16, 32, None]
    for c in (found.a, found.b):
        assert sum(row[f"{c.name}_params"] for row in rows) == c.params
        assert sum(row[f"{c.name}_macs"] for row in rows) == c.macs


def test_what_is_the_same_takes_a_line_and_the_rest_is_marked(found):
    lines = list(found.lines())
    assert (" ", "stem: 112x112x64, 9,536 parameters, the same") in lines
    at = lines.index((" ", "stage1: 56x56x64, 147,968 parameters"))
    assert lines[at + 1 : at + 3] == [
        ("-", "  2 x residual(3x3 64 BN relu > 3x3 64 BN) relu"),
        ("+", "  2 x (2 x 3x3 64 BN relu)"),
    ]


def test_stages_of_other_names_stand_alone():
    lines = list(diff("mobilenet_v1_025", "squeezenet1_1").lines())
    names = {mark: {text.split(":")[0] for m, text in lines if m == mark} for mark in "-+"}
    assert {"sep1", "sep13"} <= names["-"]
    assert {"fire2", "fire9"} <= names["+"]


def test_text_fits_a_terminal_and_html_is_escaped(found):
    assert max(map(len, found.render().splitlines())) <= 80
    shown = found._repr_html_()
    assert "3x3 64 BN relu &gt; 3x3 64 BN" in shown
    assert found.render("md").count("```") == 2
    assert found.render("csv") == found.totals.render("csv")


def test_both_names_are_checked():
    with pytest.raises(zoo.ZooError, match="did you mean 'resnet50'"):
        diff("resnet18", "resnet5")
