"""Calling a network outside of transformations: it is compiled once, and later calls cost little.

`nnx.split` and `nnx.update` take ten milliseconds for a ResNet-50, a good part of the time of one
inference. So a call goes through the modules itself. If nothing but the values of variables has
changed since the last call, it runs the program compiled then, and writes back only the variables
that the program changes (batch-norm statistics in training mode).

A network that `zoo.fold` made has its weights compiled in, where oneDNN computes: they are laid out
once as its kernels want them, and not at each call.

A model that cannot be compiled like this runs operation by operation, as any `nnx.Module` does: see
`Direct`.
"""

import operator
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .. import ops
from . import backend

Method = Callable[[Any, jax.Array], Any]  # (model, x) -> arrays
Program = Callable[[list[Any], jax.Array], tuple[Any, dict[int, Any]]]  # see `compiled`


MOST_CONSTANT = 1 << 28  # bytes: a program with weights in it takes about four times their memory


class Compiled(NamedTuple):
    """The settings of a model at its last call, and the programs that are valid for them."""

    settings: list[Any]
    program: Program  # for a call by itself
    part: Program  # for a call under a transformation such as `jax.grad` or `jax.vmap`
    constant: Callable[[jax.Array], Any] | None = None  # a program with these values compiled in
    values: list[Any] | None = None  # those


class Direct(Exception):
    """The method cannot be compiled ahead and has to be called directly.

    Either the model has an attribute that is neither a module, nor a variable, nor hashable (an
    array or a list, in which changes cannot be noticed), or the method changes more than the values
    of variables (it uses `sow`).
    """


_last: WeakKeyDictionary[nnx.Module, dict[Method, Compiled]] = WeakKeyDictionary()


def call(method: Method, model: nnx.Module, x: jax.Array) -> Any:
    """`method(model, x)`, compiled; variables that the method changes are updated in the model."""
    if backend.under_jit():  # the caller is compiling already
        return method(model, x)
    try:
        settings, variables = inspect(model)
        last = _last.setdefault(model, {}).get(method)
        values = [variable.get_raw_value() for variable in variables]
        if last is None or last.settings != settings:
            last = _last[model][method] = compile_for(method, model, settings, values)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((values, x)))
        if last.values is not None and not all(map(operator.is_, values, last.values)):
            # weights that change: from now on they are arguments
            last = _last[model][method] = last._replace(constant=None, values=None)
        if traced:
            y, changed = last.part(values, x)
        elif last.constant is not None:
            y, changed = last.constant(x)
        else:
            y, changed = last.program(values, x)
    except Direct:
        return method(model, x)
    for i, value in changed.items():
        variables[i].set_raw_value(value)
    return y


def inspect(model: nnx.Module) -> tuple[list[Any], list[nnx.Variable[Any]]]:
    """Everything that decides how a model computes, as (settings, variables).

    The settings are all attributes of all modules that are not variables, in a form that can be
    compared with those of another call. The variables come in a fixed order.

    Raises:
      Direct: an attribute that cannot be compared.
    """
    settings: list[Any] = []
    variables: list[nnx.Variable[Any]] = []
    places = {id(model): 0}  # by id: a second path to an object is noted as its number
    modules: list[Any] = [model]
    while modules:
        module = modules.pop()
        settings.append(type(module))
        attributes = vars(module)
        for name in sorted(
            attributes
        ):  # not in the order in which they were set, which copies change
            value = attributes[name]
            kind = _kind(type(value))  # type: ignore[arg-type]
            if kind == "setting":
                if name[:9] != "_pytree__":  # nnx's own
                    settings += name, value
            elif kind == "unknown":
                raise Direct
            elif id(value) in places:
                settings += name, places[id(value)]
            else:
                places[id(value)] = len(places)
                settings += name, type(value)
                (modules if kind == "module" else variables).append(value)
    return settings, variables


@cache
def _kind(of: type) -> str:
    """How `inspect` treats attributes of this type; cached, because isinstance is slow in nnx."""
    if issubclass(of, nnx.Variable):
        return "variable"
    if issubclass(of, nnx.Pytree):
        return "module"
    arrays = issubclass(of, jax.Array | np.ndarray | jax.core.Tracer)
    return "unknown" if arrays or of.__hash__ is None else "setting"


def compile_for(
    method: Method, model: nnx.Module, settings: list[Any], values: list[Any]
) -> Compiled:
    """Compile a method for a model as it is now.

    Raises:
      Direct: the settings cannot be hashed, or the state holds something but variables.
    """
    graphdef, state = nnx.split(model, graph=True)
    if not all(isinstance(leaf, nnx.Variable) for _, leaf in nnx.to_flat_state(state)):
        raise Direct  # a function, say, where a module was: to nnx it is data
    treedef = jax.tree.structure(state)
    try:
        hash((tuple(settings), graphdef, treedef))
    except TypeError as error:
        raise Direct from error
    dtype = computes_in(model)
    program, part = (compiled(method, graphdef, treedef, each) for each in (dtype, None))
    if not getattr(model, "constant", False) or not _pays_as_constants(values, dtype):
        return Compiled(settings, program, part)
    run = partial(runs(method, graphdef, treedef), values)
    return Compiled(settings, program, part, _for_default_backend(run, dtype), values)


def _pays_as_constants(values: list[Any], dtype: str) -> bool:
    """Whether a program is faster with these values in it than with them as arguments."""
    leaves = jax.tree.leaves(values)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False
    return sum(leaf.nbytes for leaf in leaves) < MOST_CONSTANT and _fastest(dtype)[0] == "onednn"


def computes_in(model: nnx.Module) -> str:
    """The dtype to ask `backend.fastest` for: "bfloat16" if any layer has it, else "float32"."""
    for _, module in nnx.iter_modules(model):
        for value in vars(module).values():
            if isinstance(value, str | type | np.dtype) and value in ("bfloat16", jnp.bfloat16):
                return "bfloat16"
    return "float32"


@cache
def compiled(method: Method, graphdef: Any, treedef: Any, dtype: str | None) -> Program:
    """Compile (values of the variables, x) -> (result, changed values by number of the variable).

    Args:
      method: the method of the model to run.
      graphdef: of the model.
      treedef: of the model's state.
      dtype: what the model computes in; None: for a part of a program, under a transformation.
    """
    run = runs(method, graphdef, treedef)
    return jax.jit(run) if dtype is None else _for_default_backend(run, dtype)


def runs(method: Method, graphdef: Any, treedef: Any) -> Program:
    """What `compiled` compiles."""

    def run(values: list[Any], x: jax.Array) -> tuple[Any, dict[int, Any]]:
        model = nnx.merge(graphdef, jax.tree.unflatten(treedef, [0] * treedef.num_leaves))
        settings, variables = inspect(model)
        for variable, value in zip(variables, values, strict=True):
            variable.set_raw_value(value)
        y = method(model, x)
        settings_after, variables_after = inspect(model)
        if settings_after != settings or [*map(id, variables_after)] != [*map(id, variables)]:
            raise Direct
        after = [variable.get_raw_value() for variable in variables]
        pairs = enumerate(zip(values, after, strict=True))
        return y, {i: new for i, (old, new) in pairs if new is not old}

    return run


def _fastest(dtype: str) -> tuple[str, str]:
    """The library that is to compute, and the variants of `zoo.ops`."""
    if jax.default_backend() != "cpu":
        return "", ""  # the model may lie on the CPU all the same
    # what oneDNN computes cannot be cached: a command would compile it at every start
    if backend.caches_programs():
        return "eigen", "cpu"
    return backend.fastest(dtype, inference=True)


def _for_default_backend(run: Callable[..., Any], dtype: str) -> Any:
    """Compile it for the platform that JAX chooses, and by oneDNN where that is to be had."""
    library, variants = _fastest(dtype)
    if not library:
        return backend.jit(run)

    def traced(*arguments: Any) -> Any:
        with ops.platform_only(variants):
            return run(*arguments)

    return backend.jit(traced, library=library)
