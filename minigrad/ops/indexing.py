"""Reading and adding at positions that come from data, along axis 0; other axes are index arithmetic."""

from __future__ import annotations

import math
from typing import Any

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.graph import Node, apply, create
from minigrad.primitive import Kind, primitive
from minigrad.shapes import Shape, row_major


def _take_shape(attrs: Any, x: Shape, index: Shape) -> Shape:
    if not x:
        raise ShapeError.of("take", "a tensor of at least one dimension", x)
    if x[0] == 0 and 0 not in index:
        raise ShapeError.of("take", "a nonempty axis to take from", x)
    return index + x[1:]


def _scatter_shape(attrs: Any, index: Shape, source: Shape) -> Shape:
    if source[: len(index)] != index:
        raise ShapeError.of("scatter", f"a source that begins with the index's shape {index}", source)
    return (attrs.length, *source[len(index) :])


def _index_dtype(name: str, index: DType) -> None:
    if index is not dtypes.int64:
        raise DTypeError.of(name, "an int64 index", index.name)


def _take_dtype(attrs: Any, x: DType, index: DType) -> DType:
    _index_dtype("take", index)
    return x


def _scatter_dtype(attrs: Any, index: DType, source: DType) -> DType:
    _index_dtype("scatter", index)
    if attrs.reduce not in ("sum", "max"):
        raise ArgumentError.of("scatter", "reduce of 'sum' or 'max'", repr(attrs.reduce))
    return source


def _scatter_vjp(g: Node, out: Node, index: Node, source: Node) -> Node:
    if out.attrs.reduce == "sum":
        return apply("take", g, index)
    # Ties share evenly; counted in float32, since half types cannot count past 2048.
    wins = source.equals(apply("take", out, index))
    wide = dtypes.float32 if source.dtype.is_half else source.dtype
    ties = apply("scatter", index, wins.cast(wide), length=out.attrs.length, reduce="sum")
    share = apply("take", g.cast(wide), index) / apply("take", ties, index)
    return wins.where(share.cast(source.dtype), 0)


# out[i, ...] = x[index[i], ...]
primitive(
    "take",
    Kind.INDEX,
    2,
    shape=_take_shape,
    dtype=_take_dtype,
    vjp=(
        lambda g, out, x, index: apply("scatter", index, g, length=x.shape[0], reduce="sum"),
        None,
    ),
)
# out[index[i], ...] gathers source[i, ...], by sum or maximum in the order of i; what nobody hits is 0 or the minimum.
primitive(
    "scatter",
    Kind.INDEX,
    2,
    "length reduce",
    shape=_scatter_shape,
    dtype=_scatter_dtype,
    vjp=(None, _scatter_vjp),
)


def flat_positions(index: Node, axis: int, shape: Shape) -> Node:
    """Row-major positions in ``shape`` of ``(i0, .., index[i0, .., ik], .., ik)``: ``index`` replaces the axis."""
    strides = row_major(shape)
    position = index * strides[axis]
    for other in range(len(shape)):
        if other != axis:
            count = index.shape[other]
            steps = create("iota", index.device, length=count, dtype=dtypes.int64) * strides[other]
            position = position + steps.reshape((1,) * other + (count,) + (1,) * (len(shape) - other - 1))
    return position


def take_along(x: Node, index: Node, axis: int) -> Node:
    """``out[.., i, ..] = x[.., index[.., i, ..], ..]`` along ``axis`` (NumPy's ``take_along_axis``)."""
    return apply("take", x.reshape((math.prod(x.shape),)), flat_positions(index, axis, x.shape))


def scatter_along(source: Node, index: Node, axis: int, length: int, reduce: str = "sum") -> Node:
    """The adjoint of :func:`take_along` (for ``"sum"``): ``source`` gathered at ``index`` along ``axis``."""
    shape = source.shape[:axis] + (length,) + source.shape[axis + 1 :]
    positions = flat_positions(index, axis, shape)
    return apply("scatter", positions, source, length=math.prod(shape), reduce=reduce).reshape(shape)
