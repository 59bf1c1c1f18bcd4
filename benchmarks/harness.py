"""What all benchmarks share: contenders in processes of their own, alternated, and what they gave.

Each contender has a process of its own (`worker.py`), so that no two share memory, threads or an
interpreter. They take turns, round by round, the order rotated, so that noise of the machine hits
all alike; ratios are taken within a round, and their median is told. Who waits is stopped
(SIGSTOP): thread pools spin between their tasks, and must neither be slowed by a setting that
forbids it (it halves torch's speed at batch 1) nor slow the others.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import math
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zoo.paths import write

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

DISTURBED = 0.2  # cores taken by other programs that make a figure doubtful

Row = dict[str, Any]  # a line of a table: column -> value


class LeftOut(Exception):
    """A contender that cannot do a work here: the message says why."""


# --- contenders ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """Who runs a work: a module of `contenders/`, the interpreter, and what it is told."""

    name: str
    module: str
    python: str = sys.executable
    options: Mapping[str, Any] = field(default_factory=dict)  # added to each work
    env: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1  # of one computation; each finds its number as `rank` in the work


TORCH = os.environ.get("PARITY_PY_TORCHVISION", sys.executable)
KERAS = os.environ.get("PARITY_PY_KERAS", sys.executable)
BFLOAT16 = {"dtype": "bfloat16"}
PEERS = {
    c.name: c
    for c in (
        Contender("zoo", "zoo"),
        Contender("zoo-fold", "zoo", options={"fold": True}),
        Contender("zoo-bf16", "zoo", options={"fold": True, "dtype": "bfloat16"}),
        Contender("flax", "flax"),
        Contender("flax-onednn", "flax", options={"onednn": True}),
        Contender("keras", "keras", KERAS, env={"KERAS_BACKEND": "jax"}),
        Contender("torch", "torch", TORCH),
        Contender("torch-bf16", "torch", TORCH, options=BFLOAT16),
        Contender("torch-compile", "torch", TORCH, options={"compile": True}),
        Contender("torch-compile-bf16", "torch", TORCH, options={"compile": True, **BFLOAT16}),
        Contender("onnxruntime", "exported", options={"runtime": "onnxruntime"}),
        Contender("openvino", "exported", options={"runtime": "openvino"}),
        Contender("openvino-f32", "exported", options={"runtime": "openvino", "precision": "f32"}),
    )
}


class Worker:
    """A contender's process (or processes), which runs only while it is asked something.

    Raises:
      LeftOut: the process ended: a package is missing, or the contender cannot do the work.
    """

    def __init__(self, contender: Contender):
        self.contender = contender
        self.started = time.perf_counter()
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the worker)
        self.processes = [
            subprocess.Popen(
                [contender.python, "-m", "benchmarks.worker", contender.module],
                cwd=ROOT,
                env={**os.environ, "TQDM_DISABLE": "1", **contender.env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
            )
            for _ in range(contender.processes)
        ]

    def setup(self, work: Row) -> Row:
        """Prepare a work and run it once; "since_start" is how long ago the process started."""
        ranks = range(len(self.processes))
        answer = self._ask({**work, **self.contender.options, "rank": rank} for rank in ranks)
        return {**answer, "since_start": time.perf_counter() - self.started}

    def run(self, calls: int) -> Row:
        """Seconds and CPU seconds a call, and the most memory so far."""
        return self._ask([{"run": calls}] * len(self.processes))

    def _ask(self, messages: Iterable[Row]) -> Row:
        for process, message in zip(self.processes, messages, strict=True):
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(BrokenPipeError):  # ended: told below, with the reason
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
        lines = [process.stdout.readline() for process in self.processes]
        if not all(lines):
            self._end()
            self.errors.seek(0)
            told = self.errors.read().strip().splitlines() or ["it ended without a word"]
            self.errors.close()
            raise LeftOut(told[-1])
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)
        return max(map(json.loads, lines), key=lambda answer: answer["seconds"])

    def close(self) -> None:
        self._end()
        self.errors.close()

    def _end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@dataclass
class Measured:
    """What a contender gave for a work: what its setup told, then an entry a round."""

    setup: Row
    rounds: list[Row] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[float]:
        return [entry[name] for entry in self.rounds]


class Contest:
    """Contenders that do the same works in turn, each in a process that lives for all of them."""

    def __init__(self, contenders: Iterable[Contender], bar: tqdm):
        self.contenders, self.bar = list(contenders), bar
        self.workers: dict[str, Worker] = {}
        self.versions: dict[str, str] = {}
        self.notes: list[str] = []  # who was left out, and who was disturbed

    def __enter__(self) -> "Contest":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def measure(self, work: Row, *, rounds: int, seconds: float) -> dict[str, Measured]:
        """What each contender that can do the work gave, in `rounds` runs of about `seconds`."""
        done: dict[str, Measured] = {}
        calls: dict[str, int] = {}
        self.bar.set_description_str(work["work"])

        def attempt(name: str, task: Callable[[Worker], None]) -> None:
            self.bar.set_postfix_str(name)
            try:
                task(self.workers[name])
            except LeftOut as error:
                self.notes.append(f"left out: {name}, {work['work']}: {error}")
                del self.workers[name]
                done.pop(name, None)
            self.bar.update()

        def setup(worker: Worker) -> None:
            answer = worker.setup(work)
            self.versions |= answer["versions"]
            done[worker.contender.name] = Measured(answer)
            calls[worker.contender.name] = max(1, math.ceil(seconds / worker.run(1)["seconds"]))

        def run(worker: Worker) -> None:
            name = worker.contender.name
            answer = worker.run(calls[name])
            done[name].rounds.append(answer)
            others = answer["other_cores"] if worker.contender.processes == 1 else 0
            if others > DISTURBED and answer["total_seconds"] > 0.3:  # shorter: too coarse to tell
                what = f"round {len(done[name].rounds)}: others took {others:.1f} cores"
                self.notes.append(f"disturbed: {name}, {work['work']}, {what}")

        for contender in self.contenders:
            if contender.name not in self.workers:
                self.workers[contender.name] = Worker(contender)
            attempt(contender.name, setup)
        for turn in range(rounds):
            for name in rotated(list(done), turn):
                attempt(name, run)
        return done


def rotated(items: list[Any], by: int) -> list[Any]:
    by %= max(len(items), 1)
    return items[by:] + items[:by]


# --- numbers -------------------------------------------------------------------------------------


def spread(values: Sequence[float], unit: str) -> Row:
    """The median under the name of its unit, the lowest and the highest."""
    return {unit: statistics.median(values), "low": min(values), "high": max(values)}


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median over the rounds of a / b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def lines(work: str, values: Mapping[str, Sequence[float]], unit: str) -> list[Row]:
    """A line for each contender's times or sizes, over those of the first."""
    first = next(iter(values), "")
    return [
        {
            **{"work": work, "contender": name, **spread(own, unit)},
            f"it / {first}": ratio(own, values[first]),
        }
        for name, own in values.items()
    ]


def megabytes(size: int | None) -> int | None:
    return None if size is None else round(size / 1e6)


# --- telling -------------------------------------------------------------------------------------


def parser(text: str, example: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    p = argparse.ArgumentParser(
        description=text,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--rounds", type=int, default=5, help="alternations (default: 5)")
    p.add_argument("--seconds", type=float, default=1.0, help="of a run (default: 1, or a call)")
    p.add_argument("--quick", action="store_true", help="a smoke run: small, one round")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file too")
    return p


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
    }


class Result:
    """The lines of a benchmark as they come: printed, and written to `--json` after each work."""

    def __init__(self, benchmark: str, args: argparse.Namespace):
        self.file: Path | None = args.json
        self.content: Row = {
            "benchmark": benchmark,
            "date": datetime.date.today().isoformat(),
            "command": shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]),
            "machine": machine(),
            "versions": {"python": platform.python_version()},
            "rows": [],
            "notes": [],
        }

    def add(self, contest: Contest, rows: list[Row]) -> None:
        self.content["versions"] |= contest.versions
        for line in contest.notes:
            self.note(line)
        tqdm.write(table(rows) + "\n")
        self.put(rows)

    def describe(self, machine: Row, versions: Mapping[str, str]) -> None:
        """More about where the benchmark runs."""
        self.content["machine"] |= machine
        self.content["versions"] |= versions

    def note(self, line: str) -> None:
        """A line below the table, once."""
        if line not in self.content["notes"]:
            self.content["notes"].append(line)

    def put(self, rows: list[Row]) -> None:
        """Rows into the file, which is whole at any time."""
        self.content["rows"] += rows
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write(self.file, (json.dumps(self.content, indent=1) + "\n").encode())

    def finish(self) -> None:
        for line in self.content["notes"]:
            print(line)


def progress(total: int) -> tqdm:
    return tqdm(total=total, dynamic_ncols=True, disable=None)


def tables(rows: Sequence[Row]) -> str:
    """A table for each step in turn, where rows have one; one for all where none has."""
    groups = itertools.groupby(rows, key=lambda row: row.get("step"))
    return "\n\n".join(table(list(group)) for _, group in groups)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, columns in the order in which rows bring them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
