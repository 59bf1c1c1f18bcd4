"""Several processes as one run. This is the only file that starts `jax.distributed`.

Every host runs the same command, and JAX then sees the devices of all hosts. If one process ends in
the middle of a run, the others end within a minute, because no collective can finish without it.

JAX alone would abort the others after a page of C++ log, or leave them waiting in a collective for
ever. So each process here sends heartbeats and watches those of the others.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar, cast

import jax
from jax.experimental import multihost_utils

from zoo.errors import ZooError
from zoo.runtime import backend

from . import private
from .stopping import EXIT_INTERRUPTED, Interrupted

Json = TypeVar("Json", bound=dict[str, Any])

CONNECT = 300  # seconds for all processes to come up
BEAT = 3  # seconds between two heartbeats
SILENCE = 25  # seconds without a heartbeat after which a process counts as gone; at least 3 * BEAT
LINGER = 15  # seconds in which a process that aborts finds out whether another is gone
GRACE = 5  # seconds that a process without its peers has to end by itself
FINISH = 300  # seconds that a process that has ended well waits for the others to end too
PATIENCE = 24 * 60 * 60  # seconds: the first process may be busy, or prepare a dataset

LOST = (
    "another process of this run is gone; "
    "the same command on all hosts continues it from the last checkpoint"
)
SLOW = (
    "the processes of this run did not reach each other in time; "
    "the same command on all hosts continues it from the last checkpoint"
)

_numbers = itertools.count()  # of barriers and values, the same in all processes
_handler: Any = None  # of aborts, for C alone does not keep it alive


class PeerLost(Interrupted):
    """Another process of the run is gone. The same call in all processes continues the run.

    JAX cannot go on in this process: it ends within `GRACE` seconds.
    """


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join a run of several processes, before JAX computes anything. Later calls do nothing.

    No arguments are needed where JAX recognises a cluster with more than one process (Slurm,
    OpenMPI, GKE, Cloud TPU pods, indexed Kubernetes jobs); otherwise the process stays alone. Under
    Slurm and OpenMPI, JAX gives each process one GPU of its host; `JAX_LOCAL_DEVICE_IDS=0,1,2,3`
    changes that.

    Args:
      coordinator: "HOST:PORT" of process 0, with a free port, the same on all hosts.
      processes: how many there are.
      process: which of them this is, from 0.

    Raises:
      ZooError: arguments that cannot be, or other processes that did not come up.
    """
    by_hand = {}
    if (coordinator, processes, process) != (None, None, None):
        by_hand = _checked(coordinator, processes, process)
    if not jax.distributed.is_initialized() and (by_hand or in_cluster()):
        _initialize(by_hand)


def in_cluster() -> bool:
    """Whether JAX recognises a cluster around this process, with more than one process.

    Raises:
      ZooError: a cluster that does not say how many there are.
    """
    for cluster in private.cluster_types():
        # It takes any pod for one of a job, and warns where the package `kubernetes` is missing.
        if private.is_kubernetes(cluster) and "JOB_COMPLETION_INDEX" not in os.environ:
            continue
        try:
            if cluster.is_env_present():
                return bool(cluster.get_process_count() > 1)
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            name = cluster.name or cluster.__name__
            raise ZooError(
                f"cluster ({name}): cannot tell how many processes there are ({error}): "
                "expected --coordinator, --processes and --process"
            ) from error
    return False


def _checked(coordinator: str | None, processes: int | None, process: int | None) -> dict[str, Any]:
    """The arguments for `jax.distributed.initialize`, if they are given by hand."""
    if coordinator is None or processes is None or process is None:
        given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
        lacks = " and ".join(name for name, value in given.items() if value is None)
        raise ZooError(f"several processes: got no {lacks}, expected all three or none")
    host, _, port = coordinator.rpartition(":")
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or bare_ipv6 or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ZooError(
            f"coordinator: got {coordinator!r}, expected HOST:PORT such as 10.0.0.1:8476"
        )
    if processes < 1:
        raise ZooError(f"processes: got {processes}, expected 1 or more")
    if not 0 <= process < processes:
        raise ZooError(f"process: got {process}, expected 0 to {processes - 1}")
    if process == 0:
        _check_port(int(port))
    return {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
        "cluster_detection_method": "deactivate",
    }


def _check_port(port: int) -> None:
    """Check that the coordinator's port is free.

    Raises:
      ZooError: another program uses the port, which would crash JAX.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise ZooError(
            f"coordinator: cannot listen on port {port} of this host ({error.strerror}): "
            "expected a free one"
        ) from error


def _initialize(hosts: dict[str, Any]) -> None:
    global _watch
    where = hosts.get("coordinator_address") or "the cluster's first process"
    backend.run_in_calling_thread(False)  # a collective may wait for ever, and signals with it

    def alone(why: str) -> str:
        return (
            f"several processes: they did not all come up at {where} within {CONNECT} s ({why}): "
            "expected the same command on every host"
        )

    def on_abort(_: int) -> None:  # which is how JAX reports it
        _exit(2, f"zoo: {alone('no answer')}")

    _at_abort(on_abort)
    try:
        jax.distributed.initialize(
            **hosts,
            initialization_timeout=CONNECT,
            heartbeat_timeout_seconds=4 * SILENCE,  # ours is to be the first to notice
            shutdown_timeout_seconds=FINISH,
        )
    except jax.errors.JaxRuntimeError as error:
        raise ZooError(alone(str(error).splitlines()[0])) from error
    finally:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
    state = private.coordination()
    _watch = Watch(
        state.client, state.process_id, state.num_processes, state.coordinator_address or ""
    )
    atexit.register(_watch.close)  # JAX's own end comes after it, and takes the service along


def _at_abort(handler: Callable[[int], None]) -> None:
    """Call a handler when C++ aborts the process, from any thread, before the process ends.

    `signal.signal` does not do: it leaves the handler to an interpreter that never runs again.
    """
    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)


def _exit(code: int, line: str = "") -> NoReturn:
    """End the process at once, even if it hangs in a C++ call."""
    if line:
        print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Watch:
    """Watches the other processes, and ends this one when one of them is gone.

    Args:
      client: a client of JAX's coordination service, which runs in the first process.
      coordinator: the "HOST:PORT" of the service.
    """

    def __init__(self, client: Any, process: int, processes: int, coordinator: str):
        self._client, self._process, self._coordinator = client, process, coordinator
        now = time.monotonic()
        self._seen = {number: ("", now) for number in range(processes) if number != process}
        self._heard = now  # when the service last answered
        self._code: int | None = None  # what this process ends with, once it has failed
        self._closed, self._lost, self._told = (threading.Event() for _ in range(3))
        _at_abort(self._on_abort)
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        threading.Thread(target=self._look, daemon=True).start()

    def close(self) -> None:
        """Stop watching, and let the others know that this process ends as it should."""
        if self._lost.is_set() or self._code is not None:  # JAX would wait for all, then abort
            self._end()
        self._closed.set()
        self._beating.join(BEAT)  # its last sign, if any, comes before this one
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._give_sign("done")
        try:
            jax.distributed.shutdown()  # waits for the others, while an abort can still be reported
        except jax.errors.JaxRuntimeError:
            self._end()

    def failed(self, code: int) -> None:
        """Tell the others that this process cannot go on, and will end with this exit code."""
        self._code = code
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._give_sign("failed")

    def lost(self) -> bool:
        """Whether a peer is gone, which may take a while. If so, the caller ends the process."""
        if not self._lost.wait(SILENCE + GRACE):
            return False
        self._told.set()
        return True

    def _give_sign(self, sign: str) -> None:
        self._client.key_value_set(f"zoo/alive/{self._process}", sign, allow_overwrite=True)

    def _beat(self) -> None:
        for number in itertools.count():
            try:
                self._give_sign(str(number) if self._code is None else "failed")
                self._listen()
            except jax.errors.JaxRuntimeError:
                return  # the service is gone
            if self._closed.wait(BEAT):
                return

    def _listen(self) -> None:
        signs = self._client.key_value_dir_get("zoo/alive/")
        self._heard = time.monotonic()
        for key, sign in signs:
            other = int(key.rpartition("/")[2])
            if other in self._seen and self._seen[other][0] != sign:
                self._seen[other] = sign, self._heard

    def _look(self) -> None:
        while not self._closed.wait(1):
            if self._gone(SILENCE):
                self._lost.set()
                break
        # A collective may never end, nor may C++ destructors, nor whoever waits for a save.
        if not self._closed.wait(GRACE):
            self._end()

    def _gone(self, silence: float) -> bool:
        signs = [(sign, when) for sign, when in self._seen.values() if sign != "done"]
        if any(sign == "failed" for sign, _ in signs):
            return True
        last = min([self._heard, *(when for _, when in signs)])
        return time.monotonic() - last > silence

    def _on_abort(self, _: int) -> None:
        # JAX aborts from a thread of C++ that notices the end of the first process, also of one
        # that is killed while this one, with its own work done, waits for all to end.
        for _ in range(LINGER):  # on a busy host its socket may outlive a process by seconds
            if self._unreachable() or (not self._closed.is_set() and self._gone(3 * BEAT)):
                self._end()
            time.sleep(1)
        # else the abort goes on

    def _unreachable(self) -> bool:
        host, _, port = self._coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            return True
        return False

    def _end(self) -> NoReturn:
        if self._code is None:
            _exit(EXIT_INTERRUPTED, "" if self._told.is_set() else f"zoo: {LOST}")
        # Without the first process JAX aborts the others, which should learn why first.
        for _ in range(BEAT + GRACE + 3 if self._process == 0 else 0):
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._listen()
            if all(sign == "failed" for sign, _ in self._seen.values()):
                break
            time.sleep(1)
        _exit(self._code)


_watch: Watch | None = None  # of a run that `start` made one of several


def peer_lost() -> bool:
    """Whether an error that JAX raised comes from a peer that is gone.

    It takes up to half a minute to find out. If so, the process ends within `GRACE` seconds.
    """
    return _watch is not None and _watch.lost()


def too_slow(error: Exception) -> bool:
    """Whether an error means that all processes are alive but did not meet in time."""
    late = re.search(r"DEADLINE_EXCEEDED|UNAVAILABLE", str(error))
    return isinstance(error, jax.errors.JaxRuntimeError) and bool(late) and jax.process_count() > 1


def failed(code: int) -> None:
    """Tell the other processes that this one cannot go on, and will end with this exit code."""
    if _watch is not None:
        _watch.failed(code)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Run the body in every process of a run: if it fails in one of them, all of them end.

    Raises:
      PeerLost: the body failed because another process is gone, or did not answer in time.
    """
    try:
        yield
    except Interrupted:
        raise  # all of them were
    except BaseException as error:
        bad_input, impatience = isinstance(error, ZooError), isinstance(error, KeyboardInterrupt)
        # JAX may raise anything from a collective or a barrier
        if isinstance(error, Exception) and not bad_input:
            if peer_lost():
                raise PeerLost(LOST) from error
            if too_slow(error):
                failed(EXIT_INTERRUPTED)
                raise PeerLost(SLOW) from error
        failed(2 if bad_input else 130 if impatience else 1)  # as `zoo` exits
        raise


def stop_requested(step: int) -> bool:
    """Whether any process got SIGTERM. All processes get the same answer before the same step.

    All must call this before every step.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def barrier(name: str) -> None:
    """Wait for all processes. They must reach all barriers in the same order."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"zoo/{next(_numbers)}/{name}", PATIENCE * 1000)


def from_first(value: Json) -> Json:
    """Broadcast the value of the first process to all."""
    if jax.process_count() == 1:
        return value
    key = f"zoo/value/{next(_numbers)}"
    if jax.process_index() == 0:
        _client().key_value_set(key, json.dumps(value))
        return value
    return cast(Json, json.loads(_client().blocking_key_value_get(key, PATIENCE * 1000)))


def _client() -> Any:
    return private.coordination().client
