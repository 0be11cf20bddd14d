"""How a contraction is cut into tiles: which there are, and what each is expected to cost."""

from __future__ import annotations

import math
from typing import NamedTuple

from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.tiled_access import accumulator
from minigrad.backends.cstyle.templates.tiled_product import Array, Product, Variables, count, product_of, step
from minigrad.kernel import Kernel

ITEMS = 128  # work-items of a group where nothing is staged
PADDING = 4  # surplus elements of a row in local memory: items that write one column then meet different banks
PER_CORE = 4  # groups per core that are wanted, so that some compute while others wait for memory
SHARE = 256  # terms of a sum that are worth a group of their own
MOST_PARTS = 64  # shares of a sum: another kernel adds them
# In multiply-adds:
LOCAL_READ = 2  # a read from local memory
STAGED = 8  # a copy to local memory, address included
READ = 3  # a read from global memory where neighbouring items read neighbours
FAR_READ = 12  # where they do not
PARTIAL = 32  # a part of a sum that is written and read again


class Tile(NamedTuple):
    """How a group shares out its work; all sizes are powers of two.

    Attributes:
        rows: items along m.
        columns: items along n.
        height: elements of an item along m.
        width: elements of an item along n.
        depth: terms of the sums per round; 0 where nothing is staged and each item computes one sum on its own.
    """

    rows: int
    columns: int
    height: int
    width: int
    depth: int

    @property
    def items(self) -> int:
        """Work-items of a group."""
        return self.rows * self.columns

    @property
    def m(self) -> int:
        """Rows of the output."""
        return self.rows * self.height

    @property
    def n(self) -> int:
        """Columns of the output."""
        return self.columns * self.width

    def local_bytes(self, itemsize: int) -> int:
        """An upper bound of the local memory that is needed."""
        return 2 * self.depth * (self.m + self.n + 2 * PADDING) * itemsize


DIRECT = Tile(1, ITEMS, 1, 1, 0)
TILES = (
    Tile(16, 16, 8, 8, 8),
    Tile(8, 16, 8, 8, 8),
    Tile(8, 16, 8, 4, 16),
    Tile(16, 16, 4, 4, 16),
    Tile(8, 16, 4, 4, 16),
    Tile(8, 8, 4, 4, 16),
    Tile(4, 16, 4, 4, 16),
    Tile(8, 8, 2, 2, 16),
    Tile(4, 32, 2, 4, 16),
    Tile(2, 64, 2, 4, 8),
    Tile(1, 64, 1, 1, 8),
    Tile(32, 4, 4, 2, 16),
    Tile(64, 1, 4, 1, 8),
    Tile(64, 1, 1, 1, 16),
    DIRECT,
)


def tiles(kernel: Kernel, target: Target) -> list[Tile]:
    """Tiles that fit the device, by the time that they are expected to take; measuring may know better."""
    product = product_of(kernel)
    itemsize = accumulator(product.left.operand.dtype).itemsize
    fitting = [tile for tile in TILES if tile.local_bytes(itemsize) <= target.local_bytes]
    return sorted(fitting, key=lambda tile: _cost(product, tile, target.cores))


def runs_along_terms(array: Array, fixed: Variables, moving: Variables) -> bool:
    """Whether the next term of a sum lies closer in memory than the same term of the next row or column."""

    def nearest(variables: Variables) -> float:
        return abs(step(array.operand.view, array.places, variables[-1].name)) if variables else math.inf

    return nearest(moving) < nearest(fixed)


def _cost(product: Product, tile: Tile, cores: int) -> float:
    """Multiply-adds in the time that the busiest core takes, whose items work one after the other."""
    share, parts = shares(product, tile, cores)
    waves = -(-_groups(product, tile) * parts // cores)
    if not tile.depth:
        far = runs_along_terms(product.right, product.n, product.k)
        return waves * share * tile.items * (1 + READ + (FAR_READ if far else READ))
    reads = LOCAL_READ * (tile.height + tile.width)
    copies = STAGED * (tile.m + tile.n) / tile.items
    time = waves * share * tile.items * (tile.height * tile.width + reads + copies)
    outputs = count((*product.batch, *product.m, *product.n))
    return time + (PARTIAL * parts * outputs / cores if parts > 1 else 0)


def _groups(product: Product, tile: Tile) -> int:
    batches, rows, columns = map(count, (product.batch, product.m, product.n))
    if not tile.depth:
        return -(-batches * rows * columns // tile.items)
    return batches * -(-rows // tile.m) * -(-columns // tile.n)


def shares(product: Product, tile: Tile, cores: int) -> tuple[int, int]:
    """Terms of a sum that one group adds, whole rounds, and how many groups share a sum."""
    terms = count(product.k)
    if not tile.depth:
        return terms, 1
    rounds = max(1, -(-terms // tile.depth))
    wanted = PER_CORE * cores // _groups(product, tile)
    parts = min(wanted, rounds * tile.depth // SHARE, MOST_PARTS)
    each = -(-rounds // parts) if parts > 1 else rounds
    return each * tile.depth, -(-rounds // each)
