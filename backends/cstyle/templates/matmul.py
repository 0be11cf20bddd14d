"""Matrix products on CPUs: which way round, in which tiles, and what is copied or split before.

The tiles themselves are in `product`. Copies into another order, and the sum of the parts of a split one, are maps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from minigrad.backends.cstyle.body import Emitter
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import Rendered, Stage, block
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.elementwise import render_map
from minigrad.backends.cstyle.templates.matmul_tiles import (
    DOTS,
    OTHER,
    Sides,
    Tile,
    along_lanes,
    block_of,
    preferred,
    tiles,
    vector_width,
    wide,
)
from minigrad.backends.cstyle.templates.product import Extent, Product
from minigrad.kernel import MAP, Instr, Kernel, Operand
from minigrad.shapes import row_major
from minigrad.view import Order, View

__all__ = ["Tile", "preferred", "render_matmul", "tiles"]

PER_CORE = 8  # groups per core: some finish sooner than others
GROUP = 1 << 15  # products that are worth a group of their own
L2_BYTES = 1 << 18  # of the scalar operand that a group goes through again and again


def render_matmul(kernel: Kernel, target: Target, tile: Tile | None = None) -> Rendered:
    """A matrix product on a CPU, by ``tile`` or the one that should be best."""
    if 0 in kernel.space:
        return Rendered(())
    return _Stages(kernel, target).render(tile or tiles(kernel, target)[0])


class _Stages:
    """The launches of one product and the memory between them: buffers after those of the kernel."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel, self.target = kernel, target
        self.stages: list[Stage] = []
        self.scratch: list[int] = []
        self.library: dict[str, str] = {}

    def render(self, tile: Tile) -> Rendered:
        """Copies, the product, the sum of its parts."""
        kernel = self.kernel
        *batch, m, n = kernel.space
        along = along_lanes(kernel, tile.lanes)
        sides = dict(zip("mn", Sides.of(kernel)))
        depth = last = sides["m"].view.shape[-1]
        width = DOTS if tile.lanes == "k" else vector_width(self.target, wide(sides["m"].dtype))
        width = width if self.target.lanes > 1 else 1
        step = tile.vectors * width
        for (name, side), packed in zip(list(sides.items()), tile.packed):
            if packed:
                side = self._pack(side, 1 if tile.lanes == "k" else step if name == along else tile.rows)
            view = side.view.moved("expand", ((*batch, *side.view.shape[-2:]),))
            assert view is not None
            sides[name] = side._replace(view=view)
        unit = math.lcm(8, *(block_of(side.view, -1) or 1 for side in sides.values()))
        each = -(-depth // (tile.splits * unit)) * unit
        parts = -(-depth // each) if tile.splits > 1 else 1
        if parts > 1:
            depth, last = each, last - (parts - 1) * each
            sides = {name: side._replace(view=_split(side.view, parts, depth)) for name, side in sides.items()}
            kernel = self._partial(along, parts)
        functions = Functions(self.target.dialect)
        both = (sides["m"], sides["n"])
        emitter = Emitter(dataclasses.replace(kernel, inputs=(*kernel.inputs, *both)), self.target, functions)
        rank = len(kernel.space)
        axes = (rank - 1, rank - 2) if along == "n" else (rank - 2, rank - 1)
        vector, scalar = sides[along], sides[OTHER[along]]
        v, s, batches = self._groups(kernel, axes, step, tile.rows, depth, scalar)
        dots = vector_width(self.target, vector.dtype) if tile.lanes == "k" else 0
        product = Product(emitter, vector, scalar, axes, v, s, batches, width, depth, last, dots)
        lines, groups = product.render()
        text = block(self.target.dialect.kernel(emitter.parameters(), (1,)), lines)
        self._add(Rendered((Stage(text, groups, (1, 1, 1), emitter.buffers),), functions.used()))
        if parts > 1:
            self._finish(kernel.outputs[0])
        return Rendered(tuple(self.stages), tuple(self.library.items()), tuple(self.scratch))

    def _groups(
        self, kernel: Kernel, axes: tuple[int, int], step: int, rows: int, depth: int, scalar: Operand
    ) -> tuple[Extent, Extent, int]:
        """How the tiles are shared out: many groups, each with as much of the scalar operand as stays in cache."""
        total = math.prod(kernel.space) * max(depth, 1)
        wanted = max(1, min(PER_CORE * self.target.cores, total // GROUP))
        batches = min(math.prod(kernel.space[:-2]), wanted)
        wanted = -(-wanted // batches)
        length_v, length_s = (kernel.space[axis] for axis in axes)
        tiles_v, tiles_s = max(1, length_v // step), max(1, length_s // rows)
        large = -(-length_s * depth * scalar.dtype.itemsize // L2_BYTES)
        groups_v = min(tiles_v, wanted)
        groups_s = min(tiles_s, max(large if tiles_v > 1 else 1, -(-wanted // groups_v)))
        groups_v = min(groups_v, max(1, -(-wanted // groups_s)))
        return Extent.of(length_v, step, groups_v), Extent.of(length_s, rows, groups_s), batches

    def _add(self, rendered: Rendered) -> None:
        """Stages whose buffers beyond those of the kernel are scratch memory."""
        own = self.kernel.buffers
        for stage in rendered.stages:
            scratch = tuple(b - own for b in stage.buffers if b >= own)
            self.stages.append(stage._replace(buffers=tuple(b for b in stage.buffers if b < own), scratch=scratch))
        self.library |= dict(rendered.library)

    def _allocate(self, nbytes: int) -> int:
        """A new piece of scratch memory."""
        self.scratch.append(max(nbytes, 1))
        return self.kernel.buffers + len(self.scratch) - 1

    def _map(
        self,
        epilogue: Sequence[Instr],
        stores: tuple[tuple[int, int], ...],
        inputs: Sequence[Operand],
        outputs: Sequence[Operand],
    ) -> None:
        """A stage that computes element by element."""
        space, buffers = outputs[0].view.shape, self.kernel.buffers + len(self.scratch)
        body, ends = tuple(epilogue), (tuple(inputs), tuple(outputs))
        self._add(render_map(Kernel(MAP, None, (), (), (), (), space, body, stores, *ends, buffers), self.target))

    def _pack(self, side: Operand, step: int) -> Operand:
        """A copy in panels of ``step`` neighbours each: a panel lies contiguously, its neighbours too."""
        *batch, length, depth = side.view.shape
        dtype = wide(side.dtype)
        size = block_of(side.view, -2)
        if size and length % step and step % size:  # no view says what is left after the last whole panel
            step = length
        panels = -(-length // step)
        each = panels * step * depth
        buffer = self._allocate(math.prod(batch) * each * dtype.itemsize)
        strides = (*(each * n for n in row_major(tuple(batch))), 1 if step > 1 else depth, step)
        blocks = (*((0, 0) for _ in batch), (step, step * depth), (0, 0)) if step > 1 else None
        lines = [Instr("load", (), 0, side.dtype)]
        if dtype is not side.dtype:
            lines.append(Instr("cast", (0,), dtype, dtype))
        whole = length // step * step
        for first, count in ((0, whole), (whole, length - whole)):
            if count:
                shape = (*batch, count, depth)
                source = side.view.moved("slice", ((*(0 for _ in batch), first, 0), shape, (1,) * len(shape)))
                assert source is not None
                target = View(shape, strides, first * depth, blocks=blocks if count > step else None)
                self._map(lines, ((len(lines) - 1, 0),), [side._replace(view=source)], [Operand(buffer, dtype, target)])
        return Operand(buffer, dtype, View(side.view.shape, strides, blocks=blocks if panels > 1 else None))

    def _partial(self, along: str, parts: int) -> Kernel:
        """The product with its parts in scratch memory, along one more axis."""
        space = (parts, *self.kernel.space)
        rank, dtype = len(space), wide(self._core().dtype)
        order: Order = (*range(rank - 2), rank - 1, rank - 2) if along == "m" else ()
        stored = Operand(self._allocate(math.prod(space) * dtype.itemsize), dtype, View.of(space, order))
        body = (Instr("core", (), 0, dtype),)
        return dataclasses.replace(
            self.kernel, space=space, epilogue=body, stores=((0, 0),), inputs=(), outputs=(stored,)
        )

    def _core(self) -> Instr:
        return next(line for line in self.kernel.epilogue if line.op == "core")

    def _finish(self, stored: Operand) -> None:
        """The sum of the parts, and the epilogue."""
        kernel, view, core = self.kernel, stored.view, self._core()
        parts = view.shape[0]
        first = len(kernel.inputs)
        inputs = [
            stored._replace(view=View(view.shape[1:], view.strides[1:], view.strides[0] * part))
            for part in range(parts)
        ]
        lines = [Instr("load", (), first + part, stored.dtype) for part in range(parts)]
        for part in range(1, parts):
            lines.append(Instr("add", (0 if part == 1 else len(lines) - 1, part), None, stored.dtype))
        if core.dtype is not stored.dtype:
            lines.append(Instr("cast", (len(lines) - 1,), core.dtype, core.dtype))
        total, names = len(lines) - 1, []
        for line in kernel.epilogue:
            if line.op == "core":
                names.append(total)
                continue
            names.append(len(lines))
            lines.append(line._replace(args=tuple(names[a] for a in line.args)))
        stores = tuple((names[line], output) for line, output in kernel.stores)
        self._map(lines, stores, (*kernel.inputs, *inputs), kernel.outputs)


def _split(view: View, parts: int, depth: int) -> View:
    """The last axis as ``parts`` of ``depth`` elements, the parts first; there may be less in the last one."""
    size, outer = view.blocks[-1] if view.blocks is not None else (0, 0)
    step = depth // size * outer if size else depth * view.strides[-1]
    return View(
        (parts, *view.shape[:-1], depth),
        (step, *view.strides),
        view.offset,
        blocks=view.blocks and ((0, 0), *view.blocks),
    )
