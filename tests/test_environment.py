"""`zoo env`: what it tells, that nothing broken breaks it, and what it advises."""

import json
import re
import subprocess
import sys
import tomllib

import jax
import pytest
from conftest import ROOT

from training import cli
from zoo.runtime import backend, environment
from zoo.runtime import machine as machines
from zoo.runtime.advice import advice as advise


def values(table) -> dict[str, str]:
    return {name: value for _, name, value in table.rows}


# --- the report ----------------------------------------------------------------------------------


def test_the_report(capsys, zoo_cache):
    cli.main(["env", "--format", "json"])
    out, err = capsys.readouterr()
    assert not err
    report = json.loads(out)
    told = {row["name"]: row["value"] for row in report["rows"]}
    assert told["jax"] == jax.__version__
    assert (told["backend"], told["devices"]) == ("cpu", "8 x cpu")  # as conftest has it
    assert told["a convolution"].startswith("right")
    assert told["lowerings"] == "ours"
    assert told["bfloat16"].startswith("no faster") != backend.onednn()
    assert str(zoo_cache) in told["cache"]
    assert told["JAX_PLATFORMS"] == "cpu"
    assert not [row for row in report["rows"] if "failed" in row["value"]]
    assert not {"says", "process"} & told.keys()


def test_the_text_has_a_line_for_each_row_however_long(capsys, monkeypatch):
    rows = (("settings", "XLA_FLAGS", "--flag " * 40), ("software", "jax", "0.10.2"))
    table = environment.Table("environment", environment.COLUMNS, rows)
    monkeypatch.setattr(environment, "environment", lambda: table)
    cli.main(["env"])
    head, flags, last = capsys.readouterr().out.splitlines()
    assert flags == f"settings  XLA_FLAGS  {rows[0][2]}".rstrip()
    assert (head.split(), last.split()) == (["part", "what", "value"], list(rows[1]))


def test_every_dependency_is_told_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert needed <= {*environment.REQUIRED, *environment.OPTIONAL}


def test_python_runs_the_command_as_a_module():
    run = [sys.executable, "-m", "zoo", "--help"]
    shown = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^    env ", shown, re.MULTILINE)


# --- what is broken is a line --------------------------------------------------------------------


def test_a_flag_that_ends_the_process(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    told = values(environment.environment())
    assert told["process"].startswith("failed: the process ")
    assert "xla_no_such_flag" in told["says"]
    assert told["XLA_FLAGS"] == "--xla_no_such_flag=1"


def test_a_plugin_that_does_not_load(monkeypatch, tmp_path):
    plugin = tmp_path / "jax_plugins" / "broken"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text("def initialize(): raise OSError('no libcudart here')")
    monkeypatch.syspath_prepend(tmp_path)
    told = values(environment.environment())
    assert told["backend"] == "cpu"
    assert told["says"] == "OSError: no libcudart here"


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """`broken(code)`: the report where `import jax` does that."""

    def report(code: str, timeout: float = environment.TIMEOUT) -> dict[str, str]:
        (tmp_path / "jax.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        return values(environment.environment(timeout=timeout))

    return report


def test_a_jax_that_cannot_be_imported(broken):
    told = broken("raise ImportError('libjax.so: cannot open')")
    assert told["backend"] == "failed: ImportError: libjax.so: cannot open"
    assert not {"devices", "process"} & told.keys()


def test_a_jax_that_ends_the_process(broken):
    told = broken("import os; print('noise'); os.abort()")
    assert told["process"] == "failed: the process was ended by signal 6"
    assert told["JPEG"]  # what was told before it stays


def test_a_jax_that_hangs(broken):
    told = broken("import time; time.sleep(60)", timeout=0.5)
    assert told["process"] == "failed: no answer in 0.5 s"


def test_a_python_that_cannot_be_started(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert values(environment.environment())["process"].startswith("failed: FileNotFoundError")


def test_packages_that_are_missing_or_half_removed(tmp_path, monkeypatch):
    (tmp_path / "zoo_broken-1.0.dist-info").mkdir()  # without METADATA
    monkeypatch.syspath_prepend(tmp_path)
    assert environment._version("zoo-missing") is None
    assert environment._version("zoo_broken")


# --- settings ------------------------------------------------------------------------------------


def test_settings_are_told_without_secrets(monkeypatch):
    monkeypatch.setenv("ZOO_MIRROR", "https://me:s3cret@mirror.example/zoo?sig=s3cret")
    monkeypatch.setenv("HF_ENDPOINT", "https://s3cret@hub.example")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    monkeypatch.setenv("JAX_ACCESS_TOKEN", "s3cret")
    monkeypatch.setenv("ZOO_CACHE", "/folder\nof\udcff mine")
    told = values(environment.Table("", (), tuple(environment._settings())))
    assert "s3cret" not in str(told)
    assert told["ZOO_MIRROR"] == "https://***@mirror.example/zoo?***"
    assert told["HF_ENDPOINT"] == "https://***@hub.example"
    assert told["ZOO_OFFLINE"] == "not set"
    assert environment._printable(told["ZOO_CACHE"]) == "/folder of? mine"


# --- accelerators --------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine("dev/nvidia0", ...)`: what is found where these files are, "path=text" with text."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in environment.os.environ if name.startswith("TPU_")]:
        monkeypatch.delenv(name)

    def find(*paths: str):
        for path in paths:
            file, _, text = path.partition("=")
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        return machines.accelerators(tmp_path)

    return find


DRIVER = "proc/driver/nvidia/version=NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue\n"
CUDA_13 = {"jax-cuda13-plugin": "0.10.2"}


def advice(found, told=None, **plugins) -> list[str]:
    names = (*environment.REQUIRED, *environment.PLUGINS)
    versions = {**dict.fromkeys(names), "jax": "0.10.2", "jaxlib": "0.10.2", **plugins}
    return list(advise(found, versions, told or {"backend": "cpu"}))


def test_a_machine_without_accelerators(machine):
    found = machine("dev/vfio/0")  # whatever else that is
    assert (found.names, found.nvidia, found.tpu) == ((), False, False)
    assert not advice(found)


@pytest.mark.parametrize("path", ["dev/nvidia0", DRIVER.format("580.65.06")])
def test_a_gpu_that_jax_is_not_built_for(machine, path):
    (line,) = advice(machine(path))
    assert line.startswith("an NVIDIA GPU is in this machine, and jax is not built for it: ")
    assert 'pip install "jax[cuda13]==0.10.2"' in line


def test_a_gpu_of_an_older_driver(machine):
    found = machine("dev/nvidia0", DRIVER.format("550.54.15"))
    assert 'pip install "jax[cuda12]==0.10.2"' in advice(found)[0]
    assert "needs driver 580, this one is 550.54.15" in advice(found, **CUDA_13)[0]


def test_a_gpu_that_nvidia_smi_tells_of(machine, tmp_path):
    machine("bin/nvidia-smi=#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 580.65.06'\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    found = machine()
    assert found.names == ("NVIDIA H100 80GB HBM3, 81559 MiB, driver 580.65.06",)
    assert (found.nvidia, found.driver) == (True, "580.65.06")
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\necho 'No devices, were, found'; exit 6\n")
    assert not machine().nvidia


def test_a_gpu_that_jax_uses(machine):
    assert not advice(machine("dev/nvidia0"), {"backend": "gpu"}, **CUDA_13)


@pytest.mark.parametrize(
    ("setting", "value", "kept"),
    [
        ("JAX_PLATFORMS", "cpu", True),
        ("CUDA_VISIBLE_DEVICES", "", True),
        ("JAX_PLATFORMS", "cuda,cpu", False),
        ("CUDA_VISIBLE_DEVICES", "1", False),
    ],
)
def test_a_gpu_that_a_setting_hides(machine, monkeypatch, setting, value, kept):
    monkeypatch.setenv(setting, value)
    (line,) = advice(machine("dev/nvidia0"), **CUDA_13)
    assert (setting in line and "keeps jax from it" in line) == kept


def test_a_gpu_whose_plugin_does_not_start(machine):
    found = machine("dev/nvidia0")
    (line,) = advice(found, **{"jax-cuda13-plugin": "0.10.1"})
    assert "jax-cuda13-plugin is 0.10.1 but jaxlib 0.10.2" in line
    says = {"backend": "cpu", "says": "RuntimeError: Unable to load cuSPARSE"}
    assert advice(found, says, **CUDA_13)[0].endswith("jax does not use it: " + says["says"])
    failed = {"backend": "failed: RuntimeError: no device"}
    assert advice(found, failed, **CUDA_13)[0].endswith("jax does not use it: " + failed["backend"])


def test_tpus(machine, monkeypatch):
    found = machine("dev/vfio/0", "sys/bus/pci/devices/0000:00:04.0/vendor=0x1ae0\n")
    assert found.names == ("TPU, /dev/vfio/0",)
    (line,) = advice(found)
    assert line.endswith('and jax is not built for it: pip install "jax[tpu]==0.10.2"')
    assert not advice(found, {"backend": "tpu"}, libtpu="0.0.42")
    busy = {"backend": "cpu", "says": "libtpu is in use by another process"}
    assert advice(found, busy, libtpu="0.0.42")[0].endswith(busy["says"])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert "JAX_PLATFORMS=cpu keeps jax from it" in advice(found, libtpu="0.0.42")[0]


def test_tpus_that_the_environment_tells_of(machine, monkeypatch):
    assert machine("dev/accel0").tpu
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert machine("dev/vfio/1").names == ("TPU, /dev/accel0 /dev/vfio/1",)
