"""Random lazy programs: typed graphs over the whole table, drawn so that every value is defined and of modest size.

Most moves draw one primitive over values made before, often older ones, so that graphs have diamonds. The others are
what fusion finds hard: reductions that feed broadcasts, padding through reductions, reshapes between views, writes
between reads, blocks of layers, and values that are computed before the rest is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError, ShapeError
from minigrad.graph import Node
from minigrad.primitive import TABLE, Domain, Kind, Primitive
from minigrad.shapes import Shape, broadcast
from minigrad.testing.programs import Input, Program, Step, nowhere
from minigrad.testing.strategies import (
    MOVEMENTS,
    batches,
    broadcastable,
    fill,
    laid,
    layouts,
    seeds,
    shapes,
    windows,
)

LARGEST = 600  # elements of a value, but for batches of images and where asked for more
_FREE = frozenset({dtypes.float32, dtypes.float16, dtypes.bfloat16, dtypes.int32, dtypes.int64, dtypes.bool_})
_GROWING = frozenset({"exp", "expm1"})  # defined everywhere, but not useful there


@cache
def elementwise_rows(arity: int, dtype: DType) -> tuple[Primitive, ...]:
    """The elementwise primitives of sources that all have ``dtype``."""
    found = []
    for op in TABLE.values():
        if op.kind is Kind.ELEMENTWISE and op.arity == arity and op.name not in ("cast", "where"):
            try:
                op.dtype(None, *[dtype] * arity)
            except DTypeError:
                continue
            found.append(op)
    return tuple(found)


class _Drawing:
    """A program being drawn: values by number, in the order in which they were drawn."""

    def __init__(self, draw: st.DrawFn, dtype: DType, largest: int = LARGEST) -> None:
        self.draw, self.dtype, self.largest = draw, dtype, largest
        self.parts: list[Input | Step] = []
        self.nodes: list[Node] = []
        self.kind = draw(st.sampled_from(["integers", "integers", "uniform", "ties"]))

    # Values.

    def input(self, shape: Shape, dtype: DType | None = None, below: int | None = None) -> int:
        """A new input; with ``below`` positions less than that."""
        dtype = dtype or self.dtype
        seed = self.draw(seeds)
        rng = np.random.default_rng(seed)
        array = fill(self.kind, Domain(), rng, shape, dtype)
        if below is not None:
            array = rng.integers(0, below, shape).astype(dtype.numpy)
        given = laid(array, self.draw(layouts(shape)))
        if array.size > LARGEST:
            made = f"fill({self.kind!r}, Domain(), default_rng({seed}), {shape}, dtypes.{dtype.name})"
            given = given._replace(made=f"laid({made}, {given.layout!r})")
        self.parts.append(given)
        self.nodes.append(given.node(nowhere(given.buffer(), given.dtype, given.layout.order)))
        return len(self.nodes) - 1

    def step(self, op: str, *sources: int, **attrs: Any) -> int:
        """A new step."""
        step = Step(op, sources, attrs)
        self.parts.append(step)
        self.nodes.append(step.node(self.nodes, "nowhere"))
        return len(self.nodes) - 1

    def constant(self, value: float, dtype: DType) -> int:
        """A 0-d constant."""
        exact = value if dtype.is_float else int(value)
        return self.step("const", value=exact, sign=math.copysign(1.0, value), dtype=dtype)

    def shape(self, v: int) -> Shape:
        return self.nodes[v].shape

    def pick(self, fits: Callable[[Node], bool] = lambda node: True) -> int:
        """A value made before that fits, rather a late one; a new input if there is none."""
        found = [v for v, node in enumerate(self.nodes) if node.op.outputs == 1 and node.shape != () and fits(node)]
        if not found:
            v = self.input(self.draw(shapes(least=1, zero=False)))
            return v if fits(self.nodes[v]) else self.input((3, 4), dtypes.float32)
        return self.draw(st.sampled_from(found[::-1])) if self.draw(st.integers(0, 9)) < 3 else found[-1]

    def floating(self) -> int:
        return self.pick(lambda node: node.dtype.is_float)

    def partner(self, v: int, beside: int | None = None) -> int:
        """A value of ``v``'s dtype that broadcasts with ``v`` (or with ``beside``): an older one, or a new input."""
        shape, dtype = self.shape(v if beside is None else beside), self.nodes[v].dtype
        fitting = [u for u, node in enumerate(self.nodes) if node.dtype is dtype and self._broadcasts(node, shape)]
        older = bool(fitting) and self.draw(st.booleans())
        if older:
            return self.draw(st.sampled_from(fitting))
        return self.input(self.draw(broadcastable(2, shape))[0], dtype)

    def _broadcasts(self, node: Node, shape: Shape) -> bool:
        try:
            return node.op.outputs == 1 and math.prod(broadcast("partner", node.shape, shape)) <= self.largest
        except ShapeError:
            return False

    def guarded(self, op: Primitive, position: int, v: int) -> int:
        """``v`` moved to where ``op`` is defined."""
        dtype = self.nodes[v].dtype
        if dtype.is_integer and op.name.startswith("shift") and position == 1:
            return self.step("bitwise_and", v, self.constant(7, dtype))
        if not dtype.is_float:
            return v
        if position in op.domain.nonzero:
            return self.step("add", self.step("abs", v), self.constant(0.5, dtype))
        if (op.domain.low, op.domain.high) != (Domain().low, Domain().high) or op.name in _GROWING:
            return self.clipped(v, op.domain.low, op.domain.high)
        return v

    def clipped(self, v: int, low: float, high: float) -> int:
        dtype = self.nodes[v].dtype
        return self.step("minimum", self.step("maximum", v, self.constant(low, dtype)), self.constant(high, dtype))

    # Moves: each adds some steps.

    def elementwise(self) -> None:
        """One to four unary or binary primitives, mostly a chain."""
        for _ in range(self.draw(st.integers(1, 4))):
            self._elementwise(self.draw(st.sampled_from([1, 2])))

    def _elementwise(self, arity: int) -> None:
        v = self.pick(lambda node: bool(elementwise_rows(arity, node.dtype)))
        op = self.draw(st.sampled_from(elementwise_rows(arity, self.nodes[v].dtype)))
        sources = [v] if arity == 1 else self.draw(st.permutations([v, self.partner(v)]))
        self.step(op.name, *[self.guarded(op, n, s) for n, s in enumerate(sources)])

    def where(self) -> None:
        """A choice by a comparison."""
        v = self.pick()
        name = self.draw(st.sampled_from(["lt", "le", "eq", "ne"]))
        condition = self.step(name, v, self.partner(v))
        self.step("where", condition, v, self.partner(v, condition))

    def cast(self) -> None:
        """Another dtype; floats are clipped to where integers are defined."""
        v = self.pick()
        target = self.draw(st.sampled_from(sorted(_FREE - {self.nodes[v].dtype}, key=lambda d: d.name)))
        if self.nodes[v].dtype.is_float and target.is_integer:
            v = self.clipped(v, -100, 100)
        self.step("cast", v, dtype=target)

    def movement(self) -> None:
        """One to three movements, one after the other: most are views of views."""
        v = self.pick()
        for _ in range(self.draw(st.integers(1, 3))):
            name = self.draw(st.sampled_from(sorted(MOVEMENTS)))
            attrs = MOVEMENTS[name](self.draw, self.shape(v))
            if math.prod(TABLE[name].shape(TABLE[name].attrs(**attrs), self.shape(v))) <= self.largest:
                v = self.step(name, v, **attrs)

    def cat(self) -> None:
        """A value beside a piece of itself or another of its shape."""
        v = self.pick()
        shape, dtype = self.shape(v), self.nodes[v].dtype
        alike = [u for u, n in enumerate(self.nodes) if (n.shape, n.dtype, n.op.outputs) == (shape, dtype, 1)]
        others = [self.draw(st.sampled_from(alike)) for _ in range(self.draw(st.integers(1, 2)))]
        self.step("cat", v, *others, axis=self.draw(st.integers(0, len(shape) - 1)))

    def write(self) -> None:
        """A write through a view between two reads of what is written."""
        v = self.pick()
        attrs = MOVEMENTS["strided_view"](self.draw, self.shape(v))
        inner = attrs.pop("shape")
        new = self.step("assign_view", v, self.input(inner, self.nodes[v].dtype), **attrs)
        if self.nodes[v].dtype.is_float:
            self.step("sub", v, new)

    def _axes(self, v: int) -> tuple[int, ...]:
        axes = st.sets(st.integers(0, len(self.shape(v)) - 1), min_size=1)
        return tuple(sorted(self.draw(axes)))

    def reduce(self) -> None:
        """A reduction, sometimes of something padded, sometimes broadcast back."""
        v = self.pick(lambda node: math.prod(node.shape) > 0 and node.dtype.kind != "b")
        if self.draw(st.integers(0, 3)) == 0:
            v = self.step("pad", v, **MOVEMENTS["pad"](self.draw, self.shape(v)))
        op = self.draw(st.sampled_from([op for op in TABLE.values() if op.kind is Kind.REDUCE]))
        if "axis" in op.attrs._fields:
            self.step(op.name, v, axis=self.draw(st.integers(0, len(self.shape(v)) - 1)))
            return
        reduced = self.step(op.name, v, axes=self._axes(v))
        if self.draw(st.booleans()):
            self.step("sub", v, reduced)

    def softmax(self) -> None:
        """Two reductions of one value, each broadcast back."""
        v = self.pick(lambda node: node.dtype.is_float and math.prod(node.shape) > 0)
        axes = self._axes(v)
        e = self.step("exp", self.clipped(self.step("sub", v, self.step("max", v, axes=axes)), -8, 0))
        self.step("div", e, self.step("sum", e, axes=axes))

    def variance(self) -> None:
        """The sum of squared distances from a mean: a reduction of a reduction."""
        v = self.floating()
        axes = self._axes(v)
        mean = self.step("mul", self.step("sum", v, axes=axes), self.constant(0.25, self.nodes[v].dtype))
        centred = self.step("sub", v, mean)
        self.step("sum", self.step("mul", centred, centred), axes=axes)

    def scan(self) -> None:
        """A running sum, or a sort with its values, its indices, or both."""
        op = self.draw(st.sampled_from([op for op in TABLE.values() if op.kind is Kind.SCAN]))
        v = self.pick(lambda node: node.dtype.kind != "b")
        axis = self.draw(st.integers(0, len(self.shape(v)) - 1))
        attrs = {f: axis if f == "axis" else self.draw(st.booleans()) for f in op.attrs._fields}
        self.projected(self.step(op.name, v, **attrs))

    def projected(self, v: int) -> None:
        """Some outputs of a primitive that has several."""
        outputs = self.nodes[v].op.outputs
        if outputs > 1:
            for index in sorted(self.draw(st.sets(st.integers(0, outputs - 1), min_size=1))):
                self.step("project", v, index=index)

    def index(self) -> None:
        """A gather, or a scatter."""
        v = self.pick(lambda node: 0 < math.prod(node.shape))
        rows, positions = self.shape(v)[0], self.draw(shapes(most=2, elements=12))
        if self.draw(st.booleans()):
            if math.prod(positions) * math.prod(self.shape(v)[1:]) <= self.largest:
                self.step("take", v, self.input(positions, dtypes.int64, rows))
            return
        length = self.draw(st.integers(1, 7))
        where = self.input((rows,), dtypes.int64, length)
        if self.nodes[v].dtype.kind != "b":
            self.step("scatter", where, v, length=length, reduce=self.draw(st.sampled_from(["sum", "max"])))

    def matmul(self) -> None:
        """A product with a new matrix, or with the value's own transpose."""
        v = self.pick(lambda node: node.ndim >= 2 and node.dtype.kind != "b")
        shape = self.shape(v)
        if self.draw(st.booleans()) and math.prod(shape) * shape[-2] <= 8 * LARGEST:
            axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
            self.step("matmul", v, self.step("permute", v, axes=axes))
        else:
            self.step("matmul", v, self.input((shape[-1], self.draw(st.sampled_from([2, 3, 5]))), self.nodes[v].dtype))

    def layer(self) -> None:
        """Convolution with bias and relu, pooling, or both, on images made before or new ones."""
        v = self.pick(lambda node: 3 <= node.ndim <= 5 and 0 not in node.shape and node.dtype.is_float)
        if not 3 <= len(self.shape(v)) <= 5:
            spatial = self.draw(st.sampled_from([(9, 7), (6, 11), (8,), (5, 4, 6)]))
            v = self.input((self.draw(batches(spatial)), 3, *spatial), self.nodes[v].dtype)
        rank, dtype = len(self.shape(v)) - 2, self.nodes[v].dtype
        if self.draw(st.booleans()):
            window, _ = self.draw(windows(rank, False, self.shape(v)[2:]))
            filters = self.draw(st.sampled_from([2, 4]))
            w = self.input((filters, self.shape(v)[1], *window.kernel), dtype)
            bias = self.input((filters, *[1] * rank), dtype)
            v = self.step("relu", self.step("add", self.step("conv", v, w, window=window, groups=1), bias))
        if self.draw(st.booleans()):
            window, _ = self.draw(windows(rank, True, self.shape(v)[2:]))
            if self.draw(st.booleans()):
                self.projected(self.step("max_pool", v, window=window))
            else:
                self.step("avg_pool", v, window=window, count_include_pad=self.draw(st.booleans()))

    def mark(self) -> None:
        """Something said about a value."""
        self.step(self.draw(st.sampled_from(["detach", "barrier", "copy"])), self.pick())

    # The end.

    def program(self, gradients: bool) -> Program:
        """The program drawn so far; values that nothing reads are its results, and sometimes another."""
        inputs = [v for v, part in enumerate(self.parts) if isinstance(part, Input)]
        steps = [v for v, part in enumerate(self.parts) if isinstance(part, Step)]
        number = {v: n for n, v in enumerate([*inputs, *steps])}
        read = {s for part in self.parts if isinstance(part, Step) for s in part.sources}
        results = [v for v in steps if v not in read and self.nodes[v].op.outputs == 1]
        single = [v for v in steps if self.nodes[v].op.outputs == 1]
        if self.draw(st.booleans()):
            results.append(self.draw(st.sampled_from(single)))
        realized = self.draw(st.sets(st.sampled_from(single), max_size=2)) if self.draw(st.booleans()) else set()
        renumbered = (self.parts[v] for v in steps)
        return Program(
            tuple(self.parts[v] for v in inputs),  # type: ignore[misc]
            tuple(s._replace(sources=tuple(number[u] for u in s.sources)) for s in renumbered if isinstance(s, Step)),
            tuple(number[v] for v in dict.fromkeys(results)),
            frozenset(number[v] for v in realized),
            gradients,
        )


MOVES: tuple[Callable[[_Drawing], None], ...] = (
    _Drawing.elementwise, _Drawing.elementwise, _Drawing.elementwise, _Drawing.movement, _Drawing.movement,
    _Drawing.reduce, _Drawing.where, _Drawing.cast, _Drawing.cat, _Drawing.write, _Drawing.softmax,
    _Drawing.variance, _Drawing.scan, _Drawing.index, _Drawing.matmul, _Drawing.layer, _Drawing.layer, _Drawing.mark,
)  # fmt: skip


# Moves that kernels cut into blocks, over which threads share the work.
_IN_BLOCKS = (
    _Drawing.elementwise, _Drawing.elementwise, _Drawing.movement, _Drawing.reduce, _Drawing.where, _Drawing.softmax,
    _Drawing.variance,
)  # fmt: skip


@st.composite
def programs(
    draw: st.DrawFn,
    most: int = 8,
    kinds: Sequence[DType] = (dtypes.float32, dtypes.float16, dtypes.int32),
    large: bool = False,
) -> Program:
    """Random programs.

    Args:
        draw: given by Hypothesis.
        most: moves at most; each makes one to a dozen steps.
        kinds: dtypes to choose from for the inputs.
        large: start from values so large that one kernel runs in several blocks.
    """
    drawing = _Drawing(draw, draw(st.sampled_from(kinds)), 100_000 if large else LARGEST)
    if large:
        drawing.input(draw(st.sampled_from([(37, 1031), (5, 67, 101), (40_009,), (4099, 11)])))
    for move in draw(st.lists(st.sampled_from(_IN_BLOCKS if large else MOVES), min_size=1, max_size=most)):
        move(drawing)
    if not any(isinstance(part, Step) for part in drawing.parts):
        drawing.mark()
    return drawing.program(draw(st.booleans()) or draw(st.booleans()))
