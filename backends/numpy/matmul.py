"""Matrix multiplication on BLAS: operands go in as they are strided, output rows or columns are split over threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minigrad.backends.numpy.threads import blas_architectures, parallel, scratch, thread_count

Array = NDArray[Any]
Epilogue = Callable[[Array, tuple[slice, ...]], None] | None

SMALL = 1_000_000  # multiplications in a product that OpenBLAS does not pack, given one of these processors
SMALL_ON = {"skylakex", "cooperlake", "sapphirerapids"}
THIN = 64  # rows: with more, sums over long rows are as fast the usual way
BLOCK_BYTES = 1 << 19  # output that an epilogue still finds in the second-level cache
SERIAL_FLOPS = 1 << 23  # less work than this is done before another thread is awake


def compute_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype that sums of ``dtype`` accumulate in: float32 for 16-bit floats, else ``dtype`` itself."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind not in "iub" else dtype


def blas_ready(a: Array) -> bool:
    """Whether BLAS takes the matrices in the last two axes of ``a`` as they lie: an axis of unit stride, no overlap."""
    (rows, cols), (down, right), size = a.shape[-2:], a.strides[-2:], a.itemsize
    row_major: bool = (right == size or cols == 1) and (down >= cols * size or rows == 1)
    return row_major or ((down == size or rows == 1) and (right >= rows * size or cols == 1))


def gemm(a: Array, b: Array, out: Array) -> None:
    """``out[...] = a @ b`` on the calling thread, through scratch memory where dtype or strides do not suit BLAS."""
    dtype = compute_dtype(out.dtype)
    if a.shape[-1] == 1:  # an outer product, which np.matmul computes without BLAS
        np.multiply(a, b, out=out, dtype=dtype, casting="unsafe")
        return
    a, b = _operand(a, dtype, "gemm.a"), _operand(b, dtype, "gemm.b")
    if out.dtype == dtype and blas_ready(out):
        _product(a, b, out)
        return
    result = scratch("gemm.out", out.shape, dtype)
    _product(a, b, result)
    np.copyto(out, result, casting="unsafe")


@lru_cache(maxsize=1)
def _multiplies_small_in_place() -> bool:
    return bool(SMALL_ON & blas_architectures())


def _product(a: Array, b: Array, out: Array) -> None:
    """``np.matmul`` in pieces that OpenBLAS multiplies without packing them first, where the matrices are thin.

    Up to a million multiplications, its AVX-512 kernels read the operands in place, at nearly twice the rate that thin
    matrices get otherwise (110 against 60 to 80 GFLOP/s per core). One stacked call runs all the pieces.
    """
    rows, depth = a.shape[-2:]
    cols = b.shape[-1]
    if rows * depth * cols <= SMALL or out.dtype != np.float32 or not _multiplies_small_in_place():
        np.matmul(a, b, out=out)
        return
    if rows > cols:
        a, b, out = b.swapaxes(-1, -2), a.swapaxes(-1, -2), out.swapaxes(-1, -2)
        rows, cols = cols, rows
    dots = b.strides[-2] == b.itemsize != b.strides[-1] and a.strides[-1] == a.itemsize
    width = SMALL // (rows * depth) // 16 * 16
    if dots and rows <= THIN and depth >= 4 * THIN:
        _dot_product(a, b, out)
    elif dots or width < 64:
        np.matmul(a, b, out=out)
    else:
        width = -(-cols // -(-cols // width) // 16) * 16  # panels of about one size
        main = cols - cols % width
        np.matmul(a[..., None, :, :], _panels(b, main, width), out=_panels(out, main, width))
        if main < cols:
            np.matmul(a, b[..., main:], out=out[..., main:])


def _panels(a: Array, size: int, width: int) -> Array:
    """The first ``size`` columns of ``a`` (..., R, C) as a stack of matrices (..., size / width, R, width)."""
    return a[..., :size].reshape(*a.shape[:-1], size // width, width).swapaxes(-2, -3)


def _dot_product(a: Array, b: Array, out: Array) -> None:
    """Long contiguous rows of ``a`` times such columns of ``b``: its kernels give at most 1200 sums at a time."""
    rows, depth = a.shape[-2:]
    cols = b.shape[-1]
    high = _divisor(rows, 32)
    wide = _divisor(cols, 1200 // high)
    if high * wide < 120:
        np.matmul(a, b, out=out)
        return
    count = -(-depth // min(2048, SMALL // (high * wide)))
    length = depth // count
    main = length * count
    # (..., part of the depth, tile row, tile column, rows and columns of a tile)
    left = a[..., :main].reshape(*a.shape[:-2], rows // high, 1, high, count, length)
    right = b[..., :main, :].reshape(*b.shape[:-2], 1, count, length, cols // wide, wide)
    left, right = np.moveaxis(left, -2, -5), np.moveaxis(right, (-4, -2), (-5, -3))
    lead = out.shape[:-2]
    tiles = scratch("gemm.tiles", (*lead, count, rows // high, cols // wide, high, wide), out.dtype)
    np.matmul(left, right, out=tiles)
    target = out.reshape(*lead, rows // high, high, cols // wide, wide).swapaxes(-2, -3)
    np.add.reduce(tiles, axis=len(lead), out=target)
    if main < depth:
        out += a[..., main:] @ b[..., main:, :]


def _divisor(size: int, limit: int) -> int:
    """The largest divisor of ``size`` that is at most ``limit``."""
    return next(d for d in range(min(size, limit), 0, -1) if size % d == 0)


def _operand(a: Array, dtype: np.dtype[Any], name: str) -> Array:
    if a.dtype == dtype and blas_ready(a):
        return a
    copy = scratch(name, a.shape, dtype)
    np.copyto(copy, a)
    return copy


def matmul(a: Array, b: Array, out: Array, epilogue: Epilogue = None) -> None:
    """``out = a @ b`` over the last two axes; the leading axes broadcast.

    Args:
        a: (..., M, K), any strides.
        b: (..., K, N), any strides.
        out: (..., M, N), of the same dtype; 16-bit floats are multiplied and summed in float32 and rounded once.
        epilogue: called as ``epilogue(block, index)`` on each finished block of ``out``.
    """
    if out.size == 0:
        return
    dtype = compute_dtype(out.dtype)
    a, b = _operand(a, dtype, "matmul.a"), _operand(b, dtype, "matmul.b")
    if out.ndim > 2:
        a, b = (np.broadcast_to(x, out.shape[:-2] + x.shape[-2:]) for x in (a, b))
    blocks = _blocks(out.shape, a.shape[-1], out.itemsize, thread_count())

    def run(task: int) -> None:
        index = blocks[task]
        lead, rows, cols = index[:-2], index[-2], index[-1]
        block = out[index]
        gemm(a[(*lead, rows)], b[(*lead, slice(None), cols)], block)
        if epilogue is not None:
            epilogue(block, index)

    if len(blocks) == 1 or 2 * out.size * a.shape[-1] < SERIAL_FLOPS:
        for task in range(len(blocks)):
            run(task)
    else:
        parallel(len(blocks), run)


def ranges(size: int, parts: int) -> list[slice]:
    """``range(size)`` as at most ``parts`` contiguous slices of nearly equal length, none empty."""
    parts = max(1, min(parts, size))
    return [slice(size * p // parts, size * (p + 1) // parts) for p in range(parts)]


@lru_cache(maxsize=256)
def _blocks(shape: tuple[int, ...], inner: int, itemsize: int, threads: int) -> list[tuple[slice, ...]]:
    """Blocks of the output: whole matrices where there are enough of them, else rows or columns of each."""
    *batch, rows, cols = shape
    count = math.prod(batch)
    parts = 1 if count >= threads else -(-threads // count)
    if inner < 256:  # little work per element: the epilogue's pass over memory shows, so it should hit the cache
        parts = max(parts, rows * cols * itemsize // BLOCK_BYTES)
    row_parts, col_parts = (parts, 1) if rows >= cols or cols < 64 * parts else (1, parts)
    lead: list[tuple[slice, ...]] = [()]
    left = max(threads, rows and count * rows * cols * itemsize // BLOCK_BYTES)
    for size in batch:
        pieces = ranges(size, left)
        left = max(1, left // len(pieces))
        lead = [(*done, piece) for done in lead for piece in pieces]
    return [(*done, r, c) for done in lead for r in ranges(rows, row_parts) for c in ranges(cols, col_parts)]
