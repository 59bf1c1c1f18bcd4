"""ConvNeXt (Liu et al., 2022), https://arxiv.org/abs/2201.03545.

Stochastic depth (appendix A) is off unless asked for: the paper's `drop_path` is 0.1 for T, 0.4 for
S, 0.5 for B and L.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ..context import NO_DRAWS, Context
from ..layers import Conv, Dense, GlobalAvgPool, Layer, Network, Residual, Row, Sequence, Table
from ..variant import Paper, Variant

PAPER = Paper(
    "A ConvNet for the 2020s",
    "Liu, Mao, Wu, Feichtenhofer, Darrell, Xie",
    2022,
    "https://arxiv.org/abs/2201.03545",
    new="A ResNet modernised step by step after the Swin Transformer: 7x7 depthwise convolutions, "
    "inverted bottlenecks, GELU, fewer activations and norms, layer norm in place of batch norm.",
)


class Normalise(nnx.Module):
    """Layer norm, computed in float32, that returns the dtype of its input."""

    def __init__(self, norm: nnx.LayerNorm):
        self.norm = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        y: jax.Array = self.norm(x)  # float32 within
        return y.astype(x.dtype)


@dataclass(frozen=True)
class LayerNorm:
    """Over the channels of every pixel (section 2.6)."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        if not ctx.has_norm:
            return ctx.act(None), channels
        norm = nnx.LayerNorm(
            channels, epsilon=1e-6, dtype=jnp.float32, param_dtype=jnp.float32, rngs=NO_DRAWS
        )
        return Normalise(norm), channels


class Scaled(nnx.Module):
    """`[N, H, W, C] -> [N, H, W, C]`, each channel times a learned factor."""

    def __init__(self, channels: int, ctx: Context):
        self.gamma = nnx.Param(jnp.ones(channels, ctx.param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


@dataclass(frozen=True)
class LayerScale:
    """A factor for each channel, 1e-6 at the start (appendix A; arXiv:2103.17239)."""

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        return Scaled(channels, ctx), channels


@dataclass(frozen=True)
class Block:
    """Figure 4. Its 1x1 convolutions are fully connected layers on every pixel."""

    def branch(self, channels: int) -> Table:
        """The layers beside the shortcut."""
        return dict(
            depthwise=Conv(7, channels, groups=channels, norm=False, act=None),
            norm=LayerNorm(),
            expand=Dense(4 * channels, act="gelu"),
            project=Dense(channels, act=None),
            layerscale=LayerScale(),
        )

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        table = self.branch(channels)
        return Residual(channels, table, ctx, shortcut=None, act=None), channels


def stage(depth: int, block: Row) -> Row:
    """`depth` blocks one after the other."""
    return Sequence({f"block{i}": block for i in range(depth)})


def patches(size: int, features: int) -> Row:
    """A convolution over patches that do not overlap."""
    return Conv(size, features, stride=size, norm=False, act=None, padding="valid")


def down(features: int) -> Row:
    """The layer between two stages, which halves height and width (section 2.2)."""
    return Sequence(dict(norm=LayerNorm(), conv=patches(2, features)))


Four = tuple[int, int, int, int]  # of the four stages

# fmt: off
# Section 3: the channels C and the blocks B of the four stages. The last four are timm's.
SETTINGS = dict(
    convnext_tiny=  (( 96, 192,  384,  768), (3, 3,  9, 3)),
    convnext_small= (( 96, 192,  384,  768), (3, 3, 27, 3)),
    convnext_base=  ((128, 256,  512, 1024), (3, 3, 27, 3)),
    convnext_large= ((192, 384,  768, 1536), (3, 3, 27, 3)),
    convnext_xlarge=((256, 512, 1024, 2048), (3, 3, 27, 3)),
    convnext_atto=  (( 40,  80,  160,  320), (2, 2,  6, 2)),
    convnext_femto= (( 48,  96,  192,  384), (2, 2,  6, 2)),
    convnext_pico=  (( 64, 128,  256,  512), (2, 2,  6, 2)),
    convnext_nano=  (( 80, 160,  320,  640), (2, 2,  8, 2)),
)


def body(c: Four, b: Four, block: Row) -> Table:
    """The stem and four stages of `b` blocks with `c` channels."""
    return dict(
        stem=Sequence(dict(conv=patches(4, c[0]), norm=LayerNorm())),
        stage1=stage(b[0], block),                              # 56x56
        down2=down(c[1]), stage2=stage(b[1], block),            # 28x28
        down3=down(c[2]), stage3=stage(b[2], block),            # 14x14
        down4=down(c[3]), stage4=stage(b[3], block),            # 7x7
    )
# fmt: on

HEAD: Table = dict(avgpool=GlobalAvgPool(), norm=LayerNorm())


def convnext(ctx: Context, c: Four, b: Four, block: Row = Block()) -> Network:
    """ConvNeXt with `c` channels and `b` blocks in its four stages."""
    return Network(body(c, b, block), HEAD, ctx, min_size=32)


VARIANTS = [Variant(name, partial(convnext, c=c, b=b), PAPER) for name, (c, b) in SETTINGS.items()]
