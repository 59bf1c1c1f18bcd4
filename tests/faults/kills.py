"""Runs that are killed at any moment of their life, and then started again.

    python tests/faults/kills.py SIGTERM 100
    python tests/faults/kills.py SIGKILL 20 --processes 2

starts `zoo train` so often, sends the signal at a moment drawn evenly between exec and exit, and
repeats the command until it ends. It prints, as JSON, how the processes ended and what was lost: a
result that is not that of a life without a signal, an exit code that is not documented, a
traceback, a command that did not end.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import records

ROOT = Path(__file__).resolve().parents[2]
# `python -m training` with a network that trains in seconds, so that most of a life is not steps
COMMAND = """
from training import stopping
stopping.take_over()
from training import distributed
distributed.CONNECT = 60  # for a process whose peer was killed before it came up
from runs import register_tiny
register_tiny()
from training.cli import main
main()
"""
JOB = ["train", "tiny", "--data", "digits", "--image-size", "16", "--batch-size", "128"]
JOB += ["--epochs", "4"]
PATIENCE = 600  # seconds after which a command counts as stuck


class Job:
    """The command of one or more processes, in a folder of its own for what it compiles."""

    def __init__(self, folder: Path, processes: int = 1):
        self.folder, self.processes = folder, processes
        keep = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # one device
        self.environment = {
            **keep,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "JAX_COMPILATION_CACHE_DIR": keep.get("JAX_COMPILATION_CACHE_DIR", f"{folder}/cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def start(self, out: Path) -> list[subprocess.Popen]:
        command = [sys.executable, "-c", COMMAND, *JOB, "--out", str(out)]
        hosts: list[list[str]] = [[]]
        if self.processes > 1:
            with socket.socket() as probe:
                probe.bind(("localhost", 0))
                where = f"localhost:{probe.getsockname()[1]}"
            all_of = ["--coordinator", where, "--processes", str(self.processes)]
            hosts = [[*all_of, "--process", str(i)] for i in range(self.processes)]
        return [
            subprocess.Popen(
                [*command, *host],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in hosts
        ]

    def repeat(self, out: Path) -> list[tuple[int | str, str]]:
        """The ends of the command, repeated while it says to."""
        for _ in range(5):  # on a busy machine two processes may not meet in time
            ends = self.finish(self.start(out))
            if 75 not in [code for code, _ in ends]:
                break
        return ends

    def finish(self, crew: list[subprocess.Popen]) -> list[tuple[int | str, str]]:
        """(exit code, or "stuck", and stderr) of each."""
        ends: list[tuple[int | str, str]] = []
        for process in crew:
            try:
                _, told = process.communicate(timeout=PATIENCE)
                ends.append((process.returncode, told))
            except subprocess.TimeoutExpired:
                process.kill()
                ends.append(("stuck", process.communicate()[1]))
        return ends


def result(out: Path) -> dict[str, Any]:
    """What must not depend on a kill."""
    files = ("model.safetensors", "predictions.csv")
    return {"metrics": records(out), **{name: (out / name).read_bytes() for name in files}}


def heeds(process: subprocess.Popen) -> bool:
    """Whether SIGTERM does not simply end a process; before Python runs it does.

    At the end of its life, when all is written, the process may ignore it.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    names = ("SigCgt:", "SigIgn:")
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(names)]
    return not masks or any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def documented(number: int, code: int | str, told: str, heeded: bool, struck: bool) -> bool:
    """Whether a process may end so."""
    if struck and number == signal.SIGKILL:
        return code in (-signal.SIGKILL, 0)
    if struck and not heeded:
        return code == -signal.SIGTERM  # the system's, before Python could begin
    if not struck and "did not all come up" in told:
        return code == 2
    return code in (75, 0)


def run(kind: str, count: int, processes: int = 1, seed: int = 0) -> dict[str, Any]:
    """Kill `count` runs.

    Args:
      kind: "SIGKILL" or "SIGTERM".

    Returns:
      {"tried", "codes": {code: how many}, "unheeded": how many signals came before Python ran,
      "missed": how many came after the end, "life": seconds, "lost": [what was lost, in words]}
    """
    number, rng = signal.Signals[kind], random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), processes)
        for name in ("cold", "warm"):
            begun = time.monotonic()
            ends = job.repeat(Path(folder) / name)
            life = time.monotonic() - begun
            if any(code for code, _ in ends):
                raise RuntimeError(f"the job fails undisturbed: {ends}")
        want = result(Path(folder) / "warm")
        found: dict[str, Any] = {"tried": 0, "unheeded": 0, "missed": 0, "life": round(life, 1)}
        codes: collections.Counter[str] = collections.Counter()
        lost: list[str] = []
        while found["tried"] < count:
            out, moment = Path(folder) / "run", rng.uniform(0, life)
            crew = job.start(out)
            time.sleep(moment)
            struck = rng.choice(crew)
            if struck.poll() is not None:
                found["missed"] += 1  # this time it was faster
                job.finish(crew)
                shutil.rmtree(out)
                continue
            heeded = heeds(struck)
            struck.send_signal(number)
            found["tried"] += 1
            found["unheeded"] += number == signal.SIGTERM and not heeded
            where = f"{kind} {found['tried']} after {moment:.2f} s"
            for process, (code, told) in zip(crew, job.finish(crew), strict=True):
                codes[str(code)] += 1
                if "Traceback" in told or not documented(
                    number, code, told, heeded, process is struck
                ):
                    lost.append(f"{where}: ended with {code}: {told[-2000:]}")
            ends = job.repeat(out)
            if any(code for code, _ in ends):
                lost.append(f"{where}: the same command ended with {ends}")
            elif result(out) != want:
                lost.append(f"{where}: another result")
            shutil.rmtree(out, ignore_errors=True)
            print(f"{where}, of {life:.1f}: {dict(codes)}, {len(lost)} lost", file=sys.stderr)
    return {**found, "codes": dict(codes), "lost": lost}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("SIGKILL", "SIGTERM"))
    parser.add_argument("count", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(run(**vars(parser.parse_args())), indent=2))
