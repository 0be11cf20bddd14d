"""Elementwise primitives as NumPy calls: ``f(*sources, out=array)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.backends.numpy.threads import scratch

Array = NDArray[Any]
Call = Callable[..., Any]


def _where(condition: Array, yes: Array, no: Array, out: Array) -> None:
    # Choosing bits is several times faster than np.where and np.copyto(where=...), and as exact.
    size = out.dtype.itemsize
    if np.ndim(condition) == 0 or size > 8:
        np.copyto(out, yes if condition else no)
        return
    word = np.dtype(f"i{size}")
    bits = out.view(word)
    chosen, other = (np.asarray(side).view(word) for side in (yes, no))
    mask = scratch("where", out.shape, word)
    if other.ndim == 0 and not other:
        _widen(condition, mask, 0)
        np.bitwise_and(chosen, mask, out=bits)
    elif chosen.ndim == 0 and not chosen:
        _widen(condition, mask, 1)
        np.bitwise_and(other, mask, out=bits)
    else:
        _widen(condition, mask, 0)
        np.bitwise_and(np.bitwise_xor(chosen, other, out=scratch("bits", out.shape, word)), mask, out=mask)
        np.bitwise_xor(other, mask, out=bits)


def _widen(condition: Array, mask: Array, invert: int) -> None:
    """All bits of ``mask`` set where the condition holds, or with ``invert`` = 1 where it does not."""
    byte = scratch("condition", condition.shape, np.int8)
    if invert:
        np.subtract(condition.view(np.int8), np.int8(1), out=byte)
    else:
        np.negative(condition.view(np.int8), out=byte)
    np.copyto(mask, byte)


def _relu(x: Array, out: Array) -> None:
    np.maximum(x, x.dtype.type(0), out=out)


def _in_float32(f: Call) -> Call:
    """``f``, made of several operations, but halves are rounded once: at the end."""

    def call(x: Array, out: Array) -> None:
        if out.dtype.itemsize > 2:
            f(x, out)
            return
        wide = x.astype(np.float32)
        f(wide, wide)
        np.copyto(out, wide, casting="unsafe")

    return call


@_in_float32
def _sigmoid(x: Array, out: Array) -> None:
    # 1 / (1 + exp(-x)); exp may overflow to inf, and 1 / inf is the right 0.
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, out.dtype.type(1), out=out)
    np.reciprocal(out, out=out)


@_in_float32
def _rsqrt(x: Array, out: Array) -> None:
    np.sqrt(x, out=out)
    np.reciprocal(out, out=out)


def _power(x: Array, y: Array, out: Array) -> None:
    if out.dtype.kind != "i":
        root = np.size(y) == 1 and bool(np.all(np.equal(y, 0.5)))
        lowest = np.equal(x, -np.inf) if root else False
        np.power(x, y, out=out)
        if root:  # NumPy takes a square root, which is NaN of -inf and -0 of -0; a power is neither
            np.add(out, out.dtype.type(0), out=out)
            np.copyto(out, out.dtype.type(np.inf), where=lowest)
        return
    # NumPy refuses negative integer exponents; here x ** -n is 1 / x ** n, truncated.
    negative = np.less(y, 0)
    base_is_unit = np.equal(np.abs(x), 1)
    power = np.power(x, np.abs(y))
    np.copyto(out, np.where(negative, np.where(base_is_unit, power, 0), power))


# erf after W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969).
_ERF_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_ERFC_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_ERFC_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _rational(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    top, bottom = (np.polyval(c, x) for c in coefficients)
    ratio: Array = top / bottom
    return ratio


def _erf(x: Array, out: Array) -> None:
    wide = x.astype(np.float64)
    size = np.abs(wide)
    square = wide * wide
    small = wide * _rational(_ERF_SMALL, np.minimum(square, 0.25))
    decay = np.exp(-square)
    middle = 1 - decay * _rational(_ERFC_MIDDLE, np.clip(size, 0.46875, 4.0))
    inverse = 1 / np.maximum(square, 16.0)
    tail = (1 / math.sqrt(math.pi) - inverse * _rational(_ERFC_LARGE, inverse)) / np.maximum(size, 4.0)
    large = 1 - decay * tail
    outer = np.copysign(np.where(size > 4.0, large, middle), wide)
    result = np.where(size <= 0.46875, small, outer)
    np.copyto(out, np.where(np.isnan(wide), wide, result), casting="unsafe")


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(k0: Array, k1: Array, c0: Array, c1: Array, out: Array) -> None:
    word = np.uint32
    shape = np.broadcast_shapes(k0.shape, k1.shape, c0.shape, c1.shape)
    keys = (k0, k1, k0 ^ k1 ^ word(0x1BD11BDA))
    a = np.array(np.broadcast_to(c0 + keys[0], shape))
    b = np.array(np.broadcast_to(c1 + keys[1], shape))
    high = np.empty_like(b)
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            np.add(a, b, out=a)
            np.right_shift(b, word(32 - turn), out=high)
            np.left_shift(b, word(turn), out=b)
            np.bitwise_or(b, high, out=b)
            np.bitwise_xor(b, a, out=b)
        np.add(a, keys[(group + 1) % 3], out=a)
        np.add(b, keys[(group + 2) % 3] + word(group + 1), out=b)
    np.copyto(out, a)


def _cast(x: Array, out: Array) -> None:
    np.copyto(out, x, casting="unsafe")


CALLS: dict[str, Call] = {
    "neg": np.negative, "abs": np.absolute, "sign": np.sign, "exp": np.exp, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p, "sqrt": np.sqrt, "rsqrt": _rsqrt, "reciprocal": np.reciprocal, "sin": np.sin, "cos": np.cos,
    "tanh": np.tanh, "erf": _erf, "sigmoid": _sigmoid, "relu": _relu, "floor": np.floor, "ceil": np.ceil,
    "round": np.rint, "trunc": np.trunc, "isnan": np.isnan, "isfinite": np.isfinite, "logical_not": np.logical_not,
    "bitwise_not": np.invert, "cast": _cast, "copy": _cast,
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "pow": _power, "maximum": np.maximum, "minimum": np.minimum,
    "atan2": np.arctan2, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "shift_left": np.left_shift, "shift_right": np.right_shift, "where": _where, "threefry": _threefry,
}  # fmt: skip
