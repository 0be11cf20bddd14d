"""Nothing grows: a thousand steps leave as many objects, bytes and cache entries as twenty."""

import gc
from collections import Counter

import numpy as np
import pytest
from steps import net, training

import minigrad
from minigrad import Tensor, device, effects, graph, jit, nn, realize, simplify
from minigrad.buffer import Buffer
from minigrad.graph import Node
from minigrad.nn import optim

STEPS = 1000
KINDS = {Node: "nodes", Tensor: "tensors", Buffer: "buffers"}


def census():
    """What there is of everything that could grow."""
    gc.collect()
    found = Counter(KINDS[type(o)] for o in gc.get_objects() if type(o) in KINDS)
    here = device.get("numpy")
    found.update(
        bytes=here.pool.held,
        allocations=here.pool.allocations,
        programs=len(here.programs),
        schedules=realize.cache_size(),
        structures=len(simplify._values),
        numbers=len(simplify._numbers),
        rules=len(graph._inferred),
        constants=len(graph._constants),
        pending=len(effects._pending),
    )
    return found


def grown(step, warm=20, steps=STEPS):
    """How the census changes between step ``warm`` and step ``steps``."""
    for i in range(warm):
        step(i)
    before, objects = census(), len(gc.get_objects())
    for i in range(warm, steps):
        step(i)
    after, more = census(), len(gc.get_objects()) - objects
    changed = {name: (before[name], after[name]) for name in before | after if before[name] != after[name]}
    # Of any kind: lists and dicts of the test itself come and go, but fewer than one for every two steps.
    return changed | ({"objects": (objects, objects + more)} if more > (steps - warm) // 2 else {})


def data(i):
    rng = np.random.default_rng(i)
    return rng.standard_normal((3, 4)).astype("f4"), rng.integers(0, 3, 3)


@pytest.mark.parametrize("wrap", [lambda f: f, jit], ids=["plain", "jit"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_training(wrap, name):
    model = net(nn.Dropout(0.2))
    make = {"sgd": lambda p: optim.SGD(p, 0.01, momentum=0.9), "adam": optim.Adam}[name]
    step = training(wrap, model, make(model.parameters()))

    def one(i):
        x, y = data(i)
        loss = step(Tensor(x), Tensor(y))
        if i % 10 == 0:
            loss.item()

    def realized(i):  # without jit, only a realize ends a step
        one(i)
        model[0].weight.realize()

    assert grown(one if wrap is jit else realized, warm=30, steps=300 if name == "adam" else STEPS) == {}


def test_a_thousand_plain_steps():
    w, v = Tensor([0.5, -0.5], requires_grad=True), Tensor([0.0, 0.0])
    losses = []

    def step(i):
        w.grad = None
        loss = ((w * float(i % 7) - 1) ** 2).sum()
        loss.backward()
        with minigrad.no_grad():
            v.assign(0.9 * v + w.grad)
            w.assign(w - 0.001 * v)
        losses.append(loss.item())

    assert grown(step, warm=30) == {}
    assert losses[-1] < losses[0] * 2


def test_inference_and_randomness():
    model = net(nn.Dropout(0.5))
    total = Tensor(0.0)

    def step(i):
        x = Tensor(data(i)[0]) + Tensor.rand(3, 4) + Tensor.randn(4)
        with minigrad.no_grad():
            total.assign(total * 0.5 + model(x).softmax(1).max())
        repr(total) if i % 10 == 0 else total.realize()

    assert grown(step, steps=300) == {}


def test_jit_with_everything():
    """Several captures in turn, written state, views, lazy readers, changing learning rates, results kept a while."""
    model = net()
    optimizer = optim.SGD(model.parameters(), 0.01, momentum=0.9)
    running = Tensor.zeros(4)
    bias = model[0].bias
    view = bias[1:3]
    kept = []

    @jit
    def step(x, y, flag):
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y) * (2.0 if flag else 1.0)
        loss.backward()
        running.assign(0.9 * running + x.mean(0))
        optimizer.step()
        return loss, x.T

    def one(i):
        x, y = data(i)
        n = 2 + i % 2
        reader = bias * 2
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + i % 5)
        kept.append(step(x[:n], Tensor(y[:n]), i % 3 == 0))
        if len(kept) > 10:
            kept.pop(0)[0].item()
        if i % 20 == 0:
            reader.numpy(), view.numpy()
            running.assign(0.0)

    assert grown(one, warm=60) == {}


def test_in_place_work_on_one_tensor():
    x = Tensor(np.zeros((4, 4), "f4"))

    def step(i):
        x[i % 4] += 1.0
        x.T[1] *= 0.5
        y = x * 2
        y[0] = 3.0
        y += x
        y.realize()

    assert grown(step, warm=30, steps=300) == {}


def test_differentiable_writes_and_functions():
    class Double(minigrad.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    w = Tensor([1.0, 2.0], requires_grad=True)

    def step(i):
        y = Double.apply(w) * 3
        y += 1
        y[0] = y[1] * 2
        (g,) = (y * y).sum().gradient(w)
        g.numpy()

    assert grown(step, warm=30, steps=300) == {}


def test_shapes_that_change_all_the_time_stay_bounded(monkeypatch):
    monkeypatch.setattr(realize, "_cache", {})
    monkeypatch.setattr(realize, "_CACHE_LIMIT", 30)
    monkeypatch.setattr(device, "PROGRAM_LIMIT", 30)
    monkeypatch.setattr(simplify, "_MANY", 100)

    def step(i):
        (Tensor(np.ones(i + 1, "f4")) * 2).sum().item()

    step(0)
    for i in range(300):
        step(i)
    found = census()
    assert found["schedules"] <= 30 and found["programs"] <= 30 and found["structures"] <= 110
