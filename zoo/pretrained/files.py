"""Weight files -> named NumPy arrays; nothing in them is executed. The suffix picks a reader."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import ZooError

Arrays = dict[str, np.ndarray]


def read(path: str | Path) -> tuple[Arrays, dict[str, str]]:
    """All tensors of a file by the file's own names, and its text metadata.

    Raises:
      ZooError: no such file, a suffix without a reader, or content that is not what it says.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"weights: no file {path}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ZooError(
            f"weights: cannot read {path.name}: suffix {path.suffix!r}, expected one of "
            + ", ".join(READERS)
        )
    return reader(path)


def _safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ZooError(f"weights: {path} is not a whole safetensors file: {error}") from error


def _keras_h5(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Keras' legacy HDF5: `conv1/conv1/kernel:0` is called "conv1/kernel"."""
    import h5py

    arrays: Arrays = {}

    def visit(name: str, item: "h5py.Dataset | h5py.Group") -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer_weights/"):
            layer_and_leaf = "/".join(name.split("/")[-2:])
            arrays[layer_and_leaf.removesuffix(":0")] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # follows no link out of the file
    except OSError as error:
        raise ZooError(f"weights: {path} is not a whole HDF5 file: {error}") from error
    return arrays, {}


READERS: dict[str, Callable[[Path], tuple[Arrays, dict[str, str]]]] = {
    ".safetensors": _safetensors,
    ".h5": _keras_h5,
}
