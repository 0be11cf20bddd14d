"""Where training gets its images from: the ready-made data sets by name, or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minigrad.errors import DataError
from minigrad.nn import data
from minigrad.nn.data.dataset import take
from minigrad.nn.data.download import data_folders
from minigrad.nn.serialize import PathLike

DATA_SETS = {
    "mnist": data.mnist,
    "fashion-mnist": data.fashion_mnist,
    "cifar10": data.cifar10,
    "cifar100": data.cifar100,
}
_HELD_OUT = 0.1  # of a folder that has no test images
_MEASURED = 500  # images whose mean and standard deviation stand for all


class ImageSource(Protocol):
    """What a ``Trainer`` asks for, such as ``nn.data.ImageData``.

    Examples are pairs of an image, (C, H, W) of uint8, and a label.
    """

    @property
    def train(self) -> Any:
        """The data set to learn from."""

    @property
    def test(self) -> Any:
        """The data set to measure on."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the training images, for each channel, on the scale from 0 to 1."""

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""

    @property
    def source(self) -> str:
        """Where the images come from, for people."""


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder as an :class:`ImageSource`."""

    train: Any
    test: Any
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def open_images(name: str, folder: PathLike | None = None, size: int = 224, mode: str = "RGB") -> ImageSource:
    """A data set by its name (see ``DATA_SETS``), or the images of a folder.

    The folder has ``train`` and ``val`` (or ``test``) with a folder for each class in them; or only folders of classes,
    of whose images a tenth is held out, the same one every time.

    Args:
        name: the name, or the folder.
        folder: where to look for a data set first.
        size: the side of a folder's images.
        mode: ``RGB`` or ``L``, for a folder.

    Raises:
        DataError: if there is no such data set here.
        MissingExtra: for a folder, if Pillow is not installed.
    """
    if name in DATA_SETS:
        return DATA_SETS[name](folder)
    places = [Path(name).expanduser(), *(place / name for place in data_folders(folder))]
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        looked = " and ".join(str(place.parent) for place in places)
        hint = "--data-set names another; imagenet, of the recipes of large networks, is a folder of yours"
        expected = f"{', '.join(DATA_SETS)} or a folder of images"
        raise DataError.of("data set", expected, f"{name!r}, and no folder of that name in {looked}", hint)
    tests = [root / part for part in ("val", "validation", "test") if (root / part).is_dir()]
    if (root / "train").is_dir() and tests:
        train, test = (data.ImageFolder(place, size=size, mode=mode) for place in (root / "train", tests[0]))
        if train.classes != test.classes:
            raise DataError.of(str(tests[0]), f"the classes of {train.root}", ", ".join(test.classes))
        _several(root, train.classes)
        return FolderImages(train, test, train.classes, *_moments(train), str(root))
    whole = data.ImageFolder(root, size=size, mode=mode)
    _several(root, whole.classes)
    first, rest = data.random_split(whole, [1 - _HELD_OUT, _HELD_OUT])
    return FolderImages(first, rest, whole.classes, *_moments(first), str(root))


def _several(root: Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        hint = "of one class there is nothing to learn: each class has a folder of its own"
        raise DataError.of(str(root), "images of at least two classes", f"only {classes[0]}", hint)


def _moments(dataset: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of images spread over the data set."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), _MEASURED)).astype(np.int64))
    images = take(dataset, chosen)[0].astype(np.float64) / 255
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    return tuple(np.round(mean, 4).tolist()), tuple(np.maximum(np.round(std, 4), 1e-3).tolist())
