"""Programs that once came out wrong: each failed before the engine was mended."""

import numpy as np
import pytest

from minigrad import dtypes
from minigrad.testing.checks import WAYS, check_program
from minigrad.testing.programs import Input, Layout, Program, Step

FOUND = {
    "a constant that a scatter adds": Program(
        (Input(np.array(1, np.int64)),),
        (
            Step("const", (), {"value": 2, "sign": 1.0, "dtype": dtypes.int32}),
            Step("scatter", (0, 1), {"length": 3, "reduce": "sum"}),
        ),
        (2,),
    ),
    "padding around a constant that is a result as well": Program(
        (Input(np.array([2, 3, 1], np.int32)),),
        (
            Step("const", (), {"value": 0, "sign": 1.0, "dtype": dtypes.int32}),
            Step("const", (), {"value": 0, "sign": 1.0, "dtype": dtypes.int32}),
            Step("reshape", (2,), {"shape": (1,)}),
            Step("pad", (3,), {"padding": ((0, 2),), "value": 1}),
            Step("mul", (0, 4)),
            Step("sum", (5,), {"axes": (0,)}),
        ),
        (1, 6),
    ),
    "a write into a constant, the copy of which was merged away": Program(
        (Input(np.array([2.0, 1.0], np.float32)),),
        (Step("slice", (0,), {"starts": (0,), "sizes": (1,), "steps": (2,)}),),
        (1,),
        gradients=True,
    ),
    "a strided view of a strided view, whose own copy was merged away": Program(
        (Input(np.array([1.0, 2.0, 3.0, 4.0], np.float32), Layout((0,), (2,), ((0, 0),))),),
        (Step("strided_view", (0,), {"shape": (4,), "strides": (1,), "offset": 0}),),
        (1,),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_programs_that_failed_once(device, name):
    found = check_program(FOUND[name], device, WAYS)
    assert found.decided == found.elements > 0
