"""Turn a traced function into an ONNX graph: a table has one row for each of JAX's primitives.

Networks are a few dozen primitives. What depends on weights alone is computed at once, so that the
graph has only what images go through. Where a platform has its own lowering, the default one is
taken: ONNX Runtime has its own kernels for pools and for depthwise and grouped convolutions.

Reference: https://onnx.ai/onnx/operators/, opset 17.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from ..errors import ZooError

OPSET, IR_VERSION = 17, 8
MAX_BYTES = 2**31 - 1  # of a protobuf message

Value = str | np.ndarray  # the name of a tensor in the graph, or a constant


def graph(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    dtype: np.dtype,
    metadata: Mapping[str, str],
) -> bytes:
    """A serialised ONNX model: input "images" [n, *shape] of `dtype`, output "logits", any n.

    Raises:
      ZooError: a primitive that is not in the table, or more than 2 GiB.
    """
    sizes = ", ".join(map(str, ("n", *shape)))
    images = jax.ShapeDtypeStruct(export.symbolic_shape(sizes), dtype)
    closed = jax.make_jaxpr(function)(images)
    builder = _Builder()
    (logits,) = builder.walk(closed.jaxpr, closed.consts, ["images"])
    return builder.model(logits, images, closed.out_avals[0], metadata)


class _Builder:
    """The nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        import onnx

        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.names: dict[tuple[Any, ...], str] = {}  # of small constants, each kept once

    def walk(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """Add the nodes of a jaxpr, and return its outputs."""
        env: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {v: np.asarray(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: Any) -> Value:
            return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else env[atom]

        for eqn in jaxpr.eqns:
            env.update(zip(eqn.outvars, self.apply(eqn, [*map(read, eqn.invars)]), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def apply(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name == "platform_index":
            return [np.int32(eqn.params["platforms"].index(None))]  # type: ignore[list-item]
        if name == "cond" and not isinstance(inputs[0], str):
            branch = eqn.params["branches"][int(inputs[0])]
            return self.walk(branch.jaxpr, branch.consts, inputs[1:])
        inner = next((eqn.params[k] for k in ("jaxpr", "call_jaxpr") if k in eqn.params), None)
        if inner is not None:
            return self.walk(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
        fixed = all(isinstance(d, int) for v in eqn.outvars for d in v.aval.shape)
        if fixed and not any(isinstance(x, str) for x in inputs):
            out = eqn.primitive.bind(*inputs, **eqn.params)
            return [*map(np.asarray, out if eqn.primitive.multiple_results else [out])]
        if name not in PRIMITIVES:
            raise ZooError(f"export: onnx has no row for the operation {name!r}")
        out = PRIMITIVES[name](self, eqn, *inputs)
        return out if isinstance(out, list) else [out]

    def name(self, value: Value) -> str:
        """The name of a tensor in the graph; a constant is added to it first."""
        if isinstance(value, str):
            return value
        value = np.asarray(value)
        key = (value.dtype, value.shape, value.tobytes()) if value.size <= 16 else (id(value),)
        if key not in self.names:
            self.names[key] = f"c{len(self.constants)}"
            # keeping the array keeps its id from being reused
            self.constants[self.names[key]] = value
        return self.names[key]

    def add(self, op: str, *inputs: Value, **attributes: Any) -> str:
        """Add a node with one output, and return the name of that."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(self, op: str, count: int, *inputs: Value, **attributes: Any) -> list[str]:
        outputs = [f"t{len(self.nodes)}_{i}" for i in range(count)]
        names = [*map(self.name, inputs)]
        self.nodes.append(self.onnx.helper.make_node(op, names, outputs, **attributes))
        return outputs

    def model(self, logits: Value, images: Any, out: Any, metadata: Mapping[str, str]) -> bytes:
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        if sum(x.nbytes for x in self.constants.values()) > MAX_BYTES - 2**20:
            raise ZooError("export: onnx: got more than 2 GiB of weights, expected less")
        self.nodes.append(helper.make_node("Identity", [self.name(logits)], ["logits"]))

        def info(name: str, aval: Any) -> Any:
            element = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
            return helper.make_tensor_value_info(name, element, ["n", *aval.shape[1:]])

        constants = [numpy_helper.from_array(x, name) for name, x in self.constants.items()]
        whole = helper.make_graph(
            self.nodes, "zoo", [info("images", images)], [info("logits", out)], constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)
        helper.set_model_props(made, dict(metadata))
        return bytes(made.SerializeToString())


# --- the table -----------------------------------------------------------------------------------

Row = Callable[..., Value | list[Value] | list[str]]  # (builder, equation, *inputs)


def _ints(values: Any) -> np.ndarray:
    return np.array([*values], np.int64)


def _plain(op: str) -> Row:
    return lambda b, _, *inputs: b.add(op, *inputs)


def _reshape(b: _Builder, eqn: Any, x: Value) -> Value:
    # Only a dimension that depends on the number of images is symbolic; there is at most one.
    sizes = [d if isinstance(d, int) else -1 for d in eqn.outvars[0].aval.shape]
    return b.add("Reshape", x, _ints(sizes))


def _broadcast(b: _Builder, eqn: Any, x: Value) -> Value:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    kept = dict(zip(eqn.params["broadcast_dimensions"], before, strict=True))
    aligned = [kept.get(i, 1) for i in range(len(after))]
    if aligned != [*before]:
        x = b.add("Reshape", x, _ints(d if isinstance(d, int) else -1 for d in aligned))
    if aligned == [*after]:
        return x
    new = [(old, d) for old, d in zip(aligned, after, strict=True) if old != d]
    if any(not isinstance(d, int) for _, d in new):
        raise ZooError("export: onnx: cannot repeat a constant for each image")
    sizes = [1 if old == d else d for old, d in zip(aligned, after, strict=True)]
    return b.add("Expand", x, _ints(sizes))


def _conv(b: _Builder, eqn: Any, x: Value, kernel: Value) -> Value:
    p = eqn.params
    numbers = p["dimension_numbers"]
    if {*p["lhs_dilation"]} != {1} or p["batch_group_count"] != 1:
        raise ZooError("export: onnx: no row for transposed convolutions")
    x, kernel = _transpose_by(b, x, numbers.lhs_spec), _transpose_by(b, kernel, numbers.rhs_spec)
    y = b.add(
        "Conv",
        x,
        kernel,
        strides=[*p["window_strides"]],
        pads=_pads(p["padding"]),
        dilations=[*p["rhs_dilation"]],
        group=p["feature_group_count"],
    )
    return _transpose_by(b, y, [*np.argsort(numbers.out_spec)])


def _transpose_by(b: _Builder, x: Value, order: Sequence[int]) -> Value:
    order = [*map(int, order)]
    if not isinstance(x, str):
        return np.ascontiguousarray(x.transpose(order))
    return x if order == sorted(order) else b.add("Transpose", x, perm=order)


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    return [int(before) for before, _ in padding] + [int(after) for _, after in padding]


def _pool(op: str, **attributes: int) -> Row:
    """Windows over the height and width of [N, H, W, C]."""

    def row(b: _Builder, eqn: Any, x: Value) -> Value:
        p = eqn.params
        dilated = {*p["base_dilation"], *p["window_dilation"]} != {1}
        windows, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
        ends = [(w[0], w[-1]) for w in (windows, strides)] + [(sum(pads[0]), sum(pads[-1]))]
        if len(windows) != 4 or dilated or ends != [(1, 1), (1, 1), (0, 0)]:
            raise ZooError(f"export: onnx: no row for the windows {windows}")
        x = b.add("Transpose", x, perm=[0, 3, 1, 2])
        y = b.add(
            op,
            x,
            kernel_shape=[*windows[1:3]],
            strides=[*strides[1:3]],
            pads=_pads(pads[1:3]),
            **attributes,
        )
        if op == "AveragePool":
            y = b.add("Mul", y, np.asarray(math.prod(windows), eqn.outvars[0].aval.dtype))
        return b.add("Transpose", y, perm=[0, 2, 3, 1])

    return row


def _dot(b: _Builder, eqn: Any, x: Value, y: Value) -> Value:
    (left, right), (batch, batch2) = eqn.params["dimension_numbers"]
    ranks = [len(v.aval.shape) for v in eqn.invars]
    if ranks[1] == 2 and not batch and ([*left], [*right]) == ([ranks[0] - 1], [0]):
        return b.add("MatMul", x, y)
    # JAX's order: the batch's dimensions, what is left of x, what is left of y.
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    xs = [next(letters) for _ in range(ranks[0])]
    ys = [""] * ranks[1]
    for i, j in zip((*left, *batch), (*right, *batch2), strict=True):
        ys[j] = xs[i]
    ys = [letter or next(letters) for letter in ys]
    rest = [c for i, c in enumerate(xs) if i not in (*left, *batch)]
    rest += [c for j, c in enumerate(ys) if j not in (*right, *batch2)]
    out = [xs[i] for i in batch] + rest
    return b.add("Einsum", x, y, equation=f"{''.join(xs)},{''.join(ys)}->{''.join(out)}")


def _pad(b: _Builder, eqn: Any, x: Value, fill: Value) -> Value:
    config = eqn.params["padding_config"]
    if any(between for _, _, between in config):
        raise ZooError("export: onnx: no row for padding between pixels")
    return b.add("Pad", x, _ints(_pads([(low, high) for low, high, _ in config])), fill)


def _slice(b: _Builder, eqn: Any, x: Value) -> Value:
    p = eqn.params
    steps = p["strides"] or [1] * len(p["start_indices"])
    rows = zip(p["start_indices"], p["limit_indices"], steps, range(len(steps)), strict=True)
    # the number of images is not known, and a slice always takes all of them
    cut = [(s, e, step, axis) for s, e, step, axis in rows if isinstance(e, int)]
    starts, ends, steps, axes = zip(*cut, strict=True)
    return b.add("Slice", x, _ints(starts), _ints(ends), _ints(axes), _ints(steps))


def _reverse(b: _Builder, eqn: Any, x: Value) -> Value:
    axes = eqn.params["dimensions"]
    minus, end = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes)
    return b.add("Slice", x, _ints(minus), _ints(end), _ints(axes), _ints(minus))


def _split(b: _Builder, eqn: Any, x: Value) -> list[str]:
    sizes = eqn.params["sizes"]
    return b.add_many("Split", len(sizes), x, _ints(sizes), axis=eqn.params["axis"])


def _cast(b: _Builder, eqn: Any, x: Value) -> Value:
    to = b.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"]))
    return x if eqn.invars[0].aval.dtype == eqn.params["new_dtype"] else b.add("Cast", x, to=to)


def _erfc(b: _Builder, eqn: Any, x: Value) -> Value:
    return b.add("Sub", np.ones((), eqn.outvars[0].aval.dtype), b.add("Erf", x))


def _power(b: _Builder, eqn: Any, x: Value) -> Value:
    return b.add("Pow", x, np.asarray(eqn.params["y"], eqn.outvars[0].aval.dtype))


PRIMITIVES: dict[str, Row] = {
    "add": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "max": _plain("Max"),
    "min": _plain("Min"),
    "neg": _plain("Neg"),
    "abs": _plain("Abs"),
    "exp": _plain("Exp"),
    "sqrt": _plain("Sqrt"),
    "tanh": _plain("Tanh"),
    "logistic": _plain("Sigmoid"),
    "erf": _plain("Erf"),
    "erfc": _erfc,
    "copy": lambda _b, _eqn, x: x,
    "square": lambda b, _, x: b.add("Mul", x, x),
    "integer_pow": _power,
    "pow": _plain("Pow"),
    "rsqrt": lambda b, _, x: b.add("Reciprocal", b.add("Sqrt", x)),
    "convert_element_type": _cast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": lambda b, eqn, x: b.add("Transpose", x, perm=[*eqn.params["permutation"]]),
    "concatenate": lambda b, eqn, *xs: b.add("Concat", *xs, axis=eqn.params["dimension"]),
    "split": _split,
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "reduce_sum": lambda b, eqn, x: b.add("ReduceSum", x, _ints(eqn.params["axes"]), keepdims=0),
    "reduce_max": lambda b, eqn, x: b.add("ReduceMax", x, axes=[*eqn.params["axes"]], keepdims=0),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool", count_include_pad=1),
    "dot_general": _dot,
    "conv_general_dilated": _conv,
}
