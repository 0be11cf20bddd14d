"""Contractions as products of matrices that a library computes: NumPy is the library here, the CPU runs the rest."""

import numpy as np
import nvrtc
import pytest
from generated import kernel_of
from test_cstyle_tiled import WINDOW, random_conv, random_matmul, row_major
from test_cuda_tensor import NAMED, OPS, PLAIN, check, drawn, last, transposed

from minigrad import dtypes
from minigrad.backends.cstyle.source import assembled
from minigrad.backends.cstyle.templates import matrices
from minigrad.backends.cstyle.templates.matrices import render_around
from minigrad.shapes import Window

FLOATS = (dtypes.float32, dtypes.bfloat16, dtypes.float16, dtypes.float64)
POINT = Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))


def around(kernel):
    found = render_around(kernel, nvrtc.H200)
    assert found is not None, kernel
    return found


@pytest.mark.parametrize("op", OPS)
def test_random(op):
    """Shapes, windows, groups, layouts and dtypes."""
    rng, cases = np.random.default_rng(sum(map(ord, op))), []
    for n in range(16):
        attrs, shapes = random_matmul(rng) if op == "matmul" else random_conv(rng, op)
        kernel = kernel_of(rng, op, attrs, shapes, FLOATS[n % 4], epilogue=n % 2 == 0)
        found = render_around(kernel, nvrtc.H200)
        if found is not None:
            cases.append(drawn(rng, kernel, found))
    assert len(cases) > 8
    check(cases)


def test_named():
    rng, cases = np.random.default_rng(0), []
    for name, (attrs, shapes) in NAMED.items():
        op = name.split()[0]
        for n, views in enumerate([row_major, last] if op != "matmul" else [row_major, transposed]):
            kernel = kernel_of(rng, op, attrs, shapes, FLOATS[n], views, epilogue=n == 1)
            cases.append(drawn(rng, kernel, around(kernel)))
    check(cases)


def test_infinities_and_nans():
    rng, cases = np.random.default_rng(0), []
    for op, attrs, shapes in (
        ("conv", (WINDOW, 2), ((2, 4, 7, 6), (6, 2, 3, 2))),
        ("conv_input_grad", (WINDOW, 2, (7, 6)), ((2, 6, 4, 5), (6, 2, 3, 2))),
        ("conv_weight_grad", (WINDOW, 2), ((2, 4, 7, 6), (2, 6, 4, 5))),
    ):
        kernel = kernel_of(rng, op, attrs, shapes, dtypes.float32)
        case = drawn(rng, kernel, around(kernel))
        for source in case.sources:
            flat = source.reshape(-1)
            flat[rng.choice(flat.size, 3, replace=False)] = [np.inf, -np.inf, np.nan]
        cases.append(case)
    check(cases)


def made(op, attrs, shapes, views=row_major, dtype=dtypes.float32, epilogue=False):
    return around(kernel_of(np.random.default_rng(0), op, attrs, shapes, dtype, views, epilogue))


def test_matrices_are_not_copied_where_they_are_some():
    """Products of matrices in any order of axes, and convolutions of single points."""
    for views in (row_major, transposed):
        found = made("matmul", (), ((5, 7, 9), (5, 9, 11)), views)
        assert not found.before.stages and not found.after.stages
        assert sorted(found.products.sizes) == [5, 7, 9, 11]
    shared = made("matmul", (), ((5, 7, 9), (9, 11)))
    assert shared.products.sizes == (35, 11, 9, 1), "one product of many rows"
    for views, sizes in ((row_major, (24, 42, 16, 2)), (last, (84, 24, 16, 1))):
        found = made("conv", (POINT, 1), ((2, 16, 7, 6), (24, 16, 1, 1)), views)
        assert not found.before.stages and not found.after.stages
        assert sorted(found.products.sizes) == sorted(sizes)
    many = made("matmul", (), ((3, 2, 7, 9), (2, 9, 11)))
    assert len(many.products.left.starts) * many.products.sizes[3] in (2, 6)


def test_windows_are_copied_once_and_in_chunks_where_channels_lie_together():
    for views, chunked in ((row_major, False), (last, True)):
        found = made("conv", (PLAIN, 1), ((2, 16, 7, 6), (24, 16, 3, 3)), views, dtypes.bfloat16)
        assert len(found.before.stages) == 1
        assert ("pack<ushort, 8>" in found.before.stages[0].text) is chunked
        assert found.before.scratch[0] == 2 * 7 * 6 * 16 * 9 * 2


def test_what_is_no_matrix_of_floats_is_left_to_other_templates(monkeypatch):
    rng = np.random.default_rng(0)
    integers = kernel_of(rng, "matmul", (), ((5, 7), (7, 5)), dtypes.int32)
    assert render_around(integers, nvrtc.H200) is None
    nothing = kernel_of(rng, "matmul", (), ((5, 0), (0, 5)), dtypes.float32)
    assert render_around(nothing, nvrtc.H200) is None
    monkeypatch.setattr(matrices, "SCRATCH", 100)
    large = kernel_of(rng, "conv", (PLAIN, 1), ((2, 16, 7, 6), (24, 16, 3, 3)), dtypes.float32)
    assert render_around(large, nvrtc.H200) is None


def test_what_is_rendered_compiles():
    rendered = []
    for name, (attrs, shapes) in NAMED.items():
        found = made(name.split()[0], attrs, shapes, dtype=dtypes.float16, epilogue=True)
        rendered += [found.before, found.after]
    names = {one: [f"k{n}_{s}" for s in range(len(one.stages))] for n, one in enumerate(rendered)}
    functions = nvrtc.compiled(assembled(nvrtc.CUDA.prelude(True), names)).functions
    assert functions and not any(function.spilled for function in functions.values())
