"""Every network: what it counts, what it accepts, and that it learns. Holds THE TABLE."""

import csv
import functools
import inspect
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from training.state import flat, take_apart
from zoo import layers, registry
from zoo.context import Spec
from zoo.init import INITIALIZERS
from zoo.layers import Conv, Dense, Dropout, FlattenAt, GlobalAvgPool, Network, Separable
from zoo.models import vgg

MODELS = zoo.list_models()
every_model = pytest.mark.parametrize("name", MODELS)

# --- THE TABLE -----------------------------------------------------------------------------------


class Row(NamedTuple):
    """One network as a peer counts it, 1000 classes."""

    name: str
    params: int  # trainable
    batch_stats: int
    gmacs: float  # to the peer's six decimals, at `input_size`
    input_size: int
    source: str  # peer and its model


# fmt: off
TABLE = [
    #    network             parameters   BN stats    G MACs  input  whose numbers
    Row("mobilenet_v1_100",   4_231_976,    21_888,  0.568740, 224, "keras MobileNet"),
    Row("mobilenet_v1_075",   2_585_560,    16_416,  0.325400, 224, "keras MobileNet(alpha=0.75)"),
    Row("mobilenet_v1_050",   1_331_592,    10_944,  0.149497, 224, "keras MobileNet(alpha=0.5)"),
    Row("mobilenet_v1_025",     470_072,     5_472,  0.041030, 224, "keras MobileNet(alpha=0.25)"),
    Row("resnet18",          11_689_512,     9_600,  1.814073, 224, "torchvision resnet18"),
    Row("resnet34",          21_797_672,    17_024,  3.663761, 224, "torchvision resnet34"),
    Row("resnet50",          25_557_032,    53_120,  4.089184, 224, "torchvision resnet50"),
    Row("resnet101",         44_549_160,   105_344,  7.801405, 224, "torchvision resnet101"),
    Row("resnet152",         60_192_808,   151_424, 11.513627, 224, "torchvision resnet152"),
    Row("vgg11",            132_863_336,         0,  7.609090, 224, "torchvision vgg11"),
    Row("vgg11_bn",         132_868_840,     5_504,  7.609090, 224, "torchvision vgg11_bn"),
    Row("vgg13",            133_047_848,         0, 11.308466, 224, "torchvision vgg13"),
    Row("vgg13_bn",         133_053_736,     5_888, 11.308466, 224, "torchvision vgg13_bn"),
    Row("vgg16",            138_357_544,         0, 15.470264, 224, "torchvision vgg16"),
    Row("vgg16_bn",         138_365_992,     8_448, 15.470264, 224, "torchvision vgg16_bn"),
    Row("vgg19",            143_667_240,         0, 19.632062, 224, "torchvision vgg19"),
    Row("vgg19_bn",         143_678_248,    11_008, 19.632062, 224, "torchvision vgg19_bn"),
]

# The same architecture elsewhere: peers and models of reference/params.csv. Left out for what they
# compute otherwise: Keras' ResNets (convolutions with biases) and slim's (strides elsewhere).
PEERS = dict(
    mobilenet_v1_100=["keras MobileNet", "timm mobilenetv1_100", "slim mobilenet_v1",
                      "transformers google/mobilenet_v1_1.0_224"],
    mobilenet_v1_075=["keras MobileNet(alpha=0.75)", "slim mobilenet_v1_0.75",
                      "transformers google/mobilenet_v1_0.75_192"],
    mobilenet_v1_050=["keras MobileNet(alpha=0.5)", "slim mobilenet_v1_0.5"],
    mobilenet_v1_025=["keras MobileNet(alpha=0.25)", "slim mobilenet_v1_0.25"],
    resnet18=["torchvision resnet18", "timm resnet18", "transformers microsoft/resnet-18"],
    resnet34=["torchvision resnet34", "timm resnet34", "transformers microsoft/resnet-34"],
    resnet50=["torchvision resnet50", "timm resnet50", "transformers microsoft/resnet-50"],
    resnet101=["torchvision resnet101", "timm resnet101", "transformers microsoft/resnet-101"],
    resnet152=["torchvision resnet152", "timm resnet152", "transformers microsoft/resnet-152"],
    vgg11=["torchvision vgg11", "timm vgg11", "slim vgg_a"],
    vgg11_bn=["torchvision vgg11_bn", "timm vgg11_bn"],
    vgg13=["torchvision vgg13", "timm vgg13"],
    vgg13_bn=["torchvision vgg13_bn", "timm vgg13_bn"],
    vgg16=["torchvision vgg16", "timm vgg16", "slim vgg_16", "keras VGG16"],
    vgg16_bn=["torchvision vgg16_bn", "timm vgg16_bn"],
    vgg19=["torchvision vgg19", "timm vgg19", "slim vgg_19", "keras VGG19"],
    vgg19_bn=["torchvision vgg19_bn", "timm vgg19_bn"],
)
# fmt: on


@functools.cache
def count(name: str, classes: int, size: int) -> zoo.Count:
    return zoo.count(name, num_classes=classes, input_size=size)


def test_every_network_has_one_row():
    assert sorted(row.name for row in TABLE) == sorted(MODELS)
    assert sorted(PEERS) == sorted(MODELS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_counts_are_those_of_the_table(row):
    assert registry.find(row.name).input_size == row.input_size
    c = count(row.name, 1000, row.input_size)
    assert (c.params, c.batch_stats) == (row.params, row.batch_stats)
    # A thousandth is promised; the peers' own rounding is what is reached.
    assert c.macs / 1e9 == pytest.approx(row.gmacs, abs=1e-6)


@pytest.fixture(scope="module")
def peers(shared) -> dict[str, dict[str, str]]:
    """The lines of params.csv by "peer model"."""
    with shared("reference/params.csv").open() as file:
        return {f"{line['source']} {line['model']}": line for line in csv.DictReader(file)}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table_is_its_source(row, peers):
    assert row.source in PEERS[row.name]
    theirs = peers[row.source]
    assert row.params == int(theirs["params_trainable"])
    assert row.batch_stats == int(theirs["params_nontrainable"])
    assert row.gmacs == float(theirs["gmacs"])
    assert row.input_size == int(theirs["input_size"])


@pytest.mark.parametrize(
    ("name", "peer"), [(name, peer) for name, found in PEERS.items() for peer in found]
)
def test_every_peer_counts_the_same(name, peer, peers):
    theirs = peers[peer]
    classes = 1001 if theirs["note"].startswith("1001 classes") else 1000
    c = count(name, classes, int(theirs["input_size"]))
    assert c.params == int(theirs["params_trainable"])
    assert c.batch_stats == int(theirs["params_nontrainable"])
    assert c.macs / 1e9 == pytest.approx(float(theirs["gmacs"]), abs=1e-6)


def test_no_peer_is_forgotten(peers):
    listed = {peer for found in PEERS.values() for peer in found}
    same_name = {f"{peer} {name}" for peer in ("torchvision", "timm") for name in MODELS}
    assert same_name & set(peers) <= listed


# --- names ---------------------------------------------------------------------------------------


def test_aliases_resolve():
    aliases = {a: v.name for v in registry.variants().values() for a in v.aliases}
    assert aliases["mobilenet_v1"] == "mobilenet_v1_100"
    for alias, name in aliases.items():
        assert registry.find(alias).name == name
        assert zoo.count(alias) == zoo.count(name)


@pytest.mark.parametrize("taken", ["resnet18", "mobilenet_v1"])
@pytest.mark.parametrize("as_alias", [False, True])
def test_a_name_is_given_once(taken, as_alias):
    newcomer = replace(registry.variants()["vgg11"], name="new", aliases=())
    newcomer = replace(newcomer, **({"aliases": (taken,)} if as_alias else {"name": taken}))
    found = dict(registry.variants())
    with pytest.raises(zoo.ZooError, match=f"'{taken}' is taken by '{registry.find(taken).name}'"):
        registry.add(found, newcomer)
    assert found == registry.variants()


@pytest.mark.parametrize("ask", [zoo.create, zoo.count, zoo.load, registry.find])
def test_an_unknown_name_offers_the_nearest(ask):
    with pytest.raises(zoo.ZooError, match=r"^unknown model 'resnet5': did you mean .*'resnet50'"):
        ask("resnet5")


def test_list_models_takes_patterns():
    assert zoo.list_models("resnet1*") == ["resnet18", "resnet101", "resnet152"]
    assert zoo.list_models("nothing*") == []
    assert all(v.paper.startswith("https://") for v in registry.variants().values())


# --- every network, abstractly -------------------------------------------------------------------


@functools.cache
def abstract(name: str, num_classes: int = 7, **switches) -> Network:
    return registry.abstract(Spec(name, num_classes, **switches))


def output(model: Network, size: int, method=Network.__call__):
    """What a call returns for two images, shapes only."""
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda s, x: method(nnx.merge(graphdef, s), x), state, images)


def leaves(model: Network, kind=...) -> dict[str, jax.Array]:
    return flat(nnx.state(model, kind))


@every_model
def test_builds_without_allocating(name):
    shapes = leaves(abstract(name))
    assert shapes
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in shapes.values())


@every_model
def test_smallest_input_and_output_shapes(name):
    model, headless = abstract(name), abstract(name, num_classes=0)
    assert output(model, model.min_size).shape == (2, 7)
    pooled = model.classifier.linear.kernel.shape[0]
    assert output(headless, model.min_size).shape == (2, pooled)
    assert headless.classifier is None


@every_model
def test_wrong_input_is_told(name):
    model = abstract(name)
    side = model.min_size
    for got, image in {
        f"uint8 [1, {side}, {side}, 3]": np.zeros((1, side, side, 3), np.uint8),
        f"float32 [{side}, {side}, 3]": np.zeros((side, side, 3), np.float32),
        f"float32 [1, {side}, {side}, 1]": np.zeros((1, side, side, 1), np.float32),
        f"float32 [1, 3, {side}, {side}]": np.zeros((1, 3, side, side), np.float32),
        f"{side - 1}x{side}": np.zeros((1, side - 1, side, 3), np.float32),
        f"{side}x{side - 1}": np.zeros((1, side, side - 1, 3), np.float32),
    }.items():
        for call in (model, functools.partial(zoo.features, model)):
            with pytest.raises(zoo.ZooError) as error:
                call(image)
            line = str(error.value)
            assert line.startswith(f"{name}: got ")
            assert got in line
            assert f"expected preprocessed float images [N, H, W, 3], H and W >= {side}" in line
            assert "\n" not in line


@every_model
def test_split_and_merge_keep_all(name):
    model = abstract(name)
    model.classes = ("a", "b")
    graphdef, state = nnx.split(model)
    twin = nnx.merge(graphdef, state)
    assert nnx.split(twin)[0] == graphdef
    assert leaves(twin) == leaves(model)
    assert layers.model_stages(twin) == layers.model_stages(model)
    kept = ("spec", "min_size", "preprocess", "classes")
    assert [getattr(twin, k) for k in kept] == [getattr(model, k) for k in kept]
    model.classes = ()


@every_model
def test_equal_specs_make_equal_graphs(name):
    """Else a second model of the same kind would be compiled again."""
    one, other = nnx.graphdef(abstract(name)), nnx.graphdef(registry.abstract(Spec(name, 7)))
    assert one == other
    assert hash(one) == hash(other)
    assert one != nnx.graphdef(abstract(name, num_classes=0))


@every_model
def test_bfloat16_is_only_for_the_computation(name):
    model = abstract(name, dtype="bfloat16")
    state = leaves(model, nnx.Any(nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in state.values()} == {jnp.dtype("float32")}

    *stages, logits = output(
        model, model.min_size, lambda m, x: [*(y for _, y in m.steps(x)), m.forward(x)]
    )
    assert {y.dtype for y in stages} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32


# --- one small member of each family, concretely -------------------------------------------------

SIDE, BATCH, CLASSES = 32, 4, 5


@pytest.fixture(scope="session")
def builders(network):
    """family -> a builder of its small member. VGG's has a narrow head: fc1 alone is 411 MB."""
    narrow = dict(flatten=FlattenAt(1), fc1=Dense(32), drop1=Dropout(0.5))
    create = functools.partial(zoo.create, num_classes=CLASSES, dropout=0.5)
    return dict(
        mobilenet_v1=functools.partial(create, "mobilenet_v1_025"),
        resnet=functools.partial(create, "resnet18"),
        vgg=lambda: network(
            vgg.table_1(vgg.DEPTHS["vgg11"], norm=True), narrow, num_classes=CLASSES
        ),
    )


FAMILIES = sorted({variant.family for variant in registry.variants().values()})


@pytest.fixture(scope="session", params=FAMILIES)
def small(request, builders) -> Network:
    """In inference mode; whoever changes it works on a copy."""
    return builders[request.param]()


@pytest.fixture(scope="session")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (BATCH, SIDE, SIDE, 3))


class Step(NamedTuple):
    logits: jax.Array
    grads: dict[str, jax.Array]
    before: dict[str, jax.Array]  # BN statistics
    after: dict[str, jax.Array]


@pytest.fixture(scope="session")
def train(small, images):
    """Forward and backward in training mode, given a dropout key."""
    program, params, stats = take_apart(small)
    weights = jax.random.normal(jax.random.key(1), (BATCH, CLASSES))

    def loss(params, key):
        model = program.network(params, stats, dropout=key)
        logits = model(images)
        return (logits * weights).sum(), (logits, program.stats(model))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    @functools.cache
    def step(seed: int) -> Step:
        (_, (logits, after)), grads = run(params, jax.random.key(seed))
        return Step(logits, grads, stats, after)

    return step


def test_every_parameter_learns(train):
    grads = train(0).grads
    for path, grad in grads.items():
        assert np.isfinite(grad).all(), path
        # Batch norm subtracts whatever a bias before it adds: no gradient but rounding.
        if not (path.endswith("conv.bias") and path.replace("conv.bias", "norm.bias") in grads):
            assert np.any(grad), path


def test_batch_norm_follows_the_batch_in_training_only(small, images, train):
    step = train(0)
    assert step.before.keys() == step.after.keys()
    for path, old in step.before.items():
        assert not np.array_equal(old, step.after[path]), path

    small(images)
    assert all(np.array_equal(x, step.before[p]) for p, x in leaves(small, nnx.BatchStat).items())


def test_dropout_acts_in_training_only(small, images, train):
    drops = any(isinstance(layer, nnx.Dropout) for _, layer in small.head.layers())
    assert np.array_equal(train(0).logits, train(0).logits)
    assert np.array_equal(train(0).logits, train(1).logits) != drops
    assert np.array_equal(small(images), small(images))


def test_features_are_the_stages_in_order(small, images):
    found = zoo.features(small, images)
    parts = [*small.body.layers(), *small.head.layers()]
    assert list(found) == [*(name for name, _ in parts), "classifier"]
    logits = small(images)
    assert logits.shape == (BATCH, CLASSES)
    np.testing.assert_allclose(found["classifier"], logits, rtol=1e-5, atol=1e-5)

    # The first of the head is that layer's answer to the last of the body.
    name, pool = next(iter(small.head.layers()))
    last = found[small.body.order[-1]]
    np.testing.assert_allclose(pool(last), found[name], rtol=1e-5, atol=1e-6)
    sides = [y.shape[1] for y in found.values() if y.ndim == 4]
    assert sides == sorted(sides, reverse=True)


def test_a_second_model_compiles_nothing(builders, images):
    one, two = (builders["mobilenet_v1"](seed=seed) for seed in range(2))
    first = one(images)
    compiled = layers._compiled._cache_size()
    second = two(images)
    one(images)
    assert layers._compiled._cache_size() == compiled
    assert not np.array_equal(first, second)


# --- modes and switches, on a network of three layers --------------------------------------------

BODY = dict(stem=Conv(3, 8, stride=2, act="relu6"), sep=Separable(16, stride=2))
HEAD = dict(pool=GlobalAvgPool(), drop=Dropout(0.5))


@pytest.fixture
def tiny(network):
    return functools.partial(network, BODY, HEAD, num_classes=3)


@pytest.fixture(scope="session")
def patch() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


def test_train_and_eval_set_the_mode(tiny, patch):
    model = tiny()
    before, still = leaves(model, nnx.BatchStat), model(patch)

    model.train()
    first, second = model(patch), model(patch)
    assert not np.array_equal(first, second)  # another mask
    after = leaves(model, nnx.BatchStat)
    assert all(not np.array_equal(before[path], after[path]) for path in before)

    model.eval()
    assert np.array_equal(model(patch), model(patch))
    assert not np.array_equal(model(patch), still)  # the statistics stay as training left them


@pytest.mark.parametrize(("act", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_act_replaces_every_activation(tiny, patch, act, low, high):
    papers, ours = zoo.features(tiny(), patch), zoo.features(tiny(act=act), patch)
    for stage in BODY:
        assert papers[stage].min() == 0  # ReLU6
        assert low < ours[stage].min()
        assert ours[stage].max() < high
    assert ours["stem"].min() < (low + high) / 2 < ours["stem"].max()


@pytest.mark.parametrize("name", ["mobilenet_v1_025", "resnet18", "vgg11_bn"])
def test_norm_none_puts_biases_instead(name):
    normal, bare = leaves(abstract(name)), leaves(abstract(name, norm="none"))
    assert any(".norm." in path for path in normal)
    assert not any(".norm." in path for path in bare)
    kernels = {p.removesuffix("kernel") for p in bare if p.endswith("conv.kernel")}
    biases = {p.removesuffix("bias") for p in bare if p.endswith("conv.bias")}
    assert kernels == biases
    assert not leaves(abstract(name, norm="none"), nnx.BatchStat)


@pytest.mark.parametrize(("asked", "rate"), [(None, 0.5), (0.0, 0.0), (0.9, 0.9)])
def test_dropout_replaces_the_rate(tiny, patch, asked, rate):
    model = tiny(dropout=asked, num_classes=0)
    assert model.head.drop.rate == rate
    model.set_attributes(nnx.Dropout, deterministic=False)
    kept = np.asarray(zoo.features(model, patch)["drop"] != 0)
    alive = np.asarray(zoo.features(model, patch)["pool"] != 0)
    assert kept.sum() / alive.sum() == pytest.approx(1 - rate, abs=0.25)


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        (dict(act="tahn"), "unknown activation 'tahn': did you mean 'tanh'"),
        (dict(init="he_norm"), "unknown initialiser 'he_norm': did you mean 'he_normal'"),
        (dict(norm="bach"), "unknown normaliser 'bach': did you mean 'batch'"),
        (dict(dtype="float64"), "unknown dtype 'float64': did you mean"),
        (dict(param_dtype="int8"), "unknown param_dtype 'int8': expected one of"),
        (dict(numerics=zoo.Numerics(padding="sam")), "unknown padding 'sam': did you mean 'same'"),
        (dict(num_classes=-1), "num_classes: got -1, expected 0 or more"),
        (dict(dropout=1.0), "dropout: got 1.0, expected 0 <= rate < 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_switch_that_does_not_exist(switch, message):
    with pytest.raises(zoo.ZooError, match=f"^{message}"):
        zoo.create("mobilenet_v1_025", **switch)


def test_create_passes_every_switch_on():
    """Each argument of `zoo.create` but the seed is a field of the spec, at another value."""
    switches = dict(
        num_classes=3,
        dtype="bfloat16",
        param_dtype="bfloat16",
        numerics=zoo.KERAS,
        init="normal",
        norm="none",
        act="tanh",
        dropout=0.2,
        aux=True,
        remat=True,
    )
    assert set(inspect.signature(zoo.create).parameters) == {"name", "seed", *switches}
    spec = zoo.create("mobilenet_v1_025", **switches).spec
    assert spec == Spec("mobilenet_v1_025", **switches)
    assert all(getattr(Spec("mobilenet_v1_025"), k) != v for k, v in switches.items())
    assert Spec.from_dict(spec.to_dict()) == spec


# --- fresh values --------------------------------------------------------------------------------

CONV, DEPTHWISE, DENSE = (3, 3, 64, 128), (3, 3, 1, 4096), (300, 200)


@pytest.mark.parametrize(
    ("init", "shape", "std", "cut"),  # cut: no value is further out, in deviations before cutting
    [
        ("he_normal", CONV, (2 / (9 * 64)) ** 0.5, 2 / 0.87963),
        ("he_normal", DEPTHWISE, (2 / 9) ** 0.5, 2 / 0.87963),
        ("he_normal", DENSE, (2 / 300) ** 0.5, 2 / 0.87963),
        ("lecun_normal", CONV, (1 / (9 * 64)) ** 0.5, 2 / 0.87963),
        ("glorot_uniform", CONV, (2 / (9 * 64 + 9 * 128)) ** 0.5, 3**0.5),
        ("glorot_uniform", DENSE, (2 / 500) ** 0.5, 3**0.5),
        ("truncated_normal", CONV, 0.01 * 0.87963, 2 / 0.87963),
        ("normal", CONV, 0.01, None),
    ],
)
def test_initialisers(init, shape, std, cut):
    x = INITIALIZERS[init](np.random.default_rng(0), shape)
    assert x.shape == shape
    assert x.dtype == np.float32
    assert x.std() == pytest.approx(std, rel=0.02)
    assert abs(x.mean()) < 0.02 * std
    widest = np.abs(x).max() / std
    assert widest > 4 if cut is None else 0.99 * cut < widest <= cut * (1 + 1e-4)


def test_every_initialiser_builds_a_network(tiny):
    stds = {
        init: leaves(tiny(init=init))["classifier.linear.kernel"].std() for init in INITIALIZERS
    }
    assert all(0 < std < 1 for std in stds.values())
    assert len({float(std) for std in stds.values()}) == len(INITIALIZERS)


@pytest.fixture(scope="module")
def fresh():
    @functools.cache
    def values(**asked):
        return leaves(zoo.create("mobilenet_v1_025", **asked), nnx.Any(nnx.Param, nnx.BatchStat))

    return values


def test_constants_start_neutral(fresh):
    start = {"bias": 0, "mean": 0, "scale": 1, "var": 1}
    for path, x in fresh(seed=0).items():
        leaf = path.rpartition(".")[2]
        assert leaf == "kernel" or np.all(x == start[leaf]), path


def test_the_seed_decides_all_values(fresh):
    one, other = fresh(seed=0), fresh(seed=1)
    again = leaves(zoo.create("mobilenet_v1_025", seed=0), nnx.Any(nnx.Param, nnx.BatchStat))
    assert one.keys() == other.keys() == again.keys()
    for path, x in one.items():
        assert np.array_equal(x, again[path]), path
        assert np.array_equal(x, other[path]) != path.endswith("kernel"), path


def test_no_two_kernels_are_alike(fresh):
    kernels = [np.asarray(x) for path, x in fresh(seed=0).items() if path.endswith("kernel")]
    starts = {tuple(np.sign(x.ravel()[:64])) for x in kernels}
    assert len(starts) == len(kernels)


def test_a_new_head_leaves_the_body_alone(fresh):
    one, other = fresh(seed=0), fresh(seed=0, num_classes=7)
    assert one.keys() == other.keys()
    for path, x in one.items():
        if path.startswith("classifier."):
            assert x.shape != other[path].shape
        else:
            assert np.array_equal(x, other[path]), path
