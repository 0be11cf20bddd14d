"""VGG (Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014)."""

from __future__ import annotations

from typing import Any

from minigrad.errors import ArgumentError
from minigrad.nn.activation import ReLU
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv2d
from minigrad.nn.dropout import Dropout
from minigrad.nn.linear import Identity, Linear
from minigrad.nn.models.alexnet import response_norm
from minigrad.nn.models.network import Network, he_init, narrow_init
from minigrad.nn.module import Module
from minigrad.nn.norm import BatchNorm2d
from minigrad.nn.pool import AdaptiveAvgPool2d, MaxPool2d
from minigrad.tensor import Tensor

# Table 1 of the paper, stages divided by "|", each ending in a pool: filters of 3x3, or of 1x1 where it says so.
CONFIGURATIONS = {
    "A": "64 | 128 | 256 256 | 512 512 | 512 512",
    "A-LRN": "64 LRN | 128 | 256 256 | 512 512 | 512 512",
    "B": "64 64 | 128 128 | 256 256 | 512 512 | 512 512",
    "C": "64 64 | 128 128 | 256 256 1x1-256 | 512 512 1x1-512 | 512 512 1x1-512",
    "D": "64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512",
    "E": "64 64 | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512",
}


class VGG(Network):
    """VGG for colour images of 224x224: stages of 3x3 convolutions and 2x2 pools, then three fully connected layers.

    Parameters have torchvision's names.

    Args:
        configuration: ``"A"``, ``"A-LRN"``, ``"B"``, ``"C"``, ``"D"`` (VGG-16) or ``"E"`` (VGG-19).
        batch_norm: whether batch normalisation follows each convolution, as it may since 2015.
        num_classes: number of logits.
        dropout: probability in the fully connected part.
        torchvision: whether an adaptive pool makes 7x7 of whatever the convolutions give, so that images may have any
            size from 32x32 up.

    Raises:
        ArgumentError: if there is no such configuration.

    >>> sum(p.numel() for p in VGG("D").parameters())
    138357544
    """

    def __init__(
        self,
        configuration: str,
        batch_norm: bool = False,
        num_classes: int = 1000,
        dropout: float = 0.5,
        torchvision: bool = False,
    ) -> None:
        super().__init__()
        if configuration not in CONFIGURATIONS:
            raise ArgumentError.of("vgg", f"a configuration of {', '.join(CONFIGURATIONS)}", repr(configuration))
        self.configuration = configuration
        self.input_size = (3, 224, 224)
        self.input_hint = "" if torchvision else "crop or resize to 224x224, or take torchvision=True"
        self.features = Sequential(*convolutions(CONFIGURATIONS[configuration], batch_norm))
        self.avgpool = AdaptiveAvgPool2d(7) if torchvision else Identity()
        self.classifier = Sequential(
            Linear(7 * 7 * 512, 4096), ReLU(), Dropout(dropout),
            Linear(4096, 4096), ReLU(), Dropout(dropout),
            Linear(4096, num_classes),
        )  # fmt: skip
        he_init(self)
        narrow_init(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) to (N, num_classes)."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def convolutions(configuration: str, batch_norm: bool) -> list[Module]:
    """The layers before the fully connected ones, from a line of :data:`CONFIGURATIONS`.

    >>> [type(layer).__name__ for layer in convolutions("64 1x1-64 | 128", batch_norm=False)]
    ['Conv2d', 'ReLU', 'Conv2d', 'ReLU', 'MaxPool2d', 'Conv2d', 'ReLU', 'MaxPool2d']
    """
    layers: list[Module] = []
    channels = 3
    for stage in configuration.split("|"):
        for word in stage.split():
            if word == "LRN":
                layers.append(response_norm())
                continue
            extent = 1 if word.startswith("1x1-") else 3
            filters = int(word.removeprefix("1x1-"))
            layers.append(Conv2d(channels, filters, extent, padding=extent // 2))
            channels = filters
            layers += [BatchNorm2d(channels), ReLU()] if batch_norm else [ReLU()]
        layers.append(MaxPool2d(2))
    return layers


def vgg(
    configuration: str,
    batch_norm: bool = False,
    num_classes: int = 1000,
    dropout: float = 0.5,
    torchvision: bool = False,
) -> VGG:
    """A new :class:`VGG` of one of the paper's configurations."""
    return VGG(configuration, batch_norm, num_classes, dropout, torchvision)


def vgg11(**options: Any) -> VGG:
    """Configuration A, of 11 layers with weights; options as of :func:`vgg`."""
    return vgg("A", **options)


def vgg13(**options: Any) -> VGG:
    """Configuration B, of 13 layers with weights; options as of :func:`vgg`."""
    return vgg("B", **options)


def vgg16(**options: Any) -> VGG:
    """Configuration D, of 16 layers with weights; options as of :func:`vgg`."""
    return vgg("D", **options)


def vgg19(**options: Any) -> VGG:
    """Configuration E, of 19 layers with weights; options as of :func:`vgg`."""
    return vgg("E", **options)
