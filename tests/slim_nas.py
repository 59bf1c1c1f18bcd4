"""Names and shapes of slim's NASNet-A and PNASNet-5, by the steps of its code, which needs TF 1.

https://github.com/tensorflow/models/tree/master/research/slim/nets/nasnet
"""

from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


class State(NamedTuple):
    channels: int
    side: int  # of its map


class Kind(NamedTuple):
    """A cell: its ten operations, which of the seven states each sees, which states are used."""

    operations: str  # 5: separable_5x5_2; m, a: pools; -: none
    indices: str
    used: str


NORMAL = Kind("5353a-aa3-", "0111011100", "1000000")
REDUCTION = Kind("57m7a5-a3m", "0101013220", "1110000")
PNAS = Kind("5m7m533m3-", "1100004010", "1100000")


class Names:
    def __init__(self) -> None:
        self.shapes: Shapes = {}

    def conv(self, scope: str, *shape: int) -> None:
        self.shapes[f"{scope}/weights"] = shape

    def norm(self, scope: str, channels: int) -> None:
        self.shapes |= {f"{scope}/{leaf}": (channels,) for leaf in NORM}

    def dense(self, scope: str, channels: int, classes: int) -> None:
        self.shapes |= {f"{scope}/weights": (channels, classes), f"{scope}/biases": (classes,)}

    def cell(
        self, scope: str, net: State, before: State | None, filters: int, stride: int, kind: Kind
    ) -> State:
        if before is None:
            before = net
        elif before.side != net.side:
            self.conv(f"{scope}/path1_conv", 1, 1, before.channels, filters // 2)
            self.conv(f"{scope}/path2_conv", 1, 1, before.channels, filters - filters // 2)
            self.norm(f"{scope}/final_path_bn", filters)
            before = State(filters, net.side)
        elif before.channels != filters:
            self.conv(f"{scope}/prev_1x1", 1, 1, before.channels, filters)
            self.norm(f"{scope}/prev_bn", filters)
            before = State(filters, net.side)
        self.conv(f"{scope}/1x1", 1, 1, net.channels, filters)
        self.norm(f"{scope}/beginning_bn", filters)
        states = [filters, before.channels]
        for i, (operation, index) in enumerate(zip(kind.operations, kind.indices, strict=True)):
            at = f"{scope}/comb_iter_{i // 2}/{('left', 'right')[i % 2]}"
            strided = stride > 1 and int(index) < 2
            self._operation(at, operation, states[int(index)], filters, strided)
            if i % 2:
                states.append(filters)
        unused = sum(c for c, used in zip(states, kind.used, strict=True) if used == "0")
        return State(unused, -(-net.side // stride))

    def _operation(self, at: str, operation: str, channels: int, filters: int, strided: bool):
        if operation in "357":
            for number, inputs in (1, channels), (2, filters):
                size = f"{operation}x{operation}_{number}"
                kernel = (int(operation), int(operation), inputs, 1)
                self.shapes[f"{at}/separable_{size}/depthwise_weights"] = kernel
                self.shapes[f"{at}/separable_{size}/pointwise_weights"] = (1, 1, inputs, filters)
                self.norm(f"{at}/bn_sep_{size}", filters)
        elif channels != filters or (operation == "-" and strided):
            self.conv(f"{at}/1x1", 1, 1, channels, filters)
            self.norm(f"{at}/bn_1", filters)


def names(cells: int, filters: int, stem: int, size: int, *, skip: bool, pnas: bool) -> Shapes:
    """What a checkpoint holds that was trained with an auxiliary classifier on 1001 classes."""
    made = Names()
    made.conv("conv0", 3, 3, 3, stem)
    made.norm("conv0_bn", stem)
    outputs: list[State | None] = [None, State(stem, (size - 3) // 2 + 1)]
    first, other = (PNAS, PNAS) if pnas else (REDUCTION, NORMAL)
    for i, scaling in enumerate((0.25, 0.5)):
        width = int(filters * scaling)
        outputs.append(made.cell(f"cell_stem_{i}", outputs[-1], outputs[-2], width, 2, first))
    reductions, width = [cells // 3, 2 * cells // 3], filters
    for i in range(cells):
        before, stride = outputs[-2], 1
        if i in reductions:
            width *= 2
            if pnas:
                stride = 2
            else:
                scope = f"reduction_cell_{reductions.index(i)}"
                outputs.append(made.cell(scope, outputs[-1], before, width, 2, first))
        if not skip:
            before = outputs[-2]
        outputs.append(made.cell(f"cell_{i}", outputs[-1], before, width, stride, other))
        if i == reductions[1] - 1:
            aux, net = f"aux_{i}/aux_logits", outputs[-1]
            side = (net.side - 5) // 3 + 1
            made.conv(f"{aux}/proj", 1, 1, net.channels, 128)
            made.norm(f"{aux}/aux_bn0", 128)
            made.conv(f"{aux}/Conv", side, side, 128, 768)
            made.norm(f"{aux}/aux_bn1", 768)
            made.dense(f"{aux}/FC", 768, 1001)
    made.dense("final_layer/FC", outputs[-1].channels, 1001)
    return made.shapes


def networks() -> dict[str, Shapes]:
    """By our names."""
    return dict(
        nasnet_mobile=names(12, 44, 32, 224, skip=False, pnas=False),
        nasnet_large=names(18, 168, 96, 331, skip=True, pnas=False),
        pnasnet5_mobile=names(9, 54, 32, 224, skip=True, pnas=True),
        pnasnet5_large=names(12, 216, 96, 331, skip=True, pnas=True),
    )
