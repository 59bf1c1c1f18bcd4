"""One contender in an interpreter of its own, driven by lines of JSON; see `harness.Worker`.

It needs nothing but the standard library and what its contender imports.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def memory(field: str) -> int | None:
    """Bytes by /proc/self/status: VmRSS (now) or VmHWM (at most so far); None without /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def busy() -> float:
    """CPU seconds that the whole machine has worked since it started; 0 without /proc."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _iowait, *rest = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not get among the answers
    module = importlib.import_module(f"benchmarks.contenders.{sys.argv[1]}")
    finish = getattr(module, "finish", lambda: None)  # waits for what calls may leave under way
    call: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        calls = message.get("run", 1)
        before = memory("VmRSS")
        wall, cpu, all_cpu = time.perf_counter(), time.process_time(), busy()
        if "run" not in message:
            call = None  # frees the last work's memory
            call = module.make(message)
            before = memory("VmRSS")
        for _ in range(calls):  # the first one compiles
            call()
        finish()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer = {
            "seconds": wall / calls,
            "cpu_seconds": cpu / calls,
            "total_seconds": wall,
            "other_cores": (busy() - all_cpu - cpu) / wall,  # taken by other programs
            "memory_before": before,
            "memory_peak": memory("VmHWM"),
            "versions": module.versions(),
        }
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
