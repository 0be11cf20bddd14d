"""What users of other lazy tensor libraries complain about, as far as no other file of these tests has it."""

import numpy as np
import pytest

from minigrad import Tensor, device, jit
from minigrad.backends.numpy import NumpyBackend
from minigrad.nn import optim
from minigrad.nn.models import lenet5


@pytest.mark.parametrize("wrap", [lambda f: f, jit], ids=["plain", "jit"])
def test_a_training_step_of_lenet_is_few_kernels(wrap, launched):
    """Tinygrad needs 43, and compiles them for 6.5 s."""
    net = lenet5()
    optimizer = optim.SGD(net.parameters(), 0.01, momentum=0.9)

    @wrap
    def step(x, y):
        optimizer.zero_grad()
        loss = net(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = Tensor(np.zeros((16, 1, 28, 28), "f4")), Tensor(np.arange(16) % 10)
    for parameter in net.parameters():
        parameter.realize(*optimizer.state[parameter].values())
    launched.clear()
    step(x, y).item()
    assert len(launched) < 43
    assert [kernel.op for kernel in launched].count("conv") == 3


class Two(NumpyBackend):
    """A backend with two devices."""

    @classmethod
    def devices(cls):
        return ["left", "right"]


def test_every_device_of_a_backend_can_be_chosen(backends, monkeypatch):
    """Tinygrad #1566, #2486: only the first platform could be used."""
    backends(two=f"{__name__}:Two")
    left, right = Tensor([1.0], device="two"), Tensor([2.0], device="TWO:1")
    assert (left.device, right.device, Tensor([0.0], device="two:0").device) == ("two", "two:1", "two")
    assert device.get("two") is not device.get("two:1") and device.get("two:1").backend.requested == "1"
    assert (left.to("two:1") + right).item() == 3 and (left + right.to("two:0")).device == "two"
    monkeypatch.setenv("MINIGRAD_BACKEND", "two:1")
    assert Tensor.ones(2).device == "two:1"
