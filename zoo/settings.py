"""Settings from callers and files, checked and converted to Python's own types.

NumPy's numbers count as numbers; strings and bools do not. A wrong value would otherwise fail only
later, when a network is saved or a shape is computed.
"""

import math
import operator
import reprlib
from typing import Any

from .errors import ZooError


def whole(name: str, value: Any, low: int = 0, high: int = 2**31 - 1) -> int:
    """An integer from `low` to `high`.

    Raises:
      ZooError: anything else, such as an integer in quotes or a float.

    >>> whole("num_classes", np.int64(3))
    3
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ZooError(f"{name}: got {shown(value)}, expected a whole number") from None
    if not low <= number <= high:
        raise ZooError(f"{name}: got {shown(number)}, expected {low} to {high:,}")
    return number


def real(name: str, value: Any, expected: str) -> float:
    """A finite number; `expected` describes it in the error.

    Raises:
      ZooError: anything else, such as NaN, infinity or a number in quotes.
    """
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ZooError(f"{name}: got {shown(value)}, expected {expected}")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
      ZooError: anything else.
    """
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        raise ZooError(f"{name}: got {shown(value)}, expected True or False")
    return bool(value)


def shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    return reprlib.repr(value)
