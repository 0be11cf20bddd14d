"""Level 5: random lazy programs. However the engine cuts and orders a graph, the values are those of the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, target

from minigrad import dtypes
from minigrad.config import settings as engine
from minigrad.realize import realize
from minigrad.testing.checks import WAYS, Tally, check_program
from minigrad.testing.conformance.support import dtypes_of, some
from minigrad.testing.evaluate import read, run, widen
from minigrad.testing.program_strategies import programs
from minigrad.testing.programs import Program, on, outcomes

pytestmark = pytest.mark.level(5)
KINDS = (dtypes.float32, dtypes.float16, dtypes.int32)


def test_program_matches_float64_oracle(device: str) -> None:
    """Fused and unfused, in chosen layouts and in none, realized at once, here and there, or at the end."""
    tally = Tally()

    @given(programs(kinds=dtypes_of(device, KINDS)))
    @some(3)
    def property_(program: Program) -> None:
        found = check_program(program, device, WAYS)
        tally.add(found)
        target(found.worst)

    property_()
    assert tally.elements > 1000
    assert tally.decided > 0.9 * tally.elements, "too much is undecided: the programs drawn test little"


def test_large_programs_match_float64_oracle(device: str) -> None:
    """Large enough that each kernel runs in blocks, on several threads."""
    tally = Tally()
    kinds = dtypes_of(device, (dtypes.float32, dtypes.bfloat16, dtypes.int64))

    @given(programs(most=4, large=True, kinds=(dtypes.float32, *kinds)))
    @some(0.7)
    def property_(program: Program) -> None:
        found = check_program(program, device, ["lazy", "unfused"])
        tally.add(found)
        target(found.worst)

    property_()
    # Few programs, of equal size: one that ends in a jump (a comparison, a sort) leaves all of its elements undecided.
    assert tally.decided > 0.7 * tally.elements


@pytest.mark.parametrize("way", WAYS)
def test_schedule_order_is_irrelevant(device: str, way: str) -> None:
    """Results realized one by one, the last first, are those realized together."""

    @given(programs(most=5, kinds=dtypes_of(device, KINDS)))
    @some(0.3)
    def property_(program: Program) -> None:
        settings, when, every = WAYS[way]
        with engine.override(**settings):
            together = run(outcomes(program, program.build(on(device))))
            built = outcomes(program, program.build(on(device), when, every))
            for node in reversed(built):
                realize([node])
        for a, node in zip(together, built):
            got, expected = widen(read(node), node.dtype), widen(a, node.dtype)
            np.testing.assert_allclose(got, expected, rtol=2e-2, atol=1e-2, equal_nan=True)

    property_()
