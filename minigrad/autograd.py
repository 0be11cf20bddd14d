"""Reverse-mode differentiation: appends to the same graph, so derivatives of derivatives are nothing special."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.errors import GradientError
from minigrad.graph import Node, drop


def _passes(node: Node) -> bool:
    """Whether derivatives pass a node to its sources: where they were recorded, and never through integers."""
    return node.tracked and node.op.vjp is not None and node.dtype.is_float


def walk(output: Node) -> list[Node]:
    """Nodes that derivatives of ``output`` can pass, sources before users; also behind realized ones."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [output]
    while stack:
        node = stack[-1]
        if id(node) in seen:
            stack.pop()
            continue
        waiting = False
        if _passes(node):
            for source in node.sources:
                if id(source) not in seen:
                    stack.append(source)
                    waiting = True
        if not waiting:
            seen.add(id(node))
            order.append(node)
            stack.pop()
    return order


def requiring(order: Sequence[Node]) -> list[Node]:
    """Those nodes of a :func:`walk` that require a gradient, leaves or not.

    Raises:
        GradientError: if there are more behind one of them, whose graph was dropped.
    """
    found = [node for node in order if node.requires_grad]
    for node in found:
        if node.dropped is not None:
            raise _gone("backward", node)
    return found


def consume(order: Sequence[Node]) -> None:
    """Drop the graph that a :func:`walk` found: now where it is realized, elsewhere when it will be."""
    computed = [node for node in order if node.requires_grad and not node.is_leaf]
    for node in computed:
        node.consumed = True
    drop([node for node in computed if node.buffer is not None], order)


def _gone(op: str, node: Node) -> Exception:
    return GradientError.of(
        op,
        "a graph that still exists",
        f"{node!r}, whose sources were dropped when it was realized",
        "take the gradient before realizing (numpy, item, print), use requires_grad=True on the target, "
        "or backward(retain_graph=True) where backward ran before",
    )


def _may_depend(dropped: Node, targets: Sequence[Node]) -> bool:
    """Whether one of ``targets`` was, or may have been, behind a dropped node."""
    assert dropped.dropped is not None
    for origin in dropped.dropped:
        node = None if origin is None else origin()
        if any(t is node if origin else t.serial < dropped.serial for t in targets):
            return True
    return False


def gradient(output: Node, targets: Sequence[Node], seed: Node) -> list[Node | None]:
    """The vector-Jacobian products of ``seed`` with the derivative of ``output`` by each target.

    Args:
        output: the node to differentiate.
        targets: any nodes of the live graph.
        seed: a node of ``output``'s shape and dtype.

    Returns:
        One node per target, of its shape and dtype; None where ``output`` does not depend on it.

    Raises:
        GradientError: if the graph between them was dropped when part of it was realized.
    """
    order = walk(output)
    wanted = {id(t) for t in targets}
    reaches: set[int] = set()
    for node in order:
        if id(node) in wanted:
            reaches.add(id(node))
        elif node.dropped is not None and node.dtype.is_float:
            if _may_depend(node, targets):
                raise _gone("gradient", node)
        elif _passes(node):
            for source in node.sources:
                if id(source) in reaches:
                    reaches.add(id(node))
                    break
    grads: dict[int, Node] = {id(output): seed} if id(output) in reaches else {}
    for node in reversed(order):
        if id(node) not in grads:
            continue
        g = grads[id(node)] if id(node) in wanted else grads.pop(id(node))
        if not _passes(node):
            continue
        for index, source in enumerate(node.sources):
            if id(source) not in reaches:
                continue
            rule = node.op.vjp_of(index)
            if rule is None:
                continue
            term = rule(g, node, *node.sources)
            if source.op.outputs == 1:
                term = term.sum_to(source.shape)
            before = grads.get(id(source))
            grads[id(source)] = term if before is None else before + term
        if node.op.name == "custom":
            node.attrs.function.forget()
    return [grads.get(id(t)) for t in targets]
