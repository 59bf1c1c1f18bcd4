"""The loop: files, clocks, signals and progress around the pure step."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.layers import Network, model_stages
from zoo.preprocess import INCEPTION, Preprocess
from zoo.pretrained.store import is_file
from zoo.registry import find

from . import data, evaluation, optim
from .checkpoint import Checkpoints
from .config import TrainConfig, differences
from .logging import Log, Record, draw_curves
from .parallel import Devices
from .phases import Phase, phases, rate_scales
from .state import TrainState, no_totals, put_together, take_apart
from .step import AXIS, make_eval_step, make_train_step


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    model: Network  # trained, in inference mode
    accuracy: float  # on the validation pictures, at the end
    history: list[Record]  # one record an epoch, as in metrics.jsonl
    out: Path


class Interrupted(Exception):
    """The run was told to stop (SIGTERM, Ctrl-C) and saved itself; the same call continues it."""


def fit(config: TrainConfig) -> Result:
    """Train a network, or continue the interrupted run in `config.folder`.

    Everything is checked before the first file is written. The run leaves in `config.folder`:
    `config.json`, `metrics.jsonl`, TensorBoard events, `curves.png`, `checkpoints/`,
    `model.safetensors` (the last epoch's) and `card.md`.

    Raises:
      ZooError: an unknown network or dataset, unreadable pictures, a batch that the devices cannot
        share out, weights that do not fit, or an `out` that holds another run.
      Interrupted: the process was told to stop; the run is saved.

    >>> result = fit(TrainConfig(data="folder:photos", out="runs/photos"))    # doctest: +SKIP
    """
    devices = Devices(config.engine)
    devices.check_batch(config.batch_size)
    out = config.folder
    check_out(out, config)
    find(config.model)
    dataset = data.open_dataset(
        config.data, val_fraction=config.val_fraction, skip_unreadable=config.skip_unreadable
    )
    if len(dataset.train) < config.batch_size:
        raise ZooError(
            f"batch size: got {config.batch_size}, "
            f"expected at most the {len(dataset.train)} training pictures"
        )
    model = build(config, dataset)
    try:
        out.mkdir(parents=True, exist_ok=True)
        config.save(out / "config.json")
    except OSError as error:
        raise ZooError(f"out: cannot write to {out}: {error.strerror}") from error
    with Run(config, devices, dataset, model) as run, _signals() as stop:
        run.train(stop)
        return run.finish()


def build(config: TrainConfig, dataset: data.Dataset) -> Network:
    """The network to train, with fresh or given weights, its preprocessing fit for the dataset."""
    classes = len(dataset.classes)
    if config.weights:
        file = config.weights if is_file(config.weights) else None
        if file is None and zoo.weights(config.weights).model != find(config.model).name:
            raise ZooError(f"weights: {config.weights} are not for {config.model}")
        model = zoo.load(
            config.model if file else config.weights,
            file=file,
            layout=config.layout,
            num_classes=classes,
            dropout=config.dropout,
        )
    else:
        model = zoo.create(
            config.model,
            num_classes=classes,
            seed=config.seed,
            dropout=config.dropout,
            aux=True,
        )
    model.classes = dataset.classes
    model.preprocess = preprocessing(model.preprocess, config.image_size, dataset.image_size)
    model.check_input(
        jax.ShapeDtypeStruct((1, *[model.preprocess.size] * 2, 3), jnp.float32)  # too small?
    )
    return model


def preprocessing(own: Preprocess, asked: int | None, usual: int | None) -> Preprocess:
    """The network's preprocessing at the size asked for, or else usual for the dataset.

    Where it takes the nearest pixels of the whole picture, as `keras.utils.load_img` does, pictures
    are averaged and cropped instead: Keras' networks were not trained on the former.
    """
    if own.interpolation == "nearest":
        own = replace(
            INCEPTION.at_size(own.size), mean=own.mean, std=own.std, channels=own.channels
        )
    if asked or usual:
        own = own.at_size(asked or usual or own.size)
    # A dataset with a size of its own fills its pictures to the edge: nothing may be cut off.
    return replace(own, resize=None) if usual else own


def check_out(out: Path, config: TrainConfig) -> None:
    """
    Raises:
      ZooError: the folder cannot be used for this run; nothing has been written.
    """
    try:
        stored = json.loads((out / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        stored = None
    except (OSError, ValueError) as error:
        raise ZooError(f"out: cannot read {out / 'config.json'}: {error}") from error
    if stored is not None and (differs := differences(stored, config)):
        raise ZooError(f"out: {out} holds another run ({'; '.join(differs)}): choose another --out")
    if out.exists() and not out.is_dir():
        raise ZooError(f"out: {out} is a file, expected a folder")
    if stored is None and out.exists() and any(out.iterdir()):
        raise ZooError(f"out: {out} holds other files and no config.json: choose another --out")
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ZooError(f"out: no permission to write to {existing}")


class Run:
    """A run under way: what it needs to step, to measure, to save and to tell."""

    def __init__(
        self, config: TrainConfig, devices: Devices, dataset: data.Dataset, model: Network
    ):
        self.config, self.devices, self.dataset, self.model = config, devices, dataset, model
        self.out = config.folder
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.phases = phases(config)
        self.batches: grain.DatasetIterator = data.train_batches(
            dataset,
            model.preprocess,
            batch_size=config.batch_size // jax.process_count(),
            seed=config.seed,
            crop_scale=config.crop_scale,
            shard=(jax.process_index(), jax.process_count()),
        )
        self.val_batches = data.eval_batches(
            dataset.val,
            model.preprocess,
            batch_size=config.batch_size // jax.process_count(),
            shard=(jax.process_index(), jax.process_count()),
        )
        self.checkpoints = Checkpoints(self.out / "checkpoints")
        self.resumed_at = self.checkpoints.latest or 0
        self.log = Log(self.out, self.resumed_at)
        self.bar = tqdm(
            total=config.epochs * self.steps_per_epoch * config.batch_size,
            initial=self.resumed_at * config.batch_size,
            unit="img",
            unit_scale=True,
            disable=None,  # a bar on a terminal, a line an epoch everywhere
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.log.close()
        self.checkpoints.close()

    def train(self, stop: threading.Event) -> None:
        """All phases from where the run stands; afterwards the model holds the result."""
        if self.resumed_at:
            tqdm.write(f"continuing {self.out} after step {self.resumed_at}", file=sys.stderr)
        for phase in self.phases:
            last = phase.stop * self.steps_per_epoch
            if self.resumed_at > last:
                continue  # done before the break
            self._phase(phase, stop)

    def _phase(self, phase: Phase, stop: threading.Event) -> None:
        config = self.config
        program, params, stats = take_apart(
            self.model,
            freeze_bn=config.freeze_bn or phase.head_only,
            bn_axis=AXIS if config.sync_bn else None,
            bn_momentum=config.bn_momentum,
        )
        trained = {path: x for path, x in params.items() if phase.trains(path)}
        frozen = {path: x for path, x in params.items() if path not in trained}
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        scales = rate_scales(model_stages(self.model), trained, config.depth_decay)
        rate = optim.schedule(phase.learning_rate, last - first, warmup=config.warmup)
        optimizer = optim.optimizer(config, rate, scales)
        state = self.devices.replicate(
            TrainState(
                step=jnp.array(first, jnp.int32),
                params=trained,
                frozen=frozen,
                stats=stats,
                opt_state=jax.jit(optimizer.init)(trained),
                totals=no_totals(),
            )
        )
        if first < self.resumed_at <= last:
            state = self.checkpoints.restore(state, self.batches)
        flip = self.dataset.flip if config.flip is None else config.flip
        preprocess = self.model.preprocess
        train_step = self.devices.compile(
            make_train_step(program, preprocess, optimizer, config, flip=flip), donate=True
        )
        eval_step = self.devices.compile(make_eval_step(program, preprocess), donate=False)
        for epoch in range(int(state.step) // self.steps_per_epoch, phase.stop):
            state, timing = self._epoch(epoch, state, train_step, stop)
            train = evaluation.means(state.totals)
            val = evaluation.run(
                eval_step,
                self.devices,
                {**state.params, **state.frozen},
                state.stats,
                self.val_batches,
            )
            step = int(state.step)
            self._tell(
                {
                    "epoch": epoch + 1,
                    "step": step,
                    "train_loss": train.loss,
                    "train_accuracy": train.accuracy,
                    "val_loss": val.loss,
                    "val_accuracy": val.accuracy,
                    "val_top5": val.top5,
                    "learning_rate": float(rate(step - first)),
                    **timing,
                }
            )
            state = replace(state, totals=self.devices.replicate(no_totals()))
            self.checkpoints.save(state, self.batches, val.accuracy)
        put_together(self.model, {**state.params, **state.frozen}, state.stats)

    def _epoch(
        self, epoch: int, state: TrainState, train_step: Any, stop: threading.Event
    ) -> tuple[TrainState, Record]:
        """The rest of an epoch; (state, how fast it went)."""
        begin = shown = time.perf_counter()
        waited = 0.0
        done = int(state.step) % self.steps_per_epoch
        self.bar.set_description(f"epoch {epoch + 1}/{self.config.epochs}", refresh=False)
        for _ in range(done, self.steps_per_epoch):
            if stop.is_set():
                if int(state.step) % self.steps_per_epoch:  # else the epoch's end has saved it
                    self.checkpoints.save(state, self.batches, accuracy=0.0)
                raise Interrupted(
                    f"stopped after step {int(state.step)}; the same command continues the run"
                )
            asked = time.perf_counter()
            batch = next(self.batches)
            waited += time.perf_counter() - asked
            state = train_step(state, self.devices.shard(batch))
            self.bar.update(self.config.batch_size)
            if time.perf_counter() - shown > 0.5 and not self.bar.disable:
                now = evaluation.means(state.totals)  # waits for the step: twice a second at most
                shown = time.perf_counter()
                share = waited / (shown - begin)  # of the time, spent waiting for pictures
                self.bar.set_postfix_str(
                    f"loss {now.loss:.3f} acc {now.accuracy:.1%} input wait {share:.0%}"
                )
        jax.block_until_ready(state)
        seconds = time.perf_counter() - begin
        images = (self.steps_per_epoch - done) * self.config.batch_size
        return state, {
            "images_per_second": images / seconds,
            "input_wait": waited / seconds,  # share of the time that the devices lacked pictures
            "seconds": seconds,
        }

    def _tell(self, record: Record) -> None:
        self.log.add(record)
        line = (
            f"epoch {record['epoch']:>3}/{self.config.epochs}"
            f"  loss {record['train_loss']:.3f}  acc {record['train_accuracy']:6.1%}"
            f"  val loss {record['val_loss']:.3f}  val acc {record['val_accuracy']:6.1%}"
            f"  {record['images_per_second']:,.0f} img/s"
        )
        tqdm.write(line, file=sys.stderr)

    def finish(self) -> Result:
        """Write the trained network, its card and the curves."""
        history = self.log.history
        zoo.save(self.model, self.out / "model.safetensors")
        (self.out / "card.md").write_text(card(self.config, self.model, self.dataset, history))
        title = f"{self.config.model} on {self.config.data}"
        if not draw_curves(history, self.out / "curves.png", title):
            tqdm.write("curves.png needs matplotlib: pip install matplotlib", file=sys.stderr)
        return Result(self.model, history[-1]["val_accuracy"], history, self.out)


def card(config: TrainConfig, model: Network, dataset: data.Dataset, history: list[Record]) -> str:
    """What `model.safetensors` holds, for whoever finds it."""
    last, best = history[-1], max(history, key=lambda record: record["val_accuracy"])
    seconds = sum(record["seconds"] for record in history)
    settings = "\n".join(f"| {key} | {value} |" for key, value in config.to_dict().items())
    started = f"weights from `{Path(config.weights).name}`" if config.weights else "random weights"
    return f"""# {config.model} on {config.data}

{zoo.count(model).params:,} parameters, trained from {started} on {len(dataset.train):,} pictures of
{len(dataset.classes)} classes, measured on {len(dataset.val):,} others.

| | |
|---|---|
| validation accuracy, last epoch | {last["val_accuracy"]:.2%} |
| validation loss, last epoch | {last["val_loss"]:.4f} |
| best epoch | {best["epoch"]} ({best["val_accuracy"]:.2%}) |
| training time | {seconds:.0f} s on {jax.device_count()} x {jax.devices()[0].device_kind} |
| input | {model.preprocess.size} x {model.preprocess.size} RGB |
| classes | {", ".join(dataset.classes)} |
| left out as unreadable | {len(dataset.skipped)} |

```python
import zoo
model = zoo.load("model.safetensors")
logits = model(model.preprocess(["picture.png"]))
```

| setting | value |
|---|---|
{settings}
"""


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, so that the loop can stop between two steps."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread gets signals
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
