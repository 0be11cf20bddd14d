"""Transforms of whole batches of images, (N, C, H, W), uint8 (0 to 255) or floating (0 to 1), as arrays on the host.

Random ones are called with a generator and draw for each image of the batch: the same generator, the same draws, on
every machine. A plain function of an array is a transform too. Transforms keep the dtype, but for ``ToFloat`` and
``Normalize``, which belong at the end.

>>> import numpy as np
>>> augment = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), Normalize(mean=0.5, std=0.25)])
>>> augment(np.zeros((8, 3, 32, 32), np.uint8), np.random.default_rng(0)).shape
(8, 3, 32, 32)
"""

from minigrad.nn.data.transforms.affine import RandomAffine, RandomRotation
from minigrad.nn.data.transforms.base import Compose, RandomTransform, Transform, apply
from minigrad.nn.data.transforms.color import ColorJitter, Normalize, RandomErasing, ToFloat
from minigrad.nn.data.transforms.crop import CenterCrop, RandomCrop, RandomHorizontalFlip, RandomShift
from minigrad.nn.data.transforms.resize import RandomResizedCrop, Resize

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "Normalize", "RandomAffine", "RandomCrop", "RandomErasing",
    "RandomHorizontalFlip", "RandomResizedCrop", "RandomRotation", "RandomShift", "RandomTransform", "Resize",
    "ToFloat", "Transform", "apply",
]  # fmt: skip
