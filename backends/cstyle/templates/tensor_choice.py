"""How a contraction is cut for tensor cores: which tiles there are, and what each is expected to cost."""

from __future__ import annotations

from typing import NamedTuple

from minigrad import dtypes
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.tiled_choice import MOST_PARTS, SHARE
from minigrad.backends.cstyle.templates.tiled_product import Product, count, product_of
from minigrad.kernel import Kernel

CHUNK = 16  # bytes that one copy moves
ROUND = 64  # bytes of each row or column that a round takes: 32 halves, 16 floats
STEP = 32  # bytes of each row or column that one instruction multiplies
LEAST = (16, 8, 16)  # rows, columns and terms from which on tensor cores are worth their tiles
MOST_SUMS = 128  # of a lane: half of its registers
BUSY = 2  # operands that an epilogue reads from which on it needs some of these: an update of weights, say
# In the time of one instruction on one of a core's four tensor units, 16 x 8 sums:
COPY = 0.5  # of a chunk to shared memory
START = 200  # of a group: the first copies, and what becomes of its sums
PARTIAL = 0.02  # a part of a sum that is written and read again


class TensorTile(NamedTuple):
    """How a group shares out its work; all sizes are powers of two.

    Attributes:
        down: warps along m.
        across: warps along n.
        height: sums of a warp along m, a multiple of 16.
        width: sums of a warp along n, a multiple of 16.
        stages: rounds whose pieces are in shared memory: one that is multiplied, the others on their way.
    """

    down: int
    across: int
    height: int
    width: int
    stages: int

    @property
    def items(self) -> int:
        """Work-items of a group."""
        return 32 * self.down * self.across

    @property
    def m(self) -> int:
        """Rows of the output."""
        return self.down * self.height

    @property
    def n(self) -> int:
        """Columns of the output."""
        return self.across * self.width

    @property
    def resident(self) -> int:
        """Groups that run on a core at the same time, as far as registers go.

        Besides the sums and the halves that are read for the next round there are addresses, of windows in particular,
        and what the epilogue reads: a hundred and more.
        """
        sums, halves = self.height * self.width // 32, (self.m + self.n) * ROUND // 2 // self.items
        groups = 2 if sums + halves > 64 else 3
        return max(1, groups * 128 // self.items)

    @property
    def local_bytes(self) -> int:
        """An upper bound of the shared memory that is needed."""
        pieces = (self.m + self.n) * (ROUND + CHUNK) + 64 * CHUNK
        return max(self.stages * pieces, self.down * self.across * 16 * (self.width + 8) * 4)


TILES = (
    TensorTile(2, 2, 64, 64, 4),
    TensorTile(4, 2, 64, 64, 3),
    TensorTile(2, 2, 64, 32, 4),
    TensorTile(2, 2, 32, 64, 4),
    TensorTile(4, 1, 64, 64, 3),
    TensorTile(2, 2, 32, 32, 4),
    TensorTile(4, 1, 32, 32, 4),
    TensorTile(4, 1, 16, 32, 4),
    TensorTile(1, 4, 32, 32, 4),
    TensorTile(4, 1, 32, 16, 4),
    TensorTile(1, 4, 16, 16, 4),
)


def suits(kernel: Kernel, target: Target) -> bool:
    """Whether tensor cores may and should compute a contraction."""
    product = product_of(kernel)
    dtype = product.left.operand.dtype
    if not target.tensor or not (dtype.is_half or (target.tf32 and dtype is dtypes.float32)):
        return False
    sizes = (count(product.m), count(product.n), count(product.k))
    return all(size >= least for size, least in zip(sizes, LEAST))


def tensor_tiles(kernel: Kernel, target: Target) -> list[TensorTile]:
    """Tiles that fit the device, by the time that they are expected to take; measuring may know better."""
    product = product_of(kernel)
    read = sum(line.op == "load" for line in kernel.epilogue)
    most = MOST_SUMS if read < BUSY else MOST_SUMS // 2
    fitting = [t for t in TILES if t.local_bytes <= target.local_bytes and t.height * t.width // 32 <= most]
    return sorted(fitting, key=lambda tile: _cost(product, tile, target.cores))


def depth(product: Product) -> int:
    """Terms of a round."""
    return ROUND // product.left.operand.dtype.itemsize


def _cost(product: Product, tile: TensorTile, cores: int) -> float:
    share, parts = tensor_shares(product, tile, cores)
    outputs = count((*product.batch, *product.m, *product.n))
    waves = -(-_groups(product, tile) * parts // (tile.resident * cores))
    steps = share // depth(product) * (ROUND // STEP)
    multiplications = steps * tile.m * tile.n / (16 * 8) / 4
    copies = share // depth(product) * (tile.m + tile.n) * (ROUND // CHUNK) / 32 * COPY
    partial = PARTIAL * parts * outputs / (32 * cores) if parts > 1 else 0
    busy = tile.resident * max(multiplications, copies) + min(multiplications, copies) + START
    return waves * busy + partial


def _groups(product: Product, tile: TensorTile) -> int:
    batches, rows, columns = map(count, (product.batch, product.m, product.n))
    return batches * -(-rows // tile.m) * -(-columns // tile.n)


def tensor_shares(product: Product, tile: TensorTile, cores: int) -> tuple[int, int]:
    """Terms of a sum that one group adds, whole rounds, and how many groups share a sum."""
    length = depth(product)
    rounds = -(-count(product.k) // length)
    parts = min(tile.resident * cores // _groups(product, tile), rounds * length // SHARE, MOST_PARTS)
    each = -(-rounds // parts) if parts > 1 else rounds
    return each * length, -(-rounds // each)
