"""What spreading a step costs over one device, by `pmap` and `shard_map`: overhead, not speed-up.

The same total batch is trained on 1, 2, 4 and 8 virtual CPU devices of one process, and on two
processes that talk over loopback. They share the same cores, so that all time above that of one
device is what spreading the step costs. "jit" is the same network in a plain jitted step.
"""

import socket

from . import harness
from .harness import Contender, Contest, Row

ENGINES = ("pmap", "shard_map")


def contenders(devices: list[int]) -> list[Contender]:
    def entrant(name: str, count: int, **options: object) -> Contender:
        flags = f"--xla_force_host_platform_device_count={count}"
        env = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        processes = 2 if "processes" in options else 1
        return Contender(name, "zoo", options=options, env=env, processes=processes)

    found = [
        entrant(f"{e}, {count} device{'s' * (count > 1)}", count, engine=e)
        for count in devices
        for e in ENGINES
    ]
    found.append(entrant("jit", 1, kind="plain_jit"))
    for e in ENGINES:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            coordinator = f"localhost:{free.getsockname()[1]}"
        found.append(
            entrant(f"{e}, 2 processes", 1, engine=e, processes=2, coordinator=coordinator)
        )
    return found


def main() -> None:
    parser = harness.parser(__doc__, "python -m benchmarks.scaling --devices 1,2,4,8")
    parser.add_argument("--devices", default="1,2,4,8", help="default: 1,2,4,8")
    args = parser.parse_args()
    works: list[Row] = [
        dict(work="mobilenet_v1_025, 32 pixels", network="mobilenet_v1_025", batch=32, side=32),
        dict(work="resnet18, 128 pixels", network="resnet18", batch=32, side=128),
    ]
    if args.quick:
        args.devices, args.rounds, args.seconds, works = "2", 1, 0.0, works[:1]
    entrants = contenders([int(n) for n in args.devices.split(",")])
    result = harness.Result("scaling", args)
    with harness.progress(len(works) * len(entrants) * (1 + args.rounds)) as bar:
        for work in works:
            with Contest(entrants, bar) as contest:
                done = contest.measure(
                    {"kind": "train", **work}, rounds=args.rounds, seconds=args.seconds
                )
            times = {name: [s * 1e3 for s in m["seconds"]] for name, m in done.items()}
            result.add(contest, harness.lines(work["work"], times, "ms"))
    result.finish()


if __name__ == "__main__":
    main()
