"""What other packages add: the entry points of the group `zoo.plugins`, each loaded once.

An entry point is a function without arguments, which registers what its package has
(`zoo.register`, `zoo.register_layout`, `zoo.register_weights`), or a module that does so where it
is imported. Every process loads them when it first looks up a name; importing
`zoo` loads none.
"""

import logging
import threading
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from .errors import ZooError
from .settings import shown
from .text import plain, reason

GROUP = "zoo.plugins"

_lock = threading.RLock()  # a plugin may ask for names itself, while other threads wait for it
_begun = False


def load() -> None:
    """Load all plugins at the first call. One that fails is reported in a line and skipped."""
    global _begun
    with _lock:
        if _begun:
            return
        _begun = True
        for plugin in entry_points(group=GROUP):
            _load(plugin)


def _load(plugin: EntryPoint) -> None:
    try:
        loaded = plugin.load()
        if callable(loaded):
            loaded()
        elif not isinstance(loaded, ModuleType):
            raise ZooError(f"got {shown(loaded)}, expected a function or a module")
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        package = plugin.dist.name if plugin.dist else plugin.value
        kind = "" if isinstance(error, ZooError) else f"{type(error).__name__}: "
        logging.getLogger(__name__).warning(
            plain(f"zoo: plugin {plugin.name!r} of package {package}: {kind}{reason(error)}")
        )
