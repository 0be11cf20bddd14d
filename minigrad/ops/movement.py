"""Movement primitives: where an element goes. None of them computes."""

from __future__ import annotations

import math
from typing import Any

from minigrad.dtypes import DType
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.graph import Node, apply, full, full_like
from minigrad.primitive import Kind, primitive
from minigrad.shapes import Shape, broadcast, row_major


def _same_dtype(attrs: Any, *kinds: DType) -> DType:
    if any(k is not kinds[0] for k in kinds):
        raise DTypeError.of("cat", "one dtype", " and ".join(k.name for k in kinds), "cast one of them")
    return kinds[0]


def _reshape_shape(attrs: Any, x: Shape) -> Shape:
    if math.prod(attrs.shape) != math.prod(x):
        raise ShapeError.of("reshape", f"a shape of {math.prod(x)} elements to reshape {x}", attrs.shape)
    shape: Shape = attrs.shape
    return shape


def _permute_shape(attrs: Any, x: Shape) -> Shape:
    if sorted(attrs.axes) != list(range(len(x))):
        raise ArgumentError.of("permute", f"each axis of a {len(x)}-d tensor once", attrs.axes)
    return tuple(x[a] for a in attrs.axes)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _expand_shape(attrs: Any, x: Shape) -> Shape:
    if broadcast("expand", x, attrs.shape) != attrs.shape:
        raise ShapeError.of("expand", f"a shape that {x} broadcasts to", attrs.shape)
    shape: Shape = attrs.shape
    return shape


def _slice_shape(attrs: Any, x: Shape) -> Shape:
    for start, size, step, length in zip(attrs.starts, attrs.sizes, attrs.steps, x):
        last = start + (size - 1) * step
        if size > 0 and not (0 <= start < length and 0 <= last < length):
            raise ShapeError.of("slice", f"positions inside {x}", f"{start} to {last}")
    sizes: Shape = attrs.sizes
    return sizes


def _slice_vjp(g: Node, out: Node, x: Node) -> Node:
    starts, sizes, steps = out.attrs
    if 0 in sizes:
        return full_like(x, 0)
    if all(abs(s) == 1 for s in steps):
        if -1 in steps:
            first = tuple(n - 1 if s < 0 else 0 for n, s in zip(sizes, steps))
            g = apply("slice", g, starts=first, sizes=sizes, steps=steps)
        low = (start - (n - 1) if s < 0 else start for start, n, s in zip(starts, sizes, steps))
        padding = tuple((b, length - b - n) for b, n, length in zip(low, sizes, x.shape))
        return apply("pad", g, padding=padding, value=0.0)
    stride = row_major(x.shape)
    offset = sum(start * step for start, step in zip(starts, stride))
    return _assign(full_like(x, 0), g, tuple(a * b for a, b in zip(steps, stride)), offset)


def _assign(base: Node, value: Node, strides: tuple[int, ...], offset: int) -> Node:
    return apply("assign_view", base, value, strides=strides, offset=offset)


def _crop(x: Node, starts: tuple[int, ...], sizes: Shape) -> Node:
    return apply("slice", x, starts=starts, sizes=sizes, steps=(1,) * len(sizes))


def _pad_shape(attrs: Any, x: Shape) -> Shape:
    if len(attrs.padding) != len(x) or any(p < 0 for pair in attrs.padding for p in pair):
        raise ShapeError.of("pad", f"one pair (before, after) of at least 0 per axis of {x}", attrs.padding)
    return tuple(n + before + after for n, (before, after) in zip(x, attrs.padding))


def _cat_shape(attrs: Any, *shapes: Shape) -> Shape:
    first, axis = shapes[0], attrs.axis
    for other in shapes[1:]:
        if len(other) != len(first) or any(a != b for i, (a, b) in enumerate(zip(first, other)) if i != axis):
            got = " and ".join(map(str, shapes))
            raise ShapeError.of("cat", f"shapes that differ along axis {axis} only", got)
    return first[:axis] + (sum(s[axis] for s in shapes),) + first[axis + 1 :]


def _cat_vjp(i: int, g: Node, out: Node, *sources: Node) -> Node:
    axis = out.attrs.axis
    starts = [0] * g.ndim
    starts[axis] = sum(s.shape[axis] for s in sources[:i])
    return _crop(g, tuple(starts), sources[i].shape)


def _view_fits(op: str, count: int, shape: Shape, strides: tuple[int, ...], offset: int) -> None:
    if len(strides) != len(shape):
        raise ShapeError.of(op, f"one stride per axis of {shape}", strides)
    if math.prod(shape):
        ends = [(n - 1) * s for n, s in zip(shape, strides)]
        low, high = offset + sum(e for e in ends if e < 0), offset + sum(e for e in ends if e > 0)
        if low < 0 or high >= count:
            raise ShapeError.of(op, f"positions inside {count} elements", f"{low} to {high}")


def _strided_shape(attrs: Any, x: Shape) -> Shape:
    _view_fits("strided_view", math.prod(x), attrs.shape, attrs.strides, attrs.offset)
    shape: Shape = attrs.shape
    return shape


def _assign_shape(attrs: Any, base: Shape, value: Shape) -> Shape:
    _view_fits("assign_view", math.prod(base), value, attrs.strides, attrs.offset)
    return base


primitive(
    "reshape",
    Kind.MOVEMENT,
    1,
    "shape",
    shape=_reshape_shape,
    dtype=_same_dtype,
    vjp=(lambda g, out, x: g.reshape(x.shape),),
)
primitive(
    "permute",
    Kind.MOVEMENT,
    1,
    "axes",
    shape=_permute_shape,
    dtype=_same_dtype,
    vjp=(lambda g, out, x: g.permute(_inverse(out.attrs.axes)),),
)
primitive(
    "expand", Kind.MOVEMENT, 1, "shape", shape=_expand_shape, dtype=_same_dtype, vjp=(lambda g, out, x: g,)
)  # fmt: skip
# Output element i along an axis is source element start + i * step; steps may be negative.
primitive(
    "slice", Kind.MOVEMENT, 1, "starts sizes steps", shape=_slice_shape, dtype=_same_dtype, vjp=(_slice_vjp,)
)  # fmt: skip
primitive(
    "pad",
    Kind.MOVEMENT,
    1,
    "padding value",
    shape=_pad_shape,
    dtype=_same_dtype,
    vjp=(lambda g, out, x: _crop(g, tuple(before for before, _ in out.attrs.padding), x.shape),),
)
# A strided view of the source in row-major order; positions are all different.
primitive(
    "strided_view",
    Kind.MOVEMENT,
    1,
    "shape strides offset",
    shape=_strided_shape,
    dtype=_same_dtype,
    vjp=(lambda g, out, x: _assign(full_like(x, 0), g, out.attrs.strides, out.attrs.offset),),
)
primitive("cat", Kind.STORE, None, "axis", shape=_cat_shape, dtype=_same_dtype, vjp=_cat_vjp)


def _view_of(g: Node, out: Node, value: Node) -> Node:
    return apply("strided_view", g, shape=value.shape, strides=out.attrs.strides, offset=out.attrs.offset)


# `base` with `value` written at the positions of a strided view of it: what assignment through a view means.
primitive(
    "assign_view",
    Kind.STORE,
    2,
    "strides offset",
    shape=_assign_shape,
    dtype=_same_dtype,
    vjp=(
        lambda g, out, base, value: _assign(
            g, full(value.shape, 0, g.dtype, g.device), out.attrs.strides, out.attrs.offset
        ),
        lambda g, out, base, value: _view_of(g, out, value),
    ),
)
