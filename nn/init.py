"""Initialisers: in place on tensors, as in PyTorch.

He et al. (2015) keep the variance of activations through ReLU layers, Glorot and Bengio (2010, "Xavier") through tanh
layers: both scale by the number of inputs (fan in) or outputs (fan out) of a unit.
"""

from __future__ import annotations

import math

from minigrad.dtypes import DType
from minigrad.errors import ArgumentError, ShapeError
from minigrad.mode import no_grad
from minigrad.tensor import Tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity asks weights to grow, so that variance is kept.

    Args:
        nonlinearity: ``linear``, ``conv1d`` and the like, ``sigmoid``, ``tanh``, ``relu``, ``leaky_relu`` or ``selu``.
        param: the negative slope of ``leaky_relu``; 0.01 by default.

    Raises:
        ArgumentError: if the name is not one of these.

    >>> calculate_gain("tanh"), round(calculate_gain("relu") ** 2, 6)
    (1.6666666666666667, 2.0)
    """
    linear = ("linear", "sigmoid", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)))
    slope = 0.01 if param is None else param
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + slope**2)), "selu": 3 / 4}
    gains.update(dict.fromkeys(linear, 1.0))
    if nonlinearity not in gains:
        raise ArgumentError.of("calculate_gain", f"one of {', '.join(gains)}", repr(nonlinearity))
    return gains[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Fan in and fan out of a weight of shape (outputs, inputs, *kernel).

    Raises:
        ShapeError: if it has fewer than two dimensions.

    >>> fans((6, 1, 5, 5))
    (25, 150)
    """
    if len(shape) < 2:
        raise ShapeError.of("fans", "a weight of at least 2 dimensions", shape, "initialise biases with zeros_")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with numbers uniform on [a, b)."""
    return _fill(tensor, Tensor.uniform(*tensor.shape, low=a, high=b, dtype=tensor.dtype, device=tensor.device))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with normal numbers of the given mean and standard deviation."""
    return _fill(tensor, Tensor.randn(*tensor.shape, dtype=tensor.dtype, device=tensor.device) * std + mean)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number."""
    return _fill(tensor, Tensor.full(tensor.shape, val, dtype=tensor.dtype, device=tensor.device))


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Fill uniformly with variance gain^2 / fan (He et al., 2015).

    Args:
        tensor: a weight of shape (outputs, inputs, *kernel).
        a: negative slope of the nonlinearity, for ``leaky_relu``.
        mode: ``fan_in`` keeps the variance forward, ``fan_out`` backward.
        nonlinearity: a name that :func:`calculate_gain` knows.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Fill with normal numbers of variance gain^2 / fan (He et al., 2015); arguments as :func:`kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill uniformly with variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    bound = math.sqrt(3) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill with normal numbers of variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain))


def default(*shape: int, fan_in: int, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """A new parameter of a linear or convolution layer: uniform within 1/sqrt(fan_in).

    That is PyTorch's default for weights, ``kaiming_uniform_(a=sqrt(5))``, and for biases.
    """
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return Tensor.uniform(*shape, low=-bound, high=bound, dtype=dtype, device=device, requires_grad=True)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError.of("kaiming initialisation", "mode 'fan_in' or 'fan_out'", repr(mode))
    fan = fans(tensor.shape)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2 / max(sum(fans(tensor.shape)), 1))


def _fill(tensor: Tensor, value: Tensor) -> Tensor:
    with no_grad():
        tensor.assign(value)
    return tensor
