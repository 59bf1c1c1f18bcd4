"""What a finished run leaves to look at: report.md, its pictures, predictions.csv, card.md."""

import csv
import hashlib
import math
import platform
import shlex
import statistics
import sys
import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

import zoo
from zoo import plotting
from zoo.layers import Network
from zoo.paths import write as write_whole
from zoo.reading import read_picture
from zoo.sheet import FONT_SIZE, MARGIN, contact_sheet, fit
from zoo.text import block, cell, code, markdown, plain
from zoo.wrapped import Wrapped

from .config import TrainConfig
from .data import Dataset, Files, Source
from .evaluation import Predictions, interval, predict_all
from .logging import Record, best_of, draw_curves
from .parallel import Devices
from .sources.base import Tagged

MATRIX = 1000  # classes: a larger confusion matrix shows nothing
NAMED, NUMBERED = 100, 30  # classes, up to which the matrix has names, and numbers in its cells
EACH = 12  # pictures: of the most confident mistakes, and of the worst among the others
COLUMNS, WIDTH = 6, 160  # of the contact sheet; pixels a picture
TITLE_SIZE = 16  # pixels
TOP = 10  # confusions listed
SEVERAL = "|"  # between the names of a picture's classes

PICTURES = {
    "curves.png": "Loss, accuracy and learning rate by epoch",
    "confusion.png": "Confusion matrix",
    "mistakes.png": "The most confident mistakes, and the highest losses among the others",
}


def write(
    out: Path,
    model: Network,
    dataset: Dataset,
    config: TrainConfig,
    history: list[Record],
    kept: Record | None = None,
) -> None:
    """Measure a trained network picture by picture, and write down what there is to see.

    `out` gets `curves.png` and `confusion.png` (both with matplotlib only), `mistakes.png`,
    `predictions.csv`, `report.md` and `card.md`. Of several hosts the first one does it.

    Args:
      out: folder of the run, with its `model.safetensors`.
      history: one record an epoch, as in `metrics.jsonl`; at least one.
      kept: that of the epoch that the model is of; None: the last.

    Raises:
      OSError: the folder cannot be written.
    """
    if jax.process_index():
        return
    batch_size = max(config.batch_size // jax.process_count(), 1)  # so much fits in the memory
    predictions = predict_all(
        model, dataset.val, batch_size=batch_size, devices=Devices(config.engine)
    )
    where = config.data if len(config.data) <= 36 else "…" + config.data[-35:]
    title = f"{config.model} on {where}"
    drawn = set()
    if draw_curves(history, out / "curves.png", title):
        drawn.add("curves.png")
        if len(dataset.classes) <= MATRIX and not dataset.multilabel:
            matrix = confusion(predictions.labels, predictions.classes, len(dataset.classes))
            draw_confusion(matrix, dataset.classes, out / "confusion.png", title)
            drawn.add("confusion.png")
    else:
        told = "curves.png and confusion.png need matplotlib: pip install matplotlib"
        tqdm.write(told, file=sys.stderr)
    mistakes(predictions, dataset, model).save(out / "mistakes.png")
    drawn.add("mistakes.png")
    write_predictions(out / "predictions.csv", predictions, dataset)
    _write_text(out / "card.md", card(config, model, dataset, history, out, kept))
    text = report(config, model, dataset, history, predictions, drawn, kept)
    _write_text(out / "report.md", text)


# --- text ----------------------------------------------------------------------------------------


def card(
    config: TrainConfig,
    model: Network,
    dataset: Dataset,
    history: list[Record],
    out: Path | None = None,
    kept: Record | None = None,
) -> str:
    """What `model.safetensors` holds, for whoever finds it.

    Args:
      out: folder of the run; None: `config.folder`. Its `model.safetensors` is hashed and its
        `curves.png` shown, where they are there.
      kept: the record of the epoch that the model is of; None: the last.
    """
    out = out or config.folder
    kept = kept or history[-1]
    which = "last epoch" if kept is history[-1] else f"epoch {kept['epoch']}"
    best, count = best_of(history), len(dataset.val)
    accuracy = kept["val_accuracy"]
    correct = round(accuracy * count) if math.isfinite(accuracy) else 0
    rows = [
        (f"validation accuracy, {which}", f"{accuracy:.2%} {_interval(correct, count)}"),
        (f"validation loss, {which}", f"{kept['val_loss']:.4f}"),
        ("best epoch", f"{best['epoch']} ({best['val_accuracy']:.2%})"),
        ("training time", f"{_seconds(history):.0f} s on {_device()}"),
        ("versions", _versions()),
        ("seed", f"{config.seed}"),
        ("input", _input(model)),
        ("classes", markdown(_listed(dataset.classes))),
        ("left out as unreadable", f"{len(dataset.skipped)}"),
    ]
    if (file := out / "model.safetensors").exists():
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        rows.append(("sha256 of model.safetensors", f"`{digest}`"))
    curves = "![curves](curves.png)\n\n" if (out / "curves.png").exists() else ""
    return f"""# {markdown(config.model)} on {markdown(config.data)}

{zoo.count(model).params:,} parameters, trained from {_started(config)} on {len(dataset.train):,} \
pictures of {len(dataset.classes)} classes, measured on {count:,} others.

{_table(("", ""), rows)}

{curves}{_loaded(model)}

What trained it:

{_command(config)}

{_settings(config)}
"""


def _loaded(model: Network) -> str:
    """How to have the network again, as Python."""
    lines = ['model = zoo.load("model.safetensors")']
    lines += ['logits = model(model.preprocess(["picture.png"]))']
    if isinstance(model, Wrapped):
        lines = [f"model = ...  # {model.spec.name}", 'zoo.restore(model, "model.safetensors")']
    return block("\n".join(["import zoo", *lines]), "python")


def report(
    config: TrainConfig,
    model: Network,
    dataset: Dataset,
    history: list[Record],
    predictions: Predictions,
    drawn: Iterable[str],
    kept: Record | None = None,
) -> str:
    """The text of report.md: the result, class by class, the mistakes and the run.

    Args:
      drawn: which of `PICTURES` there are.
      kept: the record of the epoch that the model is of; None: the last.
    """
    images = {name: f"![{PICTURES[name]}]({name})\n\n" for name in drawn}
    result = _result(history, predictions, kept or history[-1], config.own_loss)
    parts = [
        f"# {markdown(config.model)} on {markdown(config.data)}\n\n",
        f"{_table(('', 'on the held-out pictures'), result)}\n\n",
        images.get("curves.png", ""),
        f"## Classes, the lowest {'precision' if dataset.multilabel else 'recall'} first\n\n",
        f"{_by_class(predictions, dataset.classes)}\n\n",
        images.get("confusion.png", ""),
        "## Mistakes\n\n",
        "" if dataset.multilabel else f"{_confused(predictions, dataset.classes)}\n\n",
        images.get("mistakes.png", ""),
        "Every picture's answer is in [predictions.csv](predictions.csv).\n\n",
        "## Run\n\n",
        f"{_table(('', ''), _facts(config, model, dataset, history))}\n\n",
        f"{_command(config)}\n\n",
        f"{_settings(config)}\n",
    ]
    if dataset.skipped:
        parts.append("\n## Left out as unreadable\n\n")
        parts += [f"- {code(line)}\n" for line in dataset.skipped]
    return "".join(parts)


def command(config: TrainConfig) -> str:
    """The command line of a run, or in Python its call: what differs from the defaults."""
    defaults = TrainConfig().to_dict()
    if config.objects:
        given = {item.partition("=")[0] for item in config.objects.split(", ")} | {"objects"}
        changed = [
            f"{key}={value!r}"
            for key, value in config.to_dict().items()
            if value != defaults[key] and key not in given
        ]
        return f"zoo.fit(zoo.TrainConfig({', '.join(changed)}), {config.objects})"
    words = ["zoo", "train", config.model, "--data", config.data]
    for key, value in config.to_dict().items():
        if key in ("model", "data") or value == defaults[key]:
            continue
        option = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def _command(config: TrainConfig) -> str:
    return block(command(config), "python" if config.objects else "sh")


def cut(text: str, length: int) -> str:
    """The text, or as much of its beginning as `length` characters hold, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _result(
    history: list[Record], predictions: Predictions, kept: Record, own_loss: bool
) -> list[tuple[str, str]]:
    labels, answers, correct = predictions.labels, predictions.classes, predictions.correct
    count, classes = predictions.logits.shape
    best, silent = best_of(history), int((answers < 0).sum())
    loss = f"{kept['val_loss']:.4f}" if own_loss else f"{predictions.losses.mean():.4f} nats"
    hits = f"{correct / count:.2%}** {_interval(correct, count)}"
    if predictions.multilabel:
        mean = predictions.mean_average_precision
        rows = [("mean average precision", f"**{mean:.2%}**"), ("first answer right", f"**{hits}")]
    else:
        rows = [("accuracy", f"**{hits}")]
    if classes > 5:
        what = "a true class" if predictions.multilabel else "true class"
        rows.append((f"{what} among the first five", f"{kept['val_top5']:.2%}"))
    if not predictions.multilabel:
        own = labels[predictions.right]
        right, counts = (np.bincount(x, minlength=classes) for x in (own, labels))
        seen = counts > 0
        rows += [
            ("recall, mean of the classes", f"{(right[seen] / counts[seen]).mean():.2%}"),
            ("always saying the commonest class", f"{counts.max() / count:.2%}"),
        ]
    known = ("val_loss", "val_accuracy", "val_top5")
    rows += [
        ("loss", loss),
        *(
            (markdown(name.removeprefix("val_")), f"{value:.4g}")
            for name, value in kept.items()
            if name.startswith("val_") and name not in known
        ),
        ("best epoch", f"{best['epoch']} ({best['val_accuracy']:.2%})"),
    ]
    if silent:
        rows.append(("without an answer (NaN)", f"{silent:,} pictures"))
    return rows


def _facts(
    config: TrainConfig, model: Network, dataset: Dataset, history: list[Record]
) -> list[tuple[str, str]]:
    size, seconds = model.preprocess.size, _seconds(history)
    cost = zoo.count(model, input_size=size)
    speed = statistics.median(record["images_per_second"] for record in history)
    waited = sum(record["input_wait"] * record["seconds"] for record in history)
    return [
        ("network", f"{markdown(config.model)}, from {_started(config)}"),
        ("parameters", f"{cost.params:,}"),
        ("multiply-accumulates a picture", f"{cost.macs:,}"),
        ("input", _input(model)),
        ("data", markdown(config.data)),
        ("classes", f"{len(dataset.classes)}"),
        ("pictures to train on", f"{len(dataset.train):,}"),
        ("held-out pictures", f"{len(dataset.val):,} ({markdown(dataset.split)})"),
        ("left out", markdown(", ".join(dataset.left_out)) or "nothing"),
        ("left out as unreadable", f"{len(dataset.skipped):,}"),
        ("epochs", f"{history[-1]['epoch']}"),
        ("device", _device()),
        ("training time", f"{seconds:.0f} s"),
        ("speed, median epoch", f"{speed:,.0f} images/s"),
        ("waiting for input", f"{waited / max(seconds, 1e-9):.0%} of the time"),
        ("versions", _versions()),
    ]


def _by_class(predictions: Predictions, classes: Sequence[str]) -> str:
    if predictions.multilabel:
        found, shown = predictions.average_precisions, predictions.labels.sum(0)
        order = np.argsort(np.nan_to_num(found, nan=2), kind="stable").tolist()
        each = [
            (markdown(classes[i]), f"{shown[i]:,.0f}", f"{found[i]:.1%}" if shown[i] else "")
            for i in order
        ]
        return _table(("class", "pictures", "average precision"), each)
    labels, answers = predictions.labels, predictions.classes
    right, counts, said = (
        np.bincount(x, minlength=len(classes))
        for x in (labels[answers == labels], labels, answers[answers >= 0])
    )
    rows = []
    for i in np.argsort(right / np.maximum(counts, 1), kind="stable").tolist():
        low, high = interval(int(right[i]), int(counts[i]))
        recall = f"{right[i] / counts[i]:.1%} ({low:.1%} to {high:.1%})" if counts[i] else ""
        precision = f"{right[i] / said[i]:.1%}" if said[i] else ""
        rows.append((markdown(classes[i]), f"{counts[i]:,}", f"{right[i]:,}", recall, precision))
    return _table(("class", "pictures", "right", "recall (95% interval)", "precision"), rows)


def _confused(predictions: Predictions, classes: Sequence[str]) -> str:
    """The most frequent confusions as a table."""
    labels, answers = predictions.labels, predictions.classes
    wrong = (answers != labels) & (answers >= 0)
    if not wrong.any():
        return "None."
    counts = np.bincount(labels)
    pairs, times = np.unique(np.stack([labels[wrong], answers[wrong]]), axis=1, return_counts=True)
    rows = []
    for i in np.argsort(-times, kind="stable")[:TOP].tolist():
        label, said = pairs[:, i].tolist()
        share = times[i] / counts[label]
        names = markdown(classes[label]), markdown(classes[said])
        rows.append((*names, f"{times[i]:,}", f"{share:.1%}"))
    head = ("class", "taken for", "times", "of the class")
    more = f"\n\nand {len(times) - TOP:,} more pairs." if len(times) > TOP else ""
    return _table(head, rows) + more


def _settings(config: TrainConfig) -> str:
    """All settings as a table, those that were set first."""
    defaults = TrainConfig().to_dict()
    rows = [
        (key, markdown(f"{value}"), "" if value == defaults[key] else f"{defaults[key]}")
        for key, value in config.to_dict().items()
    ]
    head = ("setting", "value", "default, where it differs")
    return _table(head, sorted(rows, key=lambda row: not row[2]))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, rows)])


def _interval(correct: int, count: int) -> str:
    low, high = interval(correct, count)
    return f"({correct:,} of {count:,}, 95% interval {low:.2%} to {high:.2%})"


def _started(config: TrainConfig) -> str:
    if "model=" in (config.objects or ""):
        return "the weights it was given with"
    if not config.weights:
        return "random weights"
    return f"weights from {markdown(Path(config.weights).name)}"


def _input(model: Network) -> str:
    height, width, channels = model.preprocess.shape
    return f"{height} x {width} {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[channels]}"


def _seconds(history: list[Record]) -> float:
    seconds: float = sum(record["seconds"] for record in history)
    return seconds


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "optax"))
    return f"Python {platform.python_version()}, {packages}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _write_text(path: Path, text: str) -> None:
    # names of files may be no text at all
    write_whole(path, text.encode("utf-8", errors="backslashreplace"))


# --- every picture -------------------------------------------------------------------------------


def write_predictions(path: Path, predictions: Predictions, dataset: Dataset) -> None:
    """CSV, a line a picture of `dataset.val`: its file or number, label, prediction, probability.

    The prediction is empty where the network gives NaN. Names that a spreadsheet would take for a
    formula have ' before them. Where pictures may show several classes their names have | between
    them, those of a probability above 1/2 are the prediction, and the probability is the highest.
    """
    names = [cell(name) for name in dataset.classes]
    columns = predictions.labels, predictions.classes, predictions.probabilities

    def several(which: np.ndarray) -> str:
        return SEVERAL.join(names[i] for i in np.flatnonzero(which))

    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(("picture", "label", "prediction", "probability"))
        for i, (label, said, probability) in enumerate(zip(*columns, strict=True)):
            picture = cell(picture_name(dataset.val, i))
            answer = names[said] if said >= 0 else ""
            if predictions.multilabel:
                true, answer = several(label > 0), several(predictions.logits[i] > 0)
            else:
                true = names[label]
            rows.writerow((picture, true, answer, f"{probability:.6f}"))


def picture_name(source: Source, index: int) -> str:
    """The path of a picture, or its number where it is no file; nothing is decoded."""
    return source.examples[index][0] if isinstance(source, Files | Tagged) else f"{index}"


def mistakes(predictions: Predictions, dataset: Dataset, model: Network) -> Image.Image:
    """A contact sheet in two parts, `EACH` pictures each, as the network sees them.

    The mistakes that it is surest of, which show wrong labels; then the highest losses among all
    other pictures, right or wrong.
    """
    surest, worst, count = select(predictions)
    parts = [
        (title, _contact_sheet(chosen.tolist(), predictions, dataset, model))
        for title, chosen in (
            (f"The most confident of {count:,} mistakes", surest),
            ("The highest losses among the other pictures", worst),
        )
        if len(chosen)
    ]
    font = ImageFont.load_default(TITLE_SIZE)
    width, line = COLUMNS * (WIDTH + 2 * MARGIN), TITLE_SIZE + 2 * MARGIN
    height = sum(line + pictures.height for _, pictures in parts)
    whole = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(whole), 0
    for title, pictures in parts:
        draw.text((MARGIN, top + MARGIN), title, fill="black", font=font)
        whole.paste(pictures, (0, top + line))
        top += line + pictures.height
    return whole


def select(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, int]:
    """(the most confident mistakes, the highest losses among the other pictures, all mistakes).

    Indices of pictures, the worst first, `EACH` at most. NaN is no mistake, but the highest loss.
    """
    answers = predictions.classes
    wrong = np.flatnonzero(~predictions.right & (answers >= 0))
    surest = wrong[np.argsort(-predictions.probabilities[wrong], kind="stable")][:EACH]
    order = np.argsort(-np.nan_to_num(predictions.losses, nan=np.inf), kind="stable")
    return surest, order[~np.isin(order, surest)][:EACH], len(wrong)


def _contact_sheet(
    chosen: Sequence[int], predictions: Predictions, dataset: Dataset, model: Network
) -> Image.Image:
    pictures = []
    for i in chosen:
        pixels = model.preprocess.image(dataset.val[i]["image"])
        picture = read_picture(pixels, pixels.shape[-1])
        if picture.width < WIDTH:  # the sheet makes none larger
            picture = picture.resize((WIDTH, WIDTH), Image.Resampling.NEAREST)
        pictures.append(np.atleast_3d(np.asarray(picture)))
    captions = [_caption(i, predictions, dataset) for i in chosen]
    return contact_sheet(pictures, captions, columns=COLUMNS, width=WIDTH)


def _caption(i: int, predictions: Predictions, dataset: Dataset) -> list[str]:
    """Its name, the true class, and what it was taken for or the network thought of next."""
    name = picture_name(dataset.val, i)
    name = Path(name).name if isinstance(dataset.val, Files | Tagged) else f"picture {name}"
    font = ImageFont.load_default(FONT_SIZE)
    name = fit(plain(name)[::-1], font, WIDTH)[::-1]  # its end tells it from others
    if predictions.multilabel:
        shown = [dataset.classes[k] for k in np.flatnonzero(predictions.labels[i])]
        said, share = predictions.classes[i], predictions.probabilities[i]
        first = _answer("first", dataset.classes[said], share) if said >= 0 else "first: NaN"
        return [name, fit(f"true: {', '.join(map(plain, shown)) or 'none'}", font, WIDTH), first]
    label, said = int(predictions.labels[i]), int(predictions.classes[i])
    true = np.exp(-predictions.losses[i])
    lines = [name, _answer("true", dataset.classes[label], true)]
    if said < 0:
        return [*lines, "said: NaN"]
    if said != label:
        return [*lines, _answer("said", dataset.classes[said], predictions.probabilities[i])]
    logits = predictions.logits[i].astype(np.float64)
    other = int(np.where(np.arange(len(logits)) == label, -np.inf, logits).argmax())
    share = true * np.exp(logits[other] - logits[label])
    return [*lines, _answer("next", dataset.classes[other], share)]


def _answer(what: str, name: str, share: float) -> str:
    """A line of a caption: of what is too long for it, the name gives way."""
    font = ImageFont.load_default(FONT_SIZE)
    around = font.getlength(f"{what}: , {share:.1%}")
    return f"{what}: {fit(name, font, int(WIDTH - around))}, {share:.1%}"


# --- the confusion matrix ------------------------------------------------------------------------


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """How many pictures of each class (row) were taken for each class (column), int [K, K].

    Args:
      labels, predictions: int [N]; pictures with a prediction below 0 are left out.
    """
    answered = predictions >= 0
    cells = labels[answered].astype(np.int64) * classes + predictions[answered]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path, title: str) -> bool:
    """The confusion matrix [K, K] as a picture; False without matplotlib.

    The colour is the share of the true class, its square root to be exact, so that a few mistakes
    are seen among many hits. Up to 30 classes the cells say how many and which share.
    """
    try:
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        return False
    k = len(matrix)
    names = [cut(plain(name), 24) for name in classes] if k <= NAMED else []
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(0.45 * k, 3.0), 11.0)  # inches, as all below; 72 points are one
    cell = 72 * side / k
    small = min(9.0, 0.75 * cell)  # points of the names: lines of text must not touch
    longest = max(map(len, names), default=4)
    margin = 0.6 * small / 72 * longest + 0.5
    upright = longest * 0.6 * small > 0.9 * cell  # names below the columns would run into another
    below = margin if upright else 0.6
    figure = Figure(figsize=(margin + side + 1.2, 0.5 + side + below), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    norm = PowerNorm(0.5, 0, 1)
    drawn = axes.imshow(shares, cmap="Blues", norm=norm)  # its lightness falls steadily
    if names:
        axes.set_xticks(
            range(k), names, rotation=90 if upright else 0, fontsize=small, parse_math=False
        )
        axes.set_yticks(range(k), names, fontsize=small, parse_math=False)
    if k <= NUMBERED:
        for row, column in np.argwhere(matrix).tolist():
            share = shares[row, column]
            digits = 0 if 0.01 <= share <= 0.99 or share == 1 else 1  # 999 of 1000 are not 100%
            axes.text(
                column,
                row,
                f"{matrix[row, column]:,}\n{share:.{digits}%}",
                ha="center",
                va="center",
                fontsize=min(9.0, 0.26 * cell),
                color="white" if norm(share) > 0.6 else "black",
                clip_on=True,  # which spares the layout from measuring it
            )
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(textwrap.fill(plain(title), int(12 * side)), fontsize=10, parse_math=False)
    # a fifth of an inch wide, whatever the matrix
    bar = figure.colorbar(
        drawn, ax=axes, shrink=0.8, aspect=4 * side, pad=0.02, format=PercentFormatter(1)
    )
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.set_label("share of the true class")
    plotting.save(figure, path, bbox_inches="tight")
    return True
