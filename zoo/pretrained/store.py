"""Load a network with weights from a file, and save one."""

import json
import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from ..context import Spec
from ..errors import ZooError, unknown
from ..folding import fold as folded
from ..folding import partly_folded
from ..init import materialize
from ..layers import LinearAct, Network
from ..preprocess import Preprocess
from ..registry import abstract, find
from . import convert, files
from .layouts import LAYOUTS

_METADATA = "zoo"  # the key of our own description in a safetensors file


def load(
    name: str,
    *,
    file: str | Path | None = None,
    layout: str | None = None,
    num_classes: int | None = None,
    dtype: str | None = None,
    dropout: float | None = None,
    aux: bool | None = None,
    fold: bool = False,
) -> Network:
    """A network with weights, in inference mode, its `preprocess` and `classes` those of the file.

    Args:
      name: one of `zoo.list_models()`, or the path of a file that `zoo.save` wrote.
      file: weights of that network: `.safetensors` or Keras' `.h5`.
      layout: how the file names its tensors: "torchvision", "keras" or "zoo". None: "zoo" for
        files that `zoo.save` wrote, "keras" for `.h5`.
      num_classes: None keeps the file's classifier; another number than the file's puts a fresh
        one in its place, all zeros, so that training starts from the features alone (random where
        an activation follows: NiN, SqueezeNet); 0 leaves it out. All else is loaded always.
      dtype: of the computation; None keeps the file's, or float32.
      dropout: rate to use wherever the network has dropout; None keeps the file's, or its own.
      aux: with the auxiliary classifiers, which only training uses, where the file has them; None
        does as `zoo.save` found it, and without for published files.
      fold: with `zoo.fold`: for inference, the same outputs in less time.

    Raises:
      ZooError: an unknown name or layout, an unreadable file, or tensors that do not fit, which
        are all listed.

    >>> model = zoo.load("resnet50", file="resnet50.safetensors", layout="torchvision",
    ...                  num_classes=37)                     # doctest: +SKIP
    >>> model = zoo.load("runs/digits/model.safetensors")    # doctest: +SKIP
    """
    if file is None:
        if not Path(name).suffix:
            raise ZooError(f"load: got no file of weights for {find(name).name}, expected file=...")
        file = name
    arrays, metadata = files.read(file)
    source = LAYOUTS[_layout_name(Path(file), layout, metadata)]
    if source.name == "zoo":
        spec, preprocess, names = _about(Path(file), metadata)
        if name != str(file) and find(name).name != spec.name:
            raise ZooError(f"load: {file} holds {spec.name}, asked for {find(name).name}")
    else:
        names = ()
        variant = find(name)
        spec = Spec(variant.name, numerics=source.numerics_for(variant))
        preprocess = source.preprocess_for(variant)

    shapes = cache(abstract)  # one network serves all three purposes, mostly
    had = convert.classes_in(shapes(spec), arrays, source)
    if num_classes is None and not had and source.name != "zoo":
        raise ZooError(
            f"load: {file} has no classifier: expected num_classes=N for a fresh one, "
            "or 0 for pooled features"
        )
    classes = had if num_classes is None else num_classes
    keep_head = 0 < classes == had
    both = replace(spec, num_classes=had or 1, aux=True)
    has_aux = bool(had) and convert.auxiliary_in(shapes(both), arrays, source)
    whole = shapes(replace(both, aux=has_aux))
    values = convert.convert(whole, arrays, source, new_head=not keep_head)
    aux = has_aux and keep_head and (spec.aux if aux is None else aux)
    if not aux:
        values = {path: value for path, value in values.items() if not path.startswith("aux_")}
    dropout = spec.dropout if dropout is None else dropout
    spec = replace(spec, num_classes=classes, dtype=dtype or spec.dtype, dropout=dropout, aux=aux)
    model = shapes(spec)
    if not keep_head and type(model.classifier) is LinearAct:  # zeros before a ReLU learn nothing
        fresh = {p: s for p, s in convert.expected(model).items() if p.startswith("classifier.")}
        values |= {path: np.zeros(shape, np.float32) for path, shape in fresh.items()}
    model = materialize(model, init=spec.init, seed=0, values=values)
    model.preprocess = preprocess
    model.classes = names if keep_head else ()
    return folded(model) if fold else model


def _layout_name(file: Path, asked: str | None, metadata: dict[str, str]) -> str:
    if asked is not None:
        if asked not in LAYOUTS:
            raise unknown("layout", asked, LAYOUTS)
        return asked
    if _METADATA in metadata:
        return "zoo"
    if file.suffix.lower() == ".h5":
        return "keras"
    raise ZooError(
        f"load: {file} does not say its layout: expected layout= one of {', '.join(LAYOUTS)}"
    )


def _about(file: Path, metadata: dict[str, str]) -> tuple[Spec, Preprocess, tuple[str, ...]]:
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
    from safetensors.numpy import save as serialize

    if partly_folded(model):
        raise ZooError(f"save: got a partly folded {model.spec.name}, expected the one before fold")

    path = Path(path)
    state = nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    arrays = {
        name: np.ascontiguousarray(leaf)  # save() writes strided arrays wrongly, without a word
        for name, leaf in flatten_dict(state, sep=".").items()
    }
    about = {
        "spec": model.spec.to_dict(),
        "preprocess": model.preprocess.to_dict(),
        "classes": list(model.classes),
    }
    data = serialize(arrays, metadata={_METADATA: json.dumps(about), "format": "np"})
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        whole = Path(file.name)
        try:
            file.write(data)
            file.flush()
            whole.chmod(0o666 & ~_umask())  # temporary files are private
            whole.replace(path)
        except BaseException:
            whole.unlink()
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
