"""Images in files of a common format, a folder for each class. Needs Pillow, which the extra ``images`` brings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad import extras
from minigrad.errors import ArgumentError, DataError
from minigrad.nn.data.dataset import Dataset
from minigrad.nn.data.download import data_folders
from minigrad.nn.data.transforms.base import pair

Bytes = npt.NDArray[np.uint8]


class ImageFolder(Dataset):
    """The images below a folder, whose sub-folders are the classes: ``root/cat/1.jpg``, ``root/dog/new/x.png``, ...

    Example ``i`` is the tuple of an image (C, H, W), uint8, and its label, the number of its class in order of their
    names. Files are decoded when they are asked for, in the loader's threads if there are any.

    Args:
        root: the folder; a path that does not exist is looked for in ``MINIGRAD_DATA`` as well.
        transform: a function of a Pillow image that gives another one, or an array (C, H, W).
        size: (height, width) or a number for both: the image is scaled until it covers that, and its middle cut out.
            None keeps its own size, but batches need images of one size.
        mode: ``RGB`` for three channels, ``L`` for one of grey; whatever the file holds is converted.
        skip_broken: decode every file now, leave out those that are no images and list them in ``skipped``. Otherwise
            a broken one is an error when it is asked for, and a file of another format is one now.
        cache: keep decoded images in memory.

    Attributes:
        classes: names of the classes.
        class_to_idx: their labels.
        samples: path and label of each image.
        targets: the label of each image.
        skipped: path and reason of each file that was left out.

    Raises:
        DataError: if the folder is missing, has no sub-folders, or one of them has no images. When an example is asked
            for: if its file is damaged or cannot be read.
        ArgumentError: if ``mode`` or ``size`` makes no sense.
        MissingExtra: if Pillow is not installed.

    >>> flowers = ImageFolder("flowers/train", size=224)  # doctest: +SKIP
    >>> image, label = flowers[0]  # doctest: +SKIP
    >>> image.shape, flowers.classes[label]  # doctest: +SKIP
    ((3, 224, 224), 'daisy')
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        *,
        size: int | Sequence[int] | None = None,
        mode: str = "RGB",
        skip_broken: bool = False,
        cache: bool = False,
    ) -> None:
        _checked(size, mode)
        self._read = partial(read_image, size=size, mode=mode, transform=transform)
        self.root = _existing(root)
        folders = sorted(entry for entry in self.root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not folders:
            hint = "put the images of each class into a folder of its own, named for the class"
            raise DataError.of(str(self.root), "a folder for each class", "none", hint)
        self.classes = tuple(folder.name for folder in folders)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.skipped: list[tuple[Path, str]] = []
        self._cache: dict[Path, Bytes] | None = {} if cache else None
        self.samples = [(path, label) for label, folder in enumerate(folders) for path in self._images(folder)]
        if skip_broken:
            self._leave_out_broken()
        elif self.skipped:
            names = ", ".join(str(path) for path, _ in self.skipped[:3])
            hint = "move them away, or pass skip_broken=True"
            raise DataError.of(str(self.root), "images only", f"{len(self.skipped)} other files: {names}", hint)
        self.targets = np.array([label for _, label in self.samples], np.int64)
        if empty := sorted(set(range(len(self.classes))) - set(self.targets.tolist())):
            names = ", ".join(self.classes[label] for label in empty)
            raise DataError.of(str(self.root), "images in every class", f"none in {names}", "remove empty folders")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        try:
            return self._pixels(path), label
        except DataError as error:
            hint = "remove it or replace it; ImageFolder(skip_broken=True) leaves such files out"
            raise DataError(f"{error}\n  hint: {hint}") from error

    def _images(self, folder: Path) -> list[Path]:
        """Files below a class's folder that have an image's name; others are noted."""
        known = formats()
        found = sorted(
            Path(parent, name)
            for parent, _, names in os.walk(folder, followlinks=True)
            for name in names
            if not name.startswith(".")
        )
        self.skipped += [(path, "not a name of an image") for path in found if path.suffix.lower() not in known]
        return [path for path in found if path.suffix.lower() in known]

    def _leave_out_broken(self) -> None:
        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(self._reason_to_skip, [path for path, _ in self.samples]))
        self.skipped += [(path, reason) for (path, _), reason in zip(self.samples, reasons) if reason]
        self.samples = [sample for sample, reason in zip(self.samples, reasons) if not reason]

    def _reason_to_skip(self, path: Path) -> str:
        try:
            self._pixels(path)
        except DataError as error:
            return str(error)
        return ""

    def _pixels(self, path: Path) -> Any:
        if self._cache is None:
            return self._read(path)
        if path not in self._cache:  # two threads may both decode it, to the same
            self._cache[path] = self._read(path)
        return self._cache[path]


def read_image(
    path: str | os.PathLike[str],
    size: int | Sequence[int] | None = None,
    mode: str = "RGB",
    transform: Callable[[Any], Any] | None = None,
) -> Any:
    """An image file as an array (C, H, W) of bytes: what :class:`ImageFolder` does with each.

    Args:
        path: the file, in any format that Pillow reads.
        size: (height, width) or a number for both, that the image is scaled to cover and cut to; None keeps its own.
        mode: ``RGB`` or ``L``.
        transform: a function of the Pillow image in that mode, applied before the size; an array that it gives stays.

    Raises:
        DataError: if the file is missing, damaged or no image.
        ArgumentError: if ``mode`` or ``size`` makes no sense.
        MissingExtra: if Pillow is not installed.

    >>> read_image("digit.png", size=28, mode="L").shape  # doctest: +SKIP
    (1, 28, 28)
    """
    sizes = _checked(size, mode)
    image = _open(Path(path), mode)
    if transform is not None:
        image = transform(image)
    if isinstance(image, np.ndarray):
        return image
    if sizes is not None:
        ops, resampling = extras.load("PIL.ImageOps", "images"), extras.load("PIL.Image", "images").Resampling
        image = ops.fit(image, sizes[::-1], resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if pixels.ndim == 3 else pixels[None].copy()


def _checked(size: int | Sequence[int] | None, mode: str) -> tuple[int, int] | None:
    if mode not in ("RGB", "L"):
        raise ArgumentError.of("read_image", "mode RGB or L", repr(mode))
    return None if size is None else pair("read_image", size)


def formats() -> frozenset[str]:
    """Suffixes of the image files that can be read, such as ``.png``, in lower case.

    Raises:
        MissingExtra: if Pillow is not installed.
    """
    module = extras.load("PIL.Image", "images")
    return frozenset(suffix for suffix, name in module.registered_extensions().items() if name in module.OPEN)


def _existing(root: str | os.PathLike[str]) -> Path:
    places = [Path(root).expanduser(), *(folder / Path(root) for folder in data_folders(None))]
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in dict.fromkeys(places))
    raise DataError.of("ImageFolder", f"a folder {root}", f"none at {looked}", "give its path, or set MINIGRAD_DATA")


def _open(path: Path, mode: str) -> Any:
    """A Pillow image of a mode, upright, whatever the file holds."""
    module, ops = extras.load("PIL.Image", "images"), extras.load("PIL.ImageOps", "images")
    try:
        with module.open(path) as file:
            image = ops.exif_transpose(file)
            image.load()
    except Exception as error:  # damaged bytes make Pillow raise errors of many types
        if isinstance(error, OSError) and error.strerror:  # the system's, not Pillow's
            raise DataError.of(str(path), "an image file", error.strerror) from error
        unknown = isinstance(error, module.UnidentifiedImageError)
        got = "no format that Pillow knows" if unknown else str(error) or type(error).__name__
        raise DataError.of(str(path), "an intact image", got) from error
    if image.mode == "F":
        raise DataError.of(str(path), "8 or 16 bits a channel", "floating pixels", "convert it to PNG")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        image = module.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)
