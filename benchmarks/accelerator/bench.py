"""What the steps share: rows that are kept as they come, checks, and time boxes."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax

from ..harness import Result, Row
from .sizes import Sizes

AGAIN = 20.0  # seconds till the alarm of a time box rings again, where something swallowed it
HOLDS, FAILS, NOT_RUN, LEFT_OUT = "holds", "fails", "not run", "left out"


class OutOfTime(BaseException):
    """A time box ended. Not an `Exception`, which others on the way would take for their own."""


@dataclass
class Bench:
    """A run of all steps: its rows, and what one step hands on to the next.

    A row says `step`, `what`, its figures, and `check`: "holds", "fails", "not run: ..." (a check
    that nothing came of), "left out: ..." (what cannot or need not be had here), or nothing.
    """

    result: Result
    sizes: Sizes
    device: jax.Device
    rows: list[Row] = field(default_factory=list)
    step: str = ""
    expected: list[str] = field(default_factory=list)  # checks of this step that are still to come
    matmul: float = 0.0  # FLOP/s of a large bfloat16 matrix product on one device, once measured
    copy: float = 0.0  # bytes/s, read and written, of a large copy
    kept: Any = None  # the training step that `why` looks into

    def add(self, what: str, *, check: str = "", **figures: Any) -> None:
        """A row: into the file, and as a line to the terminal."""
        row = {"step": self.step, "what": what, **figures, "check": check}
        self.rows.append(row)
        self.expected = [name for name in self.expected if name != what]
        self.result.put([row])
        told = [f"{name} {_short(value)}" for name, value in figures.items() if value is not None]
        print(f"{self.step}: {what}: {', '.join([*told, *filter(None, [check])])}", flush=True)

    def check(self, what: str, holds: bool, **figures: Any) -> None:
        self.add(what, check=HOLDS if holds else FAILS, **figures)

    def expect(self, *checks: str) -> None:
        """What this step is to check: told as not run if it ends before."""
        self.expected += checks

    def note(self, line: str) -> None:
        self.result.note(f"{self.step}: {line}")

    @contextmanager
    def attempt(self, what: str, *, may_not_fit: bool = False) -> Iterator[None]:
        """A row that may fail without what comes after it failing too."""
        try:
            yield
        except Exception as error:
            if may_not_fit and "RESOURCE_EXHAUSTED" in str(error):
                self.add(what, check=f"{LEFT_OUT}: out of memory")
            else:
                self.add(what, check=f"{FAILS}: {one_line(error)}")

    @property
    def good(self) -> bool:
        """Whether every check holds."""
        return not any(row["check"].startswith((FAILS, NOT_RUN)) for row in self.rows)


Step = tuple[str, Callable[[Bench], None], float]  # name, what it does, its share of the time


def run(bench: Bench, steps: Sequence[Step], seconds: float) -> None:
    """All steps in order; what one leaves of its time the next ones have."""
    begun, share = time.monotonic(), 0.0
    total = sum(part for _, _, part in steps)
    for name, function, part in steps:
        share += part / total
        bench.step, bench.expected = name, []
        why = ""
        try:
            with time_box(begun + share * seconds - time.monotonic()):
                function(bench)
        except OutOfTime:
            why = "its time box ended"
            bench.add("the rest of this step", check=f"{LEFT_OUT}: {why}")
        except Exception as error:
            why = one_line(error)
            bench.add("this step", check=f"{FAILS}: {why}")
        for check in list(bench.expected):
            bench.add(check, check=f"{NOT_RUN}: {why or 'the step did not come to it'}")


@contextmanager
def time_box(seconds: float) -> Iterator[None]:
    """Stop what is done here after so long; what runs outside of Python is waited for.

    Raises:
      OutOfTime: the time is over.
    """

    def over(_number: int, _frame: object) -> None:
        raise OutOfTime

    if seconds <= 0:
        raise OutOfTime
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def time_left() -> float:
    """Seconds of the time box that this runs in."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def one_line(error: BaseException) -> str:
    """An error in a line of a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
