"""Read pickles without executing them: a machine for the instructions that plain data needs.

It imports nothing, and calls nothing but the functions that a reader offers by name. Every
instruction, and every text or array of bytes that is made or handed to a function, is charged to
the file's budget. (Python's `pickle.Unpickler` can be told what to import, but not how much memory
a pickle's memo may take, nor to leave the state of objects alone.)

https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import pickle
import struct
import sys
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .budget import Budget

ARGUMENTS = 16  # of a call, or parts of a state or a persistent id, at most
WIDE = 4 << 20  # bytes; in a longer text one character beyond Latin-1 could make all take 4 bytes


class Refused(ValueError):
    """A pickle names a class or function that is not offered.

    Args:
      name: with its module, as the pickle says it.
    """

    def __init__(self, name: str):
        self.name = name[:80]
        super().__init__(f"{self.name!r} is refused")


@dataclass(frozen=True)
class Name:
    """A class or function by its full name."""

    name: str


class Object:
    """What a call may return beside plain values: it takes the state that the pickle has for it."""

    def set_state(self, state: Any) -> None:
        """Take a state of at most `ARGUMENTS` parts.

        Raises:
          ValueError, TypeError, LookupError: it is not of the form that such an object has.
        """
        raise NotImplementedError


class Ignored:
    """A value that nobody needs, which takes any state and any items."""


def _no_references(_: Any) -> Any:
    raise ValueError("a reference to something outside the pickle")


_NUMBERS = {
    pickle.BININT1: "<B",
    pickle.BININT2: "<H",
    pickle.BININT: "<i",
    pickle.BINFLOAT: ">d",
}
# The format of the length, and the encoding; None for bytes. Python 2 wrote the ...STRING ones, of
# text and of bytes alike: Latin-1 keeps both.
_TEXTS = {
    pickle.BINUNICODE: ("<I", "utf-8"),
    pickle.SHORT_BINUNICODE: ("<B", "utf-8"),
    pickle.BINUNICODE8: ("<Q", "utf-8"),
    pickle.SHORT_BINSTRING: ("<B", "latin-1"),
    pickle.BINSTRING: ("<I", "latin-1"),
    pickle.SHORT_BINBYTES: ("<B", None),
    pickle.BINBYTES: ("<I", None),
    pickle.BINBYTES8: ("<Q", None),
}
_GETS = {pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"}
_PUTS = {pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"}
_TUPLES = {pickle.EMPTY_TUPLE: 0, pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
_CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False}
_SKIPPED = {pickle.PROTO: 1, pickle.FRAME: 8}  # bytes of the argument


@dataclass
class Machine:
    """Runs the pickles at the start of some bytes, one after the other.

    Dicts keep only what has a text as its key; Python 2's keys, and bytes, become texts.

    Args:
      data: the bytes, pickles of protocol 2 or newer.
      budget: of the file that they are from.
      calls: the functions that a pickle may call, by the full names that it uses.
      names: other full names that it may mention, as arguments.
      refer: gives what a persistent id stands for.
      short: what an error says where the bytes end within a pickle.
      at: the position in the bytes.
    """

    data: bytes
    budget: Budget
    calls: Mapping[str, Callable[..., Any]]
    names: Container[str] = ()
    refer: Callable[[Any], Any] = _no_references
    short: str = "it ends early"
    at: int = 0

    def load(self) -> Any:
        """What the next pickle holds.

        Raises:
          Refused: it names something that is not offered.
          ValueError: it is damaged, or has instructions that plain data does not need.
        """
        try:
            return self._run()
        except (LookupError, TypeError) as error:  # an empty stack, the wrong number of arguments
            raise ValueError(f"a damaged pickle before byte {self.at}") from error

    def _take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(self.short)
        self.at += count
        return taken

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self, form: str, encoding: str | None) -> str | bytes:
        data = self._take(self._number(form))
        if encoding == "utf-8" and len(data) > WIDE and np.frombuffer(data, "u1").max() > 0xC3:
            raise ValueError(f"a text of {len(data)} bytes that is not Latin-1")
        text = data.decode(encoding) if encoding else data
        self.budget.spend(sys.getsizeof(text))
        return text

    def _line(self) -> str:
        end = self.data.index(b"\n", self.at, self.at + 1000)
        line = self._take(end - self.at)
        self.at += 1
        return line.decode()

    def _run(self) -> Any:
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def since_mark() -> list[Any]:
            mark = marks.pop()
            items = stack[mark:]
            del stack[mark:]
            return items

        while True:
            self.budget.spend(steps=2)
            code = self._take(1)
            if code in _PUTS:
                memo[self._number(_PUTS[code])] = stack[-1]
            elif code in _GETS:
                stack.append(memo[self._number(_GETS[code])])
            elif code in _NUMBERS:
                stack.append(self._number(_NUMBERS[code]))
            elif code in _TEXTS:
                stack.append(self._text(*_TEXTS[code]))
            elif code in _TUPLES:
                start = len(stack) - _TUPLES[code]
                if start < 0:
                    raise IndexError
                stack[start:] = [tuple(stack[start:])]
            elif code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            elif code in _SKIPPED:
                self._take(_SKIPPED[code])
            else:
                match code:
                    case pickle.MARK:
                        marks.append(len(stack))
                    case pickle.TUPLE:
                        stack.append(tuple(since_mark()))
                    case pickle.REDUCE | pickle.NEWOBJ:
                        arguments = stack.pop()
                        stack.append(self._call(stack.pop(), arguments))
                    case pickle.BINPERSID:
                        stack.append(self._refer(stack.pop()))
                    case pickle.GLOBAL:
                        stack.append(self._name(self._line(), self._line()))
                    case pickle.STACK_GLOBAL:
                        name = stack.pop()
                        stack.append(self._name(stack.pop(), name))
                    case pickle.EMPTY_DICT:
                        stack.append({})
                    case pickle.EMPTY_LIST:
                        stack.append([])
                    case pickle.SETITEM:
                        value, key = stack.pop(), stack.pop()
                        self._set(stack[-1], [key, value])
                    case pickle.SETITEMS:
                        items = since_mark()
                        self._set(stack[-1], items)
                    case pickle.APPEND:
                        value = stack.pop()
                        self._append(stack[-1], [value])
                    case pickle.APPENDS:
                        items = since_mark()
                        self._append(stack[-1], items)
                    case pickle.BUILD:
                        state = stack.pop()
                        self._build(stack[-1], state)
                    case pickle.MEMOIZE:
                        memo[len(memo)] = stack[-1]
                    case pickle.LONG1:
                        digits = self._take(self._number("<B"))
                        if len(digits) > 16:
                            raise ValueError(f"an integer of {len(digits)} bytes")
                        stack.append(int.from_bytes(digits, "little", signed=True))
                    case pickle.STOP:
                        return stack.pop()
                    case _:
                        raise ValueError(f"instruction {code!r} at byte {self.at - 1} of a pickle")

    def _name(self, module: Any, name: Any) -> Name:
        full = f"{module}.{name}" if type(module) is type(name) is str else "no name"
        if full not in self.calls and full not in self.names:
            raise Refused(full)
        return Name(full)

    def _charge(self, values: Any) -> None:
        """Charge what a function gets: one text or tuple can be handed on again and again."""
        if len(values) > ARGUMENTS:
            raise ValueError(f"{len(values)} arguments, expected {ARGUMENTS} at most")
        self.budget.spend(sum(len(value) for value in values if isinstance(value, str | bytes)))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not (isinstance(function, Name) and type(arguments) is tuple):
            raise TypeError
        self._charge(arguments)
        return self.calls[function.name](*arguments)

    def _refer(self, identity: Any) -> Any:
        self._charge(identity)
        return self.refer(identity)

    def _build(self, target: Any, state: Any) -> None:
        """Give an object its state. That of a dict (versions of PyTorch's modules) is left out."""
        if isinstance(target, Object):
            self._charge(state)
            target.set_state(state)
        elif not (type(target) is dict or isinstance(target, Ignored)):
            raise TypeError

    def _set(self, target: Any, items: list[Any]) -> None:
        if type(target) is dict:
            for key, value in zip(items[::2], items[1::2], strict=True):
                if type(key) is bytes:
                    self.budget.spend(len(key))
                    key = key.decode("latin-1")
                if type(key) is str:
                    target[key] = value
        elif not isinstance(target, Ignored):
            raise TypeError

    def _append(self, target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise TypeError
        target.extend(items)
