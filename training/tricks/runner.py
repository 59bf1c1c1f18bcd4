"""Train every arm of an experiment, one training after the other, each kept as soon as it is done.

A training is a file of its own, named by its settings: what is there is not trained again, so that
an experiment can be stopped at any point and continued by the same command.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.paths import write
from zoo.registry import list_models, register
from zoo.runtime import machine

from .. import evaluation
from ..config import PROBES, TrainConfig, differences
from ..data import Dataset, open_dataset
from ..logging import say
from ..parallel import Devices
from ..phases import Phase
from ..session import Assembly, Session
from ..starting import start_layers
from ..state import no_totals, put_together, take_apart
from .experiment import PRETRAINED, Settings, Trick, kind_of

SEARCH_SEED = 0  # of the search for a learning rate; the arms are compared with the seeds after it
LOOKS = 40  # at the training loss, in a training
EVALUATIONS = 20  # at most, in a training
FEW = 1000  # pictures to validate on before the last epoch; then all
PERIOD = 64  # learning rates in the state
# settings that are no part of a compiled program: the learning rates are its arguments
NOT_COMPILED = (
    *("seed", "init", "weights", "epochs", "per_class"),
    *("learning_rate", "schedule", "warmup", "decay_rate", "decay_epochs", "milestones"),
)
FLOPS_OF_A_CORE = 4e10  # a second, of training small networks
OF_A_LAYER = 1e-3  # seconds in a step, however small it is
COMPILING = 15.0  # seconds, of a network


@dataclass(frozen=True)
class Cell:
    """One training of an experiment."""

    arm: str
    point: Any
    rate: float | None
    seed: int
    config: TrainConfig

    def __str__(self) -> str:
        point = "" if self.point is None else f" at {self.point}"
        return f"{self.arm}{point}, rate {self.config.peak_learning_rate:g}, seed {self.seed}"

    @property
    def name(self) -> str:
        """Of its file: a digest of its settings, without those that are the defaults.

        So what was kept before a setting was added is still found.
        """
        usual = TrainConfig().to_dict()
        asked = {name: x for name, x in self.config.to_dict().items() if x != usual[name]}
        text = json.dumps(asked, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Training:
    """What a training left."""

    cell: Cell
    record: Mapping[str, Any]

    @property
    def epochs(self) -> list[dict[str, float]]:
        """The figures of each epoch."""
        return list(self.record["epochs"])


class Runner:
    """Runs the trainings of an experiment and keeps them.

    Args:
      trick: the experiment.
      folder: where it keeps them.
      asked: settings of the user's, for all arms; one that the arms are compared at is then the
        only point.
      quick: see `Trick.config`; the arms of the first pair, one rate and one point are tried.

    Raises:
      ZooError: weights to start from, for an experiment that starts from random ones.
    """

    def __init__(
        self, trick: Trick, folder: Path, asked: Settings | None = None, *, quick: bool = False
    ):
        asked = dict(asked or {})
        if "weights" in asked and not any("weights" in arm for arm in trick.arms.values()):
            raise ZooError(
                f"weights: got {asked['weights']!r}, but {trick.name} starts from random weights; "
                "transfer is the experiment that takes others"
            )
        trick = replace(trick, rates=trick.page_rates.get(kind_of(asked), trick.rates))
        if trick.axis is not None:
            name, points = trick.axis
            points = (
                (asked[name],) if name in asked else trick.page_axis.get(kind_of(asked), points)
            )
            trick = replace(trick, axis=(name, points))
        if quick:
            pair, axis = trick.pairs[0], trick.axis and (trick.axis[0], trick.axis[1][:1])
            arms = {name: trick.arms[name] for name in (pair.without, pair.with_it)}
            trick = replace(trick, arms=arms, pairs=(pair,), rates=trick.rates[:1], axis=axis)
        self.trick, self.folder, self.asked = trick, folder, asked
        self.quick = quick
        for variant in trick.networks:
            if variant.name not in list_models():
                register(variant)
        self._programs: dict[str, Any] = {}  # compiled
        self._last: Any = None  # the network of the last training
        self._data: dict[str, Dataset] = {}  # opened once

    def _session(self, config: TrainConfig) -> Session:
        """A session, over data that are opened once."""
        if config.data not in self._data:
            self._data[config.data] = open_dataset(config.data, val_fraction=config.val_fraction)
        return Session.open(config, dataset=self._data[config.data])

    def cell(self, arm: str, point: Any, rate: float | None, seed: int) -> Cell:
        """A training of this experiment."""
        config = self.trick.config(
            arm, point=point, rate=rate, seed=seed, asked=self.asked, quick=self.quick
        )
        return Cell(arm, point, rate, seed, config)

    def kept(self, cell: Cell) -> Training | None:
        """A training that was done before."""
        try:
            record = json.loads((self.folder / f"{cell.name}.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ZooError(f"cannot read {self.folder / cell.name}.json: {error}") from error
        # a default may have changed since
        same = not differences(record["config"], cell.config)
        return Training(cell, record) if same else None

    def search(self) -> list[Cell]:
        """The trainings that choose the learning rate of each arm."""
        trick = self.trick
        return [
            self.cell(arm, point, rate, SEARCH_SEED)
            for point in trick.points
            for arm in trick.arms
            for rate in trick.rates_of(arm)
            if len(trick.rates_of(arm)) > 1
        ]

    def chosen(self, arm: str, point: Any) -> float | None:
        """The learning rate at which an arm did best in the search."""
        rates = self.trick.rates_of(arm)
        if len(rates) == 1:
            return rates[0]
        trainings = [self.kept(self.cell(arm, point, rate, SEARCH_SEED)) for rate in rates]
        return max(
            (training for training in trainings if training is not None), key=_quality
        ).cell.rate

    def compared(self, seeds: int) -> Iterator[Cell]:
        """The trainings that the arms are compared by, once the search is done."""
        for seed in range(SEARCH_SEED + 1, SEARCH_SEED + 1 + seeds):
            for point in self.trick.points:
                for arm in self.trick.arms:
                    yield self.cell(arm, point, self.chosen(arm, point), seed)

    def estimate(self, seeds: int) -> tuple[int, float]:
        """How many trainings are to be done yet, and about how many seconds they take.

        The pictures of all epochs at a rate that CPUs reach on such networks, what the layers of a
        step take at least, and the compilation of each program.
        """
        cells = self.search()
        if all(self.kept(cell) for cell in cells):
            cells = list(self.compared(seeds))
        else:  # at whichever rate
            cells += [
                self.cell(arm, point, self.trick.rates_of(arm)[0], seed)
                for seed in range(SEARCH_SEED + 1, SEARCH_SEED + 1 + seeds)
                for point in self.trick.points
                for arm in self.trick.arms
            ]
        todo = [cell for cell in cells if self.kept(cell) is None]
        each: dict[str, float] = {}  # seconds of a training
        rate = FLOPS_OF_A_CORE * machine.cores()
        for cell in todo:
            key = f"{cell.arm} {cell.point}"
            if key not in each:
                session = self._session(replace(cell.config, weights=None))
                size = session.model.preprocess.size
                steps = session.steps_per_epoch * cell.config.epochs
                flops = zoo.count(session.model, input_size=size).train_flops
                kernels = sum(x.ndim > 1 for x in take_apart(session.model)[1].values())
                a_step = flops * cell.config.batch_size / rate + OF_A_LAYER * kernels
                each[key] = steps * a_step
        work = sum(each[f"{cell.arm} {cell.point}"] for cell in todo)
        return len(todo), work + COMPILING * len(each)

    def run(self, seeds: int) -> list[Training]:
        """Do all trainings that are not there yet, and return those that are compared."""
        search = self.search()
        total = len(search) + seeds * len(self.trick.points) * len(self.trick.arms)
        with tqdm(
            total=total,
            desc=self.trick.name,
            unit="training",
            dynamic_ncols=True,
            disable=None,  # unless stderr is a terminal
        ) as bar:

            def do(cell: Cell) -> Training:
                training = self.kept(cell)
                if training is None:
                    training = self.train(cell, bar.set_postfix_str)
                    accuracy = training.epochs[-1]["val_accuracy"] or 0.0
                    say(f"{self.trick.name}: {cell}, validation accuracy {accuracy:.1%}")
                bar.update()
                return training

            for cell in search:
                do(cell)
            return [do(cell) for cell in self.compared(seeds)]

    def train(self, cell: Cell, tell: Callable[[str], object] = lambda _: None) -> Training:
        """Do one training, and keep it."""
        config, begin = cell.config, time.perf_counter()
        if config.weights == PRETRAINED:
            config = replace(config, weights=str(self._pretrained(cell, tell)))
        session = self._session(config)
        devices = Devices(config.engine)
        devices.check_batch(config.batch_size)
        session.check(len(devices))
        start_layers(session, devices)
        losses: list[tuple[int, float]] = []
        epochs: list[dict[str, float]] = []
        record: dict[str, Any] = dict(
            trick=self.trick.name, arm=cell.arm, point=cell.point, config=cell.config.to_dict()
        )
        if self.trick.probed:
            record["probe"] = self._probed(session)
        batches = session.train_batches()
        for phase in session.phases:
            for epoch in self._epochs(session, devices, phase, batches, losses):
                epochs.append(epoch)
                done = f"epoch {len(epochs)}/{config.epochs}: {epoch['val_accuracy']:.1%}"
                tell(f"{cell.arm}, seed {cell.seed}, {done}")
        counted = zoo.count(session.model, input_size=session.model.preprocess.size)
        record |= dict(
            losses=losses,
            epochs=epochs,
            params=counted.params,
            macs=counted.macs,
            val_pictures=len(session.dataset.val),
            train_pictures=len(session.dataset.train),
            seconds=time.perf_counter() - begin,
            jax=jax.__version__,
            device=jax.devices()[0].device_kind,
            cores=machine.cores(),
        )
        self._last = session.model
        text = json.dumps(_finite(record), indent=1)
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / f"{cell.name}.json", text.encode())
        return Training(cell, json.loads(text))

    def _epochs(
        self,
        session: Session,
        devices: Devices,
        phase: Phase,
        batches: Iterator[Any],
        losses: list[tuple[int, float]],
    ) -> Iterator[dict[str, float]]:
        """Train a phase and yield the figures of its epochs; the network gets the weights.

        All epochs are looked at where they are few, else every n-th one and the last.

        `losses` gets (steps done, mean loss of the batches since the one before).
        """
        config, length = session.config, session.steps_per_epoch
        parts = session.assemble(phase, period=PERIOD)
        step, eval_step = self._compiled(session, parts, devices, phase)
        few, whole = session.val_batches(FEW), session.val_batches()
        state = devices.replicate(parts.start(phase.start * length))
        every = max(config.epochs * length // LOOKS, 1)
        rare = math.ceil(config.epochs / EVALUATIONS)
        for epoch in range(phase.start, phase.stop):
            begin, seen = time.perf_counter(), (0.0, 0.0)
            for done in range(epoch * length, (epoch + 1) * length):
                if done % PERIOD == 0 or done == phase.start * length:
                    rates = parts.rates(done // PERIOD * PERIOD - phase.start * length)
                    state = replace(
                        state, inputs={**state.inputs, "rates": devices.replicate(rates)}
                    )
                state = step(state, devices.shard(next(batches)))
                if (done + 1) % every == 0:
                    now = float(state.totals["loss"]), float(state.totals["count"])
                    losses.append((done + 1, (now[0] - seen[0]) / (now[1] - seen[1])))
                    seen = now
            train = evaluation.means(state.totals)
            seconds = time.perf_counter() - begin
            last, finite = epoch + 1 == config.epochs, math.isfinite(train.loss)
            if last or (epoch + 1) % rare == 0 or not finite:
                pictures = whole if last else few
                val = evaluation.run(
                    eval_step, devices, state.weights, state.stats, pictures, parts.metrics
                )
                yield dict(
                    step=(epoch + 1) * length,
                    train_loss=train.loss,
                    train_accuracy=train.accuracy,
                    val_loss=val.loss,
                    val_accuracy=val.accuracy,
                    images_per_second=length * config.batch_size / seconds,
                )
            state = replace(state, totals=devices.replicate(no_totals(parts.metrics)))
            if not finite:
                break
        put_together(session.model, *devices.own((state.weights, state.stats)))

    def _pretrained(self, cell: Cell, tell: Callable[[str], object]) -> Path:
        """The weights to start an arm from: those of a training of their own, done once a seed."""
        kind = kind_of(self.asked)
        if kind not in self.trick.pretraining:
            raise ZooError(f"{self.trick.name} on {kind}: expected --weights to start from")
        settings = {**self.trick.setting, **self.trick.pretraining[kind]}
        settings |= {**(self.trick.quick if self.quick else {}), **self.asked, "seed": cell.seed}
        first = Cell("pretraining", None, None, cell.seed, TrainConfig(**settings))
        file = self.folder / f"{first.name}.safetensors"
        if self.kept(first) is None or not file.exists():
            self.train(first, tell)
            zoo.save(self._last, file)
        return file

    def _compiled(
        self, session: Session, parts: Assembly, devices: Devices, phase: Phase
    ) -> tuple[Any, Any]:
        """A phase's steps."""
        dtype = session.model.spec.dtype

        def steps() -> tuple[Any, Any]:
            return (
                devices.compile(parts.step, donate=True, dtype=dtype),
                devices.compile(
                    session.eval_step(parts.program), donate=False, dtype=dtype, inference=True
                ),
            )

        steps_of_phase: tuple[Any, Any] = self._once(session, sorted(phase.trained), steps)
        return steps_of_phase

    def _probed(self, session: Session) -> list[dict[str, Any]]:
        """Of each layer, in order, before the first step: its activations and gradients."""
        program, params, stats = take_apart(session.model)
        run = self._once(session, "probe", lambda: session.measuring(program, PROBES))
        return session.prober(run)(params, stats).record()

    def _once(self, session: Session, what: object, compiled: Callable[[], Any]) -> Any:
        """What is compiled once for trainings that differ in `NOT_COMPILED` alone."""
        settings = session.config.to_dict()
        same = {name: value for name, value in settings.items() if name not in NOT_COMPILED}
        key = json.dumps([same, what], sort_keys=True)
        if key not in self._programs:
            self._programs[key] = compiled()
        return self._programs[key]


def _quality(training: Training) -> tuple[float, float]:
    """For the choice of a rate: the validation accuracy at the end, then the training loss."""
    last = training.epochs[-1]
    loss = last["train_loss"]
    return last["val_accuracy"] or 0.0, -(math.inf if loss is None else loss)


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: None stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
