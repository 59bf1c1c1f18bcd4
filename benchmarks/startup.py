"""From the start of a process to the first result of ResNet-50, and commands from start to end.

Contenders of the first: zoo with an empty and with a filled compilation cache (the command `zoo`
keeps one), zoo loading a file, Keras on JAX as it comes and with the same cache, and torch; each
for inference and for the first step of training. The commands: shorter ways of ours; one picture
named by a network from a file, beside torchvision, timm and Keras; all networks counted. Every
round starts fresh processes.
"""

import os
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

Command = Callable[[], int]  # its exit code
ALL = "all networks counted"  # in minutes: one round
READY = "import jax, zoo; from flax import nnx; jax.block_until_ready(nnx.state({}))"


def contenders(kind: str, scratch: Path, file: Path, turn: int) -> list[Contender]:
    """Those of a kind of work; `turn` is the number of an empty cache."""

    def cached(name: str, peer: str, cache: Path, **options: str | bool) -> Contender:
        env = {"ZOO_CACHE": str(cache), "JAX_COMPILATION_CACHE_DIR": ""}
        if peer == "keras":
            env = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
            env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        own = PEERS[peer]
        return replace(own, name=name, env={**own.env, **env}, options={"cache": True, **options})

    from_file = cached("zoo, filled cache, from a file", "zoo", scratch / "filled", file=str(file))
    return [
        cached("zoo, filled cache", "zoo", scratch / "filled"),
        cached("zoo, empty cache", "zoo", scratch / f"empty{turn}"),
        *([from_file] if kind == "infer" else ()),
        PEERS["keras"],
        cached("keras, filled cache", "keras", scratch / "filled"),
        PEERS["torch"],
    ]


def commands(
    network: str, file: Path, scratch: Path, picture: Path | None
) -> dict[str, dict[str, Command]]:
    """By what they do, what processes are asked to do from their start to their end."""

    def run(*command: str, python: str = sys.executable, cache: str = "filled") -> Command:
        env = {"ZOO_CACHE": str(scratch / cache), "KERAS_BACKEND": "jax"}
        return lambda: (
            subprocess.run(
                [python, *command],
                capture_output=True,
                cwd=harness.ROOT,
                env={**os.environ, **env},
                check=False,
            ).returncode
        )

    def zoo_command(*words: str, cache: str = "filled") -> Command:
        return run("-c", "from training.cli import main; main()", *words, cache=cache)

    found = {
        "start to end of a process": {
            "python": run("-c", ""),
            "import zoo": run("-c", "import zoo"),
            "import jax, flax": run("-c", "import jax, flax.nnx"),
            "zoo --help": zoo_command("--help"),
            f"create {network}": run("-c", READY.format(f"zoo.create({network!r})")),
            f"load {network} from safetensors": run("-c", READY.format(f"zoo.load({str(file)!r})")),
        }
    }
    if picture is not None:
        ways = {"zoo predict": zoo_command("predict", str(picture), "--model", str(file))}
        for peer, suffix, python in (
            ("torchvision", "pth", harness.TORCH),
            ("timm", "safetensors", harness.TORCH),
            ("keras", "weights.h5", harness.KERAS),
        ):
            made = scratch / f"{peer}.{suffix}"
            script = ("-m", "benchmarks.predicting", peer, str(made))
            run(*script, python=python)()  # makes the file
            ways[peer] = run(*script, str(picture), python=python)
        found["one picture named by ResNet-50 from a file"] = ways
        script = ("-m", "benchmarks.predicting", "torchvision-all")
        found[ALL] = {
            "zoo compare --all": zoo_command("compare", "--all"),
            "torchvision": run(*script, python=harness.TORCH),
        }
    return found


def main() -> None:
    parser = harness.parser(__doc__, "python -m benchmarks.startup --rounds 5")
    parser.add_argument("--network", default="resnet50", help="default: resnet50")
    parser.add_argument(
        "--picture", type=Path, help="a photograph, for the commands that name one, and count all"
    )
    args = parser.parse_args()
    if args.quick:
        args.network, args.rounds = "mobilenet_v1_025", 1
    result = harness.Result("startup", args)
    works = [
        dict(work=f"start to first {what}, {args.network}", kind=kind, batch=batch, side=224)
        for what, kind, batch in (("result", "infer", 1), ("training step of 8", "train", 8))
    ]
    with tempfile.TemporaryDirectory() as folder, harness.progress(0) as bar:
        scratch = Path(folder)
        file = scratch / "model.safetensors"
        zoo.save(zoo.create(args.network), file)
        entrants = [contenders(work["kind"], scratch, file, 0) for work in works]
        bar.reset(total=(args.rounds + 1) * sum(map(len, entrants)))
        for number, work in enumerate(works):
            work |= dict(network=args.network)
            with Contest(contenders(work["kind"], scratch, file, number), bar) as contest:
                contest.measure(work, rounds=0, seconds=0)  # fills the cache, and the disk's
            seconds: dict[str, list[float]] = {c.name: [] for c in contest.contenders}
            for turn in range(args.rounds):
                fresh = (number + 1) * args.rounds + turn  # the number of its empty cache
                entered = contenders(work["kind"], scratch, file, fresh)
                with Contest(harness.rotated(entered, turn), bar) as contest:
                    done = contest.measure(work, rounds=0, seconds=0)
                for name, measured in done.items():
                    seconds[name].append(measured.setup["since_start"])
            told = {name: values for name, values in seconds.items() if values}
            result.add(contest, harness.lines(work["work"], told, "s"))
        for what, ways in commands(args.network, file, scratch, args.picture).items():
            rounds = 1 if what == ALL else args.rounds
            result.add(contest, harness.lines(what, timed(ways, rounds), "s"))
    result.finish()


def timed(ways: dict[str, Command], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round, without those that fail."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):  # the first one reads the disk and fills caches
        for name in harness.rotated(list(seconds), turn):
            start = time.perf_counter()
            if ways[name]():
                print(f"left out: {name}", file=sys.stderr)
                del seconds[name]
            elif turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
