"""Convolution layers, plain and transposed, over one to three spatial dimensions.

Like every CNN library they compute cross-correlation: the kernel is not flipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from minigrad.dtypes import DType
from minigrad.errors import ArgumentError
from minigrad.nn import init
from minigrad.nn.module import Module
from minigrad.shapes import per_axis
from minigrad.tensor import Tensor

Size = int | Sequence[int]


class _Conv(Module):
    """What all convolution layers share: arguments, parameters and how they print."""

    rank: ClassVar[int]
    transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        dilation: Size,
        groups: int,
        bias: bool,
        device: str | None,
        dtype: DType | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            got = f"in_channels={in_channels}, out_channels={out_channels}, groups={groups}"
            raise ArgumentError.of(name, "channels that groups divides", got)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, 1)
        self.stride = per_axis(name, "stride", stride, self.rank, 1)
        self.dilation = per_axis(name, "dilation", dilation, self.rank, 1)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        fan_in = math.prod(shape[1:])  # PyTorch's, also where transposed
        self.weight = init.default(*shape, fan_in=fan_in, dtype=dtype, device=device)
        self.bias = init.default(out_channels, fan_in=fan_in, dtype=dtype, device=device) if bias else None

    def extra_repr(self) -> str:
        """The settings, those at their defaults left out."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {"padding": (0,) * self.rank, "output_padding": (0,) * self.rank, "dilation": (1,) * self.rank}
        for name, default in {**defaults, "groups": 1}.items():
            value = getattr(self, name, default)
            if value != default:
                text += f", {name}={value}"
        mode = getattr(self, "padding_mode", "zeros")
        text += "" if self.bias is not None else ", bias=False"
        return text + ("" if mode == "zeros" else f", padding_mode={mode}")


class _ConvNd(_Conv):
    """A convolution layer: (N, in_channels, *S) to (N, out_channels, *O), O = (S - F + 2P)/stride + 1, rounded down.

    Here F is the extent of the kernel, dilation * (kernel_size - 1) + 1, and P the padding.

    Args:
        in_channels: channels of the input.
        out_channels: number of filters.
        kernel_size: size of a filter, one number or one per spatial dimension; so the next three.
        stride: step of the filter.
        padding: zeros on both sides; ``"valid"`` is none, ``"same"`` as many as keep the size (one more at the end
            where the number is odd; stride 1).
        dilation: distance between the taps of a filter.
        groups: parts into which the channels are divided, each convolved on its own.
        bias: whether a number is added to each output channel.
        padding_mode: what stands in the padding, as in :meth:`minigrad.Tensor.pad`: ``"zeros"``, ``"reflect"``,
            ``"replicate"`` or ``"circular"``.
        device: where the parameters live; None is the default device.
        dtype: their dtype; None is float32.

    Attributes:
        weight: (out_channels, in_channels / groups, *kernel_size).
        bias: (out_channels,), or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, device, dtype)
        name = type(self).__name__
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            expected = "padding_mode of 'zeros', 'reflect', 'replicate' or 'circular'"
            raise ArgumentError.of(name, expected, repr(padding_mode))
        self.padding_mode = padding_mode
        self.padding: tuple[int, ...] | str
        if not isinstance(padding, str):
            self.padding = per_axis(name, "padding", padding, self.rank, 0)
        elif padding == "valid" or padding == "same" and all(s == 1 for s in self.stride):
            self.padding = padding
        else:
            raise ArgumentError.of(name, "padding as sizes, 'valid', or 'same' with stride 1", repr(padding))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *S) to (N, out_channels, *O)."""
        padding: Size | str = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            x, padding = x.pad(self._around(), self.padding_mode), 0
        convolve = (Tensor.conv1d, Tensor.conv2d, Tensor.conv3d)[self.rank - 1]
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """The padding as :meth:`minigrad.Tensor.pad` takes it: (before, after) of the last axis, then of the others."""
        if self.padding == "same":
            reach = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation)]
            pairs = [(n // 2, n - n // 2) for n in reach]
        else:
            pairs = [(int(p), int(p)) for p in self.padding]
        return [size for pair in reversed(pairs) for size in pair]


class _ConvTransposeNd(_Conv):
    """A transposed convolution layer: the gradient of a convolution with respect to its input, used as a layer.

    (N, in_channels, *S) to (N, out_channels, *O) with O = (S - 1) * stride - 2P + F + output_padding.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: size of a filter, one number or one per spatial dimension; so the next three and dilation.
        stride: step of the filter in the output.
        padding: rows left out on both sides of the output.
        output_padding: rows added at the end of the output; less than stride or dilation.
        groups: parts into which the channels are divided, each on its own.
        bias: whether a number is added to each output channel.
        dilation: distance between the taps of a filter.
        device: where the parameters live; None is the default device.
        dtype: their dtype; None is float32.

    Attributes:
        weight: (in_channels, out_channels / groups, *kernel_size).
        bias: (out_channels,), or None.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        device: str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, device, dtype)
        name = type(self).__name__
        self.padding = per_axis(name, "padding", padding, self.rank, 0)
        self.output_padding = per_axis(name, "output_padding", output_padding, self.rank, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *S) to (N, out_channels, *O)."""
        convolve = (Tensor.conv_transpose1d, Tensor.conv_transpose2d, Tensor.conv_transpose3d)[self.rank - 1]
        return convolve(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


class Conv1d(_ConvNd):
    """Convolution over (N, C, L)."""

    rank = 1


class Conv2d(_ConvNd):
    """Convolution over (N, C, H, W).

    >>> Conv2d(1, 6, 5, padding=2)(Tensor.zeros(8, 1, 28, 28)).shape
    (8, 6, 28, 28)
    """

    rank = 2


class Conv3d(_ConvNd):
    """Convolution over (N, C, D, H, W)."""

    rank = 3


class ConvTranspose1d(_ConvTransposeNd):
    """Transposed convolution over (N, C, L)."""

    rank = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Transposed convolution over (N, C, H, W).

    >>> ConvTranspose2d(6, 1, 2, stride=2)(Tensor.zeros(8, 6, 14, 14)).shape
    (8, 1, 28, 28)
    """

    rank = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Transposed convolution over (N, C, D, H, W)."""

    rank = 3
