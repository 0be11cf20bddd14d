"""Gradient checkpointing: intermediate results are computed again in the backward pass instead of being kept.

Chen et al., 2016. The graph makes it exact: what runs again is a copy of the nodes, not the function. So the function
is called once, random numbers are the same ones, and running statistics move once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import ReferenceType, ref

from minigrad import autograd
from minigrad.dtypes import DType
from minigrad.graph import Node, apply, full_like, grad_enabled, next_serial, set_grad_enabled, toposort
from minigrad.primitive import Kind, Primitive
from minigrad.shapes import Shape
from minigrad.tensor import Tensor


def checkpoint(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """``function(*args, **options)``, of whose intermediate results none is kept for the backward pass.

    They are computed again when the gradient of the result is known: memory for time. Gradients are the same, also
    those of parameters and other tensors that the function finds elsewhere; at most sums are rounded otherwise, where
    kernels are fused in another way.

    Args:
        function: returns a tensor, or a tuple or list of tensors, whose gradients are then taken one by one; it is
            called once.
        args: passed on.
        options: passed on.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: x.exp().log(), x).sum().backward()
    >>> x.grad.tolist()
    [1.0, 1.0]
    """
    if not grad_enabled():
        return function(*args, **options)
    entry = next_serial()
    result = function(*args, **options)
    if isinstance(result, (tuple, list)):
        outputs = _shielded(result, entry)
        return type(result)(*outputs) if hasattr(result, "_fields") else type(result)(outputs)
    return _shielded([result], entry)[0]


def _shielded(values: Sequence[Any], entry: int) -> list[Any]:
    """The values without the graph that made them since ``entry``: their derivatives make it again."""
    nodes = [value.node for value in values if isinstance(value, Tensor)]
    region = _Region(nodes, entry)
    return [
        Tensor.wrap(region.output(value.node)) if isinstance(value, Tensor) and region.has_made(value.node) else value
        for value in values
    ]


class _Step(NamedTuple):
    """A node to be made again; ``sources`` are numbers of values: those of the boundary, then those of the steps."""

    op: Primitive
    attrs: Any
    sources: tuple[int, ...]
    shape: Shape
    dtype: DType
    device: str
    tracked: bool


class _Region:
    """The nodes that a function made, as steps over the older nodes that they read, the boundary."""

    def __init__(self, outputs: Sequence[Node], entry: int) -> None:
        inner: dict[int, Node] = {}
        order = toposort(outputs, since=entry)
        for node in order:
            made = node.buffer is None and (node.op.kind is Kind.CREATION or node.serial > entry)
            if made and (node.op.kind is not Kind.PROJECTION or id(node.sources[0]) in inner):
                inner[id(node)] = node
        read = {id(source) for node in inner.values() for source in node.sources}
        self.boundary = [node for node in order if id(node) in read - inner.keys()]
        self.numbers = {id(node): number for number, node in enumerate([*self.boundary, *inner.values()])}
        self.steps = [
            _Step(n.op, n.attrs, tuple(self.numbers[id(s)] for s in n.sources), n.shape, n.dtype, n.device, n.tracked)
            for n in inner.values()
        ]
        self.barriers: list[ReferenceType[Node]] = []  # the last ones: outputs of one call share what is made again
        for node in inner.values():
            node.consumed = True  # no other derivative comes through here

    def has_made(self, node: Node) -> bool:
        """Whether derivatives of an output pass nodes that need not be kept."""
        return node.requires_grad and self.numbers.get(id(node), -1) >= len(self.boundary)

    def output(self, node: Node) -> Node:
        """The value of an output, over the boundary alone."""
        rule = _Rule(self, self.numbers[id(node)])
        return apply("custom", apply("detach", node), *self.boundary, function=rule)

    def again(self, number: int, boundary: Sequence[Node], g: Node) -> tuple[list[Node], list[Node]]:
        """Barriers around ``boundary`` that wait for ``g``, and all values made on them, the one of ``number`` last."""
        barriers = [b for b in (reference() for reference in self.barriers) if b is not None]
        if [b.sources[:1] for b in barriers] != [(node,) for node in boundary]:
            awaited = apply("detach", g)
            barriers = [apply("barrier", node, awaited, token=object()) for node in boundary]
            self.barriers = [ref(node) for node in barriers]
        values = list(barriers)
        for step in self.steps[: number + 1 - len(barriers)]:
            with set_grad_enabled(step.tracked):
                sources = tuple(values[s] for s in step.sources)
                values.append(Node(step.op, sources, step.attrs, step.shape, step.dtype, step.device))
        return barriers, values


class _Rule:
    """The derivative of one output: that of the region, made again."""

    def __init__(self, region: _Region, number: int) -> None:
        self.region, self.number = region, number
        self.result: tuple[Node, list[Node | None]] | None = None

    def vjp(self, index: int, g: Node, out: Node, *sources: Node) -> Node:
        """The derivative by one source: the value has none, the others are the boundary."""
        if self.result is None or self.result[0] is not g:
            barriers, values = self.region.again(self.number, sources[1:], g)
            self.result = (g, autograd.gradient(values[-1], barriers, g))
            if not grad_enabled():  # no derivative of this derivative will be asked for
                for node in values:
                    node.consumed = True
        found = self.result[1][index - 1] if index else None
        return full_like(sources[index], 0) if found is None else found

    def forget(self) -> None:
        """Let go of the gradients, when all sources have theirs."""
        self.result = None

    def saved(self) -> list[Node]:
        """Nothing is read but the sources."""
        return []
