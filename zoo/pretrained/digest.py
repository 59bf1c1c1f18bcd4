"""The digest that our files hold of their own values, so that damage is detected."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ZooError

_KEY = "sha256"


def digest(arrays: Mapping[str, np.ndarray], text: str = "") -> str:
    """sha256 over a text and the names, types, shapes and bytes of arrays, sorted by name."""
    sha256 = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        if array.dtype.name == "bfloat16":  # our reader makes it float32, which is exact
            array = array.astype(np.float32)
        sha256.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        sha256.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def sealed(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """A description of arrays as JSON, with the digest of both in it."""
    return json.dumps({**about, _KEY: digest(arrays, json.dumps(about))})


def check(source: str, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays or a description that changed since they were sealed.

    Files that are older than the digest pass. So do descriptions that are no JSON: whoever needs
    them refuses them.

    Args:
      source: what the error calls the file.
      text: the description, which `sealed` made.
      arrays: by name, as the file has them.

    Raises:
      ZooError: the digest does not fit.
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
