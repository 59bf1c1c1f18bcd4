"""What a run leaves to look at: metrics.jsonl, TensorBoard events, curves.png."""

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Log:
    """One record an epoch, appended to `metrics.jsonl` and written as TensorBoard events.

    Args:
      out: folder of the run.
      step: where the run continues; records of later steps, from before a break, are dropped.
    """

    def __init__(self, out: Path, step: int):
        from tensorboardX import SummaryWriter

        self.out = out
        self.path = out / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.history: list[Record] = [r for r in map(json.loads, lines) if r["step"] <= step]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in self.history))
        self.events = SummaryWriter(str(out), purge_step=step + 1)

    def add(self, record: Record) -> None:
        self.history.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if name not in ("epoch", "step"):
                self.events.add_scalar(name, value, record["step"])
        self.events.flush()

    def close(self) -> None:
        self.events.close()


def draw_curves(history: list[Record], path: Path, title: str) -> bool:
    """Loss and accuracy by epoch as a picture; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    names = {"train": "training", "val": "validation"}
    blue, orange = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by everyone
    for axes, name, unit, scale in (
        (loss, "loss", "cross-entropy, nats", 1),
        (accuracy, "accuracy", "accuracy, %", 100),
    ):
        for split, colour in (("train", blue), ("val", orange)):
            values = [record[f"{split}_{name}"] * scale for record in history]
            label = f"{names[split]}, at the end {values[-1]:.3g}"
            axes.plot(epochs, values, color=colour, label=label, marker=".", markersize=4)
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="best", frameon=False)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=100.5)
    figure.suptitle(title)
    figure.savefig(path)
    return True
