"""Which parts of an image a prediction needs: cover them, one after the other, and see how it falls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError
from minigrad.mode import no_grad
from minigrad.nn.module import Module
from minigrad.nn.visualize.backward import Units
from minigrad.nn.visualize.probe import Array, as_input, evaluating, peak
from minigrad.tensor import Tensor


def occlusion(
    model: Module,
    images: Any,
    target: Units = None,
    size: int | Sequence[int] = 8,
    stride: int | Sequence[int] | None = None,
    fill: float = 0.0,
    batch_size: int = 64,
) -> Array:
    """How far the probability of a class falls when a rectangle covers part of the image.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2013, section 4.2. A pixel's value is the
    mean over the rectangles that cover it.

    Args:
        model: images (N, C, H, W) to logits (N, classes); used in evaluation mode and left as it was.
        images: its input.
        target: the class, for all images or one for each; None takes the most likely of each image.
        size: height and width of the rectangle, or a number for both.
        stride: its step, likewise; by default half its size. The last row and column end at the edge.
        fill: what covers the pixels; 0 is the mean of normalised images.
        batch_size: images in one forward pass.

    Returns:
        (N, H, W): above 0 where the class needs what is there.

    Raises:
        ArgumentError: if the rectangle does not fit in the image, or a number is less than 1.
        AxisError: if there is no such class.

    >>> from minigrad import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = net[1].weight.requires_grad_(False).assign(Tensor([[9.0, 0.0, 0.0, 0.0], [0.0] * 4]))
    >>> occlusion(net, np.ones((1, 1, 2, 2), "float32"), 0, size=1).round(2).tolist()
    [[[0.5, 0.0], [0.0, 0.0]]]
    """
    x = as_input(model, images)
    pixels = x.numpy()
    extent = _pair("size", size)
    step = _pair("stride", stride) if stride is not None else (max(extent[0] // 2, 1), max(extent[1] // 2, 1))
    if extent[0] > x.shape[2] or extent[1] > x.shape[3] or batch_size < 1:
        got = f"{extent[0]}x{extent[1]}, batches of {batch_size}"
        raise ArgumentError.of("occlusion", f"a rectangle inside {x.shape[2]}x{x.shape[3]} and batches of 1", got)
    rows, columns = (_starts(n, e, s) for n, e, s in zip(x.shape[2:], extent, step))
    corners = [(top, left) for top in rows for left in columns]
    with no_grad(), evaluating(model):
        logits = model(x)
        whole, chosen = logits.softmax(1).numpy(), peak(logits, target).numpy().argmax(1)

        def covered(jobs: list[tuple[int, tuple[int, int]]]) -> Array:
            batch = np.stack([pixels[image] for image, _ in jobs])
            for part, (_, (top, left)) in zip(batch, jobs):
                part[:, top : top + extent[0], left : left + extent[1]] = fill
            found: Array = model(Tensor(batch, device=x.device)).softmax(1).numpy()
            return found

        jobs = [(image, corner) for image in range(len(pixels)) for corner in corners]
        falls = np.zeros((len(pixels), *x.shape[2:]))
        covers = np.zeros(x.shape[2:])
        for top, left in corners:
            covers[top : top + extent[0], left : left + extent[1]] += 1
        for start in range(0, len(jobs), batch_size):
            part = jobs[start : start + batch_size]
            padded = part + part[:1] * (min(batch_size, len(jobs)) - len(part))  # one size, so one program
            for (image, (top, left)), p in zip(part, covered(padded)):
                fall = whole[image, chosen[image]] - p[chosen[image]]
                falls[image, top : top + extent[0], left : left + extent[1]] += fall
    return falls / covers


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    if min(height, width) < 1:
        raise ArgumentError.of("occlusion", f"a {name} of at least 1", value)
    return height, width


def _starts(length: int, extent: int, step: int) -> list[int]:
    """Where the rectangle begins along one side: every ``step`` pixels, and at the end."""
    return sorted({*range(0, length - extent, step), length - extent})
