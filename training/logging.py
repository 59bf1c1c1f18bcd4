"""What a run writes while it trains: metrics.jsonl, TensorBoard events and curves.png."""

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo import plotting
from zoo.paths import write
from zoo.text import plain

from .private import close_events

Record = dict[str, Any]


class Log:
    """One record an epoch, in `metrics.jsonl` and as TensorBoard events.

    Args:
      out: folder of the run.
      history: the records of the finished epochs.
      step: the step from which the run continues.
    """

    def __init__(self, out: Path, history: list[Record], step: int):
        self.path = out / "metrics.jsonl"
        self.history = history
        self._behind = True  # whether the file lacks records
        with suppress(OSError):  # the next record tells
            self.write()
        self._events = _Events(out, step)

    def add(self, record: Record) -> None:
        """Write the record of an epoch.

        Raises:
          OSError: the disk is full; the record is written together with the next one that can be.
        """
        self.history.append(record)
        self._behind = True
        self._events.add(record)
        self.write()

    def write(self) -> None:
        """Write the records that the file lacks.

        Raises:
          OSError: a full disk.
        """
        if self._behind:
            # whole or not at all: a crash here must not cost the records of a long run
            write(self.path, "".join(map(_line, self.history)).encode())
            self._behind = False

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._events.close()


class _Events:
    """TensorBoard events of the records. Those that a full disk refuses are lost.

    tensorboardX's `SummaryWriter` would hang: a full disk ends the thread that it waits for.
    """

    def __init__(self, out: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._event = event_pb2.Event
        self._writer = None
        with suppress(OSError):
            self._writer = EventsWriter(str(out / "events"), f".{step}")
            # events of later steps, from before a break, are not shown
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(self._event(step=step + 1, session_log=start))

    def add(self, record: Record) -> None:
        from tensorboardX.summary import scalar

        for name, value in record.items():
            number = isinstance(value, int | float) and name not in ("epoch", "step")
            if self._writer and number:
                event = self._event(
                    step=record["step"], wall_time=time.time(), summary=scalar(name, value)
                )
                with suppress(OSError):
                    self._writer.write_event(event)
        if self._writer:
            with suppress(OSError):
                self._writer.flush()

    def close(self) -> None:
        if self._writer:
            with suppress(OSError):
                self._writer.flush()
            with suppress(OSError):
                close_events(self._writer)


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def read_records(path: Path) -> list[Record]:
    """The records of a `metrics.jsonl`; none if there is no file.

    A crash can leave an incomplete line. It and all lines after it are dropped, with a note on
    stderr.
    """
    records: list[Record] = []
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "step" not in record:
            lost = f"line {number}" if number == len(lines) else f"lines {number} to {len(lines)}"
            print(f"{path}: dropping {lost}, cut off by a crash", file=sys.stderr)
            break
        records.append(record)
    return records


def best_of(history: list[Record]) -> Record:
    """The record with the highest validation accuracy; of equal ones the first. NaN is lowest."""

    def accuracy(record: Record) -> float:
        value: float = record["val_accuracy"]
        return value if math.isfinite(value) else -1.0

    return max(history, key=accuracy)


def kept_of(history: list[Record], keep: str) -> Record:
    """The record of the epoch that `TrainConfig.keep` asks for."""
    return best_of(history) if keep == "best" else history[-1]


def draw_curves(history: list[Record], path: Path, title: str) -> bool:
    """Loss, accuracy and learning rate by epoch as a picture; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    epochs = [record["epoch"] for record in history]
    best = history.index(best_of(history))
    figure = Figure(figsize=(13, 3.8), dpi=150)
    figure.set_layout_engine("constrained", wspace=0.04)
    loss, accuracy, rate = figure.subplots(1, 3)
    names = {"train": "training", "val": "validation"}
    blue, orange = plotting.BLUE, plotting.VERMILLION
    line: dict[str, Any] = {"marker": ".", "markersize": 4}
    ring: dict[str, Any] = {"marker": "o", "markersize": 8, "markerfacecolor": "none"}
    ring |= {"linestyle": "none", "clip_on": False}

    def column(name: str, scale: float = 1) -> list[float]:
        """Values by epoch; NaN, which leaves a gap, for what cannot be drawn."""
        values = [record.get(name, math.nan) * scale for record in history]
        return [value if math.isfinite(value) else math.nan for value in values]

    for axes, name, unit, scale in (
        (loss, "loss", "cross-entropy, nats", 1),
        (accuracy, "accuracy", "accuracy, %", 100),
    ):
        for split, colour in (("train", blue), ("val", orange)):
            values = column(f"{split}_{name}", scale)
            label = f"{names[split]}, at the end {values[-1]:.3g}"
            axes.plot(epochs, values, color=colour, label=label, **line)
        val = column(f"val_{name}", scale)[best]
        if math.isfinite(val):
            label = f"best epoch, {epochs[best]}: {val:.3g}"
            axes.plot(epochs[best], val, color=orange, label=label, **ring)
        axes.set_ylabel(unit)
        axes.legend(loc="best", frameon=False)
    rate.plot(epochs, column("learning_rate"), color=blue, **line)
    rate.set_ylabel("learning rate at the epoch's end")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        edge = 0.5 if len(epochs) > 1 else 1  # wide enough for a whole number on the axis
        axes.set_xlim(epochs[0] - edge, epochs[-1] + edge)
        axes.xaxis.get_major_locator().set_params(integer=True)
        plotting.tidy(axes)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=100.5)
    rate.set_ylim(bottom=0)
    figure.suptitle(plain(title), parse_math=False)
    plotting.save(figure, path)
    return True
