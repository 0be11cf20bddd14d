"""Rotations and other affine maps of whole batches, bilinear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigrad.errors import ArgumentError
from minigrad.nn.data.order import uniform
from minigrad.nn.data.transforms.base import Array, RandomTransform, checked, groups, interval, like


class RandomAffine(RandomTransform):
    """Rotate, scale, shear and shift each image about its middle.

    Args:
        degrees: the angle is uniform on (-degrees, degrees), or on a range (low, high); clockwise above 0.
        translate: the largest shifts right and down, as shares of the width and the height.
        scale: the range of the factor; above 0.
        shear: the angle by which columns lean, likewise; to the right above 0.
        fill: what moves in, on the scale of the images.

    Raises:
        ArgumentError: if an argument makes no sense.

    >>> turned = RandomAffine(degrees=(-90, -90))(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), np.random.default_rng(0))
    >>> turned.round(3)
    array([[[[2., 4.],
            [1., 3.]]]])
    """

    counter_clockwise = False

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        fill: float = 0,
    ) -> None:
        self.degrees, self.shear = interval("RandomAffine", degrees), interval("RandomAffine", shear or 0)
        self.translate = (0.0, 0.0) if translate is None else tuple(translate)
        self.scale = (1.0, 1.0) if scale is None else interval("RandomAffine", scale, least=1e-6)
        self.fill = fill
        if len(self.translate) != 2 or not all(0 <= share <= 1 for share in self.translate):
            raise ArgumentError.of("RandomAffine", "two shares between 0 and 1 for translate", translate)
        if max(map(abs, self.shear)) >= 90:
            raise ArgumentError.of("RandomAffine", "a shear below 90 degrees", shear)

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images, each under a map of its own."""
        images = checked(self, images)
        n, _, h, w = images.shape
        angle, lean = (np.deg2rad(uniform(rng, *degrees, (n,))) for degrees in (self.degrees, self.shear))
        angle = angle if self.counter_clockwise else -angle
        factor, slope = uniform(rng, *self.scale, (n,)), -np.tan(lean)  # rows are counted downwards
        right, down = (uniform(rng, -share, share, (n,)) * side for share, side in zip(self.translate, (w, h)))
        # From a pixel of the result back to its source: the inverse of shear, rotation and scale, in turn.
        cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
        back = np.array([[cos - slope * sin, -sin - slope * cos], [sin, cos]], np.float32)
        result = np.empty_like(images)
        for part in groups(images):
            shift = right[part].astype(np.float32), down[part].astype(np.float32)
            result[part] = _sampled(images[part], back[..., part], *shift, self.fill)
        return result

    def __repr__(self) -> str:
        names = ("degrees", "translate", "scale", "shear", "fill")
        return f"RandomAffine({', '.join(f'{name}={getattr(self, name)}' for name in names)})"


class RandomRotation(RandomAffine):
    """Rotate each image about its middle.

    Args:
        degrees: the angle is uniform on (-degrees, degrees), or on a range (low, high); counter-clockwise above 0.
        fill: what moves in, on the scale of the images.

    >>> RandomRotation((180, 180))(np.array([[[[1, 2, 3]]]], np.uint8), np.random.default_rng(0))
    array([[[[3, 2, 1]]]], dtype=uint8)
    """

    counter_clockwise = True  # as in torchvision, whose two classes differ in this

    def __init__(self, degrees: float | Sequence[float], fill: float = 0) -> None:
        super().__init__(degrees, fill=fill)

    def __repr__(self) -> str:
        return f"RandomRotation({self.degrees}, fill={self.fill})"


def _sampled(images: Array, back: Array, right: Array, down: Array, fill: float) -> Array:
    """Pixel (x, y) of result i, from the middle, is the source's at ``back[:, :, i] @ (x - right[i], y - down[i])``."""
    n, c, h, w = images.shape
    x = (np.arange(w, dtype=np.float32) - (w - 1) / 2 - right[:, None])[:, None, :]
    y = (np.arange(h, dtype=np.float32) - (h - 1) / 2 - down[:, None])[:, :, None]
    (xx, xy), (yx, yy) = back[..., None, None]
    columns, rows = xx * x + (xy * y + np.float32((w - 1) / 2)), yx * x + (yy * y + np.float32((h - 1) / 2))
    # A margin holds what lies outside: wherever that is, it may as well be fetched from there.
    tall, wide = h + 3, w + 3
    source = np.full((n, c, tall, wide), fill, np.float32)
    source[:, :, 1 : 1 + h, 1 : 1 + w] = images
    (left, beside), (top, below) = _split(columns, w), _split(rows, h)
    at = top.astype(np.int32) * wide + left.astype(np.int32)
    at += np.arange(n, dtype=np.int32)[:, None, None] * (c * tall * wide) + (wide + 1)
    result = np.empty((c, n, h, w), np.float32)
    for channel in range(c):
        plane = source.reshape(-1)[channel * tall * wide :]
        upper, lower = (_between(plane[i:].take(at), plane[i + 1 :].take(at), beside) for i in (0, wide))
        result[channel] = _between(upper, lower, below)
    return like(result.swapaxes(0, 1), images)


def _split(position: Array, size: int) -> tuple[Array, Array]:
    """Whole part and fraction of positions among ``size`` pixels, those far outside moved to the margin; in place."""
    np.clip(position, -1, size, out=position)
    whole = np.floor(position)
    position -= whole
    return whole, position


def _between(first: Array, second: Array, share: Array) -> Array:
    """A weighted mean of two arrays, in place of the second."""
    second -= first
    second *= share
    second += first
    return second
