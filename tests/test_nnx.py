"""What a Flax user does with an `nnx.Module` works on ours: the code of `docs/nnx.md`, run."""

import ast
import pickle
import re
import threading
from functools import cached_property
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from flax import nnx

import zoo
from zoo.errors import ZooError
from zoo.layers import BatchNorm, Conv, Dropout, GlobalAvgPool, MaxPool, Separable, branches
from zoo.models.resnet import Block
from zoo.runtime import calling

GRAPHS = flax.config.nnx_graph_mode and flax.config.nnx_graph_updates
FAMILIES = ("mobilenet_v1_025", "resnet8_mlperf", "squeezenet1_1")
X = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
TEXT = (ROOT / "docs" / "nnx.md").read_text()
SETUP = re.search(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[1]
SECTIONS = re.split(r"^\| what \| code \|\n\|---\|---\|\n", TEXT, flags=re.MULTILINE)[1:]
LOGITS, GRADIENTS, ALONG, OTHERS = (
    dict(re.findall(r"^\| (.*?) \| `(.*)` \|$", section, re.MULTILINE)) for section in SECTIONS
)
# of the real networks all is run in the slow tests, these in every run
CORE = ["a deep copy", "pickle", "names of the outputs", "a table of layers", "no pictures"]
DERIVATIVES = ["forward mode", "value and gradient"]  # of the smallest network


@pytest.fixture(autouse=True)
def methods():
    """`nnx.tabulate` leaves inherited methods behind in classes; `nnx.capture` hangs at them."""

    def classes(of: type) -> list[type]:
        return [of, *(c for sub in of.__subclasses__() for c in classes(sub))]

    before = {cls: set(vars(cls)) for cls in classes(nnx.Pytree)}
    yield
    for cls, names in before.items():
        for name in set(vars(cls)) - names:
            delattr(cls, name)


@pytest.fixture(scope="module")
def made(network):
    """Layers of three families, so that each of their operations is differentiated and mapped."""
    body = dict(
        stem=Conv(3, 4, stride=2),
        separable=Separable(6),
        residual=Block(6),
        shrink=MaxPool(3, 2),
        mixed=branches(b1=dict(one=Conv(1, 4)), b3=dict(three=Conv(3, 4, groups=2))),
    )
    return network(body, dict(pool=GlobalAvgPool(), drop=Dropout(0.5)), num_classes=3)


@pytest.fixture
def small(made):
    return lambda: nnx.clone(made)


class Wanted:
    """What plain JAX gives of a network, computed once for all rows of the table."""

    def __init__(self, model: Any):
        self.graphdef, self.params, self.rest = nnx.split(nnx.clone(model), nnx.Param, ...)

    def forward(self, params: Any) -> Any:
        return nnx.merge(self.graphdef, params, self.rest).forward(X)

    @cached_property
    def logits(self) -> np.ndarray:
        return np.asarray(jax.jit(self.forward)(self.params))

    @cached_property
    def gradients(self) -> Any:
        """Of the mean of the squares."""
        return jax.jit(jax.grad(lambda params: (self.forward(params) ** 2).mean()))(self.params)

    @cached_property
    def along(self) -> float:
        """The derivative along the parameters themselves."""
        pairs = zip(*map(jax.tree.leaves, (self.params, self.gradients)), strict=True)
        return sum(float((p * g).sum()) for p, g in pairs)


@pytest.fixture(scope="module")
def wanted(made):
    return Wanted(made)


def start(model: Any) -> dict[str, Any]:
    """The names that the table's code knows, about this network."""
    names: dict[str, Any] = {}
    exec(re.sub(r"zoo\.create\(.*?\)", "None", SETUP).split("graphdef")[0], names)
    names["x"] = jnp.asarray(X)
    names["model"] = model
    exec("graphdef" + SETUP.split("graphdef", 1)[1], names)
    return names


def value(code: str, names: dict[str, Any]) -> Any:
    """What the last statement of a row gives."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if isinstance(last, ast.With):  # with ...: y = ...
        exec(code, names)
        return names["y"]
    exec(compile(ast.Module(tree.body[:-1], []), "docs/nnx.md", "exec"), names)
    return eval(compile(ast.Expression(last.value), "docs/nnx.md", "eval"), names)


def check(what: str, model: Any, wanted: Wanted) -> None:
    code = {**LOGITS, **GRADIENTS, **ALONG, **OTHERS}[what]
    if re.search(r"nnx\.(value_and_)?grad\(", code) and not GRAPHS:
        pytest.skip("Flax itself differentiates random streams then")
    names = start(model)
    x = names["x"]
    if what in LOGITS:
        got = value(LOGITS[what], names)
        np.testing.assert_allclose(got, wanted.logits, rtol=1e-3, atol=1e-5)
    elif what in GRADIENTS:
        got = value(GRADIENTS[what], names)
        for a, b in zip(*map(jax.tree.leaves, (got, wanted.gradients)), strict=True):
            assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-7
    elif what in ALONG:
        got = float(value(ALONG[what], names))
        assert got == pytest.approx(wanted.along, rel=1e-3, abs=1e-7)
    else:
        got = value(OTHERS[what], names)
        first = got[0] if isinstance(got, tuple) else got
        if hasattr(first, "shape"):
            assert first.shape[-1] == (5 if "another classifier" in what else 3)
            assert first.shape[0] == (0 if what == "no pictures" else 2)
        if isinstance(got, str):
            assert "Network" in got
        model.eval()
        assert np.isfinite(model(x)).all()  # whatever came before


@pytest.mark.parametrize("what", [*LOGITS, *GRADIENTS, *ALONG, *OTHERS])
def test_what_the_table_says(what, small, wanted):
    check(what, small(), wanted)


@pytest.mark.parametrize("name", FAMILIES)
def test_on_three_families(name):
    model = zoo.create(name, num_classes=3)
    wanted = Wanted(model)
    for what in CORE + (DERIVATIVES if name == "resnet8_mlperf" else []):
        check(what, nnx.clone(model), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("what", [*LOGITS, *GRADIENTS, *ALONG, *OTHERS])
def test_all_of_it_on_three_families(what, name):
    model = zoo.create(name, num_classes=3)
    check(what, nnx.clone(model), Wanted(model))


@pytest.mark.skipif(not GRAPHS, reason="Flax itself differentiates random streams then")
def test_gradients_in_training_mode_move_the_statistics(small):
    model, twin = small(), small()
    model.train()
    twin.train()
    value_, grads = nnx.value_and_grad(lambda m: (m(X) ** 2).mean())(model)

    @nnx.jit
    def compiled(m):
        return nnx.value_and_grad(lambda m: (m.forward(X) ** 2).mean())(m)

    value_2, grads_2 = compiled(twin)
    assert float(value_) == pytest.approx(float(value_2), rel=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (grads, grads_2)), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-7
    stats = [nnx.state(m, nnx.BatchStat) for m in (model, twin)]
    for a, b in zip(*map(jax.tree.leaves, stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.abs(model.body.stem.norm.mean[...]).max() > 0


def test_forward_mode_in_training_mode(small):
    model = small()
    model.train()
    model.head.drop.deterministic = True
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        return (nnx.merge(graphdef, params, rest, copy=True)(X) ** 2).mean()

    grads = jax.grad(loss)(params)
    along = sum(float((p * g).sum()) for p, g in
                zip(*map(jax.tree.leaves, (params, grads)), strict=True))  # fmt: skip
    assert float(jax.jvp(loss, (params,), (params,))[1]) == pytest.approx(along, rel=1e-3)


def test_a_network_that_was_copied_compiles_nothing(small):
    model = small()
    model(X)
    before = calling.compiled.cache_info().currsize
    for copy in (pickle.loads(pickle.dumps(model)), nnx.clone(model)):
        copy(X)
    assert calling.compiled.cache_info().currsize == before


def test_modules_that_are_one_and_that_are_two_again(small):
    """The settings look alike, and the variables are others."""
    model = small()
    block = model.body.residual
    first, second = block.order[:2]
    own = getattr(block, second).conv
    model(X)
    getattr(block, second).conv = getattr(block, first).conv
    np.testing.assert_allclose(model(X), model.forward(X), rtol=1e-4, atol=1e-5)
    getattr(block, second).conv = own
    np.testing.assert_allclose(model(X), model.forward(X), rtol=1e-4, atol=1e-5)


def test_a_list_that_grows_is_seen(small):
    model = small()

    class Head(nnx.Module):
        def __init__(self):
            self.factors = [2.0]

        def __call__(self, x):
            for factor in self.factors:
                x = x * factor
            return x

    model.classifier = Head()
    before = model(X)
    model.classifier.factors.append(3.0)
    np.testing.assert_allclose(model(X), 3 * before, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_a_module_that_sows_and_counts(small):
    """What a compiled call would lose."""
    model = small()

    class Head(nnx.Module):
        def __init__(self):
            self.calls = 0

        def __call__(self, x):
            self.calls += 1
            self.sow(nnx.Intermediate, "pooled", x)
            return x

    model.classifier = Head()
    model(X)
    model(X)
    assert model.classifier.calls == 2
    assert len(model.classifier.pooled.get_value()) == 2


def test_another_norm_in_place_of_ours(small):
    model = small()
    model.body.stem.norm = nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0))
    model.train()
    assert model(X).shape == (2, 3)


def test_threads_share_a_network(small):
    model, answers = small(), []
    threads = [threading.Thread(target=lambda: answers.append(model(X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        np.testing.assert_array_equal(answer, model(X))
    assert len(answers) == 4


def test_features_keep_the_tables_order(small):
    model = small()
    order = [*model.body.order, *model.head.order, "classifier"]
    assert order != sorted(order)
    found = [
        zoo.features(model, X),
        jax.jit(lambda x: zoo.features(model, x))(X),
        nnx.jit(zoo.features)(model, X),
        jax.vmap(lambda x: zoo.features(model, x))(X[:, None]),
        jax.tree.map(lambda a: a, zoo.features(model, X)),
    ]
    assert all(list(stages) == order for stages in found)
    assert isinstance(found[1], dict)


def test_one_value_a_channel_is_refused_in_training_mode():
    norm = BatchNorm(4, use_running_average=False, rngs=nnx.Rngs(0))
    with pytest.raises(ZooError, match=r"got \[1, 1, 1, 4\], which is one value a channel"):
        norm(jnp.ones((1, 1, 1, 4)))
    for shape in ((2, 1, 1, 4), (1, 1, 2, 4)):
        assert norm(jnp.ones(shape)).shape == shape
    shared = BatchNorm(4, use_running_average=False, axis_name="i", rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(shared)
    alone = jnp.arange(8.0).reshape(2, 1, 1, 1, 4)  # one a device, two in all
    y = jax.vmap(lambda x: nnx.merge(graphdef, state, copy=True)(x), axis_name="i")(alone)
    np.testing.assert_allclose(y[1], 1, rtol=1e-3)

    model = zoo.create("mobilenet_v1_025", num_classes=3)
    model(X[:1])
    model.train()
    with pytest.raises(ZooError, match="mobilenet_v1_025, body/sep12: batch norm in training mode"):
        model(X[:1])
