"""From nodes to values: the graph with equal expressions shared, and the rewrites that make it smaller.

A :class:`Value` is a node by structure: it names its sources by number. Numbers are given out once per structure, so
equal expressions get equal numbers (common subexpressions are shared by construction) and the number of a root is a
key for everything that follows from its graph.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigrad.dtypes import DType
from minigrad.graph import Node
from minigrad.primitive import TABLE, Kind, Primitive
from minigrad.shapes import Shape


class Value(NamedTuple):
    """A node by structure; ``attrs`` of a ``buffer`` value are its position among the inputs and its axis order."""

    op: Primitive
    attrs: Any
    sources: tuple[int, ...]
    shape: Shape
    dtype: DType


BUFFER, CONST, EXPAND, BARRIER = TABLE["buffer"], TABLE["const"], TABLE["expand"], TABLE["barrier"]
_MANY = 1_000_000  # structures that are remembered
_numbers: dict[Value, int] = {}
_values: dict[int, Value] = {}
_next_number = itertools.count().__next__  # never given out twice: compiled graphs are remembered by number


class Linear(NamedTuple):
    """A graph as numbers: what ``linearize`` returns."""

    numbers: dict[int, int]  # id(node) -> number
    nodes: list[Node]  # visited nodes, sources before users
    inputs: list[Node]  # realized nodes, by their position among the inputs


def linearize(order: Iterable[Node]) -> Linear:
    """Number the nodes of a topologically sorted graph. The caller holds the lock of the device."""
    if len(_values) > _MANY:  # structures never seen again pile up: start over
        _values.clear()
        _numbers.clear()
    numbers: dict[int, int] = {}
    nodes: list[Node] = []
    inputs: list[Node] = []
    barriers = 0
    for node in order:
        op = node.op
        if node.buffer is not None:
            value = Value(BUFFER, (len(inputs), node.buffer.order), (), node.shape, node.dtype)
            inputs.append(node)
        elif op.kind is Kind.IDENTITY and op is not BARRIER:
            numbers[id(node)] = numbers[id(node.sources[0])]
            nodes.append(node)
            continue
        else:
            attrs = node.attrs
            if op is BARRIER:  # tokens are unique; by order of appearance they repeat from step to step
                attrs, barriers = (barriers,), barriers + 1
            value = Value(op, attrs, tuple([numbers[id(s)] for s in node.sources]), node.shape, node.dtype)
        number = _numbers.get(value)
        if number is None:
            number = _numbers[value] = _next_number()
            _values[number] = value
        numbers[id(node)] = number
        nodes.append(node)
    return Linear(numbers, nodes, inputs)


class Graph:
    """Values in topological order, numbered from 0, made smaller as they are added."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._known: dict[Value, int] = {}

    def add(self, value: Value) -> int:
        """The number of ``value`` or of something equal and simpler."""
        for rule in _RULES:
            found = rule(self, value)
            if found is not None:
                return found
        return self.keep(value)

    def keep(self, value: Value) -> int:
        """The number of exactly ``value``."""
        number = self._known.get(value)
        if number is None:
            number = self._known[value] = len(self.values)
            self.values.append(value)
        return number

    def scalar(self, number: int) -> Any | None:
        """The Python scalar that every element of a value is, if that is known."""
        value = self.values[number]
        while value.op is EXPAND:
            value = self.values[value.sources[0]]
        return value.attrs.value if value.op is CONST else None

    def constant(self, scalar: Any, dtype: DType, shape: Shape) -> int:
        """A constant of ``shape``."""
        scalar = float(scalar) if dtype.is_float else bool(scalar) if dtype.kind == "b" else int(scalar)
        if scalar != scalar:
            scalar = math.nan
        attrs = CONST.attrs(value=scalar, sign=math.copysign(1.0, scalar), dtype=dtype)
        number = self.keep(Value(CONST, attrs, (), (), dtype))
        return number if shape == () else self.keep(Value(EXPAND, EXPAND.attrs(shape=shape), (number,), shape, dtype))

    def expanded(self, number: int, shape: Shape) -> int:
        """A value broadcast to ``shape``."""
        value = self.values[number]
        if value.shape == shape:
            return number
        return self.add(Value(EXPAND, EXPAND.attrs(shape=shape), (number,), shape, value.dtype))


def simplify(roots: Sequence[int]) -> tuple[list[Value], dict[int, int]]:
    """The values that ``roots`` (numbers of :func:`linearize`) need, rewritten, and what each old number became."""
    needed: set[int] = set()
    stack = list(roots)
    while stack:
        number = stack.pop()
        if number not in needed:
            needed.add(number)
            stack.extend(_values[number].sources)
    graph = Graph()
    renamed: dict[int, int] = {}
    for number in sorted(needed):  # sources are numbered before users
        value = _values[number]
        renamed[number] = graph.add(value._replace(sources=tuple(renamed[s] for s in value.sources)))
    return graph.values, renamed


Rewrite = Callable[[Graph, Value], int | None]
_MOVED = frozenset({"reshape", "permute", "expand", "slice"})


def _fold_constants(graph: Graph, value: Value) -> int | None:
    """An elementwise primitive of constants is a constant; so is a rearranged one."""
    if value.op.name in _MOVED:
        scalar = graph.scalar(value.sources[0])
        if scalar is None or value.op is EXPAND and graph.values[value.sources[0]].op is CONST:
            return None
        return graph.constant(scalar, value.dtype, value.shape)
    if value.op.kind is not Kind.ELEMENTWISE:
        return None
    scalars = [graph.scalar(s) for s in value.sources]
    if any(s is None for s in scalars):
        return None
    from minigrad import reference  # only a fold needs it, and importing minigrad should be quick

    arrays = []
    for scalar, source in zip(scalars, value.sources):
        dtype = graph.values[source].dtype
        array = np.array(scalar).astype(dtype.numpy)
        arrays.append(array.astype(np.float64) if dtype.is_float else array)
    attrs = {"dtype": value.dtype.numpy} if value.op.name == "cast" else {}
    with np.errstate(all="ignore"):
        result = np.asarray(getattr(reference, value.op.reference)(*arrays, **attrs)).astype(value.dtype.numpy)
    return graph.constant(result.item(), value.dtype, value.shape)


def _drop_expand(graph: Graph, value: Value) -> int | None:
    """Elementwise primitives broadcast by themselves: a constant source need not be expanded."""
    if value.op.kind is not Kind.ELEMENTWISE:
        return None
    sources = list(value.sources)
    for position, source in enumerate(sources):
        inner = graph.values[source]
        if inner.op is EXPAND and graph.scalar(source) is not None:
            if any(graph.values[s].shape == value.shape for i, s in enumerate(sources) if i != position):
                sources[position] = inner.sources[0]
    return None if tuple(sources) == value.sources else graph.add(value._replace(sources=tuple(sources)))


def _is(graph: Graph, number: int, scalar: float) -> bool:
    found = graph.scalar(number)
    return found is not None and found == scalar and math.copysign(1, found) == math.copysign(1, scalar)


def _drop_neutral(graph: Graph, value: Value) -> int | None:
    """Drop the 1 of x * 1 and x / 1, the 0 of x - 0, the -0 of x + -0 (x + 0 stays: it turns -0 into 0)."""
    name = value.op.name
    if name not in ("mul", "div", "add", "sub"):
        return None
    a, b = value.sources
    neutral = 1.0 if name in ("mul", "div") else 0.0 if name == "sub" or not value.dtype.is_float else -0.0
    if _is(graph, b, neutral):
        return graph.expanded(a, value.shape)
    if name in ("mul", "add") and _is(graph, a, neutral):
        return graph.expanded(b, value.shape)
    return None


def _power(graph: Graph, value: Value) -> int | None:
    """Small integer powers are products."""
    if value.op.name != "pow":
        return None
    x, exponent = value.sources[0], graph.scalar(value.sources[1])
    shaped = graph.values[x].shape == value.shape
    if exponent == 1 and shaped:
        return x
    if exponent == 2 and shaped:
        return graph.add(value._replace(op=TABLE["mul"], attrs=TABLE["mul"].attrs(), sources=(x, x)))
    if exponent == -1 and value.dtype.is_float and shaped:
        op = TABLE["reciprocal"]
        return graph.add(Value(op, op.attrs(), (x,), value.shape, value.dtype))
    return None


def _divide(graph: Graph, value: Value) -> int | None:
    """Division by a power of two is multiplication by its inverse, exactly."""
    if value.op.name != "div":
        return None
    divisor = graph.scalar(value.sources[1])
    if not divisor or not math.isfinite(divisor):
        return None
    mantissa, exponent = math.frexp(divisor)
    if abs(mantissa) != 0.5 or abs(exponent) > 14:  # within float16's normal range
        return None
    inverse = graph.constant(1 / divisor, value.dtype, ())
    op = TABLE["mul"]
    return graph.add(Value(op, op.attrs(), (value.sources[0], inverse), value.shape, value.dtype))


def _drop_identity(graph: Graph, value: Value) -> int | None:
    """Movement to where a value already is, double negation, and reductions over axes of size 1."""
    if not value.sources:
        return None
    source = value.sources[0]
    inner = graph.values[source]
    if value.op.name == "neg" and inner.op.name == "neg":
        return inner.sources[0]
    if value.op.name in ("sum", "prod", "max", "min") and inner.shape == value.shape:
        return source
    if value.op.name in ("reshape", "expand") and inner.shape == value.shape:
        return source
    if value.op.name == "permute" and value.attrs.axes == tuple(range(len(value.shape))):
        return source
    if value.op.name in ("reshape", "permute", "expand") and inner.op is value.op:
        return _merge_movement(graph, value, inner)
    return None


_FRESH = frozenset(
    {Kind.ELEMENTWISE, Kind.STORE, Kind.REDUCE, Kind.SCAN, Kind.INDEX, Kind.CONTRACTION, Kind.WINDOW, Kind.PROJECTION}
)


def _drop_copy(graph: Graph, value: Value) -> int | None:
    """A copy of what is computed here is that: it has memory of its own anyway."""
    if value.op.name == "copy" and graph.values[value.sources[0]].op.kind in _FRESH:
        return value.sources[0]
    return None


def _merge_movement(graph: Graph, value: Value, inner: Value) -> int | None:
    attrs = value.attrs
    if value.op.name == "permute":
        attrs = attrs._replace(axes=tuple(inner.attrs.axes[a] for a in attrs.axes))
    return graph.add(value._replace(attrs=attrs, sources=inner.sources))


def _mask_before_scatter(graph: Graph, value: Value) -> int | None:
    """Move relu's mask before the scatter of max pooling: the same positions, on a fraction of the elements.

    Where y <= 0 decides about the scattered gradient of max_pool(y), max_pool(y) <= 0 decides about the gradient
    itself, since each of its values goes to where y is that maximum.
    """
    if value.op.name != "where":
        return None
    condition, yes, scatter = (graph.values[s] for s in value.sources)
    if condition.op.name != "le" or scatter.op.name != "window_scatter" or graph.scalar(value.sources[1]) != 0:
        return None
    y, bound = condition.sources
    g, taps = scatter.sources
    pool = graph.values[graph.values[taps].sources[0]] if graph.values[taps].op.name == "project" else None
    if pool is None or pool.op.name != "max_pool" or pool.sources != (y,) or pool.attrs.window != scatter.attrs.window:
        return None
    if graph.scalar(bound) != 0 or graph.values[value.sources[1]].shape != ():
        return None
    project = TABLE["project"]
    attrs = project.attrs(index=0, shape=pool.shape, dtype=pool.dtype)
    pooled = graph.add(Value(project, attrs, graph.values[taps].sources, pool.shape, pool.dtype))
    mask = graph.add(condition._replace(sources=(pooled, bound), shape=pool.shape))
    masked = graph.add(value._replace(sources=(mask, value.sources[1], g), shape=pool.shape))
    return graph.add(scatter._replace(sources=(masked, taps)))


def _sum_before_scatter(graph: Graph, value: Value) -> int | None:
    """The sum over all positions that a scatter fills is the sum of what it scatters."""
    if value.op.name != "sum":
        return None
    scatter = graph.values[value.sources[0]]
    if scatter.op.name != "window_scatter":
        return None
    window, spatial = scatter.attrs.window, range(2, len(scatter.shape))
    if any(map(any, window.padding)) or window.ceil_mode or not set(spatial) <= set(value.attrs.axes):
        return None  # what a tap outside the input takes is lost
    return graph.add(value._replace(sources=(scatter.sources[0],)))


_RULES: tuple[Rewrite, ...] = (
    _fold_constants,
    _drop_expand,
    _drop_neutral,
    _power,
    _divide,
    _drop_copy,
    _drop_identity,
    _mask_before_scatter,
    _sum_before_scatter,
)
