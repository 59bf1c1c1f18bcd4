"""The machines that a run can be planned for: kinds of chips, and how many are connected."""

import math
from dataclasses import dataclass

from zoo.errors import ZooError, unknown

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator. Rates are the peaks that its maker publishes, without sparsity."""

    name: str
    memory: float  # bytes that a program can have
    bf16: float  # FLOP/s of matrix products
    float32: float  # the same of float32 inputs at JAX's default precision
    bandwidth: float  # bytes/s between the chip and its memory
    link: float  # bytes/s to its neighbours, all links together, one direction
    shapes: tuple[str, ...]  # the machines that it comes in

    def peak(self, dtype: str) -> float:
        """FLOP/s of matrix products with activations of that dtype."""
        return self.bf16 if dtype == "bfloat16" else self.float32


SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
HOST = ("1", "2", "4", "8")  # GPUs of one host, connected by NVLink, L4s by PCIe

# TPUs: docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e, with their slices, and TPU v4's links
# from arXiv:2304.01433, table 4. The memory is what libtpu's compiler says is available. Products
# of float32 are computed in bfloat16 there, as long as jax_default_matmul_precision is not set.
# GPUs: NVIDIA's data sheets of the A100 80GB SXM, H100 SXM, H200 SXM, DGX B200 and L4; float32 is
# computed in TF32. JAX takes three quarters of a GPU's memory (XLA_PYTHON_CLIENT_MEM_FRACTION).
# fmt: off
CHIPS = {
    #           name        memory           bf16      float32   bandwidth  link
    "v4": Chip("TPU v4",    30.75 * GIB,     275e12,   275e12,   1200e9,    300e9, CUBES),
    "v5e": Chip("TPU v5e",  15.75 * GIB,     197e12,   197e12,   819e9,     200e9, SQUARES),
    "v5p": Chip("TPU v5p",  95.73 * GIB,     459e12,   459e12,   2765e9,    600e9, CUBES),
    "v6e": Chip("TPU v6e",  31.24 * GIB,     918e12,   918e12,   1638e9,    400e9, SQUARES),
    "a100": Chip("A100",    0.75 * 80e9,     312e12,   156e12,   2039e9,    300e9, HOST),
    "h100": Chip("H100",    0.75 * 80e9,     989e12,   494.5e12, 3350e9,    450e9, HOST),
    "h200": Chip("H200",    0.75 * 141e9,    989e12,   494.5e12, 4800e9,    450e9, HOST),
    "b200": Chip("B200",    0.75 * 180e9,    2250e12,  1125e12,  8000e9,    900e9, HOST),
    "l4": Chip("L4",        0.75 * 24e9,     121e12,   60.5e12,  300e9,     32e9,  HOST),
}
# fmt: on


@dataclass(frozen=True)
class Topology:
    """A machine: a number of connected chips of one kind."""

    name: str  # "v5e:4x4", "h100:8"
    chip: Chip

    @property
    def chips(self) -> int:
        """How many chips the machine has."""
        return math.prod(map(int, self.name.partition(":")[2].split("x")))

    @property
    def is_tpu(self) -> bool:
        """Whether the chips are TPUs."""
        return self.chip.name.startswith("TPU")


def names(kind: str) -> list[str]:
    """The names of the machines with that kind of chip: "v5e:1x1", ..."""
    return [f"{kind}:{shape}" for shape in CHIPS[kind].shapes]


def topologies() -> list[str]:
    """The names of all machines: "v4:2x2x1", ..., "l4:8"."""
    return [name for kind in CHIPS for name in names(kind)]


def topology(name: str | None) -> Topology:
    """The machine of that name.

    Raises:
      ZooError: there is none; the line has the nearest, or all shapes of that chip.
    """
    if not name:
        raise ZooError("topology: expected one such as v5e:4x4, of `zoo plan --topology`")
    kind, _, shape = name.lower().partition(":")
    if kind not in CHIPS:
        raise unknown("topology", name, topologies())
    chip = CHIPS[kind]
    if shape not in chip.shapes:
        raise ZooError(f"topology: got {name!r}, expected {', '.join(names(kind))}")
    return Topology(f"{kind}:{shape}", chip)


def known() -> str:
    """All names in one line, "h100:{1,2,4,8}" for four of them."""
    return "; ".join(f"{kind}:{{{','.join(chip.shapes)}}}" for kind, chip in CHIPS.items())
