"""First convolutions that whiten patches of the training pictures."""

import numpy as np
import pytest

import zoo
from training import TrainConfig, fit, whitening
from training.session import Session


def test_filters_give_uncorrelated_outputs_of_variance_one():
    rng = np.random.default_rng(0)
    mixing = np.linspace(1, 3, 12)[:, None] * np.linalg.qr(rng.normal(size=(12, 12)))[0]
    patches = (rng.normal(size=(20_000, 12)) @ mixing).reshape(-1, 2, 2, 3)
    found = whitening.filters(patches)
    assert found.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(found[..., 1::2], -found[..., ::2])
    outputs = patches.reshape(-1, 12) @ found[..., ::2].reshape(12, 12)
    np.testing.assert_allclose(outputs.T @ outputs / len(outputs), np.eye(12), atol=0.01)
    sizes = np.linalg.norm(found[..., ::2].reshape(12, 12), axis=0)
    assert (np.diff(sizes) > 0).all()  # the largest variance first


def test_directions_that_hardly_vary_are_not_blown_up():
    patches = np.full((100, 2, 2, 3), 0.5)
    assert np.abs(whitening.filters(patches)).max() <= whitening.EPSILON**-0.5


def session(**settings) -> Session:
    given = {"data": "digits", "image_size": 16, "per_class": 8, "stem_init": "whitening"}
    return Session.open(TrainConfig(**{**given, **settings}))


@pytest.mark.parametrize(
    ("model", "said", "pairs"),
    [
        ("resnet20_cifar", "stem: 16 of 16 filters whiten patches of 3x3 pixels", 8),
        ("nin_cifar", "stem: 150 of 192 filters whiten patches of 5x5 pixels", 75),
    ],
)
def test_the_filters_of_the_first_convolution_come_in_pairs(model, said, pairs):
    opened = session(model=model)
    before = np.array(kernel_of(opened.model))
    assert opened.start_stem() == said
    after = np.array(kernel_of(opened.model))
    np.testing.assert_array_equal(after[..., 1 : 2 * pairs : 2], -after[..., 0 : 2 * pairs : 2])
    np.testing.assert_array_equal(after[..., 2 * pairs :], before[..., 2 * pairs :])


def kernel_of(model):
    """Of the first convolution."""
    first = model.body.stem if hasattr(model.body, "stem") else model.body.mlpconv1.conv
    return first.conv.kernel[...]


def test_a_frozen_stem_keeps_its_filters(tiny, tmp_path):
    settings = {"stem_init": "whitening", "image_size": 16, "per_class": 8, "batch_size": 16}
    out = str(tmp_path / "run")
    run = fit(TrainConfig("tiny", "digits", out, epochs=1, freeze="stem", **settings))
    expected = session(model="tiny", **settings)
    expected.start_stem()
    np.testing.assert_array_equal(kernel_of(run.model), kernel_of(expected.model))


def test_it_goes_with_random_weights_alone():
    with pytest.raises(zoo.ZooError, match="stem_init: got whitening and weights resnet20_cifar"):
        session(model="resnet20_cifar", weights="resnet20_cifar.cifar10").check(1)
    with pytest.raises(zoo.ZooError, match="unknown stem_init 'white': did you mean 'whitening'"):
        TrainConfig(stem_init="white")


def test_pictures_that_are_not_mirrored_cannot_alternate():
    with pytest.raises(zoo.ZooError, match=r"alternate_flip: .* not mirrored \(the dataset does"):
        session(model="resnet20_cifar", alternate_flip=True).check(1)
    with pytest.raises(zoo.ZooError, match=r"alternate_flip: .* not mirrored \(flip is off\)"):
        session(model="resnet20_cifar", alternate_flip=True, flip=False).check(1)
