"""Programs: a few inputs and a list of primitives over them, that can be built again and again as a graph.

A program is data: it prints as a Python script that builds it, it can be built on any device, or on none, and each
build gives fresh nodes. A test of one primitive is a program of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minigrad import device as devices
from minigrad import dtypes
from minigrad.autograd import gradient
from minigrad.buffer import Buffer
from minigrad.dtypes import DType
from minigrad.graph import Node, apply, create, leaf, project, set_grad_enabled
from minigrad.primitive import TABLE, Kind
from minigrad.testing.evaluate import Array
from minigrad.testing.script import script


class Layout(NamedTuple):
    """How the elements of a tensor lie in a larger buffer; empty fields mean: as they are.

    Attributes:
        axes: the axes of the buffer in the order of the tensor's.
        steps: per tensor axis, the distance of neighbours; negative runs backwards; 0 repeats one element.
        margins: per tensor axis, elements of the buffer before and after, which nobody may read or write.
        order: the order in which the buffer's axes lie in memory, outermost first.
    """

    axes: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    margins: tuple[tuple[int, int], ...] = ()
    order: tuple[int, ...] = ()


def sentinel(dtype: DType) -> Any:
    """What fills a buffer around a tensor: a value that shows when it is read."""
    return np.nan if dtype.is_float else True if dtype.kind == "b" else int(dtype.max) - 1


class Input(NamedTuple):
    """A tensor given to a program: its elements, and how they lie in memory; ``made`` prints instead of too many."""

    array: Array
    layout: Layout = Layout()
    made: str = ""

    @property
    def dtype(self) -> DType:
        """The element type."""
        return dtypes.as_dtype(self.array.dtype)

    def buffer(self) -> Array:
        """The whole buffer as it is before the program, axes in the buffer's order."""
        array, layout = self.array, self.layout
        if not layout.steps:
            return array
        once = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in layout.steps)]
        spans = [max((n - 1) * abs(s), 0) + (n > 0) for n, s in zip(once.shape, layout.steps)]
        whole = np.full([a + n + b for n, (a, b) in zip(spans, layout.margins)], sentinel(self.dtype), array.dtype)
        inner = tuple(slice(a, a + n, max(abs(s), 1)) for n, s, (a, _) in zip(spans, layout.steps, layout.margins))
        whole[inner] = np.flip(once, tuple(axis for axis, s in enumerate(layout.steps) if s < 0))
        return np.array(whole.transpose(np.argsort(layout.axes)), order="C")

    def node(self, base: Node) -> Node:
        """This tensor as a view of its buffer's node."""
        layout = self.layout
        if not layout.steps:
            return base
        node = base.permute(layout.axes)
        sizes = tuple(1 if s == 0 else n for n, s in zip(self.array.shape, layout.steps))
        ends = (max(n - 1, 0) * -s if s < 0 else 0 for n, s in zip(sizes, layout.steps))
        starts = tuple(before + end for end, (before, _) in zip(ends, layout.margins))
        steps = tuple(s or 1 for s in layout.steps)
        return apply("slice", node, starts=starts, sizes=sizes, steps=steps).expand(self.array.shape)


class Step(NamedTuple):
    """One primitive; ``sources`` are values of the program: its inputs, then the results of its steps."""

    op: str
    sources: tuple[int, ...] = ()
    attrs: Mapping[str, Any] = {}

    def node(self, values: list[Node], device: str) -> Node:
        """The step's node over those of the values before."""
        if self.op == "barrier":  # a token says nothing but that it is its own
            return apply("barrier", *(values[s] for s in self.sources), token=object())
        if self.op == "project":
            return project(values[self.sources[0]], self.attrs["index"])
        if TABLE[self.op].kind is Kind.CREATION:
            return create(self.op, device, **self.attrs)
        return apply(self.op, *(values[s] for s in self.sources), **self.attrs)


class Built(NamedTuple):
    """A program as a graph: the nodes of its inputs' buffers, of all its values, and of its results."""

    buffers: list[Node]
    values: list[Node]
    results: list[Node]


MakeLeaf = Callable[[Array, DType, tuple[int, ...]], Node]


def on(device: str) -> MakeLeaf:
    """Makes leaves in memory of ``device``."""
    opened = devices.get(device)

    def make(array: Array, dtype: DType, order: tuple[int, ...]) -> Node:
        return leaf(Buffer.of(opened, array, order), array.shape, dtype, device)

    return make


class _NoMemory(NamedTuple):
    order: tuple[int, ...]


def nowhere(array: Array, dtype: DType, order: tuple[int, ...]) -> Node:
    """Makes leaves that are scheduled like any other but cannot be read: for tests without a device."""
    return leaf(_NoMemory(order), array.shape, dtype, "nowhere")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Program:
    """Inputs, steps, and which values are its results.

    Attributes:
        inputs: the tensors given.
        steps: primitives in an order in which they can run.
        results: the values asked for.
        realized: values that are computed as soon as they are made.
        gradients: whether the gradients of the float results by the float inputs are asked for too.
    """

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    realized: frozenset[int] = field(default_factory=frozenset)
    gradients: bool = False

    def build(
        self, make: MakeLeaf, realize: Callable[[list[Node]], object] | None = None, every: bool = False
    ) -> Built:
        """Fresh nodes of the program.

        Args:
            make: where the inputs are: :func:`on` a device or :func:`nowhere`.
            realize: called with each value of ``realized`` when it is made.
            every: call it with every value.
        """
        buffers = [make(i.buffer(), i.dtype, i.layout.order) for i in self.inputs]
        for node in buffers:
            node.requires_grad = self.gradients and node.dtype.is_float
        values = [given.node(base) for given, base in zip(self.inputs, buffers)]
        device = buffers[0].device if buffers else make(np.zeros(1, np.float32), dtypes.float32, ()).device
        for number, step in enumerate(self.steps, len(values)):
            values.append(step.node(values, device))
            if realize is not None and (every or number in self.realized) and values[-1].op.outputs == 1:
                realize([values[-1]])
        return Built(buffers, values, [values[r] for r in self.results])

    def __repr__(self) -> str:
        return "\n" + self.script()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # for Hypothesis, which prints dataclasses by itself

    def script(self) -> str:
        """The program as Python that builds it and prints its results."""
        return script(self)


def one_step(op: str, inputs: tuple[Input, ...], attrs: Mapping[str, Any]) -> Program:
    """The program of one primitive; where that has several outputs, each is a result."""
    here, outputs = len(inputs), TABLE[op].outputs
    steps = [Step(op, tuple(range(here)), attrs)]
    if outputs == 1:
        return Program(inputs, tuple(steps), (here,))
    steps += [Step("project", (here,), {"index": n}) for n in range(outputs)]
    return Program(inputs, tuple(steps), tuple(here + 1 + n for n in range(outputs)))


def outcomes(program: Program, built: Built) -> list[Node]:
    """What a program asks for: its results and, with ``gradients``, those of half their squares by the float inputs."""
    if not program.gradients:
        return built.results
    targets = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    totals: list[Node | None] = [None] * len(targets)
    with set_grad_enabled(False):
        for result in built.results:
            if result.dtype.is_float:
                for n, g in enumerate(gradient(result, targets, result)):
                    before = totals[n]
                    totals[n] = g if before is None or g is None else before + g
    return [*built.results, *(g for g in totals if g is not None)]
