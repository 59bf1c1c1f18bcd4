"""What `zoo.probe` sees of a network."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from training import TrainConfig, fit
from training.probing import probe

LABELS = jnp.arange(4) % 3


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 16, 16, 3))


@pytest.fixture(scope="module")
def model():
    return zoo.create("resnet8_mlperf", num_classes=3)


@pytest.fixture(scope="module")
def found(model, images):
    return probe(model, images, LABELS)


def test_layers_come_in_the_order_of_computation(found):
    names = [layer.name for layer in found.layers]
    assert names[:3] == ["body.stem", "body.stage1.block0.conv1", "body.stage1.block0.conv2"]
    assert names[-1] == "classifier"
    assert "body.stage2.block0.shortcut" in names
    assert [stage.name for stage in found.stages] == [
        *("body.stem", "body.stage1", "body.stage2", "body.stage3"),
        *("head.avgpool", "classifier"),
    ]


def test_figures_are_those_of_the_network_itself(model, found, images):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def forward(params, images):
        twin = nnx.merge(graphdef, params, rest, copy=True)
        twin.train()
        return dict(twin.steps(images))

    stages = forward(params, images)
    by_name = {stage.name: stage for stage in found.stages}
    stage = by_name["body.stage2"].activations
    assert stage.mean == pytest.approx(float(stages["stage2"].mean()), rel=1e-3)
    assert stage.std == pytest.approx(float(stages["stage2"].std()), rel=1e-3)
    assert sum(stage.counts) == pytest.approx(stages["stage2"].size, rel=0.01)
    assert stage.edges[0] == pytest.approx(float(stages["stage2"].min()), abs=1e-5)

    def loss(params):
        logits = forward(params, images)["classifier"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:, None], 1).mean()

    value, grads = jax.value_and_grad(loss)(params)
    assert found.loss == pytest.approx(float(value), rel=1e-4)
    stem = jax.tree.leaves(nnx.to_pure_dict(grads)["body"]["stem"])
    norm = np.sqrt(sum(float((g**2).sum()) for g in stem))
    assert by_name["body.stem"].gradients.norm == pytest.approx(norm, rel=1e-3)


def test_without_labels_there_are_no_gradients(model, found, images):
    alone = probe(model, images)
    assert alone.loss is None
    assert all(layer.gradients is None for layer in alone.layers)
    for one, other in zip(alone.layers, found.layers, strict=True):
        assert one.activations.std == pytest.approx(other.activations.std, rel=1e-3)


def test_dead_channels_are_counted(images):
    model = zoo.create("resnet8_mlperf", num_classes=3)
    stem = model.body.stem
    bias = np.zeros(stem.norm.bias.shape)
    bias[: len(bias) // 2] = -100  # so that ReLU lets nothing of a half through
    stem.norm.bias[...] = jnp.asarray(bias)
    assert probe(model, images).layers[0].dead == 0.5


def test_infinities_are_shown_without_a_warning(images):
    model = zoo.create("resnet8_mlperf", num_classes=3, norm="none")
    found = probe(model, 1e38 * images, LABELS)
    assert found.layers[0].activations.mean == np.inf  # the sum is beyond float32
    assert "inf" in found.table().text(120)


def test_a_module_that_is_not_made_of_rows(images):
    class Own(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.linear(x.mean((1, 2)))

    found = probe(Own(), images, LABELS)
    assert [layer.name for layer in found.layers] == ["module.linear"]
    assert found.layers[0].gradients.norm > 0


def test_the_network_is_not_changed(model, images):
    before = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    probe(model, images)
    after = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert model.deterministic


def test_tables(found):
    assert "body.stage1.block0.conv1" in found.table(layers=True).text(120)
    assert len(found.table().rows) == 6
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    "labels", [jnp.array([0, 1, 2, 3]), jnp.zeros(4), jnp.zeros(3, int), jnp.array([0, 1, 2, -1])]
)
def test_labels_that_do_not_fit(model, images, labels):
    with pytest.raises(zoo.ZooError, match="expected a class from 0 to 2 for each of 4 images"):
        probe(model, images, labels)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("kinds", ["gradients", "activations, gradients"])
def test_a_run_looks_after_each_epoch(kinds, tmp_path):
    config = TrainConfig(model="tiny", epochs=2, per_class=16, probe=kinds, out=str(tmp_path / "r"))
    result = fit(config)
    for record in result.history:
        assert [row["layer"] for row in record["probe"]][-1] == "classifier"
        assert all(row["gradients"] > 0 and row["std"] > 0 for row in record["probe"])
    written = [json.loads(line) for line in (result.out / "metrics.jsonl").read_text().splitlines()]
    assert written[0]["probe"] == result.history[0]["probe"]
    assert (result.out / "probe.png").exists()
    assert "probe.png" in (result.out / "report.md").read_text()
    bare = fit(replace(config, probe="", out=str(tmp_path / "bare")))
    assert bare.history[-1]["val_loss"] == result.history[-1]["val_loss"]  # looking changes nothing
    events = b"".join(path.read_bytes() for path in (result.out / "events").parent.glob("events*"))
    assert b"gradients/classifier" in events


def test_an_unknown_probe():
    with pytest.raises(zoo.ZooError, match="unknown probe 'gradient': did you mean 'gradients'"):
        TrainConfig(probe="gradient")
