"""Levels 1 to 3: every row of the table of primitives against the float64 oracle.

Nobody lists the rows: a new primitive is tested as soon as it is in the table.
"""

from __future__ import annotations

import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.errors import Unsupported
from minigrad.primitive import Primitive
from minigrad.testing import strategies
from minigrad.testing.bounds import TOLERANCES, Error, bounded
from minigrad.testing.checks import check_program
from minigrad.testing.conformance.support import ROWS, by_level, dtypes_of, needs, some, unsupported
from minigrad.testing.programs import on

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
