"""Reading a source at addresses that a template computes itself, in whole vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minigrad import dtypes
from minigrad.backends.cstyle.body import At, Emitter, Lanes
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.target import Target
from minigrad.kernel import Kernel
from minigrad.view import View


class Walker:
    """An emitter for a kernel that also loads from sources at plain addresses.

    Args:
        kernel: in its core's shape.
        target: what it is for.
        sources: operand numbers.
        strides: for each, how far apart the lanes of a vector lie (0: one element in all lanes).
        width: lanes.
    """

    def __init__(
        self, kernel: Kernel, target: Target, sources: Sequence[int], strides: Sequence[int], width: int
    ) -> None:
        self.functions = Functions(target.dialect)
        self.width = width
        self._first = len(kernel.inputs)
        walks = []
        for source, stride in zip(sources, strides):
            operand = kernel.inputs[source]
            walks.append(operand._replace(view=View((operand.view.span[1], width), (1, stride))))
        self.emitter = Emitter(replace(kernel, inputs=(*kernel.inputs, *walks)), target, self.functions)
        self.index = self.emitter.index_type
        dtype = kernel.prologue[kernel.sources[0]].dtype
        self.dtype = dtypes.float32 if dtype.is_half else dtype
        self._rounds = dtype if dtype.is_half else None

    def load(self, source: int, base: str, offset: int, valid: tuple[int, int] | None = None) -> str:
        """A vector of a source, from element ``base + offset`` on; lanes that are not valid are 0."""
        number, at = self._first + source, At(base, 1, offset)
        lanes = Lanes(1, self.width) if self.width > 1 else Lanes()
        if valid is None or valid == (0, self.width):
            return self.emitter.load(number, [at, At()], lanes)
        zero = self.emitter.literal(0, self.dtype)
        parts = [
            self.emitter.load(number, [at, At(offset=lane)]) if valid[0] <= lane < valid[1] else zero
            for lane in range(self.width)
        ]
        return self.emitter.dialect.build(parts, self.type())

    def type(self, width: int | None = None) -> str:
        """The type of accumulators."""
        return self.emitter.type(self.dtype, width or self.width)

    def zero(self, width: int | None = None) -> str:
        """The start of a sum."""
        return self.emitter.literal(0, self.dtype, width or self.width)

    def multiplied(self, sum_: str, a: str, b: str) -> str:
        """A statement: adds a product to an accumulator."""
        return f"{sum_} = {self.add(self._operation('mul', a, b), sum_)};"

    def add(self, a: str, b: str, width: int | None = None) -> str:
        """The sum of two values."""
        return self._operation("add", a, b, width)

    def _operation(self, op: str, a: str, b: str, width: int | None = None) -> str:
        return self.emitter.operation(op, [a, b], self.dtype, width or self.width)

    def result(self, value: str, width: int | None = None) -> str:
        """An accumulator as an output of the core."""
        return value if self._rounds is None else self.emitter.rounded(value, self._rounds, width or self.width)

    def part(self, view: View, axis: int, at: At) -> str:
        """What the index along one axis adds to the address of an element."""
        blocks = None if view.blocks is None else (view.blocks[axis],)
        return self.emitter.address(View((view.shape[axis],), (view.strides[axis],), blocks=blocks), [at])

    def line(self, stride: int) -> View:
        """An axis of this stride."""
        return View((2,), (stride,))

    def lane_sums(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """The sum over the lanes of each vector, and the statements before; as many at once as there are lanes."""
        lines: list[str] = []
        values: list[str] = []
        for first in range(0, len(names), self.width):
            some = list(names[first : first + self.width])
            some += [some[-1]] * (self.width - len(some))
            level = 0
            while len(some) > 1:
                # Neighbouring lanes are added, those of two vectors into one.
                pairs = [(f"({self.add(f'{v}.even', f'{v}.odd', self.width // 2)})") for v in some]
                some = [f"z{first}_{level}_{n}" for n in range(len(some) // 2)]
                for n, name in enumerate(some):
                    value = self.emitter.dialect.build(pairs[2 * n : 2 * n + 2], self.type())
                    lines.append(f"const {self.type()} {name} = {value};")
                level += 1
            values += [f"{some[0]}.s{lane:x}" for lane in range(min(self.width, len(names) - first))]
        return values, lines


def decoded(flat: str, order: Sequence[tuple[str, int]]) -> list[str]:
    """Statements that take a number apart, outermost first."""
    lines, rest = [], flat
    for name, size in reversed(order):
        lines.append(f"const int {name} = {f'{rest} % {size}' if size > 1 else '0'};")
        if size > 1:
            rest = f"({rest} / {size})"
    return lines
