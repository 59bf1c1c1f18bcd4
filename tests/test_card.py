"""The card of a network, `zoo info`: its figures are the count's, its weights the catalogue's."""

import html
import json
import re
from dataclasses import replace
from functools import cache

import pytest

import zoo
from zoo import registry
from zoo.errors import ZooError
from zoo.layers import model_stages
from zoo.report import card as cards
from zoo.report.card import percent, quantity, weights_table
from zoo.report.count import LayerCount
from zoo.report.definitions import DEFINITIONS, notes

card = cache(cards.info)

# Of many weights, with an alias and many authors, of a long title, and of no weights
SHOWN = ["resnet50", "mobilenet_v3_small_100", "squeezenet1_1", "plain18"]


def test_resnet50():
    c, expected = card("resnet50"), zoo.count("resnet50")
    assert c.count == expected
    for column, total in (("params", expected.params), ("macs", expected.macs)):
        assert sum(row[column] for row in c.stages.records()) == total
    model = registry.abstract(registry.Spec("resnet50"))
    assert tuple(row["name"] for row in c.stages.records()) == model_stages(model)
    assert [row["name"] for row in c.weights.records()] == zoo.list_weights("resnet50.*")

    text = c.text()
    for line in (
        "Deep Residual Learning for Image Recognition\nHe, Zhang, Ren, Sun, 2015\n"
        "https://arxiv.org/abs/1512.03385\n",
        "parameters                    25,557,032  1000 classes\n",
        "of them head                   2,049,000  8.0 %\n",
        "BN statistics                     53,120  not in the parameters\n",
        "total                         25,610,152  parameters and BN statistics\n",
        "MACs                              4.09 G  one image\n",
        "file size                         102 MB  float32\n",
        "tv2_in1k                 *   80.9   95.4  224  BSD-3-Clause  torchvision\n",
        "fb_ssl_yfcc100m_ft_in1k  †   79.3   94.8  224  CC-BY-NC-4.0  timm\n",
    ):
        assert line in text
    stages = [line.split() for line in text.splitlines() if re.match(r"stage\d ", line)]
    assert [stage[:3] for stage in stages] == [
        ["stage1", "56x56x256", "215,808"],
        ["stage2", "28x28x512", "1,219,584"],
        ["stage3", "14x14x1024", "7,098,368"],
        ["stage4", "7x7x2048", "14,964,736"],
    ]


def test_json_has_the_raw_figures():
    c = card("resnet50")
    told = json.loads(c.json())
    for figure in ("params", "batch_stats", "head", "aux", "macs", "train_flops"):
        assert told[figure] == getattr(c.count, figure)
    for figure in ("inference_memory", "training_memory", "file_bytes", "by_kind"):
        assert told[figure] == getattr(c.count, figure)
    assert told["paper"]["year"] == 2015
    assert told["default"] == "resnet50.tv2_in1k"
    uses = {w["name"]: w["use"] for w in told["weights"]}
    assert {name for name, use in uses.items() if use == "default"} == {told["default"]}
    assert {name for name, use in uses.items() if use == "non-commercial"} == {
        f"resnet50.fb_{tag}_ft_in1k" for tag in ("ssl_yfcc100m", "swsl_ig1b")
    }


@pytest.mark.parametrize("name", SHOWN)
def test_it_fits_a_terminal(name):
    text = card(name).text()
    assert max(map(len, text.splitlines())) <= 80
    for figure in DEFINITIONS:
        assert f"\n{figure}:" in text


def test_weights_fit_a_terminal():
    for name in zoo.list_models():
        records = [zoo.weights(found) for found in zoo.list_weights(f"{name}.*")]
        lines = weights_table(name, records).text().splitlines()
        assert max(map(len, lines)) <= 80
        for record in records:
            assert any(line.startswith(f"{record.tag} ") for line in lines)  # whole, to be typed


@pytest.mark.parametrize("name", SHOWN)
def test_the_kinds_make_up_the_whole(name):
    c = card(name)
    shares = [float(kind.split()[-2].lstrip("<")) for kind in c.kinds.split(", ")]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    assert not re.search(r"\b0\.0 %", c.kinds)


def test_norms_without_statistics_are_of_layers():
    c = card("nin_cifar")
    layers = (LayerCount("conv", 90, kind="1x1"), LayerCount("norm", 10, norm=10))
    assert replace(c, count=replace(c.count, params=100, layers=layers)).kinds == (
        "1x1 90.0 %, layer norm 10.0 %"
    )
    assert "batch norm 0.2 %" in card("resnet50").kinds


def test_markdown_has_both_tables():
    md = card("resnet50").md()
    assert md.startswith("## resnet50\n")
    assert "\n| stage4 | 7x7x2048 | 14,964,736 |" in md
    assert "\n| tv2_in1k | * | 80.9 |" in md
    assert "](https://arxiv.org/abs/1512.03385)" in md


def test_html_is_escaped():
    c = card("nin_cifar")
    paper = replace(c.variant.paper, title="<0.5MB", url='https://a.org/"b', new="a < b & c")
    shown = replace(c, variant=replace(c.variant, paper=paper))._repr_html_()
    for text in (paper.title, paper.url, paper.new):
        assert text not in shown
        assert html.escape(text) in shown


def test_without_published_weights_it_says_so():
    for shown in (
        card("plain18").text(),
        card("plain18").md(),
        card("plain18")._repr_html_(),
    ):
        assert "No published weights of plain18 are known." in shown
        assert "zoo.load" not in shown


def test_weights_for_some_uses_alone_are_no_default():
    c = card("nin")
    assert c.default is None
    assert "caffe_in1k  †" in c.text()
    assert "† not for commercial use" in c.text()
    assert "* what" not in c.text()


def test_networks_for_cifar_are_counted_with_its_classes_too():
    # 192 * 990 weights and 990 biases fewer
    assert card("nin_cifar").cifar_params == zoo.count("nin_cifar").params - 193 * 990
    assert re.search(r"\nwith 10 classes +966,986  as for CIFAR-10\n", card("nin_cifar").text())
    assert card("resnet50").cifar_params is None


def test_an_alias_gives_the_network():
    assert card("nin").text().startswith("nin_imagenet, also called nin\n")


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(zoo.ZooError, match=r"unknown model 'resnet5': did you mean .*'resnet50'"):
        card("resnet5")
    with pytest.raises(zoo.ZooError, match="unknown figure 'heads': did you mean 'head'"):
        notes("heads")


def test_every_network_names_its_paper():
    for variant in registry.variants().values():
        paper = variant.paper
        assert paper.title, variant.name
        assert paper.authors, variant.name
        assert 2012 <= paper.year <= 2024, variant.name
        assert paper.url.startswith("https://"), variant.name
        arxiv = paper.url.rpartition("arxiv.org/abs/")[2] if "arxiv.org" in paper.url else ""
        # its number begins with the year
        assert not arxiv or 2000 + int(arxiv[:2]) == paper.year, variant.name
        assert 0 < len(paper.new) < 300, variant.name
        assert paper.new.endswith("."), variant.name


def test_a_paper_is_told_in_one_way():
    papers = {variant.paper for variant in registry.variants().values()}
    assert len({paper.url for paper in papers}) == len(papers)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (650, "650"),
        (999_960, "1.00 M"),
        (12_501_632, "12.5 M"),
        (102_440_608, "102 M"),
        (4_089_184_256, "4.09 G"),
    ],
)
def test_quantities(value, shown):
    assert quantity(value) == shown
    assert quantity(value, "B") == shown + ("B" if " " in shown else " B")


def test_shares():
    assert [percent(part, 1000) for part in (0, 1, 80, 1000)] == [
        *("0.0 %", "0.1 %", "8.0 %", "100.0 %")
    ]
    assert percent(1, 100_000) == "<0.1 %"


def test_a_card_of_weights():
    card = zoo.info("resnet18.a3_in1k")
    facts = dict(card.facts.rows)
    assert facts["licence"] == "Apache-2.0"
    assert facts["on ImageNet"] == "65.7 % top-1, 86.3 % top-5"
    assert "centre 160 x 160 cut out" in facts["input"]
    assert card.count.macs == zoo.count("resnet18", input_size=160).macs
    assert card.count.params == zoo.weights("resnet18.a3_in1k").params
    for text in (card.text(), card.md(), card._repr_html_()):
        assert "hf://timm/resnet18.a3_in1k" in text.replace("\\", "")
    assert json.loads(card.json())["weights_of"] == facts
    with pytest.raises(ZooError, match=r"in_chans: expected with a network"):
        zoo.info("resnet18.a3_in1k", in_chans=1)
    with pytest.raises(ZooError, match=r"unknown weights .resnet18\.a9_in1k.: did you mean"):
        zoo.info("resnet18.a9_in1k")
