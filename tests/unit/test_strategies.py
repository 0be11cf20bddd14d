"""The strategies draw what fails silently: every row in programs, every layout, window and kind of value."""

import dataclasses
import math
from collections import Counter

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings

from minigrad import dtypes
from minigrad.backends.numpy.ufuncs import CALLS
from minigrad.graph import toposort
from minigrad.primitive import TABLE, Domain
from minigrad.shapes import broadcast
from minigrad.testing import strategies
from minigrad.testing.bounds import TOLERANCES
from minigrad.testing.checks import Tally, check_program
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import Layout, nowhere, outcomes, sentinel
from minigrad.testing.shrinking import shrunk

ROWS = strategies.rows()


def drawn(strategy, count, number=0):
    """``count`` examples, the same ones every time; others by another ``number``."""
    found = []

    @seed(number)
    @given(strategy)
    @settings(
        max_examples=count, derandomize=False, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def draw(example):
        found.append(example)

    draw()
    return found


def smallest(strategy, condition, count=3000):
    """What shrinking leaves of the first example that meets a condition."""
    return find(strategy, condition, settings=settings(max_examples=count, derandomize=True, database=None))


def names(program):
    return {step.op for step in program.steps}


@pytest.fixture
def fresh(monkeypatch):
    """A row that was put into the table just now."""
    op = dataclasses.replace(TABLE["exp"], name="fresh", domain=Domain(-2, 2))
    monkeypatch.setitem(TABLE, "fresh", op)
    monkeypatch.setitem(TOLERANCES, "fresh", TOLERANCES["exp"])
    monkeypatch.setitem(CALLS, "fresh", CALLS["exp"])
    return op


# Programs ------------------------------------------------------------------------------------------------------------


def test_every_row_of_the_table_occurs_in_programs():
    missing = {op.name for op in ROWS}
    for number in range(20):  # Hypothesis varies what it drew before: each number begins anew
        for program in drawn(programs(most=20), 50, number):
            missing -= names(program)
        if not missing:
            break
    assert not missing


def test_programs_mix_dtypes_windows_and_views():
    steps, kinds, together = [], set(), Counter()
    for program in [program for number in range(8) for program in drawn(programs(), 30, number)]:
        kinds |= {node.dtype for node in program.build(nowhere).values}
        steps += program.steps
        made = {n for n, _ in enumerate(program.steps, len(program.inputs))}
        for step in program.steps:
            together[len(made & set(step.sources)) > 0] += 1
    assert len(kinds) > 10, "unsigned ones and float64 too"
    assert together[True] > 2 * together[False], "steps mostly take what other steps make"
    windows = [s.attrs["window"] for s in steps if "window" in s.attrs]
    assert {w.rank for w in windows} == {1, 2, 3}
    assert any(w.ceil_mode for w in windows) and any(max(w.dilation) > 1 for w in windows)
    groups = Counter(s.attrs["groups"] > 1 for s in steps if "groups" in s.attrs)
    assert groups[True] > 3 and groups[False] > 3


def test_programs_are_small_and_mostly_decided():
    tally, found = Tally(), drawn(programs(kinds=(dtypes.float32, dtypes.float16)), 100)
    for program in found:
        tally.add(check_program(program, "numpy"))
    assert tally.decided > 0.9 * tally.elements
    assert np.mean([len(program.steps) for program in found]) < 25


def test_a_fresh_row_occurs_in_programs_and_cases_without_being_listed(fresh):
    assert fresh in strategies.rows()
    several = (program for number in range(10) for program in drawn(programs(), 100, number))
    assert any("fresh" in names(program) for program in several)
    for program in [*drawn(strategies.cases(fresh), 20), *drawn(programs(having="fresh", most=3), 20)]:
        assert "fresh" in names(program)
        check_program(program, "numpy")


def test_programs_have_no_primitive_that_they_are_to_be_without():
    without = frozenset("exp const minimum conv conv_input_grad detach sum take threefry".split())
    derived = 0
    for program in drawn(programs(without=without), 100):
        nodes = toposort(outcomes(program, program.build(nowhere)))
        assert not {node.op.name for node in nodes} & without
        derived += program.gradients
    assert derived > 10


@pytest.mark.parametrize(
    "only",
    [(dtypes.float32,), (dtypes.float32, dtypes.bool_, dtypes.int32), (dtypes.float16, dtypes.int64, dtypes.uint8)],
    ids=lambda only: "-".join(dtype.name for dtype in only),
)
def test_programs_and_cases_have_no_dtype_but_those_given(only):
    for program in drawn(programs(only=only, kinds=only), 60):
        nodes = toposort(outcomes(program, program.build(nowhere)))
        assert {node.dtype for node in nodes} <= set(only)
    for name in ("cast", "iota", "const", "add", "where"):
        for program in drawn(strategies.cases(TABLE[name], only=only), 15):
            kinds = {value.dtype for value in program.build(nowhere).values}
            assert kinds <= {*only, *[dtypes.bool_] * (name == "where")}


def test_a_fault_shrinks_to_what_it_needs():
    def fails(program):
        return "cumsum" in names(program)

    # As `minigrad fuzz` does. What Hypothesis leaves alone depends on the modules that are imported: it draws their
    # constants too.
    program = shrunk(smallest(programs(most=2, having="cumsum"), fails), fails)
    assert "cumsum" in names(program) and len(program.steps) <= 4
    assert len(program.inputs) <= 2 and all(given.array.size <= 12 for given in program.inputs)


# Shapes, layouts and values ------------------------------------------------------------------------------------------


def test_sides_of_shapes_are_distinct_and_some_are_zero_or_one():
    found = drawn(strategies.shapes(), 300)
    for shape in found:
        above = [side for side in shape if side > 1]
        assert len(set(above)) == len(above)
    assert {len(shape) for shape in found} == set(range(6))
    assert any(0 in shape for shape in found) and any(1 in shape for shape in found)
    assert smallest(strategies.shapes(), lambda shape: len(shape) == 2) == (2, 3)


def test_broadcastable_shapes_broadcast():
    kinds = Counter()
    for shapes in drawn(strategies.broadcastable(3), 200):
        out = broadcast("test", *shapes)
        kinds["ones"] += any(1 in shape and len(shape) == len(out) and shape != out for shape in shapes)
        kinds["shorter"] += any(len(shape) < len(out) for shape in shapes)
        kinds["alike"] += len(set(shapes)) == 1
        kinds["scalar"] += () in shapes
    assert len(kinds) == 4 and min(kinds.values()) > 3
    for shapes in drawn(strategies.broadcastable(2, (2, 3)), 20):
        assert broadcast("test", *shapes) == (2, 3)


def test_every_kind_of_layout_occurs():
    found = [layout for layout in drawn(strategies.layouts((2, 3, 4)), 200) if layout.steps]
    assert any(layout.axes != (0, 1, 2) for layout in found), "permuted"
    assert any(layout.order not in ((), (0, 1, 2)) for layout in found), "in another memory order"
    for step in (0, -1, -2, 2, 3):
        assert any(step in layout.steps for layout in found), step
    assert any(before > 0 for layout in found for before, _ in layout.margins), "at an offset"
    assert strategies.laid(np.ones(()), Layout()).buffer().shape == ()
    assert smallest(strategies.layouts((2, 3)), lambda layout: True) == Layout()


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int16, dtypes.float16], ids=lambda d: d.name)
def test_what_lies_around_a_layout_shows_when_it_is_read(dtype):
    shape = (3, 2)
    for layout in drawn(strategies.layouts(shape), 60):
        once = tuple(1 if s == 0 else n for n, s in zip(shape, layout.steps)) if layout.steps else shape
        buffer = strategies.laid(np.ones(shape, dtype.numpy), layout).buffer()
        rest = buffer[buffer != 1]
        assert np.count_nonzero(buffer == 1) == math.prod(once)
        assert np.isnan(rest).all() if dtype.is_float else (rest == sentinel(dtype)).all()


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda d: d.name)
def test_special_values_occur(dtype):
    values = strategies.fill("special", Domain(), np.random.default_rng(0), (2000,), dtype).astype(np.float64)
    finite = values[np.isfinite(values)]
    assert np.isnan(values).any() and {np.inf, -np.inf} <= set(values)
    zeros = values[values == 0]
    assert np.signbit(zeros).any() and not np.signbit(zeros).all()
    info = ml_dtypes.finfo(dtype.numpy)
    assert ((np.abs(finite) < float(info.tiny)) & (finite != 0)).any(), "a denormal number"
    assert float(info.max) in finite


def test_kinds_of_values():
    def made(kind, dtype=dtypes.float32):
        return strategies.fill(kind, Domain(), np.random.default_rng(0), (500,), dtype)

    assert set(made("integers")) == set(range(-3, 4))
    ties = np.unique(made("ties"))
    assert np.isclose(ties[1:], ties[:-1], rtol=1e-6).any() and len(ties) == 4
    wide = np.log2(np.abs(made("wide")))
    assert wide.min() < -50 and wide.max() > 50
    assert {made("wide", dtypes.int8).min(), made("wide", dtypes.int8).max()} == {-128, 127}
    away = strategies.fill("uniform", Domain(nonzero=(0,)), np.random.default_rng(0), (500,), dtypes.float32)
    assert np.abs(away).min() >= 0.25


# Windows -------------------------------------------------------------------------------------------------------------


def classes(window, spatial):
    """What is special about a window over an input."""
    reach = [window.extent(axis) for axis in range(window.rank)]
    out = window.output_size("test", spatial)
    assert min(out) >= 1 and min(spatial) >= 1
    found = {f"{window.rank}-d"}
    found |= {"stride"} if max(window.stride) > 1 else set()
    found |= {"dilation"} if any(d > 1 and k > 1 for d, k in zip(window.dilation, window.kernel)) else set()
    found |= {"asymmetric"} if any(a != b for a, b in window.padding) else set()
    found |= {"larger than the input"} if any(r > n for r, n in zip(reach, spatial)) else set()
    whole = window._replace(ceil_mode=False).output_size("test", spatial)
    found |= {"partial"} if window.ceil_mode and out != whole else set()
    for n, (before, after), r in zip(spatial, window.padding, reach):
        found |= {"padding alone"} if max(before, after) >= r else set()
        found |= {"left over"} if (n + before + after - r) % max(window.stride) else set()
    return found


@pytest.mark.parametrize("pool", [False, True], ids=["conv", "pool"])
def test_every_class_of_windows_occurs(pool):
    found = Counter()
    for rank in (1, 2, 3):
        for window, spatial in drawn(strategies.windows(rank, pool), 100):
            assert len(set(spatial)) == len(spatial)
            found.update(classes(window, spatial))
    expected = {"1-d", "2-d", "3-d", "stride", "dilation", "asymmetric", "larger than the input", "left over"}
    assert found.keys() == expected | ({"partial"} if pool else {"padding alone"})
    assert min(found.values()) > 10, found


def test_windows_fit_sizes_that_are_given():
    found = Counter()
    for window, spatial in drawn(strategies.windows(2, True, (5, 8)), 100):
        assert spatial == (5, 8)
        found.update(classes(window, spatial))
    assert {"stride", "dilation", "asymmetric", "partial"} <= found.keys()


def test_every_class_of_groups_and_channels_occurs():
    found = Counter()
    for program in drawn(strategies.cases(TABLE["conv"]), 200):
        x, w = (given.array.shape for given in program.inputs)
        groups = program.steps[0].attrs["groups"]
        found[f"{groups} groups" if groups < 4 else "more groups"] += 1
        found["depthwise"] += groups == x[1] > 1
        found["two filters a channel"] += groups == x[1] > 1 and w[0] == 2 * groups
        found["whole vectors"] += x[1] // groups % 8 == 0 == w[0] // groups % 8
        found["many images"] += x[0] % 16 == 0
        found["channels unlike images"] += x[0] != x[1]
    assert min(found.values()) > 3 and len(found) == 9, found


def test_some_matrices_are_larger_than_a_tile():
    sides = [given.array.shape for program in drawn(strategies.cases(TABLE["matmul"]), 100) for given in program.inputs]
    assert any(min(shape) > 32 for shape in sides) and any(0 in shape for shape in sides)
