"""Changes at random to training images, by name and strength."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minigrad.nn.data import transforms
from minigrad.nn.data.transforms import Transform

Size = tuple[int, int]

AUGMENTATIONS: dict[str, Callable[[float, Size], Transform]] = {
    "crop": lambda pixels, size: transforms.RandomCrop(size, padding=int(pixels)),  # of images padded by so much
    "resized-crop": lambda share, size: transforms.RandomResizedCrop(size, scale=(share, 1.0)),
    "flip": lambda p, size: transforms.RandomHorizontalFlip(p),
    "shift": lambda pixels, size: transforms.RandomShift(int(pixels)),
    "rotate": lambda degrees, size: transforms.RandomRotation(degrees),
    "scale": lambda share, size: transforms.RandomAffine(0, scale=(1 - share, 1 + share)),
    "jitter": lambda share, size: transforms.ColorJitter(share, share, share),  # brightness, contrast, saturation
    "erase": lambda p, size: transforms.RandomErasing(p),
}
CUTTING = {"crop", "resized-crop"}  # their results have the size that the network takes


def augmentation(augment: Iterable[tuple[str, float]], size: Size) -> list[Transform]:
    """The transforms of a recipe for a network that takes images of ``size``.

    >>> augmentation([("crop", 4), ("flip", 0.5)], (32, 32))
    [RandomCrop((32, 32), padding=4, fill=0), RandomHorizontalFlip(p=0.5)]
    """
    return [AUGMENTATIONS[kind](strength, size) for kind, strength in augment]
