"""What activations take, worked out from a network's program: nothing is computed or allocated."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.extend import core

from ..layers import Network
from .walk import PRODUCTS, Operation, Value

VIEWS = ("broadcast_in_dim", "pad", "reshape", "slice", "split", "squeeze")


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory that is allocated at one step of a program and freed after another."""

    bytes: int
    last: int = 0  # the step that reads it last


@dataclass(eq=False, slots=True)
class Result:
    """Where a value is: in a buffer, or still to be computed elementwise from some."""

    bytes: int
    sources: set[Buffer]
    written: Buffer | None = None

    def reads(self) -> set[Buffer]:
        """The buffers that are read wherever the value is used."""
        return self.sources if self.written is None else {self.written}


class Step(NamedTuple):
    """An operation as a scheduler sees it: the buffers it reads and the one it writes."""

    reads: set[Buffer]
    writes: Buffer
    elementwise: bool


def peak(operations: Sequence[Operation], image: Value, output: Value) -> int:
    """Bytes of activations that a forward pass holds at once, at most, the image among them.

    As in a program that is fused: convolutions, matrix products, pools, reductions and
    concatenations write buffers. What is elementwise between them is written as the first of three
    needs it, a convolution, a matrix product or a pool, or at once where it is computed from
    several buffers and read twice; over one of its inputs, if that has its size and is not read
    later. Padding, reshaping and slicing take nothing.
    """
    uses = Counter(value for operation in operations for value in operation.inputs)
    first = Buffer(image.bytes)
    results = {image: Result(image.bytes, {first}, first)}
    steps: list[Step] = []

    def run(reads: set[Buffer], writes: Buffer, elementwise: bool) -> None:
        for buffer in (*reads, writes):
            buffer.last = len(steps)
        steps.append(Step(reads, writes, elementwise))

    def write(result: Result) -> set[Buffer]:
        if result.written is None:
            result.written = Buffer(result.bytes)
            run(result.sources, result.written, elementwise=True)
        return {result.written}

    for operation in operations:
        operands = [results[value] for value in operation.inputs if value in results]
        if not operands:
            continue  # of parameters alone
        name = operation.name
        if name in VIEWS:
            results.update((value, operands[0]) for value in operation.outputs)
            continue
        whole = name in PRODUCTS or name.startswith("reduce_window")
        for value in operation.outputs:
            reads = set().union(*(write(x) if whole else x.reads() for x in operands))
            result = Result(value.bytes, reads)
            if whole or name == "concatenate" or name.startswith(("reduce_", "arg")):
                result.written = Buffer(value.bytes)
                run(reads, result.written, elementwise=False)
            elif len(reads) > 1 and uses[value] > 1:
                write(result)
            results[value] = result
    write(results[output])

    now = most = first.bytes
    for number, step in enumerate(steps):
        free = [buffer.bytes for buffer in step.reads if buffer.last == number]
        if step.elementwise and step.writes.bytes in free:
            free.remove(step.writes.bytes)  # in place
        else:
            now += step.writes.bytes
        most = max(most, now)
        now -= sum(free)
        if step.writes.last == number and step.writes is not results[output].written:
            now -= step.writes.bytes  # nobody reads it
    return most


def kept(
    graphdef: nnx.GraphDef[Network], state: nnx.State[Any, Any], image: jax.ShapeDtypeStruct
) -> int:
    """Bytes that training keeps from the forward pass for the backward pass.

    What `jax.vjp` of a network in training mode gives its backward function, each array once, the
    image among them. Left out are parameters, in any precision; constants, as XLA leaves them out
    (the zeros of a ReLU's derivative, in JAX as large as its input); and auxiliary classifiers.

    Args:
      graphdef: of the network, in any mode.
      state: of the network.
      image: the shape and dtype of one picture, [1, H, W, C].
    """

    def residuals(
        params: nnx.State[Any, Any], rest: nnx.State[Any, Any], x: jax.Array
    ) -> list[Any]:
        def forward(params: Mapping[str, Any]) -> jax.Array:
            twin = nnx.merge(graphdef, params, nnx.to_pure_dict(rest))
            twin.train()
            twin.set_attributes(nnx.BatchNorm, axis_name="pictures", raise_if_not_found=False)
            return twin.logits(x)

        return jax.tree.leaves(jax.vjp(forward, nnx.to_pure_dict(params))[1])

    params, rest = nnx.split_state(state, nnx.Param, ...)
    # one picture of two: a batch norm refuses to see a single value of a channel
    return held(residuals, params, rest, image, axis=("pictures", 2))


def held(
    residuals: Callable[[Any, Any, Any], Any],
    params: Any,
    rest: Any,
    image: Any,
    axis: tuple[str, int],
) -> int:
    """Bytes of what `residuals(params, rest, image)` gives, as `kept` counts them.

    Args:
      residuals: a function of the next three.
      params: of the network, in any tree.
      rest: statistics, random keys and the like.
      image: the input.
      axis: the name of the devices, and how many share a batch.
    """
    program = jax.make_jaxpr(residuals, axis_env=[axis])(params, rest, image).jaxpr
    given = program.invars[len(jax.tree.leaves(params)) :]  # statistics, random keys, the image
    computed = set(given)
    for eqn in program.eqns:
        if any(v in computed for v in eqn.invars if isinstance(v, core.Var)):
            computed.update(eqn.outvars)
    kept = computed.intersection(v for v in program.outvars if isinstance(v, core.Var))
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in kept - set(given[:-1]))
