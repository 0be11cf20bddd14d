"""What cuBLAS is asked for, interpreted by NumPy: matrices in any order, distances, batches, and how exact they are."""

import sys

import numpy as np
import pytest
from cuda_on_cpu import Memory as HostMemory
from cuda_on_cpu import multiply
from cupy_recorder import CUBLAS, CUBLASError
from generated import kernel_of, random_values
from nvrtc import H200
from test_cstyle_tiled import random_conv, random_matmul, row_major
from test_cuda_tensor import NAMED, last, transposed

import minigrad
from minigrad import Tensor, dtypes, jit
from minigrad import device as devices
from minigrad.backends.cstyle.templates.matrices import Matrix, Products, render_around
from minigrad.backends.cupy import blas
from minigrad.errors import ArgumentError, DeviceError

pytestmark = pytest.mark.usefixtures("highest")
FLOATS = (dtypes.float32, dtypes.bfloat16, dtypes.float16, dtypes.float64)
OPS = ("matmul", "conv", "conv_input_grad", "conv_weight_grad")


def reach(matrix, rows, columns, batch):
    """Elements from the first of the memory on."""
    steps = (matrix.batch * (batch - 1), matrix.row * (rows - 1), matrix.column * (columns - 1))
    return max(matrix.starts) + sum(steps) + 1


def check(rng, opened, products):
    """The call gives what the products mean."""
    m, n, k, batch = products.sizes
    sides = {"left": (m, k), "right": (k, n), "out": (m, n)}
    sizes = {}  # of the pieces of memory, some of which are the same for two matrices
    for name, (rows, columns) in sides.items():
        matrix = getattr(products, name)
        key = (matrix.buffer, matrix.piece)
        sizes[key] = max(sizes.get(key, 0), reach(matrix, rows, columns, batch))
    backend, host, there = opened.backend, {}, {}
    for key, size in sizes.items():
        nbytes = size * products.dtype.itemsize
        host[key], there[key] = HostMemory(nbytes), backend.allocate(nbytes)
        host[key].array[:] = random_values(rng, (size,), products.dtype).view(np.uint8)
        backend.copy_in(there[key], host[key].array)

    def split(memory):
        buffers = {key[0]: piece for key, piece in memory.items() if key[0] is not None}
        return buffers, {key[1]: piece for key, piece in memory.items() if key[0] is None}

    gemm = blas.Gemm(backend.library, products, "highest")
    assert gemm.fits
    with backend.session():
        gemm(*split(there))
    multiply(products, *split(host))
    for key, piece in host.items():
        found = np.zeros(piece.array.size, np.uint8)
        backend.copy_out(there[key], found)
        got, wanted = (a.view(products.dtype.numpy).astype(np.float64) for a in (found, piece.array))
        tolerance = {2: 2.0**-7, 4: 1e-4, 8: 1e-12}[products.dtype.itemsize]  # sums may be added in another order
        np.testing.assert_allclose(got, wanted, tolerance, 8 * tolerance)


@pytest.mark.parametrize("op", OPS)
def test_random_contractions(opened, op):
    rng, found = np.random.default_rng(sum(map(ord, op))), 0
    for n in range(24):
        attrs, shapes = random_matmul(rng) if op == "matmul" else random_conv(rng, op)
        around = render_around(kernel_of(rng, op, attrs, shapes, FLOATS[n % 4], epilogue=n % 2 == 0), H200)
        if around is not None:
            check(rng, opened, around.products)
            found += 1
    assert found > 12


def test_orders_of_axes(opened):
    rng = np.random.default_rng(0)
    for name, (attrs, shapes) in NAMED.items():
        op = name.split()[0]
        for views in [row_major, last] if op != "matmul" else [row_major, transposed]:
            kernel = kernel_of(rng, op, attrs, shapes, dtypes.float32, views, epilogue=False)
            check(rng, opened, render_around(kernel, H200).products)


@pytest.mark.parametrize("sizes", [(1, 5, 4), (5, 1, 4), (5, 4, 1), (1, 1, 4), (1, 4, 1), (4, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_matrices_of_one_row_or_column(opened, sizes, batch):
    """Every way in which such a matrix may lie: of the steps along axes of one element nothing follows."""
    rng, (m, n, k) = np.random.default_rng(0), sizes

    def ways(rows, columns):
        yield columns, 1, rows * columns
        yield 1, rows, rows * columns
        yield columns + 3, 1, rows * (columns + 3)
        yield 1, rows + 2, columns * (rows + 2)
        if rows == 1:
            yield 0, 4, columns * 4
        if columns == 1:
            yield 5, 0, rows * 5

    for number, left in enumerate(ways(m, k)):
        for right in ways(k, n):
            for out in list(ways(m, n))[number % 2 :: 2]:
                matrices = [Matrix(b, None, row, column, step, (7,)) for b, (row, column, step) in
                            enumerate((left, right, out))]  # fmt: skip
                check(rng, opened, Products(dtypes.float32, (m, n, k, batch), *matrices))


CASES = {
    "matrices": ((5, 7), (7, 3)),
    "vectors": ((7,), (7,)),
    "a matrix and a vector": ((5, 7), (7,)),
    "batches": ((4, 5, 7), (4, 7, 3)),
    "a shared matrix": ((4, 5, 7), (7, 3)),
    "two axes of batches": ((2, 4, 5, 7), (2, 4, 7, 3)),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_tensors(opened, recorder, dtype):
    rng = np.random.default_rng(0)
    for name, shapes in CASES.items():
        a, b = (rng.standard_normal(shape).astype(dtype.numpy) for shape in shapes)
        recorder.names()
        found = (Tensor(a, device=opened.name) @ Tensor(b, device=opened.name)).numpy()
        calls = recorder.names("gemmEx", "gemmStridedBatchedEx", "launch")
        assert len(calls) == 1 and calls[0] != "launch", name
        wanted = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_allclose(found.astype(np.float64), wanted, {2: 2.0**-6, 4: 1e-5, 8: 1e-12}[dtype.itemsize],
                                   2.0**-6 if dtype.is_half else 1e-6, err_msg=name)  # fmt: skip


def test_transposed_tensors_are_not_copied(opened, recorder):
    a, b = np.random.default_rng(0).standard_normal((2, 6, 6)).astype(np.float32)
    for left, right in ((a.T, b), (a, b.T), (a.T, b.T)):
        x = Tensor(left.T, device=opened.name).T if left.base is not None else Tensor(left, device=opened.name)
        y = Tensor(right.T, device=opened.name).T if right.base is not None else Tensor(right, device=opened.name)
        recorder.names()
        found = (x @ y).numpy()
        assert recorder.names("gemmEx", "launch") == ["gemmEx"]
        np.testing.assert_allclose(found, left @ right, 1e-5, 1e-5)


def how(recorder):
    """How products were computed."""
    calls, recorder.calls = recorder.calls, []
    return [call[-1] for call in calls if call[0].startswith("gemm")]


def test_precision(opened, recorder):
    values = {dtype: Tensor.ones(4, 4, dtype=dtype, device=opened.name).realize() for dtype in FLOATS}
    for precision, code in (("highest", 68), ("high", 77), ("medium", 75)):
        minigrad.set_float32_matmul_precision(precision)
        for dtype, of in ((dtypes.float32, code), (dtypes.float16, 68), (dtypes.bfloat16, 68), (dtypes.float64, 70)):
            (values[dtype] @ values[dtype]).realize()
            assert how(recorder) == [of], (precision, dtype)


def test_sums_of_half_types_are_in_float32(opened, recorder):
    x = Tensor.ones(4, 4, dtype="float16", device=opened.name)
    (x @ x).realize(), (x @ (x + 1)).realize()
    assert [call for call in recorder.calls if "ath" in call[0] or "cublas" in call[0]] == [
        ("cublas create",), ("setMathMode", 7, 16)
    ]  # fmt: skip


def test_a_captured_step_depends_on_the_precision(opened, recorder):
    with devices.backend(opened.name):
        step = jit(lambda x: x @ x)
        x = Tensor(np.ones((4, 4), np.float32))
        for precision, code in (("highest", 68), ("high", 77), ("highest", 68)):
            minigrad.set_float32_matmul_precision(precision)
            for _ in range(2):
                step(x).realize()
            assert set(how(recorder)) == {code}


def test_precision_is_harmless_elsewhere():
    x = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)
    found = []
    for precision in ("highest", "medium"):
        minigrad.set_float32_matmul_precision(precision)
        assert minigrad.get_float32_matmul_precision() == precision
        found.append((Tensor(x, device="numpy") @ Tensor(x, device="numpy")).numpy())
    np.testing.assert_array_equal(*found)


def test_other_precisions_are_refused():
    with pytest.raises(ArgumentError, match="'highest' or 'high' or 'medium', got 'low'"):
        minigrad.set_float32_matmul_precision("low")


def test_integers_and_empty_matrices_are_not_for_it(opened, recorder):
    for x in (Tensor.ones(4, 4, dtype="int32", device=opened.name), Tensor.ones(4, 0, device=opened.name)):
        (x @ x.T).realize()
    assert how(recorder) == []


def test_without_it_templates_multiply(recorder, monkeypatch):
    monkeypatch.setitem(sys.modules, CUBLAS, None)  # as where the library is not installed
    opened = recorder.opened(monkeypatch)
    x = Tensor.ones(64, 64, device=opened.name)
    (x @ x).realize()
    assert "launch" in recorder.names() and how(recorder) == []
    assert opened.backend.fingerprint()["kernels"].startswith("without cuBLAS")


def test_what_it_says_is_passed_on(opened, recorder):
    x = Tensor.ones(4, 4, device=opened.name)
    recorder.errors["gemmEx"] = CUBLASError("CUBLAS_STATUS_EXECUTION_FAILED")
    with pytest.raises(DeviceError, match="cuBLAS to run, got CUBLAS_STATUS_EXECUTION_FAILED"):
        (x @ x).realize()
