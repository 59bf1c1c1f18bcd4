"""JAX's persistent compilation cache: what one process has compiled, the next one reads."""

import os
import re
import tempfile
from pathlib import Path

from ..errors import ZooError
from ..paths import cache_folder

_SWITCH = "ZOO_COMPILE_CACHE"
_UNITS = {"M": 2**20, "G": 2**30}


def enable_compilation_cache() -> Path | None:
    """Keep compiled programs on disk, so that the next process need not compile them again.

    They are kept in `xla/` of the zoo's cache folder (ZOO_CACHE, or ~/.cache/zoo), 1 GB at most:
    the least recently used ones are deleted. A cache that JAX already has
    (JAX_COMPILATION_CACHE_DIR) stays in use. `ZOO_COMPILE_CACHE=off` turns ours off; a size such
    as 500M or 2G limits it. The command `zoo` calls this; `import zoo` alone changes nothing.

    Returns:
      The folder in use; None if the cache is turned off or cannot be written to.

    Raises:
      ZooError: ZOO_COMPILE_CACHE is neither "off" nor a size.
    """
    import jax

    if existing := jax.config.values["jax_compilation_cache_dir"]:
        return Path(existing)
    limit = _limit(os.environ.get(_SWITCH, "1G"))
    folder = cache_folder() / "xla"
    if not limit or not _prepared(folder):
        return None
    jax.config.update("jax_compilation_cache_max_size", limit)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # the smallest that pays
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _limit(text: str) -> int:
    """The limit in bytes; 0 for "off"."""
    if text.lower() == "off":
        return 0
    size = re.fullmatch(r"(\d+)([MG])B?", text.upper())
    if size is None:
        raise ZooError(f"{_SWITCH}: got {text!r}, expected off, or a size such as 500M or 2G")
    return int(size[1]) * _UNITS[size[2]]


def _prepared(folder: Path) -> bool:
    """Create the folder and clear it of unfinished entries; False if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        # A process that was killed while it wrote leaves an entry without a time of access, and
        # jax could then write no other.
        for entry in folder.glob("*-cache"):
            if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists():
                entry.unlink(missing_ok=True)
    except OSError:
        return False
    return True
