"""The layouts by name: one file for the names of a source or of several alike."""

from .base import Layout
from .caffe import CAFFE
from .cifar import CIFAR, MLPERF
from .keras import KERAS_APPLICATIONS
from .slim import SLIM
from .torch import TIMM, TORCHVISION
from .transformers import TRANSFORMERS

# what `zoo.save` writes
ZOO = Layout(
    name="zoo",
    rules={"*": lambda model: (("(.*)", r"\1"),)},
    leaves={},
    join=".",
    arrange=lambda path, array, model: array,
    restore=lambda path, array, model: array,
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        TORCHVISION,
        TIMM,
        TRANSFORMERS,
        KERAS_APPLICATIONS,
        SLIM,
        CAFFE,
        CIFAR,
        MLPERF,
        ZOO,
    )
}
