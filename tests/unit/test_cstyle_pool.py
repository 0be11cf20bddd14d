"""Pooling and its adjoints in generated C, run by PoCL: every kind of lanes and window, against the oracle."""

import math
import random

import numpy as np
import pytest
from generated import CPU
from test_cstyle_matmul import any_view, kernel_of, run

from minigrad import dtypes, reference
from minigrad.backends.cstyle.dialect import OPENCL
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.pool import render_pool
from minigrad.errors import ShapeError
from minigrad.kernel import Instr
from minigrad.ops.window import tap_dtype
from minigrad.shapes import Window
from minigrad.view import Block, View

OPS = ["max_pool", "window_gather", "window_scatter", "avg_pool", "avg_pool_grad"]
BLOCKS = {"n": lambda rank: (*range(rank), Block(0, 8)), "c": lambda rank: (*range(rank), Block(1, 8))}
ORDERS = BLOCKS | {
    "batch last": lambda rank: (*range(1, rank), 0),
    "channels last": lambda rank: (0, *range(2, rank), 1),
    "row-major": lambda rank: (),
}


def any_window(rng, spatial):
    """A window that fits: strides over and under its size, dilation, padding, both ways to round."""
    while True:
        kernel = tuple(rng.choice([1, 2, 2, 3, 3, 4, 7]) for _ in spatial)
        stride = kernel if rng.random() < 0.4 else tuple(rng.choice([1, 2, 2, 3]) for _ in spatial)
        dilation = tuple(rng.choice([1, 1, 1, 2]) for _ in spatial)
        most = [(d * (k - 1) + 1) // 2 for k, d in zip(kernel, dilation)]
        padding = tuple((rng.randint(0, m), rng.randint(0, m)) if rng.random() < 0.5 else (0, 0) for m in most)
        window = Window(kernel, stride, padding, dilation, rng.random() < 0.3)
        try:
            return window, window.output_size("pool", spatial)
        except ShapeError:
            pass


def values(rng, dtype, shape):
    """Few different numbers, so that windows have equal ones; some NaN and infinities where there are any."""
    state = np.random.default_rng(rng.randrange(1 << 30))
    if dtype is dtypes.bool_:
        return state.integers(0, 2, shape).astype(bool)
    found = state.integers(-4 if dtype.is_signed else 0, 5, shape).astype(dtype.numpy)
    if dtype.is_float and rng.random() < 0.5:
        found[state.random(shape) < 0.1] = np.nan
        found[state.random(shape) < 0.1] = -np.inf
    return found


def pool(rng, op, images, spatial, window, outputs, dtype=dtypes.float32, view=None, stored=None):
    """A kernel and what it reads. ``stored``: the one output of max_pool that is wanted."""
    x, out, taps = (*images, *spatial), (*images, *outputs), tap_dtype(window)
    padded = rng.random() < 0.5
    attrs, sources, results = {
        "max_pool": ((window,), [(dtype, x)], [(dtype, out), (taps, out)]),
        "window_gather": ((window,), [(dtype, x), (taps, out)], [(dtype, out)]),
        "window_scatter": ((window, spatial), [(dtype, out), (taps, out)], [(dtype, x)]),
        "avg_pool": ((window, padded), [(dtype, x)], [(dtype, out)]),
        "avg_pool_grad": ((window, padded, spatial), [(dtype, out)], [(dtype, x)]),
    }[op]
    view = view or (lambda shape, distinct: any_view(rng, shape, distinct))
    lines = None
    if stored is not None:
        results = [results[stored]]
        lines = (Instr("core", (), stored, results[0][0]),)
    kernel = kernel_of(
        op, attrs, [(d, view(s, False)) for d, s in sources], [(d, view(s, True)) for d, s in results], lines
    )
    arrays = []
    for d, s in sources:
        if d is taps and len(arrays) == 1:
            arrays.append(
                np.array([rng.randrange(math.prod(window.kernel)) for _ in range(math.prod(s))], d.numpy).reshape(s)
            )
        else:
            arrays.append(values(rng, d, s))
    for n, operand in enumerate(kernel.inputs):  # what lies at one place is one number
        for axis, stride in enumerate(operand.view.strides):
            if stride == 0:
                arrays[n] = np.broadcast_to(arrays[n].take([0], axis), operand.view.shape)
    return kernel, arrays, stored


def check(queue, cases, target=CPU):  # noqa: F811
    kernels = [kernel for kernel, _, _ in cases]
    rendered = [render_pool(kernel, target) for kernel in kernels]
    results = run(queue, kernels, rendered, [arrays for _, arrays, _ in cases], target)
    for (kernel, arrays, stored), found in zip(cases, results):
        wide = [a.astype(np.float64) if a.dtype.kind not in "biu" else a for a in arrays]
        with np.errstate(all="ignore"):
            expected = getattr(reference, kernel.op)(*wide, **kernel.attrs._asdict())
        expected = expected if isinstance(expected, tuple) else (expected,)
        if stored is not None:
            expected = (expected[stored],)
        for got, want, operand in zip(found, expected, kernel.outputs):
            near = kernel.op.startswith("avg")
            digits = 2.0**-6 if operand.dtype.is_half else 1e-6
            said = f"{kernel}\n{rendered[kernels.index(kernel)].stages[0].text}"
            if near:
                np.testing.assert_allclose(got.astype(np.float64), want, digits, digits, err_msg=said)
            else:
                np.testing.assert_array_equal(got.astype(want.dtype), want, err_msg=said)


@pytest.mark.parametrize("op", OPS)
def test_any_window_and_views(queue, op):  # noqa: F811
    rng = random.Random(OPS.index(op))
    some = [d for d in dtypes.ALL if d.is_float or not op.startswith("avg")]
    cases = []
    for rank in (1, 2, 2, 2, 2, 2, 3):
        spatial = tuple(rng.randint(1, [0, 20, 13, 6][rank]) for _ in range(rank))
        window, outputs = any_window(rng, spatial)
        images = rng.choice([1, 2, 3, 8, 17]), rng.choice([1, 3, 8, 16])
        cases.append(pool(rng, op, images, spatial, window, outputs, rng.choice([dtypes.float32, *some])))
    check(queue, cases)


WINDOWS = {
    "halves": Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1)),
    "overlapping": Window((3, 3), (2, 2), ((1, 1),) * 2, (1, 1)),
    "dense": Window((3, 3), (1, 1), ((1, 1),) * 2, (1, 1)),
    "global": Window((9, 11), (9, 11), ((0, 0),) * 2, (1, 1)),
}


@pytest.mark.parametrize("lanes", ORDERS)
def test_lanes_of_every_axis(queue, lanes):  # noqa: F811
    rng = random.Random(8)
    order = ORDERS[lanes](4)
    images = (16, 8) if lanes in BLOCKS else (11, 13)
    cases = []
    for n, window in enumerate(WINDOWS.values()):
        outputs = window.output_size("pool", (9, 11))
        for op in (OPS[0], OPS[2], OPS[3 + n % 2]):
            cases.append(pool(rng, op, images, (9, 11), window, outputs, view=lambda s, _: View.of(s, order)))
    check(queue, cases)


def test_one_of_two_outputs_and_many_taps(queue):  # noqa: F811
    rng = random.Random(9)
    cases = []
    for window in (WINDOWS["halves"], Window((17, 16), (1, 2), ((8, 8), (0, 8)), (1, 1))):
        outputs = window.output_size("pool", (20, 17))
        cases += [pool(rng, "max_pool", (2, 8), (20, 17), window, outputs, stored=n) for n in (0, 1)]
    assert cases[-1][0].outputs[0].dtype is dtypes.int32
    check(queue, cases)


def test_windows_over_padding_alone(queue):  # noqa: F811
    window = Window((2,), (1,), ((2, 2),), (3,))
    outputs = window.output_size("pool", (1,))
    cases = [pool(random.Random(10), op, (8, 3), (1,), window, outputs) for op in OPS]
    check(queue, cases)


def test_the_epilogue_reads_beside_what_it_stores(queue):  # noqa: F811
    window = WINDOWS["overlapping"]
    x, out = (2, 8, 9, 9), (2, 8, 5, 5)
    lines = (
        Instr("core", (), 0, dtypes.float32),
        Instr("load", (), 1, dtypes.float32),
        Instr("mul", (0, 1), None, dtypes.float32),
        Instr("relu", (2,), None, dtypes.float32),
    )
    order = (0, 1, 2, 3, Block(1, 8))
    scale = View(out, (0, 1, 0, 0))
    kernel = kernel_of(
        "max_pool",
        (window,),
        [(dtypes.float32, View.of(x, order))],
        [(dtypes.float32, View.of(out, order))],
        lines,
        [(dtypes.float32, scale)],
    )
    rng = np.random.default_rng(11)
    given = rng.standard_normal(x).astype(np.float32), rng.standard_normal(8).astype(np.float32)[None, :, None, None]
    ((got,),) = run(queue, [kernel], [render_pool(kernel, CPU)], [(given[0], np.broadcast_to(given[1], out))])
    np.testing.assert_array_equal(got, np.maximum(reference.max_pool(given[0], window)[0] * given[1], 0))


def test_items_of_gpus(queue):  # noqa: F811
    gpu = Target(OPENCL, True, 1, 64, 2, 32768, frozenset(dtypes.ALL))
    rng = random.Random(12)
    cases = []
    for op in OPS:
        window, outputs = any_window(rng, (9, 7))
        cases.append(pool(rng, op, (3, 8), (9, 7), window, outputs))
    check(queue, cases, gpu)
    assert all(stage.local == (128,) for kernel, _, _ in cases for stage in render_pool(kernel, gpu).stages)


def test_nothing_to_do():
    window = WINDOWS["halves"]
    kernel, _, _ = pool(random.Random(13), "max_pool", (0, 3), (4, 4), window, (2, 2))
    assert render_pool(kernel, CPU).stages == ()
