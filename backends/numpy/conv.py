"""Convolution and its two adjoints as matrix products over cache-sized blocks of gathered columns (im2col)."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.columns import (
    ALL,
    BLOCK_BYTES,
    blocks,
    canonical,
    columns,
    contiguous,
    fold,
    is_batch_last,
    logical,
    merged,
    reads,
    rows_of_positions,
    shifted,
    windows,
)
from minigrad.backends.numpy.matmul import Epilogue, blas_ready, compute_dtype, gemm, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count
from minigrad.shapes import Window

Array = NDArray[Any]
Index = tuple[slice, ...]

SERIAL = 2_000_000  # multiplications that are done before another thread is awake


def conv(x: Array, w: Array, out: Array, window: Window, groups: int, epilogue: Epilogue = None) -> None:
    """``out[n, k, o]`` = sum over c and t of ``x[n, c, o * stride - padding + t * dilation] * w[k, c, t]``.

    Args:
        x: (N, C, *S), any strides.
        w: (K, C / groups, *kernel), any strides.
        out: (N, K, *O), written; its strides choose the layout the work is done in (row-major or batch-last).
        window: kernel, stride, padding and dilation; the output sizes are those of ``out``.
        groups: filters of group g see the channels of group g only.
        epilogue: called as ``epilogue(block, index)`` on each finished block of ``out``.
    """
    if out.size == 0:
        return
    rank, batch_last, dtype = window.rank, _samples_inside(out, out), compute_dtype(out.dtype)
    xs, outs = canonical(x, groups, batch_last), canonical(out, groups, batch_last)
    weights = contiguous(w, dtype, "conv.weights").reshape(*outs.shape[1:3], -1)
    threads = _threads(out.size * weights.shape[-1])
    samples = ranges(outs.shape[0], threads)
    bands = ranges(outs.shape[3], -(-threads // len(samples)))
    tasks = list(product(samples, bands, ranges(outs.shape[2], -(-threads // (len(samples) * len(bands))))))
    wide = _wide(window, outs)

    def run(task: int) -> None:
        ns, rows, ks = tasks[task]
        band = outs[ns, :, ks, rows]
        seen = windows(xs[ns], window, rows.start, band.shape[3:-1], dtype, wide)
        sizes = seen.shape[3 + rank : -1]
        row = math.prod(sizes[rank - wide :]) * seen.shape[-1]  # a wide row is not cut
        for lead, *at in blocks((band.shape[0], *sizes[: rank - wide]), groups * weights.shape[-1] * dtype.itemsize, row):
            target = band[(lead, ALL, ALL, *at)]
            gathered = columns(seen[(lead, *(ALL,) * (2 + rank), *at)], rank, dtype)
            flat = None if wide else merged(target, 3, target.ndim)
            if flat is not None:
                gemm(weights[:, ks], gathered, flat)
            else:
                shape = target.shape if not wide else (*target.shape[:-2], sizes[-1], 1)
                result = scratch("conv.result", shape, dtype)
                gemm(weights[:, ks], gathered, result.reshape(*shape[:3], -1))
                np.copyto(target, result[..., : target.shape[-2], :], casting="unsafe")
            if epilogue is not None:
                spatial = (shifted(at[0], rows.start), *at[1:])
                for index in logical(outs.shape, batch_last, shifted(lead, ns.start), ks, spatial, ALL):
                    epilogue(out[index], index)

    parallel(len(tasks), run)


def conv_input_grad(g: Array, w: Array, out: Array, window: Window, groups: int, epilogue: Epilogue = None) -> None:
    """The adjoint of `conv` in its input: each ``g[n, k, o] * w[k, c, t]`` is added where tap t of window o reads.

    Args:
        g: (N, K, *O), any strides.
        w: (K, C / groups, *kernel), any strides.
        out: (N, C, *S), written; its strides choose the layout.
        window: as for `conv`.
        groups: as for `conv`.
        epilogue: called as ``epilogue(block, index)`` on each finished block of ``out``.
    """
    if out.size == 0:
        return
    batch_last, dtype = _samples_inside(out, g), compute_dtype(out.dtype)
    gs, outs = canonical(g, groups, batch_last), canonical(out, groups, batch_last)
    weights = contiguous(w, dtype, "conv.weights").reshape(*gs.shape[1:3], outs.shape[2], -1)
    threads = _threads(g.size * math.prod(w.shape[1:]))
    samples = ranges(outs.shape[0], threads)
    channels = ranges(outs.shape[2], -(-threads // len(samples)))
    inner = ranges(outs.shape[-1], -(-threads // (len(samples) * len(channels))))
    tasks = list(product(samples, channels, inner))

    def run(task: int) -> None:
        ns, cs, part = tasks[task]
        target = outs[(ns, ALL, cs, ..., part)]
        wanted = weights[:, :, cs].reshape(*weights.shape[:2], -1).swapaxes(1, 2)
        _input_grad(gs[(ns, ..., part)], wanted, target, window, dtype)
        if epilogue is not None:
            for index in logical(outs.shape, batch_last, ns, cs, (), part):
                epilogue(out[index], index)

    parallel(len(tasks), run)


def _input_grad(g: Array, w: Array, out: Array, window: Window, dtype: np.dtype[Any]) -> None:
    """One thread's share: g (B, G, K, *O, I), w (G, C * taps, K), out (B, G, C, *S, I)."""
    rank, outputs, sizes = window.rank, g.shape[3:-1], out.shape[3:-1]
    if g.size and not any(map(any, window.padding)) and math.prod(window.kernel) * math.prod(outputs) == math.prod(sizes):
        seen = windows(out, window, 0, outputs, out.dtype, False)
        flat = merged(seen, 3 + rank, seen.ndim)
        flat = None if flat is None else merged(flat, 2, 3 + rank)
        if flat is not None and blas_ready(flat):  # 1x1, or the window covers the input: each element has one term
            gemm(w, rows_of_positions(g, dtype, "conv.g"), flat)
            return
    total = out if out.dtype == dtype else scratch("conv.total", out.shape, dtype)
    total.fill(0)
    if g.size:
        add = _add_folded if all(stride == 1 for stride in window.stride) else _add_taps
        taps = math.prod(window.kernel)
        for lead, *at in blocks((g.shape[0], *outputs), w[..., 0, :].nbytes // 2, g.shape[-1]):
            part = g[(lead, ALL, ALL, *at)]
            terms = part[:, :, 0].size * taps * dtype.itemsize
            for cs in ranges(out.shape[2], out.shape[2] * terms // BLOCK_BYTES):
                add(part, w[:, cs.start * taps : cs.stop * taps], total[lead, :, cs], window, tuple(at), dtype)
    if total is not out:
        np.copyto(out, total, casting="unsafe")


def _add_taps(g: Array, w: Array, total: Array, window: Window, at: Index, dtype: np.dtype[Any]) -> None:
    """Add what the outputs ``at``, whose gradient is ``g``, give to ``total``: tap by tap."""
    spatial = total.shape[3:-1]
    terms = scratch("conv.columns", (*g.shape[:2], total.shape[2], *window.kernel, *g.shape[3:]), dtype)
    gemm(w, rows_of_positions(g, dtype, "conv.g"), terms.reshape(*g.shape[:2], w.shape[1], -1))
    spans = [
        [reads(window, axis, tap, spatial[axis], at[axis]) for tap in range(size)]
        for axis, size in enumerate(window.kernel)
    ]
    for tap in np.ndindex(*window.kernel):
        chosen = [spans[axis][t] for axis, t in enumerate(tap)]
        place = total[(ALL, ALL, ALL, *(where for _, where in chosen))]
        np.add(place, terms[(ALL, ALL, ALL, *tap, *(some for some, _ in chosen))], out=place)


def _add_folded(g: Array, w: Array, total: Array, window: Window, at: Index, dtype: np.dtype[Any]) -> None:
    """`_add_taps` for stride 1, in one sum over all taps."""
    rank = window.rank
    folded = fold(total.shape[:3], window, at, total.shape[3:-1], total.shape[-1], dtype)
    # Rows of outputs lie apart, so each is a product of its own: (B, G, *O[:-1], C * taps, O[-1] * I).
    terms = folded.terms.reshape(*g.shape[:2], w.shape[1], *g.shape[3:-2], -1)
    given = g.reshape(*g.shape[:-2], -1)
    gemm(w[:, *(None,) * (rank - 1)], np.moveaxis(given, 2, -2), np.moveaxis(terms, 2, -2))
    place = total[(ALL, ALL, ALL, *folded.place)]
    taps = tuple(range(3, 3 + rank))
    if place.size == total.size:
        np.add.reduce(folded.shifted, axis=taps, out=place)
    else:
        result = scratch("conv.result", place.shape, dtype)
        np.add.reduce(folded.shifted, axis=taps, out=result)
        np.add(place, result, out=place)


def conv_weight_grad(x: Array, g: Array, out: Array, window: Window, groups: int, epilogue: Epilogue = None) -> None:
    """The adjoint of `conv` in its weights: ``out[k, c, t]`` = sum over n and o of ``g[n, k, o]`` times what tap t reads.

    Threads share the channels; where those are too few, also the positions, and their partial sums are added in a
    fixed order. So a given number of threads always gives the same bits.

    Args:
        x: (N, C, *S), any strides.
        g: (N, K, *O), any strides.
        out: (K, C / groups, *kernel), written.
        window: as for `conv`.
        groups: as for `conv`.
        epilogue: called as ``epilogue(block, index)`` once, on the whole of ``out``.
    """
    if out.size == 0:
        return
    if g.size == 0:
        out.fill(0)
    else:
        _weight_grad(x, g, out, window, groups)
    if epilogue is not None:
        epilogue(out, tuple(slice(0, size) for size in out.shape))


def _weight_grad(x: Array, g: Array, out: Array, window: Window, groups: int) -> None:
    rank, dtype = window.rank, compute_dtype(out.dtype)
    batch_last = _samples_inside(x, g) or is_batch_last(g)
    xs, gs = canonical(x, groups, batch_last), canonical(g, groups, batch_last)
    threads = _threads(g.size * math.prod(out.shape[1:]))
    channels = ranges(xs.shape[2], threads)
    samples = ranges(xs.shape[0], -(-threads // len(channels)))
    shares = list(product(samples, ranges(gs.shape[3], -(-threads // (len(channels) * len(samples))))))
    tasks = list(product(range(len(shares)), channels))
    taps = math.prod(window.kernel)
    totals = scratch("conv.totals", (len(shares), *gs.shape[1:3], xs.shape[2], taps), dtype)

    def run(task: int) -> None:
        share, cs = tasks[task]
        ns, rows = shares[share]
        total, band = totals[share, :, :, cs], gs[ns, :, :, rows]
        seen = windows(xs[ns, :, cs], window, rows.start, band.shape[3:-1], dtype, False)
        depth = total.shape[2] * taps
        started = False
        for lead, *at in blocks((band.shape[0], *band.shape[3:-1]), groups * depth * dtype.itemsize, band.shape[-1]):
            gathered = columns(seen[(lead, *(ALL,) * (2 + rank), *at)], rank, dtype)
            part = rows_of_positions(band[(lead, ALL, ALL, *at)], dtype, "conv.g")
            each = scratch("conv.product", (*part.shape[:3], depth), dtype)
            gemm(part, gathered.swapaxes(-1, -2), each)
            for one in each.reshape(-1, *total.shape):
                if started:
                    np.add(total, one, out=total)
                else:
                    np.copyto(total, one)
                started = True

    parallel(len(tasks), run)
    for partial in totals[1:]:
        np.add(totals[0], partial, out=totals[0])
    np.copyto(out, totals[0].reshape(out.shape), casting="unsafe")


def _samples_inside(a: Array, positions: Array) -> bool:
    """Whether to treat samples as the inner axis: so they lie in memory, or there is one output position per sample."""
    return is_batch_last(a) or math.prod(positions.shape[2:]) == 1


def _threads(multiplications: int) -> int:
    """Threads worth waking for this much work."""
    return min(thread_count(), 1 + multiplications // SERIAL)


def _wide(window: Window, out: Array) -> bool:
    """Whether to gather whole padded rows (see `windows`) and throw the results past the row's end away.

    It turns many short copies into few long ones, at about 8 ns each, for 2 K (extent - 1) / (10^11 / s) of arithmetic.
    """
    return (
        out.shape[-1] == 1
        and window.rank > 1
        and window.stride[-2:] == (1, 1)
        and window.kernel[-1] > 1
        and (window.extent(window.rank - 1) - 1) * out.shape[2] < 400
    )
