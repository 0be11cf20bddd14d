"""Functions of each element: roots and exponentials, rounding, choices, casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from minigrad import dtypes
from minigrad.dtypes import DTypeLike
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError
from minigrad.graph import Node, apply, constant
from minigrad.tensor.base import Operand, TensorBase
from minigrad.tensor.operators import OperatorMethods, operands, updated

T = TypeVar("T", bound="ElementwiseMethods")


def wide(node: Node) -> Node:
    """A value in the dtype that composite functions compute in: half types and integers in float32."""
    dtype = node.dtype
    return node if dtype.kind == "f" and not dtype.is_half else node.cast(dtypes.float32)


def composed(x: T, function: Callable[[Node], Node]) -> T:
    """A function of several primitives: a half type is rounded once, at the end."""
    node = x.node
    result = function(wide(node))
    return x.wrap(result.cast(node.dtype) if node.dtype.is_half else result)


def unary(x: T, op: str) -> T:
    """The tensor of a primitive that gives fractions: integers become float32 first."""
    node = x.node
    return x.wrap(apply(op, node if node.dtype.kind == "f" else node.cast(dtypes.float32)))


def _rounded(x: T, op: str) -> T:
    node = x.node
    if node.dtype.is_integer:
        return x.wrap(apply("cast", node, dtype=node.dtype))  # a tensor of its own, as for floats
    return x.wrap(apply(op, node))


def _truth(x: TensorBase) -> Node:
    """Whether elements differ from 0."""
    return x.node.cast(dtypes.bool_)


class _Where:
    """``Tensor.where(condition, x, y)`` on the class and ``x.where(condition, other)`` on a tensor, as in PyTorch.

    Both give the first value where the bool ``condition`` holds and the second elsewhere; each value, and in the first
    form the condition too, may be a tensor, array or number.

    >>> from minigrad import Tensor
    >>> x = Tensor([1.0, -2.0])
    >>> x.where(x > 0, 0.0).tolist(), Tensor.where(x > 0, x, 0.1 * x).tolist()[0]
    ([1.0, 0.0], 1.0)

    Raises:
        DTypeError: if the condition is not bool.
    """

    def __get__(self, tensor: Any, owner: Any) -> Callable[..., Any]:
        if tensor is None:
            return lambda condition, x, y: _choose(owner, condition, x, y)
        return lambda condition, other: _choose(owner, condition, tensor, other)


def _choose(cls: type[T], condition: Operand, x: Operand, y: Operand) -> T:
    test = condition if isinstance(condition, TensorBase) else cls(condition)
    if test.dtype is not dtypes.bool_:
        hint = "Tensor.where(condition, x, y) takes it first, x.where(condition, other) second"
        raise DTypeError.of("where", "a bool condition", test.dtype.name, hint)
    if isinstance(y, TensorBase) and not isinstance(x, TensorBase):
        pair = operands("where", y, x)  # the dtype of a number depends on the tensor beside it
        pair = None if pair is None else pair[::-1]
    else:
        pair = operands("where", test.like(x), y)
    if pair is None:
        got = " and ".join(type(v).__name__ for v in (x, y))
        raise ArgumentTypeError.of("where", "tensors, arrays or numbers", got)
    return cls.wrap(apply("where", test.node, *pair))


class ElementwiseMethods(OperatorMethods):
    """Elementwise functions: the result has the tensor's shape.

    Where a function gives fractions, integers become float32 first. Half types are rounded once per function.
    """

    __slots__ = ()

    where = _Where()

    # Arithmetic.

    def abs(self: T) -> T:
        """``|x|``."""
        return self._apply("abs")

    __abs__ = abs

    def sign(self: T) -> T:
        """-1, 0 or 1; NaN for NaN."""
        return self._apply("sign")

    def square(self: T) -> T:
        """``x * x``."""
        return self * self

    def reciprocal(self: T) -> T:
        """``1 / x``."""
        return unary(self, "reciprocal")

    def sqrt(self: T) -> T:
        """The square root; NaN below 0."""
        return unary(self, "sqrt")

    def rsqrt(self: T) -> T:
        """``1 / sqrt(x)``."""
        return unary(self, "rsqrt")

    def floor(self: T) -> T:
        """The greatest integer that is not above x."""
        return _rounded(self, "floor")

    def ceil(self: T) -> T:
        """The least integer that is not below x."""
        return _rounded(self, "ceil")

    def trunc(self: T) -> T:
        """The integer part: rounded toward 0."""
        return _rounded(self, "trunc")

    def round(self: T, decimals: int = 0) -> T:
        """The nearest multiple of 10^-decimals, halves to the even one."""
        if decimals == 0 or not self.dtype.is_float:
            return _rounded(self, "round")
        scale = 10.0**decimals
        return composed(self, lambda x: apply("round", x * scale) / scale)

    def lerp(self: T, end: T, weight: Operand) -> T:
        """``x + weight * (end - x)``: from x at weight 0 to ``end`` at 1."""
        return self + (end - self) * weight

    # Exponentials and logarithms.

    def exp(self: T) -> T:
        """``e^x``."""
        return unary(self, "exp")

    def exp2(self: T) -> T:
        """``2^x``."""
        return composed(self, lambda x: apply("pow", constant(2, x.dtype, x.device), x))

    def expm1(self: T) -> T:
        """``e^x - 1``, precise also near 0."""
        return unary(self, "expm1")

    def log(self: T) -> T:
        """The natural logarithm; -inf at 0, NaN below."""
        return unary(self, "log")

    def log2(self: T) -> T:
        """The logarithm to base 2."""
        return composed(self, lambda x: apply("log", x) / math.log(2))

    def log10(self: T) -> T:
        """The logarithm to base 10."""
        return composed(self, lambda x: apply("log", x) / math.log(10))

    def log1p(self: T) -> T:
        """``log(1 + x)``, precise also near 0."""
        return unary(self, "log1p")

    # Trigonometry and the error function.

    def sin(self: T) -> T:
        """The sine of x radians."""
        return unary(self, "sin")

    def cos(self: T) -> T:
        """The cosine of x radians."""
        return unary(self, "cos")

    def tan(self: T) -> T:
        """The tangent of x radians."""
        return composed(self, lambda x: apply("sin", x) / apply("cos", x))

    def tanh(self: T) -> T:
        """The hyperbolic tangent."""
        return unary(self, "tanh")

    def erf(self: T) -> T:
        """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
        return unary(self, "erf")

    # Bounds and choices.

    def clip(self: T, min: Operand | None = None, max: Operand | None = None) -> T:
        """``x``, but at least ``min`` and at most ``max``; ``max`` where they cross. NaN stays NaN.

        Elements inside the bounds and on them get the gradient; bounds that are tensors get it elsewhere.

        Raises:
            ArgumentError: if both bounds are None.

        >>> from minigrad import Tensor
        >>> Tensor([-2.0, 0.5, 2.0]).clip(max=1).tolist()
        [-2.0, 0.5, 1.0]
        """
        if min is None and max is None:
            raise ArgumentError.of("clip", "at least one of min and max", "neither")
        if min is not None and max is not None:
            min = _lesser(self, min, max)
        result = self
        if min is not None:
            result = _bounded(result, min, "lt")
        if max is not None:
            result = _bounded(result, max, "gt")
        return result

    clamp = clip

    def clip_(self: T, min: Operand | None = None, max: Operand | None = None) -> T:
        """:meth:`clip` in place."""
        return updated(self, self.clip(min, max))

    clamp_ = clip_

    # Tests: bool results, without gradient.

    def isnan(self: T) -> T:
        """Whether x is NaN."""
        return self._apply("isnan") if self.dtype.is_float else self != self

    def isfinite(self: T) -> T:
        """Whether x is neither NaN nor infinite."""
        return self._apply("isfinite") if self.dtype.is_float else self == self

    def isinf(self: T) -> T:
        """Whether x is inf or -inf."""
        return self.abs().eq(math.inf) if self.dtype.is_float else self != self

    def isclose(self: T, other: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> T:
        """``|x - other| <= atol + rtol * |other|``; equal infinities are close, NaNs with ``equal_nan``."""
        pair = operands("isclose", self, other)
        if pair is None:
            raise ArgumentTypeError.of("isclose", "a tensor, array or number", type(other).__name__)
        equal = apply("eq", *pair)
        a, b = map(wide, pair)
        size = apply("abs", b)
        near = apply("abs", a - b) <= size * rtol + atol
        near = apply("bitwise_and", near, apply("isfinite", size))
        result = apply("bitwise_or", equal, near)
        if equal_nan:
            result = apply("bitwise_or", result, apply("bitwise_and", apply("isnan", a), apply("isnan", b)))
        return self.wrap(result)

    def logical_not(self: T) -> T:
        """Whether x is 0."""
        return self.wrap(apply("logical_not", _truth(self)))

    def logical_and(self: T, other: Operand) -> T:
        """Whether both differ from 0."""
        return self.wrap(apply("bitwise_and", _truth(self), _truth(self.like(other))))

    def logical_or(self: T, other: Operand) -> T:
        """Whether one differs from 0."""
        return self.wrap(apply("bitwise_or", _truth(self), _truth(self.like(other))))

    def logical_xor(self: T, other: Operand) -> T:
        """Whether exactly one differs from 0."""
        return self.wrap(apply("bitwise_xor", _truth(self), _truth(self.like(other))))

    # Casts. They stand last: below, their names hide Python's types from annotations.

    def cast(self: T, dtype: DTypeLike) -> T:
        """The elements in another dtype, differentiable between floats; the tensor itself where it has that dtype.

        To integers it rounds toward zero (out of range is undefined), to bool it is ``x != 0``.
        """
        wanted = dtypes.as_dtype(dtype)
        return self if self.dtype is wanted else self.wrap(self.node.cast(wanted))

    def type_as(self: T, other: TensorBase) -> T:
        """The elements in the dtype of ``other``."""
        return self.cast(other.dtype)

    def half(self: T) -> T:
        """The elements as float16."""
        return self.cast(dtypes.float16)

    def bfloat16(self: T) -> T:
        """The elements as bfloat16."""
        return self.cast(dtypes.bfloat16)

    def double(self: T) -> T:
        """The elements as float64."""
        return self.cast(dtypes.float64)

    def long(self: T) -> T:
        """The elements as int64."""
        return self.cast(dtypes.int64)

    def float(self: T) -> T:
        """The elements as float32."""
        return self.cast(dtypes.float32)

    def int(self: T) -> T:
        """The elements as int32."""
        return self.cast(dtypes.int32)

    def bool(self: T) -> T:
        """The elements as bool."""
        return self.cast(dtypes.bool_)


def _lesser(x: ElementwiseMethods, low: Operand, high: Operand) -> Operand:
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return low if low <= high else high
    return x.like(low).minimum(high)


def _bounded(x: T, bound: Operand, crosses: str) -> T:
    pair = operands("clip", x, bound)
    if pair is None:
        raise ArgumentTypeError.of("clip", "bounds that are tensors, arrays or numbers", type(bound).__name__)
    value, limit = pair
    beyond = apply("lt", value, limit) if crosses == "lt" else apply("lt", limit, value)
    if not isinstance(bound, (int, float)):
        beyond = apply("bitwise_or", beyond, apply("ne", limit, limit))  # NaN bounds show
    return x.wrap(beyond.where(limit, value))
