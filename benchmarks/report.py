"""Write `benchmarks/RESULTS.md` from the JSON files in `benchmarks/results/`.

Those are what the benchmarks write with `--json`.
"""

import argparse
import json
from pathlib import Path

from .harness import RESULTS, Row, tables

HEAD = """# Measured

Written by `python -m benchmarks.report` from what the benchmarks left in `results/`. A figure is
the median of the rounds, with the lowest and the highest; a ratio above 1 says that ours is ahead.
`python -m benchmarks.NAME --help` says what each one does.
"""


def section(result: Row) -> str:
    machine, versions = result["machine"], result["versions"]
    card = ""
    if "accelerator" in machine:
        driver = machine.get("driver", "-")
        card = f"{machine['devices']} x {machine['accelerator']}, driver {driver}; "
    notes = "".join(f"- {line}\n" for line in result["notes"])
    return f"""
## {result["benchmark"]}

`{result["command"]}`

{result["date"]}, {card}{machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]} GB,
{machine["system"]}; {", ".join(f"{name} {version}" for name, version in versions.items())}.

{tables(result["rows"])}
{notes and chr(10) + notes}"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m benchmarks.report"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    folder = parser.parse_args().results
    files = sorted(folder.glob("*.json"))
    if not files:
        parser.error(f"{folder} holds no results: run a benchmark with --json {folder}/NAME.json")
    sections = [section(json.loads(file.read_text())) for file in files]
    (folder.parent / "RESULTS.md").write_text(HEAD + "".join(sections))


if __name__ == "__main__":
    main()
