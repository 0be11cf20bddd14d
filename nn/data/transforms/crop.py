"""Transforms that move pixels and change none: crops, shifts and flips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.data.order import integers, uniform
from minigrad.nn.data.transforms.base import Array, RandomTransform, chance, checked, pair

_MODES = ("constant", "edge", "reflect", "symmetric")


class RandomCrop(RandomTransform):
    """Cut a window of one size out of each image, padded before, every place equally likely.

    Args:
        size: (height, width) of the window, or a number for both.
        padding: rows and columns added on each side.
        fill: the value of constant padding, on the scale of the images.
        padding_mode: ``constant``, ``edge``, ``reflect`` or ``symmetric``, as ``np.pad`` calls them.

    Raises:
        ArgumentError: if an argument makes no sense.
        ShapeError: when called, if the padded images are smaller than the window.

    >>> RandomCrop(4, padding=1)(np.zeros((8, 3, 5, 6), np.uint8), np.random.default_rng(0)).shape
    (8, 3, 4, 4)
    """

    def __init__(
        self, size: int | Sequence[int], padding: int = 0, fill: float = 0, padding_mode: str = "constant"
    ) -> None:
        if padding < 0:
            raise ArgumentError.of("RandomCrop", "a padding of at least 0", padding)
        if padding_mode not in _MODES:
            raise ArgumentError.of("RandomCrop", f"a padding_mode among {', '.join(_MODES)}", repr(padding_mode))
        self.size, self.padding, self.fill, self.padding_mode = pair("RandomCrop", size), padding, fill, padding_mode

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """A window of each image."""
        images = checked(self, images)
        n, _, h, w = images.shape
        rows, columns = (s + 2 * self.padding - window for s, window in zip((h, w), self.size))
        if rows < 0 or columns < 0:
            raise ShapeError.of(repr(self), f"padded images of at least {self.size}", images.shape)
        if self.padding_mode == "constant":
            images = padded(images, self.padding, self.fill)
        else:
            images = np.pad(images, ((0, 0), (0, 0), *[(self.padding,) * 2] * 2), self.padding_mode)  # type: ignore[call-overload]
        return windows(images, self.size, integers(rng, 0, rows, (n,)), integers(rng, 0, columns, (n,)))

    def __repr__(self) -> str:
        extra = f", fill={self.fill}" if self.padding_mode == "constant" else f", padding_mode={self.padding_mode!r}"
        return f"RandomCrop({self.size}, padding={self.padding}{extra})"


class RandomShift(RandomTransform):
    """Shift each image by up to ``pixels`` rows and columns, every shift equally likely.

    Args:
        pixels: how far, at least 0, up and down, left and right.
        fill: what moves in, on the scale of the images.

    >>> RandomShift(1)(np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3), np.random.default_rng(1))
    array([[[[1, 2, 0],
             [4, 5, 0]]]], dtype=uint8)
    """

    def __init__(self, pixels: int, fill: float = 0) -> None:
        if pixels < 0:
            raise ArgumentError.of("RandomShift", "pixels of at least 0", pixels)
        self.pixels, self.fill = pixels, fill

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The shifted images."""
        images = checked(self, images)
        rows, columns = integers(rng, 0, 2 * self.pixels, (2, len(images)))
        return windows(padded(images, self.pixels, self.fill), images.shape[2:], rows, columns)

    def __repr__(self) -> str:
        return f"RandomShift({self.pixels}, fill={self.fill})"


class CenterCrop:
    """Cut the middle out of each image.

    Args:
        size: (height, width) of the window, or a number for both.

    Raises:
        ShapeError: when called, if the images are smaller.

    >>> CenterCrop(2)(np.arange(12).reshape(1, 1, 3, 4))
    array([[[[1, 2],
            [5, 6]]]])
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair("CenterCrop", size)

    def __call__(self, images: Array) -> Array:
        """The middle of each image, a view."""
        images = checked(self, images)
        (h, w), (height, width) = images.shape[2:], self.size
        if h < height or w < width:
            raise ShapeError.of(repr(self), f"images of at least {self.size}", images.shape)
        top, left = round((h - height) / 2), round((w - width) / 2)
        return images[:, :, top : top + height, left : left + width]

    def __repr__(self) -> str:
        return f"CenterCrop({self.size})"


class RandomHorizontalFlip(RandomTransform):
    """Exchange left and right in some of the images.

    Args:
        p: the probability for each image.

    >>> RandomHorizontalFlip(p=1)(np.arange(3).reshape(1, 1, 1, 3), np.random.default_rng(0))
    array([[[[2, 1, 0]]]])
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = chance("RandomHorizontalFlip", p)

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images, some of them flipped."""
        images = checked(self, images)
        flipped = uniform(rng, 0, 1, (len(images),)) < self.p
        result = images.copy()
        result[flipped] = images[flipped, :, :, ::-1]
        return result

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


def padded(images: Array, padding: int, fill: float) -> Array:
    """The images with ``padding`` rows and columns of a value on each side."""
    n, c, h, w = images.shape
    result = np.full((n, c, h + 2 * padding, w + 2 * padding), fill, images.dtype)
    result[:, :, padding : padding + h, padding : padding + w] = images
    return result


def windows(images: Array, size: Sequence[int], rows: Array, columns: Array) -> Array:
    """Of image ``i`` the window of ``size`` whose first pixel is at ``rows[i], columns[i]``."""
    views = np.lib.stride_tricks.sliding_window_view(images, tuple(size), axis=(2, 3))
    result: Array = views[np.arange(len(images)), :, rows, columns]
    return result
