"""The bounds themselves: wide enough for every correct implementation, and too narrow for a wrong one."""

import functools
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.config import settings
from minigrad.primitive import TABLE
from minigrad.shapes import Window
from minigrad.testing import bounds
from minigrad.testing.bounds import Bounded, bounded, compare, own_error, passed_on, tolerance, ulp, unit_roundoff
from minigrad.testing.evaluate import meaning
from minigrad.testing.programs import Input, Program, Step, nowhere, on, one_step

SUM, MATMUL = TABLE["sum"], TABLE["matmul"]


def sum_bound(x, dtype=dtypes.float32):
    """The exact sum of a float32 vector, and the error allowed."""
    wide = x.astype(np.float64)
    value = wide.sum(keepdims=True)
    return value, own_error(SUM, SUM.attrs((0,)), [wide], value, dtype, np.array([True]))


def in_order(x):
    total = np.float32(0)
    for element in x:
        total = np.float32(total + element)
    return total


def in_pairs(x):
    while len(x) > 1:
        x = np.append(x, np.float32(0)) if len(x) % 2 else x
        x = x[::2] + x[1::2]
    return x[0]


vectors = st.tuples(st.sampled_from([9, 27, 147, 576, 4608]), st.booleans(), st.integers(0, 2**16))


def vector(count, one_sign, seed):
    x = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    return np.abs(x) if one_sign else x


@given(vectors)
def test_a_correct_float32_sum_is_within_the_bound_in_any_order(drawn):
    x = vector(*drawn)
    value, bound = sum_bound(x)
    for total in (in_order(x), in_order(x[::-1]), in_pairs(x), np.sum(x)):
        assert abs(float(total) - value[0]) <= bound[0]


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64, dtypes.bfloat16], ids=repr)
def test_products_that_are_too_small_may_be_lost_though_their_sum_is_not(dtype):
    """A device that flushes denormal numbers has 0 for each of the terms."""
    info = ml_dtypes.finfo(dtype.numpy)
    root = 2.0 ** (int(info.minexp) // 2 - 1)
    a, b = np.full((3, 9), root), np.full((9, 2), root)
    value = a @ b
    assert root * root < float(info.tiny) < value.min()
    exact = np.ones(value.shape, bool)
    error = own_error(MATMUL, MATMUL.attrs(), [a, b], value, dtype, exact)
    assert compare(np.zeros(value.shape, dtype.numpy), Bounded(value, error), dtype, "flushed").worst <= 1


CHOSEN = {  # of numbers that count as 0, as numbers and their neighbours: what there is to choose
    "relu": ([-1.0, 3.0],),
    "maximum": ([-1.0, 3.0], [0.0, 2.0]),
    "minimum": ([0.0, 3.0], [1.0, 2.0]),
    "max": ([[-1.0, 0.0], [3.0, 2.0]],),
    "min": ([[0.0, 1.0], [3.0, 2.0]],),
    "sort": ([[-1.0, 0.0, 1.0], [3.0, 2.0, 4.0]],),
    "max_pool": ([[[-1.0, 0.0], [3.0, 2.0]]],),
}
OPTIONS = {"max": {"axes": (1,)}, "min": {"axes": (1,)}, "sort": {"axis": 1, "descending": False}}
OPTIONS["max_pool"] = {"window": Window((2,), (2,), ((0, 0),), (1,))}


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64, dtypes.bfloat16], ids=repr)
@pytest.mark.parametrize("name", CHOSEN)
def test_what_compares_denormal_numbers_as_zeros_may_choose_any_of_them(name, dtype, monkeypatch):
    monkeypatch.setattr(bounds, "_flushes", lambda device: True)
    least = float(ml_dtypes.finfo(dtype.numpy).smallest_subnormal)
    arrays = [np.array(values) for values in CHOSEN[name]]
    inputs = tuple(Input(np.where(np.abs(a) == 1, a * least, a).astype(dtype.numpy)) for a in arrays)
    out, *_ = bounded(one_step(name, inputs, OPTIONS.get(name, {})).build(on("numpy")).results)
    small = np.abs(out.value) <= least
    assert small.any() and (np.abs(out.value) + least <= out.error)[small].all()
    assert not out.error[~small].any()


@pytest.mark.parametrize("distinct", [1, 7])
@given(vectors)
def test_a_correct_sum_of_few_distinct_values_is_within_the_bound(distinct, drawn):
    """Their roundings go the same way again and again."""
    count, one_sign, seed = drawn
    x = np.random.default_rng(seed).choice(vector(distinct, one_sign, seed), count)
    value, bound = sum_bound(x)
    assert abs(float(in_order(x)) - value[0]) <= bound[0]


@pytest.mark.parametrize("count", [25, 150, 2304])
def test_small_terms_added_one_by_one_to_a_large_one_are_within_the_bound_in_every_one_of_many_sums(count):
    """Every rounding is then that of the whole sum; just above a power of two it is at its largest."""
    rng = np.random.default_rng(0)
    terms = rng.uniform(-1e-3, 1e-3, (2_000_000 // count, count)).astype(np.float32)
    terms[:, 0] = rng.uniform(8.1, 9, len(terms))
    total = functools.reduce(np.add, terms.T)
    wide = terms.astype(np.float64)
    value = wide.sum(1, keepdims=True)
    bound = own_error(SUM, SUM.attrs((1,)), [wide], value, dtypes.float32, np.full(value.shape, True))
    share = np.abs(total - value[:, 0]) / bound[:, 0]
    assert 0.5 < share.max() <= 1


@given(vectors, st.data())
def test_a_dropped_term_is_caught(drawn, data):
    x = vector(*drawn)
    value, bound = sum_bound(x)
    dropped = data.draw(st.integers(0, len(x) - 1))
    if abs(x[dropped]) >= np.abs(x).mean() / 2:  # a term of ordinary size
        assert abs(float(in_pairs(np.delete(x, dropped))) - value[0]) > bound[0]


@pytest.mark.parametrize("count", [9, 576, 25088])
def test_a_float32_dot_product_is_within_the_bound_and_one_short_by_a_term_is_not(count):
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (rng.uniform(0.75, 1.25, (n, m)).astype(np.float32) for n, m in ((1, count), (count, 1)))
        wide = [a.astype(np.float64), b.astype(np.float64)]
        value = wide[0] @ wide[1]
        bound = own_error(MATMUL, MATMUL.attrs(), wide, value, dtypes.float32, np.array([[True]]))
        assert abs(float((a @ b)[0, 0]) - value[0, 0]) <= bound
        assert abs(float(in_order(a[0] * b[:, 0])) - value[0, 0]) <= bound
        assert abs(float((a[:, 1:] @ b[1:])[0, 0]) - value[0, 0]) > bound


def test_sums_of_small_integers_have_no_error():
    x = np.arange(-50, 50, dtype=np.float32)
    assert sum_bound(x)[1].tolist() == [0.0]
    assert sum_bound(x + np.float32(0.5))[1][0] > 0


def test_a_sum_that_may_overflow_on_the_way_is_undecided():
    huge = np.array([3e38, 3e38, -3e38], np.float32)
    assert sum_bound(huge)[1].tolist() == [math.inf]


@pytest.mark.parametrize("weight, decided", [(2.0, True), (math.inf, False), (math.nan, False)])
def test_an_infinite_weight_beside_the_edge_leaves_a_convolution_undecided(weight, decided):
    """Found by fuzz: lanes in which a window is beyond the edge multiply zeros, and zero times infinity is NaN."""
    op = TABLE["conv_input_grad"]
    attrs = op.attrs(window=Window((3,), (1,), ((0, 0),), (1,)), groups=1, spatial=(3,))
    sources = [np.ones((2, 1, 1)), np.array([[[1.0, 1.0, weight]]])]
    value = meaning(op, attrs, sources)
    assert np.isfinite(own_error(op, attrs, sources, value, dtypes.float32, np.array(True))).all() == decided


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda d: d.name)
def test_ulp_is_the_distance_to_the_next_number(dtype):
    one = np.ones((), dtype.numpy)
    after = ml_dtypes.finfo(dtype.numpy).eps
    assert ulp(np.array(1.0), dtype) == float(after) == 2 * unit_roundoff(dtype)
    assert float(one + after) > 1 and ulp(np.array(0.75), dtype) == float(after) / 2
    assert ulp(np.array(0.0), dtype) == float(ml_dtypes.finfo(dtype.numpy).smallest_subnormal)


@given(st.sampled_from(["exp", "log", "sin", "tanh", "div", "sqrt"]), st.integers(0, 2**16))
def test_correctly_rounded_functions_are_within_their_bound_and_the_next_binade_is_not(name, seed):
    op = TABLE[name]
    x = np.random.default_rng(seed).uniform(0.5, 2, (op.arity, 5)).astype(np.float32).astype(np.float64)
    value = {"exp": np.exp, "log": np.log, "sin": np.sin, "tanh": np.tanh, "div": np.divide, "sqrt": np.sqrt}[name](*x)
    bound = own_error(op, op.attrs(), list(x), value, dtypes.float32, np.ones(5, bool))
    expected = Bounded(value, bound)
    compare(value.astype(np.float32), expected, dtypes.float32, name)
    off = (value + (tolerance(op, None).ulps + 1) * ulp(value, dtypes.float32)).astype(np.float32)
    with pytest.raises(AssertionError, match=name):
        compare(off, expected, dtypes.float32, name)


# Errors on their way through a graph ---------------------------------------------------------------------------------


def errors_after(*steps, x=(0.3, 1.7, -2.2)):
    """The errors of the last of ``steps`` on a float32 vector."""
    program = Program((Input(np.array(x, np.float32)),), steps, (len(steps),))
    built = program.build(nowhere)
    start = Bounded(program.inputs[0].array.astype(np.float64), np.zeros(len(x)))
    return bounded(built.results, {built.values[0]: start})[0]


def test_errors_grow_by_the_slope():
    value, error = errors_after(Step("exp", (0,)), Step("exp", (1,)))
    first = 4 * ulp(np.exp(np.float32([0.3, 1.7, -2.2]).astype(np.float64)), dtypes.float32)
    assert (error >= first * value).all() and (error <= 2 * first * value + 8 * ulp(value, dtypes.float32)).all()


def test_a_jump_within_the_error_is_undecided_and_one_outside_is_not():
    steps = Step("sin", (0,)), Step("mul", (1, 1)), Step("cos", (0,)), Step("mul", (3, 3)), Step("add", (2, 4))
    _, error = errors_after(*steps, Step("floor", (5,)))  # sin^2 + cos^2: 1, or just below
    assert (error >= 1).all()
    _, error = errors_after(*steps, Step("add", (5, 5)), Step("round", (6,)))
    assert (error == 0).all()


def test_a_comparison_within_the_error_is_undecided():
    _, error = errors_after(Step("exp", (0,)), Step("log", (1,)), Step("lt", (2, 0)))
    assert np.isinf(error).all()
    _, error = errors_after(Step("exp", (0,)), Step("lt", (1, 0)))
    assert (error == 0).all()
    near_zero = Step("exp", (0,)), Step("log", (1,)), Step("sub", (2, 0))
    _, error = errors_after(*near_zero, Step("cast", (3,), {"dtype": dtypes.bool_}))
    assert np.isinf(error).all()


def test_a_choice_that_may_go_the_other_way_has_the_error_of_the_other_value():
    x = np.array([0.0, 3.0])
    where = TABLE["where"]
    sources = [np.array([True, True]), np.array([0.0, 0.0]), x]
    errors = [np.array([np.inf, 0.0]), np.zeros(2), np.array([0.25, 0.25])]
    assert passed_on(where, where.attrs(), sources, errors, np.zeros(2)).tolist() == [0.25, 0.0]


def test_a_divisor_that_may_be_zero_leaves_the_quotient_undecided():
    div, sources = TABLE["div"], [np.array([0.0, 0.0, 1.0]), np.array([1e-40, 2.0, 2.0])]
    errors = [np.zeros(3), np.array([2e-40, 0.5, 0.0])]  # 0 at both ends, but not between
    assert passed_on(div, div.attrs(), sources, errors, np.array([0.0, 0.0, 0.5])).tolist() == [np.inf, 0.0, 0.0]


def test_positions_that_depend_on_errors_are_undecided():
    _, error = errors_after(Step("exp", (0,)), Step("sort", (1,), {"axis": 0, "descending": False}),
                            Step("project", (2,), {"index": 1}))  # fmt: skip
    assert np.isinf(error).all()
    _, error = errors_after(Step("argmax", (0,), {"axis": 0}))
    assert (error == 0).all()


def test_linear_primitives_pass_errors_on_with_absolute_values():
    a, b = np.array([[1.0, -2.0]]), np.array([[3.0], [4.0]])
    errors = [np.array([[0.25, 0.0]]), np.array([[0.0], [0.5]])]
    got = passed_on(MATMUL, MATMUL.attrs(), [a, b], errors, a @ b)
    assert got.tolist() == [[0.25 * 3 + 2 * 0.5]]


# Comparing -----------------------------------------------------------------------------------------------------------


def exactly(*values):
    return Bounded(np.array(values), np.zeros(len(values)))


@pytest.mark.parametrize(
    "got, expected",
    [
        ([1.0, np.nan], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, np.nan]),
        ([np.inf], [-np.inf]),
        ([np.inf], [3e38]),
        ([1.0000001], [1.0]),
    ],
)
def test_compare_rejects(got, expected):
    with pytest.raises(AssertionError, match="this one: at"):
        compare(np.array(got, np.float32), exactly(*expected), dtypes.float32, "this one")


def test_compare_accepts_equal_specials_and_checks_the_sign_of_zero_on_demand():
    values = [np.nan, np.inf, -np.inf, 0.0, 5.0]
    assert compare(np.array(values, np.float32), exactly(*values), dtypes.float32, "same").decided == 5
    minus = np.array([-0.0], np.float32)
    compare(minus, exactly(0.0), dtypes.float32, "zero")
    with pytest.raises(AssertionError, match="zero"):
        compare(minus, exactly(0.0), dtypes.float32, "zero", signed_zero=True)


def test_compare_checks_dtype_and_shape():
    with pytest.raises(AssertionError, match="expected dtype float32, got float64"):
        compare(np.zeros(2), exactly(0.0, 0.0), dtypes.float32, "x")
    with pytest.raises(AssertionError, match="expected shape"):
        compare(np.zeros(3, np.float32), exactly(0.0, 0.0), dtypes.float32, "x")


def test_compare_counts_what_it_cannot_decide():
    expected = Bounded(np.array([1.0, 2.0, 3.0]), np.array([0.0, np.inf, 0.5]))
    found = compare(np.array([1.0, 9.0, 9.0], np.float32), expected, dtypes.float32, "x")
    assert (found.decided, found.elements) == (1, 3)


def test_infinity_is_one_step_above_the_greatest_number():
    greatest = float(np.finfo(np.float16).max)
    near = Bounded(np.array([greatest]), np.array([64.0]))
    compare(np.array([np.inf], np.float16), near, dtypes.float16, "x")


def test_one_step_programs_of_exact_primitives_have_no_error():
    program = one_step("neg", (Input(np.array([0.1, np.pi], np.float32)),), {})
    built = program.build(nowhere)
    given_value = Bounded(program.inputs[0].array.astype(np.float64), np.zeros(2))
    assert bounded(built.results, {built.values[0]: given_value})[0].error.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"),
    [
        (dtypes.int8, (127.9, -128.9, -0.5), (128.0, -129.0, math.nan, math.inf)),
        (dtypes.uint8, (255.5, -0.9), (256.0, -1.0, -math.inf)),
        (dtypes.int64, (-(2.0**63), 2.0**63 - 1024), (2.0**63, math.nan)),
        (dtypes.uint64, (2.0**64 - 2048,), (2.0**64,)),
    ],
)
def test_a_cast_to_an_integer_that_has_no_place_for_the_value_is_undecided(dtype, inside, outside):
    cast = one_step("cast", (Input(np.array([*inside, *outside])),), {"dtype": dtype})
    (out,) = bounded(cast.build(on("numpy")).results)
    assert out.error.tolist() == [0.0] * len(inside) + [math.inf] * len(outside)
    assert not bounded(one_step("cast", cast.inputs, {"dtype": dtypes.bool_}).build(on("numpy")).results)[0].error.any()


def cut(x, digits):
    """Numbers with that many digits after the point, the rest cut off."""
    return (x.view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - digits) & 0xFFFFFFFF)).view(np.float32)


@pytest.mark.parametrize(("precision", "digits"), [("high", 10), ("medium", 7)])
def test_products_of_rounded_factors_are_allowed_where_they_were_asked_for(precision, digits):
    rng = np.random.default_rng(0)
    for x, y in ((rng.standard_normal((9, 40)), rng.standard_normal((40, 8))), (*rng.integers(1, 5000, (2, 6, 6)),)):
        x, y = x.astype(np.float32), y.astype(np.float32)
        exact = x.astype(np.float64) @ y.astype(np.float64)
        found = cut(x, digits) @ cut(y, digits)

        def error(x=x, y=y, exact=exact):
            sources = [x.astype(np.float64), y.astype(np.float64)]
            return own_error(MATMUL, MATMUL.attrs(), sources, exact, dtypes.float32, np.ones(exact.shape, bool))

        assert (np.abs(found - exact) > error()).any(), "too far off for float32"
        with settings.override(matmul_precision=precision):
            assert (np.abs(found - exact) <= error()).all()
            worst = np.abs(found - exact).max() / error().max()
        assert worst > 0.01, "and not much more than that is allowed"
