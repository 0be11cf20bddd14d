"""An exponential moving average of a network's weights, which often does better than the last of them."""

from __future__ import annotations

import copy

from minigrad import dtypes
from minigrad.errors import ArgumentError
from minigrad.mode import no_grad
from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class ExponentialMovingAverage:
    """Follows the weights of a model: ``average = d * average + (1 - d) * weight`` (Polyak and Juditsky, 1992).

    After ``t`` updates d is ``decay`` or, if less, (1 + t) / (10 + t), so that the first weights are soon forgotten.
    Parameters and buffers of floats are averaged, others copied. Nothing is read: updates work in captured steps.

    Args:
        model: whose weights are followed.
        decay: in (0, 1).

    Attributes:
        model: another module of the same kind, in evaluation mode, with the averages as its weights.
        updates: how many there were, a 0-d tensor.

    >>> from minigrad import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> average = ExponentialMovingAverage(net, decay=0.9)
    >>> before = net.weight.item()
    >>> with no_grad():
    ...     _ = net.weight.assign(before + 1.0)
    >>> average.update()
    >>> round(average.model.weight.item() - before, 3)  # d is 2/11
    0.818

    Raises:
        ArgumentError: if the decay is out of range.
    """

    def __init__(self, model: Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ArgumentError.of("ExponentialMovingAverage", "a decay in (0, 1)", decay)
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        followed = [*model.parameters(), *model.buffers()]
        self._pairs = list(zip([*self.model.parameters(), *self.model.buffers()], followed, strict=True))
        self.updates = Tensor(0.0, dtypes.float32, followed[0].device if followed else None)

    def update(self) -> None:
        """Move the averages towards the weights as they are now."""
        with no_grad():
            self.updates.assign(self.updates + 1)
            decay = ((1 + self.updates) / (10 + self.updates)).minimum(self.decay)
            for average, value in self._pairs:
                if average.dtype.is_float:
                    average.assign(value + decay.cast(value.dtype) * (average - value))
                else:
                    average.assign(value)
