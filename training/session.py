"""Assemble a run from its config: the data, the network and the steps."""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

import zoo
from zoo import ops
from zoo.context import Spec
from zoo.errors import ZooError
from zoo.layers import Network, model_stages
from zoo.preprocess import INCEPTION, Preprocess
from zoo.pretrained.store import is_file
from zoo.registry import abstract, find
from zoo.text import plain
from zoo.wrapped import wrapped

from . import data, linear, optim, whitening
from .assembly import Assembly as Assembly
from .assembly import assemble as assemble
from .config import TrainConfig
from .doors import losses
from .objective import LOSSES, Objective
from .objects import NONE, Objects
from .parallel import Devices
from .phases import Phase, phases, rate_scales
from .probing import Measured, Probe, compiled, read
from .sources.base import spread
from .sources.narrow import narrowed
from .sources.own import own_dataset
from .state import Arrays, Program, take_apart
from .step import Batch, make_eval_step


def open_data(
    config: TrainConfig, objects: Objects = NONE, dataset: data.Dataset | None = None
) -> data.Dataset:
    """Open the dataset of a run.

    Args:
      config: of the run.
      objects: given in place of settings.
      dataset: `config.data`, where it is open already.

    Raises:
      ZooError: an unknown network or dataset, unreadable pictures, or fewer than a batch of them.
    """
    if objects.model is None:
        find(config.model)  # an unknown name is an error before any picture is read
    if objects.data is not None:
        dataset = own_dataset(objects.data, config.val_fraction)
    elif dataset is None:
        dataset = opened(config)
    dataset = narrowed(dataset, config.classes, config.per_class, config.seed)
    if len(dataset.train) < config.batch_size:
        raise ZooError(
            f"batch size: got {config.batch_size}, "
            f"expected at most the {len(dataset.train)} training pictures"
        )
    return dataset


def opened(config: TrainConfig) -> data.Dataset:
    """`config.data`, all of it."""
    return data.open_dataset(
        config.data, val_fraction=config.val_fraction, skip_unreadable=config.skip_unreadable
    )


def build(config: TrainConfig, dataset: data.Dataset, objects: Objects = NONE) -> Network:
    """The network to train, with random or given weights, and preprocessing for the dataset."""
    if objects.model is not None:
        return _own(objects.model, config, dataset)
    classes = len(dataset.classes)
    switches = _switches(config)
    if config.weights:
        file = config.weights if is_file(config.weights) else None
        _check_weights(config)
        model = zoo.load(
            config.model if file else config.weights,
            file=file,
            layout=config.layout,
            like=config.like,
            num_classes=classes,
            **switches,
        )
        if jax.process_index() == 0:
            for note in model.notes:
                print(plain(f"zoo: {config.weights}: {note}"), file=sys.stderr)
    else:
        model = zoo.create(
            config.model,
            num_classes=classes,
            seed=config.seed,
            aux=True,
            **switches,
            **_design(config),
        )
    model.classes = dataset.classes
    return _at_size(model, config, dataset.image_size)


def _own(module: Any, config: TrainConfig, dataset: data.Dataset) -> Network:
    """A network given as an object, with the dataset's classes and size."""
    size, classes = config.image_size or dataset.image_size, len(dataset.classes)
    model = module
    if not isinstance(module, Network):
        model = wrapped(module, size, config.in_chans)
    if model.spec.num_classes != classes:
        raise ZooError(
            f"model: {model.spec.name} gives {model.spec.num_classes} classes, the data have "
            f"{classes}"
        )
    model.classes = dataset.classes
    return _at_size(model, config, dataset.image_size)


def outline(config: TrainConfig, num_classes: int, image_size: int | None = None) -> Network:
    """The network of `build` with shapes in place of arrays: nothing is read or allocated.

    Args:
      config: of the run.
      num_classes: of the dataset.
      image_size: the dataset's own, see `Dataset.image_size`.
    """
    variant = find(config.model)
    _check_weights(config)
    spec = Spec(
        variant.name,
        num_classes=num_classes,
        numerics=variant.numerics,
        aux=not config.weights,
        **_switches(config),
        **_design(config),
    )
    return _at_size(abstract(spec), config, image_size)


def _check_weights(config: TrainConfig) -> None:
    """Check that published weights belong to the configured network.

    Raises:
      ZooError: published weights of another network, or of no known name.
    """
    name = config.weights
    if name and not is_file(name) and zoo.weights(name).model != find(config.model).name:
        raise ZooError(f"weights: {name} are not for {config.model}")


def _switches(config: TrainConfig) -> dict[str, Any]:
    names = ("dtype", "dropout", "drop_path", "remat", "in_chans")
    return {name: getattr(config, name) for name in names}


def _design(config: TrainConfig) -> dict[str, Any]:
    """The switches that make another network, which published weights do not fit.

    Raises:
      ZooError: they are set, and so are weights.
    """
    names = ("init", "norm", "act", "without")
    design = {name: getattr(config, name) for name in names}
    if config.weights:
        for name, value in design.items():
            if value != getattr(TrainConfig, name):
                raise ZooError(f"{name}: got {value} and weights {config.weights}, expected one")
        return {}
    return design


def _at_size(model: Network, config: TrainConfig, usual: int | None) -> Network:
    model.preprocess = preprocessing(model.preprocess, config.image_size, usual)
    model.check_input(
        jax.ShapeDtypeStruct((1, *model.preprocess.shape), jnp.float32)  # too small?
    )
    return model


@dataclass(frozen=True, eq=False)
class Session:
    """The config, the data, the network, and everything that follows from them.

    The training loop, the range test, `--show-batch` and the benchmarks all start from here.
    """

    config: TrainConfig
    objects: Objects
    dataset: data.Dataset
    model: Network

    @classmethod
    def open(
        cls, config: TrainConfig, objects: Objects = NONE, dataset: data.Dataset | None = None
    ) -> "Session":
        """Open the data and build the network of a run.

        Args:
          config: of the run.
          objects: given in place of settings.
          dataset: `config.data`, where it is open already.

        Raises:
          ZooError: as `open_data` and `build`.
        """
        dataset = open_data(config, objects, dataset)
        return cls(config, objects, dataset, build(config, dataset, objects))

    @property
    def steps_per_epoch(self) -> int:
        """How many full batches the training data make."""
        return len(self.dataset.train) // self.config.batch_size

    @cached_property
    def phases(self) -> list[Phase]:
        """The phases of the run: the head alone first, when fine-tuning, then everything."""
        return phases(self.config, model_stages(self.model))

    @property
    def flip(self) -> bool:
        """Whether pictures are mirrored: as the config says, or else as the dataset allows."""
        return self.dataset.flip if self.config.flip is None else self.config.flip

    @property
    def random_flip(self) -> bool:
        """Whether the step mirrors pictures, at random."""
        return self.flip and not self.config.alternate_flip

    @cached_property
    def objective(self) -> Objective:
        """The loss and the metrics of the run."""
        weights = class_weights(self.dataset) if self.config.class_weights else None
        return objective(
            self.config, len(self.dataset.classes), weights, self.dataset.multilabel, self.objects
        )

    def check(self, devices: int) -> None:
        """Check the settings that depend on the network, the data and the number of devices.

        Raises:
          ZooError: settings that do not fit the network, the data or the number of devices.
        """
        rate_scales(model_stages(self.model), (), self.config.depth_decay, self.config.multipliers)
        _ = self.phases, self.objective  # for what they refuse
        check_batch_norm(self.config, self.model, devices)
        if self.config.head_init != "random" and not self.config.weights:
            raise ZooError(
                f"head_init: got {self.config.head_init} and no weights to take features from, "
                "expected random"
            )
        if self.config.stem_init != "random" and self.config.weights:
            raise ZooError(
                f"stem_init: got {self.config.stem_init} and weights {self.config.weights}, "
                "expected one"
            )
        if self.config.alternate_flip and not self.flip:
            why = "flip is off" if self.config.flip is False else "the dataset does not allow it"
            raise ZooError(f"alternate_flip: pictures are not mirrored ({why}), expected flip")

    def rate(self, phase: Phase, scale: float = 1.0) -> optax.Schedule:
        """The learning rate by step of the phase; that of a schedule object, by step of the run."""
        first, last = phase.start * self.steps_per_epoch, phase.stop * self.steps_per_epoch
        if (own := self.objects.schedule) is not None:
            return lambda step: scale * own(first + step)
        peak = phase.learning_rate * scale
        return optim.schedule(self.config, peak, last - first, self.steps_per_epoch)

    def assemble(
        self, phase: Phase, rate: optax.Schedule | None = None, period: int | None = None
    ) -> Assembly:
        """The step of a phase.

        Args:
          phase: one of `phases`.
          rate: None: that of the phase.
          period: as in `assemble`; None: the steps of an epoch.
        """
        return assemble(
            self.config,
            self.model,
            phase,
            rate or self.rate(phase),
            self.objective,
            period=period or self.steps_per_epoch,
            flip=self.random_flip,
            objects=self.objects,
        )

    def start_stem(self) -> str:
        """Make the first convolution what `config.stem_init` asks for, and say what it became."""
        if self.config.stem_init == "random":
            return ""
        source = spread(self.dataset.train, whitening.MOST)  # all of them on every host
        batches = data.eval_batches(
            source, self.model.preprocess, batch_size=self.config.batch_size
        )
        return whitening.start(self.model, batches, seed=self.config.seed)

    def start_classifier(self, devices: Devices) -> str:
        """Make the classifier what `config.head_init` asks for, and say what became of it."""
        if self.config.head_init == "random":
            return ""
        size = max(self.config.batch_size // jax.process_count(), 1)
        softmax = self.objects.loss is None and self.config.loss in (None, "softmax")
        return linear.start(self.model, self.dataset, size, devices, softmax=softmax)

    def measuring(self, program: Program, kinds: Collection[str]) -> Callable[..., Measured]:
        """`probing.compiled` of a network and this session's loss.

        Args:
          program: the network.
          kinds: those of `config.PROBES` that are wanted.
        """
        goal = self.objective

        def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
            return goal.loss(logits, goal.weighted(goal.smoothed(labels))).mean()

        return compiled(program, loss if "gradients" in kinds else None)

    def prober(self, run: Callable[..., Measured]) -> Callable[[Arrays, Arrays], Probe]:
        """A function that looks at parameters and BN statistics, always on the same batch.

        Args:
          run: `measuring`'s, of this session or of one whose network and loss are the same.
        """
        batch = next(self.train_batches())
        images = np.asarray(self.model.preprocess.normalize(batch["image"]))

        def probe(params: Arrays, stats: Arrays) -> Probe:
            return read(self.model.spec.name, run(params, stats, images, batch["label"]))

        return probe

    def eval_step(self, program: Program) -> Callable[[Any, Batch], Any]:
        """The function that adds the metrics of a batch to the totals."""
        return make_eval_step(program, self.model.preprocess, self.objective)

    def train_batches(self) -> grain.DatasetIterator:
        """This process's part of the endless stream of training batches."""
        return data.train_batches(
            self.dataset,
            self.model.preprocess,
            batch_size=self.config.batch_size // jax.process_count(),
            seed=self.config.seed,
            crop_scale=self.config.crop_scale,
            shard=(jax.process_index(), jax.process_count()),
            balanced=self.config.balanced,
            alternate_flip=self.flip and self.config.alternate_flip,
        )

    def val_batches(self, most: int | None = None) -> grain.IterDataset:
        """This process's part of the validation batches, every picture once.

        Args:
          most: how many pictures at most, spread over all of them; None: all.
        """
        source = self.dataset.val
        return self.eval_batches(source if most is None else spread(source, most))

    def eval_batches(self, source: data.Source) -> grain.IterDataset:
        """This process's part of the batches of pictures as evaluation sees them, each once."""
        return data.eval_batches(
            source,
            self.model.preprocess,
            batch_size=self.config.batch_size // jax.process_count(),
            shard=(jax.process_index(), jax.process_count()),
            keep=True,
        )


def objective(
    config: TrainConfig,
    num_classes: int,
    class_weights: Sequence[float] | None,
    multilabel: bool = False,
    objects: Objects = NONE,
) -> Objective:
    """The objective that the config asks for, or the usual one for the data.

    Raises:
      ZooError: a loss or settings that do not fit the data.
    """
    name = config.loss or ("sigmoid" if multilabel else "softmax")
    if multilabel and objects.loss is None:
        if name == "softmax":
            raise ZooError("loss: got softmax, expected sigmoid: pictures show several classes")
        for setting in ("class_weights", "balanced"):
            if getattr(config, setting):
                raise ZooError(f"{setting}: expected pictures of one class each")
    if class_weights is not None and (objects.loss or name != "softmax"):
        raise ZooError("class_weights: they go with the loss softmax alone")
    return Objective(
        num_classes,
        objects.loss or {**losses(), **LOSSES}[name],
        objects.metrics,
        config.label_smoothing,
        class_weights,
    )


def check_batch_norm(config: TrainConfig, model: Network, devices: int) -> None:
    """Check that batch norm gets more than one value for each channel.

    Raises:
      ZooError: a batch norm that uses batch statistics would see one value for each channel.
    """
    share = config.batch_size // devices
    part = share // config.accumulate
    if part * (devices if config.sync_bn else 1) > 1:
        return  # two pictures are two values, however small the map
    image = jax.ShapeDtypeStruct((1, *model.preprocess.shape), jnp.float32)

    def forward(program: Program, params: Arrays, stats: Arrays, x: jax.Array) -> Any:
        return program.network(params, stats, dropout=jax.random.key(0)).forward(x)

    stages = model_stages(model)
    for phase in phases(config, stages):
        still = config.freeze_bn or set(stages) - phase.trained
        program, params, stats = take_apart(model, freeze_bn=still)
        try:
            with ops.native_only():  # half of the tracing
                jax.eval_shape(partial(forward, program), params, stats, image)
        except ZooError as error:
            fewer = [n for n in range(1, share // 2 + 1) if share % n == 0]
            ways = [f"accumulate {fewer[-1]}"] if fewer else []
            ways += [f"batch_size {2 * devices * config.accumulate}"]
            ways += ["sync_bn"] if devices > 1 else []
            raise ZooError(
                f"{error}; of {config.batch_size} pictures a step {devices} device(s) take one at "
                f"a time: choose {', '.join(ways)}, freeze_bn or a larger image_size"
            ) from error


def class_weights(dataset: data.Dataset) -> list[float]:
    """Weights of the classes in the loss, so that all classes count equally; 1 on average.

    The average is over the training pictures. A class without any has weight 0.
    """
    counts = dataset.class_counts
    present = int((counts > 0).sum())
    return [float(counts.sum() / (present * n)) if n else 0.0 for n in counts]


def preprocessing(own: Preprocess, asked: int | None, usual: int | None) -> Preprocess:
    """The network's preprocessing at the size asked for, or else at the dataset's usual size.

    Preprocessing that picks single pixels when it shrinks a picture, as `keras.utils.load_img` and
    slim do, is replaced by averaging and cropping, on which those networks were trained. Notes on
    what was only assumed are dropped: the training makes it so.
    """
    own = replace(own, note="")
    if own.interpolation in ("nearest", "tf_bilinear"):
        own = replace(
            INCEPTION.at_size(own.size), mean=own.mean, std=own.std, channels=own.channels
        )
    if asked or usual:
        own = own.at_size(asked or usual or own.size)
    # A dataset with a size of its own fills its pictures to the edge: nothing may be cut off.
    return replace(own, resize=None) if usual else own
