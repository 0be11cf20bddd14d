"""Maps on GPUs that read some of their memory in another order than they write it.

Neighbouring items should read neighbours and write neighbours. So a group takes a square of the two axes that are
innermost on either side: it reads the square row by row along the one, keeps it in local memory, and computes and
writes it row by row along the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigrad.backends.cstyle.body import At, Emitter
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import ITEMS, decoded
from minigrad.backends.cstyle.templates.packs import UNROLLED
from minigrad.kernel import Kernel, Operand

SIDE = 32  # of a square
PITCH = SIDE + 1  # of a row in local memory: items that read a column meet different banks
SHORT = 8  # elements of an axis below which a square is mostly empty


def transposed_axis(kernel: Kernel) -> int | None:
    """The axis that is innermost in an input while another one is in the output; None where there is none."""
    last = len(kernel.space) - 1
    found = [axis for axis in range(last) if _turned(kernel, axis)]
    return found[-1] if found and kernel.space[last] >= SHORT else None


def _turned(kernel: Kernel, axis: int) -> list[Operand]:
    """Inputs that lie along ``axis``, and in which neighbours along the last axis are apart."""
    if kernel.space[axis] < SHORT:
        return []
    lying = [o for o in dict.fromkeys(kernel.inputs) if o.view.blocks is None and o.view.strides[axis] == 1]
    return [o for o in lying if abs(o.view.strides[-1]) > 1 and o.view.shape[axis] > 1]


class _SquareEmitter(Emitter):
    """Reads some operands from local memory."""

    squares: dict[Operand, str] = {}

    def _element(self, source: Operand, index: Sequence[At]) -> str:
        if source in self.squares:
            return self._widened(f"{self.squares[source]}[across * {PITCH} + r]", source.dtype, 1)
        return super()._element(source, index)


def render_transposed(kernel: Kernel, target: Target, axis: int) -> Rendered:
    """A map whose inputs lie along ``axis``, by squares."""
    functions, dialect, space = Functions(target.dialect), target.dialect, kernel.space
    emitter, last = _SquareEmitter(kernel, target, functions), len(kernel.space) - 1
    index, item = emitter.index_type, dialect.local_id(0)
    counts = tuple(-(-n // SIDE) if a in (axis, last) else n for a, n in enumerate(space))
    decode, at = decoded("group", counts, index, "g")
    turned = {operand: f"square{n}" for n, operand in enumerate(_turned(kernel, axis))}

    def rows(inner: int, outer: int, body: list[str]) -> str:
        """All rows of a square, each along ``inner``: indices ``i`` and ``o``."""
        inside = [f"{name} < {space[a]}" for name, a in (("i", inner), ("o", outer)) if space[a] % SIDE]
        lines = [
            f"const {index} i = {at[inner].expr} * {SIDE} + across;",
            f"const {index} o = {at[outer].expr} * {SIDE} + r;",
            block(f"if ({' && '.join(inside)})" if inside else "", body),
        ]
        return UNROLLED + loop("r", "down", SIDE, lines, ITEMS // SIDE)

    def places(inner: int, outer: int) -> list[At]:
        return [At("i") if a == inner else At("o") if a == outer else place for a, place in enumerate(at)]

    reads = []
    for operand, name in turned.items():
        condition, place = emitter.inside(operand.view, places(axis, last)), f"{name}[r * {PITCH} + across]"
        value = f"b{operand.buffer}[{emitter.address(operand.view, places(axis, last))}]"
        reads += [] if condition == "0" else [f"{f'if ({condition}) ' if condition else ''}{place} = {value};"]
    emitter.squares = turned
    lines = [
        *(dialect.local_array(emitter.storage(o.dtype), name, SIDE * PITCH) for o, name in turned.items()),
        f"const int across = {item} % {SIDE}, down = {item} / {SIDE};",
        f"const {index} group = {dialect.group_id(index=index)};",
        *decode,
        rows(axis, last, reads),
        dialect.barrier,
        rows(last, axis, emitter.finish(places(last, axis))),
    ]
    text = block(dialect.kernel(emitter.parameters(), (ITEMS,)), lines)
    return Rendered((Stage(text, (math.prod(counts),), (ITEMS,), emitter.buffers),), functions.used())
