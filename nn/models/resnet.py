"""Residual networks for ImageNet (He et al., "Deep residual learning for image recognition", 2015)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.nn import init
from minigrad.nn.activation import ReLU
from minigrad.nn.container import Sequential
from minigrad.nn.conv import Conv2d
from minigrad.nn.linear import Linear
from minigrad.nn.models.network import Network, he_init
from minigrad.nn.module import Module
from minigrad.nn.norm import BatchNorm2d
from minigrad.nn.pool import AdaptiveAvgPool2d, MaxPool2d
from minigrad.tensor import Tensor

# Blocks in each of the four stages, and whether they are bottlenecks: table 1 of the paper.
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class Subsample(Module):
    """The shortcut of option A: every ``stride``-th pixel, and zeros in the channels that were not there.

    >>> Subsample(16, 32, 2)(Tensor.ones(5, 16, 8, 6)).shape
    (5, 32, 4, 3)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), rounded up."""
        x = x[:, :, :: self.stride, :: self.stride]
        return x.pad(((0, 0), (0, self.out_channels - self.in_channels), (0, 0), (0, 0)))

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


def shortcut_layer(option: str, in_channels: int, out_channels: int, stride: int) -> Module | None:
    """What the shortcut around a block does to make its sizes agree; None where it is the identity.

    Section 3.3 and table 3 of the paper: option A adds zeros, B projects where sizes change, C projects always.

    Raises:
        ArgumentError: if the option is another.
    """
    if option not in ("A", "B", "C"):
        raise ArgumentError.of("resnet", "a shortcut of 'A', 'B' or 'C'", repr(option))
    if option != "C" and stride == 1 and in_channels == out_channels:
        return None
    if option == "A":
        return Subsample(in_channels, out_channels, stride)
    projection = Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return Sequential(projection, BatchNorm2d(out_channels))


class _Block(Module):
    """A branch of layers and its input added up; without ``residual`` the branch alone, as in a plain network."""

    out_channels: int
    residual: bool
    downsample: Module | None
    relu: ReLU

    def branch(self, x: Tensor) -> Tensor:
        """The layers beside the shortcut."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), rounded up."""
        out = self.branch(x)
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)  # type: ignore[no-any-return]


class BasicBlock(_Block):
    """Two 3x3 convolutions, the first of which may have a stride.

    >>> BasicBlock(64, 128, stride=2)(Tensor.zeros(2, 64, 8, 6)).shape
    (2, 128, 4, 3)
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, shortcut: str = "B", residual: bool = True
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.conv1 = Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.relu = ReLU()
        self.residual = residual
        self.downsample = shortcut_layer(shortcut, in_channels, channels, stride) if residual else None

    def branch(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H / stride, W / stride), rounded up."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))  # type: ignore[no-any-return]


class Bottleneck(_Block):
    """1x1 down to ``channels``, 3x3, and 1x1 up to four times as many.

    A stride is that of the 3x3, or with ``stride_in_1x1`` of the first convolution, as in the paper.

    >>> Bottleneck(256, 128, stride=2)(Tensor.zeros(2, 256, 8, 6)).shape
    (2, 512, 4, 3)
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: str = "B",
        residual: bool = True,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.out_channels = out_channels = 4 * channels
        self.conv1 = Conv2d(in_channels, channels, 1, stride=first, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, stride=second, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = BatchNorm2d(out_channels)
        self.relu = ReLU()
        self.residual = residual
        self.downsample = shortcut_layer(shortcut, in_channels, out_channels, stride) if residual else None

    def branch(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, 4 * channels, H / stride, W / stride), rounded up."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))  # type: ignore[no-any-return]


def stage(
    block: Callable[[int, int, int], _Block], in_channels: int, channels: int, blocks: int, stride: int
) -> Sequential:
    """Blocks in a row, of which the first may have a stride and the others keep their sizes."""
    layers = [block(in_channels, channels, stride)]
    while len(layers) < blocks:
        layers.append(block(layers[-1].out_channels, channels, 1))
    return Sequential(*layers)


def initialise(network: Module, zero_init_residual: bool) -> None:
    """Initialise convolutions as He et al. (2015) advise; batch normalisation starts at scale 1 and shift 0.

    With ``zero_init_residual`` the last scale of each residual block starts at 0, so that the block starts as its
    shortcut (Goyal et al., 2017).
    """
    he_init(network)
    for block in network.modules():
        if zero_init_residual and isinstance(block, _Block) and block.residual:
            weights = dict(block.named_parameters())
            init.zeros_(weights.get("bn3.weight", weights["bn2.weight"]))


class ResNet(Network):
    """A residual network for colour images of 224x224; others of at least 32x32 work too.

    Parameters have torchvision's names.

    Args:
        depth: 18 or 34, of basic blocks; 50, 101 or 152, of bottlenecks.
        num_classes: number of logits.
        shortcut: option ``"A"``, ``"B"`` or ``"C"`` of the paper, see :func:`shortcut_layer`.
        stride_in_1x1: whether bottlenecks have their stride in the first 1x1 convolution, as in the paper, and not in
            the 3x3, as in most networks since. Parameters are the same.
        zero_init_residual: whether residual blocks start as their shortcuts, see :func:`initialise`.
        residual: False for the plain network of the paper, which has no shortcuts.

    Raises:
        ArgumentError: if there is no such depth or shortcut.

    >>> sum(p.numel() for p in ResNet(50).parameters())
    25557032
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        shortcut: str = "B",
        stride_in_1x1: bool = False,
        zero_init_residual: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ArgumentError.of("resnet", f"a depth of {', '.join(map(str, DEPTHS))}", depth)
        blocks, bottlenecks = DEPTHS[depth]
        block: Callable[..., _Block] = partial(BasicBlock, shortcut=shortcut, residual=residual)
        if bottlenecks:
            block = partial(Bottleneck, shortcut=shortcut, residual=residual, stride_in_1x1=stride_in_1x1)
        expansion = 4 if bottlenecks else 1

        self.input_size = (3, 224, 224)
        self.conv1 = Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(block, 64, 64, blocks[0], stride=1)
        self.layer2 = stage(block, 64 * expansion, 128, blocks[1], stride=2)
        self.layer3 = stage(block, 128 * expansion, 256, blocks[2], stride=2)
        self.layer4 = stage(block, 256 * expansion, 512, blocks[3], stride=2)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(512 * expansion, num_classes)
        initialise(self, zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) to (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def resnet(
    depth: int,
    num_classes: int = 1000,
    shortcut: str = "B",
    stride_in_1x1: bool = False,
    zero_init_residual: bool = False,
    residual: bool = True,
) -> ResNet:
    """A new :class:`ResNet`."""
    return ResNet(depth, num_classes, shortcut, stride_in_1x1, zero_init_residual, residual)


def resnet18(**options: Any) -> ResNet:
    """ResNet-18; options as of :func:`resnet`."""
    return resnet(18, **options)


def resnet34(**options: Any) -> ResNet:
    """ResNet-34; options as of :func:`resnet`."""
    return resnet(34, **options)


def resnet50(**options: Any) -> ResNet:
    """ResNet-50; options as of :func:`resnet`."""
    return resnet(50, **options)


def resnet101(**options: Any) -> ResNet:
    """ResNet-101; options as of :func:`resnet`."""
    return resnet(101, **options)


def resnet152(**options: Any) -> ResNet:
    """ResNet-152; options as of :func:`resnet`."""
    return resnet(152, **options)
