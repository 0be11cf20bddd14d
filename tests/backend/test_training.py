"""Training on every backend is training on NumPy."""

import numpy as np
import pytest
from steps import training

import minigrad
from minigrad import Tensor, jit, nn
from minigrad import device as devices

STEPS = 20


def losses(name, wrap):
    """LeNet-5's losses over the first steps on random images, from the same weights everywhere."""
    rng = np.random.default_rng(0)
    with devices.backend(name):
        model = nn.models.lenet5()
        step = training(wrap, model, nn.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        images = rng.standard_normal((STEPS, 32, 1, 28, 28)).astype(np.float32)
        return [step(Tensor(x), Tensor(rng.integers(0, 10, 32))).item() for x in images]


@pytest.mark.parametrize("wrap", [jit, lambda f: f], ids=["jit", "plain"])
def test_losses_of_lenet(device, wrap):
    minigrad.manual_seed(0)
    expected = losses("numpy", lambda f: f)
    minigrad.manual_seed(0)
    np.testing.assert_allclose(losses(device, wrap), expected, rtol=1e-4)
