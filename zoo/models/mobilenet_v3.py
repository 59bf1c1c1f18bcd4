"""MobileNet v3 (Howard et al., 2019), https://arxiv.org/abs/1905.02244."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from ..context import TORCH, Context
from ..layers import Conv, Dense, Dropout, GlobalAvgPool, Network, Row, SqueezeExcite, Table
from ..variant import Paper, Variant
from .mobilenet_v2 import InvertedResidual, divisible

PAPER = Paper(
    "Searching for MobileNetV3",
    "Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam",
    2019,
    "https://arxiv.org/abs/1905.02244",
    new="MobileNet v2's blocks arranged by architecture search for phones, with squeeze-excite "
    "and hard-swish; a thinner stem, and a cheaper end that pools before its last, widest 1x1 "
    "convolution.",
)


RE, HS = "relu", "hard_swish"


@dataclass(frozen=True)
class Bneck:
    """A line of table 1 or 2."""

    k: int
    exp: int
    out: int
    se: bool
    nl: str
    s: int

    def at(self, width: float, before: int, channels: int) -> Row:
        """The line at a width multiplier.

        The block expands its input as many times as in the paper, and only the result is rounded:
        so do slim, Keras and timm (torchvision multiplies `exp` by the width).

        Args:
          width: the multiplier.
          before: the `out` of the line above it.
          channels: what that comes to at this width.
        """
        expanded = divisible(channels * self.exp / before)
        squeeze = None
        if self.se:  # sections 5.2 and 5.3
            squeeze = SqueezeExcite(divisible(expanded // 4), gate="hard_sigmoid")
        return InvertedResidual(
            expanded, divisible(self.out * width), self.s, self.k, act=self.nl, squeeze=squeeze
        )


# fmt: off
TABLE_1 = dict(                                          # Large
    #             k  exp  out  SE     NL  s
    bneck1=Bneck( 3,  16,  16, False, RE, 1),            # 112x112
    bneck2=Bneck( 3,  64,  24, False, RE, 2),            # 56x56
    bneck3=Bneck( 3,  72,  24, False, RE, 1),
    bneck4=Bneck( 5,  72,  40, True,  RE, 2),            # 28x28
    bneck5=Bneck( 5, 120,  40, True,  RE, 1),
    bneck6=Bneck( 5, 120,  40, True,  RE, 1),
    bneck7=Bneck( 3, 240,  80, False, HS, 2),            # 14x14
    bneck8=Bneck( 3, 200,  80, False, HS, 1),
    bneck9=Bneck( 3, 184,  80, False, HS, 1),
    bneck10=Bneck(3, 184,  80, False, HS, 1),
    bneck11=Bneck(3, 480, 112, True,  HS, 1),
    bneck12=Bneck(3, 672, 112, True,  HS, 1),
    bneck13=Bneck(5, 672, 160, True,  HS, 2),            # 7x7
    bneck14=Bneck(5, 960, 160, True,  HS, 1),
    bneck15=Bneck(5, 960, 160, True,  HS, 1),
)

TABLE_2 = dict(                                          # Small
    #             k  exp  out  SE     NL  s
    bneck1=Bneck( 3,  16,  16, True,  RE, 2),            # 56x56
    bneck2=Bneck( 3,  72,  24, False, RE, 2),            # 28x28
    bneck3=Bneck( 3,  88,  24, False, RE, 1),
    bneck4=Bneck( 5,  96,  40, True,  HS, 2),            # 14x14
    bneck5=Bneck( 5, 240,  40, True,  HS, 1),
    bneck6=Bneck( 5, 240,  40, True,  HS, 1),
    bneck7=Bneck( 5, 120,  48, True,  HS, 1),
    bneck8=Bneck( 5, 144,  48, True,  HS, 1),
    bneck9=Bneck( 5, 288,  96, True,  HS, 2),            # 7x7
    bneck10=Bneck(5, 576,  96, True,  HS, 1),
    bneck11=Bneck(5, 576,  96, True,  HS, 1),
)
# fmt: on


def minimal(table: Mapping[str, Bneck]) -> dict[str, Bneck]:
    """The table without 5x5, squeeze-excite and hard-swish, for hardware that lacks them.

    Slim calls it "minimalistic".

    It is not in the paper: https://github.com/tensorflow/models/tree/master/research/slim/nets/mobilenet
    """
    return {name: replace(row, k=3, se=False, nl=RE) for name, row in table.items()}


def mobilenet_v3(
    ctx: Context,
    table: Mapping[str, Bneck],
    features: int,
    width: float = 1.0,
    act: str = HS,
    stem: float | None = None,
) -> Network:
    """`table` between the stem and the last lines, whose activation is `act`.

    `stem` is the stem's own width multiplier, where it has one.
    """
    before, channels = 16, divisible(16 * (width if stem is None else stem))
    body: dict[str, Row] = dict(stem=Conv(3, channels, stride=2, act=act))
    for name, row in table.items():
        body[name] = row.at(width, before, channels)
        before, channels = row.out, divisible(row.out * width)
    body["last"] = Conv(1, 6 * channels, act=act)
    # The paper's last line but one is the Dense. Section 6.1: dropout keeps 0.8 of the values.
    head: Table = dict(pool=GlobalAvgPool(), fc=Dense(features, act=act), drop=Dropout(0.2))
    return Network(body, head, ctx, min_size=32)


LARGE = partial(mobilenet_v3, table=TABLE_1, features=1280)
SMALL = partial(mobilenet_v3, table=TABLE_2, features=1024)
LARGE_MINIMAL = partial(LARGE, table=minimal(TABLE_1), act=RE)
SMALL_MINIMAL = partial(SMALL, table=minimal(TABLE_2), act=RE)

_variant = partial(Variant, paper=PAPER, numerics=replace(TORCH, bn_epsilon=1e-3, bn_momentum=0.99))
VARIANTS = [
    _variant("mobilenet_v3_large_100", LARGE, aliases=("mobilenet_v3_large",)),
    _variant("mobilenet_v3_large_075", partial(LARGE, width=0.75)),
    _variant("mobilenet_v3_large_minimal_100", LARGE_MINIMAL),
    _variant("mobilenet_v3_small_100", SMALL, aliases=("mobilenet_v3_small",)),
    _variant("mobilenet_v3_small_075", partial(SMALL, width=0.75)),
    _variant("mobilenet_v3_small_050", partial(SMALL, width=0.5, stem=1.0)),  # as timm's
    _variant("mobilenet_v3_small_minimal_100", SMALL_MINIMAL),
]
