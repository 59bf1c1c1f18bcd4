"""What a run does when something goes wrong: NaN, a full disk, impatience, other processes."""

import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import xla_flags
from PIL import Image
from runs import assert_same, files_of, records, tensors

import zoo
from training import (
    Interrupted,
    TrainConfig,
    assembly,
    distributed,
    evaluation,
    fit,
    fitting,
    folder,
    logging,
    loop,
    optim,
)
from training.checkpoint import Checkpoints
from training.cli import main
from training.parallel import Devices
from training.state import TrainState, take_apart
from zoo.errors import ZooError

pytestmark = pytest.mark.usefixtures("tiny")

STEPS = 3  # an epoch
EPOCHS = 6  # of the runs of two processes: one of them is killed after the first


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """Three classes of noise, each of a brightness of its own: 72 pictures to train on."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(3):
        (root / str(number)).mkdir()
        for i in range(30):
            noise = rng.integers(60 * number, 60 * number + 120, (16, 16, 3), np.uint8)
            Image.fromarray(noise).save(root / str(number) / f"{i}.png")
    return f"folder:{root}"


@pytest.fixture
def config(pictures, monkeypatch):
    """`config(out, **settings)` of a short run, which leaves no report."""
    monkeypatch.setattr(fitting.report, "write", lambda *_: None)

    def make(out: Path, **settings) -> TrainConfig:
        defaults = {"model": "tiny", "data": pictures, "epochs": 3, "batch_size": 24}
        return TrainConfig(**{**defaults, "image_size": 16, "out": str(out), **settings})

    return make


def checkpoints(out: Path) -> list[int]:
    return sorted(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())


# --- NaN and explosion


@pytest.fixture
def poison(monkeypatch):
    """`poison(step, factor, times=1)`: that step multiplies the weights, in so many attempts."""

    def install(at: int, factor: float, times: int = 1) -> None:
        compile_, made = Devices.compile, 0

        # after the compiled step and not in it: all tests have that in common
        def compiling(self, step, *, donate, **settings):
            nonlocal made
            run = compile_(self, step, donate=donate, **settings)
            made += donate  # training alone
            if not donate or made > times:
                return run

            def poisoned(state, batch):
                state = run(state, batch)
                if int(state.step) != at:
                    return state
                return replace(state, params=jax.tree.map(lambda p: p * factor, state.params))

            return poisoned

        monkeypatch.setattr(Devices, "compile", compiling)

    return install


@pytest.fixture(scope="module")
def rescued(tmp_path_factory):
    """Where a run lies that went back after step 4 was NaN; made by the first who asks."""
    return tmp_path_factory.mktemp("runs") / "rescued"


@pytest.mark.parametrize(
    ("at", "factor"),
    [(4, math.nan), (2 * STEPS, math.nan), (4, 1e6)],
    ids=["nan", "nan in the last update of an epoch", "explosion"],
)
def test_a_loss_that_explodes_goes_back_once(
    config, rescued, tmp_path, capsys, poison, at, factor, request
):
    out = rescued if request.node.callspec.id == "nan" else tmp_path / "run"
    poison(at, factor)
    result = fit(config(out))
    told = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert len(told) == 1
    assert told[0].startswith("diverged in epoch 2: loss ")
    assert told[0].endswith(f"back to step {STEPS}, with 0.1 of the learning rate")
    lines = records(out)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line.get("rate_scale") for line in lines] == [None, 0.1, 0.1]
    assert all(np.isfinite(x).all() for x in tensors(out).values())
    assert result.accuracy == lines[-1]["val_accuracy"]
    assert json.loads((out / "rollback.json").read_text())["step"] == STEPS


def test_the_way_back_is_remembered(config, rescued, tmp_path, poison, stop_before):
    poison(4, math.nan)
    stop_before(2 * STEPS + 2)  # the second of the second attempt
    with pytest.raises(Interrupted, match=f"after step {STEPS + 2}"):
        fit(config(tmp_path / "run"))
    fit(config(tmp_path / "run"))
    if not rescued.exists():
        poison(4, math.nan)
        fit(config(rescued))
    assert_same(rescued, tmp_path / "run")


def test_the_first_epoch_starts_again_from_the_first_weights(config, tmp_path, capsys, poison):
    poison(2, math.nan)
    fit(config(tmp_path / "run", epochs=1, learning_rate=0.01))
    assert "back to the weights it began with" in capsys.readouterr().err
    fit(config(tmp_path / "gentle", epochs=1, learning_rate=0.001))
    x, y = tensors(tmp_path / "run"), tensors(tmp_path / "gentle")
    assert all(np.array_equal(x[name], y[name]) for name in x)


def test_an_epoch_whose_last_step_exploded_is_not_gone_back_to(config, tmp_path, capsys, poison):
    out = tmp_path / "run"
    poison(STEPS, 1e6)  # which the next epoch's training loss shows
    fit(config(out))
    told = capsys.readouterr().err
    assert "diverged in epoch 2: loss " in told
    assert "back to the weights it began with, with 0.1 of the learning rate" in told
    assert [line.get("rate_scale") for line in records(out)] == [0.1, 0.1, 0.1]


def test_the_second_time_is_the_last(config, tmp_path, poison):
    out = tmp_path / "run"
    poison(4, math.nan, times=2)
    with pytest.raises(ZooError, match=r"again, in epoch 2: loss nan.*--learning-rate.*--clip"):
        fit(config(out))
    assert not (out / "model.safetensors").exists()
    assert checkpoints(out) == [STEPS]
    fit(config(out))  # whole: what nothing poisons goes on from it
    assert [line["epoch"] for line in records(out)] == [1, 2, 3]


def test_nan_is_not_saved_when_told_to_stop(config, tmp_path, poison, stop_before):
    poison(4, math.nan)
    stop_before(6)
    with pytest.raises(Interrupted):
        fit(config(tmp_path / "run"))
    assert checkpoints(tmp_path / "run") == [STEPS]


def test_nan_is_seen_before_the_epoch_ends(config, tmp_path, monkeypatch, poison):
    run, calls = Devices.compile, 0

    def counted(self, step, *, donate, **settings):
        compiled = run(self, step, donate=donate, **settings)

        def call(state, batch):
            nonlocal calls
            calls += donate  # training alone
            return compiled(state, batch)

        return call

    monkeypatch.setattr(Devices, "compile", counted)
    monkeypatch.setattr(loop, "GLANCE", 0)
    poison(4, math.nan)
    fit(config(tmp_path / "run", epochs=2))
    assert calls == STEPS + 2 + STEPS  # step 5 gives NaN, step 6 is not taken


def test_an_absurd_learning_rate(config, pictures, tmp_path, capsys):
    arguments = ["train", "tiny", "--data", pictures, "--image-size", "16", "--batch-size", "24"]
    arguments += ["--optimizer", "sgd", "--learning-rate", "1000", "--warmup", "0"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "try a lower --learning-rate than 1000" in line
    assert not (tmp_path / "run" / "model.safetensors").exists()


# --- a full disk


def test_a_full_disk_costs_a_checkpoint_and_no_more(config, tmp_path, capsys, monkeypatch):
    usage, asked = shutil.disk_usage, 0

    def full_once(folder):
        nonlocal asked
        asked += 1
        return usage(folder)._replace(free=4096) if asked == 2 else usage(folder)

    monkeypatch.setattr(shutil, "disk_usage", full_once)
    fit(config(tmp_path / "run"))
    told = [line for line in capsys.readouterr().err.splitlines() if "checkpoint" in line]
    kept = f"that of step {STEPS} is whole"
    assert told == [
        f"checkpoint of step {2 * STEPS} not saved: No space left on device; {kept}",
        "1 of the checkpoints could not be saved (No space left on device); "
        f"that of step {3 * STEPS} is whole",
    ]
    assert asked == 3
    assert checkpoints(tmp_path / "run") == [STEPS, 3 * STEPS]
    assert len(records(tmp_path / "run")) == 3


@pytest.mark.slow
def test_files_that_may_not_grow(pictures, tmp_path):
    arguments = ["--data", pictures, "--epochs", "2", "--out", str(tmp_path / "run")]
    process = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"},  # else half files get into it
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert process.returncode == 2
    told = [
        line for line in process.stderr.splitlines() if not line.startswith(("epoch", "memory"))
    ]
    assert told == [
        *(
            f"checkpoint of step {step} not saved: File too large; there is none yet"
            for step in (STEPS, 2 * STEPS)
        ),
        "2 of the checkpoints could not be saved (File too large); there is none yet",
        f"zoo train: out: cannot write to {tmp_path / 'run'}: File too large; "
        "the same command tries again",
    ]


# --- impatience


def test_the_second_ctrl_c_stops_at_once(config, pictures, tmp_path, monkeypatch):
    compile_ = Devices.compile

    def compiling(self, step, *, donate, **settings):
        run = compile_(self, step, donate=donate, **settings)
        calls = 0

        def impatient(state, batch):
            nonlocal calls
            calls += 1
            if calls == 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                pytest.fail("went on")
            return run(state, batch)

        return impatient

    monkeypatch.setattr(Devices, "compile", compiling)
    arguments = ["train", "tiny", "--data", pictures, "--image-size", "16", "--batch-size", "24"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(tmp_path / "run")])
    assert stop.value.code == 130


def test_before_the_first_step_it_stops_at_once(config, tmp_path, monkeypatch):
    def told(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    for module, name in ((fitting, "open_data"), (assembly, "make_train_step")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, told)
            with pytest.raises(Interrupted, match="stopped; the same command continues"):
                fit(config(tmp_path / "run"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert len(fit(config(tmp_path / "run")).history) == 3


def test_told_to_stop_while_it_measures(config, tmp_path, monkeypatch):
    run, asked = evaluation.run, 0

    def measured(*args):
        nonlocal asked
        asked += 1
        if asked == 3:  # of the last epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return run(*args)

    monkeypatch.setattr(evaluation, "run", measured)
    with pytest.raises(Interrupted):
        fit(config(tmp_path / "run"))
    assert checkpoints(tmp_path / "run")[-1] == 3 * STEPS
    assert len(fit(config(tmp_path / "run")).history) == 3
    assert asked == 3


def test_told_to_stop_while_it_writes(config, tmp_path, monkeypatch):
    def told(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    with monkeypatch.context() as patch:
        patch.setattr(fitting.report, "write", told)
        with pytest.raises(Interrupted):
            fit(config(tmp_path / "run"))
    fit(config(tmp_path / "run"))


STOPPED = """
import os, signal, sys, threading, time
sys.argv = ["zoo", "train"]
from training import stopping
stopping.take_over()
unsaved, where = {unsaved}, {where!r}
stopping._command.unsaved = unsaved
if where == "native":  # Python's handlers do not run meanwhile
    import ctypes
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    ctypes.CDLL(None).poll(None, 0, 20_000)
elif where == "exit":
    import atexit
    atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(20)))
    sys.exit(0)
elif where == "twice":
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
print("went on")
"""


@pytest.mark.parametrize(
    ("where", "unsaved", "code"),
    [("native", False, 75), ("native", True, 0), ("exit", False, 75), ("twice", True, -2)],
)
def test_the_command_heeds_signals_everywhere(where, unsaved, code):
    begun = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", STOPPED.format(where=where, unsaved=unsaved)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == code, process.stderr
    if code == 75:
        assert process.stderr == "zoo: stopped; the same command continues the run\n"
        assert time.monotonic() - begun < 15


# --- a disk that is full for a while


def test_no_epoch_is_missing_of_a_run_that_ends_well(config, tmp_path, capsys, monkeypatch):
    write_, asked = logging.write, 0

    def write(path, data):
        nonlocal asked
        asked += path.name == "metrics.jsonl"
        if asked in (2, 3, 4):  # all epochs; the first write is of none
            raise OSError(28, "No space left on device")
        write_(path, data)

    monkeypatch.setattr(logging, "write", write)
    fit(config(tmp_path / "run"))
    told = capsys.readouterr().err
    assert told.count("not written: No space left on device") == 3
    assert [line["epoch"] for line in records(tmp_path / "run")] == [1, 2, 3]


def test_metrics_that_cannot_be_written_fail_the_run_and_come_back(config, tmp_path, monkeypatch):
    def write(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logging, "write", write)
        with pytest.raises(ZooError, match="No space left on device; the same command tries again"):
            fit(config(tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    fit(config(tmp_path / "run"))  # from the checkpoint, which has them too
    assert [line["epoch"] for line in records(tmp_path / "run")] == [1, 2, 3]


def test_events_that_cannot_be_written_stop_nothing(tmp_path, monkeypatch):
    log = logging.Log(tmp_path, [], 0)
    raw = log._events._writer._py_recordio_writer._writer
    os.dup2(os.open("/dev/full", os.O_WRONLY), raw.fileno())
    for epoch in range(1, 2000):  # more than its buffer holds
        monkeypatch.setattr(log, "write", lambda: None)
        log.add({"epoch": epoch, "step": epoch, "train_loss": 0.5, "val_loss": 0.5})
    log.close()


# --- other numbers of devices


def start_state(devices: Devices) -> TrainState:
    """Before the first step."""
    _, params, stats = take_apart(zoo.create("tiny", num_classes=3, seed=3))
    optimizer = optim.optimizer(TrainConfig(), dict.fromkeys(params, 1.0))
    return devices.replicate(TrainState.start(optimizer, params, stats, rates=[0.01]))


def assert_equal(a: TrainState, b: TrainState) -> None:
    x, y = jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b))
    assert len(x) == len(y)
    for one, other in zip(x, y, strict=True):
        np.testing.assert_array_equal(one, other)


def test_eight_devices_one_and_eight_again(tmp_path):
    crews = [Devices("pmap", jax.devices()[:n]) for n in (8, 1, 8)]
    random = np.random.default_rng(0)
    state = start_state(crews[0])
    state = crews[0].replicate(
        jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), state)
    )
    first = state
    for number, crew in enumerate(crews):
        store = Checkpoints(tmp_path / "checkpoints")
        step = crew.replicate(jnp.array(number, jnp.int32))
        if number:
            state = crew.replicate(store.newest().fill(start_state(crew)))
            assert_equal(replace(state, step=first.step).lasting, first.lasting)
        state = replace(state, step=step)
        store.save(state, accuracy=0.5)
        store.close()


def test_a_run_moves_to_fewer_devices(config, tmp_path, monkeypatch, stop_before):
    settings = {"sync_bn": True, "optimizer": "sgd", "shift": 0, "dropout": 0.0, "flip": False}
    fit(config(tmp_path / "whole", **settings))
    stop_before(5)
    with pytest.raises(Interrupted, match="after step 5"):
        fit(config(tmp_path / "run", **settings))
    monkeypatch.setattr(fitting, "Devices", lambda engine: Devices(engine, jax.devices()[:2]))
    fit(config(tmp_path / "run", **settings))
    x, y = tensors(tmp_path / "run"), tensors(tmp_path / "whole")
    assert max(float(np.abs(x[name] - y[name]).max()) for name in x) < 1e-5  # the same pictures


# --- other processes

COMMAND = """
import sys
from training import distributed, report
from training.cli import main
from zoo.layers import Conv, Dropout, GlobalAvgPool, Network
from zoo.registry import variants
from zoo.variant import Paper, Variant

def build(ctx):
    body = dict(stem=Conv(3, 8, stride=2), conv2=Conv(3, 16, stride=2))
    return Network(body, dict(pool=GlobalAvgPool(), drop=Dropout(0.2)), ctx, min_size=8)

variants()["tiny"] = Variant("tiny", build, paper=Paper("", "", 2015, "", ""), input_size=16)
report.write = lambda *_: None
if sys.argv[-1] == "quick":
    distributed.BEAT, distributed.SILENCE = 1, 6
    del sys.argv[-1]
main(["train", "tiny", "--image-size", "16", "--batch-size", "24", *sys.argv[1:]])
"""


class Crew:
    """Two processes of four devices each, on one run."""

    def __init__(self, data: str | list[str], out: Path, *settings: str):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        data = [data, data] if isinstance(data, str) else data
        command = [sys.executable, "-c", COMMAND, "--out", str(out), "--epochs", str(EPOCHS)]
        command += ["--coordinator", f"localhost:{port}", "--processes", "2"]
        self.processes = [
            subprocess.Popen(
                [*command, "--process", str(number), "--data", data[number], *settings],
                env={**os.environ, "XLA_FLAGS": xla_flags(devices=4)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]

    def wait(self, timeout: float = 300) -> list[tuple[int, str]]:
        """(exit code, stderr) of each."""
        told = [process.communicate(timeout=timeout) for process in self.processes]
        codes = [process.returncode for process in self.processes]
        return [(code, errors) for code, (_, errors) in zip(codes, told, strict=True)]

    def finish(self) -> None:
        for code, errors in self.wait():
            assert code == 0, errors

    def reach(self, out: Path) -> None:
        """Wait until the first epoch is saved."""
        while not list(out.glob("checkpoints/[0-9]*[0-9]")):
            assert all(process.poll() is None for process in self.processes), self.wait()
            time.sleep(0.01)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Where a run of two processes that nothing interrupted lies; made by the first who asks."""
    return tmp_path_factory.mktemp("pair") / "whole"


@pytest.fixture
def whole(pair, pictures):
    if not pair.exists():
        Crew(pictures, pair).finish()
    return pair


def assert_survives(whole: Path, data: str, out: Path, number: int, *settings: str) -> None:
    """Kill one of two, look how the other ends, and start both again."""
    crew = Crew(data, out, *settings)
    crew.reach(out)
    crew.processes[number].kill()
    begun = time.monotonic()
    code, errors = crew.wait(timeout=60)[1 - number]
    print(f"process {1 - number} ended {time.monotonic() - begun:.1f} s after process {number}")
    assert code == 75, errors
    assert errors.count(distributed.LOST) == 1, errors
    assert "Traceback" not in errors
    assert not (out / "model.safetensors").exists()
    Crew(data, out).finish()
    assert_same(whole, out)


def test_a_killed_process_takes_the_other_along_and_both_go_on(whole, pictures, tmp_path):
    assert_survives(whole, pictures, tmp_path / "run", 1, "quick")


def test_only_the_first_process_writes(whole):
    assert files_of(whole) == {
        "command.txt",
        "config.json",
        "data.json",
        "versions.json",
        "metrics.jsonl",
        "events.out",
        "checkpoints",
        "model.safetensors",
    }
    assert len(list(whole.glob("events.*"))) == 1
    assert [line["epoch"] for line in records(whole)] == [*range(1, EPOCHS + 1)]


def test_two_processes_of_four_devices_are_eight_devices(config, pictures, tmp_path):
    # Each process reads every second picture: the batches are the same, but not what each device
    # gets of them. So nothing may depend on the device: no masks, no moves, shared statistics.
    same = {"epochs": 2, "dropout": 0.0, "shift": 0, "optimizer": "sgd"}
    flags = [word for key, value in same.items() for word in (f"--{key}", str(value))]
    Crew(pictures, tmp_path / "two", "--sync-bn", "--no-flip", *flags).finish()
    fit(config(tmp_path / "one", sync_bn=True, flip=False, **same))
    two, one = tensors(tmp_path / "two"), tensors(tmp_path / "one")
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=2e-5, err_msg=name)


def test_what_two_processes_saved_one_restores(whole):
    found = Checkpoints(whole / "checkpoints").newest()
    assert found.step == EPOCHS * STEPS
    state, saved = found.fill(start_state(Devices("pmap"))), tensors(whole)
    assert found.weights.keys() == {*state.params, *state.stats} == saved.keys()
    for path, value in found.weights.items():
        np.testing.assert_array_equal(value, saved[path], err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_either_process_may_be_killed(whole, pictures, tmp_path, number):
    assert_survives(whole, pictures, tmp_path / "run", number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("reason", [signal.SIGTERM, signal.SIGINT])
def test_one_told_to_stop_stops_both(whole, pictures, tmp_path, number, reason):
    out = tmp_path / "run"
    crew = Crew(pictures, out)
    crew.reach(out)
    crew.processes[number].send_signal(reason)
    for code, errors in crew.wait():
        assert code == 75, errors
        assert "the same command continues the run" in errors
    Crew(pictures, out).finish()
    assert_same(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_trouble_of_one_is_the_end_of_both(pictures, tmp_path, number):
    data = [pictures, pictures]
    data[number] = "folder:nowhere"
    crew = Crew(data, tmp_path / "run", "quick")
    told = crew.wait(timeout=100)
    assert told[number] == (2, "zoo train: folder nowhere does not exist\n")
    code, errors = told[1 - number]
    assert (code, errors.count(distributed.LOST)) == (75, 1), errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "lost", "ends"),
    [
        (jax.errors.JaxRuntimeError("INTERNAL: Connection closed by peer"), True, "gone"),
        (ValueError("whatever JAX makes of it"), True, "gone"),
        (jax.errors.JaxRuntimeError("UNKNOWN: Gloo: DEADLINE_EXCEEDED"), False, "reach each other"),
    ],
)
def test_what_a_lost_peer_raises_does_not_matter(monkeypatch, error, lost, ends):
    codes = []
    monkeypatch.setattr(distributed, "peer_lost", lambda: lost)
    monkeypatch.setattr(distributed, "failed", codes.append)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(distributed.PeerLost, match=ends), distributed.together():
        raise error
    assert codes == ([] if lost else [75])


def test_an_error_of_ones_own_is_no_lost_peer(monkeypatch):
    codes = []
    monkeypatch.setattr(distributed, "peer_lost", lambda: False)
    monkeypatch.setattr(distributed, "failed", codes.append)
    for error, code in ((ValueError("a bug"), 1), (ZooError("bad"), 2), (KeyboardInterrupt(), 130)):
        with pytest.raises(type(error)), distributed.together():
            raise error
        assert codes.pop() == code


def test_hosts_that_share_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SHARED", 0)
    with pytest.raises(ZooError, match=r"process 0 made .*run, which .* all hosts share"):
        folder.check_shared(tmp_path / "run")


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began(config, whole, pictures, tmp_path, monkeypatch):
    out = tmp_path / "run"
    settings = ("--engine", "shard_map")
    crew = Crew(pictures, out, *settings)
    crew.reach(out)
    crew.processes[0].send_signal(signal.SIGTERM)
    assert [code for code, _ in crew.wait()] == [75, 75]
    fit(config(out, epochs=EPOCHS, engine="shard_map"))
    assert [line["epoch"] for line in records(out)] == [*range(1, EPOCHS + 1)]
