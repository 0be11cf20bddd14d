"""Contractions on tensor cores: executed by the CPU against the oracle, and compiled for an H200."""

import dataclasses

import cuda_on_cpu
import numpy as np
import nvrtc
import pytest
from generated import kernel_of, places, random_values
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cstyle_tiled import Case, random_conv, row_major, verify_case

from minigrad import dtypes
from minigrad.backends.cstyle.render import candidates
from minigrad.backends.cstyle.templates import tensor_choice
from minigrad.backends.cstyle.templates.tensor import render_tensor
from minigrad.backends.cstyle.templates.tensor_choice import TILES, TensorTile
from minigrad.backends.cstyle.templates.tiled_choice import Tile
from minigrad.primitive import TABLE
from minigrad.shapes import Window
from minigrad.testing import strategies
from minigrad.testing.bounds import bounded, compare
from minigrad.testing.evaluate import run as computed
from minigrad.testing.programs import on, outcomes
from minigrad.view import View

TARGET = dataclasses.replace(nvrtc.H200, tensor=True, tf32=True, local_bytes=227 << 10, cores=4)
MANY = dataclasses.replace(TARGET, cores=132)
SMALL = [
    TensorTile(1, 1, 16, 16, 2),
    TensorTile(2, 1, 16, 32, 3),
    TensorTile(1, 2, 32, 16, 4),
    TensorTile(2, 2, 16, 16, 2),
    TensorTile(1, 1, 32, 32, 3),
]
OPS = ("matmul", "conv", "conv_input_grad", "conv_weight_grad")
DTYPES = (dtypes.bfloat16, dtypes.float16, dtypes.float32)


def case_of(rng, kernel, tile, target=TARGET):
    """On tensor cores, with sources that have no more digits than these read."""
    return drawn(rng, kernel, render_tensor(kernel, target, tile))


def drawn(rng, kernel, rendered):
    """A kernel with sources of few digits."""
    dtype = kernel.outputs[0].dtype
    sources = [random_values(rng, shape, dtype) for shape in kernel.source_shapes]
    if dtype is dtypes.float32:
        sources = [source.astype(dtypes.bfloat16.numpy).astype(np.float32) for source in sources]
    extra = None
    if kernel.buffers == 4:
        view = kernel.inputs[2].view
        bits = random_values(rng, int(places(view).max(initial=-1)) + 1, dtype)
        extra = bits[places(view)]
    return Case(kernel, sources, extra, rendered)


def run(cases):
    """The outputs of cases. Memory around what is written must stay as it is."""
    results = []
    for case, program in zip(cases, cuda_on_cpu.programs([case.rendered for case in cases], "-O0")):
        kernel, memory = case.kernel, {}
        for operand, values in [*zip(kernel.inputs, [*case.sources, case.extra]), (kernel.outputs[0], None)]:
            where = places(operand.view)
            size = int(where.max(initial=0)) + 9
            piece = cuda_on_cpu.Memory(size * operand.dtype.itemsize)
            host = piece.array.view(operand.dtype.numpy)
            host[...] = 77
            if values is not None:
                host[where] = values
            memory[operand.buffer] = piece
        program([memory[b] for b in range(kernel.buffers)])
        (output,) = kernel.outputs
        host, where = memory[output.buffer].array.view(output.dtype.numpy), places(output.view)
        around = np.ones(host.shape, bool)
        around[where] = False
        assert (host[around] == 77).all(), "memory beside the output was written"
        results.append(host[where])
    return results


def check(cases):
    for case, result in zip(cases, run(cases)):
        verify_case(case, result)


def random_matmul(rng):
    m, n, k = (int(i) for i in rng.integers(1, 70, 3))
    lead = tuple(int(i) for i in rng.integers(1, 4, int(rng.integers(0, 2))))
    mine = [tuple(i if rng.random() < 0.6 else 1 for i in lead) for _ in "ab"]
    return (), ((*mine[0], m, k), (*mine[1], k, n))


@pytest.mark.parametrize("op", OPS)
def test_random(op):
    """Shapes, windows, groups, layouts, dtypes and tiles: mostly too ragged for chunks of 16 bytes."""
    rng = np.random.default_rng(sum(map(ord, op)))
    cases = []
    for n in range(10):
        attrs, shapes = random_matmul(rng) if op == "matmul" else random_conv(rng, op)
        kernel = kernel_of(rng, op, attrs, shapes, DTYPES[n % 3], epilogue=n % 2 == 0)
        cases.append(case_of(rng, kernel, SMALL[n % len(SMALL)]))
    check(cases)


WINDOW = Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2))
PLAIN = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
LAST = (0, 2, 3, 1)  # channels last
# Those of 16 channels and more go in chunks, both ways round.
NAMED = {
    "matmul": ((), ((3, 40, 48), (3, 48, 56))),
    "matmul of a shared matrix": ((), ((2, 40, 64), (64, 32))),
    "conv": ((PLAIN, 1), ((2, 16, 7, 6), (24, 16, 3, 3))),
    "conv in groups": ((WINDOW, 2), ((2, 32, 7, 6), (48, 16, 3, 2))),
    "conv_input_grad": ((PLAIN, 1, (7, 6)), ((2, 24, 7, 6), (24, 16, 3, 3))),
    "conv_input_grad of strides": ((WINDOW, 2, (7, 6)), ((2, 48, 4, 5), (48, 16, 3, 2))),
    "conv_weight_grad": ((PLAIN, 1), ((2, 16, 7, 6), (2, 24, 7, 6))),
    "conv_weight_grad of strides": ((WINDOW, 2), ((2, 32, 7, 6), (2, 48, 4, 5))),
}


def last(*shapes):
    """Channels last where there are channels."""
    return [View.of(shape, LAST if len(shape) == 4 else ()) for shape in shapes]


def transposed(*shapes):
    """Matrices whose columns are rows in memory."""
    return [View.of(shape, (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_named(dtype):
    rng, cases = np.random.default_rng(0), []
    for n, (name, (attrs, shapes)) in enumerate(NAMED.items()):
        op = name.split()[0]
        views = [row_major, last] if op != "matmul" else [row_major, transposed]
        for m, view in enumerate(views):
            kernel = kernel_of(rng, op, attrs, shapes, dtype, view, epilogue=m == 1)
            cases.append(case_of(rng, kernel, SMALL[(n + m) % len(SMALL)]))
    check(cases)
    chunks = [case for case in cases if "copy_later" in case.rendered.stages[0].text]
    assert len(chunks) > len(cases) // 2


def test_infinities_and_nans():
    """Zeros stand for elements in the padding as in the oracle; terms that do not exist are no terms."""
    rng, cases = np.random.default_rng(0), []
    for n, (name, (attrs, shapes)) in enumerate(NAMED.items()):
        op = name.split()[0]
        kernel = kernel_of(rng, op, attrs, shapes, dtypes.float32, last if op != "matmul" else row_major)
        case = case_of(rng, kernel, SMALL[n % len(SMALL)], dataclasses.replace(TARGET, cores=64 if n % 2 else 1))
        for source in case.sources:
            flat = source.reshape(-1)
            flat[rng.choice(flat.size, 3, replace=False)] = [np.inf, -np.inf, np.nan]
        cases.append(case)
    check(cases)


def test_sums_are_shared_where_outputs_are_few():
    rng = np.random.default_rng(0)
    cases = []
    for dtype, columns in ((dtypes.bfloat16, 16), (dtypes.float32, 13)):
        kernel = kernel_of(rng, "matmul", (), ((24, 3000), (3000, columns)), dtype, row_major)
        cases.append(case_of(rng, kernel, SMALL[4], MANY))
    assert all(len(case.rendered.stages) == 2 for case in cases)
    check(cases)


def test_floats_are_rounded_to_ten_digits():
    """Within what TF32 promises: each factor to 2**-11 of its size; to the nearest, so that errors cancel."""
    rng = np.random.default_rng(0)
    kernel = kernel_of(rng, "matmul", (), ((32, 400), (400, 32)), dtypes.float32, row_major, epilogue=False)
    case = case_of(rng, kernel, SMALL[0])
    case.sources = [random_values(rng, shape, dtypes.float32) for shape in kernel.source_shapes]
    (found,) = run([case])
    a, b = (source.astype(np.float64) for source in case.sources)
    error, bound = found - a @ b, np.abs(a) @ np.abs(b) * 2 * 2.0**-11
    assert (np.abs(error) < bound).all() and np.abs(error).max() > bound.max() / 1000
    assert abs(error.mean()) < bound.mean() / 100


def test_rows_in_half_types(monkeypatch):
    """Contractions as the conformance kit draws them, with gradients, all of them on tensor cores."""
    monkeypatch.setattr(tensor_choice, "LEAST", (1, 1, 1))
    monkeypatch.setattr(tensor_choice, "TILES", (SMALL[1],))
    monkeypatch.setattr(tensor_choice, "SHARE", 8)
    device = cuda_on_cpu.CudaOnCpu(dataclasses.replace(TARGET, cores=8)).opened()

    @settings(max_examples=3)
    @given(data=st.data())
    def rows(data):
        wanted = []
        for op in OPS:
            program = data.draw(strategies.cases(TABLE[op], only=list(DTYPES[:2])))
            nodes = outcomes(program, program.build(on(device)))
            wanted += [(op, node, value) for node, value in zip(nodes, bounded(nodes))]
        for got, (op, node, value) in zip(computed([node for _, node, _ in wanted]), wanted):
            compare(got, value, node.dtype, op)

    rows()


def test_tensor_cores_are_used_where_they_may():
    rng = np.random.default_rng(0)

    def first(dtype, target=MANY, op="conv", attrs=FULL["conv"][0], shapes=FULL["conv"][1]):
        return candidates(kernel_of(rng, op, attrs, shapes, dtype, last), target)[0]

    assert isinstance(first(dtypes.bfloat16), TensorTile) and isinstance(first(dtypes.float32), TensorTile)
    assert isinstance(first(dtypes.float32, dataclasses.replace(MANY, tf32=False)), Tile)
    assert isinstance(first(dtypes.float64), Tile)
    assert isinstance(first(dtypes.float16, dataclasses.replace(MANY, tensor=False)), Tile)
    depthwise = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), 32
    assert isinstance(first(dtypes.float16, attrs=depthwise, shapes=((8, 32, 28, 28), (32, 1, 3, 3))), Tile)
    large = first(dtypes.bfloat16, op="matmul", attrs=(), shapes=((4096, 4096), (4096, 4096)))
    assert (large.m, large.n) in ((128, 128), (256, 128), (256, 64))
    assert first(dtypes.bfloat16, op="matmul", attrs=(), shapes=((64, 64), (64, 64))).m <= 64


FULL = {
    "matmul": ((), ((4096, 1024), (1024, 2048))),
    "conv": ((PLAIN, 1), ((64, 128, 28, 28), (128, 128, 3, 3))),
    "conv_input_grad": ((PLAIN, 1, (28, 28)), ((64, 128, 28, 28), (128, 128, 3, 3))),
    "conv_weight_grad": ((PLAIN, 1), ((64, 128, 28, 28), (64, 128, 28, 28))),
    "conv of few channels": ((Window((7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)), 1), ((64, 3, 224, 224), (64, 3, 7, 7))),
}


@pytest.mark.parametrize("dtype", [dtypes.bfloat16, dtypes.float32], ids=lambda d: d.name)
def test_tiles_need_no_more_registers_than_there_are(dtype):
    """Every tile, for full layers: nothing spills, and no array lies in memory."""
    rng, launches = np.random.default_rng(0), []
    for n, (name, (attrs, shapes)) in enumerate(FULL.items()):
        kernel = kernel_of(rng, name.split()[0], attrs, shapes, dtype, last)
        launches += [nvrtc.Launch(kernel, render_tensor(kernel, MANY, tile)) for tile in TILES[n :: len(FULL)]]
    functions = nvrtc.compiled(nvrtc.source(launches)).functions
    assert {name: function for name, function in functions.items() if function.spilled or function.stack} == {}
    for launch in launches:
        assert all(stage.dynamic <= MANY.local_bytes for stage in launch.rendered.stages)
