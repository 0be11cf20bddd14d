"""What reductions on CPUs and GPUs share: the nest of loops, its axes, and what becomes of results.

Reductions to few elements are split: groups leave partial results, which a second launch gathers in order, so that the
result does not depend on who was first.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from minigrad import dtypes
from minigrad.backends.cstyle.body import At, Emitter, Lanes
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.nest import arranged, constant, flat, index_type, marker
from minigrad.backends.cstyle.source import Rendered, Stage, block, loop
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.folds import Fold, IndexFold, position_dtype
from minigrad.dtypes import DType
from minigrad.kernel import Instr, Kernel

CHAIN = 16  # additions in a row that are always good enough
INDEX = ("argmax", "argmin")
RESIDENT = 512  # items on a core of a GPU at least; a compiler that is told nothing spills to have room for all it can


class Reduction:
    """One kernel on one device."""

    emitter: type[Emitter] = Emitter

    def __init__(self, kernel: Kernel, target: Target) -> None:
        shape, dtype, line = kernel.source_shapes[0], kernel.prologue[kernel.sources[0]].dtype, kernel.sources[0]
        axes = (kernel.attrs.axis,) if kernel.op in INDEX else kernel.attrs.axes
        self.sources: tuple[int, ...] = (line,)
        length = math.prod(shape[axis] for axis in axes)
        if kernel.op in INDEX:
            position = Instr("iota", (), marker(shape, axes), position_dtype(length))
            kernel = dataclasses.replace(kernel, prologue=(*kernel.prologue, position))
            self.sources = (line, len(kernel.prologue) - 1)
        main = _largest(kernel)
        kernel, _ = arranged(kernel, shape, main)
        self.main = (*kernel.inputs, *kernel.outputs)[main]
        self.kernel, self.target, self.shape = kernel, target, kernel.space
        self.functions = Functions(target.dialect)
        self.e = self.emitter(kernel, target, self.functions)
        self.fold: Fold = Fold(self.e, kernel.op, dtype)
        if kernel.op in INDEX:
            self.fold = IndexFold(self.e, kernel.op, dtype, length)
        strides = kernel.outputs[0].view.strides
        self.reduced = [axis for axis, n in enumerate(self.shape) if n > 1 and strides[axis] == 0]
        self.kept = [axis for axis in range(len(self.shape)) if axis not in self.reduced]
        self.kept_shape = tuple(self.shape[axis] for axis in self.kept)
        self.results, self.terms = math.prod(self.kept_shape), math.prod(self.shape[a] for a in self.reduced)
        self.index = index_type(self.e, self.results * self.terms)
        self.group = target.dialect.group_id(index=self.index)

    def at(self, axes: Sequence[int], places: Sequence[At]) -> list[At]:
        """An index that is 0 along all other axes."""
        full = [At()] * len(self.shape)
        for axis, place in zip(axes, places):
            full[axis] = place
        return full

    def fetch(self, name: str, at: Sequence[At], lanes: Lanes, tag: str = "v") -> list[str]:
        """Statements that declare ``name`` with the element at ``at`` (one per lane)."""
        lines, names = self.e.lines(self.kernel.prologue, at, lanes, tag=tag)
        values = self.fold.element([names[s] for s in self.sources], lanes.width)
        return [*lines, *self.fold.given(name, values, lanes.width)]

    def gather(self, name: str, at: Sequence[At], lanes: Lanes) -> str:
        """A block that gathers the element at ``at`` (one per lane) into ``name``."""
        return block("", [*self.fetch("x", at, lanes), *self.fold.merge(name, "x", lanes.width, later=True)])

    def loaded(self, name: str, where: str, width: int, memory: str = "s", space: str = "global") -> list[str]:
        """Statements that declare ``name`` with fields from memory."""
        dialect, fields = self.target.dialect, enumerate(self.fold.fields)
        values = [dialect.load(self.e.storage(d), width, f"{memory}{n} + {where}", space) for n, d in fields]
        return self.fold.given(name, values, width)

    def stored(self, name: str, where: str, width: int, memory: str = "s", space: str = "global") -> list[str]:
        """Statements that keep the fields of ``name`` in memory."""
        dialect, fields = self.target.dialect, zip(self.fold.names(name), self.fold.fields)
        return [
            dialect.store(self.e.storage(dtype), width, f"{memory}{n} + {where}", field, space)
            for n, (field, dtype) in enumerate(fields)
        ]

    def finish(self, name: str, at: Sequence[At], lanes: Lanes, part: str) -> list[str]:
        """What becomes of a result: the epilogue, or part ``part`` of the scratch memory."""
        if not part:
            width = lanes.width
            core = f"const {self.e.type(self.core_dtype, width)} core = {self.fold.result(name, width)[0]};"
            return [core, *self.e.finish(at, lanes, ("core",))]
        place = f"({part}) * {self.results} + {flat([at[axis] for axis in self.kept], self.kept_shape)}"
        return [block("", [constant(self.index, "place", place), *self.stored(name, "place", lanes.width)])]

    @property
    def core_dtype(self) -> DType:
        """The dtype of the core's output."""
        return dtypes.int64 if self.kernel.op in INDEX else self.fold.dtype

    def render(self, stages: Sequence[tuple[list[str], int, int]], parts: int) -> Rendered:
        """Stages of (lines, groups, items), with memory for ``parts`` partial results of each element."""
        fields = self.fold.fields if len(stages) > 1 else ()
        pieces = tuple(range(len(fields)))
        made = []
        for lines, groups, local in stages:
            head = self.target.dialect.kernel(self.e.parameters(fields), (local,), RESIDENT // local)
            made.append(Stage(block(head, lines), (groups,), (local,), self.e.buffers, pieces))
        scratch = tuple(parts * self.results * field.itemsize for field in fields)
        return Rendered(tuple(made), self.functions.used(), scratch)

    def combined(self, at: Sequence[At], lanes: Lanes, parts: int) -> list[str]:
        """Lines that gather the partial results of one element (or one per lane) in order, and finish."""
        width = lanes.width
        more = [*self.loaded("x", f"part * {self.results} + place", width), *self.fold.merge("t", "x", width)]
        return [
            constant(self.index, "place", flat([at[axis] for axis in self.kept], self.kept_shape)),
            *self.loaded("t", "place", width),
            loop("part", 1, parts, more, 1, self.index),
            *self.finish("t", at, lanes, ""),
        ]


def _largest(kernel: Kernel) -> int:
    """The operand that a reduction mostly reads: the one of most elements."""
    loads = [line.attr for line in kernel.prologue if line.op == "load"]

    def size(operand: int) -> int:
        view = kernel.inputs[operand].view
        return math.prod(n for n, s in zip(view.shape, view.strides) if s)

    return max(loads, key=size) if loads else len(kernel.inputs) + kernel.stores[0][1]
