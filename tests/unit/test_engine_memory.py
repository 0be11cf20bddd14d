"""What is kept and what is let go: nodes, buffers, residuals of a backward pass, compiled graphs; deep graphs."""

import gc
import weakref
from collections import Counter

import numpy as np
import pytest
from steps import arrays, classes

import minigrad
from minigrad import Function, Tensor, device, graph, jit, nn, realize, simplify
from minigrad.errors import GradientError
from minigrad.nn import optim

DEEP = 10_000


@pytest.fixture
def no_collector():
    """Everything must be freed by reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Deep graphs: nothing recurses.


def test_deep_forward_backward_and_release(no_collector):
    """Tinygrad #8617, #8167: RecursionError on deep graphs."""
    w = Tensor([1.0], requires_grad=True)
    x, refs = w, []
    for i in range(DEEP):
        x = x * 0.9999 if i % 2 else x + 0.001
        refs.append(weakref.ref(x.node))
    loss = x.sum()
    loss.backward()
    expected = 1.0
    for i in range(DEEP):
        expected = expected * 0.9999 if i % 2 else expected + 0.001
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert w.grad.item() == pytest.approx(0.9999 ** (DEEP / 2), rel=1e-4)
    del x, loss
    assert not any(ref() for ref in refs)


def test_deep_graphs_that_are_never_computed(no_collector):
    x = Tensor([1.0])
    ref = weakref.ref(x.node)
    for _ in range(100_000):
        x = x + 1
    assert x.shape == (1,) and "Tensor" not in repr(x.node)
    del x
    assert ref() is None


def test_deep_in_many_ways():
    x, y, v, c = Tensor([1.0, 2.0]), Tensor([0.0]), Tensor(np.arange(6.0)), Tensor([1.0])
    for _ in range(DEEP // 10):
        x = x.T.reshape(2, 1).permute(1, 0).reshape(2).flip(0)
        y += 1
        c = Tensor.cat([c, c])[:1] * 1.0
    for i in range(DEEP // 100):
        v = v[::-1] if i % 2 else v.reshape(2, 3).T.reshape(6)
    assert x.tolist() == [1, 2] and y.item() == DEEP // 10 and sorted(v.tolist()) == list(range(6))
    assert c.item() == 1
    (g,) = (c * 2).sum().gradient(c)
    assert g.item() == 2


def test_realizing_views_of_views_does_not_grow():
    x = Tensor(np.arange(6.0))
    for _ in range(200):
        x = x.reshape(2, 3).reshape(6).realize()
    assert len(graph.toposort([x.node], through_buffers=True)) < 100
    assert x.tolist() == list(range(6))


# Dropped tensors.


def test_a_dropped_tensor_frees_its_nodes_and_buffers(no_collector):
    x = Tensor(np.ones(1000, "f4"))
    y = (x * 2).exp().sum()
    refs = [weakref.ref(x.node), weakref.ref(x.node.buffer), weakref.ref(y.node)]
    y.item()
    refs.append(weakref.ref(realize.base_of(y.node)[0].buffer))
    del x
    assert refs[0]() is None and refs[1]() is None  # a realized tensor does not hold what it was computed from
    del y
    assert all(ref() is None for ref in refs)


def test_memory_of_dropped_tensors_is_used_again():
    pool = device.get("numpy").pool
    x = Tensor(np.ones(12345, "f4"))
    del x
    before = (pool.allocations, pool.held)
    for _ in range(10):
        x = Tensor(np.ones(12345, "f4"))
        del x
    assert (pool.allocations, pool.held) == before
    pool.trim()
    assert pool.held < before[1]


def test_a_training_step_frees_its_graph(no_collector):
    w = Tensor(np.ones((8, 8), "f4"), requires_grad=True)
    x = Tensor(arrays(4, 8)[0])
    hidden = (x @ w).tanh()
    loss = (hidden @ w).square().sum()
    refs = [weakref.ref(n) for n in graph.toposort([loss.node]) if n.sources]
    loss.backward()
    w.grad.realize()
    loss.item()
    del hidden, loss
    assert not any(ref() for ref in refs if ref() is not w.node)


def test_losses_that_are_kept_do_not_keep_their_graphs(no_collector):
    w = Tensor(np.ones((8, 8), "f4"), requires_grad=True)
    losses, refs = [], []
    for x in arrays(4, 8):
        w.grad = None
        hidden = (Tensor(x) @ w).tanh()
        loss = (hidden @ w).sum()
        loss.item()
        refs.append(weakref.ref(hidden.node))
        loss.backward()
        w.grad.numpy()
        losses.append(loss)
        del hidden
    assert not any(ref() for ref in refs) and len({loss.item() for loss in losses}) == 5


def test_a_recurrence_with_a_realize_per_step_does_not_grow():
    y = Tensor([1.0])
    x, counts = Tensor([0.0]), []
    for _ in range(50):
        x = (x * 0.9 + y).realize()
        counts.append(len(graph.toposort([x.node], through_buffers=True)))
    assert set(counts) == {1}


class Square(Function):
    """Remembers how often it is asked for its gradient."""

    calls = 0

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * x * y

    @staticmethod
    def backward(ctx, g):
        Square.calls += 1
        x, y = ctx.saved_tensors
        return 2 * g * x * y, g * x * x


def test_functions_leave_nothing_behind_and_run_when_asked(no_collector):
    Square.calls = 0
    x, y = Tensor(np.full(1000, 3.0, "f4"), requires_grad=True), Tensor(np.full(1000, 2.0, "f4"))
    out = Square.apply(x, y)
    loss = (out * out).sum()
    refs = [weakref.ref(n) for n in (x.node, y.node, y.node.buffer, out.node, loss.node)]
    loss.item()
    loss.item()
    assert Square.calls == 0  # computing a value asks no gradient
    loss.backward()
    assert Square.calls == 1 and (x.grad.numpy() == 4 * 27 * 4).all()
    del x, y, out, loss
    assert not any(ref() for ref in refs)


# Residuals.


def model():
    minigrad.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    )


ONCE = {"conv": 2, "conv_weight_grad": 2, "conv_input_grad": 1, "max_pool": 1, "window_scatter": 1, "matmul": 3}


@pytest.mark.parametrize("order", ["bs", "bsi", "bis", "ibs", "ibis", "iibisi", "pbs", "bps", "gibs"])
def test_each_convolution_runs_once(launched, order):
    """Looking at the loss (i), its repr (p), or the gradients (g) between backward and step costs no second pass."""
    x, y = Tensor(arrays(4, 1, 8, 8)[0]), Tensor(classes(4)[0])
    net = model()
    optimizer = optim.SGD(net.parameters(), 0.1)
    loss = net(x).cross_entropy(y)
    actions = {"b": loss.backward, "s": optimizer.step, "i": loss.item, "p": lambda: repr(loss)}
    actions["g"] = lambda: [p.grad for p in net.parameters()]
    for action in order:
        actions[action]()
    net[0].weight.realize()
    found = Counter(kernel.op for kernel in launched)
    assert {op: found[op] for op in ONCE} == ONCE


def test_intermediate_values_that_are_looked_at_are_not_computed_again(launched):
    net, x = model(), Tensor(arrays(4, 1, 8, 8)[0])
    for layer in net:
        x = layer(x)
        repr(x)
    x.square().sum().backward()
    net[0].weight.grad.realize()
    found = Counter(kernel.op for kernel in launched)
    assert {op: found[op] for op in ("conv", "max_pool")} == {"conv": 2, "max_pool": 1}


def test_sorting_keeps_its_order_for_the_backward_pass(launched):
    w = Tensor([3.0, 1.0, 2.0], requires_grad=True)
    loss = (w.sort(0)[0] * Tensor([1.0, 10.0, 100.0])).sum()
    assert loss.item() == 321
    loss.backward()
    assert w.grad.tolist() == [100, 1, 10]
    assert [kernel.op for kernel in launched].count("sort") == 1


def test_without_a_leaf_that_asks_nothing_is_kept():
    x = Tensor(arrays(4, 4)[0])
    hidden = (x @ x).tanh()
    out = (hidden @ x).sum()
    out.item()
    assert realize.base_of(out.node)[0].sources == ()


# Gradients through what was dropped raise, exactly where they would be wrong.


def wrong(tensor, *targets):
    with pytest.raises(GradientError, match="whose sources were dropped when it was realized") as raised:
        tensor.gradient(*targets)
    assert "before realizing" in str(raised.value)
    return True


def test_a_gradient_past_a_realized_tensor_raises():
    x, w = Tensor([2.0]), Tensor([5.0])
    h = x * x
    repr(h)
    assert wrong(h.sum(), x)
    assert wrong((h + x).sum(), x)  # the way that is left would give 1
    assert wrong((h * w).sum(), w, x)
    assert (h * w).sum().gradient(w)[0].item() == 4  # w is not behind h
    assert (h * w).sum().gradient(h)[0].item() == 5


def test_it_is_known_through_tensors_that_are_gone():
    x, w = Tensor([2.0]), Tensor([5.0])
    h = x * w
    for _ in range(3):
        h = (h * 1.5 + 1).realize()
    assert wrong((h + x).sum(), x) and wrong((h + w).sum(), w)
    other = Tensor([1.0])
    assert (h * other).sum().gradient(other)[0].item() == h.item()


def test_it_is_known_of_many_tensors():
    leaves = [Tensor([float(i)]) for i in range(100)]
    total = sum(leaves[1:], leaves[0])
    total.item()
    assert wrong((total + leaves[70]).sum(), leaves[70])
    later = Tensor([2.0])
    assert (total * later).sum().gradient(later)[0].item() == 4950


def test_backward_twice():
    w = Tensor([3.0], requires_grad=True)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    loss.item()
    loss.backward()
    assert w.grad.item() == 12
    loss.item()
    with pytest.raises(GradientError, match=r"retain_graph=True"):
        loss.backward()
    h = w * w
    h.sum().backward()
    h.item()
    with pytest.raises(GradientError, match="backward"):
        (h * w).sum().backward()  # half of it would be missing
    assert w.grad.item() == 18


def test_dropped_integers_and_constants_do_not_matter():
    labels = (Tensor([0, 1, 2]) + 1).realize()
    scale = (Tensor.ones(3) * 2).realize()
    w = Tensor([1.0, 2.0, 3.0])
    assert (w * labels * scale).sum().gradient(w)[0].tolist() == [2, 4, 6]


# The second identical step.


def step_of(net, optimizer):
    def step(x, y):
        optimizer.zero_grad()
        loss = net(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("wrap", [lambda f: f, jit], ids=["plain", "jit"])
def test_the_second_identical_step_compiles_and_allocates_nothing(wrap, monkeypatch):
    net = model()
    step = wrap(step_of(net, optim.Adam(net.parameters())))
    here = device.get("numpy")
    batches = [(Tensor(x), Tensor(y)) for x, y in zip(arrays(4, 1, 8, 8), classes(4))]
    for x, y in batches[:3]:
        step(x, y).item()
    sizes = (realize.cache_size(), len(here.programs), here.pool.allocations, here.pool.held)
    monkeypatch.setattr(here, "compile", lambda kernels: pytest.fail("compiled again"))
    monkeypatch.setattr(realize, "_compile", lambda *args: pytest.fail("scheduled again"))
    monkeypatch.setattr(here.backend, "allocate", lambda nbytes: pytest.fail("asked the device for memory"))
    for x, y in batches[2:]:
        step(x, y).item()
    assert (realize.cache_size(), len(here.programs), here.pool.allocations, here.pool.held) == sizes


def test_structures_that_are_forgotten_are_not_mistaken(monkeypatch):
    monkeypatch.setattr(simplify, "_MANY", 3)
    x = Tensor([2.0, 3.0])
    for _ in range(3):
        assert (x + x).tolist() == [4, 6]
        assert (x * x).tolist() == [4, 9]
        assert (x - 1).exp().log().tolist() == pytest.approx([1, 2])
        assert (x * 2 + 1).sum().item() == 12


def test_compiled_kernels_are_bounded(monkeypatch):
    monkeypatch.setattr(device, "PROGRAM_LIMIT", 20)
    monkeypatch.setattr(realize, "_CACHE_LIMIT", 10)
    x = Tensor([1.0, 2.0])
    for i in range(40):
        assert (x * (i + 0.5) + i).tolist() == [i + 0.5 + i, 2 * i + 1 + i]
    assert len(device.get("numpy").programs) <= 20
    for i in range(3):
        assert (x * (i + 0.5) + i).tolist() == [i + 0.5 + i, 2 * i + 1 + i]


def test_views_of_memory_are_free(launched):
    x = Tensor(np.arange(24.0, dtype="f4").reshape(2, 3, 4)).realize()
    pool = device.get("numpy").pool
    before = pool.allocations
    views = [x.T, x[:, 1:, ::-1], x.reshape(6, 4)[2:].flip(0), x.permute(2, 0, 1)[1].unsqueeze(0), x.expand(5, 2, 3, 4)]
    for view in views:
        view.realize()
    assert not launched and pool.allocations == before
    base = x.numpy()
    for view, expected in zip(views, [
        base.T, base[:, 1:, ::-1], base.reshape(6, 4)[2:][::-1], base.transpose(2, 0, 1)[1][None],
        np.broadcast_to(base, (5, 2, 3, 4)),
    ]):  # fmt: skip
        np.testing.assert_array_equal(view.numpy(), expected)


def test_the_physical_layout_shows_nowhere():
    x, w = Tensor(arrays(16, 3, 6, 6)[0]), Tensor(arrays(4, 3, 3, 3)[0])
    y = x.conv2d(w).relu().realize()
    assert y.node.buffer.order  # batch last, as the NumPy backend asks
    with minigrad.config.settings.override(layouts=False):
        plain = x.conv2d(w).relu().numpy()
    np.testing.assert_allclose(y.numpy(), plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y[3:5, ::2].T.numpy(), plain[3:5, ::2].T, rtol=1e-4, atol=1e-5)
    y[1] = 0.0
    plain[1] = 0
    np.testing.assert_allclose((y * 2).sum(1).numpy(), 2 * plain.sum(1), rtol=1e-4, atol=1e-5)
