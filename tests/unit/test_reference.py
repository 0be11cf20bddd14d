"""The oracle against scalar loops in plain Python, known answers and PyTorch: what everything else is compared with."""

import ast
import itertools
import math
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigrad import reference
from minigrad.shapes import Window

INF, NAN = math.inf, math.nan
small_ints = st.integers(-3, 3).map(float)  # exact in any order of summation, so that results are compared with ==
specials = st.sampled_from([-INF, -2.0, -0.0, 0.0, 1.0, 2.0, INF, NAN])  # few values: many ties


def arrays(shape, elements=small_ints):
    return hnp.arrays(np.float64, shape, elements=elements)


def indices(shape):
    return itertools.product(*map(range, shape))


def same(got, expected):
    """Equal dtype, shape and values, where NaN equals NaN."""
    expected = np.asarray(expected)
    assert isinstance(got, np.ndarray)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(got, expected)


def test_imports_nothing_of_minigrad():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {getattr(node, "module", None) or alias.name for node in imports for alias in node.names}
    assert names and not any(name.startswith("minigrad") for name in names)


# Elementwise ---------------------------------------------------------------------------------------------------------

POINTS = [-2.5, -1.5, -0.75, -0.5, 0.0, 0.25, 0.5, 1.5, 2.5, 3.0]
UNARY = {
    "neg": lambda x: -x,
    "abs": math.fabs,
    "sign": lambda x: float((x > 0) - (x < 0)),
    "exp": math.exp,
    "expm1": math.expm1,
    "log": lambda x: math.log(x) if x > 0 else NAN if x < 0 else -INF,
    "log1p": lambda x: math.log1p(x) if x > -1 else NAN,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else NAN,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else NAN if x < 0 else INF,
    "reciprocal": lambda x: 1 / x if x else INF,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "erf": math.erf,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "relu": lambda x: x if x > 0 else 0.0,
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "round": lambda x: float(round(x)),
    "trunc": lambda x: float(int(x)),
    "isnan": math.isnan,
    "isfinite": math.isfinite,
}
BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "maximum": max,
    "minimum": min,
    "atan2": math.atan2,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_on_floats(name):
    got = getattr(reference, name)(np.array(POINTS))
    np.testing.assert_allclose(got, [UNARY[name](x) for x in POINTS], rtol=1e-15)
    assert got.dtype == (bool if name.startswith("is") else np.float64)


@pytest.mark.parametrize("name", BINARY)
def test_binary_on_floats_broadcasts(name):
    divisors = [y for y in POINTS if y]
    got = getattr(reference, name)(np.array(POINTS)[:, None], np.array(divisors))
    np.testing.assert_allclose(got, [[BINARY[name](x, y) for y in divisors] for x in POINTS], rtol=1e-15)


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "tanh", "erf", "sigmoid", "relu", "sign", "round", "neg"])
def test_nan_propagates(name):
    assert np.isnan(getattr(reference, name)(np.array(NAN)))


@pytest.mark.parametrize("name", ["add", "mul", "div", "maximum", "minimum", "floordiv", "mod", "atan2"])
def test_nan_propagates_from_either_source(name):
    assert np.isnan(getattr(reference, name)(np.array([NAN, 1.0]), np.array([1.0, NAN]))).all()


def test_sigmoid_and_erf_at_the_ends():
    same(reference.sigmoid(np.array([-INF, -800.0, 0.0, 800.0, INF])), [0.0, math.exp(-800.0), 0.5, 1.0, 1.0])
    same(reference.erf(np.array([-INF, INF, NAN])), [-1.0, 1.0, NAN])
    same(reference.erf(np.zeros((0, 2))), np.zeros((0, 2)))


int8s = st.one_of(st.sampled_from([-128, -1, 0, 1]), st.integers(-128, 127))


@given(st.lists(st.tuples(int8s, int8s), min_size=1, max_size=8))
def test_integer_arithmetic_wraps_and_divides_as_python_except_by_zero(pairs):
    xs, ys = (np.array(v, np.int8) for v in zip(*pairs))

    def wrapped(function):
        return np.array([(function(x, y) + 128) % 256 - 128 for x, y in pairs], np.int8)

    same(reference.add(xs, ys), wrapped(lambda x, y: x + y))
    same(reference.mul(xs, ys), wrapped(lambda x, y: x * y))
    same(reference.floordiv(xs, ys), wrapped(lambda x, y: x // y if y else 0))
    same(reference.mod(xs, ys), wrapped(lambda x, y: x % y if y else 0))
    same(reference.pow(xs, ys), wrapped(lambda x, y: x**y if y >= 0 else int(Fraction(x) ** y) if x else 0))
    same(reference.bitwise_and(xs, ys), wrapped(lambda x, y: x & y))
    same(reference.bitwise_or(xs, ys), wrapped(lambda x, y: x | y))
    same(reference.bitwise_xor(xs, ys), wrapped(lambda x, y: x ^ y))
    same(reference.bitwise_not(xs), wrapped(lambda x, y: ~x))
    same(reference.neg(xs), wrapped(lambda x, y: -x))
    same(reference.shift_left(xs, ys & 15), wrapped(lambda x, y: x << (y & 15)))
    same(reference.shift_right(xs, ys & 15), wrapped(lambda x, y: x >> (y & 15)))


def test_float_pow():
    same(reference.pow(np.array([2.0, -2.0, 0.0, -8.0]), np.array([-2.0, 3.0, 0.0, 1 / 3])), [0.25, -8.0, 1.0, NAN])
    for half in (np.array([0.5, 0.5, 0.5]), np.array([0.5]), np.array(0.5)):  # a power, however many exponents
        roots = reference.pow(np.array([-INF, -0.0, 4.0]), half)
        same(roots, [INF, 0.0, 2.0])
        assert not np.signbit(roots).any()


def test_bools():
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    same(reference.bitwise_and(a, b), [False, False, False, True])
    same(reference.bitwise_or(a, b), [False, True, True, True])
    same(reference.bitwise_xor(a, b), [False, True, True, False])
    same(reference.logical_not(a), [True, True, False, False])
    same(reference.where(a[:, None], np.array([1.0]), np.array([2.0])), [[2.0], [2.0], [1.0], [1.0]])


def test_cast_rounds_through_the_dtype():
    third = np.array([1 / 3, 65519.0, 65520.0])
    same(reference.cast(third, dtype=np.float16), [1365 / 4096, 65504.0, INF])
    same(reference.cast(np.array(1 / 3), dtype=np.dtype("float32")), 11184811 / 2**25)
    same(reference.cast(np.array([-1.9, 1.9, 2.5]), dtype=np.int32), np.array([-1, 1, 2], np.int32))
    same(reference.cast(np.array([0.0, -0.0, 0.1, NAN]), dtype=np.bool_), [False, False, True, True])
    same(reference.cast(np.array([300, -1]), dtype=np.uint8), np.array([44, 255], np.uint8))
    same(reference.cast(np.array([True, False]), dtype=np.float32), [1.0, 0.0])
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    same(reference.cast(np.array([1 + 2**-8, 1 + 3 * 2**-8]), dtype=bfloat16), [1.0, 1 + 2**-6])  # halves to even


@pytest.mark.parametrize(
    ("key", "counter", "first_word"),  # the known answers distributed with Random123
    [
        ((0, 0), (0, 0), 0x6B200159),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), 0xC4923A9C),
    ],
)
def test_threefry_known_answers(key, counter, first_word):
    words = (np.array(word, np.uint32) for word in (*key, *counter))
    same(reference.threefry(*words), np.array(first_word, np.uint32))


# Creation and movement -----------------------------------------------------------------------------------------------


def test_creation_and_identities():
    same(reference.const(value=0.1, dtype=np.float32), float(np.float32(0.1)))
    assert np.signbit(reference.const(value=-0.0, dtype=np.float32, sign=-1.0))
    same(reference.const(value=3, dtype=np.int8), np.array(3, np.int8))
    same(reference.iota(length=3, dtype=np.int64), np.array([0, 1, 2]))
    same(reference.iota(length=0, dtype=np.float32), np.zeros(0))
    x = np.array([1.0, 2.0])
    for copy in (
        reference.detach(x),
        reference.barrier(x, x + 1, token=1),
        reference.custom(x, x + 1, function=None),
        reference.project((x + 1, x), index=1, shape=(2,), dtype=np.float64),
    ):
        same(copy, x)
        assert not np.shares_memory(copy, x)


def test_reshape_permute_expand_and_cat():
    x = np.arange(6.0).reshape(2, 3)
    same(reference.reshape(x.T, shape=(6,)), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0])
    y = np.arange(24.0).reshape(2, 3, 4)
    got = reference.permute(y, axes=(2, 0, 1))
    same(got, [[[y[i, j, k] for j in range(3)] for i in range(2)] for k in range(4)])
    same(reference.expand(x[:, :1], shape=(2, 2, 3)), [[[0.0] * 3, [3.0] * 3]] * 2)
    same(reference.cat(x, x[:, :0], -x[:, :1], axis=1), [[0.0, 1.0, 2.0, -0.0], [3.0, 4.0, 5.0, -3.0]])


@given(st.data())
def test_slice_matches_loops(data):
    shape = data.draw(st.lists(st.integers(1, 4), max_size=3))
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    steps = [data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) for _ in shape]
    rooms = [(n - 1 - a) // s if s > 0 else a // -s for n, a, s in zip(shape, starts, steps)]
    sizes = tuple(data.draw(st.integers(0, room + 1)) for room in rooms)
    x = np.arange(float(math.prod(shape))).reshape(shape)
    expected = np.empty(sizes)
    for i in indices(sizes):
        expected[i] = x[tuple(a + k * s for a, k, s in zip(starts, i, steps))]
    same(reference.slice(x, starts=tuple(starts), sizes=sizes, steps=tuple(steps)), expected)


@given(st.data())
def test_pad_matches_loops(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    padding = tuple((data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in shape)
    x = np.arange(math.prod(shape), dtype=np.int16).reshape(shape)
    expected = np.empty([n + a + b for n, (a, b) in zip(shape, padding)], np.int16)
    for i in indices(expected.shape):
        inner = tuple(k - before for k, (before, _) in zip(i, padding))
        expected[i] = x[inner] if all(0 <= k < n for k, n in zip(inner, shape)) else -7
    same(reference.pad(x, padding=padding, value=-7), expected)


VIEWS = [  # shape, strides, offset over 24 elements
    ((2, 3), (12, 4), 1),
    ((4, 2), (-4, 9), 14),
    ((3,), (-5,), 20),
    ((2, 2, 2), (1, 12, 3), 0),
    ((), (), 5),
    ((0, 3), (1, 1), 0),
]


@pytest.mark.parametrize(("shape", "strides", "offset"), VIEWS)
def test_strided_view_and_assign_view_match_loops(shape, strides, offset):
    base = np.arange(24.0).reshape(4, 6)
    value = -1.0 - np.arange(float(math.prod(shape))).reshape(shape)
    view, assigned = np.empty(shape), base.flatten()
    for i in indices(shape):
        at = offset + sum(k * s for k, s in zip(i, strides))
        view[i] = at
        assigned[at] = value[i]
    same(reference.strided_view(base, shape=shape, strides=strides, offset=offset), view)
    same(reference.assign_view(base, value, strides=strides, offset=offset), assigned.reshape(4, 6))
    same(base, np.arange(24.0).reshape(4, 6))
    transposed = np.asfortranarray(base)  # positions count in row-major order, however the array lies in memory
    same(reference.strided_view(transposed, shape=shape, strides=strides, offset=offset), view)
    same(reference.assign_view(transposed, value, strides=strides, offset=offset), assigned.reshape(4, 6))


# Reductions, scans, sorting, indexing --------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 2), (0, 1, 2)])
@given(x=arrays((2, 3, 2), st.one_of(small_ints, st.just(NAN))))
@settings(max_examples=20)
def test_reductions_match_loops(axes, x):
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    groups = defaultdict(list)
    for i in indices(x.shape):
        groups[tuple(0 if a in axes else k for a, k in enumerate(i))].append(float(x[i]))
    for name, function in {"sum": sum, "prod": math.prod, "max": max, "min": min}.items():
        expected = np.empty(shape)
        for i, values in groups.items():
            expected[i] = NAN if any(map(math.isnan, values)) else function(values)
        same(getattr(reference, name)(x, axes=axes), expected)


def test_reductions_of_nothing_and_of_integers():
    same(reference.sum(np.zeros((2, 0)), axes=(1,)), np.zeros((2, 1)))
    same(reference.prod(np.zeros((2, 0)), axes=(1,)), np.ones((2, 1)))
    same(reference.sum(np.array([100, 100], np.int8), axes=(0,)), np.array([-56], np.int8))
    same(reference.prod(np.array([100, 3], np.int8), axes=(0,)), np.array([44], np.int8))
    same(reference.cumsum(np.array([100, 100], np.int8), axis=0, reverse=False), np.array([100, -56], np.int8))
    same(reference.cumsum(np.array([100, 28], np.int8), axis=0, reverse=True), np.array([-128, 28], np.int8))
    same(reference.max(np.array([False, True]), axes=(0,)), [True])
    same(reference.argmin(np.array([3, 0, 255], np.uint8), axis=0), np.array([1]))
    same(reference.sum(np.array(2.0), axes=()), 2.0)


def first_best(values, better):
    best = 0
    for i, value in enumerate(values):
        if not math.isnan(values[best]) and (math.isnan(value) or better(value, values[best])):
            best = i
    return best


@given(arrays((3, 4), specials))
def test_argmax_and_argmin_take_the_first_nan_else_the_first_extreme(x):
    rows = [first_best(list(row), lambda a, b: a > b) for row in x]
    same(reference.argmax(x, axis=1), np.array(rows)[:, None])
    columns = [first_best(list(column), lambda a, b: a < b) for column in x.T]
    same(reference.argmin(x, axis=0), np.array(columns)[None])


@given(arrays((3, 4)), st.sampled_from([0, 1]))
def test_cumsum_matches_loops(x, axis):
    forward, backward = np.empty_like(x), np.empty_like(x)
    for i in indices(x.shape):
        line = list(np.moveaxis(x, axis, 0)[(slice(None), i[1 - axis])])
        forward[i], backward[i] = sum(line[: i[axis] + 1]), sum(line[i[axis] :])
    same(reference.cumsum(x, axis=axis, reverse=False), forward)
    same(reference.cumsum(x, axis=axis, reverse=True), backward)


@given(arrays((2, 5), specials), st.booleans())
def test_sort_is_stable_with_nan_as_the_greatest(x, descending):
    values, order = reference.sort(x, axis=1, descending=descending)
    for row, got, at in zip(x.tolist(), values, order):
        sign = -1 if descending else 1
        expected = sorted(range(5), key=lambda i: (sign * math.isnan(row[i]), math.isnan(row[i]) or sign * row[i]))
        same(at, np.array(expected))
        same(got, [row[i] for i in expected])
    swapped = reference.sort(x.T, axis=0, descending=descending)
    same(swapped[0], values.T)
    same(swapped[1], order.T)


@given(arrays((3, 2)), hnp.arrays(np.int64, (2, 2), elements=st.integers(-2, 5)))
def test_take_clamps_and_matches_loops(x, idx):
    expected = np.empty((2, 2, 2))
    for i in indices((2, 2, 2)):
        expected[i] = x[min(max(idx[i[:2]], 0), 2), i[2]]
    same(reference.take(x, idx), expected)


@given(hnp.arrays(np.int64, (2, 3), elements=st.integers(0, 3)), arrays((2, 3, 2), specials))
def test_scatter_matches_loops(idx, src):
    total, greatest = np.zeros((4, 2)), np.full((4, 2), -INF)
    for i in indices(src.shape):
        at, value = (idx[i[:2]], i[2]), float(src[i])
        total[at] = float(total[at]) + value
        greatest[at] = value if math.isnan(value) or value > greatest[at] else greatest[at]
    same(reference.scatter(idx, src, length=4, reduce="sum"), total)
    same(reference.scatter(idx, src, length=4, reduce="max"), greatest)


def test_scatter_of_integers():
    idx, src = np.array([2, 2, 0]), np.array([100, 100, 3], np.int8)
    same(reference.scatter(idx, src, length=4, reduce="sum"), np.array([3, 0, -56, 0], np.int8))
    same(reference.scatter(idx, src, length=4, reduce="max"), np.array([3, -128, 100, -128], np.int8))


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 1, 2, 3), (4, 3, 1)), ((1, 2, 0), (3, 0, 4)), ((0, 2, 3), (1, 3, 2))],
)
def test_matmul_matches_loops(left, right):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, left).astype(float), rng.integers(-3, 4, right).astype(float)
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    wide_a, wide_b = np.broadcast_to(a, (*batch, *left[-2:])), np.broadcast_to(b, (*batch, *right[-2:]))
    expected = np.empty((*batch, left[-2], right[-1]))
    for at in indices(expected.shape):
        *n, i, j = at
        expected[at] = sum(float(wide_a[(*n, i, k)]) * float(wide_b[(*n, k, j)]) for k in range(left[-1]))
    same(reference.matmul(a, b), expected)
    same(reference.matmul(a.astype(np.int32), b.astype(np.int32)), expected.astype(np.int32))


# Windows -------------------------------------------------------------------------------------------------------------


@st.composite
def windows(draw, dilated=True, symmetric=False, ceil_modes=(False, True)):
    """A window and the spatial sizes it slides over, made from the output's sizes."""
    rank = draw(st.integers(1, 3))
    most = 2 if rank == 3 else 3
    axes = []
    for _ in range(rank):
        kernel, stride = draw(st.integers(1, most)), draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 3)) if dilated else 1
        # PyTorch pads both ends alike, and pools by at most half the window.
        before = draw(st.integers(0, kernel // 2 if symmetric else kernel - 1))
        after = before if symmetric else draw(st.integers(0, kernel - 1))
        outputs, slack = draw(st.integers(1, most)), draw(st.integers(0, stride - 1))
        size = (outputs - 1) * stride + dilation * (kernel - 1) + 1 + slack - before - after
        axes.append((kernel, stride, (before, after), dilation, max(size, 1)))
    kernels, strides, paddings, dilations, spatial = zip(*axes)
    return Window(kernels, strides, paddings, dilations, draw(st.sampled_from(ceil_modes))), spatial


def output_sizes(window, spatial):
    """Counts windows one by one: each fits or, in ceil mode, starts before the end while the one before fell short."""
    sizes = []
    for axis, size in enumerate(spatial):
        stride, (before, after) = window.stride[axis], window.padding[axis]
        extent, count = window.extent(axis), 0
        end = size + before + after
        while count * stride + extent <= end or (
            window.ceil_mode and (count - 1) * stride + extent < end and count * stride < size + before
        ):
            count += 1
        sizes.append(count)
    return tuple(sizes)


def taps(window, spatial, o):
    """``(tap, position, whether that is inside the input)`` for every tap of window ``o``, in row-major order."""
    for tap in indices(window.kernel):
        axes = zip(o, tap, window.stride, window.padding, window.dilation)
        position = tuple(i * stride - before + t * dilation for i, t, stride, (before, _), dilation in axes)
        yield tap, position, all(0 <= p < n for p, n in zip(position, spatial))


@given(st.data(), windows(), st.sampled_from([1, 2, 3]))
@settings(deadline=None)
def test_conv_and_its_adjoints_match_loops(data, drawn, groups):
    window, spatial = drawn
    c, k = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 1)]))  # channels per group, in and out
    outputs = output_sizes(window, spatial)
    x = data.draw(arrays((2, groups * c, *spatial)))
    w = data.draw(arrays((groups * k, c, *window.kernel)))
    g = data.draw(arrays((2, groups * k, *outputs)))
    out, dx, dw = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
    for n, filter_, *o in indices(g.shape):
        for channel in range(c):
            for tap, position, inside in taps(window, spatial, o):
                if inside:
                    to, at = (n, filter_, *o), (n, filter_ // k * c + channel, *position)
                    out[to] += w[(filter_, channel, *tap)] * x[at]
                    dx[at] += w[(filter_, channel, *tap)] * g[to]
                    dw[(filter_, channel, *tap)] += g[to] * x[at]
    same(reference.conv(x, w, window=window, groups=groups), out)
    same(reference.conv_input_grad(g, w, window=window, groups=groups, spatial=spatial), dx)
    same(reference.conv_weight_grad(x, g, window=window, groups=groups), dw)
    # <conv(x, w), g> = <x, input_grad(g, w)> = <w, weight_grad(x, g)>
    assert np.vdot(out, g) == np.vdot(x, dx) == np.vdot(w, dw)


@given(st.data(), windows())
@settings(deadline=None)
def test_max_pool_takes_the_first_nan_else_the_first_maximum(data, drawn):
    window, spatial = drawn
    x = data.draw(arrays((1, 2, *spatial), specials))
    values = np.full((1, 2, *output_sizes(window, spatial)), -INF)
    index = np.zeros(values.shape, np.uint8)
    for at in indices(values.shape):
        chosen = None
        for flat, (_, position, inside) in enumerate(taps(window, spatial, at[2:])):
            value = float(x[(*at[:2], *position)]) if inside else None
            if inside and (chosen is None or value > chosen or (math.isnan(value) and not math.isnan(chosen))):
                chosen, values[at], index[at] = value, value, flat
    got = reference.max_pool(x, window=window)
    same(got[0], values)
    same(got[1], index)


def test_max_pool_of_integers_and_of_large_windows():
    window = Window((2,), (1,), ((1, 1),), (1,))
    values, index = reference.max_pool(np.array([[[-128, -128, 5]]], np.int8), window=window)
    same(values, np.array([[[-128, -128, 5, 5]]], np.int8))
    same(index, np.array([[[1, 0, 1, 0]]], np.uint8))  # padding never wins, though nothing is less than -128
    for taps, dtype in ((256, np.uint8), (257, np.int32)):
        index = reference.max_pool(np.arange(taps * 1.0)[None, None], window=Window((taps,), (1,), ((0, 0),), (1,)))[1]
        same(index, np.array([[[taps - 1]]], dtype))


@given(st.data(), windows())
@settings(deadline=None)
def test_window_gather_and_scatter_match_loops(data, drawn):
    window, spatial = drawn
    shape = (2, 1, *output_sizes(window, spatial))
    x, g = data.draw(arrays((2, 1, *spatial))), data.draw(arrays(shape))
    index = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, math.prod(window.kernel) - 1)))
    gathered, scattered = np.zeros(shape), np.zeros_like(x)
    for at in indices(shape):
        _, position, inside = list(taps(window, spatial, at[2:]))[index[at]]
        if inside:
            gathered[at] = x[(*at[:2], *position)]
            scattered[(*at[:2], *position)] += g[at]
    same(reference.window_gather(x, index, window=window), gathered)
    same(reference.window_scatter(g, index, window=window, spatial=spatial), scattered)


@given(st.data(), windows(), st.booleans())
@settings(deadline=None)
def test_avg_pool_and_its_adjoint_match_loops(data, drawn, count_include_pad):
    window, spatial = drawn
    shape = (2, 1, *output_sizes(window, spatial))
    x, g = data.draw(arrays((2, 1, *spatial))), data.draw(arrays(shape))
    expected, dx = np.zeros(shape), np.zeros_like(x)
    for at in indices(shape):
        total, count, reached = 0.0, 0, []
        for _, position, inside in taps(window, spatial, at[2:]):
            padded = all(p < n + after for p, n, (_, after) in zip(position, spatial, window.padding))
            count += inside or (count_include_pad and padded)
            if inside:
                reached.append((*at[:2], *position))
                total += x[reached[-1]]
        expected[at] = total / max(count, 1)
        for position in reached:
            dx[position] += g[at] / count
    same(reference.avg_pool(x, window=window, count_include_pad=count_include_pad), expected)
    got = reference.avg_pool_grad(g, window=window, count_include_pad=count_include_pad, spatial=spatial)
    np.testing.assert_allclose(got, dx, atol=1e-14)  # summed in another order


def test_empty_batch():
    window = Window((2, 2), (1, 1), ((0, 0),) * 2, (1, 1))
    x, w, g = np.zeros((0, 2, 3, 3)), np.ones((4, 1, 2, 2)), np.zeros((0, 4, 2, 2))
    same(reference.conv(x, w, window=window, groups=2), g)
    same(reference.conv_input_grad(g, w, window=window, groups=2, spatial=(3, 3)), x)
    same(reference.conv_weight_grad(x, g, window=window, groups=2), np.zeros_like(w))
    same(reference.max_pool(x, window=window)[0], np.zeros((0, 2, 2, 2)))
    same(reference.avg_pool(x, window=window, count_include_pad=True), np.zeros((0, 2, 2, 2)))


# PyTorch -------------------------------------------------------------------------------------------------------------


def torch_function(name, rank):
    torch = pytest.importorskip("torch")
    return torch, getattr(torch.nn.functional, f"{name}{rank}d")


def torch_input(torch, shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def torch_window(window):
    return {"stride": window.stride, "padding": tuple(before for before, _ in window.padding)}


def close(got, expected):
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-12, atol=1e-12)


@given(windows(symmetric=True, ceil_modes=(False,)), st.sampled_from([1, 2, 3]), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_conv_and_its_adjoints_match_pytorch(drawn, groups, seed):
    window, spatial = drawn
    torch, function = torch_function("conv", len(spatial))
    x = torch_input(torch, (2, 2 * groups, *spatial), seed)
    w = torch_input(torch, (3 * groups, 2, *window.kernel), seed + 1)
    out = function(x, w, **torch_window(window), dilation=window.dilation, groups=groups)
    g = torch_input(torch, out.shape, seed + 2)
    dx, dw = torch.autograd.grad(out, (x, w), g)
    x, w, g = (t.detach().numpy() for t in (x, w, g))
    close(reference.conv(x, w, window=window, groups=groups), out)
    close(reference.conv_input_grad(g, w, window=window, groups=groups, spatial=spatial), dx)
    close(reference.conv_weight_grad(x, g, window=window, groups=groups), dw)


@given(windows(symmetric=True), st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=50)
def test_max_pool_and_its_adjoint_match_pytorch(drawn, seed, tied):
    window, spatial = drawn
    torch, function = torch_function("max_pool", len(spatial))
    x = torch_input(torch, (2, 3, *spatial), seed)
    if tied:
        x = x.detach().round().requires_grad_()
    out = function(x, window.kernel, **torch_window(window), dilation=window.dilation, ceil_mode=window.ceil_mode)
    assume(bool(out.isfinite().all()))  # a dilated window can miss the input altogether
    g = torch_input(torch, out.shape, seed + 1)
    (dx,) = torch.autograd.grad(out, x, g)
    values, index = reference.max_pool(x.detach().numpy(), window=window)
    close(values, out)
    close(reference.window_scatter(g.detach().numpy(), index, window=window, spatial=spatial), dx)
    close(reference.window_gather(x.detach().numpy(), index, window=window), out)


@given(windows(symmetric=True, dilated=False), st.booleans(), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_avg_pool_and_its_adjoint_match_pytorch(drawn, count_include_pad, seed):
    window, spatial = drawn
    assume(all(n >= kernel for n, kernel in zip(spatial, window.kernel)))  # avg_pool3d refuses smaller inputs
    torch, function = torch_function("avg_pool", len(spatial))
    x = torch_input(torch, (2, 3, *spatial), seed)
    flags = {"ceil_mode": window.ceil_mode, "count_include_pad": count_include_pad}
    out = function(x, window.kernel, **torch_window(window), **flags)
    g = torch_input(torch, out.shape, seed + 1)
    (dx,) = torch.autograd.grad(out, x, g)
    attributes = {"window": window, "count_include_pad": count_include_pad}
    close(reference.avg_pool(x.detach().numpy(), **attributes), out)
    close(reference.avg_pool_grad(g.detach().numpy(), **attributes, spatial=spatial), dx)
