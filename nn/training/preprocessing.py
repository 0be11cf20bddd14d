"""From the bytes of images to the input of a network."""

from __future__ import annotations

from dataclasses import dataclass

from minigrad.dtypes import float32
from minigrad.tensor import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """How bytes become the input of a network: (pixel / 255 - mean) / std; grey images get an axis of one channel.

    The defaults are the mean and the standard deviation of MNIST's training images.
    """

    mean: float = 0.1307
    std: float = 0.3081

    def __call__(self, images: Tensor) -> Tensor:
        """(N, H, W) or (N, C, H, W), uint8, to (N, C, H, W), float32."""
        if images.ndim == 3:
            images = images.unsqueeze(1)
        return images.cast(float32) * (1 / (255 * self.std)) - self.mean / self.std
