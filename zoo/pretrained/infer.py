"""What a file of weights does not say by itself: its layout, its numerics, its preprocessing.

Names and shapes of tensors show neither padding nor epsilons, nor what pictures the network was
trained on. All of it comes from the arguments of `zoo.load`, from a description in the file, or
from the published weights of that network and layout as far as they agree.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..context import KERAS, TF, TORCH, Numerics
from ..errors import ZooError, unknown
from ..origin import Origin
from ..preprocess import Preprocess
from ..registry import find
from ..variant import Variant
from .catalogue import Weights, class_names, list_weights, weights
from .layouts import LAYOUTS, Layout, layouts
from .readers.base import Arrays
from .saving import EXPORTED, METADATA, Description, described

PRESETS = {"TORCH": TORCH, "TF": TF, "KERAS": KERAS}
SUFFIXES = {".h5": "keras", ".keras": "keras", ".caffemodel": "caffe"}  # that imply a layout


def layout_of(source: str, asked: str | None, metadata: Mapping[str, str]) -> Layout:
    """The layout of a file: the one that was asked for, or else what its suffix implies.

    Args:
      source: what errors call the file, with its suffix.
      asked: the name of a layout; None if none was asked for.
      metadata: of the file.

    Raises:
      ZooError: no such layout, or nothing tells which one it is.
    """
    if asked is not None:
        if asked not in layouts():
            raise unknown("layout", asked, LAYOUTS)
        return LAYOUTS[asked]
    if METADATA in metadata:
        return LAYOUTS["zoo"]
    for suffix, name in SUFFIXES.items():
        if source.lower().endswith(suffix):
            return LAYOUTS[name]
    raise ZooError(
        f"load: {source} does not say its layout: expected layout= one of {', '.join(layouts())}"
    )


def numerics(
    source: str,
    variant: Variant,
    layout: Layout,
    metadata: Mapping[str, str],
    like: Weights | None,
    asked: Numerics | str | None,
) -> tuple[Numerics, tuple[str, ...]]:
    """The numerics of a file's weights, and a note if only the catalogue's other weights tell it.

    Args:
      source: what errors call the file.
      variant: the network.
      layout: of the file.
      metadata: of the file.
      like: published weights that the file is, or that it was said to compute like.
      asked: numerics, or the name of a preset, that override all else.

    Raises:
      ZooError: an unknown preset, or published weights of the network that differ in numerics.
    """
    if asked is not None:
        if isinstance(asked, Numerics):
            return asked, ()
        preset = f"{asked}".upper()
        if preset not in PRESETS:
            raise unknown("numerics", preset, PRESETS)
        return PRESETS[preset], ()
    if like:
        return published_numerics(like), ()
    if EXPORTED in metadata:
        return _exported(source, variant, metadata).spec.numerics, ()
    usual = layout.numerics_for(variant)
    choices: dict[Numerics, list[str]] = {}
    for row in _rows(variant, layout):
        choices.setdefault(published_numerics(row), []).append(row.name)
    if len(choices) > 1:
        listed = " or ".join(
            f"like={' or '.join(map(repr, names[:3]))} ({_shown(choice)})"
            for choice, names in choices.items()
        )
        raise ZooError(
            f"load: {source} may compute in {len(choices)} ways, as the published weights of "
            f"{variant.name} in layout {layout.name!r} do: expected {listed}; or numerics="
        )
    (only,) = choices or (usual,)
    if only == usual:
        return only, ()
    return only, (
        f"computed like {choices[only][0]} ({_shown(only)}), as are all published weights of "
        f"{variant.name} in layout {layout.name!r}: otherwise numerics=",
    )


def published_numerics(row: Weights) -> Numerics:
    """The numerics of published weights."""
    if row.numerics:
        return PRESETS[row.numerics]
    return LAYOUTS[row.layout].numerics_for(find(row.model))


def preprocessing(
    source: str,
    variant: Variant,
    layout: Layout,
    content: tuple[Arrays, Mapping[str, str]],
    like: Weights | None,
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing that a file's weights expect, and the names of their classes, if known.

    What is only assumed stands in the `note` of the preprocessing.

    Args:
      source: what errors call the file.
      variant: the network.
      layout: of the file.
      content: the file's tensors and metadata.
      like: published weights that the file is, or that it was said to compute like.
    """
    arrays, metadata = content
    if like:
        return like.preprocess, class_names(like)
    if EXPORTED in metadata:
        exported = _exported(source, variant, metadata)
        return exported.preprocess, exported.classes
    usual, of_file = layout.preprocess_for(variant), layout.preprocess_for(variant, arrays)
    rows = [row.preprocess for row in _rows(variant, layout)]
    agreed: dict[str, Any] = {}
    disputed: list[str] = []  # fields in which the rows differ
    groups = (
        ("size", "resize", "squash", "central"),
        ("interpolation",),
        ("mean", "std", "channels"),
    )
    for group in groups:
        values = {tuple(getattr(row, field) for field in group) for row in rows}
        if len(values) == 1:
            agreed |= zip(group, *values, strict=True)
        else:
            disputed += [f for f in group if len({getattr(row, f) for row in rows}) > 1]
    assumed = replace(usual, **agreed)
    if of_file != usual:  # the file says it: EfficientNet's normalization in Keras
        assumed = replace(assumed, mean=of_file.mean, std=of_file.std)
    if rows and not disputed:
        return assumed, ()
    others = f"published weights of {variant.name} in layout {layout.name!r}"
    if rows:
        why = f"{others} differ in {' and '.join(disputed)}: otherwise like= some of them, or"
    else:
        why = f"there are no {others}: otherwise"
    return replace(assumed, note=f"preprocessing is assumed, {why} preprocess="), ()


def origin(source: str, variant: Variant, metadata: Mapping[str, str]) -> Origin | None:
    """Where a file says that its weights come from, if `zoo.export` wrote it."""
    return _exported(source, variant, metadata).origin if EXPORTED in metadata else None


def _exported(source: str, variant: Variant, metadata: Mapping[str, str]) -> Description:
    """The description in a file of that network which `zoo.export` wrote by another's names."""
    description = described(source, metadata, EXPORTED)
    if (name := description.spec.name) != variant.name:
        raise ZooError(f"load: {source} holds {name}, asked for {variant.name}")
    return description


def _rows(variant: Variant, layout: Layout) -> list[Weights]:
    """All published weights of a network in a layout."""
    rows = (weights(name) for name in list_weights(f"{variant.name}.*"))
    return [row for row in rows if row.layout == layout.name]


def _shown(numerics: Numerics) -> str:
    """The name of a preset, or else what decides most."""
    names = [name for name, preset in PRESETS.items() if preset == numerics]
    return names[0] if names else f"padding {numerics.padding}, epsilon {numerics.bn_epsilon:g}"
