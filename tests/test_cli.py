"""The command `zoo`: what it prints, and how it refuses. Training commands: test_training*.py."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import zoo
from training import cli
from zoo.preprocess import INCEPTION

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    *("list", "params", "info", "compare", "diff"),
    *("weights", "convert", "export", "push", "predict", "env"),
    *("train", "finetune", "evaluate", "tricks", "plan"),
]


@pytest.fixture
def run(capsys):
    """`run("list", "vgg*")`: the lines printed; a refusal fails the test."""

    def main(*argv: str) -> list[str]:
        cli.main(list(argv))
        out, err = capsys.readouterr()
        assert not err
        return out.splitlines()

    return main


@pytest.fixture
def refused(capsys):
    """`refused("list", "vgg*")`: the one line on stderr of a command that exits with 2."""

    def main(*argv: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(argv))
        assert stop.value.code == 2
        out, err = capsys.readouterr()
        assert not out
        (line,) = err.splitlines()
        return line

    return main


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    example = re.search(r"^example: zoo (\w+) ", text, re.MULTILINE)
    assert example[1] == (command or ["train"])[0]
    if not command:
        assert re.findall(r"^    (\w+) ", text, re.MULTILINE) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_parses(command, capsys):
    found = zoo.cli.commands()
    cli._add_training(found)
    with pytest.raises(SystemExit):
        found.parser.parse_args([command, "--help"])
    example = re.search(r"^example: zoo (.*)", capsys.readouterr().out, re.MULTILINE)[1]
    words = example.replace("'", "").split()
    assert found.parser.parse_args(words).command == command


def test_help_imports_nothing_slow():
    code = """
import sys, zoo, training.cli
try:
    training.cli.main(["train", "--help"])
except SystemExit as stop:
    assert stop.code == 0
slow = {"jax", "flax", "numpy", "PIL", "grain", "orbax", "optax"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_no_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ("predict", "cat.jpg", "--model", "model.safetensors"),
        ("train", "mobilenet_v1_025", "--data", "digits"),
        ("finetune", "mobilenet_v1_025", "--data", "digits", "--weights", "model.safetensors"),
        ("evaluate", "model.safetensors", "--data", "digits"),
    ],
    ids=lambda argv: argv[0],
)
def test_commands_that_compile_ask_for_the_compilation_cache(argv, refused, monkeypatch):
    told = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("ZOO_COMPILE_CACHE", "large")
    jax.config.update("jax_compilation_cache_dir", None)  # else it is the user's own
    try:
        assert "ZOO_COMPILE_CACHE: got 'large', expected off, or a size" in refused(*argv)
    finally:
        jax.config.update("jax_compilation_cache_dir", told)


# --- list and params -----------------------------------------------------------------------------


def test_list(run):
    head, *rows = run("list")
    assert re.split(r"  +", head) == ["network", "also called", "paper"]
    assert [row.split()[0] for row in rows] == zoo.list_models()
    (row,) = run("list", "mobilenet_v1_100")[1:]
    assert row.split() == ["mobilenet_v1_100", "mobilenet_v1", "https://arxiv.org/abs/1704.04861"]


def test_params(run):
    text = "\n".join(run("params", "mobilenet_v1_025", "resnet18"))
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines() if line.startswith("resnet18")]
    c = zoo.count("resnet18")
    assert rows[0] == ["resnet18", "11,689,512", "513,000", "0", "9,600", "11,699,112", "46.8"]
    assert rows[1][1:4] == ["224", "1.814", f"{c.train_flops / 1e9:.2f}"]
    for definition in ("parameters: all numbers that training changes", "MACs: "):
        assert definition in text


def test_params_resolves_aliases_and_takes_a_size(run):
    (row,) = json.loads(
        "\n".join(run("params", "mobilenet_v1", "--size", "128", "--format", "json"))
    )["rows"]
    c = zoo.count("mobilenet_v1_100", input_size=128)
    assert (row["network"], row["params"], row["macs"]) == ("mobilenet_v1_100", c.params, c.macs)
    assert (row["head"], row["batch_stats"], row["input_size"]) == (1_025_000, 21_888, 128)


def test_params_of_a_batch(run, refused):
    def memory(*argv):
        (row,) = json.loads("\n".join(run("params", "vgg11", "--format", "json", *argv)))["rows"]
        return row["inference_memory"], row["training_memory"]

    one, eight = memory(), memory("--batch-size", "8")
    assert eight == (8 * one[0], 8 * one[1])
    assert "--batch-size: got 0, expected 1 or more" in refused(
        "params", "vgg11", "--batch-size", "0"
    )


def test_params_by_layer(run):
    lines = run("params", "mobilenet_v1_025", "--layers")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    # 3 * 3 * 3 * 8 + 2 * 8; 112 * 112 * 8 * 27 = 2.7 M
    assert rows["stem"] == ["stem", "112x112x8", "232", "2.7", "3"]
    assert rows["total"][0] == "470,072"
    assert "    depthwise" in {line[:13] for line in lines}  # body, its row, the row's own


def test_params_for_other_programs(run):
    head, row = run("params", "mobilenet_v1_025", "--format", "csv")
    assert dict(zip(head.split(","), row.split(","), strict=True))["params"] == "470072"
    assert run("params", "mobilenet_v1_025", "--format", "md")[1].startswith("| :-- | --: |")


def test_params_against_a_peer(run, refused):
    text = "\n".join(run("params", "resnet50", "--against", "keras"))
    for line in ("25,557,032", "26,560", "53,120", "25,636,712"):
        assert line in text
    assert "unknown peer 'kears': did you mean 'keras'" in refused(
        "params", "resnet50", "--against", "kears"
    )


def test_info(run):
    text = "\n".join(run("info", "googlenet"))
    for line in ("inception_v1", "https://arxiv.org/abs/1409.4842", "tv1_in1k"):
        assert line in text
    assert json.loads("\n".join(run("info", "squeezenet1_1", "--format", "json")))


def test_diff(run):
    lines = run("diff", "resnet18", "plain18")
    assert "+   2 x (2 x 3x3 64 BN relu)" in lines


def test_compare(run, tmp_path):
    lines = run("compare", "squeezenet1_*", "mobilenet_v1_025")
    names = [line.split()[0] for line in lines if re.match(r"squeezenet|mobilenet", line)]
    assert names[:3] == ["squeezenet1_0", "squeezenet1_1", "mobilenet_v1_025"]
    files = run("compare", "mobilenet_v1_025", "squeezenet1_1", "--out", str(tmp_path / "out"))
    assert {Path(file).name for file in files} >= {"bubble.png", "compare.html", "compare.csv"}
    assert all(Path(file).stat().st_size for file in files)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("compare",), "expected names of networks, --family or --all"),
        (("compare", "--family", "resnets"), "unknown family 'resnets': did you mean 'resnet'"),
        (("compare", "resnet5"), "unknown model 'resnet5'"),
        (("diff", "resnet50", "resnet5"), "unknown model 'resnet5'"),
        (("info", "resnet5"), "unknown model 'resnet5'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_reported_is_told_in_a_line(refused, argv, line):
    assert line in refused(*argv)


# --- predict -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A file of a network that knows three classes, at 32 pixels."""
    model = zoo.create("mobilenet_v1_025", num_classes=3)
    model.preprocess = INCEPTION.at_size(32)
    model.classes = ("ant", "bee", "cat")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    zoo.save(model, path)
    return path


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    random = np.random.default_rng(0)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return [str(path) for path in paths]


def test_predict(run, trained, pictures):
    lines = run("predict", *pictures, "--model", str(trained))
    model = zoo.load(str(trained))
    probabilities = np.asarray(jax.nn.softmax(model(model.preprocess(pictures))))
    want = []
    for picture, row in zip(pictures, probabilities, strict=True):
        best = sorted(zip(row, ["ant", "bee", "cat"], strict=True), reverse=True)
        want += [picture, *(f"  {share:6.1%}  {name}" for share, name in best)]
    assert lines == want


def test_predict_top(run, trained, pictures):
    whole = run("predict", pictures[0], "--model", str(trained))
    assert run("predict", pictures[0], "--model", str(trained), "--top", "1") == whole[:2]


@pytest.fixture
def folder(tmp_path) -> Path:
    """20 pictures, in a folder and one below it, and what is none or cannot be read."""
    random = np.random.default_rng(1)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    names = [*(f"{i:02}.png" for i in range(19)), "more/z.JPG"]
    for name in names:
        pixels = random.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "bad.png").write_text("no picture")
    (tmp_path / "photos" / ".hidden.png").write_text("no picture")
    (tmp_path / "photos" / "readme.txt").write_text("no picture")
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    return tmp_path / "photos"


def test_predict_goes_through_a_folder_and_past_what_it_cannot_read(trained, folder, capsys):
    cli.main(["predict", str(folder), "--model", str(trained), "--format", "json"])
    out, err = capsys.readouterr()
    answers = json.loads(out)
    assert [Path(a["image"]).name for a in answers] == [
        *(f"{i:02}.png" for i in range(19)),
        "z.JPG",
    ]
    assert err.splitlines() == [
        "zoo predict: files left out that are no pictures by their names: 1",
        f"zoo predict: cannot read image {folder}/bad.png: "
        "not a picture of any format that is read",
        f"zoo predict: cannot read image {folder}/pipe.png: a pipe, not a file",
        "zoo predict: 2 of 22 pictures could not be read",
    ]
    model = zoo.load(str(trained))
    images = [a["image"] for a in answers]
    want = np.asarray(jax.nn.softmax(model(model.preprocess(images))))  # two batches at once
    got = [{p["class"]: p["probability"] for p in a["predictions"]} for a in answers]
    np.testing.assert_allclose([[g[n] for n in model.classes] for g in got], want, atol=1e-6)


def test_predict_when_nothing_can_be_read(trained, folder, capsys, tmp_path):
    paths = [str(folder / "bad.png"), str(folder / "pipe.png")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", *paths, "--model", str(trained)])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.endswith("zoo predict: none of 2 pictures could be read\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        cli.main(["predict", str(tmp_path / "empty"), "--model", str(trained)])
    assert "no pictures in the folder" in capsys.readouterr().err


def test_predict_for_spreadsheets(run, trained, pictures, tmp_path):
    model = zoo.load(str(trained))
    model.classes = ("=cmd()", "b,e\n\x1b[31m", "cat")
    folder = tmp_path / "run"
    folder.mkdir()
    zoo.save(model, folder / "model.safetensors")
    rows = list(csv.reader(run("predict", *pictures, "--model", str(folder), "--format", "csv")))
    assert rows[0] == ["image", "rank", "index", "class", "probability"]
    assert [row[:2] for row in rows[1:]] == [[p, str(r)] for p in pictures for r in (1, 2, 3)]
    assert {row[3] for row in rows[1:]} == {"'=cmd()", "b,e\\n\\x1b[31m", "cat"}
    text = run("predict", pictures[0], "--model", str(folder))
    assert len(text) == 4
    assert not any("\x1b" in line for line in text)


def test_predict_with_a_file_of_others(pictures, tmp_path, capsys):
    zoo.export(zoo.create("resnet18", num_classes=2), tmp_path / "a.safetensors", "timm")
    wrapped = {f"module.{k}": v for k, v in load_file(tmp_path / "a.safetensors").items()}
    save_file(wrapped, tmp_path / "b.safetensors")
    file = ["--file", str(tmp_path / "b.safetensors"), "--model", "resnet18", "--layout", "timm"]
    cli.main(["predict", pictures[0], *file])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    stripped, assumed = err.splitlines()
    assert stripped == "zoo predict: names begin with 'module.': left out"
    assert assumed.startswith("zoo predict: preprocessing is assumed")
    cli.main(["convert", file[1], str(tmp_path / "c.safetensors"), *file[2:]])
    assert capsys.readouterr().err.count("\n") == 2
    cli.main(["predict", pictures[0], *file, "--like", "resnet18.a1_in1k"])
    assert "assumed" not in capsys.readouterr().err


@pytest.mark.parametrize("top", ["0", "-1"])
def test_predict_no_class(refused, trained, pictures, top):
    assert "--top: got" in refused("predict", pictures[0], "--model", str(trained), "--top", top)


def test_predict_without_class_names(run, trained, pictures, tmp_path):
    model = zoo.load(str(trained))
    model.classes = ()
    zoo.save(model, tmp_path / "nameless.safetensors")
    lines = run("predict", pictures[0], "--model", str(tmp_path / "nameless.safetensors"))
    assert sorted(line.split("  ")[-1] for line in lines[1:]) == ["class 0", "class 1", "class 2"]


# --- refusals: one line, exit code 2 -------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [["params", "vgg11", "resnet5"], ["train", "resnet5", "--data", "digits"]], ids=" ".join
)
def test_an_unknown_network(refused, argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(*argv)
    assert line.startswith(f"zoo {argv[0]}: unknown model 'resnet5': did you mean ")
    assert "'resnet50'" in line
    assert not list(tmp_path.iterdir())


def test_a_pattern_that_matches_nothing(refused):
    assert refused("list", "nil*") == "zoo list: no network matches 'nil*'; `zoo list` shows all"


def test_too_small_an_input(refused):
    for size in ("16", "0"):
        line = refused("params", "resnet18", "--size", size)
        assert f"got images of {size}x{size}, expected" in line


def test_a_model_file_that_is_not_there(refused, pictures, tmp_path):
    path = tmp_path / "none.safetensors"
    line = refused("predict", pictures[0], "--model", str(path))
    assert line == f"zoo predict: weights: no file {path}"


def test_a_picture_that_is_none(refused, trained, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    line = refused("predict", str(bad), "--model", str(trained))
    assert line.startswith(f"zoo predict: cannot read image {bad}: ")


def test_the_command_itself():
    """The exit code as the shell sees it, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", "from training.cli import main; main()", "params", "resnet5"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.splitlines()) == 1
