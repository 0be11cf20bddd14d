"""The array functions under the NumPy backend against the oracle: layouts, dtypes, windows, ties, NaN, threads."""

import math
import os
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minigrad import reference
from minigrad.backends.numpy import columns, conv, indexing, matmul, pool, threads
from minigrad.shapes import Window

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(d) for d in ("float32", "float64", "float16")] + [BFLOAT16]
NUMBERS = [*FLOATS, *map(np.dtype, ("int32", "int64", "uint8"))]


@pytest.fixture(autouse=True)
def all_threads_again():
    yield
    threads.set_thread_count(None)


@pytest.fixture
def small_blocks(monkeypatch):
    """Even small arrays are cut into several blocks and are worth a second thread."""
    limits = {
        columns: {"BLOCK_BYTES": 4096, "BLOCK_COLUMNS": 8},
        conv: {"BLOCK_BYTES": 4096, "SLAB_BYTES": 2048, "SERIAL": 1, "SLIDING": 0, "FEW": 4},
        indexing: {"CHUNK": 8},
        matmul: {"BLOCK_BYTES": 512, "SERIAL_FLOPS": 1},
        pool: {"BLOCK_BYTES": 512, "SERIAL_BYTES": 1},
    }
    for module, values in limits.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


in_small_blocks = pytest.mark.usefixtures("small_blocks")

# Inputs --------------------------------------------------------------------------------------------------------------

seeds = st.integers(0, 2**16).map(np.random.default_rng)
thread_counts = st.sampled_from([1, 2, 3])


def integers(rng, shape, dtype):
    """Small whole numbers: sums are exact in every order, so results are compared with ==."""
    return rng.integers(0 if np.dtype(dtype).kind == "u" else -3, 4, shape).astype(dtype)


def laid(a, draw):
    """``a`` in another memory layout: batch-last, any order of axes, some axes backwards or spread out."""
    if a.ndim == 0:
        return a.copy()
    order = draw(st.sampled_from(["rows", "batch last", "any"]))
    axes = {"rows": range(a.ndim), "batch last": [*range(1, a.ndim), 0]}.get(order)
    axes = list(axes) if axes is not None else draw(st.permutations(range(a.ndim)))
    steps = [draw(st.sampled_from([1, 1, 1, -1, 2])) if order == "any" else 1 for _ in axes]
    base = np.full([a.shape[x] * abs(s) for x, s in zip(axes, steps)], 77, a.dtype)
    view = base[tuple(slice(None, None, s) for s in steps)].transpose(np.argsort(axes))
    view[...] = a
    return view


def space(shape, dtype, draw):
    """An array to write into, in some layout."""
    return laid(np.full(shape, 99, dtype), draw)


def widened(a):
    return a.astype(np.float64) if a.dtype.kind not in "iub" else a


def same(got, expected):
    """Equal to the exact ``expected``, rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.asarray(expected).astype(got.dtype)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(widened(got), widened(expected))


class Covering:
    """An epilogue that checks that blocks cover the output once, and that they are handed over finished."""

    def __init__(self, out):
        self.out, self.seen, self.blocks = out, np.zeros(out.shape, int), []

    def __call__(self, block, index):
        assert block.shape == self.seen[index].shape
        assert np.may_share_memory(block, self.out)
        self.seen[index] += 1
        self.blocks.append((index, block.copy()))

    def check(self):
        assert (self.seen == 1).all()
        for index, block in self.blocks:
            np.testing.assert_array_equal(widened(block), widened(self.out[index]))


@st.composite
def windows(draw, pooling):
    """A window and spatial sizes that it fits."""
    rank = draw(st.sampled_from([2, 1, 3]))
    fields, spatial = [], []
    for _ in range(rank):
        kernel = draw(st.integers(1, 4 if rank < 3 else 2))
        dilation, stride = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        extent = dilation * (kernel - 1) + 1
        padding = draw(st.tuples(st.integers(0, extent), st.integers(0, extent)))
        size = draw(st.integers(0, 9 if rank < 3 else 5))
        fields.append((kernel, stride, padding, dilation))
        spatial.append(max(size, extent - sum(padding)))
    return Window(*zip(*fields), pooling and draw(st.booleans())), tuple(spatial)


# Convolution ---------------------------------------------------------------------------------------------------------


@st.composite
def convolutions(draw):
    """x, w and g of one convolution, small whole numbers in drawn layouts, and its attributes."""
    window, spatial = draw(windows(pooling=False))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = (groups * draw(st.integers(1, 3)) for _ in range(2))
    batch = draw(st.sampled_from([2, 1, 5, 16, 0]))
    dtype, rng = draw(st.sampled_from(NUMBERS)), draw(seeds)
    outputs = window.output_size("conv", spatial)
    shapes = (batch, channels, *spatial), (filters, channels // groups, *window.kernel), (batch, filters, *outputs)
    return *(laid(integers(rng, s, dtype), draw) for s in shapes), window, groups


CONVOLUTIONS = {
    "conv": lambda x, w, g, window, groups: (
        (x, w), g.shape, reference.conv(widened(x), widened(w), window=window, groups=groups)
    ),
    "conv_input_grad": lambda x, w, g, window, groups: (
        (g, w), x.shape,
        reference.conv_input_grad(widened(g), widened(w), window=window, groups=groups, spatial=x.shape[2:]),
    ),
    "conv_weight_grad": lambda x, w, g, window, groups: (
        (x, g), w.shape, reference.conv_weight_grad(widened(x), widened(g), window=window, groups=groups)
    ),
}  # fmt: skip


@in_small_blocks
@pytest.mark.parametrize("name", CONVOLUTIONS)
@given(case=convolutions(), count=thread_counts, data=st.data())
def test_convolution(name, case, count, data):
    threads.set_thread_count(count)
    sources, shape, expected = CONVOLUTIONS[name](*case)
    out = space(shape, sources[0].dtype, data.draw)
    epilogue = Covering(out)
    before = [a.copy() for a in sources]
    getattr(conv, name)(*sources, out, *case[3:], epilogue)
    same(out, expected)
    epilogue.check()
    for a, b in zip(sources, before):
        np.testing.assert_array_equal(widened(a), widened(b))


# Shapes that take each of the special ways: a kernel over the whole input, 1x1, whole padded rows, many blocks.
LARGE = [
    ((4, 3, 5, 5), (6, 3, 5, 5), Window((5, 5), (1, 1), ((0, 0), (0, 0)), (1, 1))),
    ((4, 3, 9, 7), (6, 3, 1, 1), Window((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))),
    ((3, 4, 17, 13), (5, 4, 3, 3), Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    ((2, 8, 12, 12), (300, 8, 3, 3), Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))),
    ((16, 6, 14, 14), (16, 6, 5, 5), Window((5, 5), (1, 1), ((2, 2), (0, 0)), (1, 1))),
    ((2, 3, 11, 11), (4, 3, 7, 7), Window((7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1))),
]


def bound(terms, sizes, dtype):
    """The error that sums of ``terms`` products may have, whose absolute values add up to ``sizes``."""
    wide = np.float32 if np.dtype(dtype).itemsize == 2 else dtype
    unit = np.finfo(wide).eps / 2
    rounding = 2 * float(ml_dtypes.finfo(dtype).eps) * sizes if np.dtype(dtype).itemsize == 2 else 0
    return unit * sizes * (4 + math.sqrt(terms)) + rounding


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("batch_last", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("x", "w", "window"), LARGE, ids=str)
def test_convolution_of_normal_numbers_is_within_bounds(name, batch_last, dtype, x, w, window):
    rng = np.random.default_rng(0)
    g = (x[0], w[0], *window.output_size("conv", x[2:]))
    order = np.roll(range(len(x)), -1 if batch_last else 0)
    x, g = (rng.standard_normal(np.take(s, order)).astype(dtype).transpose(np.argsort(order)) for s in (x, g))
    w = rng.standard_normal(w).astype(dtype)
    sources, shape, expected = CONVOLUTIONS[name](x, w, g, window, 1)
    sizes = CONVOLUTIONS[name](*map(np.abs, (x, w, g)), window, 1)[2]
    order = order if len(shape) == x.ndim and name != "conv_weight_grad" else range(len(shape))
    out = np.empty(np.take(shape, order), dtype).transpose(np.argsort(order))
    getattr(conv, name)(*sources, out, window, 1)
    assert (np.abs(widened(out) - expected) <= bound(g.size * w.size / out.size, sizes, dtype)).all()


@in_small_blocks
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("batch_last", [False, True])
@given(rng=seeds)
def test_convolution_confines_nan_and_infinity(name, batch_last, rng):
    """Where they go is decided by the definition, not by how rows are laid out."""
    window = Window((3, 3), (1, 1), ((1, 0), (0, 1)), (1, 1))
    shapes = (2, 2, 5, 6), (3, 2, 3, 3), (2, 3, 4, 5)
    x, w, g = (integers(rng, s, "float32") for s in shapes)
    for a in (x, w, g)[:: rng.choice([1, -1])][: rng.integers(1, 3)]:
        a.flat[rng.integers(a.size)] = rng.choice([np.nan, np.inf])
    if batch_last:
        x, g = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0) for a in (x, g))
    sources, shape, expected = CONVOLUTIONS[name](x, w, g, window, 1)
    out = np.empty(shape, "float32")
    with np.errstate(invalid="ignore"):
        getattr(conv, name)(*sources, out, window, 1)
    same(out, expected)


@in_small_blocks
@pytest.mark.parametrize("batch_last", [False, True])
def test_weight_gradient_has_the_same_bits_again(batch_last):
    window, rng = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), np.random.default_rng(0)
    x, g = (rng.standard_normal((16, c, 9, 9)).astype("float32") for c in (1, 5))
    if batch_last:
        x, g = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0) for a in (x, g))
    for count in (1, 2, 3):
        threads.set_thread_count(count)
        results = [np.empty((5, 1, 3, 3), "float32") for _ in range(5)]
        for out in results:
            conv.conv_weight_grad(x, g, out, window, 1)
            np.testing.assert_array_equal(out, results[0])


# Matrix products -----------------------------------------------------------------------------------------------------


@in_small_blocks
@given(
    sizes=st.tuples(*[st.sampled_from([3, 1, 0, 7, 64])] * 3),
    batches=st.sampled_from([((), ()), ((3,), ()), ((), (3,)), ((2, 1), (1, 3)), ((5,), (5,)), ((0,), (1,))]),
    dtype=st.sampled_from(NUMBERS),
    rng=seeds,
    count=thread_counts,
    data=st.data(),
)
def test_matmul(sizes, batches, dtype, rng, count, data):
    threads.set_thread_count(count)
    m, k, n = sizes
    a = laid(integers(rng, (*batches[0], m, k), dtype), data.draw)
    b = laid(integers(rng, (*batches[1], k, n), dtype), data.draw)
    expected = reference.matmul(widened(a), widened(b))
    out = space(expected.shape, dtype, data.draw)
    epilogue = Covering(out)
    matmul.matmul(a, b, out, epilogue)
    same(out, expected)
    epilogue.check()


# Thin products go to BLAS in pieces: panels of columns, panels of rows, and tiles summed over panels of the inner axis.
THIN = [(6, 25, 9000), (9000, 25, 6), (16, 150, 1300), (16, 2503, 150), (150, 2503, 16), (17, 4001, 61), (61, 4100, 5)]


@pytest.mark.parametrize("sizes", THIN, ids=str)
@pytest.mark.parametrize("flipped", [0, 1, 2, 3, 4, 7])
def test_thin_products(sizes, flipped):
    m, k, n = sizes
    rng = np.random.default_rng(0)
    arrays = []
    for bit, shape in enumerate(((1, m, k), (k, n), (1, m, n))):
        a = integers(rng, shape, "float32")
        arrays.append(a.swapaxes(-1, -2).copy().swapaxes(-1, -2) if flipped >> bit & 1 else a)
    a, b, out = arrays
    matmul.gemm(a, b, out)
    same(out, a.astype(np.float64) @ b.astype(np.float64))


# Pools ---------------------------------------------------------------------------------------------------------------


@st.composite
def pools(draw, dtypes=NUMBERS, specials=True):
    """x in a drawn layout with many ties and sometimes NaN and infinities, and a window."""
    window, spatial = draw(windows(pooling=True))
    shape = (draw(st.sampled_from([2, 1, 16, 0])), draw(st.integers(1, 4)), *spatial)
    dtype, rng = draw(st.sampled_from(dtypes)), draw(seeds)
    x = integers(rng, shape, dtype)
    if specials and dtype.kind not in "iu" and draw(st.booleans()):
        x = np.where(rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf], shape), widened(x)).astype(dtype)
    return laid(x, draw), window, rng


@in_small_blocks
@given(case=pools(), count=thread_counts, wanted=st.booleans(), data=st.data())
def test_max_pool(case, count, wanted, data):
    threads.set_thread_count(count)
    x, window, _ = case
    values, taps = reference.max_pool(widened(x), window=window)
    top = space(values.shape, x.dtype, data.draw)
    number = space(values.shape, taps.dtype, data.draw) if wanted else None
    epilogue = Covering(top)
    pool.max_pool(x, top, number, window, epilogue)
    same(top, values)
    epilogue.check()
    if wanted:
        np.testing.assert_array_equal(number, taps)


def test_max_pool_counts_many_taps():
    x = np.random.default_rng(0).permutation(40 * 40).reshape(1, 1, 40, 40).astype("float32")
    window = Window((20, 20), (20, 20), ((0, 0), (0, 0)), (1, 1))
    values, taps = reference.max_pool(x.astype(np.float64), window=window)
    top, number = np.empty(values.shape, "float32"), np.empty(values.shape, "int32")
    pool.max_pool(x, top, number, window)
    same(top, values)
    np.testing.assert_array_equal(number, taps)


@in_small_blocks
@given(case=pools(), count=thread_counts, data=st.data())
def test_window_gather_and_scatter(case, count, data):
    threads.set_thread_count(count)
    x, window, rng = case
    taps = reference.max_pool(widened(x), window=window)[1]
    number = laid(taps, data.draw)
    out = space(taps.shape, x.dtype, data.draw)
    pool.window_gather(x, number, out, window)
    same(out, reference.window_gather(widened(x), taps, window=window))

    g = laid(integers(rng, taps.shape, x.dtype), data.draw)
    if g.dtype.kind not in "iu" and g.size:
        g.flat[0] = data.draw(st.sampled_from([1, np.nan, np.inf]))
    out = space(x.shape, x.dtype, data.draw)
    pool.window_scatter(g, number, out, window)
    same(out, reference.window_scatter(widened(g), taps, window=window, spatial=x.shape[2:]))


@in_small_blocks
@given(case=pools(FLOATS, specials=False), count=thread_counts, include=st.booleans(), data=st.data())
def test_average_pool(case, count, include, data):
    threads.set_thread_count(count)
    x, window, rng = case
    taps = math.prod(window.kernel)
    expected = reference.avg_pool(widened(x), window=window, count_include_pad=include)
    out = space(expected.shape, x.dtype, data.draw)
    epilogue = Covering(out)
    pool.avg_pool(x, out, window, include, epilogue)
    epilogue.check()
    sizes = reference.avg_pool(np.abs(widened(x)), window=window, count_include_pad=include)
    assert (np.abs(widened(out) - expected) <= bound(taps, sizes, x.dtype)).all()

    g = laid(integers(rng, expected.shape, x.dtype), data.draw)
    attributes = {"window": window, "count_include_pad": include, "spatial": x.shape[2:]}
    expected, sizes = (reference.avg_pool_grad(f(widened(g)), **attributes) for f in (np.positive, np.abs))
    out = space(x.shape, x.dtype, data.draw)
    pool.avg_pool_grad(g, out, window, include)
    assert (np.abs(widened(out) - expected) <= bound(taps, sizes, x.dtype)).all()


@pytest.mark.parametrize("batch_last", [False, True])
def test_global_average_pool(batch_last):
    x = integers(np.random.default_rng(0), (16, 8, 5, 4), "float32")
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0) if batch_last else x
    out = np.empty((16, 8, 1, 1), "float32")
    pool.avg_pool(x, out, Window((5, 4), (1, 1), ((0, 0), (0, 0)), (1, 1)), True)
    np.testing.assert_allclose(out, x.mean((2, 3), dtype=np.float64, keepdims=True), rtol=1e-6)


# Indexing, scans, sorting --------------------------------------------------------------------------------------------

shapes = st.lists(st.sampled_from([2, 3, 5, 1, 0, 17]), min_size=1, max_size=3).map(tuple)


@in_small_blocks
@given(
    rows=st.integers(1, 6),
    rest=st.sampled_from([(), (3,), (2, 3), (0,)]),
    index=st.sampled_from([(), (4,), (3, 2), (0,), (50,)]),
    dtype=st.sampled_from([*NUMBERS, np.dtype(bool)]),
    rng=seeds,
    count=thread_counts,
    data=st.data(),
)
def test_take_and_scatter(rows, rest, index, dtype, rng, count, data):
    threads.set_thread_count(count)
    x = laid(integers(rng, (rows, *rest), dtype), data.draw)
    idx = np.asarray(rng.integers(-2, rows + 2, index))
    out = space((*index, *rest), dtype, data.draw)
    indexing.take(x, idx, out)
    same(out, reference.take(widened(x), idx))

    idx = np.asarray(rng.integers(0, rows, index))
    src = laid(integers(rng, (*index, *rest), dtype), data.draw)
    for reduce in ("max",) if dtype.kind == "b" else ("sum", "max"):
        out = space((rows, *rest), dtype, data.draw)
        indexing.scatter(idx, src, out, reduce)
        same(out, reference.scatter(idx, widened(src), length=rows, reduce=reduce))


@in_small_blocks
@given(st.data(), shapes, st.sampled_from(NUMBERS), seeds, st.booleans(), thread_counts)
def test_cumsum(data, shape, dtype, rng, reverse, count):
    threads.set_thread_count(count)
    axis = data.draw(st.integers(0, len(shape) - 1))
    x, out = laid(integers(rng, shape, dtype), data.draw), space(shape, dtype, data.draw)
    indexing.cumsum(x, out, axis, reverse)
    same(out, reference.cumsum(widened(x), axis=axis, reverse=reverse))


@in_small_blocks
@given(shape=shapes, dtype=st.sampled_from([*NUMBERS, np.dtype(bool)]), rng=seeds, count=thread_counts, data=st.data())
def test_sort_and_arg_reductions(shape, dtype, rng, count, data):
    threads.set_thread_count(count)
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = integers(rng, shape, dtype)
    if dtype.kind not in "iub" and data.draw(st.booleans()):
        x[rng.random(shape) < 0.3] = np.nan
    x = laid(x, data.draw)
    for descending in (False, True):
        values, indices = space(shape, dtype, data.draw), space(shape, np.int64, data.draw)
        indexing.sort(x, values, indices, axis, descending)
        expected = reference.sort(widened(x), axis=axis, descending=descending)
        same(values, expected[0])
        np.testing.assert_array_equal(indices, expected[1])
    assume(shape[axis])
    for which in ("argmax", "argmin"):
        out = space((*shape[:axis], 1, *shape[axis + 1 :]), np.int64, data.draw)
        indexing.arg_reduce(x, out, axis, which)
        np.testing.assert_array_equal(out, getattr(reference, which)(widened(x), axis=axis))


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 100])
def test_parallel_runs_every_task_once(count, tasks):
    threads.set_thread_count(count)
    assert threads.thread_count() == count
    for _ in range(20):
        ran = [0] * tasks
        threads.parallel(tasks, lambda i, ran=ran: ran.__setitem__(i, ran[i] + 1))
        assert ran == [1] * tasks


def test_parallel_uses_more_than_one_thread():
    threads.set_thread_count(2)
    meeting = threading.Barrier(2, timeout=10)
    threads.parallel(2, lambda i: meeting.wait())  # returns only if both tasks run at the same time


@pytest.mark.parametrize("count", [1, 3])
def test_parallel_passes_on_the_first_error_and_recovers(count):
    threads.set_thread_count(count)

    def fail(task):
        raise ValueError(f"task {task}")

    for _ in range(3):
        with pytest.raises(ValueError, match="task"):
            threads.parallel(8, fail)
    ran = []
    threads.parallel(8, ran.append)
    assert sorted(ran) == list(range(8))


def test_parallel_inside_parallel_runs_inline():
    threads.set_thread_count(2)
    ran = []

    def outer(i):
        here = threading.get_ident()
        threads.parallel(3, lambda j: ran.append((i, j, threading.get_ident() == here)))

    threads.parallel(2, outer)
    assert sorted(ran) == [(i, j, True) for i in range(2) for j in range(3)]


def test_parallel_from_several_threads_at_once():
    threads.set_thread_count(2)
    totals = [0] * 4

    def user(n):
        for _ in range(50):
            got = []
            threads.parallel(5, got.append)
            totals[n] += sum(got)

    users = [threading.Thread(target=user, args=(n,)) for n in range(4)]
    for u in users:
        u.start()
    for u in users:
        u.join()
    assert totals == [50 * 10] * 4


def test_workers_do_not_warn():
    threads.set_thread_count(2)
    with np.errstate(all="ignore"):
        threads.parallel(2, lambda i: np.divide(np.ones(3), 0.0))  # a warning is an error in these tests


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_pool_is_rebuilt_after_fork():
    threads.set_thread_count(2)
    threads.parallel(2, lambda i: None)
    child = os.fork()
    if child == 0:
        ran = []
        with threads.blas_single_thread():
            threads.parallel(6, ran.append)
        os._exit(0 if sorted(ran) == list(range(6)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_available_threads_heeds_limits(monkeypatch):
    for name in threads.LIMITS:
        monkeypatch.delenv(name, raising=False)
    cores = threads.available_threads()
    assert cores >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")
    assert threads.available_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    monkeypatch.setenv("MKL_NUM_THREADS", str(cores + 5))
    assert threads.available_threads() == cores


def test_blas_single_thread_nests_and_restores():
    with threads.blas_single_thread():
        libraries = threads._blas.libraries
        for library in libraries:
            assert library.get_num_threads() == 1
    for library in libraries:
        library.set_num_threads(2)
    with threads.blas_single_thread():
        with threads.blas_single_thread():
            pass
        assert all(library.get_num_threads() == 1 for library in libraries)
    assert all(library.get_num_threads() == 2 for library in libraries)


def test_scratch_is_aligned_reused_and_per_thread():
    a = threads.scratch("test", (3, 5), np.float32)
    assert a.shape == (3, 5) and a.dtype == np.float32 and a.flags.c_contiguous
    assert a.ctypes.data % threads.ALIGNMENT == 0
    assert np.shares_memory(a, threads.scratch("test", (5,), np.float64))
    assert not np.shares_memory(a, threads.scratch("test 2", (3, 5), np.float32))
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(threads.scratch("test", (3, 5), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(a, elsewhere[0])
    assert threads.scratch("test", (0, 5), np.float32).size == 0
