"""Where weights came from, and under which licence: it goes with them from file to file."""

from dataclasses import asdict, dataclass
from typing import Any

from .errors import ZooError
from .settings import shown

# of published weights, by the names of https://spdx.org/licenses
SPDX = ("Apache-2.0", "BSD-3-Clause", "MIT", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0")


@dataclass(frozen=True)
class Origin:
    """The published weights that a network's own are, or that its training started from.

    Args:
      weights: what `zoo.load` calls them: "resnet50.a1_in1k", "hf-hub:USER/REPO".
      licence: by SPDX's name where it has one; "" if the source names none.
      address: of the file, or of the page of its repository; "" if there is none.
      before: the weights that those started from in turn, and their address; "" if they started
        from random ones, or nothing is known.
    """

    weights: str
    licence: str = ""
    address: str = ""
    before: str = ""

    @classmethod
    def from_dict(cls, values: Any) -> "Origin":
        """Rebuild what `to_dict` gave, out of a file.

        Raises:
          ZooError: it is something else.
        """
        fields = values if isinstance(values, dict) else {}
        if not ({*fields} <= {*cls.__dataclass_fields__} and "weights" in fields) or not all(
            isinstance(text, str) for text in fields.values()
        ):
            raise ZooError(f"origin: got {shown(values)}, expected weights, licence and address")
        return cls(**fields)

    def to_dict(self) -> dict[str, str]:
        """All fields by name that say something, ready for JSON."""
        fields: dict[str, str] = asdict(self)
        return {name: text for name, text in fields.items() if text or name != "before"}


def spdx(licence: str) -> str:
    """SPDX's name of a licence that a source spells in its own way, if it is one of `SPDX`.

    >>> spdx("apache-2.0")
    'Apache-2.0'
    """
    return next((name for name in SPDX if name.lower() == licence.strip().lower()), licence.strip())
