"""One training step: forward, backward, update; captured once and replayed."""

from __future__ import annotations

from functools import partial

from minigrad.checkpoint import checkpoint
from minigrad.jit import jit
from minigrad.mode import autocast
from minigrad.nn.amp import GradScaler
from minigrad.nn.module import Module
from minigrad.nn.optim import Optimizer
from minigrad.nn.training.ema import ExponentialMovingAverage
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.nn.training.recipe import Recipe
from minigrad.nn.utils import clip_grad_norm_
from minigrad.tensor import Tensor


class Step:
    """What a recipe does with a batch.

    Args:
        recipe: precision, label smoothing, clipping, and in how many parts a batch is worked on.
        model: images to logits.
        optimizer: of its parameters.
        preprocessing: from bytes to what the model takes.
        scaler: of the loss; one that is not enabled does nothing.
        ema: follows the weights, if there is one.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Module,
        optimizer: Optimizer,
        preprocessing: Preprocessing,
        scaler: GradScaler,
        ema: ExponentialMovingAverage | None,
    ) -> None:
        self.parts = recipe.accumulate
        parameters = list(model.parameters())
        half = recipe.precision != "float32"
        precision = autocast(recipe.precision if half else "float16", enabled=half)

        @jit
        def run(images: Tensor, labels: Tensor, first: bool, last: bool, share: float) -> tuple[Tensor, Tensor]:
            """A part of a batch, ``share`` of it; gradients of the parts add up, and the last one updates."""
            if first:
                optimizer.zero_grad()
            with precision:
                output = model(preprocessing(images))
                loss = output.cross_entropy(labels, label_smoothing=recipe.label_smoothing) * share
            scaler.scale(loss).backward()
            if last:
                if recipe.clip_norm is not None:
                    scaler.unscale_(optimizer)
                    clip_grad_norm_(parameters, recipe.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                if ema is not None:
                    ema.update()
            logits = getattr(output, "logits", output)  # GoogLeNet has more of them in training
            return loss, (logits.argmax(1) == labels).sum()

        self.run = run

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; gives the mean loss before it, and how many images were right."""
        count = len(labels)
        size = -(-count // self.parts)
        if size == count:
            return self.run(images, labels, True, True, 1.0)  # type: ignore[no-any-return]
        parts = [(images[i : i + size], labels[i : i + size]) for i in range(0, count, size)]
        results = [
            self.run(*part, number == 0, number == len(parts) - 1, len(part[1]) / count)
            for number, part in enumerate(parts)
        ]
        losses, correct = zip(*results)
        return sum(losses[1:], losses[0]), sum(correct[1:], correct[0])


def checkpoint_children(model: Module) -> None:
    """Have each child of ``model`` compute its intermediate results again in the backward pass."""
    for child in model.children():
        child.forward = partial(checkpoint, child.forward)  # type: ignore[method-assign]
