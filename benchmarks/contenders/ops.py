"""Single operations: `zoo.ops`, or XLA's own that they stand for; forward, or the gradient."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from zoo import ops
from zoo.runtime import backend

from .zoo import versions

__all__ = ["make", "versions"]


def make(work: dict[str, Any]) -> Callable[[], Any]:
    shape = (work["batch"], work["side"], work["side"], work["channels"])
    args = [jax.random.normal(jax.random.key(0), shape)]
    if work["op"] == "conv":
        shape = (*work["size"], work["channels"] // work["groups"], work["features"])
        args.append(jax.random.normal(jax.random.key(1), shape))
    function = (native if work["native"] else ours)(work)
    jit = jax.jit if work["native"] else backend.jit
    run = jit(function)
    if work["gradient"]:
        args.append(run(*args))
        run = jit(lambda *args: jax.vjp(function, *args[:-1])[1](args[-1]))
    return lambda: jax.block_until_ready(run(*args))


def ours(work: dict[str, Any]) -> Callable[..., jax.Array]:
    stride, size = (work["stride"],) * 2, tuple(work["size"])
    pads = tuple(map(tuple, work["pads"]))
    if work["op"] == "conv":
        groups = work["groups"]
        return lambda x, k: ops.conv2d(x, k, stride=stride, pads=pads, groups=groups)
    pool = {"max": ops.max_pool, "avg": ops.avg_pool_counting_padding}[work["op"]]
    return lambda x: pool(x, size, stride=stride, pads=pads)


def native(work: dict[str, Any]) -> Callable[..., jax.Array]:
    stride, pads, size = (work["stride"],) * 2, work["pads"], work["size"]
    if work["op"] == "conv":
        return lambda x, k: lax.conv_general_dilated(
            *(x, k, stride, pads),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=work["groups"],
        )
    start, combine = {"max": (-float("inf"), lax.max), "avg": (0.0, lax.add)}[work["op"]]
    cells = size[0] * size[1] if work["op"] == "avg" else 1
    windows = (1, *size, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    return lambda x: lax.reduce_window(x, start, combine, *windows) / cells
