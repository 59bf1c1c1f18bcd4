"""Networks beside each other: the table, the pictures and the files of a comparison."""

import csv
import io
import itertools
import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import ZooError
from zoo.plotting import encode
from zoo.registry import find, variants
from zoo.report import definitions, labels, plots
from zoo.report.compare import Comparison, Entry, compare, default_weights, writable_folder
from zoo.report.curves import frontier, parameters_by_depth, representatives
from zoo.report.labels import Box, apart, place

NAMES = ("mobilenet_v1_025", "squeezenet1_1", "resnet18")
FILES = {f"{name}.{suffix}" for name in plots.PLOTS for suffix in ("png", "svg")}
FILES |= {f"compare.{suffix}" for suffix in ("html", "csv", "md", "json")} | {"weights.csv"}


@pytest.fixture(scope="module")
def done() -> list[int]:
    return []


@pytest.fixture(scope="module")
def comparison(done: list[int]) -> Comparison:
    return compare(NAMES, on_done=lambda: done.append(1))


@pytest.fixture(scope="module")
def saved(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "made" / "anew"
    files = comparison.save(folder)
    assert {file.name for file in files} == FILES
    assert sorted(files) == sorted(folder.iterdir())  # and nothing else is left there
    return folder


@pytest.fixture(scope="module")
def crowd(comparison: Comparison) -> list[Entry]:
    """Every network of the zoo, at figures out of a hat, half of them in one corner."""
    rng = np.random.default_rng(0)
    entries = []
    for i, variant in enumerate(variants().values()):
        macs, params = 10 ** rng.uniform(7.5 + i % 2, 10.8), 10 ** rng.uniform(6, 8.2)
        count = comparison.entries[i % 3].count
        count = replace(count, name=variant.name, macs=int(macs), params=int(params))
        weights = zoo.weights("resnet18")
        weights = replace(weights, top1=float(rng.uniform(60 + 15 * (i % 2), 88)))
        entries.append(Entry(variant, count, weights if default_weights(variant.name) else None))
    return entries


def test_table_is_what_count_says(comparison, done):
    assert len(done) == len(NAMES)
    for name, row in zip(NAMES, comparison.table().records(), strict=True):
        count, variant = zoo.count(name), find(name)
        assert row == {
            "network": name,
            "params": count.params,
            "head_share": count.head / count.params,
            "macs": count.macs,
            "train_flops": count.train_flops,
            "inference_memory": count.inference_memory,
            "training_memory": count.training_memory,
            "file_bytes": count.file_bytes,
            "input_size": count.input_size,
            "top1": zoo.weights(name).top1,
            "top5": zoo.weights(name).top5,
            "weights": zoo.weights(name).name,
            "licence": zoo.weights(name).licence,
            "source": zoo.weights(name).source,
            "family": variant.family,
            "year": variant.paper.year,
        }
    assert "<table" in comparison._repr_html_()


def test_names_and_weights(comparison):
    assert default_weights("plain18") is None  # none are known
    assert default_weights("nin_imagenet") is None  # none may be a default
    alone = compare("squeezenet1_1")
    assert [entry.name for entry in alone.entries] == ["squeezenet1_1"]
    twice = compare(["mobilenet_v1_025", "mobilenet_v1_025"])
    assert twice.entries == comparison.entries[:1]
    with pytest.raises(ZooError, match="did you mean 'resnet18'"):
        compare(["resnet1"])
    with pytest.raises(ZooError, match="expected the name of a network"):
        compare([])


def test_notes_name_other_sizes_and_more_data(comparison):
    count = comparison.entries[0].count

    def entry(name: str) -> Entry:
        variant = find(name)
        return Entry(variant, replace(count, input_size=variant.input_size), default_weights(name))

    other = Comparison(tuple(map(entry, ("efficientnet_b2", "convnext_xlarge", "plain18"))))
    notes = " ".join(other.table().notes)
    assert "efficientnet_b2 288 for 260." in notes
    assert "more than ImageNet-1k: convnext_xlarge." in notes
    assert len(comparison.notes()) == 1
    assert comparison.table().notes == (*definitions.notes(), *comparison.notes())


def test_saved_pictures(saved):
    for name in plots.PLOTS:
        with Image.open(saved / f"{name}.png") as image:
            width, height = image.size
            assert width == 2400
            assert 500 <= height <= 1600
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
        root = ET.parse(saved / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter())) > 50


def test_saved_tables(comparison, saved):
    with (saved / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = json.loads((saved / "compare.json").read_text())["rows"]
    assert told == comparison.table().records()
    assert [row["network"] for row in rows] == list(NAMES)
    for row, record in zip(rows, told, strict=True):
        assert int(row["macs"]) == record["macs"]
        assert row["top1"] == ("" if record["top1"] is None else str(record["top1"]))
    assert "| resnet18 |" in (saved / "compare.md").read_text()


def test_page_names_no_other_host(comparison, saved):
    text = (saved / "compare.html").read_text("utf-8")
    start = text.index('id="data">') + len('id="data">')
    networks = json.loads(text[start : text.index("</script>", start)])["networks"]
    assert [network["name"] for network in networks] == list(NAMES)
    for entry, network in zip(comparison.entries, networks, strict=True):
        assert network["url"] == entry.variant.paper.url
        assert sum(network["by_kind"]) == network["params"] == entry.count.params
        text = text.replace(json.dumps(network["url"]), "")
    assert "://" not in text
    assert "@@" not in text  # each mark of the template was filled


def test_data_cannot_end_the_script(comparison):
    entry = comparison.entries[0]
    paper = replace(entry.variant.paper, title="</script><b>&")
    hostile = replace(entry, variant=replace(entry.variant, paper=paper))
    text = Comparison((hostile,)).html()
    assert text.count("</script>") == Comparison((entry,)).html().count("</script>")


def test_same_figures_same_files(comparison, saved, tmp_path):
    for file in comparison.save(tmp_path):
        assert file.read_bytes() == (saved / file.name).read_bytes(), file.name


# --- pictures ------------------------------------------------------------------------------------


def test_labels_do_not_overlap():
    rng = np.random.default_rng(1)
    points = rng.normal([400, 300], [120, 60], (150, 2)).clip([30, 30], [770, 570])
    marks = [(x, y, r) for (x, y), r in zip(points.tolist(), rng.uniform(2, 12, 150), strict=True)]
    bounds = Box(0, 0, 800, 600)
    sizes = [(float(width), 13.0) for width in rng.integers(30, 120, 150)]
    placed = place([[mark] for mark in marks], sizes, bounds, marks)
    found = [spot for spot in placed if spot]
    assert 30 < len(found) < 150  # a crowd: some have no room
    assert placed[0]  # the first ones choose first
    for a, b in itertools.combinations(found, 2):
        assert not a.box.meets(b.box)
        assert not (a.leader and labels._through(a.leader, b.box))
        assert not (a.leader and b.leader and labels._cross(*a.leader, *b.leader))
    for spot in found:
        assert spot.box.inside(bounds)
        for x, y, radius in marks:
            assert np.hypot(*np.subtract(spot.box.nearest(x, y), (x, y))) >= radius - 1e-6
    # all find room once they may cover marks, for there is much of that
    few = place([[mark] for mark in marks[:8]], sizes[:8], bounds, marks, all_of_them=True)
    assert all(few)


def test_labels_of_a_drawn_crowd(crowd):
    figure = plots.bubble(crowd)
    renderer = figure.canvas.get_renderer()
    names = {entry.name for entry in crowd}
    boxes = [text.get_window_extent(renderer) for text in figure.texts if text.get_text() in names]
    assert len(boxes) > 25
    frame = figure.axes[0].get_window_extent()
    for box in boxes:
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
    for a, b in itertools.combinations(boxes, 2):
        assert not Box(*a.extents).meets(Box(*b.extents))
    without = sum(entry.top1 is None for entry in crowd)
    assert any(f"{without} networks without" in text.get_text() for text in figure.texts)
    assert len(figure.axes[0].collections) == len(crowd) - without


def test_bars_and_lines_stay_legible(crowd):
    curve = parameters_by_depth
    few, rule = representatives(crowd, plots.BARS, curve)
    assert len(few) == len({entry.variant.family for entry in crowd})
    assert rule == [f"Of {len(crowd)} networks the first of each family that has default weights."]
    assert "alexnet" in [entry.name for entry in few]
    assert "mnasnet_130" in [entry.name for entry in few]  # the first, 1.4, has no weights
    fewer, rule = representatives(crowd, 12, curve)
    assert len(fewer) == 12
    assert {entry.name for entry in fewer} < {entry.name for entry in few}
    assert "12 most unlike" in rule[0]
    assert representatives(few, plots.BARS, curve) == (few, [])
    family = [entry for entry in crowd if entry.variant.family in ("regnet", "vgg")]
    some, rule = representatives(family, 5, curve)
    assert len(some) == 5
    assert {"regnet_y_200mf", "vgg11"} < {entry.name for entry in some}
    assert "of the others the 3 most unlike" in rule[0]
    figure = plots.kinds(crowd)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        entry.name for entry in few
    ]
    for draw in (plots.depth, plots.receptive_field):
        assert len(encode(draw(crowd), "svg")) > 10_000


def test_bars_add_up(comparison):
    axes = plots.kinds(comparison.entries).axes[0]
    wide = dict.fromkeys(range(len(NAMES)), 0.0)
    for patch in axes.patches:
        wide[round(patch.get_y() + patch.get_height() / 2)] += patch.get_width()
    assert list(wide.values()) == pytest.approx([100] * len(NAMES))


def test_frontier():
    points = [(1, 50), (2, 60), (2, 55), (3, 58), (4, 70), (0.5, 40)]
    assert frontier(points) == [5, 0, 1, 4]


def test_apart():
    assert apart([5, 50], 10, 0, 100) == [5, 50]
    moved = apart([50, 51, 49, 0, 100], 10, 0, 100)
    assert sorted(range(5), key=moved.__getitem__) == [3, 2, 0, 1, 4]
    assert min(np.diff(sorted(moved))) >= 10 - 1e-6
    assert apart([], 10, 0, 100) == []


def test_no_accuracy_at_all(comparison):
    without = comparison.entries[:1]
    assert without[0].top1 is None
    figure = plots.bubble(without)
    assert any("1 network without" in text.get_text() for text in figure.texts)


# --- what can go wrong ---------------------------------------------------------------------------


def test_folder_that_cannot_be_written(comparison, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        for attempt in (writable_folder, comparison.save):
            with pytest.raises(ZooError, match=r"cannot write into .*file") as caught:
                attempt(folder)
            assert "\n" not in str(caught.value)


def test_nothing_is_half_written(comparison, tmp_path, monkeypatch):
    write, left = Path.write_bytes, 3

    def until_full(self: Path, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left:
            return write(self, data)
        write(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(ZooError, match=r"cannot write .*kinds\.png: No space left"):
        comparison.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bubble.png", "bubble.svg"]
    with Image.open(io.BytesIO((tmp_path / "bubble.png").read_bytes())) as image:
        image.load()


def test_without_matplotlib(comparison, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for attempt in (writable_folder, comparison.save):
        with pytest.raises(ZooError, match="pip install matplotlib"):
            attempt(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "resnet18" in comparison.html()  # which needs none
