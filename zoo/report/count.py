"""What a network costs, counted on the network itself without computing or allocating anything.

Parameters come from the abstract model; multiply-accumulates (MACs) from a walk over its jaxpr:
one for each product that enters a convolution's or a matrix product's output, padding counted, as
in the papers. Batch norm, activations, pooling and additions count nothing.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict
from jax.extend import core

from ..context import Spec
from ..errors import ZooError
from ..layers import Network
from ..registry import abstract, find


@dataclass(frozen=True)
class LayerCount:
    """One row of an architecture's table: a convolution or fully connected layer with its norm."""

    name: str  # dotted path, "body.stage1.block0.conv1"
    params: int  # trainable
    batch_stats: int  # running means and variances
    macs: int  # for one image
    output: tuple[int, ...]  # shape for one image: (H, W, C) or (C,)


@dataclass(frozen=True)
class Count:
    """The cost of a network for one image of `input_size` x `input_size` pixels."""

    name: str
    input_size: int
    params: int  # trainable parameters, head included
    batch_stats: int  # BatchNorm running statistics; peers that say "total" add them
    head: int  # parameters after the last feature map; "no top" weights lack them
    aux: int  # parameters of auxiliary heads, not in `params`
    macs: int
    activations: int  # elements of all convolution and fully connected outputs together
    largest_activation: int  # elements of the largest of them
    layers: tuple[LayerCount, ...]


def count(
    model: str | Network, *, input_size: int | None = None, num_classes: int | None = None
) -> Count:
    """Count a network's parameters and costs.

    Args:
      model: a name of `zoo.list_models()`, or a network.
      input_size: side of the square input; None takes the published one.
      num_classes: of a name; None counts the 1000 ImageNet classes.

    Raises:
      ZooError: an unknown name, or an input below the network's minimum.

    >>> zoo.count("resnet50").params
    25557032
    """
    if isinstance(model, str):
        variant = find(model)
        classes = 1000 if num_classes is None else num_classes
        model = abstract(
            Spec(variant.name, num_classes=classes, numerics=variant.numerics, aux=True)
        )
    elif num_classes is not None:
        raise ZooError("num_classes: expected with a name, got a network, which has its own")
    input_size = input_size or find(model.spec.name).input_size
    graphdef, state = nnx.split(model)
    param_rows = _by_row(nnx.filter_state(state, nnx.Param))
    stat_rows = _by_row(nnx.filter_state(state, nnx.BatchStat))

    image = jax.ShapeDtypeStruct((1, input_size, input_size, 3), jnp.float32)
    model.check_input(image)
    jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graphdef, state).forward(x))(state, image)
    aux = sum(n for name, n in param_rows.items() if name.startswith("aux_"))
    macs: dict[str, int] = defaultdict(int)
    outputs: dict[str, tuple[int, ...]] = {}
    for name, products, shape in _products(jaxpr.jaxpr):
        if name not in param_rows:
            continue  # pooling as a matrix product
        macs[name] += products
        outputs[name] = shape[1:]
    rest = [name for name in param_rows if name not in outputs and not name.startswith("aux_")]
    layers = tuple(
        LayerCount(
            name, param_rows[name], stat_rows.get(name, 0), macs[name], outputs.get(name, ())
        )
        for name in (*outputs, *rest)  # rows without a product, a norm alone, come last
    )
    sizes = [math.prod(output) for output in outputs.values()]
    return Count(
        name=model.spec.name,
        input_size=input_size,
        params=sum(param_rows.values()) - aux,
        batch_stats=sum(n for name, n in stat_rows.items() if not name.startswith("aux_")),
        head=sum(n for name, n in param_rows.items() if name.startswith(("head.", "classifier"))),
        aux=aux,
        macs=sum(macs.values()),
        activations=sum(sizes),
        largest_activation=max(sizes, default=0),
        layers=layers,
    )


def _by_row(state: nnx.State) -> dict[str, int]:
    """Sizes by table row: "body.stem.conv.kernel" belongs to the row "body.stem"."""
    rows: dict[str, int] = defaultdict(int)
    for path, leaf in flatten_dict(nnx.to_pure_dict(state)).items():
        rows[".".join(path[:-2])] += math.prod(leaf.shape)
    return rows


def _products(jaxpr: core.Jaxpr, scope: str = "") -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """(row, MACs, output shape) of every convolution and matrix product, in order."""
    for eqn in jaxpr.eqns:
        here = "/".join(filter(None, (scope, str(eqn.source_info.name_stack))))
        shape = _shape(eqn.outvars[0])
        if eqn.primitive.name == "conv_general_dilated":
            kernel = _shape(eqn.invars[1])
            features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            yield here.replace("/", "."), math.prod(shape) * math.prod(kernel) // features, shape
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lhs = _shape(eqn.invars[0])
            depth = math.prod(lhs[i] for i in contracted)
            yield here.replace("/", "."), math.prod(shape) * depth, shape
        elif eqn.primitive.name == "cond":
            # `platform_dependent`: the same layer lowered in several ways; the native one comes
            # last, and its products are the layer's.
            yield from _products(eqn.params["branches"][-1].jaxpr, here)
        else:
            for value in eqn.params.values():
                if isinstance(value, core.ClosedJaxpr):
                    yield from _products(value.jaxpr, here)
                elif isinstance(value, core.Jaxpr):  # rematerialised
                    yield from _products(value, here)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
