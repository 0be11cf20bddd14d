"""One block of each case-study network, both ways, as the CuPy backend builds it, compiled for an H200 by NVRTC."""

import numpy as np
import pytest
from nvrtc_networks import compiled, programs

import minigrad
from minigrad import Tensor, nn
from minigrad.nn.models.alexnet import response_norm
from minigrad.nn.models.googlenet import Inception
from minigrad.nn.models.resnet import BasicBlock, Bottleneck

IMAGES = 8
BLOCKS = {
    "AlexNet": ((32, 15), lambda: nn.Sequential(
        nn.Conv2d(32, 64, 5, padding=2, groups=2), nn.ReLU(), response_norm(), nn.MaxPool2d(3, stride=2)
    )),
    "VGG": ((32, 14), lambda: nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))),
    "GoogLeNet": ((32, 14), lambda: Inception(32, (16, (16, 32), (8, 16), 16))),
    "ResNet": ((64, 14), lambda: Bottleneck(64, 32, stride=2)),
    "CIFAR": ((16, 16), lambda: BasicBlock(16, 32, stride=2, shortcut="A")),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_compiles(name):
    (channels, size), make = BLOCKS[name]

    def both_ways():
        block = make()
        x = Tensor(np.zeros((IMAGES, channels, size, size), np.float32), requires_grad=True)
        with minigrad.autocast("bfloat16", enabled=name != "VGG"):
            loss = block(x).float().square().sum()
        loss.realize(*loss.gradient(x, *block.parameters()))

    found = compiled(programs(both_ways))
    assert found.contractions >= 3 and found.spilling == {}


def test_the_update_of_a_weight_fits_beside_its_gradient():
    """The gradient, with the update in the same function, is of few filters and many taps: much is read at a time."""

    def step():
        conv = nn.Conv2d(32, 96, 5, padding=2)
        optimizer = nn.optim.SGD(conv.parameters(), 0.1, momentum=0.9)
        with minigrad.autocast("bfloat16"):
            conv(Tensor(np.zeros((32, 32, 28, 28), np.float32))).relu().float().square().sum().backward()
        optimizer.step()
        conv.weight.realize(conv.bias)

    found = compiled(programs(step))
    assert found.contractions == 3 and found.spilling == {}  # the gradient is summed in parts
