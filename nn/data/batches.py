"""Mini-batches of a data set that fits in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.data.order import permutation

Array = npt.NDArray[Any]


def batches(
    images: Array,
    labels: Array,
    batch_size: int,
    *,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """Mini-batches ``(images[i : i + batch_size], labels[i : i + batch_size])``, in an order drawn from the seed.

    Args:
        images: any array whose first axis counts the examples.
        labels: an array with as many entries.
        batch_size: examples in a batch; the last batch has what is left.
        shuffle: whether to draw an order; without it, the order of the arrays.
        seed: draws the order together with ``epoch``: the same pair, the same order, on every machine.
        epoch: number of the pass over the data.
        drop_last: leave out a last batch that is smaller.

    Returns:
        An iterator over pairs of arrays, copies where shuffled, views where not.

    Raises:
        ArgumentError: if ``batch_size`` is less than 1.
        ShapeError: if there are not as many labels as images.

    >>> digits = np.arange(5)
    >>> [y.tolist() for _, y in batches(digits, digits, 2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    >>> [y.tolist() for _, y in batches(digits, digits, 2, seed=1, drop_last=True)]
    [[3, 2], [0, 1]]
    """
    if batch_size < 1:
        raise ArgumentError.of("batches", "a batch_size of at least 1", batch_size)
    if len(images) != len(labels):
        raise ShapeError.of("batches", f"a label for each of the {len(images)} images", f"{len(labels)} labels")
    order = permutation(len(images), seed, epoch) if shuffle else None
    stop = len(images) - len(images) % batch_size if drop_last else len(images)
    return _slices(images, labels, batch_size, stop, order)


def _slices(
    images: Array, labels: Array, batch_size: int, stop: int, order: npt.NDArray[np.int64] | None
) -> Iterator[tuple[Array, Array]]:
    for start in range(0, stop, batch_size):
        part = slice(start, min(start + batch_size, stop))
        chosen = part if order is None else order[part]
        yield images[chosen], labels[chosen]
