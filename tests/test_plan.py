"""`zoo plan`: the arithmetic, what a compiled program says of itself, and how it refuses."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import jax
import pytest

import training
from training import cli, planning, topologies
from training.absent import (
    ENVIRONMENT,
    Cost,
    Overflow,
    Pictures,
    _ended,
    all_reduces,
    compiler,
    measured,
    outlined,
    overflow,
    traced,
)
from training.config import TrainConfig
from training.parallel import Devices
from training.planning import Roofline, largest, roofline
from training.topologies import CHIPS, Topology, topology
from zoo import ops
from zoo.errors import ZooError
from zoo.layers import AvgPool, Conv, GlobalAvgPool, MaxPool, Network
from zoo.registry import variants
from zoo.variant import Paper, Variant

THREE = Pictures(3)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def tiny_config(**settings) -> TrainConfig:
    return TrainConfig(**{"model": "tiny", "batch_size": 32, "engine": "shard_map", **settings})


def cost(batch_size: int, memory: int, **figures) -> Cost:
    zeros = dict.fromkeys(("arguments", "outputs", "aliased", "flops", "traffic", "reduced"), 0)
    return Cost(batch_size, scratch=memory, **{**zeros, "reductions": 0, **figures})


# --- machines ------------------------------------------------------------------------------------


def test_topologies_have_chips():
    assert topology("v5e:4x4").chips == 16
    assert topology("v5p:2x2x2").chips == 8
    assert topology("H100:8").chips == 8
    for name in topologies.topologies():
        machine = topology(name)
        assert machine.name == name
        assert machine.is_tpu == name.startswith("v")
    for chip in CHIPS.values():
        # within what any accelerator of these years does: a wrong unit is a thousandfold off
        assert 15e9 < chip.memory < 200e9
        assert 1e14 < chip.bf16 < 3e15
        assert chip.float32 in (chip.bf16, chip.bf16 / 2)
        assert 2e11 < chip.bandwidth < 1e13
        assert 3e10 <= chip.link < 1e12


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e:3x3", "got 'v5e:3x3', expected v5e:1x1, v5e:2x2"),
        ("h100", "got 'h100', expected h100:1, h100:2, h100:4, h100:8"),
        ("h10:8", "unknown topology 'h10:8': did you mean 'h100:8'"),
        ("", "topology: expected one such as v5e:4x4, of `zoo plan --topology`"),
        (None, "topology: expected one such as v5e:4x4"),
    ],
)
def test_a_machine_that_is_not_known(name, told):
    with pytest.raises(ZooError, match=re.escape(told)) as refused:
        topology(name)
    assert "\n" not in str(refused.value)


# --- arithmetic ----------------------------------------------------------------------------------


def test_roofline():
    chip = replace(CHIPS["v5e"], bf16=100.0, float32=50.0, bandwidth=10.0, link=4.0)
    figures = cost(32, 0, flops=200.0, traffic=30.0, reduced=8)
    bound = roofline(figures, Topology("v5e:2x2", chip), "bfloat16")
    assert bound == Roofline(compute=2.0, traffic=3.0, communication=2 * 3 / 4 * 8 / 4)
    assert bound.step == 6.0
    assert roofline(figures, Topology("v5e:2x2", chip), "float32").compute == 4.0
    assert roofline(figures, Topology("v5e:1x1", chip), "bfloat16").communication == 0


def machine_of(fixed: int, slope: float, room: int, bend: float = 0.0):
    """(cost function of a machine whose memory grows so with the batch, batches asked for)."""
    asked: list[int] = []

    def cost_of(batch_size: int) -> Cost | Overflow:
        asked.append(batch_size)
        memory = int(fixed + slope * batch_size + bend * batch_size**2)
        if memory > room:
            return Overflow(batch_size, memory)
        return cost(batch_size, memory, flops=1e9)

    return cost_of, asked


@pytest.mark.parametrize("unit", [1, 4, 256])
@pytest.mark.parametrize("estimate", [0, 1000, 1400])  # of the fixed part, 1000 in truth
def test_the_largest_batch_by_few_compilations(unit, estimate):
    cost_of, asked = machine_of(1000, 10 / unit, room=5000)
    refused = cost_of(unit * 800)
    asked.clear()
    found = largest(refused, estimate, 5000, unit, cost_of)
    assert len(asked) <= 3
    assert unit * 390 <= found.batch_size <= unit * 400
    assert found.memory <= 5000


@pytest.mark.parametrize("bend", [-0.001, 0.001])
def test_the_largest_batch_where_memory_is_no_line(bend):
    cost_of, asked = machine_of(1000, 10, room=5000, bend=bend)
    found = largest(cost_of(800), 1000, 5000, 1, cost_of)
    assert len(asked) <= 4
    assert isinstance(cost_of(int(found.batch_size * 1.15)), Overflow)


def test_the_largest_batch_where_the_compiler_fills_the_memory():
    def cost_of(batch_size: int) -> Cost | Overflow:
        """From 90 % of the room on it takes all of it, and the next batch comes on top."""
        memory = 1000 + 10 * batch_size
        if memory > 4500:
            return Overflow(batch_size, max(memory, 5000) + batch_size)
        return cost(batch_size, memory)

    found = largest(cost_of(800), 1000, 5000, 1, cost_of)
    assert 300 < found.batch_size <= 350


def test_the_largest_of_small_batches():
    cost_of, _ = machine_of(100, 100, room=450)
    assert largest(cost_of(8), 100, 450, 1, cost_of).batch_size == 3


@pytest.mark.parametrize("fixed", [900, 2000])  # of 1000: a picture takes 200
def test_not_even_one_picture_fits(fixed):
    cost_of, asked = machine_of(fixed, 200, room=1000)
    assert largest(cost_of(8), fixed, 1000, 1, cost_of) is None
    assert len(asked) <= 4


# --- what a compiled program says of itself ------------------------------------------------------


@pytest.fixture(scope="module")
def program_of():
    """The step of a tiny network compiled for the 8 virtual devices."""

    def compile_(**settings):
        config = tiny_config(**settings)
        return config, traced(config, THREE).lower().compile()

    return compile_


def reduced_bytes(config: TrainConfig) -> int:
    """Gradients, the statistics that move, and the four sums of `no_totals`; all float32."""
    _, parts = outlined(config, THREE)
    sizes = [x.size for x in (*parts.trained.values(), *parts.stats.values())]
    return 4 * (sum(sizes) + 4)


def test_all_reduces_of_the_step(tiny, program_of):
    config, program = program_of()
    found = all_reduces(program.as_text())
    assert sum(found) == reduced_bytes(config)
    figures = measured(program, config)
    assert (figures.reductions, figures.reduced) == (len(found), sum(found))
    _, parts = outlined(config, THREE)
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.shapes()))
    share = config.batch_size // 8
    assert figures.arguments == state + share * (16 * 16 * 3 + 4)
    assert figures.aliased <= figures.outputs <= state + 1000  # it is written over the arguments
    assert figures.memory == state + share * (16 * 16 * 3 + 4) + figures.scratch + (
        figures.outputs - figures.aliased
    )
    assert figures.flops > 0
    assert figures.traffic > figures.arguments


def test_synchronised_batch_norm_is_summed_up_too(tiny, program_of):
    alone, together = (program_of(sync_bn=sync)[1].as_text() for sync in (False, True))
    assert len(all_reduces(together)) > len(all_reduces(alone))
    # of 8 and 16 channels: mean and mean square forward, both again where a mean is far from zero,
    # and the gradients of both parameters backward
    assert sum(all_reduces(together)) == sum(all_reduces(alone)) + 6 * 4 * (8 + 16)


def test_parts_of_a_batch_count_each_time(tiny, program_of):
    whole, in_parts = (program_of(accumulate=parts) for parts in (1, 4))
    a, b = (measured(program, config) for config, program in (whole, in_parts))
    assert b.reduced == a.reduced  # once a step
    assert b.flops == pytest.approx(a.flops, rel=0.3)
    _, program = program_of(accumulate=4, sync_bn=True)
    inside = sum(all_reduces(program.as_text(), 4)) - sum(all_reduces(program.as_text(), 1))
    assert inside == 3 * 4 * 4 * (8 + 16)


HLO = """HloModule jit_f, is_scheduled=true

%body.1 (arg.1: (s32[], f32[8,2])) -> (s32[], f32[8,2]) {
  %psum.3 = f32[8,2]{1,0:T(8,128)S(1)} all-reduce(%fusion.23), channel_id=1, to_apply=%add
}

ENTRY %main.5 (a: f32[4]) -> f32[4] {
  %while.12 = (s32[]{:T(128)}, f32[8,2]) while(%tuple.30), condition=%cond.3, body=%body.1
  %all-reduce-start = (f32[3]{0}, /*index=1*/bf16[2,3]{1,0:T(8,128)(2,1)}) all-reduce-start(%a, %b)
  %all-reduce-done = (f32[3]{0}, bf16[2,3]{1,0}) all-reduce-done(%all-reduce-start)
  ROOT %all-reduce.2 = f32[]{:T(128)} all-reduce(%c), channel_id=2, to_apply=%add
}
"""


def test_all_reduces_as_the_compiler_for_tpus_writes_them():
    assert all_reduces(HLO) == [64, 3 * 4 + 6 * 2, 4]
    assert all_reduces(HLO, repeats=2) == [64, 64, 24, 4]


def test_a_program_too_large_is_told_by_the_compiler():
    words = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (128.12G) exceeds available HBM (15.75G). HLO module: jit_f."
    )
    assert overflow(words) == int(128.12 * 2**30)
    words = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 17.31G of 15.75G hbm. Exceeded hbm capacity by 1.56G."
    )
    assert overflow(words) == int(17.31 * 2**30)
    assert overflow("INTERNAL: Used 17.31G of 15.75G hbm") is None
    assert overflow("RESOURCE_EXHAUSTED: of something else") is None


# --- lowered for a TPU ---------------------------------------------------------------------------


@pytest.fixture
def varied(monkeypatch):
    """A network of all that `zoo.ops` lowers in several ways, known as "varied"."""

    def build(ctx):
        body = dict(
            stem=Conv(3, 8),
            pool=MaxPool(3, 2),
            depthwise=Conv(3, 8, groups=8),
            pointwise=Conv(1, 16),
            grouped=Conv(3, 16, groups=2),
            mean=AvgPool(2, 2),
        )
        return Network(body, dict(pool=GlobalAvgPool()), ctx, min_size=8)

    variant = Variant("varied", build, paper=Paper("", "", 2015, "", ""), input_size=16)
    monkeypatch.setitem(variants(), "varied", variant)


def operations(step) -> Counter[str]:
    """What a step lowered for a TPU computes with, arithmetic apart."""
    text = step.lower(lowering_platforms=("tpu",)).as_text()
    heavy = (
        r"stablehlo\.(convolution|dot\w*|reduce_window|select_and_scatter|slice|pad|while|sort)\b"
    )
    return Counter(re.findall(heavy, text))


@pytest.mark.parametrize("settings", [{}, {"remat": True, "accumulate": 2, "dtype": "bfloat16"}])
def test_a_step_for_tpus_has_no_lowering_of_the_cpu(varied, settings, monkeypatch):
    config = replace(tiny_config(), model="varied", **settings)
    cpu = traced(config, THREE).lower(lowering_platforms=("cpu",)).as_text()
    monkeypatch.setattr(Devices, "platform", "tpu")  # of devices that only say so
    step = traced(config, THREE)
    with ops.native_only():
        native = operations(traced(config, THREE))
    assert native["convolution"] >= 4 + 4 + 3  # forward, gradients of kernels and of inputs
    assert native["select_and_scatter"] == 1
    assert operations(step) == native
    assert "select_and_scatter" not in cpu  # the difference that would be seen


# --- GPUs, by counting ---------------------------------------------------------------------------


def test_an_estimate_for_gpus(tiny):
    found = training.plan("tiny", topology="h100:8", batch_size=64, num_classes=3)
    assert found.fits
    config, pictures = found.config, found.pictures
    _, parts = outlined(config, pictures)
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.shapes()))
    images = 8 * (16 * 16 * 3 + 4)
    assert found.cost.ahead == images
    # but for the step's number, Adam's, the schedule's and the four sums
    assert found.cost.arguments == pytest.approx(state + images, abs=64)
    assert found.cost.reduced == pytest.approx(reduced_bytes(config), abs=16)
    macs = 8 * 8 * 8 * 27 + 4 * 4 * 16 * 8 * 9 + 3 * 16
    assert found.cost.flops == 8 * 2 * (3 * macs - 8 * 8 * 8 * 27)
    assert found.activations[0].layer == "body.stem"
    assert found.activations[0].bytes == 8 * 4 * 8 * 8 * 8
    assert found.images_per_second == 64 / found.roofline.step
    assert "an estimate" in found.text()
    half = training.plan("tiny", topology="h100:8", batch_size=64, num_classes=3, dtype="bfloat16")
    assert half.activations[0].bytes * 2 == found.activations[0].bytes
    assert half.cost.traffic < found.cost.traffic


@pytest.fixture
def small_chip(monkeypatch):
    """`small_chip(bytes)`: "l4:2" with so little memory."""

    def install(room: float) -> None:
        monkeypatch.setitem(CHIPS, "l4", replace(CHIPS["l4"], memory=room))

    return install


def test_what_does_not_fit(tiny, small_chip):
    small_chip(1e6)
    found = training.plan("tiny", topology="l4:2", batch_size=512, num_classes=3)
    assert not found.fits
    assert found.largest.memory <= 1e6
    more = found.largest.batch_size + 2 * 8
    again = training.plan("tiny", topology="l4:2", batch_size=more, num_classes=3)
    assert not again.fits
    assert [saving.setting for saving in found.savings] == [
        "--remat",
        "--accumulate 2",
        "--accumulate 4",
    ]
    halves, quarters = found.savings[1:]
    exact = training.plan("tiny", topology="l4:2", batch_size=512, num_classes=3, accumulate=4)
    assert quarters.memory == pytest.approx(exact.cost.memory, rel=0.2)
    assert quarters.fits == exact.fits
    assert quarters.memory < halves.memory < found.cost.memory
    text = found.text()
    assert "does not fit" in text
    assert f"{found.largest.batch_size:,}" in text
    small_chip(1e3)
    none = training.plan("tiny", topology="l4:2", batch_size=512, num_classes=3)
    assert none.largest is None
    assert none.images_per_second is None
    assert "not even one picture a chip" in none.text()


def test_classes_and_size_are_the_datasets(tiny):
    given = training.plan("tiny", topology="h100:2", batch_size=64, data="digits")
    assert (given.pictures.num_classes, given.pictures.flip, given.image_size) == (10, False, 48)
    absent = training.plan("tiny", topology="h100:2", batch_size=64)
    assert (absent.pictures.num_classes, absent.image_size) == (1000, 16)
    asked = training.plan("tiny", topology="h100:2", batch_size=64, data="folder:x", num_classes=7)
    assert asked.pictures.num_classes == 7
    with pytest.raises(ZooError, match="batch size: got 4096, expected at most the"):
        training.plan("tiny", topology="h100:2", batch_size=4096, data="digits")


# --- the command ---------------------------------------------------------------------------------


def test_the_command(tiny, capsys):
    words = ["plan", "tiny", "--topology", "h100:2", "--batch-size", "64", "--num-classes", "3"]
    cli.main(words)
    out, err = capsys.readouterr()
    assert not err
    assert out.startswith("tiny on h100:2 (2 x H100), batch 64 (32 a chip), float32, 16 px, 3 ")
    assert max(map(len, out.splitlines())) <= 80
    cli.main([*words, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    assert found["estimated"] is True
    assert found["machine"]["chips"] == 2
    assert found["config"]["batch_size"] == 64
    assert found["roofline"]["step"] > 0
    cli.main([*words, "--format", "md"])
    assert "| memory of a chip |" in capsys.readouterr().out
    cli.main(["plan", "tiny", "--topology", "h100:2", "--recipe", "resnet20_cifar10"])
    assert "batch 256" in capsys.readouterr().out


def test_topology_alone_lists_the_machines(capsys):
    for words in (["--topology"], ["--topology", "list"], ["tiny", "--topology"]):
        cli.main(["plan", *words])
        lines = capsys.readouterr().out.splitlines()
        listed = [line.split()[0] for line in lines if ":" in line]
        assert listed == topologies.topologies()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "expected the name of a network"),
        ("resnet5 --topology h100:8", "unknown model 'resnet5': did you mean 'resnet50'"),
        ("resnet50", "topology: expected one such as v5e:4x4"),
        ("resnet50 --topology v5e:3x3", "topology: got 'v5e:3x3', expected v5e:1x1"),
        (
            "resnet50 --topology v5e:4x4 --batch-size 100",
            "16 devices cannot share out 100 evenly: the nearest that they can is 96 or 112",
        ),
        (
            "resnet50 --topology h100:8 --batch-size 32 --accumulate 8",
            "8 devices, 8 parts each, cannot share out 32 evenly: the nearest that they can is 64",
        ),
        ("resnet50 --topology h100:8 --num-classes 0", "num_classes: got 0, expected 1 or more"),
        ("resnet50 --topology h100:8 --engine jit", "unknown engine 'jit'"),
        ("resnet50 --topology h100:8 --image-size 8", "resnet50: got images of 8x8"),
        ("resnet50 --topology h100:8 --data photos", "unknown dataset 'photos'"),
        ("resnet50 --topology h100:8 --weights resnet18.a1_in1k", "are not for resnet50"),
        ("resnet50 --topology h100:8 --freeze stm", "unknown stage 'stm'"),
        ("resnet50 --topology h100:8 --lr-mult stm=1", "unknown stage 'stm'"),
    ],
)
def test_the_command_refuses(words, told, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", *words.split()])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert told in line


# --- TPUs, with the compiler in this process ------------------------------------------------------


@pytest.fixture
def compiling(monkeypatch):
    """`compiling(cost_of)`: what the compiler answers; returns the configurations it was asked."""

    def install(cost_of: Callable[[int], Cost | Overflow]) -> list[TrainConfig]:
        asked: list[TrainConfig] = []

        @contextmanager
        def answering(machine, pictures):
            def answer(config):
                asked.append(config)
                return cost_of(config.batch_size)

            yield answer

        monkeypatch.setattr(planning, "compiler", answering)
        return asked

    return install


def test_a_tpu_that_holds_the_batch(tiny, compiling):
    asked = compiling(lambda batch: cost(batch, 10**9, flops=1e12, traffic=8.19e9, seconds=61.0))
    found = training.plan("tiny", topology="v5e:2x2", batch_size=64, engine="pmap")
    (config,) = asked
    assert (config.engine, config.batch_size) == ("shard_map", 64)
    assert found.fits
    assert found.roofline.step == pytest.approx(0.01)
    assert found.images_per_second == pytest.approx(6400)
    text = found.text()
    assert "planned with shard_map: pmap compiles only for devices" in text
    assert re.search(r"^compiling took +61 s$", text, re.MULTILINE)
    assert "an estimate" not in text
    json.loads(found.json())
    assert "shard_map" not in training.plan("tiny", topology="v5e:2x2", batch_size=64).text()


def test_a_tpu_that_does_not_hold_the_batch(tiny, compiling):
    room = CHIPS["v5e"].memory
    cost_of, batches = machine_of(10**6, room / 512, int(room))
    compiling(cost_of)
    found = training.plan("tiny", topology="v5e:2x2", batch_size=1024)
    assert not found.fits
    assert found.largest.batch_size == 480  # 120 a chip: a multiple of 8
    assert len(batches) <= 4
    assert found.images_per_second == pytest.approx(480 / (1e9 / 197e12))  # of what fits
    assert "largest batch that fits" in found.text()
    json.loads(found.json())


# --- the process that compiles -------------------------------------------------------------------


@pytest.fixture
def false_libtpu(tmp_path, monkeypatch):
    """`false_libtpu(text)`: a libtpu whose package is this text."""

    def install(text: str = "") -> None:
        package = tmp_path / "libtpu"
        package.mkdir()
        (package / "__init__.py").write_text(text)
        (package / "libtpu.so").write_bytes(b"not a library")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    return install


def test_libtpu_is_missing(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ZooError, match=r"needs libtpu: pip install .*jax-cnn-zoo\[plan\]"):
        training.plan("tiny", topology="v5e:2x2")


def test_libtpu_of_another_age(false_libtpu, capsys):
    false_libtpu()
    with pytest.raises(ZooError, match=r"libtpu does not .* v5e:2x2, .*pip install") as refused:
        training.plan("mobilenet_v1_025", topology="v5e:2x2", batch_size=32)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().err.startswith("compiling mobilenet_v1_025 for v5e:2x2, batch 32")


def test_the_process_ends_early(false_libtpu):
    false_libtpu("import os; os.write(2, b'out of luck\\n'); os._exit(3)")
    config = TrainConfig(batch_size=32)
    with (
        pytest.raises(ZooError, match=r"plan: .* ended early: out of luck"),
        compiler(topology("v5e:2x2"), THREE) as cost_of,
    ):
        cost_of(config)


def test_a_killed_process_is_told_of(tmp_path):
    with (tmp_path / "errors").open("w+b") as errors:
        errors.write(b"a trace\n")
        assert _ended(-9, errors).endswith("ended early: SIGKILL, perhaps for want of memory")
        assert _ended(-15, errors).endswith("ended early: SIGTERM")
        assert _ended(1, errors).endswith("ended early: a trace")


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_that_is_not_there():
    words = "mobilenet_v1_025 --topology v5e:2x2 --batch-size 32 --image-size 32 --format json"
    done = subprocess.run(
        [sys.executable, "-c", "from training.cli import main; main()", "plan", *words.split()],
        check=True,
        capture_output=True,
        text=True,
        env={name: x for name, x in os.environ.items() if name != "JAX_PLATFORMS"},
    )
    found = json.loads(done.stdout)
    assert found["fits"]
    assert found["cost"]["reductions"] >= 1
    assert found["cost"]["flops"] > 1e6
    assert all(re.match(r"compiling |\.\.\. \d+ s", line) for line in done.stderr.splitlines())


EVERY = """
from training.absent import absent
from training.topologies import topologies, topology
for machine in map(topology, topologies()):
    if machine.is_tpu:
        assert len(absent(machine)) == machine.chips, machine.name
"""


@pytest.mark.slow
@needs_libtpu
def test_libtpu_knows_every_tpu():
    done = subprocess.run(
        [sys.executable, "-c", EVERY], env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr
