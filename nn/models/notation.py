"""The notation of patterns such as ``[(CONV-RELU)*N-POOL?]*M-(FC-RELU)*K,SOFTMAX``: text to words and back.

Words stand for layers and are joined by ``-`` or ``,``. Numbers say more: ``CONV5-6/2`` is a convolution of extent 5
with 6 filters at stride 2, and ``p0`` after it sets its padding; ``POOL3/2``, ``FC-4096`` and ``DROPOUT-0.4`` are
alike. What is in brackets is one part; ``*3`` or ``*N`` repeats a word or a part, and ``?`` makes it optional.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minigrad.errors import ArgumentError, MinigradError

# The numbers that each word may have.
WORDS: dict[str, tuple[str, ...]] = {
    "CONV": ("extent", "width", "stride", "padding"),
    "POOL": ("extent", "stride", "padding"),
    "AVGPOOL": ("extent", "stride", "padding"),
    "FC": ("width",),
    "DROPOUT": ("width",),
    **dict.fromkeys(("RELU", "TANH", "SIGMOID", "LRN", "BN", "SOFTMAX"), ()),
}
NUMBERS = ("extent", "width", "stride", "padding")
SYNONYMS = {"NORM": "LRN"}
CLOSING = {"(": ")", "[": "]"}
DIGITS = 9  # of a number
LOOK_ALIKES = {"×": "*", "·": "*", "−": "-", "–": "-", "—": "-"}  # of slides
LONGEST = 2000  # words, repeats written out: a slip of the pen may ask for billions

TOKEN = re.compile(
    r"(?P<name>(?:(?!p\d)[A-Za-z])+)(?P<extent>\d+)?(\s*-\s*(?P<width>\d+(\.\d{1,9})?))?"
    r"(\s*/\s*(?P<stride>\d+))?(\s*p(?P<padding>\d+))?"
    r"|\*\s*(?P<count>\d+|[A-Za-z_]\w*)"
    r"|(?P<mark>[-,?()\[\]])",
    re.ASCII,
)


class Word(NamedTuple):
    """A layer as the notation writes it; a number that it leaves out is None.

    >>> str(Word("CONV", extent=5, width=6, stride=2))
    'CONV5-6/2'
    """

    name: str
    extent: int | None = None
    width: float | None = None
    stride: int | None = None
    padding: int | None = None
    column: int = 0  # where it stands, from 0

    def __str__(self) -> str:
        signs = (("", self.extent), ("-", self.width), ("/", self.stride), ("p", self.padding))
        return self.name + "".join(sign + _digits(number) for sign, number in signs if number is not None)


def _digits(number: float) -> str:
    """A number without an exponent."""
    return str(number) if isinstance(number, int) else np.format_float_positional(number, trim="-")


def misread(
    kind: type[MinigradError], pattern: str, column: int, expected: str, got: str, hint: str = ""
) -> MinigradError:
    """The error that points at a column of a pattern."""
    line = re.sub(r"\s", " ", pattern)
    return kind(f"{kind.of('from_pattern', expected, got, hint)}\n  {line}\n  {' ' * column}^ column {column + 1}")


def parse(pattern: str, counts: Mapping[str, int] | None = None, optional: bool = True) -> list[Word]:
    """The words of a pattern in order, with all repeats written out.

    Args:
        pattern: the text.
        counts: what the names after ``*`` stand for.
        optional: whether parts with ``?`` are there.

    Raises:
        ArgumentError: pointing at what cannot be read, or naming counts that the pattern does not have.

    >>> [str(word) for word in parse("(CONV3-64-RELU)*N-POOL?,SOFTMAX", {"N": 2})]
    ['CONV3-64', 'RELU', 'CONV3-64', 'RELU', 'POOL', 'SOFTMAX']
    """
    reader = _Reader(pattern, counts or {}, optional)
    column = 0
    while column < len(pattern):
        token = TOKEN.match(pattern, column)
        if token is not None:
            reader.step(token)
        elif not pattern[column].isspace():
            meant = LOOK_ALIKES.get(pattern[column])
            hint = f"did you mean {meant!r}?" if meant else ""
            reader.fail(column, "a layer, a bracket, '-', ',', '*' and a count, or '?'", repr(pattern[column]), hint)
        column = column + 1 if token is None else token.end()
    return reader.finish()


class _Reader:
    """A pattern that is being read from left to right.

    Attributes:
        words: those of the innermost open bracket so far, or of the whole pattern.
        part: the word or bracket that was read last; None where one must follow.
        around: of each open bracket, its column and the words before it.
        used: the names of counts that were met.
    """

    def __init__(self, pattern: str, counts: Mapping[str, int], optional: bool) -> None:
        self.pattern, self.counts, self.optional = pattern, counts, optional
        self.words: list[Word] = []
        self.part: list[Word] | None = None
        self.around: list[tuple[int, list[Word]]] = []
        self.used: set[str] = set()

    def step(self, token: re.Match[str]) -> None:
        """Do what one token says."""
        column, mark = token.start(), token["mark"]
        if token["name"] or mark in CLOSING:
            if self.part is not None:
                self.fail(column, "'-' or ',' before the next layer", repr(token[0]))
        elif self.part is None:
            self.fail(column, "a layer or a bracket", repr(token[0]))
        if token["name"]:
            self.part = [self.word(token)]
        elif token["count"]:
            self.part = self.repeated(token)
        elif mark in CLOSING:
            self.around.append((column, self.words))
            self.words = []
        elif mark in CLOSING.values():
            self.close(column)
        elif mark == "?":
            self.part = self.part if self.optional else []
        else:
            self.join()

    def word(self, token: re.Match[str]) -> Word:
        """The layer that a token names."""
        name = token["name"].upper()
        name = SYNONYMS.get(name, name)
        if name not in WORDS:
            close = difflib.get_close_matches(name, WORDS, 1)
            hint = f"did you mean {close[0]}?" if close else ""
            self.fail(token.start(), f"one of {', '.join(WORDS)}", repr(token["name"]), hint)
        numbers = {kind: self.number(token, kind, name) for kind in NUMBERS if token[kind] is not None}
        return Word(name, **numbers, column=token.start())

    def number(self, token: re.Match[str], kind: str, name: str) -> Any:
        """One of the numbers of a word."""
        if kind not in WORDS[name]:
            allowed = ", ".join(WORDS[name]) or "no numbers"
            self.fail(token.start(kind), f"{name} with {allowed}", f"{kind} {token[kind]}")
        self.check_digits(token, kind)
        if name == "DROPOUT":
            return float(token[kind])
        if not token[kind].isdecimal() or int(token[kind]) < (kind != "padding"):
            self.fail(token.start(kind), f"a whole {kind} of at least {int(kind != 'padding')}", token[kind])
        return int(token[kind])

    def check_digits(self, token: re.Match[str], kind: str) -> None:
        """Complain of a number that nobody means."""
        count = len(token[kind].partition(".")[0])
        if token[kind][0].isdecimal() and count > DIGITS:
            self.fail(token.start(kind), f"a {kind} of at most {DIGITS} digits", f"one of {count}")

    def repeated(self, token: re.Match[str]) -> list[Word]:
        """The last part, as often as a token says."""
        text, part = token["count"], self.part or []
        self.check_digits(token, "count")
        self.used.add(text)
        count = int(text) if text.isdecimal() else self.counts.get(text)
        if count is None:
            self.fail(
                token.start("count"), "a number or the name of one", repr(text), f"give {text}=2, or another number"
            )
        if not isinstance(count, int) or not 0 <= count * max(len(part), 1) <= LONGEST:
            self.fail(token.start("count"), f"a count of at least 0, and at most {LONGEST} layers", repr(count))
        return part * count

    def join(self) -> None:
        """Add the part that was read last to the words."""
        self.words += self.part or []
        self.part = None

    def close(self, column: int) -> None:
        """Make one part of the words in the innermost bracket."""
        opened = self.pattern[self.around[-1][0]] if self.around else ""
        if self.pattern[column] != CLOSING.get(opened):
            expected = f"{CLOSING[opened]!r} to close {opened!r}" if opened else "a bracket that is open"
            self.fail(column, expected, repr(self.pattern[column]))
        self.join()
        self.part, self.words = self.words, self.around.pop()[1]

    def finish(self) -> list[Word]:
        """All words, at the end of the pattern."""
        if self.part is None:
            self.fail(len(self.pattern.rstrip()), "a layer or a bracket", "the end")
        if self.around:
            column = self.around[-1][0]
            self.fail(column, f"{CLOSING[self.pattern[column]]!r} to close this bracket", "the end")
        if unused := sorted(set(self.counts) - self.used):
            raise ArgumentError.of("from_pattern", f"counts that {self.pattern} has", ", ".join(unused))
        self.join()
        return self.words

    def fail(self, column: int, expected: str, got: str, hint: str = "") -> NoReturn:
        """Raise the error that points at a column."""
        raise misread(ArgumentError, self.pattern, column, expected, got, hint)


def fold(words: Sequence[str]) -> str:
    """Words joined to a pattern, in which runs of equal parts are written once.

    A run starts with a layer that has weights where it can: stages end in their pool.

    >>> fold(["CONV", "RELU", "CONV", "RELU", "POOL", "CONV", "RELU", "CONV", "RELU", "POOL", "FC"])
    '[(CONV-RELU)*2-POOL]*2-FC'
    """
    parts = []
    while words:
        runs = [(length, _repeats(words, length)) for length in range(1, len(words) // 2 + 1)]
        length, count = max(runs, key=lambda run: run[0] * (run[1] - 1), default=(1, 1))
        could_start_later = words[0] == (*words, None)[length * count] and not words[0].startswith(("CONV", "FC"))
        if count == 1 or length > 1 and could_start_later:
            parts.append(words[0])
            words = words[1:]
        else:
            inner = fold(words[:length])
            parts.append((f"[{inner}]" if "(" in inner else f"({inner})") + f"*{count}")
            words = words[length * count :]
    return "-".join(parts)


def _repeats(words: Sequence[str], length: int) -> int:
    """How often the first ``length`` words stand at the start, one after another."""
    count = 1
    while words[count * length : (count + 1) * length] == words[:length]:
        count += 1
    return count
