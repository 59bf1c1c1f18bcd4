"""What a compiled program consists of, read from the text that XLA prints of it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

# fmt: off
BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}
# fmt: on
MOVES = ("transpose", "copy")
HEAD = re.compile(r"(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
NAMED = re.compile(r"(?:ROOT )?%?([\w.\-]+) = ")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    bytes: int  # of its result
    text: str  # what follows the opcode: operands and attributes

    def attribute(self, pattern: str) -> str:
        """What a pattern's group finds in the attributes; "" where it is not."""
        found = re.search(pattern, self.text)
        return found[1] if found else ""

    @property
    def convolution(self) -> str:
        """What kind of convolution this is, "" if none: "convolution", or the library's name."""
        target = self.attribute(r'custom_call_target="([^"]*)"')
        if "conv" in target.lower():
            return target
        return "convolution" if self.opcode == "convolution" else ""

    @property
    def source(self) -> str:
        """The operation of the traced function that it comes from, as far as XLA knows."""
        return self.attribute(r'op_name="([^"]*)"')


@dataclass
class Moves:
    """Transposes or copies."""

    count: int = 0
    bytes: int = 0  # of their results

    def add(self, instruction: Instruction) -> None:
        self.count += 1
        self.bytes += instruction.bytes


@dataclass
class Summary:
    outside: dict[str, Moves] = field(default_factory=lambda: {name: Moves() for name in MOVES})
    fused: dict[str, Moves] = field(default_factory=lambda: {name: Moves() for name in MOVES})
    convolutions: Counter[str] = field(default_factory=Counter)  # kind, and what fused with it
    opcodes: Counter[str] = field(default_factory=Counter)  # of what runs by itself


def summary(program: str) -> Summary:
    """Count what a program consists of: each instruction once, also in the body of a loop."""
    found = Summary()
    bodies = computations(program)
    fusions = {
        called
        for body in bodies.values()
        for instruction in body
        if instruction.opcode == "fusion"
        and (called := instruction.attribute(r"calls=%?([\w.\-]+)"))
    }
    applied = {
        name
        for body in bodies.values()
        for instruction in body
        if (name := instruction.attribute(r"to_apply=%?([\w.\-]+)"))
        and instruction.opcode != "call"
    }
    for name, body in bodies.items():
        if name in applied:  # the sum of a reduction, and its like
            continue
        moves = found.fused if name in fusions else found.outside
        for instruction in body:
            if instruction.opcode in moves:
                moves[instruction.opcode].add(instruction)
            if kind := instruction.convolution:
                found.convolutions[f"{kind}: {_with(instruction, body, name in fusions)}"] += 1
            if name not in fusions:
                found.opcodes[instruction.opcode] += 1
    return found


def computations(program: str) -> dict[str, list[Instruction]]:
    """The instructions of each computation, by its name."""
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] | None = None
    for line in map(str.strip, program.splitlines()):
        if body is None:
            if head := HEAD.match(line):
                body = found[head[1]] = []
        elif line == "}":
            body = None
        else:
            body.extend(_instruction(line))
    return found


def _instruction(line: str) -> Iterator[Instruction]:
    named = NAMED.match(line)
    if not named:
        return
    rest = line[named.end() :]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, text = rest.partition("(")
    yield Instruction(named[1], opcode, size(shape), text)


def _closing(text: str) -> int:
    """Where the parenthesis that a text begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    return len(text) - 1


def size(shape: str) -> int:
    """Bytes of a shape such as "f32[8,4]{1,0}", or of all in a tuple of them."""
    total = 0
    for kind, dimensions in ARRAY.findall(shape):
        count = 1
        for length in filter(None, dimensions.split(",")):
            count *= int(length)
        total += count * (1 if kind.startswith("f8") else BYTES.get(kind, 0))
    return total


def _with(convolution: Instruction, body: list[Instruction], fused: bool) -> str:
    """What is computed in one go with a convolution."""
    if fused:
        others = {i.opcode for i in body} - {"parameter", "constant", "bitcast", "tuple"}
        others -= {convolution.opcode, "get-tuple-element"}
        return f"with {', '.join(sorted(others))}" if others else "alone"
    mode = convolution.attribute(r'"activation_mode":"k?(\w+)"')
    act = f"with {mode}" if mode and mode != "None" else "alone"
    scaled = convolution.attribute(r'"side_input_scale":"?([\d.]+)')
    return f"{act} and a side input" if scaled and float(scaled) else act
