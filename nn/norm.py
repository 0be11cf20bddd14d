"""Normalisation layers: over batches, instances, groups and layers, and by neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import ArgumentError
from minigrad.mode import no_grad
from minigrad.nn.module import Module
from minigrad.shapes import Shape, as_shape
from minigrad.tensor import Tensor


class _Affine(Module):
    """A module with a weight of ones, and a bias of zeros; either may be None."""

    weight: Tensor | None
    bias: Tensor | None

    def _make(self, shape: Shape, weight: bool, bias: bool, device: str | None, dtype: DType | None) -> None:
        for name, value, wanted in (("weight", 1.0, weight), ("bias", 0.0, weight and bias)):
            made = Tensor.full(shape, value, dtype or dtypes.float32, device, requires_grad=True) if wanted else None
            self.register_parameter(name, made)


class _Norm(_Affine):
    """What batch and instance normalisation share: parameters and running statistics of each channel."""

    optional_state = frozenset({"num_batches_tracked"})  # older files lack it
    ranks: ClassVar[tuple[int, ...]]  # how many axes an input may have

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: str | None, dtype: DType | None, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._make((num_features,), affine, bias, device, dtype)
        kind = dtype or dtypes.float32
        statistics = {
            "running_mean": Tensor.zeros(num_features, dtype=kind, device=device),
            "running_var": Tensor.ones(num_features, dtype=kind, device=device),
            "num_batches_tracked": Tensor.zeros(dtype=dtypes.int64, device=device),
        }
        for name, tensor in statistics.items():
            self.register_buffer(name, tensor if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Start the running statistics anew: mean 0, variance 1, no batches."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with no_grad():
                self.running_mean.zero_()
                self.running_var.fill_(1.0)
                self.num_batches_tracked.zero_()

    def _check(self, x: Tensor, channel_axis: int = 1) -> None:
        name = type(self).__name__
        if x.ndim not in self.ranks:
            raise ArgumentError.of(name, f"an input of {' or '.join(map(str, self.ranks))} dimensions", x.shape)
        if x.shape[channel_axis] != self.num_features:
            raise ArgumentError.of(name, f"{self.num_features} channels (num_features)", x.shape)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Norm):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with statistics of each channel (Ioffe and Szegedy, 2015).

    In training they are those of the batch, with the variance divided by the number of values, and the running ones
    follow: ``running = (1 - momentum) * running + momentum * new``, with the variance divided by one less. In
    evaluation they are the running ones.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of the new statistics; None averages over all batches so far.
        affine: whether there are a weight and, unless ``bias`` is False, a bias.
        track_running_stats: whether there are running statistics; without them evaluation is as training.
        device: where parameters and statistics live; None is the default device.
        dtype: their dtype; None is float32.
        bias: as said.

    Attributes:
        weight: (C,), or None.
        bias: (C,), or None.
        running_mean: (C,), or None; a buffer.
        running_var: (C,), or None; a buffer.
        num_batches_tracked: batches seen in training, int64, or None; a buffer.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: str | None = None, dtype: DType | None = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to the same."""
        self._check(x)
        mean, variance, seen = self.running_mean, self.running_var, self.num_batches_tracked
        if mean is None or seen is None or not self.training:
            return x.batch_norm(mean, variance, self.weight, self.bias, mean is None, 0.0, self.eps)
        share: float | Tensor | None = self.momentum
        if share is None:
            share = (seen + 1).cast(dtypes.promote(mean.dtype, dtypes.float32)).reciprocal()
        out = x.batch_norm(mean, variance, self.weight, self.bias, True, share, self.eps)
        with no_grad():
            seen.add_(1)
        return out


class _InstanceNorm(_Norm):
    """Batch normalisation of each example by itself, in training and evaluation (Ulyanov et al., 2016).

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of the new statistics, if there are running ones.
        affine: whether there are a weight and, unless ``bias`` is False, a bias.
        track_running_stats: whether there are running statistics, which evaluation then uses.
        device: where parameters and statistics live; None is the default device.
        dtype: their dtype; None is float32.
        bias: as said.

    Attributes:
        weight: (C,), or None.
        bias: (C,), or None.
        running_mean: (C,), or None; a buffer.
        running_var: (C,), or None; a buffer.
        num_batches_tracked: a buffer that stays 0, as in PyTorch; or None.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: str | None = None, dtype: DType | None = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S), or (C, *S), to the same."""
        single = x.ndim == self.ranks[0]
        self._check(x, 0 if single else 1)
        own = self.training or not self.track_running_stats
        out = (x.unsqueeze(0) if single else x).instance_norm(
            self.running_mean, self.running_var, self.weight, self.bias, own, self.momentum or 0.0, self.eps
        )
        return out.squeeze(0) if single else out


class BatchNorm1d(_BatchNorm):
    """Batch normalisation over (N, C) or (N, C, L).

    >>> BatchNorm1d(2, affine=False, eps=0.0)(Tensor([[1.0, -5.0], [3.0, 5.0]])).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation over (N, C, H, W).

    >>> layer = BatchNorm2d(6)
    >>> layer(Tensor.rand(8, 6, 14, 10)).shape, layer.num_batches_tracked.item()
    ((8, 6, 14, 10), 1)
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation over (N, C, D, H, W)."""

    ranks = (5,)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation over (N, C, L) or (C, L)."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation over (N, C, H, W) or (C, H, W).

    >>> round(InstanceNorm2d(2)(Tensor.rand(3, 2, 6, 5))[1, 1].var(correction=0).item(), 2)
    1.0
    """

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation over (N, C, D, H, W) or (C, D, H, W)."""

    ranks = (4, 5)


class GroupNorm(_Affine):
    """Normalisation over groups of channels of each example (Wu and He, 2018).

    Args:
        num_groups: into how many the channels are divided.
        num_channels: C.
        eps: added to the variance.
        affine: whether there are a weight and, unless ``bias`` is False, a bias.
        device: where the parameters live; None is the default device.
        dtype: their dtype; None is float32.
        bias: as said.

    Attributes:
        weight: (C,), or None.
        bias: (C,), or None.

    >>> GroupNorm(3, 6)(Tensor.rand(8, 6, 14, 10)).shape
    (8, 6, 14, 10)
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: str | None = None, dtype: DType | None = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ArgumentError.of("GroupNorm", "num_groups that divides num_channels", f"{num_groups}, {num_channels}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._make((num_channels,), affine, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to the same."""
        return x.group_norm(self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(_Affine):
    """Normalisation over the last axes (Ba et al., 2016).

    Args:
        normalized_shape: sizes of these axes.
        eps: added to the variance.
        elementwise_affine: whether there is a weight.
        bias: whether there is a bias, too.
        device: where the parameters live; None is the default device.
        dtype: their dtype; None is float32.

    Attributes:
        weight: of ``normalized_shape``, or None.
        bias: of ``normalized_shape``, or None.

    >>> LayerNorm(4)(Tensor.rand(2, 3, 4)).shape
    (2, 3, 4)
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: str | None = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = as_shape("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._make(self.normalized_shape, elementwise_affine, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(*, *normalized_shape) to the same."""
        return x.layer_norm(self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(_Affine):
    """Division by the root of the mean square over the last axes (Zhang and Sennrich, 2019).

    Args:
        normalized_shape: sizes of these axes.
        eps: added to the mean; None is the distance from 1 to the next number of the dtype.
        elementwise_affine: whether there is a weight.
        device: where it lives; None is the default device.
        dtype: its dtype; None is float32.

    Attributes:
        weight: of ``normalized_shape``, or None.

    >>> RMSNorm(2)(Tensor([[3.0, -3.0]])).tolist()
    [[1.0, -1.0]]
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True,
        device: str | None = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = as_shape("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._make(self.normalized_shape, elementwise_affine, False, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(*, *normalized_shape) to the same."""
        return x.rms_norm(self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """Each value damped by its neighbours in other channels: x / (k + alpha * mean(x^2))^beta.

    Krizhevsky et al., 2012, section 3.3; their alpha, the factor of the sum, is this one divided by ``size``.

    Args:
        size: how many channels the mean is over, with zeros beyond the first and last.
        alpha: the factor of the mean.
        beta: the exponent.
        k: the constant.

    >>> LocalResponseNorm(5)(Tensor.ones(2, 6, 4, 3)).shape
    (2, 6, 4, 3)
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) to the same."""
        return x.local_response_norm(self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
