"""What becomes of layers before the first step of a run."""

from .parallel import Devices
from .recalibration import adapt
from .session import Session


def start_layers(session: Session, devices: Devices) -> list[str]:
    """Make the first convolution and the classifier what the config asks for.

    Returns:
      a line for each that says what it became.
    """
    told = [session.start_stem()]
    if session.config.head_init != "random":
        adapt(session, devices)
    told.append(session.start_classifier(devices))
    return [line for line in told if line]
