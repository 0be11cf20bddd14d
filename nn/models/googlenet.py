"""GoogLeNet (Szegedy et al., "Going deeper with convolutions", 2014), and torchvision's variant of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from minigrad.nn import init
from minigrad.nn.activation import ReLU
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv2d
from minigrad.nn.dropout import Dropout
from minigrad.nn.linear import Identity, Linear
from minigrad.nn.models.alexnet import response_norm
from minigrad.nn.models.network import Network, he_init
from minigrad.nn.module import Module
from minigrad.nn.norm import BatchNorm2d
from minigrad.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minigrad.tensor import Tensor

Convolution = Callable[..., Module]

# Table 1 of the paper: filters of 1x1, 3x3 after a reduction, 5x5 after a reduction, and 1x1 after the pool.
INCEPTIONS = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


class GoogLeNetOutputs(NamedTuple):
    """What GoogLeNet gives in training: three times logits (N, num_classes), in torchvision's order."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor

    def cross_entropy(self, target: Tensor, *how: Any, **options: Any) -> Tensor:
        """The loss of the paper: that of the logits plus 0.3 times that of each auxiliary classifier.

        Arguments as :meth:`minigrad.Tensor.cross_entropy`; the losses of ``nn`` come here too.
        """
        loss, second, first = (logits.cross_entropy(target, *how, **options) for logits in self)
        return loss + 0.3 * (first + second)


class ConvReLU(Module):
    """A convolution and ReLU; with ``batch_norm`` normalised between the two, and then without a bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=not batch_norm)
        self.bn = BatchNorm2d(out_channels, eps=0.001) if batch_norm else None
        self.relu = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, *O)."""
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return self.relu(x)  # type: ignore[no-any-return]


class Inception(Module):
    """Four branches side by side, whose channels are joined: 1x1, 3x3, 5x5, and a pool with 1x1 after it.

    Args:
        in_channels: channels of the input.
        widths: filters of each branch, as in :data:`INCEPTIONS`.
        convolution: makes a convolution with its ReLU, such as :class:`ConvReLU`.
        largest: extent of the filters that the paper has as 5x5.

    >>> Inception(192, INCEPTIONS["3a"])(Tensor.zeros(2, 192, 6, 5)).shape
    (2, 256, 6, 5)
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, tuple[int, int], tuple[int, int], int],
        convolution: Convolution = ConvReLU,
        largest: int = 5,
    ) -> None:
        super().__init__()
        single, (reduce3, wide3), (reduce5, wide5), after_pool = widths
        self.out_channels = single + wide3 + wide5 + after_pool
        self.branch1 = convolution(in_channels, single, 1)
        self.branch2 = Sequential(convolution(in_channels, reduce3, 1), convolution(reduce3, wide3, 3, padding=1))
        self.branch3 = Sequential(
            convolution(in_channels, reduce5, 1), convolution(reduce5, wide5, largest, padding=largest // 2)
        )
        self.branch4 = Sequential(MaxPool2d(3, stride=1, padding=1), convolution(in_channels, after_pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        joined: Tensor = Tensor.cat([branch(x) for branch in branches], 1)
        return joined


class AuxiliaryClassifier(Module):
    """Logits from the middle of the network, whose loss brings gradients to its lower half.

    Args:
        in_channels: channels of the input.
        num_classes: number of logits.
        pool: makes 4x4 of the input.
        convolution: makes a convolution with its ReLU.
        dropout: probability in the fully connected part.
    """

    def __init__(
        self, in_channels: int, num_classes: int, pool: Module, convolution: Convolution, dropout: float
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv = convolution(in_channels, 128, 1)
        self.fc1 = Linear(4 * 4 * 128, 1024)
        self.relu = ReLU()
        self.dropout = Dropout(dropout)
        self.fc2 = Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 14, 14) to (N, num_classes)."""
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))  # type: ignore[no-any-return]


class GoogLeNet(Network):
    """GoogLeNet for colour images of 224x224: nine inception modules, an average pool and one linear layer.

    In training it gives :class:`GoogLeNetOutputs`, in evaluation the logits.

    Args:
        num_classes: number of logits.
        aux: whether there are two auxiliary classifiers, which work in training only.
        dropout: probability before the last layer.
        dropout_aux: probability in the auxiliary classifiers.
        torchvision: whether to be torchvision's variant, whose names the parameters have: batch normalisation in place
            of biases and local response normalisation, 3x3 filters in place of 5x5, and a fourth pool of 2x2.
        transform_input: whether images that are normalised as for other networks of torchvision, by ImageNet's mean
            and deviation, are first normalised by 0.5 and 0.5 instead, as its weights for this one need.

    >>> sum(p.numel() for p in GoogLeNet(aux=False).parameters())
    6998552
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux: bool = True,
        dropout: float = 0.4,
        dropout_aux: float = 0.7,
        torchvision: bool = False,
        transform_input: bool = False,
    ) -> None:
        super().__init__()
        convolution = partial(ConvReLU, batch_norm=torchvision)
        largest = 3 if torchvision else 5

        def inception(in_channels: int, name: str) -> Inception:
            return Inception(in_channels, INCEPTIONS[name], convolution, largest)

        def auxiliary(in_channels: int) -> AuxiliaryClassifier | None:
            pool = AdaptiveAvgPool2d(4) if torchvision else AvgPool2d(5, stride=3)
            return AuxiliaryClassifier(in_channels, num_classes, pool, convolution, dropout_aux) if aux else None

        self.input_size = (3, 224, 224)
        self.transform_input = transform_input
        self.conv1 = convolution(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = Identity() if torchvision else response_norm()
        self.conv2 = convolution(64, 64, 1)
        self.conv3 = convolution(64, 192, 3, padding=1)
        self.norm2 = Identity() if torchvision else response_norm()
        self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = inception(192, "3a")
        self.inception3b = inception(256, "3b")
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception(480, "4a")
        self.inception4b = inception(512, "4b")
        self.inception4c = inception(512, "4c")
        self.inception4d = inception(512, "4d")
        self.inception4e = inception(528, "4e")
        self.maxpool4 = MaxPool2d(2 if torchvision else 3, stride=2, ceil_mode=True)
        self.inception5a = inception(832, "5a")
        self.inception5b = inception(832, "5b")
        self.aux1 = auxiliary(512)
        self.aux2 = auxiliary(528)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.dropout = Dropout(dropout)
        self.fc = Linear(1024, num_classes)
        self._initialise(torchvision)

    def _initialise(self, torchvision: bool) -> None:
        """He et al. (2015) in the paper's variant, of which it says nothing; narrow and normal in torchvision's."""
        if not torchvision:
            he_init(self, "fan_in")
            return
        for module in self.modules():
            if isinstance(module, (Conv2d, Linear)):
                init.normal_(module.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """(N, 3, 224, 224) to (N, num_classes), or in training to three of these."""
        if self.transform_input:
            x = _renormalised(x)
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = fourth = self.inception4a(x)
        x = seventh = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutputs(logits, self.aux2(seventh), self.aux1(fourth))
        return logits


def _renormalised(x: Tensor) -> Tensor:
    """Images normalised by ImageNet's mean and deviation, normalised by 0.5 and 0.5 instead."""
    statistics = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    channels = [x[:, i : i + 1] * (std / 0.5) + (mean - 0.5) / 0.5 for i, (mean, std) in enumerate(statistics)]
    return Tensor.cat(channels, 1)


def googlenet(
    num_classes: int = 1000,
    aux: bool = True,
    dropout: float = 0.4,
    dropout_aux: float = 0.7,
    torchvision: bool = False,
    transform_input: bool = False,
) -> GoogLeNet:
    """A new :class:`GoogLeNet`."""
    return GoogLeNet(num_classes, aux, dropout, dropout_aux, torchvision, transform_input)
