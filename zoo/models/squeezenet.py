"""SqueezeNet (Iandola et al., 2016), https://arxiv.org/abs/1602.07360.

Version 1.1 is the authors' own, in https://github.com/forresti/SqueezeNet: the same fire modules
behind a smaller stem and earlier pools, for 2.4 times less computation.
"""

from dataclasses import dataclass
from functools import partial

from ..context import Context
from ..layers import Branches, Conv, Dropout, Layer, MaxPool, Network, Row, Sequence, Table
from ..variant import Paper, Variant
from .nin import network

PAPER = Paper(
    "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
    "Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer",
    2016,
    "https://arxiv.org/abs/1602.07360",
    new="AlexNet's accuracy with 50 times fewer parameters: fire modules squeeze to few channels "
    "by 1x1 convolutions and expand by 1x1 and 3x3 ones side by side; late pools, no fully "
    "connected layer.",
)

conv = partial(Conv, norm=False)


@dataclass(frozen=True)
class Fire:
    """Figure 1: a 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side."""

    s1x1: int
    e1x1: int
    e3x3: int

    def build(self, channels: int, ctx: Context) -> tuple[Layer, int]:
        expand = {
            "expand1x1": dict(conv=conv(1, self.e1x1)),
            "expand3x3": dict(conv=conv(3, self.e3x3)),
        }
        table: Table = dict(squeeze=conv(1, self.s1x1), expand=Branches(expand))
        return Sequence(table).build(channels, ctx)


# Table 1
# fmt: off
FIRES: Table = dict(
    #         s1x1 e1x1 e3x3
    fire2=Fire( 16,  64,  64),
    fire3=Fire( 16,  64,  64),
    fire4=Fire( 32, 128, 128),
    fire5=Fire( 32, 128, 128),
    fire6=Fire( 48, 192, 192),
    fire7=Fire( 48, 192, 192),
    fire8=Fire( 64, 256, 256),
    fire9=Fire( 64, 256, 256),
)
# fmt: on

HEAD: Table = dict(drop9=Dropout(0.5))  # then the classifier: conv10, its ReLU, avgpool10


def table_1(stem: Row, pools: tuple[int, ...]) -> Table:
    """The stem (number 1) and the fire modules, with a max pool after those numbered in `pools`."""
    table: dict[str, Row] = {}
    for number, (name, row) in enumerate([("conv1", stem), *FIRES.items()], 1):
        table[name] = row
        if number in pools:
            table[f"maxpool{number}"] = MaxPool(3, 2, padding="ceil")
    return table


def squeezenet(ctx: Context, stem: Row, pools: tuple[int, ...], min_size: int) -> Network:
    """SqueezeNet with that stem, and a pool after the modules in `pools`."""
    # In torchvision and Caffe, images below `min_size` leave no pixel after the last pool.
    return network(table_1(stem, pools), HEAD, ctx, min_size=min_size)


V1_0 = conv(7, 96, stride=2, padding="valid")  # 109x109; table 1 has 111: of 227x227
V1_1 = conv(3, 64, stride=2, padding="valid")  # 111x111

VARIANTS = [
    Variant("squeezenet1_0", partial(squeezenet, stem=V1_0, pools=(1, 4, 8), min_size=21), PAPER),
    Variant("squeezenet1_1", partial(squeezenet, stem=V1_1, pools=(1, 3, 5), min_size=17), PAPER),
]
