"""Transforms that change the size of images: each pixel of the result is a weighted mean of a neighbourhood."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minigrad.errors import ArgumentError
from minigrad.nn.data.order import uniform
from minigrad.nn.data.transforms.base import Array, RandomTransform, checked, groups, interval, like, pair

_ATTEMPTS = 10


class Resize:
    """Scale images to another size, bilinear; where they shrink, over as many pixels as become one (no aliasing).

    Args:
        size: (height, width), or a number for the shorter side, with the longer one in proportion.

    Raises:
        ArgumentError: if the size makes no sense.

    >>> Resize((1, 2))(np.array([[[[10, 20, 30, 40], [50, 60, 70, 80]]]], np.uint8))
    array([[[[37, 53]]]], dtype=uint8)
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = size if isinstance(size, int) else pair("Resize", size)
        pair("Resize", self.size)

    def __call__(self, images: Array) -> Array:
        """The scaled images."""
        images = checked(self, images)
        h, w = images.shape[2:]
        if isinstance(self.size, tuple):
            size = self.size
        else:
            size = (self.size, max(1, self.size * w // h)) if h <= w else (max(1, self.size * h // w), self.size)
        if size == (h, w):
            return images
        start, heights, widths = (np.full(len(images), edge) for edge in (0, h, w))
        return _resampled(images, start, start, heights, widths, size)

    def __repr__(self) -> str:
        return f"Resize({self.size})"


class RandomResizedCrop(RandomTransform):
    """Cut a rectangle of random area and shape out of each image and scale it to one size (Szegedy et al., 2014).

    Args:
        size: (height, width) of the result, or a number for both.
        scale: the rectangle's share of the area is uniform on this range.
        ratio: the logarithm of its width over its height is uniform between those of this range.

    Where none of ten rectangles fits, the largest one of the nearest shape is cut out of the middle.

    Raises:
        ArgumentError: if an argument makes no sense.

    >>> RandomResizedCrop((4, 5))(np.zeros((2, 3, 8, 9), np.uint8), np.random.default_rng(0)).shape
    (2, 3, 4, 5)
    """

    def __init__(
        self, size: int | Sequence[int], scale: Sequence[float] = (0.08, 1), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        self.size = pair("RandomResizedCrop", size)
        self.scale, self.ratio = area("RandomResizedCrop", scale), interval("RandomResizedCrop", ratio, least=1e-6)

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """A part of each image."""
        images = checked(self, images)
        n, _, h, w = images.shape
        widths, heights, found = boxes(rng, n, (w, h), h * w, self.scale, self.ratio)
        top, left = starts(rng, h - heights), starts(rng, w - widths)
        nearest = min(max(w / h, self.ratio[0]), self.ratio[1])
        height, width = max(1, min(h, round(w / nearest))), max(1, min(w, round(h * nearest)))
        heights, widths = np.where(found, heights, height), np.where(found, widths, width)
        top, left = np.where(found, top, (h - height) // 2), np.where(found, left, (w - width) // 2)
        return _resampled(images, top, left, heights, widths, self.size)

    def __repr__(self) -> str:
        return f"RandomResizedCrop({self.size}, scale={self.scale}, ratio={self.ratio})"


def area(op: str, scale: Sequence[float]) -> tuple[float, float]:
    """A range of shares of an area.

    Raises:
        ArgumentError: if it does not lie between 0 and 1.
    """
    low, high = interval(op, scale, least=0)
    if high > 1:
        raise ArgumentError.of(op, "shares of the area up to 1", scale)
    return low, high


def boxes(
    rng: np.random.Generator,
    count: int,
    most: tuple[int, int],
    pixels: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Array, Array, Array]:
    """Two sides of a rectangle for each image, the first over the second in a range; the first of ten that fits.

    Returns:
        The two sides, at least 1 and at most ``most``, and whether one was found.
    """
    areas = pixels * uniform(rng, *scale, (_ATTEMPTS, count))
    ratios = np.exp(uniform(rng, math.log(ratio[0]), math.log(ratio[1]), (_ATTEMPTS, count)))
    sides = np.rint(np.sqrt(areas * ratios)).astype(int), np.rint(np.sqrt(areas / ratios)).astype(int)
    fits = (0 < sides[0]) & (sides[0] <= most[0]) & (0 < sides[1]) & (sides[1] <= most[1])
    first = fits.argmax(0), np.arange(count)
    found = fits[first]
    return np.where(found, sides[0][first], 1), np.where(found, sides[1][first], 1), found


def starts(rng: np.random.Generator, free: Array) -> Array:
    """For each image, one of the places 0 to ``free``."""
    result: Array = np.floor(uniform(rng, 0, 1, free.shape) * (free + 1)).astype(int)
    return result


def _resampled(images: Array, top: Array, left: Array, heights: Array, widths: Array, size: tuple[int, int]) -> Array:
    """Of each image a rectangle, scaled to ``size``: first along its columns, then along its rows."""
    result = np.empty((*images.shape[:2], *size), images.dtype)
    for part in groups(images):
        lines = _weighted(images[part].transpose(0, 2, 1, 3), top[part], heights[part], size[0])
        lines = _weighted(lines.transpose(0, 3, 2, 1), left[part], widths[part], size[1])
        result[part] = like(lines.transpose(0, 2, 3, 1), images)
    return result


def _weighted(images: Array, start: Array, length: Array, wanted: int) -> Array:
    """Along axis 1, weighted means around the middles of ``wanted`` equal parts of ``length`` from ``start`` on."""
    n, size, *rest = images.shape
    step = (length / wanted)[:, None]
    reach = np.maximum(step, 1)
    middle = start[:, None] + (np.arange(wanted) + 0.5) * step - 0.5
    first = np.floor(middle - reach).astype(int) + 1
    last = (start + length - 1)[:, None]
    taps = [first + i for i in range(int(np.ceil(2 * reach.max(initial=1))))]
    weights = [np.maximum(0, 1 - abs(at - middle) / reach) * ((start[:, None] <= at) & (at <= last)) for at in taps]
    total = np.sum(weights, axis=0)
    flat = np.ascontiguousarray(images).reshape(n * size, -1)
    result = np.zeros((n * wanted, flat.shape[1]), np.float32)
    for at, weight in zip(taps, weights):
        lines = (at.clip(0, size - 1) + np.arange(n)[:, None] * size).reshape(-1)
        result += (weight / total).astype(np.float32).reshape(-1, 1) * flat.take(lines, axis=0)
    return result.reshape(n, wanted, *rest)
