"""Templates for CUDA at sizes where they share work among groups, read in packs and exchange values within warps.

Each is executed by the CPU and compared with the oracle, and compiled for an H200: no register may spill, and what lies
in rows is read 16 bytes at a time.
"""

import itertools
import re

import cuda_on_cpu
import numpy as np
import nvrtc
import pytest

from minigrad import Tensor, dtypes
from minigrad.testing.bounds import beside_oracle, compare

WIDE = re.compile(r"(ld|st)\.global(?:\.nc)?\.v(2\.[fub]64|4\.[fub]32)")


@pytest.fixture(scope="module")
def cuda():
    """The name of a device that executes generated CUDA."""
    return cuda_on_cpu.CudaOnCpu().opened()


def values(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype is dtypes.bool_:
        return rng.random(shape) < 0.5
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(0, 50, shape).astype(dtype.numpy)


def inputs(device):
    """Gives tensors on a device, each with other values."""
    count = itertools.count()

    def new(*shape, dtype=dtypes.float32):
        return Tensor(values(shape, dtype, next(count)), device=device)

    return new


def check(cuda, cases):
    """Compute what each case makes of tensors, and compare it with the oracle."""
    new = inputs(cuda)
    nodes = [case(new).node for case in cases.values()]
    for name, (got, expected, node) in zip(cases, beside_oracle(nodes)):
        compare(got, expected, node.dtype, name)


def compiled(monkeypatch, cases):
    """The same compiled for an H200: for each case the launches and their PTX."""
    device = nvrtc.Sources().opened(monkeypatch)
    found = {}
    for name, case in cases.items():
        before = len(device.backend.launches)
        case(inputs(device.name)).realize()
        launches = device.backend.launches[before:]
        made = nvrtc.compiled(nvrtc.source(launches))
        assert [n for n, function in made.functions.items() if function.spilled] == [], name
        found[name] = launches, made.ptx
    return found


def loads_wide(ptx):
    """Whether 16 bytes are read, and written, at once."""
    return {match[1] for match in WIDE.finditer(ptx)}


BF, F16 = dtypes.bfloat16, dtypes.float16
MAPS = {
    "rows": lambda new: new(6, 4100) * new(6, 4100) + new(6, 4100),
    "a rest of one axis": lambda new: new(1031).exp(),
    "less than a pack": lambda new: new(3) + new(3),
    "channels last": lambda new: (new(50, 64, dtype=BF) * new(64, dtype=BF)).relu(),
    "halves and floats": lambda new: new(40, 24, dtype=F16).float() + new(40, 24),
    "bytes": lambda new: new(7, 160).where(new(7, 160, dtype=dtypes.bool_), new(7, 1)),
    "doubles": lambda new: new(9, 64, dtype=dtypes.float64) - new(9, 64, dtype=dtypes.float64),
    "wider on one side": lambda new: new(12, 34).pad(((0, 0), (2, 4))) + new(12, 40),
    "padded outside": lambda new: new(10, 40).pad(((1, 1), (0, 0))) * new(12, 40),
    "every other row": lambda new: new(24, 64)[1::2] + new(12, 64),
    "backwards": lambda new: new(8, 64).flip(1) + new(8, 64),
    "positions": lambda new: new(8, 64) + Tensor.arange(64, device=new(1).device),
}
SQUARES = {
    "transposed": lambda new: new(70, 100).T + new(100, 70),
    "two of them": lambda new: new(64, 96).T * new(64, 96).T + new(96).unsqueeze(1),
    "channels last of channels first": lambda new: new(3, 12, 9, 10).permute(0, 2, 3, 1).clone(),
    "halves": lambda new: new(40, 33, dtype=F16).T + new(33, 40, dtype=F16),
    "truths": lambda new: new(33, 47).T.where(new(33, 47, dtype=dtypes.bool_).T, 0.5),
    "doubles": lambda new: new(33, 35, dtype=dtypes.float64).T + 1,
    "padded": lambda new: new(30, 40).T.pad(((1, 2), (0, 3))) + new(43, 33),
    "reversed": lambda new: new(40, 50).flip(0).T + new(50, 40),
    "in the middle": lambda new: new(9, 40, 3, 20).permute(2, 3, 0, 1) + new(3, 20, 9, 40),
}
NARROW_MAPS = ("less than a pack", "wider on one side")


@pytest.mark.parametrize("many", [False, True])
def test_maps(cuda, monkeypatch, many):
    if many:  # two packs per item
        monkeypatch.setattr("minigrad.backends.cstyle.templates.wide.MANY", 1)
        cuda = cuda_on_cpu.CudaOnCpu().opened()
    check(cuda, MAPS)


def test_maps_of_another_order(cuda, monkeypatch):
    check(cuda, SQUARES)
    for name, (launches, _) in compiled(monkeypatch, SQUARES).items():
        assert "__shared__" in launches[-1].rendered.stages[0].text, name


def test_maps_read_and_write_16_bytes(monkeypatch):
    for name, (launches, ptx) in compiled(monkeypatch, MAPS).items():
        assert name in NARROW_MAPS or loads_wide(ptx) == {"ld", "st"}, f"{name}\n{launches[-1].rendered.stages[0].text}"


REDUCTIONS = {
    "all": lambda new: new(70001).sum(),
    "all, in packs": lambda new: new(70400).sum(),
    "channels last": lambda new: new(4000, 64).sum(0),
    "channels last, halves": lambda new: new(3000, 48, dtype=BF).sum(0),
    "channels": lambda new: new(16, 5, 40, 24).sum((0, 2, 3)),
    "long rows": lambda new: new(5, 9000).max(1),
    "rows of a warp": lambda new: new(300, 100).sum(1),
    "short rows": lambda new: new(700, 10).sum(1),
    "very short rows": lambda new: new(700, 3, dtype=F16).max(1),
    "few of many": lambda new: new(3, 20000).sum(0) * new(20000),
    "few of many doubles": lambda new: new(3, 2000, dtype=dtypes.float64).prod(0),
    "odd columns": lambda new: new(2000, 77).min(0),
    "wide columns": lambda new: new(900, 2000).sum(0),
    "first": lambda new: new(3, 5000).argmax(1),
    "first down": lambda new: new(5000, 20).argmin(0),
    "bytes": lambda new: (new(5000, 16, dtype=dtypes.uint8) // 2).max(0),
    "truths": lambda new: new(30, 1000, dtype=dtypes.bool_).any(1),
    "longs": lambda new: new(4, 3000, dtype=dtypes.int64).sum(1),
    "of an expression": lambda new: ((new(2000, 64) - new(64)) * new(2000, 64)).sum(0),
    "two outer": lambda new: new(30, 6, 50, 8).sum((0, 2)),
    "permuted": lambda new: new(60, 70, 12).permute(2, 0, 1).sum(1),
}
NARROW_REDUCTIONS = ("all", "short rows", "very short rows", "odd columns", "bytes", "truths")


def test_reductions(cuda):
    check(cuda, REDUCTIONS)


def test_reductions_read_16_bytes(monkeypatch):
    for name, (launches, ptx) in compiled(monkeypatch, REDUCTIONS).items():
        text = launches[-1].rendered.stages[0].text
        assert name in NARROW_REDUCTIONS or "ld" in loads_wide(ptx), f"{name}\n{text}"
