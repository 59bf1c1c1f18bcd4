"""The packages that only training and evaluation need: the extra `train`."""

from importlib.util import find_spec

from zoo.errors import ZooError

PACKAGES = ("grain", "optax", "orbax.checkpoint", "tensorboardX", "tensorflow_datasets")


def check() -> None:
    """Nothing, where all of them are installed; none is imported.

    Raises:
      ZooError: the packages that are missing, and how to install them.
    """
    missing = [name for name in PACKAGES if not _installed(name)]
    if missing:
        raise ZooError(
            f"training and evaluation need {', '.join(missing)}: pip install 'jax-cnn-zoo[train]'"
        )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it
        return False
