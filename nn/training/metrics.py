"""What is measured while training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
                hint = "try a smaller learning rate; look for broken images, and for labels that are no class"
                raise DivergedError.of("training", "a finite loss", value, hint)
            self.loss += value * count
            self.correct += correct.item()
            self.count += count
        self.pending.clear()
        return self.loss / max(self.count, 1), self.correct / max(self.count, 1)

    def state_dict(self) -> dict[str, float]:
        """The sums, once read."""
        self.read()
        return {"loss": self.loss, "correct": self.correct, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.loss, self.correct, self.count = state["loss"], state["correct"], state["count"]
        self.pending.clear()


@dataclass
class Best:
    """The best accuracy so far, and how many epochs have passed since without a better one.

    >>> best = Best(patience=2)
    >>> [best.note(accuracy) for accuracy in (0.5, 0.7, 0.6, 0.7)], best.is_out_of_patience
    ([True, True, False, False], True)
    """

    patience: int | None = None  # None: endless
    value: float = -math.inf
    stale: int = 0

    def note(self, value: float) -> bool:
        """Whether another epoch's accuracy is better than all before."""
        better = value > self.value
        self.value, self.stale = (value, 0) if better else (self.value, self.stale + 1)
        return better

    @property
    def is_out_of_patience(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and self.stale >= self.patience
