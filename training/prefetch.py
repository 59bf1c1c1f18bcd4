"""Batches made in a thread, one ahead of the step that uses them."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Prefetch(Generic[Batch]):
    """`count` batches, each made while the caller works on the one before.

    The caller's own thread may be busy with a step all the while, see `Devices.compile`.

    Args:
      make: makes the next batch.
      count: how many to make, at least 1; not one more is made.
    """

    def __init__(self, make: Callable[[], Batch], count: int):
        self.waited = 0.0  # seconds for which the caller had to wait
        self._make, self._count = make, count
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Prefetch[Batch]":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def __iter__(self) -> Iterator[Batch]:
        coming = self._thread.submit(self._make)
        for left in reversed(range(self._count)):
            asked = time.perf_counter()
            batch = coming.result()
            self.waited += time.perf_counter() - asked
            if left:
                coming = self._thread.submit(self._make)
            yield batch
