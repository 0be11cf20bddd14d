"""Pooling over sliding windows: maximum with its gather and scatter, average with its adjoint."""

from __future__ import annotations

import math
from typing import Any

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError, ShapeError
from minigrad.graph import Node, apply, project
from minigrad.primitive import Kind, primitive
from minigrad.shapes import Shape, Window


def tap_dtype(window: Window) -> DType:
    """The dtype of an index into a window: one byte where that is enough."""
    return dtypes.uint8 if math.prod(window.kernel) <= 256 else dtypes.int32


def _pooled(op: str, window: Window, x: Shape) -> Shape:
    if len(x) != window.rank + 2:
        raise ShapeError.of(op, f"an input of {window.rank + 2} dimensions (N, C, {window.rank} spatial)", x)
    if any(2 * max(pair) > extent for pair, extent in zip(window.padding, map(window.extent, range(window.rank)))):
        got = f"padding {window.padding}, window {window.kernel}"
        raise ShapeError.of(op, "padding of at most half the window", got)
    return (*x[:2], *window.output_size(op, x[2:]))


def _max_pool_shape(attrs: Any, x: Shape) -> tuple[Shape, Shape]:
    out = _pooled(f"max_pool{attrs.window.rank}d", attrs.window, x)
    return out, out


def _gather_shape(attrs: Any, x: Shape, taps: Shape) -> Shape:
    out = _pooled("window_gather", attrs.window, x)
    if taps != out:
        raise ShapeError.of("window_gather", f"indices of shape {out}", taps)
    return out


def _scatter_shape(attrs: Any, g: Shape, taps: Shape) -> Shape:
    x = (*g[:2], *attrs.spatial)
    pooled = _pooled("window_scatter", attrs.window, x)
    if g != taps or pooled != g:
        raise ShapeError.of("window_scatter", f"values and indices of shape {pooled}", f"{g}, {taps}")
    return x


def _taps_dtype(attrs: Any, x: DType, taps: DType) -> DType:
    if taps is not tap_dtype(attrs.window):
        raise DTypeError.of("window", f"{tap_dtype(attrs.window).name} indices", taps.name)
    return x


def _scatter(g: Node, taps: Node, window: Window, spatial: Shape) -> Node:
    return apply("window_scatter", g, taps, window=window, spatial=spatial)


def _float_only(attrs: Any, x: DType) -> DType:
    if not x.is_float:
        raise DTypeError.of("avg_pool", "a floating dtype", x.name, "cast with .float()")
    return x


# Values, and which tap of its window each came from: the first maximum; NaN wins; padding never does.
primitive(
    "max_pool",
    Kind.WINDOW,
    1,
    "window",
    shape=_max_pool_shape,
    dtype=lambda attrs, x: (x, tap_dtype(attrs.window)),
    vjp=(lambda g, out, x: _scatter(g, project(out, 1), out.attrs.window, x.shape[2:]),),
    outputs=2,
    flops=lambda attrs, out, x: math.prod(out) * math.prod(attrs.window.kernel),
)
# out[n,c,o] = x at tap taps[n,c,o] of window o; its adjoint adds there.
primitive(
    "window_gather",
    Kind.WINDOW,
    2,
    "window",
    shape=_gather_shape,
    dtype=_taps_dtype,
    vjp=(lambda g, out, x, taps: _scatter(g, taps, out.attrs.window, x.shape[2:]), None),
)
primitive(
    "window_scatter",
    Kind.WINDOW,
    2,
    "window spatial",
    shape=_scatter_shape,
    dtype=_taps_dtype,
    vjp=(lambda g, out, y, taps: apply("window_gather", g, taps, window=out.attrs.window), None),
)
primitive(
    "avg_pool",
    Kind.WINDOW,
    1,
    "window count_include_pad",
    shape=lambda attrs, x: _pooled(f"avg_pool{attrs.window.rank}d", attrs.window, x),
    dtype=_float_only,
    vjp=(lambda g, out, x: apply("avg_pool_grad", g, **out.attrs._asdict(), spatial=x.shape[2:]),),
    flops=lambda attrs, out, x: math.prod(out) * math.prod(attrs.window.kernel),
)


def _avg_grad_shape(attrs: Any, g: Shape) -> Shape:
    x = (*g[:2], *attrs.spatial)
    if _pooled("avg_pool_grad", attrs.window, x) != g:
        raise ShapeError.of("avg_pool_grad", f"a gradient of shape {_pooled('', attrs.window, x)}", g)
    return x


primitive(
    "avg_pool_grad",
    Kind.WINDOW,
    1,
    "window count_include_pad spatial",
    shape=_avg_grad_shape,
    dtype=_float_only,
    vjp=(
        lambda g, out, y: apply("avg_pool", g, window=out.attrs.window, count_include_pad=out.attrs.count_include_pad),
    ),
    flops=lambda attrs, out, g: math.prod(g) * math.prod(attrs.window.kernel),
)
