"""Levels 1 to 3: every row of the table of primitives against the float64 oracle, and laws that hold for every row.

Nobody lists the rows: a new primitive is tested as soon as it is in the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from minigrad import Tensor, dtypes
from minigrad import device as devices
from minigrad.dtypes import DType
from minigrad.errors import Unsupported
from minigrad.graph import apply
from minigrad.primitive import Kind, Primitive
from minigrad.shapes import Window
from minigrad.testing import strategies
from minigrad.testing.bounds import TOLERANCES, Bounded, Error, beside_oracle, bounded, compare
from minigrad.testing.checks import check_program, check_untouched
from minigrad.testing.conformance.support import (
    ROWS,
    by_level,
    dtypes_of,
    in_groups,
    needs,
    some,
    supported,
    unsupported,
)
from minigrad.testing.evaluate import run, widen
from minigrad.testing.programs import Input, Layout, Program, Step, on

EXACT = [op for op in ROWS if TOLERANCES[op.name].error is Error.SUM or op.name in ("add", "sub", "mul")]


@by_level(ROWS)
@given(data=st.data())
def test_forward_matches_float64_oracle(device: str, op: Primitive, data: st.DataObject) -> None:
    """Values, shapes and dtypes; inputs stay untouched, and so do the elements around them."""
    program = data.draw(strategies.cases(op, only=dtypes_of(device)))
    if op.name in unsupported(device):
        with pytest.raises(Unsupported, match=f"^{op.name}: .*{device.partition(':')[0]}"):
            check_program(program, device)
        return
    target(check_program(program, device, what=op.name).worst)


@by_level(EXACT)
@some(0.3)
@given(data=st.data())
def test_small_integers_are_exact(device: str, op: Primitive, data: st.DataObject) -> None:
    """Where no digit can be lost, none may be."""
    needs(device, op.name)
    kinds = dtypes_of(device, (dtypes.float32, dtypes.int32, dtypes.bool_))
    program = data.draw(strategies.cases(op, kinds=["integers"], only=kinds))
    for value in bounded(program.build(on(device)).results):
        assert not value.error.any(), "the bound itself allows no error"
    check_program(program, device, what=op.name)


# Laws, several rows in one run ---------------------------------------------------------------------------------------


def drawn(data: st.DataObject, device: str, ops: Iterable[Primitive], kinds: Sequence[str]) -> list[Program]:
    """One case of each row that the backend has."""
    only = dtypes_of(device)
    return [data.draw(strategies.cases(op, kinds=kinds, only=only)) for op in supported(device, ops)]


def check_each(device: str, programs: list[Program]) -> None:
    """Each program gives what the oracle says, and leaves its inputs and what is around them as they were."""
    built = [program.build(on(device)) for program in programs]
    nodes = [node for each in built for node in each.results]
    found = iter(beside_oracle(nodes))
    for program, each in zip(programs, built):
        for n, _ in enumerate(each.results):
            got, expected, node = next(found)
            compare(got, expected, node.dtype, f"{program.steps[0].op}, result {n}{program}")
        check_untouched(program, each, program.steps[0].op)


def check_alike(device: str, pairs: Iterable[tuple[Program, Program]]) -> None:
    """Both programs of each pair give the same: within the errors that both may have, equal where there is none."""
    built = [(p, p.build(on(device)), q.build(on(device))) for p, q in pairs]
    found = iter(beside_oracle([node for _, *both in built for side in both for node in side.results]))
    for program, one, other in built:
        left, right = ([next(found) for _ in side.results] for side in (one, other))
        for n, ((got, bound, node), (wanted, its_bound, _)) in enumerate(zip(left, right)):
            against = Bounded(widen(wanted, node.dtype), bound.error + its_bound.error)
            compare(got, against, node.dtype, f"{program.steps[0].op}, result {n}{program}")
        check_untouched(program, one, program.steps[0].op)


@in_groups([op for op in ROWS if op.kind is not Kind.CREATION])
@some(0.06)
@given(data=st.data())
def test_strided_input_equals_contiguous(device: str, ops: list[Primitive], data: st.DataObject) -> None:
    """Permuted, strided, reversed, repeated or part of something larger: where an element lies changes nothing."""
    programs = drawn(data, device, ops, strategies.KINDS)
    straight = [replace(p, inputs=tuple(i._replace(layout=Layout()) for i in p.inputs)) for p in programs]
    check_alike(device, zip(programs, straight))


def expanded(program: Program) -> Program:
    """The program with inputs that are repeated beforehand, in memory."""
    shape = np.broadcast_shapes(*(i.array.shape for i in program.inputs))
    return replace(program, inputs=tuple(Input(np.array(np.broadcast_to(i.array, shape))) for i in program.inputs))


@in_groups([op for op in ROWS if op.kind is Kind.ELEMENTWISE and op.arity != 1])
@some(0.06)
@given(data=st.data())
def test_broadcast_equals_explicit_expand(device: str, ops: list[Primitive], data: st.DataObject) -> None:
    """Sizes of 1 and missing axes are repeated, and nothing else is different."""
    programs = drawn(data, device, ops, strategies.KINDS)
    check_alike(device, ((p, expanded(p)) for p in programs))


def _cut(*parts: tuple[int, int, int]) -> tuple[str, dict[str, Any]]:
    starts, sizes, steps = zip(*parts)
    return "slice", {"starts": starts, "sizes": sizes, "steps": steps}


_PAD = ("pad", {"padding": ((1, 2), (2, 1)), "value": 3})
MOVED: tuple[tuple[tuple[str, dict[str, Any]], ...], ...] = (  # of shape (3, 5): pairs that differ in numbers alone
    (_cut((0, 2, 1), (0, 3, 1)), _cut((0, 1, 1), (1, 2, 1))),
    (_cut((1, 2, 1), (2, 3, 1)), _cut((1, 1, 1), (0, 2, 1))),
    (_cut((2, 3, -1), (4, 5, -1)), _cut((1, 2, 1), (3, 2, -2))),
    (_cut((2, 3, -1), (4, 5, -1)), _cut((0, 2, 1), (4, 2, -2))),
    (_PAD, _cut((5, 6, -1), (7, 8, -1))),
    (_PAD, _cut((4, 2, -2), (7, 3, -3))),
    (_PAD, _cut((0, 1, 1), (0, 8, 1)), ("expand", {"shape": (2, 4, 8)})),
    (_PAD, _cut((0, 6, 1), (7, 1, 1)), ("expand", {"shape": (3, 6, 2)})),
    (_PAD, ("permute", {"axes": (1, 0)}), ("reshape", {"shape": (4, 2, 6)})),
    (("permute", {"axes": (1, 0)}), ("reshape", {"shape": (15,)}), _cut((12, 5, -2))),
    (("expand", {"shape": (2, 3, 5)}), ("permute", {"axes": (1, 0, 2)}), ("permute", {"axes": (0, 2, 1)})),
)


@pytest.mark.level(2)
def test_one_view_of_another_matches_float64_oracle(device: str) -> None:
    """Cases of the next test that are always there, of memory and of what is computed."""
    needs(device, *strategies.MOVEMENTS, "neg")
    (dtype,) = dtypes_of(device, [dtypes.float32])
    given_ = Input(np.arange(1, 16).reshape(3, 5).astype(dtype.numpy))
    for computed in (False, True):
        for moves in MOVED:
            names = [*[("neg", {})] * computed, *moves, ("neg", {})]
            steps = tuple(Step(name, (n,), attrs) for n, (name, attrs) in enumerate(names))
            check_each(device, [Program((given_,), steps, (len(steps),))])  # graphs that are alike, one after the other


@pytest.mark.level(2)
@given(data=st.data())
def test_views_of_views_match_float64_oracle(device: str, data: st.DataObject) -> None:
    """Slices, flips, permutations, repetitions, padding and reshapes of one another: each element is the right one."""
    needs(device, *strategies.MOVEMENTS, "copy", "neg", "add", "sum", "max")
    only = dtypes_of(device, (dtypes.float32, dtypes.int32, dtypes.int64, dtypes.float64))
    check_each(device, [data.draw(strategies.views(only)) for _ in range(12)])


CHOOSING = ("sign", "floor", "isnan", "isfinite", "lt", "eq", "argmax", "argmin")
SPECIAL = [op for op in ROWS if op.vjp is not None or op.name in CHOOSING]


@in_groups(SPECIAL)
@some(0.06)
@given(data=st.data())
def test_nan_inf_propagate(device: str, ops: list[Primitive], data: st.DataObject) -> None:
    """NaN, infinities and the signs of zeros come out where the oracle says, and nowhere else."""
    floats = dtypes_of(device, dtypes.FLOATS)
    programs = [data.draw(strategies.cases(op, kinds=["special"], only=floats)) for op in supported(device, ops)]
    check_each(device, programs)


WRITING = [op for op in ROWS if op.kind in (Kind.STORE, Kind.INDEX, Kind.SCAN) or op.name in ("copy", "window_scatter")]


@in_groups(WRITING)
@some(0.06)
@given(data=st.data())
def test_inputs_and_sentinels_untouched(device: str, ops: list[Primitive], data: st.DataObject) -> None:
    """What a kernel may not write is as it was, around the inputs too, and nothing out of view is read."""
    check_each(device, drawn(data, device, ops, ["integers"]))


@pytest.mark.level(2)
def test_zero_size_follows_numpy(device: str) -> None:
    """Without elements shapes and dtypes are still right, a sum is 0, a product 1, and what has no value raises."""
    a = np.zeros((0, 3), np.float32)
    b = np.zeros((3, 0), np.float32)
    with devices.backend(device):
        x, y = Tensor(a), Tensor(b)
        pairs = [
            (x + 1, a + 1), (x * x[:0], a * a[:0]), (x.T, a.T), (x.reshape(3, 0), a.reshape(3, 0)),
            (x.exp(), np.exp(a)), (x.sum(), a.sum()), (x.sum(0), a.sum(0)), (x.sum(1), a.sum(1)), (x.max(1), a.max(1)),
            (x.prod(0), a.prod(0)), (x @ y, a @ b), (y @ x, b @ a), (x[:, 1:], a[:, 1:]),
            (x.pad(((1, 0), (0, 0))), np.pad(a, ((1, 0), (0, 0)))),
            (Tensor.cat(x, Tensor.ones(2, 3)), np.concatenate([a, np.ones((2, 3), np.float32)])),
            (x.expand(2, 0, 3), np.broadcast_to(a, (2, 0, 3))), (x < 1, a < 1), (x.argmax(1), a.argmax(1)),
        ]  # fmt: skip
        Tensor.realize(*(ours for ours, _ in pairs))
        for n, (ours, numpys) in enumerate(pairs):
            got = ours.numpy()
            assert got.shape == numpys.shape, f"pair {n}"
            np.testing.assert_array_equal(got, numpys, err_msg=f"pair {n}")
        for empty in (lambda: x.max(), lambda: x.argmax(0), lambda: y.min(1)):
            with pytest.raises((ValueError, RuntimeError, IndexError)):
                empty()


@pytest.mark.level(2)
@pytest.mark.parametrize("name", [d.name for d in dtypes.FLOATS])
def test_long_sums_lose_nothing_on_the_way(device: str, name: str) -> None:
    """Whole numbers and their opposites, shuffled, sum to 0; what adds up on the way has more digits than a half."""
    (dtype,) = dtypes_of(device, [getattr(dtypes, name)])
    rng = np.random.default_rng(0)
    for length in (1 << 10, 1 << 16):
        numbers = rng.integers(1, 128, length)
        x = on(device)(rng.permutation(np.concatenate([numbers, -numbers])).astype(dtype.numpy), dtype, ())
        (total,) = run([apply("sum", x, axes=(0,))])
        assert widen(total, dtype).item() == 0.0, f"of {2 * length} numbers"


@pytest.mark.level(3)
@pytest.mark.parametrize("samples, channels, filters, size", [(3, 4, 8, 23), (5, 16, 32, 30), (17, 1, 32, 30)])
def test_larger_convolutions_of_whole_numbers(
    device: str, samples: int, channels: int, filters: int, size: int
) -> None:
    """Several samples of many positions each: work that is cut into blocks, and shared by threads."""
    needs(device, "conv", "conv_input_grad", "conv_weight_grad")
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    rng = np.random.default_rng(0)
    shapes = (samples, channels, size, size + 1), (filters, channels, 3, 3), (samples, filters, size, size + 1)
    x, w, g = (on(device)(rng.integers(-3, 4, shape).astype(np.float32), dtypes.float32, ()) for shape in shapes)
    nodes = [
        apply("conv", x, w, window=window, groups=1),
        apply("conv_input_grad", g, w, window=window, groups=1, spatial=x.shape[2:]),
        apply("conv_weight_grad", x, g, window=window, groups=1),
    ]
    for got, (value, _), node in beside_oracle(nodes):
        np.testing.assert_array_equal(got, value, err_msg=node.op.name)


@pytest.mark.level(2)
@pytest.mark.parametrize("name", [d.name for d in dtypes.FLOATS])
def test_denormals_as_declared(device: str, name: str) -> None:
    """A backend that does not declare to flush them keeps numbers below the least normal one, and computes them."""
    (dtype,) = dtypes_of(device, [getattr(dtypes, name)])
    flushes = devices.get(device).backend.capabilities.flush_denormals
    rng = np.random.default_rng(0)
    least = denormals(dtype)
    x = on(device)((least * rng.integers(1, 8, (5, 7))).astype(dtype.numpy), dtype, ())
    nodes = [
        apply("copy", x), -x, x + x, x - x.permute((1, 0)).permute((1, 0)) * 2.0, x * 4.0, apply("abs", x),
        apply("max", x, axes=(0,)), apply("sum", x, axes=(1,)), apply("where", apply("lt", x, -x), x, -x),
    ]  # fmt: skip
    for got, expected, node in beside_oracle(nodes):
        what = f"{node!r} where flush_denormals={flushes} is declared"
        compare(got, expected, node.dtype, what)
        if not flushes:
            np.testing.assert_array_equal(widen(got, dtype), expected.value, err_msg=what)


def denormals(dtype: DType) -> float:
    """The least positive number of a dtype."""
    ones = np.ones((), f"u{dtype.itemsize}")
    return float(ones.view(dtype.numpy))
