"""The cache folder, and how files are written."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """The folder of downloads and converted weights: ZOO_CACHE, or ~/.cache/zoo.

    A `~` in ZOO_CACHE is the home folder, even if no shell has expanded it.
    """
    return Path(os.environ.get("ZOO_CACHE") or "~/.cache/zoo").expanduser()


def write(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
      OSError: the folder does not exist, cannot be written or is full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
