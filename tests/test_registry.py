"""Networks, layouts and weights that come from outside."""

from dataclasses import replace
from functools import partial

import pytest

import zoo
from zoo import registry
from zoo.layers import Conv, GlobalAvgPool, Network
from zoo.report.many import count_many
from zoo.variant import Variant

PAPER = zoo.Paper("", "", 2026, "", new="")


def build(ctx, width=8):
    body = dict(stem=Conv(3, width, stride=2), conv2=Conv(3, 16, stride=2))
    return Network(body, dict(pool=GlobalAvgPool()), ctx, min_size=8)


MINE = Variant("mine", build, PAPER, input_size=16, aliases=("my_net",))


@pytest.fixture
def doors(monkeypatch):
    """What a test registers is gone after it."""
    known = dict(registry.variants())
    monkeypatch.setattr(registry, "_known", lambda: known)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("doors")
def test_a_network_from_outside_is_one_of_the_others():
    zoo.register(MINE)
    assert "mine" in zoo.list_models()
    assert registry.find("my_net").name == "mine"
    assert zoo.count("mine").params == 27 * 8 + 16 + 8 * 9 * 16 + 32 + 17 * 1000
    assert zoo.create("my_net", num_classes=3).spec.name == "mine"
    assert zoo.info("mine").text()
    assert zoo.compare(["mine", "nin_cifar"]).table().md()
    assert zoo.diff("mine", "nin_cifar").render("text")
    with pytest.raises(zoo.ZooError, match="unknown model 'mines': did you mean 'mine'"):
        zoo.count("mines")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize("taken", ["resnet18", "googlenet", "mine", "my_net"])
@pytest.mark.parametrize("as_alias", [False, True])
def test_a_name_that_is_taken(taken, as_alias):
    zoo.register(MINE)
    names = zoo.list_models()
    newcomer = Variant(**{"name": "new", **({} if as_alias else {"name": taken})}, build=build,
                       paper=PAPER, aliases=(taken,) if as_alias else ())  # fmt: skip
    with pytest.raises(zoo.ZooError, match=f"^model name '{taken}' is taken by '.*'$"):
        zoo.register(newcomer)
    assert zoo.list_models() == names


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "a.b", "got the name 'a.b', expected letters"),
        ("name", "", "got the name ''"),
        ("name", 3, "got the name 3"),
        ("aliases", ("a b",), "got the name 'a b'"),
        ("aliases", "abc", "mine: aliases are 'abc', expected a tuple"),
        ("build", "resnet", "mine: build is 'resnet', expected a function"),
        ("paper", "a paper", "mine: paper is 'a paper', expected a zoo.Paper"),
        ("input_size", "224", "mine: input_size: got '224', expected a whole number"),
        ("input_size", 0, "mine: input_size: got 0, expected 1 to"),
        ("numerics", "TF", "mine: numerics is 'TF', expected a zoo.Numerics"),
        ("family", None, "mine: family is None, expected a text"),
    ],
)
def test_a_variant_that_cannot_be(field, value, says):
    with pytest.raises(zoo.ZooError) as refused:
        replace(MINE, **{field: value})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_paper_that_cannot_be():
    with pytest.raises(zoo.ZooError, match="paper, year: got '2015', expected a whole number"):
        replace(PAPER, year="2015")
    with pytest.raises(zoo.ZooError, match="paper, url: got None, expected a text"):
        replace(PAPER, url=None)


@pytest.mark.usefixtures("doors")
def test_no_variant_and_no_network():
    with pytest.raises(zoo.ZooError, match=r"register: got 'resnet50', expected a zoo\.Variant"):
        zoo.register("resnet50")
    zoo.register(replace(MINE, build=lambda ctx: dict))
    with pytest.raises(zoo.ZooError, match=r"build gave <class 'dict'>, expected a zoo\.Network"):
        zoo.create("mine")


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize(
    ("module", "given", "family"),
    [
        ("their.nets.small", "", "small"),
        ("small", "", "small"),
        ("their.resnet", "", "their.resnet"),  # the layouts' names for our ResNets are not for it
        ("their.resnet", "resnet", "resnet"),
        ("__main__", "", "mine"),
    ],
)
def test_the_family_of_a_network_from_outside(module, given, family, monkeypatch):
    monkeypatch.setattr(build, "__module__", module)
    zoo.register(replace(MINE, build=partial(partial(build), width=4), family=given))
    assert registry.find("mine").family == family


@pytest.mark.usefixtures("doors")
def test_one_that_is_registered_here_alone_is_counted_here(monkeypatch):
    monkeypatch.setattr("zoo.report.many.FEW", 1)
    zoo.register(MINE)
    done = []
    counts = count_many(["my_net", "nin_cifar"], on_done=lambda: done.append(1))
    assert [c.name for c in counts] == ["mine", "nin_cifar"]
    assert len(done) == 2
