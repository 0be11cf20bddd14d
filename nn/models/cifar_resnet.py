"""The residual and plain networks for CIFAR-10 of section 4.2 of He et al. (2015): 20, 32, 44, 56 and 110 layers."""

from __future__ import annotations

from functools import partial

from minigrad.errors import ArgumentError
from minigrad.nn.activation import ReLU
from minigrad.nn.conv import Conv2d
from minigrad.nn.linear import Linear
from minigrad.nn.models.network import Network
from minigrad.nn.models.resnet import BasicBlock, initialise, stage
from minigrad.nn.norm import BatchNorm2d
from minigrad.nn.pool import AdaptiveAvgPool2d
from minigrad.tensor import Tensor


class CifarResNet(Network):
    """A residual network for colour images of 32x32: three stages of n blocks, 16, 32 and 64 channels wide.

    With the first convolution and the last layer that makes depth = 6n + 2.

    Args:
        depth: 20, 32, 44, 56, 110 or another 6n + 2.
        residual: False for the plain network of that depth, which has no shortcuts.
        shortcut: option ``"A"`` of the paper, which has no parameters; ``"B"`` or ``"C"``, see ``resnet.py``.
        num_classes: number of logits.
        zero_init_residual: whether residual blocks start as their shortcuts (Goyal et al., 2017).

    Raises:
        ArgumentError: if there is no such depth or shortcut.

    >>> sum(p.numel() for p in CifarResNet(20).parameters())
    269722
    """

    def __init__(
        self,
        depth: int,
        residual: bool = True,
        shortcut: str = "A",
        num_classes: int = 10,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            raise ArgumentError.of("cifar_resnet", "a depth of 6n + 2, such as 20, 32, 44, 56 or 110", depth)
        block = partial(BasicBlock, shortcut=shortcut, residual=residual)
        self.input_size = (3, 32, 32)
        self.conv1 = Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(16)
        self.relu = ReLU()
        self.layer1 = stage(block, 16, 16, blocks, stride=1)
        self.layer2 = stage(block, 16, 32, blocks, stride=2)
        self.layer3 = stage(block, 32, 64, blocks, stride=2)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(64, num_classes)
        initialise(self, zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def cifar_resnet(
    depth: int,
    residual: bool = True,
    shortcut: str = "A",
    num_classes: int = 10,
    zero_init_residual: bool = False,
) -> CifarResNet:
    """A new :class:`CifarResNet`."""
    return CifarResNet(depth, residual, shortcut, num_classes, zero_init_residual)
