"""Kernels: what a backend is asked to run. One kernel list serves every backend.

A kernel has at most one *core* (a reduction, contraction, window...: anything that is not elementwise) between two
elementwise bodies: the *prologue* computes the core's sources, the *epilogue* turns its outputs into what is stored.
A kernel without a core (``op == "map"``) is an epilogue alone. Bodies are straight-line code over the elements of
their space; loads and stores go through views, so movement costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minigrad.dtypes import DType
from minigrad.errors import VerifyError
from minigrad.primitive import TABLE, Kind
from minigrad.shapes import Shape, broadcast
from minigrad.view import View

MAP = "map"


class Instr(NamedTuple):
    """One line of a body; its number is its position.

    ``op`` is an elementwise primitive over earlier lines ``args``, or one of

    - ``load``: input operand ``attr`` of the kernel,
    - ``const``: a Python scalar, the first of ``attr``; the second is its sign, since -0.0 equals 0.0 as a key,
    - ``iota``: the number that the :class:`View` ``attr`` maps each element to,
    - ``inside``: whether each element is inside the bounds of the :class:`View` ``attr``,
    - ``core``: output ``attr`` of the core.

    ``cast`` has its dtype as ``attr`` too.
    """

    op: str
    args: tuple[int, ...]
    attr: Any
    dtype: DType


Body = tuple[Instr, ...]


class Operand(NamedTuple):
    """An argument of a kernel: which of its buffers, the element type there, and through which view."""

    buffer: int
    dtype: DType
    view: View


@dataclass(frozen=True)
class Kernel:
    """One launch.

    Attributes:
        op: the core's primitive, or ``"map"``.
        attrs: the core's attributes.
        prologue: computes the core's sources; ``sources`` are its lines that the core takes, each in its own shape.
        sources: as said.
        source_shapes: their shapes.
        core_shapes: shapes of the core's outputs (empty for a map).
        space: shape of the epilogue. Differs from the core's output shape by axes of size 1 at most.
        epilogue: computes what is stored.
        stores: pairs (line of the epilogue, output operand).
        inputs: operands that are read.
        outputs: operands that are written, each with a view of shape ``space``, or of a later core output's shape.
        buffers: number of buffers: operands name them by position. An output shares one with an input of the epilogue
            where it is written over it, element by element; no core writes what it reads.
    """

    op: str
    attrs: Any
    prologue: Body
    sources: tuple[int, ...]
    source_shapes: tuple[Shape, ...]
    core_shapes: tuple[Shape, ...]
    space: Shape
    epilogue: Body
    stores: tuple[tuple[int, int], ...]
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    buffers: int

    @property
    def name(self) -> str:
        """A readable name: the core, then the last computation of the epilogue."""
        words = [] if self.op == MAP else [self.op]
        computed = [i.op for i in self.epilogue if i.op not in ("load", "const", "core", "cast", "iota", "inside")]
        if len(computed) > 3:
            computed = [computed[0], "..", computed[-1]]
        return "_".join(words + computed) or "copy"

    @property
    def writes_in_place(self) -> bool:
        """Whether the epilogue writes memory that it reads: then it must run once for each element."""
        read = {self.inputs[line.attr].buffer for line in self.epilogue if line.op == "load"}
        return any(operand.buffer in read for operand in self.outputs)

    def computes(self) -> set[tuple[str, DType]]:
        """The primitives that run here, each with the dtype of a result."""
        found = {(line.op, line.dtype) for line in (*self.prologue, *self.epilogue) if line.op in TABLE}
        return found if self.op == MAP else found | {(self.op, self.prologue[s].dtype) for s in self.sources}

    @property
    def flops(self) -> int:
        """Floating-point operations: the core's, and one per element and line of the bodies."""

        def lines(body: Body) -> int:
            return sum(i.op not in ("load", "const", "core", "iota", "inside", "cast") for i in body)

        total = lines(self.epilogue) * math.prod(self.space)
        if self.op != MAP:
            total += lines(self.prologue) * math.prod(self.source_shapes[0] if self.source_shapes else ())
            total += TABLE[self.op].flops(self.attrs, self.core_shapes[0], *self.source_shapes)
        return total

    @property
    def bytes_moved(self) -> int:
        """Bytes that must be read and written at least, each element of a view once."""

        def size(operand: Operand) -> int:
            used = (n for n, s in zip(operand.view.shape, operand.view.strides) if s != 0)
            return math.prod(used) * operand.dtype.itemsize

        return sum(map(size, self.inputs)) + sum(map(size, self.outputs))

    def in_core_shape(self) -> Kernel:
        """The same kernel with its epilogue over the shape of the core's output; a map as it is."""
        if self.op == MAP or self.space == self.core_shapes[0]:
            return self
        shape = self.core_shapes[0]

        def moved(view: View) -> View:
            found = view.moved("reshape", (shape,))
            assert found is not None, "axes of size 1 come and go"
            return found

        inputs = list(self.inputs)
        fixed = {line.attr for line in self.prologue if line.op == "load"}  # the prologue reads these as they are
        lines = []
        for line in self.epilogue:
            if isinstance(line.attr, View):
                line = line._replace(attr=moved(line.attr))
            elif line.op == "load" and inputs[line.attr].view.shape == self.space:
                operand = inputs[line.attr]._replace(view=moved(inputs[line.attr].view))
                if line.attr in fixed:
                    inputs.append(operand)
                    line = line._replace(attr=len(inputs) - 1)
                else:
                    inputs[line.attr] = operand
            lines.append(line)
        outputs = tuple(o._replace(view=moved(o.view)) if o.view.shape == self.space else o for o in self.outputs)
        return replace(self, space=shape, epilogue=tuple(lines), inputs=tuple(inputs), outputs=outputs)

    def __str__(self) -> str:
        lines = [f"{self.name} {list(self.space)}"]
        for name, body in (("prologue", self.prologue), ("epilogue", self.epilogue)):
            for number, line in enumerate(body):
                args = " ".join(f"%{a}" for a in line.args)
                attr = "" if line.attr is None else f" {_attr(line, self)}"
                lines.append(f"  {name[0]}%{number:<3}{line.dtype.name:<9}{line.op} {args}{attr}")
            if name == "prologue" and self.op != MAP:
                fields = ", ".join(f"{k}={v}" for k, v in zip(self.attrs._fields, self.attrs))
                lines.append(f"  {self.op}({fields}) of " + " ".join(f"p%{s}" for s in self.sources))
        for line_number, output in self.stores:
            lines.append(f"  store e%{line_number} -> {_operand_at(self.outputs, output)}")
        return "\n".join(lines)


def _operand(operand: Operand) -> str:
    view = operand.view
    text = f"b{operand.buffer} {operand.dtype.name}{list(view.shape)} strides {list(view.strides)}"
    for axis, (size, outer) in enumerate(view.blocks or ()):
        text += f" axis {axis} in blocks of {size} every {outer}" if size else ""
    return text + (f" offset {view.offset}" if view.offset else "") + (f" in {view.bounds}" if view.bounds else "")


def _operand_at(operands: tuple[Operand, ...], number: int) -> str:
    return _operand(operands[number]) if 0 <= number < len(operands) else f"operand {number}, which does not exist"


def _attr(line: Instr, kernel: Kernel) -> str:
    return _operand_at(kernel.inputs, line.attr) if line.op == "load" else str(line.attr)


def verify(kernel: Kernel) -> None:
    """Check a kernel against itself: shapes, dtypes, the order of lines, and that operands exist.

    Raises:
        VerifyError: naming the kernel and the line.
    """

    def check(holds: bool, expected: str, got: Any) -> None:
        if not holds:
            raise VerifyError.of(f"verify({kernel.name})", expected, f"{got}\n{kernel}")

    def body(lines: Body, name: str, allow_core: bool) -> list[Shape | None]:
        shapes: list[Shape | None] = []
        for number, line in enumerate(lines):
            check(all(0 <= a < number for a in line.args), "arguments before their use", f"{name} line {number}")
            shape: Shape | None = None
            if line.op == "load":
                check(0 <= line.attr < len(kernel.inputs), "a load of an operand", line)
                operand = kernel.inputs[line.attr]
                check(operand.dtype is line.dtype, f"a load of {operand.dtype.name}", line)
                shape = operand.view.shape
            elif line.op in ("iota", "inside"):
                shape = line.attr.shape
            elif line.op == "core":
                check(allow_core and line.attr < len(kernel.core_shapes), "a core output", line)
            elif line.op != "const":
                op = TABLE.get(line.op)
                if op is None or op.kind is not Kind.ELEMENTWISE or len(line.args) != op.arity:
                    check(False, "an elementwise primitive over as many lines as it takes", line)
                attrs = TABLE[line.op].attrs(line.attr) if line.op == "cast" else ()
                kinds = [lines[a].dtype for a in line.args]
                check(TABLE[line.op].dtype(attrs, *kinds) is line.dtype, "the primitive's dtype", line)
                known = [s for s in (shapes[a] for a in line.args) if s is not None]
                shape = broadcast(line.op, *known) if known else None
            shapes.append(shape)
        return shapes

    sources = body(kernel.prologue, "prologue", False)
    for source, expected in zip(kernel.sources, kernel.source_shapes):
        check(0 <= source < len(sources), "a source that is a line of the prologue", source)
        check(sources[source] in (None, expected), f"a source of shape {expected}", sources[source])
    for shape in body(kernel.epilogue, "epilogue", kernel.op != MAP):
        fits = shape is None or shape in (kernel.space, *kernel.core_shapes)
        check(fits, f"lines of shape {kernel.space}", shape)
    if kernel.op != MAP:
        core = [n for n in kernel.core_shapes[0] if n != 1]
        check(core == [n for n in kernel.space if n != 1], f"a space like {kernel.core_shapes[0]}", kernel.space)
    check(bool(kernel.stores), "something stored", "nothing")
    for line_number, output in kernel.stores:
        exist = 0 <= line_number < len(kernel.epilogue) and 0 <= output < len(kernel.outputs)
        check(exist, "a store of a line to an operand", (line_number, output))
        stored = kernel.outputs[output]
        check(stored.dtype is kernel.epilogue[line_number].dtype, "a store of the line's dtype", stored)
        check(stored.view.bounds is None, "a store without bounds", stored)
        check(stored.view.shape in (kernel.space, *kernel.core_shapes), f"a store of {kernel.space}", stored)
    for operand in (*kernel.inputs, *kernel.outputs):
        check(0 <= operand.buffer < kernel.buffers, "a buffer of the kernel", operand)
        view = operand.view
        ranks = {len(x) for x in (view.shape, view.strides, view.bounds, view.blocks) if x is not None}
        check(len(ranks) == 1, "as many strides, bounds and blocks as axes", operand)
        for axis, (size, _) in enumerate(view.blocks or ()):
            n = view.shape[axis]
            whole = size == 0 or (n > size and n % size == 0 and (view.bounds is None or view.bounds[axis] == (0, n)))
            check(whole, f"several whole blocks along axis {axis}, none of them out of bounds", operand)
