"""Matrix products by cuBLAS: how matrices are described to it."""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from minigrad import dtypes
from minigrad.backends.cstyle.templates.matrices import Matrix, Products
from minigrad.backends.cupy.memory import Memory
from minigrad.dtypes import DType

# Values of cuBLAS's enumerations.
KEEP, TRANSPOSE = 0, 1
TYPES = {dtypes.float32: 0, dtypes.float64: 1, dtypes.float16: 2, dtypes.bfloat16: 14}
FLOAT32, FLOAT64, FAST_BFLOAT16, FAST_TF32 = 68, 70, 75, 77  # how products are computed
PRECISIONS = {"highest": FLOAT32, "high": FAST_TF32, "medium": FAST_BFLOAT16}
ANY_ALGORITHM = -1
SUMS_IN_FLOAT32 = 16  # of half types, also where several blocks share a sum
LARGEST = 2**31 - 1  # size or distance

_ONE = {FLOAT64: ctypes.c_double(1)}
_ZERO = {FLOAT64: ctypes.c_double(0)}
_ONE |= dict.fromkeys((FLOAT32, FAST_BFLOAT16, FAST_TF32), ctypes.c_float(1))  # type: ignore[arg-type]
_ZERO |= dict.fromkeys((FLOAT32, FAST_BFLOAT16, FAST_TF32), ctypes.c_float(0))  # type: ignore[arg-type]


class Operand(NamedTuple):
    """A matrix in memory as cuBLAS has it, column after column.

    Attributes:
        transposed: whether what is meant is the transpose of what lies there: 1 or 0.
        distance: elements from one column to the next.
    """

    transposed: int
    distance: int


def operand(rows: int, columns: int, row: int, column: int) -> Operand:
    """The matrix of ``rows`` by ``columns`` whose neighbours lie ``row`` and ``column`` elements apart."""
    if (rows == 1 or row == 1) and (columns == 1 or column >= rows):
        return Operand(KEEP, max(column if columns > 1 else 1, rows))
    return Operand(TRANSPOSE, max(row if rows > 1 else 1, columns))


class Gemm:
    """All products of one contraction; calling it enqueues them.

    Attributes:
        products: what is multiplied.
        shape: rows, columns and terms as cuBLAS is told them: those of the transposed product where it is that of rows.
        first: what is its first factor; so are the others.
    """

    name = "cuBLAS"
    captures = False  # CuPy refuses to call cuBLAS while a stream records

    def __init__(self, library: Library, products: Products, precision: str) -> None:
        self._library, self.products = library, products
        is_double = products.dtype is dtypes.float64
        self._compute = FLOAT64 if is_double else PRECISIONS[precision] if products.dtype is dtypes.float32 else FLOAT32
        m, n, k, _ = products.sizes
        left, right, out = products.left, products.right, products.out
        if operand(m, n, out.row, out.column).transposed:  # out' = right' left'
            self.shape = n, m, k
            self.factors = right, left
            self.first = operand(n, k, right.column, right.row)
            self.second = operand(k, m, left.column, left.row)
            self.result = operand(n, m, out.column, out.row)
        else:
            self.shape = m, n, k
            self.factors = left, right
            self.first = operand(m, k, left.row, left.column)
            self.second = operand(k, n, right.row, right.column)
            self.result = operand(m, n, out.row, out.column)

    @property
    def fits(self) -> bool:
        """Whether all sizes are such as cuBLAS takes."""
        numbers = (*self.products.sizes, self.first.distance, self.second.distance, self.result.distance)
        return max(numbers) <= LARGEST

    def __call__(self, buffers: Sequence[Memory], scratch: Sequence[Memory]) -> None:
        """Enqueue on the current stream."""
        products, compute = self.products, self._compute
        kind, batch = TYPES[products.dtype], products.sizes[3]
        one, zero = ctypes.addressof(_ONE[compute]), ctypes.addressof(_ZERO[compute])
        matrices = (*self.factors, products.out)
        bases = [_base(matrix, buffers, scratch) for matrix in matrices]
        for starts in zip(*(matrix.starts for matrix in matrices)):
            a, b, c = (base + start * products.dtype.itemsize for base, start in zip(bases, starts))
            options = (self.first.transposed, self.second.transposed, *self.shape, one)
            if batch == 1:
                self._library.call(
                    "gemmEx", *options, a, kind, self.first.distance, b, kind, self.second.distance,
                    zero, c, kind, self.result.distance, compute, ANY_ALGORITHM,
                )  # fmt: skip
            else:
                self._library.call(
                    "gemmStridedBatchedEx", *options,
                    a, kind, self.first.distance, matrices[0].batch,
                    b, kind, self.second.distance, matrices[1].batch,
                    zero, c, kind, self.result.distance, matrices[2].batch,
                    batch, compute, ANY_ALGORITHM,
                )  # fmt: skip


def _base(matrix: Matrix, buffers: Sequence[Memory], scratch: Sequence[Memory]) -> int:
    memory = buffers[matrix.buffer] if matrix.buffer is not None else scratch[matrix.piece or 0]
    return int(memory.pointer.ptr)


class Library:
    """cuBLAS on the current device, opened when it is first called."""

    def __init__(self, module: Any) -> None:
        self._module, self._handle = module, 0
        self._lock = threading.Lock()

    @classmethod
    def found(cls) -> Library | None:
        """cuBLAS, where it is installed."""
        try:
            return cls(importlib.import_module("cupy_backends.cuda.libs.cublas"))
        except ImportError:
            return None

    @property
    def error(self) -> type[Exception]:
        """What it raises."""
        return self._module.CUBLASError  # type: ignore[no-any-return]

    def call(self, name: str, *arguments: int) -> None:
        """Call a function that enqueues on the current stream."""
        with self._lock:
            if not self._handle:
                self._handle = self._module.create()
                self._module.setMathMode(self._handle, SUMS_IN_FLOAT32)
            getattr(self._module, name)(self._handle, *arguments)


def supported(dtype: DType) -> bool:
    """Whether cuBLAS multiplies matrices of ``dtype``."""
    return dtype in TYPES
