"""LevelDB's tables: sorted keys and their values, in blocks with a checksum each.

https://github.com/google/leveldb/blob/main/doc/table_format.md
https://github.com/google/snappy/blob/main/format_description.txt
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from .budget import NAME, Budget
from .protobuf import varint

MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of a table
FOOTER = 48  # bytes: the places of two blocks, padding, the magic
TRAILER = 5  # bytes after a block: how it is compressed, its checksum
CHECKSUM = 30  # steps that a checksum takes


def table(data: bytes, budget: Budget) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a table's bytes, in order.

    Raises:
      ValueError: damaged bytes, which the checksum of their block shows, or too much work.
    """
    view = memoryview(data)
    if len(data) < FOOTER or not data.endswith(MAGIC):
        raise ValueError("has no table's end")
    footer = view[-FOOTER:]
    _, at = varint(footer, 0)  # the meta index
    _, at = varint(footer, at)
    left = len(data)  # blocks do not overlap, so neither does reading them
    for _, handle in _entries(_block(view, *_handle(footer, at), budget), budget):
        offset, size = _handle(handle, 0)
        left -= size + TRAILER
        if left < 0:
            raise ValueError("blocks overlap")
        yield from _entries(_block(view, offset, size, budget), budget)


def _handle(data: memoryview, at: int) -> tuple[int, int]:
    """A block's offset and size in bytes."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size


def _block(data: memoryview, offset: int, size: int, budget: Budget) -> memoryview:
    end = offset + size
    if end + TRAILER > len(data):
        raise ValueError(f"a block at byte {offset} of {size} bytes, the file has {len(data)}")
    budget.spend(size, steps=CHECKSUM)
    check(data[offset : end + 1], int.from_bytes(data[end + 1 : end + TRAILER], "little"))
    if data[end] == 0:
        return data[offset:end]
    if data[end] == 1:
        return memoryview(_unsnappy(data[offset:end], budget))
    raise ValueError(f"a block compressed in way {data[end]}, expected 0 (not) or 1 (snappy)")


def _entries(block: memoryview, budget: Budget) -> Iterator[tuple[bytes, memoryview]]:
    """Keys share a prefix with the key before; the restart points at the end are not needed."""
    if len(block) < 4:
        raise ValueError("a block without its end")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise ValueError("more restart points than the block has room for")
    key, at = b"", 0
    block = block[:end]
    while at < end:
        budget.spend(steps=3)
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or unshared + size > end - at:
            raise ValueError("an entry larger than its block")
        if shared + unshared > NAME:
            raise ValueError(f"a name of {shared + unshared} bytes")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + size]
        at += size


def _unsnappy(data: memoryview, budget: Budget) -> bytes:
    size, at = varint(data, 0)
    if size > 32 * len(data):  # a copy of 64 bytes takes 3
        raise ValueError(f"a block of {len(data)} bytes that unpacks to {size}")
    budget.spend(size)
    out = bytearray()
    while at < len(data):
        budget.spend()
        tag = data[at]
        kind, high = tag & 3, tag >> 2
        extra = max(high - 59, 0) if kind == 0 else (1, 2, 4)[kind - 1]
        operand = int.from_bytes(data[at + 1 : at + 1 + extra], "little")
        at += 1 + extra
        if kind == 0:
            length = (operand if extra else high) + 1
            out += data[at : at + length]
            at += length
        else:
            length = (high & 7) + 4 if kind == 1 else high + 1
            back = operand | (high >> 3 << 8) if kind == 1 else operand
            if not 0 < back <= len(out):
                raise ValueError("a copy from before the block's start")
            start = len(out) - back
            piece = bytes(out[start : start + length])
            out += (piece * (length // len(piece) + 1))[:length]
        if at > len(data) or len(out) > size:
            raise ValueError("a compressed block that does not fit its size")
    if len(out) != size:
        raise ValueError(f"a block that unpacks to {len(out)} bytes, expected {size}")
    return bytes(out)


# --- checksums -----------------------------------------------------------------------------------


def check(data: memoryview | bytes, masked: int) -> None:
    """CRC-32C as LevelDB stores it: turned by 15 bits, and a constant added."""
    crc = crc32c(data)
    if ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF != masked:
        raise ValueError("a checksum does not hold: the bytes are damaged")


@cache
def _step(bits: int) -> np.ndarray:
    """CRC-32C's table: what so many bits, 8 or 16, do to the register."""
    table: np.ndarray = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        table = (table >> 1) ^ (table & 1) * np.uint32(0x82F63B78)
    return table


@cache
def _by_byte() -> list[int]:
    table: list[int] = _step(8).tolist()
    return table


def crc32c(data: memoryview | bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes.

    The register is linear in itself and the bytes. So equal pieces are run side by side from
    zeros and joined in pairs: the left register runs over as many zeros as the right piece is
    long, and that is a 32 x 32 matrix over two values, which squaring doubles.
    """
    if len(data) < 200:  # NumPy would take longer
        crc, table = 0xFFFFFFFF, _by_byte()
        for byte in data:
            crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFF
    step = _step(16)
    raw = np.frombuffer(data, np.uint8)
    pieces = 1 << len(raw).bit_length() // 2
    length = -(-len(raw) // (2 * pieces)) * 2
    padded = np.zeros((pieces, length), np.uint8)  # zeros in front change nothing
    padded.reshape(-1)[pieces * length - len(raw) :] = raw
    register: np.ndarray = np.zeros(pieces, np.uint32)
    for column in np.ascontiguousarray(padded.view("<u2").T):
        register = step[(register ^ column) & 0xFFFF] ^ (register >> 16)
    zeros = _zeros(length)
    while len(register) > 1:
        register = _apply(zeros, register[::2]) ^ register[1::2]
        zeros = _apply(zeros, zeros)
    start = _apply(_zeros(len(raw)), np.array([0xFFFFFFFF], np.uint32))
    return int((register ^ start)[0]) ^ 0xFFFFFFFF


@cache
def _zeros(length: int) -> np.ndarray:
    """[32]: what each bit of the register becomes after so many bytes of zeros."""
    if length == 0:
        return np.uint32(1) << np.arange(32, dtype=np.uint32)
    half = _zeros(length // 2)
    whole = _apply(half, half)
    return _step(8)[whole & 0xFF] ^ (whole >> 8) if length % 2 else whole


def _apply(matrix: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """The linear map `matrix`, [32], of each of the registers, [n]."""
    out = np.zeros_like(registers)
    for bit in range(32):
        out ^= np.where(registers >> bit & 1, matrix[bit], np.uint32(0))
    return out
