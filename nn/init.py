"""Initialisers: in place on tensors, as in PyTorch.

He et al. (2015) keep the variance of activations through ReLU layers, Glorot and Bengio (2010, "Xavier") through tanh
layers: both scale by the number of inputs (fan in) or outputs (fan out) of a unit.
"""

from __future__ import annotations

import math

import numpy as np

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


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill with normal numbers of the given mean and standard deviation, of those that lie in [a, b].

    The bounds are numbers, not multiples of ``std``, as in PyTorch. What is drawn are uniform numbers, which go through
    the inverse of the normal distribution function.

    Raises:
        ArgumentError: unless a < b and std > 0.
    """
    if not (a < b and std > 0):
        raise ArgumentError.of("trunc_normal_", "a < b and std above 0", f"a={a}, b={b}, std={std}")
    # Of the smaller tail, so that bounds far on one side of the mean do not both become 1.
    side = -1.0 if a + b > 2 * mean else 1.0
    low, high = sorted(side * (bound - mean) / (std * math.sqrt(2)) for bound in (a, b))
    share = Tensor.uniform(*tensor.shape, low=math.erfc(-low) / 2, high=math.erfc(-high) / 2, device=tensor.device)
    normal = _erfinv(share) * (side * std * math.sqrt(2)) + mean
    return _fill(tensor, normal.clip(a, b).cast(tensor.dtype))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number."""
    return _fill(tensor, Tensor.full(tensor.shape, val, dtype=tensor.dtype, device=tensor.device))


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity.

    Raises:
        ShapeError: if it is no matrix.
    """
    if tensor.ndim != 2:
        raise ShapeError.of("eye_", "a matrix", tensor.shape)
    rows, columns = tensor.shape
    return _fill(tensor, Tensor.eye(rows, columns, dtype=tensor.dtype, device=tensor.device))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill the weight of a convolution so that it gives back its input, as many channels as there are.

    Args:
        tensor: of shape (outputs, inputs, *kernel), with one to three spatial dimensions.
        groups: parts of the outputs, each of which gives back the inputs.

    Raises:
        ShapeError: if it has another number of dimensions.
        ArgumentError: if ``groups`` does not divide the outputs.

    >>> dirac_(Tensor.zeros(2, 2, 3)).tolist()
    [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError.of("dirac_", "a weight (outputs, inputs, *kernel) of 3 to 5 dimensions", tensor.shape)
    outputs, inputs, *kernel = tensor.shape
    if groups < 1 or outputs % groups:
        raise ArgumentError.of("dirac_", f"groups that divide {outputs} outputs", groups)
    weight = np.zeros(tensor.shape, "float32")
    each = outputs // groups
    for group in range(groups):
        for channel in range(min(each, inputs)):
            weight[(group * each + channel, channel, *(size // 2 for size in kernel))] = 1
    return _fill(tensor, Tensor(weight, tensor.dtype, tensor.device))


def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill with rows (or, where there are more of them than columns, columns) that are orthogonal, of length ``gain``.

    Saxe et al., 2014. All axes but the first count as columns. Normal numbers are read and decomposed by NumPy.

    Raises:
        ShapeError: if it has fewer than 2 dimensions.
    """
    if tensor.ndim < 2:
        raise ShapeError.of("orthogonal_", "a weight of at least 2 dimensions", tensor.shape)
    if not tensor.numel():
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    random = Tensor.randn(rows, columns, device=tensor.device).numpy().astype("float64")
    basis, triangle = np.linalg.qr(random if rows >= columns else random.T)
    basis *= np.where(np.diag(triangle) < 0, -gain, gain)  # else not all orthogonal matrices are equally likely
    weight = (basis if rows >= columns else basis.T).reshape(tensor.shape)
    return _fill(tensor, Tensor(np.ascontiguousarray(weight), tensor.dtype, tensor.device))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01) -> Tensor:
    """Fill a matrix with normal numbers of mean 0, and a share of each column, chosen at random, with zeros.

    Martens, 2010.

    Args:
        tensor: a matrix.
        sparsity: the share of zeros, rounded up to whole rows.
        std: standard deviation of the others.

    Raises:
        ShapeError: if it is no matrix.
    """
    if tensor.ndim != 2:
        raise ShapeError.of("sparse_", "a matrix", tensor.shape)
    zeros = math.ceil(sparsity * tensor.shape[0])
    rank = Tensor.rand(*tensor.shape, device=tensor.device).argsort(0).argsort(0)
    values = Tensor.normal(*tensor.shape, std=std, dtype=tensor.dtype, device=tensor.device)
    return _fill(tensor, Tensor.where(rank < zeros, 0.0, values))


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


def _erfinv(share: Tensor) -> Tensor:
    """The x at which (1 + erf(x)) / 2 is ``share``, in float32 (Giles, "Approximating the erfinv function", 2010)."""
    y = 2 * share - 1
    w = -(4 * share * (1 - share)).log()
    middle, tail = w - 2.5, w.sqrt() - 3
    p, q = Tensor.zeros_like(w), Tensor.zeros_like(w)
    for a, b in zip(_MIDDLE, _TAIL):
        p, q = p * middle + a, q * tail + b
    chosen: Tensor = Tensor.where(w < 5, p, q)
    return chosen * y


_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def _fill(tensor: Tensor, value: Tensor) -> Tensor:
    with no_grad():
        tensor.assign(value)
    return tensor
