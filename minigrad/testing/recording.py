"""Turn a lazy graph into a program: what a model, a loss or an optimizer has built can be built again on any device."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.graph import Node, toposort
from minigrad.primitive import Kind
from minigrad.testing.evaluate import read
from minigrad.testing.programs import Input, Program, Step


def record(roots: Sequence[Node]) -> Program:
    """The program that computes ``roots`` from what is in memory; nothing is computed.

    Args:
        roots: nodes on one device, not realized themselves; none is the node of several outputs.
    """
    order = toposort(roots)
    leaves = [node for node in order if node.buffer is not None]
    computed = [node for node in order if node.buffer is None]
    number = {node: n for n, node in enumerate([*leaves, *computed])}
    return Program(
        tuple(Input(read(node)) for node in leaves),
        tuple(Step(node.op.name, tuple(number[s] for s in node.sources), _attributes(node)) for node in computed),
        tuple(number[root] for root in roots),
    )


def _attributes(node: Node) -> dict[str, object]:
    """The attributes that a step has; the others follow from its sources."""
    if node.op.kind is Kind.PROJECTION:
        return {"index": node.attrs.index}
    return {} if node.op.name == "barrier" else node.attrs._asdict()
