"""Laws: two ways to one value must agree, whatever the oracle makes of either; it only says how far each may be off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad.graph import Node
from minigrad.testing.bounds import Bounded, beside_oracle, compare
from minigrad.testing.checks import Tally
from minigrad.testing.evaluate import widen


def measured(nodes: Sequence[Node]) -> list[Bounded]:
    """What a device computes for ``nodes``, floats as float64, and how far that may be from what is right."""
    return [Bounded(widen(a, n.dtype), b.error) for a, b, n in beside_oracle(nodes)]


def check_alike(nodes: Sequence[Node], others: Sequence[Bounded], what: str) -> Tally:
    """Assert that what a device computes for ``nodes`` are ``others``: within both bounds, or equal where both are 0.

    Args:
        nodes: not realized yet.
        others: the same values by another way: what :func:`measured` gave, perhaps changed by arithmetic.
        what: the law, for the message.
    """
    tally = Tally()
    for n, ((got, bound, node), other) in enumerate(zip(beside_oracle(nodes), others, strict=True)):
        together = Bounded(other.value, np.broadcast_to(bound.error + other.error, got.shape))
        tally.add(compare(got, together, node.dtype, f"{what}, result {n}"))
    return tally
