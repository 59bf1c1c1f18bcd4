"""The layouts by name: one file for the names of a source or of several alike."""

from .base import Layout
from .keras import KERAS_APPLICATIONS
from .torch import TORCHVISION

# what `zoo.save` writes
ZOO = Layout(
    name="zoo",
    rules={"*": lambda model: (("(.*)", r"\1"),)},
    leaves={},
    join=".",
    arrange=lambda path, array, model: array,
    restore=lambda path, array, model: array,
)

LAYOUTS = {layout.name: layout for layout in (TORCHVISION, KERAS_APPLICATIONS, ZOO)}
