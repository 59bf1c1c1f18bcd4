"""What tests compare of two runs of training."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def tensors(out: Path) -> dict[str, np.ndarray]:
    return load_file(out / "model.safetensors")


def files_of(out: Path) -> set[str]:
    """Names of what a run left, but for hidden ones; of events files without the time."""
    return {p.name.partition(".tfevents")[0] for p in out.iterdir() if p.name[0] != "."}


def records(out: Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    clocks = ("seconds", "images_per_second", "input_wait")
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def assert_same(a: Path, b: Path) -> None:
    x, y = tensors(a), tensors(b)
    assert x.keys() == y.keys()
    for name in x:
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)
    assert records(a) == records(b)


def register_tiny() -> None:
    """Make the network "tiny", which trains in seconds, known to this process."""
    from zoo.layers import Conv, Dropout, GlobalAvgPool, Network
    from zoo.registry import variants
    from zoo.variant import Paper, Variant

    def build(ctx):
        body = dict(stem=Conv(3, 8, stride=2), conv2=Conv(3, 16, stride=2))
        return Network(body, dict(pool=GlobalAvgPool(), drop=Dropout(0.2)), ctx, min_size=8)

    variants()["tiny"] = Variant("tiny", build, paper=Paper("", "", 2015, "", ""), input_size=16)
