"""Losses as layers."""

from __future__ import annotations

from minigrad.nn.module import Module
from minigrad.tensor import Tensor


class _Loss(Module):
    """What losses share: ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` (one value per element)."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """-log softmax(x)[target]: for classifiers, on logits.

    Args:
        weight: a weight per class, of shape (C,); the mean is then weighted.
        ignore_index: a class whose examples do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: share of the target spread evenly over all classes.

    >>> round(CrossEntropyLoss()(Tensor([[0.0, 0.0]]), Tensor([1])).item(), 4)
    0.6931
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.weight: Tensor | None
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C, ...) and classes (N, ...) or probabilities (N, C, ...) to a scalar, or (N, ...)."""
        return input.cross_entropy(target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class NLLLoss(_Loss):
    """-x[target]: for classifiers, on log-probabilities. Arguments as :class:`CrossEntropyLoss`."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.weight: Tensor | None
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, ...) and classes (N, ...) to a scalar, or (N, ...)."""
        return input.nll_loss(target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """The square of the difference."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.mse_loss(target, reduction=self.reduction)


class L1Loss(_Loss):
    """The absolute difference."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.l1_loss(target, reduction=self.reduction)


class HuberLoss(_Loss):
    """Half the squared difference d up to ``delta``, then ``delta`` * (abs(d) - ``delta`` / 2) (Huber, 1964).

    >>> HuberLoss()(Tensor([0.0, 3.0]), Tensor([1.0, 0.0])).item()
    1.5
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.huber_loss(target, self.reduction, self.delta)


class SmoothL1Loss(_Loss):
    """:class:`HuberLoss` divided by ``beta``, its delta; the absolute difference where that is 0 (Girshick, 2015)."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.smooth_l1_loss(target, self.reduction, self.beta)


class KLDivLoss(_Loss):
    """t * (log t - x), on log-probabilities x: the divergence of the targets t from the predictions.

    Args:
        reduction: also ``"batchmean"``, the sum divided by the size of the first axis: the divergence proper.
        log_target: whether targets are logarithms too.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.kl_div(target, self.reduction, self.log_target)


class BCELoss(_Loss):
    """-t log x - (1 - t) log(1 - x), on probabilities; logarithms are kept above -100.

    Args:
        weight: a factor of each element's loss, of a shape that broadcasts.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.binary_cross_entropy(target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of sigmoid(x), computed without overflow from the logits x.

    Args:
        weight: a factor of each element's loss, of a shape that broadcasts.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: a factor of the terms of target 1, of a shape that broadcasts.
    """

    def __init__(
        self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.weight: Tensor | None
        self.pos_weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar, or that shape."""
        return input.binary_cross_entropy_with_logits(target, self.weight, self.reduction, self.pos_weight)
