"""Max and average pooling, their adjoints and the window gather: one pass per tap over strided views of the input.

A tap's view of the input has the shape of the output, so every step is a NumPy call over whole blocks, written into the
output or into scratch memory. Arrays are viewed as (B, 1, C, *S, I), see `columns`, so that scratch has their layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.columns import ALL, canonical, is_batch_last, logical, reads
from minigrad.backends.numpy.indexing import least
from minigrad.backends.numpy.matmul import Epilogue, compute_dtype, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count
from minigrad.shapes import Window

Array = NDArray[Any]

BLOCK_BYTES = 1 << 21  # of the array with the input's size that a thread works on at a time
SERIAL_BYTES = 1 << 18  # less than this is done before another thread is awake


class _Block(NamedTuple):
    """What one task works on, in canonical axes."""

    samples: slice
    channels: slice
    inner: slice

    def of(self, a: Array) -> Array:
        """The part of ``a`` (B, 1, C, *S, I)."""
        return a[(self.samples, ALL, self.channels, ..., self.inner)]


class _Tap(NamedTuple):
    """One tap of a window: its number, the outputs whose window has it inside the input, and the positions it reads."""

    number: int
    outputs: Any
    inputs: Any


def max_pool(x: Array, values: Array, indices: Array | None, window: Window, epilogue: Epilogue = None) -> None:
    """The largest element of each window, and which tap it came from.

    Args:
        x: (N, C, *S), any strides.
        values: (N, C, *O) of x's dtype, written; its strides choose the layout the work is done in.
        indices: (N, C, *O) uint8 or int32, written: the flat number of the tap in the window. The first of equal
            elements wins, a NaN wins over all (the first NaN over the others), padding never does. None: not wanted.
        window: the window; output sizes are those of ``values``.
        epilogue: called as ``epilogue(block, index)`` on each finished block of ``values``.
    """
    dtype, batch_last = compute_dtype(x.dtype), is_batch_last(values)
    xs, tops = canonical(x, 1, batch_last), canonical(values, 1, batch_last)
    numbers = None if indices is None else canonical(indices, 1, batch_last)
    taps = _taps(window, x.shape[2:], values.shape[2:])
    first = _first_taps(window, x.shape[2:], values.shape[2:]) if _has_padding(taps, values.shape[2:]) else None

    def run(block: _Block) -> None:
        source, top = _as(block.of(xs), dtype, "pool.x"), block.of(tops)
        best = top if top.dtype == dtype else scratch("pool.best", top.shape, dtype)
        which = None if numbers is None else block.of(numbers)
        _max(source, best, which, taps, first, False)
        if which is not None and dtype.kind == "f" and np.isnan(np.max(best)):
            _max(source, best, which, taps, first, True)
        if best is not top:
            np.copyto(top, best, casting="unsafe")
        _finish(values, tops, batch_last, block, epilogue)

    _for_blocks(tops, x.nbytes, run)


def _max(x: Array, best: Array, which: Array | None, taps: list[_Tap], first: Array | None, nans: bool) -> None:
    """One block of `max_pool`. Comparisons ignore NaN, so a block that has one needs a pass with ``nans``."""
    if first is None:
        np.copyto(best, x[taps[0].inputs])
        if which is not None:
            which.fill(0)
        taps = taps[1:]
    else:
        best.fill(least(best.dtype))
        if which is not None:
            np.copyto(which, first, casting="unsafe")
    if which is None:
        for tap in taps:
            now = best[tap.outputs]
            np.maximum(now, x[tap.inputs], out=now)
        return
    better = scratch("pool.better", best.shape, bool)
    number = scratch("pool.number", best.shape, which.dtype)
    for tap in taps:
        here, now, won, winner = x[tap.inputs], best[tap.outputs], better[tap.outputs], which[tap.outputs]
        if nans:  # here wins if it is greater, or NaN where there was none: not (here <= now or now is NaN)
            np.less_equal(here, now, out=won)
            np.logical_or(won, np.isnan(now), out=won)
            np.logical_not(won, out=won)
        else:
            np.greater(here, now, out=won)
        # Taps come in ascending order, so the last that was strictly better has the largest number.
        code = number[tap.outputs]
        np.multiply(won.view(np.uint8), which.dtype.type(tap.number), out=code)
        np.maximum(winner, code, out=winner)
        np.maximum(now, here, out=now)


def window_gather(x: Array, indices: Array, out: Array, window: Window) -> None:
    """``out[n, c, o]`` = the element of ``x`` at tap ``indices[n, c, o]`` of window o.

    Args:
        x: (N, C, *S), any strides.
        indices: (N, C, *O) integers, taps that lie inside the input.
        out: (N, C, *O) of x's dtype, written.
        window: the window.
    """
    batch_last = is_batch_last(out)
    xs, outs, numbers = (canonical(a, 1, batch_last) for a in (x, out, indices))
    taps = _taps(window, x.shape[2:], out.shape[2:])

    def run(block: _Block) -> None:
        source, target, which = block.of(xs), block.of(outs), block.of(numbers)
        chosen = scratch("pool.better", which.shape, bool)
        target.fill(0)
        for tap in taps:
            here = chosen[tap.outputs]
            np.equal(which[tap.outputs], which.dtype.type(tap.number), out=here)
            np.copyto(target[tap.outputs], source[tap.inputs], where=here)

    _for_blocks(outs, x.nbytes, run)


def window_scatter(g: Array, indices: Array, out: Array, window: Window) -> None:
    """The adjoint of `window_gather`: each ``g[n, c, o]`` is added where tap ``indices[n, c, o]`` of window o reads.

    Args:
        g: (N, C, *O), any strides.
        indices: (N, C, *O) integers.
        out: (N, C, *S) of g's dtype, written: zero where no window put anything.
        window: the window.
    """
    dtype, batch_last = compute_dtype(out.dtype), is_batch_last(out)
    bits = np.dtype(f"u{dtype.itemsize}")
    gs, outs, numbers = (canonical(a, 1, batch_last) for a in (g, out, indices))
    taps = _taps(window, out.shape[2:], g.shape[2:])
    disjoint = all(s >= window.extent(axis) for axis, s in enumerate(window.stride))
    covered = disjoint and _covers(taps, out.shape[2:], g.shape[2:])

    def run(block: _Block) -> None:
        source, target, which = _as(block.of(gs), dtype, "pool.g"), block.of(outs), block.of(numbers)
        total = target if target.dtype == dtype else scratch("pool.total", target.shape, dtype)
        if not covered:
            total.fill(0)
        chosen = scratch("pool.better", which.shape, bool)
        factor = scratch("pool.number", which.shape, bits)
        term = scratch("pool.term", which.shape, dtype)
        for tap in taps:
            here, one = chosen[tap.outputs], factor[tap.outputs]
            np.equal(which[tap.outputs], which.dtype.type(tap.number), out=here)
            np.copyto(one, here)
            place, given = total[tap.inputs], source[tap.outputs]
            # The bit pattern times 0 or 1: unlike a product of floats, it also turns infinities and NaN into 0.
            if disjoint:
                np.multiply(given.view(bits), one, out=place.view(bits))
            else:
                added = term[tap.outputs]
                np.multiply(given.view(bits), one, out=added.view(bits))
                np.add(place, added, out=place)
        if total is not target:
            np.copyto(target, total, casting="unsafe")

    _for_blocks(outs, out.nbytes, run)


def avg_pool(x: Array, out: Array, window: Window, count_include_pad: bool, epilogue: Epilogue = None) -> None:
    """The mean of each window.

    Args:
        x: (N, C, *S), any strides.
        out: (N, C, *O) of x's dtype, written.
        window: the window; with ``ceil_mode`` windows are cut off at the padded input.
        count_include_pad: whether padding counts in the divisor.
        epilogue: called as ``epilogue(block, index)`` on each finished block of ``out``.
    """
    dtype, batch_last = compute_dtype(out.dtype), is_batch_last(out)
    xs, outs = canonical(x, 1, batch_last), canonical(out, 1, batch_last)
    weight = _weights(window, x.shape[2:], out.shape[2:], count_include_pad, dtype)
    taps = _taps(window, x.shape[2:], out.shape[2:])
    whole = math.prod(out.shape[2:]) == 1 and _covers(taps, x.shape[2:], out.shape[2:])  # global average pooling

    def run(block: _Block) -> None:
        source, target = block.of(xs), block.of(outs)
        total = target if target.dtype == dtype else scratch("pool.total", target.shape, dtype)
        if whole:
            np.add.reduce(source, axis=tuple(range(3, xs.ndim - 1)), keepdims=True, out=total, dtype=dtype)
        else:
            total.fill(0)
            for tap in taps:
                now = total[tap.outputs]
                np.add(now, source[tap.inputs], out=now)
        np.multiply(total, weight, out=target, casting="unsafe")
        _finish(out, outs, batch_last, block, epilogue)

    _for_blocks(outs, x.nbytes, run)


def avg_pool_grad(g: Array, out: Array, window: Window, count_include_pad: bool) -> None:
    """The adjoint of `avg_pool`: each ``g[n, c, o]``, divided as there, is added to every position of window o.

    Args:
        g: (N, C, *O), any strides.
        out: (N, C, *S) of g's dtype, written.
        window: as for `avg_pool`.
        count_include_pad: as for `avg_pool`.
    """
    dtype, batch_last = compute_dtype(out.dtype), is_batch_last(out)
    gs, outs = canonical(g, 1, batch_last), canonical(out, 1, batch_last)
    weight = _weights(window, out.shape[2:], g.shape[2:], count_include_pad, dtype)
    taps = _taps(window, out.shape[2:], g.shape[2:])

    def run(block: _Block) -> None:
        source, target = block.of(gs), block.of(outs)
        share = scratch("pool.term", source.shape, dtype)
        np.multiply(source, weight, out=share)
        total = target if target.dtype == dtype else scratch("pool.total", target.shape, dtype)
        total.fill(0)
        for tap in taps:
            place = total[tap.inputs]
            np.add(place, share[tap.outputs], out=place)
        if total is not target:
            np.copyto(target, total, casting="unsafe")

    _for_blocks(outs, out.nbytes, run)


def _for_blocks(a: Array, nbytes: int, run: Callable[[_Block], None]) -> None:
    """Call ``run`` on blocks that cover ``a`` (B, 1, C, *S, I), over the thread pool; ``nbytes`` go through in all."""
    if a.size == 0:
        return
    parts = 1 if nbytes < SERIAL_BYTES else max(thread_count(), nbytes // BLOCK_BYTES)
    samples = ranges(a.shape[0], parts)
    channels = ranges(a.shape[2], parts // len(samples))
    inner = ranges(a.shape[-1], min(thread_count(), parts // (len(samples) * len(channels))))
    blocks = [_Block(*block) for block in product(samples, channels, inner)]
    parallel(len(blocks), lambda task: run(blocks[task]))


def _finish(out: Array, outs: Array, batch_last: bool, block: _Block, epilogue: Epilogue) -> None:
    """Hand a finished block to the epilogue."""
    if epilogue is not None:
        for index in logical(outs.shape, batch_last, block.samples, block.channels, (), block.inner):
            epilogue(out[index], index)


@lru_cache(maxsize=256)
def _taps(window: Window, sizes: tuple[int, ...], outputs: tuple[int, ...]) -> list[_Tap]:
    """The taps of ``window``, in order."""
    spans = [
        [reads(window, axis, tap, sizes[axis], slice(0, outputs[axis])) for tap in range(size)]
        for axis, size in enumerate(window.kernel)
    ]
    return [
        _Tap(number, (..., *(some for some, _ in axes), ALL), (..., *(where for _, where in axes), ALL))
        for number, axes in enumerate(product(*spans))
    ]


def _has_padding(taps: list[_Tap], outputs: tuple[int, ...]) -> bool:
    """Whether some window reaches beyond the input."""
    return any(tap.outputs[1:-1] != tuple(slice(0, size) for size in outputs) for tap in taps)


def _covers(taps: list[_Tap], sizes: tuple[int, ...], outputs: tuple[int, ...]) -> bool:
    """Whether disjoint windows meet every input position, and nothing but those."""
    return len(taps) * math.prod(outputs) == math.prod(sizes) and not _has_padding(taps, outputs)


@lru_cache(maxsize=256)
def _first_taps(window: Window, sizes: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
    """For each output position (*O, 1) the first tap of its window that is not padding; 0 where all are."""
    first: Array = np.zeros((1,) * (window.rank + 1), np.int64)
    some: Array = first == 0
    for axis, size in enumerate(outputs):
        begin = np.arange(size) * window.stride[axis] - window.padding[axis][0]
        tap = np.maximum(0, -(begin // window.dilation[axis]))  # least t with begin + t * dilation >= 0
        inside = (tap < window.kernel[axis]) & (begin + tap * window.dilation[axis] < sizes[axis])
        first = first * window.kernel[axis] + _along(tap, axis, window.rank)
        some = some & _along(inside, axis, window.rank)
    return np.where(some, first, 0)


@lru_cache(maxsize=256)
def _weights(
    window: Window, sizes: tuple[int, ...], outputs: tuple[int, ...], count_include_pad: bool, dtype: np.dtype[Any]
) -> Array:
    """1 / (positions that the mean of each window divides by), over the output positions (*O, 1)."""
    count = np.ones((1,) * (window.rank + 1), np.int64)
    for axis, size in enumerate(sizes):
        before, after = window.padding[axis]
        least, most = (-before, size + after) if count_include_pad else (0, size)
        begin = np.arange(outputs[axis]) * window.stride[axis] - before
        taps = begin[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        count = count * _along(((taps >= least) & (taps < most)).sum(1), axis, window.rank)
    return (1 / np.maximum(count, 1)).astype(dtype)


def _along(a: Array, axis: int, rank: int) -> Array:
    """A vector as an array (*O, 1) that varies along one spatial axis."""
    return a.reshape([-1 if i == axis else 1 for i in range(rank + 1)])


def _as(a: Array, dtype: np.dtype[Any], name: str) -> Array:
    """``a`` in ``dtype``: itself, or a copy in scratch memory."""
    if a.dtype == dtype:
        return a
    copy = scratch(name, a.shape, dtype)
    np.copyto(copy, a)
    return copy
