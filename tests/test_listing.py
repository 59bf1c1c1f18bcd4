"""`zoo.list_weights`: a list of names that is a table too, sorted and filtered."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import tools.costs
import zoo
from zoo.errors import ZooError
from zoo.report import costs
from zoo.report.listing import quantity


def test_it_is_a_list_of_names():
    names = zoo.list_weights("resnet18.a*")
    assert names == ["resnet18.a1_in1k", "resnet18.a2_in1k", "resnet18.a3_in1k"]
    assert names[0] in names
    assert zoo.list_weights("nothing*") == []


def test_a_network_stands_for_its_weights():
    assert zoo.list_weights("resnet18") == zoo.list_weights("resnet18.*")
    assert zoo.list_weights("googlenet") == zoo.list_weights("inception_v1.*") != []
    assert zoo.list_weights("resnt18") == []


def test_it_is_a_table():
    found = zoo.list_weights("resnet18.a3_in1k")
    (row,) = found.table().records()
    record = zoo.weights("resnet18.a3_in1k")
    assert (row["top1"], row["params"], row["licence"]) == (65.67, record.params, "Apache-2.0")
    assert (row["input_size"], row["macs"]) == (160, zoo.count("resnet18", input_size=160).macs)
    assert "65.7" in found._repr_html_()
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_pandas(), pandas.DataFrame)
    assert found.to_pandas()["top1"].tolist() == [65.67]


def test_filters():
    found = zoo.list_weights(
        max_params="6M", max_macs=1e9, min_top1=75, licence="commercial", source="TIMM", sort="top1"
    )
    records = [zoo.weights(name) for name in found]
    want = {
        w.name
        for w in map(zoo.weights, zoo.list_weights())
        if w.source == "timm" and not w.non_commercial and (w.top1 or 0) >= 75 and w.params <= 6e6
        and costs.cost(w.model, w.preprocess.size).macs <= 1e9
    }  # fmt: skip
    assert {*found} == want != set()
    tops = [w.top1 for w in records]
    assert tops == sorted(tops, reverse=True)
    assert {zoo.weights(n).licence for n in zoo.list_weights(licence="mit")} == {"MIT"}
    assert {*zoo.list_weights(cached=True)} >= {
        name for name in zoo.list_weights() if zoo.weights(name).source == "zoo"
    }


def test_what_has_no_value_comes_last():
    tops = [zoo.weights(name).top1 for name in zoo.list_weights(sort="top1")]
    known = [top for top in tops if top is not None]
    assert tops == sorted(known, reverse=True) + [None] * (len(tops) - len(known))
    sizes = [zoo.weights(name).params for name in zoo.list_weights("resnet*", sort="params")]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (dict(sort="topp1"), "unknown column to sort by 'topp1': did you mean 'top1'"),
        (dict(licence="Apache"), "unknown licence 'Apache': did you mean 'Apache-2.0'?"),
        (dict(source="tim"), "unknown source 'tim': did you mean 'timm'"),
        (dict(max_params="many"), "max_params: got 'many', expected a number such as 6M or 1.5G"),
        (dict(max_macs=True), "max_macs: got True, expected a number"),
    ],
)
def test_wrong_settings(settings, line):
    with pytest.raises(ZooError) as error:
        zoo.list_weights(**settings)
    assert line in str(error.value)


def test_quantities():
    got = [quantity("x", text) for text in ("6M", "1.5G", "2b", "100", 3, "1e6"[:1])]
    assert got == [6e6, 1.5e9, 2e9, 100, 3, 1]


def test_neither_jax_nor_a_network_is_imported():
    code = (
        "import sys, zoo; assert zoo.list_weights(max_macs='1G', sort='top1')[0];"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- costs.csv -----------------------------------------------------------------------------------


def test_the_costs_of_all_published_weights_are_known():
    """Else: python -m tools.costs > costs.csv && mv costs.csv zoo/report/costs.csv."""
    with costs.FILE.open(newline="") as file:
        rows = [(row["network"], int(row["input_size"])) for row in csv.DictReader(file)]
    assert rows == tools.costs.pairs()


@pytest.mark.parametrize(
    "pair", [("squeezenet1_1", 224), ("resnet18", 160), ("mobilenet_v1_025", 128)]
)
def test_the_costs_are_those_that_are_counted(pair):
    name, size = pair
    assert costs.cost(name, size) == costs.of(zoo.count(name, input_size=size))


def test_the_parameters_agree_with_the_catalogue():
    own = {name: figures.params for (name, _), figures in costs._known().items()}
    for record in map(zoo.weights, zoo.list_weights()):
        if record.classes == 1000:
            assert own[record.model] == record.params, record.name


def test_what_the_file_lacks_is_counted():
    figures = costs.cost("squeezenet1_1", 96)
    assert figures == costs.of(zoo.count("squeezenet1_1", input_size=96))
    assert np.isclose(figures.file_bytes, 4 * figures.params)
