"""Protocol buffers: the fields of a message, without its schema.

https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from .budget import NAME, RANK, Budget


def fields(data: memoryview, budget: Budget) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protocol buffers message, in order: (number, value).

    Varints are integers; all else is bytes: 4 or 8 of a fixed number, packed numbers, text, or
    another message.

    https://protobuf.dev/programming-guides/encoding/

    Args:
      data: the message, without its length.
      budget: of the file; each field is charged to it.

    Raises:
      ValueError: not such a message, or more than the budget allows.
    """
    at = 0
    while at < len(data):
        budget.spend(steps=2)
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > len(data) - at:
            raise ValueError(f"a field of {size} bytes where {len(data) - at} are left")
        yield number, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The integer of up to 64 bits that starts at this byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("a number of more than 10 bytes")


def varints(data: bytes, budget: Budget) -> np.ndarray:
    """Packed varints as uint64."""
    budget.spend(50 * len(data))  # five arrays of 8 bytes for each of these
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(raw):
        return np.zeros(0, np.uint64)
    if raw[-1] >= 0x80:
        raise ValueError("ends within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 9:
        raise ValueError("a number of more than 10 bytes")
    place = np.arange(len(raw)) - np.repeat(starts, ends - starts + 1)
    bits = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(bits, starts)


def message(value: int | memoryview) -> memoryview:
    """The bytes of a field that has to have some."""
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")  # noqa: TRY004  # a damaged file
    return value


def number(value: int | memoryview) -> int:
    """The value of a field that has to be a varint."""
    if not isinstance(value, int):
        raise ValueError("a message where a number belongs")  # noqa: TRY004  # a damaged file
    return value


def text(value: int | memoryview) -> str:
    """The text of a field; undecodable or endless bytes are a ValueError."""
    data = message(value)
    if len(data) > NAME:
        raise ValueError(f"a name of {len(data)} bytes")
    return bytes(data).decode()


def shape_of(sizes: Iterable[int]) -> tuple[int, ...]:
    """A tensor's shape, checked before anybody multiplies its sizes."""
    shape = tuple(islice(sizes, RANK + 1))
    if len(shape) > RANK or any(n < 0 for n in shape):
        raise ValueError(
            f"a tensor of shape {list(shape[:8])}..., expected {RANK} dimensions at most"
        )
    return shape
