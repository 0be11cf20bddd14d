"""What the ready-made data sets give: images of classes, to train on and to test on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minigrad.nn.data.dataset import TensorDataset


@dataclass(frozen=True)
class ImageData:
    """Images (N, C, H, W), uint8, with labels (N,), int64, and what is known about them."""

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]  # their names, by label
    mean: tuple[float, ...]  # of the training images, for each channel, on the scale from 0 to 1: what Normalize takes
    std: tuple[float, ...]
    source: str  # where they come from, for people
    is_sample: bool = False  # whether these are only some of the images

    @property
    def train(self) -> TensorDataset:
        """The training images with their labels."""
        return TensorDataset(self.train_images, self.train_labels)

    @property
    def test(self) -> TensorDataset:
        """The test images with their labels."""
        return TensorDataset(self.test_images, self.test_labels)

    def __repr__(self) -> str:
        counts = f"{len(self.train_images)} + {len(self.test_images)} images {self.train_images.shape[1:]}"
        return f"ImageData({counts} of {len(self.classes)} classes from {self.source})"
