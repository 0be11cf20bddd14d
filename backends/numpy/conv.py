"""Convolution and its two adjoints as matrix products over cache-sized blocks of gathered columns (im2col)."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    columns_at_a_time,
    contiguous,
    is_batch_last,
    logical,
    merged,
    moved,
    part,
    reads,
    sliding_columns,
    sliding_rows,
    stacked,
    windows,
)
from minigrad.backends.numpy.matmul import Epilogue, compute_dtype, gemm, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count
from minigrad.shapes import Window

Array = NDArray[Any]

SERIAL = 4_000_000  # multiplications that are done before another thread is awake
SLAB_BYTES = 1 << 22  # input that a thread pads at a time
SURPLUS = 20  # surplus operations, as a share and times the filters, that cost as much as sums tap by tap
FEW = 128  # positions: images with fewer make short runs, so several samples are worked on side by side
SLIDING = 32  # columns per filter from which rearranging the weights pays
WIDE = 400  # filters times surplus positions per row up to which whole rows pay


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
    batch_last, dtype = _samples_inside(out, out), compute_dtype(out.dtype)
    xs, outs = canonical(x, groups, batch_last), canonical(out, groups, batch_last)
    plan = _Columns(window, outs)
    weights = contiguous(w.swapaxes(1, 2) if plan.sliding else w, dtype, "conv.weights")  # in the order of the columns
    weights = weights.reshape(*outs.shape[1:3], -1)
    threads = _threads(out.size * weights.shape[-1])
    pieces = _pieces(xs, outs, threads)
    tasks = [(*piece, ks) for piece in pieces for ks in ranges(outs.shape[2], -(-threads // len(pieces)))]

    def run(task: int) -> None:
        ns, rows, ks = tasks[task]
        band = outs[part(ns, ks, (rows,))]
        factors = weights[(ALL, *(None,) * plan.keep, ks)]
        direct = not plan.wide and merged(band, 3 + plan.keep, band.ndim) is not None
        for lead, at, gathered in plan.gather(xs[ns], rows, dtype):
            target = band[part(lead, ALL, at)]
            if direct:
                gemm(factors, gathered, stacked(target, plan.keep))
            else:
                width = plan.width or target.shape[-2]
                result = scratch("conv.result", (*target.shape[:-2], width, target.shape[-1]), dtype)
                gemm(factors, gathered, stacked(result, plan.keep))
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
    filters, channels, inner = gs.shape[2], outs.shape[2], outs.shape[-1]
    surplus = math.prod(out.shape[2:]) / max(1, math.prod(g.shape[2:])) - 1
    steady = set(window.stride) == {1} and bool(np.isfinite(w).all())  # zeros around g stay zeros
    if steady and inner == 1 and surplus * filters < SURPLUS:  # the convolution of g with the weights turned round
        backwards = (slice(None),) * 3 + (slice(None, None, -1),) * window.rank
        turned = w.reshape(groups, filters, *w.shape[1:])[backwards].swapaxes(1, 2)
        padding = tuple((window.extent(a) - 1 - before, 0) for a, (before, _) in enumerate(window.padding))
        conv(g, turned.reshape(-1, *turned.shape[2:]), out, window._replace(padding=padding), groups, epilogue)
        return
    first, *rest = window.kernel
    weights = contiguous(w, dtype, "conv.weights").reshape(groups, filters, channels, first, -1)
    sliding = steady and _Columns(window, gs).sliding
    if sliding:  # products sum over the taps of the first axis too: a window without it is left
        weights = contiguous(weights[:, :, :, ::-1].transpose(0, 2, 4, 3, 1), dtype, "conv.factors")
        factors = weights.reshape(groups, channels, -1, first * filters)
        left = window._replace(kernel=(1, *rest), padding=((0, 0), *window.padding[1:]))
    else:
        factors = weights.reshape(groups, filters, channels, -1).transpose(0, 2, 3, 1)
        left = window
    threads = _threads(g.size * math.prod(w.shape[1:]))
    parts = max(threads, out.nbytes // SLAB_BYTES)
    samples = ranges(outs.shape[0], parts)
    bands = ranges(outs.shape[3], -(-parts // len(samples)) if sliding else 1)
    shares = ranges(channels, -(-parts // (len(samples) * len(bands))))
    slices = ranges(inner, -(-threads // (len(samples) * len(bands) * len(shares))))
    tasks = list(product(samples, bands, shares, slices))

    def run(task: int) -> None:
        ns, band, cs, some = tasks[task]
        given = gs[ns][..., some]
        if sliding:
            given = sliding_rows(given, window, band, dtype)
        _add_terms(given, factors[:, cs], outs[part(ns, cs, (band,))][..., some], left, dtype)
        if epilogue is not None:
            for index in logical(outs.shape, batch_last, ns, cs, (band,), some):
                epilogue(out[index], index)

    parallel(len(tasks), run)


def _add_terms(g: Array, w: Array, out: Array, window: Window, dtype: DType) -> None:
    """One task of `conv_input_grad`: g (B, G, K, *O, I), w (G, C, taps, K), out (B, G, C, *S, I)."""
    outputs, sizes, (groups, channels, taps, filters) = g.shape[3:-1], out.shape[3:-1], w.shape
    if not any(map(any, window.padding)) and taps * math.prod(outputs) == math.prod(sizes):
        flat = as_columns(windows(out, window, 0, outputs, out.dtype), window.rank)
        if flat is not None:  # 1x1, or a window that covers the input: each element has one term
            gemm(w.reshape(groups, -1, filters), as_rows(g, dtype), flat)
            return
    total = out if out.dtype == dtype else scratch("conv.total", out.shape, dtype)
    total.fill(0)
    keep = window.rank - 1 if window.kernel[0] == 1 else 0  # rows of outputs that may lie apart
    for lead, *at in blocks((len(g), *outputs), columns_at_a_time(groups * filters * dtype.itemsize) // g.shape[-1]):
        block = g[part(lead, ALL, at)]
        rows = as_rows(block, dtype, keep)
        spans = [
            [reads(window, axis, tap, sizes[axis], at[axis]) for tap in range(size)]
            for axis, size in enumerate(window.kernel)
        ]
        each = block[:, :, 0].size * taps * dtype.itemsize
        for cs in ranges(channels, channels * each // BLOCK_BYTES):
            factors = w[:, cs].reshape(groups, *(1,) * keep, -1, filters)
            terms = scratch("conv.columns", (*block.shape[:2], factors.shape[-2], *block.shape[3:]), dtype)
            gemm(factors, rows, stacked(terms, keep))
            terms = terms.reshape(*block.shape[:2], -1, taps, *block.shape[3:])
            for tap, axes in enumerate(product(*spans)):
                some, place = zip(*axes)
                target = total[part(lead, cs, place)]
                np.add(target, terms[(ALL, ALL, ALL, tap, *some)], out=target)
    if total is not out:
        np.copyto(out, total, casting="unsafe")


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
        plan = _Columns(window, gs)
        _weight_grad(xs, gs, out, plan)
        if plan.wide and not np.isfinite(out).all():  # a zero behind a row may have met an infinity of the next row
            plan.wide = False
            _weight_grad(xs, gs, out, plan)
    if epilogue is not None:
        epilogue(out, tuple(slice(0, size) for size in out.shape))


def _weight_grad(x: Array, g: Array, out: Array, plan: _Columns) -> None:
    """`conv_weight_grad` of x (B, G, C, *S, I) and g (B, G, K, *O, I)."""
    dtype = compute_dtype(out.dtype)
    threads = _threads(g.size * math.prod(out.shape[1:]))
    channels = ranges(x.shape[2], threads)
    pieces = _pieces(x, g, -(-threads // len(channels)))
    shares = ranges(len(pieces), -(-threads // len(channels)))
    tasks = list(product(range(len(shares)), channels))
    first, *rest = plan.window.kernel
    lead, taps = (len(shares), *g.shape[1:3]), (first, math.prod(rest))
    if plan.sliding:
        totals = scratch("conv.totals", (*lead, first, x.shape[2], taps[1]), dtype).swapaxes(3, 4)
    else:
        totals = scratch("conv.totals", (*lead, x.shape[2], *taps), dtype)
    totals.fill(0)

    def run(task: int) -> None:
        share, cs = tasks[task]
        total = totals[share, :, :, cs]
        for ns, rows in pieces[shares[share]]:
            band = g[part(ns, ALL, (rows,))]
            for lead, at, gathered in plan.gather(x[part(ns, cs)], rows, dtype):
                given = as_rows(band[part(lead, ALL, at)], dtype, plan.keep, plan.width)
                result = scratch("conv.result", (*given.shape[:-1], gathered.shape[-2]), dtype)
                gemm(given, gathered.swapaxes(-1, -2), result)
                if plan.sliding:
                    terms = np.add.reduce(result, axis=(0, 2))
                    terms = terms.reshape(*total.shape[:2], first, -1, taps[1]).swapaxes(2, 3)
                    np.add(total, terms, out=total)
                else:
                    for terms in result:
                        np.add(total, terms.reshape(total.shape), out=total)

    parallel(len(tasks), run)
    for partial in totals[1:]:
        np.add(totals[0], partial, out=totals[0])
    np.copyto(out, totals[0].reshape(out.shape), casting="unsafe")


class _Columns:
    """How the columns of a convolution are gathered, for outputs (B, G, K, *O, I).

    Attributes:
        wide: work on whole padded rows and ignore the results behind their ends: one long copy instead of many short
            ones, at about 8 ns each, for 2 K (extent - 1) more operations at 0.02 ns a row.
        sliding: gather rows once for all the outputs they belong to; the taps then come in the order (kernel[0], C,
            *kernel[1:]). It saves copies of 0.1 ns an element, where the weights are few and quickly rearranged.
    """

    def __init__(self, window: Window, outputs: Array) -> None:
        self.window, self.sizes, inner = window, outputs.shape[3:-1], outputs.shape[-1]
        kernel, filters = window.kernel[0], outputs.shape[2]
        rows_follow = window.rank > 1 and window.stride[-2:] == (1, 1) and window.kernel[-1] > 1
        surplus = window.extent(window.rank - 1) - 1
        self.wide = inner == 1 and rows_follow and surplus * filters < WIDE
        rows_shared = self.sizes[0] > 1 and window.stride[0] < kernel and window.dilation[0] == 1
        self.sliding = inner > 1 and rows_shared and math.prod(self.sizes) * inner > SLIDING * filters

    @property
    def keep(self) -> int:
        """Axes of positions that stay apart, as a stack of matrix products."""
        return int(self.sliding)

    @property
    def width(self) -> int:
        """Length of a padded row of the input if `wide`, else 0."""
        return self.sizes[-1] + self.window.extent(self.window.rank - 1) - 1 if self.wide else 0

    def gather(self, x: Array, rows: slice, dtype: DType) -> Iterator[tuple[slice, Index, Array]]:
        """Blocks of the outputs in ``rows``: samples, positions, and columns (B, G, *stack, C * taps, positions)."""
        rank, kernel = self.window.rank, self.window.kernel[0]
        seen = windows(x, self.window, rows.start, (rows.stop - rows.start, *self.sizes[1:]), dtype, self.wide)
        sizes, inner = seen.shape[3 + rank : -1], seen.shape[-1]
        depth = math.prod(seen.shape[1 : 3 + rank]) * dtype.itemsize
        budget = columns_at_a_time(depth)
        if self.wide:  # a wide row is not cut
            sizes, inner = sizes[:-1], sizes[-1]
        if self.sliding:  # kernel - 1 rows come on top of those of the outputs
            budget = max(budget, columns_at_a_time(depth // kernel) - (kernel - 1) * math.prod(sizes[1:]) * inner)
        for lead, *at in blocks((len(x), *sizes), budget // inner):
            block = seen[part(lead, ALL, (*(ALL,) * rank, *at))]
            gathered = sliding_columns(block, self.window, dtype) if self.sliding else columns(block, rank, dtype)
            yield lead, tuple(at), gathered


def _samples_inside(a: Array, positions: Array) -> bool:
    """Whether to treat samples as the inner axis: so they lie in memory, or there are few output positions in each."""
    return is_batch_last(a) or math.prod(positions.shape[2:]) < FEW


def _pieces(x: Array, outputs: Array, parts: int) -> list[tuple[slice, slice]]:
    """The output positions as at least ``parts`` ranges of samples and rows, if there are as many, of limited input."""
    parts = max(parts, x.nbytes // SLAB_BYTES)
    samples = ranges(outputs.shape[0], parts)
    return list(product(samples, ranges(outputs.shape[3], -(-parts // len(samples)))))


def _threads(multiplications: int) -> int:
    """Threads worth waking for this much work."""
    return min(thread_count(), 1 + multiplications // SERIAL)
