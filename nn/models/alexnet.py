"""AlexNet (Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012)."""

from __future__ import annotations

from minigrad.errors import ArgumentError
from minigrad.nn.activation import ReLU
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv2d
from minigrad.nn.dropout import Dropout
from minigrad.nn.linear import Linear
from minigrad.nn.models.network import Network, he_init, narrow_init
from minigrad.nn.module import Module
from minigrad.nn.norm import LocalResponseNorm
from minigrad.nn.pool import AdaptiveAvgPool2d, MaxPool2d
from minigrad.tensor import Tensor


def response_norm() -> LocalResponseNorm:
    """The normalisation of the paper: a / (2 + 1e-4 * sum of a**2 over 5 channels)**0.75.

    The layer's alpha is divided by the number of channels, hence 5e-4.
    """
    return LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class AlexNet(Network):
    """AlexNet for colour images of 227x227, with layers named by their place.

    It starts as VGG does. The start in the paper, narrow weights everywhere and biases of 1 that open the ReLUs, goes
    with its batches of 128: at its learning rate and with a few images a step, the loss grows.

    Args:
        num_classes: number of logits.
        groups: 1 for a single tower; 2 for the original, whose second, fourth and fifth convolutions see only the half
            of the channels that lies on their own graphics card.
        norm_first: whether the first two stages normalise before pooling, as in the paper, or after.
        dropout: probability in the fully connected part.

    >>> net = AlexNet()
    >>> sum(p.numel() for p in net.parameters())
    62378344
    """

    input_hint = "crop or resize to 227x227; the 224x224 of the paper do not fit its first layer"

    def __init__(
        self, num_classes: int = 1000, groups: int = 1, norm_first: bool = False, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.input_size = (3, 227, 227)

        def pool_and_norm(stage: int) -> dict[str, Module]:
            layers = {f"pool{stage}": MaxPool2d(3, stride=2), f"norm{stage}": response_norm()}
            return dict(reversed(layers.items())) if norm_first else layers

        self.features = Sequential({
            "conv1": Conv2d(3, 96, 11, stride=4), "relu1": ReLU(), **pool_and_norm(1),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=groups), "relu2": ReLU(), **pool_and_norm(2),
            "conv3": Conv2d(256, 384, 3, padding=1), "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=groups), "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=groups), "relu5": ReLU(),
            "pool5": MaxPool2d(3, stride=2),
        })  # fmt: skip
        self.classifier = Sequential({
            "fc6": Linear(6 * 6 * 256, 4096), "relu6": ReLU(), "drop6": Dropout(dropout),
            "fc7": Linear(4096, 4096), "relu7": ReLU(), "drop7": Dropout(dropout),
            "fc8": Linear(4096, num_classes),
        })  # fmt: skip
        he_init(self)
        narrow_init(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 227, 227) to (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class TorchvisionAlexNet(Network):
    """torchvision's AlexNet, after Krizhevsky's "One weird trick" (2014): narrower, without normalisation.

    Parameters have torchvision's names. An adaptive pool makes 6x6 of whatever the convolutions give, so images may
    have any size from 63x63 up.

    >>> sum(p.numel() for p in TorchvisionAlexNet().parameters())
    61100840
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.input_size = (3, 224, 224)
        self.features = Sequential(
            Conv2d(3, 64, 11, stride=4, padding=2), ReLU(), MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1), ReLU(),
            Conv2d(384, 256, 3, padding=1), ReLU(),
            Conv2d(256, 256, 3, padding=1), ReLU(), MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.avgpool = AdaptiveAvgPool2d(6)
        self.classifier = Sequential(
            Dropout(dropout), Linear(6 * 6 * 256, 4096), ReLU(),
            Dropout(dropout), Linear(4096, 4096), ReLU(),
            Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) to (N, num_classes)."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def alexnet(
    num_classes: int = 1000,
    groups: int = 1,
    norm_first: bool = False,
    dropout: float = 0.5,
    torchvision: bool = False,
) -> Network:
    """A new :class:`AlexNet`, or with ``torchvision`` a :class:`TorchvisionAlexNet`.

    Raises:
        ArgumentError: if ``torchvision`` is combined with ``groups`` or ``norm_first``, which its variant lacks.
    """
    if not torchvision:
        return AlexNet(num_classes, groups, norm_first, dropout)
    if groups != 1 or norm_first:
        expected = "torchvision's variant without groups and norm_first"
        raise ArgumentError.of("alexnet", expected, f"groups={groups}, norm_first={norm_first}")
    return TorchvisionAlexNet(num_classes, dropout)
