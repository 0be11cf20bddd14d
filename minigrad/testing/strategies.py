"""Hypothesis strategies for everything that a primitive takes: shapes, layouts, values, attributes, whole programs.

A new primitive of a known family needs nothing here unless it has attributes of its own; then it adds one function to
``SIGNATURES``. Values come from a seed and a kind: small integers first, so that a shrunk failure has exact results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import DTypeError, ShapeError
from minigrad.ops.window import tap_dtype
from minigrad.primitive import TABLE, Domain, Kind, Primitive
from minigrad.shapes import Shape, Window, broadcast
from minigrad.testing.evaluate import Array
from minigrad.testing.programs import Input, Layout, Program, Step, one_step

SIDES = (2, 3, 4, 5, 6, 7, 9, 11)

# Values --------------------------------------------------------------------------------------------------------------

KINDS = ("integers", "uniform", "ties", "wide", "special")


def fill(kind: str, domain: Domain, rng: np.random.Generator, shape: Shape, dtype: DType) -> Array:
    """An array of ``dtype``.

    Args:
        kind: ``integers`` from -3 to 3 (exact in any arithmetic); ``uniform`` over the domain; ``ties``, few values
            that are neighbours; ``wide``, exponents over half the range; ``special``, uniform but for some NaN,
            infinities, signed zeros, denormal and extreme numbers. Other than floats have integers, or all bits.
        domain: where a primitive is defined; ``ties``, ``wide`` and ``special`` go beyond.
        rng: the source of randomness.
        shape: of the result.
        dtype: of the result.
    """
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer:
        whole = kind == "wide" and domain == Domain()
        low, high = (dtype.min, dtype.max) if whole else (domain.low, domain.high)
        low, high = max(low, dtype.min), min(high, dtype.max)
        return rng.integers(math.ceil(low), math.floor(high), shape, dtype.numpy, endpoint=True)
    if kind == "integers":
        values = rng.integers(math.ceil(domain.low), math.floor(domain.high), shape, endpoint=True).astype(np.float64)
    else:
        values = rng.uniform(domain.low, domain.high, shape)
    info: Any = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    if kind == "ties":
        values = rng.choice([1.0, 1.0 + float(info.eps), -1.0, 0.0], shape)
    if kind == "wide":
        reach = int(info.maxexp) // 2
        values = rng.choice([-1, 1], shape) * np.exp2(rng.uniform(-reach, reach, shape))
    if kind == "special":
        extremes = [np.nan, np.inf, -np.inf, 0.0, -0.0, *map(float, (info.max, info.tiny, info.smallest_subnormal))]
        values = np.where(rng.random(shape) < 0.3, rng.choice(extremes, shape), values)
    elif domain.nonzero:
        values = np.where(np.abs(values) < 0.25, 1.0, values)
    return values.astype(dtype.numpy)


def apart(rng: np.random.Generator, shapes: Sequence[Shape], domain: Domain) -> list[Array]:
    """Float64 arrays over the domain, no two elements of which are near each other or near a kink: for derivatives."""
    avoided = [(k - 0.05, k + 0.05) for k in domain.kinks] + [(-0.25, 0.25)] * bool(domain.nonzero)
    sizes = [math.prod(s) for s in shapes]
    grid = np.linspace(domain.low, domain.high, max(4001, 2 * sum(sizes)))  # half of it may be avoided
    for low, high in avoided:
        grid = grid[(grid <= low) | (grid >= high)]
    chosen = grid[np.linspace(0, len(grid) - 1, sum(sizes)).astype(int)]
    parts = np.split(rng.permutation(chosen), np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]


seeds = st.integers(0, 2**16)

# Shapes and layouts --------------------------------------------------------------------------------------------------


@st.composite
def shapes(draw: st.DrawFn, least: int = 0, most: int = 5, elements: int = 240, zero: bool = True) -> Shape:
    """Shapes whose sides above 1 differ pairwise, so that no axis can be taken for another; rarely 1 or 0."""
    rank = draw(st.sampled_from([r for r in (2, 3, 1, 4, 0, 5) if least <= r <= most]))
    sides = draw(st.lists(st.sampled_from(SIDES), min_size=rank, max_size=rank, unique=True))
    while math.prod(sides) > elements:
        sides[sides.index(max(sides))] = 1
    if rank and draw(st.integers(0, 7)) == 7:
        sides[draw(st.integers(0, rank - 1))] = 0 if zero and draw(st.booleans()) else 1
    return tuple(sides)


@st.composite
def broadcastable(draw: st.DrawFn, count: int, whole: Shape | None = None) -> list[Shape]:
    """``count`` shapes that broadcast to ``whole`` (drawn, if not given): axes are 1 in some, leading ones missing."""
    out = draw(shapes(most=4)) if whole is None else whole
    found = []
    for _ in range(count):
        some = bool(out) and draw(st.booleans())
        ones = draw(st.sets(st.integers(0, len(out) - 1), max_size=2)) if some else ()
        shape = tuple(1 if a in ones else n for a, n in enumerate(out))
        lead = draw(st.integers(0, len(out))) if draw(st.integers(0, 3)) == 3 else 0
        found.append(shape[lead:])
    full = draw(st.integers(0, count - 1))
    if broadcast("strategy", *found) != out:
        found[full] = out
    return found


@st.composite
def layouts(draw: st.DrawFn, shape: Shape, repeats: bool = True) -> Layout:
    """Contiguous; or permuted, strided, reversed, a part of something larger, expanded, in another memory order."""
    if not shape or draw(st.integers(0, 2)) == 0:
        return Layout()
    rank = len(shape)
    steps = tuple(draw(st.sampled_from([1, 1, 2, -1, 3, -2] + [0] * repeats)) for _ in shape)
    margins = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
    axes = tuple(draw(st.permutations(range(rank))))
    order = tuple(draw(st.permutations(range(rank)))) if draw(st.booleans()) else ()
    return Layout(axes, tuple(s if n or s else 1 for n, s in zip(shape, steps)), margins, order)


def laid(array: Array, layout: Layout) -> Input:
    """An input with the elements of ``array``, but for axes that the layout repeats: those have the first."""
    once = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in layout.steps)]
    return Input(np.array(np.broadcast_to(once, array.shape), order="C"), layout)


# Windows -------------------------------------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, rank: int, pool: bool, sizes: Shape | None = None) -> tuple[Window, Shape]:
    """A window and spatial sizes that it fits: the output is drawn and the input follows, unless ``sizes`` is given."""
    fields: list[tuple[int, int, tuple[int, int], int]] = []
    spatial: list[int] = []
    for axis in range(rank):
        kernel, stride, dilation = (draw(st.integers(1, n)) for n in ((4, 3, 3) if rank < 3 else (3, 2, 2)))
        if sizes is not None:
            kernel = min(kernel, sizes[axis])
            dilation = min(dilation, (sizes[axis] - 1) // max(kernel - 1, 1) or 1)
        extent = dilation * (kernel - 1) + 1
        # Of a convolution some windows may lie in the padding alone.
        most = extent // 2 if pool else draw(st.sampled_from([kernel - 1, kernel - 1, extent]))
        padding = (draw(st.integers(0, most)), draw(st.integers(0, most)))
        fields.append((kernel, stride, padding, dilation))
        if sizes is None:
            room = draw(st.integers(0, 3 if rank < 3 else 1)) * stride + draw(st.integers(0, stride - 1))
            size = max(room + extent - sum(padding), 1)
            while size in spatial:  # no two sides alike
                size += 1
            spatial.append(size)
    kernels, strides, paddings, dilations = zip(*fields)
    return Window(kernels, strides, paddings, dilations, pool and draw(st.booleans())), tuple(sizes or spatial)


# Channels and sides of matrices that are whole vectors and tiles, or a little more or less.
_WHOLE = (8, 16, 24, 17, 32)
_TILED = (16, 32, 37, 64, 70, 129)


@st.composite
def channels(draw: st.DrawFn, taken: Shape, groups: int) -> tuple[int, int]:
    """Input and output channels that ``groups`` divides, unlike each other and the sizes ``taken``."""
    if draw(st.integers(0, 5)) == 5:
        return tuple(groups * n for n in draw(st.permutations(_WHOLE))[:2])  # type: ignore[return-value]
    free = [n * groups for n in range(1, 9) if n * groups not in taken]
    return tuple(draw(st.lists(st.sampled_from(free[:4]), min_size=2, max_size=2, unique=True)))  # type: ignore[return-value]


@st.composite
def batches(draw: st.DrawFn, taken: Shape) -> int:
    """A batch size unlike the sizes ``taken``; sometimes one from which backends prefer another layout."""
    return draw(st.sampled_from([n for n in (2, 3, 5, 7, 13, 1, 16, 19) if n not in taken]))


# Signatures: what each primitive takes -------------------------------------------------------------------------------


class Source(NamedTuple):
    """One source of a primitive.

    Attributes:
        shape: its shape.
        dtype: its dtype where that is fixed; None: that of the case.
        below: for positions: they are drawn from ``range(below)``.
    """

    shape: Shape
    dtype: DType | None = None
    below: int | None = None


Signature = tuple[list[Source], dict[str, Any]]
Draw = st.DrawFn


def _elementwise(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    assert op.arity is not None
    sources = [Source(s) for s in draw(broadcastable(op.arity))]
    if op.name == "where":
        sources[0] = sources[0]._replace(dtype=dtypes.bool_)
    return sources, {"dtype": draw(st.sampled_from(only))} if "dtype" in op.attrs._fields else {}


def _with_axes(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    """Reductions and scans: one axis or several, and flags."""
    shape = draw(shapes(least=1, most=4))
    axis = draw(st.integers(0, len(shape) - 1))
    axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    attrs = {f: axes if f == "axes" else axis if f == "axis" else draw(st.booleans()) for f in op.attrs._fields}
    try:
        op.shape(op.attrs(**attrs), shape)
    except ShapeError:  # nothing to reduce
        shape = tuple(n or 2 for n in shape)
    return [Source(shape)], attrs


def _factors(count: int) -> list[int]:
    found, factor = [], 2
    while count > 1:
        while count % factor == 0:
            found.append(factor)
            count //= factor
        factor += 1
    return found


def _reshape(draw: Draw, shape: Shape) -> dict[str, Any]:
    count = math.prod(shape)
    if count == 0:
        return {"shape": tuple(draw(st.permutations(shape)))}
    sides = [1] * draw(st.integers(1, 4))
    for factor in draw(st.permutations(_factors(count))):
        sides[draw(st.integers(0, len(sides) - 1))] *= factor
    return {"shape": tuple(sides)}


def _permute(draw: Draw, shape: Shape) -> dict[str, Any]:
    return {"axes": tuple(draw(st.permutations(range(len(shape)))))}


def _expand(draw: Draw, shape: Shape) -> dict[str, Any]:
    grown = tuple(draw(st.sampled_from([1, 2, 3])) if n == 1 else n for n in shape)
    return {"shape": draw(st.sampled_from([(), (), (2,), (3, 1)])) + grown}


def _slice(draw: Draw, shape: Shape) -> dict[str, Any]:
    """In a third of all cases nothing is skipped or turned round, in another nothing is skipped; often one is left."""
    usual = draw(st.sampled_from([(1,), (1, -1), (1, 1, -1, 2, -2, 3)]))
    parts = []
    for length in shape:
        step = draw(st.sampled_from(usual))
        size = draw(st.integers(0 if length == 0 or draw(st.integers(0, 9)) == 9 else 1, -(-length // abs(step))))
        size = min(size, draw(st.sampled_from([length, length, 1])))
        span = max(size - 1, 0) * abs(step)
        first = draw(st.integers(0, max(length - 1 - span, 0)))
        parts.append((first + span if step < 0 else first, size, step))
    starts, sizes, steps = zip(*parts) if parts else ((), (), ())
    return {"starts": starts, "sizes": sizes, "steps": steps}


def _pad(draw: Draw, shape: Shape) -> dict[str, Any]:
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
    return {"padding": padding, "value": draw(st.sampled_from([0, 1, 3]))}


def _strided(draw: Draw, shape: Shape) -> tuple[Shape, dict[str, Any]]:
    """A shape, strides and an offset that stay inside ``shape`` and meet no element twice."""
    room, step, axes = math.prod(shape) - 1, 1, []
    for _ in range(draw(st.integers(0, 3))):
        step *= draw(st.sampled_from([1, 1, 2, 3]))
        size = draw(st.integers(0 if draw(st.integers(0, 9)) == 9 else 1, max(min(room // step + 1, 5), 1)))
        room -= max(size - 1, 0) * step
        axes.append((size, step if draw(st.integers(0, 2)) else -step))
        step *= max(size, 1)
    axes = draw(st.permutations(axes))
    if room < 0:  # no element at all
        axes = [(0, 1), *axes]
    offset = draw(st.integers(0, max(room, 0))) + sum(max(n - 1, 0) * -s for n, s in axes if s < 0)
    return tuple(n for n, _ in axes), {"strides": tuple(s for _, s in axes), "offset": offset}


def _strided_view(draw: Draw, shape: Shape) -> dict[str, Any]:
    inner, attrs = _strided(draw, shape)
    return {"shape": inner, **attrs}


# Movement of one source: attributes for a source of a given shape, so that programs can use them too.
MOVEMENTS: dict[str, Callable[[Draw, Shape], dict[str, Any]]] = {
    "reshape": _reshape, "permute": _permute, "expand": _expand, "slice": _slice, "pad": _pad,
    "strided_view": _strided_view,
}  # fmt: skip


def _movement(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    shape = draw(shapes())
    return [Source(shape)], MOVEMENTS[op.name](draw, shape)


@st.composite
def views(draw: st.DrawFn, only: Sequence[DType], elements: int = 480) -> Program:
    """Two to six movements one after the other, of an input or of something computed, read by one primitive.

    All elements differ and are integers that ``only`` dtypes of at least 32 bits hold exactly, so that each one that is
    read from a wrong place shows.
    """
    shape = draw(shapes(least=1, most=4, zero=False, elements=elements // draw(st.sampled_from([2, 8]))))
    dtype = draw(st.sampled_from(only))
    array = np.random.default_rng(draw(seeds)).permutation(math.prod(shape)).reshape(shape).astype(dtype.numpy)
    steps = [Step("neg", (0,))] if draw(st.booleans()) else []
    names = ["slice", "pad", *sorted(MOVEMENTS)]
    for _ in range(draw(st.integers(2, 6))):
        again = [steps[-1].op] * 4 if len(steps) > 1 else []
        op = TABLE[draw(st.sampled_from(again + ["expand"] * 4 * (1 in shape) + names))]
        attrs = MOVEMENTS[op.name](draw, shape)
        moved = op.shape(op.attrs(**attrs), shape)
        if 0 < math.prod(moved) <= elements:
            steps.append(Step(op.name, (len(steps),), attrs))
            shape = moved
    name = draw(st.sampled_from(["copy", "neg", "add", "sum", "max"] if shape else ["copy", "neg", "add"]))
    axes = {"axes": (draw(st.integers(0, len(shape) - 1)),)} if name in ("sum", "max") else {}
    steps.append(Step(name, (len(steps),) * (TABLE[name].arity or 1), axes))
    return Program((laid(array, draw(layouts(array.shape))),), tuple(steps), (len(steps),))


def _cat(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    shape = draw(shapes(least=1, most=4))
    axis = draw(st.integers(0, len(shape) - 1))
    sides = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    return [Source((*shape[:axis], side, *shape[axis + 1 :])) for side in sides], {"axis": axis}


def _assign_view(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    shape = draw(shapes())
    inner, attrs = _strided(draw, shape)
    return [Source(shape), Source(inner)], attrs


def _identity(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    return [Source(draw(shapes())) for _ in range(op.arity or 1)], {field: None for field in op.attrs._fields}


def _take(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    index, rest = draw(shapes(most=2)), draw(shapes(most=2, zero=False))
    rows = draw(st.integers(1, 9))
    return [Source((rows, *rest)), Source(index, dtypes.int64, rows)], {}


def _scatter(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    index, rest = draw(shapes(most=2)), draw(shapes(most=2, zero=False))
    rows = draw(st.integers(1, 9))
    attrs = {"length": rows, "reduce": draw(st.sampled_from(["sum", "max"]))}
    return [Source(index, dtypes.int64, rows), Source(index + rest)], attrs


def _matmul(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    m, k, n = draw(st.lists(st.sampled_from(SIDES), min_size=3, max_size=3, unique=True))
    if draw(st.integers(0, 9)) == 9:
        m, k, n = draw(st.permutations([m, n, draw(st.sampled_from([0, 1, 70]))]))
    elif draw(st.integers(0, 7)) == 7:
        m, k, n = draw(st.permutations(_TILED))[:3]
        return [Source((m, k)), Source((k, n))], {}
    left, right = draw(broadcastable(2, draw(shapes(most=2, elements=12))))
    return [Source((*left, m, k)), Source((*right, k, n))], {}


def _conv(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    rank = draw(st.sampled_from([2, 1, 3]))
    window, spatial = draw(windows(rank, pool=False))
    groups = draw(st.sampled_from([1, 1, 2, 3, 0]))
    c, k = draw(channels(spatial, max(groups, 1)))
    if groups == 0:  # one filter or two for each channel
        groups, k = c, c * draw(st.integers(1, 2))
    n = draw(batches((*spatial, c, k)))
    x, w = Source((n, c, *spatial)), Source((k, c // groups, *window.kernel))
    y = Source((n, k, *window.output_size("conv", spatial)))
    attrs: dict[str, Any] = {"window": window, "groups": groups}
    if op.name == "conv_input_grad":
        return [y, w], attrs | {"spatial": spatial}
    return ([x, y] if op.name == "conv_weight_grad" else [x, w]), attrs


def _pool(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    window, spatial = draw(windows(draw(st.sampled_from([2, 1, 3])), pool=True))
    (c, _), n = draw(channels(spatial, 1)), draw(batches(spatial))
    x = Source((n, c, *spatial))
    y = Source((n, c, *window.output_size("pool", spatial)))
    attrs: dict[str, Any] = {"window": window}
    fields = op.attrs._fields
    if "count_include_pad" in fields:
        attrs["count_include_pad"] = draw(st.booleans())
    if "spatial" in fields:
        attrs["spatial"] = spatial
    sources = [y if "spatial" in fields else x]
    if op.arity == 2:
        sources.append(Source(y.shape, tap_dtype(window), math.prod(window.kernel)))
    return sources, attrs


def _creation(draw: Draw, op: Primitive, only: Sequence[DType]) -> Signature:
    dtype = draw(st.sampled_from(only))
    if op.name == "iota":
        return [], {"length": draw(st.integers(0, 100)), "dtype": dtype}
    value = fill("special", Domain(), np.random.default_rng(draw(seeds)), (), dtype).item()
    return [], {"value": value, "sign": math.copysign(1.0, value), "dtype": dtype}


# By name or family: what a primitive takes, where its attributes may name the dtypes given.
SIGNATURES: dict[str | Kind, Callable[[Draw, Primitive, Sequence[DType]], Signature]] = {
    Kind.ELEMENTWISE: _elementwise, Kind.REDUCE: _with_axes, Kind.SCAN: _with_axes, Kind.MOVEMENT: _movement,
    Kind.IDENTITY: _identity, Kind.WINDOW: _pool, Kind.CREATION: _creation,
    "cat": _cat, "assign_view": _assign_view, "take": _take, "scatter": _scatter,
    "matmul": _matmul, "conv": _conv, "conv_input_grad": _conv, "conv_weight_grad": _conv,
}  # fmt: skip

# Rows that are no cases by themselves, and what tests them instead.
ELSEWHERE = {
    "buffer": "every input of every case is one",
    "project": "the results of every primitive with several outputs are",
    "custom": "its meaning is a user's: a test of its own",
    "transfer": "it needs two devices: a test of its own",
}


def has_cases(op: Primitive) -> bool:
    """Whether :func:`cases` can draw inputs for ``op``."""
    family = SIGNATURES.get(op.name, SIGNATURES.get(op.kind))
    return op.name not in ELSEWHERE and family is not None and (family is not _movement or op.name in MOVEMENTS)


def signature(draw: Draw, op: Primitive, only: Sequence[DType] = dtypes.ALL) -> Signature:
    """Sources and attributes that ``op`` takes; attributes name no dtypes but ``only`` these."""
    return (SIGNATURES.get(op.name) or SIGNATURES[op.kind])(draw, op, only)


def accepts(op: Primitive, attrs: Mapping[str, Any], sources: Sequence[Source], dtype: DType) -> bool:
    """Whether the dtype rule of ``op`` takes these sources where those without a dtype have ``dtype``."""
    try:
        op.dtype(op.attrs(**attrs), *(s.dtype or dtype for s in sources))
    except DTypeError:
        return False
    return True


@st.composite
def cases(draw: st.DrawFn, op: Primitive, kinds: Sequence[str] = KINDS, only: Sequence[DType] = dtypes.ALL) -> Program:
    """A program of one step: ``op`` over drawn sources.

    Args:
        draw: given by Hypothesis.
        op: the primitive.
        kinds: kinds of values for :func:`fill`, or ``apart``: for derivatives, in float64.
        only: dtypes to choose from, of those that the primitive takes.
    """
    sources, attrs = signature(draw, op, only)
    taken = [d for d in only if accepts(op, attrs, sources, d)]
    dtype = draw(st.sampled_from(taken)) if sources else dtypes.float32
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(seeds))
    if kind == "apart" and "dtype" in attrs:
        attrs["dtype"] = dtype
    floats = [s.shape for s in sources if s.dtype is None]
    spread = iter(apart(rng, floats, op.domain) if kind == "apart" else [])
    inputs = []
    for position, (shape, fixed, below) in enumerate(sources):
        if below is not None:
            assert fixed is not None
            array = rng.integers(0, below, shape).astype(fixed.numpy)
        elif kind == "apart" and fixed is None:
            array = next(spread)
        else:
            array = fill(*_defined(op, attrs, position, kind, dtype), rng, shape, fixed or dtype)
        inputs.append(laid(array, draw(layouts(shape, repeats=kind != "apart"))))
    return one_step(op.name, tuple(inputs), attrs)


def _defined(op: Primitive, attrs: Mapping[str, Any], position: int, kind: str, dtype: DType) -> tuple[str, Domain]:
    """The kind of values and the domain to draw one source from, so that the result is defined."""
    if op.name == "cast" and dtype.is_float and attrs["dtype"].is_integer:  # out of the target's range nothing is
        low = 0 if attrs["dtype"].kind == "u" else -100
        return "uniform" if kind in ("wide", "special") else kind, Domain(low, 100)
    if op.kind is Kind.CONTRACTION and position == 1 and kind == "special":
        return "uniform", op.domain  # infinity times the zeros of padding, which a kernel need not multiply
    if dtype.is_integer and (op.name == "pow" or op.name.startswith("shift") and position == 0):
        return kind, Domain()  # the row's domain is that of floats, and of the distance
    return kind, op.domain


def rows() -> list[Primitive]:
    """The rows of the table that have cases, in its order."""
    return [op for op in TABLE.values() if has_cases(op)]
