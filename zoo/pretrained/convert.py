"""The one loop that turns a source's tensors into ours: all of them, each once, or an error."""

import re

from flax import nnx
from flax.traverse_util import flatten_dict

from ..errors import ZooError
from ..layers import Network
from .files import Arrays
from .layouts import Layout


def expected(model: Network) -> dict[str, tuple[int, ...]]:
    """Path and shape of everything that weights fill: parameters and BN statistics."""
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    leaves = flatten_dict(nnx.to_pure_dict(state), sep=".")
    return {path: leaf.shape for path, leaf in leaves.items()}


def convert(model: Network, arrays: Arrays, layout: Layout, *, new_head: bool) -> Arrays:
    """Our paths -> arrays in our layout, every one of the source's tensors used once.

    Args:
      model: the (abstract) network to fill.
      arrays: the source's tensors by its own names.
      layout: how the source names and orders them.
      new_head: leave the classifier out, whatever the source has there.

    Raises:
      ZooError: everything that is missing, unexpected or of another shape, listed.
    """
    rules = layout.rules_for(model)
    arrays = layout.rename(model, arrays)
    rest = {name for name in arrays if not re.fullmatch(layout.ignored, name)}
    filled: Arrays = {}
    problems: list[str] = []
    for path, shape in expected(model).items():
        try:
            name = layout.source_name(path, rules)
        except KeyError:
            problems.append(f"nameless    the source has no name for {path}, {list(shape)}")
            continue
        present = name in rest
        rest.discard(name)
        if new_head and path.startswith("classifier."):
            continue
        if not present:
            problems.append(f"missing     {name}, {list(shape)} for {path}")
            continue
        array = layout.arrange(path, arrays[name], model)
        if array.shape != shape:
            problems.append(
                f"mis-shaped  {name}, {list(arrays[name].shape)}: gives {list(array.shape)} "
                f"where {path} needs {list(shape)}"
            )
        filled[path] = array
    problems += [f"unexpected  {name}, {list(arrays[name].shape)}" for name in sorted(rest)]
    if problems:
        raise ZooError(
            f"weights do not fit {model.spec.name} in layout {layout.name!r}:\n  "
            + "\n  ".join(problems)
        )
    return filled


def classes_in(model: Network, arrays: Arrays, layout: Layout) -> int:
    """How many classes the source's classifier has; 0 if it has none."""
    name = layout.source_name("classifier.linear.bias", layout.rules_for(model))
    arrays = layout.rename(model, arrays)
    return len(arrays[name]) if name in arrays else 0


def auxiliary_in(model: Network, arrays: Arrays, layout: Layout) -> bool:
    """Whether the source holds some of the auxiliary classifiers of a network built with them."""
    rules = layout.rules_for(model)
    arrays = layout.rename(model, arrays)
    for path in expected(model):
        if path.startswith("aux_"):
            try:
                return layout.source_name(path, rules) in arrays
            except KeyError:
                return False
    return False
