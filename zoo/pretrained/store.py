"""Load a network with published or own weights, and save one."""

import contextlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from .. import context
from ..context import Spec
from ..errors import ZooError, unknown
from ..folding import fold as folded
from ..folding import partly_folded
from ..init import materialize
from ..layers import LinearAct, Network
from ..preprocess import Preprocess
from ..registry import abstract, find
from . import convert, digest, files
from .catalogue import OWN, Weights, class_names, weights
from .fetch import cached, converted, fetch, write
from .layouts import LAYOUTS, Layout

SWITCHES = ("dtype", "dropout", "drop_path", "remat")  # of a `Spec` that a load may set
_METADATA = "zoo"  # the key of our own description in a safetensors file

Content = tuple[files.Arrays, dict[str, str]]  # of a file: tensors by name, and metadata


def load(
    name: str,
    *,
    file: str | Path | None = None,
    layout: str | None = None,
    num_classes: int | None = None,
    aux: bool | None = None,
    fold: bool = False,
    **switches: Any,
) -> Network:
    """A network with weights, in inference mode, its `preprocess` and `classes` those of the file.

    Published weights are downloaded once, verified, converted, and kept in `ZOO_CACHE` (or
    ~/.cache/zoo). `ZOO_OFFLINE=1` stays with what is there, `ZOO_MIRROR` goes elsewhere for files.

    Args:
      name: published weights, one of `zoo.list_weights()` ("resnet50.a1_in1k"); or a network alone,
        whose default weights are taken; or the path of a file that `zoo.save` wrote.
      file: weights of that network, or those published under that name: `.safetensors`, PyTorch's
        `.pth` and alike, Keras' `.h5`, `.weights.h5` and `.keras`, `.npz`, TensorFlow's `.ckpt`,
        `.caffemodel`.
      layout: how the file names its tensors: one of `zoo.pretrained.layouts.LAYOUTS`. None: "zoo"
        for files that `zoo.save` wrote, "keras" and "caffe" by their suffixes.
      num_classes: None keeps the file's classifier; another number than the file's puts a fresh
        one in its place, all zeros, so that training starts from the features alone (random where
        an activation follows: NiN, SqueezeNet); 0 leaves it out. All else is loaded always.
      aux: with the auxiliary classifiers, which only training uses, where the file has them; None
        does as `zoo.save` found it, and without for published files.
      fold: with `zoo.fold`: for inference, the same outputs in less time.
      switches: `dtype`, `dropout`, `drop_path` and `remat`, as `zoo.create` takes them; what is
        left out, or None, stays as the file or else the network has it.

    Raises:
      ZooError: an unknown name, layout or switch, a file that cannot be had or read, or tensors
        that do not fit, which are all listed.

    >>> model = zoo.load("resnet50.a1_in1k", num_classes=37)             # doctest: +SKIP
    >>> model = zoo.load("resnet50", file="resnet50.pth", layout="torchvision")  # doctest: +SKIP
    >>> model = zoo.load("runs/digits/model.safetensors")                # doctest: +SKIP
    """
    for switch in switches:
        if switch not in SWITCHES:
            raise unknown("switch", switch, SWITCHES)
    if switches.get("dtype") is not None:
        switches["dtype"] = np.dtype(switches["dtype"]).name
    if file is None and is_file(name):
        source, content = name, files.read(name)
    elif file is None or "." in name:
        record = weights(name)
        if layout not in (None, record.layout):
            raise ZooError(f"load: {record.name} has layout {record.layout!r}, got {layout!r}")
        if record.source == "zoo":
            content = files.read(file or OWN / record.file)
        else:
            content = _published(record) if file is None else _converted(record, Path(file))
        source, name, layout, aux = record.name, record.model, "zoo", bool(aux)
    else:
        source, content = f"{file}", files.read(file)
    own = LAYOUTS[_layout_name(source, layout, content[1])]
    if own.name == "zoo":
        verify(source, content)
        spec, preprocess, names = _about(source, content[1])
        if name != source and find(name).name != spec.name:
            raise ZooError(f"load: {source} holds {spec.name}, asked for {find(name).name}")
    else:
        variant = find(name)
        spec, preprocess, names = (
            Spec(variant.name, numerics=own.numerics_for(variant)),
            own.preprocess_for(variant, content[0]),
            (),
        )
    model = _fill(
        spec,
        content[0],
        own,
        source,
        num_classes=num_classes,
        aux=aux,
        **switches,
    )
    model.preprocess = preprocess
    model.classes = names if model.spec.num_classes == len(names) and names else ()
    return folded(model) if fold else model


def is_file(name: str) -> bool:
    """Whether `name` is the path of a file rather than the name of published weights."""
    path = Path(name)
    return len(path.parts) > 1 or path.suffix == ".safetensors" or path.is_file()


def _fill(
    spec: Spec,
    arrays: files.Arrays,
    layout: Layout,
    source: str,
    *,
    num_classes: int | None,
    aux: bool | None = None,
    **switches: Any,
) -> Network:
    """The network of `spec` with these arrays, its classifier kept, fresh or left out."""
    shapes = cache(abstract)  # one network serves all three purposes, mostly
    had = convert.classes_in(shapes(spec), arrays, layout)
    if num_classes is None and not had and layout.name != "zoo":
        raise ZooError(
            f"load: {source} has no classifier: expected num_classes=N for a fresh one, "
            "or 0 for pooled features"
        )
    classes = had if num_classes is None else num_classes
    keep_head = 0 < classes == had
    both = replace(spec, num_classes=had or 1, aux=True)
    has_aux = spec.aux  # our own files say so
    if had and layout.name != "zoo":
        has_aux = convert.auxiliary_in(shapes(both), arrays, layout)
    whole = shapes(replace(both, aux=has_aux))
    values = convert.convert(whole, arrays, layout, new_head=not keep_head)
    aux = has_aux and keep_head and (spec.aux if aux is None else aux)
    if not aux:
        values = {path: value for path, value in values.items() if not path.startswith("aux_")}
    asked = {switch: value for switch, value in switches.items() if value is not None}
    spec = replace(spec, num_classes=classes, aux=aux, **asked)
    model = shapes(spec)
    if not keep_head and type(model.classifier) is LinearAct:  # zeros before a ReLU learn nothing
        fresh = {p: s for p, s in convert.expected(model).items() if p.startswith("classifier.")}
        values |= {path: np.zeros(shape, np.float32) for path, shape in fresh.items()}
    return materialize(model, init=spec.init, seed=0, values=values)


def _published(record: Weights) -> Content:
    """The converted tensors of published weights and our description of them, from the cache."""
    kept = _kept(record)
    if kept.is_file():
        with contextlib.suppress(ZooError):  # damaged: it is made again
            content = files.read(kept)
            verify(f"{kept}", content)
            return content
    content = _converted(record, fetch(record.file, hash=record.hash, desc=record.name))
    with contextlib.suppress(OSError):  # a cache that cannot be written to: it works without
        kept.parent.mkdir(parents=True, exist_ok=True)
        _write(content, kept)
    return content


def _converted(record: Weights, file: Path) -> Content:
    """The same of a file that is the one published as `record`."""
    layout, variant = LAYOUTS[record.layout], find(record.model)
    numerics = (
        getattr(context, record.numerics) if record.numerics else layout.numerics_for(variant)
    )
    spec = Spec(variant.name, num_classes=record.classes, numerics=numerics)
    arrays, _ = files.read(file)
    model = _fill(spec, arrays, layout, record.name, num_classes=record.classes, aux=True)
    model.preprocess = record.preprocess
    model.classes = class_names(record)
    return _pack(model)


def _kept(record: Weights) -> Path:
    """Where the converted tensors of published weights lie, or would."""
    return converted(f"{record.name}-{record.hash.rpartition(':')[2][:8] or record.source}")


def in_cache(record: Weights) -> bool:
    """Whether published weights can be loaded without a download."""
    return record.source == "zoo" or _kept(record).is_file() or cached(record.file) is not None


def _layout_name(file: str, asked: str | None, metadata: dict[str, str]) -> str:
    if asked is not None:
        if asked not in LAYOUTS:
            raise unknown("layout", asked, LAYOUTS)
        return asked
    if _METADATA in metadata:
        return "zoo"
    for suffix, layout in ((".h5", "keras"), (".keras", "keras"), (".caffemodel", "caffe")):
        if file.lower().endswith(suffix):
            return layout
    raise ZooError(
        f"load: {file} does not say its layout: expected layout= one of {', '.join(LAYOUTS)}"
    )


def _about(file: str, metadata: dict[str, str]) -> tuple[Spec, Preprocess, tuple[str, ...]]:
    """Our own description in a file: the spec, the preprocessing, the names of the classes."""
    try:
        about = json.loads(metadata[_METADATA])
        spec, preprocess = Spec.from_dict(about["spec"]), Preprocess.from_dict(about["preprocess"])
        return spec, preprocess, tuple(about["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ZooError(
            f"load: {file} was not written by zoo.save ({error}): expected its layout"
        ) from error


def save(model: Network, path: str | Path) -> None:
    """Write a network as safetensors: every parameter and statistic, and all that rebuilds it.

    The file appears whole or not at all.

    Raises:
      OSError: the folder cannot be written.
      ZooError: a network that `zoo.fold` left norms in, which no spec rebuilds.
    """
    if partly_folded(model):
        raise ZooError(f"save: got a partly folded {model.spec.name}, expected the one before fold")
    _write(_pack(model), Path(path))


def describe(model: Network) -> str:
    """All of a network but its tensors, as JSON."""
    about: dict[str, Any] = {
        "spec": model.spec.to_dict(),
        "preprocess": model.preprocess.to_dict(),
        "classes": list(model.classes),
    }
    return json.dumps(about)


def rebuild(source: str, arrays: files.Arrays, about: str) -> Network:
    """The network that `describe` described, with these arrays by dotted path.

    Raises:
      ZooError: they do not fit together.
    """
    spec, preprocess, names = _about(source, {_METADATA: about})
    model = _fill(spec, arrays, LAYOUTS["zoo"], source, num_classes=None)
    model.preprocess, model.classes = preprocess, names
    return model


def _pack(model: Network) -> Content:
    """The tensors of a network by path, and our description of it."""
    state = nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    arrays = {path: np.asarray(leaf) for path, leaf in flatten_dict(state, sep=".").items()}
    return arrays, {_METADATA: describe(model)}


def _write(content: Content, path: Path) -> None:
    from safetensors.numpy import save as serialize

    arrays, metadata = content
    # save() writes strided arrays wrongly, without a word
    whole = {path: np.ascontiguousarray(array) for path, array in arrays.items()}
    # a single key: safetensors writes several in another order each time
    sealed = {_METADATA: digest.sealed(json.loads(metadata[_METADATA]), whole)}
    write(path, serialize(whole, metadata=sealed))


def verify(source: str, content: Content) -> None:
    """Refuse a file of ours whose values are not those that were saved.

    Raises:
      ZooError: it is damaged.
    """
    digest.check(source, content[1].get(_METADATA, ""), content[0])
