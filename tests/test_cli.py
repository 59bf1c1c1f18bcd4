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
from training.options import with_recipe
from training.recipes import recipe
from zoo.preprocess import INCEPTION

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    *("list", "params", "info", "compare", "diff"),
    *("weights", "convert", "export", "push", "predict", "env"),
    *("train", "finetune", "evaluate", "reproduce", "tricks", "runs", "completion", "plan"),
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
        assert re.findall(r"^    (\w+)(?: |$)", text, re.MULTILINE) == COMMANDS


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
    ("argv", "line"),
    [
        (("lst",), "zoo: unknown command 'lst': did you mean 'list'?"),
        (("train", "--epocs", "3", "vgg11"), "zoo train: unknown option '--epocs': did you mean '"),
        (("list", "--format", "jsn"), "zoo list: unknown --format 'jsn': did you mean 'json'?"),
        (("list", "resnt*"), "zoo list: no networks match 'resnt*': did you mean 'resnet"),
        (("weights", "resnt50"), "no weights match 'resnt50': did you mean 'resnet50'"),
        (("list", "--sort", "topp1"), "unknown column to sort by 'topp1': did you mean 'top1'"),
        (("list", "--max-params", "6MM"), "got '6MM', expected a number such as 6M or 1.5G"),
        (("weights", "vgg*", "--min-top1", "99"), "weights pass --min-top1 99.0"),
        (("weights", "--source", "tim"), "unknown source 'tim': did you mean 'timm'"),
        (("weights", "--own", "--cached"), "--own: expected alone, got --cached too"),
        (
            ("weights", "--own", "qq"),
            "no weights of our own match 'qq': there are airbench94_cifar",
        ),
        (("compare", "qq*"), "no networks match 'qq*'; without a pattern all are shown"),
        (("params", "vgg11", "--size", "x"), "params: --size: got 'x', expected a whole number"),
        (("train", "vgg11", "--lr", "0.1"), "such as stem=0.1, with a factor of 0 to 1000000; the"),
        (("params", "runs/none"), "no file runs/none"),
        (("info", "none.pth"), "no file none.pth"),
        (("export", "none.safetensors", "a.onnx"), "no file none.safetensors"),
        (("diff", "vgg11", "b/none.h5"), "no file b/none.h5"),
        (("runs", "none"), "zoo runs: no folder none: expected one with runs in it"),
        (("train",), "zoo train: expected the name of a network, see `zoo list`; or --recipe NAME"),
        (("train", "--recipe", "resnet20"), "unknown recipe 'resnet20': did you mean 'resnet20_"),
        (("plan",), "zoo plan: expected the name of a network, see `zoo list`; or --recipe NAME"),
        (("completion", "bsh"), "unknown SHELL 'bsh': did you mean 'bash'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_typed_wrongly_is_told_in_a_line(refused, argv, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused(*argv)
    assert line in told
    assert told.count("'") <= 2 * 11  # ten names at most


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_recipe_says_the_network(command):
    def settings(*argv):
        return with_recipe(cli.parser().parse_args([command, *argv]))

    asked = settings("--recipe", "resnet20_digits", "--batch-size", "8")
    assert (asked["model"], asked["batch_size"]) == ("resnet20_cifar", 8)
    other = settings("resnet32_cifar", "--recipe", "resnet20_digits")
    assert other == {**recipe("resnet20_digits"), "model": "resnet32_cifar"}


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"zoo {zoo.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(run, shell):
    pytest.importorskip("shtab")
    script = "\n".join(run("completion", shell))
    for word in ("finetune", "--max-params", "resnet50.a1_in1k", "mobilenet_v1_025"):
        assert word in script


def test_finetuning_says_what_it_really_does(run, capsys):
    with pytest.raises(SystemExit):
        cli.main(["finetune", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for says in (
        "default: 10, and more where these make less than 200 steps",
        "peak rate, whatever the optimizer (0.001)",
        "default: those that the model names, or the network's default",
    ):
        assert says in text


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


def test_fine_tuning_takes_no_data_for_granted(refused):
    line = refused("finetune", "mobilenet_v1_025")
    assert line == (
        "zoo finetune: --data is missing: expected your pictures, such as folder:photos/"
    )


# --- list and params -----------------------------------------------------------------------------


def test_list(run):
    rows = json.loads("\n".join(run("list", "--format", "json")))["rows"]
    assert [row["network"] for row in rows] == zoo.list_models()
    (row,) = run("list", "mobilenet_v1_100")[2:]
    assert row.split() == [
        *("mobilenet_v1_100", "4.23", "0.569", "224", "75.4", "13", "2017", "mobilenet_v1"),
        "https://arxiv.org/abs/1704.04861",
    ]


def test_list_sorted_and_filtered(run):
    asked = ("list", "--max-params", "6M", "--max-macs", "0.5G", "--min-top1", "74")
    rows = json.loads("\n".join(run(*asked, "--sort", "top1", "--format", "json")))["rows"]
    tops = [row["top1"] for row in rows]
    assert tops == sorted(tops, reverse=True)
    assert tops[-1] >= 74
    assert {"efficientnet_b0", "mobilenet_v3_large_100"} <= {row["network"] for row in rows}
    assert max(row["params"] for row in rows) <= 6e6
    assert max(row["macs"] for row in rows) <= 5e8


def test_a_long_list_is_cut_where_a_terminal_ends(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["weights", "resnet50"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) == 80
    assert out.count("…") >= len(zoo.list_weights("resnet50"))


def test_params_and_info_of_weights_and_of_a_file(trained, capsys):
    cli.main(["params", f"{trained}", f"{trained.parent}", "resnet18.a3_in1k", "--format", "json"])
    out, err = capsys.readouterr()
    assert "with their own classes" in err
    file, folder, weights = json.loads(out)["rows"]
    count = zoo.count("mobilenet_v1_025", num_classes=3, input_size=32)
    assert (file["params"], file["macs"], file["input_size"]) == (count.params, count.macs, 32)
    assert folder == {**file, "network": f"{trained.parent}"}
    assert (weights["network"], weights["input_size"]) == ("resnet18.a3_in1k", 160)
    cli.main(["info", f"{trained.parent}"])
    text = capsys.readouterr().out
    for line in ("network: mobilenet_v1_025", "classes: ant, bee, cat", "3 classes"):
        assert line in text


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
    head, *lines = run("predict", *pictures, "--model", str(trained))
    assert head.split() == ["picture", "share", "class"]
    assert max(map(len, lines)) <= 80
    model = zoo.load(str(trained))
    probabilities = np.asarray(jax.nn.softmax(model(model.preprocess(pictures))))
    want = []
    for picture, row in zip(pictures, probabilities, strict=True):
        best = sorted(zip(row, ["ant", "bee", "cat"], strict=True), reverse=True)
        shown = picture if len(picture) <= 40 else "…" + picture[-39:]
        want += [[name, f"{share:.1%}", label]
                 for name, (share, label) in zip([[shown], [], []], best, strict=True)]  # fmt: skip
    assert [line.split() for line in lines] == [[*name, *rest] for name, *rest in want]


def test_predict_cuts_what_is_too_long(run, trained, pictures, tmp_path, monkeypatch):
    model = zoo.load(str(trained))
    model.classes = ("a" * 300, "bee", "cat")
    zoo.save(model, tmp_path / "long.safetensors")
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("predict", pictures[0], "--model", str(tmp_path / "long.safetensors"))
    assert max(map(len, lines)) == 60
    assert any(line.endswith("aaa…") for line in lines)


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
    assert len(out.splitlines()) == 3  # a heading and two classes
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
    line = refused("list", "qqq*")
    assert line == "zoo list: no networks match 'qqq*'; without a pattern all are shown"


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
