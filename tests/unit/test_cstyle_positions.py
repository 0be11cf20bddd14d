"""Positions in memory of more than 2**31 elements: nothing on the way to one is an int that it does not fit."""

import re

import nvrtc
import pytest

from minigrad import dtypes
from minigrad.backends.cstyle.dialect import OPENCL_CLANG
from minigrad.backends.cstyle.target import Target
from minigrad.buffer import Buffer
from minigrad.graph import apply, leaf, project
from minigrad.realize import realize
from minigrad.shapes import Window

CPU = Target(OPENCL_CLANG, False, 8, 16, 2, 32768, frozenset(dtypes.ALL))
WINDOW = Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
LARGE = (3 << 20, 1 << 10)
CASES = {
    "add": lambda new: apply("add", new(LARGE), new(LARGE)),
    "transposed": lambda new: apply("add", new(LARGE), new(LARGE[::-1]).permute((1, 0))),
    "sum": lambda new: apply("sum", new(LARGE), axes=(1,)),
    "argmax": lambda new: apply("argmax", new(LARGE), axis=0),
    "cumsum": lambda new: apply("cumsum", new(LARGE), axis=1, reverse=False),
    "sort": lambda new: apply("sort", new((3 << 22, 1 << 8)), axis=1, descending=False),
    "take": lambda new: apply("take", new((9, 1 << 10)), new((3 << 20,), dtypes.int64)),
    "max_pool": lambda new: apply("max_pool", new((3 << 10, 1 << 10, 32, 32)), window=WINDOW),
}


ON_CPU = ("sum", "argmax", "sort")  # others share out rows or chunks, which ints count


@pytest.mark.parametrize("case, on_cpu", [*((case, False) for case in CASES), *((case, True) for case in ON_CPU)])
def test_the_number_of_a_group_is_long_where_positions_are(monkeypatch, case, on_cpu):
    target = CPU if on_cpu else nvrtc.H200
    device = nvrtc.Sources(target).opened(monkeypatch)

    def new(shape, dtype=dtypes.uint8):
        size = dtype.itemsize
        for n in shape:
            size *= n
        return leaf(Buffer(device, size), shape, dtype, device.name)

    node = CASES[case](new)
    realize([project(node, 0) if node.op.outputs > 1 else node])
    lines = [line for launch in device.backend.launches for s in launch.rendered.stages for line in s.text.split("\n")]
    group = re.escape(target.dialect.group_id())
    found = [line for line in lines if re.match(rf"\s*(const )?(long|for) .*{group}\)?( [*/]|;)", line)]
    assert found
    assert [line for line in found if f"(long){target.dialect.group_id()}" not in line] == []
