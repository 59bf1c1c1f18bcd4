"""How a process finds the others of its run, and what it is told when it cannot."""

import socket

import jax
import pytest

from training import distributed
from zoo.errors import ZooError

CLUSTERS = (  # what Slurm, OpenMPI and Kubernetes set for each process of two
    {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "host[1-2]",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
    },
    {
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    },
)


@pytest.fixture
def plain(monkeypatch):
    """An environment without a cluster, and no way to really start."""
    for cluster in (*CLUSTERS, {"KUBERNETES_SERVICE_HOST": "", "JOB_COMPLETION_INDEX": ""}):
        for name in cluster:
            monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(distributed, "_initialize", calls.append)
    return calls


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("host:1234", None, None), "got no --processes and --process, expected all three or none"),
        ((None, 2, 0), "got no --coordinator, expected all three"),
        (("host:1234", 2, None), "got no --process, "),
        (("host", 2, 0), "coordinator: got 'host', expected HOST:PORT such as"),
        (("host:", 2, 0), "expected HOST:PORT"),
        ((":80", 2, 0), "expected HOST:PORT"),
        (("host:port", 2, 0), "expected HOST:PORT"),
        (("host:65536", 2, 0), "expected HOST:PORT"),
        (("fe80::1:80", 2, 0), "expected HOST:PORT"),
        (("host:80", 0, 0), "processes: got 0, expected 1 or more"),
        (("host:80", 2, 2), "process: got 2, expected 0 to 1"),
        (("host:80", 2, -1), "process: got -1, expected 0 to 1"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(plain, arguments, line):
    with pytest.raises(ZooError, match=line) as told:
        distributed.start(*arguments)
    assert "\n" not in str(told.value)
    assert not plain


@pytest.mark.parametrize("address", ["10.0.0.1:8476", "node-1.cluster:1", "[fe80::1]:65535"])
def test_by_hand(plain, address):
    distributed.start(address, 4, 3)
    assert plain[0]["coordinator_address"] == address
    assert (plain[0]["num_processes"], plain[0]["process_id"]) == (4, 3)


def test_a_port_that_is_taken(plain):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ZooError, match=f"cannot listen on port {port}.*in use.*a free one"):
            distributed.start(f"localhost:{port}", 2, 0)
        distributed.start(f"localhost:{port}", 2, 1)  # that is the other's
    assert len(plain) == 1


def test_a_plain_process_stays_alone(plain, monkeypatch):
    distributed.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # a pod, but of no indexed job
    distributed.start()
    assert not plain


@pytest.mark.parametrize("cluster", CLUSTERS, ids=["slurm", "openmpi"])
def test_a_cluster_is_found_where_there_are_several(plain, monkeypatch, cluster):
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    distributed.start()
    assert plain == [{}]  # JAX finds the rest
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    distributed.start()
    assert len(plain) == 1


def test_a_cluster_that_says_nonsense(plain, monkeypatch):
    for name, value in {**CLUSTERS[0], "SLURM_NTASKS": "two"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZooError, match=r"cluster \(slurm\).*'two'.*expected --coordinator"):
        distributed.start()


def test_once_only(plain, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    distributed.start("host:80", 2, 0)
    assert not plain


def test_alone_there_is_nobody_to_wait_for():
    distributed.barrier("here")
    assert distributed.from_first({"a": [1.5]}) == {"a": [1.5]}
    assert not distributed.peer_lost()


class Service:
    """JAX's coordination service as far as `Watch` asks it, without its processes."""

    def __init__(self):
        self.signs = {}

    def key_value_set(self, key, sign, allow_overwrite):
        self.signs[key] = sign

    def key_value_dir_get(self, folder):
        return list(self.signs.items())


@pytest.mark.parametrize("ends_well", [True, False])
def test_only_who_falls_silent_is_missed(monkeypatch, ends_well):
    for name, seconds in {"BEAT": 0.02, "SILENCE": 0.3, "GRACE": 60}.items():
        monkeypatch.setattr(distributed, name, seconds)
    service = Service()
    watch, peer = (distributed.Watch(service, process, 2, "") for process in (0, 1))
    if ends_well:
        peer.close()
    else:
        peer._closed.set()  # as if killed
    assert watch._lost.wait(2) is not ends_well
    watch._lost.clear()  # or closing ends this process
    watch.close()
    assert service.signs["zoo/alive/0"] == "done"


class Quiet:
    """A coordination service that takes everything and tells nothing."""

    def key_value_set(self, *_, **__):
        pass

    def key_value_dir_get(self, _):
        return []


def test_the_first_process_is_killed_while_another_waits_for_the_end(monkeypatch):
    def ending(code, line=""):
        raise SystemExit(f"{code} {line}")

    monkeypatch.setattr(distributed, "_at_abort", lambda handler: None)
    monkeypatch.setattr(distributed, "_exit", ending)
    monkeypatch.setattr(distributed, "LINGER", 1)
    with socket.create_server(("localhost", 0)) as service:
        watch = distributed.Watch(Quiet(), 1, 2, f"localhost:{service.getsockname()[1]}")
        watch.close()  # its own work is done
        watch._on_abort(6)  # of another cause: it goes on
    with pytest.raises(SystemExit, match=f"^75 zoo: {distributed.LOST[:20]}"):
        watch._on_abort(6)
