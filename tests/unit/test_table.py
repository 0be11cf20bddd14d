"""The table of primitives has no hole: each row has a meaning, a tolerance, inputs, a cost, and derivatives or none.

Nobody lists the rows: a new primitive is tested as soon as it is in the table, or the tests here fail.
"""

import dataclasses

from minigrad import reference
from minigrad.primitive import TABLE, Domain, Kind, Primitive
from minigrad.testing import strategies
from minigrad.testing.bounds import TOLERANCES

ROWS = strategies.rows()


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
