"""A run that goes on for long: does it hold ever more memory, threads or files?

    python tests/faults/soak.py --seconds 3600
    python tests/faults/soak.py --saves 1000

trains a small network for so long, or saves so many checkpoints, and prints, as JSON, what the
process held at times in between: resident memory in MB, threads, open files.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def held() -> dict[str, float]:
    """What this process holds."""
    status = Path("/proc/self/status").read_text().splitlines()
    numbers = {name: text.split() for name, _, text in (line.partition(":") for line in status)}
    return {
        "memory_mb": round(int(numbers["VmRSS"][0]) / 1024, 1),
        "threads": int(numbers["Threads"][0]),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }


def saves(count: int, looks: int = 10) -> list[dict[str, float]]:
    """What the process holds after so many checkpoints."""
    import numpy as np

    from training.checkpoint import Checkpoints
    from training.state import TrainState

    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = Checkpoints(Path(folder) / "checkpoints")
        for number in range(1, count + 1):
            arrays = {"kernel": np.full((64, 64), number, np.float32)}
            state = TrainState(np.array(number, np.int32), arrays, {}, {}, {}, (), {}, {})
            store.save(state, 0.5)
            if number % max(count // looks, 1) == 0:
                store.wait()
                found.append({"saves": number, **held()})
        store.close()
    return found


def run(seconds: float, looks: int = 30) -> list[dict[str, float]]:
    """What the process holds while it trains."""
    from runs import register_tiny

    from training import Interrupted, TrainConfig, fit

    register_tiny()
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"

        def watch() -> None:
            begun = time.monotonic()
            for _ in range(looks):
                time.sleep(seconds / looks)
                metrics = out / "metrics.jsonl"
                epochs = metrics.read_text().count("\n") if metrics.exists() else 0
                now = round(time.monotonic() - begun, 1)
                found.append({"seconds": now, "epochs": epochs, **held()})
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()
        settings: dict[str, Any] = {"batch_size": 32, "crop_scale": 0.5}
        # larger pictures than it needs, so that an hour has hundreds of epochs, not thousands
        with contextlib.suppress(Interrupted):
            fit(TrainConfig("tiny", out=str(out), epochs=10**6, image_size=64, **settings))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--saves", type=int)
    args = parser.parse_args()
    found = {
        **({"saving": saves(args.saves)} if args.saves else {}),
        **({"training": run(args.seconds)} if args.seconds else {}),
    }
    print(json.dumps(found, indent=2))
