"""Runs the project's faults and writes what became of them to docs/RELIABILITY.md.

    python -m tests.faults                            # all of it: half a day on two cores
    python -m tests.faults damage pictures            # these; the others as last measured
    python -m tests.faults --share 0.01 --out /tmp    # a hundredth of each

What each part gave is kept as JSON in docs/reliability/, with its date and machine.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import damage, kills, pictures, readers, soak

ROOT = Path(__file__).resolve().parents[2]

HEAD = """# Reliability

Written by `python -m tests.faults`; the quick part of it is in the test suite. *Survived* means:
the right result, or a refusal in one line that names the way on. *Lost* means all else: a wrong
result, a traceback, a process that died or hung, more than 5 s of CPU or more than twice the file +
256 MiB.

| what is done | tried | survived | lost | measured |
|---|--:|--:|--:|---|
"""

Row = tuple[str, int, int]  # what is done, tried, lost


@dataclass(frozen=True)
class Part:
    """A kind of fault.

    Args:
      run: gives the result as JSON, of a share of all that there is to do.
      rows: of a result.
      more: lines below the table about a result.
    """

    run: Callable[[float], Any]
    rows: Callable[[Any], list[Row]]
    more: Callable[[Any], str] = lambda found: ""


def _killed(kind: str, count: int, processes: int) -> Part:
    who = f"a run of {processes} processes, one of which gets" if processes > 1 else "a run gets"

    def rows(found: Any) -> list[Row]:
        what = f"{who} {kind} at any moment from exec to exit, and is started again"
        return [(what, found["tried"], len(found["lost"]))]

    def more(found: Any) -> str:
        codes = ", ".join(f"{code} x {count}" for code, count in sorted(found["codes"].items()))
        early = found["unheeded"]
        note = f"; {early} came before Python could heed signals" if early else ""
        who = f"{kind}, {processes} processes" if processes > 1 else kind
        return f"- {who}: a life takes {found['life']} s; exit codes {codes}{note}.\n"

    return Part(lambda share: kills.run(kind, _some(count, share), processes), rows, more)


def _damaged(found: Any) -> list[Row]:
    what = "the newest checkpoint of a run is damaged at a place (a bit, cut, deleted, zeros)"
    return [(what, found["tried"], len(found["garbage"]) + len(found["stuck"]))]


def _damaged_more(found: Any) -> str:
    return (
        f"- Damaged checkpoints: {found['whole']} did no harm, for {found['older']} the checkpoint "
        "before was used and the run said so.\n"
    )


def _pictures(found: Any) -> list[Row]:
    return [("hostile and damaged pictures, each read in four ways", found["tried"], found["lost"])]


def _pictures_more(found: Any) -> str:
    cpu, memory = found["worst"]["cpu"], found["worst"]["memory"]
    return (
        f"- Pictures: {found['read']:,} read, {found['refused']:,} refused; at most {cpu[0]} s of "
        f"CPU ({cpu[1]}) and {memory[0] >> 20} MiB beyond twice the file and the picture.\n"
    )


def _readers(found: Any) -> list[Row]:
    return [
        (f"weight files: {kind}", row["tried"], len(row["over"]))
        for kind, row in found.items()
        if row["tried"]
    ]


def _readers_more(found: Any) -> str:
    cpu = max(row["worst_cpu"] for row in found.values())
    memory = max(row["worst_memory"] for row in found.values())
    return (
        f"- Weight files: at most {cpu:.1f} s of CPU and {memory >> 20} MiB beyond twice the file; "
        "an attempt to start a program would have been caught and counted as lost.\n"
    )


def _soaked_more(found: Any) -> str:
    def told(what: dict[str, float]) -> str:
        return f"{what['memory_mb']:.0f} MB, {what['threads']} threads, {what['files']} files"

    lines = ""
    if saving := found.get("saving"):
        lines += (
            f"- Checkpoints: after {saving[0]['saves']:,} {told(saving[0])}; "
            f"after {saving[-1]['saves']:,} {told(saving[-1])}.\n"
        )
    if training := found.get("training"):
        first = training[min(2, len(training) - 1)]  # once all is compiled
        lines += (
            f"- Training: after {first['seconds'] / 60:.0f} minutes and {first['epochs']:,} epochs "
            f"{told(first)}; after {training[-1]['seconds'] / 60:.0f} minutes and "
            f"{training[-1]['epochs']:,} epochs {told(training[-1])}.\n"
        )
    return lines


def _soak(share: float) -> Any:
    return {"saving": soak.saves(_some(1000, share)), "training": soak.run(3600 * share)}


def _some(count: int, share: float) -> int:
    return max(round(count * share), 2)


PARTS = {
    "sigkill": _killed("SIGKILL", 200, 1),
    "sigterm": _killed("SIGTERM", 100, 1),
    "sigkill2": _killed("SIGKILL", 20, 2),
    "damage": Part(lambda share: damage.run(_some(200, share)), _damaged, _damaged_more),
    "pictures": Part(lambda share: pictures.run(_some(10_000, share)), _pictures, _pictures_more),
    "readers": Part(lambda share: readers.run(_some(10_000, share)), _readers, _readers_more),
    "soak": Part(_soak, lambda found: [], _soaked_more),
}


def page(results: dict[str, Any]) -> str:
    """The page, of what there is by part."""
    rows, notes = "", ""
    for name, part in PARTS.items():
        if name not in results:
            continue
        found, when = results[name]["found"], results[name]["measured"]
        for what, tried, lost in part.rows(found):
            rows += f"| {what} | {tried:,} | {tried - lost:,} | {lost} | {when} |\n"
        notes += part.more(found)
    missing = [name for name in PARTS if name not in results]
    if missing:
        notes += f"- Not measured yet: {', '.join(missing)}.\n"
    return f"{HEAD}{rows}\n{notes}"


def measured(seconds: float) -> str:
    """When, where and how long."""
    return (
        f"{datetime.date.today():%Y-%m-%d}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {seconds / 60:.0f} min"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--share", type=float, default=1.0, help="of all there is to do (1.0)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the page (docs)")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"got {', '.join(sorted(unknown))}, expected some of {', '.join(PARTS)}")
    kept = args.out / "reliability"
    kept.mkdir(parents=True, exist_ok=True)
    for name in tqdm(args.parts or PARTS, unit="part", disable=None):
        begun = time.monotonic()
        found = PARTS[name].run(args.share)
        result = {"measured": measured(time.monotonic() - begun), "found": found}
        (kept / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    results = {file.stem: json.loads(file.read_text()) for file in sorted(kept.glob("*.json"))}
    (args.out / "RELIABILITY.md").write_text(page(results))
    print(args.out / "RELIABILITY.md", file=sys.stderr)


if __name__ == "__main__":
    main()
