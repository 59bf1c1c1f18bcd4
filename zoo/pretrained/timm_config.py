"""timm's config.json: which network the tensors beside it are, and how they see pictures.

timm writes it when a model is pushed to the Hugging Face Hub, and reads it for names that begin
with "hf-hub:" or "local-dir:"
(https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_hub.py).
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..context import MOST_CHANNELS, TF, Numerics, Spec
from ..errors import ZooError
from ..layers import Network
from ..origin import spdx
from ..preprocess import Preprocess
from ..registry import find
from ..settings import shown, whole
from ..text import reason
from ..variant import Variant
from . import convert
from .layouts import LAYOUTS

# arguments of timm's networks that change no output of a trained one, or that tensors show
HARMLESS = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "img_size", "pretrained")


@dataclass(frozen=True)
class Config:
    """What a config.json says."""

    variant: Variant
    numerics: Numerics
    preprocess: Preprocess
    num_classes: int | None  # None: it does not say
    classes: tuple[str, ...]  # names; () where it has none
    licence: str


# --- which network -------------------------------------------------------------------------------


@cache
def architectures() -> dict[str, str]:
    """Timm's names of the networks that both have, and ours."""
    from ..report.peers import peers

    return {p.model: p.network for p in peers() if p.peer == "timm" and not p.elsewhere}


def numerics_of(architecture: str) -> Numerics:
    """How a network of timm computes: what it took from TensorFlow is called tf_*."""
    variant = find(architectures()[architecture])
    return TF if architecture.startswith("tf_") else LAYOUTS["timm"].numerics_for(variant)


def architecture_of(spec: Spec) -> str:
    """Timm's name of a network.

    Raises:
      ZooError: timm has no such network, or only one that computes otherwise.
    """
    names = [theirs for theirs, ours in architectures().items() if ours == spec.name]
    for name in names:
        if not _differences(spec.numerics, numerics_of(name)):
            return name
    if names:
        raise ZooError(
            f"timm's {names[0]} computes otherwise: got "
            + ", ".join(_differences(spec.numerics, numerics_of(names[0])))
        )
    raise ZooError(f"timm has no {spec.name}: expected format='safetensors', which zoo.load reads")


def _differences(got: Numerics, want: Numerics) -> list[str]:
    """All fields that change outputs."""
    theirs = asdict(want)
    return [
        f"{key}={value!r}, expected {theirs[key]!r}"
        for key, value in asdict(got).items()
        if value != theirs[key] and key != "bn_momentum"
    ]


# --- reading -------------------------------------------------------------------------------------


def names_architecture(file: Path) -> bool:
    """Whether a file is a config.json that names an architecture."""
    try:
        return isinstance(json.loads(file.read_bytes())["architecture"], str)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read(label: str, file: Path) -> Config:
    """What a config.json says.

    Args:
      label: what errors call the folder or the repository.
      file: the config.json.

    Raises:
      ZooError: it cannot be read, names a network that zoo has not, or one changed in a way that
        zoo has not, or pictures that are not square.
    """
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"load: {label}: cannot read config.json: {reason(error)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise ZooError(
            f"load: {label}: config.json names no architecture, as those do that timm writes: "
            "expected one of those, or file= and layout= for its tensors"
        )
    pictures = config.get("pretrained_cfg", config)  # an old form has no part of that name
    arguments = config.get("model_args") or {}
    if not isinstance(pictures, dict) or not isinstance(arguments, dict):
        raise ZooError(f"load: {label}: config.json: got {shown(pictures)}, expected settings")
    variant = _variant(label, config["architecture"])
    _check_plain(label, config, arguments)
    try:
        return Config(
            variant,
            numerics_of(_bare(config["architecture"])),
            _preprocess(pictures),
            _first(config.get("num_classes"), pictures.get("num_classes")),
            _names(config, pictures),
            spdx(_text(pictures.get("license"))),
        )
    except (ZooError, TypeError, ValueError, OverflowError) as error:
        raise ZooError(f"load: {label}: config.json: {reason(error)}") from error


def _bare(architecture: str) -> str:
    """Without the tag of weights."""
    return architecture.partition(".")[0]


def _variant(label: str, architecture: str) -> Variant:
    name = _bare(architecture)
    if name not in architectures():
        near = difflib.get_close_matches(name[:100], architectures(), n=3, cutoff=0.7)
        hint = f"nearest: {', '.join(near)}" if near else "`zoo list` shows what it has"
        raise ZooError(f"load: {label} is timm's {shown(name)}, which zoo has not; {hint}")
    return find(architectures()[name])


def _check_plain(label: str, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse what was changed about the network in a way that its tensors do not show."""
    pool = arguments.get("global_pool", config.get("global_pool"))
    changed = {k: v for k, v in arguments.items() if k not in (*HARMLESS, "global_pool") and v}
    if pool not in (None, "", "avg", "fast"):
        changed["global_pool"] = pool
    if changed:
        listed = ", ".join(f"{key}={shown(value)}" for key, value in changed.items())
        raise ZooError(f"load: {label} was built with {listed}: expected timm's network as it is")


def _preprocess(pictures: Mapping[str, Any]) -> Preprocess:
    """Timm's evaluation transform: the share `crop_pct` of the resized picture, its centre."""
    channels, *sides = pictures.get("input_size") or (3, 224, 224)
    if len(sides) != 2 or sides[0] != sides[1]:
        raise ZooError(f"input_size: got {shown([channels, *sides])}, expected square pictures")
    channels, size = whole("input_size", channels, 1, MOST_CHANNELS), whole("input_size", sides[0])
    mode, share = pictures.get("crop_mode") or "center", float(pictures.get("crop_pct") or 0.875)
    if mode not in ("center", "squash"):
        raise ZooError(f"crop_mode: got {shown(mode)}, expected 'center' or 'squash'")
    resize, squash = math.floor(size / share), mode == "squash"
    usual = Preprocess()
    mean, std = (
        tuple(values) * channels if len(values) == 1 else tuple(values)
        for values in (pictures.get("mean") or usual.mean, pictures.get("std") or usual.std)
    )
    return Preprocess(
        size=size,
        resize=None if squash and resize == size else resize,
        squash=squash and resize != size,
        interpolation=pictures.get("interpolation") or "bicubic",
        mean=mean,
        std=std,
    )


def _names(config: Mapping[str, Any], pictures: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes: a list, or by number where some have none, which gives ()."""
    names = _first(config.get("label_names"), pictures.get("label_names"), pictures.get("labels"))
    if isinstance(names, dict):
        numbered = {int(number): name for number, name in names.items()}
        whole_list = sorted(numbered) == [*range(len(numbered))]
        names = [numbered[i] for i in range(len(numbered))] if whole_list else []
    if not isinstance(names or [], list):
        raise ZooError(f"label_names: got {shown(names)}, expected a list of names")
    return tuple(map(str, names or ()))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# --- writing -------------------------------------------------------------------------------------


def config_of(model: Network) -> dict[str, Any]:
    """The config.json of a network, as timm writes it.

    Raises:
      ZooError: timm has no such network, or cannot prepare pictures as the weights expect it.
    """
    architecture = architecture_of(model.spec)
    preprocess, classes = model.preprocess, model.spec.num_classes
    if preprocess.channels != "rgb":
        raise ZooError("timm gives networks R, G, B: got weights for B, G, R")
    size, resize, squash = preprocess.size, preprocess.resize, preprocess.squash
    if preprocess.central < 1:  # of the whole picture, which is warped to a square
        resize, squash = round(size / preprocess.central), True
    elif resize is None:
        resize, squash = size, True
    licence = model.origin.licence if model.origin else ""
    about = {
        "custom_load": False,
        "input_size": [model.spec.in_chans, size, size],
        "fixed_input_size": False,
        "interpolation": preprocess.interpolation.removeprefix("tf_"),
        "crop_pct": _share(size, resize),
        "crop_mode": "squash" if squash else "center",
        "mean": [*preprocess.mean],
        "std": [*preprocess.std],
        "num_classes": classes,
        **_places(model),
        **({"license": licence.lower()} if licence else {}),
    }
    return {
        "architecture": architecture,
        "num_classes": classes,
        **({"label_names": [*model.classes]} if model.classes else {}),
        "pretrained_cfg": about,
    }


def exact(preprocess: Preprocess) -> bool:
    """Whether timm prepares pictures to the pixel as these weights expect it."""
    return preprocess.central == 1 and not preprocess.interpolation.startswith("tf_")


def _share(size: int, resize: int) -> float:
    """A `crop_pct` of which timm, which rounds size / crop_pct down, makes `resize`."""
    share = size / resize
    return share if math.floor(size / share) == resize else math.nextafter(share, 0)


def _places(model: Network) -> dict[str, str]:
    """Timm's names of the layers that other channels and other classes change."""
    layout = LAYOUTS["timm"]
    rules = layout.rules_for(model)
    first = f"body.{model.body.order[0]}."
    conv = next(
        path
        for path, shape in convert.expected(model).items()
        if path.startswith(first) and len(shape) == 4 and shape[2] == model.spec.in_chans
    )
    paths = {"first_conv": conv, "classifier": "classifier.linear.kernel"}
    return {key: layout.source_name(path, rules).rpartition(".")[0] for key, path in paths.items()}
