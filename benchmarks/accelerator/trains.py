"""Steps 3 and 6: what `zoo train` does, through the real command.

It runs in this process, as the command's own function does: another one would have to start CUDA
again for each run. Only where two runs differ, children repeat them with XLA's switch for
deterministic operations, which must be set before JAX starts.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from training.cli import EXIT_INTERRUPTED
from training.cli import main as zoo_command
from training.recipes import recipe as settings_of

from ..harness import ROOT
from .bench import Bench, time_left

SWITCH = "--xla_gpu_deterministic_ops=true"
ACCURACY = "{} on digits: accuracy of at least {:.0%}"
CONTINUED = "stopped by SIGTERM and continued: the same as without a break"
CLOCKS = ("seconds", "images_per_second", "input_wait")
RECIPE = "resnet20_cifar10"

Command = Callable[[list[str], Path, int | None], int]  # arguments, folder, epochs till SIGTERM


def digits(bench: Bench) -> None:
    sizes = bench.sizes
    trained = sizes.trained
    accuracy = ACCURACY.format(trained[0], sizes.accuracy)
    bench.expect(accuracy, CONTINUED)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        begun = time.perf_counter()
        train(in_this_process, trained, whole, sizes.epochs)
        seconds = time.perf_counter() - begun
        last = records(whole)[-1]
        bench.check(
            accuracy,
            last["val_accuracy"] >= sizes.accuracy,
            figure=last["val_accuracy"],
            unit=f"of 360; {sizes.epochs} epochs",
        )
        bench.add("the whole command", figure=seconds, unit="s")
        bench.add("its last epoch", figure=last["images_per_second"], unit="images/s")
        train_with_a_break(in_this_process, trained, broken, sizes.epochs)
        differs = differences(whole, broken)
        if differs and bench.device.platform == "gpu":
            bench.note(f"without {SWITCH}, a run and a continued one differ in {differs}")
            whole, broken = Path(folder) / "whole again", Path(folder) / "broken again"
            train(in_a_child, trained, whole, sizes.epochs)
            train_with_a_break(in_a_child, trained, broken, sizes.epochs)
            differs = differences(whole, broken)
            told = f"with XLA_FLAGS={SWITCH}"
        else:
            told = "without any switch"
        bench.check(CONTINUED, not differs, figure=differs or "bit for bit", unit=told)


def recipe(bench: Bench, data: str) -> None:
    """As many epochs of the recipe as the rest of this step's time allows."""
    planned = settings_of(RECIPE)["epochs"]
    base = [settings_of(RECIPE)["model"], "--recipe", RECIPE, "--data", data]
    left = time_left()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        short, full = Path(folder) / "short", Path(folder) / "full"
        _succeed(in_this_process([*base, "--epochs", "2"], short, None), short)
        start = time.perf_counter() - begun
        each = records(short)[-1]["seconds"] * 1.3  # evaluation and checkpoints come on top
        # the second run starts as the first did, but for what is compiled; it needs some rest
        epochs = max(1, min(planned, int((left - 2 * start) * 0.9 / each)))
        begun = time.perf_counter()
        _succeed(in_this_process([*base, "--epochs", str(epochs)], full, None), full)
        seconds = time.perf_counter() - begun
        last = records(full)[-1]
    what = f"ResNet-20 on CIFAR-10, {epochs} of the recipe's {planned} epochs"
    bench.add(
        what,
        **{"accuracy": last["val_accuracy"], "images/s": last["images_per_second"]},
        **{"waiting for input": last["input_wait"], "s": seconds},
    )


# --- runs ----------------------------------------------------------------------------------------


def train(command: Command, trained: Sequence[str], out: Path, epochs: int) -> None:
    _succeed(command(_digits(trained, epochs), out, None), out)


def train_with_a_break(command: Command, trained: Sequence[str], out: Path, epochs: int) -> None:
    """Stopped after half of the epochs, in the middle of one, and continued to the end."""
    code = command(_digits(trained, epochs), out, epochs // 2)
    if code != EXIT_INTERRUPTED:
        raise RuntimeError(
            f"SIGTERM: got exit code {code}, expected {EXIT_INTERRUPTED}: {_log(out)}"
        )
    train(command, trained, out, epochs)


def _digits(trained: Sequence[str], epochs: int) -> list[str]:
    return [*trained, "--data", "digits", "--epochs", str(epochs)]


def in_this_process(arguments: list[str], out: Path, stop_after: int | None) -> int:
    """Run `zoo train`; its exit code. With `stop_after`, SIGTERM comes after so many epochs."""
    ended = threading.Event()

    def stop() -> None:
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    # a signal that comes too late, when the run has put its own handler away, is to end nothing
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    watch = threading.Thread(target=_after, args=(out, stop_after, stop, ended), daemon=True)
    if stop_after is not None:
        watch.start()
    try:
        with told_to(out):
            zoo_command(["train", *arguments, "--out", str(out)])
        return 0
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        ended.set()
        signal.signal(signal.SIGTERM, before)


def in_a_child(arguments: list[str], out: Path, stop_after: int | None) -> int:
    """The same in a process of its own, where XLA's operations are deterministic."""
    command = [sys.executable, "-c", "from training.cli import main; main()", "train", *arguments]
    env = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {SWITCH}"}
    ended = threading.Event()
    with _log_of(out).open("a") as log:
        process = subprocess.Popen(
            [*command, "--out", str(out)], env=env, stdout=log, stderr=log, cwd=ROOT
        )
        try:
            if stop_after is not None:
                args = (out, stop_after, process.terminate, ended)
                threading.Thread(target=_after, args=args, daemon=True).start()
            return process.wait()
        finally:
            ended.set()
            process.kill()
            process.wait()


def _after(out: Path, epochs: int, stop: Callable[[], None], ended: threading.Event) -> None:
    """Wait for so many epochs, and a little more, to be in the middle of one."""
    while not ended.wait(0.01):
        with contextlib.suppress(OSError):
            if len((out / "metrics.jsonl").read_text().splitlines()) >= epochs:
                stop()
                return


@contextlib.contextmanager
def told_to(out: Path) -> Iterator[None]:
    """What is printed goes into a file beside the run."""
    with (
        _log_of(out).open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield


def _log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def _log(out: Path) -> str:
    """The last line that a run printed."""
    return (_log_of(out).read_text().strip().splitlines() or ["it printed nothing"])[-1]


def _succeed(code: int, out: Path) -> None:
    if code:
        raise RuntimeError(f"zoo train: exit code {code}: {_log(out)}")


# --- what they left ------------------------------------------------------------------------------


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def differences(a: Path, b: Path) -> str:
    """Where two runs differ, clocks apart; "" where they do not."""
    x, y = (load_file(out / "model.safetensors") for out in (a, b))
    arrays = [name for name in x if not np.array_equal(x[name], y[name])]
    if arrays:
        return f"{len(arrays)} of {len(x)} arrays, {arrays[0]}"
    told, other = (
        [{k: v for k, v in line.items() if k not in CLOCKS} for line in records(out)]
        for out in (a, b)
    )
    return "" if told == other else "metrics.jsonl"
