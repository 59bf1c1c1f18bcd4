"""Convert the tensors of a file to our names and axes: each of them once, or it is an error.

The functions that prepare this come after it: they remove prefixes that a training loop added to
the names, and find classifiers that were given other names.
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from ..errors import ZooError, unknown
from ..layers import Network
from ..text import plain
from .layouts import LAYOUTS, Layout
from .layouts.base import Rules
from .readers.base import Arrays

# What torch.compile, and PyTorch's sharding and checkpointing, insert anywhere into names.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
COUNTER = "n_averaged"  # how many states torch.optim.swa_utils has averaged
LISTED = 10  # problems of one kind that an error lists, at most


def expected(model: Network) -> dict[str, tuple[int, ...]]:
    """The paths and shapes of all parameters and batch-norm statistics of a network."""
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    leaves = flatten_dict(nnx.to_pure_dict(state), sep=".")
    return {path: leaf.shape for path, leaf in leaves.items()}


def convert(
    model: Network, arrays: Arrays, layout: Layout, *, new_head: bool, aux: bool = True
) -> Arrays:
    """The source's tensors by our paths and in our order of axes, each of them used once.

    Args:
      model: the (abstract) network to fill.
      arrays: the source's tensors by its own names.
      layout: how the source names and orders them.
      new_head: leave the classifiers out, whatever they are called in the source.
      aux: convert the auxiliary classifiers too, instead of leaving them out.

    Raises:
      ZooError: tensors are missing, unexpected or of another shape; all of them are listed.
    """
    rules = layout.rules_for(model)
    named = layout.rename(model, arrays)
    rest = {name for name in named if not re.fullmatch(layout.ignored, name)}
    filled: Arrays = {}
    problems: dict[str, list[str]] = {}
    missing: dict[str, tuple[int, ...]] = {}
    for path, shape in expected(model).items():
        auxiliary = path.startswith("aux_")
        unwanted = (new_head and (auxiliary or path.startswith("classifier."))) or (
            auxiliary and not aux
        )
        try:
            name = layout.source_name(path, rules)
        except KeyError:
            if not unwanted:
                what = f"the source has no name for {path}, {list(shape)}"
                problems.setdefault("nameless", []).append(what)
            continue
        present = name in rest
        rest.discard(name)
        if unwanted:
            continue
        if not present:
            missing[name] = shape
            problems.setdefault("missing", []).append(f"{name}, {list(shape)} for {path}")
            continue
        array = layout.arrange(path, named[name], model)
        if array.shape != shape:
            problems.setdefault("mis-shaped", []).append(
                f"{name}, {list(named[name].shape)}: gives {list(array.shape)} "
                f"where {path} needs {list(shape)}"
            )
        filled[path] = array
    if new_head:
        rest -= _other_heads(model, named, layout, rules)
    if rest:
        near = _nearest(missing, {name: named[name] for name in rest})
        if missing:
            problems["missing"] = [
                line + (f"; nearest: {near[name]}" if name in near else "")
                for name, line in zip(missing, problems["missing"], strict=True)
            ]
        problems["unexpected"] = [f"{name}, {list(named[name].shape)}" for name in sorted(rest)]
    if problems:
        raise ZooError(
            f"weights do not fit {model.spec.name} in layout {layout.name!r}:\n  "
            + "\n  ".join([*_listed(problems), *_advice(model, arrays, layout, filled, problems)])
        )
    return filled


def _listed(problems: dict[str, list[str]]) -> Iterable[str]:
    for kind, lines in problems.items():
        yield from (f"{kind:<11} {plain(line[:300])}" for line in lines[:LISTED])
        if len(lines) > LISTED:
            yield f"... and {len(lines) - LISTED} more {kind}"


def _nearest(missing: dict[str, tuple[int, ...]], rest: Arrays) -> dict[str, str]:
    """For each missing name, the most similar unexpected name with as many elements."""
    nearest: dict[str, str] = {}
    for name in list(missing)[:LISTED]:
        size = math.prod(missing[name])
        alike = [other for other, array in rest.items() if array.size == size]
        if near := difflib.get_close_matches(name, alike[:1000], n=1, cutoff=0.4):
            nearest[name] = near[0]
    return nearest


def _advice(
    model: Network, arrays: Arrays, layout: Layout, filled: Arrays, problems: dict[str, list[str]]
) -> Iterable[str]:
    """A hint, if there is one: what else the file could be, or what it should lack."""
    if problems.keys() == {"unexpected"}:
        yield f"all of {model.spec.name} is there: expected a file without the unexpected ones"
    most = len(expected(model)) / 2
    if len(filled) > most:
        return
    for other in LAYOUTS.values():
        try:
            names = set(_names(model, other))
        except ZooError:  # it has no such network
            continue
        if other is not layout and sum(name in names for name in arrays) > most:
            yield f"the names are those of layout {other.name!r}: expected layout={other.name!r}"
            return
    if not filled:
        yield f"no name fits: expected weights of {model.spec.name}, and their layout"


# --- names ---------------------------------------------------------------------------------------


def _names(model: Network, layout: Layout) -> list[str]:
    """The source's names for the tensors of a network, without those that it has no name for."""
    rules = layout.rules_for(model)
    names = []
    for path in expected(model):
        try:
            names.append(layout.source_name(path, rules))
        except KeyError:
            continue
    return names


def unwrap(model: Network, arrays: Arrays, layout: Layout) -> tuple[Arrays, tuple[str, ...]]:
    """The arrays without the prefixes that training loops add to names, and notes on those.

    `module.` (DataParallel, averaged weights), `_orig_mod.` (torch.compile), `model.` (Lightning),
    `backbone.` or any other beginning that most of the network's names share.

    Args:
      model: the (abstract) network, with a classifier.
      arrays: the source's tensors by its own names.
      layout: how the source names them.

    Raises:
      ZooError: the file holds several such networks, or two tensors get the same name.
    """
    notes = []
    bare = {_without_wrappers(name): array for name, array in arrays.items()}
    if len(bare) < len(arrays):
        raise ZooError(f"weights: names come twice without {' and '.join(WRAPPERS)}")
    if inside := [wrapper for wrapper in WRAPPERS if any(wrapper in name for name in arrays)]:
        notes.append(f"names hold {' and '.join(map(repr, inside))}: left out")
    bare = {
        name: array
        for name, array in bare.items()
        if name.rpartition(layout.join)[2] != COUNTER or array.size != 1
    }
    wanted = set(_names(model, layout))
    counts = Counter(
        prefix
        for name in layout.rename(model, bare)
        for prefix, rest in _splits(name, layout.join)
        if rest in wanted
    )
    whole = sorted(prefix for prefix, count in counts.items() if count > len(wanted) / 2)
    if len(whole) > 1:
        listed = ", ".join(repr(plain(prefix[:80])) for prefix in whole[:LISTED])
        raise ZooError(
            f"weights: the file holds {len(whole)} networks, whose names begin with {listed}: "
            "expected the tensors of one alone"
        )
    if not whole or not whole[0]:
        return bare, tuple(notes)
    (prefix,) = whole
    stripped = {name.removeprefix(prefix): array for name, array in bare.items()}
    if len(stripped) < len(bare):
        twice = next(n for n in bare if not n.startswith(prefix) and prefix + n in bare)
        raise ZooError(f"weights: the file holds {plain(twice)} with and without {prefix!r}")
    beside = sum(not name.startswith(prefix) for name in bare)
    but = f" of all but {beside}" if beside else ""
    return stripped, (*notes, f"names{but} begin with {plain(prefix[:80])!r}: left out")


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _splits(name: str, join: str) -> Iterable[tuple[str, str]]:
    """All ways to part a name: ("", "a.b.c"), ("a.", "b.c"), ("a.b.", "c")."""
    at = 0
    while True:
        yield name[:at], name[at:]
        at = name.find(join, at) + len(join)
        if at < len(join):
            return


# --- channels of the pictures --------------------------------------------------------------------


def channels_in(model: Network, arrays: Arrays, layout: Layout) -> int:
    """The number of channels of the source's pictures, read off its first convolution.

    The model's own number if no convolution shows it: `convert` then reports the error.
    """
    first, channels = f"body.{model.body.order[0]}.", model.spec.in_chans
    rules, named = layout.rules_for(model), layout.rename(model, arrays)
    for path, shape in expected(model).items():
        if path.startswith(first) and len(shape) == 4 and shape[2] == channels:
            try:
                got = layout.arrange(path, named[layout.source_name(path, rules)], model).shape
            except KeyError:
                continue
            if len(got) == 4 and (*got[:2], got[3]) == (*shape[:2], shape[3]):
                return int(got[2])
    return channels


def adapt_channels(model: Network, values: Arrays, channels: int) -> Arrays:
    """Adapt the kernels that read the pictures to the model's number of channels.

    They are summed over R, G and B for one channel, and otherwise repeated and scaled, so that the
    sum over all channels stays the same.

    Args:
      model: the (abstract) network to fill.
      values: by our paths, of the same network for pictures of `channels` channels.
      channels: of the pictures that the values are for.

    Raises:
      ZooError: `values` are not for three channels, or the first layer is not a convolution over
        all channels.
    """
    want = model.spec.in_chans
    if want == channels:
        return values
    if channels != 3:
        raise ZooError(
            f"in_chans: the weights are for {channels} channels, got {want}: expected {channels}, "
            "or weights for 3"
        )
    shapes = expected(model)
    adapted = {path: value for path, value in values.items() if value.shape != shapes[path]}
    for path, kernel in adapted.items():
        if kernel.ndim != 4 or shapes[path] != (*kernel.shape[:2], want, kernel.shape[3]):
            raise ZooError(
                f"in_chans: {model.spec.name} reads each channel by itself ({path}): "
                "expected the 3 of its weights"
            )
        kernel = kernel.astype(np.float32)
        if want == 1:
            adapted[path] = kernel.sum(2, keepdims=True)
        else:
            repeated = np.tile(kernel, (1, 1, -(-want // 3), 1))[:, :, :want]
            adapted[path] = repeated * np.float32(3 / want)
    return values | adapted


# --- classifiers ---------------------------------------------------------------------------------


def classes_in(model: Network, arrays: Arrays, layout: Layout) -> int:
    """How many classes the source's classifier has; 0 if it has none."""
    arrays = layout.rename(model, arrays)
    ours = [path for path in expected(model) if path.startswith("classifier.linear.")]
    leaf = "kernel" if ours == ["classifier.linear.kernel"] else "bias"
    found = arrays.get(layout.source_name(f"classifier.linear.{leaf}", layout.rules_for(model)))
    if found is None:
        return 0
    return found.size // model.head.channels if leaf == "kernel" else found.size


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


def other_heads(model: Network, arrays: Arrays, layout: Layout) -> dict[str, int]:
    """Fully connected layers of the file that may be classifiers but are not those of the layout.

    Args:
      model: the (abstract) network, with a classifier and all its auxiliary ones.
      arrays: the source's tensors by its own names.
      layout: how the source names them.

    Returns:
      By name ("fc.1"), how many outputs each has.
    """
    named = layout.rename(model, arrays)
    rules = layout.rules_for(model)
    _, kernel_leaf, _ = _head_names(layout, rules)
    heads = {}
    for name in _other_heads(model, named, layout, rules):
        module, _, leaf = name.rpartition(layout.join)
        if leaf == kernel_leaf and named[name].ndim >= 2:
            shape = named[name].shape
            heads[module] = shape[0] if layout.join == "." else shape[-1]
    return heads


def take_head(model: Network, arrays: Arrays, layout: Layout, head: str) -> Arrays:
    """The arrays with the layer `head` under the name of the classifier.

    A layer without a bias gets a zero bias. The classifier that was there is left out.

    Raises:
      ZooError: the file has no such layer.
    """
    rules = layout.rules_for(model)
    module, kernel, bias = _head_names(layout, rules)
    if head == module:
        return arrays
    arrays = layout.rename(model, arrays)
    weight = arrays.get(f"{head}{layout.join}{kernel}")
    if weight is None or weight.ndim < 2:
        choices = [*other_heads(model, arrays, layout)]
        own = f"{module}{layout.join}{kernel}" in arrays
        raise unknown("head", head, [*choices, *([module] if own else [])] or ["none: it has none"])
    classes = weight.shape[0] if layout.join == "." else weight.shape[-1]
    offset = arrays.get(f"{head}{layout.join}{bias}", np.zeros(classes, np.float32))
    taken = {name: x for name, x in arrays.items() if not _inside(name, (head, module), layout)}
    left = {f"{module}{layout.join}{leaf}": x for leaf, x in ((kernel, weight), (bias, offset))}
    return taken | left


def _inside(name: str, modules: Sequence[str], layout: Layout) -> bool:
    """Whether a tensor belongs to one of these modules itself, not to a part of it."""
    return name.rpartition(layout.join)[0] in modules


def _head_names(layout: Layout, rules: Rules) -> tuple[str, str, str]:
    """The classifier's name in the source, and those of its kernel and bias in it."""
    kernel = layout.source_name("classifier.linear.kernel", rules)
    bias = layout.source_name("classifier.linear.bias", rules)
    module, _, leaf = kernel.rpartition(layout.join)
    return module, leaf, bias.rpartition(layout.join)[2]


def _other_heads(model: Network, named: Arrays, layout: Layout, rules: Rules) -> set[str]:
    """Names of tensors that belong to a classifier which somebody added to the network.

    Their modules lie within the layout's classifier ("fc.1.weight" where "fc.weight" is expected),
    or beside the network, and hold nothing but matrices and vectors.
    """
    known = set(_names(model, layout))
    module, *_ = _head_names(layout, rules)
    firsts = {name.partition(layout.join)[0] for name in known}
    rest = {n for n in named if n not in known and not re.fullmatch(layout.ignored, n)}
    within = {name for name in rest if name.startswith(module + layout.join)}
    parts: dict[str, set[str]] = {}
    for name in rest - within:
        parts.setdefault(name.partition(layout.join)[0], set()).add(name)
    for first, names in parts.items():
        ranks = [_rank(named[name]) for name in names]
        if first not in firsts and max(ranks) == 2:
            within |= names
    return within


def _rank(array: np.ndarray) -> int:
    """The number of dimensions, not counting those of a 1 x 1 convolution's kernel."""
    if array.ndim == 4 and (array.shape[:2] == (1, 1) or array.shape[2:] == (1, 1)):
        return 2
    return array.ndim
