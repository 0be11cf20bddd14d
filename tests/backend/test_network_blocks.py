"""The blocks that the networks are made of: values and gradients within their bounds on every backend."""

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, dtypes, nn
from minigrad import device as devices
from minigrad.nn.models.alexnet import response_norm
from minigrad.nn.models.googlenet import Inception
from minigrad.nn.models.network import he_init
from minigrad.nn.models.resnet import BasicBlock, Bottleneck
from minigrad.testing.bounds import bounded, compare

BLOCKS = {
    "AlexNet": lambda: nn.Sequential(
        nn.Conv2d(6, 9, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2), response_norm()
    ),
    "GoogLeNet": lambda: Inception(6, (4, (3, 6), (2, 5), 3)),
    "ResNet": lambda: Bottleneck(6, 4, stride=2),
    "CIFAR": lambda: BasicBlock(6, 8, stride=2, shortcut="A"),
}


def results(device, name, dtype):
    """The output of a block, and the gradients of a weighted sum of it: tensors that are not computed yet, by name."""
    minigrad.manual_seed(0)
    rng = np.random.default_rng(0)
    with devices.backend(device):
        block = BLOCKS[name]()
        he_init(block)
        block.to(dtype)
        x = Tensor(rng.standard_normal((4, 6, 13, 12)).astype(dtype.numpy), requires_grad=True)
        out = block(x)
        loss = (out * Tensor(rng.standard_normal(out.shape).astype(dtype.numpy))).sum()
        named = {"x": x, **dict(block.named_parameters())}
        return {"output": out, **dict(zip(named, loss.gradient(*named.values())))}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(device, name):
    found = results(device, name, dtypes.float32)
    (bound,) = bounded([found["output"].node])
    found["output"].realize(*found.values())
    compared = compare(found["output"].numpy(), bound, dtypes.float32, name)
    assert compared.decided == compared.elements
    # Gradients pass comparisons, with 0 and between neighbours, of which a bound says nothing.
    wide, narrow = results("numpy", name, dtypes.float64), results("numpy", name, dtypes.float32)
    for what, tensor in found.items():
        exact = wide[what].numpy()
        scale = np.abs(exact).max()
        own = np.abs(narrow[what].numpy() - exact).max()
        assert own < 1e-5 * scale, what  # sums of a few thousand products, each rounded to 6e-8
        assert np.abs(tensor.numpy() - exact).max() < 4 * own + 1e-7 * scale, what
