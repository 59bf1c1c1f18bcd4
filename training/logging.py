"""What a run leaves to look at while it goes on: metrics.jsonl, TensorBoard events, curves.png."""

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

from zoo.pretrained.fetch import write
from zoo.text import plain

Record = dict[str, Any]


class Log:
    """One record an epoch, appended to `metrics.jsonl` and written as TensorBoard events.

    A last line that a crash cut off is dropped, which is told on stderr.

    Args:
      out: folder of the run.
      step: where the run continues; records of later steps, from before a break, are dropped.
    """

    def __init__(self, out: Path, step: int):
        from tensorboardX import SummaryWriter

        self.out = out
        self.path = out / "metrics.jsonl"
        self.history = [record for record in read_records(self.path) if record["step"] <= step]
        # whole or not at all: a crash here must not cost the records of a long run
        write(self.path, "".join(map(_line, self.history)).encode())
        # Its thread only fills a buffer, which `add` writes out: the first write that fails would
        # end the thread, and `add` would wait for it for ever.
        self.events = SummaryWriter(str(out), purge_step=step + 1, flush_secs=10**6)

    def add(self, record: Record) -> None:
        """
        Raises:
          OSError: a full disk; the next record that can be written brings this one along.
        """
        self.history.append(record)
        write(self.path, "".join(map(_line, self.history)).encode())
        for name, value in record.items():
            if name not in ("epoch", "step"):
                self.events.add_scalar(name, value, record["step"])
        self.events.flush()

    def close(self) -> None:
        try:
            self.events.close()
        except OSError:  # a full disk still; it would try once more when Python ends
            writer = self.events.file_writer.event_writer
            writer._worker.stop()
            writer._closed = True


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def read_records(path: Path) -> list[Record]:
    """The records of a `metrics.jsonl`, none where there is no file.

    From the first line that is no record on, which a crash leaves behind, all is dropped with a
    note on stderr.
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
    """The record of the highest validation accuracy, of equal ones the first; NaN is the lowest."""

    def accuracy(record: Record) -> float:
        value: float = record["val_accuracy"]
        return value if math.isfinite(value) else -1.0

    return max(history, key=accuracy)


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
    blue, orange = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by everyone
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
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=100.5)
    rate.set_ylim(bottom=0)
    figure.suptitle(plain(title), parse_math=False)
    save_figure(figure, path)
    return True


def save_figure(figure: Any, path: Path, **settings: Any) -> None:
    """Write a figure of matplotlib; what its font has no letters for becomes boxes, unremarked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(path, **settings)
