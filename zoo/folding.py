"""Fold batch norm into the convolutions before it, so that it costs nothing in inference."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from .layers import Conv2d, ConvNormAct, Network, expect_network


def fold(model: Network) -> Network:
    """A copy for inference, whose convolutions contain the batch norm that followed them.

    The logits equal the given network's in inference mode, to rounding. Norms that come before
    their convolution stay (the `PreAct` of ResNet v2 and DenseNet: an activation stands between),
    as do NASNet's behind two convolutions, and auxiliary classifiers are left out. In training mode
    the copy has no statistics to update: it is the network of `create(..., norm="none")`, and
    `zoo.save` saves it as such, unless norms stayed.

    On a CPU where oneDNN computes, a call compiles the weights in, which makes small batches faster
    and takes one copy of them more for each shape of images (ResNet-50: 0.1 GB; three times that
    while it compiles). Shapes that would bring these copies to more than 1 GiB have the weights as
    arguments, and so have all after a change to them.

    Source: Jacob et al., 2017, arXiv:1712.05877, section 3.2.

    >>> fast = zoo.fold(zoo.create("resnet50"))              # doctest: +SKIP
    """
    expect_network("fold", model)
    model = nnx.clone(model)
    model.constant = True
    for name in model.aux_after:
        delattr(model, f"aux_{name}")
    model.aux_after = ()
    model.spec = replace(model.spec, aux=False)
    modules = [module for _, module in nnx.iter_modules(model)]
    for layer in modules:
        if isinstance(layer, ConvNormAct) and layer.norm is not None:
            _absorb(layer.conv, layer.norm)
            layer.norm = None
    if any(isinstance(module, nnx.BatchNorm) for module in modules) and not partly_folded(model):
        model.spec = replace(model.spec, norm="none")
    return model


def partly_folded(model: Network) -> bool:
    """Whether `fold` made the network but had to leave some norms in."""
    modules = [module for _, module in nnx.iter_modules(model)]
    foldable = any(isinstance(m, ConvNormAct) and m.norm is not None for m in modules)
    return not foldable and any(isinstance(m, nnx.BatchNorm) for m in modules)


def _absorb(conv: Conv2d, norm: nnx.BatchNorm) -> None:
    """(conv(x) + bias - mean) * factor + shift, as one kernel and one bias."""

    def float32(leaf: nnx.Variable[Any] | None, missing: float = 0) -> np.ndarray:
        return np.asarray(missing if leaf is None else leaf[...], np.float32)

    factor = float32(norm.scale, 1) / np.sqrt(float32(norm.var) + np.float32(norm.epsilon))
    kernel = float32(conv.kernel) * factor  # [kh, kw, C / groups, F] * [F]
    bias = (float32(conv.bias) - float32(norm.mean)) * factor + float32(norm.bias)
    dtype = conv.kernel[...].dtype
    conv.kernel[...] = jnp.asarray(kernel, dtype)
    # data: where there was no bias, None has made the attribute static
    conv.bias = nnx.data(nnx.Param(jnp.asarray(bias, dtype)))
