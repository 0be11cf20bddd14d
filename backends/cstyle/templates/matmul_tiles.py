"""Which way round to compute a matrix product, and in which tiles: candidates and their estimated times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from minigrad import dtypes
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.product import fits
from minigrad.dtypes import DType
from minigrad.kernel import Kernel, Operand
from minigrad.shapes import Shape
from minigrad.view import Block, Order, View

DOTS = 4  # outputs that are stored as a vector where lanes lie along k
OTHER = {"m": "n", "n": "m"}
LAUNCH = 14000  # cycles of one more stage
L1, CACHE = 1 << 15, 1 << 20  # bytes of a core's caches
L2_RATE = 16  # bytes a cycle from the second cache
SHORTEST = 256  # terms that are worth a part of their own
WORK = 1 << 15  # products that are worth the work of another core
MOST_PARTS, MOST_OUTPUTS = 128, 1 << 22  # of split sums


class Tile(NamedTuple):
    """How a product is computed.

    Attributes:
        lanes: which axis lies in the lanes: "m" or "n" of the output, or "k": products are added up lane by lane.
        rows: outputs of a tile along the other axis of the output.
        vectors: vectors of a tile along the axis of the lanes; for "k" of :data:`DOTS` outputs.
        packed: whether a and b are copied first into the order in which they are read.
        splits: parts of k that are summed apart.
    """

    lanes: str
    rows: int
    vectors: int
    packed: tuple[bool, bool] = (False, False)
    splits: int = 1


def vector_width(target: Target, dtype: DType) -> int:
    """Lanes in which ``dtype`` is computed: types of 8 bytes fill a register with half as many."""
    return max(1, target.lanes * 4 // max(4, dtype.itemsize))


def wide(dtype: DType) -> DType:
    """The dtype of sums."""
    return dtypes.float32 if dtype.is_half else dtype


class Sides(NamedTuple):
    """A product seen from its output: the operands as (batch, M, K) and (batch, N, K), of any number of batch axes."""

    m: Operand
    n: Operand

    @classmethod
    def of(cls, kernel: Kernel) -> Sides:
        """The sides of a kernel, their batch axes as they are."""
        a, b = (kernel.inputs[kernel.prologue[source].attr] for source in kernel.sources)
        rank = len(b.view.shape)
        view = b.view.moved("permute", ((*range(rank - 2), rank - 1, rank - 2),))
        assert view is not None
        return cls(a, b._replace(view=view))


def along_lanes(kernel: Kernel, lanes: str) -> str:
    """Which axis of the output is computed in vectors."""
    if lanes != "k":
        return lanes
    strides = kernel.outputs[kernel.stores[0][1]].view.strides
    return "m" if strides[-1] != 1 and strides[-2] == 1 else "n"


def block_of(view: View, axis: int) -> int:
    """The size of an axis' blocks, 0 where it has none."""
    return view.blocks[axis][0] if view.blocks is not None else 0


def preferred(
    attrs: Any, shapes: Sequence[Shape], views: Sequence[View | None], target: Target
) -> list[Order | None] | None:
    """The orders of the output, a and b that suit a product best, for operands that would be read through ``views``.

    Operands are welcome as they are: both contiguous along k is nearly as fast as one of them along the lanes, and
    faster than copies. Where a lies in blocks of rows, as activations do, the output does too.
    """
    a, b = views
    if target.is_gpu or target.lanes == 1 or a is None:
        return None
    shape = shapes[0]
    axes, rank = tuple(range(len(shape))), len(shape)
    size = block_of(a, -2)
    if size % target.lanes == 0 and size:
        return [(*axes, Block(rank - 2, size)), None, None]
    rows = a.strides[-2] == 1 != a.strides[-1] and shape[-2] >= target.lanes and not size
    if rows and (b is None or b.strides[-1] != 1):
        return [(*axes[:-2], rank - 1, rank - 2), None, None]
    return None


def tiles(kernel: Kernel, target: Target) -> list[Tile]:
    """Ways to compute a product, that which should be fastest first."""
    chooser = _Chooser(kernel, target)
    return sorted(chooser.candidates(), key=lambda tile: (chooser.cycles(tile), tile))


class _Chooser:
    """Estimates the cycles of a product: those of all cores together until the end, where they are shared out."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel, self.target = kernel, target
        self.sides = dict(zip("mn", Sides.of(kernel)))
        self.out = kernel.outputs[kernel.stores[0][1]].view
        *batch, self.m, self.n = kernel.space
        self.batch, self.k = math.prod(batch), self.sides["m"].view.shape[-1]
        dtype = self.sides["m"].dtype
        self.half, self.bytes = dtype.is_half, wide(dtype).itemsize
        self.width = vector_width(target, wide(dtype))

    def candidates(self) -> Iterator[Tile]:
        """Tiles for which there is code."""
        for lanes in "mnk":
            for packed in self._packings(lanes):
                for rows, vectors in self._sizes(lanes, packed):
                    whole = Tile(lanes, rows, vectors, packed)
                    yield whole
                    yield from (whole._replace(splits=parts) for parts in self._splits(whole))

    def _splits(self, tile: Tile) -> set[int]:
        """Parts of k: for short ones that stay in cache, or for as many as there are cores."""
        if self.k < 2 * SHORTEST:
            return set()
        outputs, tasks = self.batch * self.m * self.n, self._tasks(tile)
        found = {-(-self.k // depth) for depth in (8 * SHORTEST, 4 * SHORTEST, 2 * SHORTEST)}
        if tasks < 2 * self.target.cores and outputs * self.k > 8 * WORK:
            found.add(min(4 * self.target.cores // tasks + 1, self.k // SHORTEST))
        return {parts for parts in found if 1 < parts <= MOST_PARTS and outputs * parts <= MOST_OUTPUTS}

    def _packings(self, lanes: str) -> Iterator[tuple[bool, bool]]:
        if self.half:
            yield (True, True)
            return
        views = [self.sides[name].view for name in "mn"]
        if lanes == "k":
            # Where k is not contiguous, a copy pays for vectors along another axis rather.
            if self.k > 1 and all(view.strides[-1] == 1 for view in views):
                blocks = {block_of(view, -1) for view in views}
                if len(blocks - {0}) < 2 and all(size % self.width == 0 for size in blocks):
                    yield (False, False)
            return
        for packed in ((False, False), (True, False), (False, True), (True, True)):
            blocks = {block_of(view, -1) for view, copied in zip(views, packed) if not copied} - {0}
            if len(blocks) < 2 and (self.k > 0 or packed == (False, False)):
                yield packed

    def _sizes(self, lanes: str, packed: tuple[bool, bool]) -> Iterator[tuple[int, int]]:
        """Rows and vectors of tiles that registers hold, and that lie alike wherever they start."""
        along = along_lanes(self.kernel, lanes)
        width = self._outputs(lanes)
        length_v, length_s = self._lengths(along)
        registers = self.target.registers
        views = {name: self.sides[name].view for name, copied in zip("mn", packed) if not copied and self.k}
        if lanes != "k" and along in views and block_of(views[along], -2) % width:
            return
        for vectors in range(1, registers - 3):
            columns = vectors * width
            if columns >= length_v + width:
                return
            for rows in range(1, min(registers, length_s) + 1):
                # The vectors of one row need no registers of their own.
                used = rows * columns + rows if lanes == "k" else rows * vectors + (vectors if rows > 1 else 0)
                if used >= registers:
                    break
                sizes = {along: columns, OTHER[along]: rows}
                if all(fits(view, -2, sizes[name]) for name, view in views.items()):
                    yield rows, vectors

    def _outputs(self, lanes: str) -> int:
        """Outputs along the axis of the lanes that are computed or stored as a vector."""
        return 1 if self.target.lanes == 1 else DOTS if lanes == "k" else self.width

    def _lengths(self, along: str) -> tuple[int, int]:
        return (self.n, self.m) if along == "n" else (self.m, self.n)

    def _tasks(self, tile: Tile) -> int:
        length_v, length_s = self._lengths(along_lanes(self.kernel, tile.lanes))
        columns = -(-length_v // (tile.vectors * self._outputs(tile.lanes)))
        return self.batch * columns * -(-length_s // tile.rows) * tile.splits

    # How long it takes.

    def cycles(self, tile: Tile) -> float:
        """An estimate of the time of a product."""
        along = along_lanes(self.kernel, tile.lanes)
        length_v, length_s = self._lengths(along)
        packed = dict(zip("mn", tile.packed))
        dots, depth = tile.lanes == "k", self.k / tile.splits
        width, unit = self._outputs(tile.lanes), self.width if dots else 1
        view = self.sides[along].view
        load = 1.0 if packed[along] or dots or view.strides[-2] == 1 else 1.2 * width
        store = 1.0 if self.out.strides[-1 if along == "n" else -2] == 1 else 2.0 * width
        again = length_v > tile.vectors * width, length_s > tile.rows  # what is read more than once
        slow = 1.0 + 0.1 * min(1.0, depth * length_s * self.bytes / CACHE) * again[0]
        for name, often, lines in ((along, again[1], 1), (OTHER[along], again[0], tile.rows)):
            if often and not packed[name]:
                slow += self._misses(self.sides[name].view, depth, lines, dots)
        panel = depth * tile.vectors * width * self.bytes
        slow += 0.5 * min(2.0, panel / CACHE) * again[1]
        streamed = again[1] and panel > L1 / 2 and not dots  # vectors come from the second cache
        total = 0.0
        for rows, many in ((tile.rows, length_s // tile.rows), (length_s % tile.rows, 1)):
            whole = tile.vectors * width
            rest = length_v % whole
            for columns, times in ((whole, length_v // whole), (rest, 1)):
                if not rows * columns:
                    continue
                vectors = -(-columns // width)
                products, loads = (columns, columns) if dots else (vectors, vectors * load)
                # Two products and two loads a cycle, which get in each other's way; sums wait for four cycles.
                step = max(rows * products, rows + loads, 8) / 2 + 0.15 * (rows + loads)
                if streamed:
                    step = max(step, columns * self.bytes / L2_RATE)
                end = rows * columns if dots else 0
                stores = rows * (vectors * store + 4)
                total += many * times * (step * slow * self.k / unit + (end + stores + 10) * tile.splits)
        total *= self.batch
        tasks, cores = self._tasks(tile), self.target.cores
        total *= -(-tasks // cores) / tasks
        for name in "mn":
            if packed[name]:
                view = self.sides[name].view
                gathered = view.strides[-2 if name == along else -1] != 1
                total += math.prod(view.shape) * (3 if gathered else 2) / cores + LAUNCH
        if tile.splits > 1:
            total += self.batch * self.m * self.n * (tile.splits + 1) / cores + LAUNCH
        return total

    def _misses(self, view: View, depth: float, lines: int, dots: bool) -> float:
        """How much longer each step takes because of how an operand lies that is read again and again."""
        if dots:  # from several rows at once, far apart
            return min(0.35, self.k / 8192)
        if abs(view.strides[-1]) == 1:
            return min(0.3, (lines - 1) * depth * self.bytes / L1 * 0.1)
        apart = abs(view.strides[-1]) * self.bytes / 4096
        return 0.0 if depth < 128 else min(2.0, apart * apart * 0.6)
