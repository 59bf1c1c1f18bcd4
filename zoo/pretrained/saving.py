"""The files that `zoo.save` writes: tensors by our paths, and what rebuilds the network.

They are safetensors. Their metadata has one entry, a JSON text: the network's `Spec`, its
preprocessing, its classes, the licence and origin of its weights, and a digest of all of it and of
the tensors.
"""

import errno
import json
import os
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from ..context import Spec
from ..errors import ZooError
from ..folding import partly_folded
from ..layers import Network
from ..origin import Origin
from ..paths import write
from ..preprocess import Preprocess
from ..registry import abstract, find
from ..settings import shown
from ..text import reason
from ..wrapped import Wrapped
from . import digest
from .readers import files
from .readers.base import Arrays

METADATA = "zoo"  # the key of our description in the metadata of our files
EXPORTED = "zoo_export"  # the same in files that `zoo.export` wrote by another library's names

Content = tuple[Arrays, dict[str, str]]  # of a file: tensors by name, and metadata


class Description(NamedTuple):
    """What a file says of its network beside the tensors."""

    spec: Spec
    preprocess: Preprocess
    classes: tuple[str, ...]  # names, in the order of the outputs; none where they are unknown
    origin: Origin | None  # the published weights that these are, or started from


# --- writing --------------------------------------------------------------------------------------


def save_file(model: Network, path: Path) -> None:
    """Write a network as one file; see `zoo.save`."""
    if path.suffix != ".safetensors":
        raise ZooError(f"save: got {path.name}, expected a name that ends with .safetensors")
    if not isinstance(model, Wrapped):
        check_built(model, "save")
    write_network(pack(model), path)


def describe(model: Network) -> str:
    """Everything about a network but its tensors, as JSON: spec, preprocessing, classes, origin."""
    about: dict[str, Any] = {
        "spec": model.spec.to_dict(),
        "preprocess": model.preprocess.to_dict(),
        "classes": [str(name) for name in model.classes],
        **({"origin": model.origin.to_dict()} if model.origin else {}),
        **({"module": True} if isinstance(model, Wrapped) else {}),
    }
    return json.dumps(about)


def pack(model: Network) -> Content:
    """The tensors of a network by path, and its description as metadata."""
    of = model.module if isinstance(model, Wrapped) else model
    state = nnx.to_pure_dict(nnx.state(of, nnx.Any(nnx.Param, nnx.BatchStat)))
    arrays = {path: np.asarray(leaf) for path, leaf in flatten_dict(state, sep=".").items()}
    return arrays, {METADATA: describe(model)}


def write_network(content: Content, path: Path) -> None:
    """Write what `pack` gave. The file appears once it was read back and found equal."""
    from safetensors.numpy import save as serialize

    arrays, metadata = content
    # save() writes strided arrays wrongly, without a word
    dense = {path: np.ascontiguousarray(array) for path, array in arrays.items()}
    # a single key: safetensors writes several in another order each time
    sealed = {METADATA: digest.sealed(json.loads(metadata[METADATA]), dense)}
    write_checked(path, serialize(dense, metadata=sealed), dense)


def write_checked(path: Path, data: bytes, arrays: Arrays) -> None:
    """Write a safetensors file, read it back, and give it its name only if it holds these arrays.

    Raises:
      OSError: the folder is not there, cannot be written or is full.
      ZooError: what was read back is not what was written.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    part = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    write(part, data)
    try:
        try:
            with safe_open(part, framework="numpy") as back:
                same = set(back.keys()) == arrays.keys() and all(
                    back.get_tensor(name).tobytes() == array.tobytes()
                    for name, array in arrays.items()
                )
        except SafetensorError:
            same = False
        if not same:
            raise ZooError(f"save: {path} does not read back as it was written: is the disk sound?")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# --- reading back ---------------------------------------------------------------------------------


def verify(source: str, content: Content) -> None:
    """Refuse a file of ours whose tensors or description changed since they were saved.

    Raises:
      ZooError: it is damaged.
    """
    digest.check(source, content[1].get(METADATA, ""), content[0])


def described(source: str, metadata: Mapping[str, str], key: str = METADATA) -> Description:
    """The description in a file's metadata.

    Args:
      source: what errors call the file.
      metadata: of the file, as its reader gave it.
      key: `METADATA`, or `EXPORTED` for a file that `zoo.export` wrote.

    Raises:
      ZooError: the description is missing or damaged, or of a network that is not registered.
    """
    writer = "zoo.export" if key == EXPORTED else "zoo.save"
    try:
        about = json.loads(metadata[key])
        spec, preprocess = Spec.from_dict(about["spec"]), Preprocess.from_dict(about["preprocess"])
        names = about["classes"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes are {shown(names)}, expected a list of names")
        if len(names) not in (0, spec.num_classes):
            raise ValueError(f"{len(names)} names of {spec.num_classes} classes")
        wrapped = about.get("module")
        origin = Origin.from_dict(about["origin"]) if "origin" in about else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"load: {source} was not written by {writer} ({reason(error)}): expected its layout"
        ) from error
    if wrapped:
        raise ZooError(
            f"load: {source} holds {shown(spec.name)}, which is not a network of the zoo: make one "
            "and call zoo.restore(it, file)"
        )
    try:
        find(spec.name)
    except ZooError as error:
        raise ZooError(
            f"load: {source} holds {shown(spec.name)}, which is not known here: expected the "
            f"package that registers it ({reason(error)})"
        ) from error
    return Description(spec, preprocess, tuple(names), origin)


def restore(module: nnx.Module, path: str | Path) -> None:
    """Load the parameters and statistics that a training run saved into a module of your own.

    Args:
      module: of the class that was trained, with the same settings.
      path: the `model.safetensors` of its run.

    Raises:
      ZooError: no such file, a damaged one, or one of other names, shapes or types.

    >>> net = MyNet(rngs=nnx.Rngs(0))                        # doctest: +SKIP
    >>> zoo.restore(net, "runs/mine/model.safetensors")      # doctest: +SKIP
    """
    arrays, metadata = files.read(Path(path))
    verify(str(path), (arrays, metadata))
    state = nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat))
    own = flatten_dict(nnx.to_pure_dict(state), sep=".")
    want = {name: (tuple(x.shape), str(x.dtype)) for name, x in own.items()}
    got = {name: (x.shape, str(x.dtype)) for name, x in arrays.items()}
    for name in sorted(want.keys() | got.keys()):
        if want.get(name) != got.get(name):
            raise ZooError(
                f"restore: {path} does not fit {type(module).__name__}: {name} is "
                f"{_shaped(got.get(name))} in the file, {_shaped(want.get(name))} in the module"
            )
    nnx.replace_by_pure_dict(state, unflatten_dict(dict(arrays), sep="."))
    nnx.update(module, state)


def _shaped(value: tuple[tuple[int, ...], str] | None) -> str:
    return f"{value[1]} {list(value[0])}" if value else "not there"


# --- whether a network can be rebuilt -------------------------------------------------


def check_built(model: Network, verb: str) -> None:
    """Refuse a network that differs from what its `spec` builds.

    Args:
      model: the network.
      verb: what was to be done with it, "save" or "export", for the error.

    Raises:
      ZooError: the first difference.
    """
    name = model.spec.name
    if partly_folded(model):
        raise ZooError(f"{verb}: got a partly folded {name}, expected the one before fold")
    if len(model.classes) not in (0, model.spec.num_classes):
        raise ZooError(
            f"{verb}: got {len(model.classes)} names of classes, expected {model.spec.num_classes}"
        )
    got, want = _structure(model), _built(model.spec)
    for path in sorted(got.keys() | want.keys()):
        if got.get(path) != want.get(path):
            raise ZooError(
                f"{verb}: {name} is not as zoo.create builds it: {path} is "
                f"{_named(got.get(path))}, expected {_named(want.get(path))} "
                "(another classifier is zoo.load(..., num_classes=N))"
            )


def _named(value: Any) -> str:
    return "not there" if value is None else getattr(value, "__qualname__", None) or shown(value)


@cache
def _built(spec: Spec) -> dict[str, Any]:
    return _structure(abstract(spec))


def _structure(model: Network) -> dict[str, Any]:
    """The types and settings of a network's modules, and the shapes and dtypes of its variables.

    Without what training and use may change: modes, random streams, `preprocess` and the like.
    """
    structure: dict[str, Any] = {}
    for path, module in nnx.iter_modules(model):
        at = ".".join(map(str, path))
        structure[at] = type(module)
        for name, value in vars(module).items():
            where = f"{at}.{name}".lstrip(".")
            if isinstance(value, nnx.Param | nnx.BatchStat):
                structure[where] = (type(value), value.shape, value.dtype)
            elif not (isinstance(value, nnx.Variable | nnx.Pytree) or name in _CHANGEABLE):
                structure[where] = value
    return {path: value for path, value in structure.items() if value is not None}


_CHANGEABLE = {
    *("spec", "preprocess", "_classes", "notes", "origin", "deterministic", "use_running_average"),
    *("constant", "axis_name", "axis_index_groups", "rngs", "_pytree__state", "_pytree__nodes"),
}
