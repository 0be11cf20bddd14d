"""Reductions (the axes become 1), running sums and sorting."""

from __future__ import annotations

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


def _prod_vjp(g: Node, out: Node, x: Node) -> Node:
    # The product of the others, also where one of them is 0.
    axes = out.attrs.axes
    zero = x.equals(0)
    rest = apply("prod", zero.where(1, x), axes=axes)
    zeros = zero.cast(x.dtype).sum(axes)
    others = zeros.equals(0).where(rest / zero.where(1, x), 0)
    at_zero = apply("bitwise_and", zero, zeros.equals(1).expand(x.shape))
    return g * at_zero.where(rest.expand(x.shape), others)


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

