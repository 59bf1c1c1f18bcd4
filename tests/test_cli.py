"""The command `zoo`: what it prints, and how it refuses. Training commands: test_training*.py."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import zoo
from training import cli
from zoo.preprocess import INCEPTION

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    *("list", "params", "weights", "convert", "export", "predict"),
    *("train", "finetune", "evaluate"),
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
    head, *rows = run("params", "mobilenet_v1_025", "resnet18")
    assert re.split(r"  +", head) == [
        "network", "parameters", "of them head", "BN statistics", "MACs (G)", "input",
    ]  # fmt: skip
    assert [row.split() for row in rows] == [
        ["mobilenet_v1_025", "470,072", "257,000", "5,472", "0.041", "224"],
        ["resnet18", "11,689,512", "513,000", "9,600", "1.814", "224"],
    ]


def test_params_resolves_aliases_and_takes_a_size(run):
    _, row = run("params", "mobilenet_v1", "--size", "128")
    c = zoo.count("mobilenet_v1_100", input_size=128)
    assert row.split() == [
        "mobilenet_v1_100", "4,231,976", "1,025,000", "21,888", f"{c.macs / 1e9:.3f}", "128",
    ]  # fmt: skip


def test_params_layers(run):
    lines = run("params", "mobilenet_v1_025", "--layers")
    assert lines[2] == ""
    assert lines[3].split() == ["mobilenet_v1_025", "output", "parameters", "MACs", "(M)"]
    layers = [line.split() for line in lines[4:]]
    assert len(layers) == 1 + 2 * 13 + 1
    # 3 * 3 * 3 * 8 + 2 * 8; 112 * 112 * 8 * 27 = 2.7 M
    assert layers[0] == ["body.stem", "112x112x8", "232", "2.7"]
    assert layers[-1] == ["classifier", "1000", "257,000", "0.3"]


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
    assert "got images of 16x16, expected" in refused("params", "resnet18", "--size", "16")


def test_a_model_file_that_is_not_there(refused, pictures, tmp_path):
    path = tmp_path / "none.safetensors"
    line = refused("predict", pictures[0], "--model", str(path))
    assert line == f"zoo predict: weights: no file {path}"


def test_a_picture_that_is_none(refused, trained, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    line = refused("predict", pictures[0], str(bad), "--model", str(trained))
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
