"""Reductions, running sums and sorting.

``axis`` is one axis, several or None for all; ``keepdims`` leaves reduced axes in place with size 1. PyTorch's
spellings ``dim`` and ``keepdim`` mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from minigrad import dtypes
from minigrad.dtypes import DType, DTypeLike
from minigrad.errors import ArgumentError, DTypeError
from minigrad.graph import Node, apply, constant, full, project
from minigrad.shapes import Axes, Shape, normalize_axes, normalize_axis
from minigrad.tensor.base import Operand
from minigrad.tensor.elementwise import wide
from minigrad.tensor.movement import MovementMethods, one_axis, slice_along

T = TypeVar("T", bound="ReductionMethods")


def dropped(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """A shape without ``axes``."""
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def count(shape: Shape, axes: tuple[int, ...]) -> int:
    """How many elements are reduced to one."""
    return math.prod(shape[a] for a in axes)


def scores(x: Node, axes: tuple[int, ...]) -> tuple[Node, Node]:
    """Two terms whose difference is the logarithm of softmax over ``axes``: x, shifted, and its logsumexp.

    The shift, by the maximum, keeps exponentials from overflow. It cancels, so no derivative passes through it.
    """
    shifted = _shifted(x, axes)
    return shifted, apply("log", apply("sum", apply("exp", shifted), axes=axes))


def _shifted(x: Node, axes: tuple[int, ...]) -> Node:
    return x - apply("detach", apply("max", x, axes=axes)) if count(x.shape, axes) else x


def _root(power: Node, order: float = 2) -> Node:
    """The root of a sum of powers, with derivative 0 at 0 (PyTorch's choice for std and norm)."""
    zero = power.equals(0)
    safe = zero.where(1, power)
    root = apply("sqrt", safe) if order == 2 else apply("pow", safe, constant(1 / order, safe.dtype, safe.device))
    return zero.where(0, root)


def _reduced(x: T, op: str, axis: Axes, dim: Axes, keep: bool, function: Callable[[Node, tuple[int, ...]], Node]) -> T:
    """``function(node, axes)``, which keeps the axes; they are dropped unless they are to be kept."""
    node = x.node
    axes = normalize_axes(op, axis if dim is None else dim, len(node.shape))
    result = function(node, axes)
    return x.wrap(result if keep else result.reshape(dropped(node.shape, axes)))


def _primitive(op: str) -> Callable[[Node, tuple[int, ...]], Node]:
    return lambda node, axes: apply(op, node, axes=axes)


def _added(node: Node, dtype: DTypeLike | None) -> Node:
    """The elements as they are added or multiplied: integers and bools as int64."""
    if dtype is not None:
        return node.cast(dtypes.as_dtype(dtype))
    return node if node.dtype.is_float else node.cast(dtypes.int64)


def floating(op: str, node: Node, dtype: DTypeLike | None = None) -> tuple[Node, DType]:
    """The elements in the dtype to compute in, and the dtype of the result."""
    target = node.dtype if dtype is None else dtypes.as_dtype(dtype)
    if not target.is_float:
        raise DTypeError.of(op, "a floating dtype", target.name, "cast with .float() or pass dtype=")
    return wide(node.cast(target)), target


class ReductionMethods(MovementMethods):
    """Sums, extrema and statistics over axes; softmax; cumsum and sort along one."""

    __slots__ = ()

    def sum(
        self: T, axis: Axes = None, keepdims: bool = False, dtype: DTypeLike | None = None,
        *, dim: Axes = None, keepdim: bool = False,
    ) -> T:  # fmt: skip
        """The sum; of integers and bools int64, of half types through float32. ``dtype`` casts the elements first."""
        return _reduced(
            self, "sum", axis, dim, keepdims or keepdim, lambda x, axes: apply("sum", _added(x, dtype), axes=axes)
        )

    def prod(
        self: T, axis: Axes = None, keepdims: bool = False, dtype: DTypeLike | None = None,
        *, dim: Axes = None, keepdim: bool = False,
    ) -> T:  # fmt: skip
        """The product; of integers and bools int64. ``dtype`` casts the elements first."""
        return _reduced(
            self, "prod", axis, dim, keepdims or keepdim, lambda x, axes: apply("prod", _added(x, dtype), axes=axes)
        )

    def mean(
        self: T, axis: Axes = None, keepdims: bool = False, dtype: DTypeLike | None = None,
        *, dim: Axes = None, keepdim: bool = False,
    ) -> T:  # fmt: skip
        """The mean; NaN of no elements.

        Raises:
            DTypeError: for integers, unless a floating ``dtype`` is given.
        """

        def mean(x: Node, axes: tuple[int, ...]) -> Node:
            x, target = floating("mean", x, dtype)
            return (apply("sum", x, axes=axes) / count(x.shape, axes)).cast(target)

        return _reduced(self, "mean", axis, dim, keepdims or keepdim, mean)

    def var(
        self: T, axis: Axes = None, correction: float = 1, keepdims: bool = False,
        *, dim: Axes = None, keepdim: bool = False,
    ) -> T:  # fmt: skip
        """The variance: squared deviations from the mean, summed and divided by their number less ``correction``.

        >>> from minigrad import Tensor
        >>> Tensor([1.0, 3.0]).var().item(), Tensor([1.0, 3.0]).var(correction=0).item()
        (2.0, 1.0)
        """
        return _reduced(self, "var", axis, dim, keepdims or keepdim, lambda x, axes: _variance(x, axes, correction))

    def std(
        self: T, axis: Axes = None, correction: float = 1, keepdims: bool = False,
        *, dim: Axes = None, keepdim: bool = False,
    ) -> T:  # fmt: skip
        """The square root of :meth:`var`; its derivative is 0 where it is 0."""

        def deviation(x: Node, axes: tuple[int, ...]) -> Node:
            x, target = floating("std", x)
            return _root(_variance(x, axes, correction)).cast(target)

        return _reduced(self, "std", axis, dim, keepdims or keepdim, deviation)

    def max(self: T, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False) -> T:
        """The greatest element (values only; see :meth:`argmax`), NaN if there is one. Ties share the gradient evenly.

        Raises:
            ShapeError: if there is no element to reduce.
        """
        return _reduced(self, "max", axis, dim, keepdims or keepdim, _primitive("max"))

    amax = max

    def min(self: T, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False) -> T:
        """The least element, like :meth:`max`."""
        return _reduced(self, "min", axis, dim, keepdims or keepdim, _primitive("min"))

    amin = min

    def any(self: T, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False) -> T:
        """Whether an element differs from 0; False of none."""
        return _reduced(self, "any", axis, dim, keepdims or keepdim, lambda x, axes: _truth(x, axes, "max"))

    def all(self: T, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False) -> T:
        """Whether all elements differ from 0; True of none."""
        return _reduced(self, "all", axis, dim, keepdims or keepdim, lambda x, axes: _truth(x, axes, "min"))

    def count_nonzero(self: T, axis: Axes = None, *, dim: Axes = None) -> T:
        """How many elements differ from 0, as int64."""
        return self.cast(dtypes.bool_).sum(axis, dim=dim)

    def allclose(self, other: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Whether all elements are close (:meth:`isclose`), as a Python bool: this reads the values."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def argmax(
        self: T, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None, keepdim: bool = False
    ) -> T:
        """The int64 position of the first greatest element, along ``axis`` or in the flat tensor; NaN is greatest."""
        return _position(self, "argmax", axis if dim is None else dim, keepdims or keepdim)

    def argmin(
        self: T, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None, keepdim: bool = False
    ) -> T:
        """The int64 position of the first least element, along ``axis`` or in the flat tensor; NaN is least."""
        return _position(self, "argmin", axis if dim is None else dim, keepdims or keepdim)

    def logsumexp(self: T, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False) -> T:
        """``log(sum(exp(x)))`` without overflow; -inf of no elements, or where all are -inf."""

        def logsumexp(x: Node, axes: tuple[int, ...]) -> Node:
            target = x.dtype if x.dtype.is_float else dtypes.float32
            x = wide(x)
            if count(x.shape, axes) == 0:
                return apply("log", apply("sum", x, axes=axes)).cast(target)
            top = apply("detach", apply("max", x, axes=axes))
            top = apply("isfinite", top).where(top, 0)  # inf - inf would be NaN
            return (apply("log", apply("exp", x - top).sum(axes)) + top).cast(target)

        return _reduced(self, "logsumexp", axis, dim, keepdims or keepdim, logsumexp)

    def softmax(self: T, axis: Axes = -1, dtype: DTypeLike | None = None, *, dim: Axes = None) -> T:
        """``exp(x) / sum(exp(x))`` along ``axis``, without overflow. ``dtype`` casts the elements first.

        >>> from minigrad import Tensor
        >>> Tensor([1000.0, 1000.0, -float("inf")]).softmax().tolist()
        [0.5, 0.5, 0.0]
        """

        def softmax(x: Node, axes: tuple[int, ...]) -> Node:
            x, target = floating("softmax", x, dtype)
            powers = apply("exp", _shifted(x, axes))
            return (powers / apply("sum", powers, axes=axes)).cast(target)

        return _reduced(self, "softmax", axis, dim, True, softmax)

    def log_softmax(self: T, axis: Axes = -1, dtype: DTypeLike | None = None, *, dim: Axes = None) -> T:
        """``log(softmax(x))`` along ``axis``, without overflow or loss of small probabilities."""

        def logarithm(x: Node, axes: tuple[int, ...]) -> Node:
            x, target = floating("log_softmax", x, dtype)
            shifted, total = scores(x, axes)
            return (shifted - total).cast(target)

        return _reduced(self, "log_softmax", axis, dim, True, logarithm)

    def norm(
        self: T, p: float | str = 2, axis: Axes = None, keepdims: bool = False,
        *, dim: Axes = None, keepdim: bool = False,
    ) -> T:  # fmt: skip
        """The vector norm ``sum(|x|^p)^(1/p)`` over ``axis``.

        Args:
            p: the order: a number (0 counts the elements that differ from 0), inf, -inf or ``"fro"``, which is 2.
            axis: one axis, several or None for all.
            keepdims: whether reduced axes stay, with size 1.
            dim: ``axis``.
            keepdim: ``keepdims``.
        """

        def norm(x: Node, axes: tuple[int, ...]) -> Node:
            x, target = floating("norm", x)
            return _norm(x, axes, p).cast(target)

        return _reduced(self, "norm", axis, dim, keepdims or keepdim, norm)

    def cumsum(self: T, axis: int | None = None, dtype: DTypeLike | None = None, *, dim: int | None = None) -> T:
        """Running sums along ``axis``; of integers and bools int64. ``dtype`` casts the elements first."""
        node = _added(self.node, dtype)
        along = one_axis("cumsum", axis, dim, self.ndim)
        source = wide(node) if node.dtype.is_half else node
        summed = apply("cumsum", _at_least_1d(source), axis=along, reverse=False)
        return self.wrap(summed.cast(node.dtype).reshape(node.shape))

    def sort(self: T, axis: int = -1, descending: bool = False, *, dim: int | None = None) -> tuple[T, T]:
        """The elements in order along ``axis``, and the int64 positions they come from; stable, NaN greatest.

        >>> from minigrad import Tensor
        >>> values, indices = Tensor([3, 1, 2]).sort()
        >>> values.tolist(), indices.tolist()
        ([1, 2, 3], [1, 2, 0])
        """
        node = self.node
        along = normalize_axis("sort", axis if dim is None else dim, len(node.shape))
        ordered = apply("sort", _at_least_1d(node), axis=along, descending=descending)
        values, indices = (project(ordered, i).reshape(node.shape) for i in (0, 1))
        return self.wrap(values), self.wrap(indices)

    def argsort(self: T, axis: int = -1, descending: bool = False, *, dim: int | None = None) -> T:
        """The int64 positions that sort along ``axis``; stable."""
        return self.sort(axis, descending, dim=dim)[1]

    def topk(self: T, k: int, axis: int = -1, largest: bool = True, *, dim: int | None = None) -> tuple[T, T]:
        """The ``k`` greatest elements (or least, without ``largest``) along ``axis``, in order, and their positions.

        Raises:
            ArgumentError: if ``k`` is not between 0 and the size of the axis.
        """
        along = normalize_axis("topk", axis if dim is None else dim, self.ndim)
        size = self.shape[along] if self.shape else 1
        if not 0 <= k <= size:
            raise ArgumentError.of("topk", f"k from 0 to {size}, the size of axis {along}", k)
        values, indices = self.sort(along, largest)
        if not self.shape:
            return values, indices
        return self.wrap(slice_along(values.node, along, 0, k)), self.wrap(slice_along(indices.node, along, 0, k))


def _variance(x: Node, axes: tuple[int, ...], correction: float) -> Node:
    x, target = floating("var", x)
    number = count(x.shape, axes)
    deviation = x - apply("sum", x, axes=axes) / number
    return (apply("sum", deviation * deviation, axes=axes) / max(number - correction, 0)).cast(target)


def _truth(x: Node, axes: tuple[int, ...], op: str) -> Node:
    if count(x.shape, axes) == 0:
        kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        return full(kept, op == "min", dtypes.bool_, x.device)
    return apply(op, x.cast(dtypes.bool_), axes=axes)


def _position(x: T, op: str, axis: int | None, keep: bool) -> T:
    node = x.node
    if axis is None:
        found = apply(op, node.reshape((math.prod(node.shape),)), axis=0)
        return x.wrap(found.reshape((1,) * node.ndim if keep else ()))
    along = normalize_axis(op, axis, node.ndim)
    found = apply(op, _at_least_1d(node), axis=along)
    return x.wrap(found.reshape(found.shape if keep and node.shape else dropped(node.shape, (along,))))


def _at_least_1d(node: Node) -> Node:
    return node if node.shape else node.reshape((1,))


def _norm(x: Node, axes: tuple[int, ...], p: float | str) -> Node:
    order = 2.0 if p == "fro" else p
    if isinstance(order, str):
        raise ArgumentError.of("norm", "a number or 'fro' as p", repr(p))
    if order == 2:
        return _root(apply("sum", x * x, axes=axes))
    size = apply("abs", x)
    if math.isinf(order):
        return apply("max" if order > 0 else "min", size, axes=axes)
    if order == 0:
        return apply("sum", apply("logical_not", size.equals(0)).cast(x.dtype), axes=axes)
    if order == 1:
        return apply("sum", size, axes=axes)
    powers = apply("pow", size, constant(order, x.dtype, x.device))
    return _root(apply("sum", powers, axes=axes), order)
