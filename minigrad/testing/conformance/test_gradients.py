"""Level 4: derivatives of every row, as graphs against the oracle, and against finite differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.autograd import gradient
from minigrad.dtypes import DType
from minigrad.errors import ArgumentError
from minigrad.graph import Node, apply, full_like, toposort
from minigrad.primitive import TABLE, Kind, Primitive
from minigrad.shapes import Shape
from minigrad.testing import strategies
from minigrad.testing.bounds import Bounded, ulp
from minigrad.testing.checks import check_program, check_untouched, with_gradients
from minigrad.testing.conformance.support import ROWS, dtypes_of, needs, some
from minigrad.testing.evaluate import Array, evaluate, run
from minigrad.testing.gradients import check_vjps
from minigrad.testing.laws import check_alike, measured
from minigrad.testing.programs import Input, on, one_step, outcomes

pytestmark = pytest.mark.level(4)
DIFFERENTIABLE = [op for op in ROWS if op.vjp is not None]
UNROUNDED = (dtypes.float32, dtypes.float64)  # halves are rounded on the way, in each of two ways differently
CHOOSING = [TABLE[n] for n in ("max", "min", "maximum", "minimum", "max_pool", "sort", "scatter")]


BROADCASTING = [op for op in DIFFERENTIABLE if op.kind is Kind.ELEMENTWISE and op.arity != 1]
REUSING = [op for op in BROADCASTING if op.arity == 2] + [TABLE["matmul"], TABLE["cat"]]


def pulled_back(outputs: Sequence[Node], inputs: Sequence[Node], seeds: Sequence[Node]) -> list[Node]:
    """The gradients by ``inputs`` of ``outputs``, each given its upstream gradient; zeros where nothing depends."""
    totals = [full_like(node, 0) for node in inputs]
    for out, seed in zip(outputs, seeds):
        for n, grad in enumerate(gradient(out, inputs, seed)):
            totals[n] = totals[n] if grad is None else totals[n] + grad
    declared(totals)
    return totals


def declared(nodes: Sequence[Node]) -> None:
    """Skip a graph with a primitive that the backend declares that it does not have."""
    needs(nodes[0].device, *(node.op.name for node in toposort(nodes)))


def upstream(out: Node, data: st.DataObject) -> Node:
    """Small whole numbers in the place of a gradient that comes from further on."""
    rng = np.random.default_rng(data.draw(strategies.seeds))
    return on(out.device)(rng.integers(-3, 4, out.shape).astype(out.dtype.numpy), out.dtype, ())


def summed_to(array: Array, shape: Shape) -> Array:
    """The sum over what broadcasting ``shape`` to the array's shape repeated, by NumPy."""
    lead = array.ndim - len(shape)
    array = array.sum(tuple(range(lead)))
    summed: Array = np.sum(array, tuple(a for a, n in enumerate(shape) if n == 1), keepdims=True)
    return summed


def rounding(sum_of_two: Bounded, dtype: DType) -> Array:
    """What rounding the sum of two values may add where it is not exact."""
    inexact = (sum_of_two.error > 0) | (sum_of_two.value != np.rint(sum_of_two.value))
    return np.where(inexact, 2 * ulp(sum_of_two.value, dtype), 0.0)


@contextmanager
def smooth(op: Primitive, device: str, data: st.DataObject) -> Iterator[tuple[list[Node], list[Node]]]:
    """A drawn case of ``op`` away from its kinks: float outputs and inputs, which stay as they are."""
    needs(device, op.name)
    program = data.draw(strategies.cases(op, kinds=["apart"], only=dtypes_of(device, [dtypes.float64])))
    built = program.build(on(device))
    inputs = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    outputs = [finite(r) for r in built.results if r.dtype.is_float]
    try:
        yield outputs, inputs
    except ArgumentError:  # mod and floordiv jump where nobody put them
        assume(op.name not in ("mod", "floordiv"))
        raise
    check_untouched(program, built)


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
    program = with_gradients(program)
    declared(outcomes(program, program.build(on(device))))
    check_program(program, device, what=f"gradient of {op.name}")


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.25)
@given(data=st.data())
def test_vjp_matches_finite_difference(device: str, op: Primitive, data: st.DataObject) -> None:
    """The first derivative is the slope of the oracle's values: its graph, which devices compute in the other tests."""
    with smooth(op, device, data) as (outputs, inputs):
        declared(pulled_back(outputs, inputs, outputs))
        check_vjps(outputs, inputs, order=1, compute=evaluate)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.2)
@given(data=st.data())
def test_double_backward_matches_finite_difference_and_is_symmetric(
    device: str, op: Primitive, data: st.DataObject
) -> None:
    """The second derivative is the slope of the first, and u.H.v is v.H.u."""
    with smooth(op, device, data) as (outputs, inputs):
        rng = np.random.default_rng(data.draw(strategies.seeds))
        weights, u, v = ([on(device)(rng.standard_normal(n.shape), n.dtype, ()) for n in nodes]
                         for nodes in (outputs, inputs, inputs))  # fmt: skip
        grads = pulled_back(outputs, inputs, weights)
        products = [evaluate(pulled_back(grads, inputs, side)) for side in (v, u)]
        terms = [np.concatenate([a.ravel() * h.ravel() for a, h in zip(evaluate(s), p)])
                 for s, p in zip((u, v), products)]  # fmt: skip
        u_h_v, v_h_u = (float(t.sum()) for t in terms)
        assert abs(u_h_v - v_h_u) <= 1e-10 * float(sum(np.abs(t).sum() for t in terms)), "the Hessian is not symmetric"
        check_vjps(outputs, inputs, order=2)


@pytest.mark.parametrize("op", BROADCASTING, ids=repr)
@some(0.1)
@given(data=st.data())
def test_broadcast_gradient_is_summed(device: str, op: Primitive, data: st.DataObject) -> None:
    """What an element gets that stands in many places is the sum of what it gets in each."""
    needs(device, op.name)
    kinds = dtypes_of(device, UNROUNDED)
    program = data.draw(strategies.cases(op, kinds=["integers", "uniform"], only=kinds))
    built = program.build(on(device))
    (result,) = built.results
    seed = upstream(result, data)
    full = [Input(np.broadcast_to(i.array, result.shape)) for i in program.inputs]
    wide = one_step(op.name, tuple(full), program.steps[0].attrs).build(on(device))
    floats = [n for n, i in enumerate(program.inputs) if i.dtype.is_float]
    apart = measured(pulled_back(wide.results, [wide.values[n] for n in floats], [seed]))
    shapes = [program.inputs[n].array.shape for n in floats]
    summed = [Bounded(summed_to(g.value, s), summed_to(g.error, s)) for g, s in zip(apart, shapes)]
    check_alike(pulled_back([result], [built.values[n] for n in floats], [seed]), summed, f"broadcasting {op.name}")


@pytest.mark.parametrize("op", REUSING, ids=repr)
@some(0.1)
@given(data=st.data())
def test_reuse_accumulates_gradient(device: str, op: Primitive, data: st.DataObject) -> None:
    """The gradient of f(x, x) is the sum of those of f(a, b) by either, where both are x."""
    needs(device, op.name)
    dtype = data.draw(st.sampled_from(dtypes_of(device, UNROUNDED)))
    rng = np.random.default_rng(data.draw(strategies.seeds))
    shape = (4, 4) if op.name == "matmul" else data.draw(strategies.shapes(least=1, most=4))
    array = strategies.fill(data.draw(st.sampled_from(["integers", "uniform"])), op.domain, rng, shape, dtype)
    attrs = {"axis": 0} if op.name == "cat" else {}
    x, a, b = (on(device)(array, dtype, ()) for _ in range(3))
    for node in (x, a, b):
        node.requires_grad = True
    once, twice = apply(op.name, x, x, **attrs), apply(op.name, a, b, **attrs)
    seed = upstream(once, data)
    first, second = measured(pulled_back([twice], [a, b], [seed]))
    total = Bounded(first.value + second.value, first.error + second.error)
    total = total._replace(error=total.error + rounding(total, dtype))
    check_alike(pulled_back([once], [x], [seed]), [total], f"{op.name}(x, x)")


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=repr)
@some(0.1)
@given(data=st.data())
def test_gradient_is_linear_in_upstream(device: str, op: Primitive, data: st.DataObject) -> None:
    """What 2u - 3v brings is twice what u brings less thrice what v brings."""
    needs(device, op.name)
    kinds = dtypes_of(device, UNROUNDED)
    program = data.draw(strategies.cases(op, kinds=["integers", "uniform"], only=kinds))
    built = program.build(on(device))
    inputs = [v for v in built.values[: len(program.inputs)] if v.dtype.is_float]
    outputs = [r for r in built.results if r.dtype.is_float]
    u, v = ([upstream(out, data) for out in outputs] for _ in range(2))
    both = [a * 2 - b * 3 for a, b in zip(u, v)]
    found = [measured(pulled_back(outputs, inputs, side)) for side in (u, v)]
    combined = [Bounded(2 * a.value - 3 * b.value, 2 * a.error + 3 * b.error) for a, b in zip(*found)]
    combined = [c._replace(error=c.error + rounding(c, n.dtype)) for c, n in zip(combined, inputs)]
    check_alike(pulled_back(outputs, inputs, both), combined, f"the gradient of {op.name}")


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
    grads = [g for g in gradient(result, inputs, on(device)(seed, dtypes.float64, ())) if g is not None]
    declared(grads)
    found = run(grads)
    assert math.isclose(sum(g.sum() for g in found), seed.sum(), rel_tol=1e-9, abs_tol=1e-12)
