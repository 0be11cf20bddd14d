"""Transforms that change the values of pixels and not their places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.data.order import uniform
from minigrad.nn.data.transforms.base import Array, RandomTransform, chance, checked, groups, interval, like
from minigrad.nn.data.transforms.resize import area, boxes, starts

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue in grey: ITU-R BT.601


class ToFloat:
    """From bytes, 0 to 255, to float32, 0 to 1; floating images stay as they are.

    >>> ToFloat()(np.array([[[[0, 51, 255]]]], np.uint8))
    array([[[[0. , 0.2, 1. ]]]], dtype=float32)
    """

    def __call__(self, images: Array) -> Array:
        """The images as floating numbers."""
        images = checked(self, images)
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
        ShapeError: when called, if the images have another number of channels.

    >>> Normalize(0.5, 0.25)(np.array([[[[0, 255]]]], np.uint8))
    array([[[[-2.,  2.]]]], dtype=float32)
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean = tuple(np.asarray(mean, float).reshape(-1).tolist())
        self.std = tuple(np.asarray(std, float).reshape(-1).tolist())
        if not all(0 < value < math.inf for value in self.std):
            raise ArgumentError.of("Normalize", "standard deviations above 0", std)

    def __call__(self, images: Array) -> Array:
        """The images, normalised, as float32."""
        images = checked(self, images)
        for numbers in (self.mean, self.std):
            if len(numbers) not in (1, images.shape[1]):
                raise ShapeError.of(repr(self), f"images of {len(numbers)} channels", images.shape)
        mean, std = np.array(self.mean), np.array(self.std)
        scale = 1 / (std * 255) if images.dtype == np.uint8 else 1 / std
        result = images * scale.astype(np.float32)[:, None, None]
        result -= (mean / std).astype(np.float32)[:, None, None]
        return result.astype(np.float32, copy=False)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class ColorJitter(RandomTransform):
    """Change brightness, contrast and saturation of each image at random, in an order drawn for each batch.

    Brightness multiplies the pixels by a factor, contrast their difference from the image's mean grey, saturation their
    difference from their own grey (nothing, in grey images). After each, values are cut off at the ends of the scale.

    Args:
        brightness: the factor is uniform on [max(0, 1 - brightness), 1 + brightness], or on a range (low, high).
        contrast: likewise.
        saturation: likewise.

    Raises:
        ArgumentError: if a range makes no sense.
        ShapeError: when called, if the images have neither 1 nor 3 channels.

    >>> ColorJitter(brightness=(2, 2))(np.array([[[[10, 200]]]], np.uint8), np.random.default_rng(0))
    array([[[[ 20, 255]]]], dtype=uint8)
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0,
        contrast: float | Sequence[float] = 0,
        saturation: float | Sequence[float] = 0,
    ) -> None:
        self.ranges = {
            name: interval(
                "ColorJitter", (max(0, 1 - value), 1 + value) if isinstance(value, (int, float)) else value, 0
            )
            for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation))
        }

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images with other colours."""
        images = checked(self, images)
        if images.shape[1] not in (1, 3):
            raise ShapeError.of(repr(self), "images of 1 or 3 channels", images.shape)
        order = [list(self.ranges)[i] for i in np.argsort(uniform(rng, 0, 1, (3,)))]
        factors = {name: uniform(rng, *self.ranges[name], (len(images), 1, 1, 1)).astype(np.float32) for name in order}
        result = np.empty_like(images)
        for part in groups(images):
            pixels = images[part].astype(np.float32)
            for name in order:
                if self.ranges[name] != (1, 1) and (name != "saturation" or images.shape[1] == 3):
                    _scale(pixels, name, factors[name][part], 255 if images.dtype == np.uint8 else 1)
            result[part] = like(pixels, images)
        return result

    def __repr__(self) -> str:
        return f"ColorJitter({', '.join(f'{name}={range_}' for name, range_ in self.ranges.items())})"


def _scale(images: Array, name: str, factor: Array, top: float) -> None:
    """Scale the distance of pixels from black, or from a grey, in place."""
    if name == "brightness":
        images *= factor
    else:
        grey = images if images.shape[1] == 1 else np.einsum("nchw,c->nhw", images, _LUMA)[:, None]
        center = grey if name == "saturation" else grey.mean((2, 3), keepdims=True)
        center = (1 - factor) * center
        images *= factor
        images += center
    np.clip(images, 0, top, out=images)


class RandomErasing(RandomTransform):
    """Cover a rectangle of some of the images (Zhong et al., 2017).

    Args:
        p: the probability for each image.
        scale: the rectangle's share of the area is uniform on this range.
        ratio: the logarithm of its height over its width is uniform between those of this range.
        value: what it is filled with: a number or one for each channel, on the scale of the images.

    An image on which none of ten rectangles fits stays as it is.

    Raises:
        ArgumentError: if an argument makes no sense.
        ShapeError: when called, if the images have another number of channels than ``value``.

    >>> erased = RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1))(np.ones((1, 1, 4, 4)), np.random.default_rng(0))
    >>> int(erased.sum())
    12
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float | Sequence[float] = 0,
    ) -> None:
        self.p, self.value = chance("RandomErasing", p), value
        self.scale, self.ratio = area("RandomErasing", scale), interval("RandomErasing", ratio, least=1e-6)

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images, some of them with a rectangle."""
        images = checked(self, images)
        n, c, h, w = images.shape
        value = np.asarray(self.value, images.dtype).reshape(-1, 1, 1)
        if len(value) not in (1, c):
            raise ShapeError.of(repr(self), f"images of {len(value)} channels", images.shape)
        chosen = uniform(rng, 0, 1, (n,)) < self.p
        heights, widths, found = boxes(rng, n, (h - 1, w - 1), h * w, self.scale, self.ratio)
        rows, columns = _covered(rng, h, heights), _covered(rng, w, widths)
        covered = (chosen & found)[:, None, None] & rows[:, :, None] & columns[:, None, :]
        return np.where(covered[:, None], value, images)

    def __repr__(self) -> str:
        return f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio}, value={self.value})"


def _covered(rng: np.random.Generator, size: int, lengths: Array) -> Array:
    """Of each image, which rows (or columns) a rectangle of a length covers, at a place that is drawn."""
    first = starts(rng, size - lengths)[:, None]
    at = np.arange(size)
    covered: Array = (first <= at) & (at < first + lengths[:, None])
    return covered
