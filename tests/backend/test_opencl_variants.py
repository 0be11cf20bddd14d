"""The renderer's other ways, on the same driver: the portable dialect, other vectors, and the templates for GPUs.

Every row of the table, forward and gradient, against the oracle. Many kernels share a program, as each costs a build.
"""

import dataclasses

import numpy as np
import pytest
import test_in_place
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import training

from minigrad import Tensor, dtypes, jit, nn, no_grad
from minigrad import device as devices
from minigrad.testing import strategies
from minigrad.testing.bounds import SIGNED_ZERO, bounded, compare
from minigrad.testing.evaluate import run
from minigrad.testing.programs import on, outcomes

ROWS = strategies.rows()
PARTS = 6
TARGETS = {  # what differs from the target of this machine
    "portable": {"portable": True},
    "wide": {"lanes": 16, "registers": 32},
    "narrow": {"portable": True, "lanes": 4, "registers": 16},
    "gpu": {"portable": True, "is_gpu": True, "lanes": 1, "registers": 64},
}


@pytest.fixture(scope="module", params=TARGETS)
def variant(request):
    """The name of a device that renders as other drivers need it."""
    reason = devices.available_backends()["opencl"]
    if reason is not None:
        pytest.skip(reason)
    from minigrad.backends.cstyle.dialect import OPENCL
    from minigrad.backends.opencl import OpenCLBackend

    changes = dict(TARGETS[request.param])
    if changes.pop("portable", False):
        changes["dialect"] = OPENCL
    target = dataclasses.replace(devices.get("opencl").backend.target, **changes)
    name = f"opencl_{request.param}"
    devices._devices[name] = devices.Device(name, OpenCLBackend(target=target))
    yield name
    del devices._devices[name]


@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=3)
@given(data=st.data())
def test_every_row(variant, part, data):
    can = sorted(devices.get(variant).backend.capabilities.dtypes, key=dtypes.ALL.index)
    wanted = []
    for op in ROWS[part::PARTS]:
        program = data.draw(strategies.cases(op, only=can))
        nodes = outcomes(program, program.build(on(variant)))
        wanted += [(op, node, value) for node, value in zip(nodes, bounded(nodes))]
    found = run([node for _, node, _ in wanted])
    for got, (op, node, value) in zip(found, wanted):
        compare(got, value, node.dtype, repr(op), op.name in SIGNED_ZERO)


@pytest.mark.parametrize("core", test_in_place.CORES)
def test_updates_in_place(variant, core):
    test_in_place.check(variant, core)


def test_training_is_numpys(variant):
    losses = {}
    for name in ("numpy", variant):
        with devices.backend(name):
            losses[name] = train()
    np.testing.assert_allclose(losses[variant], losses["numpy"], rtol=1e-5)


def train():
    """Losses of a few captured steps of a network of all layer kinds."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, stride=2, groups=2), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    with no_grad():
        for p in model.parameters():
            p.assign(Tensor(rng.standard_normal(p.shape).astype(np.float32) * 0.2))
    step = training(jit, model, nn.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    x = rng.standard_normal((16, 2, 11, 11)).astype(np.float32)
    return [step(Tensor(x), Tensor(np.arange(16) % 5)).item() for _ in range(4)]
