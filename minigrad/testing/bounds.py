"""How far a computed value may lie from the float64 oracle: the one table of tolerances, and what follows from it.

Error is measured in units of what is attainable, never relative to the result alone (cancellation makes a correct dot
product differ by any relative amount) nor with a fixed tolerance. A row of :data:`TOLERANCES` says how far one
primitive may err on exact sources; :func:`bounded` carries the errors of sources through a graph, to first order, by
asking the oracle how its result changes when they do. A jump that lies within an error makes what follows undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from minigrad import device as devices
from minigrad.config import settings
from minigrad.dtypes import DType, float32
from minigrad.errors import BackendUnavailable
from minigrad.graph import Node
from minigrad.primitive import Kind, Primitive
from minigrad.testing.evaluate import Array, checked, interpret, meaning, read, run, widen

UNDECIDED = 1e-2  # a bound greater than this share of the largest value says nothing
# How much factors of float32 products may be rounded, as set_float32_matmul_precision says: to TF32, to bfloat16. They
# may be cut off instead.
_FACTORS = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}
_ORACLE = 16  # float64 is the oracle's own precision: its roundings, and those of asking it for changes, count too


class Error(Enum):
    """What the error of one primitive is measured in."""

    NONE = "none"  # the result is an element of a source, an integer, a bool
    ULPS = "ulps"  # of the result, in its own dtype
    SUM = "sum"  # u * S * (4 + 2 * sqrt(K)): S is the sum of absolute values, K the number of (unlike) terms
    MEAN = "mean"  # as SUM, but for a division: integers do not give exact results
    PRODUCT = "product"  # u * K * |result|


class Tolerance(NamedTuple):
    """One row: the measure, how much of it, and why so much."""

    error: Error
    ulps: float
    reason: str


# Rows by primitive. `ulps` are those of float32 and float64; a half result is computed in float32 and stored within
# 1 ulp. Sums of halves accumulate in float32. The bounds of OpenCL are those of its specification (7.4, full profile),
# those of CUDA of its programming guide (appendix on mathematical functions): a backend may be as bad as either.
_ROWS: tuple[tuple[str, Error, float, str], ...] = (
    ("copy neg abs sign relu floor ceil round trunc maximum minimum where", Error.NONE, 0, "no new digits arise"),
    ("isnan isfinite logical_not bitwise_not lt le eq ne", Error.NONE, 0, "bools and integers have no error"),
    ("bitwise_and bitwise_or bitwise_xor shift_left shift_right threefry", Error.NONE, 0, "integers have no error"),
    ("reshape permute expand slice pad strided_view cat assign_view", Error.NONE, 0, "elements only move"),
    ("detach barrier custom transfer project take window_gather", Error.NONE, 0, "elements only move"),
    ("max min argmax argmin sort max_pool scatter_max", Error.NONE, 0, "the result is a source element, or its place"),
    ("iota const", Error.ULPS, 0.5, "given by attributes, rounded once"),
    ("add sub mul cast", Error.ULPS, 0.5, "IEEE 754: correctly rounded (a contracted a*b+c errs less, not more)"),
    ("mod floordiv", Error.ULPS, 1, "the remainder is exact; one rounding when the sign is corrected"),
    ("div reciprocal", Error.ULPS, 3, "OpenCL allows 2.5, CUDA 2 without -prec-div"),
    ("sqrt rsqrt", Error.ULPS, 3, "OpenCL allows 3 and 2, CUDA 3 and 2 without -prec-sqrt"),
    ("exp log", Error.ULPS, 4, "OpenCL allows 3; NumPy's float32 loops were measured at 2.8"),
    ("expm1 log1p", Error.ULPS, 4, "OpenCL allows 3 and 2, CUDA 1"),
    ("sin cos", Error.ULPS, 5, "OpenCL allows 4, CUDA 2"),
    ("tanh", Error.ULPS, 6, "OpenCL allows 5, CUDA 2"),
    ("atan2", Error.ULPS, 7, "OpenCL allows 6, CUDA 3"),
    ("sigmoid", Error.ULPS, 8, "1 / (1 + exp(-x)): the sum of its parts; NumPy's float32 was measured at 3.2"),
    ("pow erf", Error.ULPS, 17, "OpenCL allows 16 for both, CUDA 8 and 2"),
    ("sum cumsum scatter window_scatter", Error.SUM, 0, "rms 0.15*sqrt(K) in order, 0.32 if the first is large"),
    ("matmul conv conv_input_grad conv_weight_grad", Error.SUM, 0, "as sums; fused multiply-adds err less"),
    ("avg_pool avg_pool_grad", Error.MEAN, 0, "a sum, and one division or multiplication by a reciprocal"),
    ("prod", Error.PRODUCT, 0, "K factors are K - 1 roundings of relative error u, whatever their order"),
)

TOLERANCES: dict[str, Tolerance] = {
    name: Tolerance(error, ulps, reason) for names, error, ulps, reason in _ROWS for name in names.split()
}
# Float elements of sources, chosen by comparing them.
CHOOSING = frozenset("relu maximum minimum max min sort max_pool scatter_max".split())
# Zeros whose sign is defined: for these the sign of a zero result is compared too.
SIGNED_ZERO = frozenset("copy neg abs reshape permute expand slice cat strided_view take window_gather".split())


def _row(op: Primitive, attrs: Any) -> str:
    return "scatter_max" if op.name == "scatter" and attrs.reduce == "max" else op.name


def tolerance(op: Primitive, attrs: Any) -> Tolerance:
    """The row of a primitive with these attributes."""
    return TOLERANCES[_row(op, attrs)]


class _Format(NamedTuple):
    """What a floating dtype can hold."""

    eps: float  # from 1 to the next number
    tiny: float  # the least normal number
    least: float  # the least number
    most: float


@cache
def _format(dtype: DType) -> _Format:
    info: Any = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    return _Format(float(info.eps), float(info.tiny), float(info.smallest_subnormal), float(info.max))


def _computed_in(dtype: DType) -> DType:
    return float32 if dtype.is_half else dtype


def unit_roundoff(dtype: DType) -> float:
    """Half the distance from 1 to the next number of ``dtype``."""
    return _format(dtype).eps / 2


def ulp(value: Array, dtype: DType) -> Array:
    """The distance between neighbouring numbers of ``dtype`` around ``value``."""
    eps, _, least, most = _format(dtype)
    mantissa, exponent = np.frexp(np.where(np.isfinite(value), value, most))
    return np.maximum(np.where(mantissa == 0, 0.0, np.ldexp(eps, exponent - 1)), least)


def own_error(op: Primitive, attrs: Any, sources: Sequence[Array], value: Array, dtype: DType, exact: Array) -> Array:
    """How far a correct implementation may be from ``value`` by its own doing.

    Args:
        op: the primitive, with its ``attrs``.
        attrs: as said.
        sources: what it is applied to, floats as float64.
        value: the oracle's result of ``dtype``.
        dtype: as said.
        exact: where the sources are known exactly; elsewhere a correctly rounded result may round another way.
    """
    error, ulps, _ = tolerance(op, attrs)
    if op.name == "cast" and dtype.is_integer and sources[0].dtype.kind == "f":
        whole = np.trunc(sources[0])  # what has no place in the dtype becomes whatever the device makes of it
        return np.where((whole >= float(dtype.min)) & (whole < float(dtype.max + 1)), 0.0, np.inf)
    if error is Error.NONE or not dtype.is_float:
        return np.zeros(value.shape)
    with np.errstate(all="ignore"):
        if error is Error.ULPS:
            bound = _rounding(ulps, value, dtype, exact)
        else:
            bound = _accumulation(op, attrs, sources, value, dtype, exact)
    return bound * _ORACLE if dtype.itemsize == 8 else bound


def _rounding(ulps: float, value: Array, dtype: DType, exact: Array) -> Array:
    if ulps == 0.5:
        return np.where(exact, _to_nearest(value, dtype), ulp(value, dtype) * (1 if dtype.is_half else 0.5))
    # Of a function made of several operations an intermediate result may be denormal, or flushed.
    wide = _computed_in(dtype)
    return np.asarray((1 if dtype.is_half else ulps) * ulp(value, dtype) + _format(wide).tiny)


def _to_nearest(value: Array, dtype: DType) -> Array:
    """The error of storing ``value`` in ``dtype``."""
    if dtype.itemsize == 8:  # the oracle cannot tell: its values are stored themselves
        return np.where(value == np.rint(value), 0.0, ulp(value, dtype) / 2)
    return np.nan_to_num(np.abs(value.astype(dtype.numpy).astype(np.float64) - value))


def _accumulation(
    op: Primitive, attrs: Any, sources: Sequence[Array], value: Array, dtype: DType, exact: Array
) -> Array:
    error = tolerance(op, attrs).error
    if op.kind is Kind.CONTRACTION and hasattr(attrs, "window") and not np.isfinite(sources[1]).all():
        return np.full(value.shape, np.inf)  # times the zeros of padding, which a kernel may multiply or leave out
    wide = _computed_in(dtype)
    unit, (_, tiny, _, most) = unit_roundoff(wide), _format(wide)
    bound = np.asarray(ulp(value, dtype) if dtype.is_half else tiny)
    if error is Error.PRODUCT:
        bound = bound + unit * (sources[0].size / max(value.size, 1)) * np.abs(value)
        sizes = [np.abs(np.where(np.isfinite(sources[0]), sources[0], 1))]
        ends = (meaning(op, attrs, [f(sizes[0], 1)]) for f in (np.maximum, np.minimum))
        risky = (next(ends) > most) | (next(ends) < tiny)
        return np.where(risky, np.inf, bound)  # some order may overflow, or lose digits on the way
    floats = [s.dtype.kind == "f" for s in sources]
    sizes = [np.abs(np.where(np.isfinite(s), s, 0)) if f else s for s, f in zip(sources, floats)]
    total = meaning(op, attrs, sizes)
    if error is Error.MEAN:
        terms = np.prod(attrs.window.kernel)
    else:
        terms = meaning(op, attrs, [np.ones_like(s) if f else s for s, f in zip(sources, floats)])
    # Rounding errors of unlike terms are independent: not even in large arrays is one beyond six standard deviations.
    # Each is of the sum so far: they are largest where the first terms are. Those of equal terms are alike and add up.
    repeated = min(1 - np.unique(s).size / max(s.size, 1) for s, f in zip(sources, floats) if f)
    bound = bound + unit * total * (4 + 2 * np.sqrt(terms) + repeated * np.asarray(terms) / 2)
    bound = bound + tiny * np.asarray(terms)  # a product too small for a normal number may count as 0
    rounded = _FACTORS[settings.matmul_precision] if op.kind is Kind.CONTRACTION and dtype is float32 else 0.0
    bound = bound + 2 * rounded * total
    if not rounded and error is Error.SUM and all(np.array_equal(s, np.rint(s)) for s, f in zip(sources, floats) if f):
        # Integers: every partial sum is exact if it has few enough digits.
        bound = np.where(exact & (total < 1 / unit), _to_nearest(value, dtype), bound)
    summed = total * terms if error is Error.MEAN else total
    return np.where(summed * 2 > most, np.inf, bound)  # some order of summation may overflow


class Bounded(NamedTuple):
    """The oracle's value (float64 where floating) and the greatest error of a correct implementation.

    The error is infinite where nothing can be said: after a jump within an error, or an overflow in some order.
    """

    value: Array
    error: Array


def exact(array: Array, node: Node) -> Bounded:
    """What is in memory for ``node``: without error, but that a denormal number may count as 0 on its device."""
    value = widen(array, node.dtype)
    return Bounded(value, _flushed(value, node))


def bounded(roots: Sequence[Node], given: Mapping[Node, Bounded] | None = None) -> list[Bounded]:
    """The oracle's values of ``roots``, and how far a correct device may be from them; leaves are exact.

    A device that declares so may take any denormal number for 0, whether it is given or computed.
    """

    def leaf(node: Node) -> Any:
        return exact(read(node), node)

    def step(node: Node, sources: list[Any]) -> Any:
        if node.op.kind is Kind.PROJECTION:
            return sources[0][node.attrs.index]
        values, errors = [s.value for s in sources], [s.error for s in sources]
        raw = meaning(node.op, node.attrs, values)
        outputs = checked(node, raw)
        passed = passed_on(node.op, node.attrs, values, errors, raw)
        if _row(node.op, node.attrs) in CHOOSING:
            passed = np.maximum(passed, _confused(outputs[0] if isinstance(outputs, tuple) else outputs, sources, node))
        if isinstance(outputs, tuple):  # only values move here: several outputs add no error of their own
            return tuple(Bounded(v, passed if n == 0 else _jumps(v, errors)) for n, v in enumerate(outputs))
        own = own_error(node.op, node.attrs, values, outputs, node.dtype, passed == 0)
        return Bounded(outputs, passed + np.maximum(own, _flushed(outputs, node)))

    return interpret(roots, leaf, step, given or {})


def beside_oracle(nodes: Sequence[Node]) -> list[tuple[Array, Bounded, Node]]:
    """What a device computes for ``nodes``, and what the oracle says of each.

    The oracle is asked first: of what is realized it takes the value as it is.
    """
    expected = bounded(nodes)
    return list(zip(run(nodes), expected, nodes))


@cache
def _flushes(device: str) -> bool:
    try:
        return devices.get(device).backend.capabilities.flush_denormals
    except BackendUnavailable:  # a graph that is on no device
        return False


def _flushed(value: Array, node: Node) -> Array:
    """What a value loses if it is denormal where ``node`` is and computed with there, and counts as 0."""
    if not node.dtype.is_float or not _flushes(node.device):
        return np.zeros(value.shape)
    size = np.abs(value)
    return np.where(size < _format(_computed_in(node.dtype)).tiny, size, 0.0)


def _confused(value: Array, sources: Sequence[Bounded], node: Node) -> Array:
    """How far what is chosen may be off if numbers that count as 0 are compared: any of them may come out, as it is."""
    kept = np.zeros(value.shape)
    if value.dtype.kind != "f" or not _flushes(node.device):
        return kept
    dtype = next(source.dtype for source in node.sources if source.dtype.is_float)
    tiny = _format(_computed_in(dtype)).tiny
    if any(((np.abs(s.value) - s.error < tiny) & (s.error > 0)).any() for s in sources if s.value.dtype.kind == "f"):
        kept[np.abs(value) < tiny] = 2 * tiny
    return kept


def _jumps(value: Array, errors: Sequence[Array]) -> Array:
    """The error of integers that come from comparing: none, or nobody knows."""
    return np.full(value.shape, np.inf if any(e.any() for e in errors) else 0.0)


def passed_on(op: Primitive, attrs: Any, values: Sequence[Array], errors: Sequence[Array], out: Any) -> Array:
    """How much errors of the sources change the result ``out`` (the first, where there are several)."""
    first = out[0] if isinstance(out, tuple) else out
    if not any(e.any() for e in errors):
        return np.zeros(first.shape)
    with np.errstate(all="ignore"):
        if op.kind in (Kind.MOVEMENT, Kind.STORE, Kind.IDENTITY):
            quiet = attrs._replace(value=0) if "value" in attrs._fields else attrs
            return np.asarray(meaning(op, quiet, errors))
        changed = _changes(op, attrs, values, errors, first)
    changed = np.where(np.isnan(changed), np.inf, changed)
    return changed if first.dtype.kind == "f" else np.where(changed > 0, np.inf, 0.0)


def _changes(op: Primitive, attrs: Any, values: Sequence[Array], errors: Sequence[Array], first: Array) -> Array:
    error = tolerance(op, attrs).error
    floats = [n for n, v in enumerate(values) if v.dtype.kind == "f"]
    if op.kind is Kind.ELEMENTWISE:
        return _elementwise_changes(op, attrs, values, errors, first)
    if any(errors[n].any() for n in range(len(values)) if n not in floats):
        return np.full(first.shape, np.inf)  # positions that nobody knows
    if error in (Error.SUM, Error.MEAN):  # linear in each float source: the others count with their absolute values
        most = [np.abs(v) + e if n in floats else v for n, (v, e) in enumerate(zip(values, errors))]
        total = np.zeros(first.shape)
        for n in floats:
            if errors[n].any():
                total = total + meaning(op, attrs, [*most[:n], errors[n], *most[n + 1 :]])
        return total
    if error is Error.PRODUCT:
        sizes = np.abs(values[0])
        return np.asarray(meaning(op, attrs, [sizes + errors[0]]) - meaning(op, attrs, [sizes]))
    # What is left chooses elements: it is monotone in each of them.
    ends = []
    for sign in (1, -1):
        end = meaning(op, attrs, [v + sign * e if n in floats else v for n, (v, e) in enumerate(zip(values, errors))])
        ends.append(np.abs(np.subtract(end[0] if isinstance(end, tuple) else end, first, dtype=np.float64)))
    return np.maximum(*ends)


def _elementwise_changes(
    op: Primitive, attrs: Any, values: Sequence[Array], errors: Sequence[Array], first: Array
) -> Array:
    if first.dtype.kind == "b" and values[0].dtype.kind == "f":  # a comparison, also with 0, or a test
        gap = np.abs(np.subtract(*values) if len(values) == 2 else values[0])
        error = np.add.reduce(np.broadcast_arrays(*errors))
        return np.where((error > 0) & ~(gap > error), np.inf, 0.0)
    total = np.zeros(first.shape)
    for n, (value, error) in enumerate(zip(values, errors)):
        if not error.any():
            continue
        if value.dtype.kind in "iu":
            return np.where(np.add.reduce(np.broadcast_arrays(*errors)) > 0, np.inf, 0.0)
        changes = []
        for sign in (1, -1):
            if value.dtype.kind == "f":
                moved = [*values[:n], value + sign * error, *values[n + 1 :]]
            else:  # the other choice, with the errors of what is chosen
                moved = [v + sign * e if v.dtype.kind == "f" else v for v, e in zip(values, errors)]
                moved[n] = np.where(error > 0, ~value, value)
            changes.append(np.abs(np.subtract(meaning(op, attrs, moved), first, dtype=np.float64)))
        change = np.maximum(*changes)
        if n in op.domain.nonzero:  # a pole between the ends does not show there
            change = np.where(np.abs(value) <= error, np.inf, change)
        total = total + np.where(error > 0, change, 0.0)
    return total


class Comparison(NamedTuple):
    """What :func:`compare` found: the greatest error as a share of its bound, and how many elements were decided."""

    worst: float
    decided: int
    elements: int


class OutOfBound(AssertionError):
    """A result further from the oracle than it may be; ``found`` is the comparison that showed it."""

    def __init__(self, text: str, found: Comparison) -> None:
        super().__init__(text)
        self.found = found

    @property
    def share(self) -> float:
        """The worst error as a share of its bound."""
        return self.found.worst


def compare(got: Array, expected: Bounded, dtype: DType, what: str, signed_zero: bool = False) -> Comparison:
    """Check a device's result against the oracle.

    Integers, bools and whatever has a bound of 0 must be equal; NaN must be where NaN is expected, and nowhere else.

    Raises:
        OutOfBound: (an AssertionError) naming ``what``, the worst element, and its error as a share of the bound.
    """
    value, error = expected
    assert got.dtype == dtype.numpy, f"{what}: expected dtype {dtype.numpy}, got {got.dtype}"
    assert got.shape == value.shape, f"{what}: expected shape {value.shape}, got {got.shape}"
    if value.size == 0:
        return Comparison(0.0, 0, 0)
    wide, limit = widen(got, dtype), np.inf
    if dtype.is_float:  # infinity is one step above the greatest number
        greatest = _format(dtype).most
        limit = greatest + float(ulp(np.array(greatest), dtype)) if dtype.itemsize < 8 else np.inf
    with np.errstate(all="ignore"):
        size = np.abs(value.astype(np.float64))
        scale = np.max(size, initial=0.0, where=np.isfinite(size))
        decided = error <= (UNDECIDED * max(scale, 1e-30) if dtype.is_float else 0)
        if dtype.is_float:
            apart = np.abs(np.clip(wide, -limit, limit) - np.clip(value, -limit, limit))
            apart = np.where((wide == value) | (np.isnan(wide) & np.isnan(value)), 0.0, apart)
        else:
            apart = np.where(wide == value, 0.0, np.inf)
        apart = np.where(np.isnan(apart), np.inf, apart)
        share = np.where(apart == 0, 0.0, apart / error)
    if signed_zero and dtype.is_float:
        share = np.where((value == 0) & (wide == 0) & (np.signbit(wide) != np.signbit(value)), np.inf, share)
    share = np.where(decided, share, 0.0)
    worst = np.unravel_index(np.argmax(share), share.shape)
    comparison = Comparison(float(share[worst]), int(np.count_nonzero(decided)), value.size)
    if comparison.worst > 1:
        place = f"[{', '.join(map(str, worst))}] of {list(value.shape)}"
        wrong = f"{np.count_nonzero(share > 1)} of {value.size} elements wrong"
        right, found = value[worst].item(), wide[worst].item()
        raise OutOfBound(
            f"{what}: at {place} expected {right!r} within {error[worst]:.3g}, got {found!r} "
            f"({share[worst]:.3g} of the bound; {wrong})",
            comparison,
        )
    return comparison
