"""Gather, scatter, running sums, sorting and index reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.matmul import compute_dtype, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count

Array = NDArray[Any]

CHUNK = 1 << 16  # elements that are worth a thread of their own, or a step


def take(x: Array, idx: Array, out: Array) -> None:
    """``out[i] = x[idx[i]]`` along axis 0; an index out of range is clamped.

    Args:
        x: (n, *rest), any strides.
        idx: any shape, integers.
        out: idx.shape + rest of x's dtype, written.
    """
    if idx.ndim == 0:
        idx, out = idx[None], out[None]

    def run(some: slice) -> None:
        target = out[some]
        if x.flags.c_contiguous and target.flags.c_contiguous:
            np.take(x, idx[some], axis=0, out=target, mode="clip")
        else:
            np.copyto(target, x[np.clip(idx[some], 0, len(x) - 1)])

    _for_ranges(len(idx), out.size, run)


def scatter(idx: Array, src: Array, out: Array, reduce: Literal["sum", "max"]) -> None:
    """Add (or keep the largest of) ``src[i]`` at ``out[idx[i]]``, in the order of ``idx``: always the same bits.

    Args:
        idx: any shape, integers in [0, length).
        src: idx.shape + rest, any strides.
        out: (length, *rest), written; empty slots hold 0 (sum) or the least value of the dtype (max).
        reduce: "sum" or "max" (NaN wins).
    """
    dtype = compute_dtype(out.dtype)
    in_place = out.dtype == dtype and out.flags.c_contiguous
    total = out if in_place else scratch("scatter.total", out.shape, dtype)
    total.fill(0 if reduce == "sum" else least(dtype))
    combine = np.add if reduce == "sum" else np.maximum
    width = math.prod(out.shape[1:])
    rows, values, flat = idx.reshape(-1, 1), src.reshape(idx.size, width), total.reshape(-1)

    def run(columns: slice) -> None:  # a thread owns columns of the output, so no two write to one place
        step = max(1, CHUNK // (columns.stop - columns.start))
        for start in range(0, len(rows), step):
            some = values[start : start + step, columns]
            places = scratch("scatter.places", some.shape, np.int64)
            np.multiply(rows[start : start + step], width, out=places)
            np.add(places, np.arange(columns.start, columns.stop), out=places)
            combine.at(flat, places.reshape(-1), some.reshape(-1).astype(dtype, copy=False))

    _for_ranges(width, values.size, run)
    if not in_place:
        np.copyto(out, total, casting="unsafe")


def cumsum(x: Array, out: Array, axis: int, reverse: bool) -> None:
    """Running sums along ``axis``, from its end with ``reverse``; 16-bit floats are summed in float32.

    Args:
        x: any shape and strides.
        out: of x's shape, written.
        axis: the axis that is summed along.
        reverse: sum from the last element to the first.
    """
    if reverse:
        x, out = np.flip(x, axis), np.flip(out, axis)
    dtype = compute_dtype(out.dtype)

    def run(source: Array, target: Array) -> None:
        total = target if target.dtype == dtype else scratch("cumsum", target.shape, dtype)
        np.add.accumulate(source, axis=-1, dtype=dtype, out=total)
        if total is not target:
            np.copyto(target, total, casting="unsafe")

    _for_lanes(axis, run, x, out)


def sort(x: Array, values: Array, indices: Array, axis: int, descending: bool) -> None:
    """Sort along ``axis``, keeping the order of equal elements; NaN is last, first when descending.

    Args:
        x: any shape and strides.
        values: of x's shape and dtype, written.
        indices: of x's shape, int64, written: where each value came from.
        axis: the axis that is sorted along.
        descending: largest first.
    """

    def run(source: Array, top: Array, where: Array) -> None:
        order = _order(source, descending)
        np.copyto(where, order)
        np.copyto(top, np.take_along_axis(source, order, -1))

    _for_lanes(axis, run, x, values, indices)


def _order(x: Array, descending: bool) -> Array:
    """The positions along the last axis in which ``x`` is sorted stably."""
    keys = _ascending_bits(x)
    if keys is None:
        if not descending:
            return np.argsort(x, axis=-1, kind="stable")
        # The reverse of a stable sort of the reversed input is stable too.
        backwards: Array = x.shape[-1] - 1 - np.argsort(x[..., ::-1], axis=-1, kind="stable")
        return backwards[..., ::-1]
    if descending:
        np.invert(keys, out=keys)
    # Key and position in one integer: any fast sort is then stable, and several times as fast as a stable argsort.
    packed = keys.astype(np.uint64) << np.uint64(32)
    packed |= np.arange(x.shape[-1], dtype=np.uint64)
    packed.sort(axis=-1)
    packed &= np.uint64(0xFFFFFFFF)
    order: Array = packed.view(np.int64)
    return order


def _ascending_bits(x: Array) -> Array | None:
    """``x`` as new uint32 of the same order, NaN greatest and -0 equal to 0; None for wider dtypes."""
    if x.dtype.itemsize > 4:
        return None
    if x.dtype.kind in "bu":
        return x.astype(np.uint32)
    if x.dtype.kind == "i":
        signed: Array = x.astype(np.int32).view(np.uint32)
        signed ^= np.uint32(1 << 31)
        return signed
    floats = x.astype(np.float32)
    floats += np.float32(0)  # -0 becomes 0
    bits = floats.view(np.uint32)
    negative = bits >> np.uint32(31)
    flipped: Array = bits ^ (np.negative(negative) | np.uint32(1 << 31))  # all bits of negative numbers, else the sign
    flipped[np.isnan(floats)] = np.uint32(0xFFFFFFFF)
    return flipped


def arg_reduce(x: Array, out: Array, axis: int, which: Literal["argmax", "argmin"]) -> None:
    """The position of the first extreme element along ``axis``; the first NaN wins over all.

    Args:
        x: any shape and strides.
        out: x's shape with size 1 at ``axis``, int64, written.
        axis: the axis that is reduced.
        which: "argmax" or "argmin".
    """
    find = np.argmax if which == "argmax" else np.argmin

    def run(source: Array, target: Array) -> None:
        keys = source.astype(compute_dtype(source.dtype), copy=False)
        np.copyto(target, find(keys, axis=-1)[..., None])

    _for_lanes(axis, run, x, out)


def least(dtype: np.dtype[Any]) -> Any:
    """The least value of ``dtype``."""
    if dtype.kind == "b":
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _for_lanes(axis: int, run: Callable[..., None], *arrays: Array) -> None:
    """Call ``run`` on parts of all arrays that hold whole lanes along ``axis``, which it finds last."""
    moved = [np.moveaxis(a, axis, -1) for a in arrays]
    if moved[0].ndim == 1:
        moved = [a[None] for a in moved]
    longest = int(np.argmax(moved[0].shape[:-1]))
    moved = [np.moveaxis(a, longest, 0) for a in moved]
    _for_ranges(len(moved[0]), moved[0].size, lambda some: run(*(a[some] for a in moved)))


def _for_ranges(length: int, elements: int, run: Callable[[slice], None]) -> None:
    """Call ``run`` on parts of ``range(length)`` over the thread pool; ``elements`` says how much work that is."""
    if elements:
        parts = ranges(length, min(thread_count(), 1 + elements // CHUNK))
        parallel(len(parts), lambda task: run(parts[task]))
