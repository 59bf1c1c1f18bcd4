"""`zoo.layers`: one set of names from three files."""

import pickle
from types import FunctionType, ModuleType

import jax.numpy as jnp
import numpy as np

import zoo.layers
from zoo.layers import Conv, GlobalAvgPool, MaxPool, modules, network, rows


def own_names(module: ModuleType) -> set[str]:
    """The public classes and functions that a file defines."""
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, type | FunctionType)
        and not name.startswith("_")
        and value.__module__ == module.__name__
    }


def test_the_package_has_all_names_of_its_files():
    for module in (modules, network, rows):
        names = own_names(module)
        assert len(names) > 5
        for name in names:
            assert getattr(zoo.layers, name) is getattr(module, name), name


def test_a_network_that_was_pickled_when_they_were_one_file(network):
    model = network(dict(conv=Conv(3, 4), pool=MaxPool(2, 2)), dict(pool=GlobalAvgPool()))
    now = pickle.dumps(model, protocol=2)  # names of classes as plain text
    before = now
    for module in (b"modules", b"network", b"rows"):
        before = before.replace(b"zoo.layers." + module, b"zoo.layers")
    assert before != now
    x = jnp.ones((1, 8, 8, 3))
    np.testing.assert_array_equal(pickle.loads(before)(x), model(x))
