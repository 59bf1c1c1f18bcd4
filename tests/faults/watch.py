"""Runs a function on hostile input in a process of its own, and measures what it takes."""

import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CPU = 5.0  # seconds that a file may take
MEMORY = 256 << 20  # bytes that it may take beyond twice its size
HANGS = 120  # seconds after which a file counts as one that hangs
ADDRESSES = 16 << 30  # bytes of addresses, so that a bomb ends its process and not the machine
EXECUTES = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
)


_reading: list[Path] = []  # the file being read, while nothing may be executed


@dataclass
class Tally:
    """What became of many files."""

    outcomes: Counter[str] = field(default_factory=Counter)  # read, refused, lost, hung
    worst_cpu: float = 0.0  # seconds
    worst_memory: int = 0  # bytes beyond twice the file's size
    over: list[str] = field(default_factory=list)  # which went over a limit, or were lost, and why

    def add(self, other: "Tally") -> None:
        self.outcomes += other.outcomes
        self.worst_cpu = max(self.worst_cpu, other.worst_cpu)
        self.worst_memory = max(self.worst_memory, other.worst_memory)
        self.over += other.over

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "outcomes": dict(self.outcomes), "tried": self.outcomes.total()}


def attempt(read: Callable[[Path], Any], path: Path, label: str) -> Tally:
    """Reads a file once, in this process."""
    from zoo.errors import ZooError

    size = sum(f.stat().st_size for f in path.parent.iterdir()) if path.parent.name else 0
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    start = time.process_time()
    try:
        _reading.append(path)
        read(path)
        outcome, why = "read", ""
    except ZooError as error:
        one_line = "\n" not in str(error) and len(str(error)) < 2000
        outcome, why = ("refused", "") if one_line else ("lost", f"long error {str(error)[:80]!r}")
    except BaseException as error:
        outcome, why = "lost", f"{type(error).__name__}: {error}"[:200]
    finally:
        _reading.clear()
    cpu = time.process_time() - start
    memory = _memory("VmHWM") - before - 2 * size
    if cpu > CPU:
        why = f"{cpu:.1f} s of CPU"
    elif memory > MEMORY:
        why = f"{memory >> 20} MiB more than twice its size"
    return Tally(Counter([outcome]), cpu, memory, [f"{label}: {why}"] if why else [])


def _memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) << 10


def _start() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    def audit(event: str, _: Any) -> None:
        if _reading and event in EXECUTES:
            raise RuntimeError(f"executed: {event}")

    sys.addaudithook(audit)


def tally(work: Callable[[Any], Tally], tasks: Iterable[Any]) -> Tally:
    """`work(task)` for each task, in a process that is replaced where it dies or hangs."""
    total = Tally()
    pool = None
    for task in tasks:
        if pool is None:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, context, _start)
        future = pool.submit(work, task)
        try:
            total.add(future.result(HANGS))
        except (BrokenProcessPool, TimeoutError) as error:
            hung = isinstance(error, TimeoutError)
            total.add(
                Tally(
                    Counter(["hung" if hung else "lost"]),
                    over=[f"{task!r}: {'hangs' if hung else 'the process died'}"],
                )
            )
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            pool = None
    if pool:
        pool.shutdown()
    return total
