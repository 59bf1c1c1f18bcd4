"""What a network costs, counted on the network itself without computing or allocating anything.

Parameters come from the abstract model; all else from its jaxpr (`walk`). The definitions:

- MACs, multiply-accumulates: one for each product that enters a convolution's or a matrix product's
  output, padding counted, as in the papers. Batch norm, activations, pooling and additions count
  nothing.
- FLOPs of training: two for each of the products of the forward pass, of the kernels' gradients and
  of the inputs' gradients, which are as many each; layers that read the image need no gradient of
  their input. What the optimizer does, and auxiliary heads, are not in it.
- Memory: bytes of activations for one image, parameters left out. In inference those that live at
  once, at most (`memory.peak`); in training those kept for the backward pass (`memory.kept`).
- Receptive field: the side, in pixels, of the square that one position of a feature map sees; it
  may exceed the image. Squeeze-and-excite gates, which see all of it, are left out.
"""

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from ..context import Spec
from ..errors import ZooError, checked
from ..layers import Network, model_stages
from ..registry import abstract, find
from ..settings import whole
from ..wrapped import Wrapped
from . import memory
from .walk import PIXEL, Operation, Value, value_of, walk

if TYPE_CHECKING:
    from .table import Table

KINDS = ("stem", "convolution", "depthwise", "1x1", "fully connected", "batch norm", "other")


@dataclass(frozen=True)
class LayerCount:
    """One row of an architecture's table: a convolution or fully connected layer with its norm."""

    name: str  # dotted path, "body.stage1.block0.conv1"
    params: int = 0  # trainable
    batch_stats: int = 0  # running means and variances
    macs: int = 0  # for one image
    output: tuple[int, ...] = ()  # shape for one image: (H, W, C) or (C,)
    kind: str = "other"  # of `KINDS`, never "batch norm"; "other" has no product
    norm: int = 0  # parameters of its normaliser, batch or layer norm, in `params`
    receptive_field: int | None = None  # None: the whole image


@dataclass(frozen=True)
class StageCount:
    """One stage of `zoo.features`: a row of the network's outermost table, pools too."""

    name: str
    params: int
    batch_stats: int
    macs: int
    output: tuple[int, ...]
    receptive_field: int | None  # None: the whole image


@dataclass(frozen=True)
class Count:
    """The cost of a network for one image of `input_size` x `input_size` pixels, float32."""

    name: str
    input_size: int
    params: int  # trainable parameters, head included
    batch_stats: int  # BatchNorm's running statistics; counts called "total" elsewhere add them
    head: int  # parameters after the last feature map; "no top" weights lack them
    aux: int  # parameters of auxiliary heads, not in `params`
    macs: int
    activations: int  # elements of all convolution and fully connected outputs together
    largest_activation: int  # elements of the largest of them
    train_flops: int  # of a forward and a backward pass
    inference_memory: int  # bytes
    training_memory: int  # bytes
    layers: tuple[LayerCount, ...]
    stages: tuple[StageCount, ...]

    @property
    def by_kind(self) -> dict[str, int]:
        """`params` by `KINDS`, in that order: normalisers apart, wherever they are."""
        kinds = dict.fromkeys(KINDS, 0)
        for row in self.layers:
            kinds[row.kind] += row.params - row.norm
            kinds["batch norm"] += row.norm
        return kinds

    @property
    def file_bytes(self) -> int:
        """Of the weights in float32, without a file's header."""
        return 4 * (self.params + self.batch_stats)

    def table(self) -> "Table":
        """By stage, block and layer."""
        from .count_tables import layers

        return layers(self)

    def to_pandas(self) -> Any:
        """`table` as a `pandas.DataFrame` of raw values."""
        return self.table().to_pandas()

    def __str__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@checked()
def count(
    model: str | Network,
    *,
    input_size: int | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    without: str = "",
) -> Count:
    """Count a network's parameters and costs.

    Args:
      model: a name of `zoo.list_models()`, or a network.
      input_size: side of the square input; None takes the published one.
      num_classes: where `model` is a name; None counts the 1000 ImageNet classes.
      in_chans: where `model` is a name: channels of the pictures; None counts the 3 of RGB.
      without: where `model` is a name: parts to leave out of the network, see `zoo.create`.

    Raises:
      ZooError: an unknown name, or an input below the network's minimum.

    >>> zoo.count("resnet50").params
    25557032
    """
    if isinstance(model, str):
        variant = find(model)
        spec = Spec(
            variant.name,
            num_classes=1000 if num_classes is None else num_classes,
            in_chans=3 if in_chans is None else in_chans,
            numerics=variant.numerics,
            without=without,
            aux=True,
        )
        with _no_garbage_collection():
            model = abstract(spec)
    elif (num_classes, in_chans, without) != (None, None, ""):
        given = {"in_chans": in_chans is not None, "without": without != ""}
        which = next((name for name, is_given in given.items() if is_given), "num_classes")
        raise ZooError(f"{which}: expected with a name, got a network, which has its own")
    if input_size is not None:
        input_size = whole("input_size", input_size, high=10**6)
    else:
        wrapped = isinstance(model, Wrapped)
        input_size = model.preprocess.size if wrapped else find(model.spec.name).input_size
    with _no_garbage_collection():
        return _count(model, input_size)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Tracing makes many objects and little garbage: searching for it takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _count(model: Network, input_size: int) -> Count:
    image = jax.ShapeDtypeStruct((1, input_size, input_size, model.spec.in_chans), jnp.float32)
    model.check_input(image)
    graphdef, state = nnx.split(model)

    def forward(state: nnx.State[Any, Any], x: jax.Array) -> tuple[jax.Array, ...]:
        twin = nnx.merge(graphdef, state)
        twin.eval()
        return tuple(y for _, y in twin.steps(x))

    with ops.native_only():
        program = jax.make_jaxpr(forward)(state, image)
        training_memory = memory.kept(graphdef, state, image)
    *weights, x = (value_of(variable.aval) for variable in program.jaxpr.invars)
    x.sight = {1: PIXEL, 2: PIXEL}
    operations, outputs = walk(program, (*weights, x))

    rows, aux = _rows(state)
    products = []  # of the rows: pooling may be a matrix product too
    for operation in operations:
        if operation.products and operation.row in rows:
            products.append(operation)
            rows[operation.row] = _with(rows[operation.row], operation, stem=len(products) == 1)
    done = dict.fromkeys(operation.row for operation in products)
    layers = [rows.pop(name) for name in done]
    layers += rows.values()  # without a product, a norm alone
    macs = sum(row.macs for row in layers)
    reading_image = sum(o.products for o in products if not o.inputs[0].learned)
    sizes = [math.prod(row.output) for row in layers if row.output]
    stages = _stages(model, layers, outputs)
    return Count(
        name=model.spec.name,
        input_size=input_size,
        params=sum(row.params for row in layers),
        batch_stats=sum(row.batch_stats for row in layers),
        head=sum(stage.params for stage in stages[len(model.body.order) :]),
        aux=aux,
        macs=macs,
        activations=sum(sizes),
        largest_activation=max(sizes, default=0),
        train_flops=2 * (3 * macs - reading_image),
        inference_memory=memory.peak(operations, x, outputs[-1]),
        training_memory=training_memory,
        layers=tuple(layers),
        stages=stages,
    )


def _rows(state: nnx.State[Any, Any]) -> tuple[dict[str, LayerCount], int]:
    """Rows by name, with what they store, and the parameters of auxiliary heads.

    "body.stem.conv.kernel" belongs to the row "body.stem".
    """
    rows: dict[str, LayerCount] = {}
    aux = 0
    for path, variable in nnx.to_flat_state(state):
        if not isinstance(variable, nnx.Param | nnx.BatchStat):
            continue
        size = math.prod(variable.get_value().shape)
        if str(path[0]).startswith("aux_"):
            aux += size if isinstance(variable, nnx.Param) else 0
            continue
        name = ".".join(map(str, path[:-2]))
        row = rows.setdefault(name, LayerCount(name))
        if isinstance(variable, nnx.BatchStat):
            row = replace(row, batch_stats=row.batch_stats + size)
        else:
            norm = size if path[-2] == "norm" else 0  # the name that every layer gives it
            row = replace(row, params=row.params + size, norm=row.norm + norm)
        rows[name] = row
    return rows, aux


def _with(row: LayerCount, operation: Operation, *, stem: bool) -> LayerCount:
    (output,) = operation.outputs
    return replace(
        row,
        macs=row.macs + operation.products,
        output=output.shape[1:],
        kind="stem" if stem else _kind(operation),
        receptive_field=output.receptive_field,
    )


def _kind(operation: Operation) -> str:
    x, kernel = operation.inputs
    if operation.name == "dot_general":
        # on every pixel of a feature map it is a 1x1 convolution (ConvNeXt)
        return "fully connected" if len(x.shape) == 2 else "1x1"
    numbers = operation.settings["dimension_numbers"]
    if operation.settings["feature_group_count"] == x.shape[numbers.lhs_spec[1]] > 1:
        return "depthwise"
    sides = (kernel.shape[axis] for axis in numbers.rhs_spec[2:])
    return "1x1" if set(sides) == {1} else "convolution"


def _stages(
    model: Network, layers: Sequence[LayerCount], outputs: Sequence[Value]
) -> tuple[StageCount, ...]:
    body = len(model.body.order)
    stages = []
    names = ("module",) if isinstance(model, Wrapped) else model_stages(model)
    for place, (name, output) in enumerate(zip(names, outputs, strict=True)):
        part = "body." if place < body else "head." if name in model.head.order else ""
        path = part + name
        inside = [row for row in layers if f"{row.name}.".startswith(f"{path}.")]
        stages.append(
            StageCount(
                name,
                params=sum(row.params for row in inside),
                batch_stats=sum(row.batch_stats for row in inside),
                macs=sum(row.macs for row in inside),
                output=output.shape[1:],
                receptive_field=output.receptive_field,
            )
        )
    return tuple(stages)
