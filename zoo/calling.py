"""A network called outside of any transformation: compiled once, and little more than XLA's time.

`nnx.split` and `nnx.update` take ten milliseconds for a ResNet-50, which is a good part of an
inference. So a call looks over the modules itself: where all that is not a variable is as it was at
the last call, the program compiled then is run on the variables of now, and only those that it
changes (batch-norm statistics in training mode) are written back.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
from flax import nnx

from . import backend

Method = Callable[[Any, jax.Array], Any]  # (model, x) -> arrays


class Seen(NamedTuple):
    """A model as it was at its last call, and what runs it as long as it stays so."""

    settings: list[Any]
    order: list[int]  # of the variables as `look` finds them, for `program`
    program: Callable[[list[jax.Array], jax.Array], tuple[Any, dict[int, jax.Array]]]


_seen: WeakKeyDictionary[nnx.Module, dict[Method, Seen]] = WeakKeyDictionary()


def call(method: Method, model: nnx.Module, x: jax.Array) -> Any:
    """`method(model, x)`, compiled, with what it changes in the model written back."""
    if isinstance(x, jax.core.Tracer) or backend.under_jit():  # the caller is compiling already
        return method(model, x)
    settings, variables, paths = look(model)
    seen = _seen.setdefault(model, {}).get(method)
    if seen is None or seen.settings != settings:
        graphdef, state = nnx.split(model)
        place: dict[tuple[Any, ...], int] = {path: i for i, path in enumerate(paths)}
        order = [place[path] for path, _ in nnx.to_flat_state(state)]
        seen = Seen(settings, order, program(method, graphdef, jax.tree.structure(state)))
        _seen[model][method] = seen
    y, changed = seen.program([variables[i].get_value() for i in seen.order], x)
    for i, value in changed.items():
        variables[seen.order[i]].set_value(value)
    return y


def look(model: nnx.Module) -> tuple[list[Any], list[nnx.Variable], list[tuple[str, ...]]]:
    """All that decides how a model computes, apart from the values of its variables; these; their
    paths."""
    settings: list[Any] = []
    variables: list[nnx.Variable] = []
    paths: list[tuple[str, ...]] = []
    modules: list[tuple[tuple[str, ...], Any]] = [((), model)]
    while modules:
        path, module = modules.pop()
        settings.append(type(module))
        for name, value in vars(module).items():
            kind = _kind(type(value))  # type: ignore[arg-type]
            if kind == "module":
                settings.append(name)
                modules.append(((*path, name), value))
            elif kind == "variable":
                settings.append(name)
                variables.append(value)
                paths.append((*path, name))
            elif not name.startswith("_pytree__"):  # nnx's own
                settings.append(value)
    return settings, variables, paths


@cache
def _kind(of: type) -> str:
    """isinstance with nnx's types is slow."""
    if issubclass(of, nnx.Variable):
        return "variable"
    return "module" if issubclass(of, nnx.Pytree) else "setting"


@cache
def program(method: Method, graphdef: Any, treedef: Any) -> Any:
    """`method` on a model given by the leaves of its state, and the leaves that it changes."""

    def run(leaves: list[jax.Array], x: jax.Array) -> tuple[Any, dict[int, jax.Array]]:
        model = nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves))
        y = method(model, x)
        after = jax.tree.leaves(nnx.state(model))
        pairs = enumerate(zip(leaves, after, strict=True))
        return y, {i: new for i, (old, new) in pairs if new is not old}

    return backend.jit(run)
