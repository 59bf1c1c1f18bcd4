"""The switches of a network by name, apart from what they do: to name them imports no JAX."""

import math
import re
from typing import Any

from .errors import ZooError, unknown
from .settings import shown

NORMS = ("batch", "none")
ACTIVATIONS = (
    "relu",
    "relu6",
    "tanh",
    "sigmoid",
    "silu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "identity",
)
WITHOUT = {  # zoo/without.py says what stands in their places
    "asymmetric": "pairs of 1xn and nx1 convolutions",
    "avgpool": "global average pooling",
    "depthwise": "depthwise convolutions",
    "fully_connected": "fully connected layers before the classifier",
    "reduction": "1x1 convolutions that reduce the channels before a larger one",
    "residual": "residual connections",
    "small_kernels": "pairs of 3x3 convolutions",
}
FITTED = ("he_normal", "glorot_uniform", "lecun_normal", "dirac", "zeros")  # to each kernel
FIXED = ("truncated_normal", "normal")  # of one deviation for all kernels, which may be given
DEVIATION = 0.01


def initial(name: Any) -> tuple[str, float]:
    """The name of an initialiser, and the deviation given with it.

    Raises:
      ZooError: an unknown name, or a deviation that is not a number above 0.

    >>> initial("truncated_normal(0.1)"), initial("normal")
    (('truncated_normal', 0.1), ('normal', 0.01))
    """
    if name in FITTED:
        return name, DEVIATION
    call = re.fullmatch(r"(\w+)(?:\((.*)\))?", name) if isinstance(name, str) else None
    if call is None or call[1] not in FIXED:
        raise unknown("initialiser", name, (*FITTED, *FIXED, *(f"{n}({DEVIATION})" for n in FIXED)))
    base, given = call.groups()
    try:
        deviation = DEVIATION if given is None else float(given)
    except ValueError:
        deviation = math.nan
    if not 0 < deviation < math.inf:
        raise ZooError(
            f"initialiser: got {shown(name)}, expected a deviation above 0, as in {base}(0.1)"
        )
    return base, deviation


def left_out(names: Any) -> str:
    """The names of `WITHOUT` in a text with commas, each once, in that order.

    Raises:
      ZooError: an unknown name, or no text.

    >>> left_out("residual, avgpool")
    'avgpool,residual'
    """
    if not isinstance(names, str):
        raise ZooError(f"without: got {shown(names)}, expected names such as 'residual'")
    asked = [name.strip() for name in names.split(",")] if names.strip() else []
    for name in asked:
        if name not in WITHOUT:
            raise unknown("part to leave out", name, WITHOUT)
    return ",".join(name for name in WITHOUT if name in asked)
