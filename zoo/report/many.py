"""Count many networks, with one process for each core."""

import logging
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import ZooError
from ..registry import find, list_models
from ..runtime import machine
from .count import Count, count

FEW = 8  # networks that are counted in less time than it takes to start a process


def count_many(
    names: Sequence[str],
    *,
    input_size: int | None = None,
    in_chans: int | None = None,
    without: str = "",
    on_done: Callable[[], object] | None = None,
) -> list[Count]:
    """Count networks, many of them in a process for each core.

    Args:
      names: of `zoo.list_models()`.
      input_size: side of the square input; None takes each network's published one.
      in_chans: channels of the pictures; None counts the 3 of RGB.
      without: what to leave out of the networks, see `zoo.create`.
      on_done: called after each.

    Returns:
      Their counts, in order.

    Raises:
      ZooError: an unknown name, or an input below a network's minimum.
    """
    variants = [find(name) for name in names]
    settings: dict[str, Any] = dict(input_size=input_size, in_chans=in_chans, without=without)
    report = on_done or (lambda: None)
    if len(names) <= FEW or machine.cores() == 1:
        counts = []
        for name in names:
            counts.append(count(name, **settings))
            report()
        return counts
    # larger networks read larger pictures: they go first, so that all cores end together
    todo = deque(sorted(range(len(names)), key=lambda i: -variants[i].input_size))
    done: dict[int, Count] = {}

    def work() -> None:
        with _process() as process:
            assert process.stdin
            assert process.stdout
            while todo:
                try:
                    i = todo.popleft()
                except IndexError:  # another thread was quicker
                    break
                pickle.dump((variants[i].name, settings), process.stdin)
                process.stdin.flush()
                try:
                    answer = pickle.load(process.stdout)
                except EOFError:
                    raise ZooError(f"counting {names[i]}: its process ended early") from None
                if isinstance(answer, ZooError):
                    raise answer
                if answer is not None:
                    done[i] = answer
                    report()

    workers = min(machine.cores(), len(names))
    with ThreadPoolExecutor(workers) as pool:
        threads = [pool.submit(work) for _ in range(workers)]
        try:
            for thread in threads:
                thread.result()
        finally:
            todo.clear()  # after an error, or Ctrl-C
    for i, name in enumerate(names):
        if i not in done:  # a network that was registered in this process alone
            done[i] = count(name, **settings)
            report()
    return [done[i] for i in range(len(names))]


def _process() -> "subprocess.Popen[bytes]":
    """A process that runs `main`. `multiprocessing`'s would import the user's script again."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # an accelerator is the parent's
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
    )


def main() -> None:
    """Answer each (name, settings of `count`) on stdin, until stdin ends.

    Each answer on stdout is a `Count`, or a `ZooError`, or None for a name not known here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that stdin
    logging.getLogger("zoo").setLevel(logging.ERROR)  # the parent has reported plugins that fail
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a plugin may print
    while True:
        try:
            name, settings = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: Count | ZooError | None
        try:
            answer = count(name, **settings) if name in list_models() else None
        except ZooError as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()
