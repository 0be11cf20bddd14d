"""Random lazy programs: typed graphs over the whole table, drawn so that every value is defined and of modest size.

One move draws any row of the table by its signature, and makes values drawn before fit it: nobody lists the rows. Most
others draw one primitive over values made before, often older ones, so that graphs have diamonds. The rest are what
fusion finds hard: reductions that feed broadcasts, padding through reductions, reshapes between views, writes between
reads, blocks of layers, and values that are computed before the rest is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError, ShapeError
from minigrad.graph import Node, infer, toposort
from minigrad.primitive import TABLE, Domain, Kind, Primitive
from minigrad.shapes import Shape, broadcast
from minigrad.testing.bounds import TOLERANCES, Error
from minigrad.testing.programs import Input, Program, Step, nowhere, outcomes
from minigrad.testing.strategies import (
    MOVEMENTS,
    accepts,
    batches,
    broadcastable,
    fill,
    laid,
    layouts,
    rows,
    seeds,
    shapes,
    signature,
    windows,
)

_WIDE = ((3, 67), (130,), (5, 2, 35), (17, 19), (2, 48))  # axes of whole vectors and a rest
LARGEST = 600  # elements of a value, but for batches of images and where asked for more
_GROWING = frozenset({"exp", "expm1"})  # defined everywhere, but not useful there
_JUMPING = frozenset({"floor", "ceil", "trunc", "round", "sign", "mod", "floordiv"})  # besides what gives no floats
_COMMON = frozenset({Kind.MOVEMENT, Kind.REDUCE, Kind.SCAN, Kind.STORE, Kind.IDENTITY})  # moves draw any of these
_DIGITS = frozenset({"add", "sub", "mul", "prod"})  # besides sums: exact where they need few digits
_NUMBERS = (2, 1, 0, -1, 0.5, -0.0, 3, -2)  # operands as people write them: rewrites look for some of these


@cache
def _elementwise_rows(table: tuple[Primitive, ...], arity: int, dtype: DType) -> tuple[Primitive, ...]:
    found = []
    for op in table:
        if op.kind is Kind.ELEMENTWISE and op.arity == arity and op.name not in ("cast", "where"):
            try:
                op.dtype(None, *[dtype] * arity)
            except DTypeError:
                continue
            found.append(op)
    return tuple(found)


def elementwise_rows(arity: int, dtype: DType) -> tuple[Primitive, ...]:
    """The elementwise primitives of sources that all have ``dtype``."""
    return _elementwise_rows(tuple(TABLE.values()), arity, dtype)


class _Lacking(Exception):
    """A move would need a primitive or a dtype that the program may not have."""


class _Drawing:
    """A program being drawn: values by number, in the order in which they were drawn.

    Attributes:
        draw: given by Hypothesis.
        dtype: of inputs, where nothing else is asked for.
        largest: elements of a value at most, roughly.
        without: primitives that the program may not have.
        only: dtypes that it may have.
        parts: how each value is made.
        nodes: of each value.
        digits: how much is known of each value: 0, to within an error; 1, exactly; 2, it has few digits besides.
        kind: of the values of inputs.
        table: the rows to draw from; those that other moves hardly draw occur several times.
    """

    def __init__(
        self, draw: st.DrawFn, dtype: DType, largest: int, without: frozenset[str], only: Sequence[DType]
    ) -> None:
        self.draw, self.dtype, self.largest, self.without, self.only = draw, dtype, largest, without, only
        self.parts: list[Input | Step] = []
        self.nodes: list[Node] = []
        self.digits: list[int] = []
        self.kind = draw(st.sampled_from(["integers", "integers", "uniform", "ties"]))
        common = {*elementwise_rows(1, dtypes.float32), *elementwise_rows(2, dtypes.float32)}
        self.table = [
            op for op in rows() for _ in range(1 if op in common or op.kind in _COMMON else 3) if op.name not in without
        ]

    def moved(self, move: Callable[[_Drawing], None]) -> None:
        """Make a move, or none if it needs what the program may not have."""
        before = len(self.nodes)
        try:
            move(self)
        except _Lacking:
            del self.parts[before:], self.nodes[before:], self.digits[before:]

    # Values.

    def input(self, shape: Shape, dtype: DType | None = None, below: int | None = None, kind: str = "") -> int:
        """A new input; with ``below`` positions less than that."""
        dtype, kind = dtype or self.dtype, kind or self.kind
        if dtype not in self.only:
            raise _Lacking
        seed = self.draw(seeds)
        rng = np.random.default_rng(seed)
        array = fill(kind, Domain(), rng, shape, dtype)
        if below is not None:
            array = rng.integers(0, below, shape).astype(dtype.numpy)
        given = laid(array, self.draw(layouts(shape)))
        if array.size > LARGEST and below is None:
            made = f"fill({kind!r}, Domain(), default_rng({seed}), {shape}, dtypes.{dtype.name})"
            given = given._replace(made=f"laid({made}, {given.layout!r})")
        node = given.node(nowhere(given.buffer(), given.dtype, given.layout.order))
        return self._add(given, node, 2 if kind == "integers" or not dtype.is_float else 1)

    def step(self, op: str, *sources: int, **attrs: Any) -> int:
        """A new step."""
        if op in self.without:
            raise _Lacking
        step = Step(op, sources, attrs)
        node = step.node(self.nodes, "nowhere")
        kinds = infer(node.op, node.attrs, node.sources)[1]
        if not set(kinds if node.op.outputs > 1 else [kinds]) <= set(self.only):
            raise _Lacking
        return self._add(step, node, self._known(node, min((self.digits[s] for s in sources), default=2)))

    def _add(self, part: Input | Step, node: Node, digits: int) -> int:
        self.parts.append(part)
        self.nodes.append(node)
        self.digits.append(digits)
        return len(self.nodes) - 1

    def _known(self, node: Node, digits: int) -> int:
        """How much is known of the result where so much is known of the sources."""
        op, dtype = node.op, node.dtype
        row = TOLERANCES.get(op.name)
        if digits == 0 or row is None:
            return 0
        if row.error is Error.NONE or not dtype.is_float:
            return digits if dtype.is_float else 2
        if op.kind is Kind.CREATION:
            return 2 if op.name == "iota" or float(node.attrs.value).is_integer() else 1
        if op.name == "cast" and node.sources[0].dtype.is_float and node.sources[0].dtype.itemsize <= dtype.itemsize:
            return digits
        few = digits == 2 and (row.error is Error.SUM or op.name in _DIGITS or op.name == "cast")
        return (1 if dtype.is_half else 2) if few else 0

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

    def settled(self, v: int) -> int:
        """``v`` if it is known exactly, or another such value of its dtype in its place: what depends on it jumps."""
        if self.digits[v] or not self.nodes[v].dtype.is_float:
            return v
        shape, dtype = self.shape(v), self.nodes[v].dtype
        like = [u for u, n in enumerate(self.nodes) if (n.dtype, n.shape, n.op.outputs) == (dtype, shape, 1)]
        alike = [u for u in like if self.digits[u]]
        return self.draw(st.sampled_from(alike)) if alike else self.input(shape, dtype, kind="integers")

    def partner(self, v: int, beside: int | None = None) -> int:
        """A value of ``v``'s dtype that broadcasts with ``v`` (or with ``beside``): an older one, or a new input."""
        shape, dtype = self.shape(v if beside is None else beside), self.nodes[v].dtype
        fitting = [u for u, node in enumerate(self.nodes) if node.dtype is dtype and self._broadcasts(node, shape)]
        older = bool(fitting) and self.draw(st.booleans())
        if older:
            return self.draw(st.sampled_from(fitting))
        return self.input(self.draw(broadcastable(2, shape))[0], dtype)

    def fitted(self, shape: Shape, dtype: DType, below: int | None = None) -> int:
        """A value of a given shape and dtype: one made before, made to fit, or a new input.

        With ``below``, positions less than that: of such only an integer that is known exactly is made.
        """
        size = math.prod(shape)
        usable = [
            v
            for v, node in enumerate(self.nodes)
            if node.op.outputs == 1 and 0 < math.prod(node.shape) and (node.dtype.is_float or not dtype.is_float)
            if below is None or (node.dtype.is_integer and self.digits[v])
        ]
        if not usable or size == 0 or self.draw(st.integers(0, 3)) == 0:
            return self.input(shape, dtype, below)
        alike = [v for v in usable if self.nodes[v].shape == shape and self.nodes[v].dtype is dtype]
        v = self.converted(self.draw(st.sampled_from((alike or usable)[::-1])), dtype)
        if below is not None:
            if below > dtype.max:
                return self.input(shape, dtype, below)
            v = self.step("mod", v, self.constant(below, dtype))
        return self._cut(v, shape)

    def _cut(self, v: int, shape: Shape) -> int:
        """The elements of ``v`` in another shape: some of them, or some again and again, or with others after them."""
        size, count = math.prod(shape), math.prod(self.shape(v))
        if self.shape(v) == shape:
            return v
        if len(self.shape(v)) != 1:
            v = self.step("reshape", v, shape=(count,))
        if size > count:
            if self.draw(st.booleans()):
                v = self.step("pad", v, padding=((0, size - count),), value=1)
            else:
                times = -(-size // count)
                whole = self.step("expand", v, shape=(times, count))
                v, count = self.step("reshape", whole, shape=(times * count,)), times * count
        count = self.shape(v)[0]
        if size < count:
            v = self.step("slice", v, starts=(self.draw(st.integers(0, count - size)),), sizes=(size,), steps=(1,))
        return v if shape == (size,) else self.step("reshape", v, shape=shape)

    def converted(self, v: int, dtype: DType) -> int:
        """``v`` in another dtype; floats are clipped to where integers are defined."""
        if self.nodes[v].dtype is dtype:
            return v
        if self.nodes[v].dtype.is_float and not dtype.is_float:
            v = self.settled(v)
            if dtype.is_integer:
                v = self.clipped(v, 0 if dtype.kind == "u" else -100, 100)
        return self.step("cast", v, dtype=dtype)

    def _broadcasts(self, node: Node, shape: Shape) -> bool:
        try:
            return node.op.outputs == 1 and math.prod(broadcast("partner", node.shape, shape)) <= self.largest
        except ShapeError:
            return False

    def guarded(self, op: Primitive, position: int, v: int) -> int:
        """``v`` moved to where ``op`` is defined."""
        if op.name in _JUMPING or (op.dtype(None, *[self.nodes[v].dtype] * (op.arity or 1)).kind == "b"):
            v = self.settled(v)
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
        v = self.pick(lambda node: bool(self._elementwise_rows(arity, node.dtype)))
        op = self.draw(st.sampled_from(self._elementwise_rows(arity, self.nodes[v].dtype)))
        if arity == 2 and self.draw(st.integers(0, 2)) == 0:
            self._with_number(op, v)
            return
        sources = [v] if arity == 1 else self.draw(st.permutations([v, self.partner(v)]))
        self.step(op.name, *[self.guarded(op, n, s) for n, s in enumerate(sources)])

    def _with_number(self, op: Primitive, v: int) -> None:
        """``op`` of ``v`` and a number, on either side, sometimes as a tensor full of it."""
        dtype, position = self.nodes[v].dtype, self.draw(st.integers(0, 1))
        low, high = max(op.domain.low, float(dtype.min)), min(op.domain.high, float(dtype.max))
        if op.name == "pow" and position == 1:
            low, high = -2, 3
        usable = [x for x in _NUMBERS if low <= x <= high and (dtype.is_float or isinstance(x, int))]
        usable = [x for x in usable if x or position not in op.domain.nonzero]
        number = self.constant(self.draw(st.sampled_from(usable)), dtype)
        if self.draw(st.booleans()):
            number = self.step("expand", number, shape=self.shape(v))
        value = self.guarded(op, 1 - position, v)
        self.step(op.name, *((value, number) if position else (number, value)))

    def _elementwise_rows(self, arity: int, dtype: DType) -> list[Primitive]:
        return [op for op in elementwise_rows(arity, dtype) if op.name not in self.without]

    def row(self) -> None:
        """Any row of the table."""
        self.of_row(self.draw(st.sampled_from(self.table)))

    def of_row(self, op: Primitive) -> None:
        """``op`` by its signature, over values made before that are made to fit it."""
        sources, attrs = signature(self.draw, op, self.only)
        if op.name == "const":
            self.constant(self.draw(st.sampled_from([0, 1, 2, 0.5])), attrs["dtype"])
            return
        taken = [d for d in self.only if accepts(op, attrs, sources, d)]
        if not taken:
            raise _Lacking
        usual = [d for d in (self.dtype, dtypes.float32) if d in taken]
        unusual = not usual or self.draw(st.booleans())
        dtype = self.draw(st.sampled_from(taken if unusual else usual))
        given = []
        for position, (shape, fixed, below) in enumerate(sources):
            v = self.fitted(shape, fixed or dtype, below)
            if op.kind is Kind.ELEMENTWISE and op.name not in ("cast", "where"):
                v = self.guarded(op, position, v)
            given.append(v)
        if op.name == "cast":
            self.converted(given[0], attrs["dtype"])
            return
        if op.kind in (Kind.REDUCE, Kind.SCAN) or op.outputs > 1:
            given[0] = self._where_from(op, given[0])
        self.projected(self.step(op.name, *given, **attrs))

    def where(self) -> None:
        """A choice by a comparison."""
        v = self.pick()
        name = self.draw(st.sampled_from(["lt", "le", "eq", "ne"]))
        known = self.settled(v)
        condition = self.step(name, known, self.settled(self.partner(known)))
        self.step("where", condition, v, self.partner(v, condition))

    def cast(self) -> None:
        """Another dtype."""
        v = self.pick()
        others = [d for d in self.only if d is not self.nodes[v].dtype]
        if others:
            self.converted(v, self.draw(st.sampled_from(others)))

    def movement(self) -> None:
        """One to three movements, one after the other, often of one kind: most are views of views."""
        v, name = self.pick(), ""
        for _ in range(self.draw(st.integers(1, 3))):
            if not name or self.draw(st.booleans()):
                name = self.draw(st.sampled_from(sorted(MOVEMENTS)))
            attrs = MOVEMENTS[name](self.draw, self.shape(v))
            if math.prod(TABLE[name].shape(TABLE[name].attrs(**attrs), self.shape(v))) <= self.largest:
                v = self.step(name, v, **attrs)

    def chain(self) -> None:
        """One primitive several times, one after the other, each time with another number."""
        v = self.pick(lambda node: node.dtype.kind != "b")
        dtype = self.nodes[v].dtype
        name, turned = self.draw(st.sampled_from(["add", "mul", "sub", "maximum", "minimum"])), self.draw(st.booleans())
        usable = [n for n in _NUMBERS if (dtype.is_float or isinstance(n, int)) and dtype.min <= n <= dtype.max]
        for number in self.draw(st.lists(st.sampled_from(usable), min_size=2, max_size=4, unique=True)):
            constant = self.constant(number, dtype)
            v = self.step(name, *((constant, v) if turned else (v, constant)))

    def shifts(self) -> None:
        """One movement of one value by different amounts, all of which are read together."""
        v = self.pick(lambda node: 0 not in node.shape and max(node.shape) > 2 and node.dtype.kind != "b")
        shape = self.shape(v)
        axis = self.draw(st.sampled_from([a for a, n in enumerate(shape) if n > 2] or [0]))
        count = min(3, shape[axis])
        size = shape[axis] - count + 1

        def along(value: Any, other: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(value if a == axis else other[a] for a in range(len(shape)))

        moved = []
        kind = self.draw(st.sampled_from(["slice", "flipped", "pad"]))
        for start in self.draw(st.permutations(range(count))):
            if kind == "pad":
                padding = along((start, count - 1 - start), [(0, 0)] * len(shape))
                moved.append(self.step("pad", v, padding=padding, value=1))
            else:
                step = -1 if kind == "flipped" else 1
                starts = along(start if step == 1 else start + size - 1, [0] * len(shape))
                attrs = {"starts": starts, "sizes": along(size, shape), "steps": along(step, [1] * len(shape))}
                moved.append(self.step("slice", v, **attrs))
        for n, other in enumerate(moved[1:]):
            v = self.step("sub", moved[0] if n == 0 else v, other)

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

    def _where_from(self, op: Primitive, v: int) -> int:
        """``v``, known exactly where ``op`` says where in it something is."""
        return self.settled(v) if op.outputs > 1 or op.name in ("argmax", "argmin") else v

    def _axes(self, v: int) -> tuple[int, ...]:
        axes = st.sets(st.integers(0, len(self.shape(v)) - 1), min_size=1)
        return tuple(sorted(self.draw(axes)))

    def reduce(self) -> None:
        """A reduction, sometimes of something padded, sometimes broadcast back."""
        v = self.pick(lambda node: math.prod(node.shape) > 0 and node.dtype.kind != "b")
        op = self.draw(st.sampled_from([op for op in TABLE.values() if op.kind is Kind.REDUCE]))
        v = self._where_from(op, v)
        if self.draw(st.integers(0, 3)) == 0:
            v = self.step("pad", v, **MOVEMENTS["pad"](self.draw, self.shape(v)))
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
        v = self._where_from(op, v)
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
            sides = (self.draw(batches(spatial)), self.draw(st.sampled_from([3, 4])), *spatial)
            v = self.input(sides, self.nodes[v].dtype)
        rank, dtype = len(self.shape(v)) - 2, self.nodes[v].dtype
        if self.draw(st.booleans()):
            window, _ = self.draw(windows(rank, False, self.shape(v)[2:]))
            c = self.shape(v)[1]
            groups = self.draw(st.sampled_from([g for g in (1, 2, 3, c) if c % g == 0]))
            filters = groups * self.draw(st.sampled_from([2, 4] if groups == 1 else [1, 2]))
            w = self.input((filters, c // groups, *window.kernel), dtype)
            bias = self.input((filters, *[1] * rank), dtype)
            v = self.step("relu", self.step("add", self.step("conv", v, w, window=window, groups=groups), bias))
        if self.draw(st.booleans()):
            window, _ = self.draw(windows(rank, True, self.shape(v)[2:]))
            if self.draw(st.booleans()):
                pooled = self.step("max_pool", self.settled(v), window=window)
                self.projected(pooled)
                if self.draw(st.booleans()):  # what others have where the maximum is
                    self.step("window_gather", v, self.step("project", pooled, index=1), window=window)
            else:
                self.step("avg_pool", v, window=window, count_include_pad=self.draw(st.booleans()))

    def mark(self) -> None:
        """Something said about a value."""
        op = self.draw(st.sampled_from([n for n in ("detach", "barrier", "copy") if n not in self.without]))
        self.step(op, *(self.pick() for _ in range(TABLE[op].arity or 1)))

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
        program = Program(
            tuple(self.parts[v] for v in inputs),  # type: ignore[misc]
            tuple(s._replace(sources=tuple(number[u] for u in s.sources)) for s in renumbered if isinstance(s, Step)),
            tuple(number[v] for v in dict.fromkeys(results)),
            frozenset(number[v] for v in realized),
            gradients,
        )
        return program if not gradients or self._derivable(program) else replace(program, gradients=False)

    def _derivable(self, program: Program) -> bool:
        """Whether the program may have what its gradients need."""
        if not self.without and len(self.only) == len(dtypes.ALL):
            return True
        nodes = toposort(outcomes(program, program.build(nowhere)))
        return all(n.op.name not in self.without and n.dtype in self.only for n in nodes)


MOVES: tuple[Callable[[_Drawing], None], ...] = (
    _Drawing.elementwise, _Drawing.elementwise, _Drawing.elementwise, _Drawing.movement, _Drawing.movement,
    _Drawing.chain, _Drawing.shifts,
    *[_Drawing.row] * 9, _Drawing.reduce, _Drawing.where, _Drawing.cast, _Drawing.cat, _Drawing.write, _Drawing.softmax,
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
    without: frozenset[str] = frozenset(),
    only: Collection[DType] = dtypes.ALL,
    having: str | None = None,
) -> Program:
    """Random programs.

    Args:
        draw: given by Hypothesis.
        most: moves at most; each makes one to a dozen steps.
        kinds: dtypes to choose from for the inputs.
        large: start from values so large that one kernel runs in several blocks.
        without: primitives that do not occur, in gradients neither.
        only: dtypes of which all values are, those of positions and gradients too.
        having: a primitive that occurs, if it takes any of these dtypes.
    """
    known = [d for d in dtypes.ALL if d in only]
    kind = draw(st.sampled_from([d for d in kinds if d in only]))
    drawing = _Drawing(draw, kind, 100_000 if large else LARGEST, without, known)
    if large:
        drawing.input(draw(st.sampled_from([(37, 1031), (5, 67, 101), (40_009,), (4099, 11)])))
    elif draw(st.integers(0, 3)) == 3:
        drawing.input(draw(st.sampled_from(_WIDE)))
    moves = draw(st.lists(st.sampled_from(_IN_BLOCKS if large else MOVES), min_size=1, max_size=most))
    if having is not None:
        moves.insert(draw(st.integers(0, len(moves))), lambda drawn: drawn.of_row(TABLE[having]))
    for move in moves:
        drawing.moved(move)
    if not any(isinstance(part, Step) for part in drawing.parts):
        drawing.mark()
    return drawing.program(draw(st.booleans()) or draw(st.booleans()))
