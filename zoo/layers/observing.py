"""Who looks on while a network runs: `observing` calls a function for the output of every row."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

Observer = Callable[[str, jax.Array], None]

_PATH: ContextVar[tuple[str, ...]] = ContextVar("path", default=())
_OBSERVER: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Call `observer(path, y)` for the output `y` of every row of the networks that run inside.

    The path is that of the row's parameters: "body.stage1.block0.conv1". Rows come in the order in
    which they are computed, those within a row before it. Under a transformation `y` is a tracer.
    """
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)


def observed(y: jax.Array) -> jax.Array:
    """`y`, shown to the observer, if there is one."""
    if (observer := _OBSERVER.get()) is not None:
        observer(".".join(_PATH.get()), y)
    return y


def is_observed() -> bool:
    """Whether there is an observer."""
    return _OBSERVER.get() is not None


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name what is computed inside, in profiles (`jax.named_scope`) and for an observer."""
    token = _PATH.set((*_PATH.get(), *name.split("/")))
    try:
        with jax.named_scope(name):
            yield
    finally:
        _PATH.reset(token)
