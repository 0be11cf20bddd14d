"""What stands between the layers of a network: activation functions, and dropout."""

from __future__ import annotations

import math
from typing import TypeVar

from minigrad import dtypes, random
from minigrad.errors import ArgumentError, ShapeError
from minigrad.graph import Node, apply, constant, set_grad_enabled
from minigrad.shapes import Shape, normalize_axis
from minigrad.tensor.base import Operand
from minigrad.tensor.creation import CreationMethods
from minigrad.tensor.elementwise import composed, unary
from minigrad.tensor.movement import slice_along

T = TypeVar("T", bound="ActivationMethods")


def softplus(x: Node, threshold: float = 40.0) -> Node:
    """``log(1 + exp(x))``, and x above the threshold: all derivatives are right, and none overflows."""
    large = apply("lt", constant(threshold, x.dtype, x.device), x)
    return large.where(x, apply("log1p", apply("exp", large.where(0, x))))


def hardtanh(x: Node, low: float, high: float) -> Node:
    """``x`` kept in [low, high]; the derivative at the bounds is 0."""
    above = apply("le", constant(high, x.dtype, x.device), x)
    return (x <= low).where(low, above.where(high, x))


def _elu(x: Node, alpha: float, rate: float = 1.0) -> Node:
    below = x <= 0
    # The inner choice keeps large x from expm1, whose derivative there would be inf, and 0 * inf NaN.
    return below.where(apply("expm1", below.where(x, 0) * rate) * alpha, x)


class ActivationMethods(CreationMethods):
    """Activation functions and dropout. Half types are rounded once per function."""

    __slots__ = ()

    def relu(self: T) -> T:
        """``max(x, 0)``; NaN stays NaN. The derivative at 0 is 0."""
        return self._apply("relu")

    def relu6(self: T) -> T:
        """``min(max(x, 0), 6)``."""
        return self.hardtanh(0.0, 6.0)

    def leaky_relu(self: T, negative_slope: float = 0.01) -> T:
        """``x`` where it is positive, else ``negative_slope * x``."""
        return composed(self, lambda x: (x <= 0).where(x * negative_slope, x))

    def sigmoid(self: T) -> T:
        """``1 / (1 + exp(-x))``."""
        return unary(self, "sigmoid")

    def logsigmoid(self: T) -> T:
        """``log(sigmoid(x))``, without overflow."""
        return composed(self, lambda x: -softplus(-x))

    def silu(self: T) -> T:
        """``x * sigmoid(x)``, also called swish (Elfwing et al., 2018)."""
        return composed(self, lambda x: x * apply("sigmoid", x))

    swish = silu

    def gelu(self: T, approximate: str = "none") -> T:
        """``x`` times the normal distribution function of x (Hendrycks and Gimpel, 2016).

        Args:
            approximate: ``"none"`` for erf, ``"tanh"`` for the usual approximation.
        """
        if approximate == "none":
            return composed(self, lambda x: x * (apply("erf", x * math.sqrt(0.5)) + 1) * 0.5)
        if approximate == "tanh":
            scale = math.sqrt(2 / math.pi)
            return composed(self, lambda x: x * (apply("tanh", (x + x * x * x * 0.044715) * scale) + 1) * 0.5)
        raise ArgumentError.of("gelu", "approximate of 'none' or 'tanh'", repr(approximate))

    def prelu(self: T, weight: Operand) -> T:
        """``x`` where it is positive, else ``weight * x`` (He et al., 2015).

        Args:
            weight: one slope, or one for each channel (axis 1): of shape (1,) or (C,).

        Raises:
            ShapeError: if it has another shape.
        """
        slope, channels = self.like(weight).node, self.shape[1] if self.ndim > 1 else 1
        if slope.shape not in ((), (1,), (channels,)):
            raise ShapeError.of("prelu", f"a weight of shape (1,) or ({channels},)", slope.shape)
        slope = slope.reshape((*slope.shape, *(1,) * (self.ndim - 2)))
        return composed(self, lambda x: (x <= 0).where(x * slope.cast(x.dtype), x))

    def elu(self: T, alpha: float = 1.0) -> T:
        """``x`` where it is positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., 2016)."""
        return composed(self, lambda x: _elu(x, alpha))

    def selu(self: T) -> T:
        """ELU, scaled so that activations normalise themselves (Klambauer et al., 2017)."""
        return composed(self, lambda x: _elu(x, 1.6732632423543772) * 1.0507009873554805)

    def celu(self: T, alpha: float = 1.0) -> T:
        """``x`` where it is positive, else ``alpha * (exp(x / alpha) - 1)`` (Barron, 2017)."""
        if alpha == 0:
            raise ArgumentError.of("celu", "alpha other than 0", alpha)
        return composed(self, lambda x: _elu(x, alpha, 1 / alpha))

    def softplus(self: T, beta: float = 1.0, threshold: float = 20.0) -> T:
        """``log(1 + exp(beta * x)) / beta``; x itself where ``beta * x`` is above ``threshold``."""
        return composed(self, lambda x: softplus(x * beta, threshold) / beta)

    def softsign(self: T) -> T:
        """``x / (1 + |x|)``."""
        return composed(self, lambda x: x / (apply("abs", x) + 1))

    def softshrink(self: T, lambd: float = 0.5) -> T:
        """``x`` moved towards 0 by ``lambd``, or 0 where it is not further from 0 than that."""
        if lambd < 0:
            raise ArgumentError.of("softshrink", "lambd of at least 0", lambd)
        return composed(self, lambda x: (apply("abs", x) <= lambd).where(0, x - apply("sign", x) * lambd))

    def hardshrink(self: T, lambd: float = 0.5) -> T:
        """``x``, or 0 where it is not further from 0 than ``lambd``."""
        return self.wrap((apply("abs", self.node) <= lambd).where(0, self.node))

    def tanhshrink(self: T) -> T:
        """``x - tanh(x)``."""
        return composed(self, lambda x: x - apply("tanh", x))

    def threshold(self: T, threshold: float, value: float) -> T:
        """``x`` where it is above ``threshold``, else ``value``."""
        return self.wrap((self.node <= threshold).where(value, self.node))

    def glu(self: T, axis: int = -1, *, dim: int | None = None) -> T:
        """The first half of ``axis`` times the sigmoid of the second (Dauphin et al., 2017).

        Raises:
            ShapeError: if the size of the axis is odd.
        """
        along = normalize_axis("glu", axis if dim is None else dim, self.ndim)
        if self.ndim == 0 or self.shape[along] % 2:
            raise ShapeError.of("glu", "an axis of even size", self.shape)
        half = self.shape[along] // 2

        def gated(x: Node) -> Node:
            return slice_along(x, along, 0, half) * apply("sigmoid", slice_along(x, along, half, half))

        return composed(self, gated)

    def softmin(self: T, axis: int = -1, *, dim: int | None = None) -> T:
        """:meth:`softmax` of ``-x``."""
        return (-self).softmax(axis, dim=dim)

    def mish(self: T) -> T:
        """``x * tanh(softplus(x))`` (Misra, 2020)."""
        return composed(self, lambda x: x * apply("tanh", softplus(x)))

    def hardtanh(self: T, min_val: float = -1.0, max_val: float = 1.0) -> T:
        """``x`` kept in [min_val, max_val]; unlike :meth:`clip`, the derivative at the bounds is 0."""
        return composed(self, lambda x: hardtanh(x, min_val, max_val))

    def hardsigmoid(self: T) -> T:
        """``relu6(x + 3) / 6``."""
        return composed(self, lambda x: hardtanh(x + 3, 0.0, 6.0) / 6)

    def hardswish(self: T) -> T:
        """``x * relu6(x + 3) / 6`` (Howard et al., 2019)."""
        return composed(self, lambda x: x * hardtanh(x + 3, 0.0, 6.0) / 6)

    # Dropout.

    def dropout(self: T, p: float = 0.5, training: bool = True) -> T:
        """Each element 0 with probability ``p``, else divided by ``1 - p``; the tensor itself unless ``training``.

        Srivastava et al., 2014.

        Raises:
            ArgumentError: if ``p`` is no probability.
        """
        return self._dropped("dropout", p, training, self.shape)

    def dropout1d(self: T, p: float = 0.5, training: bool = True) -> T:
        """:meth:`dropout2d` of (N, C, L) or (C, L)."""
        return self._dropped_channels(1, p, training)

    def dropout2d(self: T, p: float = 0.5, training: bool = True) -> T:
        """:meth:`dropout` of whole channels of (N, C, H, W) or (C, H, W) (Tompson et al., 2015).

        Raises:
            ShapeError: if the tensor has another number of dimensions.
            ArgumentError: if ``p`` is no probability.
        """
        return self._dropped_channels(2, p, training)

    def dropout3d(self: T, p: float = 0.5, training: bool = True) -> T:
        """:meth:`dropout2d` of (N, C, D, H, W) or (C, D, H, W)."""
        return self._dropped_channels(3, p, training)

    def _dropped_channels(self: T, rank: int, p: float, training: bool) -> T:
        op = f"dropout{rank}d"
        if self.ndim not in (rank + 1, rank + 2):
            raise ShapeError.of(op, f"{rank + 2} dimensions (N, C, {rank} spatial), or without N", self.shape)
        return self._dropped(op, p, training, (*self.shape[: self.ndim - rank], *(1,) * rank))

    def _dropped(self: T, op: str, p: float, training: bool, shape: Shape) -> T:
        """One draw for each element of ``shape``, which broadcasts to this tensor's."""
        if not 0 <= p <= 1:
            raise ArgumentError.of(op, "a probability in [0, 1]", p)
        if not training or p == 0:
            return self
        with set_grad_enabled(False):
            gone = random.uniform(math.prod(shape), dtypes.float32, self.device).reshape(shape) < p
        return self.wrap(gone.where(0, self.node * (1 / (1 - p) if p < 1 else 0.0)))
