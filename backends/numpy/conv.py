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
    DType,
    Index,
    as_columns,
    as_rows,
    blocks,
    canonical,
    columns,
    contiguous,
    fold,
    is_batch_last,
    logical,
    merged,
    moved,
    part,
    reads,
    windows,
)
from minigrad.backends.numpy.matmul import Epilogue, compute_dtype, gemm, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count
from minigrad.shapes import Window

Array = NDArray[Any]

SERIAL = 4_000_000  # multiplications that are done before another thread is awake
SLAB_BYTES = 1 << 22  # input that a thread pads at a time


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
    pieces = _pieces(xs, outs, threads)
    tasks = [(*piece, ks) for piece in pieces for ks in ranges(outs.shape[2], -(-threads // len(pieces)))]
    wide = _wide(window, outs)

    def run(task: int) -> None:
        ns, rows, ks = tasks[task]
        band = outs[part(ns, ks, (rows,))]
        seen = windows(xs[ns], window, rows.start, band.shape[3:-1], dtype, wide)
        sizes = seen.shape[3 + rank : -1]
        direct = not wide and merged(band, 3, band.ndim) is not None  # whether products can go straight to their place
        each = math.prod(sizes[rank - wide :]) * seen.shape[-1]  # a wide row is not cut
        for lead, *at in blocks((len(band), *sizes[: rank - wide]), weights[:, 0].nbytes, each):
            target = band[part(lead, ALL, at)]
            gathered = columns(seen[part(lead, ALL, (*(ALL,) * rank, *at))], rank, dtype)
            if direct:
                gemm(weights[:, ks], gathered, target.reshape(*target.shape[:3], -1))
            else:
                width = sizes[-1] if wide else target.shape[-2]
                result = scratch("conv.result", (*target.shape[:-2], width, target.shape[-1]), dtype)
                gemm(weights[:, ks], gathered, result.reshape(*target.shape[:3], -1))
                np.copyto(target, result[..., : target.shape[-2], :], casting="unsafe")
            if epilogue is not None:
                spatial = (moved(at[0], rows.start), *at[1:])
                for index in logical(outs.shape, batch_last, moved(lead, ns.start), ks, spatial, ALL):
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
    parts = max(threads, out.nbytes // SLAB_BYTES)
    samples = ranges(outs.shape[0], parts)
    channels = ranges(outs.shape[2], -(-parts // len(samples)))
    inner = ranges(outs.shape[-1], -(-threads // (len(samples) * len(channels))))
    tasks = list(product(samples, channels, inner))

    def run(task: int) -> None:
        ns, cs, some = tasks[task]
        wanted = weights[:, :, cs].reshape(*weights.shape[:2], -1).swapaxes(1, 2)
        _input_grad(gs[ns][..., some], wanted, outs[part(ns, cs)][..., some], window, dtype)
        if epilogue is not None:
            for index in logical(outs.shape, batch_last, ns, cs, (), some):
                epilogue(out[index], index)

    parallel(len(tasks), run)


def _input_grad(g: Array, w: Array, out: Array, window: Window, dtype: DType) -> None:
    """One task: g (B, G, K, *O, I), w (G, C * taps, K), out (B, G, C, *S, I)."""
    outputs, taps = g.shape[3:-1], math.prod(window.kernel)
    if not any(map(any, window.padding)) and taps * math.prod(outputs) == math.prod(out.shape[3:-1]):
        flat = as_columns(windows(out, window, 0, outputs, out.dtype), window.rank)
        if flat is not None:  # 1x1, or a window that covers the input: each element has one term
            gemm(w, as_rows(g, dtype), flat)
            return
    total = out if out.dtype == dtype else scratch("conv.total", out.shape, dtype)
    total.fill(0)
    add = _add_folded if all(stride == 1 for stride in window.stride) else _add_taps
    for lead, *at in blocks((len(g), *outputs), max(w[:, 0].nbytes, len(w) * taps * dtype.itemsize), g.shape[-1]):
        block = g[part(lead, ALL, at)]
        terms = block[:, :, 0].size * taps * dtype.itemsize  # per channel
        for cs in ranges(out.shape[2], out.shape[2] * terms // BLOCK_BYTES):
            add(block, w[:, cs.start * taps : cs.stop * taps], total[part(lead, cs)], window, tuple(at), dtype)
    if total is not out:
        np.copyto(out, total, casting="unsafe")


def _add_taps(g: Array, w: Array, total: Array, window: Window, at: Index, dtype: DType) -> None:
    """Add to ``total`` what the outputs ``at``, whose gradient is ``g``, give: tap by tap."""
    terms = scratch("conv.columns", (*total.shape[:3], *window.kernel, *g.shape[3:]), dtype)
    gemm(w, as_rows(g, dtype), terms.reshape(*g.shape[:2], w.shape[1], -1))
    spans = [
        [reads(window, axis, tap, total.shape[3 + axis], at[axis]) for tap in range(size)]
        for axis, size in enumerate(window.kernel)
    ]
    for tap in np.ndindex(*window.kernel):
        some, place = zip(*(spans[axis][t] for axis, t in enumerate(tap)))
        target = total[part(spatial=place)]
        np.add(target, terms[(ALL, ALL, ALL, *tap, *some)], out=target)


def _add_folded(g: Array, w: Array, total: Array, window: Window, at: Index, dtype: DType) -> None:
    """`_add_taps` for stride 1, in one sum over all taps."""
    rank, wide, length = window.rank, _wide(window, g), g.shape[-2]
    folded = fold(total.shape[:3], window, at, total.shape[3:-1], total.shape[-1], dtype, wide)
    terms = folded.terms
    if wide:  # products of whole rows, zeros included
        rows = as_rows(g, dtype, terms.shape[-2]).reshape(*g.shape[: 1 + rank], -1)
    else:
        terms, rows = terms[..., :length, :], g.reshape(*g.shape[:-2], -1)
    # Outer axes of the positions that are apart in memory become a stack: (B, G, *stack, C * taps, columns).
    stack = range(3, rows.ndim - 1)
    terms = terms.reshape(*g.shape[:2], w.shape[1], *(rows.shape[axis] for axis in stack), -1)
    order = (0, 1, *stack, 2, rows.ndim - 1)
    gemm(w[(ALL, *(None,) * len(stack))], rows.transpose(order), terms.transpose(order))
    if wide and not np.isfinite(w).all():
        folded.terms[..., length:, :] = 0  # where zero times infinity came out as NaN
    target = total[part(spatial=folded.place)]
    taps = tuple(range(3, 3 + rank))
    if target.size == total.size and not wide:
        np.add.reduce(folded.by_input, axis=taps, out=target)
    else:
        result = scratch("conv.result", (*total.shape[:3], *folded.by_input.shape[3 + rank :]), dtype)
        np.add.reduce(folded.by_input, axis=taps, out=result)
        np.add(target, result[..., : target.shape[-2], :], out=target)


def conv_weight_grad(x: Array, g: Array, out: Array, window: Window, groups: int, epilogue: Epilogue = None) -> None:
    """The adjoint of `conv` in its weights: ``out[k, c, t]`` = sum of ``g[n, k, o]`` times what tap t of o reads.

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
        batch_last = _samples_inside(x, g) or is_batch_last(g)
        xs, gs = canonical(x, groups, batch_last), canonical(g, groups, batch_last)
        wide = _wide(window, gs)
        _weight_grad(xs, gs, out, window, wide)
        if wide and not np.isfinite(out).all():  # a zero behind a row may have met an infinity of the next row
            _weight_grad(xs, gs, out, window, False)
    if epilogue is not None:
        epilogue(out, tuple(slice(0, size) for size in out.shape))


def _weight_grad(x: Array, g: Array, out: Array, window: Window, wide: bool) -> None:
    """`conv_weight_grad` of x (B, G, C, *S, I) and g (B, G, K, *O, I)."""
    rank, dtype, taps = window.rank, compute_dtype(out.dtype), math.prod(window.kernel)
    threads = _threads(g.size * math.prod(out.shape[1:]))
    channels = ranges(x.shape[2], threads)
    pieces = _pieces(x, g, -(-threads // len(channels)))
    shares = ranges(len(pieces), -(-threads // len(channels)))
    tasks = list(product(range(len(shares)), channels))
    totals = scratch("conv.totals", (len(shares), *g.shape[1:3], x.shape[2], taps), dtype)
    totals.fill(0)

    def run(task: int) -> None:
        share, cs = tasks[task]
        total = totals[share, :, :, cs]
        for ns, rows in pieces[shares[share]]:
            band = g[part(ns, ALL, (rows,))]
            seen = windows(x[part(ns, cs)], window, rows.start, band.shape[3:-1], dtype, wide)
            sizes = seen.shape[3 + rank : -1]
            each = math.prod(sizes[rank - wide :]) * seen.shape[-1]
            for lead, *at in blocks((len(band), *sizes[: rank - wide]), total[:, 0].size * dtype.itemsize, each):
                gathered = columns(seen[part(lead, ALL, (*(ALL,) * rank, *at))], rank, dtype)
                given = as_rows(band[part(lead, ALL, at)], dtype, sizes[-1] * wide)
                result = scratch("conv.result", (*given.shape[:3], gathered.shape[2]), dtype)
                gemm(given, gathered.swapaxes(-1, -2), result)
                for one in result.reshape(-1, *total.shape):
                    np.add(total, one, out=total)

    parallel(len(tasks), run)
    for partial in totals[1:]:
        np.add(totals[0], partial, out=totals[0])
    np.copyto(out, totals[0].reshape(out.shape), casting="unsafe")


def _samples_inside(a: Array, positions: Array) -> bool:
    """Whether to treat samples as the inner axis: so they lie in memory, or there is one output position per sample."""
    return is_batch_last(a) or math.prod(positions.shape[2:]) == 1


def _pieces(x: Array, outputs: Array, parts: int) -> list[tuple[slice, slice]]:
    """The output positions as at least ``parts`` ranges of samples and rows, if there are as many, of limited input."""
    parts = max(parts, x.nbytes // SLAB_BYTES)
    samples = ranges(outputs.shape[0], parts)
    return list(product(samples, ranges(outputs.shape[3], -(-parts // len(samples)))))


def _threads(multiplications: int) -> int:
    """Threads worth waking for this much work."""
    return min(thread_count(), 1 + multiplications // SERIAL)


def _wide(window: Window, outputs: Array) -> bool:
    """Whether to work on whole padded rows of ``outputs`` (B, G, K, *O, 1) and ignore the results behind their ends.

    It makes one long copy of many short ones, at about 8 ns each, for 2 K (extent - 1) operations at 0.02 ns a row.
    """
    return (
        outputs.shape[-1] == 1
        and window.rank > 1
        and window.stride[-2:] == (1, 1)
        and window.kernel[-1] > 1
        and (window.extent(window.rank - 1) - 1) * outputs.shape[2] < 400
    )
