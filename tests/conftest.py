"""What every test runs under. pytest imports this before any test file, and so before jax."""

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hub import Hub

    from zoo.layers import Network, Table

ROOT = Path(__file__).resolve().parents[1]
# Published weights, pictures and the peers' figures: CONTRIBUTING.md says where they can be had.
TEST_DATA = Path(os.environ.get("ZOO_TEST_DATA") or ROOT.parent / "shared").expanduser().resolve()

ASKED = os.environ.get("XLA_FLAGS", "")


def xla_flags(devices: int) -> str:
    """XLA_FLAGS for so many CPU devices.

    LLVM does not optimise what XLA gives it: that is a third of the time that compiling takes, and
    changes results by their rounding at most. `XLA_FLAGS=--xla_backend_optimization_level=3 pytest`
    has it optimised, as it is for users.
    """
    count = f"--xla_force_host_platform_device_count={devices}"
    return f"--xla_backend_optimization_level=0 {ASKED} {count}"


# Subprocesses of tests inherit all of this, but for those that are to run as a user's do.
os.environ["XLA_FLAGS"] = xla_flags(devices=8)
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the 8 devices, and float32 without TF32
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get("ZOO_TEST_CACHE") or str(
    Path(tempfile.gettempdir()) / "zoo-test-cache"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
for name in ("ZOO_OFFLINE", "ZOO_MIRROR", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbours run in one process: what one test compiles or trains, the next one has."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


# The files with the dearest tests, many of them of several processes.
DEAREST = ("test_accelerator.py", "test_loop.py", "test_outside.py", "test_survival.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The dearest first: what is left at the end is small, and keeps all processes at work."""
    items.sort(key=lambda item: item.path.name not in DEAREST)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Modules and tests stay: the garbage collector need not look through them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def zoo_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The zoo's own cache folder: a fresh one, never the user's."""
    folder = tmp_path_factory.mktemp("zoo-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("reference/params.csv")`: that path of the test data, or the test is skipped."""

    def find(path: str) -> Path:
        if not (TEST_DATA / path).exists():
            pytest.skip(f"needs {path}, test data (CONTRIBUTING.md): ZOO_TEST_DATA is {TEST_DATA}")
        return TEST_DATA / path

    return find


@pytest.fixture(scope="session")
def network() -> Callable[..., "Network"]:
    """`network(body, head, num_classes=3)`: a network of these tables, its weights random."""
    from flax import nnx

    from zoo.context import Context, Spec
    from zoo.init import materialize
    from zoo.layers import Network

    def build(body: "Table", head: "Table", **switches: Any) -> Network:
        # Only `zoo.load` and published input sizes look the name up.
        spec = Spec("mobilenet_v1_025", **switches)
        model = nnx.eval_shape(
            lambda: Network(body, head, Context(spec, nnx.Rngs(dropout=0)), min_size=8)
        )
        return materialize(model, init=spec.init, seed=0)

    return build


@pytest.fixture
def tiny(monkeypatch):
    """A network that trains in seconds, known as "tiny" for as long as a test runs."""
    from zoo.layers import Conv, Dropout, GlobalAvgPool, Network
    from zoo.registry import variants
    from zoo.variant import Paper, Variant

    def build(ctx):
        body = dict(stem=Conv(3, 8, stride=2), conv2=Conv(3, 16, stride=2))
        return Network(body, dict(pool=GlobalAvgPool(), drop=Dropout(0.2)), ctx, min_size=8)

    monkeypatch.setitem(
        variants(), "tiny", Variant("tiny", build, paper=Paper("", "", 2015, "", ""), input_size=16)
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """matplotlib's pictures stay empty: to draw them takes "tiny" as long as to learn.

    The fixture's value is what draws them.
    """
    from matplotlib.figure import Figure

    draw = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    return draw


@pytest.fixture
def stop_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`stop_before(n)`: SIGTERM as the `n`th training step begins, once."""

    def install(number: int) -> None:
        from training.parallel import Devices

        compile_, steps = Devices.compile, 0

        def compiling(self: Devices, step: Any, *, donate: bool, **settings: Any) -> Any:
            run = compile_(self, step, donate=donate, **settings)

            def stopping(state: Any, batch: Any) -> Any:
                nonlocal steps
                if "weight" not in batch:  # a batch to train on
                    steps += 1
                    if steps == number:
                        os.kill(os.getpid(), signal.SIGTERM)
                return run(state, batch)

            return stopping

        monkeypatch.setattr(Devices, "compile", compiling)

    return install


@pytest.fixture
def hub(monkeypatch, tmp_path) -> "Iterator[Hub]":
    """A Hub that our client, and timm's in this process, take for the real one."""
    from hub import serving
    from huggingface_hub import constants

    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", "hf_anything")
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield hub
