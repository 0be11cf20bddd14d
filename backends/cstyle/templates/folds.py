"""How a reduction gathers elements: what it starts from, how two results become one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from minigrad import dtypes
from minigrad.backends.cstyle.body import INT_MAX, Emitter
from minigrad.backends.cstyle.nest import narrowed, wide, widened
from minigrad.dtypes import DType, Scalar
from minigrad.kernel import MAP, Instr, Kernel

_COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def identity(op: str, dtype: DType) -> Scalar:
    """What changes nothing: the result over no elements."""
    if op in ("sum", "prod"):
        return int(op == "prod")
    return dtype.min if op in ("max", "argmax") else dtype.max


def position_dtype(length: int) -> DType:
    """What positions along an axis are kept in."""
    return dtypes.int32 if length <= INT_MAX else dtypes.int64


def of_nothing(kernel: Kernel, op: str, dtype: DType) -> Kernel:
    """The map that stores what a reduction ``op`` over no elements of ``dtype`` gives."""
    value = identity(op, dtype)
    start = Instr("const", (), (value, math.copysign(1, value)), dtype)
    used = sorted({line.attr for line in kernel.epilogue if line.op == "load"})

    def line(of: Instr) -> Instr:
        return start if of.op == "core" else of._replace(attr=used.index(of.attr)) if of.op == "load" else of

    epilogue, inputs = tuple(map(line, kernel.epilogue)), tuple(kernel.inputs[n] for n in used)
    return dataclasses.replace(kernel, op=MAP, prologue=(), sources=(), inputs=inputs, epilogue=epilogue)


class Fold:
    """sum, prod, max and min: one field.

    Attributes:
        fields: dtypes of what is gathered, as it lies in memory between stages.
    """

    fields: tuple[DType, ...]

    def __init__(self, emitter: Emitter, op: str, dtype: DType) -> None:
        self.emitter, self.op, self.dtype = emitter, op, dtype
        self.wide = wide(dtype)
        self.fields = (self.wide,)

    def declare(self, name: str, width: int) -> list[str]:
        """Variables for the fields, which hold nothing yet."""
        start = self.emitter.literal(identity(self.op, self.dtype), self.wide, width)
        return [self._variable(0, name, start, width)]

    def names(self, name: str) -> list[str]:
        """The variables of :meth:`declare`."""
        return [f"{name}_{n}" for n in range(len(self.fields))]

    def given(self, name: str, values: Sequence[str], width: int) -> list[str]:
        """Variables for the fields with values."""
        return [self._variable(n, name, value, width) for n, value in enumerate(values)]

    def _variable(self, field: int, name: str, value: str, width: int) -> str:
        return f"{self.emitter.type(self.fields[field], width)} {name}_{field} = {value};"

    def element(self, sources: Sequence[str], width: int) -> list[str]:
        """The fields of one element (or of one per lane), from lines of the prologue."""
        return [widened(self.emitter, sources[0], self.dtype, width)]

    def merge(self, name: str, other: str, width: int, later: bool = False) -> list[str]:
        """Statements that gather ``other`` into ``name``; ``later`` where its elements come after."""
        a, b = f"{name}_0", f"{other}_0"
        return [f"{a} = {self.emitter.operation(_COMBINE[self.op], [a, b], self.wide, width)};"]

    def result(self, name: str, width: int) -> list[str]:
        """The outputs of the core."""
        return [narrowed(self.emitter, f"{name}_0", self.dtype, width)]

    @property
    def rounds(self) -> bool:
        """Whether long chains of merges lose digits that a tree of them keeps."""
        return self.op == "sum" and self.dtype.is_float


class IndexFold(Fold):
    """argmax and argmin: the value and its position, of which the first counts."""

    def __init__(self, emitter: Emitter, op: str, dtype: DType, length: int) -> None:
        super().__init__(emitter, op, dtype)
        self.fields = (self.wide, position_dtype(length))

    def declare(self, name: str, width: int) -> list[str]:
        """The value of nothing, at position 0: right where all elements are that value."""
        position = self._variable(1, name, self.emitter.literal(0, self.fields[1], width), width)
        return [*super().declare(name, width), position]

    def element(self, sources: Sequence[str], width: int) -> list[str]:
        """The value and its position."""
        return [*super().element(sources, width), sources[1]]

    def merge(self, name: str, other: str, width: int, later: bool = False) -> list[str]:
        """Keep the better value; of equal ones, the first."""
        e, (a, b), (i, j) = self.emitter, (f"{name}_0", f"{other}_0"), (f"{name}_1", f"{other}_1")
        better = f"({b} {'>' if self.op == 'argmax' else '<'} {a})"
        equal = f"({b} == {a})"
        if self.dtype.is_float:
            better = f"({better} | (({b} != {b}) & ({a} == {a})))"
            equal = f"({equal} | (({b} != {b}) & ({a} != {a})))"
        wins = e.mask(better, self.wide, width)
        if not later:
            first = e.mask(f"({j} < {i})", self.fields[1], width)
            wins = f"{wins} | ({e.mask(equal, self.wide, width)} & {first})"
        truth = e.type(dtypes.bool_, width)
        chosen = [(a, b, self.wide), (i, j, self.fields[1])]
        lines = [f"const {truth} wins = {wins};"]
        return ["{", *lines, *(f"{x} = {e.choose('wins', y, x, d, width)};" for x, y, d in chosen), "}"]

    def result(self, name: str, width: int) -> list[str]:
        """The position."""
        return [self.emitter.cast(f"{name}_1", self.fields[1], dtypes.int64, width)]


def lanes_merged(fold: Fold, name: str, to: str, width: int) -> list[str]:
    """Statements that declare ``to`` with the lanes of ``name`` gathered, by halves."""
    lines, source = [], name
    while width > 1:
        width //= 2
        lower, upper = (to, f"{to}b") if width == 1 else (f"{to}{width}", f"{to}{width}b")
        for half, variable in (("lo", lower), ("hi", upper)):
            lines += fold.given(variable, [f"{field}.{half}" for field in fold.names(source)], width)
        lines += fold.merge(lower, upper, width)
        source = lower
    return lines
