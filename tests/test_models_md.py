"""MODELS.md is what the registry, the catalogue and the counts give today."""

import re

import pytest
from conftest import ROOT
from test_models import TABLE

import zoo
from tools.csv_files import read
from tools.csv_files import text as csv_text
from tools.models_md import Figures, figures, text
from zoo.pretrained import catalogue
from zoo.registry import ours

PAGE = (ROOT / "MODELS.md").read_text("utf-8")
STALE = "MODELS.md is stale: python -m tools.models_md > MODELS.md"
COUNTED = ["inception_v1_lrn", "mobilenet_v1_025", "nin_cifar"]


def numbers(label):
    """What the page says in a line apart: "Auxiliary heads: `inception_v3` 3,326,696."."""
    lines = re.findall(rf"^{re.escape(label)}: (.*)\.$", PAGE, re.M)
    found = re.findall(r"`(\w+)` ([\d,]+)", " ".join(lines))
    return {name: int(n.replace(",", "")) for name, n in found}


def written():
    """The figures of the networks' tables."""
    aux = numbers("Auxiliary heads")
    cifar = numbers("Parameters with CIFAR-10's 10 classes")
    row = r"^\| `(\w+)` \|[^|]*\| \d+ \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,.]+) \|$"
    found = {}
    for name, *cells in re.findall(row, PAGE, re.M):
        params, head, batch_stats, macs = (float(cell.replace(",", "")) for cell in cells)
        found[name] = Figures(
            *(int(params), int(head), int(batch_stats), round(macs * 1e6)),
            *(aux.get(name, 0), cifar.get(name)),
        )
    return found


def test_it_has_every_network_and_all_weights():
    assert list(written()) == list(ours()), STALE
    names = re.findall(r"^\| (?:\*\*)?`(\w+\.\w+)`(?:\*\*)? \|", PAGE, re.M)
    assert sorted(names) == sorted(row["name"] for row in read(catalogue.HERE / "catalogue.csv"))


def test_it_is_current():
    """All but the heads, which it is asked for itself: counting all would take a minute."""
    counted = written()
    for row in TABLE:
        # Keras' convolutions have biases, one for each mean and variance.
        keras_v1 = row.name in ("resnet50_v1", "resnet101_v1", "resnet152_v1")
        biases = row.batch_stats // 2 if keras_v1 else 0
        each = counted[row.name].head // 1000  # weights and bias of a class
        missing = 1000 - row.classes
        counted[row.name] = counted[row.name]._replace(
            params=row.params - biases + missing * each,
            batch_stats=row.batch_stats,
            macs=round(row.gmacs * 1e9) + missing * (each - 1),
        )
    assert text(counted).splitlines() == PAGE.splitlines(), STALE


def test_its_counts_are_current():
    today = figures(COUNTED)
    page = text({**written(), **today}).splitlines()
    assert page == PAGE.splitlines(), STALE
    assert today["inception_v1_lrn"].aux > 0
    assert today["nin_cifar"].cifar_params == 966_986


@pytest.mark.slow
def test_all_its_counts_are_current():
    assert text(figures([*ours()])) + "\n" == PAGE, STALE


def test_it_leaves_out_what_plugins_add(tiny, monkeypatch, tmp_path):
    before = text(written())
    published = read(catalogue.HERE / "catalogue.csv")
    first = next(row for row in published if row["source"] != "zoo")  # whose files are elsewhere
    rows = dict(first, default="", file="own.safetensors")
    table = tmp_path / "own.csv"
    lines = [{**rows, "name": f"{name}.own"} for name in ("tiny", "resnet18")]
    table.write_text(csv_text([list(rows), *(list(line.values()) for line in lines)]))
    known = {model: dict(rows) for model, rows in catalogue._known().items()}
    monkeypatch.setattr(catalogue, "_known", lambda: known)
    zoo.register_weights(table)
    assert {"tiny.own", "resnet18.own"} < {*zoo.list_weights()}
    assert "tiny" in zoo.list_models()
    assert "tiny" not in ours()
    assert text(written()) == before


def test_a_change_shows():
    other = {name: f._replace(head=f.head + 1) for name, f in written().items()}
    changed = set(text(other).splitlines()) ^ set(PAGE.splitlines())
    assert len(changed) == 2 * len(ours())


def test_it_links_to_papers_alone():
    papers = {variant.paper.url for variant in ours().values()}
    assert set(re.findall(r"https?://[^\s)]+", PAGE)) == papers
