"""What a finished run leaves to look at, and what a crash leaves of its records."""

import csv
import hashlib
import html
import json
import os
import re
import resource
import shlex
import sys

import numpy as np
import pytest
from PIL import Image, ImageFont

import zoo
from training import TrainConfig, mistakes, plots, report, typed
from training.cli import parser
from training.data import Dataset, Files
from training.evaluation import interval
from training.folder import begin
from training.logging import Log, best_of, read_records
from training.options import given
from training.predictions import Predictions, predict_all
from zoo.layers import Conv, GlobalAvgPool
from zoo.preprocess import Preprocess
from zoo.pretrained import saving
from zoo.sheet import FONT_SIZE
from zoo.text import plain

CLASSES = ("apple", "pear|plum", "a name that is much longer than any caption has room for")
FONT = ImageFont.load_default(FONT_SIZE)
PICTURES = [name for name in report.PICTURES if name != "probe.png"]  # a run without --probe
COUNT = 21  # pictures, which 8 devices cannot share out
RECORD = {
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "val_loss": 1.25,
    "val_top5": 1.0,
    "learning_rate": 1e-3,
    "images_per_second": 100.0,
    "input_wait": 0.25,
    "seconds": 2.0,
}


def records(*accuracies: float) -> list[dict]:
    return [
        {"epoch": i, "step": 10 * i, "val_accuracy": accuracy, **RECORD}
        for i, accuracy in enumerate(accuracies, 1)
    ]


def logits_of(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    """(folder, the arguments of `report.write`, predictions) of a network that never trained."""
    body = dict(stem=Conv(3, 8, stride=2), conv2=Conv(3, 16, stride=2))
    model = network(body, dict(pool=GlobalAvgPool()), num_classes=3)
    model.preprocess = Preprocess(size=16, resize=None)
    model.classes = CLASSES
    colours = np.random.default_rng(0).permutation(COUNT * 3).reshape(COUNT, 1, 1, 3) * 4
    images = np.broadcast_to(colours, (COUNT, 20, 30, 3)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("run")
    source = [{"image": image, "label": i % 3} for i, image in enumerate(images)]
    dataset = Dataset(
        "made", CLASSES, source[:9], source, None, flip=True, skipped=("pears/b.jpg: it is empty",)
    )
    predictions = predict_all(model, source)
    history = records(0.25, predictions.correct / COUNT)
    config = TrainConfig(data="folder:made", epochs=2, batch_size=8, out=str(folder), seed=7)
    arguments = (model, dataset, config, history)
    # no name builds this network, so `save` would refuse it
    saving.write_network(saving.pack(model), folder / "model.safetensors")
    report.write(folder, *arguments)
    return folder, arguments, predictions


def looked_at(path) -> tuple[int, int]:
    """(width, height) of a picture on which something is drawn."""
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5, path
        return picture.size


def assert_no_broken_links(folder):
    for file in ("report.md", "card.md"):
        links = re.findall(r"\]\(([^)]*)\)", (folder / file).read_text())
        assert all((folder / link).exists() for link in links), links


def test_it_leaves_all_it_promises(run):
    folder, _, predictions = run
    assert {path.name for path in folder.iterdir()} == {
        *PICTURES,
        *("model.safetensors", "predictions.csv", "report.md", "card.md"),
    }
    for name in PICTURES:
        assert all(300 <= side <= 3000 for side in looked_at(folder / name)), name
    text = (folder / "report.md").read_text()
    assert_no_broken_links(folder)
    for name in PICTURES:
        assert f"]({name})" in text
    low, high = interval(predictions.correct, COUNT)
    assert f"({predictions.correct} of {COUNT}, 95% interval {low:.2%} to {high:.2%})" in text
    assert "- `pears/b.jpg: it is empty`" in text
    for words in ("apple", r"pear\|plum", CLASSES[2], "| training time | 4 s |", "jax ", "optax "):
        assert words in text, words
    assert "| waiting for input | 25% of the time |" in text
    assert "| seed | 7 | 0 |" in text


def test_the_classes_add_up(run):
    folder, _, predictions = run
    table = (folder / "report.md").read_text().partition("## Classes")[2].partition("##")[0]
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if "%" in line]
    by_name = {row[0].replace(r"\|", "|"): row[1:] for row in lines[1:]}
    assert by_name.keys() == set(CLASSES)
    assert sum(int(row[1]) for row in by_name.values()) == predictions.correct
    for i, name in enumerate(CLASSES):
        asked, said = predictions.labels == i, predictions.classes == i
        right = int((asked & said).sum())
        assert by_name[name][:2] == [str(asked.sum()), str(right)]
        assert by_name[name][2].startswith(f"{right / asked.sum():.1%} (")
        assert by_name[name][3:] == ([f"{right / said.sum():.1%}"] if said.any() else [""])


def test_the_card(run):
    folder, (model, _, config, history), predictions = run
    text = (folder / "card.md").read_text()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    low, high = interval(predictions.correct, COUNT)
    for words in (
        digest,
        f"{history[-1]['val_accuracy']:.2%} ({predictions.correct} of {COUNT}, 95% interval",
        f"{low:.2%} to {high:.2%}",
        "| seed | 7 |",
        "| left out as unreadable | 1 |",
        f"{zoo.count(model).params:,} parameters",
        report.command(config),
        "curves.png",
    ):
        assert words in text, words


def test_predictions_line_by_line(run):
    folder, _, predictions = run
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == [str(i) for i in range(COUNT)]
    assert [row["label"] for row in rows] == [CLASSES[i % 3] for i in range(COUNT)]
    assert [row["prediction"] for row in rows] == [CLASSES[i] for i in predictions.classes]
    np.testing.assert_allclose(
        [float(row["probability"]) for row in rows], predictions.probabilities, atol=1e-6
    )


def test_files_have_their_names(tmp_path):
    source = Files(((str(tmp_path / "a.png"), 0), (str(tmp_path / "b.png"), 1)))
    dataset = Dataset("made", ("x", "y"), source, source, None, flip=True)
    nothing = float("nan")
    said = Predictions(logits_of([0, 1], [nothing, 0]), np.array([0, 1], np.int32))
    report.write_predictions(tmp_path / "out.csv", said, dataset)
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == [
        f"{tmp_path / 'a.png'},x,y,0.731059",
        f"{tmp_path / 'b.png'},y,,nan",
    ]


def test_without_matplotlib(run, tmp_path, monkeypatch, capsys):
    _, arguments, predictions = run
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(report, "predict_all", lambda *_, **__: predictions)
    report.write(tmp_path, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("mistakes.png", "predictions.csv", "report.md", "card.md")
    }
    assert_no_broken_links(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "](mistakes.png)" in text
    assert "curves.png" not in text
    assert "need matplotlib: pip install matplotlib" in capsys.readouterr().err


def test_a_network_that_diverged(run, tmp_path, monkeypatch):
    _, (model, dataset, config, _), _ = run
    logits = np.full((COUNT, 3), np.nan, np.float32)
    said = Predictions(logits, np.arange(COUNT, dtype=np.int32) % 3)
    monkeypatch.setattr(report, "predict_all", lambda *_, **__: said)
    history = [{**record, "val_loss": float("nan")} for record in records(0.0)]
    report.write(tmp_path, model, dataset, config, history)
    text = (tmp_path / "report.md").read_text()
    assert "| without an answer (NaN) | 21 pictures |" in text
    assert "**0.00%** (0 of 21" in text
    assert_no_broken_links(tmp_path)


# --- names that are not what they seem

NASTY = (
    "<script>alert(1)</script>",
    "[cat](javascript:alert(1))",
    "![cat](https://evil.example/x.png)",
    "# heading\n\n- list",
    "a|b | c",
    "`code` ``more``",
    "```",
    "*bold* _it_ ~~no~~ snake_case",
    "https://evil.example www.evil.example",
    "=1+2",
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "-1",
    "\x1b[31mred\x1b[0m\x07",
    "\udcff\ud800",
    "\u202eevil",
    "&lt;b&gt; $x$ \\| \\",
    "",
    "猫 👩‍👩‍👧",
)


@pytest.fixture
def nasty(run, tmp_path, monkeypatch):
    """(the folder of a run, its data): nothing in it is called as one would like."""
    _, (model, _, _, history), _ = run
    examples = []
    for i, name in enumerate(NASTY):
        own = f"{name}.png".replace("/", "\udcff").encode("utf-8", "replace")
        path = tmp_path / os.fsdecode(own.replace(b"?", b"\xff"))
        Image.new("RGB", (20, 20), (5 * i, 0, 0)).save(path, "PNG")
        examples.append((str(path), i))
    source = Files(tuple(examples))
    skipped = tuple(f"{name}: it is empty" for name in NASTY)
    data = Dataset("made", NASTY, source, source, None, flip=True, skipped=skipped)
    logits = np.random.default_rng(0).normal(size=(len(NASTY),) * 2).astype(np.float32)
    said = Predictions(logits, np.arange(len(NASTY), dtype=np.int32))
    monkeypatch.setattr(report, "predict_all", lambda *_, **__: said)
    config = TrainConfig(data=f"folder:{NASTY[0]}|{NASTY[6]}\n{NASTY[2]}", weights="a`|b\udcff.h5")
    out = tmp_path / "out"
    out.mkdir()
    report.write(out, model, data, config, history)
    return out, data


def test_names_are_but_text_in_markdown(nasty):
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    out, _ = nasty
    for file in ("report.md", "card.md"):
        page = reader.render((out / file).read_text())
        known = r"h[12]|p|table|thead|tbody|t[rhd]|img|a|code|pre|strong|ul|li"
        assert all(re.fullmatch(known, tag) for tag in re.findall(r"<(\w+)", page))
        assert {*re.findall(r'(?:href|src)="([^"]*)"', page)} <= {
            *PICTURES,
            "predictions.csv",
        }
        assert page.count("<h1") == 1
        shown = html.unescape(page)
        for name in NASTY:
            assert plain(name) in shown, name
        for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL):
            assert row.count("<t") - 1 in (2, 3, 4, 5), row


def test_names_are_but_text_in_a_spreadsheet(nasty):
    out, _ = nasty
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(NASTY)
    for row, name in zip(rows, NASTY, strict=True):
        label = row["label"]
        assert label[:1] not in tuple("=+@\t\r") or label == ""
        assert label.removeprefix("'") == name.encode(errors="backslashreplace").decode()
    assert rows[12]["label"] == "-1"  # a number is no formula


def test_names_are_drawn_on_one_line(nasty):
    out, _ = nasty
    for name in PICTURES:
        looked_at(out / name)


def test_names_are_kept_with_the_network(tiny, tmp_path):
    model = zoo.create("tiny", num_classes=3)
    model.classes = ("\udcff", "a\nb", "<b>")
    zoo.save(model, tmp_path / "x.safetensors")
    assert zoo.load(tmp_path / "x.safetensors").classes == model.classes


# --- what is shown


def test_confusion_by_hand():
    labels, said = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 2, 1, 0, 2, -1])
    assert report.confusion(labels, said, 4).tolist() == [
        [2, 0, 1, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],  # the last picture has no answer
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("classes", [2, 11, 40])
def test_a_matrix_of_any_size(tmp_path, classes):
    matrix = np.random.default_rng(0).poisson(3, (classes, classes))
    np.fill_diagonal(matrix, 1900)
    names = [f"class ${i}^ of a long name: 猫" for i in range(classes)]
    assert plots.draw_confusion(matrix, names, tmp_path / "matrix.png", "much " * 30)
    assert all(400 <= side <= 3000 for side in looked_at(tmp_path / "matrix.png"))


def test_the_mistakes_shown_are_the_worst(monkeypatch):
    monkeypatch.setattr(mistakes, "EACH", 2)
    logits = logits_of(
        [0, 1, 0],  # wrong
        [0, 5, 4],  # wrong, but the third class is likely too: the loss is higher than next
        [0, 4, 0],  # wrong, the surest
        [0, 3, 0],  # wrong, the second
        [9, 0, 0],  # right
        [0.1, 0, 0],  # right, barely
        [np.nan, 0, 0],
    )
    surest, worst, count = mistakes.select(Predictions(logits, np.zeros(7, np.int32)))
    assert count == 4
    assert surest.tolist() == [2, 3]
    assert worst.tolist() == [6, 1]


def test_no_mistakes(run):
    _, (model, dataset, *_), predictions = run
    right = Predictions(predictions.logits, predictions.classes.astype(np.int32))
    one, two = (mistakes.mistakes(said, dataset, model) for said in (right, predictions))
    assert one.width == two.width
    assert one.height < two.height  # a single part


def test_captions_keep_what_matters():
    source = Files((("photos/a long name that ends in its number 0123.jpg", 0),))
    dataset = Dataset("made", ("c" * 80, "d" * 80), source, source, None, flip=True)
    wrong, right = (
        mistakes._caption(0, Predictions(logits_of(row), np.zeros(1, np.int32)), dataset)
        for row in ([0, 1], [1, 0])
    )
    for lines, (second, third) in ((wrong, ("true", "said")), (right, ("true", "next"))):
        assert lines[0].startswith("…")
        assert lines[0].endswith(" 0123.jpg")
        assert [lines[1][:8], lines[2][:8]] == [f"{second}: cc", f"{third}: dd"]
        assert all(FONT.getlength(line) <= mistakes.WIDTH for line in lines)
    assert [wrong[1][-8:], wrong[2][-8:]] == ["…, 26.9%", "…, 73.1%"]
    assert [right[1][-8:], right[2][-8:]] == ["…, 73.1%", "…, 26.9%"]


def test_the_command_gives_the_same_run():
    config = TrainConfig(
        model="resnet18",
        data="folder:my photos",
        optimizer="sgd",
        learning_rate=1e-5,
        flip=False,
        sync_bn=True,
        head_epochs=3,
        out="runs/x y",
    )
    words = shlex.split(report.command(config))
    assert words[0] == "zoo"
    assert TrainConfig.from_dict(given(parser().parse_args(words[1:]))) == config


def test_the_command_is_repeated_as_it_was_typed(run, tmp_path):
    _, (model, dataset, config, history), predictions = run
    words = ["finetune", "resnet18", "--data", "folder:my photos", "--out", "it's here"]
    assert shlex.split(typed.typed(words)) == ["zoo", *words]
    arguments = (config, model, dataset, history)
    by_python = report.report(*arguments, predictions, (), out=tmp_path)
    assert f"```sh\n{report.command(config)}\n```" in by_python
    token = typed.COMMAND.set(typed.typed(words))
    try:
        begin(tmp_path, config, {})
    finally:
        typed.COMMAND.reset(token)
    begin(tmp_path, config, {})  # continued by Python: the first command stays
    for text in (
        report.report(*arguments, predictions, (), out=tmp_path),
        report.card(*arguments, out=tmp_path),
    ):
        assert f"```sh\n{typed.typed(words)}\n```" in text
        assert report.command(config) not in text


# --- the records


def test_the_best_epoch():
    assert best_of(records(0.5, 0.75, 0.75, 0.25))["epoch"] == 2
    assert best_of(records(float("nan"), 0.25))["epoch"] == 2


@pytest.mark.parametrize(
    "history",
    [
        records(0.5),
        records(*np.linspace(0, 1, 90).tolist()),
        [dict.fromkeys(records(0.5)[0], float("nan")) | {"epoch": 1, "step": 10}],
        [record | {"val_loss": float("inf")} for record in records(float("nan"), 0.5)],
    ],
    ids=["one epoch", "many", "nan", "inf"],
)
def test_curves_of_any_history(tmp_path, history):
    assert plots.draw_curves(history, tmp_path / "curves.png", "$a_b on 猫")
    width, height = looked_at(tmp_path / "curves.png")
    assert width > 2 * height > 600


def test_a_record_that_a_crash_cut_off(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    log = Log(tmp_path, [], 0)
    for record in records(0.25, 0.5, 0.75):
        log.add(record)
    log.close()
    whole = path.read_text()
    assert read_records(path) == records(0.25, 0.5, 0.75)
    assert not capsys.readouterr().err

    path.write_text(whole[:-20])
    kept = read_records(path)
    assert "metrics.jsonl: dropping line 3, cut off by a crash" in capsys.readouterr().err
    assert kept == records(0.25, 0.5)
    log = Log(tmp_path, kept, 30)
    log.add(records(0, 0, 0.75)[2])
    log.close()
    assert path.read_text() == whole
    assert not capsys.readouterr().err

    path.write_text(whole[:-1])  # but for the end of the line
    assert read_records(path) == records(0.25, 0.5, 0.75)


def test_a_full_disk_leaves_no_half_record(tmp_path):
    first, second, third = records(0.25, 0.5, 0.75)
    path = tmp_path / "metrics.jsonl"
    log = Log(tmp_path, [], 0)
    log.add(first)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            log.add(second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.add(third)
    log.close()
    assert log.history == [first, second, third]
    assert read_records(path) == [first, second, third]  # the next one brings it along


def test_a_disk_that_stays_full_ends_no_run(tmp_path):
    (record,) = records(0.5)
    log = Log(tmp_path, [], 0)
    (events,) = tmp_path.glob("events.*")
    log._events._writer.flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (events.stat().st_size, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            log.add({**record, **{f"more_{i}": 0.5 for i in range(9)}})
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_after_lost_power(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(records(0.5)[0]).encode() + b"\n\0\0\0\n\xff\n")
    assert read_records(path) == records(0.5)
    assert "dropping lines 2 to 3" in capsys.readouterr().err
    assert read_records(tmp_path / "none.jsonl") == []
