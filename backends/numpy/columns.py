"""Views and copies that turn convolutions into matrix products: canonical axes, padded slabs, gathered columns.

Arrays of a convolution are viewed as ``(B, G, C, *S, I)``, G the groups. For row-major memory (N, C, *S) the samples are
the outer axis B and I is 1; for batch-last memory (C, *S, N) they are the inner axis I and B is 1. Either way the inner
runs are contiguous: rows of an image, or rows of N samples side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from minigrad.backends.numpy.matmul import blas_ready
from minigrad.backends.numpy.threads import scratch
from minigrad.shapes import Window, row_major

Array = NDArray[Any]
Index = tuple[slice, ...]

ALL = slice(None)
BLOCK_BYTES = 1 << 21  # columns gathered at a time: they stay in the caches, and Python's share of the time is small
BLOCK_COLUMNS = 256  # fewer columns than this make slow matrix products


def is_batch_last(a: Array) -> bool:
    """Whether neighbouring samples of ``a`` (N, C, *S) are neighbours in memory."""
    others = [abs(stride) for stride, size in zip(a.strides[1:], a.shape[1:]) if size > 1]
    return a.shape[0] > 1 and abs(a.strides[0]) < min(others, default=0)


def canonical(a: Array, groups: int, batch_last: bool) -> Array:
    """(N, C, *S) as a view (B, G, C / G, *S, I)."""
    a = np.moveaxis(a, 0, -1)[None] if batch_last else a[..., None]
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, *a.shape[2:])


def contiguous(a: Array, dtype: np.dtype[Any], name: str) -> Array:
    """``a`` as a row-major array of ``dtype``: itself, or a copy in scratch memory."""
    if a.dtype == dtype and a.flags.c_contiguous:
        return a
    copy = scratch(name, a.shape, dtype)
    np.copyto(copy, a)
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


def blocks(sizes: tuple[int, ...], column_bytes: int, each: int) -> Iterator[Index]:
    """``sizes`` cut into blocks of about BLOCK_BYTES, whole along the inner axes first.

    One element of ``sizes`` stands for ``each`` columns of ``column_bytes``.
    """
    budget = max(BLOCK_BYTES // max(1, column_bytes), BLOCK_COLUMNS) // max(1, each)
    steps = []
    for size in reversed(sizes):
        count = -(-size // max(1, min(size, budget)))
        steps.append(-(-size // max(1, count)))  # blocks of about one size
        budget //= steps[-1]
    axes = [[slice(a, min(a + step, size)) for a in range(0, size, step)] for size, step in zip(sizes, reversed(steps))]
    return product(*axes)


def windows(x: Array, window: Window, row: int, sizes: tuple[int, ...], dtype: np.dtype[Any], wide: bool) -> Array:
    """What the taps read: a view (B, G, C, *kernel, *O, I) of ``x`` (B, G, C, *S, I), or of a padded copy of it.

    The outputs O are ``sizes``, beginning at ``row`` along the first spatial axis. With ``wide`` (stride 1, I = 1) the
    last of them is as long as a padded row of the input: all outputs of a tap are then one contiguous run, of which
    those beyond the size proper mean nothing.
    """
    rank = window.rank
    begin = [-before for before, _ in window.padding]
    begin[0] += row * window.stride[0]
    end = [b + (o - 1) * s + window.extent(i) for i, (b, o, s) in enumerate(zip(begin, sizes, window.stride))]
    spatial = x.shape[3:-1]
    if not wide and x.dtype == dtype and all(b >= 0 and e <= size for b, e, size in zip(begin, end, spatial)):
        slab = x[(..., *map(slice, begin, end), ALL)]
    else:
        shape = (*x.shape[:3], *(e - b for b, e in zip(begin, end)), x.shape[-1])
        slack = window.extent(rank - 1) - 1 if wide else 0  # read beyond the last row
        memory = scratch("conv.slab", (math.prod(shape) + slack,), dtype)
        memory[math.prod(shape) :] = 0
        slab = memory[: math.prod(shape)].reshape(shape)
        source = [slice(max(b, 0), max(0, min(e, size))) for b, e, size in zip(begin, end, spatial)]
        place = [slice(s.start - b, max(s.stop, s.start) - b) for s, b in zip(source, begin)]
        for axis, inside in enumerate(place):
            before = (ALL,) * 3 + tuple(place[:axis])
            slab[(*before, slice(0, inside.start))] = 0
            slab[(*before, slice(inside.stop, None))] = 0
        np.copyto(slab[(..., *place, ALL)], x[(..., *source, ALL)])
        if wide:
            sizes = (*sizes[:-1], shape[-2])
    steps = slab.strides[3:-1]
    taps = (step * dilation for step, dilation in zip(steps, window.dilation))
    moves = (step * stride for step, stride in zip(steps, window.stride))
    shape = (*slab.shape[:3], *window.kernel, *sizes, slab.shape[-1])
    return as_strided(slab, shape, (*slab.strides[:3], *taps, *moves, slab.strides[-1]))


def columns(seen: Array, rank: int, dtype: np.dtype[Any]) -> Array:
    """Windows (B, G, C, *kernel, *O, I) as matrices (B, G, C * taps, O * I): the view itself if BLAS can read it."""
    flat = merged(seen, 3 + rank, seen.ndim)
    flat = None if flat is None else merged(flat, 2, 3 + rank)
    if flat is not None and blas_ready(flat):
        return flat
    copy = scratch("conv.columns", seen.shape, dtype)
    np.copyto(copy, seen)
    return copy.reshape(*seen.shape[:2], math.prod(seen.shape[2 : 3 + rank]), -1)


def rows_of_positions(a: Array, dtype: np.dtype[Any], name: str) -> Array:
    """``a`` (B, G, C, *O, I) as matrices (B, G, C, O * I) of ``dtype``: a view, or a copy in scratch memory."""
    flat = merged(a, 3, a.ndim) if a.dtype == dtype else None
    if flat is not None and blas_ready(flat):
        return flat
    copy = scratch(name, a.shape, dtype)
    np.copyto(copy, a)
    return copy.reshape(*a.shape[:3], -1)


class Fold(NamedTuple):
    """Where the terms of an input gradient go before they are summed, for windows of stride 1.

    Tap t of output o belongs to input ``o + t * dilation - padding``. The terms (B, G, C, *kernel, *rows, I) are kept
    with margins of zeros between the rows, so wide that for each input position the term of every tap is found at a
    fixed distance, a zero where there is none: the sum over the taps is one reduction of a strided view.
    """

    terms: Array  # (B, G, C, *kernel, *O, I), to be written
    shifted: Array  # (B, G, C, *kernel, *rows, I): the same memory, by input position
    place: Index  # the input positions, one slice per spatial axis


def fold(
    lead: tuple[int, ...], window: Window, outputs: Index, sizes: tuple[int, ...], inner: int, dtype: np.dtype[Any]
) -> Fold:
    """Memory for the terms of ``outputs`` (a slice per axis); ``lead`` is (B, G, C), ``sizes`` are those of the input."""
    place, pitches, offsets = [], [], []
    for axis, (part, size) in enumerate(zip(outputs, sizes)):
        before, reach, count = window.padding[axis][0], window.extent(axis) - 1, part.stop - part.start
        start = max(0, part.start - before)
        stop = max(start, min(size, part.stop + reach - before))
        place.append(slice(start, stop))
        offsets.append(start + before - part.start)  # of the first tap's term for the first input position
        pitches.append(max(stop + before - part.start, count + max(0, reach - offsets[-1])))
    shape = (*lead, *window.kernel, *pitches, inner)
    steps = row_major(shape)
    moves = steps[3 + window.rank : -1]
    slack = sum((window.extent(axis) - 1) * move for axis, move in enumerate(moves))
    memory = scratch("conv.columns", (slack + math.prod(shape),), dtype)
    memory[:slack] = 0
    whole = memory[slack:].reshape(shape)
    counts = [part.stop - part.start for part in outputs]
    for axis, count in enumerate(counts):
        before_axis = (*(ALL,) * (3 + window.rank), *(slice(0, c) for c in counts[:axis]))
        whole[(*before_axis, slice(count, None))] = 0
    origin = slack + sum(offset * move for offset, move in zip(offsets, moves))
    strides = (
        *steps[:3],
        *(step - d * move for step, d, move in zip(steps[3:], window.dilation, moves)),
        *moves,
        steps[-1],
    )
    by_input = np.ndarray(
        (*lead, *window.kernel, *(p.stop - p.start for p in place), inner),
        dtype,
        memory,
        origin * dtype.itemsize,
        [stride * dtype.itemsize for stride in strides],
    )
    return Fold(whole[(..., *(slice(0, c) for c in counts), ALL)], by_input, tuple(place))


def reads(window: Window, axis: int, tap: int, size: int, outputs: slice) -> tuple[slice, slice]:
    """Along one axis: which of ``outputs`` (counted from their start) have this tap inside the input, and what it reads."""
    stride, offset = window.stride[axis], tap * window.dilation[axis] - window.padding[axis][0]
    first = max(outputs.start, -(offset // stride))  # least o with o * stride + offset >= 0
    last = min(outputs.stop, -((offset - size) // stride))  # least o with o * stride + offset >= size
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first - outputs.start, last - outputs.start), slice(start, start + (last - first - 1) * stride + 1, stride)


def shifted(part: slice, by: int) -> slice:
    """``part`` moved by ``by``."""
    return slice(part.start + by, part.stop + by)


def logical(
    shape: tuple[int, ...], batch_last: bool, outer: slice, channels: slice, spatial: tuple[slice, ...], inner: slice
) -> Iterator[Index]:
    """A block of canonical axes (B, G, C, *S, I), whole in G and where S is not given, as blocks of (N, C, *S)."""
    batch = slice(*inner.indices(shape[-1])[:2]) if batch_last else outer
    rest = tuple(slice(0, size) for size in shape[3 + len(spatial) : -1])
    groups, size = shape[1:3]
    if channels.stop - channels.start == size:
        yield (batch, slice(0, groups * size), *spatial, *rest)
    else:
        for group in range(groups):
            yield (batch, shifted(channels, group * size), *spatial, *rest)
