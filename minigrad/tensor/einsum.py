"""Einstein summation: the notation, and how it becomes matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigrad.errors import ArgumentError, ShapeError
from minigrad.graph import Node, apply
from minigrad.mode import lowered
from minigrad.shapes import Shape, row_major

Labels = tuple[str, ...]  # one per axis: a letter, or "...k" for the k-th axis from the right that an ellipsis covers


def parse(equation: str, shapes: Sequence[Shape]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the output.

    >>> parse("...i,i", [(2, 3), (3,)])
    ([('...1', 'i'), ('i',)], ('...1',))

    Raises:
        ArgumentError: for an equation that is malformed or does not fit the operands.
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(shapes):
        raise ArgumentError.of("einsum", f"one term per operand, {len(shapes)}", repr(equation))
    labels, covered = [], 0
    for term, shape in zip(terms, shapes):
        spelled = len(term.replace("...", "", 1))
        extra = len(shape) - spelled if "..." in term else 0
        if extra < 0 or spelled + extra != len(shape):
            raise ArgumentError.of("einsum", f"a letter for each axis of {shape}", f"{term!r} in {equation!r}")
        covered = max(covered, extra)
        labels.append(_labels(equation, term, extra))
    seen = [label for term in labels for label in term]
    if arrow:
        result = _labels(equation, output, covered if "..." in output else 0)
        if len(set(result)) != len(result) or not set(result) <= set(seen):
            raise ArgumentError.of("einsum", "output letters that differ and occur in the input", repr(equation))
    else:
        letters = sorted(label for label in set(seen) if len(label) == 1 and seen.count(label) == 1)
        result = (*_labels(equation, "...", covered), *letters)
    return labels, result


def _labels(equation: str, term: str, extra: int) -> Labels:
    before, ellipsis, after = term.partition("...")
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise ArgumentError.of("einsum", "letters, commas, at most one '...' in each term and one '->'", repr(equation))
    return (*before, *(f"...{k}" for k in range(extra, 0, -1) if ellipsis), *after)


def contract(operands: Sequence[Node], terms: Sequence[Labels], output: Labels) -> Node:
    """The sum that the labels say, pair by pair from the left."""
    sizes: dict[str, int] = {}
    for node, term in zip(operands, terms):
        for label, size in zip(term, node.shape):
            known = sizes.setdefault(label, size)
            if size != known and 1 not in (size, known):
                name = label if len(label) == 1 else "..."
                raise ShapeError.of("einsum", f"one size for each letter, {known} for {name!r}", size)
            sizes[label] = size if known == 1 else known
    result, labels = _summed(*_diagonal(operands[0], terms[0]), {*output}.union(*terms[1:]))
    for i in range(1, len(operands)):
        later = {*output}.union(*terms[i + 1 :])
        node, term = _summed(*_diagonal(operands[i], terms[i]), later | {*labels})
        result, labels = _summed(result, labels, later | {*term})
        result, labels = _pair(result, labels, node, term, later, sizes)
    result, labels = _summed(result, labels, {*output})
    return result.permute(tuple(labels.index(label) for label in output))


def _diagonal(node: Node, labels: Labels) -> tuple[Node, Labels]:
    """Axes of one label become one: their diagonal."""
    if len(set(labels)) == len(labels):
        return node, labels
    sizes: dict[str, int] = {}
    strides: dict[str, int] = {}
    for label, size, stride in zip(labels, node.shape, row_major(node.shape)):
        if sizes.setdefault(label, size) != size:
            raise ShapeError.of("einsum", f"one size for each letter, {sizes[label]} for {label!r}", size)
        strides[label] = strides.get(label, 0) + stride
    shape = tuple(sizes.values())
    return apply("strided_view", node, shape=shape, strides=tuple(strides.values()), offset=0), tuple(sizes)


def _summed(node: Node, labels: Labels, keep: set[str]) -> tuple[Node, Labels]:
    """Without the axes whose label nobody else needs."""
    gone = tuple(axis for axis, label in enumerate(labels) if label not in keep)
    if not gone:
        return node, labels
    kept = [axis for axis in range(node.ndim) if axis not in gone]
    return node.sum(gone).reshape(tuple(node.shape[a] for a in kept)), tuple(labels[a] for a in kept)


def _pair(
    a: Node, a_labels: Labels, b: Node, b_labels: Labels, later: set[str], sizes: dict[str, int]
) -> tuple[Node, Labels]:
    """Two operands as one: a matrix product where both have axes of their own, else multiplied and summed."""
    shared = [label for label in a_labels if label in b_labels]
    batch = [label for label in shared if label in later]
    inner = [label for label in shared if label not in later]
    rows = [label for label in a_labels if label not in shared]
    columns = [label for label in b_labels if label not in shared]
    if inner and (rows or columns):
        lead = [batch] if batch else []
        left = _grouped(a, a_labels, [*lead, rows, inner], sizes)
        right = _grouped(b, b_labels, [*lead, inner, columns], sizes)
        out = (*batch, *rows, *columns)
        return apply("matmul", *lowered(left, right)).reshape(tuple(sizes[label] for label in out)), out
    labels = (*batch, *rows, *columns, *inner)
    product = _aligned(a, a_labels, labels) * _aligned(b, b_labels, labels)
    return _summed(product, labels, {*batch, *rows, *columns})


def _grouped(node: Node, labels: Labels, groups: list[list[str]], sizes: dict[str, int]) -> Node:
    """One axis per group of labels; sizes of 1 broadcast."""
    order = [label for group in groups for label in group]
    node = node.permute(tuple(labels.index(label) for label in order))
    node = node.expand(tuple(sizes[label] for label in order))
    return node.reshape(tuple(math.prod(sizes[label] for label in group) for group in groups))


def _aligned(node: Node, labels: Labels, order: Labels) -> Node:
    """Axes in ``order``, those that the node lacks with size 1."""
    own = [label for label in order if label in labels]
    node = node.permute(tuple(labels.index(label) for label in own))
    sizes = dict(zip(own, node.shape))
    return node.reshape(tuple(sizes.get(label, 1) for label in order))
