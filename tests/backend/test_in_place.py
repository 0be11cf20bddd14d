"""Updates that a kernel with a core writes over what it reads: each element once, whatever the sizes."""

import numpy as np
import pytest

from minigrad import Tensor, jit, no_grad
from minigrad import device as devices

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.integers(-4, 5, shape).astype(np.float32)


W, G, INDEX = draw(5, 3, 3, 3), draw(2, 5, 9, 13), np.array([0, 3, 3, 1, 9, 0, 7])


def weight_gradient(x, w, g, index):
    return (x.conv2d(w, padding=1) * g).sum().gradient(w)[0]


CORES = {
    "map": (lambda x, *_: x * 2, (7, 13)),
    "sum down": (lambda x, *_: x.sum(0), (33, 21)),
    "sum along": (lambda x, *_: x.sum(1), (21, 33)),
    "sum of all": (lambda x, *_: x.sum(), (5, 21)),
    "sum of images": (lambda x, *_: x.sum((0, 2, 3)), (16, 13, 3, 5)),
    "long sum": (lambda x, *_: x.sum(0), (3000, 37)),
    "max": (lambda x, *_: x.max(0), (9, 11)),
    "prod": (lambda x, *_: (x.sign() * 2).prod(0), (3, 13)),
    "argmax": (lambda x, *_: x.argmax(0).cast("float32"), (9, 13)),
    "cumsum": (lambda x, *_: x.cumsum(0), (9, 13)),
    "sort": (lambda x, *_: x.sort(0)[0], (9, 13)),
    "take": (lambda x, w, g, i: x[i], (10, 13)),
    "scatter": (lambda x, w, g, i: Tensor.zeros(11, 13).scatter_add(0, i.unsqueeze(1).expand(7, 13), x), (7, 13)),
    "matmul": (lambda x, *_: x @ x.T, (13, 21)),
    "thin matmul": (lambda x, *_: x.T @ x, (200, 13)),
    "conv": (lambda x, w, g, i: x.conv2d(w, padding=1), (2, 3, 9, 13)),
    "conv of many": (lambda x, w, g, i: x.conv2d(w, padding=1), (16, 3, 5, 7)),
    "conv_weight_grad": (weight_gradient, (2, 3, 9, 13)),
    "max_pool": (lambda x, *_: x.max_pool2d(2), (3, 3, 10, 13)),
    "avg_pool": (lambda x, *_: x.avg_pool2d(3, padding=1), (3, 3, 7, 13)),
}


@pytest.mark.parametrize("core", CORES)
def test_each_element_once(device, core):
    check(device, core)


def check(device, core):
    """Three captured updates with a core's result, on a device and on NumPy."""
    f, shape = CORES[core]
    results = {}
    for name, wrap in (("numpy", lambda g: g), (device, jit)):
        with devices.backend(name):
            x = Tensor(np.random.default_rng(1).integers(-3, 4, shape).astype(np.float32))
            more = Tensor(W, requires_grad=True), Tensor(G), Tensor(INDEX)
            state = Tensor(np.zeros(f(x, *more).shape, np.float32))

            @wrap
            def step(x, *more, f=f, state=state):
                value = f(x, *more).detach()
                with no_grad():
                    state.assign(state * 2 + value)

            for _ in range(3):
                step(x, *more)
            results[name] = state.numpy()
    np.testing.assert_array_equal(results[device], results["numpy"])
    assert np.abs(results[device]).max() > 0
