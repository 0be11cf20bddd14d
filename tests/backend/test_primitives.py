"""Every row of the table of primitives: values, shapes, dtypes and derivatives against the float64 oracle.

Nobody lists the rows: a new primitive is tested as soon as it is in the table, or the first tests here fail.
"""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings, target
from hypothesis import strategies as st

from minigrad import Tensor, dtypes, reference
from minigrad import device as devices
from minigrad.autograd import gradient
from minigrad.errors import ArgumentError, DTypeError
from minigrad.graph import apply, constant, transfer
from minigrad.primitive import TABLE, Domain, Kind, Primitive
from minigrad.testing import strategies
from minigrad.testing.bounds import SIGNED_ZERO, TOLERANCES, Error, bounded, compare
from minigrad.testing.evaluate import evaluate, read, run
from minigrad.testing.gradients import check_vjps
from minigrad.testing.programs import Input, on, one_step, outcomes

ROWS = strategies.rows()
DIFFERENTIABLE = [op for op in ROWS if op.vjp is not None]
EXACT = [op for op in ROWS if TOLERANCES[op.name].error is Error.SUM or op.name in ("add", "sub", "mul")]


def some(share):
    """Settings with a share of the profile's examples."""
    return settings(max_examples=max(1, math.ceil(settings().max_examples * share)))


def untouched(program, built):
    """Assert that the inputs are as they were given, and the elements around them too."""
    for given_input, node in zip(program.inputs, built.buffers):
        assert read(node).tobytes() == given_input.buffer().tobytes(), "an input, or memory around it, was written"


def check(program, device, what, signed_zero=False):
    """Compare a program's results, and gradients, on a device with the oracle; returns the worst share of a bound."""
    built = program.build(on(device))
    wanted = outcomes(program, built)
    expected = bounded(wanted)
    found = [
        compare(got, value, node.dtype, f"{what}, result {n}", signed_zero and n < len(built.results))
        for n, (got, value, node) in enumerate(zip(run(wanted), expected, wanted))
    ]
    untouched(program, built)
    return max((f.worst for f in found), default=0.0)


# The table itself ----------------------------------------------------------------------------------------------------


def holes(op):
    """What a row of the table lacks."""
    found = []
    if not callable(getattr(reference, op.reference, None)) and op.kind not in (Kind.TRANSFER, Kind.CREATION):
        found.append("a meaning in reference.py")
    if op.name not in TOLERANCES and op.name != "buffer":
        found.append("a tolerance in testing/bounds.py")
    if op.name not in strategies.ELSEWHERE and not strategies.has_cases(op):
        found.append("inputs in testing/strategies.py")
    if not all(map(callable, (op.shape, op.dtype, op.flops))):
        found.append("a shape, dtype or cost rule")
    if isinstance(op.vjp, tuple) and len(op.vjp) != op.arity:
        found.append("a derivative, or None, per source")
    if not op.domain.low < op.domain.high or not hasattr(op.attrs, "_fields") or op.outputs < 1:
        found.append("a sensible domain, attributes or number of outputs")
    return found


def test_no_row_has_a_hole():
    assert {op.name: holes(op) for op in TABLE.values() if holes(op)} == {}


def test_every_row_is_covered_here_or_named_with_a_reason():
    assert {op.name for op in ROWS} | set(strategies.ELSEWHERE) == set(TABLE)
    assert not {op.name for op in ROWS} & set(strategies.ELSEWHERE)
    assert all(strategies.ELSEWHERE.values()) and all(t.reason for t in TOLERANCES.values())


def test_a_row_that_nothing_covers_is_found():
    like = TABLE["reshape"]
    new = Primitive("twist", Kind.MOVEMENT, 1, like.attrs, like.shape, like.dtype, None, "twist", Domain())
    missing = ["a meaning in reference.py", "a tolerance in testing/bounds.py", "inputs in testing/strategies.py"]
    assert holes(new) == missing


def test_a_new_elementwise_row_has_inputs_without_anyone_listing_it():
    like = TABLE["exp"]
    new = dataclasses.replace(like, name="twice_exp")
    assert holes(new) == ["a tolerance in testing/bounds.py"]


def test_no_tolerance_is_left_over():
    assert set(TOLERANCES) - set(TABLE) == {"scatter_max"}


# Values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ROWS, ids=repr)
@given(data=st.data())
def test_value(device, op, data):
    can = devices.get(device).backend.capabilities.dtypes
    program = data.draw(strategies.cases(op, only=sorted(can, key=dtypes.ALL.index)))
    worst = check(program, device, op.name, signed_zero=op.name in SIGNED_ZERO)
    target(worst)


@pytest.mark.parametrize("op", EXACT, ids=repr)
@some(0.3)
@given(data=st.data())
def test_small_integers_are_exact(device, op, data):
    program = data.draw(strategies.cases(op, kinds=["integers"], only=[dtypes.float32, dtypes.int32, dtypes.bool_]))
    for value in bounded(program.build(on(device)).results):
        assert not value.error.any(), "the bound itself allows no error"
    check(program, device, op.name)


# Derivatives ---------------------------------------------------------------------------------------------------------


def finite(node):
    """``node``, but 0 where a maximum over nothing is minus infinity."""
    (value,) = evaluate([node])
    return node if np.isfinite(value).all() else apply("isfinite", node).where(node, 0)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.5)
@given(data=st.data())
def test_gradient_in_every_dtype(device, op, data):
    """The derivative's graph, whatever it is, gives what the oracle makes of it."""
    can = [d for d in dtypes.FLOATS if d in devices.get(device).backend.capabilities.dtypes]
    program = data.draw(strategies.cases(op, only=can))
    check(dataclasses.replace(program, gradients=True), device, f"gradient of {op.name}")


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.3)
@given(data=st.data())
def test_first_and_second_derivative_against_finite_differences(device, op, data):
    if dtypes.float64 not in devices.get(device).backend.capabilities.dtypes:
        pytest.skip(f"{device} has no float64")
    program = data.draw(strategies.cases(op, kinds=["apart"], only=[dtypes.float64]))
    built = program.build(on(device))
    inputs = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    outputs = [finite(r) for r in built.results if r.dtype.is_float]
    try:
        check_vjps(outputs, inputs, order=2)
    except ArgumentError:  # mod and floordiv jump where nobody put them
        assume(op.name not in ("mod", "floordiv"))
        raise
    untouched(program, built)


CHOOSING = [TABLE[n] for n in ("max", "min", "maximum", "minimum", "max_pool", "sort", "scatter")]


@pytest.mark.parametrize("op", CHOOSING, ids=repr)
@some(0.5)
@given(data=st.data())
def test_what_ties_receive_adds_up_to_the_gradient_of_the_result(device, op, data):
    """No kink is smooth, but whichever element is said to be chosen, nothing of the gradient is lost or doubled."""
    program = data.draw(strategies.cases(op, kinds=["ties"], only=[dtypes.float64]))
    assume(op.name != "scatter" or program.steps[0].attrs["reduce"] == "max")
    built = program.build(on(device))
    result = built.results[0]
    (value,) = evaluate([result])
    seed = np.where(np.isfinite(value), np.random.default_rng(0).standard_normal(result.shape), 0)
    inputs = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    grads = gradient(result, inputs, on(device)(seed, dtypes.float64, ()))
    assert math.isclose(sum(g.sum() for g in run(grads)), seed.sum(), rel_tol=1e-9, abs_tol=1e-12)


# Rows that are no cases by themselves --------------------------------------------------------------------------------


def test_transfer_copies_and_differentiates(device, monkeypatch):
    other = f"{device} again"
    monkeypatch.setitem(devices._devices, other, devices.Device(other, type(devices.get(device).backend)()))
    x = on(device)(np.arange(6, dtype=np.float32).reshape(2, 3), dtypes.float32, (1, 0))
    moved = transfer(x, other)
    assert (moved.device, moved.shape, moved.dtype) == (other, x.shape, x.dtype)
    (there,) = run([moved * 2.0])
    np.testing.assert_array_equal(there, 2 * np.arange(6).reshape(2, 3))
    (g,) = gradient(transfer(x, other) * 3.0, [x], constant(1, dtypes.float32, other).expand((2, 3)))
    assert g is not None and g.device == device
    np.testing.assert_array_equal(run([g])[0], np.full((2, 3), 3.0))
    assert transfer(x, device) is x


def test_custom_has_the_value_of_its_first_source_and_the_derivative_it_is_given(device):
    class Doubled:
        def vjp(self, index, g, out, *sources):
            return g * 2.0

        def forget(self):
            pass

    value = on(device)(np.array([5.0, 7.0, 9.0]), dtypes.float64, ())
    x = on(device)(np.array([1.0, 2.0, 3.0]), dtypes.float64, ())
    node = apply("custom", value, x, function=Doubled())
    (g,) = gradient(node, [x], constant(1, dtypes.float64, device).expand((3,)))
    got, slope = run([node, g])
    assert got.tolist() == [5.0, 7.0, 9.0] and slope.tolist() == [2.0, 2.0, 2.0]


# Named cases: what the strategies found once, or draw rarely ---------------------------------------------------------


def test_no_derivative_passes_through_integers(device):
    x = Tensor([0.5, 2.5, -1.5], device=device)
    through = x.node.cast(dtypes.int32).cast(dtypes.float32)
    assert gradient(through, [x.node], x.node) == [None]


def test_threefry_takes_words_of_32_bits_only():
    words = [constant(1, dtypes.uint64, "numpy") for _ in range(4)]
    with pytest.raises(DTypeError, match="uint32"):
        apply("threefry", *words)


def test_a_bfloat16_view_can_be_read(device):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).astype(dtypes.bfloat16.numpy)
    x = on(device)(array, dtypes.bfloat16, ())
    np.testing.assert_array_equal(run([x.permute((1, 0))])[0].astype(np.float32), array.astype(np.float32).T)


@pytest.mark.parametrize("values", [[0, 2, 3], [0, 0, 3, 2], [0, 0, 0], [4], [-1, 2, 0.5, 3, 1.5]], ids=str)
def test_derivatives_of_a_product_are_right_where_factors_are_zero(device, values):
    rows = np.array([values, values[::-1], np.linspace(0.5, 2, len(values))], np.float64)
    program = one_step("prod", (Input(rows),), {"axes": (1,)})
    built = program.build(on(device))
    assert check_vjps(built.results, built.values[:1], order=3) == 0


def test_half_sigmoid_is_rounded_once(device):
    x = np.linspace(-9, 9, 181).astype(np.float16)
    check(one_step("sigmoid", (Input(x),), {}), device, "sigmoid")
    check(one_step("rsqrt", (Input(np.abs(x) + np.float16(0.01)),), {}), device, "rsqrt")
