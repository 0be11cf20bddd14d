"""Views and copies that turn convolutions into matrix products: canonical axes, padded slabs, and im2col.

Activations are viewed as ``(B, G, C, *S, I)``, G the groups. For row-major memory (N, C, *S) the samples are the outer
axis B and I is 1; for batch-last memory (C, *S, N) they are the inner axis I and B is 1. Either way the inner runs are
contiguous: rows of an image, or rows of N samples side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from minigrad.backends.numpy.matmul import blas_ready, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count
from minigrad.shapes import Window

Array = NDArray[Any]
DType = np.dtype[Any]
Index = tuple[slice, ...]

ALL = slice(None)
BLOCK_BYTES = 1 << 21  # columns gathered at a time: they stay in the caches, and Python's share is small
BLOCK_COLUMNS = 256  # fewer columns than this make slow matrix products


def is_batch_last(a: Array) -> bool:
    """Whether neighbouring samples of ``a`` (N, C, *S) are neighbours in memory."""
    others = [abs(stride) for stride, size in zip(a.strides[1:], a.shape[1:]) if size > 1]
    return a.shape[0] > 1 and abs(a.strides[0]) < min(others, default=0)


def canonical(a: Array, groups: int, batch_last: bool) -> Array:
    """(N, C, *S) as a view (B, G, C / G, *S, I)."""
    a = a.transpose(*range(1, a.ndim), 0)[None] if batch_last else a[..., None]
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, *a.shape[2:])


def part(samples: slice = ALL, channels: slice = ALL, spatial: Iterable[slice] = ()) -> Any:
    """The index of a part of canonical axes, with all groups; axes that are not named are whole."""
    return (samples, ALL, channels, *spatial)


def logical(
    shape: tuple[int, ...], batch_last: bool, outer: slice, channels: slice, spatial: Sequence[slice], inner: slice
) -> Iterator[Index]:
    """A block of canonical axes of ``shape``, whole in G and where S is not given, as blocks of (N, C, *S)."""
    batch = slice(*inner.indices(shape[-1])[:2]) if batch_last else outer
    rest = (slice(0, size) for size in shape[3 + len(spatial) : -1])
    places = (*spatial, *rest)
    groups, size = shape[1:3]
    if channels.stop - channels.start == size:
        yield (batch, slice(0, groups * size), *places)
    else:
        for group in range(groups):
            yield (batch, moved(channels, group * size), *places)


def moved(part: slice, by: int) -> slice:
    """``part`` shifted by ``by``."""
    return slice(part.start + by, part.stop + by)


def contiguous(a: Array, dtype: DType, name: str) -> Array:
    """``a`` as a row-major array of ``dtype``: itself, or a copy in scratch memory made by all threads."""
    if a.dtype == dtype and a.flags.c_contiguous:
        return a
    copy = scratch(name, a.shape, dtype)
    parts = ranges(len(a), min(thread_count(), 1 + a.nbytes // BLOCK_BYTES))
    parallel(len(parts), lambda p: np.copyto(copy[parts[p]], a[parts[p]]))
    return copy


def merged(a: Array, start: int, stop: int) -> Array | None:
    """A view of ``a`` with the axes from ``start`` to ``stop - 1`` as one; None where the strides do not allow it."""
    size = stride = 0
    for axis in range(stop - 1, start - 1, -1):
        if a.shape[axis] == 1:
            continue
        if size and a.strides[axis] != stride * size:
            return None
        stride = stride if size else a.strides[axis]
        size = a.shape[axis] * (size or 1)
    return a.reshape(*a.shape[:start], size or 1, *a.shape[stop:])


def blocks(sizes: tuple[int, ...], budget: int) -> Iterator[Index]:
    """``sizes`` cut into blocks of at most ``budget`` elements, whole along the inner axes first."""
    axes = []
    for size in reversed(sizes):
        count = -(-size // max(1, min(size, budget)))
        step = -(-size // max(1, count))  # blocks of about one size
        axes.append([slice(a, min(a + step, size)) for a in range(0, size, step or 1)])
        budget //= max(1, step)
    return product(*reversed(axes))


def columns_at_a_time(column_bytes: int) -> int:
    """How many columns of a matrix to gather before they are used."""
    return max(BLOCK_BYTES // max(1, column_bytes), BLOCK_COLUMNS)


def windows(x: Array, window: Window, row: int, sizes: tuple[int, ...], dtype: DType, wide: bool = False) -> Array:
    """What the taps read: a view (B, G, C, *kernel, *O, I) of ``x`` (B, G, C, *S, I) or of a padded copy.

    The outputs O are ``sizes``, beginning at ``row`` along the first spatial axis. With ``wide`` (stride 1, I = 1) the
    last of them is as long as a padded row of the input: all outputs of a tap are then one contiguous run, of which
    those beyond the size proper mean nothing.
    """
    begin = [-before for before, _ in window.padding]
    begin[0] += row * window.stride[0]
    end = [b + (o - 1) * s + window.extent(i) for i, (b, o, s) in enumerate(zip(begin, sizes, window.stride))]
    spatial = x.shape[3:-1]
    if not wide and x.dtype == dtype and all(b >= 0 and e <= size for b, e, size in zip(begin, end, spatial)):
        slab = x[part(spatial=map(slice, begin, end))]
    else:
        shape = (*x.shape[:3], *(e - b for b, e in zip(begin, end)), x.shape[-1])
        size = math.prod(shape)
        memory = scratch("conv.slab", (size + (window.extent(window.rank - 1) - 1) * wide,), dtype)
        memory[size:] = 0  # what is read beyond the last row
        slab = memory[:size].reshape(shape)
        source = [slice(max(b, 0), max(0, min(e, size))) for b, e, size in zip(begin, end, spatial)]
        place = [slice(s.start - b, max(s.stop, s.start) - b) for s, b in zip(source, begin)]
        for axis, inside in enumerate(place):
            slab[part(spatial=(*place[:axis], slice(0, inside.start)))] = 0
            slab[part(spatial=(*place[:axis], slice(inside.stop, None)))] = 0
        np.copyto(slab[part(spatial=place)], x[part(spatial=source)])
        if wide:
            sizes = (*sizes[:-1], shape[-2])
    steps = slab.strides[3:-1]
    taps = (step * dilation for step, dilation in zip(steps, window.dilation))
    moves = (step * stride for step, stride in zip(steps, window.stride))
    shape = (*slab.shape[:3], *window.kernel, *sizes, slab.shape[-1])
    return as_strided(slab, shape, (*slab.strides[:3], *taps, *moves, slab.strides[-1]))


def as_columns(seen: Array, rank: int) -> Array | None:
    """Windows (B, G, C, *kernel, *O, I) as matrices (B, G, C * taps, O * I) for BLAS; None if that takes a copy."""
    flat = merged(seen, 2, 3 + rank)
    flat = None if flat is None else merged(flat, 3, flat.ndim)
    return flat if flat is not None and blas_ready(flat) else None


def columns(seen: Array, rank: int, dtype: DType) -> Array:
    """`as_columns`, of a copy in scratch memory where need be: im2col."""
    flat = as_columns(seen, rank)
    if flat is not None:
        return flat
    copy = scratch("conv.columns", seen.shape, dtype)
    np.copyto(copy, seen)
    return copy.reshape(*seen.shape[:2], math.prod(seen.shape[2 : 3 + rank]), -1)


def sliding_columns(seen: Array, window: Window, dtype: DType) -> Array:
    """im2col that gathers each row of the input once for all the output rows that it belongs to.

    The columns of one row of outputs (the first spatial axis) are then consecutive rows of the gathered memory. So the
    result (B, G, O[0], kernel[0] * C * kernel[1:], O[1:] * I) is a view that repeats them; mind the order of the taps.
    """
    rank, (kernel, stride) = window.rank, (window.kernel[0], window.stride[0])
    count = seen.shape[3 + rank]
    shape, strides = list(seen.shape), list(seen.strides)
    del shape[3 + rank], strides[3 + rank]
    shape[2:4], strides[2:4] = [(count - 1) * stride + kernel, shape[2]], [strides[3], strides[2]]
    rows = scratch("conv.columns", tuple(shape), dtype)
    np.copyto(rows, as_strided(seen, shape, strides))
    run = math.prod(shape[3 + rank :])
    whole = (*shape[:2], count, kernel * math.prod(shape[3 : 3 + rank]), run)
    steps = (*rows.strides[:2], stride * rows.strides[2], run * dtype.itemsize, dtype.itemsize)
    return np.ndarray(whole, dtype, rows, 0, steps)


def sliding_rows(g: Array, window: Window, inputs: slice, dtype: DType) -> Array:
    """The gradients of all outputs that each row of ``inputs`` (the first spatial axis, stride 1) takes part in.

    The adjoint of `sliding_columns`: g (B, G, K, *O, I) as a view (B, G, kernel[0] * K, rows, *O[1:], I) of a copy, the
    last tap first, zero where there is no such output. What is left to do has a kernel of 1 on that axis.
    """
    reach = window.kernel[0] - 1
    first = inputs.start + window.padding[0][0] - reach  # output row
    count = inputs.stop - inputs.start
    memory = scratch("conv.slab", (*g.shape[:2], count + reach, g.shape[2], *g.shape[4:]), dtype)
    start = max(0, -first)
    stop = max(start, min(count + reach, g.shape[3] - first))
    memory[:, :, :start] = 0
    memory[:, :, stop:] = 0
    np.copyto(memory[:, :, start:stop], g[part(spatial=(slice(start + first, stop + first),))].swapaxes(2, 3))
    shape = (*g.shape[:2], window.kernel[0] * g.shape[2], count, *g.shape[4:])
    row, filters = memory.strides[2:4]
    return np.ndarray(shape, dtype, memory, 0, (*memory.strides[:2], filters, row, *memory.strides[4:]))


def stacked(a: Array, keep: int = 0) -> Array:
    """(B, G, C, *O, I) as matrices of C rows, one per position on the first ``keep`` axes of O: a view if it can be."""
    flat = a.reshape(*a.shape[: 3 + keep], -1)
    return flat.transpose(0, 1, *range(3, 3 + keep), 2, 3 + keep)


def as_rows(a: Array, dtype: DType, keep: int = 0, width: int = 0) -> Array:
    """`stacked`, of a copy in scratch memory where BLAS cannot read ``a``.

    With ``width`` each row of outputs is that long, with zeros behind the row proper.
    """
    if a.dtype == dtype and not width and merged(a, 3 + keep, a.ndim) is not None:
        flat = stacked(a, keep)
        if blas_ready(flat):
            return flat
    length = a.shape[-2]
    copy = scratch("conv.rows", (*a.shape[:-2], width or length, a.shape[-1]), dtype)
    copy[..., length:, :] = 0
    np.copyto(copy[..., :length, :], a)
    return stacked(copy, keep)


def reads(window: Window, axis: int, tap: int, size: int, outputs: slice) -> tuple[slice, slice]:
    """On one axis: which of ``outputs``, from their start, have this tap inside the input, and what it reads."""
    stride, offset = window.stride[axis], tap * window.dilation[axis] - window.padding[axis][0]
    first = max(outputs.start, -(offset // stride))  # least o with o * stride + offset >= 0
    last = min(outputs.stop, -((offset - size) // stride))  # least o with o * stride + offset >= size
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start, stop = first * stride + offset, (last - 1) * stride + offset + 1
    return slice(first - outputs.start, last - outputs.start), slice(start, stop, stride)
