"""`zoo reproduce`: train weights of our own again, and compare them with their card."""

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.pretrained.own import Own, own

from .config import TrainConfig
from .recipes import recipe


@dataclass(frozen=True)
class Reproduction:
    """What a second training reached, beside the first."""

    own: Own
    accuracy: float  # of the second, 0 to 1

    @property
    def within(self) -> bool:
        """Whether it lies within the 95 % interval of the card."""
        return self.own.low <= self.accuracy <= self.own.high

    def __str__(self) -> str:
        first = self.own
        return (
            f"{first.name}: {self.accuracy:.2%}, {'within' if self.within else 'outside'} the "
            f"card's interval of {first.low:.2%} to {first.high:.2%} ({first.correct:,} of "
            f"{first.held_out:,} pictures)"
        )


def reproduction_config(name: str, data: str | None = None, out: str | None = None) -> TrainConfig:
    """The settings that trained weights of our own, for a run in a new folder.

    Args:
      name: the weights, "resnet20_cifar.cifar10".
      data: the same pictures, as `zoo train --data` takes them; None: those inside the package.
      out: the folder; None: runs/reproduce-NAME.

    Raises:
      ZooError: the weights are not ours, or data of this kind did not train them.

    >>> reproduction_config("mobilenet_v1_025.digits").epochs
    30
    """
    first = own(name)
    data = data or ("digits" if first.kind == "digits" else None)
    if data is None or data.partition(":")[0] != first.kind:
        given = "nothing" if data is None else data
        path = "" if first.kind == "digits" else ":PATH"
        raise ZooError(
            f"data: {name} was trained on {first.data}: got {given}, "
            f"expected --data {first.kind}{path}"
        )
    settings = {**recipe(first.recipe), "data": data, "seed": first.seed}
    return TrainConfig.from_dict({**settings, "out": out or f"runs/reproduce-{name}"})
