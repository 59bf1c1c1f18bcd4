"""Networks, layouts and weights that come from outside."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import zoo
from zoo import plugins, registry
from zoo.layers import Conv, GlobalAvgPool, Network
from zoo.pretrained import catalogue, infer, layouts, store
from zoo.pretrained.layouts import LAYOUTS
from zoo.report.many import count_many
from zoo.variant import Variant

PAPER = zoo.Paper("", "", 2026, "", new="")


def build(ctx, width=8):
    body = dict(stem=Conv(3, width, stride=2), conv2=Conv(3, 16, stride=2))
    return Network(body, dict(pool=GlobalAvgPool()), ctx, min_size=8)


MINE = Variant("mine", build, PAPER, input_size=16, aliases=("my_net",))


@pytest.fixture
def doors(monkeypatch):
    """What a test registers is gone after it."""
    known = dict(registry.variants())
    rows = {model: dict(tags) for model, tags in catalogue._rows().items()}
    monkeypatch.setattr(registry, "_known", lambda: known)
    monkeypatch.setattr(catalogue, "_known", lambda: rows)
    ours = dict(LAYOUTS)
    yield
    LAYOUTS.clear()
    LAYOUTS.update(ours)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("doors")
def test_a_network_from_outside_is_one_of_the_others():
    zoo.register(MINE)
    assert "mine" in zoo.list_models()
    assert registry.find("my_net").name == "mine"
    assert zoo.count("mine").params == 27 * 8 + 16 + 8 * 9 * 16 + 32 + 17 * 1000
    assert zoo.create("my_net", num_classes=3).spec.name == "mine"
    assert zoo.info("mine").text()
    assert zoo.compare(["mine", "nin_cifar"]).table().md()
    assert zoo.diff("mine", "nin_cifar").render("text")
    with pytest.raises(zoo.ZooError, match="unknown model 'mines': did you mean 'mine'"):
        zoo.count("mines")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize("taken", ["resnet18", "googlenet", "mine", "my_net"])
@pytest.mark.parametrize("as_alias", [False, True])
def test_a_name_that_is_taken(taken, as_alias):
    zoo.register(MINE)
    names = zoo.list_models()
    newcomer = Variant(**{"name": "new", **({} if as_alias else {"name": taken})}, build=build,
                       paper=PAPER, aliases=(taken,) if as_alias else ())  # fmt: skip
    with pytest.raises(zoo.ZooError, match=f"^model name '{taken}' is taken by '.*'$"):
        zoo.register(newcomer)
    assert zoo.list_models() == names


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "a.b", "got the name 'a.b', expected letters"),
        ("name", "", "got the name ''"),
        ("name", 3, "got the name 3"),
        ("aliases", ("a b",), "got the name 'a b'"),
        ("aliases", "abc", "mine: aliases are 'abc', expected a tuple"),
        ("build", "resnet", "mine: build is 'resnet', expected a function"),
        ("paper", "a paper", "mine: paper is 'a paper', expected a zoo.Paper"),
        ("input_size", "224", "mine: input_size: got '224', expected a whole number"),
        ("input_size", 0, "mine: input_size: got 0, expected 1 to"),
        ("numerics", "TF", "mine: numerics is 'TF', expected a zoo.Numerics"),
        ("family", None, "mine: family is None, expected a text"),
    ],
)
def test_a_variant_that_cannot_be(field, value, says):
    with pytest.raises(zoo.ZooError) as refused:
        replace(MINE, **{field: value})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_paper_that_cannot_be():
    with pytest.raises(zoo.ZooError, match="paper, year: got '2015', expected a whole number"):
        replace(PAPER, year="2015")
    with pytest.raises(zoo.ZooError, match="paper, url: got None, expected a text"):
        replace(PAPER, url=None)


@pytest.mark.usefixtures("doors")
def test_no_variant_and_no_network():
    with pytest.raises(zoo.ZooError, match=r"register: got 'resnet50', expected a zoo\.Variant"):
        zoo.register("resnet50")
    zoo.register(replace(MINE, build=lambda ctx: dict))
    with pytest.raises(zoo.ZooError, match=r"build gave <class 'dict'>, expected a zoo\.Network"):
        zoo.create("mine")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize(
    ("module", "given", "family"),
    [
        ("their.nets.small", "", "small"),
        ("small", "", "small"),
        ("their.resnet", "", "their.resnet"),  # the layouts' names for our ResNets are not for it
        ("their.resnet", "resnet", "resnet"),
        ("__main__", "", "mine"),
    ],
)
def test_the_family_of_a_network_from_outside(module, given, family, monkeypatch):
    monkeypatch.setattr(build, "__module__", module)
    zoo.register(replace(MINE, build=partial(partial(build), width=4), family=given))
    assert registry.find("mine").family == family


@pytest.mark.usefixtures("doors")
def test_one_that_is_registered_here_alone_is_counted_here(monkeypatch):
    monkeypatch.setattr("zoo.report.many.FEW", 1)
    zoo.register(MINE)
    done = []
    counts = count_many(["my_net", "nin_cifar"], on_done=lambda: done.append(1))
    assert [c.name for c in counts] == ["mine", "nin_cifar"]
    assert len(done) == 2


# --- layouts and weights -------------------------------------------------------------------------


@pytest.mark.usefixtures("doors")
def test_layouts_that_cannot_be_registered(tmp_path):
    torch = LAYOUTS["torchvision"]
    for name, layout, says in (
        ("timm", torch, "layout name 'timm' is taken"),
        ("", torch, "got the name '', expected a text"),
        (None, torch, "got the name None"),
        ("mine", "torchvision", "got 'torchvision', expected a zoo.pretrained.layouts.Layout"),
    ):
        with pytest.raises(zoo.ZooError, match=re.escape(says)):
            zoo.register_layout(name, layout)
    np.savez(tmp_path / "x.npz", x=np.zeros(1))
    with pytest.raises(zoo.ZooError, match="unknown layout 'mine'"):
        zoo.load("resnet18", file=tmp_path / "x.npz", layout="mine")


ROW = {
    **dict.fromkeys(catalogue.COLUMNS, ""),
    **dict(name="mine.own", source="files", file="https://example.org/mine.pth", layout="timm"),
    **dict(input_size="16", resize="18", interpolation="bilinear", channels="rgb", params="9"),
    **dict(mean="0.5 0.5 0.5", std="0.5 0.5 0.5", classes="10", label_offset="0", licence="MIT"),
}


def table(path, *rows, columns=catalogue.COLUMNS):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in rows)
    return path


@pytest.mark.usefixtures("doors")
def test_rows_from_outside_are_rows_of_the_catalogue(tmp_path):
    zoo.register(MINE)
    other = dict(ROW, name="resnet18.own", resize="87.5%", top1="70.5", numerics="TF")
    zoo.register_weights(table(tmp_path / "w.csv", ROW, other, columns=catalogue.COLUMNS[::-1]))
    assert zoo.list_weights("*.own") == ["resnet18.own", "mine.own"]
    assert zoo.weights("my_net.own").preprocess == zoo.Preprocess(
        16, 18, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    record = zoo.weights("resnet18.own")
    assert (record.top1, record.preprocess.central, record.preprocess.resize) == (70.5, 0.875, None)
    assert zoo.weights("resnet18").name == "resnet18.tv1_in1k"  # no other default
    assert catalogue.class_names(record) == ()  # ten classes, but not CIFAR-10's
    with pytest.raises(zoo.ZooError, match="weights of mine have no default: ask for them"):
        zoo.weights("mine")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("name", "mine", "got 'mine', expected NETWORK.TAG"),
        ("name", "mine.../x", "got 'mine.../x', expected NETWORK.TAG"),
        ("name", "nobody.own", "unknown model 'nobody'"),
        ("name", "my_net.own", "got 'my_net', expected 'mine'"),
        ("name", "resnet18.a1_in1k", "'resnet18.a1_in1k' is taken"),
        ("file", "http://example.org/x", "got 'http://example.org/x', expected https://"),
        ("file", "", "got '', expected https://"),
        ("hash", "1234", "got '1234', expected 'sha256:'"),
        ("size_mb", "12 MB", "got '12 MB', expected a number"),
        ("size_mb", "nan", "got 'nan', expected a number"),
        ("layout", "tim", "unknown layout 'tim': did you mean 'timm'"),
        ("numerics", "TFF", "unknown numerics 'TFF': did you mean 'TF'"),
        ("input_size", "16.5", "got '16.5', expected a whole number"),
        ("input_size", "0", "size must be a positive number"),
        ("resize", "9", "resize must be None or at least size"),
        ("resize", "200%", "central: got 2.0, expected 0 < share <= 1"),
        ("squash", "yes", "got 'yes', expected 'true' or nothing"),
        ("interpolation", "cubic", "unknown interpolation 'cubic'"),
        ("std", "0.5 0.5", "std must be three positive numbers (R, G, B), or as many"),
        ("mean", "a b c", "got 'a b c', expected numbers"),
        ("std", "0 1 1", "std must be three positive numbers"),
        ("channels", "gbr", "unknown channel order 'gbr'"),
        ("classes", "-1", "got '-1', expected a whole number"),
        ("label_offset", "", "got '', expected a whole number"),
        ("non_commercial", "false", "got 'false', expected 'true' or nothing"),
        ("top1", "101", "got '101', expected percent"),
        ("params", "9e6", "got '9e6', expected a whole number"),
        ("default", "1", "got '1', expected 'true' or nothing"),
    ],
)
def test_a_cell_that_is_wrong(column, cell, says, tmp_path):
    zoo.register(MINE)
    path = table(tmp_path / "w.csv", ROW, {**ROW, "name": "mine.two", column: cell})
    before = zoo.list_weights()
    with pytest.raises(zoo.ZooError) as refused:
        zoo.register_weights(path)
    assert f"w.csv, row 3, {column}: " in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert zoo.list_weights() == before


@pytest.mark.usefixtures("doors")
def test_rows_that_fit_no_table(tmp_path):
    zoo.register(MINE)
    path = tmp_path / "w.csv"
    head, first = table(path, ROW).read_text().splitlines()
    for text, says in (
        (f"{head},more\n{first},1\n", "unknown column 'more'"),
        (f"{head},notes\n{first},1\n", "column 'notes' comes twice"),
        (f"{head.replace(',params', '')}\n", "no column 'params'"),
        ("", "no column 'name', 'source'"),
        (f"{head}\n{first},1\n", "row 2, got more or fewer cells than 23"),
        (f"{head}\nmine.own,files\n", "row 2, got more or fewer cells than 23"),
        (f"{head}\n{first}\n{first}\n", "row 3, name: 'mine.own' is taken"),
    ):
        path.write_text(text)
        with pytest.raises(zoo.ZooError, match=f"w.csv, {re.escape(says)}"):
            zoo.register_weights(path)
    path.write_bytes(b"\xff\xfe\0")
    for unreadable in (path, tmp_path / "none.csv", tmp_path):
        with pytest.raises(zoo.ZooError, match=f"cannot read {re.escape(str(unreadable))}: "):
            zoo.register_weights(unreadable)
    table(path, dict(ROW, default="true"), dict(ROW, name="mine.two", default="true"))
    with pytest.raises(zoo.ZooError, match=r"row 3, default: the default .* of mine are mine\.own"):
        zoo.register_weights(path)
    assert not zoo.list_weights("mine.*")


@pytest.mark.usefixtures("doors")
def test_files_of_ours_from_outside(tmp_path, monkeypatch):
    zoo.register(MINE)
    model = zoo.create("mine", num_classes=2)
    model.preprocess, model.classes = zoo.Preprocess(size=20), ["no", "yes"]
    zoo.save(model, tmp_path / "own.safetensors")
    beside = dict(ROW, source="zoo", file="own.safetensors", layout="zoo")
    hosted = dict(ROW, name="mine.hosted", file="https://example.org/own", layout="zoo")
    zoo.register_weights(table(tmp_path / "w.csv", beside, hosted))
    monkeypatch.setattr(store, "fetch", lambda *args, **kwargs: tmp_path / "own.safetensors")
    for name in ("mine.own", "mine.hosted", "mine.hosted"):  # downloaded, then converted
        loaded = zoo.load(name)
        assert (loaded.spec, loaded.preprocess) == (model.spec, model.preprocess)
        assert loaded.classes == ("no", "yes")
    (tmp_path / "own.safetensors").unlink()
    table(tmp_path / "w.csv", dict(beside, layout="timm", name="mine.other"))
    with pytest.raises(zoo.ZooError, match="row 2, layout: got 'timm', expected 'zoo'"):
        zoo.register_weights(tmp_path / "w.csv")
    table(tmp_path / "w.csv", dict(beside, name="mine.other"))
    with pytest.raises(zoo.ZooError, match=r"row 2, file: there is no .*own\.safetensors"):
        zoo.register_weights(tmp_path / "w.csv")


def test_presets_have_one_list_of_names():
    assert tuple(infer.PRESETS) == catalogue.PRESETS


# --- the page docs/extending.md ------------------------------------------------------------------


@pytest.mark.usefixtures("doors")
def test_the_page_on_extending(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "extending.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("weights.csv").write_text(next(text for kind, text in blocks if kind == "csv"))
    names: dict = {}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/extending.md", "exec"), names)
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    promised = re.findall(r"print\(.*\)  # (\d.*|\[.*)$", page, re.MULTILINE)
    assert len(promised) == 2
    assert set(promised) <= set(said)
    project = tomllib.loads(next(text for kind, text in blocks if kind == "toml"))["project"]
    (entry,) = project["entry-points"][plugins.GROUP].values()
    names[entry.partition(":")[2]]()
    assert zoo.list_models("page_net_*") == ["page_net_8", "page_net_16", "page_net_32"]
    assert zoo.weights("page_net_8").params == zoo.count("page_net_8", num_classes=10).params


# --- an installed package ------------------------------------------------------------------------

THEIRS = """
import os
from functools import partial
from pathlib import Path

import zoo
from zoo.layers import Conv, GlobalAvgPool, Network

PAPER = zoo.Paper("Theirs", "Doe", 2026, "https://example.org/", new="")


def build(ctx, width):
    body = dict(stem=Conv(3, width, stride=2), conv2=Conv(3, 8, stride=2))
    return Network(body, dict(pool=GlobalAvgPool()), ctx, min_size=8)


def register():
    print("their package is loaded")
    with open(os.environ["THEIR_LOG"], "a") as log:
        log.write(f"{os.getpid()}\\n")
    for width in range(1, 11):
        net = partial(build, width=width)
        zoo.register(zoo.Variant(f"theirs_{width}", net, PAPER, input_size=16))
    csv = Path(__file__).parent / "weights.csv"
    if csv.exists():
        zoo.register_weights(csv)
"""


def install(site, name, code, entry):
    """What `pip install` leaves of a package of one module."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(code)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{name} = {name}{entry}\n")


@pytest.fixture
def site(tmp_path):
    """An environment with a package that adds networks, and one that cannot be imported."""
    install(tmp_path / "site", "their_nets", THEIRS, ":register")
    install(tmp_path / "site", "broken_nets", "import no_such_module\n", "")
    return tmp_path / "site"


def run(site, *command):
    path = os.pathsep.join(map(str, (site, ROOT)))
    env = {**os.environ, "PYTHONPATH": path, "THEIR_LOG": str(site.parent / "log")}
    done = subprocess.run(
        [sys.executable, *command], env=env, cwd=site.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def told(done):
    """What a command says of plugins."""
    return [line for line in done.stderr.splitlines() if line]


WARNING = (
    "zoo: plugin 'broken_nets' of package broken_nets: "
    "ModuleNotFoundError: No module named 'no_such_module'"
)


def test_a_package_by_the_command_line(site):
    listed = run(site, "-m", "zoo", "list", "theirs*")
    assert len(re.findall(r"^theirs_\d+ ", listed.stdout, re.MULTILINE)) == 10
    assert told(listed) == [WARNING]
    compared = run(site, "-m", "zoo", "compare", "theirs_*", "--format", "json")
    rows = json.loads(compared.stdout.partition("\n")[2])["rows"]
    assert [row["network"] for row in rows] == [f"theirs_{width}" for width in range(1, 11)]
    assert told(compared).count(WARNING) == 1
    processes = (site.parent / "log").read_text().split()
    assert len(processes) == len(set(processes))  # loaded once in each


MAKE = """
import sys, zoo
assert not any(name.endswith("_nets") for name in sys.modules)
model = zoo.create("theirs_4", num_classes=2)
model.classes = ["no", "yes"]
assert zoo.count(model, input_size=16).params == 438
folder = sys.argv[1] + "/their_nets/"
zoo.save(model, folder + "own.safetensors")
"""


def test_weights_of_a_package(site, tmp_path):
    run(site, "-c", MAKE, str(site))
    own = dict(ROW, name="theirs_4.own", source="zoo", file="own.safetensors", layout="zoo",
               classes="2", default="true")  # fmt: skip
    table(site / "their_nets" / "weights.csv", own)
    seven = str(ROOT / "tests" / "seven.png")
    done = run(site, "-m", "zoo", "predict", seven, "--model", "theirs_4", "--format", "json")
    (answer,) = json.loads(done.stdout.partition("\n")[2])
    assert {best["class"] for best in answer["predictions"]} == {"no", "yes"}
    assert told(done) == [WARNING]
    with pytest.raises(zoo.ZooError, match="holds 'theirs_4', which is not known here: expected"):
        zoo.load(site / "their_nets" / "own.safetensors")


def test_plugins_that_fail_each_in_their_way(monkeypatch, caplog):
    class Point:
        dist = None

        def __init__(self, name, loaded):
            self.name = self.value = name
            self.loaded = loaded

        def load(self):
            if isinstance(self.loaded, BaseException):
                raise self.loaded
            return self.loaded

    done = []
    points = [
        Point("exits", SystemExit(3)),
        Point("fails", partial(int, "x\n\x1b[31my")),
        Point("text", "no function"),
        Point("taken", lambda: zoo.register(replace(MINE, name="resnet50"))),
        Point("module", sys),
        Point("asks", lambda: done.append(zoo.list_models("resnet50"))),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    monkeypatch.setattr(plugins, "_begun", False)
    for _ in range(2):  # loaded once
        assert "resnet50" in zoo.list_models()
    assert done == [["resnet50"]]
    assert [record.getMessage() for record in caplog.records] == [
        "zoo: plugin 'exits' of package exits: SystemExit: 3",
        "zoo: plugin 'fails' of package fails: ValueError: invalid literal for int() with base "
        r"10: 'x\n\x1b[31my'",
        "zoo: plugin 'text' of package text: got 'no function', expected a function or a module",
        "zoo: plugin 'taken' of package taken: model name 'resnet50' is taken by 'resnet50'",
    ]


@pytest.mark.parametrize(
    "ask", [zoo.list_models, zoo.list_weights, layouts.layouts, partial(zoo.weights, "resnet18")]
)
def test_whoever_asks_for_names_has_plugins_loaded(ask, monkeypatch):
    loaded = []
    point = type("Point", (), {"load": lambda self: lambda: loaded.append(1)})()
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    monkeypatch.setattr(plugins, "_begun", False)
    ask()
    assert loaded == [1]


def test_patterns_match_aliases_too():
    sizes = ("small", "medium", "large")
    assert zoo.list_models("mobilenet_v4*") == [f"mobilenetv4_conv_{size}" for size in sizes]
    assert zoo.list_models("googlenet") == ["inception_v1"]
