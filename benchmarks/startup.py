"""From the start of a process to the first result of ResNet-50, and shorter ways of ours.

Contenders of the first: zoo with an empty and with a filled compilation cache (the command `zoo`
keeps one), zoo loading a file, Keras on JAX as it comes and with the same cache, and torch. Every
round starts fresh processes.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import zoo

from . import harness
from .harness import PEERS, Contender, Contest

READY = "import jax, zoo; from flax import nnx; jax.block_until_ready(nnx.state({}))"


def contenders(scratch: Path, file: Path, turn: int) -> list[Contender]:
    def cached(name: str, peer: str, cache: Path, **options: str | bool) -> Contender:
        env = {"ZOO_CACHE": str(cache), "JAX_COMPILATION_CACHE_DIR": ""}
        if peer == "keras":
            env = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
            env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        own = PEERS[peer]
        return replace(own, name=name, env={**own.env, **env}, options={"cache": True, **options})

    return [
        cached("zoo, filled cache", "zoo", scratch / "filled"),
        cached("zoo, empty cache", "zoo", scratch / f"empty{turn}"),
        cached("zoo, filled cache, from a file", "zoo", scratch / "filled", file=str(file)),
        PEERS["keras"],
        cached("keras, filled cache", "keras", scratch / "filled"),
        PEERS["torch"],
    ]


def commands(network: str, file: Path) -> dict[str, Callable[[], object]]:
    """What a process of ours is asked to do, from its start to its end."""

    def run(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *command], check=True, capture_output=True, cwd=harness.ROOT
        )

    return {
        "python": run("-c", ""),
        "import zoo": run("-c", "import zoo"),
        "import jax, flax": run("-c", "import jax, flax.nnx"),
        "zoo --help": run("-c", "from training.cli import main; main()", "--help"),
        f"create {network}": run("-c", READY.format(f"zoo.create({network!r})")),
        f"load {network} from safetensors": run("-c", READY.format(f"zoo.load({str(file)!r})")),
    }


def main() -> None:
    parser = harness.parser(__doc__, "python -m benchmarks.startup --rounds 5")
    parser.add_argument("--network", default="resnet50", help="default: resnet50")
    args = parser.parse_args()
    if args.quick:
        args.network, args.rounds = "mobilenet_v1_025", 1
    result = harness.Result("startup", args)
    work = dict(work=f"start to first result, {args.network}", kind="infer", network=args.network)
    work |= dict(batch=1, side=224)
    with tempfile.TemporaryDirectory() as folder, harness.progress(0) as bar:
        scratch = Path(folder)
        file = scratch / "model.safetensors"
        zoo.save(zoo.create(args.network), file)
        with Contest(contenders(scratch, file, 0), bar) as contest:
            contest.measure(work, rounds=0, seconds=0)  # fills the cache, and the disk's
        bar.reset(total=args.rounds * 2 * len(contest.contenders))
        seconds: dict[str, list[float]] = {c.name: [] for c in contest.contenders}
        for turn in range(args.rounds):
            entrants = harness.rotated(contenders(scratch, file, turn + 1), turn)
            with Contest(entrants, bar) as contest:
                done = contest.measure(work, rounds=0, seconds=0)
            for name, measured in done.items():
                seconds[name].append(measured.setup["since_start"])
        told = {name: values for name, values in seconds.items() if values}
        result.add(contest, harness.lines(work["work"], told, "s"))
        ways = commands(args.network, file)
        seconds = {name: [] for name in ways}
        for turn in range(args.rounds):
            for name in harness.rotated(list(ways), turn):
                start = time.perf_counter()
                ways[name]()
                seconds[name].append(time.perf_counter() - start)
        result.add(contest, harness.lines("start to end of a process", seconds, "s"))
    result.finish()


if __name__ == "__main__":
    main()
