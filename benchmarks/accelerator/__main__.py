"""Whether everything runs on this machine's accelerator, rightly, and how fast, in minutes.

Six steps, each with its own share of the time, the dearest last: the machine and its two ceilings;
results against those of the CPU; `zoo train`, stopped and continued too; the speed of training and
inference, beside PyTorch where it is installed; what the compiled training step consists of; and,
with --data, a recipe of `training/recipes`. A step that fails is told, and the next one goes on.
The file of --json is whole after every row. The exit code is 0 only if every check holds.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

EXAMPLE = "example: python -m benchmarks.accelerator --minutes 5 --json accelerator.json"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--minutes", type=float, help="for all steps (default: 5; --tiny: 600)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file too")
    p.add_argument(
        "--data", metavar="cifar10:PATH", help="train the recipe of ResNet-20 on these pictures"
    )
    p.add_argument(
        "--batches", metavar="N,N", help="of training, the one to compare with PyTorch first"
    )
    p.add_argument("--tiny", action="store_true", help="a smoke run: everything small, any machine")
    return p


def check(args: argparse.Namespace) -> None:
    """Whether the arguments can be used: `batches` becomes numbers.

    Raises:
      ValueError: they cannot, in one line.
    """
    asked, data = args.batches or "", args.data or "cifar10:."
    numbers = [int(part) if part.strip().isdigit() else 0 for part in asked.split(",") if asked]
    if not all(numbers):
        raise ValueError(f"batches: got {asked!r}, expected numbers such as 256,128")
    args.batches = tuple(numbers)
    kind, _, path = data.partition(":")
    if kind != "cifar10" or not Path(path).exists():
        raise ValueError(f"data: got {data!r}, expected cifar10:PATH of what is there")
    if args.minutes is not None and not args.minutes > 0:
        raise ValueError(f"minutes: got {args.minutes:g}, expected more than 0")
    if args.json:
        try:
            if not args.json.parent.exists():
                args.json.parent.mkdir(parents=True)
            with tempfile.TemporaryFile(dir=args.json.parent):
                pass
        except OSError as error:
            raise ValueError(f"json: cannot write {args.json}: {error.strerror}") from error


def before_jax() -> None:
    """What JAX reads once, as it starts."""
    # Child processes (PyTorch, a second `zoo train`) need memory of the accelerator as well.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked and "cpu" not in asked.split(","):
        os.environ["JAX_PLATFORMS"] = f"{asked},cpu"  # to compare results with


def main() -> None:
    arguments = parser()
    args = arguments.parse_args()
    try:
        check(args)
    except ValueError as error:
        arguments.error(str(error))
    before_jax()

    import jax

    from training.sources import open_dataset
    from zoo import ZooError, enable_compilation_cache
    from zoo.runtime import backend

    try:
        if args.data:
            open_dataset(args.data)  # before the steps that come first take their minutes
    except ZooError as error:
        arguments.error(f"data: {error}")

    from .. import harness
    from . import fast, machine, right, sizes, trains, why
    from .bench import Bench, run

    backend.expect_training()  # before JAX computes anything
    enable_compilation_cache()
    device = jax.devices()[0]
    size = sizes.ACCELERATOR if device.platform != "cpu" else sizes.CPU
    size = sizes.TINY if args.tiny else size
    bench = Bench(
        harness.Result("accelerator", args),
        replace(size, batches=args.batches or size.batches),
        device,
    )
    steps = [
        ("1 machine", machine.run, 0.05),
        ("2 right", right.run, 0.25),
        ("3 zoo train", trains.digits, 0.15),
        ("4 fast", fast.run, 0.45),
        ("5 why", why.run, 0.10),
    ]
    if args.data:
        steps.append(("6 recipe", lambda bench: trains.recipe(bench, args.data), 0.25))
    # a smoke run is small, and is not to depend on how busy a machine is
    run(bench, steps, 60 * (args.minutes or (600 if args.tiny else 5)))
    print()
    print(harness.tables(bench.rows))
    bench.result.finish()
    sys.stdout.flush()
    # at once: what XLA still compiles for a step whose time is over is not waited for
    os._exit(0 if bench.good else 1)


if __name__ == "__main__":
    main()
