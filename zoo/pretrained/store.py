"""Load a network with published weights, or with those of a file.

`load` is three steps with a record between them: `_find` reads a file and learns how to understand
it, a `Source`; `_convert` checks every tensor of it and gives it our name and order of axes, the
`Tensors`; `_fill` puts them into the abstract network.
"""

import contextlib
import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..context import MOST_CHANNELS, MOST_CLASSES, Numerics, Spec
from ..errors import ZooError, unknown
from ..folding import fold as folded
from ..init import materialize
from ..layers import LinearAct, Network
from ..preprocess import Preprocess
from ..registry import abstract, find
from ..settings import shown, whole
from . import convert, infer
from .catalogue import FIRST, Weights, bundled, class_names, weights
from .fetch import as_noted, cached, converted, fetch, forget, note
from .layouts import LAYOUTS
from .readers import files
from .readers.base import Arrays
from .saving import METADATA, Content, pack, verify, write_network
from .source import Source, in_folder, inferred, is_folder, saved

SWITCHES = ("dtype", "dropout", "drop_path", "remat")  # fields of a `Spec` that `load` can set
RESULT = "model.safetensors"  # what a run leaves in its folder


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
    """Load a network with weights, in inference mode, with their `preprocess` and `classes`.

    Published weights are downloaded once, verified, converted, and kept in `ZOO_CACHE` (or
    ~/.cache/zoo). With `ZOO_OFFLINE=1` nothing is downloaded; `ZOO_MIRROR` names another host. The
    model's `notes` say what was assumed, stripped or left out; its `origin` where its weights come
    from, and their licence.

    Args:
      name: published weights, one of `zoo.list_weights()` ("resnet50.a1_in1k"); a network alone,
        for its default weights; the path of a file that `zoo.save` wrote, or of a run's folder; or
        what timm or `zoo.push_to_hub` wrote: "hf-hub:USER/REPO" on the Hugging Face Hub, with
        "@REVISION" for a branch, a tag or a commit, or a folder.
      file: weights of the network `name`, or those published as `name`, or fine-tuned from them:
        `.safetensors`, PyTorch's `.pth` and the like, Keras' `.h5`, `.weights.h5` and `.keras`,
        `.npz`, TensorFlow's `.ckpt`, `.caffemodel`. A prefix that all names share ("module.",
        "model.") is stripped.
      layout: how the file names its tensors, one of `zoo.pretrained.layouts.LAYOUTS`. None: "zoo"
        for a file that `zoo.save` wrote; the layout of the published weights that `name` or `like`
        gives; "keras" or "caffe" by the suffix.
      like: for a `file`: the published weights whose numerics and preprocessing it shares. Names
        and shapes of tensors show neither padding nor epsilons, so where the published weights of
        a network in that layout differ in them, this, a full `name` or `numerics` is needed.
      numerics: for a `file`: a `zoo.Numerics`, or "TORCH", "TF" or "KERAS".
      preprocess: instead of the file's: a `zoo.Preprocess`, or the name of published weights.
      head: the layer of the file that is the classifier ("fc.1"), if it is not the layout's.
      num_classes: None keeps the file's classifier, whatever its size. Another number than the
        file's puts a fresh one in its place, all zeros, so that training starts from the features
        alone (random where an activation follows: NiN, SqueezeNet). 0 leaves it out. Everything
        else is always loaded.
      in_chans: channels of the pictures; None keeps the file's. If it is not the 3 of the file, the
        first convolution is converted: for 1, its kernel is summed over R, G and B; for n, it is
        repeated to n channels and scaled by 3 / n.
      aux: whether to keep the auxiliary classifiers, which only training uses, if the file has
        them. None keeps them if `zoo.save` did, and leaves them out of others' files.
      fold: whether to apply `zoo.fold`: for inference, the same outputs in less time.
      switches: `dtype`, `dropout`, `drop_path` and `remat`, as for `zoo.create`. What is left out,
        or None, is as in the file or else in the network.

    Raises:
      ZooError: an unknown name, layout or switch; a file that cannot be had or read; tensors that
        do not fit, all of them listed; or numerics that nothing tells.

    >>> model = zoo.load("resnet50.a1_in1k", num_classes=37)             # doctest: +SKIP
    >>> model = zoo.load("resnet50", file="resnet50.pth", layout="torchvision")  # doctest: +SKIP
    >>> model = zoo.load("efficientnet_b0.in1k", file="tf_efficientnet_b0.pth")  # doctest: +SKIP
    >>> model = zoo.load("runs/digits")                                  # doctest: +SKIP
    >>> model = zoo.load("hf-hub:me/pets")                               # doctest: +SKIP
    """
    if not isinstance(name, str | Path):
        raise ZooError(f"load: got {shown(name)}, expected a name or a path")
    for switch in switches:
        if switch in ("pretrained", "weights"):
            raise ZooError(f"load: there is no {switch}: it always loads weights, those of `name`")
        if switch not in SWITCHES:
            raise unknown("switch", switch, (*SWITCHES, *(load.__kwdefaults__ or ())))
    if num_classes is not None:
        num_classes = whole("num_classes", num_classes, high=MOST_CLASSES)
    if in_chans is not None:
        in_chans = whole("in_chans", in_chans, 1, MOST_CHANNELS)
    source = _find(name, file=file, layout=layout, like=like, numerics=numerics, head=head)
    tensors = _convert(
        source, num_classes=num_classes, in_chans=in_chans, aux=aux, head=head, **switches
    )
    if preprocess is not None:
        source = replace(source, preprocess=_named_preprocess(preprocess))
    model = _fill(source, tensors)
    return folded(model) if fold else model


def is_file(name: str) -> bool:
    """Whether `name` is a file, a folder or a repository, not the name of published weights."""
    path = Path(name)
    return (
        is_folder(name)
        or len(path.parts) > 1
        or path.suffix == ".safetensors"
        or path.is_file()
        or (path / RESULT).is_file()
    )


def run_file(path: str | Path) -> Path:
    """The path itself, or the network that a finished run left in that folder."""
    path = Path(path)
    return path / RESULT if (path / RESULT).is_file() else path


def _named_preprocess(asked: Preprocess | str) -> Preprocess:
    """The preprocessing that was asked for, perhaps by the name of published weights."""
    if isinstance(asked, Preprocess):
        return asked
    if not isinstance(asked, str):
        raise ZooError(f"preprocess: got {shown(asked)}, expected a zoo.Preprocess or a name")
    return weights(asked).preprocess


# --- the first step: a file, and how to understand it ---------------------------------------------


def _find(
    name: str,
    *,
    file: str | Path | None,
    layout: str | None,
    like: str | None,
    numerics: Numerics | str | None,
    head: str | None,
) -> Source:
    """Read the weights that the arguments of `load` ask for, and find out what they mean."""
    explained = (like, numerics, head) != (None, None, None)  # what only others' files need
    if file is None and explained:
        raise ZooError("load: like=, numerics= and head= are for a file=, got none")
    if file is None and not is_file(name):
        return _find_published(weights(name), layout)
    given, network = (f"{name}", "") if file is None else (f"{file}", name.partition(".")[0])
    if is_folder(given):
        if explained or layout not in (None, "timm"):
            raise ZooError(
                f"load: {given} says itself how it computes: expected no layout=, like=, numerics= "
                "or head="
            )
        return in_folder(given, network)
    if file is None:
        label, row = f"{run_file(name)}", None  # the file says which network it is
        arrays, metadata = files.read(run_file(name))
    else:
        label = f"{file}"
        arrays, metadata = files.read(run_file(file))
        row = _row_alike(name, like, None if METADATA in metadata else layout)
        if layout is None and row and METADATA not in metadata:
            layout = row.layout
    its_layout = infer.layout_of(label, layout, metadata)
    if its_layout.name != "zoo":
        source = inferred(label, network, its_layout, (arrays, metadata), row, numerics)
        if source.origin is None and "." in name and like is None:
            source = replace(source, origin=weights(name).origin)
        return source
    verify(label, (arrays, metadata))
    if explained:
        raise ZooError(
            f"load: {label} says itself how it computes: expected no like=, numerics= or head="
        )
    source = saved(label, (arrays, metadata))
    if network and find(network).name != source.spec.name:
        raise ZooError(f"load: {label} holds {source.spec.name}, asked for {find(network).name}")
    return source


def _row_alike(name: str, like: str | None, layout: str | None) -> Weights | None:
    """The published weights that tell what a file does not: `like`, or those of a full `name`."""
    row = weights(name) if "." in name else None
    if row:
        _check_layout(row, layout)
    if like is not None:
        row = weights(like)
    if row and row.model != (network := find(name.partition(".")[0]).name):
        raise ZooError(f"load: got {row.name} for {network}, expected its own")
    return row


def _find_published(row: Weights, layout: str | None) -> Source:
    """Published weights: those that come with the package, from the cache or from their host."""
    _check_layout(row, layout)
    content = files.read(file) if (file := bundled(row)) else _published(row)
    verify(row.name, content)
    source = saved(row.name, content)
    if source.spec.name != row.model:
        raise ZooError(f"load: {row.name} holds {source.spec.name}, asked for {row.model}")
    return replace(source, keep_aux=False, origin=row.origin)


def _check_layout(row: Weights, layout: str | None) -> None:
    if layout not in (None, row.layout):
        raise ZooError(f"load: {row.name} has layout {row.layout!r}, got {layout!r}")


# --- the second step: every tensor checked, named and ordered as ours -----------------------------


@dataclass(frozen=True)
class Tensors:
    """Tensors by our paths, and the network that they fit.

    Args:
      network: abstract: shapes without values.
      values: the tensors by our paths, in our order of axes. Only a classifier may be missing:
        `_fill` makes a fresh one.
      notes: what was stripped, left out or converted.
    """

    network: Network
    values: Arrays
    notes: tuple[str, ...]


def _convert(
    source: Source,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    aux: bool | None = None,
    head: str | None = None,
    **switches: Any,
) -> Tensors:
    """Convert all tensors of a source for a network with the given changes; see `load`.

    Raises:
      ZooError: tensors that do not fit, all of them listed; a classifier that is missing, or other
        channels of the pictures than the first layer can be converted to.
    """
    shapes = cache(abstract)  # one abstract network serves all of these purposes, mostly
    spec, arrays, layout = source.spec, source.arrays, source.layout
    ours = layout.name == "zoo"
    notes: tuple[str, ...] = ()
    if not ours:
        arrays, notes = convert.unwrap(shapes(spec), arrays, layout)
        if head is not None:
            arrays = convert.take_head(shapes(spec), arrays, layout, head)
        spec = replace(spec, in_chans=convert.channels_in(shapes(spec), arrays, layout))
    its_classes = convert.classes_in(shapes(spec), arrays, layout)
    if ours and its_classes != spec.num_classes:
        raise ZooError(
            f"load: {source.label} has a classifier of {its_classes} classes, "
            f"and says {spec.num_classes}"
        )
    classes = its_classes if num_classes is None else num_classes
    keep_head = 0 < classes == its_classes
    with_all = replace(spec, num_classes=its_classes or 1, aux=True)
    its_aux = spec.aux if ours else convert.auxiliary_in(shapes(with_all), arrays, layout)
    aux = its_aux and keep_head and (source.keep_aux if aux is None else aux)
    whole_file = shapes(replace(with_all, aux=its_aux))
    values = convert.convert(whole_file, arrays, layout, new_head=not keep_head, aux=aux)
    others = {} if ours else convert.other_heads(shapes(with_all), arrays, layout)
    listed = ", ".join(f"{name!r} of {n} classes" for name, n in others.items())
    if num_classes is None and not its_classes and not ours and not source.headless:
        take = f", or head= one of {listed}" if others else ""
        raise ZooError(
            f"load: {source.label} has no classifier where layout {layout.name!r} has it: "
            f"expected num_classes=N for a fresh one, or 0 for pooled features{take}"
        )
    if others:
        notes += (f"left out: {listed}; head= takes one",)
    channels = spec.in_chans if in_chans is None else in_chans
    if channels != spec.in_chans:
        notes += (f"the first convolution is made of that for {spec.in_chans} channels",)
    asked = {switch: value for switch, value in switches.items() if value is not None}
    network = shapes(replace(spec, num_classes=classes, in_chans=channels, aux=aux, **asked))
    return Tensors(network, convert.adapt_channels(network, values, spec.in_chans), notes)


# --- the third step: the network ------------------------------------------------------------------


def _fill(source: Source, tensors: Tensors) -> Network:
    """The network with these tensors, and with a fresh classifier where they have none."""
    network, spec = tensors.network, tensors.network.spec
    fresh: Arrays = {}
    if type(network.classifier) is LinearAct:  # zeros before a ReLU would learn nothing
        fresh = {
            path: np.zeros(shape, np.float32)
            for path, shape in convert.expected(network).items()
            if path.startswith("classifier.")
        }
    model = materialize(network, init=spec.init, seed=0, values=fresh | tensors.values)
    model.preprocess = source.preprocess.of_channels(spec.in_chans)
    model.classes = source.classes if len(source.classes) == spec.num_classes else ()
    assumed = (model.preprocess.note,) if model.preprocess.note else ()
    model.notes = (*tensors.notes, *source.notes, *assumed)
    model.origin = source.origin
    return model


def rebuild(label: str, arrays: Arrays, about: str) -> Network:
    """The network that `saving.describe` described, with these arrays by dotted path.

    Args:
      label: what errors call the place that the arrays come from.
      arrays: every parameter and statistic.
      about: the description, a JSON text.

    Raises:
      ZooError: they do not fit together.
    """
    source = saved(label, (arrays, {METADATA: about}))
    return _fill(source, _convert(source))


# --- the cache of converted weights ---------------------------------------------------------------


def _published(row: Weights) -> Content:
    """The converted tensors of published weights and our description of them, from the cache."""
    kept = _kept(row)
    if as_noted(kept):  # otherwise it was changed, or damaged: it is made again
        with contextlib.suppress(ZooError):
            return files.read(kept)
    if row.check == "by hand":
        where = f" ({row.notes})" if row.notes else ""
        raise ZooError(
            f"{row.name}: no download is known of {row.file}{where}: expected file=, or --file; "
            f"`zoo convert {row.file} mine.safetensors --model {row.name}` makes it one of ours"
        )
    size = None if row.size_mb is None else row.size_mb * 1e6
    file = fetch(row.file, hash=row.hash, size=size, desc=row.name)
    try:
        content = _converted(row, file)
    except ZooError:
        if row.check == FIRST:  # the next try is to ask for another
            forget(row.file)
        raise
    with contextlib.suppress(OSError):  # a cache that cannot be written to: it works without
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_network(content, kept)
        note(kept)
    return content


def _converted(row: Weights, file: Path) -> Content:
    """The same from the published file itself."""
    arrays, metadata = files.read(file)
    layout = LAYOUTS[row.layout]
    if layout.name == "zoo":  # it describes itself
        verify(row.name, (arrays, metadata))
        return pack(rebuild(row.name, arrays, metadata.get(METADATA, "")))
    source = Source(
        row.name,
        arrays,
        layout,
        Spec(find(row.model).name, numerics=infer.published_numerics(row)),
        row.preprocess,
        class_names(row),
        headless=not row.classes,
    )
    tensors = _convert(source, aux=True)
    if (got := tensors.network.spec.num_classes) != row.classes:
        raise ZooError(f"load: {row.file} has {got} classes, expected {row.classes}")
    return pack(_fill(source, tensors))


def _kept(row: Weights) -> Path:
    """The path of the converted tensors of published weights; it need not exist.

    Its name holds a digest of the row: where the catalogue changes, they are converted again.
    """
    return converted(f"{row.name}-{hashlib.sha256(repr(row).encode()).hexdigest()[:8]}")


def in_cache(row: Weights) -> bool:
    """Whether published weights can be loaded without a download."""
    return bundled(row) is not None or _kept(row).is_file() or cached(row.file) is not None
