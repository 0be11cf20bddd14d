"""Images made larger or smaller: interpolation, and pixels out of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from minigrad import dtypes
from minigrad.errors import ArgumentError, ShapeError
from minigrad.graph import Node, apply, create
from minigrad.shapes import per_axis
from minigrad.tensor.elementwise import wide
from minigrad.tensor.movement import repeated
from minigrad.tensor.window import WindowMethods

T = TypeVar("T", bound="ResizeMethods")

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by spatial dimensions
_NEAREST = ("nearest", "nearest-exact")


class ResizeMethods(WindowMethods):
    """Interpolation and pixel shuffling."""

    __slots__ = ()

    def interpolate(
        self: T, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> T:  # fmt: skip
        """The same image in another size.

        Args:
            size: spatial sizes, one number or one per spatial dimension.
            scale_factor: or how many times as large, likewise; sizes round down.
            mode: ``"nearest"`` takes the pixel at floor(i / scale), ``"nearest-exact"`` the one whose centre is
                nearest; ``"linear"``, ``"bilinear"`` and ``"trilinear"`` (of one, two and three spatial dimensions)
                weigh the two neighbours along each axis; ``"area"`` takes means, as :meth:`adaptive_avg_pool2d`.
            align_corners: in linear modes, whether the centres of the corner pixels stay where they are, and not the
                corners of the image.
            recompute_scale_factor: whether the scale is that of the rounded sizes, and not ``scale_factor``.

        Shapes: (N, C, *S) to (N, C, *O), with one to three spatial dimensions.

        Raises:
            ArgumentError: unless exactly one of ``size`` and ``scale_factor`` is given, for an unknown mode, or
                ``align_corners`` in a mode that is not linear.
            ShapeError: for another number of dimensions.

        >>> from minigrad import Tensor
        >>> Tensor([[[1.0, 2.0]]]).interpolate(scale_factor=2).tolist()
        [[[1.0, 1.0, 2.0, 2.0]]]
        >>> Tensor([[[1.0, 2.0]]]).interpolate(3, mode="linear", align_corners=True).tolist()
        [[[1.0, 1.5, 2.0]]]
        """
        rank = self.ndim - 2
        if rank not in _LINEAR or 0 in self.shape[2:]:
            raise ShapeError.of("interpolate", "(N, C, and 1 to 3 spatial dimensions of at least 1)", self.shape)
        if mode not in (*_NEAREST, "area", _LINEAR[rank]):
            known = f"{', '.join(_NEAREST)}, area, or {_LINEAR[rank]} for {rank} spatial dimensions"
            raise ArgumentError.of("interpolate", f"a mode of {known}", repr(mode))
        if align_corners is not None and mode != _LINEAR[rank]:
            raise ArgumentError.of("interpolate", "align_corners in linear modes only", f"mode {mode!r}")
        if (size is None) == (scale_factor is None):
            raise ArgumentError.of("interpolate", "either size or scale_factor", f"{size} and {scale_factor}")
        if size is not None:
            sizes = per_axis("interpolate", "size", size, rank, 1)
            factors: tuple[float, ...] | None = None
        else:
            factors = _factors(scale_factor, rank)
            sizes = tuple(math.floor(n * factor) for n, factor in zip(self.shape[2:], factors))
            factors = None if recompute_scale_factor else factors
        if mode == "area":
            means = (self.adaptive_avg_pool1d, self.adaptive_avg_pool2d, self.adaptive_avg_pool3d)
            return means[rank - 1](sizes)
        node = self.node
        for axis, (n, out) in enumerate(zip(self.shape[2:], sizes), 2):
            step = n / out if factors is None else 1 / factors[axis - 2]
            if mode == "nearest" and step == n / out and out % n == 0:
                node = repeated(node, axis, out // n)
            elif mode in _NEAREST:
                node = _taken(node, axis, _positions(node, out, step, 0.5 * (mode != "nearest")).cast(dtypes.int64))
            elif align_corners:
                node = _weighed(node, axis, _positions(node, out, (n - 1) / max(out - 1, 1), 0.0))
            else:
                node = _weighed(node, axis, _positions(node, out, step, 0.5) - 0.5)
        return self.wrap(node.cast(self.dtype))

    def pixel_shuffle(self: T, upscale_factor: int) -> T:
        """Channels to pixels: (*, C * r^2, H, W) to (*, C, H * r, W * r), r being the factor (Shi et al., 2016).

        Raises:
            ShapeError: unless r^2 divides the channels.

        >>> from minigrad import Tensor
        >>> Tensor([[[1]], [[2]], [[3]], [[4]]]).pixel_shuffle(2).tolist()
        [[[1, 2], [3, 4]]]
        """
        (r,) = per_axis("pixel_shuffle", "upscale_factor", upscale_factor, 1, 1)
        if self.ndim < 3 or self.shape[-3] % (r * r):
            raise ShapeError.of("pixel_shuffle", f"an input (*, C, H, W) of channels that {r * r} divides", self.shape)
        *lead, channels, height, width = self.shape
        parts = self.reshape(*lead, channels // (r * r), r, r, height, width)
        moved = parts.permute(*range(len(lead) + 1), *(len(lead) + a for a in (3, 1, 4, 2)))
        return moved.reshape(*lead, channels // (r * r), height * r, width * r)

    def pixel_unshuffle(self: T, downscale_factor: int) -> T:
        """The inverse of :meth:`pixel_shuffle`: (*, C, H * r, W * r) to (*, C * r^2, H, W).

        Raises:
            ShapeError: unless r divides height and width.
        """
        (r,) = per_axis("pixel_unshuffle", "downscale_factor", downscale_factor, 1, 1)
        if self.ndim < 3 or self.shape[-2] % r or self.shape[-1] % r:
            raise ShapeError.of("pixel_unshuffle", f"an input (*, C, H, W) of sizes that {r} divides", self.shape)
        *lead, channels, height, width = self.shape
        parts = self.reshape(*lead, channels, height // r, r, width // r, r)
        moved = parts.permute(*range(len(lead) + 1), *(len(lead) + a for a in (2, 4, 1, 3)))
        return moved.reshape(*lead, channels * r * r, height // r, width // r)


def _factors(given: float | Sequence[float] | None, rank: int) -> tuple[float, ...]:
    factors = tuple(given) if isinstance(given, Sequence) else (given,) * rank
    if len(factors) != rank or not all(isinstance(f, (int, float)) and f > 0 for f in factors):
        raise ArgumentError.of("interpolate", f"scale_factor as one number above 0, or {rank}", repr(given))
    return factors  # type: ignore[return-value]


def _positions(x: Node, out: int, step: float, shift: float) -> Node:
    """``(i + shift) * step`` for each output position i, in float32 or, of float64, that."""
    kind = dtypes.float64 if x.dtype is dtypes.float64 else dtypes.float32
    index = create("iota", x.device, length=out, dtype=kind)
    return (index + shift if shift else index) * step


def _taken(x: Node, axis: int, index: Node) -> Node:
    """The elements of an axis at ``index``, or the last one where that is beyond."""
    order = (axis, *(a for a in range(x.ndim) if a != axis))
    inside = apply("minimum", index, index._other(x.shape[axis] - 1))
    return apply("take", x.permute(order), inside).permute(tuple(order.index(a) for a in range(x.ndim)))


def _weighed(x: Node, axis: int, positions: Node) -> Node:
    """The elements of an axis between positions: the two neighbours, weighed by their distance."""
    within = apply("minimum", apply("maximum", positions, positions._other(0)), positions._other(x.shape[axis] - 1))
    index = within.cast(dtypes.int64)
    share = (within - index.cast(within.dtype)).reshape((*index.shape, *(1,) * (x.ndim - axis - 1)))
    low, high = (_taken(wide(x), axis, i) for i in (index, index + 1))
    return low * (1 - share) + high * share
