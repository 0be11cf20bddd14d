"""Padding layers: elements added around images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.module import Module
from minigrad.tensor import Tensor

Padding = int | Sequence[int]


class _Pad(Module):
    """Elements added on both sides of each spatial axis.

    Args:
        padding: how many, one number or (before, after) of the last axis, then of the one before it ...
    """

    rank: ClassVar[int]
    mode: ClassVar[str]
    value: float = 0

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self.rank) if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 2 * self.rank:
            raise ArgumentError.of(type(self).__name__, f"padding as one number, or {2 * self.rank}", padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S), or (C, *S), to the same with larger S."""
        if x.ndim not in (self.rank + 1, self.rank + 2):
            expected = f"{self.rank + 2} dimensions (N, C, {self.rank} spatial), or without N"
            raise ShapeError.of(type(self).__name__, expected, x.shape)
        return x.pad(self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The settings."""
        return str(self.padding)


class _ConstantPad(_Pad):
    """A number added around; ``padding`` as for all padding layers.

    Args:
        padding: how many, one number or (before, after) of the last axis, then of the one before it ...
        value: the number.
    """

    mode = "constant"

    def __init__(self, padding: Padding, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        """The settings."""
        return f"padding={self.padding}, value={self.value}"


class ZeroPad1d(_Pad):
    """Zeros around (N, C, L)."""

    rank, mode = 1, "constant"


class ZeroPad2d(_Pad):
    """Zeros around (N, C, H, W).

    >>> ZeroPad2d((1, 0, 2, 0))(Tensor.ones(8, 3, 5, 4)).shape
    (8, 3, 7, 5)
    """

    rank, mode = 2, "constant"


class ZeroPad3d(_Pad):
    """Zeros around (N, C, D, H, W)."""

    rank, mode = 3, "constant"


class ConstantPad1d(_ConstantPad):
    """A number around (N, C, L)."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """A number around (N, C, H, W)."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """A number around (N, C, D, H, W)."""

    rank = 3


class ReflectionPad1d(_Pad):
    """(N, C, L), mirrored at the edge elements."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """(N, C, H, W), mirrored at the edge elements."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """(N, C, D, H, W), mirrored at the edge elements."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """(N, C, L), with the edge elements repeated."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """(N, C, H, W), with the edge elements repeated."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """(N, C, D, H, W), with the edge elements repeated."""

    rank, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """(N, C, L), repeated as a whole."""

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """(N, C, H, W), repeated as a whole."""

    rank, mode = 2, "circular"


class CircularPad3d(_Pad):
    """(N, C, D, H, W), repeated as a whole."""

    rank, mode = 3, "circular"
