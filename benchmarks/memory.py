"""Peak memory of training steps: the most that a fresh process held after three of them.

"before" is what it held once the network stood, before its first step: the rest is the step, and
compiling it. The contenders are those of `benchmarks.models`; "it / zoo" is its peak over ours.
"""

import statistics

import zoo

from . import harness, models
from .harness import PEERS, Contest

NETWORKS = ["mobilenet_v2_100", "resnet50"]


def main() -> None:
    parser = harness.parser(__doc__, "python -m benchmarks.memory resnet50 --rounds 3")
    parser.set_defaults(rounds=3)
    parser.add_argument("networks", nargs="*", help=f"default: {' '.join(NETWORKS)}")
    args = parser.parse_args()
    names, asked = [name for name in PEERS if name not in models.INFERENCE_ONLY], ["train"]
    if args.quick:
        args.networks, args.rounds, names, asked = ["resnet18"], 1, ["zoo", "torch"], ["train2"]
    try:
        todo = models.works(args.networks or NETWORKS, asked)
    except zoo.ZooError as error:
        parser.error(str(error))
    result = harness.Result("memory", args)
    with harness.progress(len(todo) * len(names) * 2 * args.rounds) as bar:
        for work in todo:
            peaks: dict[str, list[float]] = {}
            before: dict[str, list[float]] = {}
            for _ in range(args.rounds):
                with Contest([PEERS[name] for name in names], bar) as contest:
                    done = contest.measure(work, rounds=1, seconds=0)
                for name, measured in done.items():
                    peaks.setdefault(name, []).append(measured["memory_peak"][0] / 1e6)
                    before.setdefault(name, []).append(measured.setup["memory_before"] / 1e6)
            lines = harness.lines(work["work"], peaks, "peak MB")
            for line in lines:
                line["before, MB"] = statistics.median(before[line["contender"]])
            result.add(contest, lines)
    result.finish()


if __name__ == "__main__":
    main()
