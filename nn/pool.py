"""Pooling layers over one to three spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from minigrad.nn.module import Module
from minigrad.shapes import per_axis
from minigrad.tensor import Tensor

Size = int | Sequence[int]


class _MaxPoolNd(Module):
    """The largest value in each window: (N, C, *S) to (N, C, *O), O = (S - F + 2P)/stride + 1, rounded down.

    Among equals the first one gets the gradient; NaN is larger than all.

    Args:
        kernel_size: size of the window, one number or one per spatial dimension; so the next three.
        stride: step of the window; None is the size of the window.
        padding: positions on both sides that never win.
        dilation: distance between the taps of a window.
        return_indices: whether to give also where the values were, for :class:`MaxUnpool2d`: positions in the
            flattened spatial dimensions, int64.
        ceil_mode: whether to round the output size up.
    """

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, 1)
        self.stride = self.kernel_size if stride is None else per_axis(name, "stride", stride, self.rank, 1)
        self.padding = per_axis(name, "padding", padding, self.rank, 0)
        self.dilation = per_axis(name, "dilation", dilation, self.rank, 1)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Tensor) -> Any:
        """(N, C, *S) to (N, C, *O), or with ``return_indices`` to a pair of these."""
        pool = (Tensor.max_pool1d, Tensor.max_pool2d, Tensor.max_pool3d)[self.rank - 1]
        return pool(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class _AvgPoolNd(Module):
    """The mean of each window: (N, C, *S) to (N, C, *O), O = (S - F + 2P)/stride + 1, rounded down.

    Args:
        kernel_size: size of the window, one number or one per spatial dimension; so the next two.
        stride: step of the window; None is the size of the window.
        padding: zeros on both sides.
        ceil_mode: whether to round the output size up.
        count_include_pad: whether the zeros count in the mean.
    """

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, 1)
        self.stride = self.kernel_size if stride is None else per_axis(name, "stride", stride, self.rank, 1)
        self.padding = per_axis(name, "padding", padding, self.rank, 0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to (N, C, *O)."""
        pool = (Tensor.avg_pool1d, Tensor.avg_pool2d, Tensor.avg_pool3d)[self.rank - 1]
        return pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveAvgPoolNd(Module):
    """The mean over windows that divide the input into ``output_size`` parts as evenly as possible.

    Args:
        output_size: size of the output, one number or one per spatial dimension; None keeps the input's.
    """

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The settings."""
        return f"output_size={self.output_size}"


class MaxPool1d(_MaxPoolNd):
    """Max pooling over (N, C, L)."""

    rank = 1


class MaxPool2d(_MaxPoolNd):
    """Max pooling over (N, C, H, W).

    >>> MaxPool2d(2)(Tensor.zeros(8, 6, 28, 28)).shape
    (8, 6, 14, 14)
    """

    rank = 2


class MaxPool3d(_MaxPoolNd):
    """Max pooling over (N, C, D, H, W)."""

    rank = 3


class AvgPool1d(_AvgPoolNd):
    """Average pooling over (N, C, L)."""

    rank = 1


class AvgPool2d(_AvgPoolNd):
    """Average pooling over (N, C, H, W).

    >>> AvgPool2d(2)(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).tolist()
    [[[[2.5]]]]
    """

    rank = 2


class AvgPool3d(_AvgPoolNd):
    """Average pooling over (N, C, D, H, W)."""

    rank = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Adaptive average pooling over (N, C, L)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) to (N, C, O)."""
        return x.adaptive_avg_pool1d(self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Adaptive average pooling over (N, C, H, W).

    >>> AdaptiveAvgPool2d(1)(Tensor.zeros(8, 512, 7, 7)).shape
    (8, 512, 1, 1)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, *O)."""
        return x.adaptive_avg_pool2d(self.output_size)


class MaxUnpool2d(Module):
    """Puts pooled values back where :class:`MaxPool2d` with ``return_indices`` found them, with zeros elsewhere.

    Args:
        kernel_size, stride, padding: those of the pooling.
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size = per_axis("MaxUnpool2d", "kernel_size", kernel_size, 2, 1)
        self.stride = self.kernel_size if stride is None else per_axis("MaxUnpool2d", "stride", stride, 2, 1)
        self.padding = per_axis("MaxUnpool2d", "padding", padding, 2, 0)

    def forward(self, x: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, C, H, W) and indices of that shape to (N, C, (H - 1) * stride - 2 padding + kernel_size, ...).

        ``output_size`` says which of the input sizes that give (H, W) is meant, where several do.
        """
        return x.max_unpool2d(indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
