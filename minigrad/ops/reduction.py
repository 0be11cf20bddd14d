"""Reductions (the axes become 1), running sums and sorting."""

from __future__ import annotations

import math
from typing import Any

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError, ShapeError
from minigrad.graph import Node, apply, project
from minigrad.ops.indexing import scatter_along
from minigrad.primitive import VJP, Domain, Kind, Rule, primitive
from minigrad.shapes import Shape


def _axes(attrs: Any) -> tuple[int, ...]:
    axes = getattr(attrs, "axes", None)
    return (attrs.axis,) if axes is None else axes


def _reduced(name: str, needs_elements: bool) -> Rule:
    def rule(attrs: Any, x: Shape) -> Shape:
        axes = _axes(attrs)
        if any(not 0 <= a < len(x) for a in axes):
            raise ShapeError.of(name, f"axes of a {len(x)}-d tensor", axes)
        if needs_elements and any(x[a] == 0 for a in axes):
            raise ShapeError.of(name, "at least one element to reduce", f"{x} over axes {axes}")
        return tuple(1 if a in axes else n for a, n in enumerate(x))

    return rule


def _numeric(name: str, allow_bool: bool) -> Rule:
    def rule(attrs: Any, x: DType) -> DType:
        if x is dtypes.bool_ and not allow_bool:
            raise DTypeError.of(name, "a numeric dtype", "bool", "cast with .to(dtype)")
        return x

    return rule


def _extremum_vjp(g: Node, out: Node, x: Node) -> Node:
    # Ties share evenly; counted in float32, since half types cannot count past 2048.
    mask = x.equals(out)
    wide = dtypes.float32 if x.dtype.is_half else x.dtype
    share = g.cast(wide) / mask.cast(wide).sum(out.attrs.axes)
    return mask.where(share.cast(x.dtype), 0)


def _shifted(x: Node, by: int) -> Node:
    """``x`` moved along its last axis by ``by`` places, to lower ones if negative; 1 where nothing arrives."""
    size = max(x.shape[-1] - abs(by), 0)
    lead, fill = x.shape[:-1], x.shape[-1] - size
    starts = (*[0] * len(lead), max(-by, 0) if size else 0)
    part = apply("slice", x, starts=starts, sizes=(*lead, size), steps=(1,) * x.ndim)
    padding = (*[(0, 0)] * len(lead), (fill, 0) if by > 0 else (0, fill))
    return apply("pad", part, padding=padding, value=1.0)


def _prod_vjp(g: Node, out: Node, x: Node) -> Node:
    # The products of the elements before and after each, by doubling steps. Without division they are right where
    # elements are 0, and polynomials: so are all further derivatives.
    axes = out.attrs.axes
    order = tuple(a for a in range(x.ndim) if a not in axes) + axes
    moved = x.permute(order)
    rows = moved.reshape((*moved.shape[: x.ndim - len(axes)], math.prod(x.shape[a] for a in axes)))
    before, after = _shifted(rows, 1), _shifted(rows, -1)
    step = 1
    while step < rows.shape[-1]:
        before, after = before * _shifted(before, step), after * _shifted(after, -step)
        step *= 2
    inverse = tuple(sorted(range(x.ndim), key=order.__getitem__))
    return g * (before * after).reshape(moved.shape).permute(inverse)


def _reduce(name: str, attrs: str, rule: Rule, vjp: VJP, needs_elements: bool, domain: Domain | None = None) -> None:
    shape = _reduced(name, needs_elements)
    primitive(name, Kind.REDUCE, 1, attrs, shape=shape, dtype=rule, vjp=(vjp,), domain=domain)


_reduce("sum", "axes", _numeric("sum", False), lambda g, out, x: g.expand(x.shape), needs_elements=False)
_reduce("prod", "axes", _numeric("prod", False), _prod_vjp, needs_elements=False)
_reduce("max", "axes", _numeric("max", True), _extremum_vjp, needs_elements=True)
_reduce("min", "axes", _numeric("min", True), _extremum_vjp, needs_elements=True)
for _name in ("argmax", "argmin"):
    _reduce(_name, "axis", lambda attrs, x: dtypes.int64, None, needs_elements=True)

primitive(
    "cumsum",
    Kind.SCAN,
    1,
    "axis reverse",
    shape=lambda attrs, x: x,
    dtype=_numeric("cumsum", False),
    vjp=(lambda g, out, x: apply("cumsum", g, axis=out.attrs.axis, reverse=not out.attrs.reverse),),
)


def _sort_vjp(g: Node, out: Node, x: Node) -> Node:
    return scatter_along(g, project(out, 1), out.attrs.axis, x.shape[out.attrs.axis])


# Stable; NaN sorts as the greatest value.
primitive(
    "sort",
    Kind.SCAN,
    1,
    "axis descending",
    shape=lambda attrs, x: (x, x),
    dtype=lambda attrs, x: (x, dtypes.int64),
    vjp=(_sort_vjp,),
    outputs=2,
)
