"""Load a network with published or own weights, and save one."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from ..context import KERAS, MOST_CHANNELS, MOST_CLASSES, TF, TORCH, Numerics, Spec
from ..errors import ZooError, unknown
from ..folding import fold as folded
from ..folding import partly_folded
from ..init import materialize
from ..layers import LinearAct, Network
from ..paths import write
from ..preprocess import Preprocess
from ..registry import abstract, find
from ..settings import shown, whole
from ..text import reason
from ..variant import Variant
from ..wrapped import Wrapped
from . import convert, digest
from .catalogue import FIRST, OWN, Weights, class_names, list_weights, weights
from .fetch import as_noted, cached, converted, fetch, forget, note
from .layouts import LAYOUTS, Layout, layouts
from .readers import files
from .readers.base import Arrays

SWITCHES = ("dtype", "dropout", "drop_path", "remat")  # of a `Spec` that a load may set
PRESETS = {"TORCH": TORCH, "TF": TF, "KERAS": KERAS}
RESULT = "model.safetensors"  # what a run leaves in its folder
EXPORTED = "zoo_export"  # the key of our description in a file of others' names
_METADATA = "zoo"  # the same in our own

Content = tuple[Arrays, dict[str, str]]  # of a file: tensors by name, and metadata


def load(
    name: str,
    *,
    file: str | Path | None = None,
    layout: str | None = None,
    like: str | None = None,
    numerics: Numerics | str | None = None,
    preprocess: Preprocess | str | None = None,
    head: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    aux: bool | None = None,
    fold: bool = False,
    **switches: Any,
) -> Network:
    """A network with weights, in inference mode, its `preprocess` and `classes` those of the file.

    Published weights are downloaded once, verified, converted, and kept in `ZOO_CACHE` (or
    ~/.cache/zoo). `ZOO_OFFLINE=1` stays with what is there, `ZOO_MIRROR` goes elsewhere for files.
    What was assumed, stripped or left out on the way stands in the model's `notes`.

    Args:
      name: published weights, one of `zoo.list_weights()` ("resnet50.a1_in1k"); or a network alone,
        whose default weights are taken; or the path of a file that `zoo.save` wrote, or of a run's
        folder.
      file: weights of that network, or those published under that name, or fine-tuned from them:
        `.safetensors`, PyTorch's `.pth` and alike, Keras' `.h5`, `.weights.h5` and `.keras`,
        `.npz`, TensorFlow's `.ckpt`, `.caffemodel`. Beginnings that all names share ("module.",
        "model.") are stripped.
      layout: how the file names its tensors: one of `zoo.pretrained.layouts.LAYOUTS`. None: "zoo"
        for files that `zoo.save` wrote, that of the published weights for their names, "keras" and
        "caffe" by their suffixes.
      like: of a `file`: the published weights that it computes like, and was trained like. Names
        and shapes do not show padding and epsilons: where the published weights of a network and
        layout differ in them, this, a full name as `name`, or `numerics` is needed.
      numerics: of a `file`: a `zoo.Numerics`, or "TORCH", "TF" or "KERAS".
      preprocess: in place of the file's: a `zoo.Preprocess`, or published weights that have it.
      head: the layer of the file that is the classifier, where it has another name than in the
        layout ("fc.1").
      num_classes: None keeps the file's classifier, of any size; another number than the file's
        puts a fresh one in its place, all zeros, so that training starts from the features alone
        (random where an activation follows: NiN, SqueezeNet); 0 leaves it out. All else is loaded
        always.
      in_chans: channels of the pictures; None keeps the file's. For another number than the 3 of
        the file the first convolution is converted as timm does: for 1 its kernel is summed over
        R, G and B, for n it is repeated to n channels and scaled by 3 / n.
      aux: with the auxiliary classifiers, which only training uses, where the file has them; None
        does as `zoo.save` found it, and without for published files.
      fold: with `zoo.fold`: for inference, the same outputs in less time.
      switches: `dtype`, `dropout`, `drop_path` and `remat`, as `zoo.create` takes them; what is
        left out, or None, stays as the file or else the network has it.

    Raises:
      ZooError: an unknown name, layout or switch, a file that cannot be had or read, tensors that
        do not fit, which are listed, or numerics that nothing tells.

    >>> model = zoo.load("resnet50.a1_in1k", num_classes=37)             # doctest: +SKIP
    >>> model = zoo.load("resnet50", file="resnet50.pth", layout="torchvision")  # doctest: +SKIP
    >>> model = zoo.load("efficientnet_b0.in1k", file="tf_efficientnet_b0.pth")  # doctest: +SKIP
    >>> model = zoo.load("runs/digits")                                  # doctest: +SKIP
    """
    for switch in switches:
        if switch not in SWITCHES:
            raise unknown("switch", switch, SWITCHES)
    if num_classes is not None:
        num_classes = whole("num_classes", num_classes, high=MOST_CLASSES)
    if in_chans is not None:
        in_chans = whole("in_chans", in_chans, 1, MOST_CHANNELS)
    if file is None and (like, numerics, head) != (None, None, None):
        raise ZooError("load: like=, numerics= and head= are for a file=, got none")
    record = None  # the published weights that all else is known from
    if file is None and is_file(name):
        file = run_file(name)
        source, name, content = f"{file}", "", files.read(file)
    elif file is None:
        record = weights(name)
        if layout not in (None, record.layout):
            raise ZooError(f"load: {record.name} has layout {record.layout!r}, got {layout!r}")
        source, name, layout, aux = record.name, record.model, "zoo", bool(aux)
        content = files.read(OWN / record.file) if record.source == "zoo" else _published(record)
    else:
        source, content = f"{file}", files.read(run_file(file))
        if "." in name:
            record = weights(name)
            if layout not in (None, record.layout) and _METADATA not in content[1]:
                raise ZooError(f"load: {record.name} has layout {record.layout!r}, got {layout!r}")
        if like is not None:
            record = weights(like)
        name = name.partition(".")[0]
        if record and record.model != find(name).name:
            raise ZooError(f"load: got {record.name} for {find(name).name}, expected its own")
        if layout is None and record and _METADATA not in content[1]:
            layout = record.layout
    own = LAYOUTS[_layout_name(source, layout, content[1])]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    if own.name == "zoo":
        verify(source, content)
        if (like, numerics, head) != (None, None, None):
            raise ZooError(
                f"load: {source} says itself how it computes: expected no like=, numerics= or head="
            )
        spec, found, names = _about(source, content[1])
        if name and find(name).name != spec.name:
            raise ZooError(f"load: {source} holds {spec.name}, asked for {find(name).name}")
    else:
        variant = find(name)
        computed, note = _numerics(source, variant, own, content[1], record, numerics)
        notes += note
        spec = Spec(variant.name, numerics=computed)
        found, names = _looks(source, variant, own, content, record)
    model, more = _fill(
        spec,
        content[0],
        own,
        source,
        num_classes=num_classes,
        in_chans=in_chans,
        aux=aux,
        head=head,
        bare=record is not None and not record.classes,
        **switches,
    )
    found = _preprocess(preprocess) or found
    model.preprocess = found.of_channels(model.spec.in_chans)
    model.classes = names if model.spec.num_classes == len(names) else ()
    about_pictures = (model.preprocess.note,) if model.preprocess.note else ()
    model.notes = (*more, *notes, *about_pictures)
    return folded(model) if fold else model


def is_file(name: str) -> bool:
    """Whether `name` is the path of a file or a run, rather than the name of published weights."""
    path = Path(name)
    return (
        len(path.parts) > 1
        or path.suffix == ".safetensors"
        or path.is_file()
        or (path / RESULT).is_file()
    )


def run_file(path: str | Path) -> Path:
    """The file of a network: the path itself, or what a finished run left in that folder."""
    path = Path(path)
    return path / RESULT if (path / RESULT).is_file() else path


def _numerics(
    source: str,
    variant: Variant,
    layout: Layout,
    metadata: Mapping[str, str],
    record: Weights | None,
    asked: Numerics | str | None,
) -> tuple[Numerics, tuple[str, ...]]:
    """How the weights of a file compute, and a note where that is the catalogue's word alone."""
    if asked is not None:
        if isinstance(asked, Numerics):
            return asked, ()
        preset = f"{asked}".upper()
        if preset not in PRESETS:
            raise unknown("numerics", preset, PRESETS)
        return PRESETS[preset], ()
    if record:
        return _published_numerics(record), ()
    if EXPORTED in metadata:
        return _exported(source, variant, metadata)[0].numerics, ()
    usual = layout.numerics_for(variant)
    ways: dict[Numerics, list[str]] = {}
    for row in _rows(variant, layout):
        ways.setdefault(_published_numerics(row), []).append(row.name)
    if len(ways) > 1:
        listed = " or ".join(
            f"like={' or '.join(map(repr, names[:3]))} ({_shown(way)})"
            for way, names in ways.items()
        )
        raise ZooError(
            f"load: {source} may compute in {len(ways)} ways, as the published weights of "
            f"{variant.name} in layout {layout.name!r} do: expected {listed}; or numerics="
        )
    (way,) = ways or (usual,)
    if way == usual:
        return way, ()
    return way, (
        f"computed like {ways[way][0]} ({_shown(way)}), as are all published weights of "
        f"{variant.name} in layout {layout.name!r}: otherwise numerics=",
    )


def _shown(numerics: Numerics) -> str:
    """What a preset is called, or else what decides most."""
    names = [name for name, preset in PRESETS.items() if preset == numerics]
    return names[0] if names else f"padding {numerics.padding}, epsilon {numerics.bn_epsilon:g}"


def _published_numerics(record: Weights) -> Numerics:
    if record.numerics:
        return PRESETS[record.numerics]
    return LAYOUTS[record.layout].numerics_for(find(record.model))


def _rows(variant: Variant, layout: Layout) -> list[Weights]:
    """All published weights of a network that name their tensors so."""
    found = (weights(name) for name in list_weights(f"{variant.name}.*"))
    return [record for record in found if record.layout == layout.name]


def _looks(
    source: str, variant: Variant, layout: Layout, content: Content, record: Weights | None
) -> tuple[Preprocess, tuple[str, ...]]:
    """What pictures a file's weights expect, as far as anything tells, and names of its classes."""
    arrays, metadata = content
    if record:
        return record.preprocess, class_names(record)
    if EXPORTED in metadata:
        return _exported(source, variant, metadata)[1:]
    usual, own = layout.preprocess_for(variant), layout.preprocess_for(variant, arrays)
    rows = [row.preprocess for row in _rows(variant, layout)]
    agreed: dict[str, Any] = {}
    open_: list[str] = []  # what the rows differ in
    parts = (
        ("size", "resize", "squash", "central"),
        ("interpolation",),
        ("mean", "std", "channels"),
    )
    for part in parts:
        values = {tuple(getattr(row, field) for field in part) for row in rows}
        if len(values) == 1:
            agreed |= zip(part, *values, strict=True)
        else:
            open_ += [f for f in part if len({getattr(row, f) for row in rows}) > 1]
    found = replace(usual, **agreed)
    if own != usual:  # the file says it: EfficientNet's normalization in Keras
        found = replace(found, mean=own.mean, std=own.std)
    if rows and not open_:
        return found, ()
    of = f"published weights of {variant.name} in layout {layout.name!r}"
    differ = f"{of} differ in {' and '.join(open_)}: otherwise like= some of them, or preprocess="
    none = f"there are no {of}: otherwise preprocess="
    note = f"preprocessing is assumed, {differ if rows else none}"
    return replace(found, note=note), ()


def _preprocess(asked: Preprocess | str | None) -> Preprocess | None:
    if asked is None or isinstance(asked, Preprocess):
        return asked
    if not isinstance(asked, str):
        raise ZooError(f"preprocess: got {shown(asked)}, expected a zoo.Preprocess or a name")
    return weights(asked).preprocess


def _fill(
    spec: Spec,
    arrays: Arrays,
    layout: Layout,
    source: str,
    *,
    num_classes: int | None,
    in_chans: int | None = None,
    aux: bool | None = None,
    head: str | None = None,
    bare: bool = False,
    **switches: Any,
) -> tuple[Network, tuple[str, ...]]:
    """The network of `spec` with these arrays, its classifier kept, fresh or left out; notes.

    `bare` is whether a file without a classifier gives a network without one, rather than an error.
    """
    shapes = cache(abstract)  # one network serves all three purposes, mostly
    notes: tuple[str, ...] = ()
    ours = layout.name == "zoo"
    if not ours:
        arrays, notes = convert.unwrap(shapes(spec), arrays, layout)
        if head is not None:
            arrays = convert.take_head(shapes(spec), arrays, layout, head)
        spec = replace(spec, in_chans=convert.channels_in(shapes(spec), arrays, layout))
    had = convert.classes_in(shapes(spec), arrays, layout)
    if ours and had != spec.num_classes:
        raise ZooError(
            f"load: {source} has a classifier of {had} classes, and says {spec.num_classes}"
        )
    classes = num_classes if num_classes is not None else had
    keep_head = 0 < classes == had
    both = replace(spec, num_classes=had or 1, aux=True)
    has_aux = spec.aux if ours else convert.auxiliary_in(shapes(both), arrays, layout)
    full = shapes(replace(both, aux=has_aux))
    aux = has_aux and keep_head and (spec.aux if aux is None else aux)
    values = convert.convert(full, arrays, layout, new_head=not keep_head, aux=aux)
    others = {} if ours else convert.other_heads(shapes(both), arrays, layout)
    listed = ", ".join(f"{name!r} of {n} classes" for name, n in others.items())
    if num_classes is None and not had and not ours and not bare:
        take = f", or head= one of {listed}" if others else ""
        raise ZooError(
            f"load: {source} has no classifier where layout {layout.name!r} has it: "
            f"expected num_classes=N for a fresh one, or 0 for pooled features{take}"
        )
    if others:
        notes += (f"left out: {listed}; head= takes one",)
    asked = {switch: value for switch, value in switches.items() if value is not None}
    channels = spec.in_chans if in_chans is None else in_chans
    if channels != spec.in_chans:
        notes += (f"the first convolution is made of that for {spec.in_chans} channels",)
    spec = replace(spec, num_classes=classes, in_chans=channels, aux=aux, **asked)
    model = shapes(spec)
    values = convert.adapt_channels(model, values, full.spec.in_chans)
    if not keep_head and type(model.classifier) is LinearAct:  # zeros before a ReLU learn nothing
        fresh = {p: s for p, s in convert.expected(model).items() if p.startswith("classifier.")}
        values |= {path: np.zeros(shape, np.float32) for path, shape in fresh.items()}
    return materialize(model, init=spec.init, seed=0, values=values), notes


def _published(record: Weights) -> Content:
    """The converted tensors of published weights and our description of them, from the cache."""
    kept = _kept(record)
    if as_noted(kept):  # else it was changed, or damaged: it is made again
        with contextlib.suppress(ZooError):
            return files.read(kept)
    size = None if record.size_mb is None else record.size_mb * 1e6
    file = fetch(record.file, hash=record.hash, size=size, desc=record.name)
    try:
        content = _converted(record, file)
    except ZooError:
        if record.check == FIRST:  # the next try is to ask for another
            forget(record.file)
        raise
    with contextlib.suppress(OSError):  # a cache that cannot be written to: it works without
        kept.parent.mkdir(parents=True, exist_ok=True)
        _write(content, kept)
        note(kept)
    return content


def _converted(record: Weights, file: Path) -> Content:
    """The same of a file that is the one published as `record`."""
    content = files.read(file)
    if record.layout == "zoo":  # it says itself what it is
        verify(record.name, content)
        return _pack(rebuild(record.name, content[0], content[1].get(_METADATA, "")))
    spec = Spec(find(record.model).name, numerics=_published_numerics(record))
    model, _ = _fill(
        spec,
        content[0],
        LAYOUTS[record.layout],
        record.name,
        num_classes=None,
        aux=True,
        bare=not record.classes,
    )
    if model.spec.num_classes != record.classes:
        raise ZooError(
            f"load: {record.file} has {model.spec.num_classes} classes, expected {record.classes}"
        )
    model.preprocess = record.preprocess.of_channels(model.spec.in_chans)
    model.classes = class_names(record)
    return _pack(model)


def _kept(record: Weights) -> Path:
    """Where the converted tensors of published weights lie, or would.

    The name holds a digest of the record: where the catalogue changes, they are converted again.
    """
    return converted(f"{record.name}-{hashlib.sha256(repr(record).encode()).hexdigest()[:8]}")


def in_cache(record: Weights) -> bool:
    """Whether published weights can be loaded without a download."""
    return record.source == "zoo" or _kept(record).is_file() or cached(record.file) is not None


def _layout_name(file: str, asked: str | None, metadata: dict[str, str]) -> str:
    if asked is not None:
        if asked not in layouts():
            raise unknown("layout", asked, LAYOUTS)
        return asked
    if _METADATA in metadata:
        return "zoo"
    for suffix, layout in ((".h5", "keras"), (".keras", "keras"), (".caffemodel", "caffe")):
        if file.lower().endswith(suffix):
            return layout
    raise ZooError(
        f"load: {file} does not say its layout: expected layout= one of {', '.join(layouts())}"
    )


def _about(file: str, metadata: dict[str, str]) -> tuple[Spec, Preprocess, tuple[str, ...]]:
    """Our own description in a file: the spec, the preprocessing, the names of the classes."""
    return _described(file, metadata, _METADATA, "written by zoo.save")


def _exported(
    file: str, variant: Variant, metadata: Mapping[str, str]
) -> tuple[Spec, Preprocess, tuple[str, ...]]:
    """The same of a file that `zoo.export` wrote by others' names, which do not tell it."""
    found = _described(file, metadata, EXPORTED, "written by zoo.export")
    if found[0].name != variant.name:
        raise ZooError(f"load: {file} holds {found[0].name}, asked for {variant.name}")
    return found


def _described(
    file: str, metadata: Mapping[str, str], key: str, what: str
) -> tuple[Spec, Preprocess, tuple[str, ...]]:
    try:
        about = json.loads(metadata[key])
        spec, preprocess = Spec.from_dict(about["spec"]), Preprocess.from_dict(about["preprocess"])
        names = about["classes"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes are {shown(names)}, expected a list of names")
        if len(names) not in (0, spec.num_classes):
            raise ValueError(f"{len(names)} names of {spec.num_classes} classes")
        wrapped = about.get("module")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"load: {file} was not {what} ({reason(error)}): expected its layout"
        ) from error
    if wrapped:
        raise ZooError(
            f"load: {file} holds {shown(spec.name)}, which is not a network of the zoo: make one "
            "and call zoo.restore(it, file)"
        )
    try:
        find(spec.name)
    except ZooError as error:
        raise ZooError(
            f"load: {file} holds {shown(spec.name)}, which is not known here: expected the package "
            f"that registers it ({reason(error)})"
        ) from error
    return spec, preprocess, tuple(names)


def save(model: Network, path: str | Path) -> None:
    """Write a network as safetensors: every parameter and statistic, and all that rebuilds it.

    The file appears whole or not at all, and is read back before it does.

    Raises:
      OSError: the folder cannot be written.
      ZooError: a suffix other than `.safetensors`, or a network that `zoo.load` would not rebuild:
        layers replaced or added, or norms that `zoo.fold` left in.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ZooError(f"save: got {path.name}, expected a name that ends with .safetensors")
    if not isinstance(model, Wrapped):
        check_built(model, "save")
    _write(_pack(model), path)


def restore(module: nnx.Module, path: str | Path) -> None:
    """Give a module of your own the parameters and statistics that training saved of it.

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


def check_built(model: Network, verb: str) -> None:
    """Refuse a network that is not what its `spec` builds.

    Raises:
      ZooError: what differs first.
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
    """The kinds and settings of a network's modules, and the shapes and dtypes of its variables.

    Not what training and use may change: modes, random streams, what the network is for.
    """
    found: dict[str, Any] = {}
    for path, module in nnx.iter_modules(model):
        at = ".".join(map(str, path))
        found[at] = type(module)
        for name, value in vars(module).items():
            where = f"{at}.{name}".lstrip(".")
            if isinstance(value, nnx.Param | nnx.BatchStat):
                found[where] = (type(value), value.shape, value.dtype)
            elif not (isinstance(value, nnx.Variable | nnx.Pytree) or name in _OF_USE):
                found[where] = value
    return {path: value for path, value in found.items() if value is not None}


_OF_USE = {
    *("spec", "preprocess", "_classes", "notes", "deterministic", "use_running_average"),
    *("axis_name", "axis_index_groups", "rngs", "_pytree__state", "_pytree__nodes"),
}


def describe(model: Network) -> str:
    """All of a network but its tensors, as JSON."""
    about: dict[str, Any] = {
        "spec": model.spec.to_dict(),
        "preprocess": model.preprocess.to_dict(),
        "classes": [str(name) for name in model.classes],
        **({"module": True} if isinstance(model, Wrapped) else {}),
    }
    return json.dumps(about)


def rebuild(source: str, arrays: Arrays, about: str) -> Network:
    """The network that `describe` described, with these arrays by dotted path.

    Raises:
      ZooError: they do not fit together.
    """
    spec, preprocess, names = _about(source, {_METADATA: about})
    model, _ = _fill(spec, arrays, LAYOUTS["zoo"], source, num_classes=None)
    model.preprocess, model.classes = preprocess, names
    return model


def _pack(model: Network) -> Content:
    """The tensors of a network by path, and our description of it."""
    of = model.module if isinstance(model, Wrapped) else model
    state = nnx.to_pure_dict(nnx.state(of, nnx.Any(nnx.Param, nnx.BatchStat)))
    arrays = {path: np.asarray(leaf) for path, leaf in flatten_dict(state, sep=".").items()}
    return arrays, {_METADATA: describe(model)}


def _write(content: Content, path: Path) -> None:
    """The file appears once what was written is read back alike."""
    from safetensors.numpy import save as serialize

    arrays, metadata = content
    # save() writes strided arrays wrongly, without a word
    dense = {path: np.ascontiguousarray(array) for path, array in arrays.items()}
    # a single key: safetensors writes several in another order each time
    sealed = {_METADATA: digest.sealed(json.loads(metadata[_METADATA]), dense)}
    write_checked(path, serialize(dense, metadata=sealed), dense)


def write_checked(path: Path, data: bytes, arrays: Arrays) -> None:
    """Write a safetensors file of these arrays, read it back, and only then give it its name.

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


def verify(source: str, content: Content) -> None:
    """Refuse a file of ours whose values are not those that were saved.

    Raises:
      ZooError: it is damaged.
    """
    digest.check(source, content[1].get(_METADATA, ""), content[0])
