"""Writes are never lost, happen in program order, and looking at a tensor changes nothing."""

import gc
import weakref

import numpy as np
import pytest
from steps import arrays, classes

import minigrad
from minigrad import Tensor, device, effects, nn, no_grad
from minigrad.errors import GradientError, OutOfMemory
from minigrad.nn import optim
from minigrad.realize import Run, view_of


def is_computed(tensor):
    return view_of(tensor.node) is not None


def test_writes_that_nobody_reads_happen_with_the_next_realize():
    x, y = Tensor([1.0, 2.0]), Tensor([3.0])
    x += 1
    x[0] = 7.0
    assert effects.pending() and not is_computed(x)
    y.exp().realize()
    assert is_computed(x) and not effects.pending()
    assert x.tolist() == [7.0, 3.0]


def test_writes_are_seen_in_program_order():
    rng = np.random.default_rng(0)
    ours, numpys = Tensor(np.zeros((4, 5), "f4")), np.zeros((4, 5), "f4")
    snapshots = []
    for i in range(60):
        rows, value = slice(rng.integers(0, 3), rng.integers(3, 5)), np.float32(i)
        for x in (ours, numpys):
            if i % 4 == 0:
                x[rows] = float(value)
            elif i % 4 == 1:
                x[:, rows] += float(value)
            elif i % 4 == 2:
                x.T[rows] *= 0.5
            else:
                x += x[0] if isinstance(x, Tensor) else x[0].copy()
        snapshots.append((ours * 1, numpys.copy()))
        if i % 17 == 0:
            ours.realize()
    for lazy, expected in snapshots[::-1]:
        np.testing.assert_allclose(lazy.numpy(), expected, rtol=1e-6)


def test_running_statistics_are_updated_though_nothing_reads_them():
    """Tinygrad #17206."""
    running, count = Tensor.zeros(3), Tensor(0)
    expected = np.zeros(3, "f4")
    for x in arrays(4, 3):
        y = Tensor(x) * 2
        with no_grad():
            running.assign(0.9 * running + 0.1 * y.mean(0))
            count += 1
        (y - y.mean(0)).sum().item()
        expected = 0.9 * expected + 0.1 * (2 * x).mean(0)
    np.testing.assert_allclose(running.numpy(), expected, rtol=1e-5)
    assert count.item() == 5


def train(look):
    """Three steps of a small network; ``look(place, tensors)`` is called between any two statements."""
    minigrad.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 3))
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for x, y in list(zip(arrays(6, 4), classes(6)))[:3]:
        x, y = Tensor(x), Tensor(y)
        look("batch", [x, y])
        optimizer.zero_grad()
        look("zeroed", list(model.parameters()))
        hidden = model[0](x)
        look("hidden", [hidden, hidden.T, hidden[0]])
        out = model[3](model[2](model[1](hidden)))
        look("out", [out])
        loss = out.cross_entropy(y)
        look("loss", [loss])
        loss.backward()
        look("gradients", [loss, *[p.grad for p in model.parameters()]])
        optimizer.step()
        look("parameters", [hidden, loss, *model.parameters(), *[p.grad for p in model.parameters()]])
        losses.append(loss)
    state = [t for p in model.parameters() for t in optimizer.state[p].values()]
    return [t.numpy() for t in (*losses, *model.parameters(), *state)]


LOOKS = {
    "repr": repr,
    "str": str,
    "format": "{}".format,
    "numpy": Tensor.numpy,
    "tolist": Tensor.tolist,
    "realize": Tensor.realize,
    "array": np.asarray,
    "debugger": lambda t: (repr(t.node), t.grad, t.requires_grad, t.is_leaf, vars(type(t)), dir(t), t.shape),
}


@pytest.mark.parametrize("place", ["batch", "zeroed", "hidden", "out", "loss", "gradients", "parameters", "all"])
@pytest.mark.parametrize("name", LOOKS)
def test_looking_changes_nothing(name, place):
    """Printing a tensor inside a training step broke the optimizer in tinygrad (#9891)."""

    def look(here, tensors):
        if place in (here, "all"):
            for tensor in tensors:
                LOOKS[name](tensor)

    for seen, unseen in zip(train(look), train(lambda here, tensors: None)):
        np.testing.assert_allclose(seen, unseen, rtol=1e-6, atol=1e-7)


def test_running_every_operation_at_once_changes_nothing():
    expected = train(lambda here, tensors: None)
    with minigrad.config.settings.override(eager=True, fuse=False):
        found = train(lambda here, tensors: None)
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_read_version_is_kept():
    x = Tensor([1.0, 2.0])
    versions = []
    for i in range(5):
        versions.append((x * 1, x.exp(), x[0] + x[1], Tensor(x)))
        x.assign(x + i)
    found = [v[0].tolist() for v in versions[::-1]]
    assert found == [[7, 8], [4, 5], [2, 3], [1, 2], [1, 2]]
    assert [v[2].item() for v in versions] == [3, 3, 5, 9, 15] and versions[3][3].tolist() == [4, 5]


def test_derivatives_see_the_version_that_was_read():
    w, x = Tensor([2.0], requires_grad=True), Tensor([3.0])
    y = w * w * x
    x.assign(100.0)
    with no_grad():
        w.assign(10.0)
    y.sum().backward()
    assert w.grad.tolist() == [12.0]
    with pytest.raises(GradientError, match="no_grad"):
        w.assign(1.0)
    h = w * 1.0
    h *= h
    h[0] *= x[0]
    (g,) = h.sum().gradient(w)
    assert g.item() == 2 * 10 * 100


# When pending writes are done, and when they are forgotten.


def test_long_lazy_chains_stay_lazy(launched):
    x = Tensor(0.0)
    for _ in range(3000):
        x += 1
    assert not launched and len(effects._pending) == 1
    assert x.item() == 3000


def test_many_pending_writes_flush_by_themselves(launched):
    kept = []
    for i in range(effects.LIMIT + 5):
        kept.append(Tensor(float(i)))
        kept[-1].assign(kept[-1] + 1)
        assert len(effects._pending) <= effects.LIMIT
    assert launched
    assert [t.item() for t in kept[:3]] == [1, 2, 3]


def test_a_dead_tensor_takes_its_write_along(launched):
    gc.collect()
    Tensor([0.0]).realize(*[])  # whatever was pending
    assert not effects._pending
    x = Tensor([1.0])
    x.assign(x.exp())
    node = weakref.ref(x.node)
    del x
    assert not effects._pending and node() is None
    launched.clear()
    Tensor([1.0]).sin().item()
    assert not any(instr.op == "exp" for kernel in launched for instr in kernel.epilogue)


def test_a_write_through_a_view_keeps_the_memory_alive():
    x = Tensor([1.0, 2.0, 3.0])
    view = x[1:]
    del x
    view += 10
    assert view.tolist() == [12, 13]
    alias, x = view.detach(), None
    del view
    alias *= 2
    Tensor([1.0]).exp().item()
    assert alias.tolist() == [24, 26] and x is None


def test_gradients_are_there_after_the_next_realize():
    w = Tensor([1.0, 2.0], requires_grad=True)
    loss = (w * w).sum()
    loss.backward()
    loss.item()
    assert is_computed(w.grad) and w.grad.tolist() == [2, 4]
    (w * 3).sum().backward()
    w.grad = None
    Tensor([1.0]).exp().item()
    assert w.grad is None


def test_writes_on_each_device_are_done_there(twin):
    x, y = Tensor([1.0]), Tensor([1.0], device=twin)
    x += 1
    y += 2
    (Tensor([0.0]) + 1).item()
    assert is_computed(x) and not is_computed(y)
    x.realize(y)
    assert is_computed(y) and (x.item(), y.item()) == (2, 3)


# Failures leave every tensor as it was.


def test_running_out_of_memory_changes_nothing(monkeypatch):
    x, y = Tensor(np.arange(5000, dtype="f4")), Tensor([1.0])
    y += 1
    pool = device.get("numpy").pool
    z = (x * 2).cumsum(0) @ Tensor.ones(5000, 1)
    take, taken = pool.take, []

    def full(nbytes):
        taken.append(nbytes)
        if len(taken) > 2:
            raise OutOfMemory.of("allocate", f"{nbytes} bytes", "none left")
        return take(nbytes)

    monkeypatch.setattr(pool, "take", full)
    with pytest.raises(OutOfMemory) as raised:
        z.item()
    assert isinstance(raised.value, MemoryError) and not is_computed(z)
    monkeypatch.setattr(pool, "take", take)
    assert y.item() == 2 and x[1].item() == 1
    assert z.item() == pytest.approx((np.arange(5000) * 2.0).cumsum().sum(), rel=1e-4)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_launch_is_done_again(monkeypatch, error):
    w = Tensor([1.0, 2.0], requires_grad=True)
    running = Tensor([0.0])
    loss = (w.exp() * w).sum()
    running += 1
    launch = Run.launch

    def interrupted(run):
        raise error

    monkeypatch.setattr(Run, "launch", interrupted)
    with pytest.raises(error):
        loss.item()
    monkeypatch.setattr(Run, "launch", launch)
    loss.backward()
    np.testing.assert_allclose(loss.item(), np.e + 2 * np.e**2, rtol=1e-6)
    np.testing.assert_allclose(w.grad.numpy(), np.exp([1, 2]) * [2, 3], rtol=1e-6)
    assert running.item() == 1
