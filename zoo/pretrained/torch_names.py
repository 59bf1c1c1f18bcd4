"""Write the tensors of a network by the names of torchvision or timm."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from ..context import TF, Spec
from ..errors import ZooError
from ..layers import Network
from ..registry import abstract, find
from . import convert
from .layouts import LAYOUTS
from .readers.base import Arrays
from .saving import EXPORTED, check_built, describe, write_checked


def write_torch_names(model: Network, name: str, path: Path, *, aux: bool = True) -> None:
    """Write the tensors of a network by the names of `name`, torchvision or timm.

    Args:
      model: the network.
      name: of the layout.
      path: the file.
      aux: whether the auxiliary classifiers go with it, if there are any.

    Raises:
      ZooError: the library has no such network.
    """
    from safetensors.numpy import save as serialize

    check_built(model, "export")
    layout, variant = LAYOUTS[name], find(model.spec.name)
    theirs, got = asdict(layout.numerics_for(variant)), asdict(model.spec.numerics)
    other = [key for key in got if got[key] != theirs[key] and key != "bn_momentum"]
    if other and not (name == "timm" and model.spec.numerics == TF):  # timm's tf_*
        raise ZooError(
            f"export: {name}'s {variant.name} computes otherwise: got "
            + ", ".join(f"{key}={got[key]!r}, expected {theirs[key]!r}" for key in other)
        )
    built = model.spec
    spec = Spec(variant.name, built.num_classes, built.in_chans, numerics=built.numerics)
    whole = abstract(replace(spec, aux=model.spec.aux and aux))
    state = nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    ours: Arrays = {k: np.asarray(v) for k, v in flatten_dict(state, sep=".").items()}
    if not aux:
        ours = {key: value for key, value in ours.items() if not key.startswith("aux_")}
    shapes = {key: value.shape for key, value in ours.items()}
    if shapes != convert.expected(whole) or model.spec.act is not None:
        raise ZooError(
            f"export: {name} has no {variant.name} that is folded or built with another activation "
            "or normaliser: expected the published network"
        )
    rules = layout.rules_for(model)
    arrays: Arrays = {}
    for key, value in ours.items():
        try:
            arrays[layout.source_name(key, rules)] = layout.restore(key, value, model)
        except KeyError as error:
            raise ZooError(f"export: {name} has no name for {variant.name}'s {key}") from error
    for key in [key for key in arrays if key.endswith(".running_mean")]:
        counter = key.removesuffix("running_mean") + "num_batches_tracked"
        arrays[counter] = np.zeros((), np.int64)  # PyTorch's strict loading wants it
    back = convert.convert(whole, arrays, layout, new_head=not model.spec.num_classes)
    if any(not np.array_equal(back[key], value, equal_nan=True) for key, value in ours.items()):
        raise ZooError(f"export: layout {name!r} does not restore {variant.name}")
    # serialize() writes strided arrays wrongly, without a word
    dense = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    # for `zoo.load`, because names and shapes do not show it; other libraries ignore it
    metadata = {"format": "pt", EXPORTED: describe(model)}
    write_checked(path, serialize(dense, metadata=metadata), dense)
