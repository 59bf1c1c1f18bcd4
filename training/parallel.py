"""How a step runs on all devices. This is the only file that uses `pmap` or `shard_map`.

Both engines run the same per-device function over the same mesh: the state is replicated, the
batch split along its first axis. `shard_map` runs with `check_vma=False`, under which gradients
are per device exactly as under `pmap`, so that one step body serves both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo import ops
from zoo.errors import ZooError, unknown
from zoo.runtime import backend

from .step import AXIS

State = TypeVar("State")


class Devices:
    """All devices of a run, and how arrays get onto them.

    Args:
      engine: "pmap" or "shard_map".
      devices: None takes all that JAX sees.
    """

    def __init__(self, engine: str = "pmap", devices: Sequence[jax.Device] | None = None):
        if engine not in ("pmap", "shard_map"):
            raise unknown("engine", engine, ("pmap", "shard_map"))
        backend.expect_training()
        self.engine = engine
        # not `jax.make_mesh`, whose Explicit axes pmap does not take
        self.mesh = Mesh(np.array(devices or jax.devices()), (AXIS,))
        # pmap sees this host's devices, shard_map all of them
        self.local = self.mesh.local_mesh if engine == "pmap" else self.mesh

    def __len__(self) -> int:
        return self.mesh.size

    @property
    def platform(self) -> str:
        """The platform of the devices: "cpu", "gpu" or "tpu"."""
        return str(self.mesh.devices.flat[0].platform)

    def check_batch(self, batch_size: int, parts: int = 1) -> None:
        """Check that the devices can share out a batch evenly.

        Args:
          batch_size: pictures over all devices.
          parts: into how many parts each device splits its share, to compute them in turn.

        Raises:
          ZooError: the devices cannot share out the batch evenly.
        """
        check_share(len(self), batch_size, parts)

    def replicate(self, tree: State) -> State:
        """A copy of every array on each device."""
        copies = jax.tree.map(lambda x: jax.numpy.array(x, copy=True), tree)
        return cast(State, jax.device_put(copies, NamedSharding(self.local, P())))

    def shard(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This host's part of a batch, split over its devices."""
        sharding = NamedSharding(self.local, P(AXIS))
        if self.engine == "shard_map":
            return {
                name: jax.make_array_from_process_local_data(sharding, array)
                for name, array in batch.items()
            }
        n = self.local.size
        return {
            name: jax.device_put(array.reshape(n, len(array) // n, *array.shape[1:]), sharding)
            for name, array in batch.items()
        }

    def to_global(self, tree: State) -> State:
        """Replicated arrays as arrays over the devices of all processes, which Orbax expects."""
        if self.local.size == len(self):
            return tree  # pmap's are this process's own
        whole = multihost_utils.host_local_array_to_global_array(tree, self.mesh, P())
        return cast(State, whole)

    def own(self, tree: State) -> State:
        """Replicated arrays as arrays that this process can use without the others."""
        if jax.process_count() == 1:
            return tree
        return cast(State, jax.tree.map(lambda x: jax.numpy.asarray(np.asarray(x)), tree))

    def compile(
        self,
        step: Callable[[State, Mapping[str, jax.Array]], State],
        *,
        donate: bool,
        dtype: str = "float32",
        inference: bool = False,
    ) -> Callable[[State, Mapping[str, Any]], State]:
        """`step(state, batch) -> state` for one device, as a function of the sharded batch.

        Args:
          step: it may use collectives over `AXIS`, and its result must be the same on all devices.
          donate: reuse the memory of the state given; the caller must not touch it again.
          dtype: what the network computes in.
          inference: it takes no gradients, and may use what is faster without.
        """
        run: Callable[[State, Mapping[str, Any]], State] = self.jit(
            step, donate=donate, dtype=dtype, inference=inference
        )
        if self.platform != "cpu":
            return run

        def when_ready(state: State, batch: Mapping[str, Any]) -> State:
            # A single device runs in this thread what is ready (`backend.expect_training`). Virtual
            # ones share the threads of the CPU: steps under way at once can each wait for a device
            # that another step holds.
            return run(*jax.block_until_ready((state, batch)))

        return when_ready

    def jit(
        self,
        step: Callable[[State, Mapping[str, jax.Array]], State],
        *,
        donate: bool,
        dtype: str = "float32",
        inference: bool = False,
    ) -> Any:
        """The jitted function behind `compile`, which also has `lower(state, batch)`."""
        library, variants = "eigen", self.platform
        if self.platform == "cpu":
            library, variants = backend.fastest(dtype, inference=inference)

        def for_these(state: State, batch: Mapping[str, jax.Array]) -> State:
            with ops.platform_only(variants):
                return step(state, batch)

        donated = (0,) if donate else ()
        if self.engine == "pmap":
            # out_axes=None takes device 0's copy: steps end in pmean or psum, so all are equal
            mapped = jax.pmap(
                for_these, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=donated
            )
        else:
            mapped = jax.shard_map(
                for_these,
                mesh=self.mesh,
                in_specs=(P(), P(AXIS)),
                out_specs=P(),
                check_vma=False,
            )
        if self.engine == "pmap" and jax.process_count() > 1:
            return mapped  # under a jit, pmap would see this process's devices only
        return backend.jit(
            mapped, self.platform, library=library, inference=inference, donate_argnums=donated
        )


def check_share(devices: int, batch_size: int, parts: int = 1) -> None:
    """`Devices.check_batch` for that number of devices."""
    shares = devices * parts
    if batch_size % shares:
        low = batch_size // shares * shares
        near = f"{low} or {low + shares}" if low else str(shares)
        in_parts = f", {parts} parts each," if parts > 1 else ""
        raise ZooError(
            f"batch size: {devices} devices{in_parts} cannot share out {batch_size} evenly: "
            f"the nearest that they can is {near}"
        )
