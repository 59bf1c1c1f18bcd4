"""Whether what `training/private.py` uses of other libraries is still there."""

from pathlib import Path

import jax
from tensorboardX.event_file_writer import EventsWriter

from training import private


def test_clusters():
    kinds = [*private.cluster_types()]
    assert [kind for kind in kinds if private.is_kubernetes(kind)] != []
    for kind in kinds:
        assert isinstance(kind.is_env_present(), bool)
        assert callable(kind.get_process_count)


def test_the_state_of_several_processes():
    assert not jax.distributed.is_initialized()
    state = private.coordination()
    assert (state.client, state.service) == (None, None)


def open_files() -> set[Path]:
    return {link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()}


def test_the_file_of_events(tmp_path):
    writer = EventsWriter(str(tmp_path / "events"), "")
    (file,) = tmp_path.iterdir()
    assert file.resolve() in open_files()
    private.close_events(writer)
    assert file.resolve() not in open_files()
