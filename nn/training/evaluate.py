"""How good a network is on images that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from minigrad.jit import jit
from minigrad.mode import no_grad
from minigrad.nn.data import DataLoader, TensorDataset
from minigrad.nn.module import Module
from minigrad.tensor import Tensor

Array = npt.NDArray[Any]


def evaluate(
    model: Module, images: Array, labels: Array, preprocessing: Callable[[Tensor], Tensor], batch_size: int = 1000
) -> float:
    """The share of images whose largest logit is that of their label; leaves the model in evaluation mode."""
    model.eval()

    @jit
    def count_correct(images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = model(preprocessing(images))
        return (logits.argmax(1) == labels).sum()

    correct = 0
    with no_grad():
        for x, y in DataLoader(TensorDataset(images, labels.astype("int64")), batch_size):
            correct += count_correct(x, y).item()
    return correct / max(len(images), 1)
