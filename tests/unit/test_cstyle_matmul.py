"""Matrix products in generated C for CPUs, run by PoCL: every way to lay tiles, against the oracle."""

import random

import numpy as np
import pytest
from generated import CPU, build, launch, places

from minigrad import dtypes, reference
from minigrad.backends.cstyle.dialect import OPENCL
from minigrad.backends.cstyle.target import Target
from minigrad.backends.cstyle.templates.matmul import Tile, preferred, render_matmul, tiles
from minigrad.kernel import Instr, Kernel, Operand, verify
from minigrad.primitive import TABLE
from minigrad.view import Block, View

cl = pytest.importorskip("pyopencl")
NUMERIC = [d for d in dtypes.ALL if d is not dtypes.bool_]
UNTOUCHED = 77  # every byte of an output's memory before


# Kernels and memory ---------------------------------------------------------------------------------------------------


def kernel_of(op, attrs, sources, outputs, epilogue=None, extra=()):
    """A kernel over plain sources; sources, outputs and what the epilogue loads are pairs (dtype, view)."""
    operands = [Operand(n, *pair) for n, pair in enumerate((*sources, *extra, *outputs))]
    inputs, stored = operands[: -len(outputs)], operands[-len(outputs) :]
    loads = tuple(Instr("load", (), n, dtype) for n, (dtype, _) in enumerate(sources))
    epilogue = epilogue or tuple(Instr("core", (), n, dtype) for n, (dtype, _) in enumerate(outputs))
    first = len(epilogue) - len(outputs)
    shapes = tuple(view.shape for _, view in outputs)
    made = Kernel(
        op, TABLE[op].attrs(*attrs), loads, tuple(range(len(sources))), tuple(view.shape for _, view in sources),
        shapes * TABLE[op].outputs if len(shapes) < TABLE[op].outputs else shapes, shapes[0], tuple(epilogue),
        tuple((first + n, n) for n in range(len(outputs))), tuple(inputs), tuple(stored), len(operands),
    )  # fmt: skip
    verify(made)
    return made


def run(queue, kernels, rendered, arrays, target=CPU):
    """All kernels as one program; for each the arrays of its outputs. Memory beside these stays as it is."""
    built = build(queue, rendered, target)

    def buffer(array):
        return cl.Buffer(queue.context, cl.mem_flags.COPY_HOST_PTR, hostbuf=array)

    results = []
    for n, (kernel, one, given) in enumerate(zip(kernels, rendered, arrays)):
        memory = []
        for operand, array in zip(kernel.inputs, given):
            flat = np.zeros(max(operand.view.span[1], 1), operand.dtype.numpy)
            flat[places(operand.view)] = array
            memory.append(buffer(flat))
        ends = [max(operand.view.span[1], 1) + 3 for operand in kernel.outputs]
        flats = [np.full(e * o.dtype.itemsize, UNTOUCHED, np.uint8) for e, o in zip(ends, kernel.outputs)]
        memory += [buffer(flat) for flat in flats]
        launch(queue, built, n, one, memory)
        found = []
        for flat, operand, piece in zip(flats, kernel.outputs, memory[len(kernel.inputs) :]):
            cl.enqueue_copy(queue, flat, piece)
            typed, mine = flat.view(operand.dtype.numpy), places(operand.view)
            found.append(typed[mine].copy())
            typed[mine] = np.full(1, UNTOUCHED, np.uint8).repeat(operand.dtype.itemsize).view(typed.dtype)
            assert (flat == UNTOUCHED).all(), kernel
        results.append(found)
    return results


def any_view(rng, shape, distinct=False):
    """Axes in any order, some blocked, some backwards or with gaps; without ``distinct`` some of stride 0."""
    order = tuple(rng.sample(range(len(shape)), len(shape)))
    blocked = [
        (axis, size) for axis in range(len(shape)) for size in (4, 8, 16) if shape[axis] % size == 0 < shape[axis]
    ]
    choice = rng.random()
    if blocked and choice < 0.4:
        return View.of(shape, (*range(len(shape)), Block(*rng.choice(blocked))))
    if choice < 0.5 and not distinct:
        axis = rng.randrange(len(shape))
        return View.of(tuple(1 if a == axis else n for a, n in enumerate(shape))).moved("expand", (shape,))
    if choice < 0.7:
        steps = tuple(rng.choice([1, 1, 2, -1]) for _ in shape)
        whole = View.of(tuple(n * abs(s) for n, s in zip(shape, steps)), order)
        return whole.moved("slice", (tuple((n - 1) * -s if s < 0 else 0 for n, s in zip(shape, steps)), shape, steps))
    return View.of(shape, order if rng.random() < 0.5 else ())


def small(rng, dtype, view):
    """Small integers: sums of their products are exact in every dtype. Equal along axes of stride 0."""
    values = np.array([rng.randint(-3 if dtype.is_signed else 0, 3) for _ in range(np.prod(view.shape, dtype=int))])
    values = values.reshape(view.shape)
    for axis, stride in enumerate(view.strides):
        if stride == 0 and view.shape[axis]:
            values = np.broadcast_to(values.take([0], axis), view.shape)
    return values.astype(dtype.numpy)


def product(rng, m, n, k, dtype=dtypes.float32, batch=((), ()), views=None, epilogue=False):
    """A matmul with any views, or three given ones, and what it reads; the epilogue adds something."""
    a, b = (*batch[0], m, k), (*batch[1], k, n)
    out = (*np.broadcast_shapes(*batch), m, n)
    va, vb, vo = views or (any_view(rng, a), any_view(rng, b), any_view(rng, out, True))
    extra, lines = [], None
    if epilogue:
        extra = [(dtype, View(out, tuple(rng.choice([0, 1]) for _ in out)))]
        lines = (Instr("core", (), 0, dtype), Instr("load", (), 2, dtype), Instr("add", (0, 1), None, dtype))
    kernel = kernel_of("matmul", (), [(dtype, va), (dtype, vb)], [(dtype, vo)], lines, extra)
    arrays = [small(rng, dtype, operand.view) for operand in kernel.inputs]
    if epilogue:  # what lies at one place is one number
        arrays[2] = np.full_like(arrays[2], 2)
    return kernel, arrays


def check(queue, cases, target=CPU):
    """Cases are pairs (kernel, arrays), or triples with a tile."""
    rendered = [render_matmul(kernel, target, *tile) for kernel, _, *tile in cases]
    results = run(queue, [c[0] for c in cases], rendered, [c[1] for c in cases], target)
    for (kernel, arrays, *tile), (got,) in zip(cases, results):
        with np.errstate(all="ignore"):
            wide = [a.astype(np.float64) if dtypes.as_dtype(a.dtype).is_float else a for a in arrays]
            expected = reference.matmul(*wide[:2]) + (wide[2] if len(wide) > 2 else 0)
        np.testing.assert_array_equal(
            got.astype(expected.dtype), expected.astype(got.dtype).astype(expected.dtype), err_msg=f"{tile}\n{kernel}"
        )


# Tests ----------------------------------------------------------------------------------------------------------------


SIZES = [1, 1, 2, 3, 5, 8, 8, 13, 16, 16, 24, 31, 40]


def test_the_choice_for_anything(queue):
    rng = random.Random(0)
    cases = []
    for number in range(26):
        batch = rng.choice([((), ()), ((), ()), ((2,), (2,)), ((3, 1), (2,)), ((), (3,)), ((1,), (1,))])
        sizes = [rng.choice(SIZES) for _ in range(3)]
        cases.append(product(rng, *sizes, rng.choice([dtypes.float32, *NUMERIC]), batch, epilogue=number % 2 == 0))
    check(queue, cases)


def test_any_tile(queue):
    rng = random.Random(1)
    cases = []
    for _ in range(10):
        kernel, arrays = product(rng, *(rng.choice(SIZES[3:]) for _ in range(3)))
        found = tiles(kernel, CPU)
        cases += [(kernel, arrays, tile) for tile in rng.sample(found, min(3, len(found)))]
    check(queue, cases)


def row_major(m, n, k):
    return View.of((m, k)), View.of((k, n)), View.of((m, n))


def test_named_tiles(queue):
    rng = random.Random(2)
    views = row_major(21, 37, 50)
    turned = (View.of((21, 50)), View.of((50, 37), (1, 0)), views[2])
    stored = (*turned[:2], View.of((21, 37), (1, 0)))
    cases = [(*product(rng, 21, 37, 50, views=views), tile) for tile in (
        Tile("n", 6, 2), Tile("n", 4, 3, (False, True)), Tile("n", 6, 2, (True, True)), Tile("m", 12, 1, (True, True)),
        Tile("n", 5, 1, splits=3), Tile("n", 6, 2, (True, True), 2),
    )]  # fmt: skip
    for where in (turned, stored):
        cases += [(*product(rng, 21, 37, 50, views=where), tile) for tile in (
            Tile("k", 3, 1), Tile("k", 1, 3), Tile("k", 2, 1, splits=2),
        )]  # fmt: skip
    check(queue, cases)


@pytest.mark.parametrize("dtype", [dtypes.int8, dtypes.uint16, dtypes.int32, dtypes.int64, dtypes.float64], ids=str)
def test_sums_wrap_or_have_the_digits_of_their_dtype(queue, dtype):
    rng = np.random.default_rng(3)
    shapes = row_major(5, 9, 20)
    if dtype.is_float:
        arrays = [rng.standard_normal(view.shape) for view in shapes[:2]]
    else:
        arrays = [rng.integers(dtype.min, dtype.max, view.shape, dtype.numpy) for view in shapes[:2]]
    kernel = kernel_of("matmul", (), [(dtype, view) for view in shapes[:2]], [(dtype, shapes[2])])
    ((got,),) = run(queue, [kernel], [render_matmul(kernel, CPU)], [arrays])
    expected = np.matmul(*arrays)
    if dtype.is_float:
        np.testing.assert_allclose(got, expected, 1e-13, 1e-13)
    else:
        np.testing.assert_array_equal(got, expected)


def test_half_types_are_summed_in_float32(queue):
    for dtype in (dtypes.float16, dtypes.bfloat16):
        views = row_major(3, 9, 4096)
        kernel = kernel_of("matmul", (), [(dtype, view) for view in views[:2]], [(dtype, views[2])])
        arrays = [np.ones(view.shape, dtype.numpy) for view in views[:2]]
        ((got,),) = run(queue, [kernel], [render_matmul(kernel, CPU)], [arrays])
        np.testing.assert_array_equal(got.astype(np.float32), 4096)


def test_long_sums_of_few_outputs_are_split(queue):
    rng = random.Random(4)
    cases = [product(rng, *sizes, views=row_major(*sizes)) for sizes in ((1, 1, 300000), (16, 16, 70000))]
    assert all(tiles(kernel, CPU)[0].splits > 1 for kernel, _ in cases)
    check(queue, cases)


def test_no_terms_and_no_outputs(queue):
    rng = random.Random(5)
    kernel, arrays = product(rng, 4, 9, 0, epilogue=True)
    check(queue, [(kernel, arrays), product(rng, 3, 20, 0)])
    assert render_matmul(product(rng, 0, 3, 5)[0], CPU).stages == ()


def test_one_lane_and_the_portable_dialect(queue):
    rng = random.Random(6)
    one = Target(OPENCL, False, 1, 16, 2, 32768, frozenset(dtypes.ALL))
    check(queue, [product(rng, 5, 9, 12), product(rng, 16, 8, 3, dtypes.float16)], one)
    wide = Target(OPENCL, False, 16, 32, 2, 32768, frozenset(dtypes.ALL))
    turned = (View.of((20, 70)), View.of((70, 35), (1, 0)), View.of((20, 35)))
    kernel, arrays = product(rng, 20, 35, 70, views=turned)
    check(queue, [(kernel, arrays, Tile("k", 2, 1)), (kernel, arrays, Tile("n", 14, 2, (True, True)))], wide)


def test_large_products_are_packed_and_dense_layers_are_not():
    rng = random.Random(7)

    def best(m, n, k, a=(), b=(), out=()):
        views = View.of((m, k), a), View.of((k, n), b), View.of((m, n), out)
        return tiles(
            kernel_of("matmul", (), [(dtypes.float32, v) for v in views[:2]], [(dtypes.float32, views[2])]), CPU
        )[0]

    assert best(2048, 2048, 2048).packed == (True, True)
    assert best(1, 1000, 4096, b=(1, 0)).lanes == "k"
    rows = (0, 1, Block(0, 8))
    assert best(128, 120, 400, rows, (1, 0), rows)[:4] == ("m", 6, 2, (False, False))
    kernel, _ = product(rng, 9, 9, 9)
    assert len(tiles(kernel, CPU)) == len(set(tiles(kernel, CPU)))


def test_orders():
    rows = View.of((64, 40), (0, 1, Block(0, 8)))
    shapes = [(64, 12), (64, 40), (40, 12)]
    assert preferred(None, shapes, [rows, View.of((40, 12))], CPU) == [(0, 1, Block(0, 8)), None, None]
    last = View.of((60, 40), (1, 0))
    assert preferred(None, [(60, 12), (60, 40), (40, 12)], [last, View.of((40, 12), (1, 0))], CPU) == [
        (1, 0),
        None,
        None,
    ]
    assert preferred(None, shapes, [View.of((64, 40)), View.of((40, 12), (1, 0))], CPU) is None
    assert preferred(None, shapes, [None, None], CPU) is None
