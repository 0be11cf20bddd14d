"""Small images of classes that are easy to tell apart, and a small network for them."""

import numpy as np

from minigrad import nn
from minigrad.nn.data import ImageData


def blobs(count, seed=0, side=28):
    """Images of bytes (N, 1, side, side) whose class, 0 to 3, is the quarter that is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.integers(0, 60, (count, 1, side, side)).astype(np.uint8)
    half = side // 2
    for image, label in zip(images, labels):
        row, column = divmod(int(label), 2)
        image[0, half * row : half * row + half, half * column : half * column + half] += 150
    return images, labels


def blob_data(train=300, test=50, side=28):
    """They as a data set with four classes."""
    return ImageData(
        *blobs(train, 0, side), *blobs(test, 1, side), ("north-west", "north-east", "south-west", "south-east"),
        (0.25,), (0.26,), "a test",
    )  # fmt: skip


def small_net(classes=4, channels=1, normalise=True):
    """A convolution, batch normalisation, dropout and a linear layer: weights, statistics and random numbers."""
    layers = [nn.Conv2d(channels, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2)]
    if not normalise:
        del layers[1]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, classes))
