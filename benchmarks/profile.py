"""Where the time of a network goes: XLA's own profile, summed by kind of operation.

An operation that hands its work to the thread pool (convolutions, matrix products, reductions) is
told with the time until it is handed over, or with the wait for others: take what fusions need as
it stands, and the others with care. XLA_FLAGS=--xla_dump_to=FOLDER writes the compiled program.
"""

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax

from . import models
from .contenders import zoo as contender
from .harness import table

CALLS = 5


def profile(work: dict) -> tuple[float, Counter[str]]:
    """Milliseconds of a call, and those of each operation by name in it."""
    call = contender.make(work)
    for _ in range(2):
        call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            wall = time.perf_counter() - started
        times = spent(Path(folder))
    return wall * 1e3 / CALLS, Counter({name: ms / CALLS for name, ms in times.items()})


def spent(folder: Path) -> Counter[str]:
    """Milliseconds of each operation by name, from what `jax.profiler.trace` left.

    On a GPU that of its kernels; those of a graph that XLA launches whole have their own names.
    """
    (file,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    names = {
        (event["name"], event["pid"], event.get("tid")): event["args"]["name"]
        for event in events
        if event.get("ph") == "M" and "name" in event.get("args", {})
    }
    times: Counter[str] = Counter()
    for event in events:
        if event.get("ph") != "X":
            continue
        process = names.get(("process_name", event["pid"], None), "")
        thread = names.get(("thread_name", event["pid"], event["tid"]), "")
        name = event.get("args", {}).get("hlo_op")
        if process.startswith("/device:"):
            # XLA's own lines, where there are any, tell of the same kernels again
            name = (name or event["name"]) if thread.startswith("Stream") else None
        if name:
            times[name] += event["dur"] / 1e3
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m benchmarks.profile resnet50 train16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", choices=models.NETWORKS)
    parser.add_argument("work", help="infer8, train16 or alike")
    parser.add_argument("--fold", action="store_true", help="batch norm folded, for inference")
    parser.add_argument("--top", type=int, default=12, help="lines of each table (12)")
    args = parser.parse_args()
    (work,) = models.works([args.network], [args.work])
    wall, spent = profile({**work, "fold": args.fold})
    kinds: Counter[str] = Counter()
    for name, milliseconds in spent.items():
        kinds[re.sub(r"[.\d]+$", "", name)] += milliseconds
    print(f"{work['work']}: {wall:.0f} ms a call\n")
    for counted in (kinds, spent):
        rows = [{"operation": name, "ms": ms} for name, ms in counted.most_common(args.top)]
        print(table(rows) + "\n")


if __name__ == "__main__":
    main()
