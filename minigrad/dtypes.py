"""Data types and the one promotion table.

The table is PyTorch's: categories bool < integer < float; within a category the wider type wins; Python scalars and
0-d tensors are weak (they promote across categories only). Where PyTorch has no rule of its own (uint16 to uint64 with
signed integers) NumPy's applies. float16 with bfloat16 gives float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Union

import ml_dtypes
import numpy as np

from minigrad.errors import ArgumentTypeError

Scalar = bool | int | float


@dataclass(frozen=True, eq=False)
class DType:
    """One element type: compared by identity, printed by name.

    >>> float32.itemsize, float32.is_float, int8.is_signed
    (4, True, True)
    """

    name: str
    kind: str  # "b" bool, "i" signed, "u" unsigned, "f" floating
    itemsize: int
    numpy: np.dtype[Any]

    def __repr__(self) -> str:
        return f"minigrad.{self.name}"

    def __reduce__(self) -> str:
        return self.name  # pickles and deep copies stay the one object

    @property
    def is_float(self) -> bool:
        """Whether this is a floating type (only those have gradients)."""
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """Whether this is a signed or unsigned integer type (bool is not)."""
        return self.kind in "iu"

    @property
    def is_signed(self) -> bool:
        """Whether negative values exist."""
        return self.kind in "if"

    @property
    def is_half(self) -> bool:
        """Whether this is a 16-bit float, whose sums accumulate in float32."""
        return self.kind == "f" and self.itemsize == 2

    @property
    def category(self) -> int:
        """0 for bool, 1 for integers, 2 for floats."""
        return 0 if self.kind == "b" else 1 if self.kind in "iu" else 2

    @property
    def min(self) -> Scalar:
        """The least value (``-inf`` for floats)."""
        return False if self.kind == "b" else -float("inf") if self.is_float else int(np.iinfo(self.numpy).min)

    @property
    def max(self) -> Scalar:
        """The greatest value (``inf`` for floats)."""
        return True if self.kind == "b" else float("inf") if self.is_float else int(np.iinfo(self.numpy).max)


def _dtype(name: str, kind: str, numpy: Any = None) -> DType:
    numpy_dtype = np.dtype(numpy or name)
    return DType(name, kind, numpy_dtype.itemsize, numpy_dtype)


bool_ = _dtype("bool_", "b", np.bool_)
int8, int16, int32, int64 = (_dtype(f"int{n}", "i") for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (_dtype(f"uint{n}", "u") for n in (8, 16, 32, 64))
float16, float32, float64 = (_dtype(f"float{n}", "f") for n in (16, 32, 64))
bfloat16 = _dtype("bfloat16", "f", ml_dtypes.bfloat16)
half, double, long = float16, float64, int64

ALL = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64)
FLOATS = (float16, bfloat16, float32, float64)
INTEGERS = tuple(d for d in ALL if d.is_integer)

_BY_NUMPY = {d.numpy: d for d in ALL}
_BY_NAME = {d.name: d for d in ALL} | {
    "bool": bool_, "half": float16, "float": float32, "double": float64, "int": int32, "long": int64,
}  # fmt: skip
_BY_PYTHON: dict[Any, DType] = {bool: bool_, int: int32, float: float32}
DTypeLike = Union[DType, str, type, "np.dtype[Any]"]


def __getattr__(name: str) -> DType:
    """PyTorch's ``dtypes.float``, ``dtypes.int`` and ``dtypes.bool``, without shadowing the built-ins here."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    raise AttributeError(f"minigrad.dtypes has no dtype {name!r}; there are {', '.join(_BY_NAME)}")


def as_dtype(value: DTypeLike) -> DType:
    """The dtype named by a minigrad, NumPy or Python type or by a string.

    >>> as_dtype("float16"), as_dtype(np.int64), as_dtype(float)
    (minigrad.float16, minigrad.int64, minigrad.float32)

    Raises:
        ArgumentTypeError: if minigrad has no such dtype.
    """
    if isinstance(value, DType):
        return value
    found = _BY_NAME.get(value) if isinstance(value, str) else _BY_PYTHON.get(value)
    if found is None:
        try:
            found = _BY_NUMPY.get(np.dtype(value))
        except TypeError:
            found = None
    if found is None:
        names = ", ".join(d.name for d in ALL)
        raise ArgumentTypeError.of("dtype", f"one of {names}", repr(value))
    return found


def scalar_dtype(value: Scalar) -> DType:
    """The dtype a Python scalar becomes alone: bool, int32 (int64 where it does not fit) or float32."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int32 if -(2**31) <= value < 2**31 else int64
    return float32


@cache
def promote(a: DType, b: DType) -> DType:
    """The common dtype of two tensors of at least one dimension each.

    >>> promote(int8, uint8), promote(int64, float16), promote(float16, bfloat16)
    (minigrad.int16, minigrad.float16, minigrad.float32)
    """
    if a is b:
        return a
    if a.category != b.category:
        return a if a.category > b.category else b
    if a.itemsize == b.itemsize and a.is_half:
        return float32
    if a.is_float or a.kind == b.kind:
        return a if a.itemsize >= b.itemsize else b
    return _BY_NUMPY[np.promote_types(a.numpy, b.numpy)]


def result_type(operands: Iterable[tuple[DType, bool]]) -> DType:
    """The dtype that operands meet in; each is ``(dtype, weak)``, weak for 0-d tensors and Python scalars.

    A weak operand counts only if its category is higher than that of all others.

    >>> result_type([(float16, False), (float64, True)]), result_type([(int32, False), (float32, True)])
    (minigrad.float16, minigrad.float32)
    """
    strong: DType | None = None
    weak: DType | None = None
    for dtype, is_weak in operands:
        if is_weak:
            weak = dtype if weak is None else promote(weak, dtype)
        else:
            strong = dtype if strong is None else promote(strong, dtype)
    if strong is None:
        assert weak is not None, "result_type needs at least one operand"
        return weak
    return weak if weak is not None and weak.category > strong.category else strong
