"""Write a network as a file for other libraries: by PyTorch's names, as StableHLO, as ONNX."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ..errors import ZooError, unknown
from ..folding import fold
from ..layers import Network, expect_network
from ..paths import write
from .folder import save
from .torch_names import write_torch_names

PLATFORMS = ("cpu", "cuda", "tpu")  # on which a StableHLO file runs
TOLERANCE = 1e-4  # of the outputs of a file, relative to the largest output of the model

Run = Callable[[np.ndarray], Any]  # images -> logits


def export(
    model: Network, path: str | Path, format: str = "safetensors", *, preprocess: bool = False
) -> None:
    """Write a network for use elsewhere, in inference mode.

    Each file is read back and checked before it appears: names by the loader, programs by their
    outputs for a random batch (an ONNX one where `onnxruntime` is installed).

    Args:
      model: the network; it is not changed.
      path: the file; one that exists is replaced.
      format: "safetensors" is what `zoo.save` writes and `zoo.load` reads back whole.
        "timm", where the path does not end with .safetensors, is a folder, as `zoo.save` writes it.
        "torchvision" and "timm" are safetensors by the names of that library, for
        `torch_model.load_state_dict(safetensors.torch.load_file(path))`. timm has several
        networks for one of ours (with `tf_` before their names): take the one whose numerics
        are the model's. torchvision's MnasNet asks for its version, which safetensors cannot
        hold: `state = collections.OrderedDict(load_file(path))`, then
        `state._metadata = {"": {"version": 2}}`, then `load_state_dict(state)`.
        "stablehlo" is one program with its weights inside, for
        `jax.export.deserialize(Path(path).read_bytes()).call(images)` on CPU, CUDA and TPU, each
        with its own convolutions; JAX of the same version or a newer one reads it.
        "onnx" is one program with its weights inside, opset 17, float32, its batch norms folded.
        Its metadata tell, each as JSON: `network`, `preprocess`, `classes` if they have names, and
        of `model.origin` `weights`, `licence` and `address`. StableHLO has no place for them.
      preprocess: of the programs: they take uint8 images [N, size, size, C], in R, G, B, as
        `model.preprocess.image` makes them, and normalise them inside, instead of float32 ones that
        are normalised already. Both take any number of images, and give logits [N, num_classes],
        float32.

    Raises:
      ZooError: an unknown format, a package that is missing, or a network that the format cannot
        hold: one changed from what the library has, or too large for one file.
      OSError: the folder cannot be written.

    >>> zoo.export(model, "resnet50.onnx", "onnx", preprocess=True)      # doctest: +SKIP
    """
    expect_network("export", model)
    path = Path(path)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if not path.parent.is_dir():
        raise ZooError(f"export: no folder {path.parent}")
    program = PROGRAMS.get(format)
    if program is None:
        if preprocess:
            raise ZooError(
                f"export: {format} holds tensors alone, "
                f"preprocess=True is for {' and '.join(PROGRAMS)}"
            )
        if format == "timm" and path.suffix != ".safetensors":
            save(model, path, format)
            return
        if path.suffix != ".safetensors":
            raise ZooError(f"export: {format} is a .safetensors file, got {path.name}")
        if format == "safetensors":
            save(model, path)
        else:
            write_torch_names(model, format, path)
        return
    model = nnx.merge(*nnx.split(model))  # the same arrays: the given network keeps its mode
    model.eval()
    write(path, program(model, preprocess))


# --- programs ------------------------------------------------------------------------------------


def _function(model: Network, preprocess: bool) -> Callable[[jax.Array], jax.Array]:
    """The function from images to logits that is traced."""
    if preprocess:
        return lambda images: model.logits(model.preprocess.normalize(images))
    return model.logits


def _stablehlo(model: Network, preprocess: bool) -> bytes:
    _needs("flatbuffers", "stablehlo")
    from jax import export

    size, dtype = model.preprocess.size, np.uint8 if preprocess else np.float32
    shape = export.symbolic_shape(f"n, {size}, {size}, {model.spec.in_chans}")
    images = jax.ShapeDtypeStruct(shape, dtype)
    exported = export.export(jax.jit(_function(model, preprocess)), platforms=PLATFORMS)(images)
    data = bytes(exported.serialize())
    _check("stablehlo", export.deserialize(bytearray(data)).call, model, preprocess)
    return data


def _onnx(model: Network, preprocess: bool) -> bytes:
    _needs("onnx", "onnx")
    from .onnx_graph import graph

    if model.spec.dtype != "float32":
        raise ZooError(f"export: onnx holds float32 networks, got {model.spec.dtype}")
    size, dtype = model.preprocess.size, np.uint8 if preprocess else np.float32
    shape = (size, size, model.spec.in_chans)
    data = graph(_function(fold(model), preprocess), shape, np.dtype(dtype), _facts(model))
    try:
        import onnxruntime
    except ImportError:  # then the file is written without this check
        return data
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    with jax.default_matmul_precision("highest"):  # accelerators round products in float32 networks
        _check("onnx", lambda x: session.run(None, {"images": x})[0], model, preprocess)
    return data


def _facts(model: Network) -> dict[str, str]:
    """What a program does not show of a network, as JSON."""
    facts: dict[str, Any] = {
        "network": model.spec.name,
        "preprocess": model.preprocess.to_dict(),
        **({"classes": model.classes} if model.classes else {}),
        **(model.origin.to_dict() if model.origin else {}),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def _needs(package: str, format: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ZooError(
            f"export: format {format!r} needs the package {package}: "
            "pip install 'jax-cnn-zoo[export]'"
        ) from error


def _check(format: str, run: Run, model: Network, preprocess: bool) -> None:
    """Refuse a program whose outputs for two random pictures differ from the model's."""
    size = model.preprocess.size
    shape = (2, size, size, model.spec.in_chans)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    normalized = model.preprocess.normalize(images)
    want = np.asarray(model(normalized))
    got = np.asarray(run(images if preprocess else np.asarray(normalized)))
    error = np.abs(got - want).max() if got.shape == want.shape else np.inf
    # Random weights can amplify rounding (EfficientNet v2's do): no file can be closer to the model
    # than the model is to itself for pictures that differ by a millionth.
    shaken = np.abs(np.asarray(model(normalized * np.float32(1 + 1e-6))) - want).max()
    limit = max(TOLERANCE * max(1.0, np.abs(want).max()), 4 * shaken)
    if not error <= limit:
        raise ZooError(
            f"export: the {format} file of {model.spec.name} would give other outputs: "
            f"got a difference of {error:.2g}, expected at most {limit:.2g}"
        )


PROGRAMS: dict[str, Callable[[Network, bool], bytes]] = {"stablehlo": _stablehlo, "onnx": _onnx}
FORMATS = ("safetensors", "torchvision", "timm", *PROGRAMS)
