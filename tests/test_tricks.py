"""The experiments on the article's tricks, and what they make of their figures."""

import json
import math
from dataclasses import replace

import pytest

from training.cli import main
from training.config import TrainConfig
from training.session import outline
from training.tricks import NAMES, devices, trick
from training.tricks.cli import ASKED
from training.tricks.experiment import ACCURACY, BEFORE, STEPS, TRAIN_LOSS, Pair
from training.tricks.report import report
from training.tricks.run import describe, run
from training.tricks.runner import SEARCH_SEED, Cell, Runner, Training
from training.tricks.section import Section
from training.tricks.verdict import (
    DIRECTION,
    NOT_HERE,
    REFUTED,
    REPRODUCED,
    VERDICTS,
    Outcome,
    steps_to,
    value,
)
from zoo.errors import ZooError

STANDARD = [name for name in NAMES if name != "devices"]


# --- what an experiment states --------------------------------------------------------------------


@pytest.mark.parametrize("name", STANDARD)
def test_arms_differ_in_what_is_stated_and_in_nothing_else(name):
    experiment = trick(name)
    bare = replace(experiment, arms={"bare": {}})
    common = bare.config("bare", point=experiment.points[-1]).to_dict()
    seen = set()
    for arm, diff in experiment.arms.items():
        config = experiment.config(arm, point=experiment.points[-1]).to_dict()
        changed = {key: config[key] for key in config if config[key] != common[key]}
        assert changed.keys() <= diff.keys()
        assert all(config[key] == expected for key, expected in diff.items())
        seen.add(json.dumps(config, sort_keys=True))
    assert len(seen) == len(experiment.arms)  # no two arms are the same


@pytest.mark.parametrize("name", STANDARD)
def test_an_experiment_is_complete(name):
    experiment = trick(name)
    assert experiment.name == name
    assert experiment.url.startswith("https://")
    assert experiment.figures
    for text in (experiment.claim, experiment.predicts, experiment.refuted_by):
        assert text.strip()
        assert "  " not in text
    for pair in experiment.pairs:
        assert {pair.without, pair.with_it} <= set(experiment.arms)
    for kind, settings in experiment.page.items():
        experiment.config(next(iter(experiment.arms)), point=experiment.points[0]).to_dict()
        assert kind in ("cifar10", "folder")
        assert set(settings) <= set(TrainConfig().to_dict())


@pytest.mark.parametrize("name", STANDARD)
def test_every_arm_can_be_built(name):
    experiment = trick(name)
    Runner(experiment, None)  # registers networks of its own
    built = set()
    for point in experiment.points:
        for arm in experiment.arms:
            config = replace(experiment.config(arm, point=point), weights=None)
            key = (config.model, config.without, config.norm, config.act, config.dropout)
            if key not in built:
                built.add(key)
                outline(config, 10)


def test_the_same_rates_are_tried_for_every_arm_unless_the_rate_is_the_experiment():
    for name in STANDARD:
        experiment = trick(name)
        for arm, diff in experiment.arms.items():
            expected = (None,) if "learning_rate" in diff else experiment.rates or (None,)
            assert experiment.rates_of(arm) == expected


def test_what_a_user_sets_goes_to_every_arm():
    experiment = trick("batch_norm")
    asked = dict(data="cifar10:somewhere", epochs=3)
    for arm in experiment.arms:
        config = experiment.config(arm, asked=asked)
        assert (config.data, config.epochs, config.image_size) == ("cifar10:somewhere", 3, 16)
    assert set(asked) <= set(ASKED)


def test_weights_go_to_the_arm_that_starts_from_weights():
    experiment = trick("transfer")
    asked = dict(weights="mobilenet_v1_025.keras_in1k")
    assert experiment.config("random", point=5, asked=asked).weights is None
    assert experiment.config("pretrained", point=5, asked=asked).weights == asked["weights"]


def test_an_unknown_trick():
    with pytest.raises(ZooError, match="unknown trick 'batchnorm': did you mean 'batch_norm'"):
        trick("batchnorm")


# --- what it makes of its figures -----------------------------------------------------------------


def training(arm, seed, *, accuracy=0.9, loss=0.1, point=None, epochs=None):
    epochs = epochs or [
        dict(step=10, val_accuracy=accuracy / 2, train_accuracy=0.9, train_loss=1.0),
        dict(step=20, val_accuracy=accuracy, train_accuracy=0.95, train_loss=loss),
    ]
    return Training(Cell(arm, point, 0.1, seed, TrainConfig()), dict(epochs=epochs))


def outcome(name, **arms):
    """An outcome whose arms have these accuracies, or losses, a seed each."""
    experiment = trick(name)
    key = "loss" if experiment.measure == TRAIN_LOSS else "accuracy"
    return Outcome(
        experiment,
        [
            training(arm, seed, point=experiment.points[-1], **{key: figure})
            for arm, figures in arms.items()
            for seed, figure in enumerate(figures, 1)
        ],
    )


@pytest.mark.parametrize(
    ("without", "with_it", "verdict"),
    [
        ((2.3, 2.31, 2.29), (0.3, 0.31, 0.32), REPRODUCED),
        ((0.40, 0.41, 0.42), (0.35, 0.36, 0.37), DIRECTION),
        ((0.40, 0.30, 0.42), (0.35, 0.36, 0.30), NOT_HERE),
        ((0.30, 0.31, 0.32), (0.50, 0.51, 0.52), REFUTED),
        ((math.inf, math.inf), (0.5, 0.6), REPRODUCED),  # without the trick it diverges
    ],
)
def test_verdicts_of_a_difference(without, with_it, verdict):
    found = outcome("residuals", plain=without, residual=with_it)
    assert found.verdict == verdict
    assert set(VERDICTS) == {REPRODUCED, DIRECTION, NOT_HERE, REFUTED}


@pytest.mark.parametrize(
    ("full", "depthwise", "verdict"),
    [
        ((0.90, 0.91, 0.92), (0.90, 0.905, 0.92), REPRODUCED),  # at most twice 1.1 points lost
        ((0.90, 0.91, 0.92), (0.80, 0.81, 0.82), REFUTED),
        ((0.90, 0.91, 0.92), (0.80, 0.95, 0.90), NOT_HERE),
    ],
)
def test_verdicts_where_the_claim_is_as_much_for_less(full, depthwise, verdict):
    assert outcome("depthwise", full=full, depthwise=depthwise).verdict == verdict


def test_one_seed_shows_no_spread_and_so_no_verdict():
    found = outcome("residuals", plain=(2.0,), residual=(0.1,))
    assert found.verdict == NOT_HERE


def test_steps_to_an_accuracy():
    epochs = [
        dict(step=100, val_accuracy=0.2),
        dict(step=200, val_accuracy=0.6),
        dict(step=300, val_accuracy=None),  # it diverged
    ]
    one = training("relu", 1, epochs=epochs)
    assert steps_to(one, 0.4) == 150
    assert steps_to(one, 0.1) == 50
    assert steps_to(one, 0.7) == 300  # a lower bound
    assert value(one, ACCURACY) == 0


def test_the_target_is_what_an_arm_reaches():
    fast = [dict(step=10, val_accuracy=0.95), dict(step=20, val_accuracy=1.0)]
    slow = [dict(step=10, val_accuracy=0.4), dict(step=20, val_accuracy=0.8)]
    experiment = replace(
        trick("batch_norm"),
        arms={"none": {}, "batch norm": {}},
        pairs=(Pair("none", "batch norm"),),
    )
    found = Outcome(
        experiment,
        [
            training(arm, seed, epochs=epochs)
            for arm, epochs in (("none", slow), ("batch norm", fast))
            for seed in (1, 2)
        ],
    )
    assert found.values("none", None, STEPS) == [20, 20]
    assert found.values("batch norm", None, STEPS) == [10, 10]
    assert found.values("none", None, BEFORE) == [20, 20]
    assert found.values("batch norm", None, BEFORE) == pytest.approx([8.42, 8.42], abs=0.01)
    effect = found.effect(experiment.pairs[0])
    assert effect.mean == pytest.approx(20 / 8.42, abs=0.01)
    assert not effect.is_bound
    assert found.verdict == DIRECTION  # 2.4 is less than half way to 14.8
    found.trick = replace(experiment, measure=STEPS)
    effect = found.effect(experiment.pairs[0])
    assert effect.mean == pytest.approx(2)
    assert effect.is_bound


# --- runs -----------------------------------------------------------------------------------------


# like `pointwise`, of less for as much, and the dearest
LIKE_ANOTHER = {"depthwise", "small_kernels", "avgpool", "asymmetric"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LIKE_ANOTHER else n for n in NAMES],
)
def test_every_experiment_runs(name, tmp_path):
    section = run(name, tmp_path, quick=True, command="zoo tricks run")
    assert Section.load(tmp_path / name / "section.json") == section
    for file, _ in section.pictures:
        assert (tmp_path / name / file).read_bytes().startswith(b"\x89PNG")
    assert section.rows
    assert section.verdict in VERDICTS
    for path in report(tmp_path):
        assert section.claim.replace("'", "") in path.read_text("utf-8").replace("&#x27;", "")


def test_trainings_are_kept_and_not_done_again(tmp_path, monkeypatch):
    asked = dict(epochs=1, per_class=16)
    experiment = replace(
        trick("relu"), rates=(0.01, 0.1), arms={"tanh": {}, "relu": {"act": "relu"}}
    )
    runner = Runner(experiment, tmp_path, asked)
    done = []
    monkeypatch.setattr(
        Runner, "train", lambda self, cell, tell: done.append(cell) or fake(self, cell)
    )
    runner.run(2)
    assert len(done) == 4 + 4
    assert [cell.seed for cell in done] == [SEARCH_SEED] * 4 + [1, 1, 2, 2]
    assert {cell.rate for cell in done[4:]} == {0.1}  # the better one, as `fake` has it
    runner.run(3)
    assert len(done) == 8 + 2
    kept = tmp_path / f"{done[-1].name}.json"
    record = json.loads(kept.read_text())
    del record["config"]["alternate_flip"]  # a version before that setting kept it
    kept.write_text(json.dumps(record))
    runner.run(3)
    assert len(done) == 10
    record["config"]["momentum"] = 0.8  # that version's default
    kept.write_text(json.dumps(record))
    runner.run(3)
    assert len(done) == 11
    (tmp_path / f"{done[0].name}.json").write_text("{")
    with pytest.raises(ZooError, match="cannot read"):
        runner.run(3)


def fake(runner, cell):
    """A training that learns more at a higher rate."""
    epochs = [dict(step=1, val_accuracy=cell.rate, train_loss=1 - cell.rate, train_accuracy=1.0)]
    path = runner.folder / f"{cell.name}.json"
    path.write_text(json.dumps(dict(epochs=epochs, config=cell.config.to_dict())))
    return runner.kept(cell)


def test_a_training_is_the_same_again_but_for_its_times(tmp_path):
    experiment = replace(trick("relu"), rates=())
    cell = Runner(experiment, tmp_path, dict(epochs=1, per_class=16)).cell("relu", None, 0.01, 3)
    first, second = (
        Runner(experiment, tmp_path / name).train(cell).record for name in ("first", "second")
    )
    times = {"seconds", "epochs"}
    assert {k: v for k, v in first.items() if k not in times} == {
        k: v for k, v in second.items() if k not in times
    }
    figures = [
        [{k: v for k, v in epoch.items() if k != "images_per_second"} for epoch in record["epochs"]]
        for record in (first, second)
    ]
    assert figures[0] == figures[1]


def test_the_model_of_many_devices():
    alone = devices.step_time(1.0, 10**9, 1, 1e9, 0.0)
    assert alone == 1
    # a ring sends 2 (n - 1) / n of the gradients, which tends to twice
    assert devices.step_time(1.0, 10**9, 1000, 1e9, 0.0) == pytest.approx(3, abs=0.01)
    assert devices.step_time(1.0, 0, 11, 1e9, 0.1) == pytest.approx(1 + 20 * 0.1)


def test_an_experiment_on_several_data_has_them_side_by_side(tmp_path):
    found = outcome("asymmetric", **{"7x7": (0.9, 0.91), "1x7 and 7x1": (0.9, 0.92)})
    for one in found.trainings:
        one.record.update(losses=[(10, 1.0), (20, 0.5)], params=1, macs=1, seconds=60.0)
        one.record.update(train_pictures=9, val_pictures=1, device="cpu", jax="0")
    for data in ("digits", "flowers"):
        describe(found, tmp_path, data, "zoo tricks run asymmetric").save(tmp_path)
    assert (tmp_path / "asymmetric/section.json").exists()
    assert (tmp_path / "asymmetric/flowers/section.json").exists()
    markdown, page = (path.read_text("utf-8") for path in report(tmp_path))
    assert markdown.count("## Asymmetric kernels\n") == 1
    assert markdown.count("Refuted by:") == page.count("Refuted by:") == 1
    for heading in ("Asymmetric kernels: digits", "Asymmetric kernels: flowers"):
        assert f"### {heading}\n" in markdown
        assert f"<h3>{heading}</h3>" in page
    assert "(asymmetric/loss.png)" in markdown
    assert "(asymmetric/flowers/loss.png)" in markdown


def test_a_page_of_nothing(tmp_path):
    with pytest.raises(ZooError, match="no experiment was run there yet"):
        report(tmp_path)


def test_few_pictures_are_shown_as_often_as_many():
    experiment = trick("dropout")
    many, few = (experiment.config("0.5", point=point) for point in (140, 14))
    assert few.epochs == 10 * many.epochs


def test_a_network_of_the_users_is_the_only_one(tmp_path):
    runner = Runner(trick("residuals"), tmp_path, dict(model="resnet8_mlperf"))
    assert {cell.config.model for cell in runner.search()} == {"resnet8_mlperf"}
    assert runner.trick.points == ("resnet8_mlperf",)


# --- the command ----------------------------------------------------------------------------------


def test_the_list_names_every_trick_and_its_claim(capsys):
    main(["tricks"])
    printed = capsys.readouterr().out
    for name in NAMES:
        claim = devices.CLAIM if name == "devices" else trick(name).claim
        assert f"{name} " in printed
        assert claim in printed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "zoo tricks: expected the name of a trick, or all: initialisation, "),
        (["run", "batchnorm"], "zoo tricks: unknown trick 'batchnorm': did you mean 'batch_norm'"),
        (["run", "relu", "--seeds", "0"], "zoo tricks: seeds: got 0, expected 1 or more"),
        (["run", "relu", "--data", "none"], "zoo tricks: unknown dataset 'none'"),
        (
            ["run", "relu", "--weights", "x.npz"],
            "zoo tricks: weights: got 'x.npz', but relu starts",
        ),
        (
            ["run", "residuals", "--model", "vgg11"],
            "zoo tricks: without: vgg11 has no residual connections",
        ),
        (["list", "relu"], "zoo tricks: list takes no names, got relu"),
        (["report", "--out", "nowhere"], "zoo tricks: nowhere: no experiment was run there yet"),
    ],
)
def test_what_cannot_be_asked(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["tricks", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(line)
    assert not list(tmp_path.iterdir())
