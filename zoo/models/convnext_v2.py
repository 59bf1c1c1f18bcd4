"""ConvNeXt v2 (Woo et al., 2023), https://arxiv.org/abs/2301.00808.

Its published weights are for non-commercial use.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ..context import Context
from ..layers import Layer, Table
from ..variant import Paper, Variant
from . import convnext

PAPER = Paper(
    "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
    "Woo, Debnath, Hu, Chen, Liu, Kweon, Xie",
    2023,
    "https://arxiv.org/abs/2301.00808",
    new="Global response normalisation, by which the channels of a block compete, in place of the "
    "layer scale; weights that began as masked autoencoders, with convolutions on the visible "
    "patches alone. Sizes down to 3.7 million parameters.",
)


class ResponseNorm(nnx.Module):
    """`[N, H, W, C] -> [N, H, W, C]`: algorithm 1, starting as the identity."""

    def __init__(self, channels: int, ctx: Context):
        self.scale = nnx.Param(jnp.zeros(channels, ctx.param_dtype))  # gamma
        self.bias = nnx.Param(jnp.zeros(channels, ctx.param_dtype))  # beta

    def __call__(self, x: jax.Array) -> jax.Array:
        size = jnp.sqrt(jnp.square(x.astype(jnp.float32)).sum((1, 2), keepdims=True))
        among = (size / (size.mean(-1, keepdims=True) + 1e-6)).astype(x.dtype)
        scale, bias = (value[...].astype(x.dtype) for value in (self.scale, self.bias))
        return x + scale * (x * among) + bias


@dataclass(frozen=True)
class GRN:
    """Global response normalisation (section 4)."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return ResponseNorm(channels, ctx), channels


@dataclass(frozen=True)
class Block(convnext.Block):
    """Figure 5, right: response normalisation where the channels are most, no layer scale."""

    def branch(self, channels: int) -> Table:
        """The layers beside the shortcut."""
        rows = super().branch(channels)
        before = {name: rows[name] for name in ("depthwise", "norm", "expand")}
        return {**before, "grn": GRN(), "project": rows["project"]}


# fmt: off
# Appendix A.1: the channels C and the blocks B of the four stages.
SETTINGS = dict(
    #                 C                       B              input
    convnextv2_atto= (( 40,  80,  160,  320), (2, 2,  6, 2), 224),
    convnextv2_femto=(( 48,  96,  192,  384), (2, 2,  6, 2), 224),
    convnextv2_pico= (( 64, 128,  256,  512), (2, 2,  6, 2), 224),
    convnextv2_nano= (( 80, 160,  320,  640), (2, 2,  8, 2), 224),
    convnextv2_tiny= (( 96, 192,  384,  768), (3, 3,  9, 3), 224),
    convnextv2_base= ((128, 256,  512, 1024), (3, 3, 27, 3), 224),
    convnextv2_large=((192, 384,  768, 1536), (3, 3, 27, 3), 224),
    convnextv2_huge= ((352, 704, 1408, 2816), (3, 3, 27, 3), 384),
)
# fmt: on

VARIANTS = [
    Variant(
        name,
        partial(convnext.convnext, c=c, b=b, block=Block()),
        PAPER,
        size,
        aliases=(name.replace("v2", "_v2"),),
    )
    for name, (c, b, size) in SETTINGS.items()
]
