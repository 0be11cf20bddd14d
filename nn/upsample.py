"""Layers that make images larger or smaller."""

from __future__ import annotations

from collections.abc import Sequence

from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class Upsample(Module):
    """The same image in another size; see :meth:`minigrad.Tensor.interpolate`.

    Args:
        size: spatial sizes of the output, one number or one per spatial dimension.
        scale_factor: or how many times as large, likewise.
        mode: ``"nearest"``, ``"linear"``, ``"bilinear"``, ``"trilinear"`` ...
        align_corners: in linear modes, whether the centres of the corner pixels stay where they are.
        recompute_scale_factor: whether the scale is that of the rounded sizes.

    >>> Upsample(scale_factor=2)(Tensor.zeros(8, 3, 5, 4)).shape
    (8, 3, 10, 8)
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.mode, self.align_corners = size, mode, align_corners
        self.scale_factor = float(scale_factor) if isinstance(scale_factor, int) else scale_factor
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to (N, C, *O)."""
        return x.interpolate(self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        """The settings."""
        name = "size" if self.scale_factor is None else "scale_factor"
        return f"{name}={getattr(self, name)}, mode={self.mode!r}"


class PixelShuffle(Module):
    """Channels to pixels: (*, C * r^2, H, W) to (*, C, H * r, W * r), r being the factor (Shi et al., 2016).

    Args:
        upscale_factor: r.

    >>> PixelShuffle(2)(Tensor.zeros(8, 12, 5, 4)).shape
    (8, 3, 10, 8)
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """(*, C * r^2, H, W) to (*, C, H * r, W * r)."""
        return x.pixel_shuffle(self.upscale_factor)

    def extra_repr(self) -> str:
        """The setting."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels to channels: the inverse of :class:`PixelShuffle`.

    Args:
        downscale_factor: r.
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """(*, C, H * r, W * r) to (*, C * r^2, H, W)."""
        return x.pixel_unshuffle(self.downscale_factor)

    def extra_repr(self) -> str:
        """The setting."""
        return f"downscale_factor={self.downscale_factor}"
