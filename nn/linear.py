"""Fully connected layers, and the layers that only reshape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.dtypes import DType
from minigrad.nn import init
from minigrad.nn.module import Module
from minigrad.shapes import per_axis
from minigrad.tensor import Tensor


class Identity(Module):
    """Gives back its input; takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return x


class Flatten(Module):
    """Joins the axes from ``start_dim`` to ``end_dim`` into one.

    >>> Flatten()(Tensor.zeros(2, 3, 4)).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with these axes joined."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The settings."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Parts one axis into several: the inverse of :class:`Flatten`.

    Args:
        dim: the axis.
        unflattened_size: sizes of its parts; one may be -1.

    >>> Unflatten(1, (3, -1))(Tensor.zeros(2, 12)).shape
    (2, 3, 4)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with this axis parted."""
        return x.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The settings."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Linear(Module):
    """y = x W^T + b.

    Args:
        in_features: size of the input's last axis.
        out_features: size of the output's last axis.
        bias: whether there is a b.
        device: where the parameters live; None is the default device.
        dtype: their dtype; None is float32.

    Attributes:
        weight: W, of shape (out_features, in_features).
        bias: b, of shape (out_features,), or None.

    >>> Linear(3, 5)(Tensor.zeros(2, 3)).shape
    (2, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        (fan_in,) = per_axis("Linear", "in_features", in_features, 1, 0)
        (out,) = per_axis("Linear", "out_features", out_features, 1, 0)
        self.in_features, self.out_features = fan_in, out
        self.weight = init.default(out, fan_in, fan_in=fan_in, dtype=dtype, device=device)
        self.bias = init.default(out, fan_in=fan_in, dtype=dtype, device=device) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return x.linear(self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
