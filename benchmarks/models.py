"""Whole networks: images a second of inference and of training steps, against the peers.

Inference is the call that a user writes, compiled; training is a whole step (forward, loss,
gradients, SGD with momentum, batch-norm statistics), ours the one that `zoo train` runs. Random
images; nobody augments. Contenders, in float32 unless they say bf16: zoo, zoo-fold (batch norm
folded into the convolutions: inference only), zoo-bf16 (folded for inference), flax (the obvious
module, `plain_flax.py`), flax-onednn (with the option for oneDNN that jaxlib has), keras, torch
(eager, channels last) and torch-compile, torch-bf16 and torch-compile-bf16 (autocast), onnxruntime,
openvino (its default, bfloat16 where there is AMX), openvino-f32, and gemm, a large matrix product:
what the machine can do. "zoo / it" is how many times as fast ours was, the median of the rounds'
ratios. PARITY_PY_KERAS and PARITY_PY_TORCHVISION name the interpreters that have keras and torch,
where this one has not.
"""

import re
import statistics
from collections.abc import Sequence

import zoo

from . import harness
from .harness import PEERS, Contender, Contest, Measured, Row

NETWORKS = [
    *("mobilenet_v1_100", "mobilenet_v2_100", "resnet18", "resnet50"),
    *("vgg16", "inception_v3"),
    "mobilenet_v3_large_100",
]
BATCHES = {"vgg16": 4, "inception_v3": 8}  # of training; 16 elsewhere
SIDES = {"inception_v3": 299}  # pixels; 224 elsewhere
GEMM = 2048  # rows and columns of the matrices
INFERENCE_ONLY = ("zoo-fold", "onnxruntime", "openvino", "openvino-f32", "gemm")
OURS = ("zoo", "zoo-fold", "zoo-bf16")
CONTENDERS = {**PEERS, "gemm": Contender("gemm", "zoo", options={"kind": "gemm", "size": GEMM})}


def works(networks: Sequence[str], asked: Sequence[str]) -> list[Row]:
    """What is to be measured, `asked` like "infer8" and "train" (at its usual batch).

    Raises:
      zoo.ZooError: no such work, or no such network among ours and the peers'.
    """
    found = []
    for network in networks:
        if network not in NETWORKS:
            raise zoo.ZooError(f"network: got {network!r}, expected some of {', '.join(NETWORKS)}")
        for name in asked:
            match = re.fullmatch(r"(infer|train)(\d*)", name)
            if not match or not (match[2] or match[1] == "train"):
                raise zoo.ZooError(f"work: got {name!r}, expected infer8, train, train16 or alike")
            kind, batch = match[1], int(match[2] or BATCHES.get(network, 16))
            side = SIDES.get(network, 224)
            work = dict(work=f"{network} {kind} {batch}", kind=kind, network=network)
            found.append({**work, "batch": batch, "side": side})
    return found


def rows(work: Row, done: dict[str, Measured]) -> list[Row]:
    """A line for each contender."""
    flops = 2 * work["batch"] * zoo.count(work["network"], input_size=work["side"]).macs
    lines = []
    for name, measured in done.items():
        seconds = measured["seconds"]
        line = {"work": work["work"], "contender": name}
        if name != "gemm":
            line |= harness.spread([work["batch"] / s for s in seconds], "images/s")
            for own in OURS:
                if own in done:
                    line[f"{own} / it"] = harness.ratio(seconds, done[own]["seconds"])
            cpu = statistics.median(measured["cpu_seconds"])
            line["CPU ms/image"] = cpu * 1e3 / work["batch"]
            line["peak MB"] = harness.megabytes(measured.rounds[-1]["memory_peak"])
            line["first call, s"] = measured.setup["seconds"]
        if work["kind"] == "infer":
            speeds = [(2 * GEMM**3 if name == "gemm" else flops) / s for s in seconds]
            line["GFLOP/s"] = statistics.median(speeds) / 1e9
            if "gemm" in done:
                peaks = [2 * GEMM**3 / s for s in done["gemm"]["seconds"]]
                line["of gemm, %"] = 100 * harness.ratio(speeds, peaks)
        lines.append(line)
    return lines


def main() -> None:
    parser = harness.parser(
        __doc__, "python -m benchmarks.models resnet50 --work infer8,train --contenders zoo,torch"
    )
    parser.add_argument("networks", nargs="*", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument(
        "--work",
        default="infer1,infer8,infer32,train",
        help="inferN or trainN with N the batch; train alone: 16, Inception v3 8, VGG-16 4 "
        "(default: %(default)s)",
    )
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="default: %(default)s")
    args = parser.parse_args()
    if args.quick:
        args.networks, args.work, args.rounds = ["mobilenet_v1_100"], "infer1", 1
    names = args.contenders.split(",")
    if unknown := set(names) - set(CONTENDERS):
        parser.error(f"contenders: got {', '.join(unknown)}, expected {', '.join(CONTENDERS)}")
    try:
        todo = works(args.networks or NETWORKS, args.work.split(","))
    except zoo.ZooError as error:
        parser.error(str(error))
    result = harness.Result("models", args)
    with harness.progress(len(todo) * len(names) * (1 + args.rounds)) as bar:
        for work in todo:
            fit = [n for n in names if work["kind"] == "infer" or n not in INFERENCE_ONLY]
            with Contest([CONTENDERS[n] for n in fit], bar) as contest:
                done = contest.measure(work, rounds=args.rounds, seconds=args.seconds)
            result.add(contest, rows(work, done))
    result.finish()


if __name__ == "__main__":
    main()
