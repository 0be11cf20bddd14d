"""Primitives without sources, and identities that only say something about a value."""

from __future__ import annotations

from typing import Any

from minigrad.dtypes import DType
from minigrad.errors import ShapeError
from minigrad.graph import transfer
from minigrad.primitive import Kind, primitive
from minigrad.shapes import Shape


def _length(attrs: Any) -> Shape:
    if attrs.length < 0:
        raise ShapeError.of("arange", "a length of at least 0", attrs.length)
    return (attrs.length,)


def _same(attrs: Any, x: Any) -> Any:
    return x


def _first(attrs: Any, x: Any, awaited: Any) -> Any:
    return x


def _attr_dtype(attrs: Any, *_: DType) -> DType:
    dtype: DType = attrs.dtype
    return dtype


# A value that is already in memory; only tensors make it.
primitive("buffer", Kind.CREATION, 0, shape=lambda a: (), dtype=_attr_dtype, vjp=())
# `sign` tells -0.0 from 0.0, which compare equal.
primitive("const", Kind.CREATION, 0, "value sign dtype", shape=lambda a: (), dtype=_attr_dtype, vjp=())
primitive("iota", Kind.CREATION, 0, "length dtype", shape=_length, dtype=_attr_dtype, vjp=())

# The value without its history.
primitive("detach", Kind.IDENTITY, 1, shape=_same, dtype=_same, vjp=(None,))
# Equal expressions on two sides of a barrier stay two, and what is computed from it waits for the second source (which
# may be `x` itself): so what the backward pass computes again, it computes late.
primitive("barrier", Kind.IDENTITY, 2, "token", shape=_first, dtype=_first, vjp=(lambda g, out, x, awaited: g, None))
# The value of the first source, with the derivative of a user's `Function` over the others.
primitive(
    "custom",
    Kind.IDENTITY,
    None,
    "function",
    shape=lambda a, *s: s[0],
    dtype=lambda a, *d: d[0],
    vjp=lambda i, g, out, *s: out.attrs.function.vjp(i, g, out, *s),
)
# The same value on another device; the node is on that device, its source is not.
primitive(
    "transfer",
    Kind.TRANSFER,
    1,
    "device",
    shape=_same,
    dtype=_same,
    vjp=(lambda g, out, x: transfer(g, x.device),),
)
primitive(
    "project",
    Kind.PROJECTION,
    1,
    "index shape dtype",
    shape=lambda a, s: a.shape,
    dtype=_attr_dtype,
    vjp=(lambda g, out, x: g,),
)
