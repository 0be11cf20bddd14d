"""Training on the CuPy backend: CuPy and cuBLAS by the recorder, generated functions executed by the CPU."""

import numpy as np
import pytest
from cupy_recorder import Recorder
from steps import training

import minigrad
from minigrad import Tensor, jit, nn
from minigrad import device as devices

BATCH, STEPS = 4, 4


def losses(device, wrap=jit):
    """Of LeNet-5 in the first steps of a training."""
    rng = np.random.default_rng(0)
    with devices.backend(device):
        minigrad.manual_seed(0)
        model = nn.models.lenet5()
        step = training(wrap, model, nn.optim.SGD(model.parameters(), 0.05, momentum=0.9))
        found = []
        for _ in range(STEPS):
            x, y = rng.standard_normal((BATCH, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, BATCH)
            found.append(step(Tensor(x), Tensor(y)))
        return [loss.item() for loss in found]  # nothing is read before the last step is launched


def test_lenet_is_trained_by_graphs(monkeypatch, tmp_path):
    pytest.importorskip("cuda_on_cpu")
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path))
    recorder = Recorder(executes=True).installed(monkeypatch)
    opened = recorder.opened(monkeypatch)
    found = losses(opened.name)
    np.testing.assert_allclose(found, losses("numpy"), rtol=2e-4)
    names = recorder.names()
    assert names.count("graph") >= (STEPS - 1) * 2 and names.count("gemmEx") >= STEPS * 5
