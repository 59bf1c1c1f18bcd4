"""Weight files that are damaged or hostile: ten thousand mutants and thirty attacks a reader.

    python -m tests.faults.readers --mutants 10000

A file is survived if it is read or refused in a line, in 5 s of CPU and twice its size + 256 MiB,
and nothing in it is executed.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import attacks
from .watch import Tally, attempt, tally

BATCH = 100
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def mutants(task: tuple[str, int, int]) -> Tally:
    """Damaged files of a kind, those of the seeds from `start` to `stop`."""
    import test_files
    import test_formats

    from zoo.pretrained.readers import files

    kind, start, stop = task
    total = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind in test_formats.READERS:
            draw = np.random.default_rng(0).standard_normal
            arrays = {
                f"{layer}/{leaf}": draw(shape, np.float32)
                for layer, leaf, shape in (
                    ("conv1", "kernel", (3, 3, 2, 4)),
                    *(("conv1_bn", leaf, (4,)) for leaf in BATCH_NORM),
                    ("dense", "kernel", (4, 3)),
                    ("dense", "bias", (3,)),
                )
            }
            write = test_formats.damaged(kind, arrays, folder)
            read: Any = test_formats.READERS[kind]
        else:
            (folder / "whole").mkdir()
            suffix, data, entry = test_files.samples(folder / "whole")[kind]
            read = files.read

            def write(seed: int) -> Path:
                random = np.random.default_rng(seed)
                path = folder / "damaged" / f"w{suffix}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(
                    test_files.inside(data, entry, random)
                    if entry
                    else test_files.mutated(random, data)
                )
                return path

        for seed in range(start, stop):
            total.add(attempt(read, write(seed), f"{kind} {seed}"))
    return total


def targeted(task: tuple[str, str, int]) -> Tally:
    """One attack at one size."""
    from zoo.pretrained.readers import files

    reader, name, size = task
    suffix, known = attacks.ATTACKS[reader]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"w{suffix}"
        path.write_bytes(known[name](size))
        return attempt(files.read, path, f"{reader}, {name}, {size}")


def kinds() -> list[str]:
    """What mutants are made of."""
    import test_files
    import test_formats

    return [*test_files.FORMATS, *test_formats.READERS]


def run(count: int, sizes: tuple[int, ...] = attacks.SIZES) -> dict[str, dict[str, Any]]:
    """A row a kind of file: `count` mutants of each, and every attack at these sizes."""
    rows = {}
    for kind in kinds():
        starts = range(0, count, BATCH)
        done = tally(mutants, [(kind, s, min(s + BATCH, count)) for s in starts])
        rows[f"{kind}, mutants"] = done.row()
    for reader, (_, known) in attacks.ATTACKS.items():
        tasks = [(reader, name, size) for name in known for size in sizes]
        rows[f"{reader}, attacks"] = tally(targeted, tasks).row()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000, help="of each kind (%(default)s)")
    print(json.dumps(run(parser.parse_args().mutants), indent=2))


if __name__ == "__main__":
    main()
