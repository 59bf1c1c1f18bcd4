"""Settings: NumPy's numbers count, anything that would fail later is refused when it is given."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.context import Numerics, Spec
from zoo.errors import ZooError
from zoo.settings import flag, real, whole
from zoo.text import plain

SPEC = Spec("mobilenet_v1_025")

NUMBERS = {
    "num_classes": [np.int64(3), np.uint8(3), np.array(3), jnp.int32(3)],
    "dropout": [np.float32(0.25), np.float64(0.25), np.array(0.25)],
    "drop_path": [np.float16(0.25), 0],
    "aux": [np.bool_(True), np.array(True)[()]],
    "remat": [np.bool_(False)],
    "dtype": [np.float16, np.dtype("float32"), jnp.bfloat16],
    "param_dtype": ["bfloat16"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, v) for name in NUMBERS for v in NUMBERS[name]], ids=str
)
def test_what_numpy_has_becomes_pythons(name, value):
    spec = Spec("mobilenet_v1_025", **{name: value})
    got = getattr(spec, name)
    assert type(got) in (int, float, bool, str)
    if "dtype" not in name:
        assert got == value
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


REFUSED = {
    "num_classes": ["3", 3.0, True, -1, 10**9, None, [3], math.nan],
    "dropout": ["0.2", 1, -0.1, math.nan, math.inf, True, [0.2], 10**400],
    "drop_path": ["0.1", 1.0, math.nan, None],
    "aux": ["yes", 1, None],
    "remat": [0, "False"],
    "dtype": ["float23", "int8", 8, None],
    "param_dtype": [np.int32, "complex64"],
    "act": ["", 5, ["relu"]],
    "init": [None, 3, {}],
    "norm": [None, 0],
    "numerics": ["TF", Numerics],
    "seed": ["1", 1.5, -1, 2**40, True],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, v) for name in REFUSED for v in REFUSED[name]], ids=lambda v: f"{v}"
)
def test_what_would_fail_later_is_refused(name, value):
    if value is None and name in ("dtype", "param_dtype"):
        with pytest.raises(ZooError):
            Spec("mobilenet_v1_025", **{name: value})
        return
    with pytest.raises(ZooError) as error:
        zoo.create("mobilenet_v1_025", **{name: value})
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["", 5, None, ["resnet18"], "resnet18\x1b"])
def test_names_of_networks(name):
    with pytest.raises(ZooError, match="unknown model"):
        zoo.create(name)


@pytest.mark.parametrize(
    "values",
    [
        dict(bn_epsilon=math.nan),
        dict(bn_epsilon=0),
        dict(bn_epsilon="1e-3"),
        dict(bn_momentum=math.inf),
        dict(bn_momentum=2),
        dict(bn_scale=None),
        dict(conv_bias="no"),
    ],
    ids=str,
)
def test_numerics_that_cannot_be(values):
    with pytest.raises(ZooError, match=f"^{next(iter(values))}: got"):
        Numerics(**values)


def test_a_seed_of_numpy():
    a, b = (zoo.create("mobilenet_v1_025", num_classes=2, seed=s) for s in (7, np.int64(7)))
    np.testing.assert_array_equal(a.classifier.linear.kernel[...], b.classifier.linear.kernel[...])


def test_lines_say_what_was_got():
    with pytest.raises(ZooError, match=r"^x: got '3', expected a whole number$"):
        whole("x", "3")
    with pytest.raises(ZooError, match=r"^x: got 11, expected 1 to 10$"):
        whole("x", 11, 1, 10)
    with pytest.raises(ZooError, match=r"^x: got nan, expected a share$"):
        real("x", math.nan, "a share")
    with pytest.raises(ZooError, match=r"^x: got 1, expected True or False$"):
        flag("x", 1)
    with pytest.raises(ZooError) as error:
        whole("x", "9" * 10**6)
    assert len(str(error.value)) < 100


def test_text_that_a_terminal_would_obey():
    assert plain("a\nb\x1b[31m\u202ec\udcff é猫") == "a\\nb\\x1b[31m\\u202ec\\udcff é猫"
    assert plain("a\nb", keep="\n") == "a\nb"
