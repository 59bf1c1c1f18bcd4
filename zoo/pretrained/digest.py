"""A digest of the values in each of our files, kept in the file, to detect damage."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ZooError

_KEY = "sha256"


def digest(arrays: Mapping[str, np.ndarray], text: str = "") -> str:
    """sha256 over a text and the names, types, shapes and bytes of arrays, sorted by name."""
    found = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        if array.dtype.name == "bfloat16":  # our reader gives it as float32, exactly
            array = array.astype(np.float32)
        found.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def sealed(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """A description of arrays as JSON, with the digest of both in it."""
    return json.dumps({**about, _KEY: digest(arrays, json.dumps(about))})


def check(source: str, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays or a description that are not those that were sealed.

    Files from before there were digests pass, and descriptions that cannot be read at all, which
    whoever reads them refuses.

    Args:
      source: how the error calls the file.
      text: what `sealed` gave.

    Raises:
      ZooError: one of them was damaged, or changed.
    """
    try:
        about = json.loads(text)
        sha256 = about.pop(_KEY, None)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return
    if sha256 is not None and sha256 != digest(arrays, json.dumps(about)):
        raise ZooError(
            f"load: {source} is damaged: its values are not those that were saved in it; "
            "expected a whole copy of it"
        )
