"""Dropout."""

from __future__ import annotations

from minigrad.errors import ArgumentError
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class Dropout(Module):
    """In training, zero each element with probability ``p`` and scale the others by 1/(1-p); else the identity.

    Srivastava et al., 2014.

    Args:
        p: the probability, in [0, 1].
        inplace: accepted, as in PyTorch, and without effect.

    >>> layer = Dropout(0.5).eval()
    >>> layer(Tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError.of("Dropout", "a probability in [0, 1]", p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of any shape, with elements dropped in training."""
        return x.dropout(self.p, self.training)

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}"
