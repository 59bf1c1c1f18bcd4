"""Single operations by `zoo.ops`, forward or the gradient, in a variant and by a library.

`variants` is that of `ops.only` ("cpu", "onednn", or "default": XLA's own operations), `library`
that of `backend.jit`, or "xla" for `jax.jit` as it comes. Where `constant`, the kernel is in the
program, not an argument of it.
"""

from collections.abc import Callable
from typing import Any

import jax

from zoo import ops
from zoo.runtime import backend

from .zoo import versions

__all__ = ["make", "versions"]


def make(work: dict[str, Any]) -> Callable[[], Any]:
    library = work["library"]
    if library == "onednn" and not backend.onednn():
        raise NotImplementedError("this jaxlib gives nothing to oneDNN")
    shape = (work["batch"], work["side"], work["side"], work["channels"])
    args = [jax.random.normal(jax.random.key(0), shape, work["dtype"])]
    if work["op"] == "conv":
        shape = (*work["size"], work["channels"] // work["groups"], work["features"])
        args.append(jax.random.normal(jax.random.key(1), shape, work["dtype"]))
    function = operation(work)

    def forward(*args: jax.Array) -> jax.Array:
        with ops.only(work["variants"]):
            return function(*args)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        if library == "xla":
            return jax.jit(function)
        return backend.jit(function, library=library, inference=not work["gradient"])

    if work["constant"]:
        x, kernel = args
        run = compiled(lambda x: forward(x, kernel))
        return lambda: jax.block_until_ready(run(x))
    run = compiled(forward)
    if work["gradient"]:
        args.append(run(*args))
        run = compiled(lambda *args: gradient(forward, *args))
    return lambda: jax.block_until_ready(run(*args))


def gradient(forward: Callable[..., jax.Array], *args: jax.Array) -> tuple[jax.Array, ...]:
    *inputs, cotangent = args
    return jax.vjp(forward, *inputs)[1](cotangent)


def operation(work: dict[str, Any]) -> Callable[..., jax.Array]:
    stride, size = (work["stride"],) * 2, tuple(work["size"])
    pads = tuple(map(tuple, work["pads"]))
    if work["op"] == "conv":
        groups = work["groups"]
        return lambda x, k: ops.conv2d(x, k, stride=stride, pads=pads, groups=groups)
    pool = {"max": ops.max_pool, "avg": ops.avg_pool_counting_padding}[work["op"]]
    return lambda x: pool(x, size, stride=stride, pads=pads)
