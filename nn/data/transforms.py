"""Transforms of whole batches of images, (N, C, H, W), uint8 (0 to 255) or floating, as arrays on the host.

Most work on a whole batch at once. Random ones take a generator and draw for each image: the same generator, the same
result. A plain function of an array is a transform too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.data.order import integers

Array = npt.NDArray[Any]


class RandomTransform:
    """Base of transforms that draw random numbers: they are called with the images and a generator."""

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The transformed images, in new memory."""
        raise NotImplementedError(f"{type(self).__name__} needs a method __call__")


Transform: TypeAlias = RandomTransform | Callable[[Array], Array]


def apply(transform: Transform, images: Array, rng: np.random.Generator | None) -> Array:
    """Apply a transform of either kind.

    Raises:
        ArgumentError: if it draws random numbers and there is no generator.
    """
    if not isinstance(transform, RandomTransform):
        return transform(images)
    if rng is None and not isinstance(transform, Compose):
        raise ArgumentError.of(f"{transform!r}", "a generator to draw from", None, "np.random.default_rng(seed)")
    return transform(images, rng)  # type: ignore[arg-type]


class Compose(RandomTransform):
    """Transforms one after the other.

    Args:
        transforms: in the order in which they are applied.

    >>> digits = np.full((2, 1, 3, 4), 255, np.uint8)
    >>> Compose([ToFloat(), lambda images: images + 1])(digits)[0, 0, 0].tolist()
    [2.0, 2.0, 2.0, 2.0]
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, images: Array, rng: np.random.Generator | None = None) -> Array:
        """The images after all of them; needs a generator only if one of them draws."""
        for transform in self.transforms:
            images = apply(transform, images, rng)
        return images

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


class ToFloat:
    """From bytes, 0 to 255, to float32, 0 to 1; floating images stay as they are.

    >>> round(float(ToFloat()(np.full((1, 1, 2, 3), 51, np.uint8)).max()), 6)
    0.2
    """

    def __call__(self, images: Array) -> Array:
        """The images as float32."""
        images = _checked(self, images)
        return images / np.float32(255) if images.dtype == np.uint8 else images

    def __repr__(self) -> str:
        return "ToFloat()"


class Normalize:
    """Subtract the mean and divide by the standard deviation, of each channel; bytes are divided by 255 before.

    Args:
        mean: a number, or one for each channel, on the scale from 0 to 1.
        std: likewise; above 0.

    Raises:
        ArgumentError: if a standard deviation is not above 0.
        ShapeError: when called, if there are other numbers of channels.

    >>> Normalize(0.5, 0.25)(np.full((1, 1, 1, 2), 255, np.uint8))
    array([[[[2., 2.]]]], dtype=float32)
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = np.atleast_1d(np.asarray(mean, float)), np.atleast_1d(np.asarray(std, float))
        if not (self.std > 0).all():
            raise ArgumentError.of("Normalize", "standard deviations above 0", std)

    def __call__(self, images: Array) -> Array:
        """The images, normalised, as float32."""
        images = _checked(self, images)
        for statistics in (self.mean, self.std):
            if len(statistics) not in (1, images.shape[1]):
                raise ShapeError.of(f"{self!r}", f"images of {len(statistics)} channels", images.shape)
        scale = (1 / (255 if images.dtype == np.uint8 else 1) / self.std).astype(np.float32)
        shift = (self.mean / self.std).astype(np.float32)
        result = images * scale[:, None, None]
        result -= shift[:, None, None]
        return result

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


class RandomShift(RandomTransform):
    """Shift each image by up to ``pixels`` rows and columns, every shift equally likely.

    Args:
        pixels: how far, at least 0, up and down, left and right.
        fill: what moves in, on the scale of the images.

    >>> image = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    >>> RandomShift(1)(image, np.random.default_rng(3))
    array([[[[0, 0, 0],
            [0, 0, 1]]]], dtype=uint8)
    """

    def __init__(self, pixels: int, fill: float = 0) -> None:
        if pixels < 0:
            raise ArgumentError.of("RandomShift", "pixels of at least 0", pixels)
        self.pixels, self.fill = pixels, fill

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The shifted images."""
        images = _checked(self, images)
        n, _, h, w = images.shape
        starts = integers(rng, 0, 2 * self.pixels, (2, n))
        return _windows(_padded(images, self.pixels, self.fill), (h, w), *starts)

    def __repr__(self) -> str:
        return f"RandomShift({self.pixels}, fill={self.fill})"


def _checked(transform: object, images: Array) -> Array:
    images = np.asarray(images)
    if images.ndim != 4:
        hint = "one image is images[None], grey ones without an axis of channels are images[:, None]"
        raise ShapeError.of(repr(transform), "images (N, C, H, W)", images.shape, hint)
    return images


def _padded(images: Array, padding: int, fill: float) -> Array:
    n, c, h, w = images.shape
    result = np.full((n, c, h + 2 * padding, w + 2 * padding), fill, images.dtype)
    result[:, :, padding : padding + h, padding : padding + w] = images
    return result


def _windows(images: Array, size: tuple[int, int], rows: Array, columns: Array) -> Array:
    """Of image i the window of ``size`` that starts at ``rows[i], columns[i]``."""
    views = np.lib.stride_tricks.sliding_window_view(images, size, axis=(2, 3))
    return np.asarray(views[np.arange(len(images)), :, rows, columns])
