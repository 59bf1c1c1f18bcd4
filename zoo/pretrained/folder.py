"""A network as a folder, as it lies on the Hugging Face Hub: tensors, config.json and README.md."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ..errors import ZooError, unknown
from ..layers import Network, expect_network
from ..paths import write
from ..text import code, markdown, markdown_link
from ..wrapped import Wrapped
from . import timm_config
from .saving import check_built, save_file
from .torch_names import write_torch_names

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
HOLDERS = (TENSORS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # in timm's order
FORMATS = ("timm", "safetensors")
LOCAL = "local-dir:"  # what timm calls a folder, before its path
NAMED = 100  # classes that the card names

# licences that the Hub knows by name: https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0")


def save(model: Network, path: str | Path, format: str = "safetensors") -> None:
    """Write a network: every parameter and statistic, and all that rebuilds it.

    Each file appears whole or not at all, and tensors are read back before they do.

    Args:
      model: the network.
      path: the file, `.safetensors`; for "timm" a folder, which is made if it is missing.
      format: "safetensors": one file, for `zoo.load`. "timm": model.safetensors, config.json and,
        if there is none yet, README.md, for `timm.create_model("local-dir:FOLDER",
        pretrained=True)`, for `zoo.load` and for the Hub (`zoo.push_to_hub`). It holds the names of
        the classes, the preprocessing, and licence and origin of the weights too, but no auxiliary
        classifiers, which only training uses.

    Raises:
      OSError: the folder cannot be written.
      ZooError: a suffix other than `.safetensors`; a network that `zoo.load` would not rebuild:
        layers replaced or added, or norms that `zoo.fold` left in; or one that timm has not.

    >>> zoo.save(model, "pets.safetensors")                  # doctest: +SKIP
    >>> zoo.save(model, "pets", format="timm")               # doctest: +SKIP
    """
    expect_network("save", model)
    if format == "safetensors":
        save_file(model, Path(path))
    else:
        save_folder(model, Path(path), format)


def holds_network(path: Path) -> bool:
    """Whether a folder holds a network as timm or `save_folder` writes it."""
    return timm_config.names_architecture(path / CONFIG)


def tensors_in(label: str, folder: Path) -> Path:
    """The file of the tensors.

    Raises:
      ZooError: there is none.
    """
    for name in HOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise ZooError(f"load: {label} holds no weights: expected {' or '.join(HOLDERS[:2])}")


def save_folder(model: Network, folder: Path, format: str, repo: str = "") -> None:
    """Write model.safetensors, config.json and README.md.

    A README.md that is there already stays: somebody may have written it.

    Args:
      model: the network.
      folder: made if it is missing.
      format: "timm": what timm loads, and zoo too; "safetensors": what zoo alone loads.
      repo: "USER/REPO" where it goes on the Hub, for the card.

    Raises:
      ZooError: an unknown format, or a network that it cannot hold.
      OSError: the folder cannot be written.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if isinstance(model, Wrapped):
        raise ZooError(f"save: {model.spec.name} is not a network of the zoo: expected one")
    if folder.suffix == ".safetensors" or (folder.exists() and not folder.is_dir()):
        raise ZooError(f"save: got the file {folder}, expected a folder")
    check_built(model, "save")
    config = timm_config.config_of(model) if format == "timm" else _own_config(model)
    fresh = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        if format == "timm":  # whose networks are for inference
            write_torch_names(model, "timm", folder / TENSORS, aux=False)
        else:
            save_file(model, folder / TENSORS)
        if not (folder / CARD).exists():
            write(folder / CARD, card(model, format, repo or folder.name, repo).encode())
        write(folder / CONFIG, f"{json.dumps(config, indent=2)}\n".encode())
    except BaseException:
        if fresh:
            with suppress(OSError):
                folder.rmdir()  # if it is empty
        raise


def _own_config(model: Network) -> dict[str, Any]:
    return {
        "library_name": "jax-cnn-zoo",
        "architecture": model.spec.name,
        "num_classes": model.spec.num_classes,
        **({"label_names": [*model.classes]} if model.classes else {}),
    }


# --- the card ------------------------------------------------------------------------------------


def card(model: Network, format: str, name: str, repo: str = "") -> str:
    """The text of README.md: what the network is, its licence and origin, and how to load it.

    Args:
      model: the network.
      format: of the folder, see `save_folder`.
      name: the title.
      repo: "USER/REPO" where it goes on the Hub; "" for a folder of its own.
    """
    size, channels = model.preprocess.size, model.spec.in_chans
    names = [*map(markdown, model.classes[:NAMED]), *(["..."] if model.classes[NAMED:] else [])]
    rows = [
        ("network", markdown(model.spec.name)),
        ("parameters", f"{_parameters(model):,}"),
        ("pictures", f"{size} x {size}, {channels} channel{'s' if channels > 1 else ''}"),
        ("classes", f"{model.spec.num_classes}" + (": " if names else "") + ", ".join(names)),
        ("weights from", _weights_from(model)),
        ("their licence", _licence(model)),
    ]
    table = "\n".join(["| | |", "|---|---|", *(f"| {key} | {text} |" for key, text in rows)])
    uses = [f"With [JAX](https://github.com/jax-ml/jax):\n\n{_with_zoo(repo)}"]
    if format == "timm":
        uses.insert(0, f"With timm:\n\n{_with_timm(repo)}")
    if format == "timm" and not timm_config.exact(model.preprocess):
        uses.append(
            "The weights expect pictures resized by TensorFlow 1 or cut as slim does it; the "
            "settings for timm are the nearest there are."
        )
    return "\n\n".join([_front_matter(model, format), f"# {markdown(name)}", table, *uses]) + "\n"


def _parameters(model: Network) -> int:
    """How many there are, as `zoo.count` counts them: without auxiliary classifiers."""
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    parts = (part for name, part in state.items() if not name.startswith("aux_"))
    return sum(leaf.size for part in parts for leaf in jax.tree.leaves(part))


def _front_matter(model: Network, format: str) -> str:
    """The Hub's own fields: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    fields: dict[str, Any] = {
        "library_name": "timm" if format == "timm" else "jax-cnn-zoo",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *(["timm"] if format == "timm" else []), "jax"],
    }
    if model.origin and model.origin.licence:
        licence = model.origin.licence.lower()
        fields["license"] = licence if licence in HUB_LICENCES else "other"
        if fields["license"] == "other":
            fields["license_name"] = licence
    prefix = "https://huggingface.co/"
    if model.origin and model.origin.address.startswith(prefix):
        fields["base_model"] = model.origin.address.removeprefix(prefix)
    # every JSON value is YAML too
    return "\n".join(["---", *(f"{key}: {json.dumps(v)}" for key, v in fields.items()), "---"])


def _weights_from(model: Network) -> str:
    """The published weights that these are, or whose training went on."""
    if model.origin is None:
        return "not known, or random ones"
    address = model.origin.address
    name = model.origin.weights
    before = f", and these from {markdown(model.origin.before)}" if model.origin.before else ""
    return (markdown_link(name, address) if address else code(name)) + before


def _licence(model: Network) -> str:
    return markdown(model.origin.licence) if model.origin and model.origin.licence else "not known"


def _with_timm(repo: str) -> str:
    where = f"hf-hub:{repo}" if repo else f"{LOCAL}."
    return f"""```python
import timm

model = timm.create_model("{where}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```"""


def _with_zoo(repo: str) -> str:
    where = f"hf-hub:{repo}" if repo else f"{LOCAL}."
    return f"""```python
import zoo

model = zoo.load("{where}")
logits = model(model.preprocess(["picture.jpg"]))
```"""
