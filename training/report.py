"""The report on a finished run: report.md with its pictures, predictions.csv and card.md."""

import csv
import hashlib
import math
import platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

import zoo
from zoo.layers import Network
from zoo.paths import write as write_whole
from zoo.pretrained.hub import is_address
from zoo.text import block, cell, code, markdown, markdown_link
from zoo.wrapped import Wrapped

from .config import TrainConfig
from .data import Dataset
from .evaluation import interval
from .logging import Record, best_of
from .mistakes import mistakes, picture_name
from .parallel import Devices
from .plots import draw_confusion, draw_curves, draw_probe
from .predictions import Predictions, predict_all
from .typed import typed_for

MATRIX = 1000  # classes: a larger confusion matrix shows nothing
NAMED = 100  # classes that the card names
TOP = 10  # confusions listed
SEVERAL = "|"  # between the names of a picture's classes

PICTURES = {
    "curves.png": "Loss, accuracy and learning rate by epoch",
    "probe.png": "Activations and gradients by layer",
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
    """Evaluate a trained network on every validation picture, and write the report on it.

    It is made of `report.md`, `card.md`, `predictions.csv`, `mistakes.png` and, if matplotlib is
    installed, `curves.png`, `confusion.png` and, of a run with `--probe`, `probe.png`. Only the
    first of several processes writes it.

    Args:
      out: folder of the run, with its `model.safetensors`.
      model: trained.
      dataset: that it was trained on.
      config: of the run.
      history: one record an epoch, as in `metrics.jsonl`; at least one.
      kept: the record of the epoch whose weights the model has; None: the last.

    Raises:
      OSError: the folder cannot be written.
    """
    if jax.process_index():
        return
    batch_size = max(
        config.batch_size // jax.process_count(), 1
    )  # which is known to fit into memory
    predictions = predict_all(
        model, dataset.val, batch_size=batch_size, devices=Devices(config.engine)
    )
    where = config.data if len(config.data) <= 36 else "…" + config.data[-35:]
    title = f"{config.model} on {where}"
    drawn = set()
    if draw_curves(history, out / "curves.png", title):
        drawn.add("curves.png")
        if draw_probe(history, out / "probe.png", title):
            drawn.add("probe.png")
        if len(dataset.classes) <= MATRIX and not dataset.multilabel:
            matrix = confusion(predictions.labels, predictions.classes, len(dataset.classes))
            draw_confusion(matrix, dataset.classes, out / "confusion.png", title)
            drawn.add("confusion.png")
    else:
        hint = "curves.png and confusion.png need matplotlib: pip install matplotlib"
        tqdm.write(hint, file=sys.stderr)
    mistakes(predictions, dataset, model).save(out / "mistakes.png")
    drawn.add("mistakes.png")
    write_predictions(out / "predictions.csv", predictions, dataset)
    _write_text(out / "card.md", card(config, model, dataset, history, out, kept, predictions))
    text = report(config, model, dataset, history, predictions, drawn, kept, out)
    _write_text(out / "report.md", text)


# --- text ----------------------------------------------------------------------------------------


def card(
    config: TrainConfig,
    model: Network,
    dataset: Dataset,
    history: list[Record],
    out: Path | None = None,
    kept: Record | None = None,
    predictions: Predictions | None = None,
) -> str:
    """The model card: what `model.safetensors` holds, how to load it and how it was trained.

    Args:
      config: of the run.
      model: trained.
      dataset: that it was trained on.
      history: one record an epoch, as in `metrics.jsonl`.
      out: folder of the run; None: `config.folder`. Its `model.safetensors` is hashed and its
        `curves.png` shown if they exist.
      kept: the record of the epoch whose weights the model has; None: the last.
      predictions: on the held-out pictures, to tell the calibration and the mistakes too.
    """
    out = out or config.folder
    kept = kept or history[-1]
    which = "last epoch" if kept is history[-1] else f"epoch {kept['epoch']}"
    best, count = best_of(history), len(dataset.val)
    cost = zoo.count(model, input_size=model.preprocess.size)
    accuracy = kept["val_accuracy"]
    correct = round(accuracy * count) if math.isfinite(accuracy) else 0
    rows = [
        (f"validation accuracy, {which}", f"{accuracy:.2%} {_interval(correct, count)}"),
        (f"validation loss, {which}", f"{kept['val_loss']:.4f}"),
        ("best epoch", f"{best['epoch']} ({best['val_accuracy']:.2%})"),
        *_way(kept),
        *(_calibration(predictions) if predictions else ()),
        ("multiply-accumulates a picture", f"{cost.macs:,}"),
        ("training time", f"{_seconds(history):.0f} s on {_device()}"),
        ("versions", _versions()),
        ("seed", f"{config.seed}"),
        *_origin(model),
        ("input", _input(model)),
        ("classes", markdown(_listed(dataset.classes))),
        ("left out as unreadable", f"{len(dataset.skipped)}"),
    ]
    if (file := out / "model.safetensors").exists():
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        rows.append(("sha256 of model.safetensors", f"`{digest}`"))
    curves = "![curves](curves.png)\n\n" if (out / "curves.png").exists() else ""
    mistaken = ""
    if predictions and not predictions.multilabel:
        mistaken = f"What it mistakes most:\n\n{_confused(predictions, dataset.classes)}\n\n"
    return f"""# {markdown(config.model)} on {markdown(config.data)}

{cost.params:,} parameters, trained from {_started(config)} on {len(dataset.train):,} \
pictures of {len(dataset.classes)} classes, measured on {count:,} others.

{_table(("", ""), rows)}

{curves}{_loaded(model)}

{mistaken}What trained it:

{_command(config, out)}

{_settings(config)}
"""


def _loaded(model: Network) -> str:
    """Python code that loads the network."""
    lines = ['model = zoo.load("model.safetensors")']
    lines += ['logits = model(model.preprocess(["picture.png"]))']
    if isinstance(model, Wrapped):
        lines = [f"model = ...  # {model.spec.name}", 'zoo.restore(model, "model.safetensors")']
    return block("\n".join(["import zoo", "", *lines]), "python")


def report(
    config: TrainConfig,
    model: Network,
    dataset: Dataset,
    history: list[Record],
    predictions: Predictions,
    drawn: Iterable[str],
    kept: Record | None = None,
    out: Path | None = None,
) -> str:
    """The text of report.md: the result, in all and by class, the mistakes, and the run.

    Args:
      config: of the run.
      model: trained.
      dataset: that it was trained on.
      history: one record an epoch, as in `metrics.jsonl`.
      predictions: on the held-out pictures.
      drawn: those of `PICTURES` that were drawn.
      kept: the record of the epoch whose weights the model has; None: the last.
      out: folder of the run; None: `config.folder`.
    """
    images = {name: f"![{PICTURES[name]}]({name})\n\n" for name in drawn}
    result = _result(history, predictions, kept or history[-1], config.own_loss)
    parts = [
        f"# {markdown(config.model)} on {markdown(config.data)}\n\n",
        f"{_table(('', 'on the held-out pictures'), result)}\n\n",
        images.get("curves.png", ""),
        images.get("probe.png", ""),
        f"## Classes, the lowest {'precision' if dataset.multilabel else 'recall'} first\n\n",
        f"{_by_class(predictions, dataset.classes)}\n\n",
        images.get("confusion.png", ""),
        "## Mistakes\n\n",
        "" if dataset.multilabel else f"{_confused(predictions, dataset.classes)}\n\n",
        images.get("mistakes.png", ""),
        "Every picture's answer is in [predictions.csv](predictions.csv).\n\n",
        "## Run\n\n",
        f"{_table(('', ''), _facts(config, model, dataset, history))}\n\n",
        f"{_command(config, out or config.folder)}\n\n",
        f"{_settings(config)}\n",
    ]
    if dataset.skipped:
        parts.append("\n## Left out as unreadable\n\n")
        parts += [f"- {code(line)}\n" for line in dataset.skipped]
    return "".join(parts)


def command(config: TrainConfig) -> str:
    """The command of a run, or its Python call if it has objects, without default settings."""
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


def _command(config: TrainConfig, out: Path) -> str:
    """The command that began the run, as it was typed, or else one that says the same."""
    if words := typed_for(out):
        return block(words, "sh")
    return block(command(config), "python" if config.objects else "sh")


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
        *_calibration(predictions),
        ("loss", loss),
        *(
            (markdown(name.removeprefix("val_")), f"{value:.4g}")
            for name, value in kept.items()
            if name.startswith("val_") and name not in known
        ),
        ("best epoch", f"{best['epoch']} ({best['val_accuracy']:.2%})"),
        *_way(kept),
    ]
    if silent:
        rows.append(("without an answer (NaN)", f"{silent:,} pictures"))
    return rows


def _way(kept: Record) -> list[tuple[str, str]]:
    """Which weights they are, where `TrainConfig.keep` chose them."""
    if "wise_ft" not in kept:
        return []
    share = f"{kept['wise_ft']:.0%} of the way from the first ones to the trained ones"
    return [("weights", f"{share}, the best of five there on these held-out pictures")]


def _calibration(predictions: Predictions) -> list[tuple[str, str]]:
    """Whether the probabilities of the answers are to be believed."""
    if predictions.multilabel:
        return []
    mean, error = predictions.probabilities.mean(), predictions.calibration_error
    return [
        ("mean probability of its answers", f"{mean:.2%}"),
        ("expected calibration error, 15 bins", f"{error:.2%}"),
    ]


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
    right, counts, predicted = (
        np.bincount(x, minlength=len(classes))
        for x in (labels[answers == labels], labels, answers[answers >= 0])
    )
    rows = []
    for i in np.argsort(right / np.maximum(counts, 1), kind="stable").tolist():
        low, high = interval(int(right[i]), int(counts[i]))
        recall = f"{right[i] / counts[i]:.1%} ({low:.1%} to {high:.1%})" if counts[i] else ""
        precision = f"{right[i] / predicted[i]:.1%}" if predicted[i] else ""
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
    """All settings as a table, first those that differ from the defaults."""
    defaults = TrainConfig().to_dict()
    rows = [
        (key, markdown(f"{value}"), "" if value == defaults[key] else f"{defaults[key]}")
        for key, value in config.to_dict().items()
    ]
    head = ("setting", "value", "default, where it differs")
    return _table(head, sorted(rows, key=lambda row: not row[2]))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""

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
    name = config.weights if is_address(config.weights) else Path(config.weights).name
    return f"weights from {markdown(name)}"


def _origin(model: Network) -> list[tuple[str, str]]:
    """The published weights that training started from, and their licence."""
    if model.origin is None:
        return []
    name, address = model.origin.weights, model.origin.address
    shown = markdown_link(name, address) if address else markdown(name)
    before = model.origin.before
    return [
        ("started from", shown + (f", and these from {markdown(before)}" if before else "")),
        ("licence of those", markdown(model.origin.licence) or "not known"),
    ]


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
    """Write a CSV file with a line for each picture of `dataset.val`.

    Its columns are the file or number of the picture, its label, the predicted class (empty if the
    network gives NaN) and the probability of that. A name that a spreadsheet would take for a
    formula begins with '. If a picture may show several classes, their names have | between them,
    all classes of a probability above 1/2 are predicted, and the highest probability is given.
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


# --- the confusion matrix ------------------------------------------------------------------------


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """How many pictures of each class (row) were taken for each class (column), int [K, K].

    Args:
      labels: the true classes, int [N].
      predictions: int [N]; pictures with one below 0 are left out.
      classes: K.
    """
    answered = predictions >= 0
    cells = labels[answered].astype(np.int64) * classes + predictions[answered]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
