"""Elementwise primitives. Sources broadcast; derivatives are of the broadcast shape and summed back by autograd."""

from __future__ import annotations

import math
from typing import Any

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError
from minigrad.graph import Node, apply, full_like
from minigrad.primitive import VJP, Domain, Kind, Rule, primitive
from minigrad.shapes import Shape, broadcast


def _dtype(name: str, allowed: str, result: DType | None = None) -> Rule:
    """All sources of one dtype, of a kind among ``allowed`` (b, i, u, f); the result has it too, unless given."""
    words = {"b": "bool", "i": "signed", "u": "unsigned", "f": "floating"}

    def rule(attrs: Any, *kinds: DType) -> DType:
        first = kinds[0]
        if any(k is not first for k in kinds):
            raise DTypeError.of(name, "one dtype", " and ".join(k.name for k in kinds), "cast one of them")
        if first.kind not in allowed:
            expected = "a " + " or ".join(words[k] for k in allowed) + " dtype"
            raise DTypeError.of(name, expected, first.name, "cast with .to(dtype) or .float()")
        return result or first

    return rule


def _elementwise(
    name: str,
    arity: int,
    vjp: tuple[VJP, ...],
    allowed: str = "iuf",
    result: DType | None = None,
    domain: Domain | None = None,
) -> None:
    def shape(attrs: Any, *shapes: Shape) -> Shape:
        return shapes[0] if len(shapes) == 1 else broadcast(name, *shapes)

    rule = _dtype(name, allowed, result)
    primitive(name, Kind.ELEMENTWISE, arity, shape=shape, dtype=rule, vjp=vjp, domain=domain)


def _zeros(g: Node, out: Node, *_: Node) -> Node:
    return full_like(g, 0)


def _f(name: str, *sources: Node) -> Node:
    return apply(name, *sources)


# The value in memory of its own.
_elementwise("copy", 1, (lambda g, out, x: g,), "biuf")

# One source: name, arity, derivative.
_elementwise("neg", 1, (lambda g, out, x: -g,))
_elementwise("abs", 1, (lambda g, out, x: g * _f("sign", x),), domain=Domain(kinks=(0.0,)))
_elementwise("sign", 1, (_zeros,), domain=Domain(kinks=(0.0,)))
_elementwise("exp", 1, (lambda g, out, x: g * out,), "f")
_elementwise("expm1", 1, (lambda g, out, x: g * (out + 1),), "f")
_elementwise("log", 1, (lambda g, out, x: g / x,), "f", domain=Domain(0.1, 5.0))
_elementwise("log1p", 1, (lambda g, out, x: g / (x + 1),), "f", domain=Domain(-0.8, 5.0))
_elementwise("sqrt", 1, (lambda g, out, x: g / (out * 2),), "f", domain=Domain(0.1, 5.0))
_elementwise("rsqrt", 1, (lambda g, out, x: g * out * out * out * -0.5,), "f", domain=Domain(0.1, 5.0))
_elementwise("reciprocal", 1, (lambda g, out, x: -(g * out * out),), "f", domain=Domain(nonzero=(0,)))
_elementwise("sin", 1, (lambda g, out, x: g * _f("cos", x),), "f")
_elementwise("cos", 1, (lambda g, out, x: -(g * _f("sin", x)),), "f")
_elementwise("tanh", 1, (lambda g, out, x: g * (1 - out * out),), "f")
_elementwise("erf", 1, (lambda g, out, x: g * _f("exp", -(x * x)) * (2 / math.sqrt(math.pi)),), "f")
_elementwise("sigmoid", 1, (lambda g, out, x: g * (out * (1 - out)),), "f")
# Reads the output, not the input, so that the pre-activation need not be kept; NaN passes the gradient on.
_elementwise("relu", 1, (lambda g, out, x: (out <= 0).where(0, g),), domain=Domain(kinks=(0.0,)))
for _name in ("floor", "ceil", "trunc", "round"):
    _elementwise(_name, 1, (_zeros,), "f", domain=Domain(kinks=tuple(k / 2 for k in range(-6, 7))))
_elementwise("isnan", 1, (None,), "f", dtypes.bool_)
_elementwise("isfinite", 1, (None,), "f", dtypes.bool_)
_elementwise("logical_not", 1, (None,), "b")
_elementwise("bitwise_not", 1, (None,), "iu")


def _half_at_tie(g: Node, mine: Node, other: Node, wins: Node) -> Node:
    return mine.equals(other).where(g * 0.5, wins.where(g, 0))


# Two sources.
_elementwise("add", 2, (lambda g, out, x, y: g, lambda g, out, x, y: g))
_elementwise("sub", 2, (lambda g, out, x, y: g, lambda g, out, x, y: -g))
_elementwise("mul", 2, (lambda g, out, x, y: g * y, lambda g, out, x, y: g * x))
_elementwise(
    "div", 2, (lambda g, out, x, y: g / y, lambda g, out, x, y: -(g * out / y)), "f", domain=Domain(nonzero=(1,))
)
_elementwise("floordiv", 2, (_zeros, _zeros), domain=Domain(nonzero=(1,)))
_elementwise(
    "mod",
    2,
    (lambda g, out, x, y: g, lambda g, out, x, y: -(g * _f("floor", x / y))),
    domain=Domain(nonzero=(1,)),
)
_elementwise(
    "pow",
    2,
    (
        lambda g, out, x, y: y.equals(0).where(0, g * y * _f("pow", x, y - 1)),
        lambda g, out, x, y: x.equals(0).where(0, g * out * _f("log", x)),
    ),
    domain=Domain(0.2, 2.5),
)
_elementwise(
    "maximum",
    2,
    (
        lambda g, out, x, y: _half_at_tie(g, x, y, y < x),
        lambda g, out, x, y: _half_at_tie(g, x, y, x < y),
    ),
)
_elementwise(
    "minimum",
    2,
    (
        lambda g, out, x, y: _half_at_tie(g, x, y, x < y),
        lambda g, out, x, y: _half_at_tie(g, x, y, y < x),
    ),
)
_elementwise(
    "atan2",
    2,
    (
        lambda g, out, y, x: g * x / (x * x + y * y),
        lambda g, out, y, x: -(g * y / (x * x + y * y)),
    ),
    "f",
    domain=Domain(nonzero=(0, 1)),
)
for _name in ("lt", "le", "eq", "ne"):
    _elementwise(_name, 2, (None, None), "biuf", dtypes.bool_)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    _elementwise(_name, 2, (None, None), "biu")
for _name in ("shift_left", "shift_right"):
    _elementwise(_name, 2, (None, None), "iu", domain=Domain(0, 6))


def _where_dtype(attrs: Any, condition: DType, yes: DType, no: DType) -> DType:
    if condition is not dtypes.bool_ or yes is not no:
        got = f"{condition.name}, {yes.name}, {no.name}"
        raise DTypeError.of("where", "a bool condition and two values of one dtype", got)
    return yes


primitive(
    "where",
    Kind.ELEMENTWISE,
    3,
    shape=lambda attrs, *shapes: broadcast("where", *shapes),
    dtype=_where_dtype,
    vjp=(None, lambda g, out, c, x, y: c.where(g, 0), lambda g, out, c, x, y: c.where(0, g)),
)
primitive(
    "cast",
    Kind.ELEMENTWISE,
    1,
    "dtype",
    shape=lambda attrs, x: x,
    dtype=lambda attrs, x: attrs.dtype,
    vjp=(lambda g, out, x: g.cast(x.dtype),),
)


def _threefry_dtype(attrs: Any, *kinds: DType) -> DType:
    if any(k is not dtypes.uint32 for k in kinds):
        raise DTypeError.of("threefry", "four uint32 words", ", ".join(k.name for k in kinds))
    return dtypes.uint32


# First output word of Threefry-2x32 with 20 rounds, key (k0, k1) and counter (c0, c1).
# J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
primitive(
    "threefry",
    Kind.ELEMENTWISE,
    4,
    shape=lambda attrs, *shapes: broadcast("threefry", *shapes),
    dtype=_threefry_dtype,
    vjp=(None,) * 4,
    domain=Domain(0, 2**32 - 1),
)
