"""The loop nest of a core: all views of a kernel over one space, with as few axes as they allow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from minigrad import dtypes
from minigrad.backends.cstyle.body import INT_MAX, At, Emitter
from minigrad.backends.cstyle.collapse import merged, without_blocks
from minigrad.dtypes import DType
from minigrad.kernel import Instr, Kernel
from minigrad.shapes import Shape, row_major
from minigrad.view import View


def arranged(
    kernel: Kernel, shape: Shape, main: int, markers: Sequence[View] = (), first: View | None = None
) -> tuple[Kernel, list[View]]:
    """The kernel with all views over one space, in which axes that all views walk through alike are joined.

    Axes of ``shape`` that a view has with size 1 have stride 0 in it. The result's ``space`` is the new space.

    Args:
        kernel: without axes of size 0.
        shape: the space.
        main: the operand, counted through inputs and outputs, in whose memory order the axes come, outermost first.
        markers: further views over ``shape``, which come back over the new space; axes that differ in them stay apart.
        first: one more marker, whose axes come before all others, outermost first.
    """
    ahead = [] if first is None else [first]
    operands = [*kernel.inputs, *kernel.outputs]
    lines = [line for body in (kernel.prologue, kernel.epilogue) for line in body if isinstance(line.attr, View)]
    views = [
        over(view, shape) for view in [*(o.view for o in operands), *(line.attr for line in lines), *markers, *ahead]
    ]
    shape, views = without_blocks(shape, views) or (shape, views)
    # An axis of one element may carry bounds: that its only index is outside cannot be left out.
    if not any(view.bounds is not None and (0, 0) in view.bounds for view in views):
        strides, leading = views[main].strides, [0] * len(shape) if first is None else views[-1].strides
        # What an operand does not have comes outermost: each round then reads all of it in order.
        order = sorted(
            range(len(shape)), key=lambda axis: (-leading[axis], strides[axis] != 0, -abs(strides[axis]), axis)
        )
        shape, views = merged(shape, views, order)
    found = iter(views)
    moved = [operand._replace(view=next(found)) for operand in operands]

    def body(of: Sequence[Instr]) -> tuple[Instr, ...]:
        return tuple(line._replace(attr=next(found)) if isinstance(line.attr, View) else line for line in of)

    count = len(kernel.inputs)
    kernel = dataclasses.replace(
        kernel,
        prologue=body(kernel.prologue),
        epilogue=body(kernel.epilogue),
        inputs=tuple(moved[:count]),
        outputs=tuple(moved[count:]),
        space=shape,
    )
    return kernel, list(found)


class Rows(NamedTuple):
    """What a core does along one axis, row by row: the kernel over joined axes, and which of these make up a row.

    Attributes:
        kernel: over one space.
        along: axes of a row, outermost first.
        kept: all others; ``shape`` their sizes, ``rows`` how many there are.
        shape: as said.
        rows: as said.
    """

    kernel: Kernel
    along: list[int]
    kept: list[int]
    shape: Shape
    rows: int


def rows_of(kernel: Kernel) -> Rows:
    """The rows of a core whose one source is a line of the prologue, and whose attributes name an axis."""
    shape = kernel.source_shapes[0]
    kernel, (marked,) = arranged(
        kernel, shape, kernel.prologue[kernel.sources[0]].attr, [marker(shape, [kernel.attrs.axis])]
    )
    along = [a for a, stride in enumerate(marked.strides) if stride and kernel.space[a] > 1]
    kept = [a for a in range(len(kernel.space)) if a not in along]
    rows = tuple(kernel.space[a] for a in kept)
    return Rows(kernel, sorted(along, key=lambda a: -marked.strides[a]), kept, rows, math.prod(rows))


def over(view: View, shape: Shape) -> View:
    """A view over a larger space: stride 0 along axes that it has with size 1."""
    if view.shape == shape:
        return view
    grown = [have != want for have, want in zip(view.shape, shape)]
    strides = tuple(0 if g else s for g, s in zip(grown, view.strides))
    bounds = view.bounds and tuple(
        ((0, n) if high else (0, 0)) if g else (low, high) for g, n, (low, high) in zip(grown, shape, view.bounds)
    )
    return view._replace(shape=shape, strides=strides, bounds=bounds)


def marker(shape: Shape, axes: Sequence[int]) -> View:
    """The row-major position among ``axes``, whatever the index along others."""
    marked = iter(row_major(tuple(shape[axis] for axis in axes)))
    strides = [0] * len(shape)
    for axis in axes:
        strides[axis] = next(marked)
    return View(shape, tuple(strides))


def wide(dtype: DType) -> DType:
    """What elements of ``dtype`` are gathered in: half types in float32, bools as 0 and 1."""
    return dtypes.int32 if dtype is dtypes.bool_ else dtypes.float32 if dtype.is_half else dtype


def widened(emitter: Emitter, value: str, dtype: DType, width: int) -> str:
    """A computed value of ``dtype`` in :func:`wide`."""
    return emitter.cast(value, dtype, dtypes.int32, width) if dtype is dtypes.bool_ else value


def narrowed(emitter: Emitter, value: str, dtype: DType, width: int) -> str:
    """A value of :func:`wide` as a computed value of ``dtype``."""
    if dtype is dtypes.bool_:
        return emitter.cast(value, dtypes.int32, dtype, width)
    return emitter.rounded(value, dtype, width) if dtype.is_half else value


def index_type(emitter: Emitter, elements: int) -> str:
    """The type of loop variables that count up to ``elements``."""
    return "long" if elements > INT_MAX // 2 else emitter.index_type


def flat(at: Sequence[At], shape: Shape) -> str:
    """The row-major position of an index."""
    terms = [f"({a}) * {s}" if s != 1 else str(a) for a, s, n in zip(at, row_major(shape), shape) if n != 1]
    return " + ".join(terms) or "0"


def constant(index: str, name: str, value: str) -> str:
    """A statement: a variable of type ``index`` that does not change."""
    return f"const {index} {name} = {value};"


def bound(index: str, name: str, value: str, most: int | str) -> str:
    """A statement: a variable that is ``value``, but not more than ``most``."""
    return constant(index, name, f"{value} < {most} ? {value} : {most}")


def overlapping(index: str, at: list[At], place: int, length: int, step: int) -> list[str]:
    """Turn the number of a round at ``place`` into an index along an axis of ``length``.

    Rounds are ``step`` long; the last one reaches back into the one before rather than beyond the end.
    """
    number = at[place]
    if number.constant is None and length % step:
        at[place] = At("j")
        return [bound(index, "j", f"{number.expr} * {step}", length - step)]
    at[place] = number._replace(scale=step)
    return []
