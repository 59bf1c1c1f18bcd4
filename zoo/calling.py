"""A network called outside of any transformation: compiled once, and little more than XLA's time.

`nnx.split` and `nnx.update` take ten milliseconds for a ResNet-50, which is a good part of an
inference. So a call looks over the modules itself: where all that is not a variable is as it was at
the last call, the program compiled then is run on the variables of now, and only those that it
changes (batch-norm statistics in training mode) are written back.

What cannot be compiled so is computed as any `nnx.Module` is, one operation after the other: see
`Direct`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import numpy as np
from flax import nnx

from . import backend

Method = Callable[[Any, jax.Array], Any]  # (model, x) -> arrays
Program = Callable[[list[Any], jax.Array], tuple[Any, dict[int, Any]]]  # see `program`


class Seen(NamedTuple):
    """A model as it was at its last call, and what runs it as long as it stays so."""

    settings: list[Any]
    program: Program  # by itself
    part: Program  # as a part of what is differentiated or mapped


class Direct(Exception):
    """The method has to be called as it is.

    The model has an attribute that is neither a module, a variable nor hashable (an array, a list:
    whether it has changed cannot be told), or the method changes more than values (it sows).
    """


_seen: WeakKeyDictionary[nnx.Module, dict[Method, Seen]] = WeakKeyDictionary()


def call(method: Method, model: nnx.Module, x: jax.Array) -> Any:
    """`method(model, x)`, compiled, with what it changes in the model written back."""
    if backend.under_jit():  # the caller is compiling already
        return method(model, x)
    try:
        settings, variables = look(model)
        seen = _seen.setdefault(model, {}).get(method)
        if seen is None or seen.settings != settings:
            seen = _seen[model][method] = see(method, model, settings)
        values = [variable.get_raw_value() for variable in variables]
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((values, x)))
        y, changed = (seen.part if traced else seen.program)(values, x)
    except Direct:
        return method(model, x)
    for i, value in changed.items():
        variables[i].set_raw_value(value)
    return y


def look(model: nnx.Module) -> tuple[list[Any], list[nnx.Variable[Any]]]:
    """All that decides how a model computes, apart from the values of its variables; and these.

    Raises:
      Direct: something that cannot be compared.
    """
    settings: list[Any] = []
    variables: list[nnx.Variable[Any]] = []
    places = {id(model): 0}  # of what was met: another way to it is told by its place
    modules: list[Any] = [model]
    while modules:
        module = modules.pop()
        settings.append(type(module))
        attributes = vars(module)
        for name in sorted(attributes):  # as a copy has them, whatever the order they were set in
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
    """What an attribute of this type is to `look`; cached, because isinstance is slow in nnx."""
    if issubclass(of, nnx.Variable):
        return "variable"
    if issubclass(of, nnx.Pytree):
        return "module"
    arrays = issubclass(of, jax.Array | np.ndarray | jax.core.Tracer)
    return "unknown" if arrays or of.__hash__ is None else "setting"


def see(method: Method, model: nnx.Module, settings: list[Any]) -> Seen:
    """Compile a method for a model as it is now.

    Raises:
      Direct: settings that cannot be compared.
    """
    graphdef, state = nnx.split(model, graph=True)
    if not all(isinstance(leaf, nnx.Variable) for _, leaf in nnx.to_flat_state(state)):
        raise Direct  # a function, say, where a module was: to nnx it is data
    treedef = jax.tree.structure(state)
    try:
        hash((tuple(settings), graphdef, treedef))
    except TypeError as error:
        raise Direct from error
    program, part = (compiled(method, graphdef, treedef, alone) for alone in (True, False))
    return Seen(settings, program, part)


@cache
def compiled(method: Method, graphdef: Any, treedef: Any, alone: bool) -> Program:
    """`method` on a model given by the values of its variables, and the values that it changes.

    Args:
      graphdef, treedef: of the model and of its state.
      alone: whether nothing else is compiled with it.
    """

    def run(values: list[Any], x: jax.Array) -> tuple[Any, dict[int, Any]]:
        model = nnx.merge(graphdef, jax.tree.unflatten(treedef, [0] * treedef.num_leaves))
        settings, variables = look(model)
        for variable, value in zip(variables, values, strict=True):
            variable.set_raw_value(value)
        y = method(model, x)
        settings_after, variables_after = look(model)
        if settings_after != settings or [*map(id, variables_after)] != [*map(id, variables)]:
            raise Direct
        after = [variable.get_raw_value() for variable in variables]
        pairs = enumerate(zip(values, after, strict=True))
        return y, {i: new for i, (old, new) in pairs if new is not old}

    return backend.jit(run) if alone else jax.jit(run)
