"""What is measured while training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from minigrad.errors import DivergedError
from minigrad.tensor import Tensor


@dataclass
class Meter:
    """Mean loss and accuracy of what was added; the device is asked only when they are read."""

    loss: float = 0.0
    correct: float = 0.0
    count: int = 0
    pending: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """Note the mean loss of ``count`` images and how many of them were right."""
        self.pending.append((loss, correct, count))

    def read(self) -> tuple[float, float]:
        """Mean loss and accuracy so far.

        Raises:
            DivergedError: if a loss is infinite or NaN.
        """
        for loss, correct, count in self.pending:
            value = loss.item()
            if not math.isfinite(value):
                hint = "try a smaller learning rate; look for broken images or labels"
                raise DivergedError.of("training", "a finite loss", value, hint)
            self.loss += value * count
            self.correct += correct.item()
            self.count += count
        self.pending.clear()
        return self.loss / max(self.count, 1), self.correct / max(self.count, 1)
