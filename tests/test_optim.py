"""Every optimizer and every schedule, against their formulas."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from training import optim, plots
from training.config import LEARNING_RATES, OPTIMIZERS, SCHEDULES, TrainConfig
from zoo.errors import ZooError

SHAPES = {
    "body.conv.kernel": (3, 3, 4, 6),
    "body.depthwise.kernel": (3, 3, 1, 6),
    "body.norm.scale": (6,),
    "body.norm.bias": (6,),
    "classifier.kernel": (6, 12),
    "classifier.bias": (12,),
}
KERNELS = {path for path, shape in SHAPES.items() if len(shape) > 1}


def arrays(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {path: jnp.asarray(rng.normal(size=s), jnp.float32) for path, s in SHAPES.items()}


def build(rate: float = 0.1, scales=None, **settings):
    """The optimizer of these settings, at this learning rate unless `update` is given another."""
    scales = {**dict.fromkeys(SHAPES, 1.0), **(scales or {})}
    made = optim.optimizer(TrainConfig(**settings), scales)

    def update(updates, state, params, learning_rate=rate):
        return made.update(updates, state, params, learning_rate=learning_rate)

    return optax.GradientTransformation(made.init, update)


def descend(optimizer, params, gradient, steps: int):
    """Parameters after some steps along `gradient(params)`."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), length=steps)[0][0])
    return run(params)


def once(optimizer, gradients, params):
    """The updates of a first step."""
    return jax.jit(optimizer.update)(gradients, optimizer.init(params), params)[0]


# --- optimizers


def test_the_table_is_the_config():
    assert tuple(optim.RULES) == OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_down(name):
    start, goal = arrays(0), arrays(1)

    def distance(params):
        return sum(float(jnp.sum((params[path] - goal[path]) ** 2)) for path in SHAPES)

    def gradient(params):
        return jax.tree.map(jnp.subtract, params, goal)

    optimizer = build(LEARNING_RATES[name], optimizer=name, weight_decay=0)
    assert distance(descend(optimizer, start, gradient, steps=300)) < 0.8 * distance(start)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kernels_decay_and_nothing_else(name):
    params = arrays(0)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates = once(build(0.5, optimizer=name, weight_decay=0.1), nothing, params)
    # decoupled: rate x decay x weight; where norms are equalled, rate x trust x weight
    share = {"lamb": 0.5, "lars": 0.5 * optim.LARS_TRUST}.get(name, 0.5 * 0.1)
    for path, update in updates.items():
        expected = -share * params[path] if path in KERNELS else nothing[path]
        np.testing.assert_allclose(update, expected, rtol=1e-5, atol=0, err_msg=path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_scales(name):
    params, gradients = arrays(0), arrays(1)
    params["slow.kernel"], gradients["slow.kernel"] = (
        tree["classifier.kernel"] for tree in (params, gradients)
    )
    frozen = "body.conv.kernel"
    gradients[frozen] = jnp.full(SHAPES[frozen], jnp.nan)
    scales = {frozen: 0.0, "slow.kernel": 0.5}
    optimizer = build(scales=scales, optimizer=name, weight_decay=0.1)
    state, update, after = optimizer.init(params), jax.jit(optimizer.update), params
    for step in range(3):
        updates, state = update(gradients, state, after)
        if step == 0:
            np.testing.assert_allclose(
                updates["slow.kernel"], 0.5 * updates["classifier.kernel"], rtol=1e-4
            )
        after = optax.apply_updates(after, updates)
    assert np.asarray(after[frozen]).tobytes() == np.asarray(params[frozen]).tobytes()
    for path in params.keys() - {frozen}:
        assert np.isfinite(after[path]).all(), path
        assert np.any(after[path] != params[path]), path


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_is_tensorflows(momentum):
    # tf.compat.v1.train.RMSPropOptimizer(rate, decay=0.9, momentum, epsilon): ms starts at 1
    #   ms = decay x ms + (1 - decay) x g^2;  mom = momentum x mom + rate x g / sqrt(ms + epsilon)
    rates = [0.1, 0.2, 0.05, 0.05, 0.3]
    optimizer = build(optimizer="rmsprop", momentum=momentum, weight_decay=0)
    params = arrays(0)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    var = {path: np.asarray(p, np.float64) for path, p in params.items()}
    ms = {path: np.ones(p.shape) for path, p in var.items()}
    mom = {path: np.zeros(p.shape) for path, p in var.items()}
    for step, rate in enumerate(rates):
        gradients = arrays(step + 1)
        updates, state = update(gradients, state, params, rate)
        params = optax.apply_updates(params, updates)
        for path, gradient in gradients.items():
            g = np.asarray(gradient, np.float64)
            ms[path] = 0.9 * ms[path] + 0.1 * g**2
            mom[path] = momentum * mom[path] + rate * g / np.sqrt(ms[path] + 1.0)
            var[path] -= mom[path]
            np.testing.assert_allclose(params[path], var[path], rtol=1e-5, atol=1e-6)


def test_lars_is_the_papers():
    # You et al., 2017, algorithm 1: v = m v + rate x trust x |w| / |g + decay w| x (g + decay w);
    # biases and batch norm without the norms and without decay
    rates = [1.0, 3.0, 0.5]
    optimizer = build(optimizer="lars", momentum=0.8, weight_decay=0.1)
    params = arrays(0)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    w = {path: np.asarray(p, np.float64) for path, p in params.items()}
    v = {path: np.zeros(p.shape) for path, p in w.items()}
    for step, rate in enumerate(rates):
        gradients = arrays(step + 1)
        updates, state = update(gradients, state, params, rate)
        params = optax.apply_updates(params, updates)
        for path in SHAPES:
            g = np.asarray(gradients[path], np.float64)
            if path in KERNELS:
                g += 0.1 * w[path]
                g *= np.linalg.norm(w[path]) / np.linalg.norm(g)
            v[path] = 0.8 * v[path] + rate * 0.001 * g
            w[path] -= v[path]
            np.testing.assert_allclose(params[path], w[path], rtol=1e-4, atol=1e-6)


def test_lamb_moves_matrices_by_their_norm():
    params, gradients = arrays(0), arrays(1)
    updates = once(build(0.1, optimizer="lamb", weight_decay=0.3), gradients, params)
    for path, update in updates.items():
        adam = gradients[path] / (np.abs(gradients[path]) + 1e-6)  # a first step of Adam's
        if path in KERNELS:
            adam = adam + 0.3 * params[path]
            adam *= np.linalg.norm(params[path]) / np.linalg.norm(adam)
        np.testing.assert_allclose(update, -0.1 * adam, rtol=1e-5, atol=1e-6, err_msg=path)


def test_lion_steps_by_signs():
    # Chen et al., 2023, algorithm 2, with b1 = momentum and b2 = 0.99
    params, first, second = arrays(0), arrays(1), arrays(2)
    optimizer = build(0.1, optimizer="lion", momentum=0.7, weight_decay=0)
    updates, state = optimizer.update(first, optimizer.init(params), params)
    for path, update in updates.items():
        np.testing.assert_allclose(update, -0.1 * np.sign(first[path]), rtol=1e-6)
    updates, _ = optimizer.update(second, state, params)
    for path, update in updates.items():
        mixed = 0.7 * 0.01 * first[path] + 0.3 * second[path]
        np.testing.assert_allclose(update, -0.1 * np.sign(mixed), rtol=1e-6)


def test_muon_makes_matrices_orthogonal():
    params, gradients = arrays(0), arrays(1)
    updates = once(build(1.0, optimizer="muon", weight_decay=0), gradients, params)
    # Newton-Schulz brings singular values near 1, not to it; more outputs than inputs: x sqrt(2)
    for path, size in (("body.conv.kernel", 1.0), ("classifier.kernel", math.sqrt(2))):
        matrix = np.reshape(updates[path], (-1, SHAPES[path][-1]))
        values = np.linalg.svd(matrix, compute_uv=False) / size
        assert values.min() > 0.6, path
        assert values.max() < 1.3, path
        assert np.sum(matrix * np.reshape(gradients[path], matrix.shape)) < 0
        before = np.linalg.svd(np.reshape(gradients[path], matrix.shape), compute_uv=False)
        assert before.max() / before.min() > 1.5  # they were not near each other
    adam = once(build(1.0, optimizer="adam", weight_decay=0), gradients, params)
    for path in ("body.depthwise.kernel", "body.norm.scale", "classifier.bias"):
        np.testing.assert_allclose(updates[path], adam[path], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_reaches_every_optimizer_that_has_one(name):
    params, first, second = (
        {path: tree[path] for path in ("classifier.kernel", "classifier.bias")}
        for tree in map(arrays, range(3))
    )

    def second_step(momentum):
        optimizer = build(optimizer=name, momentum=momentum)
        update = jax.jit(optimizer.update)
        _, state = update(first, optimizer.init(params), params)
        return update(second, state, params)[0]

    weak, strong = second_step(0.5), second_step(0.95)
    for path in params:
        assert np.any(weak[path] != strong[path]) == (name != "adagrad"), path


def test_clipping_bounds_the_norm_of_all_gradients():
    params = arrays(0)
    sgd = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    gradients = arrays(1)
    norm = float(optax.tree.norm(gradients))
    clipped = once(build(1.0, clip_norm=2.0, **sgd), gradients, params)
    assert float(optax.tree.norm(clipped)) == pytest.approx(2.0)
    for path, update in clipped.items():
        np.testing.assert_allclose(update, -2 / norm * gradients[path], rtol=1e-5)
    small = jax.tree.map(lambda g: 1.9 / norm * g, gradients)
    untouched = once(build(1.0, clip_norm=2.0, **sgd), small, params)
    assert float(optax.tree.norm(untouched)) == pytest.approx(1.9)


# --- schedules


def rates(name: str, at, *, peak=1.0, steps=100, steps_per_epoch=10, warmup=0.0, **settings):
    config = TrainConfig(schedule=name, warmup=warmup, **settings)
    rate = optim.schedule(config, peak, steps, steps_per_epoch)
    return [float(rate(step)) for step in at]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("constant", {}, {0: 1, 50: 1, 99: 1}),
        ("constant", {"warmup": 0.1}, {0: 0, 5: 0.5, 9: 0.9, 10: 1, 99: 1}),
        ("linear", {}, {0: 1, 25: 0.75, 50: 0.5, 99: 0.01, 100: 0}),
        ("linear", {"warmup": 0.2}, {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0}),
        ("cosine", {}, {0: 1, 50: 0.5, 75: 0.5 - math.sqrt(0.5) / 2, 100: 0}),
        ("cosine", {"warmup": 0.2}, {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0}),
        # Inception's: 0.94 every 2 epochs, here of 10 steps
        ("step", {}, {0: 1, 19: 1, 20: 0.94, 39: 0.94, 40: 0.94**2, 99: 0.94**4}),
        ("step", {"warmup": 0.1}, {5: 0.5, 10: 1, 29: 1, 30: 0.94, 50: 0.94**2}),
        ("step", {"decay_rate": 0.5, "decay_epochs": 0.5}, {4: 1, 5: 0.5, 10: 0.25, 14: 0.25}),
        ("exponential", {}, {0: 1, 10: 0.94**0.5, 20: 0.94, 70: 0.94**3.5}),
        ("exponential", {"decay_rate": 0.97, "decay_epochs": 2.4}, {12: 0.97**0.5, 24: 0.97}),
        ("piecewise", {}, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 89: 0.01, 90: 0.001, 99: 0.001}),
        ("piecewise", {"warmup": 0.1}, {5: 0.5, 10: 1, 29: 1, 30: 0.1, 60: 0.01}),
        ("piecewise", {"milestones": "0.5", "decay_rate": 0.2}, {49: 1, 50: 0.2, 99: 0.2}),
        ("piecewise", {"milestones": "0.5,0.5,0.501"}, {49: 1, 50: 0.001}),
        ("piecewise", {"milestones": ""}, {0: 1, 99: 1}),
        ("one_cycle", {}, {0: 0.04, 15: 0.52, 30: 1, 58: 0.52, 86: 0.04, 93: 0.02, 100: 0}),
        ("one_cycle", {"warmup": 0.5}, {0: 0.04, 25: 0.52, 50: 1, 70: 0.52, 90: 0.04, 95: 0.02}),
    ],
)
def test_schedules(name, settings, expected):
    told = rates(name, expected, **settings)
    np.testing.assert_allclose(told, list(expected.values()), rtol=1e-5, atol=1e-7)
    peak = rates(name, expected, peak=0.045, **settings)
    np.testing.assert_allclose(peak, 0.045 * np.array(told), rtol=1e-5, atol=1e-8)


def test_drops_come_at_their_step_under_jit():
    # 49 / 49 is 0.99999994 where it is computed as 49 x (1/49)
    for steps_per_epoch in (1, 3, 41, 47, 49, 55, 61, 97):
        config = TrainConfig(schedule="step", warmup=0, decay_epochs=1, decay_rate=0.5)
        rate = optim.schedule(config, 1.0, 300, steps_per_epoch)
        steps = np.arange(0, 3 * steps_per_epoch)
        np.testing.assert_array_equal(jax.jit(rate)(steps), 0.5 ** (steps // steps_per_epoch))


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_any_length(name, steps):
    factors = (None, 0.0, 1.0) if name in ("step", "piecewise", "exponential") else (None,)
    for warmup in (0.0, 0.2, 1.0):
        for factor in factors:
            config = TrainConfig(schedule=name, warmup=warmup, decay_rate=factor)
            rate = optim.schedule(config, 0.5, steps, 3)
            told = np.asarray(jax.vmap(rate)(np.arange(steps + 1)))
            assert np.isfinite(told).all()
            assert told.min() >= 0
            assert told.max() <= 0.5
            top = np.argmax(told)
            assert (np.diff(told[: top + 1]) >= 0).all()
            assert (np.diff(told[top:]) <= 0).all()
            if warmup < 1:
                assert told[:steps].max() == 0.5


def test_a_single_step_trains():
    for name in SCHEDULES:
        assert rates(name, [0], steps=1, steps_per_epoch=1, warmup=0.05) == [1.0], name


def test_schedules_jit_as_they_are():
    for name in SCHEDULES:
        rate = optim.schedule(TrainConfig(schedule=name), 0.1, 200, 20)
        compiled = jax.jit(rate)
        for step in (0, 5, 10, 61, 150, 199):
            want = pytest.approx(float(rate(step)), rel=1e-5, abs=1e-7)  # of a peak of 0.1
            assert float(compiled(jnp.int32(step))) == want


def test_the_rate_grows_with_the_batch():
    config = TrainConfig(
        schedule="constant", warmup=0, learning_rate=0.045, batch_size=256, base_batch_size=32
    )
    rate = optim.schedule(config, config.peak_learning_rate, 10, 10)
    assert float(rate(0)) == pytest.approx(8 * 0.045)


@pytest.mark.parametrize(("name", "steps"), [*((name, 500) for name in SCHEDULES), ("step", 1)])
def test_the_picture_of_a_schedule(name, steps, tmp_path):
    config, path = TrainConfig(schedule=name), tmp_path / "rate.png"
    rate = optim.schedule(config, 0.1, steps, 50)
    assert plots.draw_schedule(config, rate, steps, 50, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn


def test_what_stands_above_it():
    def facts(**settings):
        config = TrainConfig(**settings)
        rate = optim.schedule(config, 0.1, 500, 50)
        return plots.schedule_facts(config, np.asarray(jax.vmap(rate)(np.arange(500))), 500, 50)

    assert facts(schedule="step", warmup=0).splitlines() == [
        "step: peak 0.1, at the end 0.0781",
        "no warm-up; x 0.94 every 2 epochs; 500 steps, 10 epochs",
    ]
    assert "warm-up 5%; x 0.1 at 30%, 60%, 90%" in facts(schedule="piecewise")
    assert "rising for 5%" in facts(schedule="one_cycle")
    many = ",".join(f"{share:.2f}" for share in np.arange(0.05, 1, 0.05))
    assert max(map(len, facts(schedule="piecewise", milestones=many).splitlines())) <= 64


def test_no_picture_without_matplotlib_or_a_folder(tmp_path, monkeypatch):
    config = TrainConfig()
    rate = optim.schedule(config, 0.1, 10, 10)
    with pytest.raises(ZooError, match=r"cannot write .*nowhere.*No such file"):
        plots.draw_schedule(config, rate, 10, 10, tmp_path / "nowhere" / "rate.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not plots.draw_schedule(config, rate, 10, 10, tmp_path / "rate.png")
    assert list(tmp_path.iterdir()) == []
