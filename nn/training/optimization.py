"""The optimizer of a recipe, and how its learning rate changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minigrad.nn import lr_scheduler
from minigrad.nn.lr_scheduler import LRScheduler
from minigrad.nn.optim import SGD, Adam, AdamW, Optimizer
from minigrad.nn.training.recipe import Recipe
from minigrad.tensor import Tensor


def make_optimizer(recipe: Recipe, parameters: Iterable[Tensor]) -> Optimizer:
    """The optimizer that a recipe names."""
    lr, decay = recipe.lr, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return SGD(parameters, lr, recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov)
    return (Adam if recipe.optimizer == "adam" else AdamW)(parameters, lr, weight_decay=decay)


class Schedule:
    """The learning rate of a recipe: most schedules go on at every step, those that look at a measure at every epoch.

    Args:
        recipe: names the schedule and its numbers, in epochs.
        optimizer: whose rate it sets.
        steps: in an epoch.
    """

    def __init__(self, recipe: Recipe, optimizer: Optimizer, steps: int) -> None:
        self.optimizer = optimizer
        total, warmup = recipe.epochs * steps, round(recipe.warmup * steps)
        self.of_epochs: lr_scheduler.ReduceLROnPlateau | None = None
        self.of_steps: LRScheduler | None = None
        parts: list[LRScheduler] = []
        if recipe.schedule == "one-cycle":
            peak, cycles = recipe.warmup / recipe.epochs or 0.3, recipe.optimizer != "sgd" or recipe.momentum > 0
            self.of_steps = lr_scheduler.OneCycleLR(optimizer, recipe.lr, total, pct_start=peak, cycle_momentum=cycles)
            return
        if warmup:
            parts.append(lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup))
        if recipe.schedule == "cosine":
            parts.append(lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(total - warmup, 1)))
        elif recipe.schedule == "milestones":
            milestones = [round(epoch * steps) - warmup for epoch in recipe.milestones]
            parts.append(lr_scheduler.MultiStepLR(optimizer, milestones, recipe.gamma))
        elif recipe.schedule == "plateau":
            self.of_epochs = lr_scheduler.ReduceLROnPlateau(
                optimizer, mode="max", factor=recipe.gamma, patience=recipe.patience, threshold_mode="abs"
            )
        if len(parts) == 2:
            self.of_steps = lr_scheduler.SequentialLR(optimizer, parts, milestones=[warmup])
        elif parts:
            (self.of_steps,) = parts

    @property
    def rates(self) -> Sequence[float]:
        """The learning rates now, of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def after_step(self) -> None:
        """Set the rate of the next step."""
        if self.of_steps is not None:
            self.of_steps.step()

    def after_epoch(self, accuracy: float) -> None:
        """Set the rate of the next epoch."""
        if self.of_epochs is not None:
            self.of_epochs.step(accuracy)

    def replay(self, steps: int, accuracies: Iterable[float]) -> None:
        """Set the rate as it would be after ``steps`` steps, and epochs with these accuracies."""
        for _ in range(steps):
            self.after_step()
        for accuracy in accuracies:
            self.after_epoch(accuracy)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is; the rates are part of the optimizer's state."""
        parts = {"of_steps": self.of_steps, "of_epochs": self.of_epochs}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called."""
        for name in state:
            getattr(self, name).load_state_dict(state[name])
