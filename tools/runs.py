"""Draw the validation accuracy of several runs by step into one picture.

    python -m tools.runs PICTURE "from CIFAR-10=runs/a" "from random weights=runs/b" --line 97

RUNS are folders, each after what the picture calls it.
"""

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

from zoo.plotting import FAINT, LINES, save, tidy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--line", type=float, help="draw a line at this accuracy, percent")
    args = parser.parse_args()
    figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    for run, colour in zip(args.runs, LINES, strict=False):
        name, _, folder = run.partition("=")
        lines = (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()
        epochs = [json.loads(line) for line in lines]
        steps = [epoch["step"] for epoch in epochs]
        axes.plot(
            steps, [100 * e["val_accuracy"] for e in epochs], color=colour, marker=".", label=name
        )
    if args.line:
        axes.axhline(args.line, color=FAINT, linewidth=0.8, linestyle="--")
    axes.set(xlabel="step", ylabel="validation accuracy (%)")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right", frameon=False)
    tidy(axes)
    save(figure, args.picture)


if __name__ == "__main__":
    main()
