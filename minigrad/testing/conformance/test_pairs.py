"""Level 5: backends against each other, every pair of those under test and NumPy's: what each may err, they may differ.

Where NumPy's is alone it is compared with itself: what runs twice gives the same.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

import minigrad
from minigrad import Tensor, dtypes
from minigrad.dtypes import DType
from minigrad.graph import toposort
from minigrad.testing import strategies
from minigrad.testing.bounds import bounded
from minigrad.testing.checks import Tally, check_pair, with_gradients
from minigrad.testing.conformance.support import ROWS, dtypes_of, needs, some, unsupported
from minigrad.testing.laws import check_alike, measured
from minigrad.testing.plugin import DEVICES
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import Program, nowhere, on, outcomes
from minigrad.testing.training_strategies import training_programs

pytestmark = pytest.mark.level(5)
Pair = tuple[str, str]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per pair of devices."""
    if "pair" in metafunc.fixturenames:
        found = list(dict.fromkeys(["numpy", *metafunc.config.stash[DEVICES]]))
        metafunc.parametrize("pair", list(combinations(found, 2)) or [("numpy", "numpy")], ids="-".join)


def kinds_of(pair: Pair) -> list[DType]:
    """The dtypes that both declare."""
    one, other = (dtypes_of(device) for device in pair)
    return [d for d in one if d in other]


def drawn(pair: Pair, *kinds: DType) -> st.SearchStrategy[Program]:
    """Programs of what both declare that they have, from inputs of some of ``kinds``."""
    can = kinds_of(pair)
    without = frozenset[str]().union(*map(unsupported, pair))
    return programs(kinds=[d for d in kinds if d in can], without=without, only=can)


def needed(pair: Pair, program: Program) -> None:
    """Skip what one of them declares that it does not have."""
    nodes = toposort(outcomes(program, program.build(nowhere)))
    for device in pair:
        needs(device, *(node.op.name for node in nodes))


@some(1)
@given(data=st.data())
def test_rows_agree_within_bound(pair: Pair, data: st.DataObject) -> None:
    """Any row of the table, and its gradient where it has one."""
    rows = [op for op in ROWS if not any(op.name in unsupported(device) for device in pair)]
    op = data.draw(st.sampled_from(rows))
    program = data.draw(strategies.cases(op, only=kinds_of(pair)))
    program = with_gradients(program) if op.vjp is not None else program
    needed(pair, program)
    target(check_pair(program, *pair).worst)


def test_programs_agree_within_bound(pair: Pair) -> None:
    """Random lazy programs, with gradients."""
    tally = Tally()

    @given(drawn(pair, dtypes.float32, dtypes.float16, dtypes.int32))
    @some(0.7)
    def property_(program: Program) -> None:
        found = check_pair(program, *pair)
        tally.add(found)
        target(found.worst)

    property_()
    assert tally.decided > 0.8 * tally.elements > 0


def test_training_steps_agree_within_bound(pair: Pair) -> None:
    """Whole training steps in one graph."""
    tally = Tally()

    @given(training_programs())
    @some(0.1)
    def property_(program: Program) -> None:
        needed(pair, program)
        tally.add(check_pair(program, *pair))

    property_()
    assert tally.decided > 0.8 * tally.elements > 0


def test_exact_programs_give_equal_values(pair: Pair) -> None:
    """Where no digit can be lost there is one right value, and both have it."""
    exact, elements = 0, 0

    @given(drawn(pair, dtypes.int32, dtypes.int64, dtypes.bool_))
    @some(0.25)
    def property_(program: Program) -> None:
        nonlocal exact, elements
        for value in bounded(program.build(on(pair[0])).results):
            exact += int(np.count_nonzero(value.error == 0))
            elements += value.value.size
        check_pair(program, *pair)  # equal where the bound is 0

    property_()
    assert exact > 0.2 * elements > 0


@pytest.mark.parametrize("seed", [0, 2**40 + 3])
def test_same_seed_same_random_stream_on_all_backends(pair: Pair, seed: int) -> None:
    """Bits, uniform and whole numbers are equal; normal ones within the bounds of logarithm, root and cosine."""
    for device in pair:
        needs(device, "threefry", "iota", "shift_right", "slice", "cast", "mul", "sqrt", "log", "cos")
    drawn, normal = [], []
    for device in pair:
        minigrad.manual_seed(seed)
        draws = [Tensor.rand(1000, device=device), Tensor.randint(-9, 100, (7, 11), device=device)]
        drawn.append([t.numpy() for t in draws])
        normal.append(Tensor.randn(33, 5, device=device))
    for a, b in zip(*drawn):
        np.testing.assert_array_equal(a, b, strict=True)
    check_alike([normal[0].node], measured([normal[1].node]), "normal numbers")
