"""Calling a network outside of transformations: it is compiled once, and later calls cost little.

`nnx.split` and `nnx.update` take ten milliseconds for a ResNet-50, a good part of the time of one
inference. So a call goes through the modules itself. If nothing but the values of variables has
changed since the last call, it runs the program compiled then, and writes back only the variables
that the program changes (batch-norm statistics in training mode).

A network that `zoo.fold` made has its weights compiled in, where oneDNN computes: see `constants`.

A model that cannot be compiled like this runs operation by operation, as any `nnx.Module` does: see
`Direct`.
"""

import operator
from collections.abc import Callable
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .. import ops
from . import backend
from .constants import Constants

Method = Callable[[Any, jax.Array], Any]  # (model, x) -> arrays
Program = Callable[[list[Any], jax.Array], tuple[Any, dict[int, Any]]]  # see `compiled`


class Compiled(NamedTuple):
    """A model as it was at its last call, and the programs that are valid for it."""

    seen: "Seen"
    program: Program  # for a call by itself
    part: Program  # for a call under a transformation such as `jax.grad` or `jax.vmap`
    constants: Constants | None = None  # programs with the values of the last call in them


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
        last = _last.setdefault(model, {}).get(method)
        if last is None or not last.seen.still(model):
            seen = inspect(model)
            if last is None or last.seen.settings != seen.settings:
                last = compile_for(method, model, seen)
            last = _last[model][method] = last._replace(seen=seen)
        variables = last.seen.variables
        values = [variable.get_raw_value() for variable in variables]
        if last.constants and not identical(values, last.constants.values):
            # weights that change: from now on they are arguments
            last = _last[model][method] = last._replace(constants=None)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((values, x))):
            y, changed = last.part(values, x)
        elif last.constants and (program := last.constants.program(x)):
            y, changed = program(x)
        else:
            y, changed = last.program(values, x)
    except Direct:
        return method(model, x)
    for i, value in changed.items():
        variables[i].set_raw_value(value)
    return y


class Seen(NamedTuple):
    """Everything that decides how a model computes.

    Attributes:
      settings: all attributes of all modules that are not variables, in a form that can be compared
        with those of another call.
      variables: in a fixed order.
      below: the modules in the model. Not the model itself, which a cache would keep alive so.
      attributes: of all modules, to see in a tenth of the time whether they are as they were.
    """

    settings: list[Any]
    variables: list[nnx.Variable[Any]]
    below: list[Any]
    attributes: list[Any]

    def still(self, model: nnx.Module) -> bool:
        """Whether all attributes are the same objects as then; the variables' values may differ."""
        return identical(self.attributes, attributes_of([model, *self.below]))


def attributes_of(modules: list[Any]) -> list[Any]:
    """How many attributes each module has, the names of all, and their values."""
    every = [*map(vars, modules)]
    values = chain.from_iterable(each.values() for each in every)
    return [*map(len, every), *chain.from_iterable(every), *values]


def identical(some: list[Any], others: list[Any]) -> bool:
    """Whether both hold the same objects (numbers up to 256 are, if they are equal)."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def inspect(model: nnx.Module) -> Seen:
    """See how a model computes.

    Raises:
      Direct: an attribute that cannot be compared.
    """
    settings: list[Any] = []
    variables: list[nnx.Variable[Any]] = []
    places = {id(model): 0}  # by id: a second path to an object is noted as its number
    found: list[Any] = []
    modules: list[Any] = [model]
    while modules:
        module = modules.pop()
        found.append(module)
        settings.append(type(module))
        attributes = vars(module)
        # not in the order in which they were set, which copies change
        for name in sorted(attributes):
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
    return Seen(settings, variables, found[1:], attributes_of(found))


@cache
def _kind(of: type) -> str:
    """How `inspect` treats attributes of this type; cached, because isinstance is slow in nnx."""
    if issubclass(of, nnx.Variable):
        return "variable"
    if issubclass(of, nnx.Pytree):
        return "module"
    arrays = issubclass(of, jax.Array | np.ndarray | jax.core.Tracer)
    return "unknown" if arrays or of.__hash__ is None else "setting"


def compile_for(method: Method, model: nnx.Module, seen: Seen) -> Compiled:
    """Compile a method for a model as it is now.

    Raises:
      Direct: the settings cannot be hashed, or the state holds something but variables.
    """
    graphdef, state = nnx.split(model, graph=True)
    if not all(isinstance(leaf, nnx.Variable) for _, leaf in nnx.to_flat_state(state)):
        raise Direct  # a function, say, where a module was: to nnx it is data
    treedef = jax.tree.structure(state)
    try:
        hash((tuple(seen.settings), graphdef, treedef))
    except TypeError as error:
        raise Direct from error
    dtype = computes_in(model)
    program, part = (compiled(method, graphdef, treedef, each) for each in (dtype, None))
    values = [variable.get_raw_value() for variable in seen.variables]
    if not getattr(model, "constant", False) or not _pays_as_constants(values, dtype):
        return Compiled(seen, program, part)
    run = partial(runs(method, graphdef, treedef), values)
    jitted = _for_default_backend(run, dtype, constant=True)
    return Compiled(seen, program, part, Constants(jitted, values))


def _pays_as_constants(values: list[Any], dtype: str) -> bool:
    """Whether a program is faster with these values in it than with them as arguments."""
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))
    return not traced and _fastest(dtype)[0] == "onednn"


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
        before = inspect(model)
        for variable, value in zip(before.variables, values, strict=True):
            variable.set_raw_value(value)
        y = method(model, x)
        after = inspect(model)
        same = after.settings == before.settings
        if not same or not identical(after.variables, before.variables):
            raise Direct
        new_values = [variable.get_raw_value() for variable in after.variables]
        pairs = enumerate(zip(values, new_values, strict=True))
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


def _for_default_backend(run: Callable[..., Any], dtype: str, *, constant: bool = False) -> Any:
    """Compile it for the platform that JAX chooses, and by oneDNN where that is to be had.

    Args:
      run: the function.
      dtype: what it computes in.
      constant: its weights are in it.
    """
    library, variants = _fastest(dtype)
    if not library:
        return backend.jit(run)
    if constant and variants == "onednn":
        variants = "constant"

    def traced(*arguments: Any) -> Any:
        with ops.platform_only(variants):
            return run(*arguments)

    return backend.jit(traced, library=library, inference=True)
