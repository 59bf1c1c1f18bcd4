"""What a run writes while it trains: its progress, metrics.jsonl and TensorBoard events."""

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from zoo.paths import write

from .private import close_events
from .probing import Distribution, Probe

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

    def add_probe(self, step: int, probe: Probe) -> None:
        """Add histograms of each stage's activations and gradients to the TensorBoard events."""
        for stage in probe.stages:
            for kind, values in (
                ("activations", stage.activations),
                ("gradients", stage.gradients),
            ):
                if values is not None:
                    self._events.add_histogram(f"{kind}/{stage.name}", step, values)

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


def say(line: str) -> None:
    """Print a line on stderr, above the bar if there is one. Only the first process does."""
    if jax.process_index() == 0:
        tqdm.write(line, file=sys.stderr)


COMPILING = "{desc}: compiling..."
# in 80 columns, with a little bar still; the time that is left is "?" until a step tells it
STEPPING = "{desc} {percentage:3.0f}%|{bar}| {remaining} left, {rate_fmt}{postfix}"


class Progress:
    """The progress of a run on stderr: a line for each epoch and, on a terminal, a bar.

    Args:
      epochs: of the run.
      pictures: trained on in an epoch.
      done: pictures that the run has been trained on before.
    """

    def __init__(self, epochs: int, pictures: int, done: int):
        self._epochs, self._compiling = epochs, True
        first = jax.process_index() == 0
        self._bar = tqdm(
            total=epochs * pictures,
            initial=done,
            unit="img",
            unit_scale=True,
            disable=None if first else True,  # None: unless stderr is a terminal
            dynamic_ncols=True,
            smoothing=0.05,
            bar_format=COMPILING,
        )

    def go_back(self, done: int) -> None:
        """Set the bar back to so many pictures."""
        self._show(compiling=True)
        self._stand(done)

    def begin(self, epoch: int) -> None:
        """Show which epoch begins, counted from 0."""
        self._bar.set_description_str(f"epoch {epoch + 1}/{self._epochs}")

    def advance(self, pictures: int) -> None:
        """Count the pictures of a step."""
        if self._compiling:  # the step that ends it tells nothing of the speed
            self._show(compiling=False)
            self._stand(self._bar.n + pictures)
        else:
            self._bar.update(pictures)

    def _show(self, *, compiling: bool) -> None:
        self._compiling = compiling
        self._bar.bar_format = COMPILING if compiling else STEPPING

    def _stand(self, done: float) -> None:
        """Set the bar to so many pictures, and measure its speed from here."""
        self._bar.n = self._bar.initial = self._bar.last_print_n = int(done)
        self._bar.unpause()
        self._bar.refresh()

    def glance(self, loss: float, accuracy: float, waiting: float) -> None:
        """Show the means of the epoch so far, and the share of time without a batch."""
        self._bar.set_postfix_str(f"loss {loss:.3f} acc {accuracy:.1%} wait {waiting:.0%}")

    def end(self, record: Record) -> None:
        """Print the line of a finished epoch."""
        say(
            f"epoch {record['epoch']:>3}/{self._epochs}"
            f"  loss {record['train_loss']:.3f}  acc {record['train_accuracy']:6.1%}"
            f"  val loss {record['val_loss']:.3f}  val acc {record['val_accuracy']:6.1%}"
            f"  {record['images_per_second']:,.0f} img/s"
        )

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


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

    def add_histogram(self, name: str, step: int, values: Distribution) -> None:
        from tensorboardX.summary import histogram_raw

        count, mean = sum(values.counts), values.mean
        if not self._writer or not math.isfinite(values.norm):
            return
        summary = histogram_raw(
            name,
            min=values.edges[0],
            max=values.edges[-1],
            num=count,
            sum=mean * count,
            sum_squares=(values.std**2 + mean**2) * count,
            bucket_limits=list(values.edges[1:]),
            bucket_counts=list(values.counts),
        )
        with suppress(OSError):
            self._writer.write_event(self._event(step=step, wall_time=time.time(), summary=summary))

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
