"""Stopping a run by SIGTERM or Ctrl-C, at any moment.

Before the first step, and after everything is saved, there is nothing to lose, and the run ends at
once. Otherwise it finishes the current step and saves a checkpoint. This module imports nothing
heavy, so that the command can install its signal handlers first.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_INTERRUPTED = 75  # sysexits' "temporary failure": the same command continues the run
AT_ONCE = "stopped; the same command continues the run"
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """The run was stopped by SIGTERM or Ctrl-C and is saved. The same call continues it."""


class AtOnce(BaseException):
    """`Interrupted`, raised by a signal handler at whatever point the program has reached.

    It is a BaseException so that no `except Exception` there takes it for an error of its own.
    """


class Stop:
    """Whether the process was told to stop, and whether that would lose unsaved steps.

    Args:
      leave: called to end the run at once.
    """

    def __init__(self, leave: Callable[[], None]):
        self.requested = threading.Event()
        self.unsaved = False  # whether steps were taken that no checkpoint has
        self.several = False  # processes: JAX tells all of them of a SIGTERM to one
        self._leave = leave

    def handle(self, number: int, _: object) -> None:
        """The signal handler."""
        again = self.requested.is_set()
        self.requested.set()
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.several:
            if number != signal.SIGTERM:
                signal.raise_signal(signal.SIGTERM)
        elif not self.unsaved:
            self._leave()

    def check(self) -> None:
        """Leave if the process was told to stop.

        Raises:
          Interrupted: the process was told to stop, and has nothing to lose.
        """
        if self.requested.is_set() and not self.several:
            raise Interrupted(AT_ONCE)


_ending = threading.Lock()
_command: Stop | None = None  # of a process that is the command `zoo train`


def take_over() -> None:
    """Make signals end this process with `EXIT_INTERRUPTED`, from now until it exits.

    For the command `zoo train`. Where a signal ends the run at once, it does so even in the middle
    of a long compilation.
    """
    global _command
    if _command or sys.argv[1:2] not in (["train"], ["finetune"]):
        return
    _command = stop = Stop(_end)
    for number in SIGNALS:
        signal.signal(number, stop.handle)
    # Python runs handlers in the main thread only, once that comes back from C++
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, stop), daemon=True).start()
    atexit.register(_complete)


def _watch(reader: int, stop: Stop) -> None:
    while numbers := os.read(reader, 1):
        if numbers[0] in SIGNALS and not stop.unsaved and not stop.several:
            _end()


def _end() -> None:
    if not _ending.acquire(blocking=False):
        return  # another thread is at it
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"zoo: {AT_ONCE}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _complete() -> None:
    """The command is done: ignore signals while Python shuts down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def heeded(several: bool) -> Iterator[Stop]:
    """Handle signals during a run: as the command set them up, or by exceptions in other programs.

    Args:
      several: whether the run has several processes. JAX has a handler for SIGTERM then.

    Raises:
      Interrupted: by a signal, where there is nothing to lose.
    """

    def leave() -> None:
        raise AtOnce

    stop = _command or Stop(leave)
    stop.several = several
    before: dict[int, Any] = {}
    if not _command and threading.current_thread() is threading.main_thread():  # it gets them all
        ours = SIGNALS[several:]
        before = {number: signal.signal(number, stop.handle) for number in ours}
    try:
        yield stop
    except AtOnce:
        raise Interrupted(AT_ONCE) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
