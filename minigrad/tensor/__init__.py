"""The tensor. Its methods come in layers: each file adds one family to the class of the file before it."""

from __future__ import annotations

from minigrad.tensor.loss import LossMethods


class Tensor(LossMethods):
    """A lazy n-dimensional array that records how it was computed.

    Operations return at once; values are computed when they are looked at (``numpy``, ``item``, ``print``), together,
    in few kernels. The methods are PyTorch's.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """

    __slots__ = ()


__all__ = ["Tensor"]
