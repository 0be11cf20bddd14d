"""Activation functions as layers.

``inplace`` is accepted, as in PyTorch, and changes nothing: fused elementwise operations store no intermediate results.
"""

from __future__ import annotations

from typing import ClassVar

from minigrad import dtypes
from minigrad.dtypes import DType
from minigrad.errors import ShapeError
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class _Activation(Module):
    """What activation layers share: how their settings print."""

    shown: ClassVar[tuple[str, ...]] = ()
    inplace: bool = False

    def extra_repr(self) -> str:
        """The settings."""
        settings = [f"{name}={getattr(self, name)!r}" for name in self.shown]
        return ", ".join(settings + ["inplace=True"] * self.inplace)


class _InPlace(_Activation):
    """An activation layer without other settings than ``inplace``."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class _Along(_Activation):
    """An activation layer along one axis."""

    shown = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim


class ReLU(_InPlace):
    """max(x, 0); NaN stays NaN."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.relu()


class ReLU6(_InPlace):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.relu6()


class LeakyReLU(_Activation):
    """x where it is positive, else ``negative_slope`` * x."""

    shown = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.leaky_relu(self.negative_slope)


class PReLU(_Activation):
    """x where it is positive, else ``weight`` * x (He et al., 2015).

    Args:
        num_parameters: 1, or the number of channels (axis 1): a slope for each.
        init: the slopes at first.
        device: where they live; None is the default device.
        dtype: their dtype; None is float32.

    Attributes:
        weight: the slopes, of shape (num_parameters,).
    """

    shown = ("num_parameters",)

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: str | None = None, dtype: DType | None = None
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Tensor.full(num_parameters, init, dtype or dtypes.float32, device, requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same."""
        return x.prelu(self.weight)


class ELU(_Activation):
    """x where it is positive, else ``alpha`` * (exp(x) - 1) (Clevert et al., 2016)."""

    shown = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.elu(self.alpha)


class SELU(_InPlace):
    """ELU, scaled so that activations normalise themselves (Klambauer et al., 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.selu()


class CELU(_Activation):
    """x where it is positive, else ``alpha`` * (exp(x / ``alpha``) - 1) (Barron, 2017)."""

    shown = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.celu(self.alpha)


class GELU(_Activation):
    """x times the normal distribution function of x (Hendrycks and Gimpel, 2016).

    Args:
        approximate: ``"none"`` for erf, ``"tanh"`` for the usual approximation.
    """

    shown = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.gelu(self.approximate)


class SiLU(_InPlace):
    """x * sigmoid(x), also called swish (Elfwing et al., 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.silu()


class Mish(_InPlace):
    """x * tanh(softplus(x)) (Misra, 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.mish()


class Softplus(_Activation):
    """log(1 + exp(``beta`` * x)) / ``beta``; x itself where ``beta`` * x is above ``threshold``."""

    shown = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.softplus(self.beta, self.threshold)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.sigmoid()


class LogSigmoid(_Activation):
    """log(sigmoid(x)), without overflow."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.logsigmoid()


class Hardsigmoid(_InPlace):
    """relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.hardsigmoid()


class Hardswish(_InPlace):
    """x * relu6(x + 3) / 6 (Howard et al., 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.hardswish()


class Tanh(_Activation):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.tanh()


class Tanhshrink(_Activation):
    """x - tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.tanhshrink()


class Hardtanh(_Activation):
    """x clipped to [``min_val``, ``max_val``]."""

    shown = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val, self.max_val = min_val, max_val
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.hardtanh(self.min_val, self.max_val)


class Softsign(_Activation):
    """x / (1 + abs(x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.softsign()


class Softshrink(_Activation):
    """x moved towards 0 by ``lambd``, or 0 where it is not further from 0 than that."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.softshrink(self.lambd)

    def extra_repr(self) -> str:
        """The setting."""
        return str(self.lambd)


class Hardshrink(_Activation):
    """x, or 0 where it is not further from 0 than ``lambd``."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.hardshrink(self.lambd)

    def extra_repr(self) -> str:
        """The setting."""
        return str(self.lambd)


class Threshold(_Activation):
    """x where it is above ``threshold``, else ``value``."""

    shown = ("threshold", "value")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value = threshold, value
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x.threshold(self.threshold, self.value)


class GLU(_Along):
    """The first half of axis ``dim`` times the sigmoid of the second half (Dauphin et al., 2017).

    >>> GLU()(Tensor.zeros(2, 3, 8)).shape
    (2, 3, 4)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Half as long along ``dim``."""
        return x.glu(self.dim)


class Softmax(_Along):
    """exp(x) normalised to sum 1 along ``dim``.

    >>> Softmax(dim=-1)(Tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.softmax(self.dim)


class Softmin(_Along):
    """Softmax of -x along ``dim``."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.softmin(self.dim)


class LogSoftmax(_Along):
    """The logarithm of softmax along ``dim``, computed without overflow."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.log_softmax(self.dim)


class Softmax2d(_Activation):
    """Softmax over the channels of each position: of (N, C, H, W) or (C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if x.ndim not in (3, 4):
            raise ShapeError.of("Softmax2d", "an input (N, C, H, W) or (C, H, W)", x.shape)
        return x.softmax(-3)
