"""`python -m benchmarks.accelerator`: all of it on a CPU, small, and what its steps rely on."""

import argparse
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, xla_flags
from safetensors.numpy import save_file

from benchmarks import profile, report
from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import fast, hlo, machine, right, sizes, trains
from benchmarks.accelerator.bench import Bench, OutOfTime, run, time_box
from benchmarks.harness import LeftOut, Result

# --- all of it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[subprocess.CompletedProcess, dict[str, Any]]:
    file = tmp_path_factory.mktemp("accelerator") / "tiny.json"
    line = [sys.executable, "-m", "benchmarks.accelerator", "--tiny", "--json", str(file)]
    env = {**os.environ, "XLA_FLAGS": xla_flags(devices=2)}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done, json.loads(file.read_text())


def test_every_check_holds_on_a_cpu(tiny):
    done, result = tiny
    checks = {row["what"]: row["check"] for row in result["rows"] if row["check"]}
    unheld = {what: told for what, told in checks.items() if told != "holds"}
    left_out = "resnet8_mlperf training, no slower than torch.compile"
    assert unheld.keys() == {left_out}, done.stdout + done.stderr
    assert unheld[left_out].startswith("left out: PyTorch is compared on a GPU")
    assert done.returncode == 0, done.stderr
    assert {*map(right.TRAINED.format, right.PARTS), right.ENGINES, right.CALLED} <= checks.keys()
    assert {*map(right.LOGITS.format, sizes.TINY.families), trains.CONTINUED} <= checks.keys()


def test_every_step_leaves_figures(tiny):
    _, result = tiny
    rows = {row["what"]: row for row in result["rows"]}
    steps = dict.fromkeys(row["step"] for row in result["rows"])
    assert list(steps) == ["1 machine", "2 right", "3 zoo train", "4 fast", "5 why"]
    assert result["machine"]["accelerator"] == "cpu"
    training = rows["resnet8_mlperf training, batch 8"]
    assert training["images/s"] == pytest.approx(8 / training["ms"] * 1e3)
    assert training["program GB"] > 0
    assert training["MFU, %"] > 0
    convolutions = [r["figure"] for r in result["rows"] if r["what"] == "convolutions"]
    assert sum(convolutions) + rows["fusions"]["figure"] > 20  # XLA has some within fusions
    assert rows["bytes accessed, as XLA counts"]["figure"] > 0
    assert any(what.startswith("slowest: ") for what in rows)


def test_the_result_is_a_section_with_a_table_for_each_step(tiny):
    _, result = tiny
    section = report.section(result)
    assert "2 x cpu, driver -;" in section
    assert section.count("|---") == 5 + sum(
        line.count("|---") - 1 for line in section.splitlines() if line.startswith("|---")
    )
    assert all(row["what"] in section for row in result["rows"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batches", "8,many"], "batches: got '8,many', expected numbers such as 256,128"),
        (["--batches", "8,0"], "batches: got '8,0', expected numbers such as 256,128"),
        (["--data", "mnist:."], "data: got 'mnist:.', expected cifar10:PATH of what is there"),
        (["--data", "cifar10:none"], "got 'cifar10:none', expected cifar10:PATH of what is there"),
        (["--minutes", "0"], "minutes: got 0, expected more than 0"),
        (["--json", "file/x.json"], "json: cannot write file/x.json: Not a directory"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(sys, "argv", ["accelerator", *arguments])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(told)


@pytest.mark.parametrize(("asked", "then"), [("cuda", "cuda,cpu"), ("cpu", "cpu"), ("", "")])
def test_the_cpu_is_there_to_compare_with(monkeypatch, asked, then):
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")
    command.before_jax()
    assert os.environ["JAX_PLATFORMS"] == then
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


# --- rows, failures and time boxes ---------------------------------------------------------------


@pytest.fixture
def bench(tmp_path) -> Bench:
    result = Result("accelerator", argparse.Namespace(json=tmp_path / "out" / "result.json"))
    return Bench(result, sizes.TINY, jax.devices()[0])


def rows(bench: Bench) -> list[dict[str, Any]]:
    return json.loads(bench.result.file.read_text())["rows"]


def test_a_step_that_fails_is_told_and_the_next_goes_on(bench):
    def breaks(bench):
        bench.expect("one", "two")
        bench.check("one", True, figure=1.0)
        raise ValueError("it broke\nand how")

    def goes_on(bench):
        bench.check("three", True)

    run(bench, [("first", breaks, 1), ("second", goes_on, 1)], seconds=60)
    told = [(row["step"], row["what"], row["check"]) for row in rows(bench)]
    assert told == [
        ("first", "one", "holds"),
        ("first", "this step", "fails: ValueError: it broke"),
        ("first", "two", "not run: ValueError: it broke"),
        ("second", "three", "holds"),
    ]
    assert not bench.good


def test_a_step_out_of_time_is_ended_and_the_next_has_its_own(bench):
    def slow(bench):
        bench.expect("never")
        bench.add("begun", figure=1.0)
        time.sleep(30)

    def swallows(bench):  # as libraries do with exceptions
        try:
            time.sleep(30)
        except Exception:
            bench.add("swallowed")

    begun = time.monotonic()
    run(bench, [("slow", slow, 1), ("another", swallows, 1), ("none", slow, 0)], seconds=0.4)
    assert time.monotonic() - begun < 10
    told = [(row["what"], row["check"]) for row in rows(bench)]
    ended = ("the rest of this step", "left out: its time box ended")
    assert told == [("begun", ""), ended, ("never", "not run: its time box ended"), ended, ended]
    assert not bench.good


def test_a_time_box_leaves_no_alarm_behind():
    def own(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGALRM, own)
    try:
        with pytest.raises(OutOfTime), time_box(0.05):
            time.sleep(30)
        with time_box(30):
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) is own
    finally:
        signal.signal(signal.SIGALRM, before)


def test_what_has_no_room_is_left_out_and_what_breaks_fails(bench):
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    with bench.attempt("large", may_not_fit=True):
        raise full
    assert bench.good
    with bench.attempt("small"):
        raise full
    told = [row["check"] for row in rows(bench)]
    assert told[0] == "left out: out of memory"
    assert told[1].startswith("fails: JaxRuntimeError: RESOURCE_EXHAUSTED")
    assert not bench.good


def test_a_run_that_is_cut_off_leaves_all_rows_so_far(tmp_path):
    file = tmp_path / "cut.json"
    program = """
import argparse, os, signal, sys
from pathlib import Path
from benchmarks.accelerator.bench import Bench, run
from benchmarks.harness import LeftOut, Result

def step(bench):
    for i in range(100):
        bench.add(f"row {i}", figure=float(i))
    os.kill(os.getpid(), signal.SIGKILL)

bench = Bench(Result("accelerator", argparse.Namespace(json=Path(sys.argv[1]))), None, None)
run(bench, [("first", step, 1)], seconds=60)
"""
    line = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [row["figure"] for row in json.loads(file.read_text())["rows"]] == list(range(100))
    assert list(tmp_path.iterdir()) == [file]


# --- figures -------------------------------------------------------------------------------------


def test_mfu_is_by_the_two_definitions(bench):
    flops = fast.training_flops("resnet50", 224, 1)
    assert flops == pytest.approx(3 * 2 * 4.09e9, rel=1e-3)
    bench.device = SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    bench.matmul = 790e12
    shares = fast.shares(bench, 7400 * flops)
    assert shares["MFU, %"] == pytest.approx(100 * 7400 * 24.54e9 / 790e12, rel=1e-3)
    assert shares["of peak, %"] == pytest.approx(100 * 7400 * 24.54e9 / 989e12, rel=1e-3)
    bench.device = SimpleNamespace(device_kind="something new")
    assert fast.shares(bench, flops)["of peak, %"] is None


def test_steps_are_compared_with_pytorchs_in_turn(bench):
    turns: list[str] = []

    class Ours:
        work = fast.work_of(bench, "train", "resnet50", 256)

        def seconds(self, steps: int) -> float:
            turns.append(f"ours {steps}")
            return 0.1

    class Torch:
        def run(self, calls: int) -> dict[str, float]:
            turns.append(f"torch {calls}")
            return {"seconds": 0.08}

    coming: Future = Future()
    coming.set_result((Torch(), 0.005))
    fast.compare(bench, Ours(), 7, coming)
    assert turns == ["ours 7", "torch 5"] * 3  # half of the 0.05 seconds that sizes.TINY has
    *speeds, check = rows(bench)
    assert [row["images/s"] for row in speeds] == pytest.approx([2560, 3200])
    assert (check["check"], check["zoo / it"]) == ("fails", pytest.approx(0.8))
    missing: Future = Future()
    missing.set_exception(LeftOut("No module named 'torch'"))
    fast.compare(bench, Ours(), 7, missing)
    assert rows(bench)[-1]["check"] == "left out: No module named 'torch'"


def test_pytorch_that_cannot_is_left_out(bench):
    bench.device = SimpleNamespace(platform="gpu")
    work = fast.work_of(bench, "train", "resnet50", 1)
    with (
        time_box(600),
        fast.torch_worker(bench, work) as coming,
        pytest.raises(LeftOut, match=r"torch|GPU"),
    ):
        coming.result()


@pytest.mark.parametrize(
    ("kind", "flops"),
    [("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12)],
)
def test_the_data_sheet_of_the_very_card_is_taken(kind, flops):
    assert machine.peak(SimpleNamespace(device_kind=kind)) == flops


def test_an_error_is_a_share_of_the_largest_value():
    want = np.array([1.0, -4.0])
    assert right.error(np.array([1.0, -3.0]), want) == 0.25
    assert right.error(np.array([np.nan, -4.0]), want) == np.inf
    assert right.error(np.zeros(2), np.zeros(2)) == 0
    pair = {"a": want, "b": want}
    assert right.worst_of({"a": want, "b": want + 1}, pair) == (0.25, "b")


def test_runs_are_compared_by_all_but_their_clocks(tmp_path):
    def left(name: str, value: float, loss: float, seconds: float) -> Path:
        out = tmp_path / name
        out.mkdir()
        save_file({"x": np.full(3, value, np.float32)}, out / "model.safetensors")
        (out / "metrics.jsonl").write_text(json.dumps({"loss": loss, "seconds": seconds}) + "\n")
        return out

    first = left("first", 1.0, 2.0, 3.0)
    assert trains.differences(first, left("same", 1.0, 2.0, 9.0)) == ""
    assert trains.differences(first, left("weights", 1.1, 2.0, 3.0)) == "1 of 1 arrays, x"
    assert trains.differences(first, left("told", 1.0, 2.1, 3.0)) == "metrics.jsonl"


def test_a_recipe_runs_as_many_epochs_as_there_is_time_for(bench, monkeypatch):
    asked: list[int] = []

    def train(arguments: list[str], out: Path, stop_after: int | None) -> int:
        epochs = int(arguments[-1])
        asked.append(epochs)
        assert arguments[:5] == ["resnet20_cifar", "--recipe", trains.RECIPE, "--data", "cifar10:x"]
        out.mkdir()
        line = {"seconds": 1.0, "images_per_second": 9.0, "input_wait": 0.5, "val_accuracy": 0.8}
        (out / "metrics.jsonl").write_text(f"{json.dumps(line)}\n" * epochs)
        return 0

    monkeypatch.setattr(trains, "in_this_process", train)
    for seconds in (40, 10_000):
        with time_box(seconds):
            trains.recipe(bench, "cifar10:x")
    short, enough, _, whole = asked
    assert (short, whole) == (2, 40)
    assert 20 <= enough <= 28  # of 1.3 seconds each
    first, _ = rows(bench)
    assert first["what"] == f"ResNet-20 on CIFAR-10, {enough} of the recipe's 40 epochs"
    assert (first["accuracy"], first["images/s"], first["waiting for input"]) == (0.8, 9.0, 0.5)


def test_a_run_that_fails_is_told_by_its_last_line(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="exit code 2: zoo train: epochs: got 0, expected 1"):
        trains.train(trains.in_this_process, ["mobilenet_v1_025"], out, 0)
    assert not out.exists()


@pytest.mark.slow
def test_a_run_in_a_child_stops_and_goes_on_alike(tmp_path):
    network, whole, broken = ["mobilenet_v1_025"], tmp_path / "whole", tmp_path / "broken"
    trains.train(trains.in_a_child, network, whole, 2)
    trains.train_with_a_break(trains.in_a_child, network, broken, 2)
    assert trains.differences(whole, broken) == ""


# --- a compiled program --------------------------------------------------------------------------

# Shortened from what XLA prints for a GPU.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->(f32[8]{0})}

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %copy.9 = f32[] copy(%a)
}

%fused_transpose (param_0: bf16[4,2]) -> bf16[2,4] {
  %param_0 = bf16[4,2]{1,0} parameter(0)
  ROOT %transpose.1 = bf16[2,4]{1,0} transpose(%param_0), dimensions={1,0}
}

%fused_conv (p: bf16[1,8,8,4], k: bf16[3,3,4,4]) -> bf16[1,8,8,4] {
  %p = bf16[1,8,8,4]{3,2,1,0} parameter(0)
  %k = bf16[3,3,4,4]{3,2,1,0} parameter(1)
  %c = bf16[1,8,8,4]{3,2,1,0} convolution(%p, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
  ROOT %m = bf16[1,8,8,4]{3,2,1,0} maximum(%c, %c)
}

ENTRY %main (x: bf16[4,2], /*index=1*/p: bf16[1,8,8,4]) -> (f32[8], f32[8]) {
  %x = bf16[4,2]{1,0} parameter(0)
  %f = bf16[2,4]{1,0} fusion(%x), kind=kInput, calls=%fused_transpose
  %copy.1 = f32[16,4]{0,1} copy(%y), metadata={op_name="jit(step)/body/conv"}
  %r = f32[] reduce(%copy.1, %zero), dimensions={0,1}, to_apply=%region_0.1
  %conv.1 = (bf16[1,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%p, %k), custom_call_target="__cudnn$convForward", backend_config={"cudnn_conv_backend_config":{"activation_mode":"kNone","side_input_scale":0}}
  %conv.2 = (bf16[1,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%p, %k, %b, %s), custom_call_target="__cudnn$convBiasActivationForward", backend_config={"cudnn_conv_backend_config":{"activation_mode":"kRelu","side_input_scale":1}}
  %g = bf16[1,8,8,4]{3,2,1,0} fusion(%p, %k), kind=kCustom, calls=%fused_conv
  ROOT %t = (f32[8]{0}, f32[8]{0}) tuple(%r, %r)
}
"""  # noqa: E501


def test_a_program_is_summed_up():
    found = hlo.summary(PROGRAM)
    assert found.outside["copy"] == hlo.Moves(1, 16 * 4 * 4)
    assert found.outside["transpose"] == hlo.Moves()
    assert found.fused["transpose"] == hlo.Moves(1, 2 * 4 * 2)
    assert found.fused["copy"] == hlo.Moves()  # that of the reduction is none
    assert found.convolutions == {
        "__cudnn$convForward: alone": 1,
        "__cudnn$convBiasActivationForward: with Relu and a side input": 1,
        "convolution: with maximum": 1,
    }
    assert found.opcodes["fusion"] == 2
    (copy,) = (i for i in hlo.computations(PROGRAM)["main"] if i.name == "copy.1")
    assert copy.source == "jit(step)/body/conv"


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("pred[3,5]{1,0}", 15),
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", 2048),
        ("(f32[8]{0}, /*index=1*/(s8[4]{0}, f8e4m3fn[2]{0}))", 38),
        ("token[]", 0),
    ],
)
def test_bytes_of_a_shape(shape, size):
    assert hlo.size(shape) == size


def test_what_is_printed_here_is_read_too():
    def f(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=right_way)
        return y.sum(), jnp.sort(x.transpose(3, 1, 2, 0), 0)

    right_way = ("NHWC", "HWIO", "NHWC")
    arrays = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    text = jax.jit(f).lower(*arrays).compile().as_text()
    assert sum(hlo.summary(text).convolutions.values()) == 1
    names = [i.name for body in hlo.computations(text).values() for i in body]
    assert len(names) == len(set(names)) == text.count(" = ") - text.count('" = ')


def test_a_profile_of_a_gpu_tells_of_kernels_once(tmp_path):
    def named(name: str, what: str, **place: int) -> dict[str, Any]:
        return {"ph": "M", "name": name, "args": {"name": what}, **place}

    def event(tid: int, name: str, pid: int = 1, **args: str) -> dict[str, Any]:
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "dur": 1500, "args": args}

    events = [
        named("process_name", "/device:GPU:0", pid=1),
        named("thread_name", "Stream #7(Compute)", pid=1, tid=7),
        named("thread_name", "XLA Ops", pid=1, tid=8),
        named("process_name", "/host:CPU", pid=2),
        event(7, "sm90_kernel", hlo_op="fusion.1"),
        event(7, "sm90_kernel", hlo_op="fusion.1"),
        event(7, "a_graphs_kernel"),
        event(8, "fusion.1", hlo_op="fusion.1"),
        event(3, "a call of Python", pid=2),
        event(3, "dot", pid=2, hlo_op="dot.3"),
    ]
    (tmp_path / "x.trace.json.gz").write_bytes(
        gzip.compress(json.dumps({"traceEvents": events}).encode())
    )
    assert profile.spent(tmp_path) == {"fusion.1": 3.0, "a_graphs_kernel": 1.5, "dot.3": 1.5}
