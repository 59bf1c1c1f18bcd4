"""The step: what each switch of it computes, against values worked out by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from training import memory
from training.config import TrainConfig
from training.objective import Objective
from training.parallel import Devices
from training.state import TrainState, take_apart
from training.step import average, make_train_step
from zoo.errors import ZooError

CLASSES = 3


def batch(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, 16, 16, 3), np.uint8),
        "label": rng.integers(0, CLASSES, size).astype(np.int32),
    }


def start(network, *, ema: bool = False, **apart):
    program, params, stats = take_apart(network, **apart)
    optimizer = optax.sgd(1.0)
    state = TrainState.start(optimizer, params, stats, rates=[1.0], averaged=ema)
    return program, optimizer, state


def run(network, batches, *, class_weights=None, apart=None, **settings) -> list[TrainState]:
    """The states before and after each batch, on one device, with plain SGD at rate 1."""
    config = TrainConfig(shift=0, batch_size=len(batches[0]["label"]), **settings)
    averaged = config.ema > 0 or config.wise_ft < 1
    program, optimizer, state = start(network, ema=averaged, **(apart or {}))
    devices = Devices("pmap", jax.devices()[:1])
    step = devices.compile(
        make_train_step(
            program,
            network.preprocess,
            optimizer,
            config,
            Objective(
                program.num_classes,
                label_smoothing=config.label_smoothing,
                class_weights=class_weights,
            ),
        ),
        donate=False,
    )
    states = [devices.replicate(state)]
    for one in batches:
        states.append(step(states[-1], devices.shard(one)))
    return jax.device_get(states)


@pytest.fixture
def plain(tiny):
    """A network without batch norm and dropout: the mean over a batch is that over its parts."""
    return zoo.create("tiny", num_classes=CLASSES, norm="none", dropout=0.0)


def bias_gradient(states) -> np.ndarray:
    before, after = (s.params["classifier.linear.bias"] for s in states[:2])
    return before - after


def probabilities(network, images) -> np.ndarray:
    return np.asarray(jax.nn.softmax(network(network.preprocess.normalize(images))))


def test_four_parts_of_32_are_a_batch_of_128(plain):
    (_, whole), (_, parts) = (run(plain, [batch(128)], accumulate=n) for n in (1, 4))
    for path in whole.params:
        np.testing.assert_allclose(parts.params[path], whole.params[path], atol=2e-6, err_msg=path)
    for name in whole.totals:
        np.testing.assert_allclose(parts.totals[name], whole.totals[name], rtol=1e-6)


def test_parts_move_the_batch_statistics_one_after_the_other(tiny):
    network = zoo.create("tiny", num_classes=CLASSES, dropout=0.0)
    pictures = batch(8)
    before, after = run(network, [pictures], accumulate=2, apart={"bn_momentum": 0.5})
    halves = [{k: v[part] for k, v in pictures.items()} for part in (slice(4), slice(4, None))]
    alone = [
        run(network, [half], apart={"bn_momentum": 0.0})[1].stats for half in halves
    ]  # the statistics of each half
    (path,) = (path for path in after.stats if path.startswith("body.stem") and "mean" in path)
    want = 0.25 * before.stats[path] + 0.25 * alone[0][path] + 0.5 * alone[1][path]
    np.testing.assert_allclose(after.stats[path], want, atol=1e-6)


def test_label_smoothing(plain):
    pictures = batch(4)
    got = bias_gradient(run(plain, [pictures], label_smoothing=0.3))
    targets = 0.7 * np.eye(CLASSES)[pictures["label"]] + 0.3 / CLASSES
    want = (probabilities(plain, pictures["image"]) - targets).mean(0)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_class_weights(plain):
    pictures, weights = batch(4), np.array([0.5, 2.0, 1.0])
    got = bias_gradient(run(plain, [pictures], class_weights=weights))
    of_label = weights[pictures["label"]][:, None]
    targets = np.eye(CLASSES)[pictures["label"]]
    want = (of_label * (probabilities(plain, pictures["image"]) - targets)).mean(0)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_averaged_weights(plain):
    states = run(plain, [batch(4, seed) for seed in range(3)], ema=0.2)
    path = "classifier.linear.bias"
    ema = states[0].params[path]
    for step, state in enumerate(states[1:]):
        decay = min(0.2, (1 + step) / (10 + step))  # 0.1, 2/11, 0.2
        ema = decay * ema + (1 - decay) * state.params[path]
        np.testing.assert_allclose(state.ema[path], ema, atol=1e-7)
    assert states[-1].weights[path] is states[-1].ema[path]
    assert average({}, {"a": jnp.ones(2)}, jnp.array(5), 0.9) == {}


def test_a_part_of_the_way_from_the_first_weights(plain):
    states = run(plain, [batch(4, seed) for seed in range(3)], wise_ft=0.25)
    for path, first in states[0].params.items():
        for state in states:
            want = 0.75 * first + 0.25 * state.params[path]
            np.testing.assert_allclose(state.weights[path], want, atol=1e-6)
    assert run(plain, [batch(4)], wise_ft=1.0)[-1].ema == {}


def test_mixup_trains_towards_mixed_targets(plain):
    pictures = batch(8)
    alone, mixed = (bias_gradient(run(plain, [pictures], **s)) for s in ({}, {"mixup": 1.0}))
    again = bias_gradient(run(plain, [pictures], mixup=1.0))
    np.testing.assert_array_equal(mixed, again)
    assert np.abs(mixed - alone).max() > 1e-4


def test_frozen_stages_keep_their_statistics(tiny):
    network = zoo.create("tiny", num_classes=CLASSES, dropout=0.0)
    before, after = run(network, [batch(8)], apart={"freeze_bn": {"stem"}})
    for path, old in before.stats.items():
        assert np.array_equal(old, after.stats[path]) == path.startswith("body.stem."), path


def test_bfloat16_trains_float32_weights(tiny):
    network = zoo.create("tiny", num_classes=CLASSES, dropout=0.0, dtype="bfloat16")
    exact = zoo.create("tiny", num_classes=CLASSES, dropout=0.0)
    (_, half), (_, whole) = (run(model, [batch(8)]) for model in (network, exact))
    for path, weight in half.params.items():
        assert weight.dtype == np.float32, path
        np.testing.assert_allclose(weight, whole.params[path], atol=0.1, err_msg=path)


# --- stochastic depth ----------------------------------------------------------------------------


def test_stochastic_depth_rises_to_the_last_block():
    network = zoo.create("resnet20_cifar", num_classes=10, drop_path=0.9)
    stages = [getattr(network.body, name) for name in network.body.order if "stage" in name]
    rates = [block.drop.rate for stage in stages for _, block in stage.layers()]
    np.testing.assert_allclose(rates, [0.1 * i for i in range(1, 10)])
    assert zoo.count(network).params == zoo.count("resnet20_cifar", num_classes=10).params
    x = jnp.ones((2, 32, 32, 3))
    plain = zoo.create("resnet20_cifar", num_classes=10)
    np.testing.assert_array_equal(network(x), plain(x))  # inference knows nothing of it


def test_stochastic_depth_skips_whole_branches_picture_by_picture(monkeypatch):
    from zoo.layers import Conv, GlobalAvgPool, Network
    from zoo.models.resnet import Block
    from zoo.registry import variants
    from zoo.variant import Paper, Variant

    def build(ctx):
        body = dict(stem=Conv(3, 8), block=Block(8))
        return Network(body, dict(pool=GlobalAvgPool()), ctx, min_size=8)

    monkeypatch.setitem(
        variants(), "one", Variant("one", build, paper=Paper("", "", 2015, "", ""), input_size=16)
    )
    model = zoo.create("one", num_classes=0, drop_path=0.5)
    program, params, stats = take_apart(model, freeze_bn=True)
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 8, 8, 3)), (64, 8, 8, 3))

    def train_mode(params, key):
        return program.network(params, stats, dropout=key).forward(x)

    out = np.asarray(jax.jit(train_mode)(params, jax.random.key(1)))
    kinds = np.unique(out.round(5), axis=0)
    assert len(kinds) == 2  # skipped, or kept at twice its size
    zeroed = {p: jnp.zeros_like(v) if "block" in p else v for p, v in params.items()}
    without = np.asarray(jax.jit(train_mode)(zeroed, jax.random.key(1)))[0]
    share = (np.abs(out - without).max(1) < 1e-4).mean()
    assert 0.3 < share < 0.7


def test_stochastic_depth_needs_residual_blocks():
    with pytest.raises(ZooError, match="vgg11 has no residual blocks"):
        zoo.create("vgg11", drop_path=0.1)
    with pytest.raises(ZooError, match="drop_path: got 1"):
        zoo.create("resnet18", drop_path=1)


# --- memory --------------------------------------------------------------------------------------


def test_memory_is_known_before_the_run(tiny):
    network = zoo.create("tiny", num_classes=CLASSES)
    program, _, state = start(network, ema=True)
    config = TrainConfig(batch_size=64)
    need = memory.needs(program, network.preprocess, config, state, devices=2)
    weights, stats = (4 * sum(x.size for x in t.values()) for t in (state.params, state.stats))
    assert need.parameters == 2 * weights + stats  # with the averages
    assert need.gradients == weights
    # what batch norm keeps: its input, of each convolution, for each of 32 pictures
    kept = 4 * 32 * (8 * 8 * 8 + 4 * 4 * 16) * (network.preprocess.size // 16) ** 2
    assert kept <= need.activations <= 3 * kept
    together, _, _ = start(network, bn_axis="batch")
    assert memory.needs(together, network.preprocess, config, state, 2) == need
    a_picture = zoo.count(network, input_size=network.preprocess.size).training_memory
    # but for the statistics of a batch, which are small where a picture is not
    assert need.activations == pytest.approx(a_picture * config.batch_size / 2, rel=0.05)
    parts = memory.needs(program, network.preprocess, replace(config, accumulate=4), state, 2)
    assert parts.activations == pytest.approx(need.activations / 4, rel=0.05)
    assert "parameters" in str(need)
