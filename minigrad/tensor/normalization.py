"""Normalisation: to mean 0 and variance 1 over some of the axes, to length 1, or by neighbouring channels.

Variances are means of squared deviations from the mean, so that a large mean costs no digits of a small variance. Half
types compute in float32 and are rounded once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minigrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from minigrad.graph import Node, apply, constant, set_grad_enabled
from minigrad.shapes import Shape, Window, as_shape, broadcast, per_axis
from minigrad.tensor.activation import ActivationMethods
from minigrad.tensor.base import Operand
from minigrad.tensor.elementwise import composed
from minigrad.tensor.reduction import count, floating

T = TypeVar("T", bound="NormalizationMethods")


class _Moments(NamedTuple):
    """Mean and variance over some axes, which stay with size 1, and the deviations from the mean.

    These are also ``around - off``: deviations from an origin, which is the mean but has no derivative, and the
    distance of the mean from it, which is 0 but has one.
    """

    mean: Node
    deviation: Node
    variance: Node
    around: Node
    off: Node


def _moments(x: Node, axes: tuple[int, ...]) -> _Moments:
    number = max(count(x.shape, axes), 1)  # of no elements: there is nothing to divide
    mean = apply("sum", x, axes=axes) / number
    # The mean of squares around any origin is the variance plus the square of the origin's distance from the mean. Seen
    # from a constant origin, though it be the mean, derivatives have no sum of all deviations: a pass to find 0.
    origin = apply("detach", mean)
    around, off = x - origin, mean - origin
    return _Moments(mean, x - mean, apply("sum", around * around, axes=axes) / number - off * off, around, off)


def _over(op: str, what: str, number: int, shape: Shape, hint: str) -> None:
    """Raise if a mean is over one value: the result would be 0 whatever the value is."""
    if number == 1:
        raise ArgumentError.of(op, f"more than 1 value per {what}", shape, hint)


def _follow(op: str, statistics: Sequence[tuple[Any, Node]], momentum: float | ActivationMethods) -> None:
    """Move running statistics (those that are not None) towards new values by a share of ``momentum``, in place."""
    kept = [(running, value) for running, value in statistics if running is not None]
    for running, value in kept:
        if not isinstance(running, ActivationMethods):
            raise ArgumentTypeError.of(op, "running statistics that are tensors", type(running).__name__)
        channels = math.prod(value.shape)
        if running.shape != (channels,):
            raise ShapeError.of(op, f"running statistics of shape ({channels},)", running.shape)
    with set_grad_enabled(False):
        for running, value in kept:
            running.assign(running * (1 - momentum) + running.wrap(value.reshape(running.shape)) * momentum)


class NormalizationMethods(ActivationMethods):
    """Normalisation over batches, layers, groups, instances and channels, and of vectors."""

    __slots__ = ()

    def _parameter(self, op: str, name: str, value: Operand, shape: Shape, like: Node, trailing: int = 0) -> Node:
        """A weight, bias or statistic of ``shape`` in the dtype of ``like``, with ``trailing`` axes of size 1."""
        node = self.like(value).node
        if node.shape != shape:
            raise ShapeError.of(op, f"{name} of shape {shape}", node.shape)
        return node.cast(like.dtype).reshape((*shape, *(1,) * trailing))

    def batch_norm(
        self: T, running_mean: T | None = None, running_var: T | None = None, weight: Operand | None = None,
        bias: Operand | None = None, training: bool = False, momentum: float | T = 0.1, eps: float = 1e-5,
    ) -> T:  # fmt: skip
        """(x - mean) / sqrt(variance + eps) * weight + bias, with statistics of each channel (Ioffe and Szegedy, 2015).

        In training they are those of the batch, and the running ones follow in place:
        ``running = (1 - momentum) * running + momentum * new``, where the new variance is the unbiased one. Otherwise
        they are the running ones.

        Args:
            running_mean: (C,); None keeps none.
            running_var: (C,).
            weight: (C,); None is 1.
            bias: (C,); None is 0.
            training: which statistics to use.
            momentum: share of the new statistics; a number or a 0-d tensor.
            eps: keeps the root from 0.

        Shapes: (N, C, *S) to the same, with any number of spatial dimensions.

        Raises:
            ShapeError: if sizes do not fit.
            ArgumentError: in training for one value per channel; otherwise without running statistics.

        >>> from minigrad import Tensor
        >>> Tensor([[1.0, 5.0], [3.0, 5.0]]).batch_norm(training=True, eps=0.0, bias=[0.0, 2.0])[:, 0].tolist()
        [-1.0, 1.0]
        """
        x, target = floating("batch_norm", self.node)
        if x.ndim < 2:
            raise ShapeError.of("batch_norm", "an input of at least 2 dimensions (N, C, ...)", x.shape)
        axes, shape = (0, *range(2, x.ndim)), x.shape[1:2]

        def channel(name: str, value: Operand) -> Node:
            return self._parameter("batch_norm", name, value, shape, x, x.ndim - 2)

        given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
        known = {name: channel(name, value) for name, value in given.items() if value is not None}
        if training:
            number = count(x.shape, axes)
            _over("batch_norm", "channel in training", number, x.shape, "use a larger batch, or eval()")
            mean, _, variance, deviation, off = _moments(x, axes)
            if number:
                unbiased = variance * (number / (number - 1))
                _follow("batch_norm", [(running_mean, mean), (running_var, unbiased)], momentum)
        elif "running_mean" in known and "running_var" in known:
            deviation, variance, off = x - known["running_mean"], known["running_var"], None
        else:
            raise ArgumentError.of("batch_norm", "running_mean and running_var where training=False", "None")
        scale = apply("rsqrt", variance + eps)
        if "weight" in known:
            scale = scale * known["weight"]
        out, shift = deviation * scale, known.get("bias")
        if off is not None:  # with the bias: the sum over a channel that is its derivative is then that of the mean too
            shift = -(off * scale) if shift is None else shift - off * scale
        if shift is not None:
            out = out + shift
        return self.wrap(out.cast(target))

    def instance_norm(
        self: T, running_mean: T | None = None, running_var: T | None = None, weight: Operand | None = None,
        bias: Operand | None = None, use_input_stats: bool = True, momentum: float | T = 0.1, eps: float = 1e-5,
    ) -> T:  # fmt: skip
        """:meth:`batch_norm` of each example by itself (Ulyanov et al., 2016).

        Running statistics follow the means, over the batch, of those of the examples.

        Args:
            running_mean: (C,); None keeps none.
            running_var: (C,).
            weight: (C,); None is 1.
            bias: (C,); None is 0.
            use_input_stats: whether to use those of each example, and not the running ones.
            momentum: share of the new statistics; a number or a 0-d tensor.
            eps: keeps the root from 0.

        Shapes: (N, C, *S) to the same, with one spatial dimension or more.

        Raises:
            ShapeError: if sizes do not fit.
            ArgumentError: for one value per channel of an example; without ``use_input_stats``, without running ones.
        """
        if not use_input_stats:
            return self.batch_norm(running_mean, running_var, weight, bias, False, momentum, eps)
        x, target = floating("instance_norm", self.node)
        if x.ndim < 3:
            raise ShapeError.of("instance_norm", "an input of at least 3 dimensions (N, C, ...)", x.shape)
        axes, shape = tuple(range(2, x.ndim)), x.shape[1:2]
        number = count(x.shape, axes)
        _over("instance_norm", "channel of an example", number, x.shape, "it takes more than one position")
        mean, deviation, variance, *_ = _moments(x, axes)
        if x.shape[0] and number:
            statistics = (mean, variance * (number / (number - 1)))
            means = [apply("sum", each, axes=(0,)) / x.shape[0] for each in statistics]
            _follow("instance_norm", list(zip((running_mean, running_var), means)), momentum)
        out = deviation * apply("rsqrt", variance + eps)
        return self.wrap(self._affine("instance_norm", out, weight, bias, shape, x.ndim - 2).cast(target))

    def group_norm(
        self: T, num_groups: int, weight: Operand | None = None, bias: Operand | None = None, eps: float = 1e-5
    ) -> T:
        """Normalised over groups of channels of each example, then times ``weight`` plus ``bias`` (Wu and He, 2018).

        Args:
            num_groups: into how many the channels are divided.
            weight: (C,); None is 1.
            bias: (C,); None is 0.
            eps: added to the variance.

        Shapes: (N, C, *S) to the same, with any number of spatial dimensions.

        Raises:
            ShapeError: if sizes do not fit.
            ArgumentError: if ``num_groups`` does not divide C, or leaves one value per group.
        """
        x, target = floating("group_norm", self.node)
        if x.ndim < 2:
            raise ShapeError.of("group_norm", "an input of at least 2 dimensions (N, C, ...)", x.shape)
        if num_groups < 1 or x.shape[1] % num_groups:
            raise ArgumentError.of("group_norm", "num_groups that divides the channels", f"{num_groups}, {x.shape}")
        grouped = x.reshape((x.shape[0], num_groups, math.prod(x.shape[1:]) // num_groups))
        _over("group_norm", "group", grouped.shape[2], x.shape, "use fewer groups")
        _, deviation, variance, *_ = _moments(grouped, (2,))
        out = (deviation * apply("rsqrt", variance + eps)).reshape(x.shape)
        return self.wrap(self._affine("group_norm", out, weight, bias, x.shape[1:2], x.ndim - 2).cast(target))

    def layer_norm(
        self: T, normalized_shape: int | Sequence[int], weight: Operand | None = None, bias: Operand | None = None,
        eps: float = 1e-5,
    ) -> T:  # fmt: skip
        """Normalised over the last axes, then times ``weight`` plus ``bias`` (Ba et al., 2016).

        Args:
            normalized_shape: sizes of these axes.
            weight: of that shape; None is 1.
            bias: of that shape; None is 0.
            eps: added to the variance.

        Shapes: (*, *normalized_shape) to the same.

        Raises:
            ShapeError: if sizes do not fit.

        >>> from minigrad import Tensor
        >>> Tensor([[1.0, 3.0], [5.0, 5.0]]).layer_norm(2, bias=[0.0, 2.0], eps=0.0)[0].tolist()
        [-1.0, 3.0]
        """
        x, target = floating("layer_norm", self.node)
        shape, axes = _last("layer_norm", x.shape, normalized_shape)
        _, deviation, variance, *_ = _moments(x, axes)
        out = deviation * apply("rsqrt", variance + eps)
        return self.wrap(self._affine("layer_norm", out, weight, bias, shape).cast(target))

    def rms_norm(
        self: T, normalized_shape: int | Sequence[int], weight: Operand | None = None, eps: float | None = None
    ) -> T:
        """Divided by the root of the mean square over the last axes (Zhang and Sennrich, 2019).

        That is ``x / sqrt(mean(x^2) + eps) * weight``.

        Args:
            normalized_shape: sizes of these axes.
            weight: of that shape; None is 1.
            eps: keeps the root from 0; None is the distance from 1 to the next number of the dtype.

        Shapes: (*, *normalized_shape) to the same.

        Raises:
            ShapeError: if sizes do not fit.
        """
        x, target = floating("rms_norm", self.node)
        shape, axes = _last("rms_norm", x.shape, normalized_shape)
        mean = apply("sum", x * x, axes=axes) / count(x.shape, axes)
        out = x * apply("rsqrt", mean + (float(np.finfo(x.dtype.numpy).eps) if eps is None else eps))
        return self.wrap(self._affine("rms_norm", out, weight, None, shape).cast(target))

    def _affine(
        self, op: str, out: Node, weight: Operand | None, bias: Operand | None, shape: Shape, trailing: int = 0
    ) -> Node:
        """``out * weight + bias``."""
        if weight is not None:
            out = out * self._parameter(op, "weight", weight, shape, out, trailing)
        if bias is not None:
            out = out + self._parameter(op, "bias", bias, shape, out, trailing)
        return out

    def local_response_norm(self: T, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> T:
        """Each value damped by its neighbours in other channels: x / (k + alpha * mean(x**2))**beta.

        The mean is over ``size`` channels around each (an even size reaches one further back), with zeros beyond the
        first and last; the formula is PyTorch's, in which alpha is thereby divided by ``size``. Krizhevsky et al.,
        "ImageNet classification with deep convolutional neural networks", 2012, section 3.3.

        Shapes: (N, C, *S) to the same, with any number of spatial dimensions.
        """
        if self.ndim < 2:
            raise ShapeError.of("local_response_norm", "an input of at least 2 dimensions (N, C, ...)", self.shape)
        (width,) = per_axis("local_response_norm", "size", size, 1, 1)
        window = Window((width, 1), (1, 1), ((width // 2, (width - 1) // 2), (0, 0)), (1, 1))
        channels = (self.shape[0], 1, self.shape[1], math.prod(self.shape[2:]))  # a spatial dimension for the window

        def damped(x: Node) -> Node:
            mean = apply("avg_pool", (x * x).reshape(channels), window=window, count_include_pad=True)
            scale = mean.reshape(x.shape) * alpha + k
            return x / apply("pow", scale, constant(beta, x.dtype, x.device))

        return composed(self, damped)

    # Vectors.

    def normalize(self: T, p: float = 2.0, axis: int = 1, eps: float = 1e-12, *, dim: int | None = None) -> T:
        """``x / max(norm, eps)``: vectors along ``axis`` made to have length 1.

        Args:
            p: the order of the norm, as in :meth:`norm`.
            axis: along which the vectors lie.
            eps: the least length that is divided by.
            dim: ``axis``.

        >>> from minigrad import Tensor
        >>> Tensor([[3.0, 4.0], [0.0, 0.0]]).normalize().tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
        """
        return self / self.norm(p, axis, True, dim=dim).clip(min=eps)

    def cosine_similarity(self: T, other: Operand, axis: int = 1, eps: float = 1e-8, *, dim: int | None = None) -> T:
        """The cosine of the angle between vectors along ``axis``: their product over ``max(length, eps)`` of both.

        Args:
            other: a tensor that broadcasts with this one.
            axis: along which the vectors lie; it is gone in the result.
            eps: the least length that is divided by.
            dim: ``axis``.

        >>> from minigrad import Tensor
        >>> round(Tensor([[1.0, 0.0]]).cosine_similarity(Tensor([[1.0, 1.0]])).item() ** 2, 6)
        0.5
        """
        along = axis if dim is None else dim
        y = self.like(other)
        shape = broadcast("cosine_similarity", self.shape, y.shape)
        pair = [v.expand(shape) for v in (self, y)]
        product = (pair[0] * pair[1]).sum(along)
        return product / (pair[0].norm(2, along).clip(min=eps) * pair[1].norm(2, along).clip(min=eps))


def _last(op: str, shape: Shape, normalized_shape: int | Sequence[int]) -> tuple[Shape, tuple[int, ...]]:
    """``normalized_shape`` as a shape, and which axes it names."""
    last = as_shape(op, normalized_shape)
    if not last or shape[-len(last) :] != last:
        raise ShapeError.of(op, f"an input that ends in normalized_shape {last}", shape)
    return last, tuple(range(len(shape) - len(last), len(shape)))
