"""From images to the input of a network: what evaluation and prediction must do as training did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.dtypes import float32
from minigrad.nn.data import transforms
from minigrad.nn.data.image_folder import read_image
from minigrad.nn.data.transforms import Transform
from minigrad.nn.serialize import PathLike
from minigrad.tensor import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Images are scaled, cut to ``shape`` and normalised: (pixel / 255 - mean) / std, for each channel.

    Attributes:
        shape: (C, H, W) of what the network takes; one channel is grey, three are red, green and blue.
        mean: of the training images, for each channel, on the scale from 0 to 1.
        std: likewise.
        resize: images are scaled until they cover so many pixels each way, before their middle is cut out; None: H, W.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W), uint8, to normalised float32: the part that is computed with the network, on its device."""
        scale, shift = 1 / (255 * np.array(self.std)), -np.array(self.mean) / np.array(self.std)
        if len(self.std) == 1:
            return images.cast(float32) * float(scale[0]) + float(shift[0])
        factor, offset = (Tensor(v.tolist(), float32, images.device).reshape(-1, 1, 1) for v in (scale, shift))
        result: Tensor = images.cast(float32) * factor + offset
        return result

    def transforms(self, size: tuple[int, int]) -> list[Transform]:
        """What images of ``size`` go through on the host before they have the height and width of ``shape``."""
        needed = self.shape[1:]
        scaled = (self.resize, self.resize) if self.resize else needed
        found: list[Transform] = [] if size == scaled else [transforms.Resize(scaled)]
        return found if scaled == needed else [*found, transforms.CenterCrop(needed)]

    def read(self, path: PathLike) -> npt.NDArray[np.uint8]:
        """An image file as an array of ``shape``, converted to grey or colour, scaled and cut.

        Raises:
            DataError: if the file is missing, damaged or no image.
            MissingExtra: if Pillow is not installed.
        """
        size = (self.resize, self.resize) if self.resize else self.shape[1:]
        image = read_image(path, size=size, mode="L" if self.shape[0] == 1 else "RGB")[None]
        for transform in self.transforms(size):
            image = transforms.apply(transform, image, None)
        found: npt.NDArray[np.uint8] = image[0]
        return found

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """That of :meth:`to_json`."""
        channels, height, width = values["shape"]
        mean, std = tuple(values["mean"]), tuple(values["std"])
        return cls((channels, height, width), mean, std, values.get("resize"))
