"""Level 4: derivatives of every row, as graphs against the oracle, and against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.autograd import gradient
from minigrad.errors import ArgumentError
from minigrad.graph import Node, apply
from minigrad.primitive import TABLE, Primitive
from minigrad.testing import strategies
from minigrad.testing.checks import check_program, check_untouched, with_gradients
from minigrad.testing.conformance.support import ROWS, dtypes_of, needs, some
from minigrad.testing.evaluate import evaluate, run
from minigrad.testing.gradients import check_vjps
from minigrad.testing.programs import on

pytestmark = pytest.mark.level(4)
DIFFERENTIABLE = [op for op in ROWS if op.vjp is not None]
CHOOSING = [TABLE[n] for n in ("max", "min", "maximum", "minimum", "max_pool", "sort", "scatter")]


def finite(node: Node) -> Node:
    """``node``, but 0 where a maximum over nothing is minus infinity."""
    (value,) = evaluate([node])
    return node if np.isfinite(value).all() else apply("isfinite", node).where(node, 0)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.5)
@given(data=st.data())
def test_gradient_matches_float64_oracle(device: str, op: Primitive, data: st.DataObject) -> None:
    """The derivative's graph, whatever it is, gives what the oracle makes of it, in every dtype."""
    needs(device, op.name)
    program = data.draw(strategies.cases(op, only=dtypes_of(device, dtypes.FLOATS)))
    check_program(with_gradients(program), device, what=f"gradient of {op.name}")


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.3)
@given(data=st.data())
def test_vjp_matches_finite_difference(device: str, op: Primitive, data: st.DataObject) -> None:
    """First and second derivatives, the second symmetric."""
    needs(device, op.name)
    program = data.draw(strategies.cases(op, kinds=["apart"], only=dtypes_of(device, [dtypes.float64])))
    built = program.build(on(device))
    inputs = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    outputs = [finite(r) for r in built.results if r.dtype.is_float]
    try:
        check_vjps(outputs, inputs, order=2)
    except ArgumentError:  # mod and floordiv jump where nobody put them
        assume(op.name not in ("mod", "floordiv"))
        raise
    check_untouched(program, built)


@pytest.mark.parametrize("op", CHOOSING, ids=repr)
@some(0.5)
@given(data=st.data())
def test_ties_and_kinks_follow_convention(device: str, op: Primitive, data: st.DataObject) -> None:
    """No kink is smooth, but whichever element is said to be chosen, nothing of the gradient is lost or doubled."""
    needs(device, op.name)
    program = data.draw(strategies.cases(op, kinds=["ties"], only=dtypes_of(device, [dtypes.float64])))
    assume(op.name != "scatter" or program.steps[0].attrs["reduce"] == "max")
    built = program.build(on(device))
    result = built.results[0]
    (value,) = evaluate([result])
    seed = np.where(np.isfinite(value), np.random.default_rng(0).standard_normal(result.shape), 0)
    inputs = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    grads = gradient(result, inputs, on(device)(seed, dtypes.float64, ()))
    found = run([g for g in grads if g is not None])
    assert math.isclose(sum(g.sum() for g in found), seed.sum(), rel_tol=1e-9, abs_tol=1e-12)
