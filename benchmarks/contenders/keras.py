"""Keras' own applications on its JAX backend; its ResNet-50 has the stride in the first 1x1."""

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

NAMES = {
    "mobilenet_v1_100": "MobileNet",
    "mobilenet_v2_100": "MobileNetV2",
    "resnet50": "ResNet50",
    "vgg16": "VGG16",
    "inception_v3": "InceptionV3",
}


def versions() -> dict[str, str]:
    return {"keras": keras.__version__}


def make(work: dict[str, Any]) -> Callable[[], Any]:
    if work["network"] not in NAMES:
        raise NotImplementedError(f"keras.applications has no {work['network']}")
    side, batch = work["side"], work["batch"]
    model = getattr(keras.applications, NAMES[work["network"]])(
        weights=None, input_shape=(side, side, 3), classifier_activation=None
    )
    x = np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)
    if work["kind"] == "train":
        model.compile(
            optimizer=keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        labels = np.arange(batch)
        return lambda: model.train_on_batch(x, labels)
    # a jitted call, without what `predict` does around it
    trained = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    forward = jax.jit(lambda *args: model.stateless_call(*args, training=False)[0])
    x = jax.numpy.asarray(x)
    return lambda: forward(trained, rest, x).block_until_ready()
