"""Depthwise 3x3 convolution, ours against XLA's own, forward and gradient, in turn in one process.

    python benchmarks/depthwise.py

Prints milliseconds (the median of the rounds) and the median of the rounds' ratios.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from zoo import ops

ROUNDS = 7
#          side  channels  stride: MobileNet v1's layers at batch 8
SHAPES = [(112, 64, 2), (112, 32, 1), (56, 128, 1), (28, 256, 1), (14, 512, 1), (14, 512, 2)]


def gradient(convolve: Callable) -> Callable:
    return jax.jit(lambda x, k, g: jax.vjp(convolve, x, k)[1](g))


def seconds(f: Callable, *args: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f(*args))
    return time.perf_counter() - start


def compare(ours: Callable, xla: Callable, *args: jax.Array) -> str:
    for f in (ours, xla):
        jax.block_until_ready(f(*args))  # compile
    rounds = [(seconds(ours, *args), seconds(xla, *args)) for _ in range(ROUNDS)]
    a, b = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    return f"{a:8.2f} {b:8.2f} {ratio:6.1f}x"


def main() -> None:
    print("                        forward, ms               gradient, ms")
    print("   shape, stride        ours      XLA   ratio     ours      XLA   ratio")
    for side, channels, stride in SHAPES:
        x = jax.random.normal(jax.random.key(0), (8, side, side, channels))
        kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, channels))
        pads = ((1, 1), (1, 1)) if stride == 1 else ((0, 1), (0, 1))

        def ours(x, k, stride=stride, pads=pads, channels=channels):
            return ops.conv2d(x, k, stride=(stride, stride), pads=pads, groups=channels)

        def xla(x, k, stride=stride, pads=pads, channels=channels):
            return jax.lax.conv_general_dilated(
                x,
                k,
                (stride, stride),
                pads,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=channels,
            )

        forward = compare(jax.jit(ours), jax.jit(xla), x, kernel)
        g = jnp.ones_like(ours(x, kernel))
        backward = compare(gradient(ours), gradient(xla), x, kernel, g)
        print(f"8x{side}x{side}x{channels}, {stride}".ljust(20) + forward + "  " + backward)


if __name__ == "__main__":
    main()
