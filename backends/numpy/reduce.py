"""Reductions: the prologue runs block by block, and each block is reduced while it is in cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.body import BLOCK, PARALLEL, Arguments, BodyProgram, Index, blocks_of, task_register
from minigrad.backends.numpy.threads import parallel, thread_count
from minigrad.kernel import Kernel

Array = NDArray[Any]

LOAD_BLOCK = 1 << 17  # elements of a block that is only read: no other array has to stay in cache with it
UFUNCS: dict[str, np.ufunc] = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


class Reduction:
    """The core of a reduction kernel, with its prologue."""

    def __init__(self, kernel: Kernel) -> None:
        self.ufunc = UFUNCS[kernel.op]
        space = kernel.source_shapes[0]
        axes = kernel.attrs.axes
        self.body = BodyProgram(kernel.prologue, (), kernel, space, [a in axes for a in range(len(space))])
        self.line = kernel.sources[0]
        self.dtype = kernel.prologue[self.line].dtype
        # Sums of half types accumulate in float32.
        wide = np.float32 if self.dtype.is_half and kernel.op in ("sum", "prod") else self.dtype.numpy
        self.wide = np.dtype(wide)
        self.axes = tuple(n for n, group in enumerate(self.body.groups) if group[0] in axes)
        self.kept = tuple(1 if n in self.axes else size for n, size in enumerate(self.body.shape))
        self.out_shape = kernel.core_shapes[0]
        self.computes = any(step.register >= 0 for step in self.body.steps)
        self.identity = _identity(kernel.op, self.wide)

    def bind(self, memory: Sequence[Array]) -> tuple[Callable[[], None], Array]:
        """A function that reduces, and the array that it fills, in the shape of the core's output."""
        args = self.body.arguments(memory)
        blocks = blocks_of(self.body.shape, BLOCK if self.computes else LOAD_BLOCK)
        total = np.empty(self.kept, self.wide)
        narrow = total if self.dtype.numpy == self.wide else np.empty(self.kept, self.dtype.numpy)
        if len(blocks) == 1:
            reduce = self._single(args, blocks[0], total)
        else:
            reduce = partial(self._blocks, args, blocks, total)

        # From merged axes in the body's order to the output's axes, row-major: whoever binds views of it never copies.
        arranged = narrow.reshape([self.out_shape[a] for a in self.body.order]).transpose(np.argsort(self.body.order))
        result = arranged if arranged.flags.c_contiguous else np.empty(self.out_shape, self.dtype.numpy)

        def run() -> None:
            reduce()
            if narrow is not total:
                np.copyto(narrow, total, casting="unsafe")
            if result is not arranged:
                np.copyto(result, arranged)

        return run, result

    def _single(self, args: Arguments, index: Index, total: Array) -> Callable[[], None]:
        calls, values = self.body.calls(args, index, task_register)
        value = self._whole(values[self.line], index)

        def run() -> None:
            for call, sources, out in calls:
                call(*sources, out=out)
            self.ufunc.reduce(value, axis=self.axes, keepdims=True, dtype=self.wide, out=total)

        return run

    @staticmethod
    def _whole(value: Any, index: Index) -> Array:
        shape = tuple(s.stop - s.start for s in index)
        return value if np.shape(value) == shape else np.broadcast_to(value, shape)

    def _blocks(self, args: Arguments, blocks: list[Index], total: Array) -> None:
        # One accumulator per task and not per thread, combined in order: the sum does not depend on who ran what.
        tasks = thread_count() if math.prod(self.body.shape) >= PARALLEL else 1
        tasks = max(1, min(tasks, len(blocks)))
        partial_totals: list[Any] = [None] * tasks

        def run(task: int) -> None:
            mine = np.full(self.kept, self.identity, self.wide)
            for block in blocks[len(blocks) * task // tasks : len(blocks) * (task + 1) // tasks]:
                value = self._whole(self.body.run(args, block)[self.line], block)
                part = mine[tuple(slice(0, 1) if n in self.axes else s for n, s in enumerate(block))]
                reduced = self.ufunc.reduce(value, axis=self.axes, keepdims=True, dtype=self.wide)
                self.ufunc(part, reduced, out=part)
            partial_totals[task] = mine

        parallel(tasks, run)
        np.copyto(total, partial_totals[0])
        for other in partial_totals[1:]:
            self.ufunc(total, other, out=total)


def _identity(op: str, dtype: np.dtype[Any]) -> Any:
    if op in ("sum", "prod"):
        return dtype.type(op == "prod")
    if dtype.kind == "b":
        return op == "min"
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return info.min if op == "max" else info.max
    return dtype.type(-np.inf if op == "max" else np.inf)
