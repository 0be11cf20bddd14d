"""What a primitive is, and the one registry of them.

A row says everything about one primitive side by side: its name, what kind it is, how many sources it takes, its
attributes, its shape and dtype rules, its vector-Jacobian products, the function of :mod:`minigrad.reference` that is
its meaning, and the inputs that tests may draw. The rows stand in :mod:`minigrad.ops`, one file per family.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

Rule = Callable[..., Any]
VJP = Callable[..., Any] | None


class Kind(Enum):
    """The families of primitives, as far as the scheduler tells them apart."""

    CREATION = "creation"  # no sources: the value follows from the attributes
    ELEMENTWISE = "elementwise"  # output element i depends on the sources' elements i, broadcast
    MOVEMENT = "movement"  # output element i is one source element, or padding
    STORE = "store"  # sources are stored through views of one output
    REDUCE = "reduce"  # axes become 1
    SCAN = "scan"
    INDEX = "index"  # positions come from data
    CONTRACTION = "contraction"
    WINDOW = "window"
    IDENTITY = "identity"  # the value is the first source; something else is said about it
    TRANSFER = "transfer"  # between devices
    PROJECTION = "projection"  # one output of a primitive that has several


@dataclass(frozen=True)
class Domain:
    """Inputs on which a primitive is defined and, away from its kinks, differentiable.

    ``low`` and ``high`` bound every source; ``nonzero`` names the sources that stay away from 0; ``kinks`` are the
    values around which no derivative is tested.
    """

    low: float = -3.0
    high: float = 3.0
    nonzero: tuple[int, ...] = ()
    kinks: tuple[float, ...] = ()


def element_count(attrs: Any, out: tuple[int, ...], *shapes: tuple[int, ...]) -> int:
    """The default cost: one operation per element of the larger of output and sources."""
    return max(map(math.prod, (out, *shapes)))


@dataclass(frozen=True, eq=False)
class Primitive:
    """One row of the table. Compared by identity; ``repr`` is its name.

    Attributes:
        name: the name by which :func:`minigrad.graph.apply` finds it.
        kind: its family.
        arity: number of sources; None for any number of at least one.
        attrs: the named-tuple class of its attributes.
        shape: ``shape(attrs, *source_shapes)``, a shape or, with several outputs, a tuple of shapes.
        dtype: ``dtype(attrs, *source_dtypes)``, likewise.
        vjp: one entry per source, ``f(g, out, *sources) -> Node`` or None where there is no derivative; a single
            ``f(i, g, out, *sources)`` where the arity is free. Output 0 alone is differentiable. A result may have the
            broadcast shape: the backward pass sums it back.
        reference: the function of :mod:`minigrad.reference` that defines the value.
        domain: the inputs that tests draw.
        outputs: number of outputs; those of a primitive with several are read through ``project``.
        flops: ``flops(attrs, out_shape, *source_shapes)``, floating-point operations.
    """

    name: str
    kind: Kind
    arity: int | None
    attrs: Any
    shape: Rule
    dtype: Rule
    vjp: tuple[VJP, ...] | VJP  # None: no derivative at all
    reference: str
    domain: Domain
    outputs: int = 1
    flops: Rule = element_count

    def __repr__(self) -> str:
        return self.name

    def vjp_of(self, source: int) -> VJP:
        """The derivative rule for one source, as ``f(g, out, *sources)``; None where there is none."""
        if isinstance(self.vjp, tuple):
            return self.vjp[source]
        if self.vjp is None:
            return None
        rule = self.vjp
        return lambda g, out, *sources: rule(source, g, out, *sources)


TABLE: dict[str, Primitive] = {}


@cache
def _attrs_class(names: str) -> Any:
    """One class for all rows with the same attributes: making one takes longer than reading a row."""
    return namedtuple("Attributes", names)


def primitive(
    name: str,
    kind: Kind,
    arity: int | None,
    attrs: str = "",
    *,
    shape: Rule,
    dtype: Rule,
    vjp: tuple[VJP, ...] | VJP,
    reference: str | None = None,
    domain: Domain | None = None,
    outputs: int = 1,
    flops: Rule = element_count,
) -> Primitive:
    """Add one row to the table; ``attrs`` names the attributes, separated by spaces."""
    assert name not in TABLE, f"primitive {name} has two rows"
    assert not isinstance(vjp, tuple) or len(vjp) == arity, f"primitive {name}: one VJP per source"
    if isinstance(vjp, tuple) and not any(vjp):
        vjp = None
    row = Primitive(
        name, kind, arity, _attrs_class(attrs), shape, dtype, vjp, reference or name, domain or Domain(), outputs, flops
    )
    TABLE[name] = row
    return row
