"""Arrays as pixels: scaled to what a screen shows, enlarged, side by side. Colours are (H, W, 3), between 0 and 1."""

from __future__ import annotations

import math

import numpy as np

from minigrad.errors import ShapeError
from minigrad.nn.visualize.probe import Array

PAPER = 1.0  # what is between tiles


def as_image(pixels: Array) -> Array:
    """An image (C, H, W) of one or three channels, bytes or numbers between 0 and 1, as colours.

    >>> as_image(np.full((1, 2, 3), 255, "uint8"))[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise ShapeError.of("visualize", "an image of one or three channels, (C, H, W)", pixels.shape)
    scaled = pixels / 255 if pixels.dtype == np.uint8 else np.clip(pixels, 0, 1)
    return np.broadcast_to(scaled.transpose(1, 2, 0), (*pixels.shape[1:], 3))


def around_grey(signal: Array) -> Array:
    """Numbers (C, H, W) of both signs as colours: 0 is the middle grey, the largest magnitude black or white."""
    largest = np.abs(signal).max() or 1.0
    return as_image(0.5 + 0.5 * signal / largest)


def tiles(images: list[Array], columns: int | None = None) -> Array:
    """Colour images side by side in rows, a line of paper between; smaller ones are centred on grey.

    Without ``columns`` the sheet is about as high as wide or less, and the last row as full as it can be.

    >>> tiles([np.zeros((2, 3, 3))] * 3, columns=2).shape
    (5, 7, 3)
    """
    if columns is None:
        square = math.ceil(math.sqrt(len(images)))
        columns = min(range(square, 2 * square), key=lambda n: (-len(images) % n, n))
    columns = min(columns, len(images))
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), PAPER)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        tile = np.full((height, width, 3), 0.5)
        y, x = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        tile[y : y + image.shape[0], x : x + image.shape[1]] = image
        sheet[top : top + height, left : left + width] = tile
    return sheet


def enlarged(values: Array, size: tuple[int, int]) -> Array:
    """A map (h, w) interpolated linearly to a larger size; the corner values are those of the outermost cells' centres.

    >>> enlarged(np.array([[0.0, 4.0]]), (1, 4)).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    for axis, length in enumerate(size):
        cells = values.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, cells - 1)
        share = (at - low).reshape(-1, 1) if axis == 0 else at - low
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values
