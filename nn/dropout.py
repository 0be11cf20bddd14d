"""Dropout."""

from __future__ import annotations

from minigrad.errors import ArgumentError
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class _Dropout(Module):
    """What dropout layers share.

    Args:
        p: the probability, in [0, 1].
        inplace: accepted, as in PyTorch, and without effect.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError.of(type(self).__name__, "a probability in [0, 1]", p)
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zero each element with probability ``p`` and scale the others by 1/(1-p); else the identity.

    Srivastava et al., 2014.

    Args:
        p: the probability, in [0, 1].
        inplace: accepted, as in PyTorch, and without effect.

    >>> layer = Dropout(0.5).eval()
    >>> layer(Tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of any shape, with elements dropped in training."""
        return x.dropout(self.p, self.training)


class Dropout1d(_Dropout):
    """Dropout of whole channels of (N, C, L) or (C, L); arguments as :class:`Dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with channels dropped in training."""
        return x.dropout1d(self.p, self.training)


class Dropout2d(_Dropout):
    """Dropout of whole channels of (N, C, H, W) or (C, H, W) (Tompson et al., 2015); arguments as :class:`Dropout`.

    Neighbouring pixels are alike: dropping some of them takes little information away, dropping their channel does.

    >>> kept = Dropout2d(0.5)(Tensor.ones(8, 6, 5, 4)).sum((2, 3))
    >>> sorted(set(kept.flatten().tolist()))
    [0.0, 40.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with channels dropped in training."""
        return x.dropout2d(self.p, self.training)


class Dropout3d(_Dropout):
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W); arguments as :class:`Dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with channels dropped in training."""
        return x.dropout3d(self.p, self.training)
