"""Neighbours in memory that an item reads and writes at once, and computes one by one in registers between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from minigrad.backends.cstyle.body import ONE, At, Emitter, Lanes
from minigrad.backends.cstyle.source import loop
from minigrad.kernel import Operand
from minigrad.shapes import Shape
from minigrad.view import View

UNROLLED = "#pragma unroll\n"
MOST = 8  # elements of a pack


def is_packed(view: View, axis: int, width: int) -> bool:
    """Whether ``width`` elements from every multiple of it on are neighbours in memory, inside or outside together."""
    if view.blocks is not None or view.shape[axis] == 1 or view.strides[axis] != 1 or view.offset % width:
        return False
    if view.bounds is not None and view.bounds[axis] != (0, view.shape[axis]):
        return False
    return all(n == 1 or s % width == 0 for a, (n, s) in enumerate(zip(view.shape, view.strides)) if a != axis)


def pack_width(wide: int, length: int, operands: Sequence[Operand], needed: Sequence[Operand], axis: int) -> int:
    """Elements along ``axis`` that an item takes; 1 where there is nothing to gain.

    Args:
        wide: bytes that are read at once.
        length: of the axis, of which whole packs are wanted.
        operands: what is read and written.
        needed: those that have to be packed; others may.
        axis: of their views.
    """
    sizes = [o.dtype.itemsize for o in operands if is_packed(o.view, axis, 1)]
    width = min(MOST, wide // min(sizes)) if sizes else 1
    while width > 1 and (length % width or not all(is_packed(o.view, axis, width) for o in needed)):
        width //= 2
    return width


class Packs:
    """Packs of ``width`` elements along ``axis`` of one kernel's operands.

    Elements are at index ``e`` along the axis, number ``j`` of a pack.
    """

    def __init__(self, emitter: PackEmitter, axis: int, width: int) -> None:
        self.emitter, self.axis, self.width = emitter, axis, width

    def names(self, operands: Sequence[Operand], tag: str) -> dict[Operand, str]:
        """Those of ``operands`` that are read or written as packs, and what these are called."""
        kept = [o for o in dict.fromkeys(operands) if is_packed(o.view, self.axis, self.width)]
        return {operand: f"{tag}{n}" for n, operand in enumerate(kept)}

    def type(self, operand: Operand) -> str:
        """The C type of a pack."""
        return self.emitter.dialect.pack(self.emitter.storage(operand.dtype), self.width)

    def place(self, operand: Operand, index: Sequence[At], const: bool) -> str:
        """The pack in memory that begins at ``index``."""
        emitter, qualifier = self.emitter, "const " if const else ""
        return f"*({qualifier}{self.type(operand)} *)(b{operand.buffer} + {emitter.address(operand.view, index)})"

    def load(self, operand: Operand, index: Sequence[At]) -> str:
        """The pack at ``index``, or anything where it is out of bounds."""
        condition = self.emitter.inside(operand.view, index)
        if condition == "0":
            return f"{self.type(operand)}()"
        text = self.place(operand, index, True)
        return f"{condition} ? {text} : {self.type(operand)}()" if condition else text

    def loads(self, packs: Mapping[Operand, str], index: Sequence[At]) -> list[str]:
        """Statements that read packs."""
        return [f"const {self.type(operand)} {name} = {self.load(operand, index)};" for operand, name in packs.items()]

    def made(self, packs: Mapping[Operand, str]) -> list[str]:
        """Statements that declare packs to be written."""
        return [f"{self.type(operand)} {name};" for operand, name in packs.items()]

    def stores(self, packs: Mapping[Operand, str], index: Sequence[At]) -> list[str]:
        """Statements that write them."""
        return [f"{self.place(operand, index, False)} = {name};" for operand, name in packs.items()]

    def each(self, lines: Sequence[str], index: str, first: str) -> str:
        """A loop over the elements of a pack."""
        return UNROLLED + loop("j", 0, self.width, [f"const {index} e = {first} + j;", *lines])


class PackEmitter(Emitter):
    """Renders bodies, some of whose operands are packs."""

    _read: Mapping[Operand, str] = {}
    _written: Mapping[Operand, str] = {}
    _number = "j"

    @contextmanager
    def using(
        self, read: Mapping[Operand, str], written: Mapping[Operand, str] = MappingProxyType({}), number: str = "j"
    ) -> Iterator[None]:
        """Within the block, inputs and outputs that have names here are element ``number`` of the packs so called."""
        before = self._read, self._written, self._number
        self._read, self._written, self._number = read, written, number
        try:
            yield
        finally:
            self._read, self._written, self._number = before

    def _element(self, source: Operand, index: Sequence[At]) -> str:
        if source in self._read:
            return self._widened(f"{self._read[source]}.s[{self._number}]", source.dtype, 1)
        return super()._element(source, index)

    def store(self, output: int, value: str, index: Sequence[At], lanes: Lanes = ONE) -> str:
        """A statement that writes ``value`` to an output, or to its pack."""
        target = self.kernel.outputs[output]
        if target in self._written:
            return f"{self._written[target]}.s[{self._number}] = {self.narrowed(value, target.dtype, 1)};"
        return super().store(output, value, index, lanes)


def in_packs(shape: Shape, axis: int, width: int) -> Shape:
    """A shape that counts packs along one axis."""
    return (*shape[:axis], math.ceil(shape[axis] / width), *shape[axis + 1 :])
