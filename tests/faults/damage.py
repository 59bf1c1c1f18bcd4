"""Checkpoints that are damaged, one place at a time, and runs that are to go on nevertheless.

    python tests/faults/damage.py 200

damages the newest checkpoint of a run so often, in every file and in every way in turn, and repeats
the run. It prints, as JSON, how many went on and came to the result of a run without damage, from
that checkpoint or from the one before; which ended with another result (garbage); and which did not
end, or with an error though an older checkpoint is whole (stuck).
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PATIENCE = 300  # seconds after which a run counts as stuck
KINDS = ("flip", "truncate", "delete", "zero")


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """Damage a file; one without content can only be deleted."""
    data = bytearray(path.read_bytes())
    if kind == "delete" or not data:
        path.unlink()
        return
    if kind == "flip":
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del data[rng.randrange(len(data)) :]
    else:
        data[:] = bytes(len(data))
    path.write_bytes(data)


def run(count: int, seed: int = 0) -> dict[str, Any]:
    """Damage the newest checkpoint at `count` places.

    Returns:
      {"tried", "whole": how many did no harm, "older": for how many the one before was used,
      "garbage": [place], "stuck": [place and error]}
    """
    found: dict[str, Any] = {"tried": 0, "whole": 0, "older": 0, "garbage": [], "stuck": []}
    while found["tried"] < count:  # a process that hangs or crashes is begun anew after that place
        command = [sys.executable, __file__, str(count), "--seed", str(seed)]
        with subprocess.Popen(
            [*command, "--from", str(found["tried"])], stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout
            while True:
                alarm = threading.Timer(PATIENCE, worker.kill)
                alarm.start()
                line = worker.stdout.readline()
                alarm.cancel()
                if not line:
                    break
                place, end = json.loads(line)
                found["tried"] += 1
                if end in ("whole", "older"):
                    found[end] += 1
                elif end == "garbage":
                    found["garbage"].append(place)
                else:
                    found["stuck"].append(f"{place}: {end}")
        if worker.returncode:
            found["tried"] += 1
            found["stuck"].append(f"place {found['tried']}: ended with {worker.returncode}")
    return found


def work(count: int, first: int, seed: int) -> None:
    """Try the places from `first` to `count`, and print a line of JSON for each."""
    from runs import register_tiny

    from training import TrainConfig, fit, fitting

    register_tiny()
    fitting.report.write = lambda *_: None  # so that no run is ever over
    with tempfile.TemporaryDirectory() as folder:
        whole, out = Path(folder) / "whole", Path(folder) / "run"
        settings = {"model": "tiny", "image_size": 16, "batch_size": 128, "epochs": 3}

        def trained(where: Path) -> tuple[bytes, str]:
            told = io.StringIO()
            with contextlib.redirect_stderr(told):
                fit(TrainConfig(**settings, out=str(where)))
            return (where / "model.safetensors").read_bytes(), told.getvalue()

        want, _ = trained(whole)
        (whole / "model.safetensors").unlink()
        newest = max((whole / "checkpoints").iterdir(), key=lambda path: int(path.name))
        files = sorted(p.relative_to(whole) for p in newest.rglob("*") if p.is_file())
        for number in range(first, count):
            rng = random.Random(f"{seed} {number}")
            turn, place = divmod(number, len(files))
            file, kind = files[place], KINDS[(place + turn) % len(KINDS)]
            shutil.copytree(whole, out)
            damage(out / file, kind, rng)
            try:
                got, told = trained(out)
                older = "is damaged" in told and "using that of step" in told
                end = "garbage" if got != want else "older" if older else "whole"
            except Exception as error:
                end = f"{type(error).__name__}: {error}"
            print(json.dumps((f"{kind} {file}", end)), flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, dest="first", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first is None:
        print(json.dumps(run(args.count, args.seed), indent=2))
    else:
        work(args.count, args.first, args.seed)
