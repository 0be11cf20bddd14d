"""Reductions: the prologue runs block by block, and each block is reduced while it is in cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.body import PARALLEL, Arguments, BodyProgram, Index, blocks_of
from minigrad.backends.numpy.threads import parallel, thread_count
from minigrad.kernel import Kernel

Array = NDArray[Any]

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
        self.identity = _identity(kernel.op, self.wide)

    def __call__(self, memory: Sequence[Array]) -> Array:
        """The reduced array, in the shape of the core's output."""
        args = self.body.arguments(memory)
        blocks = blocks_of(self.body.shape)
        if not blocks:
            total = np.full(self.kept, self.identity, self.wide)
        elif len(blocks) == 1:
            total = self._block(args, blocks[0])
        else:
            total = self._blocks(args, blocks)
        # Back from merged axes in body order to the output's axes.
        sizes = [self.out_shape[a] for a in self.body.order]
        inverse = np.argsort(self.body.order)
        return total.reshape(sizes).transpose(inverse).astype(self.dtype.numpy, copy=False)

    def _block(self, args: Arguments, index: Index) -> Array:
        value = self.body.run(args, index)[self.line]
        shape = tuple(s.stop - s.start for s in index)
        if np.shape(value) != shape:
            value = np.broadcast_to(value, shape)
        result: Array = self.ufunc.reduce(value, axis=self.axes, keepdims=True, dtype=self.wide)
        return result

    def _blocks(self, args: Arguments, blocks: list[Index]) -> Array:
        # One accumulator per task and not per thread, combined in order: the sum does not depend on who ran what.
        tasks = thread_count() if math.prod(self.body.shape) >= PARALLEL else 1
        tasks = min(tasks, len(blocks))
        partial: list[Any] = [None] * tasks

        def run(task: int) -> None:
            total = np.full(self.kept, self.identity, self.wide)
            for block in blocks[len(blocks) * task // tasks : len(blocks) * (task + 1) // tasks]:
                where = tuple(slice(0, 1) if n in self.axes else s for n, s in enumerate(block))
                part = total[where]
                self.ufunc(part, self._block(args, block), out=part)
            partial[task] = total

        parallel(tasks, run)
        total: Array = partial[0]
        for other in partial[1:]:
            self.ufunc(total, other, out=total)
        return total


def _identity(op: str, dtype: np.dtype[Any]) -> Any:
    if op in ("sum", "prod"):
        return dtype.type(op == "prod")
    if dtype.kind == "b":
        return op == "min"
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return info.min if op == "max" else info.max
    return dtype.type(-np.inf if op == "max" else np.inf)
