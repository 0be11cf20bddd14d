"""The oracle: what every primitive means, in naive float64 NumPy that imports nothing of minigrad.

One function per primitive, found by the primitive's name; sources come positionally, attributes as keywords.

- Float sources are float64 (callers widen narrower floats first) and so are float results; integers and bools keep
  their dtype, and integers wrap. Results are new arrays, also of shape (); no function warns or modifies a source.
- Elementwise sources broadcast. Reductions keep their axes, with size 1.
- Primitives with several outputs return a tuple.
- A `window` has the fields kernel, stride, padding ((before, after) per axis), dilation and ceil_mode. In formulas p is
  the input position ``o * stride - before + tap * dilation`` under a tap of window o, along every spatial axis.

Names that Python also has (abs, max, slice ...) mean the primitive throughout this module.
"""

# Many NumPy functions are typed as returning Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Window = Any


def _quiet(function: Callable[..., Any], doc: str | None = None) -> Callable[..., Any]:
    """``function`` without floating-point warnings, and returning arrays also where NumPy gives scalars."""

    @functools.wraps(function)
    def primitive(*sources: Array, **attributes: Any) -> Any:
        with np.errstate(all="ignore"):
            out = function(*sources, **attributes)
        return tuple(map(np.asarray, out)) if isinstance(out, tuple) else np.asarray(out)

    primitive.__doc__ = doc or function.__doc__
    return primitive


# Elementwise, one source ---------------------------------------------------------------------------------------------

neg = _quiet(np.negative, "-x")
abs = _quiet(np.abs, "|x|")
sign = _quiet(np.sign, "-1, 0 or 1; NaN for NaN")
exp = _quiet(np.exp, "e**x")
expm1 = _quiet(np.expm1, "e**x - 1, accurate near 0")
log = _quiet(np.log, "ln x; -inf at 0, NaN below")
log1p = _quiet(np.log1p, "ln(1 + x), accurate near 0")
sqrt = _quiet(np.sqrt, "x**0.5; NaN below 0")
rsqrt = _quiet(lambda x: 1.0 / np.sqrt(x), "1 / sqrt(x)")
reciprocal = _quiet(lambda x: 1.0 / x, "1 / x")
sin = _quiet(np.sin, "sin x, in radians")
cos = _quiet(np.cos, "cos x, in radians")
tanh = _quiet(np.tanh, "(e**x - e**-x) / (e**x + e**-x)")
erf = _quiet(np.vectorize(math.erf, otypes=[np.float64]), "2 / sqrt(pi) * integral of e**-t**2 for t from 0 to x")
sigmoid = _quiet(lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))), "1 / (1 + e**-x), without overflow")
relu = _quiet(lambda x: np.maximum(x, 0), "max(x, 0); NaN for NaN")
floor = _quiet(np.floor, "the greatest integer <= x")
ceil = _quiet(np.ceil, "the least integer >= x")
round = _quiet(np.rint, "the nearest integer, halves to even")
trunc = _quiet(np.trunc, "the integer part: rounded toward zero")
isnan = _quiet(np.isnan, "whether x is NaN")
isfinite = _quiet(np.isfinite, "whether x is neither NaN nor infinite")
logical_not = _quiet(np.logical_not, "not x, of bools")
bitwise_not = _quiet(np.invert, "~x, of integers")


@_quiet
def cast(x: Array, dtype: npt.DTypeLike) -> Array:
    """`x` rounded to `dtype`, then widened to float64 if that is a float; to integers toward zero, to bool x != 0."""
    out = x.astype(dtype)
    return out if out.dtype.kind in "biu" else out.astype(np.float64)


# Elementwise, two and more sources -----------------------------------------------------------------------------------

add = _quiet(np.add, "x + y")
sub = _quiet(np.subtract, "x - y")
mul = _quiet(np.multiply, "x * y")
div = _quiet(np.true_divide, "x / y, of floats")
floordiv = _quiet(np.floor_divide, "floor(x / y); integers // 0 = 0")
mod = _quiet(np.mod, "x - y * floor(x / y), with the sign of y as in Python; integers % 0 = 0")
maximum = _quiet(np.maximum, "the greater of x and y; NaN if either is")
minimum = _quiet(np.minimum, "the lesser of x and y; NaN if either is")
atan2 = _quiet(np.arctan2, "the angle of the point (y, x), in (-pi, pi]; sources in the order y, x")
lt = _quiet(np.less, "x < y")
le = _quiet(np.less_equal, "x <= y")
eq = _quiet(np.equal, "x == y")
ne = _quiet(np.not_equal, "x != y")
bitwise_and = _quiet(np.bitwise_and, "x & y, of bools or integers")
bitwise_or = _quiet(np.bitwise_or, "x | y, of bools or integers")
bitwise_xor = _quiet(np.bitwise_xor, "x ^ y, of bools or integers")
shift_left = _quiet(np.left_shift, "x * 2**y, of integers; 0 once y reaches the width")
shift_right = _quiet(np.right_shift, "floor(x / 2**y), of integers; 0 or -1 once y reaches the width")
where = _quiet(np.where, "x where the condition holds, else y; sources in the order condition, x, y")


@_quiet
def pow(x: Array, y: Array) -> Array:
    """x**y; of integers with y < 0: 1 / x**-y rounded toward zero, which is 0 unless |x| = 1 (also for x = 0)."""
    if x.dtype.kind == "f":  # by a single 1/2 NumPy takes a square root, which differs for -inf and -0
        x, y = np.broadcast_arrays(x, y)
        return np.asarray(np.power(x, np.stack([y, y]))[0])
    inverse = np.where(np.abs(x) == 1, np.power(x, y & 1), 0)
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0))).astype(x.dtype)


@_quiet
def threefry(k0: Array, k1: Array, c0: Array, c1: Array) -> Array:
    """First output word of Threefry-2x32-20 (Salmon et al. 2011), key (k0, k1) and counter (c0, c1); all uint32."""
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x, y = c0 + k0, c1 + k1
    for i in range(20):
        rotation = np.uint32((13, 15, 26, 6, 17, 29, 16, 24)[i % 8])
        x = x + y
        y = ((y << rotation) | (y >> (np.uint32(32) - rotation))) ^ x
        if i % 4 == 3:
            injection = i // 4 + 1
            x = x + keys[injection % 3]
            y = y + keys[(injection + 1) % 3] + np.uint32(injection)
    return x


# Creation and identities ---------------------------------------------------------------------------------------------


def const(value: bool | int | float, dtype: npt.DTypeLike, sign: float | None = None) -> Array:
    """`value` as `dtype`, of shape (); `sign` is that of `value`: it tells 0.0 from -0.0 where nodes are compared."""
    return cast(np.asarray(value), dtype=dtype)


def iota(length: int, dtype: npt.DTypeLike) -> Array:
    """0, 1, ... length - 1."""
    return cast(np.arange(length), dtype=dtype)


def copy(x: Array) -> Array:
    """Return `x`, copied."""
    return np.array(x)


def detach(x: Array) -> Array:
    """`x`, through which no gradient flows."""
    return x.copy()


def barrier(x: Array, awaited: Array, token: object) -> Array:
    """`x`, kept apart from equal expressions with another `token`, and looked at when `awaited` is known."""
    return x.copy()


def custom(*sources: Array, function: object) -> Array:
    """The first source, with the derivative of `function` over the others."""
    return sources[0].copy()


def project(outputs: tuple[Array, ...], index: int, shape: Shape, dtype: object) -> Array:
    """One output, of `shape` and `dtype`, of a primitive that has several."""
    return outputs[index].copy()


# Movement ------------------------------------------------------------------------------------------------------------


def reshape(x: Array, shape: Shape) -> Array:
    """The elements of `x` in row-major order, in another shape."""
    return x.reshape(shape).copy()


def permute(x: Array, axes: Sequence[int]) -> Array:
    """Axis `i` of the result is axis ``axes[i]`` of `x`."""
    return np.transpose(x, axes).copy()


def expand(x: Array, shape: Shape) -> Array:
    """`x` repeated along its axes of size 1 (and missing leading ones) to `shape`."""
    return np.broadcast_to(x, shape).copy()


def slice(x: Array, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int]) -> Array:
    """out[i, ...] = x[starts + i * steps, ...] for i < sizes, along every axis; steps may be negative."""
    index = [start + step * np.arange(size) for start, size, step in zip(starts, sizes, steps)]
    return np.array(x[np.ix_(*index)])


def pad(x: Array, padding: Sequence[tuple[int, int]], value: bool | int | float) -> Array:
    """`x` with `before` and `after` elements equal to `value` added at the two ends of every axis."""
    out = np.full([before + n + after for n, (before, after) in zip(x.shape, padding)], value, x.dtype)
    out[tuple(np.s_[before : before + n] for n, (before, _) in zip(x.shape, padding))] = x
    return out


def cat(*xs: Array, axis: int) -> Array:
    """The sources one after another along `axis`."""
    return np.concatenate(xs, axis)


def strided_view(x: Array, shape: Shape, strides: Sequence[int], offset: int) -> Array:
    """out[i, j, ...] = x.flat[offset + i * strides[0] + j * strides[1] + ...]."""
    return np.array(x.reshape(-1)[_offsets(shape, strides, offset)])


def assign_view(base: Array, value: Array, strides: Sequence[int], offset: int) -> Array:
    """`base`, but for out.flat[offset + i * strides[0] + j * strides[1] + ...] = value[i, j, ...]."""
    out = base.flatten()
    out[_offsets(value.shape, strides, offset)] = value
    return out.reshape(base.shape)


def _offsets(shape: Shape, strides: Sequence[int], offset: int) -> Array:
    """The flat position of every element of a view."""
    out = np.array(offset)
    for size, stride in zip(shape, strides):
        out = np.add.outer(out, stride * np.arange(size))
    return out


# Reductions, scans and sorting ---------------------------------------------------------------------------------------


@_quiet
def sum(x: Array, axes: Shape) -> Array:
    """The sum over `axes`, in the dtype of `x`."""
    return np.sum(x, axes, dtype=x.dtype, keepdims=True)


@_quiet
def prod(x: Array, axes: Shape) -> Array:
    """The product over `axes`, in the dtype of `x`."""
    return np.prod(x, axes, dtype=x.dtype, keepdims=True)


@_quiet
def max(x: Array, axes: Shape) -> Array:
    """The greatest element over `axes`; NaN if there is one."""
    return np.max(x, axes, keepdims=True)


@_quiet
def min(x: Array, axes: Shape) -> Array:
    """The least element over `axes`; NaN if there is one."""
    return np.min(x, axes, keepdims=True)


@_quiet
def argmax(x: Array, axis: int) -> Array:
    """int64 index of the first greatest element along `axis`; of the first NaN if there is one."""
    return np.argmax(x, axis, keepdims=True).astype(np.int64)


@_quiet
def argmin(x: Array, axis: int) -> Array:
    """int64 index of the first least element along `axis`; of the first NaN if there is one."""
    return np.argmin(x, axis, keepdims=True).astype(np.int64)


@_quiet
def cumsum(x: Array, axis: int, reverse: bool) -> Array:
    """out[i] = x[0] + ... + x[i] along `axis`; with `reverse` x[i] + ... + x[n - 1]. In the dtype of `x`."""
    if reverse:
        return np.flip(np.cumsum(np.flip(x, axis), axis, dtype=x.dtype), axis).copy()
    return np.cumsum(x, axis, dtype=x.dtype)


def sort(x: Array, axis: int, descending: bool) -> tuple[Array, Array]:
    """Sorted values and their int64 indices along `axis`. Equal elements keep their order; NaN is the greatest."""
    if descending:  # flipped before and after, so that equal elements again keep their order
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


# Indexing ------------------------------------------------------------------------------------------------------------


def take(x: Array, idx: Array) -> Array:
    """out[i, ...] = x[idx[i], ...] for every (possibly multi-dimensional) i; indices are clamped to [0, n - 1]."""
    return np.array(x[np.clip(idx, 0, len(x) - 1)])


@_quiet
def scatter(idx: Array, src: Array, length: int, reduce: str) -> Array:
    """out[j, ...] = sum (or max) of src[i, ...] over all i with idx[i] = j; without any 0 (or the least value)."""
    empty = 0 if reduce == "sum" else _least(src.dtype)
    out = np.full((length, *src.shape[idx.ndim :]), empty, src.dtype)
    combine = np.add if reduce == "sum" else np.maximum
    combine.at(out, idx, src)
    return out


def _least(dtype: np.dtype[Any]) -> bool | int | float:
    """The least value of a dtype."""
    return -math.inf if dtype.kind == "f" else False if dtype.kind == "b" else int(np.iinfo(dtype).min)


# Windows: which elements of (N, C, *S) lie under each tap ------------------------------------------------------------


def _positions(window: Window, spatial: Shape) -> list[Array]:
    """Per spatial axis the position p under each tap of each window, as (outputs, taps); outside [0, size) is padding.

    outputs = (size + before + after - extent) / stride + 1, rounded down, where extent = dilation * (kernel - 1) + 1.
    With ceil_mode it is rounded up, but each window must start inside the input or the padding before it.
    """
    out = []
    for axis, size in enumerate(spatial):
        kernel, stride, dilation = window.kernel[axis], window.stride[axis], window.dilation[axis]
        before, after = window.padding[axis]
        room = size + before + after - (dilation * (kernel - 1) + 1)
        outputs = (-(-room // stride) if window.ceil_mode else room // stride) + 1
        if window.ceil_mode and (outputs - 1) * stride >= size + before:
            outputs -= 1
        out.append(np.add.outer(stride * np.arange(outputs) - before, dilation * np.arange(kernel)))
    return out


def _gather(x: Array, window: Window, fill: bool | int | float) -> Array:
    """What lies under each tap, `fill` outside the input: (N, C, *S) -> (N, C, *O, *kernel)."""
    for axis, position in enumerate(_positions(window, x.shape[2:])):
        here, size = 2 + 2 * axis, x.shape[2 + 2 * axis]  # the axes before this one have become (outputs, taps) each
        inside = (position >= 0) & (position < size)
        x = np.take(np.insert(x, size, fill, here), np.where(inside, position, size), here)
    return np.transpose(x, (0, 1, *range(2, x.ndim, 2), *range(3, x.ndim, 2)))


def _frame(lead: Shape, spatial: Shape, outputs: Shape, window: Window, dtype: Any) -> tuple[Array, Any]:
    """Zeros over the padded input, wide enough for every window, and the index of the input within them."""
    sizes, inside = [], []
    for axis, size in enumerate(spatial):
        before, after = window.padding[axis]
        reach = (outputs[axis] - 1) * window.stride[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1
        sizes.append(int(np.maximum(before + size + after, reach)))
        inside.append(np.s_[before : before + size])
    return np.zeros((*lead, *sizes), dtype), (..., *inside)


def _under(tap: Shape, outputs: Shape, window: Window) -> Any:
    """The index, within the padded input, of what lies under one tap of all windows."""
    firsts = [t * dilation for t, dilation in zip(tap, window.dilation)]
    spans = [(count - 1) * stride + 1 if count else 0 for count, stride in zip(outputs, window.stride)]
    return (..., *(np.s_[a : a + n : s] for a, n, s in zip(firsts, spans, window.stride)))


def _scatter_taps(taps: Array, window: Window, spatial: Shape) -> Array:
    """Each tap added onto the input position under it, padding dropped: (N, C, *O, *kernel) -> (N, C, *S)."""
    outputs = taps.shape[2 : 2 + len(spatial)]
    padded, inside = _frame(taps.shape[:2], spatial, outputs, window, taps.dtype)
    for tap in np.ndindex(*window.kernel):
        padded[_under(tap, outputs, window)] += taps[(..., *tap)]
    return padded[inside].copy()


# Contractions --------------------------------------------------------------------------------------------------------


@_quiet
def matmul(a: Array, b: Array) -> Array:
    """out[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]; leading axes broadcast."""
    return np.matmul(a, b)


@_quiet
def conv(x: Array, w: Array, window: Window, groups: int) -> Array:
    """out[n, k, o] = sum over c, tap of w[k, c, tap] * x[n, c, p], where x is 0 in the padding (cross-correlation).

    x is (N, C, *S), w (K, C / groups, *kernel); output channel k reads the input channels of its own group only.
    """
    taps = _gather(x, window, 0)
    n, outputs = len(x), taps.shape[2 : x.ndim]
    k, c = w.shape[:2]
    columns = taps.reshape(n, groups, c, math.prod(outputs), math.prod(window.kernel))
    weights = w.reshape(groups, k // groups, c, math.prod(window.kernel))
    return np.einsum("ngcpt,gkct->ngkp", columns, weights).reshape(n, k, *outputs)


@_quiet
def conv_input_grad(g: Array, w: Array, window: Window, groups: int, spatial: Shape) -> Array:
    """out[n, c, p] = sum over k and the taps of windows o on p of w[k, c, tap] * g[n, k, o], as (N, C, *spatial)."""
    n, k, *outputs = g.shape
    c = w.shape[1]
    gradient = g.reshape(n, groups, k // groups, math.prod(outputs))
    weights = w.reshape(groups, k // groups, c, math.prod(window.kernel))
    taps = np.einsum("ngkp,gkct->ngcpt", gradient, weights)
    return _scatter_taps(taps.reshape(n, groups * c, *outputs, *window.kernel), window, spatial)


@_quiet
def conv_weight_grad(x: Array, g: Array, window: Window, groups: int) -> Array:
    """out[k, c, tap] = sum over n and o of g[n, k, o] * x[n, c, p], as (K, C / groups, *kernel)."""
    n, channels, *spatial = x.shape
    k, *outputs = g.shape[1:]
    c = channels // groups
    padded, inside = _frame((n, channels), tuple(spatial), tuple(outputs), window, x.dtype)
    padded[inside] = x
    gradient = g.reshape(n, groups, k // groups, math.prod(outputs))
    out = np.zeros((groups, k // groups, c, *window.kernel), x.dtype)
    for tap in np.ndindex(*window.kernel):
        under = padded[_under(tap, tuple(outputs), window)].reshape(n, groups, c, math.prod(outputs))
        out[(..., *tap)] = np.einsum("ngkp,ngcp->gkc", gradient, under)
    return out.reshape(k, c, *window.kernel)


# Pools ---------------------------------------------------------------------------------------------------------------


@_quiet
def max_pool(x: Array, window: Window) -> tuple[Array, Array]:
    """Greatest element under each window and the row-major index of its tap: the first NaN, else the first maximum.

    Padding never wins; over nothing but padding the value is the dtype's least and the index 0. Indices are uint8,
    or int32 for more than 256 taps.
    """
    taps, inside = _gather(x, window, _least(x.dtype)), _gather(np.ones_like(x, bool), window, False)
    flat = (*taps.shape[: x.ndim], math.prod(window.kernel))
    taps, inside = taps.reshape(flat), inside.reshape(flat)
    greatest = np.max(taps, -1, keepdims=True)
    wins = inside & ((taps == greatest) | np.isnan(taps))
    return greatest[..., 0], np.argmax(wins, -1).astype(np.uint8 if flat[-1] <= 256 else np.int32)


def window_gather(x: Array, idx: Array, window: Window) -> Array:
    """out[n, c, o] = x[n, c, p] under the tap idx[n, c, o] of window o; 0 in the padding."""
    taps = _gather(x, window, 0).reshape(*idx.shape, math.prod(window.kernel))
    return np.take_along_axis(taps, idx[..., None].astype(np.int64), -1)[..., 0]


@_quiet
def window_scatter(g: Array, idx: Array, window: Window, spatial: Shape) -> Array:
    """out[n, c, p] = sum of g[n, c, o] over the windows o whose tap idx[n, c, o] lies on p."""
    chosen = idx[..., None] == np.arange(math.prod(window.kernel))
    taps = np.where(chosen, g[..., None], np.zeros((), g.dtype))
    return _scatter_taps(taps.reshape(*g.shape, *window.kernel), window, spatial)


@_quiet
def avg_pool(x: Array, window: Window, count_include_pad: bool) -> Array:
    """out[n, c, o] = sum over the taps inside the input of x[n, c, p], divided by the number of taps that count.

    Those are the taps inside the input or, with `count_include_pad`, inside the padded input (not beyond it, where a
    window of ceil_mode may reach). A window over nothing that counts gives 0.
    """
    taps = _gather(x, window, 0)
    total = np.sum(taps, tuple(range(x.ndim, taps.ndim)))
    return total / _divisor(window, x.shape[2:], count_include_pad)


@_quiet
def avg_pool_grad(g: Array, window: Window, count_include_pad: bool, spatial: Shape) -> Array:
    """out[n, c, p] = sum over the windows o that cover p of g[n, c, o] / (the divisor of o in avg_pool)."""
    share = (g / _divisor(window, spatial, count_include_pad)).reshape(*g.shape, *(1 for _ in spatial))
    return _scatter_taps(np.broadcast_to(share, (*g.shape, *window.kernel)), window, spatial)


def _divisor(window: Window, spatial: Shape, count_include_pad: bool) -> Array:
    """How many taps of each window count in an average (at least 1), as an array of the output's spatial sizes."""
    counts = []
    for size, position, padding in zip(spatial, _positions(window, spatial), window.padding):
        before, after = padding if count_include_pad else (0, 0)
        counts.append(np.sum((position >= -before) & (position < size + after), 1))
    return np.maximum(functools.reduce(np.multiply.outer, counts), 1)
