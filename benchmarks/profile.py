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
    """Milliseconds of a call, and those of each operation by name."""
    call = contender.make(work)
    for _ in range(2):
        call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            wall = time.perf_counter() - started
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            spent[event["args"]["hlo_op"]] += event["dur"] / 1e3 / CALLS
    return wall * 1e3 / CALLS, spent


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
