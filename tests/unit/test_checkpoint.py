"""Gradient checkpointing: the same values and gradients, up to the rounding of sums, with less memory."""

import gc
from typing import NamedTuple

import numpy as np
import pytest

import minigrad
from minigrad import Function, Tensor, checkpoint, device, jit, nn
from minigrad.config import settings


class Pair(NamedTuple):
    """Two results of a function."""

    first: Tensor
    second: Tensor


def same(found, expected):
    """Sums of float32 may be rounded otherwise where kernels are fused in another way; dropout of others would show."""
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def block(width=6):
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(0.3), second, nn.GELU())


def training(shielded, depth=5, captured=True, steps=2, where="numpy"):
    """Losses and parameters of a few steps, and the bytes that the pool has grown by."""
    with minigrad.backend(where):
        minigrad.manual_seed(3)
        blocks = [block() for _ in range(depth)]
        parameters = [p for b in blocks for p in b.parameters()]
        optimizer = nn.optim.SGD(parameters, lr=0.1, momentum=0.9)

        def step(x):
            optimizer.zero_grad()
            for b in blocks:
                x = checkpoint(b, x) if shielded else b(x)
            loss = x.square().mean()
            loss.backward()
            optimizer.step()
            return loss

        x = Tensor.randn(16, 6, 14, 10).realize(*parameters)
        run, pool = jit(step) if captured else step, device.get(where).pool
        gc.collect()
        pool.trim()
        held = pool.held
        losses = [run(x).item() for _ in range(steps)]
        return losses, [p.numpy() for p in parameters], pool.held - held


@pytest.mark.parametrize("captured", [True, False], ids=["jit", "plain"])
def test_training_is_the_same_in_less_memory(captured):
    losses, weights, most = training(False, captured=captured)
    again, others, least = training(True, captured=captured)
    same(losses, again)
    same(weights, others)
    activation = 16 * 6 * 14 * 10 * 4
    assert most > 10 * activation, "two convolutions in each of five blocks"
    assert most - least > 4 * activation, "of every other block at most its input is kept"


def test_a_loss_that_is_read_before_backward_leaves_nothing_behind():
    blocks = [block() for _ in range(4)]
    parameters = [p for b in blocks for p in b.parameters()]
    x, pool = Tensor.randn(16, 6, 14, 10).realize(*parameters), device.get("numpy").pool

    def run(shielded):
        minigrad.manual_seed(0)
        gc.collect()
        pool.trim()
        held, h = pool.held, x
        for b in blocks:
            h = checkpoint(b, h) if shielded else b(h)
        loss = h.square().mean()
        loss.item()
        gc.collect()
        pool.trim()
        held = pool.held - held
        loss.backward()
        grads = [p.grad.numpy() for p in parameters]
        nn.Sequential(*blocks).zero_grad()
        return held, grads

    (most, expected), (least, found) = run(False), run(True)
    activation = 16 * 6 * 14 * 10 * 4
    assert 4 * activation <= least < 5 * activation, "the results of four blocks"
    assert most > 8 * activation, "and of the convolutions in them"
    same(expected, found)


def test_the_function_is_called_once_and_writes_once():
    count, statistics = [], Tensor([0.0, 0.0])

    def function(x):
        count.append(1)
        statistics.assign(statistics + x.detach())
        return (x * statistics).exp()

    x = Tensor([1.0, 2.0], requires_grad=True)
    y = checkpoint(function, x)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [np.e, 2 * np.exp(4.0)], rtol=1e-6)
    assert len(count) == 1 and statistics.tolist() == [1.0, 2.0]


def test_what_is_read_from_elsewhere_has_gradients():
    w, x = Tensor([2.0, 3.0], requires_grad=True), Tensor([0.5, 1.0])
    checkpoint(lambda x: (x * w).exp(), x).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), [0.5, 1.0] * np.exp([1.0, 3.0]), rtol=1e-6)
    assert x.grad is None


def test_several_results_share_what_is_made_again(launched):
    x = Tensor([0.5, 1.0], requires_grad=True)

    def function(x):
        e = x.exp().cumsum(0)
        return Pair(e.sin(), e.cos())

    pair = checkpoint(function, x)
    assert isinstance(pair, Pair)
    (pair.first * 2 + pair.second * 3).sum().backward()
    found = x.grad.numpy()
    assert sum(kernel.op == "cumsum" for kernel in launched) == 1 + 2, "once again, and an adjoint for each result"
    x.grad = None
    first, second = function(x)
    (first * 2 + second * 3).sum().backward()
    np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-6)  # sums in another order


def test_results_that_are_no_work_pass_through():
    x, n = Tensor([1.0, 2.0], requires_grad=True), Tensor([1, 2])
    same, count, nothing, double = checkpoint(lambda x, n, k: [x, n + 1, k, x * 2], x, n, k=None)
    assert same is x and count.tolist() == [2, 3] and nothing is None
    double.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_without_gradients_it_is_a_call():
    w = Tensor([1.0], requires_grad=True)
    with minigrad.no_grad():
        assert not checkpoint(lambda: w * 2).requires_grad


def test_checkpoints_in_checkpoints():
    def inner(x):
        return x.exp().sin()

    def outer(x):
        return checkpoint(inner, checkpoint(inner, x) * 2).tanh()

    x = Tensor(np.linspace(-1, 1, 7), requires_grad=True)
    checkpoint(outer, x).sum().backward()
    found, x.grad = x.grad.numpy(), None
    inner(inner(x) * 2).tanh().sum().backward()
    np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-6)


def test_second_derivatives():
    x = Tensor(np.linspace(-1, 1, 7))

    def second(function):
        (g,) = function(x).sum().gradient(x)
        return g.square().sum().gradient(x)[0].numpy()

    def function(x):
        return (x * x).sin().exp()

    np.testing.assert_allclose(second(lambda x: checkpoint(function, x)), second(function), rtol=1e-6)


def test_a_function_with_a_derivative_of_its_own():
    class Cube(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

    x = Tensor([0.5, 2.0], requires_grad=True)
    checkpoint(lambda x: Cube.apply(x.exp()).log(), x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [3.0, 3.0], rtol=1e-6)


def test_a_value_read_inside_is_kept():
    seen = []

    def function(x):
        h = x.exp()
        seen.append(h.sum().item())
        return h.sin()

    x = Tensor([0.5, 1.0], requires_grad=True)
    checkpoint(function, x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(np.exp([0.5, 1.0])) * np.exp([0.5, 1.0]), rtol=1e-5)
    np.testing.assert_allclose(seen, [np.exp([0.5, 1.0]).sum()], rtol=1e-6)


def test_indices_of_a_pool_made_outside_and_read_inside():
    x = Tensor.rand(2, 3, 6, 4, requires_grad=True)
    values, indices = x.max_pool2d(2, return_indices=True)
    y = checkpoint(lambda v: v.exp() * indices, values)
    y.sum().backward()
    found, x.grad = x.grad.numpy(), None
    values, indices = x.max_pool2d(2, return_indices=True)
    (values.exp() * indices).sum().backward()
    np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-6)


def test_a_second_backward_over_a_kept_graph():
    x = Tensor([0.5, 1.0], requires_grad=True)
    y = checkpoint(lambda x: x.exp().sin(), x).sum()
    y.backward(retain_graph=True)
    once = x.grad.numpy()
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)


def test_operation_by_operation():
    with settings.override(eager=True, fuse=False):
        losses, weights, _ = training(True, depth=2, captured=False)
        again, others, _ = training(False, depth=2, captured=False)
    same(losses, again)
    same(weights, others)
