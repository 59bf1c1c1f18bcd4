"""What is known of a file before its tensors are converted: how to understand it, a `Source`."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..context import Numerics, Spec
from ..errors import ZooError
from ..origin import Origin, spdx
from ..preprocess import Preprocess
from ..registry import find
from ..variant import Variant
from . import hub, infer, timm_config
from .catalogue import Weights, class_names, list_weights, weights
from .folder import CARD, CONFIG, LOCAL, holds_network, tensors_in
from .layouts import LAYOUTS, Layout
from .readers import files
from .readers.base import Arrays
from .saving import EXPORTED, METADATA, Content, described, verify


@dataclass(frozen=True)
class Source:
    """The tensors of a file, and what is known of the network that they belong to.

    Args:
      label: what errors call the file: its path, or the name of published weights.
      arrays: the tensors by the file's own names.
      layout: how the file names and orders them.
      spec: of the network. In a layout other than ours, classes, channels and auxiliary classifiers
        are those of the tensors, whatever it says.
      preprocess: what the weights expect.
      classes: names of the outputs; () where they are unknown.
      keep_aux: whether auxiliary classifiers are kept where `load` is not told.
      origin: the published weights that the tensors are, or started from; None: not known.
      headless: whether the weights were published without a classifier.
      notes: what was assumed.
    """

    label: str
    arrays: Arrays
    layout: Layout
    spec: Spec
    preprocess: Preprocess
    classes: tuple[str, ...]
    keep_aux: bool = False
    origin: Origin | None = None
    headless: bool = False
    notes: tuple[str, ...] = ()


def saved(label: str, content: Content) -> Source:
    """What a file of `zoo.save` says, which describes itself."""
    arrays, metadata = content
    spec, preprocess, classes, origin = described(label, metadata)
    return Source(label, arrays, LAYOUTS["zoo"], spec, preprocess, classes, spec.aux, origin)


def inferred(
    label: str,
    network: str,
    layout: Layout,
    content: Content,
    row: Weights | None,
    numerics: Numerics | str | None,
) -> Source:
    """A file of others: `row`, the arguments and other published weights tell what it does not."""
    variant = find(network)
    computed, notes = infer.numerics(label, variant, layout, content[1], row, numerics)
    preprocess, classes = infer.preprocessing(label, variant, layout, content, row)
    return Source(
        label,
        content[0],
        layout,
        Spec(variant.name, numerics=computed),
        preprocess,
        classes,
        headless=row is not None and not row.classes,
        origin=infer.origin(label, variant, content[1]),
        notes=notes,
    )


def is_folder(name: str | Path) -> bool:
    """Whether `name` is a repository on the Hub or a folder as timm writes it; see `in_folder`."""
    name = f"{name}"
    return hub.is_address(name) or name.startswith(LOCAL) or holds_network(Path(name))


def in_folder(given: str, network: str) -> Source:
    """A network as timm, or `zoo.push_to_hub`, writes it.

    Args:
      given: "hf-hub:USER/REPO", with "@REVISION" perhaps; or a folder, "local-dir:" before it or
        not.
      network: that it has to be; "" if it may be any.

    Raises:
      ZooError: it cannot be had or read, or holds another network.
    """
    on_hub = hub.is_address(given)
    folder = hub.snapshot(given) if on_hub else Path(given.removeprefix(LOCAL)).expanduser()
    content = files.read(tensors_in(given, folder))
    if METADATA in content[1]:
        verify(given, content)
        source = saved(given, content)
    else:
        source = _of_timm(given, folder, content)
    if network and find(network).name != source.spec.name:
        raise ZooError(f"load: {given} holds {source.spec.name}, asked for {find(network).name}")
    if not on_hub:
        return source
    licence = spdx(hub.licence_on(folder / CARD)) or (
        source.origin.licence if source.origin else ""
    )
    repo, revision = hub.repository(given)
    at = f"@{revision}" if revision else ""
    origin = Origin(f"{hub.PREFIX}{repo}{at}", licence, f"https://huggingface.co/{repo}")
    return replace(source, origin=origin)


def _of_timm(label: str, folder: Path, content: Content) -> Source:
    """The tensors of a folder that timm, or `zoo.save`, wrote, with what its config.json says."""
    arrays, metadata = content
    config = timm_config.read(label, folder / CONFIG)
    variant, layout = config.variant, LAYOUTS["timm"]
    spec = Spec(variant.name, numerics=config.numerics)
    preprocess, origin = config.preprocess, None
    if config.licence:
        origin = Origin(label, config.licence)
    if EXPORTED in metadata:  # what a config.json cannot say
        spec, preprocess, _, origin = described(label, metadata, EXPORTED)
    classes = config.classes or _published_classes(label, variant)
    return Source(
        label,
        arrays,
        layout,
        spec,
        preprocess,
        classes,
        origin=origin,
        headless=config.num_classes == 0,
    )


def _published_classes(label: str, variant: Variant) -> tuple[str, ...]:
    """The names of the classes of a repository of timm's own, which names none."""
    if not hub.is_address(label):
        return ()
    repo, _ = hub.repository(label)
    rows = map(weights, list_weights(f"{variant.name}.*"))
    return next((class_names(row) for row in rows if row.file.startswith(f"hf://{repo}/")), ())
