"""The parts of other libraries that are not public and that nothing public replaces.

Seen in jax 0.10.2, 0.11.2 and 0.12, and tensorboardX 2.6; `tests/test_private.py` tells when one of
them is gone.
"""

from collections.abc import Iterator
from typing import Any

from jax._src import clusters, distributed


def cluster_types() -> Iterator[Any]:
    """The clusters that JAX recognises without being asked, in the order in which it looks."""
    return (kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method)


def is_kubernetes(kind: Any) -> bool:
    """Whether a cluster type, as `cluster_types` gives it, is the one for Kubernetes."""
    return kind is clusters.K8sCluster


def coordination() -> Any:
    """What `jax.distributed.initialize` set up: `client`, `service` and the like, or None each."""
    return distributed.global_state


def close_events(writer: Any) -> None:
    """Close the file of a tensorboardX `EventsWriter`, whose own `close` leaves a full disk's open.

    Raises:
      OSError: a full disk.
    """
    writer._py_recordio_writer.close()
