"""The networks by name: each file of `models/` lists its `VARIANTS`; `create` builds one."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache, partial

import jax
from flax import nnx

from . import models, plugins
from .context import Context, Numerics, Spec, dtype_name
from .errors import ZooError, check_no_file, checked, unknown
from .init import materialize
from .layers import Network, stochastic_depth
from .preprocess import IMAGENET
from .runtime import backend
from .settings import shown, whole
from .switches import WITHOUT
from .variant import Variant
from .without import Rewriting


def variants() -> dict[str, Variant]:
    """All variants by name: ours, families in alphabetical order, then those of others."""
    plugins.load()
    return _known()


@cache
def _known() -> dict[str, Variant]:
    """Ours, and what was registered so far."""
    return dict(ours())


@cache
def ours() -> Mapping[str, Variant]:
    """The variants of `models/`, each family in its file's order, without those of plugins."""
    declared: dict[str, Variant] = {}
    for module in sorted(pkgutil.iter_modules(models.__path__), key=lambda m: m.name):
        for variant in importlib.import_module(f"{models.__name__}.{module.name}").VARIANTS:
            add(declared, replace(variant, family=module.name))
    return declared


def add(known: dict[str, Variant], variant: Variant) -> None:
    """Add a variant to `known`.

    Raises:
      ZooError: its name, or an alias, is taken.
    """
    taken = {name: v for v in known.values() for name in (v.name, *v.aliases)}
    for name in (variant.name, *variant.aliases):
        if name in taken:
            raise ZooError(f"model name {name!r} is taken by {taken[name].name!r}")
    known[variant.name] = variant


def register(variant: Variant) -> None:
    """Add a network from outside, for this process: from now on its name works as ours do.

    A package calls it in every process through the entry points `zoo.plugins`: docs/extending.md.
    A variant without a family gets one: the name of the module that defines its `build`, in full if
    zoo has a family of that name; for a script, the variant's own name.

    Raises:
      ZooError: not a variant, or its name or one of its aliases is taken.

    >>> zoo.register(zoo.Variant("resnet50", build, PAPER))  # doctest: +SKIP
    ZooError: model name 'resnet50' is taken by 'resnet50'
    """
    if not isinstance(variant, Variant):
        raise ZooError(f"register: got {shown(variant)}, expected a zoo.Variant")
    add(_known(), variant if variant.family else replace(variant, family=_family(variant)))


def _family(variant: Variant) -> str:
    build = variant.build
    while isinstance(build, partial):
        build = build.func
    module = getattr(build, "__module__", None) or "__main__"
    if module == "__main__":
        return variant.name
    last = module.rpartition(".")[2]
    ours = {ours.name for ours in pkgutil.iter_modules(models.__path__)}
    return module if last in ours else last


def find(name: str) -> Variant:
    """The variant called `name`, or known by that alias.

    Raises:
      ZooError: no such network; the message suggests the nearest names.
    """
    names = _aliases()
    if not isinstance(name, str) or name not in names:
        check_no_file(name)
        raise unknown("model", name, names)
    return names[name]


def _aliases() -> dict[str, Variant]:
    """The variants by their names and their aliases."""
    return {n: v for v in variants().values() for n in (v.name, *v.aliases)}


@checked()
def list_models(pattern: str = "*") -> list[str]:
    """The names of the networks that match a shell pattern, or have an alias that does.

    >>> list_models("vgg1?")
    ['vgg11', 'vgg13', 'vgg16', 'vgg19']
    """
    if not isinstance(pattern, str):
        raise ZooError(f"list_models: got {shown(pattern)}, expected a shell pattern of names")
    return [
        variant.name
        for variant in variants().values()
        if any(fnmatch(name, pattern) for name in (variant.name, *variant.aliases))
    ]


LOADS = "zoo.load(name) gives a network with its published weights"


@checked(pretrained=LOADS, weights=LOADS)
def create(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    seed: int = 0,
    dtype: jax.typing.DTypeLike = "float32",
    param_dtype: jax.typing.DTypeLike = "float32",
    numerics: Numerics | None = None,
    init: str = "he_normal",
    norm: str = "batch",
    act: str | None = None,
    without: str = "",
    dropout: float | None = None,
    drop_path: float = 0.0,
    aux: bool = False,
    remat: bool = False,
) -> Network:
    """A network with random weights, in inference mode.

    Args:
      name: one of `list_models()`, or an alias.
      num_classes: outputs of the classifier; 0 leaves it out, and the pooled features come out.
      in_chans: channels of the pictures: 1 for grey ones, 4 for RGBA, any number for arrays.
      seed: of the initial weights.
      dtype: of the computation; logits and BN statistics are always float32.
      param_dtype: of the stored parameters.
      numerics: padding and batch-norm constants, such as `zoo.TF`; None takes the variant's own.
      init: initialiser of every kernel: "he_normal", "glorot_uniform", "lecun_normal", "dirac" (the
        first filters copy their inputs), "zeros", or "truncated_normal" and "normal" with a
        standard deviation, "truncated_normal(0.1)", which is 0.01 unless given.
      norm: "batch", or "none" to build the network as before batch norm, with biases instead.
      act: activation to use wherever the paper has one; None keeps the paper's.
      without: parts to leave out, with commas between them: "residual" connections, "depthwise"
        convolutions (full ones instead), "asymmetric" ones (nxn for 1xn and nx1), "small_kernels"
        (5x5 for two 3x3), the "reduction" by a 1x1 before a larger kernel, "avgpool" before the
        classifier (which sees up to 7x7 cells instead), "fully_connected" layers before it (a
        global average pool instead). See `zoo/without.py`.
      dropout: rate to use wherever the paper has dropout, or before the classifier where it has
        none; None keeps the paper's.
      drop_path: stochastic depth (arXiv:1603.09382): the probability that training skips the
        last residual block; it rises linearly from the first one.
      aux: whether to add the paper's auxiliary classifiers, if any; only training runs them.
      remat: recompute activations in the backward pass: less memory, a third more time.

    Returns:
      A callable: preprocessed images [N, H, W, in_chans] -> logits [N, num_classes] float32.

    Raises:
      ZooError: an unknown name or switch; the message suggests the nearest.

    >>> model = zoo.create("resnet50", num_classes=10)       # doctest: +SKIP
    """
    if isinstance(name, str) and name.partition(".")[0] in _aliases() and "." in name:
        raise ZooError(f"create: it makes random weights: zoo.load({name!r}) loads published ones")
    variant = find(name)
    spec = Spec(
        variant.name,
        num_classes=num_classes,
        in_chans=in_chans,
        dtype=dtype_name("dtype", dtype),
        param_dtype=dtype_name("param_dtype", param_dtype),
        numerics=numerics or variant.numerics,
        init=init,
        norm=norm,
        act=act,
        without=without,
        dropout=dropout,
        drop_path=drop_path,
        aux=aux,
        remat=remat,
    )
    return from_spec(spec, seed=seed)


def from_spec(spec: Spec, *, seed: int = 0) -> Network:
    """A network with random weights."""
    seed = whole("seed", seed, high=2**32 - 1)
    return materialize(abstract(spec), init=spec.init, seed=seed)


def abstract(spec: Spec) -> Network:
    """The network with shapes in place of arrays: nothing is computed or allocated."""
    variant = find(spec.name)
    backend.share_heap()

    parts = spec.without.split(",") if spec.without else []

    def build() -> Network:
        rewrite = Rewriting(parts)
        ctx = Context(spec, nnx.Rngs(dropout=0), rewrite)
        model = variant.build(ctx)
        if not isinstance(model, Network):
            raise ZooError(f"{spec.name}: build gave {shown(model)}, expected a zoo.Network")
        for part in parts:
            if part not in rewrite.done | ctx.used:
                raise ZooError(f"without: {spec.name} has no {WITHOUT[part]}")
        if spec.norm == "none" and "norm" not in ctx.used:
            raise ZooError(f"norm: {spec.name} has no batch norm to leave out")
        if spec.drop_path and "residual" in parts:
            raise ZooError("drop_path: without residual connections no block can be skipped")
        if spec.drop_path:
            stochastic_depth(model, ctx)
        return model

    model = nnx.eval_shape(build)
    model.preprocess = IMAGENET.at_size(variant.input_size).of_channels(spec.in_chans)
    return model
