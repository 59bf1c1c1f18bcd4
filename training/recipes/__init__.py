"""Settings for published results, a file each, which says how much of it was run and what it gave.

>>> recipe("resnet20_cifar10")["optimizer"]
'sgd'
"""

import tomllib
from pathlib import Path
from typing import Any

from zoo.errors import unknown

HERE = Path(__file__).parent


def list_recipes() -> list[str]:
    """Their names, sorted."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, to be given to `TrainConfig`; its file says what they gave.

    Raises:
      ZooError: no such recipe; the line offers the nearest.
    """
    if name not in list_recipes():
        raise unknown("recipe", name, list_recipes())
    settings: dict[str, Any] = tomllib.loads((HERE / f"{name}.toml").read_text())["settings"]
    return settings
