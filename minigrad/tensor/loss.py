"""Losses, with PyTorch's definitions and names.

``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` (one value per example or element). Half types compute in float32
and are rounded once, at the end; integers count as float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from minigrad import dtypes
from minigrad.dtypes import DType, Scalar
from minigrad.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from minigrad.graph import Node, apply, constant, create
from minigrad.mode import autocast_dtype
from minigrad.shapes import Shape
from minigrad.tensor.activation import softplus
from minigrad.tensor.base import Operand, TensorBase
from minigrad.tensor.elementwise import wide
from minigrad.tensor.normalization import NormalizationMethods
from minigrad.tensor.operators import operands
from minigrad.tensor.reduction import count, dropped, scores

T = TypeVar("T", bound="LossMethods")


def _check_reduction(op: str, reduction: str, *others: str) -> None:
    known = ("mean", "sum", "none", *others)
    if reduction not in known:
        raise ArgumentError.of(op, f"reduction of {', '.join(known)}", repr(reduction))


def _all(x: Node) -> tuple[int, ...]:
    return tuple(range(x.ndim))


def _total(x: Node) -> Node:
    return apply("sum", x, axes=_all(x)).reshape(())


def _reduced(loss: Node, reduction: str) -> Node:
    if reduction == "none":
        return loss
    total = _total(loss)
    return total if reduction == "sum" else total / count(loss.shape, _all(loss))


def _pointwise(
    op: str, x: T, target: Operand, reduction: str, function: Callable[[Node, Node], Node],
    weight: Operand | None = None,
) -> T:  # fmt: skip
    """The reduction of ``function(x, target)``, times ``weight``."""
    _check_reduction(op, reduction)
    pair = operands(op, x, target)
    if pair is None:
        raise ArgumentTypeError.of(op, "a target that is a tensor or array", type(target).__name__)
    if pair[0].shape != pair[1].shape:
        got = f"{pair[0].shape} and {pair[1].shape}"
        raise ShapeError.of(op, "input and target of one shape", got, "reshape or expand one of them")
    loss = function(wide(pair[0]), wide(pair[1]))
    if weight is not None:
        loss = loss * x.like(weight).node.cast(loss.dtype)
    return x.wrap(_reduced(loss, reduction).cast(_result(pair[0].dtype)))


def _result(dtype: DType) -> DType:
    """That of the input; but a loss is not rounded to the half type that is only computed with."""
    return dtype if dtype.is_float and not (dtype.is_half and autocast_dtype()) else dtypes.float32


def _class_axis(op: str, shape: Shape) -> int:
    if not shape:
        raise ShapeError.of(op, "an input of shape (C,) or (N, C, ...)", shape)
    return 0 if len(shape) == 1 else 1


def _per_class(op: str, weight: Operand | None, x: Node, axis: int, like: TensorBase) -> Node | None:
    """One weight per class, shaped to broadcast over the other axes."""
    if weight is None:
        return None
    node = like.like(weight).node.cast(x.dtype)
    if node.shape != (x.shape[axis],):
        raise ShapeError.of(op, f"one weight per class, of shape ({x.shape[axis]},)", node.shape)
    return node.reshape((x.shape[axis],) + (1,) * (x.ndim - axis - 1))


def _check_indices(op: str, target: Node, shape: Shape, axis: int) -> None:
    if not target.dtype.is_integer:
        raise DTypeError.of(op, "class indices of an integer dtype", target.dtype.name, "cast with .long()")
    expected = dropped(shape, (axis,))
    if target.shape != expected:
        raise ShapeError.of(op, f"class indices of shape {expected} for scores of shape {shape}", target.shape)


def _of_index(
    x: Node, total: Node | None, axis: int, target: Node, weight: Node | None, ignore_index: int,
    smoothing: float = 0.0,
) -> tuple[Node, Node]:  # fmt: skip
    """The losses of log-probabilities ``x - total`` (None: 0) for class indices, and what each counts in the mean.

    A class is the target or not by comparison, so that all of this fuses. The total, one number per example, is added
    per example: added per class, its derivative would be a sum over them. An index that is no class cannot be seen
    without reading it: its loss is NaN.
    """
    classes = x.shape[axis]
    kind = dtypes.int32 if target.dtype is dtypes.int32 or target.dtype.itemsize < 4 else dtypes.int64
    index = target.cast(kind).reshape(x.shape[:axis] + (1,) + x.shape[axis + 1 :])
    number = create("iota", x.device, length=classes, dtype=kind).reshape((classes,) + (1,) * (x.ndim - axis - 1))
    chosen = index.equals(number)

    def loss_of(values: Node, weights: Node | Scalar) -> Node:
        loss = -apply("sum", values, axes=(axis,))
        return loss if total is None else loss + total * weights

    weighted, share = x, constant(1, x.dtype, x.device)
    if weight is not None:
        weighted, share = x * weight, apply("sum", chosen.where(weight, 0), axes=(axis,))
    loss = loss_of(chosen.where(weighted, 0), share)
    if smoothing:
        every = classes if weight is None else apply("sum", weight, axes=(0,))
        loss = loss * (1 - smoothing) + loss_of(weighted, every) * (smoothing / classes)
    counts = apply("ne", index, constant(ignore_index, kind, x.device))
    loss = (index < 0).where(math.nan, (index < classes).where(loss, math.nan))
    return counts.where(loss, 0).reshape(target.shape), counts.where(share, 0)


def _weighted_mean(loss: Node, share: Node, reduction: str) -> Node:
    return _total(loss) / _total(share) if reduction == "mean" else _reduced(loss, reduction)


def _of_distribution(x: Node, axis: int, target: Node, weight: Node | None, reduction: str, smoothing: float) -> Node:
    """The loss of log-probabilities for target probabilities."""
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[axis]
    terms = x * target if weight is None else x * target * weight
    loss = -apply("sum", terms, axes=(axis,)).reshape(dropped(x.shape, (axis,)))
    return _reduced(loss, reduction)


class LossMethods(NormalizationMethods):
    """Losses; the tensor is the prediction."""

    __slots__ = ()

    def cross_entropy(
        self: T, target: Operand, weight: Operand | None = None, ignore_index: int = -100, reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> T:  # fmt: skip
        """-log softmax(x)[target]: the loss of classifiers, on logits.

        The loss of a class index out of range is NaN (it cannot raise: nothing is read here), unless it is ignored.

        Args:
            target: class indices, integers of shape (N, ...); or probabilities, floats of shape (N, C, ...). The logits
                have shape (N, C, ...), or (C,) for one example.
            weight: a weight per class, of shape (C,). The mean over indices is then weighted.
            ignore_index: examples with this index do not count.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.
            label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., 2016).

        Raises:
            ShapeError: if the shapes do not fit.
            DTypeError: if indices are no integers.

        >>> from minigrad import Tensor
        >>> round(Tensor([[0.0, 0.0]]).cross_entropy(Tensor([1])).item(), 4)
        0.6931
        """
        _check_reduction("cross_entropy", reduction)
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError.of("cross_entropy", "label_smoothing in [0, 1]", label_smoothing)
        axis = _class_axis("cross_entropy", self.shape)
        x, total = scores(wide(self.node), (axis,))
        weights = _per_class("cross_entropy", weight, x, axis, self)
        goal = self.like(target).node
        if goal.dtype.is_float:
            if goal.shape != x.shape:
                raise ShapeError.of("cross_entropy", f"target probabilities of shape {x.shape}", goal.shape)
            loss = _of_distribution(x - total, axis, goal.cast(x.dtype), weights, reduction, label_smoothing)
        else:
            _check_indices("cross_entropy", goal, x.shape, axis)
            losses, share = _of_index(x, total, axis, goal, weights, ignore_index, label_smoothing)
            loss = _weighted_mean(losses, share, reduction)
        return self.wrap(loss.cast(_result(self.dtype)))

    def nll_loss(
        self: T, target: Operand, weight: Operand | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> T:
        """-x[target], on log-probabilities; arguments, shapes and errors as for :meth:`cross_entropy`, indices only."""
        _check_reduction("nll_loss", reduction)
        axis = _class_axis("nll_loss", self.shape)
        x = wide(self.node)
        weights = _per_class("nll_loss", weight, x, axis, self)
        goal = self.like(target).node
        _check_indices("nll_loss", goal, x.shape, axis)
        losses, share = _of_index(x, None, axis, goal, weights, ignore_index)
        return self.wrap(_weighted_mean(losses, share, reduction).cast(_result(self.dtype)))

    def binary_cross_entropy(self: T, target: Operand, weight: Operand | None = None, reduction: str = "mean") -> T:
        """-t log x - (1 - t) log(1 - x), on probabilities.

        Logarithms are kept above -100; at probabilities 0 and 1 the derivative of the one that is cut off is 0.
        """

        def entropy(x: Node, t: Node) -> Node:
            return -(t * _bounded_log(x) + (1 - t) * _bounded_log(1 - x))

        return _pointwise("binary_cross_entropy", self, target, reduction, entropy, weight)

    def binary_cross_entropy_with_logits(
        self: T, target: Operand, weight: Operand | None = None, reduction: str = "mean",
        pos_weight: Operand | None = None,
    ) -> T:  # fmt: skip
        """Binary cross entropy of sigmoid(x), without overflow; ``pos_weight`` multiplies the terms of target 1."""

        def entropy(x: Node, t: Node) -> Node:
            missed = softplus(-x)  # -log sigmoid(x); that of 1 - sigmoid(x) is x more
            if pos_weight is None:
                return (1 - t) * x + missed
            share = (self.like(pos_weight).node.cast(x.dtype) - 1) * t + 1
            return (1 - t) * x + share * missed

        return _pointwise("binary_cross_entropy_with_logits", self, target, reduction, entropy, weight)

    def mse_loss(self: T, target: Operand, reduction: str = "mean") -> T:
        """The squared difference."""

        def square(x: Node, t: Node) -> Node:
            difference = x - t
            return difference * difference

        return _pointwise("mse_loss", self, target, reduction, square)

    mse = mse_loss

    def l1_loss(self: T, target: Operand, reduction: str = "mean") -> T:
        """The absolute difference."""
        return _pointwise("l1_loss", self, target, reduction, lambda x, t: apply("abs", x - t))

    def huber_loss(self: T, target: Operand, reduction: str = "mean", delta: float = 1.0) -> T:
        """Half the squared difference d up to ``delta``, then ``delta * (|d| - delta / 2)`` (Huber, 1964)."""
        if delta <= 0:
            raise ArgumentError.of("huber_loss", "delta above 0", delta)
        return _pointwise("huber_loss", self, target, reduction, lambda x, t: _huber(x - t, delta))

    def smooth_l1_loss(self: T, target: Operand, reduction: str = "mean", beta: float = 1.0) -> T:
        """:meth:`huber_loss` divided by ``beta``, its delta; the absolute difference where that is 0."""
        if beta < 0:
            raise ArgumentError.of("smooth_l1_loss", "beta of at least 0", beta)
        if beta == 0:
            return self.l1_loss(target, reduction)
        return _pointwise("smooth_l1_loss", self, target, reduction, lambda x, t: _huber(x - t, beta) / beta)

    def kl_div(self: T, target: Operand, reduction: str = "mean", log_target: bool = False) -> T:
        """``t * (log t - x)``, on log-probabilities x; 0 where t is 0.

        Args:
            target: probabilities, or their logarithms with ``log_target``.
            reduction: also ``"batchmean"``: the sum divided by the size of the first axis, the divergence proper.
            log_target: what ``target`` is.
        """
        _check_reduction("kl_div", reduction, "batchmean")

        def divergence(x: Node, t: Node) -> Node:
            if log_target:
                return apply("exp", t) * (t - x)
            absent = t <= 0
            entropy = absent.where(0, t * apply("log", absent.where(1, t)))
            return entropy - t * x

        if reduction != "batchmean":
            return _pointwise("kl_div", self, target, reduction, divergence)
        return _pointwise("kl_div", self, target, "sum", divergence) / (self.shape[0] if self.shape else 1)


def _bounded_log(x: Node) -> Node:
    zero = x <= 0
    log = apply("log", zero.where(1, x))
    return zero.where(-100.0, (log <= -100).where(-100.0, log))


def _huber(difference: Node, delta: float) -> Node:
    size = apply("abs", difference)
    return (size <= delta).where(difference * difference * 0.5, (size - 0.5 * delta) * delta)
