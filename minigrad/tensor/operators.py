"""Python's operators on tensors, and how their operands meet in one dtype."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from minigrad import dtypes
from minigrad.dtypes import DType, Scalar
from minigrad.errors import ArgumentTypeError, DTypeError
from minigrad.graph import Node, apply, constant
from minigrad.tensor.base import Operand, TensorBase
from minigrad.tensor.exchange import ExchangeMethods

T = TypeVar("T", bound="OperatorMethods")

_RANGES = {d: (int(d.min), int(d.max)) for d in dtypes.INTEGERS}
_COMPARISONS = frozenset({"lt", "le", "eq", "ne"})
_ON_BOOLS = {"add": "bitwise_or", "mul": "bitwise_and", "maximum": "bitwise_or", "minimum": "bitwise_and"}
_TO_FLOAT = frozenset({"div", "atan2"})


def promoted(a: Node, b: Node) -> tuple[Node, Node]:
    """Both nodes in the dtype that they meet in; 0-d ones are weak."""
    if a.dtype is b.dtype:
        return a, b
    dtype = dtypes.result_type(((a.dtype, not a.shape), (b.dtype, not b.shape)))
    return a.cast(dtype), b.cast(dtype)


def fits(value: Scalar, dtype: DType) -> bool:
    """Whether a number is in the range of ``dtype``; every number is in that of floats and bool."""
    low, high = _RANGES.get(dtype, (value, value))
    return low <= value <= high


def _with_scalar(op: str, x: Node, value: Scalar) -> tuple[Node, Node]:
    dtype = x.dtype
    if dtype.kind == "f":
        return x, constant(value, dtype, x.device)
    own = dtypes.scalar_dtype(value)
    if own.category > dtype.category:
        return x.cast(own), constant(value, own, x.device)
    if fits(value, dtype):
        return x, constant(value, dtype, x.device)
    wide = dtypes.promote(dtype, own)
    if op not in _COMPARISONS or wide is dtype:
        raise DTypeError.of(op, f"a number that {dtype.name} can hold", value, f"cast with .to('{own.name}')")
    return x.cast(wide), constant(value, wide, x.device)


def operands(op: str, x: TensorBase, other: Operand) -> tuple[Node, Node] | None:
    """The nodes of ``x`` and ``other`` in one dtype; None if ``other`` is nothing to compute with."""
    if isinstance(other, TensorBase):
        return promoted(x.node, other.node)
    if isinstance(other, (bool, int, float)):
        return _with_scalar(op, x.node, other)
    if isinstance(other, (np.ndarray, np.generic)):
        return promoted(x.node, x.like(other).node)
    return None


def _computed(op: str, a: Node, b: Node) -> Node:
    if a.dtype.kind != "f":
        if a.dtype.kind == "b":
            op = _ON_BOOLS.get(op, op)
        if op in _TO_FLOAT:
            a, b = a.cast(dtypes.float32), b.cast(dtypes.float32)
    return apply(op, a, b)


def binary(op: str, x: T, other: Operand) -> T:
    """``op(x, other)``, for Python's operators: NotImplemented where ``other`` is no operand."""
    pair = operands(op, x, other)
    return NotImplemented if pair is None else x.wrap(_computed(op, *pair))


def reflected(op: str, x: T, other: Operand) -> T:
    """``op(other, x)``, likewise."""
    pair = operands(op, x, other)
    return NotImplemented if pair is None else x.wrap(_computed(op, pair[1], pair[0]))


def checked(op: str, result: T, other: object) -> T:
    """What :func:`binary` gave, for methods: they raise."""
    if result is NotImplemented:
        raise ArgumentTypeError.of(op, "a tensor, array or number", type(other).__name__)
    return result


def updated(x: T, result: T) -> T:
    """``x`` after ``result`` has been written to it.

    Raises:
        DTypeError: if the result is of a higher category (float for an integer tensor).
    """
    if result is NotImplemented:
        return result
    if result.dtype.category > x.dtype.category:
        raise DTypeError.of("in-place operation", f"a result that {x.dtype.name} can hold", result.dtype.name)
    return x.assign(result)


class OperatorMethods(ExchangeMethods):
    """Arithmetic, comparisons and bit operations, as operators and under PyTorch's names.

    Operands broadcast. Dtypes meet by :func:`minigrad.dtypes.result_type`: Python numbers and 0-d tensors promote
    across categories only. Of bools, ``+`` is or and ``*`` is and; integers divided by integers give float32.

    >>> from minigrad import Tensor
    >>> (Tensor([1, 2]) + 0.5).dtype, (Tensor([1, 2]) / Tensor([2, 2])).tolist()
    (minigrad.float32, [0.5, 1.0])
    """

    __slots__ = ()
    __hash__ = TensorBase.__hash__  # == is elementwise; tensors as keys are compared by identity

    def __neg__(self: T) -> T:
        return self._apply("neg")

    def __pos__(self: T) -> T:
        return self

    def __invert__(self: T) -> T:
        return self._apply("logical_not" if self.dtype is dtypes.bool_ else "bitwise_not")

    def __add__(self: T, other: Operand) -> T:
        return binary("add", self, other)

    def __radd__(self: T, other: Operand) -> T:
        return reflected("add", self, other)

    def __iadd__(self: T, other: Operand) -> T:
        return updated(self, binary("add", self, other))

    def __sub__(self: T, other: Operand) -> T:
        return binary("sub", self, other)

    def __rsub__(self: T, other: Operand) -> T:
        return reflected("sub", self, other)

    def __isub__(self: T, other: Operand) -> T:
        return updated(self, binary("sub", self, other))

    def __mul__(self: T, other: Operand) -> T:
        return binary("mul", self, other)

    def __rmul__(self: T, other: Operand) -> T:
        return reflected("mul", self, other)

    def __imul__(self: T, other: Operand) -> T:
        return updated(self, binary("mul", self, other))

    def __truediv__(self: T, other: Operand) -> T:
        return binary("div", self, other)

    def __rtruediv__(self: T, other: Operand) -> T:
        return reflected("div", self, other)

    def __itruediv__(self: T, other: Operand) -> T:
        return updated(self, binary("div", self, other))

    def __floordiv__(self: T, other: Operand) -> T:
        return binary("floordiv", self, other)

    def __rfloordiv__(self: T, other: Operand) -> T:
        return reflected("floordiv", self, other)

    def __ifloordiv__(self: T, other: Operand) -> T:
        return updated(self, binary("floordiv", self, other))

    def __mod__(self: T, other: Operand) -> T:
        return binary("mod", self, other)

    def __rmod__(self: T, other: Operand) -> T:
        return reflected("mod", self, other)

    def __imod__(self: T, other: Operand) -> T:
        return updated(self, binary("mod", self, other))

    def __pow__(self: T, other: Operand) -> T:
        if isinstance(other, int) and other < 0 and not self.dtype.is_float:
            raise DTypeError.of("pow", "an exponent of at least 0 for integers", other, "cast with .float()")
        return binary("pow", self, other)

    def __rpow__(self: T, other: Operand) -> T:
        return reflected("pow", self, other)

    def __ipow__(self: T, other: Operand) -> T:
        return updated(self, self.__pow__(other))

    def __and__(self: T, other: Operand) -> T:
        return binary("bitwise_and", self, other)

    def __rand__(self: T, other: Operand) -> T:
        return reflected("bitwise_and", self, other)

    def __iand__(self: T, other: Operand) -> T:
        return updated(self, binary("bitwise_and", self, other))

    def __or__(self: T, other: Operand) -> T:
        return binary("bitwise_or", self, other)

    def __ror__(self: T, other: Operand) -> T:
        return reflected("bitwise_or", self, other)

    def __ior__(self: T, other: Operand) -> T:
        return updated(self, binary("bitwise_or", self, other))

    def __xor__(self: T, other: Operand) -> T:
        return binary("bitwise_xor", self, other)

    def __rxor__(self: T, other: Operand) -> T:
        return reflected("bitwise_xor", self, other)

    def __ixor__(self: T, other: Operand) -> T:
        return updated(self, binary("bitwise_xor", self, other))

    def __lshift__(self: T, other: Operand) -> T:
        return binary("shift_left", self, other)

    def __rlshift__(self: T, other: Operand) -> T:
        return reflected("shift_left", self, other)

    def __ilshift__(self: T, other: Operand) -> T:
        return updated(self, binary("shift_left", self, other))

    def __rshift__(self: T, other: Operand) -> T:
        return binary("shift_right", self, other)

    def __rrshift__(self: T, other: Operand) -> T:
        return reflected("shift_right", self, other)

    def __irshift__(self: T, other: Operand) -> T:
        return updated(self, binary("shift_right", self, other))

    def __lt__(self: T, other: Operand) -> T:
        return binary("lt", self, other)

    def __le__(self: T, other: Operand) -> T:
        return binary("le", self, other)

    def __gt__(self: T, other: Operand) -> T:
        return reflected("lt", self, other)

    def __ge__(self: T, other: Operand) -> T:
        return reflected("le", self, other)

    def __eq__(self: T, other: Operand) -> T:  # type: ignore[override]
        return binary("eq", self, other)

    def __ne__(self: T, other: Operand) -> T:  # type: ignore[override]
        return binary("ne", self, other)

    # The same by name. ``alpha`` multiplies the other operand first.

    def neg(self: T) -> T:
        """``-x``, of numbers."""
        return -self

    def add(self: T, other: Operand, alpha: Scalar = 1) -> T:
        """``x + alpha * other``."""
        return checked("add", binary("add", self, _scaled(self, other, alpha)), other)

    def sub(self: T, other: Operand, alpha: Scalar = 1) -> T:
        """``x - alpha * other``."""
        return checked("sub", binary("sub", self, _scaled(self, other, alpha)), other)

    def mul(self: T, other: Operand) -> T:
        """``x * other``."""
        return checked("mul", binary("mul", self, other), other)

    def div(self: T, other: Operand) -> T:
        """``x / other``; float32 for two integers."""
        return checked("div", binary("div", self, other), other)

    def floor_divide(self: T, other: Operand) -> T:
        """``x // other``, rounded down; of integers by 0: 0."""
        return checked("floordiv", binary("floordiv", self, other), other)

    def remainder(self: T, other: Operand) -> T:
        """``x % other``, with the sign of ``other``; of integers by 0: 0."""
        return checked("mod", binary("mod", self, other), other)

    def pow(self: T, exponent: Operand) -> T:
        """``x ** exponent``; of integers with a tensor's negative element: 1 / x^n, truncated.

        Raises:
            DTypeError: for an integer tensor and a negative Python integer.
        """
        return checked("pow", self.__pow__(exponent), exponent)

    def lt(self: T, other: Operand) -> T:
        """``x < other``, bool."""
        return checked("lt", binary("lt", self, other), other)

    def le(self: T, other: Operand) -> T:
        """``x <= other``, bool."""
        return checked("le", binary("le", self, other), other)

    def gt(self: T, other: Operand) -> T:
        """``x > other``, bool."""
        return checked("gt", reflected("lt", self, other), other)

    def ge(self: T, other: Operand) -> T:
        """``x >= other``, bool."""
        return checked("ge", reflected("le", self, other), other)

    def eq(self: T, other: Operand) -> T:
        """``x == other``, bool."""
        return checked("eq", binary("eq", self, other), other)

    def ne(self: T, other: Operand) -> T:
        """``x != other``, bool."""
        return checked("ne", binary("ne", self, other), other)

    def maximum(self: T, other: Operand) -> T:
        """The greater of the two, NaN if either is; where they are equal each gets half of the gradient."""
        return checked("maximum", binary("maximum", self, other), other)

    def minimum(self: T, other: Operand) -> T:
        """The lesser of the two, NaN if either is; where they are equal each gets half of the gradient."""
        return checked("minimum", binary("minimum", self, other), other)

    def atan2(self: T, other: Operand) -> T:
        """The angle of the points (``other``, x), in [-pi, pi]."""
        return checked("atan2", binary("atan2", self, other), other)

    # In place: what the operators above do, under PyTorch's names; they return the tensor.

    def add_(self: T, other: Operand, alpha: Scalar = 1) -> T:
        """``x += alpha * other``."""
        return updated(self, self.add(other, alpha))

    def sub_(self: T, other: Operand, alpha: Scalar = 1) -> T:
        """``x -= alpha * other``."""
        return updated(self, self.sub(other, alpha))

    def mul_(self: T, other: Operand) -> T:
        """``x *= other``."""
        return updated(self, self.mul(other))

    def div_(self: T, other: Operand) -> T:
        """``x /= other``."""
        return updated(self, self.div(other))

    def copy_(self: T, other: Operand) -> T:
        """Overwrite with ``other``, cast to this dtype; it may be on another device."""
        if isinstance(other, TensorBase) and other.device != self.device:
            other = other.to(self.device)
        return self.assign(other)

    def fill_(self: T, value: Scalar) -> T:
        """Overwrite every element with one number."""
        return self.assign(value)

    def zero_(self: T) -> T:
        """Overwrite with zeros."""
        return self.assign(0)


def _scaled(x: T, other: Operand, alpha: Scalar) -> Operand:
    return other if alpha == 1 else x.like(other) * alpha
