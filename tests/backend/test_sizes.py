"""Sizes that a backend may treat in a way of their own: long rows, depthwise layers, small and odd batches."""

import numpy as np
import pytest

from minigrad import Tensor
from minigrad import device as devices


def integers(*shape):
    return np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 5000), (3, 100_000), (30, 16_392), (300, 2049)])
def test_reductions_of_long_rows(device, shape):
    a = integers(*shape)
    with devices.backend(device):
        x = Tensor(a)
        np.testing.assert_array_equal(x.sum(0).numpy(), a.sum(0))
        np.testing.assert_array_equal(x.max(0).numpy(), a.max(0))
        np.testing.assert_array_equal(x.argmax(0).numpy(), a.argmax(0))


@pytest.mark.parametrize("channels", [1, 4, 8, 12, 16, 24])
@pytest.mark.parametrize("images", [1, 3, 8, 16])
def test_depthwise_convolution(device, images, channels):
    expected = depthwise("numpy", images, channels)
    for got, value in zip(depthwise(device, images, channels), expected):
        np.testing.assert_array_equal(got, value)


def depthwise(device, images, channels):
    with devices.backend(device):
        x = Tensor(integers(images, channels, 7, 6), requires_grad=True)
        w = Tensor(integers(channels, 1, 3, 3), requires_grad=True)
        y = (x * 1).conv2d(w, padding=1, stride=2, groups=channels)
        return [y.numpy(), *(g.numpy() for g in (y * y).sum().gradient(x, w))]


@pytest.mark.parametrize("images", [1, 7, 16, 24])
@pytest.mark.parametrize("channels", [3, 8, 12])
def test_a_block_of_layers(device, images, channels):
    """Convolutions in groups and with strides, a residual, channels put side by side, slices, a pool over all."""
    expected = block("numpy", images, channels)
    for got, value in zip(block(device, images, channels), expected):
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-4 * np.abs(value).max())


def block(device, images, channels):
    with devices.backend(device):
        x = Tensor(integers(images, channels, 9, 8), requires_grad=True)
        w = Tensor(integers(2 * channels, channels, 3, 3) / 8, requires_grad=True)
        v = Tensor(integers(channels, 2 * channels // channels, 3, 3) / 8, requires_grad=True)
        y = x.conv2d(w, padding=1).relu()
        z = y.conv2d(v, padding=1, groups=channels) + x
        both = Tensor.cat(z, y[:, ::2].flip(3), dim=1).max_pool2d(3, stride=2, padding=1)
        out = both.mean((2, 3)).softmax(1)
        loss = (out * out).sum() + (both[:, 1:] * 0.01).sum()
        return [out.numpy(), *(g.numpy() for g in loss.gradient(x, w, v))]
