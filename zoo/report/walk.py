"""A network's program, read operation by operation as XLA would run it.

Nested calls are followed, and where `zoo.ops` has several lowerings the native one is read. Every
value carries what it sees of the image: along each axis that is still one of the image, how many
pixels enter one position (its receptive field), and how many lie between two neighbours (the jump).
An axis that was averaged, flattened or multiplied away is gone, so a squeeze-and-excite gate, which
has none left, adds nothing where it meets a feature map: gates are left out of receptive fields.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, cast

from jax.extend import core


class Sight(NamedTuple):
    """What one position sees along one axis, in pixels of the image."""

    field: Fraction
    jump: Fraction

    def through(self, window: int, stride: int = 1, dilation: int = 1, spread: int = 1) -> "Sight":
        """The sight after a window; `spread` is the input dilation of transposed convolutions."""
        taps = -(-((window - 1) * dilation + 1) // spread)  # of the window that meet no zero
        return Sight(self.field + (taps - 1) * self.jump, self.jump * stride / spread)


PIXEL = Sight(Fraction(1), Fraction(1))


@dataclass(eq=False, slots=True)
class Value:
    """A value of a program, compared by identity."""

    shape: tuple[int, ...]
    itemsize: int
    sight: Mapping[int, Sight] | None = None  # by axis; None: it does not depend on the image
    learned: bool = False  # whether a product with a parameter is behind it

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return math.prod(self.shape) * self.itemsize

    @property
    def receptive_field(self) -> int | None:
        """The longer side, in pixels; None: the whole image."""
        if self.sight is None or len(self.sight) < 2:
            return None
        return math.ceil(max(sight.field for sight in self.sight.values()))


class Operation(NamedTuple):
    """One primitive of the traced program, with its operands and results."""

    name: str  # of the primitive
    scope: str  # "body/stage1/block0/conv1"
    settings: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]

    @property
    def row(self) -> str:
        """The dotted path of the layer that it belongs to."""
        return self.scope.replace("/", ".")

    @property
    def products(self) -> int:
        """Multiply-accumulates of a convolution or a matrix product; 0 of anything else.

        One for each product that enters an output, padding included. A transposed convolution
        counts like the convolution that it transposes: the zeros between its inputs do not count.
        """
        if self.name == "conv_general_dilated":
            x, kernel = (value.shape for value in self.inputs)
            (y,) = (value.shape for value in self.outputs)
            numbers = self.settings["dimension_numbers"]
            places: int = y[numbers.out_spec[0]]
            for spread, before, after in zip(
                self.settings["lhs_dilation"],
                numbers.lhs_spec[2:],
                numbers.out_spec[2:],
                strict=True,
            ):
                places *= y[after] if spread == 1 else x[before]
            return places * math.prod(kernel)
        if self.name == "dot_general":
            (contracted, _), _ = self.settings["dimension_numbers"]
            depth: int = math.prod(self.inputs[0].shape[axis] for axis in contracted)
            return math.prod(self.outputs[0].shape) * depth
        return 0


def walk(program: core.ClosedJaxpr, inputs: Sequence[Value]) -> tuple[list[Operation], list[Value]]:
    """The operations of a program in order, and its results.

    Args:
      program: the traced network.
      inputs: a value for each input of the program.
    """
    operations: list[Operation] = []
    return operations, _walk(program.jaxpr, inputs, "", operations)


def value_of(aval: Any, **knowledge: Any) -> Value:
    """The value of an abstract array."""
    dtype = aval.dtype  # a random key's is no NumPy dtype, but it has a size
    return Value(aval.shape, dtype.itemsize, **knowledge)


def _walk(
    jaxpr: core.Jaxpr, inputs: Sequence[Value], scope: str, operations: list[Operation]
) -> list[Value]:
    values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    values.update((variable, value_of(variable.aval)) for variable in jaxpr.constvars)

    def read(atoms: Sequence[Any]) -> list[Value]:
        return [value_of(a.aval) if isinstance(a, core.Literal) else values[a] for a in atoms]

    for eqn in jaxpr.eqns:
        here = "/".join(filter(None, (scope, str(eqn.source_info.name_stack))))
        operands = read(eqn.invars)
        called = _called(eqn)
        if called is not None:
            # what chooses a branch comes first
            arguments = operands[len(operands) - len(called.invars) :]
            outputs = _walk(called, arguments, here, operations)
        else:
            outputs = [value_of(variable.aval) for variable in eqn.outvars]
            _propagate(eqn.primitive.name, eqn.params, operands, outputs)
            operations.append(Operation(eqn.primitive.name, here, eqn.params, operands, outputs))
        values.update(zip(eqn.outvars, outputs, strict=True))
    return read(jaxpr.outvars)


def _called(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """The program that an equation calls once; None if it is an operation itself."""
    name, settings = eqn.primitive.name, eqn.params
    if name in ("scan", "while"):
        raise NotImplementedError(f"{name}: the products of a loop are not counted")
    if name == "cond":  # `platform_dependent`: the native way comes last
        return cast(core.Jaxpr, settings["branches"][-1].jaxpr)
    for value in settings.values():
        if isinstance(value, core.ClosedJaxpr):
            return cast(core.Jaxpr, value.jaxpr)
        if isinstance(value, core.Jaxpr):  # rematerialised
            return value
    return None


# --- what outputs see ----------------------------------------------------------------------------


def _propagate(
    name: str, settings: Mapping[str, Any], inputs: Sequence[Value], outputs: Sequence[Value]
) -> None:
    """Set what each output of an operation sees of the image."""
    seen = [value for value in inputs if value.sight is not None]
    if not seen:
        return
    learned = name in PRODUCTS or any(value.learned for value in seen)
    for output in outputs:
        sight: dict[int, Sight] = {}
        for operand, value in enumerate(inputs):
            for axis, view in (value.sight or {}).items():
                moved = _moved(name, settings, inputs, operand, axis, output.shape)
                if moved is None:
                    continue
                view = _widened(name, settings, inputs, axis, view)
                other = sight.get(moved, view)
                sight[moved] = Sight(max(view.field, other.field), max(view.jump, other.jump))
        output.sight, output.learned = sight, learned


PRODUCTS = ("conv_general_dilated", "dot_general")


def _widened(
    name: str, settings: Mapping[str, Any], inputs: Sequence[Value], axis: int, view: Sight
) -> Sight:
    """What an output sees along an axis of its input, given windows and strides."""
    if name == "conv_general_dilated":
        numbers = settings["dimension_numbers"]
        place = numbers.lhs_spec[2:].index(axis)
        return view.through(
            inputs[1].shape[numbers.rhs_spec[2:][place]],
            settings["window_strides"][place],
            settings["rhs_dilation"][place],
            settings["lhs_dilation"][place],
        )
    if name.startswith("reduce_window"):
        return view.through(
            settings["window_dimensions"][axis],
            settings["window_strides"][axis],
            settings["window_dilation"][axis],
            settings["base_dilation"][axis],
        )
    if name == "slice" and settings["strides"] is not None:
        return view.through(1, settings["strides"][axis])
    return view


def _moved(
    name: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Value],
    operand: int,
    axis: int,
    shape: tuple[int, ...],
) -> int | None:
    """The axis of the output that an axis of an input becomes; None: it is gone."""
    before = inputs[operand].shape
    if name == "conv_general_dilated":
        numbers = settings["dimension_numbers"]
        if operand or axis not in numbers.lhs_spec[2:]:
            return None
        return int(numbers.out_spec[2:][numbers.lhs_spec[2:].index(axis)])
    if name == "dot_general":
        contracted, batch = settings["dimension_numbers"]
        mine, shared = contracted[operand], batch[operand]
        if axis in mine:
            return None
        if axis in shared:
            return int(shared.index(axis))
        free = [a for a in range(len(before)) if a not in (*mine, *shared)]
        others = len(inputs[0].shape) - len(contracted[0]) if operand else len(shared)
        return int(others) + free.index(axis)
    if name == "transpose":
        return int(settings["permutation"].index(axis))
    if name == "broadcast_in_dim":
        moved: int = settings["broadcast_dimensions"][axis]
        return moved if shape[moved] == before[axis] else None
    if name == "reshape":
        # lengths of 1 look alike: first where it was
        places: tuple[int, ...] = (axis, *range(len(shape)))
        for place in places:
            if math.prod(shape[:place]) == math.prod(before[:axis]) and (
                shape[place : place + 1] == before[axis : axis + 1]
            ):
                return place
        return None
    gone = settings.get("axes", settings.get("dimensions", ()))
    if len(shape) < len(before):  # reductions, squeeze
        return None if axis in gone else axis - sum(a < axis for a in gone)
    return axis if len(shape) == len(before) else None
