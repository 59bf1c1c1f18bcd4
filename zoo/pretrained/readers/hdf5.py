"""The part of HDF5 that Keras' files use, read within bounds.

It is read here because the C library trusts what it reads: a changed byte in an attribute makes it
take gigabytes, loop or crash.
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from .budget import NAME, RANK, Budget

BFLOAT16 = "bfloat16"  # which NumPy does not have: read as float32

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = 0xFFFF_FFFF_FFFF_FFFF  # the address of what is not in the file
SPACE, LINKS, TYPE, EXTERNAL, LINK, LAYOUT = 0x01, 0x02, 0x03, 0x07, 0x06, 0x08
FILTERS, ATTRIBUTE, CONTINUED, TABLE, ATTRIBUTES = 0x0B, 0x0C, 0x10, 0x11, 0x15
DEFLATE, SHUFFLE = 1, 2
INTEGER, FLOAT, STRING, OPAQUE, VARIABLE = 0, 1, 3, 5, 9
COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = 0, 1, 2, 3
# bytes, bits of the exponent and of the fraction -> NumPy's name
FLOATS = {(2, 5, 10): "f2", (4, 8, 23): "f4", (8, 11, 52): "f8", (2, 8, 7): BFLOAT16}


@dataclass(frozen=True)
class Type:
    """A datatype: its class, its size in bytes, and NumPy's name where it is a number."""

    kind: int
    size: int
    number: str = ""


@dataclass(frozen=True)
class Bytes:
    """Little-endian numbers and pieces of bytes, never beyond their end."""

    data: memoryview

    def cut(self, at: int, size: int) -> memoryview:
        """`size` bytes from byte `at` on; a ValueError where the data end before."""
        if at < 0 or size < 0 or at + size > len(self.data):
            raise ValueError(f"{size} bytes at {at} lie beyond the end, {len(self.data)}")
        return self.data[at : at + size]

    def number(self, at: int, size: int) -> int:
        """The unsigned little-endian integer in `size` bytes at `at`."""
        return int.from_bytes(self.cut(at, size), "little")

    def expect(self, at: int, magic: bytes) -> None:
        """Raise a ValueError unless `magic` stands at byte `at`."""
        if self.cut(at, len(magic)) != magic:
            raise ValueError(f"expected {magic!r} at byte {at}")


class Hdf5:
    """A file. Its objects are given by their addresses; `root` is that of the first group.

    Args:
      data: of the file.
      budget: for all that is read of it.
    """

    def __init__(self, data: bytes, budget: Budget):
        self.bytes = Bytes(memoryview(data))
        self.bytes.expect(0, SIGNATURE)
        version, *widths = (self.bytes.number(at, 1) for at in (8, 13, 14))
        if version > 1 or widths != [8, 8] or self.bytes.number(24 + 4 * version, 8):
            raise ValueError(f"is HDF5 of a kind that Keras does not write (version {version})")
        if self.bytes.number(40 + 4 * version, 8) > len(data):
            raise ValueError("is cut off")
        self.root = self.bytes.number(64 + 4 * version, 8)
        self.budget, self.spend = budget, budget.spend
        self.links = cache(self._links)
        self.messages = cache(self._messages)
        self.attributes = cache(self._attributes)
        self.heap = cache(self._heap)

    def find(self, path: str, start: int) -> int:
        """The address of the object at a path from a group's address.

        Raises:
          ValueError: none, or a soft or external link leads there.
        """
        for part in path.split("/"):
            self.spend()
            links = self.links(start)
            if part not in links:
                raise ValueError(f"{path} is missing")
            start = links[part]
            if start == NOWHERE:
                raise ValueError(f"{path} is a link, expected it in the file")
        return start

    def datasets(self, start: int) -> Iterator[tuple[str, int]]:
        """Path and address of every dataset below a group; each group is visited once."""
        seen = {start}
        todo = [("", start)]
        while todo:
            path, group = todo.pop()
            for name, place in reversed(self.links(group).items()):
                self.spend()
                here = f"{path}{name}"
                if len(here) > NAME:
                    raise ValueError(f"a path of {len(here)} characters")
                self.find(name, group)
                if self.has(place, LAYOUT):
                    yield here, place
                elif place not in seen:
                    seen.add(place)
                    todo.append((f"{here}/", place))

    def has(self, place: int, kind: int) -> bool:
        """Whether the header of the object at `place` has a message of that kind."""
        return kind in self.messages(place)

    def message(self, place: int, kind: int) -> Bytes:
        """The first message of that kind in the header of the object at `place`."""
        if not self.has(place, kind):
            raise ValueError(f"the object at byte {place} has no message {kind}")
        return self.messages(place)[kind][0]

    def _messages(self, place: int) -> dict[int, list[Bytes]]:
        """The messages of an object's header by their types."""
        if self.bytes.number(place, 1) != 1:
            raise ValueError(f"no object of the kind that Keras writes at byte {place}")
        blocks = [(place + 16, self.bytes.number(place + 8, 4))]
        messages: dict[int, list[Bytes]] = {}
        for at, size in blocks:
            self.spend(size)
            block = Bytes(self.bytes.cut(at, size))
            at = 0
            while at + 8 <= size:
                self.spend(steps=3)
                kind, length, flags = (block.number(at + i, n) for i, n in ((0, 2), (2, 2), (4, 1)))
                data = Bytes(block.cut(at + 8, length))
                if kind == CONTINUED:
                    blocks.append((data.number(0, 8), data.number(8, 8)))
                elif flags & 2 and kind in (SPACE, TYPE, FILTERS, ATTRIBUTE):
                    raise ValueError("an object shares its header, which Keras does not write")
                else:
                    messages.setdefault(kind, []).append(data)
                at += 8 + length
        return messages

    # Groups.

    def _links(self, place: int) -> dict[str, int]:
        """Names in a group with the addresses of the objects, `NOWHERE` for links to a path."""
        links: dict[str, int] = {}
        messages = self.messages(place)
        for data in messages.get(LINKS, ()):
            if data.number(2 + 8 * (data.number(1, 1) & 1), 8) != NOWHERE:
                raise ValueError("a group is stored in a way that Keras does not use")
        for data in messages.get(TABLE, ()):
            heap = data.number(8, 8)
            self.bytes.expect(heap, b"HEAP")
            size, start = (self.bytes.number(heap + i, 8) for i in (8, 24))
            self.spend(size)
            names = bytes(self.bytes.cut(start, size))
            for _, node in self._leaves(data.number(0, 8), kind=0, key=8):
                links |= self._symbols(node, names)
        for data in messages.get(LINK, ()):
            self.spend(len(data.data), steps=3)
            name, target = _link(data)
            links[name] = target
        return links

    def _symbols(self, node: int, names: bytes) -> Iterator[tuple[str, int]]:
        self.bytes.expect(node, b"SNOD")
        for at in range(node + 8, node + 8 + 40 * self.bytes.number(node + 6, 2), 40):
            self.spend(steps=3)
            start, target, cached = (
                self.bytes.number(at + i, n) for i, n in ((0, 8), (8, 8), (16, 4))
            )
            end = names.find(b"\0", start, start + NAME)
            if end < 0:
                raise ValueError("a name has no end")
            yield names[start:end].decode(), NOWHERE if cached == 2 else target

    def _leaves(self, root: int, *, kind: int, key: int) -> Iterator[tuple[Bytes, int]]:
        """(key, address) of the entries of a tree's lowest nodes, in order."""
        seen = set()
        todo = [root]
        while todo:
            node = todo.pop()
            self.bytes.expect(node, b"TREE" + bytes([kind]))
            if node in seen:
                raise ValueError("a tree grows into itself")
            seen.add(node)
            level, count = self.bytes.number(node + 5, 1), self.bytes.number(node + 6, 2)
            self.spend(count * (key + 8), steps=1 + 2 * count)
            entries = []
            for i in range(count):
                at = node + 24 + i * (key + 8)
                entries.append((Bytes(self.bytes.cut(at, key)), self.bytes.number(at + key, 8)))
            if level == 0:
                yield from entries
            else:
                todo += [child for _, child in reversed(entries)]

    # Attributes.

    def texts(self, place: int, name: str) -> list[str] | None:
        """A list of text among an object's attributes; long ones are cut: name0, name1, ..."""
        attributes = self.attributes(place)
        if name in attributes:
            return self._text(attributes[name])
        texts = []
        for i in range(len(attributes)):
            if f"{name}{i}" not in attributes:
                break
            texts += self._text(attributes[f"{name}{i}"])
        return texts if f"{name}0" in attributes else None

    def text(self, place: int, name: str) -> str | None:
        """The first string of an attribute; None if there is no such attribute."""
        attribute = self.attributes(place).get(name)
        texts = self._text(attribute) if attribute else []
        return texts[0] if texts else None

    def _attributes(self, place: int) -> dict[str, tuple[Type, int, Bytes]]:
        """The attributes of an object by name: type, number of elements, their bytes."""
        attributes = {}
        messages = self.messages(place)
        for data in messages.get(ATTRIBUTES, ()):
            if data.number(2 + 2 * (data.number(1, 1) & 1), 8) != NOWHERE:
                raise ValueError("attributes are stored in a way that Keras does not use")
        for data in messages.get(ATTRIBUTE, ()):
            self.spend(len(data.data), steps=5)
            version, flags = data.number(0, 1), data.number(1, 1)
            if version not in (1, 2, 3) or (version > 1 and flags & 3):
                raise ValueError(f"an attribute of version {version}")
            at = 9 if version == 3 else 8
            pieces = []
            for size in (data.number(i, 2) for i in (2, 4, 6)):
                pieces.append(Bytes(data.cut(at, size)))
                at += -(-size // 8) * 8 if version == 1 else size
            name, kind_of, space = pieces
            shape = _shape(space)
            rest = Bytes(data.cut(at, len(data.data) - at))
            attributes[bytes(name.data).rstrip(b"\0").decode()] = (
                _type(kind_of),
                math.prod(shape),
                rest,
            )
        return attributes

    def _text(self, attribute: tuple[Type, int, Bytes]) -> list[str]:
        kind, count, data = attribute
        if count == 0:
            return []
        if kind.kind not in (STRING, VARIABLE) or kind.size == 0:
            raise ValueError("an attribute is not text")
        self.spend(steps=2 * count)
        rows = [Bytes(data.cut(i * kind.size, kind.size)) for i in range(count)]
        if kind.kind == VARIABLE:  # length, address of a heap, number in it
            rows = [
                Bytes(self._in_heap(row.number(4, 8), row.number(12, 4)).cut(0, row.number(0, 4)))
                for row in rows
            ]
        self.spend(sum(len(row.data) for row in rows))
        return [bytes(row.data).rstrip(b"\0").decode() for row in rows]

    def _in_heap(self, place: int, index: int) -> Bytes:
        heap = self.heap(place)
        if index not in heap:
            raise ValueError(f"text {index} is missing")
        return heap[index]

    def _heap(self, place: int) -> dict[int, Bytes]:
        """The objects of a global heap by their numbers."""
        self.bytes.expect(place, b"GCOL")
        size = self.bytes.number(place + 8, 8)
        self.spend(size)
        heap = Bytes(self.bytes.cut(place, size))
        objects = {}
        at = 16
        while at + 16 <= size and (index := heap.number(at, 2)):
            self.spend(steps=2)
            length = heap.number(at + 8, 8)
            objects[index] = Bytes(heap.cut(at + 16, length))
            at += 16 + -(-length // 8) * 8
        return objects

    # Datasets.

    def read(self, place: int, name: str) -> np.ndarray:
        """A dataset's numbers; bfloat16 as float32.

        Raises:
          ValueError: no dataset, no numbers, data outside the file or less than its shape asks for.
        """
        if not self.has(place, LAYOUT):
            raise ValueError(f"{name} is not a dataset")
        if self.has(place, EXTERNAL):
            raise ValueError(f"{name} keeps its data in another file")
        kind, shape = _type(self.message(place, TYPE)), _shape(self.message(place, SPACE))
        number = kind.number
        if kind.kind == OPAQUE and kind.size == 2 and self.text(place, "dtype") == "bfloat16":
            number = BFLOAT16
        if not number:
            raise ValueError(f"{name} has type {kind.kind}, expected numbers")
        size = math.prod(shape) * kind.size
        self.spend(steps=20)
        try:
            raw = self._raw(place, shape, kind.size, size)
        except ValueError as error:
            raise ValueError(f"{name}, {list(shape)}: {error}") from error
        if number == BFLOAT16:
            bits = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(shape)
        array = np.frombuffer(raw, number).reshape(shape)
        return array.astype(array.dtype.newbyteorder("="))

    def _raw(self, place: int, shape: tuple[int, ...], item: int, size: int) -> memoryview | bytes:
        layout = self.message(place, LAYOUT)
        version, kind = layout.number(0, 1), layout.number(1, 1)
        if kind == VIRTUAL:
            raise ValueError("is made of other files")
        if version == 3 and kind == CHUNKED:
            return self._chunked(place, layout, shape, item).reshape(-1).data
        if version not in (3, 4) or kind not in (COMPACT, CONTIGUOUS):
            raise ValueError("is stored in a way that Keras does not use")
        self.spend(size)
        if kind == COMPACT:
            return layout.cut(4, size)
        return self.bytes.cut(layout.number(2, 8), size) if size else b""

    def _chunked(self, place: int, layout: Bytes, shape: tuple[int, ...], item: int) -> np.ndarray:
        """[*shape, item] bytes, every chunk in its place once."""
        rank = layout.number(2, 1)
        tree, *chunk = layout.number(3, 8), *(layout.number(11 + 4 * i, 4) for i in range(rank))
        if rank != len(shape) + 1 or chunk[-1] != item or 0 in chunk:
            raise ValueError(f"has chunks {chunk} of {item} bytes an element")
        filters = _filters(self.message(place, FILTERS)) if self.has(place, FILTERS) else []
        wanted = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=False))
        size = math.prod(chunk)
        if not wanted:
            return np.zeros((*shape, item), np.uint8)
        if wanted * 8 > len(self.bytes.data) or tree == NOWHERE:
            raise ValueError("has less data than its shape asks for")
        if math.prod(shape) * item > self.budget.bytes:
            raise ValueError("unpacks to far more than its size")
        array = np.empty((*shape, item), np.uint8)
        places = set()
        for key, start in self._leaves(tree, kind=1, key=8 + 8 * rank):
            stored, skipped = key.number(0, 4), key.number(4, 4)
            offset = tuple(key.number(8 + 8 * i, 8) for i in range(rank - 1))
            if any(o % c or o >= n for o, c, n in zip(offset, chunk, shape, strict=False)):
                raise ValueError(f"has a chunk at {offset}")
            places.add(offset)
            self.spend(size, steps=10)
            raw = _unpacked(self.bytes.cut(start, stored), filters, skipped, size, item)
            piece = np.frombuffer(raw, np.uint8).reshape(chunk)
            here = tuple(slice(o, o + c) for o, c in zip(offset, chunk, strict=False))
            there = array[here]
            there[...] = piece[tuple(slice(n) for n in there.shape)]
        if len(places) != wanted:
            raise ValueError(f"has {len(places)} chunks, expected {wanted}")
        return array


def _link(data: Bytes) -> tuple[str, int]:
    """Name and address of a link message, `NOWHERE` for links to a path."""
    flags = data.number(1, 1)
    kind = data.number(2, 1) if flags & 8 else 0
    at = 2 + bool(flags & 8) + 8 * bool(flags & 4) + bool(flags & 16)
    width = 1 << (flags & 3)
    size = data.number(at, width)
    name = bytes(data.cut(at + width, size)).decode()
    return name, data.number(at + width + size, 8) if kind == 0 else NOWHERE


def _shape(space: Bytes) -> tuple[int, ...]:
    version, rank = space.number(0, 1), space.number(1, 1)
    if version not in (1, 2) or (version == 2 and space.number(3, 1) == 2) or rank > RANK:
        raise ValueError(f"has no shape (version {version})")
    shape = tuple(space.number((8 if version == 1 else 4) + 8 * i, 8) for i in range(rank))
    if math.prod(shape) >= 1 << 48 or max(shape, default=0) >= 1 << 48:
        raise ValueError(f"has shape {list(shape)}")
    return shape


def _type(data: Bytes) -> Type:
    kind, flags, size = data.number(0, 1) & 15, data.number(1, 1), data.number(4, 4)
    order = "<>"[flags & 1]
    if kind == INTEGER and size in (1, 2, 4, 8) and data.number(8, 4) == size * 8 << 16:
        return Type(kind, size, f"{order}{'ui'[flags >> 3 & 1]}{size}")
    if kind == FLOAT:
        name = FLOATS.get((size, data.number(13, 1), data.number(15, 1)), "")
        return Type(kind, size, name if name in ("", BFLOAT16) else order + name)
    if kind == VARIABLE and (flags & 15 != 1 or size != 16):
        raise ValueError("lists of varying length, expected text")
    return Type(kind, size)


def _filters(data: Bytes) -> list[int]:
    """The filters that chunks went through, in order; only gzip and shuffle are known."""
    version, count = data.number(0, 1), data.number(1, 1)
    at = 8 if version == 1 else 2
    filters = []
    for _ in range(count):
        kind = data.number(at, 2)
        named = version == 1 or kind >= 256
        length = data.number(at + 2, 2) if named else 0
        values = data.number(at + 4 + 2 * named, 2)
        at += 6 + 2 * named + length + 4 * (values + (values % 2 if version == 1 else 0))
        filters.append(kind)
    if filters not in ([], [DEFLATE], [SHUFFLE], [SHUFFLE, DEFLATE]):
        raise ValueError(f"has filters {filters}, expected gzip and shuffle at most")
    return filters


def _unpacked(
    raw: memoryview, filters: list[int], skipped: int, size: int, item: int
) -> memoryview | bytes:
    """A chunk with its filters undone; bit i of `skipped` says that filter i was not applied."""
    out: memoryview | bytes = raw
    for i, kind in reversed(list(enumerate(filters))):
        if skipped >> i & 1:
            continue
        if kind == DEFLATE:
            out = zlib.decompressobj().decompress(out, size + 1)
        elif len(out) == size:  # first bytes of all elements, then second ones, ...
            out = np.frombuffer(out, np.uint8).reshape(item, -1).T.tobytes()
    if len(out) != size:
        raise ValueError(f"has a chunk of {len(out)} bytes, expected {size}")
    return out
