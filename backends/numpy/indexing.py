"""Gather, scatter, running sums, sorting and index reductions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.matmul import compute_dtype, ranges
from minigrad.backends.numpy.threads import parallel, scratch, thread_count

Array = NDArray[Any]

BLOCK_ELEMENTS = 1 << 16


def take(x: Array, idx: Array, out: Array) -> None:
    """``out[i] = x[idx[i]]`` along axis 0; an index out of range is clamped.

    Args:
        x: (n, *rest), any strides.
        idx: any shape, integers.
        out: idx.shape + rest of x's dtype, written.
    """
    if out.size == 0:
        return
    if idx.ndim == 0:
        idx, out = idx[None], out[None]
    parts = ranges(idx.shape[0], min(thread_count(), out.size // BLOCK_ELEMENTS))
    parallel(len(parts), lambda p: np.copyto(out[parts[p]], np.take(x, idx[parts[p]], axis=0, mode="clip")))


def scatter(idx: Array, src: Array, out: Array, reduce: Literal["sum", "max"]) -> None:
    """Add (or keep the largest of) ``src[i]`` at ``out[idx[i]]``, in the order of ``idx``; deterministic.

    Args:
        idx: any shape, integers in [0, length).
        src: idx.shape + rest, any strides.
        out: (length, *rest), written; empty slots hold 0 (sum) or the least value of the dtype (max).
        reduce: "sum" or "max" (NaN wins).
    """
    dtype = compute_dtype(out.dtype)
    total = out if out.dtype == dtype else scratch("scatter", out.shape, dtype)
    if reduce == "sum":
        total[...] = 0
    elif dtype.kind in "iu":
        total[...] = np.iinfo(dtype).min
    else:
        total[...] = False if dtype.kind == "b" else -np.inf
    flat = src.reshape(idx.size, *out.shape[1:])
    (np.add if reduce == "sum" else np.maximum).at(total, idx.reshape(-1), flat)
    if total is not out:
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
    if out.dtype == dtype:
        np.cumsum(x, axis=axis, dtype=dtype, out=out)
    else:
        np.copyto(out, np.cumsum(x, axis=axis, dtype=dtype), casting="unsafe")


def sort(x: Array, values: Array, indices: Array, axis: int, descending: bool) -> None:
    """Sort along ``axis``, keeping the order of equal elements; NaN is last, first when descending.

    Args:
        x: any shape and strides.
        values: of x's shape and dtype, written.
        indices: of x's shape, int64, written: where each value came from.
        axis: the axis that is sorted along.
        descending: largest first.
    """
    if x.size == 0:
        return
    keys = x.astype(compute_dtype(x.dtype), copy=False)
    if descending:  # the reverse of a stable sort of the reversed input is stable too
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(keys, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(keys, axis=axis, kind="stable")
    np.copyto(indices, order)
    np.copyto(values, np.take_along_axis(x, order, axis))


def arg_reduce(x: Array, out: Array, axis: int, which: Literal["argmax", "argmin"]) -> None:
    """The position of the first extreme element along ``axis``; the first NaN wins over all.

    Args:
        x: any shape and strides.
        out: x's shape with size 1 at ``axis``, int64, written.
        axis: the axis that is reduced.
        which: "argmax" or "argmin".
    """
    if out.size == 0:
        return
    keys = x.astype(compute_dtype(x.dtype), copy=False)
    np.copyto(out, (np.argmax if which == "argmax" else np.argmin)(keys, axis=axis, keepdims=True))
