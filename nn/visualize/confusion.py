"""What a network says of a data set: its predictions, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError, ShapeError
from minigrad.mode import no_grad
from minigrad.nn.data.dataset import take
from minigrad.nn.module import Module
from minigrad.nn.visualize.probe import Array, as_input, evaluating
from minigrad.tensor import Tensor


def predict(
    model: Module, dataset: Any, preprocess: Callable[[Tensor], Tensor] | None = None, batch_size: int = 128
) -> tuple[Array, Array]:
    """The labels (N,) of a data set of pairs, and the probabilities (N, classes) that a network gives.

    Args:
        model: images (N, C, H, W) to logits (N, classes); used in evaluation mode and left as it was.
        dataset: tuples that begin with an image and its label.
        preprocess: makes the network's input of a batch of images; None takes them as they are.
        batch_size: images in one forward pass.

    Raises:
        ArgumentError: if the data set is empty.
    """
    if not len(dataset):
        raise ArgumentError.of("predict", "at least one image", "none")
    labels, probabilities = [], []
    with no_grad(), evaluating(model):
        for start in range(0, len(dataset), batch_size):
            images, truth, *_ = take(dataset, np.arange(start, min(start + batch_size, len(dataset))))
            x = Tensor(images)
            logits = model(as_input(model, x if preprocess is None else preprocess(x)))
            labels.append(truth)
            probabilities.append(logits.softmax(1).numpy())
    return np.concatenate(labels), np.concatenate(probabilities)


def confusion_matrix(labels: Any, predictions: Any, classes: int | None = None) -> Array:
    """How many images of each class were taken for each: true classes down, predicted ones across.

    Args:
        labels: the true class of each image.
        predictions: the predicted one.
        classes: how many there are; by default as many as occur.

    Returns:
        (classes, classes), int64.

    Raises:
        ShapeError: if there are not as many predictions as labels.
        ArgumentError: if one of them is no number of a class.

    >>> confusion_matrix([0, 0, 1, 2], [0, 1, 1, 2]).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    """
    truth, said = np.asarray(labels, np.int64).reshape(-1), np.asarray(predictions, np.int64).reshape(-1)
    if truth.shape != said.shape:
        got = f"{said.size} predictions"
        raise ShapeError.of("confusion_matrix", f"a prediction for each of the {truth.size} labels", got)
    both = np.concatenate([truth, said])
    count = int(both.max(initial=-1)) + 1 if classes is None else classes
    if both.size and not (both.min() >= 0 and both.max() < count):
        raise ArgumentError.of("confusion_matrix", f"classes in [0, {count - 1}]", f"{both.min()} to {both.max()}")
    matrix: Array = np.bincount(count * truth + said, minlength=count * count).reshape(count, count)
    return matrix
