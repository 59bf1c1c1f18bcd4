"""Auxiliary classifiers and rematerialisation: what they change, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import zoo
from training import optim
from training.config import TrainConfig
from training.parallel import Devices
from training.state import TrainState, take_apart
from training.step import make_train_step
from zoo.layers import Conv, GlobalAvgPool, Network, Output
from zoo.registry import variants
from zoo.variant import Paper, Variant

BODY = dict(stem=Conv(3, 4, stride=2), stage1=Conv(3, 6), stage2=Conv(3, 8, stride=2))
POOL = dict(pool=GlobalAvgPool())
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 3


@pytest.fixture(autouse=True)
def helped(monkeypatch):
    """A network "helped" by a classifier after its stage1."""

    def build(ctx):
        return Network(BODY, POOL, ctx, min_size=8, aux={"stage1": POOL})

    monkeypatch.setitem(
        variants(),
        "helped",
        Variant("helped", build, paper=Paper("", "", 2015, "", ""), input_size=16),
    )


def test_named_outputs_in_training_logits_alone_in_inference():
    model = zoo.create("helped", num_classes=3, aux=True)
    x = model.preprocess.normalize(IMAGES)
    assert model(x).shape == (8, 3)
    model.train()
    output = model(x)
    assert isinstance(output, Output)
    assert {name: y.shape for name, y in output.aux.items()} == {"stage1": (8, 3)}
    model.eval()
    assert model(x).shape == (8, 3)


def test_without_aux_there_is_none():
    model = zoo.create("helped", num_classes=3)
    model.train()
    assert not isinstance(model(model.preprocess.normalize(IMAGES)), Output)


def test_counted_apart():
    c = zoo.count("helped", num_classes=3)
    assert c.aux == 6 * 3 + 3
    assert c.head == 8 * 3 + 3
    own = zoo.count(zoo.create("helped", num_classes=3))
    assert (own.aux, own.params, own.macs) == (0, c.params, c.macs)


def test_its_loss_enters_with_its_weight():
    model = zoo.create("helped", num_classes=3, aux=True)
    program, params, stats = take_apart(model)
    config = TrainConfig(optimizer="sgd", shift=0, weight_decay=0)

    def loss(params, weight):
        twin = program.network(params, stats, dropout=jax.random.key(0))
        output = twin.forward(model.preprocess.normalize(IMAGES))
        terms = [
            optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
            for logits in (output.logits, output.aux["stage1"])
        ]
        return terms[0] + weight * terms[1]

    # one step of plain gradient descent: momentum at rest gives 1 + 0.9 of the gradient
    gradients = jax.grad(loss)(params, 0.3)  # Szegedy et al., 2014, section 5
    optimizer = optim.optimizer(config, dict.fromkeys(params, 1.0))
    crew = Devices("pmap", jax.devices()[:1])
    state = TrainState.start(optimizer, params, stats, rates=[0.1])
    step = crew.compile(
        make_train_step(program, model.preprocess, optimizer, config, flip=False), donate=False
    )
    after = step(crew.replicate(state), crew.shard({"image": IMAGES, "label": LABELS}))
    for path, gradient in gradients.items():
        np.testing.assert_allclose(
            after.params[path], params[path] - 0.19 * gradient, rtol=1e-4, atol=1e-6, err_msg=path
        )
    assert float(jnp.abs(gradients["aux_stage1.classifier.linear.kernel"]).max()) > 0


def test_rematerialisation_changes_no_number():
    plain, remat = (zoo.create("helped", num_classes=3, remat=remat) for remat in (False, True))
    x = plain.preprocess.normalize(IMAGES)

    def gradient(model):
        program, params, stats = take_apart(model)

        def loss(params):
            twin = program.network(params, stats, dropout=jax.random.key(0))
            logits = twin.forward(x)
            return (logits**2).sum(), program.stats(twin)

        return jax.value_and_grad(loss, has_aux=True)(params)

    for a, b in zip(*(jax.tree.leaves(gradient(m)) for m in (plain, remat)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # one is compiled as a whole
    assert zoo.count(plain).macs == zoo.count(remat).macs
    graphdef, state = nnx.split(remat)
    assert "remat" in str(jax.make_jaxpr(lambda s: nnx.merge(graphdef, s).forward(x))(state))
