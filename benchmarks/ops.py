"""Convolutions and pools, forward and gradient, at batch 8: who is fastest at each kind of layer.

The rules of `zoo.ops` and `backend.fastest`, measured. Contenders: our lowerings by Eigen ("ours"),
what is given to oneDNN where jaxlib has it ("onednn": depthwise and other grouped convolutions as
XLA has them, the others as ours), our lowerings by oneDNN ("ours, onednn"), XLA's own operations by
oneDNN ("xla, onednn"), and what plain JAX makes of them ("xla"). "chosen" marks what the rules
take, and "holds" says where another is more than 15 % faster, with its name. "it / ours" is a time
over that of "ours". And a large matrix product, by JAX and by torch: the peak of the convolutions.

With --constant, the weights are in the program, as in that of a network from `zoo.fold`: forward
convolutions alone, and one contender more, the variants for that ("constant").
"""

import itertools
import statistics

from zoo.runtime import backend

from . import harness
from .harness import PEERS, Contender, Contest, Measured, Row

WAYS = {  # the library, and the variants of `zoo.ops`
    "ours": ("eigen", "cpu"),
    "ours, onednn": ("onednn", "cpu"),
    "onednn": ("onednn", "onednn"),
    "xla, onednn": ("onednn", "default"),
    "xla": ("xla", "default"),
    "constant": ("onednn", "constant"),
}
SLACK = 1.15  # a rule holds while nothing else is this many times as fast


def conv(name: str, size: int, side: int, channels: int, features: int, **settings: int) -> Row:
    low, high = settings.pop("pads", (size // 2, size // 2))
    row = dict(op="conv", size=(size, size), side=side, channels=channels, features=features)
    return {"work": name, "stride": 1, "groups": 1, **row, "pads": ((low, high),) * 2, **settings}


def pool(name: str, op: str, size: int, side: int, channels: int, *, stride: int) -> Row:
    pads = (((size - 1) // 2,) * 2,) * 2
    row = dict(op=op, size=(size, size), side=side, channels=channels, stride=stride)
    return {"work": name, "pads": pads, **row}


# fmt: off
WORKS = [
    #                                  size side    C     F
    conv("depthwise 3x3, 112x112x32",      3, 112,  32,   32, groups=32),
    conv("depthwise 3x3 / 2, 112x112x64",  3, 112,  64,   64, groups=64, stride=2),
    conv("depthwise 3x3, 28x28x256",       3,  28, 256,  256, groups=256),
    conv("depthwise 3x3, 14x14x512",       3,  14, 512,  512, groups=512),
    conv("depthwise 5x5, 14x14x672",       5,  14, 672,  672, groups=672),
    conv("3x3 in 32 groups, 56x56x128",    3,  56, 128,  128, groups=32),
    conv("1x1, 56x56x64 to 256",           1,  56,  64,  256),
    conv("1x1, 14x14x1024 to 256",         1,  14, 1024, 256),
    conv("1x1 / 2, 56x56x256 to 512",      1,  56, 256,  512, stride=2),
    conv("3x3, 56x56x64",                  3,  56,  64,   64),
    conv("3x3, 14x14x256",                 3,  14, 256,  256),
    conv("3x3 / 2, 56x56x128",             3,  56, 128,  128, stride=2),
    conv("7x7 / 2, 224x224x3 to 64",       7, 224,   3,   64, stride=2),
    conv("3x3 / 2, 224x224x3 to 32",       3, 224,   3,   32, stride=2),
    pool("max pool 3x3 / 2, 112x112x64",   "max", 3, 112,  64, stride=2),
    pool("max pool 2x2 / 2, 112x112x128",  "max", 2, 112, 128, stride=2),
    pool("average pool 3x3, 35x35x192",    "avg", 3,  35, 192, stride=1),
]
# fmt: on


def judged(work: Row, done: dict[str, Measured]) -> list[Row]:
    """A line for each contender; that of the chosen one says whether the rule holds."""
    rule = backend.fastest(work["dtype"], inference=not work["gradient"])
    if work["constant"] and rule[1] == "onednn":
        rule = WAYS["constant"]
    times = {name: [s * 1e3 for s in measured["seconds"]] for name, measured in done.items()}
    best = min(times, key=lambda name: statistics.median(times[name]))
    lines = harness.lines(work["work"], times, "ms")
    for line in lines:
        if WAYS[line["contender"]] == rule:
            factor = harness.ratio(times[line["contender"]], times[best])
            line["chosen"] = "chosen"
            line["holds"] = "yes" if factor <= SLACK else f"no: {best} is {factor:.2f} x as fast"
    return lines


def main() -> None:
    parser = harness.parser(__doc__, "python -m benchmarks.ops --json benchmarks/results/ops.json")
    parser.set_defaults(seconds=0.2)
    parser.add_argument("--dtype", default="float32,bfloat16", help="default: %(default)s")
    parser.add_argument("--constant", action="store_true", help="the weights are in the program")
    args = parser.parse_args()
    dtypes = args.dtype.split(",")
    if unknown := set(dtypes) - {"float32", "bfloat16"}:
        parser.error(f"--dtype: got {', '.join(unknown)}, expected float32, bfloat16 or both")
    works, batch, size = WORKS, 8, 2048
    if args.quick:
        args.rounds, args.seconds, batch, size = 1, 0.0, 1, 256
        works = [{**w, "side": 14} for w in (WORKS[3], WORKS[-1])]
    result = harness.Result("ops", args)
    contenders = [
        Contender(name, "ops", options={"library": library, "variants": variants})
        for name, (library, variants) in WAYS.items()
        if (library != "onednn" or backend.onednn()) and (args.constant or name != "constant")
    ]
    if args.constant:
        works = [work for work in works if work["op"] == "conv"]
    directions = (False,) if args.constant else (False, True)
    turns = len(directions) * len(dtypes) * len(works) * len(contenders) + 2
    with harness.progress(turns * (1 + args.rounds)) as bar:
        gemm = {"work": f"matrix product {size}", "kind": "gemm", "size": size}
        with Contest([PEERS["zoo"], PEERS["torch"]], bar) as contest:
            done = contest.measure(gemm, rounds=args.rounds, seconds=args.seconds)
            lines = []
            for name, measured in done.items():
                speeds = [2 * size**3 / s / 1e9 for s in measured["seconds"]]
                line = {"work": gemm["work"], "contender": {"zoo": "jax"}.get(name, name)}
                lines.append({**line, **harness.spread(speeds, "GFLOP/s")})
            result.add(contest, lines)
        with Contest(contenders, bar) as contest:
            for dtype, work, gradient in itertools.product(dtypes, works, directions):
                title = f"{work['work']}, {dtype}, {'gradient' if gradient else 'forward'}"
                task = {**work, "work": title, "batch": batch, "gradient": gradient, "dtype": dtype}
                task["constant"] = args.constant
                done = contest.measure(task, rounds=args.rounds, seconds=args.seconds)
                result.add(contest, judged(task, done))
    result.finish()


if __name__ == "__main__":
    main()
