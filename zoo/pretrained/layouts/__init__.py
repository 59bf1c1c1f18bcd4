"""The layouts by name: how each source of weights calls and orders its tensors."""

from dataclasses import replace

from ... import plugins
from ...errors import ZooError
from ...settings import shown
from .base import Layout as Layout
from .caffe import CAFFE
from .cifar import CIFAR, MLPERF
from .efficientnet_pytorch import EFFICIENTNET_PYTORCH
from .keras import KERAS_APPLICATIONS
from .slim import SLIM
from .timm import TIMM
from .torchvision import TORCHVISION
from .transformers import TRANSFORMERS

# what `zoo.save` writes
ZOO = Layout(
    name="zoo",
    rules={"*": lambda _: (("(.*)", r"\1"),)},
    leaves={},
    join=".",
    arrange=lambda _path, array, _model: array,
    restore=lambda _path, array, _model: array,
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        TORCHVISION,
        TIMM,
        TRANSFORMERS,
        EFFICIENTNET_PYTORCH,
        KERAS_APPLICATIONS,
        SLIM,
        CAFFE,
        CIFAR,
        MLPERF,
        ZOO,
    )
}


def layouts() -> dict[str, Layout]:
    """All layouts by name: `LAYOUTS`, after plugins have added theirs."""
    plugins.load()
    return LAYOUTS


def register_layout(name: str, layout: Layout) -> None:
    """Add the names of another source, for this process: `zoo.load(..., layout=name)` uses them.

    Args:
      name: the name to give it, one that is not taken.
      layout: its own `name` is ignored, so that one made from ours will do:
        `dataclasses.replace(LAYOUTS["torchvision"], rules={"mynet": rules})`.

    Raises:
      ZooError: no layout, or the name is none or taken.
    """
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise ZooError(f"register_layout: got the name {shown(name)}, expected a text")
    if not isinstance(layout, Layout):
        raise ZooError(
            f"register_layout: got {shown(layout)}, expected a zoo.pretrained.layouts.Layout"
        )
    if name in LAYOUTS:
        raise ZooError(f"layout name {name!r} is taken: there are {', '.join(LAYOUTS)}")
    LAYOUTS[name] = replace(layout, name=name)
