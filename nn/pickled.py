"""Reads pickles without running them.

A pickle is a program for a machine with a stack. Python's own machine calls whatever the program names, so loading a
file means trusting it. The machine here knows the instructions for plain values (numbers, strings, tuples, lists and
dicts) and calls only functions that it was given. Anything else is an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from minigrad.errors import DataError

LITERALS = frozenset(  # instructions that push their argument
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
KEYS = (str, int, float, bytes, type(None))  # of dicts: nothing whose hash runs deep


def decode(
    source: str, file: BinaryIO, known: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The value of the next pickle in a file, of which no more is read.

    Args:
        source: what to call the file in errors.
        file: what to read.
        known: the globals that the pickle may name, as ``module.name``, and what they stand for here. Those that are
            callable may be called, with arguments of the pickle's choice.
        persistent: gives the value for an identifier of something outside the pickle.

    Raises:
        DataError: if the pickle is damaged, names another global, or has instructions that make objects.

    >>> import io, pickle
    >>> decode("an example", io.BytesIO(pickle.dumps({"a": [1, (2.5, None)]})), {})
    {'a': [1, (2.5, None)]}
    """
    machine = _Machine(source, known, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        (value,) = machine.stack
    except DataError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        hint = "the file is damaged: write or copy it again"
        raise DataError.of(source, "a complete pickle", f"{type(error).__name__}: {error}", hint) from error
    return value


def as_dict(items: Iterable[Any] = ()) -> dict[Any, Any]:
    """A dict of pairs (or of a dict), with plain keys: what all kinds of dicts in a pickle become.

    >>> as_dict([("a", 1)])
    {'a': 1}
    """
    pairs = list(items.items() if isinstance(items, dict) else items)
    if not all(isinstance(key, KEYS) for key, _ in pairs):
        raise TypeError("a dict has keys that are not plain")
    return dict(pairs)


class Stateful:
    """Base of what a known function may return if the pickle sets its state afterwards."""

    def set_state(self, state: Any) -> None:
        """Take over a state of the pickle's choice; for one that makes no sense, raise TypeError or ValueError."""
        raise NotImplementedError


class _Machine:
    """A pickle that is being read: the stack, the marks in it and the memory."""

    def __init__(self, source: str, known: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        self.source, self.known, self.persistent = source, known, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memory[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.take(int(name[-1]))))
            case "TUPLE":
                stack.append(tuple(self.take_to_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(self.take_to_mark())
            case "APPEND":
                self.extend(self.take(1))
            case "APPENDS":
                self.extend(self.take_to_mark())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self.take_to_mark()
                stack.append({})
                self.update(items)
            case "SETITEM":
                self.update(self.take(2))
            case "SETITEMS":
                self.update(self.take_to_mark())
            case "GLOBAL":
                stack.append(self.find(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack.append(self.find(".".join(self.take(2))))
            case "REDUCE":
                function, arguments = self.take(2)
                if not callable(function):
                    raise TypeError("a value is called")
                stack.append(function(*arguments))
            case "BUILD":
                (state,) = self.take(1)
                if isinstance(stack[-1], Stateful):
                    stack[-1].set_state(state)
                elif not isinstance(stack[-1], dict):  # whose attributes are, say, the versions of layers: no loss
                    self.refuse("attributes of an object")
            case "BINPERSID" if self.persistent is not None:
                stack.append(self.persistent(stack.pop()))
            case _ if name in LITERALS:
                stack.append(argument)
            case _ if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case _:
                self.refuse(f"the instruction {name}")

    def take(self, count: int) -> list[Any]:
        """Take the last ``count`` values off the stack."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        return self.take_from(len(self.stack) - count)

    def take_to_mark(self) -> list[Any]:
        """Take the last mark away, and what lies above it off the stack."""
        return self.take_from(self.marks.pop())

    def take_from(self, start: int) -> list[Any]:
        """Take off the stack what lies from a position upwards."""
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, items: list[Any]) -> None:
        """Put values at the end of the list on top."""
        if not isinstance(self.stack[-1], list):
            raise TypeError("a list is not where it should be")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the dict on top."""
        if not isinstance(self.stack[-1], dict):
            raise TypeError("a dict is not where it should be")
        self.stack[-1].update(as_dict(zip(items[::2], items[1::2])))

    def find(self, name: str) -> Any:
        """What a global stands for."""
        return self.known[name] if name in self.known else self.refuse(name)

    def refuse(self, what: str) -> Any:
        """Stop at something that would need more than plain values."""
        hint = (
            "objects are not made from files: where you trust this one, load it with what wrote it and save its "
            "state dict again"
        )
        raise DataError.of(self.source, "a pickle of tensors and plain values", what, hint)
