"""What transforms have in common: the two kinds, how they are chained, and how arguments are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from minigrad.errors import ArgumentError, ShapeError

Array = npt.NDArray[Any]
_CACHED = 1 << 15  # pixels: several arrays of as many floats fit into the cache of a core


class RandomTransform:
    """Base of transforms that draw random numbers: they are called with the images and a generator.

    >>> class Noise(RandomTransform):
    ...     def __call__(self, images, rng):
    ...         return images + rng.standard_normal(images.shape, np.float32)
    >>> Noise()(np.zeros((2, 1, 3, 4), np.float32), np.random.default_rng(0)).shape
    (2, 1, 3, 4)
    """

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
        hint = "np.random.default_rng(seed); a DataLoader hands its own over"
        raise ArgumentError.of(repr(transform), "a generator to draw from", None, hint)
    return transform(images, rng)  # type: ignore[arg-type]


class Compose(RandomTransform):
    """Transforms one after the other.

    Args:
        transforms: in the order in which they are applied.

    >>> Compose([lambda images: images * 2, lambda images: images + 1])(np.zeros((1, 1, 1, 3)))
    array([[[[1., 1., 1.]]]])
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


def checked(transform: object, images: Array) -> Array:
    """The images as an array.

    Raises:
        ShapeError: if they are not (N, C, H, W).
    """
    images = np.asarray(images)
    if images.ndim != 4:
        hint = "one image is images[None], grey ones without an axis of channels are images[:, None]"
        raise ShapeError.of(repr(transform), "images (N, C, H, W)", images.shape, hint)
    return images


def pair(op: str, size: int | Sequence[int]) -> tuple[int, int]:
    """A size given as (height, width) or as one number for both.

    Raises:
        ArgumentError: if it is neither, or not above 0.
    """
    sizes = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ArgumentError.of(op, "a size, or (height, width), of at least 1", size)
    return int(sizes[0]), int(sizes[1])


def interval(op: str, value: float | Sequence[float], least: float | None = None) -> tuple[float, float]:
    """A range given as (low, high), or as one number for (-number, number).

    Raises:
        ArgumentError: if it is neither, low is above high, or low is below ``least``.
    """
    low, *rest = (-value, value) if isinstance(value, (int, float)) else tuple(value)
    if len(rest) != 1 or not low <= rest[0] or (least is not None and low < least):
        limits = "" if least is None else f" from {least} on"
        raise ArgumentError.of(op, f"a range (low, high){limits}", value)
    return float(low), float(rest[0])


def chance(op: str, p: float) -> float:
    """A probability.

    Raises:
        ArgumentError: if it is not between 0 and 1.
    """
    if not 0 <= p <= 1:
        raise ArgumentError.of(op, "a probability between 0 and 1", p)
    return float(p)


def groups(images: Array) -> Iterator[slice]:
    """Cuts a batch into parts that stay in the cache while several passes go over them."""
    size = max(1, _CACHED // max(1, math.prod(images.shape[1:])))
    return (slice(start, start + size) for start in range(0, len(images), size))


def like(values: Array, images: Array) -> Array:
    """Floating results as the dtype of the images: rounded to the nearest byte if that is uint8."""
    if images.dtype == np.uint8:
        return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)
    return values.astype(images.dtype, copy=False)
