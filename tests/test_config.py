"""What a run can be told: `training.config`, `training.phases`, `training.optim`."""

import dataclasses
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from training import optim
from training.config import TrainConfig, differences
from training.finetuning import finetune_config, with_enough_epochs
from training.phases import phases, rate_scales
from zoo.errors import ZooError


def test_survives_json():
    config = TrainConfig(epochs=3, learning_rate=0.1)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_unknown_setting_offers_the_nearest():
    with pytest.raises(ZooError, match="unknown setting 'learning_rat': did you mean 'learning_ra"):
        TrainConfig.from_dict({"learning_rat": 0.1})
    with pytest.raises(ZooError, match="TrainConfig: unknown setting 'epochz': did you mean 'epo"):
        TrainConfig(epochz=3)
    with pytest.raises(ZooError, match="TrainConfig: there is no lr: did you mean learning_rate"):
        TrainConfig(lr=0.1)


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("epochs", 0, "epochs: got 0, expected 1 to"),
        ("batch_size", -1, "batch_size: got -1"),
        ("learning_rate", -0.1, "learning_rate: got -0.1, expected 0 to"),
        ("head_epochs", 31, "head_epochs: got 31, expected 0 to 30"),
        ("seed", -1, "seed: got -1, expected 0 to"),
        ("seed", 2**40, "seed: got 1099511627776, expected 0 to 2147483647"),
        ("learning_rate", math.nan, "learning_rate: got nan, expected 0 to"),
        ("weight_decay", math.inf, "weight_decay: got inf, expected 0 to"),
        ("lr_mult", "stem=nan", "lr_mult: got 'stem=nan', expected STAGE=FACTOR"),
        ("lr_mult", "stem=-1", "lr_mult: got 'stem=-1', expected STAGE=FACTOR"),
        ("milestones", "0.3,nan", "milestones: got '0.3,nan', expected rising shares"),
        ("keep", "first", "unknown keep 'first'"),
        ("epochs", "5", "epochs: got '5', expected a whole number"),
        ("epochs", 5.0, "epochs: got 5.0, expected a whole number"),
        ("epochs", True, "epochs: got True, expected a whole number"),
        ("epochs", None, "epochs: got None, expected a whole number"),
        ("dropout", "0.5", "dropout: got '0.5', expected a number"),
        ("warmup", 10**400, "warmup: got 1000"),
        ("flip", 1, "flip: got 1, expected True or False"),
        ("model", 7, "model: got 7, expected text"),
        ("freeze", ["stem"], "freeze: got ['stem'], expected text"),
        ("optimizer", "adan", "unknown optimizer 'adan': did you mean 'adam', 'adamw'"),
        ("engine", "pmapp", "unknown engine 'pmapp': did you mean 'pmap'"),
    ],
)
def test_impossible_values_are_refused(setting, value, line):
    with pytest.raises(ZooError) as error:
        TrainConfig(**{setting: value})
    assert str(error.value).startswith(line)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrainConfig)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**70, -(2**70), [], {}, b"x"])
def test_no_field_takes_what_it_cannot_use(name, value):
    with pytest.raises(ZooError) as error:
        TrainConfig(**{name: value})
    assert "\n" not in str(error.value)


def test_values_of_numpy_and_paths_become_those_of_python():
    given = {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "out": Path("runs/x")}
    given |= {"flip": np.bool_(True), "model": np.str_("resnet18"), "dropout": 0, "warmup": 1}
    config = TrainConfig(**given)
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert [type(getattr(config, name)) for name in given] == [
        int,
        float,
        str,
        bool,
        str,
        float,
        float,
    ]
    assert config == TrainConfig(**{**given, "epochs": 3, "learning_rate": 0.5, "out": "runs/x"})


def test_differences_name_what_differs_but_not_where():
    stored = TrainConfig(out="a", seed=1).to_dict()
    assert differences(stored, TrainConfig(out="b", seed=1)) == []
    assert differences(stored, TrainConfig(out="b", seed=2)) == ["seed 1 there, 2 asked"]


STAGES = ("stem", "stage1", "stage2", "avgpool", "classifier")


def test_phases():
    (plain,) = phases(TrainConfig(epochs=5), STAGES)
    assert (plain.start, plain.stop, plain.trained) == (0, 5, frozenset(STAGES))
    config = TrainConfig(epochs=5, head_epochs=2, learning_rate=1.0, unfreeze_scale=0.25)
    head, everything = phases(config, STAGES)
    assert (head.start, head.stop, head.learning_rate) == (0, 2, 1.0)
    assert (everything.start, everything.stop, everything.learning_rate) == (2, 5, 0.25)
    assert head.trains("classifier.linear.kernel")
    assert head.trains("aux_stage1.head.conv.kernel")
    assert not head.trains("body.stem.conv.kernel")
    assert everything.trains("body.stem.conv.kernel")


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("stem..stage1", {"stage2", "avgpool", "classifier"}),
        ("stem, stage2", {"stage1", "avgpool", "classifier"}),
        ("..stage2", {"avgpool", "classifier"}),
        ("stage1..", {"stem"}),
        ("stage1", {"stem", "stage2", "avgpool", "classifier"}),
    ],
)
def test_freezing_by_stage(freeze, trained):
    (phase,) = phases(TrainConfig(epochs=3, freeze=freeze), STAGES)
    assert phase.trained == trained


def test_head_only_trains_the_classifier_to_the_end():
    (phase,) = phases(TrainConfig(epochs=3, head_only=True, head_epochs=2), STAGES)
    assert (phase.start, phase.stop, phase.trained) == (0, 3, {"classifier"})


def test_freezing_says_what_it_cannot():
    with pytest.raises(ZooError, match=r"'stage3'.*did you mean"):
        phases(TrainConfig(freeze="stem..stage3"), STAGES)
    with pytest.raises(ZooError, match="nothing to train"):
        phases(TrainConfig(freeze="stem..classifier"), STAGES)
    with pytest.raises(ZooError, match="unknown stage 'stom'"):
        rate_scales(STAGES, [], 1.0, {"stom": 0.1})
    with pytest.raises(ZooError, match="STAGE=FACTOR"):
        TrainConfig(lr_mult="stem")
    with pytest.raises(ZooError, match="rising shares"):
        TrainConfig(milestones="0.5,0.2")
    with pytest.raises(ZooError, match="3 parts cannot share out"):
        TrainConfig(accumulate=3)


def test_the_rate_is_scaled_to_the_batch():
    assert TrainConfig(optimizer="sgd").peak_learning_rate == 0.05
    scaled = TrainConfig(learning_rate=0.1, batch_size=1024, base_batch_size=256)
    assert scaled.peak_learning_rate == pytest.approx(0.4)


# With these every plain `zoo train` and `zoo finetune` was measured: they change on purpose only.
@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        *(("adam", 0.01), ("adamw", 0.01), ("adagrad", 0.2), ("rmsprop", 0.05), ("sgd", 0.05)),
        *(("lamb", 0.01), ("lars", 10.0), ("lion", 0.003), ("muon", 0.05)),
    ],
)
def test_default_rates(optimizer, rate):
    assert TrainConfig(optimizer=optimizer).peak_learning_rate == rate


def test_default_rates_of_finetuning():
    (everything,) = phases(finetune_config(model="m", weights="w"), STAGES)
    assert everything.learning_rate == 1e-3
    assert everything.trained == set(STAGES)


@pytest.mark.parametrize(("per_class", "epochs"), [(20, 34), (64, 10), (None, 10)])
def test_finetuning_takes_more_epochs_where_pictures_are_few(per_class, epochs):
    """200 pictures of the digits make 6 batches: 34 epochs are 204 steps."""
    config = finetune_config(model="nin_cifar", weights="w", data="digits", per_class=per_class)
    assert with_enough_epochs(config)[0].epochs == epochs


def test_finetuning_starts_from_published_weights():
    config = finetune_config(model="resnet50.a1_in1k")
    assert (config.model, config.weights) == ("resnet50", "resnet50.a1_in1k")
    default = finetune_config(model="googlenet")
    assert (default.model, default.weights) == ("inception_v1", zoo.weights("inception_v1").name)
    with pytest.raises(ZooError, match="did you mean"):
        finetune_config(model="resnet5")


def test_rates_fall_towards_the_stem():
    paths = ["body.stem.conv.kernel", "body.stage1.block0.conv1.conv.kernel", "classifier.linear.b"]
    scales = rate_scales(("stem", "stage1", "avgpool", "classifier"), paths, 0.5)
    assert list(scales.values()) == [0.125, 0.25, 1.0]
    scales = rate_scales(("stem", "stage1", "avgpool", "classifier"), paths, 0.5, {"stem": 8.0})
    assert list(scales.values()) == [1.0, 0.25, 1.0]


def test_schedule_warms_up_and_ends_at_zero():
    rate = optim.schedule(TrainConfig(warmup=0.1), 0.1, 100, 10)
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(0.05)
    assert float(rate(10)) == pytest.approx(0.1)
    assert float(rate(55)) == pytest.approx(0.05)  # half way down the cosine
    assert float(rate(100)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_decay_spares_biases_and_norms(name):
    config = TrainConfig(optimizer=name, weight_decay=0.1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    optimizer = optim.optimizer(config, dict.fromkeys(params, 1.0))
    no_gradient = {name: jnp.zeros_like(p) for name, p in params.items()}
    updates, _ = optimizer.update(no_gradient, optimizer.init(params), params, learning_rate=0.5)
    assert updates["kernel"] == pytest.approx(-0.5 * 0.1)  # decoupled: rate x decay x weight
    assert not updates["bias"].any()


def test_sgd_is_nesterov_momentum_with_scaled_rates():
    config = TrainConfig(optimizer="sgd", weight_decay=0)
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    optimizer = optim.optimizer(config, {"a": 1.0, "b": 0.5})
    state, gradient = optimizer.init(params), {"a": jnp.ones(1), "b": jnp.ones(1)}
    first, state = optimizer.update(gradient, state, params, learning_rate=0.1)
    second, _ = optimizer.update(gradient, state, params, learning_rate=0.1)
    # velocity 1, then 1.9; Nesterov looks one step ahead: 1 + 0.9 v
    assert float(first["a"][0]) == pytest.approx(-0.1 * 1.9)
    assert float(second["a"][0]) == pytest.approx(-0.1 * 2.71)
    assert float(second["b"][0]) == pytest.approx(-0.05 * 2.71)
