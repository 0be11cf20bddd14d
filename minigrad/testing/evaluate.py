"""Run a graph of nodes on the oracle, and read what a device made of it.

The oracle computes in float64. Roundings that the graph declares are applied: a half value is rounded to its dtype, a
float32 value that overflows is infinite, and a cast or a constant is what its dtype can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from minigrad import reference
from minigrad.dtypes import DType
from minigrad.errors import VerifyError
from minigrad.graph import Node, infer, toposort
from minigrad.primitive import Kind, Primitive
from minigrad.realize import realize, view_of

Array = NDArray[Any]
T = TypeVar("T")


def widen(array: Array, dtype: DType) -> Array:
    """Host data of ``dtype`` as the oracle takes it: floats as float64, integers and bools as they are."""
    return array.astype(np.float64) if dtype.is_float else np.asarray(array)


def stored(value: Array, dtype: DType) -> Array:
    """What the oracle goes on with where a node of ``dtype`` has ``value``."""
    if not dtype.is_float or dtype.itemsize == 8:
        return value
    with np.errstate(all="ignore"):
        rounded = value.astype(dtype.numpy).astype(np.float64)
    return rounded if dtype.is_half else np.where(np.isinf(rounded), rounded, value)


def meaning(op: Primitive, attrs: Any, sources: Sequence[Any]) -> Any:
    """What the oracle says that ``op`` gives: an array, or a tuple of them where there are several outputs."""
    if op.kind is Kind.TRANSFER:
        return sources[0]
    named = zip(attrs._fields, attrs)
    keywords = {name: value.numpy if isinstance(value, DType) else value for name, value in named}
    return getattr(reference, op.reference)(*sources, **keywords)


def interpret(
    roots: Sequence[Node], leaf: Callable[[Node], T], step: Callable[[Node, list[T]], T], given: Mapping[Node, T]
) -> list[T]:
    """Fold a graph from its leaves to ``roots``; nodes that are ``given`` have that value whatever they are."""
    found: dict[Node, T] = {}
    for node in toposort(roots):
        if node in given:
            found[node] = given[node]
        elif node.buffer is not None:
            found[node] = leaf(node)
        else:
            found[node] = step(node, [found[s] for s in node.sources])
    return [found[root] for root in roots]


def read(node: Node) -> Array:
    """The value of a realized node (or of a view of one), in its own dtype."""
    place = view_of(node)
    assert place is not None, f"{node!r} is not realized"
    return place[0].read(place[1], node.dtype)


def run(roots: Sequence[Node]) -> list[Array]:
    """The values that the device computes for ``roots``."""
    realize(roots)
    return [read(root) for root in roots]


def checked(node: Node, value: Any) -> Any:
    """``value`` of the oracle for ``node``, if it has the shape and the kind of dtype that the node declares.

    Raises:
        VerifyError: naming the node whose shape or dtype rule disagrees with the oracle.
    """
    shapes, kinds = infer(node.op, node.attrs, node.sources)
    several = node.op.outputs > 1
    outputs, shapes, kinds = (value, shapes, kinds) if several else ((value,), (shapes,), (kinds,))
    for output, shape, dtype in zip(outputs, shapes, kinds):
        expected = np.dtype(np.float64) if dtype.is_float else dtype.numpy
        if output.shape != shape or output.dtype != expected:
            raise VerifyError.of(f"the oracle of {node!r}", f"{expected} {shape}", f"{output.dtype} {output.shape}")
    rounded = tuple(stored(output, dtype) for output, dtype in zip(outputs, kinds))
    return rounded if several else rounded[0]


def evaluate(roots: Sequence[Node], given: Mapping[Node, Array] | None = None) -> list[Array]:
    """The oracle's values of ``roots``; floats are float64.

    Args:
        roots: nodes of a graph that is not realized yet: what is in memory counts as given.
        given: other values (float64 where floating) for some nodes.

    Raises:
        VerifyError: if a shape or dtype rule disagrees with the oracle.
    """

    def step(node: Node, sources: list[Any]) -> Any:
        return checked(node, meaning(node.op, node.attrs, sources))

    return interpret(roots, lambda node: widen(read(node), node.dtype), step, given or {})
