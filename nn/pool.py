"""Pooling layers over one to three spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from minigrad.nn.module import Module
from minigrad.shapes import per_axis
from minigrad.tensor import Tensor

Size = int | Sequence[int]
Sizes = int | Sequence[int | None] | None


def _size(op: str, name: str, value: Size, rank: int, least: int) -> int | tuple[int, ...]:
    """A checked size: one number, or one per spatial dimension."""
    sizes = per_axis(op, name, value, rank, least)
    return sizes if isinstance(value, Sequence) else sizes[0]


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
        self.kernel_size = _size(name, "kernel_size", kernel_size, self.rank, 1)
        self.stride = self.kernel_size if stride is None else _size(name, "stride", stride, self.rank, 1)
        self.padding = _size(name, "padding", padding, self.rank, 0)
        self.dilation = _size(name, "dilation", dilation, self.rank, 1)
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
        self.kernel_size = _size(name, "kernel_size", kernel_size, self.rank, 1)
        self.stride = self.kernel_size if stride is None else _size(name, "stride", stride, self.rank, 1)
        self.padding = _size(name, "padding", padding, self.rank, 0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to (N, C, *O)."""
        pool = (Tensor.avg_pool1d, Tensor.avg_pool2d, Tensor.avg_pool3d)[self.rank - 1]
        return pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptivePoolNd(Module):
    """Pooling over windows that divide the input into ``output_size`` parts as evenly as possible.

    Args:
        output_size: size of the output, one number or one per spatial dimension; None keeps the input's.
    """

    rank: ClassVar[int]

    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The settings."""
        return f"output_size={self.output_size}"


class _AdaptiveAvgPoolNd(_AdaptivePoolNd):
    """The mean over windows that divide the input into ``output_size`` parts as evenly as possible.

    Args:
        output_size: size of the output, one number or one per spatial dimension; None keeps the input's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to (N, C, *O)."""
        pool = (Tensor.adaptive_avg_pool1d, Tensor.adaptive_avg_pool2d, Tensor.adaptive_avg_pool3d)[self.rank - 1]
        return pool(x, self.output_size)


class _AdaptiveMaxPoolNd(_AdaptivePoolNd):
    """The largest value in windows that divide the input into ``output_size`` parts as evenly as possible.

    Args:
        output_size: size of the output, one number or one per spatial dimension; None keeps the input's.
        return_indices: whether to give also where the values were: positions in the flattened spatial dimensions.
    """

    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """(N, C, *S) to (N, C, *O), or with ``return_indices`` to a pair of these."""
        pool = (Tensor.adaptive_max_pool1d, Tensor.adaptive_max_pool2d, Tensor.adaptive_max_pool3d)[self.rank - 1]
        return pool(x, self.output_size, self.return_indices)


class _MaxUnpoolNd(Module):
    """Puts pooled values back where max pooling with ``return_indices`` found them, with zeros elsewhere.

    Args:
        kernel_size: that of the pooling; so the next two.
        stride: None is the size of the window.
        padding: as said.
    """

    rank: ClassVar[int]

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, 1)
        self.stride = self.kernel_size if stride is None else per_axis(name, "stride", stride, self.rank, 1)
        self.padding = per_axis(name, "padding", padding, self.rank, 0)

    def forward(self, x: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, C, *S) and indices of that shape to (N, C, (S - 1) * stride - 2 padding + kernel_size).

        ``output_size`` says which of the input sizes that give S is meant, where several do.
        """
        unpool = (Tensor.max_unpool1d, Tensor.max_unpool2d, Tensor.max_unpool3d)[self.rank - 1]
        return unpool(x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


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

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Adaptive average pooling over (N, C, H, W).

    >>> AdaptiveAvgPool2d(1)(Tensor.zeros(8, 512, 7, 7)).shape
    (8, 512, 1, 1)
    """

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Adaptive average pooling over (N, C, D, H, W)."""

    rank = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Adaptive max pooling over (N, C, L)."""

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Adaptive max pooling over (N, C, H, W).

    >>> AdaptiveMaxPool2d((2, None))(Tensor.zeros(8, 6, 7, 5)).shape
    (8, 6, 2, 5)
    """

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Adaptive max pooling over (N, C, D, H, W)."""

    rank = 3


class MaxUnpool1d(_MaxUnpoolNd):
    """Inverse of :class:`MaxPool1d`."""

    rank = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Inverse of :class:`MaxPool2d`.

    >>> values, indices = MaxPool2d(2, return_indices=True)(Tensor([[[[1.0, 2.0], [4.0, 3.0]]]]))
    >>> MaxUnpool2d(2)(values, indices).tolist()
    [[[[0.0, 0.0], [4.0, 0.0]]]]
    """

    rank = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Inverse of :class:`MaxPool3d`."""

    rank = 3
